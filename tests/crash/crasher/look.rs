//! The look after a restart: one collection as every way of asking shows it, held against the oracle and against itself.

use std::collections::BTreeSet;

use distilface::{
    proto::{
        CollectionStatsRequest, CountRequest, GetDocumentsRequest, Metric, ScrollRequest, SearchRequest,
        Vector, search_request::Query,
    },
    rpc::{
        collections_client::CollectionsClient, documents_client::DocumentsClient, search_client::SearchClient,
    },
};
use tonic::{Status, transport::Channel};

use super::{
    clients::{Place, Shared},
    content::{Pick, Shape},
    hot,
    oracle::Found,
};
use crate::Random;

const MESSAGE_BYTES: usize = 64 << 20;
/// More than any collection has.
const ALL: u32 = 100_000;
/// Queries by which recall is measured, and hits of each.
const QUERIES: u64 = 25;
const K: usize = 10;

/// Figures of a collection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Of the server's own choice against an exact scan, if there are enough documents to tell.
    pub(crate) recall: Option<f64>,
    /// Of the queries by which recall was measured, those for which the server chose the graph.
    pub(crate) by_graph: u64,
    /// Bytes of texts and vectors that are stored.
    pub(crate) live_bytes: u64,
}

pub(crate) struct Look<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) place: &'a Place,
    pub(crate) random: Random,
    documents: DocumentsClient<Channel>,
    search: SearchClient<Channel>,
    collections: CollectionsClient<Channel>,
}

impl<'a> Look<'a> {
    pub(crate) fn new(shared: &'a Shared, place: &'a Place, random: Random, channel: &Channel) -> Self {
        Look {
            shared,
            place,
            random,
            documents: DocumentsClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES),
            search: SearchClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES),
            collections: CollectionsClient::new(channel.clone()),
        }
    }

    fn shape(&self) -> Shape {
        self.place.shape
    }

    fn name(&self) -> String {
        self.shape().name.into()
    }

    fn expect(&self, holds: bool, fault: impl FnOnce() -> String) {
        self.shared.check(1);
        if !holds {
            self.shared.fault(format!("{}: {}", self.shape().name, fault()));
        }
    }

    /// Everything. Nobody writes meanwhile. The hot documents are `hot.rs`'s to judge, and are returned.
    pub(crate) async fn everything(&mut self) -> Result<(Vec<Found>, Figures), Status> {
        let (all, live_bytes, passages) = self.scroll().await?;
        let (hot, others): (Vec<Found>, Vec<Found>) =
            all.iter().cloned().partition(|found| hot::is_hot(&found.id));
        {
            let mut oracle = self.place.oracle.lock().unwrap();
            oracle.look(&others);
            hot.iter().for_each(|found| oracle.note(&found.id, found.version, &found.content));
        }
        self.shared.check(others.len());
        self.get(&all).await?;
        let call = CountRequest { collection: self.name(), filter: None };
        let count = self.documents.count(call).await?.into_inner().documents;
        let call = CollectionStatsRequest { name: self.name(), ..Default::default() };
        let stats = self.collections.stats(call).await?.into_inner();
        let documents = all.len() as u64;
        self.expect(count == documents && stats.documents == documents && stats.passages == passages, || {
            format!("{documents} documents with {passages} passages are there, {count} are counted, and stats are {stats:?}")
        });
        let ids: BTreeSet<&str> = all.iter().map(|found| found.id.as_str()).collect();
        self.find_all(&ids).await?;
        for _ in 0..4 {
            self.filter(&all).await?;
        }
        self.find_itself(&all).await?;
        let tells = documents > 10 * K as u64 && !self.shape().encodes();
        let (recall, by_graph) = if tells { self.recall().await? } else { (None, 0) };
        Ok((hot, Figures { recall, by_graph, live_bytes }))
    }

    /// All documents, page by page; their bytes and their passages.
    async fn scroll(&mut self) -> Result<(Vec<Found>, u64, u64), Status> {
        let mut call = ScrollRequest {
            collection: self.name(),
            limit: 50 + self.random.below(900) as u32,
            with_vectors: true,
            ..Default::default()
        };
        let (mut all, mut bytes, mut passages) = (Vec::new(), 0, 0);
        loop {
            let page = self.documents.scroll(call.clone()).await?.into_inner();
            for stored in &page.documents {
                let document = stored.document.as_ref();
                bytes += document.map_or(0, |d| {
                    d.text.len() + d.vector.as_ref().map_or(0, |vector| 4 * vector.values.len())
                }) as u64;
                passages += stored.passages.len() as u64;
                match self.shape().found(stored, true) {
                    Ok(found) => all.push(found),
                    Err(fault) => self.expect(false, || fault),
                }
            }
            call.cursor = page.next_cursor;
            if call.cursor.is_empty() {
                break;
            }
        }
        let ascends = all.windows(2).all(|two: &[Found]| two[0].id < two[1].id);
        self.expect(ascends, || "ids do not ascend in a listing".into());
        Ok((all, bytes, passages))
    }

    /// By id it is the same, and what is not in the listing is not there.
    async fn get(&mut self, all: &[Found]) -> Result<(), Status> {
        let mut ids: Vec<String> = all.iter().map(|found| found.id.clone()).collect();
        let there: BTreeSet<String> = ids.iter().cloned().collect();
        ids.extend((0..self.shape().documents).map(|n| format!("d{n:05}")).filter(|id| !there.contains(id)));
        ids.push("nobody".into());
        // An answer has 16 MiB at most.
        let portion = if self.shape().noise.1 > 10_000 { 100 } else { 1000 };
        let (mut got, mut missing) = (Vec::new(), 0);
        for ids in ids.chunks(portion) {
            let call = GetDocumentsRequest { collection: self.name(), ids: ids.to_vec(), with_vectors: true };
            let answer = self.documents.get(call).await?.into_inner();
            missing += answer.missing.len();
            for stored in &answer.documents {
                match self.shape().found(stored, true) {
                    Ok(found) => got.push(found),
                    Err(fault) => self.expect(false, || fault),
                }
            }
        }
        self.shared.check(ids.len());
        let fits = got == all && missing == ids.len() - all.len();
        self.expect(fits, || {
            let other = got.iter().zip(all).find(|(one, other)| one != other);
            format!(
                "a listing shows {} documents, by id there are {} and {missing} are missing; the first that differ: {other:?}",
                all.len(),
                got.len()
            )
        });
        Ok(())
    }

    fn query(&mut self) -> Query {
        let number = self.random.below(100_000);
        if self.shape().encodes() {
            Query::Text(self.shape().text("a look", number))
        } else {
            Query::Vector(Vector { values: self.shape().vector("a look", number) })
        }
    }

    async fn ids(&mut self, call: SearchRequest) -> Result<Vec<String>, Status> {
        let call = SearchRequest { collection: self.name(), without_text: true, ..call };
        let hits = self.search.search(call).await?.into_inner().hits;
        Ok(hits.into_iter().map(|hit| hit.id).collect())
    }

    /// An exact search for more than there is finds everything, each once.
    async fn find_all(&mut self, ids: &BTreeSet<&str>) -> Result<(), Status> {
        for exact in [true, false] {
            let query = Some(self.query());
            let call = SearchRequest { query, k: ALL, exact, without_payload: true, ..Default::default() };
            let found = self.ids(call).await?;
            let set: BTreeSet<&str> = found.iter().map(String::as_str).collect();
            // A graph may leave some out.
            let fits = if exact { set == *ids } else { set.is_subset(ids) };
            self.expect(fits && set.len() == found.len(), || {
                let (lost, more) = (ids.difference(&set).next(), set.difference(ids).next());
                format!(
                    "a search for all (exact: {exact}) finds {} of {} documents; the first missing {lost:?}, the first that is not there {more:?}",
                    found.len(),
                    ids.len()
                )
            });
        }
        Ok(())
    }

    /// Counting, listing and searching by a filter agree with the payloads.
    async fn filter(&mut self, all: &[Found]) -> Result<(), Status> {
        let pick = Pick::new(None, &mut self.random);
        let matching: BTreeSet<&str> = all
            .iter()
            .filter(|found| pick.matches(&found.content.payload))
            .map(|found| found.id.as_str())
            .collect();
        let (collection, filter) = (self.name(), Some(pick.filter()));
        let call = CountRequest { collection: collection.clone(), filter: filter.clone() };
        let count = self.documents.count(call).await?.into_inner().documents;
        let mut call = ScrollRequest {
            collection,
            filter: filter.clone(),
            limit: 200,
            without_text: true,
            ..Default::default()
        };
        let mut listed = Vec::new();
        loop {
            let page = self.documents.scroll(call.clone()).await?.into_inner();
            listed.extend(page.documents.into_iter().filter_map(|stored| Some(stored.document?.id)));
            call.cursor = page.next_cursor;
            if call.cursor.is_empty() {
                break;
            }
        }
        let exact = self.random.below(2) == 0;
        let query = Some(self.query());
        let call =
            SearchRequest { query, k: ALL, filter, exact, without_payload: true, ..Default::default() };
        let mut found = self.ids(call).await?;
        found.sort_unstable();
        let fits = count == matching.len() as u64
            && listed.iter().map(String::as_str).eq(matching.iter().copied())
            && found.iter().map(String::as_str).eq(matching.iter().copied());
        self.expect(fits, || {
            format!(
                "{} documents match {pick:?}; {count} are counted, {} listed, {} found (exact: {exact})",
                matching.len(),
                listed.len(),
                found.len()
            )
        });
        Ok(())
    }

    /// A document is the first that its own vector finds.
    async fn find_itself(&mut self, all: &[Found]) -> Result<(), Status> {
        if self.shape().encodes() || self.shape().metric != Metric::Euclidean || all.is_empty() {
            return Ok(());
        }
        for _ in 0..20 {
            let found = &all[self.random.below(all.len() as u64) as usize];
            let values = self.shape().vector(&found.id, found.content.tag);
            let query = Some(Query::Vector(Vector { values }));
            let first = self.ids(SearchRequest { query, k: 1, exact: true, ..Default::default() }).await?;
            self.expect(first == [found.id.as_str()], || {
                format!("the vector of {} finds {first:?}", found.id)
            });
        }
        Ok(())
    }

    /// How many of the nearest the server finds by its own choice, of those that an exact scan finds; and how often it
    /// chose the graph.
    async fn recall(&mut self) -> Result<(Option<f64>, u64), Status> {
        let (mut agree, mut by_graph) = (0, 0);
        for _ in 0..QUERIES {
            let query = Some(self.query());
            let mut call = SearchRequest { query, k: K as u32, without_payload: true, ..Default::default() };
            call.collection = self.name();
            let exact = self.ids(SearchRequest { exact: true, ..call.clone() }).await?;
            let answer =
                self.search.search(SearchRequest { explain: true, ..call.clone() }).await?.into_inner();
            by_graph += u64::from(answer.explain.is_some_and(|explain| explain.plan == "graph"));
            let found = answer.hits;
            self.expect(found.len() == K && exact.len() == K, || format!("finds {} of {K}", found.len()));
            agree += found.iter().filter(|hit| exact.contains(&hit.id)).count();
        }
        Ok((Some(agree as f64 / (QUERIES as usize * K) as f64), by_graph))
    }
}
