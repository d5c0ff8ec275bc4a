//! What the manifests in a data folder say, before anything is opened.

use std::{collections::BTreeMap, io, path::Path};

use super::id_of;
use crate::{
    files::disk::{Disk, EntryKind},
    log, segment,
    segmented::manifest::Manifest,
    store::{Identity, StoreError},
};

/// What the manifests in a data folder say, before anything is opened.
pub(super) struct Manifests {
    found: Vec<(Identity, Manifest)>,
    /// Whether every manifest could be read.
    pub(super) is_complete: bool,
}

impl Manifests {
    pub(super) fn look(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        let mut manifests = Manifests { found: Vec::new(), is_complete: true };
        let entries = match disk.list(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(manifests),
            entries => entries.map_err(|e| StoreError::io(dir, e))?,
        };
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Dir) {
            match Manifest::look(disk, &dir.join(&entry.name)) {
                Ok(Some(found)) => manifests.found.push(found),
                // Segments whose manifest is lost, and may come back.
                Ok(None) => {
                    let found = segment::list(disk, &dir.join(&entry.name))?;
                    manifests.is_complete &= found.segments.is_empty();
                }
                // Whoever opens it is told why.
                Err(_) => manifests.is_complete = false,
            }
        }
        Ok(manifests)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.is_complete
    }

    /// What those that belong to a log say: the highest sequence that is covered; and by number in the log the identity
    /// and the sequence that is covered. Where a folder was copied there are several of one collection: the entries
    /// stay that any of them needs.
    pub(super) fn of(&self, log: &log::Identity) -> (u64, BTreeMap<u64, (Identity, u64)>) {
        let mut folders: BTreeMap<u64, (Identity, u64)> = BTreeMap::new();
        let mut covered = 0;
        for (identity, manifest) in self.found.iter().filter(|(_, manifest)| manifest.log == *log) {
            covered = covered.max(manifest.covered);
            let (_, least) = folders.entry(id_of(*identity)).or_insert((*identity, manifest.covered));
            *least = (*least).min(manifest.covered);
        }
        (covered, folders)
    }
}
