//! Whether the documents of a run are to be new, to replace stored ones, or either.

use crate::proto::{DocumentResult, WriteMode, WriteStatus};

/// How documents are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// Make new documents and replace stored ones of the same id
    #[default]
    Upsert,
    /// Only make new documents: one whose id is taken is refused
    Insert,
    /// Only replace stored documents: one whose id is not there is refused
    Replace,
}

impl Mode {
    /// The mode of a request.
    pub fn to_wire(self) -> WriteMode {
        match self {
            Mode::Upsert => WriteMode::Any,
            Mode::Insert => WriteMode::InsertOnly,
            Mode::Replace => WriteMode::ReplaceOnly,
        }
    }

    /// Whether a document was not written since this mode does not fit what is stored, and for no other reason.
    pub fn refused(self, result: &DocumentResult) -> bool {
        let kind = match self {
            Mode::Upsert => return false,
            Mode::Insert => "EXISTS",
            Mode::Replace => "NOT_FOUND",
        };
        result.status() == WriteStatus::Failed && result.error_kind == kind
    }

    /// What running the same command again does with a document that is stored.
    pub fn again(self) -> &'static str {
        match self {
            Mode::Upsert | Mode::Replace => "what is stored is skipped",
            Mode::Insert => "what is stored is refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_mode_itself_refuses_counts_as_refused() {
        let result = |status: WriteStatus, kind: &str| DocumentResult {
            status: status.into(),
            error_kind: kind.to_owned(),
            ..Default::default()
        };
        let (exists, missing) = ("EXISTS", "NOT_FOUND");
        for (mode, kind, refused) in [
            (Mode::Upsert, exists, false),
            (Mode::Upsert, missing, false),
            (Mode::Insert, exists, true),
            (Mode::Insert, missing, false),
            (Mode::Replace, missing, true),
            (Mode::Replace, exists, false),
            (Mode::Insert, "INVALID", false),
            (Mode::Replace, "", false),
        ] {
            assert_eq!(mode.refused(&result(WriteStatus::Failed, kind)), refused, "{mode:?} {kind}");
            assert!(!mode.refused(&result(WriteStatus::Inserted, kind)), "{mode:?} {kind}");
        }
    }
}
