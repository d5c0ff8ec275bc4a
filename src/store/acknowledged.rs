//! How far a store was acknowledged, in a small file of its own: the proof against a log that lost its end in silence.
//!
//! It says whose store it speaks of, so that one of another collection proves nothing.
//! Two slots of fixed size in a file that never grows. A batch writes the slot of its number, so the one before stays
//! whole while the next is written; the file is synced after the store and before anybody is answered. So a store that
//! has less than the file says has lost what was acknowledged. It may have more: a batch that nobody was told of.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    StoreError,
    disk::Disk,
    identity::Identity,
    private,
    record::{FRAME_BYTES, frame, unframe},
};
use crate::files::regular;

/// Name of the file, beside the folder of the store.
pub(crate) const ACKNOWLEDGED_FILE: &str = "acknowledged";

/// What an operator writes into the file to say that what is left is enough.
const ACCEPT: &[u8] = b"accept";

/// A slot has a block of the device to itself, so that writing one cannot tear the other.
const SLOT_BYTES: usize = 4096;

const FILE_BYTES: usize = 2 * SLOT_BYTES;

/// Four numbers of 8 bytes, and the identity.
const PROOF_BYTES: usize = 48;

/// Formats 1 and 2 wrote no identity.
const EARLIER_PROOF_BYTES: usize = 32;

/// What a store must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    /// Counts batches.
    pub(super) sequence: u64,
    pub(super) documents: u64,
    pub(super) passages: u64,
    pub(super) digest: u64,
    /// `None` where an earlier format wrote it.
    pub(super) identity: Option<Identity>,
}

/// What is in place of the file.
pub(super) enum Found {
    Missing,
    /// The operator accepts what the store holds.
    Accepted,
    Proof(Acknowledged, Proof),
}

/// The file, open to be written.
#[derive(Debug)]
pub(super) struct Acknowledged {
    path: PathBuf,
    /// `None` until it was made by [`Acknowledged::renew`].
    file: Mutex<Option<File>>,
    disk: Arc<dyn Disk>,
}

impl Proof {
    fn to_bytes(self) -> Vec<u8> {
        [self.sequence, self.documents, self.passages, self.digest]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .chain(self.identity.into_iter().flat_map(|identity| identity.0))
            .collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, identity) = bytes.split_at_checked(EARLIER_PROOF_BYTES)?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let &[sequence, documents, passages, digest] = numbers else { return None };
        let [sequence, documents, passages, digest] =
            [sequence, documents, passages, digest].map(u64::from_le_bytes);
        let identity = match identity {
            [] => None,
            identity => Some(Identity(identity.try_into().ok()?)),
        };
        Some(Proof { sequence, documents, passages, digest, identity })
    }

    fn offset(self) -> usize {
        if self.sequence.is_multiple_of(2) { 0 } else { SLOT_BYTES }
    }
}

/// The path of the file that belongs to the store in `dir`.
pub(super) fn path_of(dir: &Path) -> PathBuf {
    dir.with_file_name(ACKNOWLEDGED_FILE)
}

impl Acknowledged {
    /// For the file at `path`, which is yet to be made by [`Acknowledged::renew`].
    pub(super) fn new(path: &Path, disk: Arc<dyn Disk>) -> Self {
        Acknowledged { path: path.to_owned(), file: Mutex::new(None), disk }
    }

    /// Whether it is there to be written.
    pub(super) fn is_made(&self) -> bool {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Makes the file, whole or not at all, in place of what is there.
    pub(super) fn renew(&self, proof: Proof) -> Result<(), StoreError> {
        let mut bytes = vec![0; FILE_BYTES];
        let (slot, _) = frame(&proof.to_bytes());
        bytes[proof.offset()..][..slot.len()].copy_from_slice(&slot);
        let mut place = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        super::whole::replace(&self.path, &bytes, &*self.disk)?;
        // The one that was open is not the one that is there now.
        *place = None;
        let file = regular::open_with(&self.path, private::options().read(true).write(true));
        *place = Some(file.map_err(|e| StoreError::io(&self.path, e))?);
        Ok(())
    }

    /// Looks for the file and reads the newer slot of it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if no slot can be read, [`StoreError::Io`].
    pub(super) fn find(path: &Path, disk: Arc<dyn Disk>) -> Result<Found, StoreError> {
        let failed = |e| StoreError::io(path, e);
        let mut file = match regular::open_with(path, private::options().read(true).write(true)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(e) => return Err(failed(e)),
        };
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        Read::by_ref(&mut file).take(FILE_BYTES as u64).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.trim_ascii() == ACCEPT {
            return Ok(Found::Accepted);
        }
        let newest = [0, SLOT_BYTES]
            .into_iter()
            .filter_map(|at| {
                let of_length = |len: usize| {
                    let slot = bytes.get(at..at + FRAME_BYTES + len)?;
                    Proof::from_bytes(&unframe(slot, path, "a slot").ok()?.0)
                };
                let proof = of_length(PROOF_BYTES).or_else(|| of_length(EARLIER_PROOF_BYTES))?;
                (proof.offset() == at).then_some(proof)
            })
            .max_by_key(|proof| proof.sequence);
        let Some(proof) = newest else {
            return Err(StoreError::corrupt(
                path,
                format!("none of its slots can be read; {}", remedy(path)),
            ));
        };
        Ok(Found::Proof(Acknowledged { path: path.to_owned(), file: Mutex::new(Some(file)), disk }, proof))
    }

    /// Writes the proof of a batch and returns when it is on the device.
    pub(super) fn write(&self, proof: Proof) -> Result<(), StoreError> {
        let (slot, _) = frame(&proof.to_bytes());
        let mut place = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let write = |file: Option<&mut File>| {
            let file = file.ok_or(io::ErrorKind::NotConnected)?;
            file.seek(SeekFrom::Start(proof.offset() as u64))?;
            file.write_all(&slot)?;
            self.disk.sync(file)
        };
        write(place.as_mut()).map_err(|e| StoreError::io(&self.path, e))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// What an operator can do about a store that has less than was acknowledged.
pub(crate) fn remedy(path: &Path) -> String {
    format!(
        "put the collection's whole folder back from a backup, or accept what is left with: echo accept > {}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::{super::disk::RealDisk, *};

    fn proof(sequence: u64) -> Proof {
        let identity = Some(Identity([9; 16]));
        Proof { sequence, documents: 2 * sequence, passages: 3 * sequence, digest: !sequence, identity }
    }

    fn found(path: &Path) -> Result<Option<Proof>, StoreError> {
        Ok(match Acknowledged::find(path, Arc::new(RealDisk))? {
            Found::Proof(_, proof) => Some(proof),
            Found::Missing | Found::Accepted => None,
        })
    }

    #[test]
    fn the_newest_batch_is_found_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ACKNOWLEDGED_FILE);
        assert!(matches!(Acknowledged::find(&path, Arc::new(RealDisk)), Ok(Found::Missing)));
        let file = Acknowledged::new(&path, Arc::new(RealDisk));
        assert!(file.write(proof(0)).is_err());
        file.renew(proof(0)).unwrap();
        assert_eq!(found(&path).unwrap(), Some(proof(0)));
        for sequence in 1..6 {
            file.write(proof(sequence)).unwrap();
            assert_eq!(found(&path).unwrap(), Some(proof(sequence)));
            assert_eq!(std::fs::metadata(&path).unwrap().len(), FILE_BYTES as u64);
        }
        // As an earlier format wrote it.
        let earlier = Proof { identity: None, ..proof(5) };
        file.write(earlier).unwrap();
        assert_eq!(found(&path).unwrap(), Some(earlier));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT_BYTES + 12] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(found(&path).unwrap(), Some(proof(4)));
        bytes[12] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = found(&path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("echo accept > "), "{error}");
        std::fs::write(&path, "accept\n").unwrap();
        assert!(matches!(Acknowledged::find(&path, Arc::new(RealDisk)), Ok(Found::Accepted)));
    }
}
