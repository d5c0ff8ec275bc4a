//! Which collections exist, how each was made, and which other names they have.
//!
//! A change is durable before it is seen. Readers take a snapshot ([`Directory`]) and never wait for a change.
//! A folder that no entry names is what an interrupted creation or deletion left behind: it is removed at the start.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::{CollectionInfo, EngineError};
use crate::{
    collection::{Collection, CollectionOptions, CollectionSpec},
    error::Result,
    store::{Catalog, StoreError},
    vector::Dim,
};

/// A collection that is open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) info: CollectionInfo,
    pub(super) collection: Arc<Collection>,
    dir: PathBuf,
}

/// All names at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    pub(super) collections: BTreeMap<String, Arc<Open>>,
    pub(super) aliases: BTreeMap<String, String>,
}

/// What the catalogue keeps of a collection.
#[derive(Serialize, Deserialize)]
struct Entry {
    info: CollectionInfo,
    /// Name under `collections/`.
    folder: String,
}

const COLLECTION: &str = "collection/";
const ALIAS: &str = "alias/";

/// Names, durable.
#[derive(Debug)]
pub(super) struct Names {
    root: PathBuf,
    catalog: Catalog,
    options: CollectionOptions,
    now: ArcSwap<Directory>,
    /// One change at a time; held by blocking code only.
    changing: std::sync::Mutex<()>,
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
        CollectionInfo { aliases, ..open.info.clone() }
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
    /// Opens the catalogue under `root` and every collection in it.
    pub(super) fn open(root: &Path, options: CollectionOptions) -> Result<Self> {
        let catalog = Catalog::open(&root.join("catalog"))?;
        let folders = root.join("collections");
        std::fs::create_dir_all(&folders).map_err(|e| io(&folders, e))?;
        let mut directory = Directory::default();
        let mut kept = std::collections::BTreeSet::new();
        for (key, bytes) in catalog.scan(COLLECTION)? {
            let entry: Entry = serde_json::from_slice(&bytes).map_err(|e| StoreError::Corrupt {
                path: root.join("catalog"),
                reason: format!("entry {key}: {e}"),
            })?;
            let dir = folders.join(&entry.folder);
            kept.insert(entry.folder);
            let collection = Collection::open(&dir, options.clone())?;
            let open = Open { info: entry.info, collection, dir };
            directory.collections.insert(open.info.name.clone(), Arc::new(open));
        }
        for (key, bytes) in catalog.scan(ALIAS)? {
            let alias = key.strip_prefix(ALIAS).unwrap_or(&key).to_owned();
            directory.aliases.insert(alias, String::from_utf8_lossy(&bytes).into_owned());
        }
        for entry in std::fs::read_dir(&folders).map_err(|e| io(&folders, e))? {
            let entry = entry.map_err(|e| io(&folders, e))?;
            if !kept.contains(entry.file_name().to_string_lossy().as_ref()) {
                tracing::warn!(folder = %entry.path().display(), "removing what an interrupted creation or deletion left");
                std::fs::remove_dir_all(entry.path()).map_err(|e| io(&entry.path(), e))?;
            }
        }
        let now = ArcSwap::from_pointee(directory);
        Ok(Names { root: root.to_owned(), catalog, options, now, changing: std::sync::Mutex::new(()) })
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
                    return Err(EngineError::CollectionExists { name: info.name }.into());
                }
                return match difference(&open.info, &info) {
                    None => Ok((directory.info(open), false)),
                    Some(difference) => {
                        Err(EngineError::CollectionDiffers { name: info.name, difference }.into())
                    }
                };
            }
            if directory.aliases.contains_key(&info.name) {
                return Err(EngineError::AliasTaken { name: info.name }.into());
            }
            // The time alone could repeat if the clock is set back.
            let folder = (0u32..)
                .map(|n| format!("{:014x}-{n}", info.created_at))
                .find(|f| !self.root.join("collections").join(f).exists())
                .expect("some number is free");
            let dir = self.root.join("collections").join(&folder);
            let spec =
                CollectionSpec { dim: Dim::new(info.dimension)?, metric: info.metric, index: info.index };
            let collection = Collection::create(&dir, spec, self.options.clone())?;
            let entry = Entry { info: info.clone(), folder };
            let bytes = serde_json::to_vec(&entry).expect("plain data has a JSON form");
            self.catalog.put_all(&[(&format!("{COLLECTION}{}", info.name), Some(&bytes))])?;
            directory
                .collections
                .insert(info.name.clone(), Arc::new(Open { info: info.clone(), collection, dir }));
            Ok((info, true))
        })
    }

    /// Forgets a collection and its aliases, then removes its files.
    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let open = self.change(|directory| {
            if let Some(target) = directory.aliases.get(name) {
                let reason = format!("{name:?} is an alias of {target:?}; delete the collection by its own name, or the alias with delete-alias");
                return Err(EngineError::BadRequest { reason }.into());
            }
            let open = Arc::clone(directory.find(name)?);
            let mut keys = vec![format!("{COLLECTION}{name}")];
            keys.extend(directory.aliases.iter().filter(|(_, c)| *c == name).map(|(a, _)| format!("{ALIAS}{a}")));
            let keys: Vec<(&str, Option<&[u8]>)> = keys.iter().map(|k| (k.as_str(), None)).collect();
            self.catalog.put_all(&keys)?;
            directory.collections.remove(name);
            directory.aliases.retain(|_, c| c != name);
            Ok(open)
        })?;
        // From here the collection is gone for everybody; what goes wrong with its files is mended at the next start.
        if let Err(e) = open.collection.close() {
            tracing::warn!(collection = name, error = %e, "closing a deleted collection");
        }
        if let Err(e) = std::fs::remove_dir_all(&open.dir) {
            tracing::warn!(collection = name, error = %e, "removing a deleted collection's files");
        }
        Ok(())
    }

    /// Points `alias` at `collection`; answers what it named before.
    pub(super) fn set_alias(&self, alias: &str, collection: &str) -> Result<Option<String>> {
        check_name("alias", alias)?;
        self.change(|directory| {
            if directory.collections.contains_key(alias) {
                return Err(EngineError::AliasTaken { name: alias.to_owned() }.into());
            }
            let target = directory.find(collection)?.info.name.clone();
            self.catalog.put_all(&[(&format!("{ALIAS}{alias}"), Some(target.as_bytes()))])?;
            Ok(directory.aliases.insert(alias.to_owned(), target))
        })
    }

    pub(super) fn delete_alias(&self, alias: &str) -> Result<()> {
        self.change(|directory| {
            if !directory.aliases.contains_key(alias) {
                let known = listed(directory.aliases.keys());
                return Err(EngineError::NoAlias { alias: alias.to_owned(), known }.into());
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
            open.collection.read_only().map(|reason| format!("collection {name} is read-only: {reason}"))
        });
        read_only
            .or_else(|| self.catalog.failed().map(|reason| format!("the catalogue is read-only: {reason}")))
    }

    /// Closes every collection; the first error is answered, after all were tried.
    pub(super) fn close(&self) -> Result<()> {
        let mut first = Ok(());
        for open in self.now().collections.values() {
            if let Err(e) = open.collection.close() {
                tracing::error!(collection = open.info.name, error = %e, "closing");
                if first.is_ok() {
                    first = Err(e.into());
                }
            }
        }
        first.and(self.catalog.close().map_err(Into::into))
    }

    /// What is not closed yet, in words.
    pub(super) fn unclosed(&self) -> String {
        let now = self.now();
        let open = now.collections.values().filter(|open| !open.collection.is_closed());
        let names: Vec<&str> = open.map(|open| open.info.name.as_str()).collect();
        match names.as_slice() {
            [] => "the catalogue".to_owned(),
            [first] => format!("collection {first}"),
            [first, rest @ ..] => format!("collection {first} and {} more", rest.len()),
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
    compare("metric", format!("{:?}", have.metric), format!("{:?}", want.metric));
    compare("index", format!("{:?}", have.index), format!("{:?}", want.index));
    compare("chunking", format!("{:?}", have.chunking), format!("{:?}", want.chunking));
    let model =
        |info: &CollectionInfo| info.model.as_ref().map_or("none".to_owned(), |m| m.fingerprint.0.clone());
    compare("model", model(have), model(want));
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn io(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}
