//! Changes on their way to the writer: a call is checked, takes room in the queue, and is answered when it is durable.
//!
//! What is refused here was never queued. What the writer does with the rest stands in `writer.rs`.

use std::{
    collections::HashSet,
    sync::{atomic::Ordering, mpsc::sync_channel},
};

use super::{
    Collection, CollectionError, Condition, Durability, Once,
    point::Point,
    writer::{self, Call},
};
use crate::value::{PointId, payload::payload_bytes};

/// A change to a collection.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Stores the point; a stored point of its id is replaced, unless its content hash is the same.
    Upsert(Box<Point>),
    /// As [`Write::Upsert`], where what is stored at the moment of the write meets the condition. The condition is looked
    /// at first: a point of the same content hash is refused, too, where it does not hold.
    UpsertIf {
        /// The point to store.
        point: Box<Point>,
        /// What must be stored now.
        condition: Condition,
    },
    /// Removes the point of this id, if there is one.
    Delete(PointId),
    /// As [`Write::Delete`], where what is stored at the moment of the write meets the condition.
    DeleteIf {
        /// The point to remove.
        id: PointId,
        /// What must be stored now.
        condition: Condition,
    },
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
    /// The condition of the write does not hold, so nothing was done. Only with [`WriteOptions::each`].
    Refused,
}

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// What the write did.
    pub outcome: Outcome,
    /// Version of the point that is stored now, whether this write stored it or not; `None` where none is stored. See
    /// [`super::point::Revision::version`].
    pub version: Option<u64>,
}

/// How the writes of one call are done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Each write is as well done without the others: one whose condition does not hold is left out and answered with
    /// [`Outcome::Refused`]. Default: false, and then it refuses the whole call.
    pub each: bool,
    /// What they must outlive when they are answered. Default: the loss of power.
    pub durability: Durability,
    /// Makes the call one that is done once: if it was done before, nothing is done, and the answer is
    /// [`CollectionError::DoneBefore`]. A call that is refused is not remembered. Default: none.
    pub once: Option<Once>,
}

/// Called once, from a writer's thread, when a write is durable or has failed. Must not block.
pub type WriteDone = Box<dyn FnOnce(Result<Vec<Written>, CollectionError>) + Send>;

impl Collection {
    /// Queues changes for the writer; `done` hears when all are durable. The changes of one call are atomic: where the
    /// condition of one does not hold, none is done and `done` hears that condition's error.
    /// Ids must be distinct within a call; one without changes is answered when what was written before is as durable as
    /// it asks. Never blocks; a call that is refused at once is told so on this thread.
    pub fn submit(&self, writes: Vec<Write>, done: WriteDone) {
        self.submit_with(writes, WriteOptions::default(), done);
    }

    /// [`Collection::submit`] with options.
    pub fn submit_with(&self, writes: Vec<Write>, options: WriteOptions, done: WriteDone) {
        let call = Call { writes: writes.into(), options };
        let bytes = match self.admit(&call.writes) {
            Ok(bytes) => bytes,
            Err(error) => return writer::answer(done, Err(error)),
        };
        match self.shared.jobs.push(writer::Job { call, done, bytes }) {
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
            if let Some(point) = write.point() {
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
    pub fn write(&self, writes: Vec<Write>) -> Result<Vec<Written>, CollectionError> {
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
            Write::Upsert(point) | Write::UpsertIf { point, .. } => &point.id,
            Write::Delete(id) | Write::DeleteIf { id, .. } => id,
        }
    }

    /// What it stores, unless it is a deletion.
    pub(super) fn point(&self) -> Option<&Point> {
        match self {
            Write::Upsert(point) | Write::UpsertIf { point, .. } => Some(point),
            Write::Delete(_) | Write::DeleteIf { .. } => None,
        }
    }

    pub(super) fn condition(&self) -> Condition {
        match self {
            Write::Upsert(_) | Write::Delete(_) => Condition::Any,
            Write::UpsertIf { condition, .. } | Write::DeleteIf { condition, .. } => *condition,
        }
    }

    /// About how much memory it holds.
    fn bytes(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD
            + self.id().as_str().len()
            + self.point().map_or(0, |point| {
                let vectors: usize =
                    point.passages.iter().map(|p| OVERHEAD + size_of_val(p.vector.as_slice())).sum();
                point.title.len() + point.text.len() + payload_bytes(&point.payload) + vectors
            })
    }
}
