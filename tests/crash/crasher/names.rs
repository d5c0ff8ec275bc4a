//! A client that makes and deletes collections and switches an alias, and what must be there of them.
//!
//! A name is used again and again; each collection says in its documents which of those it is, so nothing of a deleted
//! one can pass for what belongs to the one that took its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use distilface::{
    proto::{
        Collection, CollectionConfig, CountRequest, CreateCollectionRequest, DeleteAliasRequest,
        DeleteCollectionRequest, Document, ListCollectionsRequest, ScrollRequest, SearchRequest,
        SetAliasRequest, UpsertRequest, Vector, search_request::Query,
    },
    rpc::{
        collections_client::CollectionsClient, documents_client::DocumentsClient, search_client::SearchClient,
    },
};
use tonic::{Code, Status, transport::Channel};

use super::{
    clients::Shared,
    content::{integer, string},
};
use crate::Random;

const NAMES: u64 = 4;
const ALIAS: &str = "current";
const DIMENSION: u32 = 8;
const BATCH: u64 = 3;

/// A collection: which of those with its name it is, and which batches it holds.
#[derive(Debug, Clone, PartialEq, Default)]
struct Extra {
    incarnation: u64,
    batches: BTreeSet<u64>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Names {
    extras: BTreeMap<String, Extra>,
    alias: Option<String>,
}

/// What must be there, and what may be there instead since its request was not answered.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    now: Names,
    perhaps: Option<Names>,
}

pub(crate) struct Namer {
    random: Random,
    next: u64,
    shared: Arc<Shared>,
    collections: CollectionsClient<Channel>,
    documents: DocumentsClient<Channel>,
    search: SearchClient<Channel>,
}

fn what(what: &str) -> String {
    format!("the client of collections {what}")
}

fn document(batch: u64, n: u64, incarnation: u64) -> Document {
    let mut random = Random(batch * 8 + n);
    Document {
        id: format!("b{batch}-{n}"),
        title: incarnation.to_string(),
        payload: BTreeMap::from([
            ("incarnation".to_owned(), integer(incarnation)),
            ("kind".to_owned(), string("x")),
        ]),
        vector: Some(Vector { values: (0..DIMENSION).map(|_| random.below(1000) as f32).collect() }),
        ..Default::default()
    }
}

impl Namer {
    pub(crate) fn new(seed: u64, round: u64, shared: Arc<Shared>, channel: Channel) -> Self {
        Namer {
            random: Random(seed ^ (round << 32) ^ 0xa11a5),
            next: round << 32,
            shared,
            collections: CollectionsClient::new(channel.clone()),
            documents: DocumentsClient::new(channel.clone()),
            search: SearchClient::new(channel),
        }
    }

    /// Works until an answer is none that it may get, or does not come.
    pub(crate) async fn work(mut self, mut expected: Expected) -> (Status, Expected) {
        loop {
            if let Err(status) = self.step(&mut expected).await {
                return (status, expected);
            }
        }
    }

    fn fault(&self, holds: bool, fault: impl FnOnce() -> String) {
        self.shared.check(1);
        if !holds {
            self.shared.fault(what(&fault()));
        }
    }

    /// One change, or a look.
    async fn step(&mut self, expected: &mut Expected) -> Result<(), Status> {
        let name = format!("extra-{}", self.random.below(NAMES));
        self.next += 1;
        let mut then = expected.now.clone();
        let choice = self.random.below(10);
        match then.extras.get_mut(&name) {
            None if choice < 6 => {
                then.extras.insert(name.clone(), Extra { incarnation: self.next, batches: BTreeSet::new() });
                expected.perhaps = Some(then);
                self.create(&name).await?;
            }
            None => return self.look_at_alias(&expected.now).await,
            Some(extra) if choice < 4 => {
                extra.batches.insert(self.next);
                let incarnation = extra.incarnation;
                expected.perhaps = Some(then);
                self.fill(&name, incarnation).await?;
            }
            Some(_) if choice < 6 => {
                then.extras.remove(&name);
                if then.alias.as_ref() == Some(&name) {
                    then.alias = None;
                }
                expected.perhaps = Some(then);
                let call = DeleteCollectionRequest { name };
                self.shared.watch.call(what("deletes one"), self.collections.delete(call)).await?;
            }
            Some(_) if choice < 8 => {
                let previous = then.alias.replace(name.clone()).unwrap_or_default();
                expected.perhaps = Some(then);
                let call = SetAliasRequest { alias: ALIAS.into(), collection: name };
                let answer =
                    self.shared.watch.call(what("sets an alias"), self.collections.set_alias(call)).await?;
                let told = answer.into_inner().previous;
                self.fault(told == previous, || {
                    format!("is told that the alias named {told:?}, not {previous:?}")
                });
            }
            Some(_) if choice == 8 && then.alias.is_some() => {
                then.alias = None;
                expected.perhaps = Some(then);
                let call = DeleteAliasRequest { alias: ALIAS.into() };
                self.shared.watch.call(what("deletes an alias"), self.collections.delete_alias(call)).await?;
            }
            Some(_) => return self.look_at_alias(&expected.now).await,
        }
        if let Some(then) = expected.perhaps.take() {
            expected.now = then;
        }
        self.shared.acknowledge(1);
        Ok(())
    }

    async fn create(&mut self, name: &str) -> Result<(), Status> {
        let config = CollectionConfig {
            name: name.into(),
            dimension: DIMENSION,
            vectors_only: true,
            ..Default::default()
        };
        let call = CreateCollectionRequest { config: Some(config), if_not_exists: false };
        let answer =
            self.shared.watch.call(what("makes one"), self.collections.create(call)).await?.into_inner();
        self.fault(answer.created, || format!("is told that {name} was there"));
        Ok(())
    }

    async fn fill(&mut self, name: &str, incarnation: u64) -> Result<(), Status> {
        let documents = (0..BATCH).map(|n| document(self.next, n, incarnation)).collect();
        let call = UpsertRequest { collection: name.into(), documents, ..Default::default() };
        self.shared.watch.call(what("fills one"), self.documents.upsert(call)).await?;
        Ok(())
    }

    /// By its alias a collection is found, and no other.
    async fn look_at_alias(&mut self, now: &Names) -> Result<(), Status> {
        let query = Some(Query::Vector(Vector { values: vec![1.0; DIMENSION as usize] }));
        let call = SearchRequest { collection: ALIAS.into(), query, k: 1000, ..Default::default() };
        let answer = self.shared.watch.call(what("searches by an alias"), self.search.search(call)).await;
        let Some(extra) = now.alias.as_ref().map(|name| &now.extras[name]) else {
            return match answer {
                Err(status) if status.code() == Code::NotFound => Ok(()),
                Err(status) => Err(status),
                Ok(answer) => {
                    self.fault(false, || format!("is told {answer:?} by an alias that names none"));
                    Ok(())
                }
            };
        };
        let hits = answer?.into_inner().hits;
        let fits = hits.len() as u64 == BATCH * extra.batches.len() as u64
            && hits.iter().all(|hit| hit.title == extra.incarnation.to_string());
        self.fault(fits, || format!("should find {extra:?} by the alias, and finds {hits:?}"));
        Ok(())
    }

    /// The look after a restart: what is there is as it must be, or as it may be, and stays so.
    pub(crate) async fn look(&mut self, expected: Expected) -> Result<Expected, Status> {
        let all = self.collections.list(ListCollectionsRequest {}).await?.into_inner().collections;
        let mut found = Names::default();
        for Collection { config, aliases, damage, .. } in all {
            let name = config.map(|config| config.name).unwrap_or_default();
            self.fault(damage.is_empty(), || format!("finds {name} damaged: {damage}"));
            if !name.starts_with("extra-") {
                continue;
            }
            if !aliases.is_empty() {
                self.fault(aliases == [ALIAS], || format!("finds aliases {aliases:?}"));
                found.alias = Some(name.clone());
            }
            let extra = self.extra(&name).await?;
            found.extras.insert(name, extra);
        }
        let mut one_of = std::iter::once(&expected.now).chain(&expected.perhaps);
        // An empty collection does not say which it is.
        let fits = |names: &Names| {
            let mut names = names.clone();
            for extra in names.extras.values_mut().filter(|extra| extra.batches.is_empty()) {
                extra.incarnation = 0;
            }
            names == found
        };
        let Some(is) = one_of.find(|names| fits(names)).cloned() else {
            self.fault(false, || {
                format!("should find {:?}, or {:?}, and finds {found:?}", expected.now, expected.perhaps)
            });
            return Ok(Expected { now: found, perhaps: None });
        };
        Ok(Expected { now: is, perhaps: None })
    }

    async fn extra(&mut self, name: &str) -> Result<Extra, Status> {
        let call =
            ScrollRequest { collection: name.into(), limit: 1000, with_vectors: true, ..Default::default() };
        let page = self.documents.scroll(call).await?.into_inner();
        let call = CountRequest { collection: name.into(), filter: None };
        let count = self.documents.count(call).await?.into_inner().documents;
        let documents: Vec<Document> =
            page.documents.into_iter().filter_map(|stored| stored.document).collect();
        let incarnation =
            documents.first().and_then(|document| document.title.parse().ok()).unwrap_or_default();
        let batches: BTreeSet<u64> = documents
            .iter()
            .filter_map(|document| document.id.strip_prefix('b')?.split_once('-')?.0.parse().ok())
            .collect();
        let whole: BTreeMap<String, Document> = batches
            .iter()
            .flat_map(|batch| (0..BATCH).map(|n| document(*batch, n, incarnation)))
            .map(|document| (document.id.clone(), document))
            .collect();
        let fits = documents.len() == whole.len() && count == whole.len() as u64;
        let same = |found: &Document| {
            whole
                .get(&found.id)
                .is_some_and(|sent| (&sent.title, &sent.payload) == (&found.title, &found.payload))
        };
        self.fault(fits && documents.iter().all(same), || {
            format!("finds parts of batches in {name}, or what others left: it counts {count} and shows {documents:?}")
        });
        Ok(Extra { incarnation, batches })
    }
}
