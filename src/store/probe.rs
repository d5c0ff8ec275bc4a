//! Whether the disk under a data folder takes what is given to it.

use std::path::Path;

use super::{
    StoreError,
    disk::{Disk, RealDisk},
    state::RESERVE_BYTES,
};

/// A file that is written again and again, to see that it can be. Anybody may delete it.
const PROBE_FILE: &str = "probe";

/// Writes a small file and syncs it. Slow where the disk is; it may hang where the disk does.
///
/// # Errors
/// [`StoreError::Io`] if it cannot; [`StoreError::DiskFull`] if there is less space than a write of documents leaves.
pub(crate) fn probe(data: &Path) -> Result<(), StoreError> {
    probe_on(data, &RealDisk)
}

fn probe_on(data: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let path = data.join(PROBE_FILE);
    disk.write_file(&path, b"probe\n").map_err(|e| StoreError::io(&path, e))?;
    let free = disk.available(data).map_err(|e| StoreError::io(data, e))?;
    if free < RESERVE_BYTES {
        return Err(StoreError::DiskFull { path: data.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::store::disk::faulty::FaultyDisk;

    #[test]
    fn a_full_or_missing_disk_is_told_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        probe_on(dir.path(), &disk).unwrap();
        disk.free.store(1 << 20, Ordering::SeqCst);
        assert!(matches!(probe_on(dir.path(), &disk), Err(StoreError::DiskFull { .. })));
        disk.free.store(u64::MAX, Ordering::SeqCst);
        probe_on(dir.path(), &disk).unwrap();
        assert!(matches!(probe(&dir.path().join("absent")), Err(StoreError::Io { .. })));
    }
}
