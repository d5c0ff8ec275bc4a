//! The doctor's survey: what is installed, what is chosen and why, and what is missing with the command that repairs
//! it.
//!
//! Promises: changes nothing but a probe file that it removes again; a broken part is a finding, not an end.
//! Leaves out: the server, which reports its own health.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::{Serialize, Serializer};

use super::{
    machine::Machine,
    pins::{Pins, Role},
};
use crate::{
    config::{Config, FINDINGS_FILE, NO_MODEL},
    encoder::{Encoder, TextKind},
    error::with_sources,
    files::regular,
    model::{ModelDir, ModelError},
    runtime,
};

/// Encoded to prove that model and runtime work together.
const SENTENCE: &str = "The quick brown fox jumps over the lazy dog.";

/// All that the doctor finds.
#[derive(Debug, Clone, Serialize)]
pub struct Survey {
    /// Version of this program.
    pub version: &'static str,
    /// Processor and memory.
    pub machine: Machine,
    /// The home folder, with runtime libraries and models.
    pub home: PathBuf,
    /// The data folder.
    pub data: Data,
    /// ONNX Runtime and its providers.
    pub runtime: Runtime,
    /// The models under the home folder.
    pub models: Vec<Model>,
    /// The configured model's trial; `None` if no model is configured, or if it does not work and a finding
    /// says why.
    pub encoder: Option<Trial>,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
}

impl Survey {
    /// Looks at the machine, the home and the data folder, and tries the configured model. Takes seconds.
    pub fn take(config: &Config) -> Self {
        let mut findings = Vec::new();
        let machine = Machine::look();
        let home = config.data.home.clone();
        let data = look_at_data(&config.data.dir, &mut findings);
        let runtime = look_at_runtime(&home, &machine, &mut findings);
        let models = look_at_models(&home, &mut findings);
        let model = find_model(config, &mut findings);
        // Without the library the trial could only repeat that it is missing.
        let model = model.filter(|_| runtime.library.is_ok());
        let encoder = model.and_then(|dir| try_model(&dir, config, &mut findings));
        findings.sort_by_key(|f| f.severity);
        Survey { version: env!("CARGO_PKG_VERSION"), machine, home, data, runtime, models, encoder, findings }
    }

    /// Is everything there that serving needs?
    pub fn healthy(&self) -> bool {
        self.findings.iter().all(|f| f.severity != Severity::Missing)
    }
}

/// The data folder.
#[derive(Debug, Clone, Serialize)]
pub struct Data {
    /// The folder.
    pub path: PathBuf,
    /// Whether it exists.
    pub exists: bool,
    /// Whether files can be made in it, or the folder itself can be made.
    pub writable: bool,
    /// The process that has it open, if one does.
    pub locked_by: Option<String>,
}

/// ONNX Runtime and its providers.
#[derive(Debug, Clone, Serialize)]
pub struct Runtime {
    /// Path of ONNX Runtime's library, or why it cannot be loaded.
    #[serde(serialize_with = "outcome")]
    pub library: Result<PathBuf, String>,
    /// Version of ONNX Runtime; `None` where the library cannot be loaded.
    pub version: Option<String>,
    /// Path of Intel's provider, or why it cannot be used.
    #[serde(serialize_with = "outcome")]
    pub openvino: Result<PathBuf, String>,
    /// A sentence saying that the CUDA provider loads, or why it cannot be used.
    #[serde(serialize_with = "outcome")]
    pub cuda: Result<String, String>,
}

/// `{"ok": …}` or `{"error": …}`.
fn outcome<T: Serialize, S: Serializer>(result: &Result<T, String>, to: S) -> Result<S::Ok, S::Error> {
    match result {
        Ok(value) => to.collect_map([("ok", value)]),
        Err(reason) => to.collect_map([("error", reason)]),
    }
}

/// A model under the home folder.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// Name of the model.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Values of one vector.
    pub dimension: u32,
    /// Longest text in tokens, special tokens included.
    pub max_tokens: usize,
    /// Licence of the weights.
    pub licence: String,
    /// Identifies the vectors that it makes, in hex.
    pub fingerprint: String,
}

/// The configured model, tried on one sentence.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// Name of the model.
    pub model: String,
    /// The device as configured.
    pub asked: String,
    /// The device that it ran on.
    pub device: String,
    /// Why that device was chosen.
    pub reason: String,
    /// Values of the vector.
    pub dimension: usize,
    /// Tokens of the sentence, special tokens included.
    pub tokens: u32,
    /// Time to load the model, in seconds.
    pub load_seconds: f64,
    /// Time of the second of two calls, in seconds; the first one warms up.
    pub encode_seconds: f64,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Serving does not work without it.
    Missing,
    /// Serving works, but not as well as it could or not as a user may expect.
    Warning,
}

/// A problem that the doctor found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The problem, as a sentence.
    pub what: String,
    /// The command or action that repairs it; `None` where there is none.
    pub repair: Option<String>,
}

fn look_at_runtime(home: &Path, machine: &Machine, findings: &mut Vec<Finding>) -> Runtime {
    let report = runtime::inspect(home);
    let runtime = Runtime {
        library: report.library,
        version: report.version,
        openvino: report.openvino,
        cuda: report.cuda,
    };
    if let Err(reason) = &runtime.library {
        let repair = "distilface setup (or point ORT_DYLIB_PATH at a libonnxruntime)";
        findings.push(missing(reason.clone(), repair));
    } else if let Err(reason) = &runtime.openvino {
        let installed = Pins::embedded().folder(Role::Openvino).is_some_and(|f| home.join(f).is_dir());
        findings.extend(openvino_finding(machine, installed, reason));
    }
    runtime
}

/// Intel's provider is worth a word only where it exists, and where it would run.
fn openvino_finding(machine: &Machine, installed: bool, reason: &str) -> Option<Finding> {
    let exists = machine.system == "linux" && machine.architecture == "x86_64";
    // It takes processors of its maker only, so elsewhere there is nothing to repair.
    let intel = machine.processor.as_ref().is_some_and(|name| name.contains("Intel"));
    if !exists || !intel {
        return None;
    }
    let gain = if machine.has("amx") { "encoding is several times slower" } else { "encoding may be slower" };
    let command = if installed { "distilface setup --only openvino --verify" } else { "distilface setup" };
    Some(Finding {
        severity: Severity::Warning,
        what: format!("Intel's provider cannot be used, {gain} without it: {reason}"),
        repair: Some(command.to_owned()),
    })
}

fn look_at_models(home: &Path, findings: &mut Vec<Finding>) -> Vec<Model> {
    let mut models = Vec::new();
    for found in ModelDir::list(home) {
        match found {
            Ok(dir) => models.push(Model {
                name: dir.manifest.name,
                path: dir.path,
                dimension: dir.manifest.dimension,
                max_tokens: dir.manifest.max_tokens,
                licence: dir.manifest.licence,
                fingerprint: dir.fingerprint.0,
            }),
            Err(e) => findings.push(Finding {
                severity: Severity::Warning,
                what: format!("a model is broken: {}", with_sources(&e)),
                repair: None,
            }),
        }
    }
    models
}

fn find_model(config: &Config, findings: &mut Vec<Finding>) -> Option<ModelDir> {
    if config.encoder.model == NO_MODEL {
        return None;
    }
    let error = match ModelDir::find(&config.data.home, &config.encoder.model) {
        Ok(dir) => return Some(dir),
        Err(error) => error,
    };
    let repair = match error {
        ModelError::NotFound { .. } => "distilface setup",
        _ => "distilface setup --force --only model, or import the model again",
    };
    findings.push(missing(with_sources(&error), repair));
    None
}

fn try_model(dir: &ModelDir, config: &Config, findings: &mut Vec<Finding>) -> Option<Trial> {
    let fail = |findings: &mut Vec<Finding>, e: &dyn std::error::Error| {
        let repair = "distilface setup --verify, or another encoder.device";
        findings.push(missing(format!("the model {}: {}", config.encoder.model, with_sources(e)), repair));
    };
    let started = Instant::now();
    let encoder = match Encoder::open(dir, &config.data.home, &config.encoder) {
        Ok(encoder) => encoder,
        Err(e) => {
            fail(findings, &e);
            return None;
        }
    };
    let load_seconds = started.elapsed().as_secs_f64();
    let encode = || {
        let started = Instant::now();
        let embeddings = encoder.encode(&[SENTENCE], TextKind::Raw)?;
        Ok::<_, crate::encoder::EncoderError>((embeddings, started.elapsed().as_secs_f64()))
    };
    match encode().and_then(|_| encode()) {
        Ok((embeddings, encode_seconds)) => {
            let embedding = embeddings.into_iter().next()?;
            let report = encoder.device();
            Some(Trial {
                model: encoder.name().to_owned(),
                asked: config.encoder.device.clone(),
                device: report.device.clone(),
                reason: report.reason.clone(),
                dimension: embedding.values.len(),
                tokens: embedding.tokens,
                load_seconds,
                encode_seconds,
            })
        }
        Err(e) => {
            fail(findings, &e);
            None
        }
    }
}

fn look_at_data(path: &Path, findings: &mut Vec<Finding>) -> Data {
    // A folder that does not exist yet is made on the first start, if the nearest one above it lets us.
    let nearest = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
    let probe = nearest.join(format!(".distilface-doctor-{}", std::process::id()));
    let written = File::create_new(&probe);
    let writable = written.is_ok();
    // The probe is empty and ours; that it stays is the only harm if this fails.
    let _ = std::fs::remove_file(&probe);
    if let Err(e) = written {
        findings.push(missing(
            format!("the data folder {} cannot be written: {e}", path.display()),
            "correct its permissions, or choose another with --data or data.dir",
        ));
    }
    findings.extend(found_at_the_last_start(path));
    Data { path: path.to_owned(), exists: path.is_dir(), writable, locked_by: locked_by(path) }
}

/// What the engine recorded when it last opened the data folder, such as damaged collections.
fn found_at_the_last_start(data: &Path) -> Vec<Finding> {
    let text = regular::read_text(&data.join(FINDINGS_FILE)).unwrap_or_default();
    let finding = |line: &str| {
        let (what, remedy) = line.split_once('\t')?;
        let what = format!("found when the data folder was last opened: {what}");
        Some(Finding { severity: Severity::Warning, what, repair: Some(remedy.to_owned()) })
    };
    text.lines().filter_map(finding).collect()
}

fn missing(what: String, repair: &str) -> Finding {
    Finding { severity: Severity::Missing, what, repair: Some(repair.to_owned()) }
}

/// The holder that `store` notes in its lock file. The probe holds a shared lock for an instant.
fn locked_by(data: &Path) -> Option<String> {
    let path = data.join("LOCK");
    let file = regular::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(std::fs::TryLockError::WouldBlock) => {
            let holder = regular::read_text(&path).unwrap_or_default();
            Some(match holder.trim() {
                "" => "another process".to_owned(),
                number => format!("process {number}"),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_in(folder: &Path) -> Config {
        let mut config = Config::default();
        config.data.home = folder.join("home");
        config.data.dir = folder.join("home/db");
        config
    }

    #[test]
    fn an_empty_home_is_told_with_the_command_that_fills_it() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Survey::take(&config_in(folder.path()));
        assert!(!seen.healthy());
        assert!(seen.models.is_empty() && seen.encoder.is_none());
        assert!(seen.data.writable && !seen.data.exists);
        // Another library may be named by the environment of the test run; the model is missing in any case.
        let repairs: Vec<&str> = seen.findings.iter().filter_map(|f| f.repair.as_deref()).collect();
        assert!(repairs.contains(&"distilface setup"), "{:?}", seen.findings);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "looking changes nothing");
    }

    #[test]
    fn a_provider_is_missed_only_where_it_would_run() {
        let machine = |system: &str, architecture: &str, processor: &str| Machine {
            system: system.into(),
            architecture: architecture.into(),
            processor: Some(processor.into()),
            ..Machine::look()
        };
        let xeon = machine("linux", "x86_64", "Intel(R) Xeon(R)");
        let absent = openvino_finding(&xeon, false, "no file").unwrap();
        assert_eq!(
            (absent.severity, absent.repair.as_deref()),
            (Severity::Warning, Some("distilface setup"))
        );
        assert!(absent.what.contains("no file"), "{}", absent.what);
        let broken = openvino_finding(&xeon, true, "cut short").unwrap();
        assert!(broken.repair.unwrap().contains("--verify"));
        for elsewhere in [machine("linux", "x86_64", "AMD EPYC"), machine("macos", "aarch64", "Apple M4")] {
            assert!(openvino_finding(&elsewhere, false, "no file").is_none());
        }
    }

    #[test]
    fn a_data_folder_that_cannot_be_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut findings = Vec::new();
        let data = look_at_data(&file.join("db"), &mut findings);
        assert!(!data.writable);
        assert!(findings[0].what.contains("cannot be written"), "{findings:?}");
        assert!(findings[0].repair.as_deref().unwrap().contains("--data"), "{findings:?}");
    }

    #[test]
    fn what_the_last_start_found_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FINDINGS_FILE), "collection \"a\" is not served: x\tput it back\n")
            .unwrap();
        let mut findings = Vec::new();
        look_at_data(folder.path(), &mut findings);
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert!(finding.what.contains("collection \"a\" is not served"), "{finding:?}");
        assert_eq!(finding.repair.as_deref(), Some("put it back"));
    }

    #[test]
    fn the_holder_of_the_data_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(locked_by(folder.path()), None);
        let path = folder.path().join("LOCK");
        std::fs::write(&path, "4711\n").unwrap();
        assert_eq!(locked_by(folder.path()), None, "a file left behind means nothing");
        let held = File::open(&path).unwrap();
        held.lock().unwrap();
        assert_eq!(locked_by(folder.path()).as_deref(), Some("process 4711"));
    }
}
