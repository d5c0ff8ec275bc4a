//! Changes on their way to the writer: a call is checked, takes room in the queue, and is answered when it is durable.
//!
//! What is refused here was never queued. What the writer does with the rest stands in `writer.rs`.

use std::{
    collections::HashSet,
    sync::{atomic::Ordering, mpsc::sync_channel},
};

use super::{
    Collection, CollectionError,
    point::{self, Point},
    writer,
};
use crate::value::{PointId, payload::payload_bytes};

/// A change to a collection.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Stores the point; a stored point of its id is replaced, unless its content hash is the same.
    Upsert(Box<Point>),
    /// Only if what is stored has the content `expected`; [`CollectionError::Changed`] if not.
    Replace {
        /// The point to store.
        point: Box<Point>,
        /// Hash of the content that must be stored now.
        expected: point::ContentHash,
    },
    /// Removes the point of this id, if there is one.
    Delete(PointId),
}

/// The effect of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The point is new.
    Inserted,
    /// The point replaced one of its id.
    Updated,
    /// The stored content hash is the same.
    Unchanged,
    /// The point was removed.
    Deleted,
    /// No point of this id is stored, so nothing was removed.
    NotFound,
}

/// Called once, from a writer's thread, when a write is durable or has failed. Must not block.
pub type WriteDone = Box<dyn FnOnce(Result<Vec<Outcome>, CollectionError>) + Send>;

impl Collection {
    /// Queues changes for the writer; `done` hears when all are durable. The changes of one call are atomic.
    /// Ids must be distinct within a call. Never blocks; a call that is refused at once is told so on this thread.
    pub fn submit(&self, writes: Vec<Write>, done: WriteDone) {
        let bytes = match self.admit(&writes) {
            Ok(bytes) => bytes,
            Err(error) => return writer::answer(done, Err(error)),
        };
        match self.shared.jobs.push(writer::Job { writes, done, bytes }) {
            Ok(()) => self.shared.wake_writer(),
            Err(refused) => {
                let (job, error) = *refused;
                self.shared.dequeued(bytes);
                writer::answer(job.done, Err(error));
            }
        }
    }

    /// Checks a call and takes room for it in the queue.
    fn admit(&self, writes: &[Write]) -> Result<usize, CollectionError> {
        self.shared.check_open()?;
        if self.shared.read_only().is_some() {
            return Err(self.shared.read_only_error());
        }
        let mut ids = HashSet::with_capacity(writes.len());
        for write in writes {
            if !ids.insert(write.id()) {
                return Err(CollectionError::DuplicateId { id: write.id().as_str().to_owned() });
            }
            if let Write::Upsert(point) | Write::Replace { point, .. } = write {
                self.check_point(point)?;
            }
        }
        let bytes = writes.iter().map(Write::bytes).sum();
        let queued = self.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        // One call may be larger than the queue; it then waits alone.
        if queued > 0 && queued.saturating_add(bytes) > writer::QUEUE_BYTES_MAX {
            self.shared.dequeued(bytes);
            return Err(CollectionError::QueueFull { limit: writer::QUEUE_MAX });
        }
        Ok(bytes)
    }

    fn check_point(&self, point: &Point) -> Result<(), CollectionError> {
        let bad = |reason: String| CollectionError::BadPoint { id: point.id.as_str().to_owned(), reason };
        if point.passages.is_empty() {
            return Err(bad("it has no passage; a document needs at least one".to_owned()));
        }
        for (n, passage) in point.passages.iter().enumerate() {
            let got = passage.vector.as_slice().len();
            if got != self.shared.spec.dim.len() {
                let expected = self.shared.spec.dim.as_u32();
                return Err(bad(format!(
                    "vector {n} has {got} values, the collection's dimension is {expected}"
                )));
            }
            if point.text.get(passage.range.start as usize..passage.range.end as usize).is_none() {
                return Err(bad(format!("passage {n} is not a part of the text")));
            }
        }
        Ok(())
    }

    /// [`Collection::submit`], waiting.
    ///
    /// # Errors
    /// As the writer reports.
    pub fn write(&self, writes: Vec<Write>) -> Result<Vec<Outcome>, CollectionError> {
        let (sender, answer) = sync_channel(1);
        self.submit(
            writes,
            Box::new(move |result| {
                // Nobody listens only if this thread is gone.
                let _ = sender.try_send(result);
            }),
        );
        answer.recv().unwrap_or(Err(CollectionError::Closed))
    }
}

impl Write {
    pub(super) fn id(&self) -> &PointId {
        match self {
            Write::Upsert(point) | Write::Replace { point, .. } => &point.id,
            Write::Delete(id) => id,
        }
    }

    /// About how much memory it holds.
    fn bytes(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD
            + self.id().as_str().len()
            + match self {
                Write::Upsert(point) | Write::Replace { point, .. } => {
                    let vectors: usize =
                        point.passages.iter().map(|p| OVERHEAD + size_of_val(p.vector.as_slice())).sum();
                    point.title.len() + point.text.len() + payload_bytes(&point.payload) + vectors
                }
                Write::Delete(_) => 0,
            }
    }
}
