//! How far an earlier version's store was acknowledged, in a small file beside it: the proof against a log of sled that
//! lost its end in silence. It is read, and written no more.
//!
//! It says whose store it speaks of, so that one of another collection proves nothing. Two slots of fixed size: a batch
//! wrote the slot of its number, after the store and before anybody was answered. So a store that has less than the file
//! says has lost what was acknowledged. It may have more: a batch that nobody was told of.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    StoreError,
    identity::Identity,
    record::{FRAME_BYTES, unframe},
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
    Proof(Proof),
}

impl Proof {
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

/// Looks for the file and reads the newer slot of it.
///
/// # Errors
/// [`StoreError::Corrupt`] if no slot can be read, [`StoreError::Io`].
pub(super) fn find(path: &Path) -> Result<Found, StoreError> {
    let failed = |e| StoreError::io(path, e);
    let mut file = match regular::open(path) {
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
    match newest {
        Some(proof) => Ok(Found::Proof(proof)),
        None => {
            let reason = format!("none of its slots can be read; {}", remedy(path));
            Err(StoreError::corrupt(path, reason))
        }
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
    use super::{super::record::frame, *};

    fn proof(sequence: u64) -> Proof {
        let identity = Some(Identity([9; 16]));
        Proof { sequence, documents: 2 * sequence, passages: 3 * sequence, digest: !sequence, identity }
    }

    /// As earlier versions wrote it.
    fn write(bytes: &mut [u8], proof: Proof) {
        let Proof { sequence, documents, passages, digest, identity } = proof;
        let mut body: Vec<u8> =
            [sequence, documents, passages, digest].iter().flat_map(|n| n.to_le_bytes()).collect();
        body.extend(identity.into_iter().flat_map(|identity| identity.0));
        let (slot, _) = frame(&body);
        bytes[proof.offset()..][..slot.len()].copy_from_slice(&slot);
    }

    fn found(path: &Path) -> Result<Option<Proof>, StoreError> {
        Ok(match find(path)? {
            Found::Proof(proof) => Some(proof),
            Found::Missing | Found::Accepted => None,
        })
    }

    #[test]
    fn the_newest_batch_is_found_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ACKNOWLEDGED_FILE);
        assert!(matches!(find(&path), Ok(Found::Missing)));
        let mut bytes = vec![0; FILE_BYTES];
        for sequence in 0..6 {
            write(&mut bytes, proof(sequence));
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(found(&path).unwrap(), Some(proof(sequence)));
        }
        // As formats 1 and 2 wrote it.
        let earlier = Proof { identity: None, ..proof(5) };
        write(&mut bytes, earlier);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(found(&path).unwrap(), Some(earlier));
        bytes[SLOT_BYTES + 12] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(found(&path).unwrap(), Some(proof(4)));
        bytes[12] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = found(&path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("echo accept > "), "{error}");
        std::fs::write(&path, "accept\n").unwrap();
        assert!(matches!(find(&path), Ok(Found::Accepted)));
    }
}
