//! The engine on the tiny model: names, writes, questions, and what is refused.

use std::{path::Path, task::Poll, time::Duration};

use super::*;
use crate::{
    budget::Room,
    config::{DataConfig, EncoderConfig},
    error::{ErrorKind, Fault as _},
    model::Fingerprint,
    value::{Payload, PointId, filter::Filter},
    vector::Metric,
};

mod many;
mod pools;
mod versions;

struct Home {
    config: Config,
    _folder: tempfile::TempDir,
}

fn home(model: &str) -> Home {
    let folder = tempfile::tempdir().unwrap();
    let model = match model {
        "tiny" => Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny").display().to_string(),
        other => other.to_owned(),
    };
    let config = Config {
        data: DataConfig { dir: folder.path().join("db"), ..DataConfig::default() },
        encoder: EncoderConfig { model, device: "cpu".into(), threads: 1, ..EncoderConfig::default() },
        ..Config::default()
    };
    Home { config, _folder: folder }
}

fn collection(name: &str) -> NewCollection {
    NewCollection { name: name.into(), ..NewCollection::default() }
}

fn document(id: &str, text: &str) -> Document {
    Document { id: id.into(), text: text.into(), ..Document::default() }
}

fn question(ask: Ask) -> SearchQuery {
    SearchQuery::new(ask, 10)
}

impl Engine {
    /// Takes every thread of the work pool until the answer is dropped.
    pub(crate) fn occupy_work_pool(&self) -> Vec<std::sync::mpsc::Sender<()>> {
        let hold = |_| {
            let (send, hold) = std::sync::mpsc::channel::<()>();
            self.threads.work.start(move || _ = hold.recv());
            send
        };
        (0..self.threads.work.workers().current_num_threads()).map(hold).collect()
    }
}

impl Engine {
    /// Keeps the writer of an open collection busy until the answer is dropped.
    pub(crate) fn occupy_writer(&self, collection: &str) -> std::sync::mpsc::Sender<()> {
        let ((begun, is_begun), (send, hold)) =
            (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
        let (_, open) =
            self.names.open_collections().into_iter().find(|(name, _)| name == collection).unwrap();
        let wait = move |_| {
            begun.send(()).unwrap();
            let _ = hold.recv();
        };
        open.submit(Vec::new(), Box::new(wait));
        is_begun.recv().unwrap();
        send
    }
}

const NEVER: Caller = Caller { deadline: None, client: 0, durability: Durability::Power, request: None };

#[tokio::test(flavor = "multi_thread")]
async fn text_goes_in_and_hits_come_out_also_after_a_restart() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let documents =
        vec![document("cat", "the cat sat on the mat"), document("rain", "rain fell on the river")];
    let outcomes = engine.upsert("notes", documents.clone(), NEVER).await.unwrap();
    assert!(outcomes.iter().all(|o| o.status == WriteStatus::Inserted && o.passages == 1 && o.tokens > 3));
    let again = engine.upsert("notes", documents, NEVER).await.unwrap();
    assert!(again.iter().all(|o| o.status == WriteStatus::Unchanged));
    let changed = engine.upsert("notes", vec![document("cat", "the cat ran away")], NEVER).await.unwrap();
    assert_eq!(changed[0].status, WriteStatus::Updated);
    engine.close().await.unwrap();
    assert!(matches!(engine.count("notes", None).await.unwrap_err().kind(), ErrorKind::Unavailable));
    drop(engine);

    let engine = Engine::open(&home.config).unwrap();
    let answer =
        engine.search("notes", question(Ask::Text("rain on the river".into())), NEVER).await.unwrap();
    assert_eq!(answer.hits.len(), 2);
    assert_eq!(answer.hits[0].id.as_str(), "rain");
    assert_eq!(&*answer.hits[0].passage, "rain fell on the river");
    let like = engine.search("notes", question(Ask::Document("cat".into())), NEVER).await.unwrap();
    assert_eq!(like.hits.iter().map(|h| h.id.as_str()).collect::<Vec<_>>(), ["rain"]);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_text_is_never_encoded_twice() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let documents: Vec<_> =
        (0..20).map(|i| document(&format!("d{i}"), &format!("rain number {i}"))).collect();
    engine.upsert("notes", documents.clone(), NEVER).await.unwrap();
    let texts = || engine.encoder().unwrap().counters().texts.load(Ordering::Relaxed);
    let before = texts();
    engine.upsert("notes", documents, NEVER).await.unwrap();
    assert_eq!(texts(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn upsert_takes_all_or_none_and_ingest_each_by_itself() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let mixed = || {
        vec![
            document("good", "rain"),
            document("", "no id"),
            document("blank", " \n"),
            document("good", "twice"),
        ]
    };
    let encoded = engine.encoder().unwrap().counters().texts.load(Ordering::Relaxed);
    let error = engine.upsert("notes", mixed(), NEVER).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(engine.count("notes", None).await.unwrap(), 0);
    // One that is refused costs the encoder nothing.
    assert_eq!(engine.encoder().unwrap().counters().texts.load(Ordering::Relaxed), encoded);

    let outcomes = engine.ingest("notes", mixed(), NEVER).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap().status, WriteStatus::Inserted);
    for (outcome, word) in outcomes[1..].iter().zip(["id", "empty"]) {
        let message = outcome.as_ref().unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
    // Of one id the later document stays, wherever a call ends.
    assert_eq!(outcomes[3].as_ref().unwrap().status, WriteStatus::Updated);
    let stored = engine.get("notes", vec!["good".into()], false, Room::unbounded()).await.unwrap();
    assert_eq!(stored[0].1.as_ref().unwrap().text, "twice");
    assert_eq!(engine.count("notes", None).await.unwrap(), 1);
    assert!(engine.ingest("notes", Vec::new(), NEVER).await.unwrap().is_empty());
    assert_eq!(engine.upsert("notes", Vec::new(), NEVER).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_aliases_are_checked_switched_and_kept() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    for bad in ["", "-a", "a/b", "ä", &"x".repeat(129)] {
        let error = engine.create_collection(collection(bad)).await.unwrap_err();
        assert!(error.to_string().contains("not allowed"), "{error}");
    }
    engine.create_collection(collection("one")).await.unwrap();
    engine.create_collection(collection("two")).await.unwrap();
    let exists = engine.create_collection(collection("one")).await.unwrap_err();
    assert_eq!(exists.kind(), ErrorKind::Exists);
    let same = NewCollection { if_not_exists: true, ..collection("one") };
    assert!(!engine.create_collection(same.clone()).await.unwrap().1);
    let other = NewCollection { metric: Some(Metric::Dot), ..same };
    let differs = engine.create_collection(other).await.unwrap_err();
    assert!(differs.to_string().contains("metric is cosine, not dot"), "{differs}");
    let index = NewIndex { ef_search: Some(50), ..NewIndex::default() };
    let other = NewCollection { index, if_not_exists: true, ..collection("one") };
    let differs = engine.create_collection(other).await.unwrap_err();
    assert!(differs.to_string().contains("ef_search is 96, not 50"), "{differs}");

    assert_eq!(engine.set_alias("live", "one").await.unwrap(), None);
    assert_eq!(engine.set_alias("live", "two").await.unwrap(), Some("one".into()));
    assert_eq!(engine.set_alias("one", "two").await.unwrap_err().kind(), ErrorKind::Exists);
    assert_eq!(engine.set_alias("live", "three").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(engine.delete_collection("live").await.unwrap_err().kind(), ErrorKind::Invalid);
    engine.upsert("live", vec![document("a", "rain")], NEVER).await.unwrap();
    assert_eq!(engine.count("two", None).await.unwrap(), 1);
    engine.close().await.unwrap();
    drop(engine);

    let engine = Engine::open(&home.config).unwrap();
    assert_eq!(engine.collection("live").await.unwrap().aliases, ["live"]);
    engine.delete_collection("two").await.unwrap();
    let gone = engine.count("live", None).await.unwrap_err();
    assert!(gone.to_string().contains("there are: one"), "{gone}");
    assert_eq!(engine.delete_alias("live").await.unwrap_err().kind(), ErrorKind::NotFound);
    // The name is free again, and nothing of the old one is left.
    engine.create_collection(collection("two")).await.unwrap();
    assert_eq!(engine.count("two", None).await.unwrap(), 0);
    assert_eq!(std::fs::read_dir(home.config.data.dir.join("collections")).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_encoder_vectors_work_and_text_is_refused() {
    let home = home("none");
    let engine = Engine::open(&home.config).unwrap();
    assert_eq!(
        engine.create_collection(collection("text")).await.unwrap_err().kind(),
        ErrorKind::Precondition
    );
    let new = NewCollection { vectors_only: true, ..collection("vectors") };
    assert_eq!(engine.create_collection(new.clone()).await.unwrap_err().kind(), ErrorKind::Invalid);
    engine.create_collection(NewCollection { dimension: Some(2), ..new }).await.unwrap();
    let vector = |id: &str, v: [f32; 2]| Document { vector: Some(v.to_vec()), ..document(id, "") };
    engine
        .upsert("vectors", vec![vector("east", [2.0, 0.0]), vector("north", [0.0, 3.0])], NEVER)
        .await
        .unwrap();
    let answer = engine.search("vectors", question(Ask::Vector(vec![0.1, 1.0])), NEVER).await.unwrap();
    assert_eq!(answer.hits[0].id.as_str(), "north");
    for (bad, word) in [(vec![1.0], "dimension"), (vec![f32::NAN, 0.0], "finite"), (vec![0.0, 0.0], "zero")] {
        let error = engine.search("vectors", question(Ask::Vector(bad.clone())), NEVER).await.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        let document = Document { vector: Some(bad), ..document("bad", "") };
        assert_eq!(
            engine.upsert("vectors", vec![document], NEVER).await.unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
    let error = engine.search("vectors", question(Ask::Text("rain".into())), NEVER).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(engine.encoder_named("").await.unwrap_err().kind(), ErrorKind::Precondition);
    assert_eq!(engine.use_model("tiny").await.unwrap_err().kind(), ErrorKind::Precondition);
    let missing = engine.search("vectors", question(Ask::Document("west".into())), NEVER).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_document_with_another_text_is_encoded_again() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    // More than are compared at a time.
    let documents = |text: &str, n: i64| -> Vec<Document> {
        let payload = Payload::from([("n".to_owned(), crate::value::Value::Integer(n))]);
        let one =
            |i| Document { payload: payload.clone(), ..document(&format!("d{i}"), &format!("{text} {i}")) };
        (0..100).map(one).collect()
    };
    let encoded = async |documents| -> Vec<bool> {
        let outcomes = engine.upsert("notes", documents, NEVER).await.unwrap();
        outcomes.iter().map(|outcome| outcome.tokens > 0).collect()
    };
    assert_eq!(encoded(documents("rain", 1)).await, [true; 100]);
    assert_eq!(encoded(documents("rain", 2)).await, [false; 100]);
    // As long as before, and another text.
    let mut changed = documents("rain", 3);
    changed[70].text = "snow 70".into();
    let mut expected = [false; 100];
    expected[70] = true;
    assert_eq!(encoded(changed).await, expected);
    let stored =
        engine.get("notes", vec!["d70".into(), "d71".into()], false, Room::unbounded()).await.unwrap();
    let told = stored.iter().map(|(_, point)| point.as_ref().unwrap());
    let told: Vec<_> = told.map(|point| (point.text.as_str(), point.payload["n"].clone())).collect();
    let n = crate::value::Value::Integer(3);
    assert_eq!(told, [("snow 70", n.clone()), ("rain 71", n)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_of_another_model_keeps_its_vectors_but_takes_no_text() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    engine.upsert("notes", vec![document("a", "rain")], NEVER).await.unwrap();
    engine.close().await.unwrap();
    drop(engine);

    // The same weights with another pooling are another model.
    let models = crate::model::tests::home_with(&["mean", "cls"]);
    let mut config = home.config.clone();
    config.encoder.model = models.path().join("models/cls").display().to_string();
    let engine = Engine::open(&config).unwrap();
    let error = engine.search("notes", question(Ask::Text("rain".into())), NEVER).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(error.to_string().contains("was made with model"), "{error}");
    assert_eq!(
        engine.upsert("notes", vec![document("b", "x")], NEVER).await.unwrap_err().kind(),
        ErrorKind::Precondition
    );
    assert_eq!(engine.count("notes", None).await.unwrap(), 1);
    let like = engine.search("notes", question(Ask::Document("a".into())), NEVER).await.unwrap();
    assert!(like.hits.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_empty_questions_are_refused_with_what_is_allowed() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let text = || question(Ask::Text("rain".into()));
    for (query, word) in [
        (SearchQuery { k: 0, ..text() }, "between 1 and 1000"),
        (SearchQuery { k: 1001, ..text() }, "between 1 and 1000"),
        (SearchQuery { ef: Some(5000), ..text() }, "ef must"),
        (SearchQuery { score_threshold: Some(f32::NAN), ..text() }, "finite"),
        (question(Ask::Text(" ".into())), "empty"),
    ] {
        let error = engine.search("notes", query, NEVER).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(engine.search_batch(Vec::new(), NEVER, Room::unbounded()).await.is_err());
    assert!(engine.get("notes", Vec::new(), false, Room::unbounded()).await.is_err());
    let none = ListingQuery { filter: None, cursor: None, limit: 0, with_text: true, with_vectors: false };
    assert!(engine.scroll("notes", none, Room::unbounded()).await.is_err());
    for (max, overlap) in [(Some(0), None), (Some(1000), None), (Some(10), Some(10))] {
        let new = NewCollection { chunk_max_tokens: max, chunk_overlap_tokens: overlap, ..collection("cut") };
        assert_eq!(engine.create_collection(new).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let expired = Caller { deadline: Some(Instant::now()), ..NEVER };
    assert_eq!(engine.search("notes", text(), expired).await.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_on_the_same_folder_is_refused() {
    let home = home("none");
    let _engine = Engine::open(&home.config).unwrap();
    let error = Engine::open(&home.config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_creation_left_is_removed_at_the_start() {
    let home = home("none");
    drop(Engine::open(&home.config).unwrap());
    let left = home.config.data.dir.join("collections/0000-half");
    crate::store::folder::create(&left, &crate::store::disk::RealDisk).unwrap();
    let _engine = Engine::open(&home.config).unwrap();
    assert!(!left.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_of_two_models_are_served_by_one_engine() {
    let models = crate::model::tests::home_with(&["a", "b"]);
    let mut home = home("a");
    home.config.data.home = models.path().to_owned();
    let loaded = |engine: &Engine| {
        engine.encoders().unwrap().all().iter().map(|e| e.name().to_owned()).collect::<Vec<_>>()
    };
    let engine = Engine::open(&home.config).unwrap();
    assert_eq!(loaded(&engine), ["a"]);
    for model in ["a", "b"] {
        let new = NewCollection { model: model.into(), ..collection(model) };
        let (info, _) = engine.create_collection(new).await.unwrap();
        assert_eq!(info.model.unwrap().name, model);
        engine.upsert(model, vec![document("x", "rain on the river")], NEVER).await.unwrap();
    }
    for (new, kind) in [
        (NewCollection { model: "c".into(), ..collection("c") }, ErrorKind::NotFound),
        (NewCollection { model: "b".into(), if_not_exists: true, ..collection("a") }, ErrorKind::Exists),
        (
            NewCollection { model: "b".into(), vectors_only: true, dimension: Some(2), ..collection("v") },
            ErrorKind::Invalid,
        ),
    ] {
        assert_eq!(engine.create_collection(new).await.unwrap_err().kind(), kind);
    }
    // Another default model changes nothing for who names none.
    let again = NewCollection { if_not_exists: true, ..collection("b") };
    let (info, created) = engine.create_collection(again.clone()).await.unwrap();
    assert_eq!((info.model.unwrap().name.as_str(), created), ("b", false));
    let other = engine.create_collection(NewCollection { model: "a".into(), ..again }).await.unwrap_err();
    assert!(other.to_string().ends_with("exists with other settings: model is b, not a"), "{other}");
    engine.close().await.unwrap();
    drop(engine);

    // After a restart the second model is loaded by the first question that needs it. Questions to both come in one
    // batch, and each is encoded by its collection's own: the score of a text with itself is 1 in either.
    let engine = Engine::open(&home.config).unwrap();
    assert_eq!(loaded(&engine), ["a"]);
    let ask = |name: &str| (name.to_owned(), question(Ask::Text("rain on the river".into())));
    let answers =
        engine.search_batch(vec![ask("b"), ask("a"), ask("b")], NEVER, Room::unbounded()).await.unwrap();
    assert_eq!(loaded(&engine), ["a", "b"]);
    assert!(answers.iter().all(|a| a.hits[0].score > 0.999 && a.device.starts_with("cpu") && a.tokens > 0));

    // Another default changes what new collections get, not what the old ones have.
    engine.use_model("b").await.unwrap();
    assert_eq!(loaded(&engine), ["b", "a"]);
    let (info, _) = engine.create_collection(collection("new")).await.unwrap();
    assert_eq!(info.model.unwrap().name, "b");
    assert!(engine.search("a", ask("a").1, NEVER).await.unwrap().hits[0].score > 0.999);
    assert_eq!(engine.use_model("c").await.unwrap_err().kind(), ErrorKind::NotFound);
    engine.close().await.unwrap();
    drop(engine);

    // A model that is gone is told, with what there is.
    std::fs::remove_dir_all(models.path().join("models/b")).unwrap();
    let engine = Engine::open(&home.config).unwrap();
    let error = engine.search("b", ask("b").1, NEVER).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(
        error.to_string().contains("model b (") && error.to_string().contains("there are: a ("),
        "{error}"
    );
}

/// Sentences that differ, so that each passage is a text of its own.
fn sentences(n: usize) -> String {
    (0..n).map(|i| format!("Rain number {i} fell on the old river. ")).collect()
}

fn encoded(engine: &Engine) -> u64 {
    engine.encoder().unwrap().counters().texts.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_goes_on_where_an_attempt_that_ran_out_of_time_stopped() {
    let mut home = home("tiny");
    // One passage a batch.
    home.config.encoder.batch_tokens_max = 8;
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let before = encoded(&engine);
    let long = || vec![document("long", &sentences(400))];
    let mut attempts = 0u64;
    let outcomes = loop {
        attempts += 1;
        assert!(attempts < 200, "it is never done");
        // As a deadline ends a call: after some passages the server drops it.
        let start = encoded(&engine);
        let enough = async {
            while encoded(&engine) < start + 20 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            outcomes = engine.upsert("notes", long(), NEVER) => break outcomes.unwrap(),
            () = enough => {}
        }
    };
    // The last attempt may find that the one before was ended after it had stored the document.
    let passages = engine.stats("notes", FieldsRequest::default()).await.unwrap().passages;
    assert!(attempts > 1 && passages > 80, "{attempts} attempts, {outcomes:?}");
    // Nothing that was done is lost. What was under way when an attempt ended, one batch, the next may do again.
    let encoded = encoded(&engine) - before;
    assert!(encoded <= passages + attempts, "{encoded} of {outcomes:?}, {attempts} attempts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_out_of_time_says_how_far_it_came() {
    let mut home = home("tiny");
    home.config.encoder.batch_tokens_max = 8;
    let engine = Engine::open(&home.config).unwrap();
    let encoder = engine.encoder().unwrap();
    // More than can be encoded in the time there is; a slower machine does less of it.
    let texts: Vec<String> = (0..200_000).map(|i| format!("rain {i}")).collect();
    let deadline = Some(Instant::now() + std::time::Duration::from_secs(2));
    let caller = Caller { deadline, ..NEVER };
    let error = engine.encode_bulk(&encoder, texts, crate::encoder::TextKind::Raw, caller).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let message = error.to_string();
    assert!(
        message.contains("of 200000 passages were encoded") && message.contains("goes on from there"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_title_leaves_every_passage_its_own_vector_and_the_text_is_found() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let words = ["cat", "dog", "river", "bridge", "market", "court", "army", "bread"];
    let text: String =
        (0..120).map(|i| format!("The {} and the {}. ", words[i % 8], words[i * 5 % 7])).collect();
    let text = format!("{text}The ancient castle burned.");
    let long = Document { title: "the old book about the government ".repeat(47), ..document("long", &text) };
    let outcome = engine.upsert("notes", vec![long], NEVER).await.unwrap().remove(0);
    assert!(outcome.title_truncated && !outcome.truncated && outcome.passages > 8, "{outcome:?}");

    let id = PointId::new("long").unwrap();
    let open = Arc::clone(engine.names().now().find("notes").unwrap());
    let point = open.collection().unwrap().point(&id).unwrap().unwrap().point;
    for pair in point.passages.windows(2) {
        assert_ne!(pair[0].vector, pair[1].vector);
    }
    let last = point.passages.last().unwrap();
    assert!(text[last.range.start as usize..last.range.end as usize].ends_with("castle burned."));
    // What is encoded for it is within the model's window to its last word.
    let encoder = engine.encoder().unwrap();
    let title = encoder.short_title(&point.title, &text, open.info.chunking).unwrap();
    for passage in &point.passages {
        let passage = &text[passage.range.start as usize..passage.range.end as usize];
        let (_, tokens) = encoder.token_ids(&crate::encoder::Encoder::passage_text(title, passage)).unwrap();
        assert!(tokens <= encoder.max_tokens(), "{tokens}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_fields_change_vectors_are_kept() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let with = |year: i64, text: &str| Document {
        title: "Rain".into(),
        payload: [("year".to_owned(), crate::value::Value::Integer(year))].into(),
        ..document("a", text)
    };
    let text = sentences(60);
    engine.upsert("notes", vec![with(1, &text)], NEVER).await.unwrap();
    let open = Arc::clone(engine.names().now().find("notes").unwrap());
    let id = PointId::new("a").unwrap();
    let point = || open.collection().unwrap().point(&id).unwrap().unwrap().point;
    let (before, texts) = (point(), encoded(&engine));
    let outcome = engine.upsert("notes", vec![with(2, &text)], NEVER).await.unwrap().remove(0);
    assert_eq!((outcome.status, outcome.tokens), (WriteStatus::Updated, 0));
    assert_eq!(outcome.passages as usize, before.passages.len());
    assert_eq!(encoded(&engine), texts);
    let after = point();
    assert_eq!((&after.passages, &after.text, &after.title), (&before.passages, &before.text, &before.title));
    assert_eq!(after.payload["year"], crate::value::Value::Integer(2));
    // Sent again it is unchanged, and another text is another vector.
    let again = engine.upsert("notes", vec![with(2, &text)], NEVER).await.unwrap().remove(0);
    assert_eq!(again.status, WriteStatus::Unchanged);
    engine.upsert("notes", vec![with(2, "The cat sat.")], NEVER).await.unwrap();
    assert!(encoded(&engine) > texts && point().passages.len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_set_removed_and_replaced_and_no_change_is_lost() {
    use crate::value::Value;
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let documents: Vec<_> = (0..3).map(|i| document(&format!("d{i}"), &sentences(30))).collect();
    engine.upsert("notes", documents, NEVER).await.unwrap();
    let texts = encoded(&engine);
    let set = |field: &str, value: i64| PayloadChange {
        set: [(field.to_owned(), Value::Integer(value))].into(),
        ..PayloadChange::default()
    };
    let ids = || vec!["d0".into(), "nobody".into(), "d2".into()];
    let outcomes = engine.set_payload("notes", ids(), set("n", 1), NEVER).await.unwrap();
    assert!(outcomes[1].is_none());
    for outcome in [&outcomes[0], &outcomes[2]] {
        let outcome = outcome.as_ref().unwrap().as_ref().unwrap();
        assert_eq!((outcome.status, outcome.tokens), (WriteStatus::Updated, 0));
    }
    let again = engine.set_payload("notes", ids(), set("n", 1), NEVER).await.unwrap().remove(0);
    assert_eq!(again.unwrap().unwrap().status, WriteStatus::Unchanged);
    let filter = || Some(Filter::parse("n = 1").unwrap());
    assert_eq!(engine.count("notes", filter()).await.unwrap(), 2);

    // Twenty at once on one document, each with a field of its own.
    let calls: Vec<_> = (0..20)
        .map(|i| {
            let (engine, change) = (Arc::clone(&engine), set(&format!("f{i}"), i));
            tokio::spawn(async move { engine.set_payload("notes", vec!["d0".into()], change, NEVER).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap().remove(0).unwrap().unwrap();
    }
    let payload = async || {
        let room = crate::budget::Room::unbounded();
        let got = engine.get("notes", vec!["d0".into()], false, room).await.unwrap().remove(0);
        got.1.unwrap().payload
    };
    assert_eq!(payload().await.len(), 21);
    let remove = PayloadChange { remove: vec!["n".into(), "none".into()], ..PayloadChange::default() };
    engine.set_payload("notes", vec!["d0".into()], remove, NEVER).await.unwrap();
    assert_eq!(payload().await.len(), 20);
    let replace = PayloadChange { replace: true, ..set("only", 5) };
    engine.set_payload("notes", vec!["d0".into()], replace, NEVER).await.unwrap();
    assert_eq!(*payload().await, [("only".to_owned(), Value::Integer(5))].into());
    assert_eq!(encoded(&engine), texts);
    // The document is still found by its text, and sending it as it is now changes nothing.
    let now = Document { payload: (*payload().await).clone(), ..document("d0", &sentences(30)) };
    let same = engine.upsert("notes", vec![now], NEVER).await.unwrap().remove(0);
    assert_eq!(same.status, WriteStatus::Unchanged);

    for (change, word) in [
        (PayloadChange::default(), "nothing is to be changed"),
        (PayloadChange { remove: vec!["n".into()], ..set("n", 1) }, "both set and removed"),
        (PayloadChange { remove: vec!["m".into()], replace: true, ..set("n", 1) }, "replace removes"),
    ] {
        let error = engine.set_payload("notes", ids(), change, NEVER).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(word), "{error}");
    }
    let bad = engine.set_payload("notes", vec!["d1".into()], set("", 1), NEVER).await.unwrap().remove(0);
    assert_eq!(bad.unwrap().unwrap_err().kind(), ErrorKind::Invalid);
    // What was done before the time is over is told.
    let past = Caller { deadline: Some(Instant::now()), ..NEVER };
    let error = engine.set_payload("notes", ids(), set("late", 1), past).await.unwrap_err();
    assert!(
        matches!(error, EngineError::UnfinishedPayload { done: 0, total } if total == ids().len()),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!payload().await.contains_key("late"));
    let twice = vec!["d1".into(), "d1".into()];
    assert_eq!(
        engine.set_payload("notes", twice, set("n", 1), NEVER).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_the_model_does_not_know_are_counted() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let text = format!("The cat {} sat on the mat {}.", "x".repeat(101), "😀");
    let outcome = engine.upsert("notes", vec![document("a", &text)], NEVER).await.unwrap().remove(0);
    assert_eq!((outcome.unknown_tokens, outcome.title_truncated), (2, false));
}

#[test]
fn a_collection_that_was_deleted_meanwhile_is_freed_beside_the_async_threads() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let home = home(NO_MODEL);
        let engine = Engine::open(&home.config).unwrap();
        let new = NewCollection { dimension: Some(2), vectors_only: true, ..collection("notes") };
        engine.create_collection(new).await.unwrap();
        let kept = engine.find("notes").unwrap().ready().await.unwrap();
        engine.delete_collection("notes").await.unwrap();
        // The one thread for what takes long is taken. A collection has a part in the engine's threads until it is freed.
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || hold.recv().is_ok());
        let owners = || Arc::strong_count(&engine.threads);
        let before = owners();
        tokio::spawn(async move { drop(kept) }).await.unwrap();
        assert_eq!(owners(), before, "it was freed here");
        drop(release);
        taken.await.unwrap();
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert!(owners() < before);
        engine.close().await.unwrap();
    });
}

/// With one thread for what may wait: it has done what came before when it begins what comes after.
#[test]
fn installed_models_are_listed_beside_the_async_threads() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let models = crate::model::tests::home_with(&["a", "b"]);
        let mut home = home("a");
        home.config.data.home = models.path().to_owned();
        let engine = Engine::open(&home.config).unwrap();
        let (made, _) = engine.create_collection(collection("notes")).await.unwrap();
        let gone = CollectionModel { name: "gone".into(), fingerprint: Fingerprint("0".repeat(64)) };
        let info = CollectionInfo { model: Some(gone), ..made };
        // The one thread is taken, so what goes there is not done when it is first asked for.
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || hold.recv().is_ok());
        let mut refused = Box::pin(engine.encoder_for(&info));
        let is_done = std::future::poll_fn(|context| Poll::Ready(refused.as_mut().poll(context).is_ready()));
        assert!(!is_done.await);
        drop(release);
        taken.await.unwrap();
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        // Whoever lists the models only now does not see this one.
        std::fs::rename(models.path().join("models/b"), models.path().join("b")).unwrap();
        let error = refused.await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(error.to_string().contains("b ("), "{error}");
    });
}

/// On one async thread, while every thread that tokenizes is held: what needs one waits for it and holds up nothing else.
#[tokio::test]
async fn long_texts_and_writes_leave_the_async_threads_free() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let encoder = engine.encoder().unwrap();
    let text = sentences(1 << 15);
    assert!(text.len() > 1 << 20);
    let (entered, inside) = std::sync::mpsc::channel();
    let gates: Vec<_> = (0..crate::threads::cores())
        .map(|_| {
            let (open, gate) = std::sync::mpsc::channel::<()>();
            let (threads, entered) = (Arc::clone(&engine.threads), entered.clone());
            tokio::spawn(async move {
                let held = threads.tokenize(move || {
                    entered.send(()).unwrap();
                    let _ = gate.recv();
                });
                held.await.unwrap();
            });
            open
        })
        .collect();
    tokio::task::yield_now().await;
    for _ in &gates {
        inside.recv().unwrap();
    }

    let work = async {
        engine.embed(&encoder, vec![text.clone()], crate::encoder::TextKind::Raw, NEVER).await.unwrap();
        engine.similarity(&encoder, text.clone(), vec!["rain".into()], NEVER).await.unwrap();
    };
    let watch = async {
        for _ in 0..50 {
            engine.collection("notes").await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        () = &mut work => panic!("a text was tokenized on the async thread"),
        () = watch => {}
    }
    drop(gates);
    work.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_has_a_limit_of_its_own_and_longer_texts_are_bulk() {
    let mut home = home("tiny");
    home.config.limits.query_bytes_max = 100;
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let long = "rain ".repeat(21);
    let error = engine.search("notes", question(Ask::Text(long.clone())), NEVER).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for word in ["105 bytes", "the limit is 100", "limits.query_bytes_max", "search by its id"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    engine.search("notes", question(Ask::Text("rain ".repeat(20))), NEVER).await.unwrap();
    let class = |texts: &[&str]| engine.class_of(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
    assert_eq!(class(&["rain"; 16]), crate::encoder::Class::Query);
    assert_eq!(class(&["rain"; 17]), crate::encoder::Class::Bulk);
    assert_eq!(class(&["rain", &long]), crate::encoder::Class::Bulk);
    let encoder = engine.encoder().unwrap();
    let vectors = engine.embed(&encoder, vec![long], crate::encoder::TextKind::Raw, NEVER).await.unwrap();
    assert_eq!(vectors[0].tokens, 23);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_was_asked_before_says_so() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    let ask =
        async || engine.search("notes", question(Ask::Text("rain".into())), NEVER).await.unwrap().encode;
    assert!(!ask().await.cached);
    let second = ask().await;
    assert!(second.cached && second.encode.is_zero() && second.tokenize.is_zero());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_write_goes_before_bulk_and_many_of_them_are_bulk() {
    let home = home("tiny");
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    // Bulk has all the room that there is for it.
    let bulk = Arc::clone(engine.bulk()).acquire_many_owned(engine.bulk_room()).await.unwrap();
    let write = |documents: Vec<Document>| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.upsert("notes", documents, NEVER).await })
    };
    let patience = Duration::from_secs(120);
    let small = write(vec![document("small", "a cat"), document("other", "a dog")]);
    let outcomes = tokio::time::timeout(patience, small).await.unwrap().unwrap().unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.status == WriteStatus::Inserted), "{outcomes:?}");

    let many: Vec<Document> =
        (0..=encode::SMALL_TEXTS_MAX).map(|n| document(&n.to_string(), &format!("cat {n}"))).collect();
    let long = document("long", &"many words ".repeat(400));
    let mut waiting = vec![write(many), write(vec![long])];
    // Others went before already.
    let others = u32::try_from(encode::SMALL_TEXTS_MAX).unwrap();
    let others = Arc::clone(engine.small()).acquire_many_owned(others).await.unwrap();
    waiting.push(write(vec![document("late", "a cow")]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(waiting.iter().all(|write| !write.is_finished()));
    drop((bulk, others));
    for write in waiting {
        tokio::time::timeout(patience, write).await.unwrap().unwrap().unwrap();
    }
    engine.close().await.unwrap();
}
