//! A repository is named `OWNER/NAME@REVISION`; this file chooses which of its files make a model.

use std::str::FromStr;

use serde_json::Value;

use super::PullError;
use crate::{
    hub::exported::EXPORTED_FILE,
    model::{TOKENIZER_FILE, WEIGHTS_FILE},
};

/// The branch where nothing else is asked for.
const MAIN: &str = "main";

/// Everything [`crate::model::ModelDir::import`] reads, but the weights.
const SMALL_FILES: [&str; 9] = [
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    TOKENIZER_FILE,
    "vocab.txt",
    EXPORTED_FILE,
    "README.md",
];
/// Weights in a form that we do not read.
const OTHER_WEIGHTS: [&str; 5] = [
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "model.onnx",
];

/// A model on a hub. Its parts are safe as parts of a path and of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `OWNER/NAME`; a few old models have no owner.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Repository {
    /// The name without the owner.
    pub fn name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }
}

impl FromStr for Repository {
    type Err = PullError;

    fn from_str(text: &str) -> Result<Self, PullError> {
        let (id, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let wrong = |reason| PullError::Name { text: text.to_owned(), reason };
        let part = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(plain)
                && !part.contains("..")
        };
        if id.split('/').count() > 2 || !id.split('/').all(part) {
            return Err(wrong("the name is one or two words of letters, digits, '.', '_' and '-'"));
        }
        if !revision.split('/').all(part) {
            return Err(wrong("the revision is no branch, tag or commit"));
        }
        Ok(Repository { id: id.to_owned(), revision: revision.to_owned() })
    }
}

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub path: String,
    /// SHA-256 of a file that is kept outside of git, such as weights.
    pub sha256: Option<String>,
    pub bytes: Option<u64>,
}

/// The files of a repository that are fetched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub small: Vec<Listed>,
    pub weights: Listed,
}

impl Wanted {
    /// Chooses from the hub's answer about a repository.
    ///
    /// # Errors
    /// [`PullError::NoFile`], [`PullError::NoSafetensors`].
    pub fn choose(repository: &Repository, siblings: &Value) -> Result<Self, PullError> {
        let all: Vec<Listed> = siblings.as_array().into_iter().flatten().filter_map(listed).collect();
        let no_file =
            |file: &str| PullError::NoFile { repository: repository.id.clone(), file: file.to_owned() };
        let small: Vec<Listed> =
            all.iter().filter(|file| is_wanted(&file.path, &SMALL_FILES)).cloned().collect();
        for (shown, needed) in
            [("config.json", &["config.json"][..]), (TOKENIZER_FILE, &[TOKENIZER_FILE, "vocab.txt"])]
        {
            if !small.iter().any(|file| is_wanted(&file.path, needed) && !is_pooling(&file.path)) {
                return Err(no_file(shown));
            }
        }
        if let Some(weights) = all.iter().find(|file| is_wanted(&file.path, &[WEIGHTS_FILE])) {
            return Ok(Wanted { small, weights: weights.clone() });
        }
        match all.iter().find(|file| is_wanted(&file.path, &OTHER_WEIGHTS)) {
            Some(other) => {
                Err(PullError::NoSafetensors { repository: repository.id.clone(), found: other.path.clone() })
            }
            None => Err(no_file(WEIGHTS_FILE)),
        }
    }
}

fn listed(value: &Value) -> Option<Listed> {
    Some(Listed {
        path: value["rfilename"].as_str()?.to_owned(),
        sha256: value.pointer("/lfs/sha256").and_then(Value::as_str).map(str::to_owned),
        bytes: value["size"].as_u64(),
    })
}

/// Whether it is one of `names`, at the top or in a folder of a sentence-transformers module (`1_Pooling`): other
/// folders hold the same model in other forms.
fn is_wanted(path: &str, names: &[&str]) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let module = folder.split_once('_').is_some_and(|(number, kind)| {
        number.parse::<u8>().is_ok() && kind.chars().all(|c| c.is_ascii_alphanumeric())
    });
    names.contains(&name) && (folder.is_empty() || module)
}

/// Its config is not the encoder's.
fn is_pooling(path: &str) -> bool {
    path.contains("_Pooling/") || path.contains("_Normalize/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_taken_apart() {
        let parse =
            |text: &str| text.parse::<Repository>().map(|r| (r.id, r.revision)).map_err(|e| e.to_string());
        let pair = |id: &str, revision: &str| Ok((id.to_owned(), revision.to_owned()));
        assert_eq!(parse("owner/na-me_1.5"), pair("owner/na-me_1.5", "main"));
        assert_eq!(parse("owner/name@refs/pr/1"), pair("owner/name", "refs/pr/1"));
        assert_eq!(parse("bert-base-uncased@v1"), pair("bert-base-uncased", "v1"));
        for text in
            ["", "a/b/c", "../b", "a/..", "a/b@", "a/b@../x", "a/b@x//y", "a b/c", "a/b?c", "/b", "a/b@/x"]
        {
            assert!(parse(text).unwrap_err().contains("OWNER/NAME@REVISION"), "{text}");
        }
    }

    #[test]
    fn only_the_files_of_the_model_are_wanted() {
        let names = [
            "config.json",
            "model.safetensors",
            "vocab.txt",
            "README.md",
            "1_Pooling/config.json",
            "modules.json",
            "onnx/model.onnx",
            "onnx/config.json",
            "openvino/model.safetensors",
            "../config.json",
            "train.py",
            "/etc/1_x/config.json",
            "1_a/../config.json",
        ];
        let siblings: Vec<Value> = names.iter().map(|name| json!({"rfilename": name})).collect();
        let repository = "a/b".parse().unwrap();
        let wanted = Wanted::choose(&repository, &Value::Array(siblings)).unwrap();
        let small: Vec<&str> = wanted.small.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(small, ["config.json", "vocab.txt", "README.md", "1_Pooling/config.json", "modules.json"]);
        assert_eq!(wanted.weights.path, "model.safetensors");
    }

    #[test]
    fn what_is_missing_is_said_before_anything_is_fetched() {
        let repository = "a/b".parse().unwrap();
        let refusal = |names: &[&str]| {
            let siblings = names.iter().map(|name| json!({"rfilename": name})).collect();
            Wanted::choose(&repository, &Value::Array(siblings)).unwrap_err().to_string()
        };
        assert!(
            refusal(&["1_Pooling/config.json", "vocab.txt", WEIGHTS_FILE]).contains("no file config.json")
        );
        assert!(refusal(&["config.json", WEIGHTS_FILE]).contains("no file tokenizer.json"));
        assert!(refusal(&["config.json", "vocab.txt"]).contains("no file model.safetensors"));
        let text = refusal(&["config.json", "vocab.txt", "pytorch_model.bin"]);
        assert!(text.contains("as pytorch_model.bin only") && text.contains("save_pretrained"), "{text}");
    }
}
