//! The start: catalogue, marks and folders become the directory that is served.
//!
//! What is found is compared by `inventory.rs`, and catalogue and descriptions are brought level with the result. Nothing
//! is removed from the disk but folders that carry a checked mark of an unfinished creation or deletion, and nothing
//! behind a symbolic link. A damaged catalogue is set aside and made again from the folders.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    ALIAS, CATALOG_DIR, COLLECTION, COLLECTIONS_DIR, Cache, Directory, Names, Open,
    description::{describe_folder, entry_bytes, read_description, spec_of},
    io,
    repair::damaged_now,
    rights::{keep_folders_private, keep_private},
};
use crate::{
    collection::{Identity, Made},
    config::FINDINGS_FILE,
    engine::{
        FINDINGS_TARGET,
        error::Result,
        inventory::{
            self, Catalogued, DESCRIPTION_VERSION, Description, Entry, Finding, Folder, Inventory, Item,
        },
        opened::{Place, Shelf},
    },
    files,
    segmented::repair,
    store::{
        Catalog, StoreError,
        disk::RealDisk,
        folder::{self, Mark, Standing},
        whole,
    },
};

/// A folder with more collections opens each when it is first needed.
const OPENED_AT_START_MAX: usize = 16;

impl Names {
    /// Opens the catalogue under `root`; and every collection in it if they are few, so that what is damaged is known at
    /// the start and no first search waits. Of many each is opened when it is first needed.
    /// `shelf` opens the log, which comes after the catalogue: whoever has that has the folder.
    pub(in crate::engine) fn open(root: &Path, shelf: impl FnOnce() -> Result<Arc<Shelf>>) -> Result<Self> {
        let folders_dir = root.join(COLLECTIONS_DIR);
        files::create_private(&folders_dir).map_err(|e| StoreError::opening(&folders_dir, e))?;
        keep_private(root);
        let (catalog, set_aside) = Cache::open(root)?;
        // Not before: another server may be at it, though its lock file is gone.
        for (_, dir) in subfolders(&folders_dir)? {
            folder::remove_unfinished(&dir);
        }
        let shelf = shelf()?;
        let Look { catalogued, folders, removable, leaving, findings, inventory } =
            Look::take(root, &catalog)?;
        keep_folders_private(&folders_dir, &catalogued, &folders);
        let names = Names {
            root: root.to_owned(),
            catalog,
            shelf: Arc::clone(&shelf),
            now: ArcSwap::default(),
            findings: set_aside
                .into_iter()
                .chain(findings)
                .chain(inventory.findings.iter().cloned())
                .collect(),
            full: ArcSwapOption::empty(),
            changing: std::sync::Mutex::new(()),
            opening: Arc::default(),
            leaving,
        };
        names.enter(&inventory, &folders)?;
        for folder in &removable {
            tracing::info!(folder = %folder.display(), "removing what an interrupted creation or deletion left");
            if let Err(error) = names.remove(folder) {
                tracing::warn!(folder = %folder.display(), %error, "it is tried again at the next start");
            }
        }
        let Inventory { collections, aliases, .. } = inventory;
        let collections = collections
            .into_iter()
            .map(|(name, item)| (name, Arc::new(open_item(&folders_dir, item, &names.shelf))))
            .collect();
        let directory = Directory { collections, aliases: aliases.into_iter().collect() };
        if directory.collections.len() <= OPENED_AT_START_MAX.min(names.shelf.max()) {
            // A failure is kept and reported to every caller that asks.
            directory.collections.values().for_each(|open| drop(open.collection()));
        }
        names.now.store(Arc::new(directory));
        names.tell_findings();
        Ok(names)
    }

    /// The catalogue could be opened only now: it learns what the folders say, and what was deleted meanwhile.
    pub(super) fn bring_level(&self) {
        let brought = self.change(|_| {
            let look = Look::take(&self.root, &self.catalog)?;
            self.enter(&look.inventory, &look.folders)?;
            for folder in &look.removable {
                self.remove(folder)?;
            }
            Ok(())
        });
        match brought {
            Ok(()) => tracing::info!("there is room again; the catalogue is open"),
            Err(error) => tracing::warn!(%error, "the next start brings the catalogue level"),
        }
    }

    /// Makes the catalogue and the descriptions say what the inventory found.
    fn enter(&self, inventory: &Inventory, folders: &[Folder]) -> Result<()> {
        let Some(catalog) = self.catalog.get() else { return Ok(()) };
        let now = catalogued(&self.root, catalog)?;
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
                let of = folders.iter().find(|folder| folder.name == *name);
                if let Some(Err(error)) = of.map(|folder| &folder.description)
                    && !self.keep_description(&self.root.join(COLLECTIONS_DIR).join(name), error)
                {
                    continue;
                }
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

    /// Keeps a description that is damaged before another takes its place. Whether it is kept.
    pub(super) fn keep_description(&self, dir: &Path, error: &StoreError) -> bool {
        let path = dir.join(folder::DESCRIPTION_FILE);
        let kept = damaged_now(&self.root);
        match repair::keep(&files::disk::RealDisk, &self.root, &kept, &path, &error.to_string()) {
            Ok(()) => {
                tracing::warn!(
                    folder = %dir.display(), %error, kept = %kept.display(),
                    "the description is written again from the catalogue"
                );
                true
            }
            Err(left) => {
                tracing::warn!(
                    folder = %dir.display(), %error, %left,
                    "the description is not written again, since the damaged one cannot be kept"
                );
                false
            }
        }
    }

    /// Says what is wrong in the log and in a file that `distilface doctor` reads.
    fn tell_findings(&self) {
        let findings = self.findings();
        for Finding { what, remedy } in &findings {
            tracing::warn!(target: FINDINGS_TARGET, what, remedy, "the data folder needs attention");
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
}

/// What lies in a data folder.
struct Look {
    catalogued: Catalogued,
    folders: Vec<Folder>,
    /// Left by a creation or a deletion that was cut off.
    removable: BTreeSet<PathBuf>,
    /// Which collections these were.
    leaving: Vec<Identity>,
    /// Why other folders are left alone.
    findings: Vec<Finding>,
    inventory: Inventory,
}

impl Look {
    /// Where the catalogue is not open, the folders stand in for it, and nothing is removed: it may know more.
    fn take(root: &Path, catalog: &Cache) -> Result<Self> {
        let folders_dir = root.join(COLLECTIONS_DIR);
        let known = catalog.get().map(|catalog| catalogued(root, catalog)).transpose()?;
        let is_open = known.is_some();
        let mut catalogued = known.unwrap_or_default();
        let Unfinished { mut removable, held, findings } =
            unfinished(&folders_dir, &mut catalogued, is_open)?;
        let folders = read_folders(&folders_dir, removable.union(&held).cloned().collect())?;
        let leaving = removable.iter().filter_map(|dir| folder::marked_identity(dir)).collect();
        if !is_open {
            removable.clear();
            catalogued = Catalogued::of(&folders);
        }
        let inventory = inventory::take(&folders_dir, &catalogued, &folders);
        Ok(Look { catalogued, folders, removable, leaving, findings, inventory })
    }
}

/// All that the catalogue says.
pub(super) fn catalogued(root: &Path, catalog: &Catalog) -> Result<Catalogued> {
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
/// catalogue knows is finished instead. Where the catalogue is not open, nobody knows whether a creation was: it stays.
fn unfinished(folders: &Path, catalogued: &mut Catalogued, is_open: bool) -> Result<Unfinished> {
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
                let entered = entered || !is_open;
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
pub(super) fn read_folders(folders: &Path, unfinished: BTreeSet<PathBuf>) -> Result<Vec<Folder>> {
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
pub(super) fn subfolders(folders: &Path) -> Result<Vec<(String, PathBuf)>> {
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
    Open { info, identity, place, dir }
}
