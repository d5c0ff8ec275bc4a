//! What 0 stands for in a number of a request that has a range.
//!
//! A number that a client leaves out arrives as 0, and in these fields it means a default, though the engine's range
//! does not hold 0 or holds it as a number. Who is told the range is told this too.

use crate::{engine::EngineError, index::IndexError};

/// Documents of a page where the client names no number; fewer where the server allows fewer.
pub(crate) const SCROLL_LIMIT: u32 = 100;

/// What 0 means in the field that this error is about; `None` for any other error, and where 0 is a number like others.
pub(crate) fn meaning(error: &EngineError) -> Option<&'static str> {
    Some(match error {
        EngineError::OutOfRange { name: "limit", .. } => "100, or as many as are allowed",
        EngineError::OutOfRange { name: "ef", .. } => "the collection's ef_search",
        EngineError::OutOfRange { name: "chunking.max_tokens", .. } => {
            "the default, 254 or as many as the model takes"
        }
        EngineError::OutOfRange { name: "chunking.overlap_tokens", .. } => {
            "the default, an eighth of max_tokens"
        }
        EngineError::Index(IndexError::Param { .. }) => "the default",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::ApiError,
        engine::CHUNK_TOKENS_DEFAULT,
        error::{ErrorKind, Fault},
    };

    fn out_of(name: &'static str, min: u64, max: u64, got: u64) -> EngineError {
        EngineError::OutOfRange { name, min, max, got }
    }

    #[test]
    fn a_range_says_what_is_allowed_and_what_zero_means() {
        let m = IndexError::Param { name: "index.m", min: 2, max: 128, got: 65_552 };
        for (error, said) in [
            (
                out_of("limit", 1, 1024, 2000),
                "limit must be between 1 and 1024, got 2000; 0 means 100, or as many as are allowed",
            ),
            (
                out_of("ef", 1, 4096, 5000),
                "ef must be between 1 and 4096, got 5000; 0 means the collection's ef_search",
            ),
            (
                out_of("chunking.max_tokens", 1, 510, 511),
                "chunking.max_tokens must be between 1 and 510, got 511; 0 means the default, 254 or as many as the model takes",
            ),
            (
                out_of("chunking.overlap_tokens", 0, 31, 32),
                "chunking.overlap_tokens must be at most 31, got 32; 0 means the default, an eighth of max_tokens",
            ),
            (m.into(), "index.m must be between 2 and 128, got 65552; 0 means the default"),
            // Here 0 is a number like others, or none that is allowed.
            (out_of("k", 1, 1000, 0), "k must be between 1 and 1000, got 0"),
            (
                out_of("the number of documents", 0, 1024, 1025),
                "the number of documents must be at most 1024, got 1025",
            ),
            (out_of("the number of ids", 1, 1, 2), "the number of ids must be 1, got 2"),
        ] {
            let error = ApiError::from(error);
            let (field, _) = said.split_once(" must be ").unwrap();
            assert_eq!(error.to_string(), said);
            assert_eq!((error.kind(), error.field()), (ErrorKind::Invalid, Some(field)));
            assert!(error.is_for_callers());
        }
        let tokens = CHUNK_TOKENS_DEFAULT.to_string();
        assert!(meaning(&out_of("chunking.max_tokens", 1, 2, 3)).unwrap().contains(&tokens));
        assert!(meaning(&out_of("limit", 1, 2, 3)).unwrap().contains(&SCROLL_LIMIT.to_string()));
    }
}
