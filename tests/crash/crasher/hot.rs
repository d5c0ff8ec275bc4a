//! Few documents that all clients write and read at once, with everything that they were told of them.
//!
//! `history.rs` says whether it can have happened.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use distilface::proto::{
    DeleteDocumentsRequest, Document, GetDocumentsRequest, SearchRequest, SetPayloadRequest, UpsertRequest,
    Vector, WriteMode, search_request::Query,
};
use tonic::{Code, Status};

use super::{
    clients::{Client, Place},
    content::{Content, integer, string},
    oracle::Found,
};
use crate::history::{self, Answer, Call, Event, Held, Only};

/// A field that only these documents have, for filters.
const SIGN: &str = "hot";
const MARK: &str = "mark";

pub(crate) fn is_hot(id: &str) -> bool {
    id.starts_with("hot-")
}

/// What a document of these is, by what the server shows.
fn held(found: &Found) -> Held {
    let mark = found.content.payload.get(MARK).and_then(|value| value.kind.clone());
    let mark = match mark {
        Some(distilface::proto::value::Kind::Integer(mark)) => mark as u64,
        _ => 0,
    };
    Held { tag: found.content.tag, mark, version: found.version }
}

#[derive(Debug, Default)]
struct History {
    initial: Option<Held>,
    events: Vec<Event>,
}

/// The documents of one collection.
#[derive(Debug)]
pub(crate) struct Hot {
    /// How many there are.
    documents: u64,
    clock: AtomicU64,
    histories: Mutex<BTreeMap<String, History>>,
}

impl Hot {
    pub(crate) fn new(documents: u64) -> Self {
        Hot { documents, clock: AtomicU64::new(1), histories: Mutex::default() }
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// The place of the event among those of the document.
    fn begin(&self, id: &str, call: Call) -> usize {
        let mut histories = self.histories.lock().unwrap();
        let history = histories.entry(id.to_owned()).or_default();
        history.events.push(Event { call, begun: self.now(), answer: None });
        history.events.len() - 1
    }

    fn answer(&self, id: &str, place: usize, answer: Answer) {
        let now = self.now();
        if let Some(history) = self.histories.lock().unwrap().get_mut(id) {
            history.events[place].answer = Some((now, answer));
        }
    }

    fn ids(&self) -> impl Iterator<Item = String> {
        (0..self.documents).map(|n| format!("hot-{n}"))
    }

    /// Holds everything that clients were told against one order, and begins anew with what is found now, while nobody
    /// writes. How many answers that were, and what cannot have happened.
    pub(crate) fn conclude(&self, found: &[Found]) -> (usize, Vec<String>) {
        let (mut answers, mut faults) = (0, Vec::new());
        let mut histories = std::mem::take(&mut *self.histories.lock().unwrap());
        for id in self.ids() {
            let mut history = histories.remove(&id).unwrap_or_default();
            let now = found.iter().find(|found| found.id == id).map(held);
            let begun = self.now();
            let answer = Some((self.now(), Answer::Found(now)));
            history.events.push(Event { call: Call::Read, begun, answer });
            answers += history.events.iter().filter(|event| event.answer.is_some()).count();
            faults.extend(history::check(&id, history.initial, &history.events).err());
            let next = History { initial: now, events: Vec::new() };
            self.histories.lock().unwrap().insert(id, next);
        }
        (answers, faults)
    }
}

impl Client {
    /// One call on one of these documents.
    pub(crate) async fn touch_hot(&mut self, place: &Place, hot: &Hot) -> Result<(), Status> {
        let id = format!("hot-{}", self.random.below(hot.documents));
        let last = self.last_read.get(&id).copied();
        match self.random.below(12) {
            0..4 => {
                let only = match (self.random.below(6), last) {
                    (0, _) => Only::Insert,
                    (1, _) => Only::Replace,
                    (2 | 3, Some(version)) => Only::Version(version),
                    _ => Only::Always,
                };
                self.write_hot(place, hot, &id, only).await
            }
            4 => {
                let expected = last.filter(|_| self.random.below(2) == 0);
                self.mark_hot(place, hot, &id, expected).await
            }
            5 => {
                let expected = last.filter(|_| self.random.below(2) == 0);
                self.delete_hot(place, hot, &id, expected).await
            }
            6..10 => self.read_hot(place, hot, &id).await,
            _ => self.search_hot(place, hot).await,
        }
    }

    async fn write_hot(&mut self, place: &Place, hot: &Hot, id: &str, only: Only) -> Result<(), Status> {
        let tag = self.next_tag();
        let content = Content { tag, payload: BTreeMap::from([(SIGN.to_owned(), string("yes"))]) };
        let expected_version = if let Only::Version(version) = only { Some(version) } else { None };
        let mode = match only {
            Only::Insert => WriteMode::InsertOnly,
            Only::Replace => WriteMode::ReplaceOnly,
            _ => WriteMode::Any,
        };
        let document = Document { expected_version, ..place.shape.document(id, &content) };
        let collection = place.shape.name.to_owned();
        let request = UpsertRequest {
            collection,
            documents: vec![document],
            mode: mode.into(),
            ..UpsertRequest::default()
        };
        let event = hot.begin(id, Call::Write { tag, only });
        let what = self.what(format!("writes {id} {only:?}"));
        let answer = match self.shared.watch.call(what, self.documents.upsert(request)).await {
            Ok(answer) => {
                let version = answer.into_inner().results[0].version;
                self.last_read.insert(id.to_owned(), version);
                self.shared.acknowledge(1);
                Ok(Answer::Written(version))
            }
            Err(status) => match (status.code(), only) {
                (Code::AlreadyExists, Only::Insert)
                | (Code::NotFound, Only::Replace)
                | (Code::FailedPrecondition, Only::Version(_)) => Ok(Answer::Refused),
                _ => Err(status),
            },
        }?;
        hot.answer(id, event, answer);
        Ok(())
    }

    async fn mark_hot(
        &mut self,
        place: &Place,
        hot: &Hot,
        id: &str,
        expected: Option<u64>,
    ) -> Result<(), Status> {
        let mark = self.next_tag();
        let request = SetPayloadRequest {
            collection: place.shape.name.into(),
            ids: vec![id.into()],
            payload: BTreeMap::from([(MARK.to_owned(), integer(mark))]),
            expected_versions: expected.map(|version| (id.to_owned(), version)).into_iter().collect(),
            ..Default::default()
        };
        let event = hot.begin(id, Call::Mark { mark, expected });
        let what = self.what(format!("marks {id}, expecting {expected:?}"));
        let answer = self.shared.watch.call(what, self.documents.set_payload(request)).await?.into_inner();
        let answer = match answer.results.first() {
            None => Answer::Missing,
            Some(result) if result.error_kind.is_empty() => {
                self.last_read.insert(id.to_owned(), result.version);
                self.shared.acknowledge(1);
                Answer::Written(result.version)
            }
            Some(result) if result.error_kind == "PRECONDITION" && expected.is_some() => Answer::Refused,
            // Others kept changing it.
            Some(_) => return Ok(()),
        };
        hot.answer(id, event, answer);
        Ok(())
    }

    async fn delete_hot(
        &mut self,
        place: &Place,
        hot: &Hot,
        id: &str,
        expected: Option<u64>,
    ) -> Result<(), Status> {
        let request = DeleteDocumentsRequest {
            collection: place.shape.name.into(),
            ids: vec![id.into()],
            expected_versions: expected.map(|version| (id.to_owned(), version)).into_iter().collect(),
            ..Default::default()
        };
        let event = hot.begin(id, Call::Delete { expected });
        let what = self.what(format!("deletes {id}, expecting {expected:?}"));
        let answer = match self.shared.watch.call(what, self.documents.delete(request)).await {
            Ok(answer) => {
                self.shared.acknowledge(1);
                Ok(Answer::Deleted(answer.into_inner().deleted == 1))
            }
            Err(status) if status.code() == Code::FailedPrecondition && expected.is_some() => {
                Ok(Answer::Refused)
            }
            Err(status) => Err(status),
        }?;
        hot.answer(id, event, answer);
        Ok(())
    }

    async fn read_hot(&mut self, place: &Place, hot: &Hot, id: &str) -> Result<(), Status> {
        let collection = place.shape.name.to_owned();
        let request = GetDocumentsRequest { collection, ids: vec![id.into()], with_vectors: true };
        let event = hot.begin(id, Call::Read);
        let what = self.what(format!("reads {id}"));
        let answer = self.shared.watch.call(what, self.documents.get(request)).await?.into_inner();
        let found = match answer.documents.first() {
            None => None,
            Some(stored) => match place.shape.found(stored, true) {
                Ok(found) => Some(found),
                Err(fault) => {
                    self.shared.fault(fault);
                    return Ok(());
                }
            },
        };
        if let Some(found) = &found {
            place.oracle.lock().unwrap().note(id, found.version, &found.content);
            self.last_read.insert(id.to_owned(), found.version);
        }
        hot.answer(id, event, Answer::Found(found.as_ref().map(held)));
        Ok(())
    }

    /// A search that finds all of these documents that are there is a read of each.
    async fn search_hot(&mut self, place: &Place, hot: &Hot) -> Result<(), Status> {
        let filter = Some(distilface::proto::Filter {
            form: Some(distilface::proto::filter::Form::Expression(format!("{SIGN} = \"yes\""))),
        });
        let vector = Vector { values: place.shape.vector("a search", self.random.below(1000)) };
        let exact = self.random.below(2) == 0;
        let request = SearchRequest {
            collection: place.shape.name.into(),
            query: Some(Query::Vector(vector)),
            k: 1000,
            filter,
            exact,
            ..Default::default()
        };
        let events: Vec<(String, usize)> =
            hot.ids().map(|id| (id.clone(), hot.begin(&id, Call::Read))).collect();
        let what = self.what(format!("searches hot documents, exact: {exact}"));
        let hits = self.shared.watch.call(what, self.search.search(request)).await?.into_inner().hits;
        let mut found = Vec::new();
        for hit in hits {
            let Ok(tag) = hit.title.parse() else {
                self.shared.fault(format!("{} has title {:?}", hit.id, hit.title));
                continue;
            };
            let content = Content { tag, payload: hit.payload };
            place.oracle.lock().unwrap().note(&hit.id, hit.version, &content);
            found.push(Found { id: hit.id, content, version: hit.version });
        }
        for (id, event) in events {
            let mut of = found.iter().filter(|found| found.id == id);
            let answer = Answer::Found(of.next().map(held));
            if of.next().is_some() {
                self.shared.fault(format!("{id} is found twice by one search"));
            }
            hot.answer(&id, event, answer);
        }
        Ok(())
    }
}
