//! What can go wrong between here and the hub, and what the user can do about it.

use std::{io, path::PathBuf};

use crate::error::{ErrorKind, Fault};

/// Why a model could not be pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PullError {
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    #[error("{text:?} is not a model of the hub: {reason}; it is written OWNER/NAME or OWNER/NAME@REVISION")]
    Name { text: String, reason: &'static str },
    #[error("{variable} is {value:?}, which is not {expected}")]
    Environment { variable: &'static str, value: String, expected: &'static str },
    #[error("there is no folder for the hub's cache: set HF_HOME")]
    NoCache,
    #[error("HF_HUB_OFFLINE is set, and {file} of {repository} is not in the cache {}", cache.display())]
    Offline { repository: String, file: String, cache: PathBuf },
    #[error(
        "the hub refuses {repository} ({status}): it is private or gated, or there is none; {}",
        if *token { "the token in use may not read it" } else { "set HF_TOKEN to a token that may read it" }
    )]
    Refused { repository: String, status: u16, token: bool },
    #[error("{endpoint} has no model {repository}")]
    NoRepository { endpoint: String, repository: String },
    #[error("{repository} has no revision {revision:?}")]
    NoRevision { repository: String, revision: String },
    #[error("{repository} has no file {file}, without which it cannot be imported")]
    NoFile { repository: String, file: String },
    #[error(
        "{repository} has its weights as {found} only, and distilface reads one model.safetensors; open it in transformers, \
         `save_pretrained` it to a folder, and `distilface model import` that"
    )]
    NoSafetensors { repository: String, found: String },
    #[error("{file} of {repository} is not what the hub says ({reason}); it was deleted, so pull again")]
    Wrong { repository: String, file: String, reason: String },
    #[error(
        "{endpoint} is busy (status {status}, asked {asked} times{wait}); pull again later, it goes on where it was"
    )]
    Busy { endpoint: String, status: u16, asked: u32, wait: String },
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    #[error(
        "the connection broke while {file} was downloaded: {reason}; pull again, it goes on where it was"
    )]
    Cut { file: String, reason: String },
    #[error("another program downloads {file} into the same cache; wait for it, and pull again")]
    Locked { file: String },
    #[error("{endpoint} does not answer as a hub does: {reason}")]
    Protocol { endpoint: String, reason: String },
    #[error("cannot read or write the hub's cache {}", path.display())]
    Cache { path: PathBuf, source: io::Error },
}

impl Fault for PullError {
    fn kind(&self) -> ErrorKind {
        match self {
            PullError::Name { .. } | PullError::Environment { .. } | PullError::NoSafetensors { .. } => {
                ErrorKind::Invalid
            }
            PullError::NoRepository { .. } | PullError::NoRevision { .. } | PullError::NoFile { .. } => {
                ErrorKind::NotFound
            }
            PullError::NoCache | PullError::Offline { .. } | PullError::Refused { .. } => {
                ErrorKind::Precondition
            }
            PullError::Wrong { .. } => ErrorKind::Corrupt,
            PullError::Busy { status: 429, .. } => ErrorKind::Overloaded,
            PullError::Busy { .. }
            | PullError::Unreachable { .. }
            | PullError::Cut { .. }
            | PullError::Locked { .. }
            | PullError::Protocol { .. } => ErrorKind::Unavailable,
            PullError::Model(e) => e.kind(),
            PullError::Cache { .. } => ErrorKind::Internal,
        }
    }
}
