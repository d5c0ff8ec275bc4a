//! What the engine asks of one collection, wherever it is kept: in a folder of this process, or by a server far away.
//!
//! Everything waits and nothing computes: where work is done, on which threads and how often it looks whether anybody
//! still waits, is the backend's business. `local` keeps its collection in this process. `conformance.rs` says what
//! every backend promises; a new one passes it as it is.
//!
//! What all promise:
//!
//! - **Cancelled by being dropped.** A future that is dropped leaves off within a bounded step, and holds nothing then.
//!   A write that was handed over already is done wholly or not at all.
//! - **Read your writes.** What a write answered for is durable, and every call that begins later sees it.
//! - **Bounded.** Answers of many or large documents take their place in the [`Room`] of their request before they are
//!   read; without room there is an error and not a part.
//!
//! Making, opening, closing and deleting collections is not here: `catalog.rs` knows which there are, and does it.

use std::{any::Any, collections::HashSet, fmt, pin::Pin, sync::Arc, time::Instant};

use super::error::Result;
use crate::{
    budget::Room,
    collection::{
        CollectionStats, DoneBefore, Durability, Page, Reads, SearchQuery, SearchTrace, Write, WriteOptions,
        Written,
        point::{Hit, Revision, StoredPoint, Versioned},
    },
    index::columns::FieldsRequest,
    value::{PointId, filter::Filter},
};

#[cfg(test)]
mod conformance;
mod local;
#[cfg(test)]
mod reference;

pub(super) use local::Local;

/// An answer on its way.
pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Keeps a collection ready as long as it is held.
pub(super) type Kept = Arc<dyn Any + Send + Sync>;

/// Documents that a page shows.
#[derive(Debug, Clone, Default)]
pub(super) struct PageQuery {
    /// Only those that match; `None`: all.
    pub(super) filter: Option<Filter>,
    /// Only those with a larger id; `None`: from the first.
    pub(super) after: Option<PointId>,
    /// The most documents of the page, at least 1. It may have fewer and yet be followed by another.
    pub(super) limit: usize,
    pub(super) with_text: bool,
    /// With the vector of each document's first passage.
    pub(super) with_vectors: bool,
}

/// Names of payload fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KnownFields {
    /// Those asked about that no document has.
    pub(super) unknown: HashSet<String>,
    /// How many different ones the collection has; or some more, where even then there is room for those.
    pub(super) total: usize,
}

/// One collection.
pub(super) trait Backend: fmt::Debug + Send + Sync {
    /// Sees to it that the collection answers, which may take long the first time; every other call does that, too.
    ///
    /// # Errors
    /// Why it cannot answer: [`super::EngineError::Damaged`], [`super::EngineError::TooManyOpen`] and the like; all
    /// others may fail so, too.
    fn ready(&self) -> Answer<'_, Kept>;

    /// Drawn when the collection was made; another one has another, though it have the same name.
    fn identity(&self) -> Answer<'_, [u8; 16]>;

    /// Inserts, replaces and deletes documents, each id once; an outcome for each, in order. All of a call or nothing,
    /// unless `options` say otherwise, answered when durable as asked; without writes, when what was written before is.
    /// An upsert of what is stored already, by its content hash, changes nothing. Conditions are looked at when the write
    /// is done, so that nobody changes a document between the look and the write. A call that is done once is remembered
    /// with its changes, and also without any.
    ///
    /// # Errors
    /// Those of [`crate::collection::Condition::check`]; `CollectionError::DuplicateId`; `CollectionError::DoneBefore`
    /// and `CollectionError::OtherRequest`; what the store says.
    fn write_with(&self, writes: Vec<Write>, options: WriteOptions) -> Answer<'_, Vec<Written>>;

    /// [`Backend::write_with`], all or nothing.
    fn write(&self, writes: Vec<Write>, durability: Durability) -> Answer<'_, Vec<Written>> {
        self.write_with(writes, WriteOptions { durability, ..WriteOptions::default() })
    }

    /// For tests: [`Backend::write_with`], but a write whose condition does not hold is left out and answered with
    /// `Outcome::Refused`; the others are done.
    #[cfg(test)]
    fn write_each(&self, writes: Vec<Write>, durability: Durability) -> Answer<'_, Vec<Written>> {
        self.write_with(writes, WriteOptions { each: true, durability, ..WriteOptions::default() })
    }

    /// What a call with an id did that was done before; `None` if it was not, or is not remembered.
    ///
    /// # Errors
    /// `CollectionError::OtherRequest` if the id was used for another call.
    fn done_before(&self, id: String, hash: [u8; 16]) -> Answer<'_, Option<Arc<DoneBefore>>>;

    /// The best documents or passages, best first, and how they were found. `encoded` is the vector of the query's
    /// text, if it is a text. Hits take their place in the room of `reads`, which is one for all searches of a request.
    /// Begins nothing after `deadline`, and leaves off when it passes.
    ///
    /// # Errors
    /// [`super::EngineError::NoDocument`]; [`crate::budget::BudgetError`]; vector and filter errors; the deadline's.
    fn search(
        &self,
        query: SearchQuery,
        encoded: Option<Vec<f32>>,
        deadline: Option<Instant>,
        reads: Arc<Reads>,
    ) -> Answer<'_, (Vec<Hit>, SearchTrace)>;

    /// Stored documents with their texts, in the order asked; `None` for those not there.
    ///
    /// # Errors
    /// [`crate::budget::BudgetError`]; what the store says.
    fn get(
        &self,
        ids: Vec<PointId>,
        with_vectors: bool,
        room: Arc<Room>,
    ) -> Answer<'_, Vec<Option<StoredPoint>>>;

    /// Whole documents as they could be written again, each with its version or its own error: those of the first ids, as many as take
    /// about `bytes_max` together, and at least one where there is an id. `None` for those not there.
    fn points(&self, ids: Vec<PointId>, bytes_max: usize) -> Answer<'_, Vec<Result<Option<Versioned>>>>;

    /// Which state of each document is stored, in the order asked; `None` for those not there. Cheap.
    fn revisions(&self, ids: Vec<PointId>) -> Answer<'_, Vec<Option<Revision>>>;

    /// A page of documents by id.
    ///
    /// # Errors
    /// [`crate::budget::BudgetError`]; filter errors; what the store says.
    fn scroll(&self, query: PageQuery, room: Arc<Room>) -> Answer<'_, Page>;

    /// How many documents match; `None`: how many there are.
    ///
    /// # Errors
    /// Filter errors.
    fn count(&self, filter: Option<Filter>) -> Answer<'_, u64>;

    /// Ids of the documents that match, in no order.
    ///
    /// # Errors
    /// Filter errors.
    fn ids(&self, filter: Filter) -> Answer<'_, Vec<PointId>>;

    /// What should be said of a filter besides its answer; empty as a rule.
    fn hints(&self, filter: Filter) -> Answer<'_, Vec<String>>;

    /// What there is of these field names, of which a collection may have `names_max`. One that does not bound how many names there are knows them all.
    fn fields(&self, names: HashSet<String>, names_max: usize) -> Answer<'_, KnownFields>;

    /// Counts, and the fields that are asked for.
    fn stats(&self, fields: FieldsRequest) -> Answer<'_, CollectionStats>;

    /// Waits until every stored vector is in its index. For benches and evaluation.
    fn wait_indexed(&self) -> Answer<'_, ()>;
}
