//! Stored documents out: by id, page by page, and counted.
//!
//! A page carries the cursor of the next one. The cursor belongs to one collection and one filter, and is refused by
//! every other.

use std::{collections::HashSet, sync::Arc};

use super::{Engine, EngineError, Target, backend::PageQuery, cursor::Scope, error::Result, out_of_range};
use crate::{
    budget::Room,
    collection::{Condition, point::StoredPoint},
    value::{PointId, filter::Filter},
};

/// Which documents a page shows.
#[derive(Debug, Clone, PartialEq)]
pub struct ListingQuery {
    /// Only documents that match are listed. `None`, which stands for no filter, lists all.
    pub filter: Option<Filter>,
    /// The cursor of an earlier page. `None` begins at the first document.
    pub cursor: Option<String>,
    /// Documents on the page, 1 to `limits.batch_max`. No default.
    pub limit: usize,
    /// Whether documents carry their texts. No default.
    pub with_text: bool,
    /// Whether documents carry the vector of their first passage. No default.
    pub with_vectors: bool,
}

/// One page of documents, ordered by id.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The documents, by id.
    pub points: Vec<StoredPoint>,
    /// The cursor of the next page; `None` after the last one.
    pub next_cursor: Option<String>,
    /// Remarks on the filter; only the first page has them.
    pub hints: Vec<String>,
    scope: Scope,
}

impl Listing {
    /// The cursor of a page that begins behind this document, for who answers a part of `points` only.
    pub fn cursor_after(&self, id: &PointId) -> String {
        self.scope.after(id.as_str())
    }
}

impl Engine {
    /// Stored documents in the order asked, each once however often it was asked for; `None` for those not there. They
    /// take their place in `room`.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::OutOfRange`]; [`crate::budget::BudgetError`]; bad ids; store errors.
    pub async fn get(
        &self,
        collection: &str,
        ids: Vec<String>,
        with_vectors: bool,
        room: Arc<Room>,
    ) -> Result<Vec<(PointId, Option<StoredPoint>)>> {
        let mut ids = self.ids(&ids)?;
        let mut seen = HashSet::new();
        ids.retain(|id| seen.insert(id.clone()));
        let points = self.find(collection)?.get(ids.clone(), with_vectors, room).await?;
        Ok(ids.into_iter().zip(points).collect())
    }

    /// A page of documents ordered by id: the first, or the one that the cursor of another page leads to. It ends early
    /// at about [`crate::collection::PAGE_BYTES`].
    ///
    /// ```
    /// # use distilface::{config::Config, engine::{Engine, EngineError, ListingQuery}};
    /// # use distilface::budget::Room;
    /// # async fn every(engine: &Engine) -> Result<(), EngineError> {
    /// let mut query = ListingQuery {
    ///     filter: None,
    ///     cursor: None,
    ///     limit: 100,
    ///     with_text: false,
    ///     with_vectors: false,
    /// };
    /// loop {
    ///     let page = engine.scroll("places", query.clone(), Room::unbounded()).await?;
    ///     page.points.iter().for_each(|point| println!("{}", point.id));
    ///     query.cursor = page.next_cursor;
    ///     if query.cursor.is_none() {
    ///         return Ok(());
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::OutOfRange`]; [`EngineError::Cursor`] for a cursor of another
    /// collection or filter; [`crate::budget::BudgetError`]; filter and store errors.
    pub async fn scroll(&self, collection: &str, query: ListingQuery, room: Arc<Room>) -> Result<Listing> {
        let ListingQuery { filter, cursor, limit, with_text, with_vectors } = query;
        let most = self.config.limits.batch_max;
        if !(1..=most).contains(&limit) {
            return Err(out_of_range("limit", 1, most, limit));
        }
        let backend = self.find(collection)?;
        // Held, so that the page is of the same collection as its cursor.
        let kept = backend.ready().await?;
        let identity = backend.identity().await?;
        let narrowed = self.pools().work(move || {
            let narrowed = filter.as_ref().map(Filter::to_string).unwrap_or_default();
            let scope = Scope::new("documents by id", &identity, &narrowed);
            let after = cursor.map(|cursor| scope.key(&cursor)).transpose().map_err(EngineError::from)?;
            let after = after.map(PointId::new).transpose()?;
            Ok::<_, EngineError>((scope, PageQuery { filter, after, limit, with_text, with_vectors }))
        });
        let (scope, query) = narrowed.await??;
        let page = backend.scroll(query, room).await?;
        drop(kept);
        let next_cursor = page.next.map(|id| scope.after(id.as_str()));
        Ok(Listing { points: page.points, next_cursor, hints: page.hints, scope })
    }

    /// Counts the documents that match; all of them without a filter.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`]; filter errors.
    pub async fn count(&self, collection: &str, filter: Option<Filter>) -> Result<u64> {
        self.find(collection)?.count(filter).await
    }

    /// What should be said of a filter besides its answer, such as a field that no document has; empty as a rule.
    /// [`Engine::search`] and [`Engine::scroll`] bring theirs with them.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`].
    pub async fn hints(&self, collection: &str, filter: Filter) -> Result<Vec<String>> {
        self.find(collection)?.hints(filter).await
    }

    pub(super) fn ids(&self, ids: &[String]) -> Result<Vec<PointId>> {
        let limit = self.config.limits.batch_max;
        if ids.is_empty() || ids.len() > limit {
            return Err(out_of_range("the number of ids", 1, limit, ids.len()));
        }
        Ok(ids.iter().map(|id| PointId::new(id.as_str())).collect::<Result<_, _>>()?)
    }

    /// As [`Engine::ids`], each with what must be stored under it.
    pub(super) fn targets(&self, targets: &[Target]) -> Result<Vec<(PointId, Condition)>> {
        let limit = self.config.limits.batch_max;
        if targets.is_empty() || targets.len() > limit {
            return Err(out_of_range("the number of ids", 1, limit, targets.len()));
        }
        let target = |target: &Target| Ok((PointId::new(target.id.as_str())?, target.condition()));
        targets.iter().map(target).collect()
    }
}
