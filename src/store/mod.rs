#![doc = include_str!("FORMAT.md")]

use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Fault};

mod acknowledged;
pub(crate) mod body;
mod catalog;
pub(crate) mod disk;
mod documents;
mod earlier;
pub(crate) mod folder;
#[cfg(test)]
pub(crate) mod golden;
mod identity;
pub(crate) mod kept;
mod lock;
pub(crate) mod private;
mod probe;
pub(crate) mod record;
mod state;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod whole;

pub use catalog::Catalog;
#[cfg(test)]
pub(crate) use documents::Loaded;
pub(crate) use documents::Store;
pub(crate) use earlier::Spec as EarlierSpec;
pub use identity::Identity;
pub use lock::{DataLock, LOCK_FILE};
pub(crate) use probe::probe;
pub(crate) use state::{OPEN_BYTES, RESERVE_BYTES};

/// Target in the log of what is wrong in a data folder and is told as a finding too: whoever tells findings in another way
/// leaves it out of the log.
pub const FINDINGS_TARGET: &str = "distilface::findings";

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StoreError {
    #[error("the data folder {} is in use by another process ({holder}); stop it, or give another folder with --data", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("the disk is full: {} cannot grow; free some space, reads and deletes go on", path.display())]
    DiskFull { path: PathBuf },
    #[error("{} is as large as a file may be (ulimit -f) and cannot grow; start the server with a higher limit, reads go on", path.display())]
    FileLimit { path: PathBuf },
    #[error("{} cannot be opened: its disk is full; free at least {} MiB there and start again", path.display(), OPEN_BYTES >> 20)]
    NoRoomToOpen { path: PathBuf },
    #[error("{} cannot be written: its file system is read-only; mount it for writing, or give another folder with --data", path.display())]
    ReadOnlyFolder { path: PathBuf },
    #[error("{} cannot be opened: as many files are open as may be (ulimit -n); retry later, or start the server with a higher limit", path.display())]
    NoHandle { path: PathBuf },
    #[error("{} takes no more just now: {reason}; retry later", path.display())]
    Busy { path: PathBuf, reason: String },
    #[error(
        "one write of {bytes} bytes is larger than the log takes ({max}); send fewer or smaller documents at once"
    )]
    TooLarge { bytes: usize, max: usize },
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} was written and may not be durable: it is as it was before, or as it is now", path.display())]
    Unsettled { path: PathBuf, source: std::io::Error },
    #[error("document {number} of {} was removed", path.display())]
    Gone { path: PathBuf, number: u64 },
    #[error("another collection of {} goes by the number that identity {identity} gives; draw another identity", path.display())]
    IdentityTaken { path: PathBuf, identity: Identity },
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("{} was written by a newer version (format {got}, this program reads up to {supported})", path.display())]
    NewerFormat { path: PathBuf, got: u32, supported: u32 },
    #[error("{} is of another collection (of identity {got}, and this one is {expected}); {remedy}", path.display())]
    OtherCollection { path: PathBuf, got: Identity, expected: Identity, remedy: String },
    #[error("{} is whole and cannot be understood ({reason}); a newer version may have written it", path.display())]
    NotUnderstood { path: PathBuf, reason: String },
}

impl StoreError {
    /// Whether nothing was done and the same may be tried again later.
    pub(crate) fn is_passing(&self) -> bool {
        self.is_full() || matches!(self, StoreError::NoHandle { .. } | StoreError::Busy { .. })
    }

    /// Whether nothing was done, and the store is as it was.
    pub(crate) fn is_refusal(&self) -> bool {
        self.is_passing() || matches!(self, StoreError::TooLarge { .. })
    }

    /// Whether there was no room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, StoreError::DiskFull { .. } | StoreError::FileLimit { .. })
    }

    /// [`StoreError::NoHandle`] if that is what it says, else [`StoreError::Io`].
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        if crate::handles::none_left(&source) {
            return StoreError::NoHandle { path: path.to_owned() };
        }
        StoreError::Io { path: path.to_owned(), source }
    }

    /// [`StoreError::DiskFull`] or [`StoreError::FileLimit`] if that is what it says. Only for files of which nothing
    /// was lost by it.
    pub(crate) fn full_or_io(path: &Path, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::FileTooLarge => StoreError::FileLimit { path: path.to_owned() },
            _ if is_full(&source) => StoreError::DiskFull { path: path.to_owned() },
            _ => StoreError::io(path, source),
        }
    }

    /// [`StoreError::NoRoomToOpen`] or [`StoreError::ReadOnlyFolder`] if that is what it says, for what is written to
    /// when it is opened.
    pub(crate) fn opening(path: &Path, source: std::io::Error) -> Self {
        match source.kind() {
            _ if is_full(&source) => StoreError::NoRoomToOpen { path: path.to_owned() },
            std::io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnlyFolder { path: path.to_owned() },
            _ => StoreError::io(path, source),
        }
    }

    pub(crate) fn corrupt(path: &Path, reason: String) -> Self {
        StoreError::Corrupt { path: path.to_owned(), reason }
    }
}

/// Whether a write failed for want of room.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

impl Fault for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            StoreError::Locked { .. }
            | StoreError::ReadOnlyFolder { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::NotUnderstood { .. } => ErrorKind::Precondition,
            StoreError::DiskFull { .. }
            | StoreError::FileLimit { .. }
            | StoreError::NoRoomToOpen { .. }
            | StoreError::NoHandle { .. }
            | StoreError::Busy { .. } => ErrorKind::Overloaded,
            StoreError::Gone { .. } => ErrorKind::NotFound,
            StoreError::IdentityTaken { .. } => ErrorKind::Exists,
            StoreError::TooLarge { .. } => ErrorKind::Invalid,
            StoreError::Io { .. } | StoreError::Unsettled { .. } => ErrorKind::Internal,
            StoreError::Corrupt { .. } | StoreError::OtherCollection { .. } => ErrorKind::Corrupt,
        }
    }
}
