//! A sealed segment, open for reading by many threads.
//!
//! Opening reads the ends of each file and nothing in between; see `file.rs`. No method needs a lock.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use roaring::RoaringBitmap;

use super::{
    BlockCache, Body, Columns, Damage, Head, Name, Row, Scroll, SegmentError, Space, Vectors, columns,
    documents::{self, Documents},
    folder, vectors,
};
use crate::{files::disk::Disk, stop::Stop, value::PointId};

/// An immutable segment.
#[derive(Debug)]
pub(crate) struct Segment {
    name: Name,
    path: PathBuf,
    documents: Documents,
    columns: Columns,
    vectors: Vec<Vectors>,
}

/// A document of a segment, found by its row: what is read of it is read when it is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    segment: &'a Segment,
    pub(crate) head: Head,
}

impl Segment {
    /// Opens a segment of a collection's folder with some of its spaces; files of other spaces are not looked at.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`], also for a missing file; [`SegmentError::Foreign`] for a file of another collection,
    /// segment, model or dimension; [`SegmentError::NewerFormat`], [`SegmentError::NoHandle`], [`SegmentError::Io`].
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        spaces: &[Space],
        cache: &Arc<BlockCache>,
    ) -> Result<Self, SegmentError> {
        let path = dir.join(folder::name_of(name.number));
        let documents = Documents::open(disk, &path.join(documents::FILE), name, cache)?;
        let columns = Columns::open(disk, &path.join(columns::FILE), name, documents.description().rows)?;
        let vectors: Vec<Vectors> =
            spaces.iter().map(|space| Vectors::open(disk, &path, name, space)).collect::<Result<_, _>>()?;
        let passages = documents.description().passages;
        if let Some(odd) = vectors.iter().find(|vectors| vectors.len() != passages) {
            let reason = format!("it has {} vectors, and the segment {passages} passages", odd.len());
            return Err(SegmentError::corrupt(odd.file().path(), 0, reason));
        }
        Ok(Segment { name, path, documents, columns, vectors })
    }

    /// Collection and number.
    pub(crate) fn name(&self) -> Name {
        self.name
    }

    /// The segment's folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Documents, deleted and expired ones too.
    pub(crate) fn len(&self) -> u32 {
        self.documents.description().rows
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Passages of all documents, which is the number of rows of every space.
    pub(crate) fn passage_count(&self) -> u32 {
        self.documents.description().passages
    }

    /// Lowest and highest sequence of the writes in it; `None` if there are none.
    pub(crate) fn versions(&self) -> Option<(u64, u64)> {
        (!self.is_empty()).then(|| self.documents.description().versions)
    }

    /// Bytes of all texts, unpacked.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests look at it"))]
    pub(crate) fn text_bytes(&self) -> u64 {
        self.documents.description().text_bytes
    }

    /// Name and bytes of every file.
    pub(crate) fn bytes(&self) -> Vec<(String, u64)> {
        let mut files = vec![
            (documents::FILE.to_owned(), self.documents.file().len()),
            (columns::FILE.to_owned(), self.columns.file().len()),
        ];
        let spaces = self.vectors.iter();
        files.extend(spaces.map(|v| (vectors::file_name(v.space().number), v.file().len())));
        files
    }

    /// The id of a row. Like everything that follows, it fails with [`SegmentError::Corrupt`] where the bytes are not
    /// as they were written.
    pub(crate) fn id(&self, row: Row) -> Result<PointId, SegmentError> {
        self.documents.id(row)
    }

    /// The row of an id: a binary search over the ids where they lie.
    pub(crate) fn find(&self, id: &PointId) -> Result<Option<Row>, SegmentError> {
        self.documents.find(id)
    }

    /// What is known of a document without unpacking anything.
    pub(crate) fn head(&self, row: Row) -> Result<Head, SegmentError> {
        self.documents.head(row)
    }

    /// A document, of which the head is read.
    pub(crate) fn reading(&self, row: Row) -> Result<Reading<'_>, SegmentError> {
        Ok(Reading { segment: self, head: self.head(row)? })
    }

    /// Title and payload; texts are not touched.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests look at it"))]
    pub(crate) fn body(&self, row: Row) -> Result<Body, SegmentError> {
        self.reading(row)?.body()
    }

    /// The text.
    pub(crate) fn text(&self, row: Row) -> Result<String, SegmentError> {
        self.reading(row)?.text()
    }

    /// Bytes of the text, one range per passage; each lies within [`Head::text_bytes`].
    #[cfg_attr(not(test), expect(dead_code, reason = "tests look at it"))]
    pub(crate) fn passages(&self, row: Row) -> Result<Vec<Range<u32>>, SegmentError> {
        self.reading(row)?.passages()
    }

    /// The vectors of a space that it was opened with.
    pub(crate) fn vectors(&self, space: u32) -> Option<&Vectors> {
        self.vectors.iter().find(|vectors| vectors.space().number == space)
    }

    /// The payloads by value, for filters.
    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Ids with their rows in the order of the ids, deleted and expired ones too, from the one behind `after` on.
    pub(crate) fn scroll(&self, after: Option<&PointId>) -> Result<Scroll<'_>, SegmentError> {
        self.documents.scroll(after)
    }

    /// The rows that count as gone at a time in microseconds since 1970; costs no more than there are.
    pub(crate) fn expired(&self, now: i64) -> Result<RoaringBitmap, SegmentError> {
        self.documents.expired(now)
    }

    /// Reads every file whole and reports everything that is not as it was written. Files that the segment was not
    /// opened with are not looked at.
    ///
    /// # Errors
    /// [`SegmentError::Stopped`], [`SegmentError::NoHandle`].
    pub(crate) fn verify(&self, stop: &Stop) -> Result<Vec<Damage>, SegmentError> {
        let mut damages = Vec::new();
        self.documents.file().verify(stop, &mut damages)?;
        self.columns.file().verify(stop, &mut damages)?;
        self.vectors.iter().try_for_each(|vectors| vectors.file().verify(stop, &mut damages))?;
        // What cannot be read would be reported again and again for every document in it, and through the mapping.
        if damages.is_empty() {
            self.documents.verify(stop, &mut damages)?;
            self.columns.verify(stop, &mut damages)?;
        }
        Ok(damages)
    }

    pub(super) fn documents(&self) -> &Documents {
        &self.documents
    }
}

impl Reading<'_> {
    /// Title and payload; texts are not touched.
    pub(crate) fn body(&self) -> Result<Body, SegmentError> {
        self.segment.documents.body(&self.head)
    }

    /// The text.
    pub(crate) fn text(&self) -> Result<String, SegmentError> {
        self.segment.documents.text(&self.head)
    }

    /// Bytes of the text, one range per passage.
    pub(crate) fn passages(&self) -> Result<Vec<Range<u32>>, SegmentError> {
        self.segment.documents.passages(&self.head)
    }
}
