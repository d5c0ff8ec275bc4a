//! Clients that write, change, delete and read, each documents of its own, and hold every answer against the oracle.
//!
//! What a client does follows from its seed. It sends one call at a time; that there are many clients makes the calls
//! concurrent. Documents that come in groups are always written and deleted as one unit, so whoever looks sees all of a
//! group or none of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use distilface::{
    proto::{
        CountRequest, DeleteDocumentsRequest, Document, DocumentResult, Filter, GetDocumentsRequest, Hit,
        IngestRequest, ScrollRequest, SearchRequest, SetPayloadRequest, StoredDocument, UpsertRequest, Value,
        Vector, WriteMode, WriteStatus, filter::Form, search_request::Query,
    },
    rpc::{documents_client::DocumentsClient, search_client::SearchClient},
};
use tonic::{Code, Status, transport::Channel};

use super::{
    content::{Content, Pick, Shape, integer, payload, string},
    hot::Hot,
    oracle::{Found, Oracle, Stored, Version},
    watch::Watch,
};
use crate::Random;

/// Clients that write; document `n` is written by client `n % WRITERS`.
pub(crate) const WRITERS: u64 = 10;
/// Groups of each client.
const GROUPS: u64 = 2;
const GROUP_DOCUMENTS: u64 = 4;
/// What a message may have at most.
const MESSAGE_BYTES: usize = 64 << 20;

/// A collection and what it must hold.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shape: Shape,
    pub(crate) oracle: Mutex<Oracle>,
}

impl Place {
    pub(crate) fn new(shape: Shape) -> Self {
        Place { shape, oracle: Mutex::default() }
    }
}

/// What all clients have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) places: Vec<Place>,
    /// The hot documents are in this one of `places`.
    pub(crate) hot_place: usize,
    pub(crate) hot: Hot,
    pub(crate) watch: Watch,
    acknowledged: AtomicU64,
    checks: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Shared {
    pub(crate) fn new(places: Vec<Place>, hot_place: usize, hot: Hot) -> Self {
        Shared {
            places,
            hot_place,
            hot,
            watch: Watch::default(),
            acknowledged: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            faults: Mutex::default(),
        }
    }

    /// So many writes were acknowledged.
    pub(crate) fn acknowledge(&self, writes: u64) {
        self.acknowledged.fetch_add(writes, Ordering::Relaxed);
    }

    /// Writes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// So many answers were held against what must be.
    pub(crate) fn check(&self, answers: usize) {
        self.checks.fetch_add(answers as u64, Ordering::Relaxed);
    }

    pub(crate) fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    /// Something that must not be.
    pub(crate) fn fault(&self, fault: String) {
        self.faults.lock().unwrap().push(fault);
    }

    /// Everything that must not be and was since the last call.
    pub(crate) fn take_faults(&self) -> Vec<String> {
        let mut faults = std::mem::take(&mut *self.faults.lock().unwrap());
        for place in &self.places {
            let violations = place.oracle.lock().unwrap().take_violations();
            faults.extend(violations.iter().map(|violation| format!("{}: {violation}", place.shape.name)));
        }
        faults
    }
}

/// One client, with a connection of its own.
pub(crate) struct Client {
    number: u64,
    pub(crate) random: Random,
    tags: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) documents: DocumentsClient<Channel>,
    pub(crate) search: SearchClient<Channel>,
    /// Versions of hot documents that it was told.
    pub(crate) last_read: BTreeMap<String, u64>,
}

/// What a write makes of documents; `None`: they go.
type Effects = BTreeMap<String, Option<Content>>;

impl Client {
    pub(crate) fn new(number: u64, seed: u64, round: u64, shared: Arc<Shared>, channel: Channel) -> Self {
        Client {
            number,
            random: Random(seed ^ (round << 32) ^ (number << 56)),
            tags: (round << 32) | (number << 24),
            shared,
            documents: DocumentsClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES),
            search: SearchClient::new(channel).max_decoding_message_size(MESSAGE_BYTES),
            last_read: BTreeMap::new(),
        }
    }

    /// Works until an answer is none that it may get, or does not come.
    pub(crate) async fn work(mut self) -> Status {
        loop {
            if let Err(status) = self.step().await {
                return status;
            }
        }
    }

    /// Touches nothing but hot documents, so many times.
    pub(crate) async fn work_hot(mut self, times: u64) -> Result<(), Status> {
        let shared = Arc::clone(&self.shared);
        for _ in 0..times {
            self.touch_hot(&shared.places[shared.hot_place], &shared.hot).await?;
        }
        Ok(())
    }

    /// Writes each of its documents once.
    pub(crate) async fn fill(mut self) -> Result<(), Status> {
        let shared = Arc::clone(&self.shared);
        for place in &shared.places {
            let all = self.own_all(place);
            for ids in all.chunks(100) {
                self.write(place, ids.to_vec(), WriteMode::Any).await?;
            }
        }
        Ok(())
    }

    /// One call.
    async fn step(&mut self) -> Result<(), Status> {
        let shared = Arc::clone(&self.shared);
        let place = &shared.places[self.random.below(shared.places.len() as u64) as usize];
        match self.random.below(40) {
            0..9 => {
                let ids = self.some_ids(place);
                self.write(place, ids, WriteMode::Any).await
            }
            9 => {
                let ids = self.some_ids(place);
                self.write(place, ids, WriteMode::InsertOnly).await
            }
            10 => {
                let ids = self.some_ids(place);
                self.write(place, ids, WriteMode::ReplaceOnly).await
            }
            11 | 12 => self.write_expecting(place).await,
            13 => self.ingest(place).await,
            14..17 => self.delete(place).await,
            17 => self.delete_matching(place).await,
            18..21 => self.set_payload(place).await,
            21 => self.set_payload_matching(place).await,
            22..25 => self.write_group(place).await,
            25..28 => self.look_at_group(place).await,
            28 | 29 => self.get(place).await,
            30 | 31 => self.find_matching(place).await,
            32 => self.find_itself(place).await,
            33 => self.scroll_own(place).await,
            34 => self.search_any(place).await,
            _ => self.touch_hot(&shared.places[shared.hot_place], &shared.hot).await,
        }
    }

    pub(crate) fn next_tag(&mut self) -> u64 {
        self.tags += 1;
        self.tags
    }

    pub(crate) fn what(&self, what: String) -> String {
        format!("client {} {what}", self.number)
    }

    fn own_all(&self, place: &Place) -> Vec<String> {
        let name = |n| format!("d{:05}", n * WRITERS + self.number);
        (0..place.shape.documents / WRITERS).map(name).collect()
    }

    /// Some documents of its own, each once.
    fn some_ids(&mut self, place: &Place) -> Vec<String> {
        let most = if self.random.below(15) == 0 { 5 * place.shape.batch } else { place.shape.batch };
        let count = 1 + self.random.below(most);
        let own = place.shape.documents / WRITERS;
        let numbers: BTreeSet<u64> = (0..count).map(|_| self.random.below(own)).collect();
        numbers.into_iter().map(|n| format!("d{:05}", n * WRITERS + self.number)).collect()
    }

    fn content(&mut self) -> Content {
        Content { tag: self.next_tag(), payload: payload(self.number, &mut self.random) }
    }

    fn stored(place: &Place, id: &str) -> Option<Stored> {
        place.oracle.lock().unwrap().get(id).cloned()
    }

    /// Its documents that match, in order.
    fn matching(&self, place: &Place, pick: &Pick) -> Vec<(String, Stored)> {
        let oracle = place.oracle.lock().unwrap();
        self.own_all(place)
            .into_iter()
            .filter_map(|id| {
                let stored = oracle.get(&id)?;
                pick.matches(&stored.content.payload).then(|| (id, stored.clone()))
            })
            .collect()
    }

    fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        self.shared.check(1);
        if !holds {
            self.shared.fault(self.what(what()));
        }
    }

    async fn upsert(
        &mut self,
        place: &Place,
        documents: Vec<Document>,
        mode: WriteMode,
    ) -> Result<Vec<DocumentResult>, Status> {
        let what = self.what(format!("upserts {} documents to {}", documents.len(), place.shape.name));
        let collection = place.shape.name.to_owned();
        let request = UpsertRequest { collection, documents, mode: mode.into(), ..UpsertRequest::default() };
        Ok(self.shared.watch.call(what, self.documents.upsert(request)).await?.into_inner().results)
    }

    /// Sends a write of which all is done, and holds the answer against it.
    async fn upsert_all(
        &mut self,
        place: &Place,
        documents: Vec<Document>,
        contents: Vec<(String, Content)>,
        mode: WriteMode,
    ) -> Result<(), Status> {
        let before: Vec<Option<Stored>> = contents.iter().map(|(id, _)| Client::stored(place, id)).collect();
        let effects = contents.iter().map(|(id, content)| (id.clone(), Some(content.clone()))).collect();
        let request = place.oracle.lock().unwrap().send(effects, true);
        let results = self.upsert(place, documents, mode).await?;
        let ids: Vec<&str> = contents.iter().map(|(id, _)| id.as_str()).collect();
        let told: Vec<&str> = results.iter().map(|result| result.id.as_str()).collect();
        self.expect(ids == told, || format!("asked for {ids:?} and is told of {told:?}"));
        for ((result, (_, content)), before) in results.iter().zip(&contents).zip(before) {
            let status = match before {
                None => WriteStatus::Inserted,
                Some(before) if before.content == *content => WriteStatus::Unchanged,
                Some(_) => WriteStatus::Updated,
            };
            let fits = result.status() == status && result.error.is_empty();
            self.expect(fits, || format!("should be told {status:?}, and is told {result:?}"));
        }
        self.acknowledge(place, request, &results);
        Ok(())
    }

    fn acknowledge(&self, place: &Place, request: u64, results: &[DocumentResult]) {
        let told: Vec<(String, Option<u64>)> =
            results.iter().map(|result| (result.id.clone(), Some(result.version))).collect();
        place.oracle.lock().unwrap().acknowledge(request, &told);
        self.shared.acknowledge(results.len() as u64);
    }

    async fn write(&mut self, place: &Place, ids: Vec<String>, mode: WriteMode) -> Result<(), Status> {
        let mut contents = Vec::new();
        for id in ids {
            let same = Client::stored(place, &id).filter(|_| self.random.below(10) == 0);
            let content = match same {
                Some(stored) => stored.content,
                None => self.content(),
            };
            contents.push((id, content));
        }
        let documents = contents.iter().map(|(id, content)| place.shape.document(id, content)).collect();
        let stored = |(id, _): &(String, Content)| Client::stored(place, id).is_some();
        let (fits, refusal) = match mode {
            WriteMode::InsertOnly => (!contents.iter().any(stored), Code::AlreadyExists),
            WriteMode::ReplaceOnly => (contents.iter().all(stored), Code::NotFound),
            _ => (true, Code::Ok),
        };
        if fits {
            return self.upsert_all(place, documents, contents, mode).await;
        }
        let answer = self.upsert(place, documents, mode).await;
        self.refused(answer, refusal)
    }

    /// A call that must be refused with this code.
    fn refused<T: std::fmt::Debug>(&self, answer: Result<T, Status>, code: Code) -> Result<(), Status> {
        match answer {
            Err(status) if status.code() == code => {
                self.shared.check(1);
                Ok(())
            }
            Err(status) => Err(status),
            Ok(answer) => {
                self.expect(false, || format!("should be refused with {code:?}, and is told {answer:?}"));
                Ok(())
            }
        }
    }

    /// Writes over versions, one of which is wrong as often as not.
    async fn write_expecting(&mut self, place: &Place) -> Result<(), Status> {
        let (mut contents, mut documents) = (Vec::new(), Vec::new());
        for id in self.some_ids(place) {
            let Some(Stored { version: Version::Told(version), .. }) = Client::stored(place, &id) else {
                continue;
            };
            let content = self.content();
            documents
                .push(Document { expected_version: Some(version), ..place.shape.document(&id, &content) });
            contents.push((id, content));
        }
        if documents.is_empty() {
            return Ok(());
        }
        if self.random.below(2) == 0 {
            return self.upsert_all(place, documents, contents, WriteMode::Any).await;
        }
        let wrong = self.random.below(documents.len() as u64) as usize;
        let version = documents[wrong].expected_version.unwrap_or_default();
        documents[wrong].expected_version = Some(if version > 1 { version - 1 } else { version + 1 });
        let answer = self.upsert(place, documents, WriteMode::Any).await;
        self.refused(answer, Code::FailedPrecondition)
    }

    /// A stream of three requests, each document by itself.
    async fn ingest(&mut self, place: &Place) -> Result<(), Status> {
        let ids = self.some_ids(place);
        let contents: Vec<(String, Content)> = ids.into_iter().map(|id| (id, self.content())).collect();
        let portions = contents.chunks(contents.len().div_ceil(3));
        let stream: Vec<IngestRequest> = (0..)
            .zip(portions)
            .map(|(sequence, portion)| IngestRequest {
                collection: place.shape.name.into(),
                sequence,
                documents: portion.iter().map(|(id, content)| place.shape.document(id, content)).collect(),
                ..Default::default()
            })
            .collect();
        let requests = stream.len();
        let effects = contents.into_iter().map(|(id, content)| (id, Some(content))).collect();
        let request = place.oracle.lock().unwrap().send(effects, false);
        let what = self.what(format!("ingests to {}", place.shape.name));
        let answers = self.documents.ingest(tokio_stream::iter(stream));
        let mut answers = self.shared.watch.call(what.clone(), answers).await?.into_inner();
        let mut heard = 0;
        while let Some(answer) = self.shared.watch.call(what.clone(), answers.message()).await? {
            self.expect(answer.sequence == heard, || format!("ingests: answer {heard} is {answer:?}"));
            heard += 1;
            if let Some(failed) = answer.results.iter().find(|result| !result.error.is_empty()) {
                self.expect(false, || format!("ingests: {failed:?}"));
            }
            self.acknowledge(place, request, &answer.results);
        }
        self.expect(heard == requests as u64, || format!("ingests: {heard} answers of {requests}"));
        Ok(())
    }

    async fn delete(&mut self, place: &Place) -> Result<(), Status> {
        let ids = self.some_ids(place);
        let mut expected_versions = BTreeMap::new();
        let mut fits = true;
        if self.random.below(3) == 0 {
            for id in &ids {
                match Client::stored(place, id) {
                    Some(Stored { version: Version::Told(version), .. }) if self.random.below(4) > 0 => {
                        expected_versions.insert(id.clone(), version);
                    }
                    Some(Stored { version: Version::After(_), .. }) => {}
                    _ => {
                        expected_versions.insert(id.clone(), 1 << 60);
                        fits = false;
                    }
                }
            }
        }
        let there = ids.iter().filter(|id| Client::stored(place, id).is_some()).count() as u64;
        let effects: Effects = ids.iter().map(|id| (id.clone(), None)).collect();
        let request = fits.then(|| place.oracle.lock().unwrap().send(effects, true));
        let what = self.what(format!("deletes {ids:?} of {}", place.shape.name));
        let call = DeleteDocumentsRequest {
            collection: place.shape.name.into(),
            ids: ids.clone(),
            expected_versions,
            ..Default::default()
        };
        let answer = self.shared.watch.call(what, self.documents.delete(call)).await;
        let Some(request) = request else { return self.refused(answer, Code::FailedPrecondition) };
        let deleted = answer?.into_inner().deleted;
        self.expect(deleted == there, || format!("deletes {there} documents, and is told {deleted}"));
        let gone: Vec<(String, Option<u64>)> = ids.into_iter().map(|id| (id, None)).collect();
        place.oracle.lock().unwrap().acknowledge(request, &gone);
        self.shared.acknowledge(deleted);
        Ok(())
    }

    async fn delete_matching(&mut self, place: &Place) -> Result<(), Status> {
        let pick = Pick::new(Some(self.number), &mut self.random);
        let matching = self.matching(place, &pick);
        let effects: Effects = matching.iter().map(|(id, _)| (id.clone(), None)).collect();
        let request = place.oracle.lock().unwrap().send(effects, false);
        let what = self.what(format!("deletes {pick:?} of {}", place.shape.name));
        let call = DeleteDocumentsRequest {
            collection: place.shape.name.into(),
            filter: Some(pick.filter()),
            ..Default::default()
        };
        let answer = self.shared.watch.call(what, self.documents.delete(call)).await?.into_inner();
        let (deleted, there) = (answer.deleted, matching.len() as u64);
        self.expect(deleted == there, || {
            format!("deletes {there} documents by {pick:?}, and is told {deleted}")
        });
        let gone: Vec<(String, Option<u64>)> = matching.into_iter().map(|(id, _)| (id, None)).collect();
        place.oracle.lock().unwrap().acknowledge(request, &gone);
        self.shared.acknowledge(deleted);
        Ok(())
    }

    /// A change of fields, and what it makes of a payload.
    fn change(&mut self) -> (SetPayloadRequest, impl Fn(&Content) -> Content + use<>) {
        let mut fields = payload(self.number, &mut self.random);
        let replace = self.random.below(3) == 0;
        let mut remove_fields = Vec::new();
        if !replace {
            let kept = fields.keys().filter(|_| self.random.below(2) == 0).cloned().collect::<Vec<_>>();
            fields.retain(|field, _| kept.contains(field));
            let absent = ["mark", "note", "labels"].into_iter().filter(|field| !fields.contains_key(*field));
            remove_fields = absent.filter(|_| self.random.below(3) == 0).map(str::to_owned).collect();
            if fields.is_empty() && remove_fields.is_empty() {
                fields.insert("mark".into(), integer(self.random.next() >> 12));
            }
        }
        let (set, remove) = (fields.clone(), remove_fields.clone());
        let apply = move |content: &Content| {
            let mut payload: BTreeMap<String, Value> =
                if replace { BTreeMap::new() } else { content.payload.clone() };
            payload.extend(set.clone());
            payload.retain(|field, _| !remove.contains(field));
            Content { payload, ..content.clone() }
        };
        (SetPayloadRequest { payload: fields, remove_fields, replace, ..Default::default() }, apply)
    }

    async fn set_payload(&mut self, place: &Place) -> Result<(), Status> {
        let ids = self.some_ids(place);
        let (mut call, apply) = self.change();
        call.collection = place.shape.name.into();
        call.ids = ids.clone();
        let wrong = ids[self.random.below(ids.len() as u64) as usize].clone();
        if self.random.below(3) == 0 {
            call.expected_versions.insert(wrong, 1 << 60);
        }
        let (mut effects, mut expected, mut missing) = (Effects::new(), Vec::new(), Vec::new());
        for id in &ids {
            match Client::stored(place, id) {
                None => missing.push(id.clone()),
                Some(_) if call.expected_versions.contains_key(id) => {
                    expected.push((id.clone(), WriteStatus::Failed));
                }
                Some(stored) => {
                    let content = apply(&stored.content);
                    let is_same = content == stored.content;
                    let status = if is_same { WriteStatus::Unchanged } else { WriteStatus::Updated };
                    expected.push((id.clone(), status));
                    effects.insert(id.clone(), Some(content));
                }
            }
        }
        // One that is not there and is expected to have a version may be called either.
        let unclear = missing.iter().any(|id| call.expected_versions.contains_key(id));
        let request = place.oracle.lock().unwrap().send(effects, false);
        let what = self.what(format!("sets fields of {ids:?} of {}", place.shape.name));
        let answer = self.shared.watch.call(what, self.documents.set_payload(call)).await?.into_inner();
        if !unclear {
            let told: Vec<_> =
                answer.results.iter().map(|result| (result.id.clone(), result.status())).collect();
            self.expect(told == expected && answer.missing == missing, || {
                format!("sets fields of {expected:?}, {missing:?} are not there, and is told {answer:?}")
            });
        }
        let done: Vec<DocumentResult> =
            answer.results.into_iter().filter(|result| result.error.is_empty()).collect();
        self.acknowledge(place, request, &done);
        place.oracle.lock().unwrap().refuse(request);
        Ok(())
    }

    async fn set_payload_matching(&mut self, place: &Place) -> Result<(), Status> {
        let pick = Pick::new(Some(self.number), &mut self.random);
        let matching = self.matching(place, &pick);
        let (mut call, apply) = self.change();
        call.collection = place.shape.name.into();
        call.filter = Some(pick.filter());
        let contents: Vec<(String, Content)> =
            matching.iter().map(|(id, stored)| (id.clone(), apply(&stored.content))).collect();
        let changed =
            contents.iter().zip(&matching).filter(|((_, new), (_, old))| *new != old.content).count() as u64;
        let effects = contents.iter().map(|(id, content)| (id.clone(), Some(content.clone()))).collect();
        let request = place.oracle.lock().unwrap().send(effects, false);
        let what = self.what(format!("sets fields of {pick:?} of {}", place.shape.name));
        let answer = self.shared.watch.call(what, self.documents.set_payload(call)).await?.into_inner();
        let told = (answer.matched, answer.changed, answer.unchanged, answer.failed);
        let matched = matching.len() as u64;
        self.expect(told == (matched, changed, matched - changed, 0), || {
            format!("sets fields of {matched} documents by {pick:?}, {changed} of them anew, and is told {answer:?}")
        });
        let done: Vec<(String, Option<u64>)> = contents.into_iter().map(|(id, _)| (id, None)).collect();
        place.oracle.lock().unwrap().acknowledge(request, &done);
        self.shared.acknowledge(changed);
        // The answer tells no versions.
        let ids: Vec<String> = done.into_iter().map(|(id, _)| id).take(100).collect();
        if ids.is_empty() { Ok(()) } else { self.get_ids(place, ids).await }
    }

    fn group_id(owner: u64, group: u64, n: u64) -> String {
        format!("g{owner}-{group}-{n}")
    }

    /// Writes or deletes all documents of a group of its own, as one unit.
    async fn write_group(&mut self, place: &Place) -> Result<(), Status> {
        let group = self.random.below(GROUPS);
        let ids: Vec<String> =
            (0..GROUP_DOCUMENTS).map(|n| Client::group_id(self.number, group, n)).collect();
        if self.random.below(4) > 0 {
            let tag = self.next_tag();
            let payload = BTreeMap::from([
                ("group".to_owned(), string(format!("{}-{group}", self.number))),
                ("generation".to_owned(), integer(tag)),
            ]);
            let contents: Vec<(String, Content)> =
                ids.into_iter().map(|id| (id, Content { tag, payload: payload.clone() })).collect();
            let documents = contents.iter().map(|(id, content)| place.shape.document(id, content)).collect();
            return self.upsert_all(place, documents, contents, WriteMode::Any).await;
        }
        let there = ids.iter().filter(|id| Client::stored(place, id).is_some()).count() as u64;
        let effects: Effects = ids.iter().map(|id| (id.clone(), None)).collect();
        let request = place.oracle.lock().unwrap().send(effects, true);
        let what = self.what(format!("deletes group {group} of {}", place.shape.name));
        let collection = place.shape.name.to_owned();
        let call = DeleteDocumentsRequest { collection, ids: ids.clone(), ..Default::default() };
        let deleted = self.shared.watch.call(what, self.documents.delete(call)).await?.into_inner().deleted;
        self.expect(deleted == there, || format!("deletes a group of {there}, and is told {deleted}"));
        let gone: Vec<(String, Option<u64>)> = ids.into_iter().map(|id| (id, None)).collect();
        place.oracle.lock().unwrap().acknowledge(request, &gone);
        self.shared.acknowledge(deleted);
        Ok(())
    }

    /// Looks at a group of anybody: all of it is there, as one request wrote it, or nothing.
    async fn look_at_group(&mut self, place: &Place) -> Result<(), Status> {
        let (owner, group) = (self.random.below(WRITERS), self.random.below(GROUPS));
        let collection = place.shape.name.to_owned();
        let form = Form::Expression(format!("group = \"{owner}-{group}\""));
        let filter = Some(Filter { form: Some(form) });
        let how = self.random.below(4);
        let what = self.what(format!("looks at group {owner}-{group} of {}, in way {how}", place.shape.name));
        let query = self.any_query(place);
        let watch = &self.shared.watch;
        let generations: Vec<u64> = match how {
            0 => {
                let ids = (0..GROUP_DOCUMENTS).map(|n| Client::group_id(owner, group, n)).collect();
                let call = GetDocumentsRequest { collection, ids, with_vectors: false };
                let answer = watch.call(what, self.documents.get(call)).await?.into_inner();
                self.seen(place, &answer.documents, false).iter().map(|found| found.content.tag).collect()
            }
            1 => {
                let call = ScrollRequest { collection, filter, ..Default::default() };
                let answer = watch.call(what, self.documents.scroll(call)).await?.into_inner();
                self.seen(place, &answer.documents, false).iter().map(|found| found.content.tag).collect()
            }
            2 => {
                let call = CountRequest { collection, filter };
                let answer = watch.call(what, self.documents.count(call)).await?.into_inner();
                vec![0; answer.documents as usize]
            }
            _ => {
                let call = SearchRequest { filter, k: 100, ..query };
                let hits = watch.call(what, self.search.search(call)).await?.into_inner().hits;
                self.seen_hits(place, &hits).iter().map(|found| found.content.tag).collect()
            }
        };
        let is_whole = generations.is_empty()
            || (generations.len() as u64 == GROUP_DOCUMENTS
                && generations.iter().all(|g| *g == generations[0]));
        self.expect(is_whole, || {
            format!(
                "sees a part of group {owner}-{group} of {}, in way {how} (get, scroll, count, search): {generations:?}",
                place.shape.name
            )
        });
        Ok(())
    }

    /// A query that anything may be found by.
    fn any_query(&mut self, place: &Place) -> SearchRequest {
        let number = self.random.below(1000);
        let query = if place.shape.encodes() {
            Query::Text(place.shape.text("a query", number))
        } else {
            Query::Vector(Vector { values: place.shape.vector("a query", number) })
        };
        let exact = self.random.below(2) == 0;
        SearchRequest {
            collection: place.shape.name.into(),
            query: Some(query),
            k: 10,
            exact,
            ..Default::default()
        }
    }

    /// Documents as they are shown, after a look at what is true of each whoever wrote it.
    fn seen(&self, place: &Place, documents: &[StoredDocument], vectors: bool) -> Vec<Found> {
        let mut all = Vec::new();
        for stored in documents {
            match place.shape.found(stored, vectors) {
                Ok(found) => {
                    place.oracle.lock().unwrap().note(&found.id, found.version, &found.content);
                    all.push(found);
                }
                Err(fault) => self.expect(false, || fault),
            }
        }
        self.shared.check(all.len());
        all
    }

    fn seen_hits(&self, place: &Place, hits: &[Hit]) -> Vec<Found> {
        let mut all = Vec::new();
        for hit in hits {
            let Ok(tag) = hit.title.parse() else {
                self.expect(false, || format!("finds {} with title {:?}", hit.id, hit.title));
                continue;
            };
            let content = Content { tag, payload: hit.payload.clone() };
            place.oracle.lock().unwrap().note(&hit.id, hit.version, &content);
            all.push(Found { id: hit.id.clone(), content, version: hit.version });
        }
        let ids: BTreeSet<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
        self.expect(ids.len() == hits.len(), || "finds a document twice".into());
        let falls = hits.windows(2).all(|two| two[0].score >= two[1].score);
        self.expect(falls, || "finds hits that are not in order".into());
        all
    }

    async fn get(&mut self, place: &Place) -> Result<(), Status> {
        let ids = self.some_ids(place);
        self.get_ids(place, ids).await
    }

    /// Documents of its own are as they must be.
    async fn get_ids(&mut self, place: &Place, ids: Vec<String>) -> Result<(), Status> {
        let what = self.what(format!("gets {} documents of {}", ids.len(), place.shape.name));
        let collection = place.shape.name.to_owned();
        let call = GetDocumentsRequest { collection, ids: ids.clone(), with_vectors: true };
        let answer = self.shared.watch.call(what, self.documents.get(call)).await?.into_inner();
        let found = self.seen(place, &answer.documents, true);
        let told = answer.documents.len() + answer.missing.len();
        self.expect(told == ids.len(), || format!("asks for {} documents and is told of {told}", ids.len()));
        self.look_at(place, &ids, &found);
        Ok(())
    }

    fn look_at(&self, place: &Place, ids: &[String], found: &[Found]) {
        let mut oracle = place.oracle.lock().unwrap();
        for id in ids {
            oracle.look_at(id, found.iter().find(|found| found.id == *id));
        }
        self.shared.check(ids.len());
    }

    /// Counts, scrolls and searches by a filter that only its own documents match.
    async fn find_matching(&mut self, place: &Place) -> Result<(), Status> {
        let pick = Pick::new(Some(self.number), &mut self.random);
        let matching: BTreeSet<String> = self.matching(place, &pick).into_iter().map(|(id, _)| id).collect();
        let (collection, filter) = (place.shape.name.to_owned(), Some(pick.filter()));
        let what = self.what(format!("finds {pick:?} of {}", place.shape.name));
        let watch = &self.shared.watch;
        let call = CountRequest { collection: collection.clone(), filter: filter.clone() };
        let count = watch.call(what.clone(), self.documents.count(call)).await?.into_inner().documents;
        self.expect(count == matching.len() as u64, || {
            format!("counts {count} documents of {pick:?} of {collection} where there are {}", matching.len())
        });
        let call = SearchRequest { filter, k: 1000, ..self.any_query(place) };
        let hits = self.shared.watch.call(what, self.search.search(call)).await?.into_inner().hits;
        let found = self.seen_hits(place, &hits);
        let ids: BTreeSet<String> = found.iter().map(|found| found.id.clone()).collect();
        self.expect(ids == matching, || {
            format!("searches {pick:?} of {collection}, and finds {ids:?} where there are {matching:?}")
        });
        let ids: Vec<String> = matching.into_iter().collect();
        self.look_at(place, &ids, &found);
        Ok(())
    }

    /// A document is what its own vector finds first.
    async fn find_itself(&mut self, place: &Place) -> Result<(), Status> {
        let own = self.own_all(place);
        let id = own[self.random.below(own.len() as u64) as usize].clone();
        let Some(stored) = Client::stored(place, &id) else { return Ok(()) };
        if place.shape.encodes() || place.shape.metric != distilface::proto::Metric::Euclidean {
            return self.get_ids(place, vec![id]).await;
        }
        let vector = Vector { values: place.shape.vector(&id, stored.content.tag) };
        let call = SearchRequest { query: Some(Query::Vector(vector)), exact: true, ..self.any_query(place) };
        let what = self.what(format!("finds {id} of {} by its vector", place.shape.name));
        let hits = self.shared.watch.call(what, self.search.search(call)).await?.into_inner().hits;
        let found = self.seen_hits(place, &hits);
        let first = found.first().map(|found| found.id.as_str());
        self.expect(first == Some(&id), || format!("finds {first:?} by the vector of {id}"));
        if first == Some(&id) {
            self.look_at(place, &[id], &found[..1]);
        }
        Ok(())
    }

    /// Page after page of its own documents, while others write.
    async fn scroll_own(&mut self, place: &Place) -> Result<(), Status> {
        let form = Form::Expression(format!("owner = {}", self.number));
        let mut call = ScrollRequest {
            collection: place.shape.name.into(),
            filter: Some(Filter { form: Some(form) }),
            limit: 20 + self.random.below(100) as u32,
            with_vectors: true,
            ..Default::default()
        };
        let mut all = Vec::new();
        loop {
            let what = self.what(format!("scrolls {}", place.shape.name));
            let page = self.shared.watch.call(what, self.documents.scroll(call.clone())).await?.into_inner();
            all.extend(self.seen(place, &page.documents, true));
            call.cursor = page.next_cursor;
            if call.cursor.is_empty() {
                break;
            }
        }
        let ascends = all.windows(2).all(|two| two[0].id < two[1].id);
        self.expect(ascends, || format!("scrolls {}, and ids do not ascend", place.shape.name));
        let own = self.own_all(place);
        self.look_at(place, &own, &all);
        let others = all.iter().filter(|found| !own.contains(&found.id)).count();
        self.expect(others == 0, || format!("scrolls {others} documents of others"));
        Ok(())
    }

    async fn search_any(&mut self, place: &Place) -> Result<(), Status> {
        let call = self.any_query(place);
        let what = self.what(format!("searches {}", place.shape.name));
        let hits = self.shared.watch.call(what, self.search.search(call)).await?.into_inner().hits;
        self.seen_hits(place, &hits);
        Ok(())
    }
}
