//! Why setup failed, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    error::{ErrorKind, Fault},
    model::ModelError,
};

/// Why setup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SetupError {
    #[error(
        "no {package} is known for this machine ({platform}; there are: {known}); build or install ONNX Runtime 1.24 or newer yourself and point ORT_DYLIB_PATH at it"
    )]
    Platform { package: String, platform: String, known: String },
    #[error(
        "Python is needed to download packages, and {python} cannot be started: {reason}; install it (Debian, Ubuntu: apt install python3 python3-pip; Fedora: dnf install python3-pip; macOS: brew install python), or download the wheels on another machine and use --from DIR"
    )]
    PythonMissing { python: String, reason: String },
    #[error(
        "{python} has no pip; install it (Debian, Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip; elsewhere: {python} -m ensurepip --user), or download the wheels on another machine and use --from DIR"
    )]
    PipMissing { python: String },
    #[error(
        "pip could not download {package} ({status}); it said:\n{}\nonce that is repaired, run setup again; it continues where it was",
        indent(lines)
    )]
    PipFailed { package: String, status: String, lines: Vec<String> },
    #[error("pip says that it downloaded {package}, but {} holds no {expected}", folder.display())]
    PipLeftNothing { package: String, folder: PathBuf, expected: String },
    #[error("{} holds no {}; put these wheels there (`pip download --no-deps` fetches them), or leave --from out", folder.display(), missing.join(" and no "))]
    WheelMissing { folder: PathBuf, missing: Vec<String> },
    #[error("{} cannot be unpacked: {reason}; it is not the wheel that was published, or was not copied completely", wheel.display())]
    WheelDamaged { wheel: PathBuf, reason: String },
    #[error("{file} in {} has the wrong checksum: expected sha256 {expected}, got {got}; nothing of it was installed", wheel.display())]
    Checksum { wheel: PathBuf, file: String, expected: String, got: String },
    #[error("{file} in {} has the wrong size: expected {expected} bytes, got {got}; nothing of it was installed", wheel.display())]
    Size { wheel: PathBuf, file: String, expected: u64, got: u64 },
    #[error("{} holds another model than the default one; rename it, or replace it with --force", path.display())]
    OtherModel { path: PathBuf },
    #[error("another setup ({holder}) has been at work in {} for too long; end it, or wait", home.display())]
    Busy { home: PathBuf, holder: String },
    #[error("the disk of {} is full; setup needs about 600 MB of it at most: free some space and run it again, it goes on where it was", path.display())]
    DiskFull { path: PathBuf, source: io::Error },
    #[error("{} cannot be written; choose another folder with --home or DISTILFACE_HOME, or correct its permissions", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl SetupError {
    /// True if another copy of the wheel may help.
    pub(super) fn is_about_the_wheel(&self) -> bool {
        matches!(
            self,
            SetupError::WheelDamaged { .. } | SetupError::Checksum { .. } | SetupError::Size { .. }
        )
    }
}

impl Fault for SetupError {
    fn kind(&self) -> ErrorKind {
        match self {
            SetupError::WheelMissing { .. } => ErrorKind::NotFound,
            SetupError::OtherModel { .. } => ErrorKind::Exists,
            SetupError::Busy { .. } => ErrorKind::Unavailable,
            SetupError::DiskFull { .. } => ErrorKind::Overloaded,
            SetupError::WheelDamaged { .. } | SetupError::Checksum { .. } | SetupError::Size { .. } => {
                ErrorKind::Corrupt
            }
            SetupError::Platform { .. }
            | SetupError::PythonMissing { .. }
            | SetupError::PipMissing { .. }
            | SetupError::PipFailed { .. }
            | SetupError::PipLeftNothing { .. }
            | SetupError::Unwritable { .. } => ErrorKind::Precondition,
            SetupError::Io { .. } => ErrorKind::Internal,
            SetupError::Model(e) => e.kind(),
        }
    }
}

/// Names what an io error means to the user: a full disk, a folder he may not write to, or something else.
pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> SetupError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SetupError::DiskFull { path, source },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if action != "read" => {
            SetupError::Unwritable { path, source }
        }
        _ => SetupError::Io { action, path, source },
    }
}

fn indent(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
