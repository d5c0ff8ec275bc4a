//! A segment becomes one of another collection: its files are copied, and the copies say whose they are.
//!
//! Only header and footer tell the owner of a file. Every other byte, with all the sums over them, is copied as it is, so
//! what was checked by them before is checked by them after. Merging would do the same, at the price of taking every block
//! apart and packing it again.

use std::{path::Path, sync::Arc};

use super::{
    BlockCache, Name, Segment, SegmentError, Space,
    builder::{UnderWay, publish},
    columns, documents,
    file::{FOOTER_BYTES, Kind, Owner, SealedFile},
    vectors,
};
use crate::{
    files::{
        disk::Disk,
        sums::{self, Sum},
    },
    stop::Stop,
};

/// Whether the bytes that were read of a file, by its name in the segment's folder, are those that it should have.
pub(crate) type Expect<'a> = dyn Fn(&str, Sum) -> Result<(), SegmentError> + 'a;

/// How a segment is adopted.
pub(crate) struct Adopt<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    /// The folder in which the segment lies, and its name there.
    pub(crate) from: (&'a Path, Name),
    /// The folder in which it will lie, and the name that it gets.
    pub(crate) to: (&'a Path, Name),
    /// The spaces that are copied: those of the segment.
    pub(crate) spaces: &'a [Space],
    pub(crate) cache: &'a Arc<BlockCache>,
    pub(crate) stop: &'a Stop,
    pub(crate) expect: &'a Expect<'a>,
}

impl Adopt<'_> {
    /// Copies the segment, durably, and opens the copy.
    ///
    /// # Errors
    /// Those of [`Expect`]; [`SegmentError::Corrupt`] and [`SegmentError::Foreign`] for a file that is not what it should
    /// be; [`SegmentError::Stopped`]; those of writing. Nothing is left of the copy then.
    pub(crate) fn run(&self) -> Result<Segment, SegmentError> {
        let (dir, name) = self.to;
        let under_way = UnderWay::begin(self.disk, dir, name)?;
        let spaces = self
            .spaces
            .iter()
            .map(|space| (vectors::file_name(space.number), Kind::Vectors, u64::from(space.number)));
        let files =
            [(documents::FILE.to_owned(), Kind::Documents, 0), (columns::FILE.to_owned(), Kind::Columns, 0)];
        for (file, kind, part) in files.into_iter().chain(spaces) {
            self.copy(&file, kind, part, under_way.path())?;
        }
        publish(under_way, self.spaces, self.cache)
    }

    fn copy(&self, file: &str, kind: Kind, part: u64, into: &Path) -> Result<(), SegmentError> {
        let (dir, name) = self.from;
        let (from, to) = (dir.join(super::folder::name_of(name.number)).join(file), into.join(file));
        let source = SealedFile::open(self.disk, &from, Owner { kind, name, part })?;
        let header = Owner { kind, name: self.to.1, part }.header();
        let reading = |error| SegmentError::reading(&from, error);
        let writing = |error| SegmentError::io(&to, error);
        let opened = self.disk.read_only(&from).map_err(reading)?;
        let copy = self.disk.create(&to).map_err(writing)?;
        let sum =
            sums::read(&*opened, self.stop, reading, |at, bytes| copy.write_at(at, bytes).map_err(writing));
        // What the reader says of it is that the system failed.
        self.stop.check()?;
        let sum = sum?;
        (self.expect)(file, sum)?;
        if sum.bytes != source.len() {
            return Err(SegmentError::corrupt(&from, 0, "it changed while it was read"));
        }
        copy.write_at(0, &header).map_err(writing)?;
        copy.write_at(sum.bytes - FOOTER_BYTES as u64, &source.footer_with(&header)).map_err(writing)?;
        copy.sync_all().map_err(writing)
    }
}
