//! Builds a segment from documents that come one after the other.
//!
//! What is large goes to the disk as it comes. In memory stay the ids and, per document and block, a few bytes; payloads
//! up to [`Limits::columns_bytes`].

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BlockCache, Document, Name, Row, Segment, SegmentError, Space,
    columns::builder::ColumnsBuilder,
    documents::{
        BodyOf,
        writer::{DocumentsWriter, Entry},
    },
    folder,
    vectors::VectorsWriter,
};
use crate::{files::disk::Disk, store::record};

/// How much of a segment that is being built is in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of payloads, about, above which they are sorted in pieces. Default 64 MiB.
    pub(crate) columns_bytes: usize,
    /// Bytes of each table that waits for the end of its file, above which it waits on the disk. Default 8 MiB.
    pub(crate) spool_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { columns_bytes: 64 << 20, spool_bytes: 8 << 20 }
    }
}

/// A segment that is being built. Dropped before it is finished, it leaves nothing, unless the disk fails.
#[derive(Debug)]
pub(crate) struct Builder {
    spaces: Vec<Space>,
    documents: DocumentsWriter,
    vectors: Vec<VectorsWriter>,
    columns: ColumnsBuilder,
    under_way: UnderWay,
}

/// The folder of a segment that is not finished.
#[derive(Debug)]
pub(super) struct UnderWay {
    disk: Arc<dyn Disk>,
    /// The collection's folder.
    dir: PathBuf,
    path: PathBuf,
    name: Name,
    is_done: bool,
}

impl UnderWay {
    pub(super) fn begin(disk: &Arc<dyn Disk>, dir: &Path, name: Name) -> Result<Self, SegmentError> {
        let path = dir.join(folder::unfinished(&folder::name_of(name.number)));
        folder::remove_folder(&**disk, &path)?;
        disk.create_dir(&path).map_err(|e| SegmentError::io(&path, e))?;
        Ok(UnderWay { disk: Arc::clone(disk), dir: dir.to_owned(), path, name, is_done: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its name, all of whose files are synced.
    fn publish(mut self) -> Result<(), SegmentError> {
        let path = self.dir.join(folder::name_of(self.name.number));
        self.disk.sync_dir(&self.path).map_err(|e| SegmentError::io(&self.path, e))?;
        self.disk.rename(&self.path, &path).map_err(|e| SegmentError::io(&path, e))?;
        self.is_done = true;
        self.disk.sync_dir(&self.dir).map_err(|e| SegmentError::io(&self.dir, e))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.is_done
            && let Err(error) = folder::remove_folder(&*self.disk, &self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished segment is left behind");
        }
    }
}

impl Builder {
    /// Begins a segment in a collection's folder. Its number was never used there.
    ///
    /// # Errors
    /// [`SegmentError::DiskFull`], [`SegmentError::NoHandle`], [`SegmentError::Io`].
    pub(crate) fn new(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        spaces: &[Space],
        limits: Limits,
    ) -> Result<Self, SegmentError> {
        let numbers: BTreeSet<u32> = spaces.iter().map(|space| space.number).collect();
        assert_eq!(numbers.len(), spaces.len(), "spaces have numbers of their own");
        let under_way = UnderWay::begin(disk, dir, name)?;
        let path = under_way.path();
        let vectors = spaces.iter().map(|space| VectorsWriter::create(disk, path, name, space));
        Ok(Builder {
            spaces: spaces.to_vec(),
            documents: DocumentsWriter::create(disk, path, name, limits.spool_bytes)?,
            vectors: vectors.collect::<Result<_, _>>()?,
            columns: ColumnsBuilder::new(disk, path, name, limits.columns_bytes, limits.spool_bytes),
            under_way,
        })
    }

    /// Documents so far.
    pub(crate) fn len(&self) -> u32 {
        self.documents.rows()
    }

    /// Whether there are none.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests look at it"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a document. After an error the segment cannot be finished any more.
    ///
    /// # Errors
    /// [`SegmentError::Unfit`] if vectors and passages do not fit each other or the spaces; [`SegmentError::Full`];
    /// [`SegmentError::DiskFull`], [`SegmentError::NoHandle`], [`SegmentError::Io`].
    pub(crate) fn push(&mut self, document: &Document<'_>) -> Result<Row, SegmentError> {
        self.check(document)
            .map_err(|reason| SegmentError::Unfit { id: document.id.as_str().to_owned(), reason })?;
        let Document { id, title, text, payload, content_hash, version, written_at, expires_at, .. } =
            *document;
        let row = self.documents.push(&Entry {
            id: id.as_str(),
            content_hash,
            version,
            written_at,
            expires_at,
            passages: document.passages,
            text: text.as_bytes(),
            body: &record::encode(&BodyOf { title, payload }),
        })?;
        for (writer, vectors) in self.vectors.iter_mut().zip(document.vectors) {
            vectors.iter().try_for_each(|vector| writer.push(vector))?;
        }
        self.columns.push(payload)?;
        Ok(row)
    }

    fn check(&self, document: &Document<'_>) -> Result<(), String> {
        let Document { text, passages, vectors, .. } = document;
        if let Some(range) =
            passages.iter().find(|range| text.get(range.start as usize..range.end as usize).is_none())
        {
            return Err(format!("the passage {range:?} is not in its text of {} bytes", text.len()));
        }
        if vectors.len() != self.spaces.len() {
            return Err(format!(
                "it has vectors of {} spaces instead of {}",
                vectors.len(),
                self.spaces.len()
            ));
        }
        for (space, vectors) in self.spaces.iter().zip(*vectors) {
            if vectors.len() != passages.len() {
                let (got, expected) = (vectors.len(), passages.len());
                return Err(format!("space {} has {got} vectors for {expected} passages", space.number));
            }
            if let Some(vector) = vectors.iter().find(|vector| vector.len() != space.dim.len()) {
                let (got, expected) = (vector.len(), space.dim.len());
                return Err(format!(
                    "space {} has a vector of {got} values instead of {expected}",
                    space.number
                ));
            }
        }
        Ok(())
    }

    /// Makes the segment durable and opens it.
    ///
    /// # Errors
    /// [`SegmentError::Duplicate`] if two documents have one id; [`SegmentError::DiskFull`],
    /// [`SegmentError::NoHandle`], [`SegmentError::Io`]. After one of the last sync the segment may be there after a
    /// restart.
    pub(crate) fn finish(self, cache: &Arc<BlockCache>) -> Result<Segment, SegmentError> {
        // The folder is bound first and so dropped last, when the files in it are closed.
        let Builder { under_way, spaces, documents, vectors, columns } = self;
        documents.finish()?;
        vectors.into_iter().try_for_each(VectorsWriter::finish)?;
        columns.finish()?;
        publish(under_way, &spaces, cache)
    }
}

/// Gives a folder with all its files its name, and opens it.
pub(super) fn publish(
    under_way: UnderWay,
    spaces: &[Space],
    cache: &Arc<BlockCache>,
) -> Result<Segment, SegmentError> {
    let (disk, dir, name) = (Arc::clone(&under_way.disk), under_way.dir.clone(), under_way.name);
    under_way.publish()?;
    Segment::open(&disk, &dir, name, spaces, cache)
}
