//! Why the engine refused or failed.

use std::path::PathBuf;

use super::cursor::CursorError;
use crate::{
    budget::BudgetError,
    collection::CollectionError,
    encoder::{EncoderError, OpenError},
    error::{ErrorKind, Fault},
    index::IndexError,
    model::ModelError,
    store::StoreError,
    threads::ThreadsError,
    value::{ValueError, filter::FilterError},
    vector::VectorError,
};

/// `Result` of the engine.
pub(super) type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EngineError {
    #[error("no collection or alias {name:?}; there are: {known}")]
    NoCollection { name: String, known: String },
    #[error("collection {name:?} exists; choose another name")]
    CollectionExists { name: String },
    #[error("collection {name:?} exists with other settings: {difference}")]
    CollectionDiffers { name: String, difference: String },
    #[error(
        "{what} name {name:?} is not allowed: use 1 to 128 letters, digits, '_', '-' or '.', beginning with a letter or digit"
    )]
    BadName { what: &'static str, name: String },
    #[error("alias {alias:?} does not exist; there are: {known}")]
    NoAlias { alias: String, known: String },
    #[error("{name:?} is a collection; an alias needs a name of its own")]
    AliasTaken { name: String },
    #[error(
        "{name:?} is an alias of {target:?}; give the collection another name, or delete the alias first"
    )]
    NameIsAlias { name: String, target: String },
    #[error(
        "collection {collection:?} was made with model {name} ({fingerprint}), which is not here; there are: {known}; install it again (`distilface model import` or `pull`), start with its folder as --model, or re-embed into a new collection"
    )]
    WrongModel { collection: String, name: String, fingerprint: String, known: String },
    #[error(
        "collection {collection:?} needs an encoder, and this process runs without one; start it with --model"
    )]
    NoEncoder { collection: String },
    #[error("this process runs without an encoder; start it with --model")]
    EncoderOff,
    #[error("collection {collection:?} takes vectors only: give a vector instead of text")]
    VectorsOnly { collection: String },
    #[error("document {id:?}: {reason}")]
    BadDocument { id: String, reason: String },
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Collection(#[from] CollectionError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(StoreError),
    #[error(
        "{} is no longer there: the data folder was moved or removed while it is served; stop the server, put the folder back where it was, and start again (what was acknowledged is in the folder, wherever it is)", path.display()
    )]
    Moved { path: PathBuf },
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Vector(#[from] VectorError),
    #[error("document {id:?}: {source}")]
    BadVector { id: String, source: VectorError },
    #[error("{name} must be {}, got {got}", allowed(*min, *max))]
    OutOfRange { name: &'static str, min: u64, max: u64, got: u64 },
    #[error("{reason}")]
    BadRequest { reason: String },
    #[error(
        "request id {id:?} is not allowed: use 1 to 64 printable ASCII characters without blanks, such as a UUID"
    )]
    BadRequestId { id: String },
    /// What became of a document when its request was done the first time.
    #[error("{text}")]
    Before { kind: ErrorKind, field: Option<String>, text: String },
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(
        "collection {name:?} is not deleted: its folder {} is a symbolic link, and nothing is removed behind a link; delete what it leads to yourself, then the link", path.display()
    )]
    LinkedFolder { name: String, path: PathBuf },
    #[error("no document {id:?} in collection {collection:?}")]
    NoDocument { collection: String, id: String },
    #[error(
        "all {limit} collections that may be open at once are in use (data.open_collections_max, and the files that the process may have open); retry later"
    )]
    TooManyOpen { limit: usize },
    #[error("collection {name:?} is damaged: {reason}")]
    Damaged { name: String, reason: String },
    #[error("collection {name:?} cannot be opened now: {reason}")]
    Unopened { name: String, reason: String, retry: bool },
    #[error(
        "this server has no folder for backups; set data.backups to one (DISTILFACE_DATA__BACKUPS), or stop the server and give the data folder with --data"
    )]
    NoBackups,
    #[error("no backup {name:?}; there are: {known}")]
    NoBackup { name: String, known: String },
    #[error("{} is there already, and a backup replaces nothing; give another name", path.display())]
    BackupExists { path: PathBuf },
    #[error("another backup is being made in {}; retry later", path.display())]
    BackupBusy { path: PathBuf },
    #[error("the backup {} is damaged: {reason}", path.display())]
    DamagedBackup { path: PathBuf, reason: String },
    #[error("{} is restored, and {name:?} is not: {source}", done.join(", "))]
    RestoredInPart { done: Vec<String>, name: String, source: Box<EngineError> },
    #[error("the deadline passed")]
    Expired,
    #[error(
        "the deadline passed when {done} of {total} passages were encoded; they are kept for a while, so send the same request again and it goes on from there, or give it more time (the call's deadline, server.request_timeout)"
    )]
    Unfinished { done: usize, total: usize },
    #[error(
        "the deadline passed when {done} of {total} documents were looked after; send the rest again, or give the call more time (its deadline, server.request_timeout)"
    )]
    UnfinishedPayload { done: usize, total: usize },
    #[error(
        "the deadline passed when {done} of {total} matching documents were looked after; what was changed stays so, so send the same request again, or give the call more time (its deadline, server.request_timeout)"
    )]
    UnfinishedMatching { done: usize, total: usize },
    #[error("the server is shutting down")]
    Closing,
    #[error("a worker panicked: {reason}")]
    Panicked { reason: String },
    #[error(transparent)]
    Threads(#[from] ThreadsError),
}

/// The numbers of a range, in words. What may be 0 is at most so much: that 0 may mean something of its own.
fn allowed(min: u64, max: u64) -> String {
    match (min, max) {
        (min, max) if min == max => format!("{max}"),
        (0, max) => format!("at most {max}"),
        (min, max) => format!("between {min} and {max}"),
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            // What an open store writes beside was there when it was opened.
            StoreError::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                EngineError::Moved { path }
            }
            error => EngineError::Store(error),
        }
    }
}

impl Fault for EngineError {
    fn kind(&self) -> ErrorKind {
        use EngineError::*;
        match self {
            NoCollection { .. } | NoAlias { .. } | NoDocument { .. } | NoBackup { .. } => ErrorKind::NotFound,
            CollectionExists { .. }
            | CollectionDiffers { .. }
            | AliasTaken { .. }
            | NameIsAlias { .. }
            | BackupExists { .. } => ErrorKind::Exists,
            BadName { .. }
            | VectorsOnly { .. }
            | BadDocument { .. }
            | OutOfRange { .. }
            | BadRequestId { .. }
            | BadRequest { .. } => ErrorKind::Invalid,
            Before { kind, .. } => *kind,
            Cursor(error) => error.kind(),
            BadVector { source, .. } => source.kind(),
            Budget(e) => e.kind(),
            Collection(e) => e.kind(),
            Encoder(e) => e.kind(),
            Filter(e) => e.kind(),
            Index(e) => e.kind(),
            Model(e) => e.kind(),
            Open(e) => e.kind(),
            Store(e) => e.kind(),
            Value(e) => e.kind(),
            Vector(e) => e.kind(),
            Unopened { retry: false, .. } => ErrorKind::Precondition,
            RestoredInPart { source, .. } => source.kind(),
            WrongModel { .. }
            | NoEncoder { .. }
            | EncoderOff
            | LinkedFolder { .. }
            | Moved { .. }
            | NoBackups => ErrorKind::Precondition,
            TooManyOpen { .. } | BackupBusy { .. } => ErrorKind::Overloaded,
            Damaged { .. } | DamagedBackup { .. } => ErrorKind::Corrupt,
            Expired | Unfinished { .. } | UnfinishedPayload { .. } | UnfinishedMatching { .. } => {
                ErrorKind::Timeout
            }
            Unopened { .. } | Closing => ErrorKind::Unavailable,
            Panicked { .. } => ErrorKind::Internal,
            Threads(e) => e.kind(),
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            EngineError::OutOfRange { name, .. } => Some(name),
            EngineError::BadRequestId { .. } => Some("request_id"),
            EngineError::Before { field, .. } => field.as_deref(),
            EngineError::Cursor(_) => Some("cursor"),
            EngineError::BadVector { .. } => Some("vector"),
            EngineError::Collection(e) => e.field(),
            EngineError::Filter(e) => e.field(),
            EngineError::Index(e) => e.field(),
            EngineError::Vector(e) => e.field(),
            _ => None,
        }
    }

    fn is_too_large(&self) -> bool {
        match self {
            EngineError::Budget(e) => e.is_too_large(),
            EngineError::Collection(e) => e.is_too_large(),
            _ => false,
        }
    }

    /// What is said of a damaged collection names it and files of the server, which the operator needs, and nothing of
    /// what is stored.
    fn is_for_callers(&self) -> bool {
        match self {
            // What was noted of an error was for callers.
            EngineError::Damaged { .. } | EngineError::DamagedBackup { .. } | EngineError::Before { .. } => {
                true
            }
            EngineError::RestoredInPart { source, .. } => source.is_for_callers(),
            _ => !matches!(self.kind(), ErrorKind::Internal | ErrorKind::Corrupt),
        }
    }
}
