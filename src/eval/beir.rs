//! Reads a judged collection in BEIR layout: a corpus, queries, and judgements (Thakur et al. 2021, arXiv 2104.08663).
//!
//! `corpus.jsonl`, `queries.jsonl`, and `qrels.tsv` or `qrels/test.tsv`; each may be packed, with `.gz` or `.zst` behind
//! its name. The layout is BEIR's, so its fields are not looked for under other names, as those of documents are.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    EvalError, check_there,
    measures::Judgements,
    rows::{Rows, json_lines},
};

/// One document of a corpus.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CorpusDocument {
    /// The document's id.
    #[serde(rename = "_id")]
    pub id: String,
    /// The title. Default: empty.
    #[serde(default)]
    pub title: String,
    /// The text.
    pub text: String,
}

/// A judged collection.
#[derive(Debug, Clone)]
pub struct JudgedCollection {
    /// Name of the set: its folder's.
    pub name: String,
    /// All documents.
    pub corpus: Vec<CorpusDocument>,
    /// Queries with at least one relevant judgement: id, text, judgements; by id.
    pub queries: Vec<(String, String, Judgements)>,
}

#[derive(Deserialize)]
struct QueryLine {
    #[serde(rename = "_id")]
    id: String,
    text: String,
}

/// Reads `dir`; `split` names another pair of files: `train` reads `queries-train.jsonl` and `qrels-train.tsv`.
///
/// # Errors
/// [`EvalError`] naming file and line.
pub fn load(dir: &Path, split: Option<&str>) -> Result<JudgedCollection, EvalError> {
    let suffix = split.map(|s| format!("-{s}")).unwrap_or_default();
    let corpus = documents(&corpus_path(dir)?)?;
    let queries_path = first_existing(dir, &[format!("queries{suffix}.jsonl"), "queries.jsonl".into()])?;
    let queries = json_lines::<QueryLine>(&queries_path)?;
    let split = split.unwrap_or("test");
    let qrels_path = first_existing(dir, &[format!("qrels{suffix}.tsv"), format!("qrels/{split}.tsv")])?;
    let mut judged = qrels(&qrels_path)?;
    let queries = queries
        .into_iter()
        .filter_map(|q| {
            let judgements = judged.remove(&q.id).filter(|j| j.values().any(|g| *g > 0.0))?;
            Some((q.id, q.text, judgements))
        })
        .collect::<Vec<_>>();
    if queries.is_empty() {
        return Err(EvalError::Folder {
            path: dir.to_owned(),
            reason: "no query has a relevant judgement".into(),
        });
    }
    let name =
        dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned());
    Ok(JudgedCollection { name, corpus, queries })
}

/// The file of a folder's documents.
///
/// # Errors
/// [`EvalError::Folder`] if there is none.
pub fn corpus_path(dir: &Path) -> Result<PathBuf, EvalError> {
    first_existing(dir, &["corpus.jsonl".into()])
}

/// The documents of a corpus file, without queries or judgements.
///
/// # Errors
/// [`EvalError`] naming file and line.
pub fn documents(corpus: &Path) -> Result<Vec<CorpusDocument>, EvalError> {
    json_lines(corpus)
}

/// Texts of all queries of `queries.jsonl`, judged or not.
///
/// # Errors
/// [`EvalError`] naming file and line.
pub fn queries(dir: &Path) -> Result<Vec<String>, EvalError> {
    let path = first_existing(dir, &["queries.jsonl".into()])?;
    Ok(json_lines::<QueryLine>(&path)?.into_iter().map(|q| q.text).collect())
}

fn first_existing(dir: &Path, names: &[String]) -> Result<PathBuf, EvalError> {
    check_there(dir)?;
    let packed = |name: &String| ["", ".gz", ".zst"].map(|ending| dir.join(format!("{name}{ending}")));
    names.iter().flat_map(packed).find(|p| p.exists()).ok_or_else(|| EvalError::Folder {
        path: dir.to_owned(),
        reason: format!(
            "it has none of {} (or packed: .gz, .zst); a folder in BEIR layout is needed",
            names.join(", ")
        ),
    })
}

fn qrels(path: &Path) -> Result<BTreeMap<String, Judgements>, EvalError> {
    let mut judged: BTreeMap<String, Judgements> = BTreeMap::new();
    // The first row is the header.
    for row in Rows::open(path)?.skip(1) {
        let (number, line) = row?;
        let mut fields = line.split('\t');
        let row = (fields.next(), fields.next(), fields.next().map(|s| s.trim().parse::<f64>()));
        let (Some(query), Some(document), Some(Ok(gain))) = row else {
            let reason = "expected query-id, corpus-id and a number, separated by tabs".to_owned();
            return Err(EvalError::Line { path: path.to_owned(), line: number, reason });
        };
        judged.entry(query.to_owned()).or_default().insert(document.to_owned(), gain);
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(qrels: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("corpus.jsonl"),
            "{\"_id\":\"1\",\"text\":\"a\"}\n\n{\"_id\":\"2\",\"title\":\"t\",\"text\":\"b\"}\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("queries.jsonl"),
            "{\"_id\":\"q\",\"text\":\"?\"}\n{\"_id\":\"r\",\"text\":\"!\"}\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("qrels.tsv"), qrels).unwrap();
        dir
    }

    #[test]
    fn reads_the_layout_and_leaves_out_queries_without_a_relevant_document() {
        let dir = folder("query-id\tcorpus-id\tscore\nq\t2\t1\nr\t1\t0\n");
        let set = load(dir.path(), None).unwrap();
        assert_eq!(set.corpus.len(), 2);
        assert_eq!(set.queries.len(), 1);
        assert_eq!(set.queries[0].2["2"], 1.0);
    }

    #[test]
    fn every_file_may_be_packed() {
        let dir = folder("query-id\tcorpus-id\tscore\nq\t2\t1\n");
        for name in ["corpus.jsonl", "queries.jsonl", "qrels.tsv"] {
            let plain = dir.path().join(name);
            let packed = zstd::encode_all(&*std::fs::read(&plain).unwrap(), 1).unwrap();
            std::fs::write(dir.path().join(format!("{name}.zst")), packed).unwrap();
            std::fs::remove_file(plain).unwrap();
        }
        let set = load(dir.path(), None).unwrap();
        assert_eq!((set.corpus.len(), set.queries.len()), (2, 1));
        assert_eq!(queries(dir.path()).unwrap(), ["?", "!"]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let dir = folder("query-id\tcorpus-id\tscore\nq\t2\tyes\n");
        let error = load(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("qrels.tsv, line 2"), "{error}");
        std::fs::write(dir.path().join("corpus.jsonl"), "{\"_id\":1}\n").unwrap();
        let error = load(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("corpus.jsonl, line 1"), "{error}");
    }

    #[test]
    fn a_folder_of_another_kind_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path(), None).unwrap_err().to_string().contains("BEIR"));
    }
}
