//! Which rows of a segment are gone: a file beside its folder for every version, of which the highest counts.
//!
//! A version is written under another name, synced and renamed, and only then the ones before go. So after a loss of
//! power there is the new version or the one before it, whole.

use std::{path::Path, sync::Arc};

use roaring::RoaringBitmap;

use super::{
    Name, SegmentError,
    file::{Check, DESCRIPTION, Kind, Owner, SealedFile, u32_at, u64_at},
    folder,
    write::FileWriter,
};
use crate::{files::disk::Disk, stop::Stop};

const ROWS: u16 = 2;
const DESCRIPTION_BYTES: usize = 24;

/// The rows that are gone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Deleted {
    /// Counts versions, from 1; the one of a segment of which nothing is gone is 0, and has no file.
    pub(crate) version: u64,
    /// The sequence of the log up to which deletions are in it.
    pub(crate) sequence: u64,
    pub(crate) rows: RoaringBitmap,
}

impl Deleted {
    /// Writes this version, and removes the earlier ones once it is durable. `segment_rows`: documents of the segment.
    ///
    /// # Errors
    /// [`SegmentError::DiskFull`], [`SegmentError::NoHandle`], [`SegmentError::Io`]; the version before is still there.
    pub(crate) fn write(
        &self,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        segment_rows: u32,
    ) -> Result<(), SegmentError> {
        assert!(self.version > 0, "version 0 has no file");
        assert!(self.rows.max().is_none_or(|row| row < segment_rows), "only rows of the segment are deleted");
        let path = dir.join(folder::deleted_name(name.number, self.version));
        let unfinished = dir.join(folder::unfinished(&folder::deleted_name(name.number, self.version)));
        folder::remove_file_if_there(&**disk, &unfinished)?;
        let written = self.write_as(disk, &unfinished, name, segment_rows).and_then(|()| {
            disk.rename(&unfinished, &path).map_err(|e| SegmentError::io(&path, e))?;
            disk.sync_dir(dir).map_err(|e| SegmentError::io(dir, e))
        });
        if written.is_err() {
            let _ = disk.remove(&unfinished);
        }
        written?;
        folder::remove_deleted_below(&**disk, dir, name.number, self.version)
    }

    fn write_as(
        &self,
        disk: &Arc<dyn Disk>,
        path: &Path,
        name: Name,
        segment_rows: u32,
    ) -> Result<(), SegmentError> {
        let mut file = FileWriter::create(&**disk, path, owner(name, self.version))?;
        let mut rows = self.rows.clone();
        rows.optimize();
        let mut bytes = Vec::with_capacity(rows.serialized_size());
        rows.serialize_into(&mut bytes).expect("memory takes everything");
        file.section(ROWS, Check::Whole, &bytes)?;
        let mut description = [0; DESCRIPTION_BYTES];
        description[..8].copy_from_slice(&self.sequence.to_le_bytes());
        description[8..16].copy_from_slice(&self.rows.len().to_le_bytes());
        description[16..20].copy_from_slice(&segment_rows.to_le_bytes());
        file.section(DESCRIPTION, Check::Whole, &description)?;
        file.finish()
    }

    /// Reads a version, which must be of a segment of so many rows.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`], also for a missing file; [`SegmentError::Foreign`], [`SegmentError::NewerFormat`],
    /// [`SegmentError::NoHandle`], [`SegmentError::Io`].
    pub(crate) fn read(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        version: u64,
        segment_rows: u32,
    ) -> Result<Self, SegmentError> {
        let path = dir.join(folder::deleted_name(name.number, version));
        let file = SealedFile::open(disk, &path, owner(name, version))?;
        let place = file.place(ROWS)?;
        let got = file.description();
        if got.len() != DESCRIPTION_BYTES || u32_at(got, 16) != segment_rows {
            return Err(SegmentError::corrupt(&path, 0, "it is of a segment of another number of documents"));
        }
        let (sequence, count) = (u64_at(got, 0), u64_at(got, 8));
        let rows = RoaringBitmap::deserialize_from(file.bytes(place, 0..file.length(place))?)
            .map_err(|error| file.damaged(place, 0, error))?;
        if rows.len() != count || rows.max().is_some_and(|row| row >= segment_rows) {
            return Err(file.damaged(place, 0, "it names other rows than it says"));
        }
        Ok(Deleted { version, sequence, rows })
    }

    /// Reads the whole file and reports what is wrong with it.
    ///
    /// # Errors
    /// [`SegmentError::Stopped`], [`SegmentError::NoHandle`].
    pub(crate) fn verify(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        version: u64,
        segment_rows: u32,
        stop: &Stop,
    ) -> Result<Vec<super::Damage>, SegmentError> {
        let mut damages = Vec::new();
        let path = dir.join(folder::deleted_name(name.number, version));
        match SealedFile::open(disk, &path, owner(name, version)) {
            Ok(file) => file.verify(stop, &mut damages)?,
            Err(error) => super::Damage::note(error, &mut damages)?,
        }
        if damages.is_empty()
            && let Err(error) = Self::read(disk, dir, name, version, segment_rows)
        {
            super::Damage::note(error, &mut damages)?;
        }
        Ok(damages)
    }
}

fn owner(name: Name, version: u64) -> Owner {
    Owner { kind: Kind::Deleted, name, part: version }
}
