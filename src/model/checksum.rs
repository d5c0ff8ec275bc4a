//! SHA-256 and size of files, streamed: memory stays constant however large the weights are.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const BUFFER_BYTES: usize = 1 << 20;

/// Size and checksum that a file must have, as recorded when it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSum {
    /// SHA-256 in lowercase hex.
    pub sha256: String,
    /// Size in bytes, which is checked whenever the model is opened.
    pub bytes: u64,
}

impl FileSum {
    /// Reads a file to its end.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(FileSum { sha256: hex(&hasher.finalize()), bytes });
            }
            hasher.update(&buffer[..read]);
            bytes += read as u64;
        }
    }

    /// The checksum of bytes in memory.
    pub fn of_bytes(content: &[u8]) -> Self {
        FileSum { sha256: hex(&Sha256::digest(content)), bytes: content.len() as u64 }
    }
}

/// Lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer_of_the_standard() {
        let sum = FileSum::of_bytes(b"abc");
        assert_eq!(sum.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sum.bytes, 3);
    }

    #[test]
    fn file_longer_than_the_buffer_has_the_sum_of_its_bytes() {
        let content: Vec<u8> = (0..BUFFER_BYTES + 4567).map(|i| (i % 251) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &content).unwrap();
        assert_eq!(FileSum::of_file(file.path()).unwrap(), FileSum::of_bytes(&content));
    }
}
