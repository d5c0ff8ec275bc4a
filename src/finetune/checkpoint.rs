//! A folder of checkpoints holds the state of a run; a killed run continues from it bit for bit.
//!
//! ```text
//! FOLDER/checkpoint-00000007/parameters.safetensors   as they are in memory: rows that are behind in decay stay behind
//!                            optimizer.safetensors    first.NAME, second.NAME, and of sparse ones levels.NAME, decayed.NAME
//!                            extra.safetensors        what else the run holds in tensors, such as a queue; may be empty
//!                            state.json               the rest; size and SHA-256 of the files above; the settings
//! ```
//!
//! Every file is written under a temporary name, fsynced and renamed, `state.json` last: a folder without it is the
//! remains of a process that died while it wrote, and the checkpoint before counts. The last two are kept.
//! Float64 numbers stand in `state.json` as texts, since the way through a JSON number may cost the last bit.
//! Left out: two processes that go on with one run at the same time.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    optimizer::{Moments, OptimizerState},
    parameters::{Parameter, Parameters},
};
use crate::{
    error::{ErrorKind, Fault},
    files,
    model::FileSum,
};

mod settings;
mod tensors;
fn damaged(path: &Path, reason: String) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests;

pub use settings::Change;
use tensors::{Tensor, Values};

/// Version of the files' layout.
const FORMAT: u32 = 1;
/// Checkpoints that stay.
const KEPT: usize = 2;
const PREFIX: &str = "checkpoint-";
const STATE_FILE: &str = "state.json";
const PARAMETERS_FILE: &str = "parameters.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const EXTRA_FILE: &str = "extra.safetensors";

/// The state of a run beside its tensors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Optimizer steps made.
    pub step: u64,
    /// Passes over the data that are over.
    pub epoch: u64,
    /// Batches of this pass that were used.
    pub batch: u64,
    /// Seed of masks, order and draws.
    pub seed: u64,
    /// The best of the evaluations so far.
    pub best: Option<Best>,
    /// Evaluations in a row that were not better than the best.
    pub without_gain: u64,
    /// Sums that a report is made of, such as losses since the last one.
    #[serde(with = "exact::map")]
    pub sums: BTreeMap<String, f64>,
}

/// The best evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Its dev score, 0 to 100.
    #[serde(with = "exact")]
    pub score: f64,
    /// The step after which it was made, from 1.
    pub step: u64,
}

/// Everything that a run continues from.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Step, random numbers and sums.
    pub state: RunState,
    /// The weights.
    pub parameters: Parameters,
    /// The optimizer's moments.
    pub optimizer: OptimizerState,
    /// Further tensors of the run.
    pub extra: Parameters,
}

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    format: u32,
    state: RunState,
    optimizer_steps: u64,
    files: BTreeMap<String, FileSum>,
    settings_sha256: String,
    settings: Value,
}

/// Writes one file whole.
type Put = fn(&Path, &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()>;

/// The checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    /// Tests put a full disk in its place.
    put: Put,
}

/// Why a run's state could not be saved or taken up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CheckpointError {
    #[error(
        "the disk is full: cannot write {}; make room and give the same command again, it goes on from the checkpoint before",
        path.display()
    )]
    DiskFull { path: PathBuf, source: io::Error },
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "checkpoint file {} is damaged: {reason}; delete its folder to go on from the checkpoint before",
        path.display()
    )]
    Damaged { path: PathBuf, reason: String },
    #[error("checkpoint {} has format {got}, this program reads {FORMAT}; go on with the version that wrote it", path.display())]
    Format { path: PathBuf, got: u32 },
    #[error(
        "the run in {} was begun with other settings:\n{}\ngive the old values to go on with it, or another folder (--run) to start again",
        folder.display(), settings::lines(changes)
    )]
    Settings { folder: PathBuf, changes: Vec<Change> },
}

impl CheckpointError {
    fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                CheckpointError::DiskFull { path, source }
            }
            _ => CheckpointError::Io { path, source },
        }
    }
}

impl Fault for CheckpointError {
    fn kind(&self) -> ErrorKind {
        match self {
            CheckpointError::DiskFull { .. } => ErrorKind::Overloaded,
            CheckpointError::Io { .. } => ErrorKind::Internal,
            CheckpointError::Damaged { .. } => ErrorKind::Corrupt,
            CheckpointError::Format { .. } | CheckpointError::Settings { .. } => ErrorKind::Precondition,
        }
    }
}

impl Checkpoints {
    /// Of the run whose checkpoints are in `folder`; it need not be there yet.
    pub fn new(folder: &Path) -> Self {
        Checkpoints { folder: folder.to_owned(), put: |path, write| files::write_whole_with(path, write) }
    }

    /// Saves a state as the newest checkpoint, then deletes all but the last two.
    ///
    /// `parameters` are taken as they are: do not [`flush`](super::optimizer::AdamW::flush) for it, that would change
    /// the bits of a run by when it is saved. Returns the checkpoint's folder.
    ///
    /// # Errors
    /// [`CheckpointError::DiskFull`], [`CheckpointError::Io`]; the checkpoints before stay.
    pub fn save(
        &self,
        settings: &impl Serialize,
        state: &RunState,
        parameters: &Parameters,
        optimizer: &OptimizerState,
        extra: &Parameters,
    ) -> Result<PathBuf, CheckpointError> {
        let number = self.folders()?.last().map_or(1, |(number, _)| number + 1);
        let path = self.folder.join(format!("{PREFIX}{number:08}"));
        let io = |source| CheckpointError::from_io(&path, source);
        fs::create_dir_all(&path).map_err(io)?;
        let written = self.write(&path, settings, state, [parameters, extra], optimizer);
        if let Err(error) = written {
            // Half a checkpoint is of no use, and the disk may be full.
            let _ = fs::remove_dir_all(&path);
            return Err(error);
        }
        files::sync_folder(&self.folder).map_err(io)?;
        self.delete_old()?;
        Ok(path)
    }

    fn write(
        &self,
        path: &Path,
        settings: &impl Serialize,
        state: &RunState,
        [parameters, extra]: [&Parameters; 2],
        optimizer: &OptimizerState,
    ) -> Result<(), CheckpointError> {
        let contents = [
            (PARAMETERS_FILE, tensors::of(parameters)),
            (OPTIMIZER_FILE, moments(parameters, optimizer)),
            (EXTRA_FILE, tensors::of(extra)),
        ];
        let mut sums = BTreeMap::new();
        for (name, tensors) in contents {
            let path = path.join(name);
            let io = |source| CheckpointError::from_io(&path, source);
            (self.put)(&path, &mut |file| tensors::write(file, &tensors)).map_err(io)?;
            sums.insert(name.to_owned(), FileSum::of_file(&path).map_err(io)?);
        }
        let path = path.join(STATE_FILE);
        let io = |source| CheckpointError::from_io(&path, source);
        let settings = serde_json::to_value(settings).map_err(|error| io(error.into()))?;
        let file = StateFile {
            format: FORMAT,
            state: state.clone(),
            optimizer_steps: optimizer.steps,
            files: sums,
            settings_sha256: settings::sum(&settings),
            settings,
        };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| io(error.into()))?;
        (self.put)(&path, &mut |file| file.write_all(&text)).map_err(io)
    }

    /// Whether a run with `settings` may go on from what is here: as [`Checkpoints::load`], without reading tensors.
    ///
    /// # Errors
    /// Those of [`Checkpoints::load`], but what is wrong with the tensors' files.
    pub fn check(&self, settings: &impl Serialize, free: &[&str]) -> Result<(), CheckpointError> {
        self.state(settings, free)?;
        Ok(())
    }

    /// Reads the newest checkpoint that was written to its end; none if there is no such.
    ///
    /// `free` are the keys (`section.name`) in which `settings` may differ from those that the run began with.
    ///
    /// # Errors
    /// [`CheckpointError::Settings`] with every setting that differs, [`CheckpointError::Damaged`] naming the file,
    /// [`CheckpointError::Format`], [`CheckpointError::Io`].
    pub fn load(
        &self,
        settings: &impl Serialize,
        free: &[&str],
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        let Some((path, file)) = self.state(settings, free)? else { return Ok(None) };
        let state_path = path.join(STATE_FILE);
        let read = |name: &str| -> Result<Vec<Tensor<'static>>, CheckpointError> {
            let path = path.join(name);
            let expected = file.files.get(name).ok_or_else(|| CheckpointError::Damaged {
                path: state_path.clone(),
                reason: format!("it does not name {name}"),
            })?;
            let bytes = fs::read(&path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => damaged(&path, "it is missing".to_owned()),
                _ => CheckpointError::from_io(&path, source),
            })?;
            let got = FileSum::of_bytes(&bytes);
            if got.bytes != expected.bytes {
                let reason = format!("it has {} bytes, expected {}", got.bytes, expected.bytes);
                return Err(damaged(&path, reason));
            }
            if got != *expected {
                let reason = format!("its sha256 is {}, expected {}", got.sha256, expected.sha256);
                return Err(damaged(&path, reason));
            }
            tensors::read(&bytes).map_err(|reason| damaged(&path, reason))
        };
        let parameters = tensors::parameters(read(PARAMETERS_FILE)?);
        let moments = take_moments(&parameters, read(OPTIMIZER_FILE)?);
        Ok(Some(Checkpoint {
            state: file.state,
            parameters,
            optimizer: OptimizerState { steps: file.optimizer_steps, moments },
            extra: tensors::parameters(read(EXTRA_FILE)?),
        }))
    }

    /// Folder and state of the newest checkpoint that was written to its end, its settings compared.
    fn state(
        &self,
        settings: &impl Serialize,
        free: &[&str],
    ) -> Result<Option<(PathBuf, StateFile)>, CheckpointError> {
        let Some((_, path)) = self.folders()?.into_iter().rev().find(|(_, path)| is_complete(path)) else {
            return Ok(None);
        };
        let state_path = path.join(STATE_FILE);
        let text = fs::read(&state_path).map_err(|source| CheckpointError::from_io(&state_path, source))?;
        let value: Value =
            serde_json::from_slice(&text).map_err(|error| damaged(&state_path, error.to_string()))?;
        // Another format may have other fields: it is told before they are looked at.
        let format = value["format"].as_u64().and_then(|format| u32::try_from(format).ok());
        if let Some(got) = format.filter(|&format| format != FORMAT) {
            return Err(CheckpointError::Format { path, got });
        }
        let file: StateFile =
            serde_json::from_value(value).map_err(|error| damaged(&state_path, error.to_string()))?;
        if settings::sum(&file.settings) != file.settings_sha256 {
            return Err(damaged(
                &state_path,
                "its settings are not those that it was written with".to_owned(),
            ));
        }
        let settings = serde_json::to_value(settings)
            .map_err(|error| CheckpointError::from_io(&state_path, error.into()))?;
        let changes = settings::changes(&file.settings, &settings, free);
        if !changes.is_empty() {
            return Err(CheckpointError::Settings { folder: self.folder.clone(), changes });
        }
        Ok(Some((path, file)))
    }

    /// Number and path of every checkpoint, torn ones too, oldest first.
    fn folders(&self) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
        let io = |source| CheckpointError::from_io(&self.folder, source);
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
            found.extend(number.map(|number| (number, entry.path())));
        }
        found.sort();
        Ok(found)
    }

    /// Keeps the last complete ones; torn ones go.
    fn delete_old(&self) -> Result<(), CheckpointError> {
        let mut complete = 0;
        for (_, path) in self.folders()?.into_iter().rev() {
            if is_complete(&path) {
                complete += 1;
                if complete <= KEPT {
                    continue;
                }
            }
            let io = |source| CheckpointError::from_io(&path, source);
            // First what makes it count: one that is half deleted must not.
            match fs::remove_file(path.join(STATE_FILE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
                _ => fs::remove_dir_all(&path).map_err(io)?,
            }
        }
        Ok(())
    }
}

fn is_complete(path: &Path) -> bool {
    path.join(STATE_FILE).is_file()
}

/// Writes an optimizer's moments as tensors; nothing for frozen parameters.
fn moments<'a>(parameters: &'a Parameters, optimizer: &'a OptimizerState) -> Vec<Tensor<'a>> {
    let mut all = Vec::new();
    for (Parameter { name, shape, .. }, moments) in parameters.list.iter().zip(&optimizer.moments) {
        let mut push = |kind: &str, shape: Vec<usize>, values| {
            all.push(Tensor { name: format!("{kind}.{name}"), shape, values });
        };
        if !moments.first.is_empty() {
            push("first", shape.clone(), Values::Single((&moments.first).into()));
            push("second", shape.clone(), Values::Single((&moments.second).into()));
        }
        if !moments.levels.is_empty() {
            push("levels", vec![moments.levels.len()], Values::Double((&moments.levels).into()));
            push("decayed", vec![1], Values::Double(vec![moments.decayed].into()));
        }
    }
    all
}

/// The way back. Lengths are checked where the optimizer takes the state up.
fn take_moments(parameters: &Parameters, tensors: Vec<Tensor<'static>>) -> Vec<Moments> {
    let mut tensors: BTreeMap<String, Values> =
        tensors.into_iter().map(|tensor| (tensor.name, tensor.values)).collect();
    let mut single = |key: String| match tensors.remove(&key) {
        Some(Values::Single(values)) => (values.into_owned(), Vec::new()),
        Some(Values::Double(values)) => (Vec::new(), values.into_owned()),
        None => (Vec::new(), Vec::new()),
    };
    parameters
        .list
        .iter()
        .map(|Parameter { name, .. }| Moments {
            first: single(format!("first.{name}")).0,
            second: single(format!("second.{name}")).0,
            levels: single(format!("levels.{name}")).1,
            decayed: single(format!("decayed.{name}")).1.first().copied().unwrap_or(1.0),
        })
        .collect()
}

/// Float64 as text, which Rust writes and reads without loss.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }

    pub mod map {
        use std::collections::BTreeMap;

        use serde::{Deserialize, Deserializer, Serializer, de::Error};

        pub fn serialize<S: Serializer>(map: &BTreeMap<String, f64>, to: S) -> Result<S::Ok, S::Error> {
            to.collect_map(map.iter().map(|(name, value)| (name, value.to_string())))
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
            let texts = BTreeMap::<String, String>::deserialize(from)?;
            let numbers = texts.into_iter().map(|(name, text)| Ok((name, text.parse()?)));
            numbers.collect::<Result<_, std::num::ParseFloatError>>().map_err(D::Error::custom)
        }
    }
}
