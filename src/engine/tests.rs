//! The engine on the tiny model: names, writes, questions, and what is refused.

use std::path::Path;

use super::*;
use crate::config::{DataConfig, EncoderConfig};

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

const NEVER: Caller = Caller { deadline: None, client: 0 };

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
    let other = NewCollection { metric: Metric::Dot, ..same };
    let differs = engine.create_collection(other).await.unwrap_err();
    assert!(differs.to_string().contains("metric is cosine, not dot"), "{differs}");
    let index = crate::index::IndexParams { ef_search: 50, ..Default::default() };
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
    let expired = Caller { deadline: Some(Instant::now()), client: 0 };
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
