//! The bytes of a file without reading them: memory-mapped. Only this file names `memmap2`.
//!
//! The system brings a page when it is first touched, and takes it back when memory is short.
//!
//! What the library can do to us: nothing by itself, but a mapping shows the file as it is now. If another process
//! writes to it, bytes change under a slice that Rust takes for constant; if somebody cuts it, touching what is gone
//! ends the process with SIGBUS, and so does a page that the device cannot read. Hence only files are mapped that are
//! written once, synced, given their name and never changed again, in folders that are this user's alone.

use std::{fmt, fs::File, io, ops::Deref};

use memmap2::Mmap;

/// The bytes of a file, from the beginning of a page. Dropping it gives the addresses back.
pub(crate) struct Mapped(Option<Mmap>);

impl Mapped {
    /// Maps a whole file.
    ///
    /// # Errors
    /// What the system says: it cannot map such a file, or has no addresses left.
    #[expect(unsafe_code, reason = "only whoever opens the file can know that nobody changes it")]
    pub(super) fn of(file: &File) -> io::Result<Self> {
        // An empty mapping is none on most systems.
        if file.metadata()?.len() == 0 {
            return Ok(Mapped(None));
        }
        // SAFETY: the bytes must not change while they are mapped. Files that are mapped are sealed: our own code
        // writes them before they get their name and never again (it removes them, which leaves a mapping whole), and
        // they lie in folders that only this user may enter. What is left is this user's own harm.
        let map = unsafe { Mmap::map(file)? };
        Ok(Mapped(Some(map)))
    }

    /// A copy of `bytes` that is laid out as a mapped file is: from the beginning of a page.
    ///
    /// # Errors
    /// The system has no memory left.
    #[cfg(test)]
    pub(super) fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        if bytes.is_empty() {
            return Ok(Mapped(None));
        }
        let mut map = memmap2::MmapMut::map_anon(bytes.len())?;
        map.copy_from_slice(bytes);
        Ok(Mapped(Some(map.make_read_only()?)))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_shows_the_bytes_of_the_file_from_the_beginning_of_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for len in [0, 1, 4095, 4096, 10_000] {
            let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let file = File::open(&path).unwrap();
            let (map, copy) = (Mapped::of(&file).unwrap(), Mapped::copy_of(&bytes).unwrap());
            // A mapping outlives the handle and the name.
            drop(file);
            std::fs::remove_file(&path).unwrap();
            assert!(*map == *bytes && *copy == *bytes, "{len}");
            if len > 0 {
                assert_eq!((map.as_ptr().addr() % 4096, copy.as_ptr().addr() % 4096), (0, 0));
            }
        }
    }
}
