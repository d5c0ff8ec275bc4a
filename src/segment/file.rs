//! A sealed file: a header, sections with sums, a table of the sections and a footer.
//!
//! Opening reads header, footer, table and the section that describes the file; every length and offset is bounded by
//! the file before anything is allocated. Everything else is mapped at the first use, and a sum is checked when the
//! bytes that it covers are first used: once, not at every reading. [`SealedFile::verify`] reads the whole file again,
//! not by way of the mapping, so that a sector that cannot be read is reported and does not end the process.
//!
//! A sealed file never changes. Whoever cuts it while it is open ends the process at the next touch of what is gone;
//! see `files/map.rs`.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Name, SegmentError, verify::Damage};
use crate::{
    files::{
        Mapped,
        disk::{Disk, DiskFile},
    },
    stop::Stop,
    store::Identity,
};

/// The first bytes of every file.
pub(super) const MAGIC: [u8; 8] = *b"DFSEGMNT";
/// The first bytes of the footer.
pub(super) const MAGIC_OF_END: [u8; 8] = *b"DFSEGEND";
/// Version of the format that `FORMAT.md` describes.
pub(super) const FORMAT: u16 = 1;

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const FOOTER_BYTES: usize = 64;
/// Bytes of a section in the table.
pub(super) const ENTRY_BYTES: usize = 24;
/// Sections begin at multiples of this.
pub(super) const ALIGN: u64 = 64;
/// Most sections of a file.
pub(super) const SECTIONS_MAX: usize = 64;
/// Largest description of a file.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;
/// The section that describes the file; every file has it.
pub(super) const DESCRIPTION: u16 = 1;
/// Bytes that [`SealedFile::verify`] reads at once.
const STEP_BYTES: u64 = 1 << 20;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    Documents = 1,
    Vectors = 2,
    Columns = 3,
    Deleted = 4,
}

/// Whose a file is: what its header says besides magic and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: Kind,
    pub(super) name: Name,
    /// The space of vectors, the version of deletions, else 0.
    pub(super) part: u64,
}

impl Owner {
    pub(super) fn header(self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        header[10..12].copy_from_slice(&(self.kind as u16).to_le_bytes());
        header[16..32].copy_from_slice(&self.name.collection.0);
        header[32..40].copy_from_slice(&self.name.number.to_le_bytes());
        header[40..48].copy_from_slice(&self.part.to_le_bytes());
        seal(&mut header);
        header
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { kind, name, part } = self;
        describe(f, *kind as u16, name.collection, name.number, *part)
    }
}

fn describe(f: &mut impl fmt::Write, kind: u16, collection: Identity, number: u64, part: u64) -> fmt::Result {
    let what = match kind {
        1 => "the documents",
        2 => "the vectors",
        3 => "the columns",
        4 => "the deletions",
        _ => "an unknown part",
    };
    write!(f, "{what} (part {part}) of segment {number} of the collection of identity {collection}")
}

/// Puts the sum of all that stands before into the last four bytes.
pub(super) fn seal(bytes: &mut [u8; 64]) {
    let sum = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(bytes: &[u8; 64]) -> bool {
    crc32c::crc32c(&bytes[..60]) == u32_at(bytes, 60)
}

/// How the bytes of a section are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// By one sum, at the first use of any of it.
    Whole,
    /// By a sum for every chunk of 2 to this power, which lie behind the section and have a sum of their own.
    Chunks(u8),
    /// By what the section is made of, at every reading.
    Parts,
}

impl Check {
    /// For tables of which few places are looked at: 64 KiB.
    pub(super) const FINE: Check = Check::Chunks(16);
    /// For what is read by the megabyte.
    pub(super) const COARSE: Check = Check::Chunks(20);

    pub(super) fn bytes(self) -> [u8; 2] {
        match self {
            Check::Whole => [1, 0],
            Check::Chunks(power) => [2, power],
            Check::Parts => [3, 0],
        }
    }

    fn of(bytes: [u8; 2]) -> Option<Self> {
        match bytes {
            [1, 0] => Some(Check::Whole),
            [2, power @ 12..=30] => Some(Check::Chunks(power)),
            [3, 0] => Some(Check::Parts),
            _ => None,
        }
    }

    /// Sums of a section of this length.
    fn sums(self, length: u64) -> u64 {
        match self {
            Check::Chunks(power) => length.div_ceil(1 << power),
            Check::Whole | Check::Parts => 0,
        }
    }
}

/// The next multiple of [`ALIGN`].
pub(super) fn aligned(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGN)
}

/// A section as the table has it.
#[derive(Debug)]
struct Section {
    name: u16,
    check: Check,
    crc: u32,
    offset: u64,
    length: u64,
    /// Which sums were found right: the table's own first, then those of the chunks.
    checked: Box<[AtomicU64]>,
}

impl Section {
    fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// Where the sums of the chunks lie.
    fn sums(&self) -> Range<u64> {
        let start = self.end().next_multiple_of(ALIGN);
        start..start + 4 * self.check.sums(self.length)
    }

    /// The end of all that belongs to the section.
    fn extent(&self) -> u64 {
        let sums = self.sums();
        if sums.is_empty() { self.end() } else { sums.end }
    }

    fn is_checked(&self, bit: u64) -> bool {
        self.checked[(bit / 64) as usize].load(Ordering::Relaxed) & (1 << (bit % 64)) != 0
    }

    /// The bytes are constant, so it does not matter who sees this when: whoever does not checks once more.
    fn set_checked(&self, bit: u64) {
        self.checked[(bit / 64) as usize].fetch_or(1 << (bit % 64), Ordering::Relaxed);
    }

    fn wrong_sum(&self, path: &Path, offset: u64) -> SegmentError {
        SegmentError::corrupt(path, offset, format!("section {} has a wrong sum", self.name))
    }
}

/// A section of an open file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

/// An open sealed file. It holds no handle: a mapping needs none.
#[derive(Debug)]
pub(super) struct SealedFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    len: u64,
    header: [u8; HEADER_BYTES],
    footer: [u8; FOOTER_BYTES],
    sections: Vec<Section>,
    description: Vec<u8>,
    mapped: OnceLock<Mapped>,
}

impl SealedFile {
    /// Opens a file and checks that it is the one of `owner`.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`], also for a missing file; [`SegmentError::NewerFormat`], [`SegmentError::Foreign`],
    /// [`SegmentError::NoHandle`], [`SegmentError::Io`].
    pub(super) fn open(disk: &Arc<dyn Disk>, path: &Path, owner: Owner) -> Result<Self, SegmentError> {
        let damaged = |offset: u64, reason: &str| SegmentError::corrupt(path, offset, reason);
        let system = |error| SegmentError::reading(path, error);
        let file = disk.read_only(path).map_err(system)?;
        let len = file.len().map_err(system)?;
        let mut header = [0; HEADER_BYTES];
        if len < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(damaged(0, "it is cut short"));
        }
        file.read_exact_at(0, &mut header).map_err(system)?;
        check_header(&header, path, owner)?;
        let footer_at = len - FOOTER_BYTES as u64;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(footer_at, &mut footer).map_err(system)?;
        if footer[..8] != MAGIC_OF_END || u64_at(&footer, 24) != len {
            return Err(damaged(
                footer_at,
                "it does not end as a whole file does; it was cut or something was added",
            ));
        }
        if !is_sealed(&footer) {
            return Err(damaged(footer_at, "the footer has a wrong sum"));
        }
        if footer[32..36] != header[60..] {
            return Err(damaged(footer_at, "header and footer are of two files"));
        }
        let table_at = u64_at(&footer, 8);
        let count = u32_at(&footer, 16) as usize;
        let table_len = (count * ENTRY_BYTES) as u64;
        if count > SECTIONS_MAX || table_at.checked_add(table_len).and_then(aligned) != Some(footer_at) {
            return Err(damaged(footer_at, "the footer points beside the table"));
        }
        let mut table = vec![0; count * ENTRY_BYTES];
        file.read_exact_at(table_at, &mut table).map_err(system)?;
        if crc32c::crc32c(&table) != u32_at(&footer, 20) {
            return Err(damaged(table_at, "the table of sections has a wrong sum"));
        }
        let sections = read_table(&table, table_at).ok_or_else(|| {
            damaged(table_at, "the table of sections names places that are not in the file")
        })?;
        Self::of(disk, path, &*file, (header, footer, len), sections)
    }

    fn of(
        disk: &Arc<dyn Disk>,
        path: &Path,
        file: &dyn DiskFile,
        (header, footer, len): ([u8; HEADER_BYTES], [u8; FOOTER_BYTES], u64),
        sections: Vec<Section>,
    ) -> Result<Self, SegmentError> {
        let mut sealed = SealedFile {
            disk: Arc::clone(disk),
            path: path.to_owned(),
            len,
            header,
            footer,
            sections,
            description: Vec::new(),
            mapped: OnceLock::new(),
        };
        sealed.description = sealed.read_description(file)?;
        Ok(sealed)
    }

    /// [`SealedFile::open`] of a file one of whose ends may be damaged, as long as the rest proves what it said: the footer
    /// has the sum of the header, and the table of sections fits its place only as it was written.
    ///
    /// # Errors
    /// As [`SealedFile::open`], whose error it is.
    pub(super) fn open_damaged(
        disk: &Arc<dyn Disk>,
        path: &Path,
        owner: Owner,
    ) -> Result<Self, SegmentError> {
        match Self::open(disk, path, owner) {
            Err(error @ SegmentError::Corrupt { .. }) => Self::proven(disk, path, owner).ok_or(error),
            opened => opened,
        }
    }

    fn proven(disk: &Arc<dyn Disk>, path: &Path, owner: Owner) -> Option<Self> {
        let file = disk.read_only(path).ok()?;
        let len = file.len().ok()?;
        let footer_at = len.checked_sub(FOOTER_BYTES as u64).filter(|at| *at >= HEADER_BYTES as u64)?;
        let (mut header, mut footer) = ([0; HEADER_BYTES], [0; FOOTER_BYTES]);
        file.read_exact_at(0, &mut header).ok()?;
        file.read_exact_at(footer_at, &mut footer).ok()?;
        let is_whole = footer[..8] == MAGIC_OF_END && u64_at(&footer, 24) == len && is_sealed(&footer);
        let with = |count: usize, sum: Option<u32>| {
            let table_len = (count * ENTRY_BYTES) as u64;
            let table_at = footer_at.checked_sub(aligned(table_len)?)?;
            let mut table = vec![0; count * ENTRY_BYTES];
            file.read_exact_at(table_at, &mut table).ok()?;
            let is_as_said = sum.is_none_or(|sum| crc32c::crc32c(&table) == sum);
            let sections = read_table(&table, table_at).filter(|_| is_as_said)?;
            Self::of(disk, path, &*file, (header, footer, len), sections).ok()
        };
        if is_whole {
            let (count, sum) = (u32_at(&footer, 16) as usize, u32_at(&footer, 20));
            let is_of_owner = footer[32..36] == owner.header()[60..];
            return with(count, Some(sum)).filter(|_| is_of_owner && count <= SECTIONS_MAX);
        }
        (1..=SECTIONS_MAX).filter(|_| header == owner.header()).find_map(|count| with(count, None))
    }

    fn read_description(&self, file: &dyn DiskFile) -> Result<Vec<u8>, SegmentError> {
        let section = &self.sections[self.place(DESCRIPTION)?.0];
        if section.length > DESCRIPTION_BYTES_MAX || section.check != Check::Whole {
            return Err(SegmentError::corrupt(&self.path, section.offset, "the description is too long"));
        }
        let mut bytes = vec![0; section.length as usize];
        file.read_exact_at(section.offset, &mut bytes).map_err(|e| SegmentError::reading(&self.path, e))?;
        if crc32c::crc32c(&bytes) != section.crc {
            return Err(section.wrong_sum(&self.path, section.offset));
        }
        Ok(bytes)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The footer that the same file has where its header is another one.
    pub(super) fn footer_with(&self, header: &[u8; HEADER_BYTES]) -> [u8; FOOTER_BYTES] {
        let mut footer = self.footer;
        footer[32..36].copy_from_slice(&header[60..]);
        seal(&mut footer);
        footer
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The section that describes the file.
    pub(super) fn description(&self) -> &[u8] {
        &self.description
    }

    /// # Errors
    /// [`SegmentError::Corrupt`] if the file has no section of this name.
    pub(super) fn place(&self, name: u16) -> Result<Place, SegmentError> {
        let found = self.sections.iter().position(|section| section.name == name);
        found
            .map(Place)
            .ok_or_else(|| SegmentError::corrupt(&self.path, 0, format!("it has no section {name}")))
    }

    /// The section of this name, if it has `count` records of `width` bytes.
    pub(super) fn table(&self, name: u16, count: u64, width: u64) -> Result<Place, SegmentError> {
        let place = self.place(name)?;
        if count.checked_mul(width) != Some(self.length(place)) {
            return Err(self.damaged(place, 0, format!("it has not the length of {count} records")));
        }
        Ok(place)
    }

    pub(super) fn length(&self, place: Place) -> u64 {
        self.sections[place.0].length
    }

    /// Damage at a byte of a section.
    pub(super) fn damaged(&self, place: Place, offset: u64, reason: impl fmt::Display) -> SegmentError {
        let section = &self.sections[place.0];
        let offset = section.offset.saturating_add(offset);
        SegmentError::corrupt(&self.path, offset, format!("section {}: {reason}", section.name))
    }

    /// Some bytes of a section, once their sums are right; for [`Check::Parts`] the caller checks them.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] if a sum is wrong or the range is not in the section; as for opening, if the file has
    /// to be mapped first.
    pub(super) fn bytes(&self, place: Place, range: Range<u64>) -> Result<&[u8], SegmentError> {
        let section = &self.sections[place.0];
        if range.start > range.end || range.end > section.length {
            return Err(self.damaged(place, range.start, "a place is named that the section does not have"));
        }
        let mapped = self.mapped()?;
        self.check(mapped, section, &range)?;
        // The section lies in the file, and the file is mapped: both fit in memory's numbers.
        Ok(&mapped[(section.offset + range.start) as usize..(section.offset + range.end) as usize])
    }

    /// The record of `width` bytes with this number.
    pub(super) fn record(&self, place: Place, number: u64, width: u64) -> Result<&[u8], SegmentError> {
        let start = number.saturating_mul(width);
        self.bytes(place, start..start.saturating_add(width))
    }

    fn mapped(&self) -> Result<&Mapped, SegmentError> {
        if let Some(mapped) = self.mapped.get() {
            return Ok(mapped);
        }
        let file = self.disk.read_only(&self.path).map_err(|e| SegmentError::reading(&self.path, e))?;
        let mapped = file.map().map_err(|e| SegmentError::reading(&self.path, e))?;
        // Another file may have taken the place since this one was opened.
        let footer_at = usize::try_from(self.len).unwrap_or(usize::MAX).saturating_sub(FOOTER_BYTES);
        let is_same = mapped.len() as u64 == self.len
            && mapped[..HEADER_BYTES] == self.header
            && mapped[footer_at..] == self.footer;
        if !is_same {
            return Err(SegmentError::corrupt(&self.path, 0, "it changed after it was opened"));
        }
        // Where two threads come here at once, one mapping goes again.
        Ok(self.mapped.get_or_init(|| mapped))
    }

    fn check(&self, mapped: &[u8], section: &Section, range: &Range<u64>) -> Result<(), SegmentError> {
        let slice = |range: Range<u64>| &mapped[range.start as usize..range.end as usize];
        if range.is_empty() {
            return Ok(());
        }
        match section.check {
            Check::Parts => {}
            Check::Whole => {
                if !section.is_checked(0) {
                    if crc32c::crc32c(slice(section.offset..section.end())) != section.crc {
                        return Err(section.wrong_sum(&self.path, section.offset));
                    }
                    section.set_checked(0);
                }
            }
            Check::Chunks(power) => {
                for chunk in range.start >> power..=(range.end - 1) >> power {
                    if section.is_checked(1 + chunk) {
                        continue;
                    }
                    let sums = slice(section.sums());
                    if !section.is_checked(0) {
                        if crc32c::crc32c(sums) != section.crc {
                            return Err(section.wrong_sum(&self.path, section.sums().start));
                        }
                        section.set_checked(0);
                    }
                    let start = section.offset + (chunk << power);
                    let end = section.end().min(start + (1 << power));
                    if crc32c::crc32c(slice(start..end)) != u32_at(sums, 4 * chunk as usize) {
                        return Err(section.wrong_sum(&self.path, start));
                    }
                    section.set_checked(1 + chunk);
                }
            }
        }
        Ok(())
    }

    /// Reads the whole file from the disk and adds every damage of its sums, and of the gaps between sections, which
    /// are zero. Sections that are checked by their parts are left to their owner.
    ///
    /// # Errors
    /// [`SegmentError::Stopped`]; [`SegmentError::NoHandle`].
    pub(super) fn verify(&self, stop: &Stop, damages: &mut Vec<Damage>) -> Result<(), SegmentError> {
        let mut reader = match self.reader() {
            Ok(file) => Reader { file, sealed: self, stop, damages },
            Err(error) => return Damage::note(error, damages),
        };
        let mut at = HEADER_BYTES as u64;
        for section in &self.sections {
            reader.gap(at..section.offset)?;
            let step = if let Check::Chunks(power) = section.check { 1 << power } else { STEP_BYTES };
            let sums = reader.whole(section, section.sums())?;
            if let Some(sums) = sums.as_ref().filter(|sums| !sums.is_empty())
                && crc32c::crc32c(sums) != section.crc
            {
                reader.note(section.wrong_sum(&self.path, section.sums().start))?;
            }
            let mut sum = 0;
            let mut is_read = true;
            for (number, start) in (section.offset..section.end()).step_by(step as usize).enumerate() {
                let range = start..section.end().min(start + step);
                match (section.check, reader.whole(section, range)?) {
                    (Check::Parts, _) => {}
                    (Check::Whole, Some(bytes)) => sum = crc32c::crc32c_append(sum, &bytes),
                    (Check::Chunks(_), Some(bytes)) => {
                        let expected = sums.as_ref().map(|sums| u32_at(sums, 4 * number));
                        if expected.is_some_and(|expected| crc32c::crc32c(&bytes) != expected) {
                            reader.note(section.wrong_sum(&self.path, start))?;
                        }
                    }
                    (_, None) => is_read = false,
                }
            }
            if section.check == Check::Whole && is_read && sum != section.crc {
                reader.note(section.wrong_sum(&self.path, section.offset))?;
            }
            if !section.sums().is_empty() {
                reader.gap(section.end()..section.sums().start)?;
            }
            at = section.extent();
        }
        let table = u64_at(&self.footer, 8);
        reader.gap(at..table)?;
        reader.gap(table + (self.sections.len() * ENTRY_BYTES) as u64..self.len - FOOTER_BYTES as u64)
    }

    /// The file, opened anew, if header, table and footer are what they were.
    fn reader(&self) -> Result<Arc<dyn DiskFile>, SegmentError> {
        let system = |error| SegmentError::reading(&self.path, error);
        let header = &self.header;
        let owner = |kind| Owner {
            kind,
            name: Name { collection: Identity(array_at(header, 16)), number: u64_at(header, 32) },
            part: u64_at(header, 40),
        };
        let kind = [Kind::Documents, Kind::Vectors, Kind::Columns, Kind::Deleted]
            .into_iter()
            .find(|kind| *kind as u16 == u16_at(header, 10))
            .expect("the header was checked when the file was opened");
        let again = SealedFile::open(&self.disk, &self.path, owner(kind))?;
        if (again.len, again.footer) != (self.len, self.footer) {
            return Err(SegmentError::corrupt(&self.path, 0, "it changed after it was opened"));
        }
        self.disk.read_only(&self.path).map_err(system)
    }
}

/// Reads a file for [`SealedFile::verify`].
struct Reader<'a> {
    file: Arc<dyn DiskFile>,
    sealed: &'a SealedFile,
    stop: &'a Stop,
    damages: &'a mut Vec<Damage>,
}

impl Reader<'_> {
    fn note(&mut self, error: SegmentError) -> Result<(), SegmentError> {
        Damage::note(error, self.damages)
    }

    /// The bytes of a range; `None`, noted, if they cannot be read.
    fn whole(&mut self, section: &Section, range: Range<u64>) -> Result<Option<Vec<u8>>, SegmentError> {
        self.stop.check()?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        match self.file.read_exact_at(range.start, &mut bytes) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) => {
                let reason = format!("section {} cannot be read: {error}", section.name);
                self.note(SegmentError::corrupt(&self.sealed.path, range.start, reason))?;
                Ok(None)
            }
        }
    }

    /// Notes what is not zero between two sections; a gap has fewer than [`ALIGN`] bytes.
    fn gap(&mut self, range: Range<u64>) -> Result<(), SegmentError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = self.file.read_exact_at(range.start, &mut bytes);
        if read.is_err() || bytes.iter().any(|byte| *byte != 0) {
            let reason = "something stands between two sections";
            self.note(SegmentError::corrupt(&self.sealed.path, range.start, reason))?;
        }
        Ok(())
    }
}

/// Which segment a file is of, as its header says; `None` where that is damaged, or cannot be read.
pub(super) fn name_in(disk: &dyn Disk, path: &Path) -> Option<Name> {
    let mut header = [0; HEADER_BYTES];
    disk.read_only(path).ok()?.read_exact_at(0, &mut header).ok()?;
    (header[..8] == MAGIC && is_sealed(&header))
        .then(|| Name { collection: Identity(array_at(&header, 16)), number: u64_at(&header, 32) })
}

fn check_header(header: &[u8; HEADER_BYTES], path: &Path, owner: Owner) -> Result<(), SegmentError> {
    if header[..8] != MAGIC {
        return Err(SegmentError::corrupt(path, 0, "it does not begin as a file of a segment does"));
    }
    if !is_sealed(header) {
        return Err(SegmentError::corrupt(path, 0, "the header has a wrong sum"));
    }
    let got = u16_at(header, 8);
    if got > FORMAT {
        return Err(SegmentError::NewerFormat { path: path.to_owned(), got, supported: FORMAT });
    }
    if *header != owner.header() {
        let mut other = String::new();
        let collection = Identity(array_at(header, 16));
        describe(&mut other, u16_at(header, 10), collection, u64_at(header, 32), u64_at(header, 40))
            .expect("a string takes everything");
        return Err(SegmentError::Foreign { path: path.to_owned(), got: other, expected: owner.to_string() });
    }
    Ok(())
}

/// The sections of a table; `None` unless they lie one behind the other between header and table.
fn read_table(table: &[u8], table_at: u64) -> Option<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    let mut next = HEADER_BYTES as u64;
    for entry in table.chunks_exact(ENTRY_BYTES) {
        let (name, offset, length) = (u16_at(entry, 0), u64_at(entry, 8), u64_at(entry, 16));
        let check = Check::of([entry[2], entry[3]])?;
        let is_known = sections.iter().any(|section| section.name == name);
        if is_known || offset != next || offset.checked_add(length)? > table_at {
            return None;
        }
        // The section lies in the file, so no more sums are counted than its bytes allow.
        let bits = 1 + check.sums(length);
        let checked = (0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let section = Section { name, check, crc: u32_at(entry, 4), offset, length, checked };
        next = aligned(section.extent())?;
        sections.push(section);
    }
    (next == table_at).then_some(sections)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has this length")
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(array_at(bytes, at))
}
