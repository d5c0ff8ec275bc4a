//! Pulls from a hub on this machine, and everything that can go wrong on the way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tempfile::TempDir;

use self::hub::{COMMIT, FakeHub, Fault, REPOSITORY, Request};
use super::*;
use crate::{
    error::{ErrorKind, Fault as _},
    model::{Pooling, tiny},
};

#[expect(dead_code, reason = "the tests of the command line use the rest")]
pub mod hub;

/// A hub with the tiny model, an empty cache and an empty home.
struct Case {
    folder: TempDir,
    hub: FakeHub,
    /// How long was waited, instead of waiting.
    pauses: Arc<Mutex<Vec<Duration>>>,
}

impl Case {
    fn new() -> Self {
        let read = |file: &str| fs::read(tiny::folder().join(file)).unwrap();
        let shape = ModelDir::open(&tiny::folder()).unwrap().manifest.shape;
        let config = json!({
            "model_type": "bert", "num_hidden_layers": shape.layers, "hidden_size": shape.hidden,
            "num_attention_heads": shape.heads, "intermediate_size": shape.intermediate,
            "vocab_size": shape.vocabulary, "max_position_embeddings": shape.positions,
            "type_vocab_size": shape.type_vocabulary,
        });
        let modules = json!([
            {"type": "sentence_transformers.models.Transformer", "path": ""},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        ]);
        let files = BTreeMap::from([
            (WEIGHTS_FILE.to_owned(), read(WEIGHTS_FILE)),
            (TOKENIZER_FILE.to_owned(), read(TOKENIZER_FILE)),
            ("config.json".to_owned(), config.to_string().into_bytes()),
            ("modules.json".to_owned(), modules.to_string().into_bytes()),
            ("1_Pooling/config.json".to_owned(), json!({"pooling_mode": "cls"}).to_string().into_bytes()),
            ("README.md".to_owned(), b"---\nlicense: mit\n---\n".to_vec()),
            ("onnx/model.onnx".to_owned(), b"another form".to_vec()),
        ]);
        let sums =
            BTreeMap::from([(WEIGHTS_FILE.to_owned(), FileSum::of_bytes(&files[WEIGHTS_FILE]).sha256)]);
        Case { folder: tempfile::tempdir().unwrap(), hub: FakeHub::new(files, sums), pauses: Arc::default() }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// Blobs and partial files in the cache, by name.
    fn blobs(&self) -> Vec<String> {
        let blobs = self.cache().join("models--owner--some-model/blobs");
        let names = fs::read_dir(blobs).into_iter().flatten();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.ends_with(".lock"));
        names.sort();
        names
    }

    fn client(&self, token: Option<&str>, offline: bool) -> Hub {
        let mut hub = Hub::new(&self.hub.url, self.cache(), token.map(str::to_owned), offline);
        let pauses = self.pauses.clone();
        hub.pause = Box::new(move |pause| pauses.lock().unwrap().push(pause));
        hub
    }

    fn pull_named(&self, repository: &str) -> Result<Pulled, PullError> {
        self.client(None, false).pull(&repository.parse().unwrap(), &mut |_| ())
    }

    fn pull(&self) -> Result<Pulled, PullError> {
        self.pull_named(REPOSITORY)
    }

    fn import(&self, pulled: &Pulled) -> Result<ModelDir, ModelError> {
        pulled.import(self.folder.path(), ImportOptions::default())
    }

    #[track_caller]
    fn refusal(&self) -> PullError {
        match self.pull().unwrap_err() {
            PullError::Model(error) => panic!("{error:?}"),
            error => error,
        }
    }

    fn pauses(&self) -> Vec<u64> {
        self.pauses.lock().unwrap().iter().map(Duration::as_secs).collect()
    }

    /// Where each download of the weights began.
    fn starts(&self) -> Vec<usize> {
        let of_weights = |r: &Request| r.path == format!("/elsewhere/{WEIGHTS_FILE}");
        self.hub.requests().into_iter().filter(of_weights).map(|r| r.start.unwrap()).collect()
    }
}

/// A fault of each download of the weights, in order.
fn of_weights(
    mut faults: impl Iterator<Item = Fault> + Send + 'static,
) -> impl FnMut(&Request) -> Option<Fault> + Send {
    move |request| if request.path.starts_with("/elsewhere/") { faults.next() } else { None }
}

#[test]
fn a_model_is_pulled_whole_and_imported_with_its_commit_as_the_source() {
    let case = Case::new();
    let mut events = Vec::new();
    let hub = case.client(Some("secret"), false);
    let pulled = hub.pull(&REPOSITORY.parse().unwrap(), &mut |event| events.push(event)).unwrap();
    let model = case.import(&pulled).unwrap();
    let manifest = &model.manifest;
    assert_eq!(
        (manifest.name.as_str(), manifest.source.as_str()),
        ("some-model", &*format!("{REPOSITORY}@{COMMIT}"))
    );
    assert_eq!(
        (manifest.pooling, manifest.normalise, manifest.licence.as_str()),
        (Pooling::Cls, false, "mit")
    );
    model.verify().unwrap();
    let weights = fs::metadata(model.weights_path()).unwrap().len();
    let whole = PullEvent::Downloading { file: WEIGHTS_FILE.into(), done: weights, total: weights };
    assert!(events.contains(&whole), "{:?}", events.last());
    let requests = case.hub.requests();
    assert!(requests.iter().all(|request| !request.path.contains("onnx")), "{requests:?}");
    assert!(requests.iter().any(|request| request.token.as_deref() == Some("secret")));
    assert!(case.pauses().is_empty());
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again() {
    let case = Case::new();
    case.pull().unwrap();
    let before = case.hub.requests().len();
    case.pull_named(&format!("{REPOSITORY}@{COMMIT}")).unwrap();
    assert_eq!(case.hub.requests().len(), before + 1, "only the list");

    let weights = case.pull().unwrap().folder.join(WEIGHTS_FILE);
    let mut damaged = fs::read(&weights).unwrap();
    damaged[1000] ^= 1;
    fs::write(&weights, damaged).unwrap();
    case.pull().unwrap();
    assert_eq!(case.starts(), [0, 0], "what was damaged since is fetched again");
}

#[test]
fn a_cut_download_goes_on_where_it_was_in_the_same_pull() {
    let case = Case::new();
    case.hub.faults(of_weights([Fault::Cut(1000), Fault::Cut(500)].into_iter()));
    let model = case.import(&case.pull().unwrap()).unwrap();
    model.verify().unwrap();
    assert_eq!(case.starts(), [0, 1000, 1500]);
    assert_eq!(case.pauses(), [1, 2]);
}

#[test]
fn a_cut_download_goes_on_where_it_was_in_the_next_pull() {
    let case = Case::new();
    case.hub.faults(of_weights(std::iter::repeat(Fault::Cut(1000))));
    let error = case.refusal();
    assert!(matches!(&error, PullError::Cut { file, .. } if file == WEIGHTS_FILE), "{error:?}");
    assert_eq!((error.kind(), case.pauses()), (ErrorKind::Unavailable, vec![1, 2, 4, 8]));
    assert!(case.blobs().iter().any(|name| name.ends_with(".part")));
    case.hub.faults(|_| None);
    case.import(&case.pull().unwrap()).unwrap().verify().unwrap();
    assert_eq!(case.starts(), [0, 1000, 2000, 3000, 4000, 5000]);
}

#[test]
fn a_partial_file_that_is_whole_or_too_long_is_fetched_anew() {
    for extra in [0, 1] {
        let case = Case::new();
        case.hub.faults(of_weights(std::iter::repeat(Fault::Cut(1000))));
        case.refusal();
        case.hub.faults(|_| None);
        let part = case.blobs().into_iter().find(|name| name.ends_with(".part")).unwrap();
        let whole = fs::metadata(tiny::folder().join(WEIGHTS_FILE)).unwrap().len();
        let part = case.cache().join("models--owner--some-model/blobs").join(part);
        fs::write(part, vec![0; whole as usize + extra]).unwrap();
        case.import(&case.pull().unwrap()).unwrap().verify().unwrap();
    }
}

#[test]
fn a_private_model_asks_for_a_token() {
    for status in [401, 403] {
        let case = Case::new();
        case.hub.faults(move |_| Some(Fault::Status(status, "X-Error-Code", "GatedRepo")));
        let error = case.refusal();
        assert!(matches!(error, PullError::Refused { status: got, token: false, .. } if got == status));
        assert!(error.to_string().contains("private or gated") && error.to_string().contains("set HF_TOKEN"));
        assert_eq!((error.kind(), case.hub.requests().len()), (ErrorKind::Precondition, 1));
        let error =
            case.client(Some("t"), false).pull(&REPOSITORY.parse().unwrap(), &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("the token in use may not read it"), "{error}");
    }
    // Gated models show their list of files to everybody.
    let case = Case::new();
    case.hub.faults(|request| request.path.contains("/resolve/").then_some(Fault::Status(403, "X", "y")));
    assert!(matches!(case.refusal(), PullError::Refused { status: 403, .. }));
}

#[test]
fn what_the_hub_does_not_have_is_told_apart() {
    let case = Case::new();
    let refusal = |name: &str| case.pull_named(name).unwrap_err();
    let error = refusal("owner/other");
    assert!(matches!(error, PullError::NoRepository { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = refusal("owner/some-model@v9");
    assert_eq!(error.to_string(), "owner/some-model has no revision \"v9\"");

    case.hub.faults(|request| request.path.contains("/resolve/").then_some(Fault::Status(404, "X", "y")));
    assert!(matches!(case.refusal(), PullError::NoFile { .. }));
    case.hub.faults(|_| None);
    case.hub.remove(WEIGHTS_FILE);
    let error = case.refusal();
    assert_eq!(
        error.to_string(),
        "owner/some-model has no file model.safetensors, without which it cannot be imported"
    );
    case.hub.file("pytorch_model.bin", "pickled");
    assert!(matches!(case.refusal(), PullError::NoSafetensors { .. }));
}

#[test]
fn a_busy_hub_is_asked_again_when_it_says() {
    let case = Case::new();
    let mut busy = vec![
        Fault::Status(503, "X", "y"),
        Fault::Status(429, "Retry-After", "7"),
        Fault::Status(429, "Retry-After", "30"),
    ];
    case.hub.faults(move |_| busy.pop());
    let mut waited = Vec::new();
    let mut tell = |event| {
        if let PullEvent::Waiting { reason, .. } = event {
            waited.push(reason);
        }
    };
    case.client(None, false).pull(&REPOSITORY.parse().unwrap(), &mut tell).unwrap();
    assert_eq!(case.pauses(), [30, 7, 4]);
    assert_eq!(waited[0], "the hub asks to slow down (status 429)");
}

#[test]
fn a_hub_that_stays_busy_is_given_up() {
    let case = Case::new();
    case.hub.faults(|_| Some(Fault::Status(429, "X", "y")));
    let error = case.refusal();
    assert!(matches!(error, PullError::Busy { status: 429, asked: ATTEMPTS, .. }), "{error:?}");
    assert_eq!((error.kind(), case.hub.requests().len()), (ErrorKind::Overloaded, ATTEMPTS as usize));

    let case = Case::new();
    case.hub.faults(|_| Some(Fault::Status(429, "Retry-After", "3600")));
    let error = case.refusal().to_string();
    assert!(error.contains("it asks to wait 3600 s") && case.pauses().is_empty(), "{error}");
    case.hub.faults(|_| Some(Fault::Status(502, "X", "y")));
    assert_eq!(case.refusal().kind(), ErrorKind::Unavailable);
}

#[test]
fn content_with_another_sum_is_deleted_and_nothing_imported() {
    let case = Case::new();
    let mut weights = fs::read(tiny::folder().join(WEIGHTS_FILE)).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    let wrong = FileSum::of_bytes(&weights).sha256;
    case.hub.file(WEIGHTS_FILE, weights);
    let error = case.refusal();
    let PullError::Wrong { file, reason, .. } = &error else { panic!("{error:?}") };
    assert!(file == WEIGHTS_FILE && reason.starts_with(&format!("sha256 {wrong}, expected ")), "{error}");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(case.blobs().iter().all(|name| name.len() != SHA256_DIGITS), "{:?}", case.blobs());
    assert!(case.client(None, true).pull(&REPOSITORY.parse().unwrap(), &mut |_| ()).is_err());
}

#[test]
fn offline_only_the_cache_is_asked() {
    let case = Case::new();
    let pull = |name: &str| case.client(None, true).pull(&name.parse().unwrap(), &mut |_| ());
    let error = pull(REPOSITORY).unwrap_err();
    assert!(matches!(error, PullError::Offline { .. }), "{error:?}");
    assert!(error.to_string().contains("revision main of owner/some-model is not in the cache"), "{error}");
    let online = case.pull().unwrap();
    let asked = case.hub.requests().len();
    for name in [REPOSITORY.to_owned(), format!("{REPOSITORY}@{COMMIT}")] {
        let pulled = pull(&name).unwrap();
        assert_eq!((&pulled.folder, &pulled.commit), (&online.folder, &online.commit));
    }
    fs::remove_file(online.folder.join(WEIGHTS_FILE)).unwrap();
    assert!(
        pull(REPOSITORY).unwrap_err().to_string().contains("model.safetensors of owner/some-model is not in")
    );
    assert_eq!(case.hub.requests().len(), asked);
}

#[test]
fn an_encoder_that_we_cannot_run_costs_no_download_of_its_weights() {
    let case = Case::new();
    case.hub.file("config.json", json!({"model_type": "t5"}).to_string());
    let error = case.pull().unwrap_err();
    assert!(error.to_string().contains("its model_type is \"t5\"; supported: bert, distilbert"), "{error}");
    assert_eq!((error.kind(), case.starts()), (ErrorKind::Invalid, vec![]));
}

#[test]
fn files_that_do_not_belong_together_are_told_by_name() {
    let case = Case::new();
    let pulled = case.pull().unwrap();
    let config = fs::read_to_string(pulled.folder.join("config.json")).unwrap();
    for (from, to, said) in [
        (
            "\"intermediate_size\":64",
            "\"intermediate_size\":128",
            "tensor encoder.layer.0.intermediate.dense.weight has shape [64, 32], but the config says [128, 32]",
        ),
        (
            "\"vocab_size\":609",
            "\"vocab_size\":500",
            "token ids up to 608, but the config's vocab_size is 500",
        ),
    ] {
        let case = Case::new();
        assert!(config.contains(from), "{config}");
        case.hub.file("config.json", config.replace(from, to));
        let error = anyhow::Error::from(case.import(&case.pull().unwrap()).unwrap_err());
        assert!(format!("{error:#}").contains(said), "{error:#}");
        assert!(!case.folder.path().join("models").exists());
    }
}

#[test]
fn a_hub_that_is_none_is_told() {
    let case = Case::new();
    let hub = Hub::new("http://127.0.0.1:1", case.cache(), None, false);
    let error = hub.pull(&REPOSITORY.parse().unwrap(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().starts_with("cannot reach http://127.0.0.1:1: "), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    case.hub.faults(|_| Some(Fault::Status(200, "X", "y")));
    assert!(matches!(case.refusal(), PullError::Protocol { .. }));
}
