//! The inventory compares the catalogue with the folders: it says which collections exist, and what is wrong.
//!
//! Every collection is told twice: by its entry in the catalogue and by the description in its folder. Where one of the
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

/// What the catalogue keeps of a collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) info: CollectionInfo,
    /// Name under `collections/`.
    pub(super) folder: String,
}

/// What a collection's folder keeps of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) info: CollectionInfo,
    /// The folder it was written for: a copy elsewhere is no collection of its own.
    pub(super) folder: String,
    /// Each alias with the catalogue's revision in which it was set: of two that claim one, the later has it.
    pub(super) aliases: BTreeMap<String, u64>,
    /// The catalogue's revision with which this was written.
    pub(super) revision: u64,
}

/// All that a catalogue says.
#[derive(Debug, Default)]
pub(super) struct Catalogued {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Alias, collection.
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) revision: u64,
}

/// A folder without a mark.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) name: String,
    /// `Err`: why it cannot be read.
    pub(super) description: Result<Option<Description>, String>,
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
        if item.enter && item.refused.is_none() {
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
    inventory
}

/// An entry whose folder is there.
fn entered(entry: &Entry, folder: &Folder, claimed: &[&Folder], path: &Path) -> Option<Item> {
    let item = |refused: Option<Finding>, describe| {
        let info = entry.info.clone();
        Some(Item { info, folder: Some(folder.name.clone()), refused, describe, enter: false })
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
        Ok(Some(_)) => item(None, false),
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
        Ok(None) => item(None, true),
        Err(reason) => {
            tracing::warn!(folder = %path.display(), reason, "the description is written again from the catalogue");
            item(None, true)
        }
    }
}

/// An entry whose folder is not there.
fn without_folder(entry: &Entry, claimed: &[&Folder], path: &Path) -> Option<Item> {
    if let [one] = claimed {
        return described(one);
    }
    Some(Item {
        info: entry.info.clone(),
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
        folder: Some(folder.name.clone()),
        refused: None,
        describe: false,
        enter: true,
    })
}

fn unnamed(path: &Path, description: &Result<Option<Description>, String>) -> Finding {
    let why = match description {
        Err(reason) => reason.clone(),
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
