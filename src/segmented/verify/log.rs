//! The log of a data folder, read whole and left as it is: whose entries it has, where they are, and what is damaged.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Fault, system};
use crate::{
    files::disk::{Disk, EntryKind},
    log::{self, Damage, Log, LogError, Looked, Seen, Sequence},
    segmented::{
        entries::{ANNOUNCED, GONE},
        logs::{FOLDER_FILE, LOG_DIR, Place, id_of, read_folder_file},
        manifest::Manifest,
    },
    stop::Stop,
    store::{Identity, StoreError},
};

/// An entry whose bytes are damaged.
#[derive(Debug, Clone)]
pub(in crate::segmented) struct LostEntry {
    pub(in crate::segmented) sequence: u64,
    pub(in crate::segmented) path: Arc<Path>,
    pub(in crate::segmented) offset: u64,
}

/// What the log has of a collection.
#[derive(Debug, Default)]
pub(in crate::segmented) struct OfCollection {
    pub(in crate::segmented) identity: Option<Identity>,
    pub(in crate::segmented) places: Vec<Place>,
    pub(in crate::segmented) lost: Vec<LostEntry>,
    /// Its last entry says that it was deleted.
    pub(in crate::segmented) is_deleted: bool,
}

/// What a look at the log found.
#[derive(Debug)]
pub(crate) struct LogSeen {
    /// Folder of the log.
    pub(in crate::segmented) dir: PathBuf,
    /// Identity and first needed entry, as far as they are known.
    pub(in crate::segmented) head: Option<(log::Identity, u64)>,
    /// Of the entry that will be written next.
    pub(in crate::segmented) next: u64,
    pub(in crate::segmented) damages: Vec<Damage>,
    pub(in crate::segmented) collections: BTreeMap<u64, OfCollection>,
    /// Why no server can open it; then every collection is refused.
    pub(crate) faults: Vec<Fault>,
    /// Files that have the name of one of the log's and are none.
    pub(in crate::segmented) foreign: Vec<PathBuf>,
    /// The entry that an opening begins with.
    pub(in crate::segmented) opened_from: u64,
    /// The file `log/folder` must be written anew.
    pub(in crate::segmented) is_headless: bool,
    pub(crate) notes: Vec<String>,
    /// Files.
    pub(crate) files: usize,
    /// Entries that were read.
    pub(crate) entries: u64,
}

impl LogSeen {
    /// Reads the log of the data folder `root`, whose collections' folders are `dirs`.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it was told to stop, or a folder cannot be listed. Damage is no error.
    pub(crate) fn read(
        disk: &Arc<dyn Disk>,
        root: &Path,
        dirs: &[PathBuf],
        stop: &Stop,
    ) -> Result<Self, StoreError> {
        let dir = root.join(LOG_DIR);
        let manifests: Vec<Manifest> = dirs
            .iter()
            .filter_map(|dir| Manifest::look(&**disk, dir).ok()?)
            .map(|(_, manifest)| manifest)
            .collect();
        let mut seen = LogSeen {
            head: None,
            next: 1,
            damages: Vec::new(),
            collections: BTreeMap::new(),
            faults: Vec::new(),
            foreign: Vec::new(),
            opened_from: 1,
            is_headless: false,
            notes: Vec::new(),
            files: 0,
            entries: 0,
            dir,
        };
        seen.read_head(disk, &manifests)?;
        let own = manifests.iter().filter(|manifest| Some(manifest.log) == seen.identity());
        let covered = own.map(|manifest| manifest.covered).max().unwrap_or(0);
        seen.next = covered + 1;
        let Some((identity, from)) = seen.head else { return Ok(seen) };
        let looked = loop {
            let looked = seen.walk(disk, identity, from).and_then(|looked| {
                seen.opened_from = from;
                if looked.next.0 > covered {
                    return Ok(looked);
                }
                // As an opening does: it must not give those sequences out again.
                seen.opened_from = covered + 1;
                let from = Sequence(seen.opened_from);
                Log::look(disk, &seen.dir, &identity, from, &seen.foreign, &mut |_| {})
            });
            stop.check().map_err(|stopped| system(root, stopped))?;
            match looked {
                Err(error @ (LogError::NotOurs { .. } | LogError::OtherFolder { .. })) => {
                    // No opening goes past it. What else there is becomes known all the same.
                    let fault = fault_of(error)?;
                    seen.foreign.push(fault.file.clone());
                    seen.faults.push(fault);
                }
                looked => break looked,
            }
        };
        match looked {
            Ok(Looked { damages, torn, next, files }) => {
                seen.damages = damages;
                seen.next = next.0;
                seen.files = files.len();
                seen.notes.extend(torn.map(|(file, offset, bytes)| {
                    format!(
                        "{}: {bytes} bytes from byte {offset} on are of writes that a kill or the loss of power cut off before they were synced; the next start removes them",
                        file.display()
                    )
                }));
            }
            Err(error) => seen.faults.push(fault_of(error)?),
        }
        Ok(seen)
    }

    /// What the file `log/folder` says, or what can be told without it.
    fn read_head(&mut self, disk: &Arc<dyn Disk>, manifests: &[Manifest]) -> Result<(), StoreError> {
        let path = self.dir.join(FOLDER_FILE);
        let fault = match read_folder_file(&**disk, &self.dir) {
            Ok(Some(head)) => {
                self.head = Some(head);
                return Ok(());
            }
            Ok(None) if manifests.is_empty() && !has_files(&**disk, &self.dir)? => return Ok(()),
            Ok(None) => Fault::repairable(&path, None, "it is missing"),
            Err(StoreError::Corrupt { reason, .. }) => {
                let reason = reason.split("; ").next().unwrap_or(&reason).to_owned();
                Fault::repairable(&path, Some(0), reason)
            }
            Err(StoreError::Io { source, .. }) => {
                Fault::repairable(&path, Some(0), format!("it cannot be read: {source}"))
            }
            Err(error @ StoreError::NewerFormat { .. }) => {
                self.faults.push(Fault::newer(&path, &error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.faults.push(fault);
        self.is_headless = true;
        let found = Log::identify(&**disk, &self.dir).map_err(StoreError::from)?;
        // Where there is no file to tell, the log is begun anew as the one that the collections belong to.
        let known = || manifests.first().map_or_else(|| Identity::draw().0, |manifest| manifest.log);
        let (identity, first) = found.unwrap_or_else(|| (known(), Sequence::FIRST));
        self.head = Some((identity, first.0));
        Ok(())
    }

    fn walk(&mut self, disk: &Arc<dyn Disk>, identity: log::Identity, from: u64) -> Result<Looked, LogError> {
        let mut paths: Vec<Arc<Path>> = Vec::new();
        (self.collections, self.entries) = (BTreeMap::new(), 0);
        let (collections, count) = (&mut self.collections, &mut self.entries);
        let mut shared = |file: &Path| match paths.last() {
            Some(last) if **last == *file => Arc::clone(last),
            _ => {
                let path: Arc<Path> = Arc::from(file);
                paths.push(Arc::clone(&path));
                path
            }
        };
        Log::look(disk, &self.dir, &identity, Sequence(from), &self.foreign, &mut |seen| match seen {
            Seen::Lost(lost) => {
                let of = collections.entry(lost.collection).or_default();
                let (sequence, path, offset) = (lost.sequence.0, shared(lost.file), lost.offset);
                of.lost.push(LostEntry { sequence, path, offset });
            }
            Seen::Entry(entry) => {
                *count += 1;
                let of = collections.entry(entry.collection).or_default();
                if entry.kind == ANNOUNCED
                    && let Ok(identity) = entry.bytes.try_into()
                {
                    of.identity = Some(Identity(identity));
                }
                of.is_deleted = entry.kind == GONE;
                if of.is_deleted {
                    of.places.clear();
                    of.lost.clear();
                    return;
                }
                of.places.push(Place {
                    sequence: entry.sequence.0,
                    kind: entry.kind,
                    path: shared(entry.file),
                    offset: entry.offset,
                    len: u32::try_from(entry.bytes.len()).expect("entries are bounded far below"),
                    sum: entry.sum,
                });
            }
        })
    }

    /// Which log it is, as far as can be told.
    pub(in crate::segmented) fn identity(&self) -> Option<log::Identity> {
        self.head.map(|(identity, _)| identity)
    }

    /// Sequence of the last entry that there was.
    pub(in crate::segmented) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Damages that took, or may have taken, entries after `covered` from a collection.
    pub(in crate::segmented) fn damages_of(
        &self,
        identity: Identity,
        covered: u64,
    ) -> impl Iterator<Item = &Damage> {
        let (id, last) = (id_of(identity), self.last());
        self.damages.iter().filter(move |damage| {
            damage.suspects.contains(id) && damage.last.map_or(last, |last| last.0) > covered
        })
    }

    /// Whether a damage is one of those that hit some of these collections.
    fn hits(&self, damage: &Damage, collections: &[(Identity, u64)]) -> bool {
        collections.iter().any(|(identity, covered)| {
            self.damages_of(*identity, *covered).any(|other| std::ptr::eq(other, damage))
        })
    }

    /// What is worth telling beside the collections that there are: damage that hits none of them. Of each collection the
    /// identity and the entry that it holds everything up to.
    pub(crate) fn notes_beside(&self, collections: &[(Identity, u64)]) -> Vec<String> {
        let mut notes = self.notes.clone();
        for damage in self.damages.iter().filter(|damage| !self.hits(damage, collections)) {
            notes.push(format!("{damage}; no collection needs what was there"));
        }
        notes
    }

    /// Entries of collections that are none of these and were not deleted: their folders are missing.
    pub(crate) fn orphans(&self, there: &[Identity]) -> Vec<OrphanSeen> {
        let there: BTreeSet<u64> = there.iter().map(|identity| id_of(*identity)).collect();
        let of_nobody = self.collections.iter().filter(|(id, of)| {
            **id != 0 && !there.contains(id) && !of.is_deleted && of.written() + of.lost.len() > 0
        });
        of_nobody
            .map(|(id, of)| OrphanSeen {
                id: *id,
                identity: of.identity,
                entries: of.written() as u64,
                lost: of.lost.len() as u64,
            })
            .collect()
    }

    /// Entries of a collection that can be read, without the one that announces it.
    pub(crate) fn entries_of(&self, identity: Identity) -> u64 {
        self.collections.get(&id_of(identity)).map_or(0, |of| of.written() as u64)
    }
}

impl OfCollection {
    /// Entries that can be read and say something of a document.
    fn written(&self) -> usize {
        self.places.iter().filter(|place| place.kind != ANNOUNCED).count()
    }
}

/// Entries of a collection that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrphanSeen {
    /// Its number in the log.
    pub(in crate::segmented) id: u64,
    /// Which collection it is, if that is known.
    pub(crate) identity: Option<Identity>,
    /// Entries that can be read.
    pub(crate) entries: u64,
    /// Entries that are damaged.
    pub(crate) lost: u64,
}

impl OrphanSeen {
    /// By what a repair is told which one is meant.
    pub(crate) fn name(&self) -> String {
        self.identity.map_or_else(|| format!("number-{:016x}", self.id), |identity| identity.to_string())
    }
}

impl std::fmt::Display for OrphanSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.entries + self.lost;
        let what = if entries == 1 { "one entry".to_owned() } else { format!("{entries} entries") };
        write!(f, "it has {what} of a collection that is not here and was not deleted ({})", self.name())
    }
}

fn has_files(disk: &dyn Disk, dir: &Path) -> Result<bool, StoreError> {
    match disk.list(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io(dir, e)),
        Ok(files) => Ok(files
            .iter()
            .any(|file| file.kind == EntryKind::File && file.name.to_string_lossy().ends_with(".log"))),
    }
}

fn fault_of(error: LogError) -> Result<Fault, StoreError> {
    match error {
        LogError::NotOurs { path, reason } => {
            Ok(Fault::repairable(&path, Some(0), format!("it is no file of this log: {reason}")))
        }
        LogError::OtherFolder { path } => {
            Ok(Fault::repairable(&path, Some(0), "it is of the log of another data folder"))
        }
        LogError::NewerFormat { ref path, .. } => Ok(Fault::newer(path, &error)),
        LogError::Io { path, source } => {
            let remedy = "look at the device; copy what it still reads to another one, and repair the copy";
            Ok(Fault::hopeless(&path, format!("it cannot be read: {source}"), remedy))
        }
        error => Err(error.into()),
    }
}
