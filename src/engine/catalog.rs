//! Which collections exist, how each was made, and which other names they have.
//!
//! A change is durable before it is seen. Readers take a snapshot ([`Directory`]) and never wait for a change.
//! What the start finds is compared by `inventory.rs`. Nothing is removed from the disk but folders that carry a
//! checked mark of an unfinished creation or deletion, and nothing behind a symbolic link. A collection that cannot be
//! opened is refused by name and keeps no other one from being served; a damaged catalogue is set aside and made again
//! from the folders.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    CollectionInfo, EngineError,
    error::Result,
    inventory::{
        self, Catalogued, DESCRIPTION_VERSION, Description, Entry, Finding, Folder, Inventory, Item,
    },
    opened::{Place, Shelf},
};
use crate::{
    collection::{Collection, CollectionOptions, CollectionSpec, Identity, Made},
    index::IndexKind,
    store::{
        Catalog, RESERVE_BYTES, StoreError,
        disk::{Disk as _, RealDisk},
        folder::{self, Mark, Standing},
        private, whole,
    },
    threads,
    vector::{Dim, Metric},
};

/// A collection that there is.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) info: CollectionInfo,
    /// Where it is opened, or why it is not.
    place: Result<Arc<Place>, Finding>,
    /// `None` where it is not known which folder is its own.
    dir: Option<PathBuf>,
}

/// All names at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    pub(super) collections: BTreeMap<String, Arc<Open>>,
    pub(super) aliases: BTreeMap<String, String>,
}

/// A folder with more collections opens each when it is first needed.
const OPENED_AT_START_MAX: usize = 16;

const CATALOG_DIR: &str = "catalog";
const COLLECTIONS_DIR: &str = "collections";

/// What the last start found wrong, for `distilface doctor`: a line each, what is wrong, a tab, and what to do.
pub(crate) const FINDINGS_FILE: &str = "findings";

const COLLECTION: &str = "collection/";
const ALIAS: &str = "alias/";

/// Names, durable.
#[derive(Debug)]
pub(super) struct Names {
    root: PathBuf,
    catalog: Catalog,
    shelf: Arc<Shelf>,
    now: ArcSwap<Directory>,
    /// What the start found wrong, apart from collections that cannot be opened.
    findings: Vec<Finding>,
    /// What the last look at the disk found, if it is too full for writes.
    full: ArcSwapOption<String>,
    /// One change at a time; held by blocking code only.
    changing: std::sync::Mutex<()>,
}

impl Open {
    /// What answers, opened if it is not; slow then. Whoever holds it keeps it open.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] with file and remedy; [`EngineError::TooManyOpen`].
    pub(super) fn collection(&self) -> Result<Arc<Collection>, EngineError> {
        let place = self.place.as_ref().map_err(|damage| EngineError::Damaged {
            name: self.info.name.clone(),
            reason: damage.to_string(),
        })?;
        place.collection().map_err(|refusal| refusal.of(&self.info.name))
    }

    /// What answers, if it is open; to look at it is no use of it. Waits for nothing.
    pub(super) fn open_now(&self) -> Option<Arc<Collection>> {
        self.place.as_ref().ok()?.open_now()
    }

    /// [`Open::collection`] if it is open already. Waits for nothing.
    pub(super) fn use_now(&self) -> Option<Arc<Collection>> {
        self.place.as_ref().ok()?.use_now()
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
        let target = self.aliases.get(name).map_or(name, String::as_str);
        self.collections.get(target).ok_or_else(|| EngineError::NoCollection {
            name: name.to_owned(),
            known: listed(self.collections.keys().chain(self.aliases.keys())),
        })
    }

    pub(super) fn info(&self, open: &Open) -> CollectionInfo {
        let aliases =
            self.aliases.iter().filter(|(_, c)| **c == open.info.name).map(|(a, _)| a.clone()).collect();
        let damage = open.damage().map(|damage| damage.to_string());
        CollectionInfo { aliases, damage, ..open.info.clone() }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).take(20).collect();
    if names.is_empty() { "none yet".to_owned() } else { names.join(", ") }
}

/// # Errors
/// [`EngineError::BadName`].
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), EngineError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let ok = (1..=128).contains(&name.len())
        && name.bytes().all(allowed)
        && name.as_bytes()[0].is_ascii_alphanumeric();
    if ok { Ok(()) } else { Err(EngineError::BadName { what, name: name.chars().take(160).collect() }) }
}

impl Names {
    /// Opens the catalogue under `root`; and every collection in it if they are few, so that what is damaged is known at
    /// the start and no first search waits. Of many each is opened when it is first needed.
    pub(super) fn open(root: &Path, shelf: Arc<Shelf>) -> Result<Self> {
        let folders_dir = root.join(COLLECTIONS_DIR);
        private::create_dir_all(&folders_dir).map_err(|e| io(&folders_dir, e))?;
        keep_private(root);
        let (catalog, set_aside) = open_catalog(root)?;
        let mut catalogued = catalogued(root, &catalog)?;
        let Unfinished { removable, held, findings } = unfinished(&folders_dir, &mut catalogued)?;
        let folders = read_folders(&folders_dir, removable.union(&held).cloned().collect())?;
        keep_folders_private(&folders_dir, &catalogued, &folders);
        let inventory = inventory::take(&folders_dir, &catalogued, &folders);
        let names = Names {
            root: root.to_owned(),
            catalog,
            shelf,
            now: ArcSwap::default(),
            findings: set_aside
                .into_iter()
                .chain(findings)
                .chain(inventory.findings.iter().cloned())
                .collect(),
            full: ArcSwapOption::empty(),
            changing: std::sync::Mutex::new(()),
        };
        names.enter(&inventory, &folders)?;
        for folder in &removable {
            tracing::info!(folder = %folder.display(), "removing what an interrupted creation or deletion left");
            if let Err(error) = folder::remove(folder, &RealDisk) {
                tracing::warn!(folder = %folder.display(), %error, "it is tried again at the next start");
            }
        }
        let Inventory { collections, aliases, .. } = inventory;
        let collections = collections
            .into_iter()
            .map(|(name, item)| (name, Arc::new(open_item(&folders_dir, item, &names.shelf))))
            .collect();
        let directory = Directory { collections, aliases };
        if directory.collections.len() <= OPENED_AT_START_MAX.min(names.shelf.max()) {
            // A failure is kept and reported to every caller that asks.
            directory.collections.values().for_each(|open| drop(open.collection()));
        }
        names.now.store(Arc::new(directory));
        names.tell_findings();
        Ok(names)
    }

    /// Makes the catalogue and the descriptions say what the inventory found.
    fn enter(&self, inventory: &Inventory, folders: &[Folder]) -> Result<()> {
        let now = catalogued(&self.root, &self.catalog)?;
        let mut changes: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        for (name, item) in &inventory.collections {
            if let (true, Some(folder)) = (item.enter, &item.folder) {
                changes.push((
                    format!("{COLLECTION}{name}"),
                    Some(entry_bytes(&item.info, folder, item.identity)),
                ));
            }
        }
        let gone = now.entries.keys().filter(|name| !inventory.collections.contains_key(*name));
        changes.extend(gone.map(|name| (format!("{COLLECTION}{name}"), None)));
        for (alias, target) in &inventory.aliases {
            if now.aliases.get(alias) != Some(target) {
                changes.push((format!("{ALIAS}{alias}"), Some(target.clone().into_bytes())));
            }
        }
        let gone = now.aliases.keys().filter(|alias| !inventory.aliases.contains_key(*alias));
        changes.extend(gone.map(|alias| (format!("{ALIAS}{alias}"), None)));
        let described = folders.iter().filter_map(|folder| folder.description.as_ref().ok()?.as_ref());
        let latest = described.map(|description| description.revision).max().unwrap_or(0);
        let describe: Vec<&Item> = inventory.collections.values().filter(|item| item.describe).collect();
        if !changes.is_empty() || latest > self.catalog.revision() || (!describe.is_empty() && latest == 0) {
            let changes: Vec<(&str, Option<&[u8]>)> =
                changes.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            match self.catalog.put_all_at(latest, &changes) {
                Err(error) if error.is_passing() => {
                    tracing::warn!(%error, "the catalogue is brought level at the next start");
                    return Ok(());
                }
                put => put?,
            }
        }
        for item in describe {
            if let Some(name) = &item.folder {
                let revision = self.catalog.revision();
                let of = |target: &String| *target == item.info.name;
                let aliases = inventory.aliases.iter().filter(|(_, target)| of(target));
                let description = Description {
                    version: DESCRIPTION_VERSION,
                    identity: item.identity,
                    info: item.info.clone(),
                    folder: name.clone(),
                    aliases: aliases.map(|(alias, _)| (alias.clone(), revision)).collect(),
                    revision,
                };
                let dir = self.root.join(COLLECTIONS_DIR).join(name);
                // Without it the collection is as safe as it was before; the next start tries again.
                if let Err(error) = describe_folder(&dir, &description) {
                    tracing::warn!(folder = %dir.display(), %error, "a collection's description cannot be written");
                }
            }
        }
        Ok(())
    }

    /// What is wrong, and what to do about it: what the start found, and every collection that cannot be opened.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let now = self.now();
        let damaged = now.collections.values().filter_map(|open| {
            let damage = open.damage()?;
            let what = format!("collection {:?} is not served: {}", open.info.name, damage.what);
            Some(Finding { what, remedy: damage.remedy })
        });
        self.findings.iter().cloned().chain(damaged).collect()
    }

    /// Says what is wrong in the log and in a file that `distilface doctor` reads.
    fn tell_findings(&self) {
        let findings = self.findings();
        for Finding { what, remedy } in &findings {
            tracing::warn!(what, remedy, "the data folder needs attention");
        }
        let path = self.root.join(FINDINGS_FILE);
        let text: String =
            findings.iter().map(|Finding { what, remedy }| format!("{what}\t{remedy}\n")).collect();
        let told = match text.as_str() {
            "" => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            text => whole::replace(&path, text.as_bytes(), &RealDisk).map_err(std::io::Error::other),
        };
        if let Err(error) = told {
            tracing::warn!(path = %path.display(), %error, "what is wrong could not be written down");
        }
    }

    pub(super) fn now(&self) -> Arc<Directory> {
        self.now.load_full()
    }

    fn change<T>(&self, f: impl FnOnce(&mut Directory) -> Result<T>) -> Result<T> {
        let _one = self.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut directory = Directory::clone(&self.now.load());
        let value = f(&mut directory)?;
        self.now.store(Arc::new(directory));
        Ok(value)
    }

    /// Makes a collection, or answers the existing one where `if_not_exists` and its settings agree.
    pub(super) fn create(&self, info: CollectionInfo, if_not_exists: bool) -> Result<(CollectionInfo, bool)> {
        check_name("collection", &info.name)?;
        self.change(|directory| {
            if let Some(open) = directory.collections.get(&info.name) {
                if !if_not_exists {
                    return Err(EngineError::CollectionExists { name: info.name });
                }
                return match difference(&open.info, &info) {
                    None => Ok((directory.info(open), false)),
                    Some(difference) => Err(EngineError::CollectionDiffers { name: info.name, difference }),
                };
            }
            if directory.aliases.contains_key(&info.name) {
                return Err(EngineError::AliasTaken { name: info.name });
            }
            // The time alone could repeat if the clock is set back.
            let folder = (0u32..)
                .map(|n| format!("{:014x}-{n}", info.created_at))
                .find(|f| !self.root.join(COLLECTIONS_DIR).join(f).exists())
                .expect("some number is free");
            let dir = self.root.join(COLLECTIONS_DIR).join(&folder);
            let spec = spec_of(&info)?;
            folder::create(&dir, &RealDisk)?;
            let place = Place::create(&self.shelf, (&info.name, &dir), spec.clone(), |options| {
                self.announce(&dir, folder, &info, spec, options)
            });
            let open = Open { info: info.clone(), place: Ok(place?), dir: Some(dir) };
            directory.collections.insert(info.name.clone(), Arc::new(open));
            Ok((info, true))
        })
    }

    /// Fills a folder that was marked as being created, and takes the mark away once the catalogue knows it.
    fn announce(
        &self,
        dir: &Path,
        folder: String,
        info: &CollectionInfo,
        spec: CollectionSpec,
        options: CollectionOptions,
    ) -> Result<Arc<Collection>> {
        let key = format!("{COLLECTION}{}", info.name);
        let created = named(&info.name, || Collection::create(dir, spec, options));
        let made = created.map_err(EngineError::from).and_then(|collection| {
            let identity = Some(collection.identity());
            let bytes = entry_bytes(info, &folder, identity);
            let description = Description {
                version: DESCRIPTION_VERSION,
                identity,
                info: info.clone(),
                folder,
                aliases: BTreeMap::new(),
                revision: self.catalog.revision() + 1,
            };
            describe_folder(dir, &description)?;
            self.catalog.put_all(&[(&key, Some(&bytes))])?;
            Ok(collection)
        });
        let collection = match made {
            Ok(collection) => collection,
            Err(error) => {
                // After a failed write nobody knows whether it is entered: the mark stays, and the next start finishes
                // the creation or removes the folder.
                if self.catalog.failed().is_none()
                    && let Err(left) = folder::remove(dir, &RealDisk)
                {
                    tracing::warn!(folder = %dir.display(), error = %left, "the next start removes it");
                }
                return Err(error);
            }
        };
        if let Err(error) = folder::unmark(dir, Mark::Creating, &RealDisk) {
            self.catalog.put_all(&[(&key, None)])?;
            return Err(error.into());
        }
        Ok(collection)
    }

    /// Forgets a collection and its aliases, then removes its files.
    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let (open, forgotten) = self.change(|directory| {
            if let Some(target) = directory.aliases.get(name) {
                let reason = format!("{name:?} is an alias of {target:?}; delete the collection by its own name, or the alias with delete-alias");
                return Err(EngineError::BadRequest { reason });
            }
            let open = Arc::clone(directory.find(name)?);
            if let Some(path) = open.dir.clone().filter(|dir| folder::is_link(dir)) {
                return Err(EngineError::LinkedFolder { name: name.to_owned(), path });
            }
            if let Some(damage) = open.place.as_ref().ok().and_then(|place| place.holds_another()) {
                return Err(EngineError::Damaged { name: name.to_owned(), reason: damage.to_string() });
            }
            if let Some(dir) = open.dir.as_ref().filter(|dir| dir.exists()) {
                folder::mark(dir, Mark::Deleting, &RealDisk)?;
            }
            let mut keys = vec![format!("{COLLECTION}{name}")];
            keys.extend(directory.aliases.iter().filter(|(_, c)| *c == name).map(|(a, _)| format!("{ALIAS}{a}")));
            let keys: Vec<(&str, Option<&[u8]>)> = keys.iter().map(|k| (k.as_str(), None)).collect();
            let forgotten = self.forget(&open, &keys)?;
            directory.collections.remove(name);
            directory.aliases.retain(|_, c| c != name);
            Ok((open, forgotten))
        })?;
        // From here the collection is gone for everybody; what goes wrong with its files is repaired at the next start.
        close_deleted(&open);
        // As long as the catalogue has the name, the mark must stay.
        if let Some(dir) = open.dir.as_ref().filter(|dir| forgotten && dir.exists())
            && let Err(error) = folder::remove(dir, &RealDisk)
        {
            tracing::warn!(collection = name, %error, "removing a deleted collection's files");
        }
        Ok(())
    }

    /// Takes the names of a marked collection out of the catalogue. On a full disk its files go first, which makes the
    /// room that the catalogue needs. `false`: it did not, and the next start does it.
    fn forget(&self, open: &Open, keys: &[(&str, Option<&[u8]>)]) -> Result<bool> {
        let Some(dir) = open.dir.as_ref().filter(|dir| dir.exists()) else {
            self.catalog.put_all(keys)?;
            return Ok(true);
        };
        match self.catalog.put_all(keys) {
            Err(StoreError::DiskFull { .. }) => {
                close_deleted(open);
                folder::empty(dir)?;
                // The mark has decided it, so this is no failure of the deletion.
                let forgotten = self.catalog.put_all(keys);
                if let Err(error) = &forgotten {
                    tracing::warn!(collection = open.info.name, %error, "the next start takes the name away");
                }
                Ok(forgotten.is_ok())
            }
            Err(error) => {
                folder::unmark(dir, Mark::Deleting, &RealDisk)?;
                Err(error.into())
            }
            Ok(()) => Ok(true),
        }
    }

    /// Points `alias` at `collection`; answers what it named before.
    pub(super) fn set_alias(&self, alias: &str, collection: &str) -> Result<Option<String>> {
        check_name("alias", alias)?;
        self.change(|directory| {
            if directory.collections.contains_key(alias) {
                return Err(EngineError::AliasTaken { name: alias.to_owned() });
            }
            let target = Arc::clone(directory.find(collection)?);
            let name = target.info.name.clone();
            // First where it belongs, then the catalogue, then where it belonged: of two that claim it the later has it.
            self.redescribe(directory, &target, |aliases, revision| {
                aliases.insert(alias.to_owned(), revision);
            })?;
            self.catalog.put_all(&[(&format!("{ALIAS}{alias}"), Some(name.as_bytes()))])?;
            let before = directory.aliases.insert(alias.to_owned(), name);
            if let Some(open) = before.as_ref().and_then(|before| directory.collections.get(before))
                && open.info.name != target.info.name
                && let Err(error) = self.redescribe(directory, open, |aliases, _| {
                    aliases.remove(alias);
                })
            {
                tracing::warn!(alias, error = %error, "the collection that had the alias still says so; the later one counts");
            }
            Ok(before)
        })
    }

    /// Changes the aliases that a collection's own folder tells.
    fn redescribe(
        &self,
        directory: &Directory,
        open: &Open,
        change: impl FnOnce(&mut BTreeMap<String, u64>, u64),
    ) -> Result<()> {
        let Some(dir) = open.dir.as_ref().filter(|dir| dir.exists()) else { return Ok(()) };
        let revision = self.catalog.revision() + 1;
        // An opening may be entering the identity.
        let _one = self.shelf.describing();
        let mut description = match read_description(dir) {
            Ok(Some(description)) => description,
            // It says more than this version knows, and that must stay.
            Err(error @ (StoreError::NewerFormat { .. } | StoreError::NotUnderstood { .. })) => {
                return Err(error.into());
            }
            Ok(None) | Err(_) => {
                let mine = directory.aliases.iter().filter(|(_, target)| **target == open.info.name);
                Description {
                    version: DESCRIPTION_VERSION,
                    identity: open.place.as_ref().ok().and_then(|place| place.identity()),
                    info: open.info.clone(),
                    folder: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                    aliases: mine.map(|(alias, _)| (alias.clone(), revision)).collect(),
                    revision,
                }
            }
        };
        description.revision = revision;
        change(&mut description.aliases, revision);
        describe_folder(dir, &description)?;
        Ok(())
    }

    pub(super) fn delete_alias(&self, alias: &str) -> Result<()> {
        self.change(|directory| {
            if !directory.aliases.contains_key(alias) {
                let known = listed(directory.aliases.keys());
                return Err(EngineError::NoAlias { alias: alias.to_owned(), known });
            }
            let target = directory.aliases.get(alias).and_then(|target| directory.collections.get(target));
            if let Some(open) = target {
                self.redescribe(directory, open, |aliases, _| {
                    aliases.remove(alias);
                })?;
            }
            self.catalog.put_all(&[(&format!("{ALIAS}{alias}"), None)])?;
            directory.aliases.remove(alias);
            Ok(())
        })
    }

    /// Why something takes no writes any more, if so.
    pub(super) fn failed(&self) -> Option<String> {
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
        self.catalog.revive();
        for open in self.now().collections.values() {
            if let Some(collection) = open.open_now() {
                collection.revive();
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
        first.and(self.catalog.close().map_err(Into::into))
    }

    /// Those that are open, by name.
    pub(super) fn open_collections(&self) -> Vec<(String, Arc<Collection>)> {
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
        let started = threads::apart("close-idle", move || shelf.close_idle(idle));
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

/// The catalogue; if it is damaged, it is set aside and an empty one takes its place.
fn open_catalog(root: &Path) -> Result<(Catalog, Option<Finding>)> {
    let dir = root.join(CATALOG_DIR);
    let error = match Catalog::open(&dir) {
        Ok(catalog) => return Ok((catalog, None)),
        Err(error @ StoreError::Corrupt { .. }) => error,
        Err(error) => return Err(error.into()),
    };
    let aside = (1u32..)
        .map(|n| root.join(format!("{CATALOG_DIR}.damaged-{n}")))
        .find(|aside| !aside.exists())
        .expect("some number is free");
    std::fs::rename(&dir, &aside).map_err(|e| io(&dir, e))?;
    RealDisk.sync_dir(root).map_err(|e| io(root, e))?;
    let finding = Finding {
        what: format!(
            "{error}; it was set aside as {} and made again from the collections' folders",
            aside.display()
        ),
        remedy: "compare the list of collections with what it should be, and look at the disk".to_owned(),
    };
    Ok((Catalog::open(&dir)?, Some(finding)))
}

/// All that the catalogue says.
fn catalogued(root: &Path, catalog: &Catalog) -> Result<Catalogued> {
    let mut entries = BTreeMap::new();
    for (key, bytes) in catalog.scan(COLLECTION)? {
        let entry: Entry = serde_json::from_slice(&bytes).map_err(|e| StoreError::Corrupt {
            path: root.join(CATALOG_DIR),
            reason: format!("entry {key}: {e}"),
        })?;
        entries.insert(entry.info.name.clone(), entry);
    }
    let aliases = catalog.scan(ALIAS)?.into_iter().map(|(key, bytes)| {
        let alias = key.strip_prefix(ALIAS).unwrap_or(&key).to_owned();
        (alias, String::from_utf8_lossy(&bytes).into_owned())
    });
    Ok(Catalogued { entries, aliases: aliases.collect(), revision: catalog.revision() })
}

/// Folders that are no collections.
#[derive(Default)]
struct Unfinished {
    /// Left by a creation or a deletion that was cut off.
    removable: BTreeSet<PathBuf>,
    /// Neither served nor removed.
    held: BTreeSet<PathBuf>,
    /// Why each is left alone.
    findings: Vec<Finding>,
}

/// Looks at the marks of all folders. The entries of those that are deleted are forgotten; a creation that the
/// catalogue knows is finished instead.
fn unfinished(folders: &Path, catalogued: &mut Catalogued) -> Result<Unfinished> {
    let mut unfinished = Unfinished::default();
    for (name, dir) in subfolders(folders)? {
        let entered = catalogued.entries.values().any(|entry| entry.folder == name);
        let standing = folder::standing(&dir);
        if let Standing::Removable(Mark::Deleting) | Standing::Held(Mark::Deleting, _) = standing {
            catalogued.entries.retain(|_, entry| entry.folder != name);
        }
        match standing {
            Standing::Unmarked => {}
            Standing::Removable(Mark::Creating) | Standing::Held(Mark::Creating, _) if entered => {
                folder::unmark(&dir, Mark::Creating, &RealDisk)?;
            }
            Standing::Removable(_) => {
                unfinished.removable.insert(dir);
            }
            Standing::Held(_, reason) => {
                unfinished.findings.push(Finding {
                    what: format!(
                        "{} is left alone: a creation or deletion of it was cut off, but {reason}",
                        dir.display()
                    ),
                    remedy: "save what is yours in it, then remove it".to_owned(),
                });
                unfinished.held.insert(dir);
            }
            Standing::NoMark(path) => {
                unfinished.findings.push(Finding {
                    what: format!(
                        "{} is not a mark that was written for this folder, so nothing is removed",
                        path.display()
                    ),
                    remedy: "remove this file if the folder is a collection, else move the folder out of the data folder"
                        .to_owned(),
                });
                if !entered {
                    unfinished.held.insert(dir);
                }
            }
        }
    }
    Ok(unfinished)
}

/// What the folders say about themselves.
fn read_folders(folders: &Path, unfinished: BTreeSet<PathBuf>) -> Result<Vec<Folder>> {
    let found = subfolders(folders)?.into_iter().filter(|(_, dir)| !unfinished.contains(dir));
    Ok(found
        .map(|(name, dir)| Folder {
            name,
            description: read_description(&dir),
            has_state: folder::has_state(&dir),
        })
        .collect())
}

/// Folders, and symbolic links to folders, by name; files and what has no readable name are not ours.
fn subfolders(folders: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folders).map_err(|e| io(folders, e))? {
        let entry = entry.map_err(|e| io(folders, e))?;
        if let (true, Ok(name)) = (entry.path().is_dir(), entry.file_name().into_string()) {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Where a collection is opened, or why it cannot be.
fn open_item(folders: &Path, item: Item, shelf: &Arc<Shelf>) -> Open {
    let Item { info, identity, folder, refused, .. } = item;
    let dir = folder.map(|folder| folders.join(folder));
    let place = match (refused, &dir, spec_of(&info)) {
        (Some(finding), ..) => Err(finding),
        (None, Some(dir), Ok(spec)) => Ok(Place::new(shelf, (&info.name, dir), Made { spec, identity })),
        (None, Some(dir), Err(error)) => Err(Finding {
            what: format!("{} cannot be true: {error}", dir.join(folder::DESCRIPTION_FILE).display()),
            remedy: "put the folder back from a backup, or delete the collection".to_owned(),
        }),
        (None, None, _) => Err(Finding {
            what: "its folder is not known".to_owned(),
            remedy: "put the data folder back from a backup, or delete the collection".to_owned(),
        }),
    };
    Open { info, place, dir }
}

/// What a store needs to know of a collection.
fn spec_of(info: &CollectionInfo) -> Result<CollectionSpec> {
    Ok(CollectionSpec { dim: Dim::new(info.dimension)?, metric: info.metric, index: info.index })
}

/// # Errors
/// [`StoreError::Corrupt`]; [`StoreError::NewerFormat`] and [`StoreError::NotUnderstood`] where it is whole.
fn read_description(dir: &Path) -> Result<Option<Description>, StoreError> {
    let path = dir.join(folder::DESCRIPTION_FILE);
    folder::description(dir)?.map(|bytes| Description::parse(&bytes, &path)).transpose()
}

fn describe_folder(dir: &Path, description: &Description) -> Result<(), StoreError> {
    folder::describe(dir, &description.to_bytes(), &RealDisk)
}

/// Enters the identity into a description that an earlier version wrote. Where it cannot be done, the next opening does.
/// The caller sees to it that nobody else writes the description meanwhile.
pub(super) fn identify(dir: &Path, identity: Identity) {
    let entered = read_description(dir).and_then(|description| match description {
        Some(description) if description.identity.is_none() => {
            describe_folder(dir, &Description { identity: Some(identity), ..description })
        }
        _ => Ok(()),
    });
    if let Err(error) = entered {
        tracing::warn!(folder = %dir.display(), %error, "the collection's identity is not in its description yet");
    }
}

fn entry_bytes(info: &CollectionInfo, folder: &str, identity: Option<Identity>) -> Vec<u8> {
    let entry = Entry { info: info.clone(), folder: folder.to_owned(), identity };
    serde_json::to_vec(&entry).expect("plain data has a JSON form")
}

fn close_deleted(open: &Open) {
    if let Ok(place) = &open.place
        && let Err(error) = place.close()
    {
        tracing::warn!(collection = open.info.name, %error, "closing a deleted collection");
    }
}

/// Takes the rights of others from the catalogue and from the folder of the collections, through which one comes to
/// all that is below. The data folder itself is the user's to open or to close: it is only warned about.
fn keep_private(root: &Path) {
    let (catalog, collections) = (root.join(CATALOG_DIR), root.join(COLLECTIONS_DIR));
    tell_narrowed(&catalog, private::narrow(&catalog));
    tell_narrowed(&collections, private::narrow_alone(&collections));
    if private::open_to_others(root) {
        tracing::warn!(dir = %root.display(), "others may look into the data folder, not into the collections; chmod 700 closes it");
    }
}

/// Takes the rights of others from the collections. What is none keeps its own, and is named in the log.
fn keep_folders_private(dir: &Path, catalogued: &Catalogued, folders: &[Folder]) {
    let entered: BTreeSet<&str> = catalogued.entries.values().map(|entry| entry.folder.as_str()).collect();
    for folder in folders {
        let path = dir.join(&folder.name);
        let foreign = matches!(folder.description, Ok(None))
            && !folder.has_state
            && !entered.contains(folder.name.as_str());
        if foreign {
            tracing::info!(folder = %path.display(), "it is no collection and is left alone");
        } else if !path.is_symlink() {
            tell_narrowed(&path, private::narrow(&path));
        }
    }
}

fn tell_narrowed(path: &Path, narrowed: std::io::Result<bool>) {
    match narrowed {
        Ok(true) => tracing::warn!(path = %path.display(), "others could read it; now only this user can"),
        Ok(false) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "others may read it, and this cannot be changed");
        }
    }
}

/// What a second creation asks for that the first did not; `None` if they agree.
fn difference(have: &CollectionInfo, want: &CollectionInfo) -> Option<String> {
    let mut parts = Vec::new();
    let mut compare = |what: &str, have: String, want: String| {
        if have != want {
            parts.push(format!("{what} is {have}, not {want}"));
        }
    };
    compare("dimension", have.dimension.to_string(), want.dimension.to_string());
    let metric = |info: &CollectionInfo| match info.metric {
        Metric::Cosine => "cosine".to_owned(),
        Metric::Dot => "dot".to_owned(),
        Metric::Euclidean => "euclidean".to_owned(),
    };
    compare("metric", metric(have), metric(want));
    let kind = |info: &CollectionInfo| match info.index.kind {
        IndexKind::Flat => "flat".to_owned(),
        IndexKind::HnswRs => "hnsw_rs".to_owned(),
    };
    compare("index kind", kind(have), kind(want));
    compare("m", have.index.m.to_string(), want.index.m.to_string());
    let (have_index, want_index) = (&have.index, &want.index);
    compare(
        "ef_construction",
        have_index.ef_construction.to_string(),
        want_index.ef_construction.to_string(),
    );
    compare("ef_search", have_index.ef_search.to_string(), want_index.ef_search.to_string());
    compare("seed", have_index.seed.to_string(), want_index.seed.to_string());
    let chunking = |info: &CollectionInfo| {
        info.chunking.map_or("off".to_owned(), |chunking| {
            format!("{} tokens with {} shared", chunking.max_tokens, chunking.overlap_tokens)
        })
    };
    compare("chunking", chunking(have), chunking(want));
    let model =
        |info: &CollectionInfo| info.model.as_ref().map_or("none".to_owned(), |m| m.fingerprint.0.clone());
    compare("model", model(have), model(want));
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Runs what makes or opens a collection: all that it logs then bears its name, also from threads of its own.
/// The span has the highest level, so that no filter that lets an event through leaves the name out.
pub(super) fn named<T>(collection: &str, open: impl FnOnce() -> T) -> T {
    tracing::error_span!(parent: None, "collection", collection).in_scope(open)
}

fn io(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::io(path, source)
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
