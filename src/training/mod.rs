//! Training jobs: a recipe, a base model and texts become a new model directory, or a comparison of settings.
//!
//! A job computes on a pool of its own in the background ([`threads::training`](crate::threads)), so that a server that
//! trains answers as before; its caller waits.
//!
//! A job is plain data. Its caller gives it the documents of collections ([`Records`]), listens to what happens
//! ([`Progress`]) and says when to stop; the job answers with a report as plain data. Nothing here prints, reads
//! arguments or knows the wire, so that the command line and a server start the same job.
//!
//! | file | job |
//! |---|---|
//! | [`mod@prepare`] | models opened; data read, guarded and counted |
//! | [`mod@job`] | one recipe, a run for each seed, and a model of the best of them |
//! | [`mod@sweep`] | runs over combinations of settings, compared |
//! | [`mod@evaluate`] | a model on a judged collection, through the whole engine |
//!
//! The runs themselves (steps, checkpoints, evaluations) are [`finetune`](crate::finetune)'s.

pub mod evaluate;
pub mod job;
pub mod prepare;
pub mod sweep;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::{
    encoder::OpenError,
    engine::EngineError,
    error::{ErrorKind, Fault},
    eval::EvalError,
    finetune::{
        FinetuneError,
        data::{
            DataError,
            documents::SourceDocument,
            source::{COLLECTION_MARK, Origin},
        },
        recipe::RecipeError,
        run,
    },
    model::ModelError,
    runtime::RuntimeError,
    threads::ThreadsError,
};

pub use evaluate::RetrievalOptions;
pub use job::{Job, NewModel, Outcome, Report};
pub use prepare::{Options, Prepared};
pub use sweep::{Sweep, SweepOutcome, SweepReport};

/// The database whose collections a recipe may name as training data.
pub trait Records: Send {
    /// What it is called in messages, such as "the data folder".
    fn database(&self) -> String;

    /// Whether it has a collection of this name. No, where there is no database or it cannot be asked.
    fn has_collection(&mut self, name: &str) -> bool;

    /// All documents of a collection, each with its text whole or in passages.
    ///
    /// # Errors
    /// Why it cannot be read, as a sentence.
    fn documents(&mut self, collection: &str) -> Result<Vec<SourceDocument>, String>;
}

/// What happens in a job, in the order in which it happens.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A source whose name does not say what it is, is taken for this.
    Source {
        /// As it stands in the recipe.
        from: &'a str,
        /// The name that a collection has or would have.
        name: &'a str,
        /// What the source is taken for.
        origin: Origin,
    },
    /// The training data is read from here on, which may take long.
    Reading,
    /// A combination of a sweep comes next.
    Combination {
        /// From 1.
        number: usize,
        /// All combinations, those with a known result among them.
        total: usize,
        /// Its settings, such as "pooling cls, temperature 0.05".
        settings: &'a str,
    },
    /// A run begins, or goes on.
    RunBegan {
        /// Seed of the run.
        seed: u64,
    },
    /// Something happened in the run that began last.
    Run(run::Event),
    /// The run that began last has ended, whichever way.
    RunEnded,
}

/// Hears what happens in a job. It is called on a thread that computes, so it must not wait.
pub trait Progress: Send {
    /// Something happened.
    fn event(&mut self, event: Event<'_>);
}

/// Why a job could not begin, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TrainingError {
    #[error("{from} is a {} here and a collection of {database}: say ./{from} or {COLLECTION_MARK}{from}", if *origin == Origin::Folder { "folder" } else { "file" })]
    Ambiguous { from: String, origin: Origin, database: String },
    #[error("a sweep compares dev scores, and the recipe names no dev set")]
    NoDevSet,
    #[error("making the folder {}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Toml(#[from] toml::ser::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Finetune(#[from] FinetuneError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Eval(#[from] EvalError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Threads(#[from] ThreadsError),
}

impl From<DataError> for TrainingError {
    fn from(error: DataError) -> Self {
        FinetuneError::from(error).into()
    }
}

impl From<RecipeError> for TrainingError {
    fn from(error: RecipeError) -> Self {
        FinetuneError::from(error).into()
    }
}

impl Fault for TrainingError {
    fn kind(&self) -> ErrorKind {
        match self {
            TrainingError::Ambiguous { .. } | TrainingError::NoDevSet => ErrorKind::Invalid,
            TrainingError::Folder { .. } | TrainingError::Write { .. } => ErrorKind::Internal,
            // Only a path that is not UTF-8 cannot be written so.
            TrainingError::Toml(_) | TrainingError::Json(_) => ErrorKind::Precondition,
            TrainingError::Finetune(e) => e.kind(),
            TrainingError::Engine(e) => e.kind(),
            TrainingError::Eval(e) => e.kind(),
            TrainingError::Model(e) => e.kind(),
            TrainingError::Open(e) => e.kind(),
            TrainingError::Runtime(e) => e.kind(),
            TrainingError::Threads(e) => e.kind(),
        }
    }

    fn inner(&self) -> Option<&dyn Fault> {
        match self {
            TrainingError::Finetune(e) => Some(e),
            TrainingError::Engine(e) => Some(e),
            TrainingError::Eval(e) => Some(e),
            TrainingError::Model(e) => Some(e),
            TrainingError::Open(e) => Some(e),
            TrainingError::Runtime(e) => Some(e),
            TrainingError::Threads(e) => Some(e),
            _ => None,
        }
    }
}

fn make_folder(path: &Path) -> Result<(), TrainingError> {
    std::fs::create_dir_all(path).map_err(|source| TrainingError::Folder { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), TrainingError> {
    std::fs::write(path, text).map_err(|source| TrainingError::Write { path: path.to_owned(), source })
}

fn json(value: &impl serde::Serialize) -> Result<String, TrainingError> {
    Ok(serde_json::to_string_pretty(value)?)
}
