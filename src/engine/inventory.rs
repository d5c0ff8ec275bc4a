//! The inventory compares the catalogue with the folders: it says which collections exist, and what is wrong.
//!
//! A collection's record is the description in its folder; the catalogue's entry is a view of it. Where one of the
//! two is lost, the other stands in for it; where they disagree in a way that nobody can decide, the collection is
//! refused by name. A folder with a store that neither explains is kept and reported. Nothing is decided here by what is *not* there.
//!
//! The descriptions carry the catalogue's revision of their last change, so a catalogue that was cut back to an earlier
//! state is known to be behind, and the descriptions then say which aliases there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::CollectionInfo;
use crate::{collection::Identity, store::StoreError};

/// What the catalogue keeps of a collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) info: CollectionInfo,
    /// Name under `collections/`.
    pub(super) folder: String,
    /// `None` where an earlier version wrote it; the next start enters it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<Identity>,
}

/// Version of [`Description`]; see `store/FORMAT.md`.
pub(super) const DESCRIPTION_VERSION: u32 = 2;

/// What a collection is, as its folder keeps it: the one record of it, with which all others are compared.
///
/// A later version is refused, and so is a field that is not known: it may say what must not be left out. A field that
/// is not there has the default that its documentation tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// 1 where it is not there.
    #[serde(default = "first_version")]
    pub(super) version: u32,
    /// Drawn when the collection was made; the store, and all that belongs to it, has the same. `None` where an earlier
    /// version wrote it: it is entered when the collection is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<Identity>,
    pub(super) info: CollectionInfo,
    /// The folder it was written for: a copy elsewhere is no collection of its own.
    pub(super) folder: String,
    /// Each alias with the catalogue's revision in which it was set: of two that claim one, the later has it.
    pub(super) aliases: BTreeMap<String, u64>,
    /// The catalogue's revision with which this was written.
    pub(super) revision: u64,
}

fn first_version() -> u32 {
    1
}

impl Description {
    /// # Errors
    /// [`StoreError::NewerFormat`], [`StoreError::NotUnderstood`]: the bytes are as they were written.
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default = "first_version")]
            version: u32,
        }
        let not_understood =
            |e: serde_json::Error| StoreError::NotUnderstood { path: path.to_owned(), reason: e.to_string() };
        let Versioned { version } = serde_json::from_slice(bytes).map_err(not_understood)?;
        if version > DESCRIPTION_VERSION {
            let (path, supported) = (path.to_owned(), DESCRIPTION_VERSION);
            return Err(StoreError::NewerFormat { path, got: version, supported });
        }
        serde_json::from_slice(bytes).map_err(not_understood)
    }

    /// As it is written, in today's version.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let today = Description { version: DESCRIPTION_VERSION, ..self.clone() };
        serde_json::to_vec(&today).expect("plain data has a JSON form")
    }
}

/// All that a catalogue says.
#[derive(Debug, Default)]
pub(super) struct Catalogued {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Alias, collection.
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) revision: u64,
}

impl Catalogued {
    /// What a catalogue would say that was level with the folders, where there is none to be read. A name that several
    /// folders claim is left to [`take`], which decides nothing by itself.
    pub(super) fn of(folders: &[Folder]) -> Self {
        let described = || {
            folders.iter().filter_map(|folder| {
                let description = folder.description.as_ref().ok()?.as_ref()?;
                (description.folder == folder.name).then_some(description)
            })
        };
        let mut catalogued = Catalogued::default();
        let mut latest: BTreeMap<&String, (u64, &String)> = BTreeMap::new();
        for description in described() {
            let Description { identity, info, folder, aliases, revision, .. } = description;
            catalogued.revision = catalogued.revision.max(*revision);
            if described().filter(|other| other.info.name == info.name).count() == 1 {
                let entry = Entry { info: info.kept(), folder: folder.clone(), identity: *identity };
                catalogued.entries.insert(info.name.clone(), entry);
            }
            for (alias, revision) in aliases {
                let claim = (*revision, &info.name);
                let held = latest.entry(alias).or_insert(claim);
                *held = (*held).max(claim);
            }
        }
        let is_free = |alias: &String| described().all(|description| description.info.name != *alias);
        let aliases = latest.into_iter().filter(|(alias, _)| is_free(alias));
        catalogued.aliases = aliases.map(|(alias, (_, target))| (alias.clone(), target.clone())).collect();
        catalogued
    }
}

/// A folder without a mark.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) name: String,
    /// `Err`: why it cannot be read, or not be understood.
    pub(super) description: Result<Option<Description>, StoreError>,
    pub(super) has_state: bool,
}

/// Something that somebody must look at, and how to repair it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, with the file or folder.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// A collection that there is.
#[derive(Debug, PartialEq)]
pub(super) struct Item {
    pub(super) info: CollectionInfo,
    /// Which one it is, if that is known.
    pub(super) identity: Option<Identity>,
    /// Where it lies, if that is known.
    pub(super) folder: Option<String>,
    /// Why it cannot be opened, if that is known already.
    pub(super) refused: Option<Finding>,
    /// The folder needs its description written.
    pub(super) describe: bool,
    /// The catalogue needs its entry written.
    pub(super) enter: bool,
}

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) collections: BTreeMap<String, Item>,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) findings: Vec<Finding>,
}

impl CollectionInfo {
    /// As both sources keep it.
    fn kept(&self) -> CollectionInfo {
        CollectionInfo { aliases: Vec::new(), damage: None, ..self.clone() }
    }
}

/// Compares the catalogue with the folders under `root`.
pub(super) fn take(root: &Path, catalogued: &Catalogued, folders: &[Folder]) -> Inventory {
    let mut inventory = Inventory::default();
    let path = |folder: &str| root.join(folder);
    // What folders say of themselves; those that are copies or moved say nothing that counts.
    let mut claims: BTreeMap<&str, Vec<&Folder>> = BTreeMap::new();
    for folder in folders {
        if let Ok(Some(description)) = &folder.description {
            if description.folder == folder.name {
                claims.entry(&description.info.name).or_default().push(folder);
            } else {
                inventory.findings.push(Finding {
                    what: format!(
                        "{} is left alone: it was {}, of collection {:?}, and was copied or renamed",
                        path(&folder.name).display(),
                        path(&description.folder).display(),
                        description.info.name
                    ),
                    remedy: "move it out of the data folder, or give it its old name back".to_owned(),
                });
            }
        }
    }
    let names: BTreeSet<&str> =
        claims.keys().copied().chain(catalogued.entries.keys().map(String::as_str)).collect();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for name in names {
        let entry = catalogued.entries.get(name);
        let claimed = claims.get(name).map_or(&[][..], Vec::as_slice);
        let at = entry.and_then(|entry| folders.iter().find(|folder| folder.name == entry.folder));
        let item = match (entry, at) {
            (Some(entry), Some(folder)) => entered(entry, folder, claimed, &path(&folder.name)),
            (Some(entry), None) => without_folder(entry, claimed, &path(&entry.folder)),
            (None, _) => unentered(claimed, root),
        };
        let Some(item) = item else { continue };
        used.extend(claimed.iter().map(|folder| folder.name.as_str()));
        used.extend(entry.map(|entry| entry.folder.as_str()));
        let known =
            entry.is_some_and(|entry| entry.info == item.info && Some(&entry.folder) == item.folder.as_ref());
        if item.enter && item.refused.is_none() && !known {
            inventory.findings.push(Finding {
                what: format!(
                    "the catalogue did not know collection {name:?}; its folder's own description did"
                ),
                remedy: "nothing is lost and it is entered again, but the disk should be looked at"
                    .to_owned(),
            });
        }
        for other in claimed.iter().filter(|folder| Some(&folder.name) != item.folder.as_ref()) {
            inventory.findings.push(Finding {
                what: format!(
                    "{} is left alone: it says that it is collection {name:?} too",
                    path(&other.name).display()
                ),
                remedy: "move one of the two folders out of the data folder".to_owned(),
            });
        }
        inventory.collections.insert(name.to_owned(), item);
    }
    for folder in folders.iter().filter(|folder| !used.contains(folder.name.as_str())) {
        match &folder.description {
            Ok(Some(_)) => {}
            Ok(None) if !folder.has_state => {}
            unknown => inventory.findings.push(unnamed(&path(&folder.name), unknown)),
        }
    }
    inventory.aliases = aliases(catalogued, folders, &mut inventory.collections, &mut inventory.findings);
    // A change that was cut off between the catalogue and a folder leaves the folder behind.
    for description in folders.iter().filter_map(|folder| folder.description.as_ref().ok()?.as_ref()) {
        let Some(item) = inventory.collections.get_mut(&description.info.name) else { continue };
        let aliases = inventory.aliases.iter().filter(|(_, target)| **target == item.info.name);
        if item.refused.is_none()
            && item.folder.as_ref() == Some(&description.folder)
            && !description.aliases.keys().eq(aliases.map(|(alias, _)| alias))
        {
            item.describe = true;
        }
    }
    inventory
}

/// An entry whose folder is there.
fn entered(entry: &Entry, folder: &Folder, claimed: &[&Folder], path: &Path) -> Option<Item> {
    let described_as = folder.description.as_ref().ok().and_then(Option::as_ref).and_then(|d| d.identity);
    let item = |refused: Option<Finding>, describe| {
        let info = entry.info.clone();
        let identity = described_as.or(entry.identity);
        // Each of the two learns from the other what an earlier version did not know.
        let enter = entry.identity.is_none() && identity.is_some() && refused.is_none();
        Some(Item { info, identity, folder: Some(folder.name.clone()), refused, describe, enter })
    };
    match &folder.description {
        Ok(Some(description)) if description.info.name != entry.info.name => match claimed {
            // The entry is of an earlier time: the folder that says it is this collection, is.
            [one] => described(one),
            _ => Some(Item {
                folder: None,
                refused: Some(Finding {
                    what: format!(
                        "the catalogue says that {} is collection {:?}, its description says {:?}",
                        path.display(),
                        entry.info.name,
                        description.info.name
                    ),
                    remedy: "put both the folder and `catalog` back from one backup".to_owned(),
                }),
                ..item(None, false)?
            }),
        },
        Ok(Some(description)) if description.info.kept() != entry.info.kept() => item(
            Some(Finding {
                what: format!(
                    "the catalogue and {} say different things of its settings",
                    path.join("collection").display()
                ),
                remedy: "put the folder back from a backup, or delete the collection".to_owned(),
            }),
            false,
        ),
        Ok(Some(description))
            if description.identity.is_some()
                && entry.identity.is_some()
                && description.identity != entry.identity =>
        {
            item(
                Some(Finding {
                    what: format!(
                        "the catalogue and {} are of different collections of this name",
                        path.join("collection").display()
                    ),
                    remedy: "put both the folder and `catalog` back from one backup".to_owned(),
                }),
                false,
            )
        }
        Ok(Some(description)) => item(None, description.identity.is_none() && entry.identity.is_some()),
        Err(error @ (StoreError::NewerFormat { .. } | StoreError::NotUnderstood { .. })) => item(
            Some(Finding {
                what: error.to_string(),
                remedy: "start the version that wrote it, or put the folder back from a backup".to_owned(),
            }),
            false,
        ),
        Ok(None) | Err(_) if !claimed.is_empty() => item(
            Some(Finding {
                what: format!(
                    "two folders may be this collection, {} and {}, and the one that the catalogue names has no description",
                    path.display(),
                    path.with_file_name(&claimed[0].name).display()
                ),
                remedy: "move the wrong one out of the data folder".to_owned(),
            }),
            false,
        ),
        // It is written again from the entry.
        Ok(None) | Err(_) => item(None, true),
    }
}

/// An entry whose folder is not there.
fn without_folder(entry: &Entry, claimed: &[&Folder], path: &Path) -> Option<Item> {
    if let [one] = claimed {
        return described(one);
    }
    Some(Item {
        info: entry.info.clone(),
        identity: entry.identity,
        folder: None,
        refused: Some(Finding {
            what: format!("its folder {} is missing", path.display()),
            remedy: "put it back from a backup and start again, or delete the collection".to_owned(),
        }),
        describe: false,
        enter: false,
    })
}

/// A collection that only folders know.
fn unentered(claimed: &[&Folder], root: &Path) -> Option<Item> {
    let item = described(claimed.first()?)?;
    if claimed.len() == 1 {
        return Some(item);
    }
    let paths: Vec<PathBuf> = claimed.iter().map(|folder| root.join(&folder.name)).collect();
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    Some(Item {
        folder: None,
        refused: Some(Finding {
            what: format!("several folders say that they are this collection: {}", paths.join(", ")),
            remedy: "move all but one out of the data folder and start again".to_owned(),
        }),
        enter: false,
        ..item
    })
}

/// As the folder's own description says.
fn described(folder: &Folder) -> Option<Item> {
    let Ok(Some(description)) = &folder.description else { return None };
    Some(Item {
        info: description.info.kept(),
        identity: description.identity,
        folder: Some(folder.name.clone()),
        refused: None,
        describe: false,
        enter: true,
    })
}

fn unnamed(path: &Path, description: &Result<Option<Description>, StoreError>) -> Finding {
    let why = match description {
        Err(error) => error.to_string(),
        Ok(_) => "it has no description".to_owned(),
    };
    Finding {
        what: format!("{} is kept but not served: nothing says which collection it is ({why})", path.display()),
        remedy: "put `catalog` or the folder's file `collection` back from a backup and start again, or move it out of the data folder".to_owned(),
    }
}

/// Which aliases there are. The catalogue says so, unless a description is of a later time.
fn aliases(
    catalogued: &Catalogued,
    folders: &[Folder],
    collections: &mut BTreeMap<String, Item>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<String, String> {
    let descriptions = || {
        folders.iter().filter_map(|folder| match &folder.description {
            Ok(Some(d))
                if collections
                    .get(&d.info.name)
                    .is_some_and(|item| item.folder.as_ref() == Some(&folder.name)) =>
            {
                Some(d)
            }
            _ => None,
        })
    };
    let known = |target: &String| collections.contains_key(target);
    let behind = descriptions().any(|description| description.revision > catalogued.revision);
    if !behind {
        return catalogued.aliases.clone().into_iter().filter(|(_, target)| known(target)).collect();
    }
    let described: BTreeSet<&str> = descriptions().map(|d| d.info.name.as_str()).collect();
    let mut latest: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for description in descriptions() {
        for (alias, &revision) in &description.aliases {
            let claim = (revision, description.info.name.as_str());
            let held = latest.entry(alias).or_insert(claim);
            *held = (*held).max(claim);
        }
    }
    // Of collections that cannot speak for themselves.
    for (alias, target) in catalogued.aliases.iter().filter(|(_, target)| known(target)) {
        if !described.contains(target.as_str()) {
            latest.entry(alias).or_insert((0, target));
        }
    }
    let aliases: BTreeMap<String, String> = latest
        .into_iter()
        .filter(|(alias, _)| !collections.contains_key(*alias))
        .map(|(alias, (_, target))| (alias.to_owned(), target.to_owned()))
        .collect();
    for (alias, target) in
        aliases.iter().filter(|(alias, target)| catalogued.aliases.get(*alias) != Some(target))
    {
        findings.push(Finding {
            what: format!("the catalogue did not know that {alias:?} is an alias of {target:?}; the folder's description did"),
            remedy: "nothing is lost and it is entered again, but the disk should be looked at".to_owned(),
        });
    }
    aliases
}
