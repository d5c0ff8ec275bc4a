//! Model directories, whole and broken in every way that the errors tell of.

use super::*;
use tempfile::TempDir;

/// A home folder with `models/tiny`, free to be broken.
pub(crate) fn tiny_copy() -> (TempDir, ModelDir) {
    let home = tempfile::tempdir().unwrap();
    let model = copy_tiny(home.path(), "tiny");
    (home, model)
}

/// A home folder with the runtime and `names.len()` models, the weights of all the same, each with a pooling of its own
/// and so a fingerprint of its own.
pub(crate) fn home_with(names: &[&str]) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(crate::config::default_home().join("runtime"), home.path().join("runtime"))
        .unwrap();
    for (name, pooling) in names.iter().zip(["mean", "cls", "max", "first_last_mean"]) {
        let model = copy_tiny(home.path(), name);
        open_edited(&model, "name = \"tiny\"", &format!("name = \"{name}\"")).unwrap();
        open_edited(&model, "pooling = \"mean\"", &format!("pooling = \"{pooling}\"")).unwrap();
    }
    home
}

fn copy_tiny(home: &Path, name: &str) -> ModelDir {
    let target = home.join(MODELS_FOLDER).join(name);
    fs::create_dir_all(&target).unwrap();
    for file in [MANIFEST_FILE, WEIGHTS_FILE, TOKENIZER_FILE] {
        fs::copy(tiny::folder().join(file), target.join(file)).unwrap();
    }
    ModelDir::open(&target).unwrap()
}

/// Opens the model after replacing a piece of its manifest.
fn open_edited(model: &ModelDir, from: &str, to: &str) -> Result<ModelDir, ModelError> {
    let path = model.path.join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    ModelDir::open(&model.path)
}

fn manifest_error(result: Result<ModelDir, ModelError>) -> String {
    match result {
        Err(ModelError::Manifest { reason, .. }) => reason,
        other => panic!("expected a manifest error, got {other:?}"),
    }
}

#[test]
fn model_is_found_by_name_and_by_path() {
    let (home, model) = tiny_copy();
    let by_name = ModelDir::find(home.path(), "tiny").unwrap();
    let by_path = ModelDir::find(Path::new("/nowhere"), model.path.to_str().unwrap()).unwrap();
    assert_eq!(by_name.fingerprint, by_path.fingerprint);
    assert_eq!(by_name.manifest.dimension, 32);
    by_name.verify().unwrap();
}

#[test]
fn unknown_model_names_what_there_is_and_the_way_out() {
    let (home, _) = tiny_copy();
    copy_tiny(home.path(), "other");
    let error = ModelDir::find(home.path(), "minilm-l6").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let message = error.to_string();
    assert!(message.contains("\"minilm-l6\" (there are: other, tiny)"), "{message}");
    assert!(message.contains("distilface setup"), "{message}");

    let empty = tempfile::tempdir().unwrap();
    let message = ModelDir::find(empty.path(), "../x").unwrap_err().to_string();
    assert!(message.contains("there are: none"), "{message}");
}

#[test]
fn missing_files_are_named() {
    for file in [MANIFEST_FILE, WEIGHTS_FILE, TOKENIZER_FILE] {
        let (_home, model) = tiny_copy();
        fs::remove_file(model.path.join(file)).unwrap();
        let error = ModelDir::open(&model.path).unwrap_err();
        assert!(matches!(&error, ModelError::MissingFile { path } if path.ends_with(file)), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(error.to_string().contains("distilface setup --force"));
    }
    let (_home, model) = tiny_copy();
    fs::remove_file(model.weights_path()).unwrap();
    assert!(matches!(model.verify(), Err(ModelError::MissingFile { .. })));
    fs::create_dir(model.weights_path()).unwrap();
    assert!(matches!(ModelDir::open(&model.path), Err(ModelError::MissingFile { .. })));
}

#[test]
fn truncated_file_is_seen_at_opening() {
    let (_home, model) = tiny_copy();
    let whole = fs::read(model.weights_path()).unwrap();
    fs::write(model.weights_path(), &whole[..whole.len() - 1]).unwrap();
    let error = ModelDir::open(&model.path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let message = error.to_string();
    assert!(
        message.contains(&format!("it has {} bytes, expected {}", whole.len() - 1, whole.len())),
        "{message}"
    );
    assert!(message.contains("distilface setup --force"), "{message}");
}

#[test]
fn changed_bytes_are_seen_by_verify() {
    for file in [WEIGHTS_FILE, TOKENIZER_FILE] {
        let (_home, model) = tiny_copy();
        let path = model.path.join(file);
        let mut content = fs::read(&path).unwrap();
        content[100] ^= 1;
        fs::write(&path, content).unwrap();
        let model = ModelDir::open(&model.path).unwrap();
        let error = model.verify().unwrap_err();
        assert!(matches!(&error, ModelError::Checksum { path, expected, got }
            if path.ends_with(file) && expected != got));
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn manifest_with_an_unknown_key_is_refused_by_name() {
    let (_home, model) = tiny_copy();
    let reason = manifest_error(open_edited(&model, "pooling =", "poling ="));
    assert!(reason.contains("poling") && reason.contains("line"), "{reason}");
}

#[test]
fn manifest_of_another_format_is_refused_before_its_keys_are_read() {
    let (_home, model) = tiny_copy();
    open_edited(&model, "pooling =", "pool_of_the_future =").unwrap_err();
    let reason = manifest_error(open_edited(&model, "format = 1", "format = 2"));
    assert_eq!(reason, "its format is 2, but this version reads 1");
}

#[test]
fn manifest_that_contradicts_itself_is_refused() {
    for (from, to, said) in [
        ("dimension = 32", "dimension = 64", "dimension is 64, but shape.hidden is 32"),
        ("max_tokens = 64", "max_tokens = 65", "max_tokens is 65; allowed: 3 to the 64"),
        ("max_tokens = 64", "max_tokens = 2", "max_tokens is 2"),
        ("heads = 2", "heads = 3", "hidden size 32 cannot be shared out among 3 heads"),
        ("layers = 2", "layers = 0", "must all be at least 1"),
        ("layer_norm_eps = ", "layer_norm_eps = -", "layer_norm_eps"),
        ("name = \"tiny\"", "name = \"../tiny\"", "cannot be a model's name"),
        ("pooling = \"mean\"", "pooling = \"median\"", "unknown variant"),
        ("sha256 = \"", "sha256 = \"Z", "64 lowercase hexadecimal digits"),
        ("\"model.safetensors\"", "\"weights.bin\"", "files must be model.safetensors and tokenizer.json"),
    ] {
        let (_home, model) = tiny_copy();
        let reason = manifest_error(open_edited(&model, from, to));
        assert!(reason.contains(said), "{to}: {reason}");
    }
    let (_home, model) = tiny_copy();
    fs::write(model.path.join(MANIFEST_FILE), [b'a', 0xff]).unwrap();
    assert_eq!(manifest_error(ModelDir::open(&model.path)), "not UTF-8 at byte 1");
}

#[test]
fn manifest_survives_being_written_and_read() {
    let (_home, model) = tiny_copy();
    let mut manifest = model.manifest.clone();
    manifest.prompts = Prompts { query: "query: ".into(), document: "say \"this\"\n".into() };
    manifest.lineage = vec!["base".into()];
    assert_eq!(Manifest::parse(&manifest.to_toml(), Path::new("model.toml")).unwrap(), manifest);
}

#[test]
fn fingerprint_follows_what_changes_vectors_and_nothing_else() {
    let (_home, model) = tiny_copy();
    let original = model.fingerprint.clone();
    assert_eq!(original.0.len(), 64);
    let with = |change: fn(&mut Manifest)| {
        let mut manifest = model.manifest.clone();
        change(&mut manifest);
        manifest.fingerprint()
    };
    assert_ne!(with(|m| m.pooling = Pooling::Cls), original);
    assert_ne!(with(|m| m.normalise = false), original);
    for file in [WEIGHTS_FILE, TOKENIZER_FILE] {
        let mut manifest = model.manifest.clone();
        manifest.files.get_mut(file).unwrap().sha256 = "0".repeat(64);
        assert_ne!(manifest.fingerprint(), original);
    }
    assert_eq!(with(|m| m.name = "renamed".into()), original);
    assert_eq!(with(|m| m.licence = "MIT".into()), original);
}

#[test]
fn list_gives_every_model_and_a_broken_one_as_its_error() {
    let (home, _) = tiny_copy();
    copy_tiny(home.path(), "a-good-one");
    let broken = copy_tiny(home.path(), "broken");
    fs::remove_file(broken.tokenizer_path()).unwrap();
    fs::create_dir(home.path().join(MODELS_FOLDER).join(".tmp-unfinished")).unwrap();
    fs::write(home.path().join(MODELS_FOLDER).join("notes.txt"), "").unwrap();
    let list = ModelDir::list(home.path());
    assert_eq!(list.len(), 3);
    assert!(list[0].is_ok() && list[2].is_ok());
    assert!(matches!(&list[1], Err(ModelError::MissingFile { path }) if *path == broken.tokenizer_path()));
    assert!(ModelDir::list(&home.path().join("nowhere")).is_empty());
}

/// `models/default.toml` is setup's; that its model can be told from another is ours.
#[test]
fn pinned_default_model_is_the_one_of_the_design() {
    let pins: toml::Table =
        toml::from_str(&fs::read_to_string(tiny::folder().with_file_name("default.toml")).unwrap()).unwrap();
    let sum = pins["package"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|package| package["wheel"].as_array().unwrap())
        .flat_map(|wheel| wheel["file"].as_array().unwrap())
        .find(|file| file["target"].as_str() == Some(WEIGHTS_FILE))
        .unwrap();
    assert_eq!(
        sum["sha256"].as_str().unwrap(),
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    );
}
