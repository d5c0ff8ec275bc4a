//! Which collections exist, how each was made, and which other names they have.
//!
//! Readers take a snapshot ([`Directory`]) and never wait for a change. A collection that cannot be opened is refused
//! by name and keeps no other one from being served. Below: `aliases.rs` has the other names, `cache.rs` the catalogue,
//! `start.rs` reads the data folder, `change.rs` changes it, `description.rs` has what is written down of a collection, and `rights.rs` closes all
//! of it to other users.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    CollectionInfo, EngineError,
    error::Result,
    inventory::Finding,
    opened::{InUse, Place, Shelf},
};
use crate::{
    collection::{Identity, Orphan},
    error::with_sources,
    store::{
        RESERVE_BYTES, StoreError,
        disk::{Disk as _, RealDisk},
    },
    threads,
};

mod aliases;
mod cache;
mod change;
#[cfg(test)]
mod compared;
mod description;
mod found;
#[cfg(test)]
pub(super) mod golden;
#[cfg(test)]
mod met;
#[cfg(test)]
mod refused;
mod repair;
mod rights;
mod start;
#[cfg(test)]
pub(super) mod tests;
mod verify;

use aliases::Aliases;
use cache::Cache;
pub(super) use change::check_name;
pub(super) use description::{identify, spec_of};
pub use found::check_data_folder;
pub use repair::{Dropped, RepairState, RepairedFolder, RepairedPart, repair_folder, repair_folder_if};
pub use verify::{FoundDamage, VerifiedCollection, VerifiedFolder, verify_folder};

/// A collection that there is.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) info: CollectionInfo,
    /// Which one it is, as far as folder and catalogue tell.
    identity: Option<Identity>,
    /// Where it is opened, or why it is not.
    place: Result<Arc<Place>, Finding>,
    /// `None` where it is not known which folder is its own.
    dir: Option<PathBuf>,
}

/// All names at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    pub(super) collections: BTreeMap<String, Arc<Open>>,
    pub(super) aliases: Aliases,
}

const CATALOG_DIR: &str = "catalog";
const COLLECTIONS_DIR: &str = "collections";

const COLLECTION: &str = "collection/";
const ALIAS: &str = "alias/";

/// Names, durable.
#[derive(Debug)]
pub(super) struct Names {
    root: PathBuf,
    catalog: Cache,
    shelf: Arc<Shelf>,
    now: ArcSwap<Directory>,
    /// What the start found wrong, apart from collections that cannot be opened.
    findings: Vec<Finding>,
    /// What the last look at the disk found, if it is too full for writes.
    full: ArcSwapOption<String>,
    /// One change at a time; held by blocking code only.
    changing: Mutex<()>,
    /// A collection is being opened since it keeps the log large.
    opening: Arc<AtomicBool>,
    /// Collections whose deletion was cut off and is not finished yet: the log has their entries still.
    leaving: Vec<Identity>,
}

impl Open {
    /// What answers, opened if it is not; slow then. It stays open as long as it is held.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] with file and remedy; [`EngineError::TooManyOpen`].
    pub(super) fn collection(&self) -> Result<InUse, EngineError> {
        let place = self.place.as_ref().map_err(|damage| EngineError::Damaged {
            name: self.info.name.clone(),
            reason: damage.to_string(),
        })?;
        place.collection().map_err(|refusal| refusal.of(&self.info.name))
    }

    /// What answers, if it is open; to look at it is no use of it. Waits for nothing.
    pub(super) fn open_now(&self) -> Option<InUse> {
        self.place.as_ref().ok()?.open_now()
    }

    /// [`Open::collection`] if it is open already. Waits for nothing.
    pub(super) fn use_now(&self) -> Option<InUse> {
        self.place.as_ref().ok()?.use_now()
    }

    /// Which collection it is, as far as is known.
    fn identity(&self) -> Option<Identity> {
        let opened = self.place.as_ref().ok().and_then(|place| place.identity());
        opened.or(self.identity)
    }

    /// Why it is not served, as far as is known.
    fn damage(&self) -> Option<Finding> {
        self.place.as_ref().map_or_else(|damage| Some(damage.clone()), |place| place.damage())
    }
}

impl Directory {
    /// By name or alias.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`].
    pub(super) fn find(&self, name: &str) -> Result<&Arc<Open>, EngineError> {
        let target = self.aliases.target(name).map_or(name, String::as_str);
        self.collections.get(target).ok_or_else(|| EngineError::NoCollection {
            name: name.to_owned(),
            known: listed(self.collections.keys().chain(self.aliases.names())),
        })
    }

    pub(super) fn info(&self, open: &Open) -> CollectionInfo {
        let aliases = self.aliases.of(&open.info.name).cloned().collect();
        let damage = open.damage().map(|damage| damage.to_string());
        CollectionInfo { aliases, damage, ..open.info.clone() }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).take(20).collect();
    if names.is_empty() { "none yet".to_owned() } else { names.join(", ") }
}

impl Names {
    /// What is wrong, and what to do about it: what the start found, every collection that cannot be opened or of which a
    /// read met damage, and entries of the log that no collection is there for.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let now = self.now();
        let damaged = now.collections.values().filter_map(|open| {
            let damage = open.damage()?;
            let what = format!("collection {:?} is not served: {}", open.info.name, damage.what);
            Some(Finding { what, remedy: damage.remedy })
        });
        // It opened, and a read came upon damage further in.
        let met = now.collections.values().filter_map(|open| {
            let collection = open.open_now()?;
            let error = with_sources(collection.damage()?);
            let what =
                format!("collection {:?} is damaged, and reads of that part fail: {error}", open.info.name);
            let remedy = "repair that, or put the collection's folder back from a backup, and start again";
            Some(Finding { what, remedy: remedy.to_owned() })
        });
        // Of one that is known and has lost its folder, the collection itself is the finding.
        let known = now.collections.values().filter_map(|open| open.identity());
        let known: HashSet<Identity> = known.chain(self.leaving.iter().copied()).collect();
        let orphans = self.shelf.log().orphans();
        let orphans =
            orphans.iter().filter(|orphan| orphan.identity.is_none_or(|identity| !known.contains(&identity)));
        self.findings.iter().cloned().chain(damaged).chain(met).chain(orphans.map(orphaned)).collect()
    }

    /// Collections that cannot be opened, as far as is known.
    pub(super) fn damaged(&self) -> usize {
        self.now().collections.values().filter(|open| open.damage().is_some()).count()
    }

    pub(super) fn now(&self) -> Arc<Directory> {
        self.now.load_full()
    }

    fn change<T>(&self, f: impl FnOnce(&mut Directory) -> Result<T>) -> Result<T> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut directory = Directory::clone(&self.now.load());
        let value = f(&mut directory)?;
        self.now.store(Arc::new(directory));
        Ok(value)
    }

    /// Why something takes no writes any more, if so.
    pub(super) fn failed(&self) -> Option<String> {
        if let Some(reason) = self.shelf.log().failed() {
            return Some(format!(
                "nothing is written any more: {reason}; restart after the disk is repaired"
            ));
        }
        let collections = self.now();
        let read_only = collections.collections.iter().find_map(|(name, open)| {
            let reason = open.open_now()?.read_only()?;
            Some(format!("collection {name} is read-only: {reason}"))
        });
        read_only
            .or_else(|| self.full.load_full().map(|reason| String::clone(&reason)))
            .or_else(|| self.catalog.failed().map(|reason| format!("the catalogue is read-only: {reason}")))
    }

    /// Looks at the disk, and opens again what found no room on it once there is room. Blocks.
    pub(super) fn examine(&self) {
        let full = RealDisk.available(&self.root).ok().filter(|free| *free < RESERVE_BYTES).map(|free| {
            let (free, least) = (free >> 20, RESERVE_BYTES >> 20);
            let dir = self.root.display();
            Arc::new(format!("the disk of {dir} has {free} MiB left, and writes need {least}; reads go on"))
        });
        self.full.store(full);
        if self.catalog.revive(&self.root) {
            self.bring_level();
        }
    }

    /// Where the log of the folder is too large since one collection has entries in it that no segment holds, sees to it
    /// that they are put down elsewhere. Waits for nothing.
    pub(super) fn let_go_of_log(&self) {
        let Some(identity) = self.shelf.log().pinned_by() else { return };
        let now = self.now();
        let places = now.collections.values().filter_map(|open| open.place.as_ref().ok());
        let Some(place) = places.into_iter().find(|place| place.identity() == Some(identity)) else { return };
        if let Some(collection) = place.open_now() {
            collection.let_go();
        } else if place.damage().is_none() && !self.opening.swap(true, Ordering::SeqCst) {
            // It begins with that when it is open.
            let (place, opening) = (Arc::clone(place), Arc::clone(&self.opening));
            let started = threads::start_thread("open-pinning", move || {
                // Why it cannot be opened is known to the place, and told.
                let _ = place.collection();
                opening.store(false, Ordering::SeqCst);
            });
            if started.is_err() {
                self.opening.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Closes every collection; the first error is answered, after all were tried.
    pub(super) fn close(&self) -> Result<()> {
        let mut first = Ok(());
        for open in self.now().collections.values() {
            let Ok(place) = &open.place else { continue };
            if let Err(e) = place.close() {
                tracing::error!(collection = open.info.name, error = %e, "closing");
                if first.is_ok() {
                    first = Err(e.into());
                }
            }
        }
        // What the collections left is written, and the mark of a clean end.
        self.shelf.log().close();
        first.and(self.catalog.close().map_err(Into::into))
    }

    /// Those that are open, by name.
    pub(super) fn open_collections(&self) -> Vec<(String, InUse)> {
        let now = self.now();
        let open = |(name, open): (&String, &Arc<Open>)| Some((name.clone(), open.open_now()?));
        now.collections.iter().filter_map(open).collect()
    }

    /// Closes what was not needed for `idle`, on a thread of its own.
    pub(super) fn close_idle(&self, idle: Duration) {
        if idle.is_zero() || !self.shelf.has_idle(idle) {
            return;
        }
        let shelf = Arc::clone(&self.shelf);
        let started = threads::start_thread("close-idle", move || shelf.close_idle(idle));
        if let Err(error) = started {
            tracing::warn!(%error, "no thread to close what is not used; it is tried again");
        }
    }

    /// Describes what is not closed yet.
    pub(super) fn unclosed(&self) -> String {
        let now = self.now();
        let open = now
            .collections
            .values()
            .filter(|open| open.open_now().is_some_and(|collection| !collection.is_closed()));
        let names: Vec<&str> = open.map(|open| open.info.name.as_str()).collect();
        match names.as_slice() {
            [] => "the catalogue".to_owned(),
            [first] => format!("collection {first}"),
            [first, rest @ ..] => format!("collection {first} and {} more", rest.len()),
        }
    }
}

/// Runs what makes or opens a collection: all that it logs then bears its name, also from threads of its own.
/// The span has the highest level, so that no filter that lets an event through leaves the name out.
pub(super) fn named<T>(collection: &str, open: impl FnOnce() -> T) -> T {
    tracing::error_span!(parent: None, "collection", collection).in_scope(open)
}

/// What is said of entries in the log whose collection has no folder.
fn orphaned(orphan: &Orphan) -> Finding {
    let collection = match orphan.identity {
        Some(identity) => format!("a collection of identity {identity}"),
        None => "a collection whose identity it does not tell".to_owned(),
    };
    let entries = orphan.entries;
    Finding {
        what: format!(
            "the log holds {entries} entries of {collection}, which has no folder here and was not deleted; they are kept"
        ),
        remedy: "put the collection's folder back where it was and start again".to_owned(),
    }
}

fn io(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::io(path, source)
}
