//! Merges segments into one: what is deleted or expired is left out, the order is kept.
//!
//! Texts, bodies and vectors go through memory block by block, and columns value by value; in memory stay the ids and
//! which row each row becomes, 4 bytes. The sources stay as they are, whatever happens.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use roaring::RoaringBitmap;

use super::{
    BlockCache, Limits, Name, Row, Segment, SegmentError, Space, Vectors,
    builder::{UnderWay, publish},
    columns::{self, merge::Source as ColumnsSource, writer::ColumnsWriter},
    documents::writer::{DocumentsWriter, Entry},
    vectors::VectorsWriter,
};
use crate::{files::disk::Disk, stop::Stop};

/// Rows between two looks at the stop signal.
const STEP_ROWS: u32 = 64;
/// Stands for a row that was left out.
const DROPPED: u32 = u32::MAX;

/// A segment to be merged, and which of its rows are gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) deleted: &'a RoaringBitmap,
}

/// How segments are merged.
#[derive(Debug)]
pub(crate) struct Merge<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    /// The collection's folder.
    pub(crate) dir: &'a Path,
    /// Of the new segment.
    pub(crate) name: Name,
    /// The spaces that the new segment has; every source was opened with them.
    pub(crate) spaces: &'a [Space],
    pub(crate) limits: Limits,
    /// The time at which documents count as expired, in microseconds since 1970.
    pub(crate) now: i64,
    pub(crate) cache: &'a Arc<BlockCache>,
    pub(crate) stop: &'a Stop,
    /// Counts the rows of all sources, kept or left out.
    pub(crate) progress: &'a AtomicU64,
}

/// What came of a merge.
#[derive(Debug)]
pub(crate) struct Merged {
    /// `None` if nothing was left.
    pub(crate) segment: Option<Segment>,
    /// For every source, which row each of its rows became.
    rows: Vec<Vec<u32>>,
}

impl Merged {
    /// The row that a source's row became; `None` if it was left out. With it deletions are carried over that came
    /// while the merge was running.
    pub(crate) fn row(&self, source: usize, row: Row) -> Option<Row> {
        let new = *self.rows.get(source)?.get(row.0 as usize)?;
        (new != DROPPED).then_some(Row(new))
    }

    /// The rows of the new segment that some rows of a source became.
    #[cfg_attr(not(test), expect(dead_code, reason = "the index over segments reads it next"))]
    pub(crate) fn rows(&self, source: usize, rows: &RoaringBitmap) -> RoaringBitmap {
        rows.iter().filter_map(|row| self.row(source, Row(row))).map(|row| row.0).collect()
    }
}

impl Merge<'_> {
    /// Merges the sources, in their order.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] naming what is damaged in a source; [`SegmentError::Duplicate`] if two documents that
    /// are not gone have one id; [`SegmentError::Full`]; [`SegmentError::Stopped`]; those of writing. Nothing is left
    /// of the new segment then, and it can be tried again.
    pub(crate) fn run(&self, sources: &[Source<'_>]) -> Result<Merged, SegmentError> {
        let &Merge { disk, dir, name, spaces, limits, cache, .. } = self;
        let under_way = UnderWay::begin(disk, dir, name)?;
        let path = under_way.path();
        let mut documents = DocumentsWriter::create(disk, path, name, limits.spool_bytes)?;
        let vectors = spaces.iter().map(|space| VectorsWriter::create(disk, path, name, space));
        let mut vectors = vectors.collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::with_capacity(sources.len());
        for source in sources {
            rows.push(self.copy(source, &mut documents, &mut vectors)?);
        }
        let count = documents.rows();
        if count == 0 {
            return Ok(Merged { segment: None, rows });
        }
        documents.finish()?;
        vectors.into_iter().try_for_each(VectorsWriter::finish)?;

        let mut columns = ColumnsWriter::create(disk, &path.join(columns::FILE), name, limits.spool_bytes)?;
        let becomes: Vec<_> = rows
            .iter()
            .map(|rows| move |row: u32| rows.get(row as usize).copied().filter(|row| *row != DROPPED))
            .collect();
        let sources: Vec<_> = sources
            .iter()
            .zip(&becomes)
            .map(|(source, row)| ColumnsSource { columns: source.segment.columns(), row })
            .collect();
        columns::merge::merge(&sources, &mut columns, self.stop)?;
        columns.finish(count)?;
        self.stop.check()?;
        let segment = publish(under_way, spaces, cache)?;
        Ok(Merged { segment: Some(segment), rows })
    }

    /// Copies what is left of a source; returns which row each of its rows became.
    fn copy(
        &self,
        source: &Source<'_>,
        documents: &mut DocumentsWriter,
        vectors: &mut [VectorsWriter],
    ) -> Result<Vec<u32>, SegmentError> {
        let Source { segment, deleted } = *source;
        let theirs = self.spaces.iter().map(|space| {
            segment.vectors(space.number).filter(|vectors| vectors.space() == space).ok_or_else(|| {
                let reason = format!("it has no vectors of space {} as the merge wants them", space.number);
                SegmentError::corrupt(segment.path(), 0, reason)
            })
        });
        let theirs: Vec<&Vectors> = theirs.collect::<Result<_, _>>()?;
        let gone = deleted | segment.expired(self.now)?;
        let mut walk = segment.documents().walk();
        let mut becomes = Vec::with_capacity(segment.len() as usize);
        for row in 0..segment.len() {
            if row % STEP_ROWS == 0 {
                self.stop.check()?;
            }
            self.progress.fetch_add(1, Ordering::Relaxed);
            if gone.contains(row) {
                becomes.push(DROPPED);
                continue;
            }
            let reading = segment.reading(Row(row))?;
            let head = reading.head;
            let (id, passages) = (segment.id(Row(row))?, reading.passages()?);
            // Text and body may be of two blocks, of which one is kept while the other is read.
            let body = walk.body(&head)?.to_vec();
            let new = documents.push(&Entry {
                id: id.as_str(),
                content_hash: head.content_hash,
                version: head.version,
                written_at: head.written_at,
                expires_at: head.expires_at,
                passages: &passages,
                text: walk.text(&head)?,
                body: &body,
            })?;
            for (writer, vectors) in vectors.iter_mut().zip(&theirs) {
                head.vectors().try_for_each(|at| writer.push(&vectors.row(at)?))?;
            }
            becomes.push(new.0);
        }
        Ok(becomes)
    }
}
