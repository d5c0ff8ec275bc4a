//! Files read from beginning to end, with their length and SHA-256: what a backup says of each of its files.

use std::{fmt, io};

use sha2::{Digest as _, Sha256};

use super::disk::{Disk, DiskFile};
use crate::stop::Stop;

/// Bytes that are read at once.
const STEP_BYTES: usize = 1 << 20;

/// Length and SHA-256 of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

impl Sum {
    /// The SHA-256 as it is written: 64 hexadecimal digits.
    pub(crate) fn digits(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of SHA-256 {}", self.bytes, self.digits())
    }
}

/// Reads a file piece by piece; `each` gets every piece and where it begins. What the system says is an error by
/// `failed`, and so is a `stop`.
pub(crate) fn read<E>(
    file: &dyn DiskFile,
    stop: &Stop,
    failed: impl Fn(io::Error) -> E,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Sum, E> {
    let mut step = vec![0; STEP_BYTES];
    let (mut bytes, mut sha) = (0, Sha256::new());
    loop {
        stop.check().map_err(|stopped| failed(io::Error::other(stopped)))?;
        let read = file.read_at(bytes, &mut step).map_err(&failed)?;
        if read == 0 {
            return Ok(Sum { bytes, sha256: sha.finalize().into() });
        }
        sha.update(&step[..read]);
        each(bytes, &step[..read])?;
        bytes += read as u64;
    }
}

/// The sum of a file.
///
/// # Errors
/// What the system says; [`io::ErrorKind::Other`] if it was told to stop.
pub(crate) fn of(disk: &dyn Disk, path: &std::path::Path, stop: &Stop) -> io::Result<Sum> {
    read(&*disk.read_only(path)?, stop, |error| error, |_, _| Ok(()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::files::disk::RealDisk;

    #[test]
    fn a_file_of_several_pieces_has_the_sum_of_all_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        // The first of the examples of FIPS 180-2, and a length that is no multiple of a piece.
        std::fs::write(&path, "abc").unwrap();
        let sum = of(&RealDisk, &path, &Stop::default()).unwrap();
        assert_eq!(sum.bytes, 3);
        assert_eq!(sum.digits(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let long: Vec<u8> = (0..2 * STEP_BYTES + 5).map(|n| n as u8).collect();
        std::fs::write(&path, &long).unwrap();
        let (mut pieces, file) = (Vec::new(), RealDisk.read_only(&path).unwrap());
        let sum = read(
            &*file,
            &Stop::default(),
            |error| error,
            |at, piece| {
                assert_eq!(at, pieces.len() as u64);
                pieces.extend_from_slice(piece);
                Ok(())
            },
        )
        .unwrap();
        assert!(pieces == long && sum.bytes == long.len() as u64);
        assert_eq!(sum.sha256, <[u8; 32]>::from(Sha256::digest(&long)));
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "abc").unwrap();
        assert!(of(&RealDisk, &dir.path().join("f"), &Stop::at(Some(Instant::now()))).is_err());
    }
}
