//! The manifest of a collection's segments, file `segments`: which segments there are, and up to which entry of the log
//! they hold everything.
//!
//! It is written whole, beside, synced and renamed, so it is there as it was or as it is. Nothing else tells which of the
//! numbered folders are the collection: without it, or with one that is damaged, the collection is refused.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    files::disk::{Disk, is_no_room},
    log,
    store::{
        Identity, StoreError,
        folder::SEGMENTS_FILE,
        record::{decode, encode},
    },
};

/// What is being written.
const BESIDE: &str = "segments.new";

/// The first bytes of the file.
const MAGIC: [u8; 8] = *b"dfsegmts";

/// Version of the layout that `FORMAT.md` describes.
const VERSION: u16 = 2;

/// Version that has neither [`Manifest::requests`] nor [`Manifest::reserved`], and is written where both are 0: an
/// earlier release opens it.
const PLAIN_VERSION: u16 = 1;

/// Magic, version, two zero bytes, length of the body, identity, CRC32C of the body, CRC32C of all before.
const HEADER_BYTES: usize = 40;

/// Longest manifest that is read: far more segments than merging leaves.
const BYTES_MAX: u64 = 16 << 20;

/// What to do where the manifest is not there or cannot be read.
const REMEDY: &str = "`distilface repair` makes it again of the segments; else put `segments` and all numbered folders and files back together from one backup, or delete the collection; the documents lie in the numbered folders still";

/// What a collection's segments are, as of an entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The log that its sequences are of: a folder that is put beside another log has lost what that one does not have.
    pub(super) log: log::Identity,
    /// Numbers of a vector.
    pub(super) dimension: u32,
    /// Everything that entries of the collection up to this sequence say is in the segments and their deletions.
    pub(super) covered: u64,
    /// Every document number given out by entries up to [`Manifest::covered`] is below.
    pub(super) next_number: u64,
    /// Every segment number given out is below.
    pub(super) next_segment: u32,
    /// In the order of their documents.
    pub(super) segments: Vec<Named>,
    /// Segments below [`Manifest::next_segment`] that may be removed if they are there: merged into others, or never
    /// finished.
    pub(super) removable: Vec<u32>,
    /// The file `requests` holds everything that entries up to this sequence say at least; 0: it need not be there.
    #[serde(skip)]
    pub(super) requests: u64,
    /// Document numbers below may have been given to documents that were lost with the power.
    #[serde(skip)]
    pub(super) reserved: u64,
}

/// A segment as the manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) number: u32,
    /// Documents in it, the deleted ones too.
    pub(super) rows: u32,
    /// Vectors in it, those of deleted documents too.
    pub(super) passages: u64,
    /// Number of the first document.
    pub(super) first: u64,
    /// Number of the last document.
    pub(super) last: u64,
    /// Version of the file that says which documents are deleted; 0: there is none.
    pub(super) deletions: u64,
    /// Documents that are not deleted.
    pub(super) live: u32,
    /// Vectors of documents that are not deleted.
    pub(super) live_passages: u64,
    /// Bytes of its files.
    pub(super) bytes: u64,
}

impl Manifest {
    /// That of a new collection. Entries of `log` up to `covered` are not its.
    pub(super) fn new(log: log::Identity, dimension: u32, covered: u64) -> Self {
        Manifest {
            log,
            dimension,
            covered,
            next_number: 0,
            next_segment: 1,
            segments: Vec::new(),
            removable: Vec::new(),
            requests: 0,
            reserved: 0,
        }
    }

    /// Where it lies in a collection's folder.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(SEGMENTS_FILE)
    }

    /// The manifest of a collection; `None` if there is no such file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::NewerFormat`], [`StoreError::OtherCollection`], [`StoreError::Io`].
    pub(super) fn read(disk: &dyn Disk, dir: &Path, identity: Identity) -> Result<Option<Self>, StoreError> {
        match Self::look(disk, dir)? {
            Some((got, _)) if got != identity => {
                let remedy = "put this file and the numbered folders back into the folder that they came from, and this collection's own here".to_owned();
                Err(StoreError::OtherCollection { path: Self::path(dir), got, expected: identity, remedy })
            }
            found => Ok(found.map(|(_, manifest)| manifest)),
        }
    }

    /// The manifest of some collection, and whose it is.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub(super) fn look(disk: &dyn Disk, dir: &Path) -> Result<Option<(Identity, Self)>, StoreError> {
        Self::look_at(disk, &Self::path(dir))
    }

    /// The same of a file of any name.
    pub(super) fn look_at(disk: &dyn Disk, path: &Path) -> Result<Option<(Identity, Self)>, StoreError> {
        let damaged = |reason: &str| StoreError::corrupt(path, format!("{reason}; {REMEDY}"));
        let file = match disk.read_only(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Err(damaged(&e.to_string())),
            Err(e) => return Err(StoreError::io(path, e)),
        };
        let io = |e| StoreError::io(path, e);
        let len = file.len().map_err(io)?;
        if len > BYTES_MAX {
            return Err(damaged(&format!("it has {len} bytes, more than any manifest")));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(0, &mut bytes).map_err(io)?;
        let (identity, manifest) = Self::decode(&bytes, path, damaged)?;
        manifest.check().map_err(|reason| damaged(&reason)).map(|()| Some((identity, manifest)))
    }

    /// What is said where there is none although there are segments, or the log has entries.
    pub(super) fn missing(dir: &Path, why: &str) -> StoreError {
        StoreError::corrupt(&Self::path(dir), format!("it is missing, and {why}; {REMEDY}"))
    }

    fn decode(
        bytes: &[u8],
        path: &Path,
        damaged: impl Fn(&str) -> StoreError,
    ) -> Result<(Identity, Self), StoreError> {
        let (version, identity, body) = unframed(bytes, MAGIC, VERSION, path, damaged)?;
        if version == PLAIN_VERSION {
            return Ok((identity, decode(body, path, "it")?));
        }
        let (manifest, requests, reserved): (Manifest, u64, u64) = decode(body, path, "it")?;
        Ok((identity, Manifest { requests, reserved, ..manifest }))
    }

    /// Refuses what nothing of ours writes.
    fn check(&self) -> Result<(), String> {
        let mut after = None;
        for Named { number, rows, first, last, live, passages, live_passages, .. } in &self.segments {
            let ascends = after.is_none_or(|after| after < *first);
            let fits = first <= last
                && *last < self.next_number
                && last - first >= u64::from(*rows).saturating_sub(1);
            if *rows == 0 || !ascends || !fits || live > rows || live_passages > passages {
                return Err(format!("what it says of segment {number} cannot be"));
            }
            after = Some(*last);
        }
        let numbers =
            self.segments.iter().map(|segment| segment.number).chain(self.removable.iter().copied());
        let mut numbers: Vec<u32> = numbers.collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.len() < count || numbers.last().is_some_and(|last| *last >= self.next_segment) {
            return Err("it names a segment twice, or one whose number was not given out".to_owned());
        }
        Ok(())
    }

    /// Puts it in place, durably.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`]: either may be there at the next start. Any other: what was there before is there still.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path, identity: Identity) -> Result<(), StoreError> {
        debug_assert_eq!(self.check(), Ok(()));
        replace(disk, &Self::path(dir), &dir.join(BESIDE), &self.encode(identity))
    }

    fn encode(&self, identity: Identity) -> Vec<u8> {
        match (self.requests, self.reserved) {
            (0, 0) => framed(MAGIC, PLAIN_VERSION, identity, &encode(self)),
            more => framed(MAGIC, VERSION, identity, &encode(&(self, more.0, more.1))),
        }
    }

    /// Documents that are not deleted.
    pub(super) fn documents(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.live)).sum()
    }

    /// Vectors of documents that are not deleted.
    #[cfg(test)]
    pub(super) fn passages(&self) -> u64 {
        self.segments.iter().map(|segment| segment.live_passages).sum()
    }
}

/// The bytes of a file: header and body.
pub(super) fn framed(magic: [u8; 8], version: u16, identity: Identity, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("such a file is far below 4 GiB");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&identity.0);
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Version, identity and body of a file that [`framed`] made, with a version up to `newest`.
///
/// # Errors
/// What `damaged` makes of the reason; [`StoreError::NewerFormat`].
pub(super) fn unframed<'a>(
    bytes: &'a [u8],
    magic: [u8; 8],
    newest: u16,
    path: &Path,
    damaged: impl Fn(&str) -> StoreError,
) -> Result<(u16, Identity, &'a [u8]), StoreError> {
    let (header, body) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged("it is cut short"))?;
    if header[..8] != magic {
        return Err(damaged("it does not begin as such a file does"));
    }
    let crc = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if crc32c::crc32c(&header[..36]) != crc(36) {
        return Err(damaged("its header has a wrong checksum"));
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version > newest {
        let (got, supported) = (version.into(), newest.into());
        return Err(StoreError::NewerFormat { path: path.to_owned(), got, supported });
    }
    if version == 0 || header[10..12] != [0, 0] {
        return Err(damaged("its header has values that no version wrote"));
    }
    let mut identity = [0; 16];
    identity.copy_from_slice(&header[16..32]);
    if body.len() as u64 != u64::from(crc(12)) {
        return Err(damaged("it has not the length that its header says"));
    }
    if crc32c::crc32c(body) != crc(32) {
        return Err(damaged("it has a wrong checksum"));
    }
    Ok((version, Identity(identity), body))
}

/// Puts a whole file in place of `path`, durably, by way of `beside`.
///
/// # Errors
/// [`StoreError::Unsettled`]: either may be there at the next start. Any other: what was there before is there still.
pub(super) fn replace(disk: &dyn Disk, path: &Path, beside: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    match disk.remove(beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(beside, e)),
        _ => {}
    }
    let written = (|| {
        let file = disk.create(beside)?;
        file.write_at(0, bytes)?;
        file.sync_all()
    })();
    written.map_err(|e| StoreError::full_or_io(beside, e))?;
    let unsettled = |source| StoreError::Unsettled { path: path.to_owned(), source };
    disk.rename(beside, path).map_err(|error| match is_no_room(&error) {
        true => StoreError::full_or_io(path, error),
        false => unsettled(error),
    })?;
    disk.sync_dir(path.parent().unwrap_or(path)).map_err(unsettled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::disk::RealDisk;

    const IDENTITY: Identity = Identity([7; 16]);

    fn named(number: u32, first: u64, last: u64) -> Named {
        let rows = u32::try_from(last - first).unwrap();
        Named {
            number,
            rows,
            passages: 9,
            first,
            last,
            deletions: 2,
            live: rows - 1,
            live_passages: 8,
            bytes: 4096,
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            log: [3; 16],
            dimension: 3,
            covered: 77,
            next_number: 50,
            next_segment: 12,
            segments: vec![named(9, 0, 20), named(3, 21, 49)],
            removable: vec![4, 11],
            requests: 0,
            reserved: 0,
        }
    }

    fn read(dir: &Path) -> Result<Option<Manifest>, StoreError> {
        Manifest::read(&RealDisk, dir, IDENTITY)
    }

    #[test]
    fn it_is_replaced_whole_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join(BESIDE), "the remains of a write that was cut off").unwrap();
        let more = Manifest { requests: 70, reserved: 1 << 40, ..manifest() };
        for (manifest, version) in [(Manifest::new([3; 16], 3, 5), 1), (more, 2), (manifest(), 1)] {
            manifest.write(&RealDisk, dir.path(), IDENTITY).unwrap();
            assert_eq!(read(dir.path()).unwrap().unwrap(), manifest);
            // One that an earlier release understands is written for it.
            assert_eq!(std::fs::read(Manifest::path(dir.path())).unwrap()[8], version);
        }
        assert_eq!((manifest().documents(), manifest().passages()), (46, 16));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_seen_and_the_file_named() {
        let dir = tempfile::tempdir().unwrap();
        manifest().write(&RealDisk, dir.path(), IDENTITY).unwrap();
        let path = Manifest::path(dir.path());
        let good = std::fs::read(&path).unwrap();
        let bad = (0..good.len()).flat_map(|at| {
            let flipped = |bit: u8| {
                let mut bad = good.clone();
                bad[at] ^= bit;
                bad
            };
            [flipped(1), flipped(0x80), good[..at].to_vec()]
        });
        let longer = [&good[..], &[0]].concat();
        for bad in bad.chain([longer]) {
            std::fs::write(&path, &bad).unwrap();
            let error = read(dir.path()).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(&*path.to_string_lossy()) && text.contains("backup"), "{text}");
        }
    }

    #[test]
    fn one_of_a_later_version_or_of_another_collection_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        manifest().write(&RealDisk, dir.path(), Identity([8; 16])).unwrap();
        let error = read(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::OtherCollection { .. }), "{error}");
        let mut bytes = manifest().encode(IDENTITY);
        bytes[8] = 3;
        let crc = crc32c::crc32c(&bytes[..36]).to_le_bytes();
        bytes[36..40].copy_from_slice(&crc);
        std::fs::write(Manifest::path(dir.path()), bytes).unwrap();
        let error = read(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::NewerFormat { got: 3, supported: 2, .. }), "{error}");
    }

    #[test]
    fn what_nothing_of_ours_writes_is_refused() {
        let wrong: [fn(&mut Manifest); 7] = [
            |manifest| manifest.segments[1].first = 20,
            |manifest| manifest.segments[1].last = 50,
            |manifest| manifest.segments[0].rows = 22,
            |manifest| manifest.segments[0].rows = 0,
            |manifest| manifest.segments[0].live = 21,
            |manifest| manifest.removable.push(9),
            |manifest| manifest.removable.push(12),
        ];
        assert_eq!(manifest().check(), Ok(()));
        for (n, wrong) in wrong.into_iter().enumerate() {
            let mut manifest = manifest();
            wrong(&mut manifest);
            assert!(manifest.check().is_err(), "{n}");
        }
    }
}
