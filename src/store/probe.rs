//! Whether the disk under a data folder takes what is given to it.
//!
//! How much room is left is looked at elsewhere, where stores that found none are opened again.

use std::path::Path;

use super::{
    StoreError,
    disk::{Disk, RealDisk},
};

/// A file that is written again and again, to see that it can be. Anybody may delete it.
const PROBE_FILE: &str = "probe";

/// Writes a small file and syncs it. Slow where the disk is; it may hang where the disk does.
///
/// # Errors
/// [`StoreError::Io`] if it cannot; [`StoreError::DiskFull`] if there is no room even for that.
pub(crate) fn probe(data: &Path) -> Result<(), StoreError> {
    let path = data.join(PROBE_FILE);
    RealDisk.write_file(&path, b"probe\n").map_err(|e| StoreError::full_or_io(&path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        probe(dir.path()).unwrap();
        assert!(matches!(probe(&dir.path().join("absent")), Err(StoreError::Io { .. })));
    }
}
