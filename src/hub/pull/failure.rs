//! hf-hub's errors are sorted by what went wrong and whether a retry may help.

use std::{io, time::Duration};

use super::ApiError;

/// One attempt that failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The hub answered, with a status that is not good; `word` is its own name for the reason.
    Status { code: u16, word: Option<String>, retry_after: Option<Duration> },
    /// No answer came.
    Unreachable(String),
    /// The answer broke off. What came is kept.
    Cut(String),
    /// The partial file is as long as the whole, or longer.
    BadPart,
    /// Another program holds the file's lock.
    Locked,
    /// A fault of this machine's disk.
    Cache(io::Error),
    /// An answer that makes no sense.
    Protocol(String),
}

impl Failure {
    pub fn of(error: ApiError) -> Self {
        match error {
            ApiError::RequestError(error) => {
                let reason = error.to_string();
                let Some(response) = error.into_response() else { return Failure::Unreachable(reason) };
                if response.status() == 416 {
                    return Failure::BadPart;
                }
                // The other form of this header, a date, is one that hubs do not use.
                let seconds = response.header("retry-after").and_then(|value| value.trim().parse().ok());
                Failure::Status {
                    code: response.status(),
                    word: response.header("x-error-code").map(str::to_owned),
                    retry_after: seconds.map(Duration::from_secs),
                }
            }
            ApiError::IoError(error) => {
                use io::ErrorKind::*;
                match error.kind() {
                    UnexpectedEof | ConnectionReset | ConnectionAborted | ConnectionRefused | TimedOut
                    | BrokenPipe | WouldBlock | InvalidData => Failure::Cut(error.to_string()),
                    _ => Failure::Cache(error),
                }
            }
            ApiError::TooManyRetries(error) => Failure::of(*error),
            ApiError::InvalidResume => Failure::BadPart,
            ApiError::LockAcquisition(_) => Failure::Locked,
            ApiError::MissingHeader(_) | ApiError::InvalidHeader(_) | ApiError::ParseIntError(_) => {
                Failure::Protocol(error.to_string())
            }
        }
    }

    /// Whether it may pass by itself, and the pause that the hub asks for.
    pub fn passes(&self) -> Option<Option<Duration>> {
        match self {
            Failure::Status { code: 429 | 500 | 502 | 503 | 504, retry_after, .. } => Some(*retry_after),
            Failure::Cut(_) => Some(None),
            Failure::BadPart => Some(Some(Duration::ZERO)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Status { code: 429, .. } => write!(f, "the hub asks to slow down (status 429)"),
            Failure::Status { code, .. } => write!(f, "the hub answered with status {code}"),
            Failure::Unreachable(reason) | Failure::Cut(reason) => {
                write!(f, "the connection broke: {reason}")
            }
            Failure::BadPart => write!(f, "a partial download does not fit"),
            Failure::Locked => write!(f, "another program downloads the same file"),
            Failure::Cache(error) => write!(f, "{error}"),
            Failure::Protocol(reason) => write!(f, "{reason}"),
        }
    }
}
