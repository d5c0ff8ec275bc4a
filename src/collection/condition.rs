//! What must be stored under an id for a write to be done, and why a write is refused where it is not.
//!
//! The writer asks this at the moment of the write, when nobody else can change the document; whoever asks before that
//! saves itself work and decides nothing.

use super::CollectionError;
use crate::value::PointId;

/// What must be stored under a write's id for the write to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Whatever is stored, or nothing. The default.
    #[default]
    Any,
    /// Nothing is stored: the write makes a new document.
    Absent,
    /// Some document is stored: the write replaces it.
    Present,
    /// The document has this version, so nobody has changed it since it was read; see
    /// [`super::point::Revision::version`].
    Version(u64),
}

impl Condition {
    /// Whether a write may be done where `stored` is the version under its id, or `None` where nothing is stored.
    ///
    /// ```
    /// use distilface::collection::Condition;
    /// use distilface::value::PointId;
    ///
    /// let id = PointId::new("a").unwrap();
    /// assert!(Condition::Version(7).check(&id, Some(7)).is_ok());
    /// assert!(Condition::Absent.check(&id, Some(7)).is_err());
    /// ```
    ///
    /// # Errors
    /// [`CollectionError::Exists`], [`CollectionError::NothingToReplace`], [`CollectionError::OtherVersion`],
    /// [`CollectionError::Gone`].
    pub fn check(self, id: &PointId, stored: Option<u64>) -> Result<(), CollectionError> {
        let id = || id.as_str().to_owned();
        match (self, stored) {
            (Condition::Absent, Some(version)) => Err(CollectionError::Exists { id: id(), version }),
            (Condition::Present, None) => Err(CollectionError::NothingToReplace { id: id() }),
            (Condition::Version(expected), None) => Err(CollectionError::Gone { id: id(), expected }),
            (Condition::Version(expected), Some(stored)) if stored != expected => {
                Err(CollectionError::OtherVersion { id: id(), expected, stored })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Fault as _};

    #[test]
    fn each_condition_fits_what_it_says_and_nothing_else() {
        let id = PointId::new("a").unwrap();
        for (condition, nothing, five, six) in [
            (Condition::Any, None, None, None),
            (Condition::Absent, None, Some(ErrorKind::Exists), Some(ErrorKind::Exists)),
            (Condition::Present, Some(ErrorKind::NotFound), None, None),
            (Condition::Version(5), Some(ErrorKind::Precondition), None, Some(ErrorKind::Precondition)),
        ] {
            let refused = |stored| condition.check(&id, stored).err().map(|error| error.kind());
            assert_eq!(
                [refused(None), refused(Some(5)), refused(Some(6))],
                [nothing, five, six],
                "{condition:?}"
            );
        }
    }

    #[test]
    fn a_refusal_names_the_document_the_field_and_what_to_do() {
        let id = PointId::new("a").unwrap();
        for (condition, stored, field, words) in [
            (Condition::Absent, Some(5), "mode", &["\"a\"", "version 5", "another id"][..]),
            (Condition::Present, None, "mode", &["\"a\"", "insert it"]),
            (
                Condition::Version(7),
                Some(9),
                "expected_version",
                &["\"a\"", "version 9", "not 7", "read it again"],
            ),
            (Condition::Version(7), None, "expected_version", &["\"a\"", "version 7", "read it again"]),
        ] {
            let error = condition.check(&id, stored).unwrap_err();
            assert_eq!(error.field(), Some(field), "{error}");
            assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
        }
    }
}
