//! A collection of this process: opened when it is needed, and worked on in the engine's pools.
//!
//! Opening may wait long and takes a thread run_blocking, and so does waiting for the indexer: a thread of a pool waits for
//! nothing that needs another one. Searches have a pool of their own; all else runs in the work pool.
//! Whatever runs hears it when nobody waits any more. Nothing is copied on the way: what a call was given is moved to
//! the pool, and its answer back.

use std::{collections::HashSet, sync::Arc, time::Instant};

use tokio::sync::{Semaphore, oneshot};

use super::{Answer, Backend, Kept, KnownFields, PageQuery};
use crate::{
    budget::Room,
    collection::{
        Collection, CollectionError, CollectionStats, DoneBefore, PAGE_BYTES, Page, Reads, SearchQuery,
        SearchTrace, Write, WriteDone, WriteOptions, Written,
        point::{Hit, Revision, StoredPoint, Versioned},
    },
    engine::{EngineError, catalog::Open, error::Result, opened::InUse, run_blocking},
    index::columns::FieldsRequest,
    stop::Stop,
    threads::Threads,
    value::{PointId, filter::Filter, payload::payload_bytes},
};

/// A collection in a folder.
#[derive(Debug)]
pub(in crate::engine) struct Local {
    open: Arc<Open>,
    threads: Arc<Threads>,
    /// A permit for each search that may open its collection at the same time.
    openings: Arc<Semaphore>,
}

/// A search on its way to its collection.
struct Asked {
    query: SearchQuery,
    encoded: Option<Vec<f32>>,
    reads: Arc<Reads>,
    open: Arc<Open>,
}

impl Asked {
    fn answer(&self, collection: &Collection, stop: &Stop) -> Result<(Vec<Hit>, SearchTrace)> {
        let found = collection.search(&self.query, self.encoded.as_deref(), stop, &self.reads);
        found.map_err(|error| match error {
            CollectionError::NoDocument { id } => {
                EngineError::NoDocument { collection: self.open.info.name.clone(), id }
            }
            error => error.into(),
        })
    }
}

impl Local {
    /// Opens nothing yet.
    pub(in crate::engine) fn new(
        open: &Arc<Open>,
        threads: &Arc<Threads>,
        openings: &Arc<Semaphore>,
    ) -> Self {
        Local { open: Arc::clone(open), threads: Arc::clone(threads), openings: Arc::clone(openings) }
    }

    /// The collection, opened apart if it is not open. It stays open as long as it is held.
    async fn collection(&self) -> Result<InUse> {
        if let Some(collection) = self.open.use_now() {
            return Ok(collection);
        }
        let open = Arc::clone(&self.open);
        run_blocking(move || open.collection()).await?
    }

    /// Runs `f` in the work pool. It is handed a [`Stop`] that says when nobody waits any more.
    async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Collection, &Stop) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let collection = self.collection().await?;
        self.threads.read(move |stop| f(&collection, &stop)).await?
    }

    /// Waits for what `submit` queues.
    async fn submit(
        &self,
        submit: impl FnOnce(&Collection, WriteDone) + Send + 'static,
    ) -> Result<Vec<Written>> {
        let collection = self.collection().await?;
        let (send, receive) = oneshot::channel();
        let done: WriteDone = Box::new(move |result| {
            // The asker may have gone; the write is done all the same.
            let _ = send.send(result);
        });
        // Each write is looked through before it is queued.
        self.threads.work(move || submit(&collection, done)).await?;
        Ok(receive.await.map_err(|_| EngineError::Closing)??)
    }
}

impl Backend for Local {
    fn ready(&self) -> Answer<'_, Kept> {
        Box::pin(async { Ok(Arc::new(self.collection().await?) as Kept) })
    }

    fn identity(&self) -> Answer<'_, [u8; 16]> {
        Box::pin(async { Ok(self.collection().await?.identity().0) })
    }

    fn write_with(&self, writes: Vec<Write>, options: WriteOptions) -> Answer<'_, Vec<Written>> {
        Box::pin(self.submit(move |collection, done| collection.submit_with(writes, options, done)))
    }

    fn done_before(&self, id: String, hash: [u8; 16]) -> Answer<'_, Option<Arc<DoneBefore>>> {
        Box::pin(self.read(move |collection, _| Ok(collection.done_before(&id, hash)?)))
    }

    fn search(
        &self,
        query: SearchQuery,
        encoded: Option<Vec<f32>>,
        deadline: Option<Instant>,
        reads: Arc<Reads>,
    ) -> Answer<'_, (Vec<Hit>, SearchTrace)> {
        let asked = Asked { query, encoded, reads, open: Arc::clone(&self.open) };
        Box::pin(async move {
            // Open as a rule. It is not held while it waits for its turn: many searches of a request could hold more
            // collections than may be open.
            let first = self.threads.search(deadline, move |stop| match asked.open.use_now() {
                Some(collection) => Ok(asked.answer(&collection, &stop)),
                None => Err(Box::new(asked)),
            });
            let asked = match first.await? {
                Ok(answer) => return answer,
                Err(asked) => asked,
            };
            // It was closed meanwhile. Few searches at a time open theirs and hold it until they are done; all others
            // wait here, where they take neither a thread nor the room of a collection.
            let _opening = self.openings.acquire().await.map_err(|_| EngineError::Closing)?;
            Stop::at(deadline).check().map_err(CollectionError::from)?;
            let collection = self.collection().await?;
            self.threads.search(deadline, move |stop| asked.answer(&collection, &stop)).await?
        })
    }

    fn get(
        &self,
        ids: Vec<PointId>,
        with_vectors: bool,
        room: Arc<Room>,
    ) -> Answer<'_, Vec<Option<StoredPoint>>> {
        Box::pin(
            self.read(move |collection, stop| Ok(collection.get(&ids, true, with_vectors, stop, &room)?)),
        )
    }

    fn points(&self, ids: Vec<PointId>, bytes_max: usize) -> Answer<'_, Vec<Result<Option<Versioned>>>> {
        Box::pin(self.read(move |collection, stop| {
            let (mut points, mut bytes) = (Vec::new(), 0);
            for id in ids {
                if bytes >= bytes_max && !points.is_empty() {
                    break;
                }
                stop.check().map_err(CollectionError::from)?;
                let point = collection.point(&id);
                if let Ok(Some(Versioned { point, .. })) = &point {
                    let vectors = point.passages.iter().map(|passage| size_of_val(passage.vector.as_slice()));
                    bytes += point.text.len() + payload_bytes(&point.payload) + vectors.sum::<usize>();
                }
                points.push(point.map_err(EngineError::from));
            }
            Ok(points)
        }))
    }

    fn revisions(&self, ids: Vec<PointId>) -> Answer<'_, Vec<Option<Revision>>> {
        Box::pin(self.read(move |collection, _| {
            Ok(ids.iter().map(|id| collection.revision(id)).collect::<Result<_, _>>()?)
        }))
    }

    fn scroll(&self, query: PageQuery, room: Arc<Room>) -> Answer<'_, Page> {
        let vector_bytes = self.open.info.dimension as usize * size_of::<f32>();
        Box::pin(self.read(move |collection, stop| {
            let PageQuery { filter, after, limit, with_text, with_vectors } = query;
            // A page of vectors closes early as one of texts does.
            let limit = if with_vectors { limit.min(PAGE_BYTES / vector_bytes).max(1) } else { limit };
            let mut page =
                collection.scroll(filter.as_ref(), after.as_ref(), limit, with_text, stop, &room)?;
            if with_vectors {
                room.take(page.points.len() * vector_bytes, 0)?;
                collection.add_vectors(&mut page.points, stop)?;
            }
            Ok(page)
        }))
    }

    fn count(&self, filter: Option<Filter>) -> Answer<'_, u64> {
        Box::pin(self.read(move |collection, stop| Ok(collection.count(filter.as_ref(), stop)?)))
    }

    fn ids(&self, filter: Filter) -> Answer<'_, Vec<PointId>> {
        Box::pin(self.read(move |collection, stop| Ok(collection.matching_ids(&filter, stop)?)))
    }

    fn hints(&self, filter: Filter) -> Answer<'_, Vec<String>> {
        Box::pin(self.read(move |collection, stop| Ok(collection.hints(&filter, stop)?)))
    }

    fn fields(&self, names: HashSet<String>, names_max: usize) -> Answer<'_, KnownFields> {
        Box::pin(self.read(move |collection, stop| {
            let (unknown, total) = collection.unknown_fields(names, names_max, stop)?;
            Ok(KnownFields { unknown, total })
        }))
    }

    fn stats(&self, fields: FieldsRequest) -> Answer<'_, CollectionStats> {
        Box::pin(self.read(move |collection, stop| Ok(collection.stats_with(&fields, stop)?)))
    }

    fn wait_indexed(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let collection = self.collection().await?;
            // Dropped with this future, so that nobody goes on waiting for nobody.
            let (_asker, stop) = Stop::with_asker(None);
            run_blocking(move || collection.wait_indexed_until(&stop)).await
        })
    }
}
