//! What can go wrong with the log, and what recovery found damaged.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Sequence;
use crate::{
    error::{ErrorKind, Fault},
    files::disk::is_no_room,
    handles,
};

/// A failure of the log. Cheap to clone: one failed sync answers many.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LogError {
    /// Nothing was written; later writes are tried again.
    #[error("the disk is full: {} cannot grow; free some space, reads and deletes go on", path.display())]
    DiskFull { path: PathBuf },
    /// Nothing was written; later writes are tried again.
    #[error("{} is as large as a file may be (ulimit -f) and cannot grow; start the server with a higher limit, reads go on", path.display())]
    FileLimit { path: PathBuf },
    /// Nothing was written; later writes are tried again.
    #[error("{} cannot be opened: as many files are open as may be (ulimit -n); retry later, or start the server with a higher limit", path.display())]
    NoHandle { path: PathBuf },
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: Arc<io::Error> },
    /// Something else lies under the name of a file of the log.
    #[error("{} is no file of this log ({reason}); move it away", path.display())]
    NotOurs { path: PathBuf, reason: &'static str },
    #[error("{} is of the log of another data folder; put it back where it belongs", path.display())]
    OtherFolder { path: PathBuf },
    #[error("{} was written by a newer version (format {got}, this program reads up to {supported})", path.display())]
    NewerFormat { path: PathBuf, got: u16, supported: u16 },
    /// Too much waits to be written already.
    #[error("too many writes wait for the disk; retry later")]
    Overloaded,
    /// More than the log ever takes at once.
    #[error("a write of {bytes} bytes is larger than the log takes ({max})")]
    TooLarge { bytes: usize, max: usize },
    /// An earlier failure left open what is on the device. Nothing is written any more; whether this entry is there
    /// after a restart is not known.
    #[error("the log takes no more writes until a restart: {reason}")]
    Failed { reason: Arc<str> },
    #[error("the log is closed")]
    Closed,
    /// A ticket did what it must not: a bug.
    #[error("a write was given up: {reason}")]
    Misled { reason: Arc<str> },
}

impl LogError {
    /// What an error of the file system says, where nothing was lost by it.
    pub(super) fn passing(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::FileTooLarge {
            LogError::FileLimit { path }
        } else if is_no_room(&source) {
            LogError::DiskFull { path }
        } else if handles::none_left(&source) {
            LogError::NoHandle { path }
        } else {
            LogError::Io { path, source: Arc::new(source) }
        }
    }

    /// For `map_err`: as [`LogError::passing`].
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::passing(path, source)
    }
}

impl Fault for LogError {
    fn kind(&self) -> ErrorKind {
        match self {
            LogError::DiskFull { .. }
            | LogError::FileLimit { .. }
            | LogError::NoHandle { .. }
            | LogError::Overloaded => ErrorKind::Overloaded,
            LogError::Io { .. } | LogError::Misled { .. } => ErrorKind::Internal,
            LogError::NotOurs { .. } | LogError::OtherFolder { .. } => ErrorKind::Corrupt,
            LogError::NewerFormat { .. } => ErrorKind::Precondition,
            LogError::TooLarge { .. } => ErrorKind::Invalid,
            LogError::Failed { .. } | LogError::Closed => ErrorKind::Unavailable,
        }
    }

    fn is_too_large(&self) -> bool {
        matches!(self, LogError::TooLarge { .. })
    }
}

/// A place of the log that is not what was written, found when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The file; of one that is missing, its name.
    pub(crate) file: PathBuf,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// What is wrong there.
    pub(crate) reason: String,
    /// Whose entries are lost, or may be.
    pub(crate) suspects: Suspects,
    /// The last entry that may be lost; `None` if nobody can tell.
    pub(crate) last: Option<Sequence>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged at byte {}: {}", self.file.display(), self.offset, self.reason)
    }
}

/// Collections of which entries are lost, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Suspects {
    /// Of these an entry is lost, of others none. Of none at all if only what is kept twice was hit, or what is no
    /// longer needed.
    These(BTreeSet<u64>),
    /// Nobody can tell whose entries were there; these have an entry behind the damage that proves them whole.
    AllBut(BTreeSet<u64>),
}

impl Suspects {
    /// Whether entries of a collection are lost or may be.
    pub(crate) fn contains(&self, collection: u64) -> bool {
        match self {
            Suspects::These(lost) => lost.contains(&collection),
            Suspects::AllBut(whole) => !whole.contains(&collection),
        }
    }
}
