//! What every error answers: what its caller can do about it. Imports nothing of this crate.
//!
//! Each module has an enum of its own, which wraps what lies below that module and implements [`Fault`]; the errors of
//! all modules together are [`crate::Error`].

use std::time::Duration;

/// How long an overloaded service asks its caller to wait.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What the caller of a failed call can do about it. A kind exists only where the caller would act differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong: change it.
    Invalid,
    /// What was named does not exist: choose another name, or create it first.
    NotFound,
    /// What was to be created exists: choose another name.
    Exists,
    /// The request is right but the state is not (another model, another dimension, missing set-up): fix the state.
    Precondition,
    /// The caller is not known: give a valid key. No error is of this kind yet, since no door asks for keys.
    Unauthenticated,
    /// The caller is known and may not do this: ask the operator who grants it. No error is of this kind yet,
    /// as with [`ErrorKind::Unauthenticated`].
    Forbidden,
    /// A queue or a limit is full: back off and retry.
    Overloaded,
    /// Starting, draining or gone: retry.
    Unavailable,
    /// The deadline passed: retry with more time.
    Timeout,
    /// Stored bytes are not what was written: call the operator.
    Corrupt,
    /// A bug of ours: report it.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tests that walk the whole contract.
    pub const ALL: [ErrorKind; 11] = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Exists,
        ErrorKind::Precondition,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::Overloaded,
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::Corrupt,
        ErrorKind::Internal,
    ];

    /// The kind as programs read it, in capitals: `reason` of gRPC's `ErrorInfo`.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Invalid => "INVALID",
            ErrorKind::NotFound => "NOT_FOUND",
            ErrorKind::Exists => "EXISTS",
            ErrorKind::Precondition => "PRECONDITION",
            ErrorKind::Unauthenticated => "UNAUTHENTICATED",
            ErrorKind::Forbidden => "FORBIDDEN",
            ErrorKind::Overloaded => "OVERLOADED",
            ErrorKind::Unavailable => "UNAVAILABLE",
            ErrorKind::Timeout => "TIMEOUT",
            ErrorKind::Corrupt => "CORRUPT",
            ErrorKind::Internal => "INTERNAL",
        }
    }
}

/// What every error of this crate answers.
pub trait Fault: std::error::Error {
    /// What the caller can do about it.
    fn kind(&self) -> ErrorKind;

    /// The error that this one only wraps; what it answers below, this one answers too.
    fn inner(&self) -> Option<&dyn Fault> {
        None
    }

    /// Which field of the request is to blame, where that is known.
    fn field(&self) -> Option<&str> {
        self.inner()?.field()
    }

    /// How long to wait before the same is asked again, where waiting helps.
    fn retry_after(&self) -> Option<Duration> {
        match self.inner() {
            Some(inner) => inner.retry_after(),
            None => (self.kind() == ErrorKind::Overloaded).then_some(RETRY_AFTER),
        }
    }

    /// Whether less has to be sent or asked for at once.
    fn is_too_large(&self) -> bool {
        self.inner().is_some_and(|inner| inner.is_too_large())
    }

    /// Whether the caller gets the message. What is our fault stays in the log: it names insides and may quote what is
    /// stored.
    fn is_for_callers(&self) -> bool {
        if let Some(inner) = self.inner() {
            return inner.is_for_callers();
        }
        !matches!(self.kind(), ErrorKind::Internal | ErrorKind::Corrupt)
    }
}

/// A message and the messages of its sources, as far as they add something.
pub fn with_sources(error: &(dyn std::error::Error + '_)) -> String {
    let messages = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    told_once(messages)
}

/// Messages from the outermost to the innermost as one text, without those that stand in it already.
pub(crate) fn told_once(messages: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    for message in messages {
        if text.is_empty() {
            text = message;
        } else if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
    }
    text
}
