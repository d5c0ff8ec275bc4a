//! A program that encodes the same texts, waiting while we do (`benches/peers/encode.py`).

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value as Json, json};

use super::{Load, QUERIES, Way};
use crate::{
    bench::{BenchError, Result, requests::SHORT},
    model::ModelDir,
};

/// The program while it runs.
pub(super) struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The ways it has.
    pub(super) modes: Vec<String>,
    folder: PathBuf,
}

fn failed(reason: impl Into<String>) -> BenchError {
    BenchError::Peer { reason: reason.into() }
}

impl Peer {
    /// Starts it on a model, which is exported into `folder` for it.
    pub(super) fn start(
        (python, script): &(PathBuf, PathBuf),
        model: &ModelDir,
        threads: usize,
        folder: &Path,
    ) -> Result<Self> {
        let exported = folder.join("model");
        model.export(&exported, false)?;
        let mut child = Command::new(python)
            .arg(script)
            .arg(&exported)
            .args(["--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(format!("{} cannot be started: {e}", python.display())))?;
        let requests = child.stdin.take().ok_or_else(|| failed("it has no input"))?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(|| failed("it has no output"))?);
        let mut peer = Peer { child, requests, answers, modes: Vec::new(), folder: folder.to_owned() };
        peer.modes = serde_json::from_value(peer.answer()?).map_err(|e| not_understood(&e))?;
        Ok(peer)
    }

    fn answer(&mut self) -> Result<Json> {
        let mut line = String::new();
        if self.answers.read_line(&mut line).map_err(|e| failed(e.to_string()))? == 0 {
            return Err(failed("it ended; what it wrote stands above"));
        }
        serde_json::from_str(&line).map_err(|e| not_understood(&e))
    }

    fn ask(&mut self, request: &Json) -> Result<Json> {
        let sent = writeln!(self.requests, "{request}").and_then(|()| self.requests.flush());
        sent.map_err(|e| failed(e.to_string()))?;
        self.answer()
    }

    /// One round over every load.
    pub(super) fn round(&mut self, way: &mut Way, loads: &[Load]) -> Result<String> {
        let mut told = String::new();
        for (n, load) in loads.iter().enumerate() {
            let file = self.folder.join(format!("{n}.json"));
            if !file.exists() {
                let texts = serde_json::to_vec(&load.texts).map_err(|e| failed(e.to_string()))?;
                let write = |source| BenchError::Write { path: file.clone(), source };
                std::fs::write(&file, texts).map_err(write)?;
            }
            let answer = self.ask(&json!({ "mode": way.name, "texts": file }))?;
            let seconds = answer["seconds"].as_f64().ok_or_else(|| failed("it told no seconds"))?;
            way.rounds[n].push(load.texts.len() as f64 / seconds);
            way.cosine_mean = way.cosine_mean.min(answer["cosine_mean"].as_f64().unwrap_or(0.0));
            way.cosine_min = way.cosine_min.min(answer["cosine_min"].as_f64().unwrap_or(0.0));
            // Writing to a String cannot fail.
            let _ = write!(told, " {} {:.1}/s", load.name, load.texts.len() as f64 / seconds);
        }
        Ok(told)
    }

    /// Median time of one query after another, in milliseconds.
    pub(super) fn query(&mut self, mode: &str) -> Result<f64> {
        let answer = self.ask(&json!({ "mode": mode, "query": SHORT, "times": QUERIES }))?;
        answer["p50_ms"].as_f64().ok_or_else(|| failed("it told no time"))
    }
}

fn not_understood(error: &serde_json::Error) -> BenchError {
    failed(format!("its answer is not understood: {error}"))
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It would wait for requests for ever; that it is gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
