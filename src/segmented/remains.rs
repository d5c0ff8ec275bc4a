//! What lies in a collection's folder and is not, or no longer, a part of it: segments and files of deletions that were
//! cut off while they were made, or that others took the place of.
//!
//! They are looked at before anything is opened and removed after everything was, so a collection that is refused keeps
//! every file. A segment that no manifest of ours can have known is not removed but told: it may be somebody's documents.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{manifest::Manifest, sealed::Folder};
use crate::{segment, store::StoreError};

/// What [`find`] found.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// The highest version of deletions of each segment that has any.
    deletions: BTreeMap<u64, u64>,
    /// Segments that stay.
    stay: BTreeSet<u64>,
    /// Segments that the manifest does not name although their numbers were given out before it was written.
    pub(super) unknown: Vec<PathBuf>,
    /// Whole segments with numbers that were given out after the manifest was written.
    later: Vec<u64>,
    is_empty: bool,
}

/// Looks for what the manifest does not name.
pub(super) fn find(folder: &Folder, manifest: &Manifest) -> Result<Remains, StoreError> {
    let found = segment::list(&*folder.disk, &folder.dir)?;
    let named: BTreeSet<u64> = manifest.segments.iter().map(|segment| segment.number.into()).collect();
    let may_go = |number: u64| {
        number >= manifest.next_segment.into()
            || manifest.removable.iter().any(|removable| u64::from(*removable) == number)
    };
    let numbers = found.segments.iter().chain(found.deleted.keys());
    let unknown: BTreeSet<u64> =
        numbers.copied().filter(|number| !named.contains(number) && !may_go(*number)).collect();
    let path = |number: &u64| folder.dir.join(format!("{number:010}"));
    let remains = Remains {
        is_empty: found.segments.is_empty() && found.deleted.is_empty() && found.remains.is_empty(),
        deletions: found
            .deleted
            .iter()
            .filter_map(|(number, versions)| Some((*number, *versions.last()?)))
            .collect(),
        unknown: unknown.iter().map(path).collect(),
        later: found
            .segments
            .iter()
            .copied()
            .filter(|number| *number >= manifest.next_segment.into())
            .collect(),
        stay: named.union(&unknown).copied().collect(),
    };
    for path in &remains.unknown {
        tracing::warn!(path = %path.display(), "a segment lies here that the collection does not know; it is left alone");
    }
    Ok(remains)
}

impl Remains {
    /// Whether nothing of a segment lies in the folder.
    pub(super) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// The version of a segment's deletions that counts; 0 if there is none.
    pub(super) fn deletions_of(&self, number: u32) -> u64 {
        self.deletions.get(&number.into()).copied().unwrap_or(0)
    }

    /// Refuses segments whose documents nobody else knows: what a kill left before the manifest was written is of documents
    /// that are in the log, or in the segments that it was made of. `next`: every document number given out is below.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub(super) fn check_later(&self, folder: &Folder, next: u64) -> Result<(), StoreError> {
        for number in &self.later {
            // One that cannot be opened was not finished, or is damaged, and nothing is known of it.
            let last = folder.last_of(*number);
            if last.is_some_and(|last| last >= next) {
                let reason = format!(
                    "the segment {number:010} beside it has documents that neither it nor the log knows: it is of an earlier time; put the newest folder of this collection back"
                );
                return Err(StoreError::corrupt(&Manifest::path(&folder.dir), reason));
            }
        }
        Ok(())
    }

    /// Removes what is of nobody.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what is left goes the next time.
    pub(super) fn remove(&self, folder: &Folder) -> Result<(), StoreError> {
        segment::clean(&*folder.disk, &folder.dir, |number| self.stay.contains(&number))?;
        Ok(())
    }
}
