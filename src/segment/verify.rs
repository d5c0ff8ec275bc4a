//! What is wrong with a segment, found by reading all of it.

use std::path::PathBuf;

use super::SegmentError;

/// Most damages that are reported of one segment: a device that is gone would fill memory with them.
const DAMAGES_MAX: usize = 1000;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) path: PathBuf,
    /// Byte of the file.
    pub(crate) offset: u64,
    /// The section, where it is known, and what is wrong with it.
    pub(crate) reason: String,
}

impl Damage {
    /// Adds what an error says, if it tells of damage; gives any other error back.
    pub(super) fn note(error: SegmentError, damages: &mut Vec<Damage>) -> Result<(), SegmentError> {
        let damage = match error {
            SegmentError::Corrupt { path, offset, reason } => Damage { path, offset, reason },
            SegmentError::NewerFormat { ref path, .. } | SegmentError::Foreign { ref path, .. } => {
                Damage { path: path.clone(), offset: 0, reason: error.to_string() }
            }
            SegmentError::Io { path, source } => {
                Damage { path, offset: 0, reason: format!("it cannot be read: {source}") }
            }
            error => return Err(error),
        };
        if damages.len() < DAMAGES_MAX && !damages.contains(&damage) {
            damages.push(damage);
        }
        Ok(())
    }
}
