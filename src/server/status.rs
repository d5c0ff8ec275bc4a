//! Makes a `tonic::Status` of any [`Fault`]; the only file where a status is made.
//!
//! Promises: a client that knows only the code can act, one that reads the details can act better
//! (`ErrorInfo` with the kind, `RequestInfo`, `RetryInfo` where waiting helps, `BadRequest` where a field is to
//! blame). What is our fault is logged in full and told in one sentence with the request's id.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    api::{ApiError, log_if_ours},
    error::{ErrorKind, Fault, with_sources},
};

/// `ErrorInfo.domain` of every failure.
pub(crate) const DOMAIN: &str = "distilface";

/// Longest message in bytes. It travels in an HTTP/2 header, and many clients refuse more than 8 KiB of those.
const MESSAGE_BYTES_MAX: usize = 2048;

/// What a client hears of a failure. Logs it, if it is ours.
pub(crate) fn of(error: &dyn Fault, request_id: &str) -> Status {
    let kind = error.kind();
    // As gRPC libraries say it; unlike RESOURCE_EXHAUSTED nobody retries it.
    let code = if error.is_too_large() { Code::OutOfRange } else { code(kind) };
    let message = if error.is_for_callers() {
        with_sources(error)
    } else {
        log_if_ours(error, request_id);
        let what = if kind == ErrorKind::Corrupt { "stored data is damaged" } else { "internal error" };
        format!("{what}; the server's log says more under request id {request_id}")
    };
    let mut details = ErrorDetails::new();
    details
        .set_error_info(kind.name(), DOMAIN, std::collections::HashMap::new())
        .set_request_info(request_id, "");
    if let Some(delay) = error.retry_after() {
        details.set_retry_info(Some(delay));
    }
    if let Some(field) = error.field() {
        details.add_bad_request_violation(field, cut(&message));
    }
    Status::with_error_details(code, cut(&message), details)
}

/// What tonic meant when it refused a message before any code of ours saw it. It does so without details, which every
/// status of ours has; `place` says which message it was.
pub(crate) fn of_transport(status: &Status, message_bytes_max: usize, place: &str) -> Option<ApiError> {
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        Code::OutOfRange => Some(ApiError::MessageTooLarge { limit: message_bytes_max }),
        Code::Internal => {
            // What the decoder says names fields and no contents.
            let reason = status.message().trim_start_matches("failed to decode Protobuf message: ");
            Some(ApiError::Malformed { reason: format!("{place}: {}", cut(reason)) })
        }
        _ => None,
    }
}

/// A status that no client gets, for the metrics.
pub(crate) fn bare(code: Code) -> Status {
    Status::new(code, "")
}

/// A message for the log: short, and without what stands in quotes, since that may be a client's text.
pub(crate) fn without_texts(message: &str) -> String {
    const CHARS_MAX: usize = 200;
    let mut told = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in message.chars() {
        match c {
            '"' if !escaped => {
                quoted = !quoted;
                told.push_str(if quoted { "\"…" } else { "\"" });
            }
            _ if quoted => {}
            c => told.push(if c.is_control() { ' ' } else { c }),
        }
        escaped = c == '\\' && !escaped;
    }
    match told.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &told[..end]),
        None => told,
    }
}

/// House style, section 4.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Exists => Code::AlreadyExists,
        ErrorKind::Precondition => Code::FailedPrecondition,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::Overloaded => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}

fn cut(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let mut end = MESSAGE_BYTES_MAX;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

/// The name of a code as the gRPC specification writes it, for metrics and logs.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fmt};

    use super::*;
    use crate::{
        collection::CollectionError, engine::EngineError, server::ServerError, store::StoreError,
        value::filter::FilterError,
    };

    /// An error of any kind, with a text that only some callers may read.
    #[derive(Debug)]
    struct Of(ErrorKind);

    impl fmt::Display for Of {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("secret-word")
        }
    }

    impl std::error::Error for Of {}

    impl Fault for Of {
        fn kind(&self) -> ErrorKind {
            self.0
        }
    }

    #[test]
    fn every_kind_has_its_own_code_and_names_itself_and_the_request() {
        let mut codes = HashSet::new();
        for kind in ErrorKind::ALL {
            let status = of(&Of(kind), "r-1");
            assert!(codes.insert(status.code()), "{kind:?} shares its code");
            let details = status.get_error_details();
            let info = details.error_info().expect("every failure says its kind");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (kind.name(), DOMAIN));
            assert_eq!(details.request_info().expect("every failure names its request").request_id, "r-1");
            assert_eq!(details.retry_info().is_some(), kind == ErrorKind::Overloaded);
        }
    }

    #[test]
    fn what_is_our_fault_is_told_without_its_insides() {
        for kind in ErrorKind::ALL {
            let message = of(&Of(kind), "r-1").message().to_owned();
            match kind {
                ErrorKind::Internal | ErrorKind::Corrupt => {
                    assert!(!message.contains("secret-word") && message.contains("r-1"), "{message}");
                }
                _ => assert!(message.contains("secret-word"), "{message}"),
            }
        }
    }

    #[test]
    fn a_damaged_collection_is_told_with_its_file() {
        let error =
            EngineError::Damaged { name: "a".into(), reason: "/db/x is cut short; restore it".into() };
        let status = of(&error, "r");
        assert_eq!(status.code(), Code::DataLoss);
        assert!(status.message().contains("\"a\" is damaged: /db/x is cut short; restore it"), "{status}");
    }

    #[test]
    fn a_bad_field_is_named_in_the_details() {
        let filter = FilterError::Syntax { position: 3, message: "no".into() };
        let of_collection = EngineError::from(CollectionError::from(filter.clone()));
        for (error, field) in [
            (ApiError::field("query", "it is missing"), "query"),
            (EngineError::OutOfRange { name: "k", min: 1, max: 2, got: 0 }.into(), "k"),
            (filter.into(), "filter"),
            (of_collection.into(), "filter"),
        ] {
            let details = of(&error, "r").get_error_details();
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
        }
    }

    #[test]
    fn the_log_hears_no_texts() {
        assert_eq!(
            without_texts("document \"a \\\"secret\\\" id\": the field \"x\" is\nwrong"),
            "document \"…\": the field \"…\" is wrong"
        );
        let long = without_texts(&"ä".repeat(500));
        assert_eq!((long.chars().count(), long.ends_with('…')), (201, true));
    }

    #[test]
    fn what_tonic_refuses_is_told_in_our_words() {
        let refused =
            Status::new(Code::Internal, "failed to decode Protobuf message: Document.text: not UTF-8");
        let error = of_transport(&refused, 10, "message 3 of the stream").unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let status = of(&error, "r");
        assert_eq!(status.code(), Code::InvalidArgument);
        for word in ["message 3", "Document.text", "not UTF-8"] {
            assert!(status.message().contains(word), "{status}");
        }
        // A failure of ours that is internal stays so.
        let ours = of(&Of(ErrorKind::Internal), "r");
        assert!(of_transport(&ours, 10, "the request").is_none());
        let large = of_transport(&bare(Code::OutOfRange), 10, "the request").unwrap();
        assert_eq!(of(&large, "r").code(), Code::OutOfRange);
    }

    #[test]
    fn sources_are_told_once() {
        let source = std::io::Error::other("no such device");
        let error = ServerError::Bind {
            address: ([127, 0, 0, 1], 1).into(),
            setting: "server.listen (--listen)",
            source,
        };
        assert_eq!(with_sources(&error).matches("no such device").count(), 1);
        let source = std::io::Error::other("no such device");
        let error = StoreError::Io { path: "f".into(), source };
        assert!(with_sources(&error).ends_with(": no such device"), "{}", with_sources(&error));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let status = of(&EngineError::BadRequest { reason: "ä".repeat(MESSAGE_BYTES_MAX) }, "r");
        assert!(status.message().len() <= MESSAGE_BYTES_MAX + 3 && status.message().ends_with('…'));
    }
}
