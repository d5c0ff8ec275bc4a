//! A segment as the store sees it: documents by number, with their bodies as the collection gave them.
//!
//! What a segment keeps apart (id, title, payload, hash, passages, time) is what a body is made of; it is taken apart
//! when a segment is built, and put together again when a head is read, to the same bytes.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use roaring::RoaringBitmap;

use super::{
    Head, IdHash, Ids, Loaded,
    entries::Put,
    manifest::Named,
    state::{Part, Row, Saved},
};
use crate::{
    files::disk::Disk,
    segment::{
        self, BlockCache, Builder, Deleted, Document, Limits, Merge, Name, Segment, SegmentError, Source,
        Space,
    },
    stop::Stop,
    store::{Identity, StoreError, body::Body},
    value::PointId,
};

/// What segments of a collection have in common.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    /// Numbers of a vector.
    pub(super) dimension: u32,
    spaces: [Space; 1],
    cache: Arc<BlockCache>,
    /// Segments that others took the place of and that nobody reads any more.
    retired: Arc<Mutex<VecDeque<u32>>>,
}

impl Folder {
    pub(super) fn new(
        disk: &Arc<dyn Disk>,
        cache: &Arc<BlockCache>,
        dir: &Path,
        identity: Identity,
        space: Space,
    ) -> Self {
        Folder {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            identity,
            dimension: space.dim.as_u32(),
            spaces: [space],
            cache: Arc::clone(cache),
            retired: Arc::default(),
        }
    }

    /// The same collection in another folder.
    pub(super) fn elsewhere(&self, dir: &Path) -> Self {
        Folder { dir: dir.to_owned(), retired: Arc::default(), ..self.clone() }
    }

    fn name(&self, number: u32) -> Name {
        Name { collection: self.identity, number: number.into() }
    }

    /// The number of the last document of a segment, if it can be opened and has any.
    pub(super) fn last_of(&self, number: u64) -> Option<u64> {
        let name = Name { collection: self.identity, number };
        let segment = Segment::open(&self.disk, &self.dir, name, &self.spaces, &self.cache).ok()?;
        Some(segment.versions()?.1)
    }

    /// Removes the files of a segment, if there are any.
    pub(super) fn remove_segment(&self, number: u32) -> Result<(), StoreError> {
        segment::remove(&*self.disk, &self.dir, number.into()).map_err(StoreError::from)
    }

    fn lock_retired(&self) -> MutexGuard<'_, VecDeque<u32>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are segments whose files are to be removed.
    pub(super) fn has_retired(&self) -> bool {
        !self.lock_retired().is_empty()
    }

    /// A segment whose files are to be removed.
    pub(super) fn next_retired(&self) -> Option<u32> {
        self.lock_retired().pop_front()
    }

    /// Its files could not be removed now.
    pub(super) fn still_retired(&self, number: u32) {
        self.lock_retired().push_back(number);
    }
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Sealed {
    segment: Segment,
    number: u32,
    /// Numbers of the first and of the last document.
    first: u64,
    last: u64,
    bytes: u64,
    /// Made when the segment is, or is read whole, or when an id is looked for first.
    ids: OnceLock<Ids>,
    /// Others took its place: when nobody reads it any more its files go.
    is_retired: AtomicBool,
    retired: Arc<Mutex<VecDeque<u32>>>,
}

/// A segment that is being built.
pub(super) struct Building {
    builder: Builder,
    folder: Folder,
    number: u32,
}

/// What came of a merge.
pub(super) enum Merged {
    Segment(Arc<Sealed>),
    /// No document was left.
    Nothing,
    Stopped,
}

impl Drop for Sealed {
    /// Whoever drops it last may be a query: the files are removed by whoever tidies up.
    fn drop(&mut self) {
        if self.is_retired.load(Ordering::SeqCst) {
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.number);
        }
    }
}

impl Building {
    pub(super) fn push(&mut self, put: &Put) -> Result<(), StoreError> {
        let dir = &self.folder.dir;
        let Body { id, title, payload, content_hash, passages, updated_at } = Body::decode(&put.body, dir)?;
        self.builder.push(&Document {
            id: &id,
            title: &title,
            text: &put.text(dir)?,
            payload: &payload,
            content_hash,
            version: put.number,
            written_at: updated_at,
            expires_at: None,
            passages: &passages,
            vectors: &[put.vectors.chunks_exact(self.folder.dimension as usize).collect()],
        })?;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Arc<Sealed>, StoreError> {
        let Building { builder, folder, number } = self;
        let sealed = Sealed::of(&folder, number, builder.finish(&folder.cache)?);
        sealed.know_ids();
        Ok(sealed)
    }
}

impl Sealed {
    fn of(folder: &Folder, number: u32, segment: Segment) -> Arc<Self> {
        let (first, last) = segment.versions().unwrap_or((0, 0));
        let bytes = segment.bytes().iter().map(|(_, bytes)| bytes).sum();
        let retired = Arc::clone(&folder.retired);
        let (ids, is_retired) = (OnceLock::new(), AtomicBool::new(false));
        Arc::new(Sealed { segment, number, first, last, bytes, ids, is_retired, retired })
    }

    /// Opens a segment that the manifest names, with the deletions of `version`, which may say more than those that the
    /// manifest names.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::OtherCollection`], [`StoreError::NewerFormat`], [`StoreError::Io`].
    pub(super) fn open(folder: &Folder, named: &Named, version: u64) -> Result<Part, StoreError> {
        let name = folder.name(named.number);
        let segment = Segment::open(&folder.disk, &folder.dir, name, &folder.spaces, &folder.cache)?;
        let path = segment.path().to_owned();
        let damaged = |reason: String| StoreError::corrupt(&path, format!("{reason}; {REMEDY}"));
        let sealed = Self::of(folder, named.number, segment);
        let got = (sealed.rows(), sealed.passages(), sealed.first, sealed.last);
        if got != (named.rows, named.passages, named.first, named.last) {
            let reason = "it holds other documents than the manifest says".to_owned();
            return Err(damaged(reason));
        }
        let mut part = Part::new(sealed);
        if version < named.deletions {
            return Err(damaged(format!("version {} of its deletions is missing", named.deletions)));
        }
        if version > 0 {
            let Deleted { rows, .. } = Deleted::read(&folder.disk, &folder.dir, name, version, named.rows)?;
            let deleted: Vec<Row> = rows
                .iter()
                .map(|row| Ok(Row { row, passages: part.sealed.passages_of(row)? }))
                .collect::<Result<_, StoreError>>()?;
            part.delete(&deleted);
        }
        let live = (part.live(), part.live_passages);
        let expected = (u64::from(named.live), named.live_passages);
        let is_as_named = live == expected || (version > named.deletions && live.0 <= expected.0);
        if !is_as_named {
            return Err(damaged(format!(
                "{} of its documents are left, with {} passages, and the manifest says {} with {}",
                live.0, live.1, expected.0, expected.1
            )));
        }
        part.saved = Saved { version, deleted: part.deleted.len(), live_passages: part.live_passages };
        Ok(part)
    }

    /// Begins a segment. What is not finished leaves nothing.
    pub(super) fn begin(folder: &Folder, number: u32) -> Result<Building, StoreError> {
        let name = folder.name(number);
        let builder = Builder::new(&folder.disk, &folder.dir, name, &folder.spaces, Limits::default())?;
        Ok(Building { builder, folder: folder.clone(), number })
    }

    /// Makes a segment of documents in ascending order of their numbers.
    pub(super) fn build(folder: &Folder, number: u32, puts: &[Arc<Put>]) -> Result<Arc<Self>, StoreError> {
        let mut building = Self::begin(folder, number)?;
        puts.iter().try_for_each(|put| building.push(put))?;
        building.finish()
    }

    /// Makes one segment of what is not deleted in several.
    pub(super) fn merge(
        folder: &Folder,
        number: u32,
        sources: &[Part],
        stop: &Stop,
    ) -> Result<Merged, StoreError> {
        let sources: Vec<Source<'_>> = sources
            .iter()
            .map(|part| Source { segment: &part.sealed.segment, deleted: &part.deleted })
            .collect();
        let merge = Merge {
            disk: &folder.disk,
            dir: &folder.dir,
            name: folder.name(number),
            spaces: &folder.spaces,
            limits: Limits::default(),
            // Nothing expires yet.
            now: i64::MIN,
            cache: &folder.cache,
            stop,
            progress: &AtomicU64::new(0),
        };
        match merge.run(&sources) {
            Ok(merged) => Ok(merged.segment.map_or(Merged::Nothing, |segment| {
                let sealed = Self::of(folder, number, segment);
                sealed.know_ids();
                Merged::Segment(sealed)
            })),
            Err(SegmentError::Stopped(_)) => Ok(Merged::Stopped),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes which documents are deleted, durably; earlier versions go.
    pub(super) fn save_deletions(
        &self,
        folder: &Folder,
        version: u64,
        sequence: u64,
        deleted: &RoaringBitmap,
    ) -> Result<(), StoreError> {
        let deleted = Deleted { version, sequence, rows: deleted.clone() };
        deleted.write(&folder.disk, &folder.dir, self.segment.name(), self.rows()).map_err(StoreError::from)
    }

    /// Others took its place.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    /// The segment itself.
    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Documents, the deleted ones too.
    pub(super) fn rows(&self) -> u32 {
        self.segment.len()
    }

    /// Vectors, those of deleted documents too.
    pub(super) fn passages(&self) -> u64 {
        self.segment.passage_count().into()
    }

    /// Number of the first document.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Number of the last document.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The row of a document.
    pub(super) fn row(&self, number: u64) -> Result<Option<u32>, StoreError> {
        let (rows, Some(ahead)) = (self.rows(), number.checked_sub(self.first)) else { return Ok(None) };
        if number > self.last {
            return Ok(None);
        }
        if self.last - self.first == u64::from(rows) - 1 {
            return Ok(u32::try_from(ahead).ok());
        }
        // Numbers ascend by 1 at least, so a row is no farther from the first than its number is.
        let (mut low, mut high) = (0, u32::try_from(ahead).map_or(rows, |ahead| rows.min(ahead + 1)));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.number_of(middle)? < number { low = middle + 1 } else { high = middle }
        }
        Ok(if low < rows && self.number_of(low)? == number { Some(low) } else { None })
    }

    /// The row of an id, deleted or not.
    pub(super) fn find(&self, id: &PointId, hash: IdHash) -> Result<Option<u32>, StoreError> {
        if !self.ids()?.may_have(hash) {
            return Ok(None);
        }
        Ok(self.segment.find(id)?.map(|segment::Row(row)| row))
    }

    /// Reads all ids, so that whoever looks for one first needs not. What cannot be read that one is told.
    pub(super) fn know_ids(&self) {
        if let Err(error) = self.ids() {
            tracing::warn!(segment = %self.segment.path().display(), %error, "the ids of a segment cannot be read");
        }
    }

    fn ids(&self) -> Result<&Ids, StoreError> {
        if let Some(ids) = self.ids.get() {
            return Ok(ids);
        }
        let mut ids = Ids::with_capacity(self.rows() as usize);
        for row in 0..self.rows() {
            ids.insert(IdHash::of(&self.id_of(row)?));
        }
        // Where two come here at once, one of them made it in vain.
        Ok(self.ids.get_or_init(|| ids))
    }

    /// The id of the document of a row.
    pub(super) fn id_of(&self, row: u32) -> Result<PointId, StoreError> {
        self.segment.id(segment::Row(row)).map_err(StoreError::from)
    }

    /// The document of a row but for its text and its payload, which need not be unpacked for it.
    pub(super) fn load(&self, row: u32) -> Result<Loaded, StoreError> {
        let segment::Head { version, content_hash, passages, .. } = self.segment.head(segment::Row(row))?;
        let vectors = self.vectors(row)?;
        Ok(Loaded { number: version, id: self.id_of(row)?, content_hash, passages, vectors, payload: None })
    }

    /// The number of the document of a row.
    pub(super) fn number_of(&self, row: u32) -> Result<u64, StoreError> {
        Ok(self.segment.head(segment::Row(row))?.version)
    }

    /// Vectors of the document of a row.
    pub(super) fn passages_of(&self, row: u32) -> Result<u32, StoreError> {
        Ok(self.segment.head(segment::Row(row))?.passages)
    }

    pub(super) fn head(&self, row: u32) -> Result<Head, StoreError> {
        let reading = self.segment.reading(segment::Row(row))?;
        let segment::Body { title, payload } = reading.body()?;
        let body = Body {
            id: self.segment.id(segment::Row(row))?,
            title,
            payload,
            content_hash: reading.head.content_hash,
            passages: reading.passages()?,
            updated_at: reading.head.written_at,
        };
        Ok(Head { body, text_bytes: reading.head.text_bytes().into() })
    }

    pub(super) fn text(&self, row: u32) -> Result<String, StoreError> {
        self.segment.text(segment::Row(row)).map_err(StoreError::from)
    }

    /// The vectors of the document of a row, one after the other.
    pub(super) fn vectors(&self, row: u32) -> Result<Vec<f32>, StoreError> {
        let head = self.segment.head(segment::Row(row))?;
        let mut all = Vec::new();
        if let Some(vectors) = self.segment.vectors(SPACE) {
            for at in head.vectors() {
                all.extend_from_slice(&vectors.row(at)?);
            }
        }
        Ok(all)
    }
}

/// What to do where a segment or its deletions are damaged.
const REMEDY: &str = "`distilface repair` says what is lost and keeps the rest; else put it back from a backup with the rest of its folder";

/// The number of the only vector space.
pub(crate) const SPACE: u32 = 0;

impl From<SegmentError> for StoreError {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Corrupt { path, offset, reason } => {
                StoreError::corrupt(&path, format!("at byte {offset}: {reason}; {REMEDY}"))
            }
            SegmentError::Foreign { path, got, expected } => StoreError::corrupt(
                &path,
                format!("it is {got}, and this place is that of {expected}; {REMEDY}"),
            ),
            SegmentError::NewerFormat { path, got, supported } => {
                StoreError::NewerFormat { path, got: got.into(), supported: supported.into() }
            }
            SegmentError::DiskFull { path } => StoreError::DiskFull { path },
            SegmentError::NoHandle { path } => StoreError::NoHandle { path },
            SegmentError::Io { path, source } => StoreError::Io { path, source },
            error => StoreError::io(Path::new("a segment"), std::io::Error::other(error.to_string())),
        }
    }
}
