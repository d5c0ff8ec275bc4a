//! Reads everything that is kept of a collection and says what is not as it was written. It changes nothing.
//!
//! What is read is judged by what an opening would do with it: the same reading of the log, of the manifest, of segments
//! and deletions, and the same meaning of entries. Beyond that every byte of every segment is read, every entry is
//! taken apart, and no id may be there twice.
//!
//! In memory is what an opening would have there: places of entries, and documents that no segment holds, without
//! their texts and vectors.
//!
//! | file | what |
//! |---|---|
//! | `log.rs` | the log of the folder |
//! | `examined.rs` | manifest, segments and deletions |
//! | `replay.rs` | what the log says after them |
//! | `twice.rs` | ids that are there more than once |

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{manifest::Manifest, sealed::SPACE};
use crate::{
    files::disk::Disk,
    segment::Space,
    stop::{Stop, Stopped},
    store::{Identity, StoreError},
    vector::{Dim, Metric},
};

mod examined;
mod log;
mod replay;
pub(super) mod twice;

pub(super) use examined::{Examined, Piece, State};
pub(crate) use log::{LogSeen, OrphanSeen};
pub(super) use replay::{Grown, Replay, id_of_put};

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file, or the folder.
    pub(crate) file: PathBuf,
    /// Where in the file it begins, if it is a place.
    pub(crate) offset: Option<u64>,
    /// What is wrong there.
    pub(crate) reason: String,
    /// What to do about it.
    pub(crate) remedy: String,
    /// Whether a repair can do something about it.
    pub(crate) is_repairable: bool,
}

impl Fault {
    /// What to do where a repair helps.
    pub(crate) const REPAIR: &'static str = "`distilface repair` says what would be lost and with --yes keeps the rest; a backup of the whole data folder has all of it";

    pub(crate) fn repairable(file: &Path, offset: Option<u64>, reason: impl Into<String>) -> Self {
        let (file, reason, remedy) = (file.to_owned(), reason.into(), Self::REPAIR.to_owned());
        Fault { file, offset, reason, remedy, is_repairable: true }
    }

    /// Something that a later version wrote.
    pub(crate) fn newer(file: &Path, error: &impl std::fmt::Display) -> Self {
        let text = error.to_string();
        let rest = text.strip_prefix(&*file.to_string_lossy()).map(|rest| format!("it{rest}"));
        Self::hopeless(file, rest.unwrap_or(text), "use the version of distilface that wrote it")
    }

    pub(crate) fn hopeless(file: &Path, reason: impl Into<String>, remedy: &str) -> Self {
        let (file, reason, remedy) = (file.to_owned(), reason.into(), remedy.to_owned());
        Fault { file, offset: None, reason, remedy, is_repairable: false }
    }
}

/// A collection to be read.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// As its description says; `None` where an earlier version wrote that.
    pub(crate) identity: Option<Identity>,
    pub(crate) space: Space,
}

impl Known {
    /// The collection in `dir`, with vectors of the model of `fingerprint`.
    pub(crate) fn new(
        dir: &Path,
        identity: Option<Identity>,
        dim: Dim,
        metric: Metric,
        fingerprint: String,
    ) -> Self {
        Known { dir: dir.to_owned(), identity, space: Space { number: SPACE, dim, metric, fingerprint } }
    }
}

/// Which collection the segments in a folder are of, as far as their manifest can be read.
pub(crate) fn identity_in(disk: &dyn Disk, dir: &Path) -> Option<Identity> {
    Manifest::look(disk, dir).ok().flatten().map(|(identity, _)| identity)
}

/// What reading a collection found.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Which it is, and the entry of the log that its segments hold everything up to.
    pub(crate) covers: Option<(Identity, u64)>,
    /// Documents that are not deleted; those of damaged segments as the manifest counts them.
    pub(crate) documents: u64,
    /// Their passages.
    pub(crate) passages: u64,
    pub(crate) segments: usize,
    pub(crate) faults: Vec<Fault>,
    pub(crate) notes: Vec<String>,
}

/// The error of what was told to stop.
pub(super) fn system(path: &Path, stopped: Stopped) -> StoreError {
    StoreError::io(path, io::Error::other(stopped))
}

/// Reads all that is kept of a collection.
///
/// # Errors
/// [`StoreError::Io`] if it was told to stop; [`StoreError::NoHandle`]. Damage is no error.
pub(crate) fn verify(
    disk: &Arc<dyn Disk>,
    log: &LogSeen,
    known: &Known,
    stop: &Stop,
) -> Result<Checked, StoreError> {
    let mut examined = Examined::of(disk, log, known, stop)?;
    if examined.identity.is_none() {
        let Examined { faults, notes, .. } = examined;
        return Ok(Checked { covers: None, documents: 0, passages: 0, segments: 0, faults, notes });
    }
    let replay = examined.replay(log, &|_| false, false)?;
    examined.bury(&replay)?;
    examined.find_twice(&replay)?;
    let (mut documents, mut passages) = (0, 0);
    for piece in &examined.pieces {
        let (live, live_passages) = match &piece.state {
            State::Whole(part) => (part.live(), part.live_passages),
            State::Broken { .. } => (piece.named.live.into(), piece.named.live_passages),
        };
        documents += live;
        passages += live_passages;
    }
    for grown in replay.grown.values() {
        documents += 1;
        passages += u64::from(grown.passages);
    }
    let Examined { identity, pieces, faults, notes, .. } = examined;
    let covers = identity.map(|identity| (identity, replay.covered));
    Ok(Checked { covers, documents, passages, segments: pieces.len(), faults, notes })
}
