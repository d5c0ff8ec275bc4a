//! Every error of a command becomes the message, the kind and the exit code that the caller gets.
//!
//! 0 done, 1 failed, 2 wrong use (the command line, a filter or the configuration must change), 3 partly done
//! (some documents failed), 4 damaged (`verify` and `repair` found something that is not whole), 130 interrupted.

use std::io;

use tonic::{Code, Status};

use super::output::Output;
use crate::error::{ErrorKind, told_once};

/// The text of `--help` about exit codes.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong use, 3 partly done (some documents failed), \
                              4 damaged (verify, repair), 130 interrupted.";

/// Ends that are not a failure of what was called.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Some documents failed; they were reported one by one.
    #[error("some documents failed")]
    Partial,
    /// A data folder is damaged; what is was printed.
    #[error("the data folder is damaged")]
    Damaged,
    /// A backup is damaged; what is was printed.
    #[error("the backup is damaged")]
    DamagedBackup,
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// The server was there, and went away while it worked.
    #[error("{server} went away ({reason}); start it again with `distilface serve`")]
    ServerGone {
        /// `the server at http://...`.
        server: String,
        /// What the system said.
        reason: String,
    },
    /// Nobody listens at the address.
    #[error(
        "no server at {url}; start one with `distilface serve`, or open a folder with --data DIR ({reason})"
    )]
    NoServer {
        /// Where we looked.
        url: String,
        /// What the system said.
        reason: String,
    },
}

/// A usage error, for `?`.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Stop::Usage(message.into()).into()
}

/// The failure as the caller gets it.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: it was said already, or nobody listens.
    pub message: Option<String>,
    /// The kind in snake case, for programs.
    pub kind: &'static str,
    /// Exit code of the process.
    pub exit: u8,
}

/// Tells the user, and gives the exit code.
pub fn report(out: &Output, error: &anyhow::Error) -> u8 {
    let verdict = judge(error);
    if let Some(message) = &verdict.message {
        out.error(message, verdict.kind, verdict.exit);
    }
    verdict.exit
}

/// Classifies an error for the caller.
pub fn judge(error: &anyhow::Error) -> Verdict {
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return Verdict { message: None, kind: "broken_pipe", exit: 0 };
    }
    if let Some(stop) = find::<Stop>(error) {
        let (message, kind, exit) = match stop {
            Stop::Usage(_) => (true, "usage", 2),
            Stop::Partial => (false, "partial", 3),
            Stop::Damaged | Stop::DamagedBackup => (true, "corrupt", 4),
            Stop::Interrupted => (true, "interrupted", 130),
            Stop::NoServer { .. } | Stop::ServerGone { .. } => (true, "unavailable", 1),
        };
        return Verdict { message: message.then(|| words(error)), kind, exit };
    }
    let kind = if let Some(status) = find::<Status>(error) {
        if transport_fault(status).is_some() {
            name(ErrorKind::Unavailable)
        } else {
            kind_of_code(status.code())
        }
    } else {
        error.chain().find_map(crate::fault_of).map_or("failed", |fault| name(fault.kind()))
    };
    Verdict { message: Some(words(error)), kind, exit: if kind == "invalid" { 2 } else { 1 } }
}

/// What the connection failed of, if it was that and not an answer of the server.
pub fn transport_fault(status: &Status) -> Option<String> {
    // A status that a server sent has no cause here.
    std::error::Error::source(status).map(innermost)
}

/// The last cause tells what the system said; those above only that something failed.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn find<E: std::error::Error + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| cause.downcast_ref::<E>())
}

/// The chain of causes as one text, without saying anything twice.
pub fn words(error: &anyhow::Error) -> String {
    let mut ended = false;
    told_once(error.chain().map_while(|cause| match cause.downcast_ref::<Status>() {
        _ if ended => None,
        Some(status) => {
            // Below it come the transport's inner words. Its Display is for the programs of the wire; the message is for
            // people.
            ended = true;
            Some(status_words(status))
        }
        None => Some(cause.to_string()),
    }))
}

fn status_words(status: &Status) -> String {
    if let Some(reason) = transport_fault(status) {
        return format!(
            "the server went away or cannot be reached ({reason}); start one with `distilface serve`"
        );
    }
    let message = match status.message() {
        "" => format!("the server answered {:?} and no message", status.code()),
        message => message.to_owned(),
    };
    let id = status.metadata().get("x-request-id").and_then(|id| id.to_str().ok());
    match (status.code(), id) {
        (Code::Internal | Code::DataLoss | Code::Unknown, Some(id)) if !message.contains(id) => {
            format!("{message} (request {id}; the server's log tells more)")
        }
        _ => message,
    }
}

/// What a server inside this process answered, without a word of a server's log: what it logged stands above.
pub fn of_this_process(mut error: anyhow::Error) -> anyhow::Error {
    if let Some(status) = error.downcast_mut::<Status>()
        && transport_fault(status).is_none()
    {
        let message = status.message().replace("the server's log says more", "the log above says more");
        let details = status.details().to_vec().into();
        let mut told = Status::with_details_and_metadata(
            status.code(),
            message,
            details,
            std::mem::take(status.metadata_mut()),
        );
        told.metadata_mut().remove("x-request-id");
        *status = told;
    }
    error
}

fn kind_of_code(code: Code) -> &'static str {
    let kind = match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::Exists,
        Code::FailedPrecondition => ErrorKind::Precondition,
        Code::ResourceExhausted => ErrorKind::Overloaded,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::Forbidden,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::Cancelled => return "cancelled",
        _ => ErrorKind::Internal,
    };
    name(kind)
}

fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "invalid",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Exists => "exists",
        ErrorKind::Precondition => "precondition",
        ErrorKind::Unauthenticated => "unauthenticated",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::Overloaded => "overloaded",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Internal => "internal",
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::{budget::BudgetError, engine::EngineError, error::Fault, server::status};

    fn verdict(error: impl Into<anyhow::Error>) -> (String, &'static str, u8) {
        let Verdict { message, kind, exit } = judge(&error.into());
        (message.unwrap_or_default(), kind, exit)
    }

    #[test]
    fn every_end_has_its_code() {
        assert_eq!(verdict(usage("no")), ("no".into(), "usage", 2));
        assert_eq!(verdict(Stop::Partial), (String::new(), "partial", 3));
        assert_eq!(verdict(Stop::Damaged), ("the data folder is damaged".into(), "corrupt", 4));
        assert_eq!(verdict(Stop::Interrupted), ("interrupted".into(), "interrupted", 130));
        assert_eq!(verdict(anyhow::anyhow!("x")), ("x".into(), "failed", 1));
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(verdict(anyhow::Error::from(pipe).context("stdout")), (String::new(), "broken_pipe", 0));
    }

    #[test]
    fn what_the_server_refuses_as_wrong_is_wrong_use() {
        for (code, kind, exit) in [
            (Code::InvalidArgument, "invalid", 2),
            (Code::NotFound, "not_found", 1),
            (Code::AlreadyExists, "exists", 1),
            (Code::FailedPrecondition, "precondition", 1),
            (Code::Unauthenticated, "unauthenticated", 1),
            (Code::PermissionDenied, "forbidden", 1),
            (Code::ResourceExhausted, "overloaded", 1),
            (Code::Unavailable, "unavailable", 1),
            (Code::DeadlineExceeded, "timeout", 1),
            (Code::DataLoss, "corrupt", 1),
            (Code::Internal, "internal", 1),
            (Code::Cancelled, "cancelled", 1),
        ] {
            assert_eq!(verdict(Status::new(code, "m")), ("m".into(), kind, exit));
        }
    }

    /// An error of any kind, as a server meets it.
    #[derive(Debug, thiserror::Error)]
    #[error("of some kind")]
    struct Of(ErrorKind);

    impl Fault for Of {
        fn kind(&self) -> ErrorKind {
            self.0
        }
    }

    /// An error of the code that is of this kind.
    fn real(kind: ErrorKind) -> Option<EngineError> {
        use EngineError::*;
        let name = || "a".to_owned();
        let error = match kind {
            ErrorKind::Invalid => OutOfRange { name: "k", min: 1, max: 2, got: 3 },
            ErrorKind::NotFound => NoCollection { name: name(), known: "b".into() },
            ErrorKind::Exists => CollectionExists { name: name() },
            ErrorKind::Precondition => EncoderOff,
            // No door asks who calls: the error that says so comes with the door that does.
            ErrorKind::Unauthenticated | ErrorKind::Forbidden => return None,
            ErrorKind::Overloaded => TooManyOpen { limit: 1 },
            ErrorKind::Unavailable => Closing,
            ErrorKind::Timeout => Expired,
            ErrorKind::Corrupt => Damaged { name: name(), reason: "x".into() },
            ErrorKind::Internal => Panicked { reason: "x".into() },
        };
        Some(error)
    }

    #[test]
    fn every_kind_is_told_alike_by_a_status_and_by_an_error_in_the_process() {
        for kind in ErrorKind::ALL {
            let expected = (name(kind), if kind == ErrorKind::Invalid { 2 } else { 1 });
            assert_eq!(name(kind).to_uppercase(), kind.name());
            let told = |error: anyhow::Error| {
                let (_, kind, exit) = verdict(error);
                (kind, exit)
            };
            assert_eq!(told(status::of(&Of(kind), "r").into()), expected, "of a status");
            let Some(error) = real(kind) else { continue };
            assert_eq!(error.kind(), kind);
            assert_eq!(told(status::of(&error, "r").into()), expected, "of the status of {error}");
            assert_eq!(told(anyhow::Error::from(error).context("searching")), expected, "in the process");
            let wrapped = crate::Error::from(real(kind).expect("there was one"));
            assert_eq!(told(wrapped.into()), expected, "in the process, as any error of the crate");
        }
    }

    #[test]
    fn what_is_too_large_is_wrong_use_both_ways() {
        let error = || BudgetError::AnswerTooLarge { limit: 1 };
        let status = status::of(&error(), "r");
        assert_eq!(status.code(), Code::OutOfRange);
        for (_, kind, exit) in [verdict(status), verdict(error())] {
            assert_eq!((kind, exit), ("invalid", 2));
        }
    }

    #[test]
    fn a_lost_connection_is_no_fault_of_the_server() {
        let mut status = Status::unknown("h2 protocol error: error reading a body from connection");
        status.set_source(std::sync::Arc::new(io::Error::other("connection reset")));
        let (message, kind, exit) = verdict(status);
        assert!(message.contains("(connection reset)") && message.contains("distilface serve"), "{message}");
        assert_eq!((kind, exit), ("unavailable", 1));
        let gone = Stop::ServerGone { server: "the server at x".into(), reason: "reset".into() };
        assert_eq!(verdict(gone).1, "unavailable");
    }

    #[test]
    fn causes_are_told_once() {
        let inner = || Err::<(), _>(io::Error::other("disk gone"));
        let error = inner().context("cannot read x").unwrap_err();
        assert_eq!(words(&error), "cannot read x: disk gone");
        let error = inner().context("cannot read x: disk gone").unwrap_err();
        assert_eq!(words(&error), "cannot read x: disk gone");
    }

    #[test]
    fn an_internal_fault_names_its_request() {
        let mut status = Status::internal("our bug");
        status.metadata_mut().insert("x-request-id", "abc".parse().unwrap());
        assert_eq!(verdict(status).0, "our bug (request abc; the server's log tells more)");
        assert_eq!(verdict(Status::internal("")).0, "the server answered Internal and no message");
    }

    #[test]
    fn a_server_inside_this_process_has_no_log_of_its_own() {
        for (told, expected) in [
            ("our bug", "our bug"),
            (
                "internal error; the server's log says more under request id abc",
                "internal error; the log above says more under request id abc",
            ),
        ] {
            let mut status = Status::internal(told);
            status.metadata_mut().insert("x-request-id", "abc".parse().unwrap());
            let error = of_this_process(anyhow::Error::from(status).context("searching"));
            assert_eq!(verdict(error), (format!("searching: {expected}"), "internal", 1));
        }
    }
}
