//! `model export` and `model pull`: out to Hugging Face's form and in from a hub, which is a thread of the test here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value as Json;

use crate::{
    harness::{bare, finish, run, signal, until},
    hub::{COMMIT, FakeHub, Fault, REPOSITORY},
};

/// A home folder with the tiny model and no runtime: nothing here encodes.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Home { folder: tempfile::tempdir().unwrap() };
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
        let to = home.path("models/tiny");
        fs::create_dir_all(&to).unwrap();
        for file in ["model.toml", "model.safetensors", "tokenizer.json"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = bare();
        for variable in ["HF_ENDPOINT", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"] {
            command.env_remove(variable);
        }
        for variable in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(variable).env_remove(variable.to_uppercase());
        }
        command.env("DISTILFACE_HOME", self.folder.path()).env("HF_HOME", self.path("hf"));
        command.current_dir(self.folder.path()).arg("model").args(args);
        command
    }

    fn pull(&self, hub: &FakeHub, args: &[&str]) -> Command {
        let mut command = self.command(&["pull"]);
        command.args(args).env("HF_ENDPOINT", &hub.url);
        command
    }

    /// A hub that has the tiny model.
    fn hub(&self) -> FakeHub {
        run(&mut self.command(&["export", "tiny", "on-the-hub"])).code(0);
        let mut files = BTreeMap::new();
        for file in
            ["config.json", "model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"]
        {
            files.insert(file.to_owned(), fs::read(self.path("on-the-hub").join(file)).unwrap());
        }
        // Its blob in the cache is checked against this.
        let sum = sha256(&self.path("on-the-hub/model.safetensors"));
        FakeHub::new(files, BTreeMap::from([("model.safetensors".to_owned(), sum)]))
    }
}

/// In hex.
fn sha256(file: &Path) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(fs::read(file).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn exported_model_comes_back_with_its_fingerprint() {
    let home = Home::new();
    let ran = run(&mut home.command(&["export", "tiny", "out", "--json"])).code(0);
    let export: Json = ran.json();
    assert_eq!(export["sentence_transformers"], true);
    assert!(home.path("out/modules.json").is_file() && home.path("out/vocab.txt").is_file());
    let back = run(&mut home.command(&["import", "out", "--name", "back", "--json"])).code(0).json();
    let own = run(&mut home.command(&["show", "tiny", "--json"])).code(0).json();
    assert_eq!(back["fingerprint"], own["fingerprint"]);
    run(&mut home.command(&["export", "tiny", "out2"])).code(0).prints("transformers, sentence-transformers");
}

#[test]
fn pooling_without_a_module_is_said_plainly() {
    let home = Home::new();
    run(&mut home.command(&["export", "tiny", "out"])).code(0);
    fs::remove_file(home.path("out/distilface.json")).unwrap();
    let args = ["import", "out", "--name", "both", "--pooling", "first_last_mean"];
    run(&mut home.command(&args)).code(0);
    let ran = run(&mut home.command(&["export", "both", "out3"])).code(0);
    ran.says("cannot express the pooling first_last_mean, so no modules.json was written");
    assert!(!home.path("out3/modules.json").exists());
}

#[test]
fn existing_folder_and_unknown_model_are_refused() {
    let home = Home::new();
    fs::create_dir(home.path("full")).unwrap();
    fs::write(home.path("full/mine"), "").unwrap();
    let error = run(&mut home.command(&["export", "tiny", "full", "--json"])).code(1).json_error();
    assert_eq!(error["kind"], "exists");
    run(&mut home.command(&["export", "tiny", "full"])).code(1).says("it is not empty");
    run(&mut home.command(&["export", "tiny", "full", "--force"])).code(1).says("holds no distilface.json");
    assert!(home.path("full/mine").exists());
    run(&mut home.command(&["export", "nothing", "out"])).code(1).says("no model \"nothing\"");
}

#[test]
fn wrong_flags_are_wrong_use() {
    let home = Home::new();
    for args in [
        &["export", "tiny"][..],
        &["export", "tiny", "out", "--format", "onnx"],
        &["pull"],
        &["pull", "a/b/c"],
        &["pull", "../b"],
        &["pull", "a/b@"],
        &["pull", "a/b", "--pooling", "middle"],
        &["pull", "a/b", "--max-tokens", "many"],
    ] {
        let ran = run(&mut home.command(args)).code(2);
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{args:?}: {ran:?}");
    }
    let ran = run(home.command(&["pull", "a/b"]).env("HF_ENDPOINT", "nonsense")).code(2);
    ran.says("HF_ENDPOINT is \"nonsense\"");
}

#[test]
fn model_is_pulled_from_a_hub_and_then_without_it() {
    let home = Home::new();
    let hub = home.hub();
    let pulled = run(&mut home.pull(&hub, &[REPOSITORY, "--json"])).code(0).json();
    assert_eq!(pulled["manifest"]["name"], "some-model");
    assert_eq!(pulled["manifest"]["source"], format!("{REPOSITORY}@{COMMIT}"));
    run(&mut home.pull(&hub, &[REPOSITORY])).code(1).says("a model named \"some-model\" exists");

    let asked = hub.requests().len();
    let mut offline = home.pull(&hub, &[REPOSITORY, "--name", "again", "--pooling", "cls", "--json"]);
    let again = run(offline.env("HF_HUB_OFFLINE", "1")).code(0).json();
    assert_eq!((&again["manifest"]["pooling"], hub.requests().len()), (&Json::from("cls"), asked));
    let other = run(home.pull(&hub, &["owner/other"]).env("HF_HUB_OFFLINE", "1")).code(1);
    other.says("HF_HUB_OFFLINE is set");
}

#[test]
fn what_the_hub_refuses_is_told_with_what_to_do() {
    let home = Home::new();
    let hub = home.hub();
    run(&mut home.pull(&hub, &["owner/other"])).code(1).says("has no model owner/other");
    hub.faults(|_| Some(Fault::Status(401, "X", "y")));
    let error = run(&mut home.pull(&hub, &[REPOSITORY, "--json"])).code(1).json_error();
    assert_eq!(error["kind"], "precondition");
    assert!(error["message"].as_str().unwrap().contains("set HF_TOKEN"));
}

#[test]
fn interrupted_pull_goes_on_where_it_was() {
    let home = Home::new();
    let hub = home.hub();
    hub.faults(|request| request.path.starts_with("/elsewhere/").then_some(Fault::Stall(4096)));
    let mut pull = home.pull(&hub, &[REPOSITORY]);
    let child = pull.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let blobs = home.path("hf/hub/models--owner--some-model/blobs");
    let partial = || {
        let part = fs::read_dir(&blobs)
            .ok()?
            .flatten()
            .find(|e| e.path().extension().is_some_and(|x| x == "part"))?;
        Some(part.metadata().ok()?.len())
    };
    until("a part has come", || partial().is_some_and(|bytes| bytes >= 4096));
    signal(&child, "-INT");
    finish(child).code(130).says("pull again to go on");

    hub.faults(|_| None);
    run(&mut home.pull(&hub, &[REPOSITORY])).code(0).prints("some-model");
    let starts: Vec<_> = hub
        .requests()
        .into_iter()
        .filter(|r| r.path.starts_with("/elsewhere/"))
        .map(|r| r.start.unwrap())
        .collect();
    assert_eq!(starts, [0, 4096]);
}
