#![doc = include_str!("FORMAT.md")]

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{
    error::{ErrorKind, Fault},
    files::disk,
    handles,
    stop::Stopped,
    store::Identity,
    value::{Payload, PointId, filter::FilterError},
    vector::{Dim, Metric},
};

mod adopt;
mod blocks;
mod builder;
mod cache;
mod columns;
mod deleted;
mod documents;
mod file;
mod folder;
mod merge;
mod reader;
mod salvage;
#[cfg(test)]
mod tests;
mod vectors;
mod verify;
mod write;

pub(crate) use adopt::Adopt;
pub(crate) use builder::{Builder, Limits};
pub(crate) use cache::BlockCache;
pub(crate) use columns::{Columns, Living};
pub(crate) use deleted::Deleted;
pub(crate) use documents::{Body, Head, Scroll};
pub(crate) use folder::{Found, clean, deleted_name, list, name_of, owner_of, remove};
#[cfg(test)]
pub(crate) use merge::Merged;
pub(crate) use merge::{Merge, Source};
pub(crate) use reader::Segment;
pub(crate) use salvage::Salvage;
pub(crate) use vectors::Vectors;
pub(crate) use verify::Damage;

/// Number of a document in its segment, from 0, in the order in which they were pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Row(pub(crate) u32);

/// A vector space: what its vectors are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Space {
    /// Names the space in its collection, and its file.
    pub(crate) number: u32,
    pub(crate) dim: Dim,
    pub(crate) metric: Metric,
    /// Of the model that made the vectors; empty where nobody knows. At most [`vectors::FINGERPRINT_BYTES_MAX`] bytes.
    pub(crate) fingerprint: String,
}

/// Which segment: its collection and its number there, which is never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) collection: Identity,
    pub(crate) number: u64,
}

/// A document as it is pushed into a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Document<'a> {
    pub(crate) id: &'a PointId,
    pub(crate) title: &'a str,
    pub(crate) text: &'a str,
    pub(crate) payload: &'a Payload,
    pub(crate) content_hash: [u8; 16],
    /// Sequence of the write.
    pub(crate) version: u64,
    /// Microseconds since 1970.
    pub(crate) written_at: i64,
    /// From when on the document counts as gone, in microseconds since 1970.
    pub(crate) expires_at: Option<i64>,
    /// Bytes of the text, one range per passage.
    pub(crate) passages: &'a [Range<u32>],
    /// For every space, in the builder's order, a vector for every passage.
    pub(crate) vectors: &'a [Vec<&'a [f32]>],
}

/// Why a segment cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SegmentError {
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Corrupt { path: PathBuf, offset: u64, reason: String },
    #[error("{} was written by a newer version (format {got}, this program reads up to {supported})", path.display())]
    NewerFormat { path: PathBuf, got: u16, supported: u16 },
    #[error("{} is not the file that belongs here: it is {got}, and this place is that of {expected}", path.display())]
    Foreign { path: PathBuf, got: String, expected: String },
    #[error("the disk is full: {} cannot grow; free some space, reads and deletes go on", path.display())]
    DiskFull { path: PathBuf },
    #[error("{} cannot be opened: as many files are open as may be (ulimit -n); retry later, or start the server with a higher limit", path.display())]
    NoHandle { path: PathBuf },
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("two documents of one segment have the id {id:?}")]
    Duplicate { id: String },
    #[error("a segment cannot take the document {id:?}: {reason}")]
    Unfit { id: String, reason: String },
    #[error("the segment is full: it holds as many {what} as one can")]
    Full { what: &'static str },
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl SegmentError {
    fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        SegmentError::Corrupt { path: path.to_owned(), offset, reason: reason.into() }
    }

    /// What the system says of a file: no room, no handle, or whatever else.
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if handles::none_left(&source) {
            SegmentError::NoHandle { path }
        } else if disk::is_no_room(&source) {
            SegmentError::DiskFull { path }
        } else {
            SegmentError::Io { path, source }
        }
    }

    /// The same for a file of a segment that is there: one that is missing, or something else in its place, is damage.
    fn reading(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => SegmentError::corrupt(path, 0, "it is missing"),
            io::ErrorKind::UnexpectedEof => SegmentError::corrupt(path, 0, "it is cut short"),
            io::ErrorKind::InvalidInput => SegmentError::corrupt(path, 0, source.to_string()),
            _ => SegmentError::io(path, source),
        }
    }
}

impl Fault for SegmentError {
    fn kind(&self) -> ErrorKind {
        match self {
            SegmentError::Corrupt { .. } | SegmentError::Foreign { .. } => ErrorKind::Corrupt,
            SegmentError::NewerFormat { .. } => ErrorKind::Precondition,
            SegmentError::DiskFull { .. } | SegmentError::NoHandle { .. } => ErrorKind::Overloaded,
            SegmentError::Io { .. }
            | SegmentError::Duplicate { .. }
            | SegmentError::Unfit { .. }
            | SegmentError::Full { .. } => ErrorKind::Internal,
            SegmentError::Stopped(_) => ErrorKind::Timeout,
            SegmentError::Filter(error) => error.kind(),
        }
    }
}
