//! What an exported directory holds, and that importing it gives back the same model.

use super::*;
use crate::{
    error::{ErrorKind, Fault as _},
    hub::ImportOptions,
    model::{MANIFEST_FILE, Prompts, RandomOptions, tiny},
};
use tempfile::TempDir;

/// A model of our own with a given pooling, and a place to export it to.
struct Case {
    folder: TempDir,
    model: ModelDir,
}

impl Case {
    fn new(change: impl FnOnce(&mut Manifest)) -> Self {
        Case::of(&ModelDir::open(&tiny::folder()).unwrap(), change)
    }

    fn of(base: &ModelDir, change: impl FnOnce(&mut Manifest)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        for file in [WEIGHTS_FILE, TOKENIZER_FILE] {
            fs::copy(base.path.join(file), own.join(file)).unwrap();
        }
        let mut manifest = base.manifest.clone();
        change(&mut manifest);
        manifest.dimension = manifest.pooling.dimension(manifest.shape.hidden) as u32;
        fs::write(own.join(MANIFEST_FILE), manifest.to_toml()).unwrap();
        let model = ModelDir::open(&own).unwrap();
        Case { folder, model }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("exported")
    }

    fn export(&self) -> Export {
        self.model.export(&self.target(), false).unwrap()
    }

    fn import(&self) -> ModelDir {
        let options = ImportOptions { name: Some("back".into()), force: true, ..Default::default() };
        ModelDir::import(self.folder.path(), &self.target(), options).unwrap()
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.target().join(file)).unwrap()).unwrap()
    }
}

#[test]
fn every_pooling_comes_back_with_the_same_fingerprint_and_manifest() {
    let home = tempfile::tempdir().unwrap();
    // Some poolings need more layers than the tiny model has.
    let options = RandomOptions { layers: 3, ..RandomOptions::small("deep", Architecture::Distilbert) };
    let tiny = ModelDir::open(&tiny::folder()).unwrap();
    let deep = ModelDir::random(home.path(), &tiny, &options).unwrap();
    for (pooling, base) in Pooling::ALL.into_iter().flat_map(|p| [(p, &tiny), (p, &deep)]) {
        if pooling.layers_min() > base.manifest.shape.layers {
            continue;
        }
        let case = Case::of(base, |manifest| {
            manifest.pooling = pooling;
            manifest.normalise = pooling != Pooling::Max;
            manifest.max_tokens = 48;
            manifest.licence = "MIT".into();
            manifest.lineage = vec!["base".into(), "trained".into()];
            manifest.prompts = Prompts { query: "find: ".into(), document: String::new() };
        });
        let export = case.export();
        let expressible = matches!(pooling, Pooling::Cls | Pooling::Mean | Pooling::Max);
        assert_eq!(export.sentence_transformers, expressible, "{pooling:?}");
        assert_eq!(case.target().join("modules.json").exists(), expressible, "{pooling:?}");
        let back = case.import();
        back.verify().unwrap();
        assert_eq!(back.fingerprint, case.model.fingerprint, "{pooling:?}");
        let name = case.model.manifest.name.clone();
        assert_eq!(Manifest { name, ..back.manifest }, case.model.manifest);
    }
}

#[test]
fn files_say_what_transformers_and_sentence_transformers_need() {
    let case = Case::new(|manifest| {
        manifest.max_tokens = 48;
        manifest.prompts = Prompts { query: "find: ".into(), document: "text: ".into() };
    });
    let export = case.export();
    for file in &export.files {
        assert!(case.target().join(file).is_file(), "{file}");
    }
    let config = case.json("config.json");
    assert_eq!((&config["model_type"], &config["hidden_act"]), (&json!("bert"), &json!("gelu")));
    assert_eq!((&config["layer_norm_eps"], &config["pad_token_id"]), (&json!(1e-12), &json!(0)));
    let tokenizer = case.json("tokenizer_config.json");
    assert_eq!(tokenizer["tokenizer_class"], "BertTokenizer");
    assert_eq!((&tokenizer["do_lower_case"], &tokenizer["model_max_length"]), (&json!(true), &json!(48)));
    assert_eq!(case.json("special_tokens_map.json")["cls_token"], "[CLS]");
    let vocabulary = fs::read_to_string(case.target().join("vocab.txt")).unwrap();
    assert_eq!(vocabulary.lines().count(), case.model.manifest.shape.vocabulary);
    assert!(vocabulary.starts_with("[PAD]\n[UNK]\n[CLS]\n"));

    let modules = case.json("modules.json");
    let kinds: Vec<&str> = modules.as_array().unwrap().iter().map(|m| m["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["Transformer", "Pooling", "Normalize"].map(|k| format!("sentence_transformers.models.{k}"))
    );
    let pooling = case.json("1_Pooling/config.json");
    assert_eq!(
        (&pooling["pooling_mode_mean_tokens"], &pooling["pooling_mode_cls_token"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(case.json("sentence_bert_config.json")["max_seq_length"], 48);
    let prompts = &case.json("config_sentence_transformers.json")["prompts"];
    assert_eq!(*prompts, json!({"query": "find: ", "document": "text: "}));
    let card = fs::read_to_string(case.target().join("README.md")).unwrap();
    assert!(card.starts_with("---\nlicense: apache-2.0\nlibrary_name: sentence-transformers\n"), "{card}");
}

#[test]
fn weights_are_marked_as_pytorchs_and_the_tensors_untouched() {
    let case = Case::new(|_| ());
    case.export();
    let own = fs::read(case.model.weights_path()).unwrap();
    let exported = fs::read(case.target().join(WEIGHTS_FILE)).unwrap();
    let (header, tensors) = header::split(&exported).unwrap();
    assert_eq!(tensors, header::split(&own).unwrap().1);
    assert_eq!(serde_json::from_str::<Value>(header).unwrap()["__metadata__"], json!({"format": "pt"}));
}

/// Fine-tuned elsewhere and saved over the export: the weights are what is there, not what was.
#[test]
fn changed_weights_are_imported_as_they_are() {
    let case = Case::new(|_| ());
    case.export();
    let path = case.target().join(WEIGHTS_FILE);
    let mut weights = fs::read(&path).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    fs::write(&path, &weights).unwrap();
    let back = case.import();
    assert_ne!(back.fingerprint, case.model.fingerprint);
    assert_eq!(fs::read(back.weights_path()).unwrap(), weights);
}

#[test]
fn files_that_disagree_about_pooling_are_refused() {
    let case = Case::new(|_| ());
    case.export();
    let path = case.target().join("1_Pooling/config.json");
    fs::write(&path, json!({"pooling_mode": "cls"}).to_string()).unwrap();
    let error = ModelDir::import(case.folder.path(), &case.target(), ImportOptions::default()).unwrap_err();
    assert!(error.to_string().contains("disagree about pooling"), "{error}");
    fs::write(&path, json!({"pooling_mode": "mean"}).to_string()).unwrap();
    fs::write(case.target().join(EXPORTED_FILE), json!({"format": 2}).to_string()).unwrap();
    let error = ModelDir::import(case.folder.path(), &case.target(), ImportOptions::default()).unwrap_err();
    assert!(error.to_string().contains("its format is 2"), "{error}");
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let case = Case::new(|_| ());
    let export = |force| case.model.export(&case.target(), force);
    fs::create_dir(case.target()).unwrap();
    export(false).expect("an empty folder may be filled");
    let error = export(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().contains("it is not empty"), "{error}");
    fs::write(case.target().join("left over"), "").unwrap();
    export(true).expect("an exported folder may be replaced");
    assert!(!case.target().join("left over").exists());

    fs::remove_file(case.target().join(EXPORTED_FILE)).unwrap();
    let error = export(true).unwrap_err();
    assert!(error.to_string().contains("it holds no distilface.json"), "{error}");
    fs::remove_dir_all(case.target()).unwrap();
    fs::write(case.target(), "a file").unwrap();
    assert!(export(true).unwrap_err().to_string().contains("it is not a folder"));
    let left: Vec<_> =
        fs::read_dir(case.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn damaged_weights_are_not_exported() {
    let case = Case::new(|_| ());
    let mut weights = fs::read(case.model.weights_path()).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    fs::write(case.model.weights_path(), weights).unwrap();
    let error = case.model.export(&case.target(), false).unwrap_err();
    assert!(matches!(error, ModelError::Checksum { .. }), "{error:?}");
    assert!(!case.target().exists());
}
