//! Collections made of those in a backup: each under its old name or another, with an identity of its own.
//!
//! Everything is compared with what the backup says of it, and read to the last byte, before a collection is announced;
//! what is cut off before is removed by the next start as any unfinished creation is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    RestoreWish, Restored,
    manifest::{self, Kept, Manifest},
};
use crate::{
    collection::{Collection, CollectionError, CopyPlace},
    encoder::Encoder,
    engine::{
        CollectionInfo, EngineError,
        catalog::{Names, check_name},
        error::Result,
        inventory::Description,
        models::missing_model,
    },
    error::{ErrorKind, Fault as _, with_sources},
    files::{disk::Disk, regular::SMALL_BYTES_MAX, sums, sums::Sum},
    segmented::backup::differs,
    stop::Stop,
    store::{StoreError, folder::DESCRIPTION_FILE, record},
};

/// Folders that only a data folder has.
const DATA_FOLDERS: [&str; 3] = ["collections", "catalog", "log"];

/// What the backup in `dir` says of itself.
///
/// # Errors
/// [`EngineError::BadRequest`] if it is none; [`EngineError::DamagedBackup`]; of kind Precondition if a later version made
/// it.
pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Manifest> {
    match Manifest::read(disk, dir) {
        Ok(Some(manifest)) => Ok(manifest),
        Ok(None) => Err(EngineError::BadRequest { reason: no_backup(dir) }),
        Err(error) => Err(of_backup(dir, error.into())),
    }
}

/// What is said of a folder that is no backup.
fn no_backup(dir: &Path) -> String {
    let shown = dir.display();
    if DATA_FOLDERS.iter().any(|name| dir.join(name).is_dir()) {
        return format!(
            "{shown} is a data folder, or a copy of one, and no backup; nothing need be restored: open it with --data {shown}, or copy it to where a server looks for it"
        );
    }
    match dir.is_dir() {
        true => format!("{shown} is no backup: it has no file {:?}", manifest::FILE),
        false => format!("there is no backup {shown}"),
    }
}

/// The same error, of a backup and not of a collection that is served.
fn of_backup(dir: &Path, error: EngineError) -> EngineError {
    if error.kind() == ErrorKind::Corrupt {
        return EngineError::DamagedBackup { path: dir.to_owned(), reason: with_sources(&error) };
    }
    error
}

/// What restoring needs of the engine.
pub(super) struct Restoring {
    pub(super) names: Arc<Names>,
    pub(super) home: PathBuf,
    pub(super) default: Option<Arc<Encoder>>,
}

impl Restoring {
    /// Restores what is wished of the backup in `from`, in the order of the names there.
    pub(super) fn run(
        &self,
        disk: &Arc<dyn Disk>,
        from: &Path,
        wish: &RestoreWish,
        stop: &Stop,
    ) -> Result<Vec<Restored>> {
        let manifest = read(&**disk, from)?;
        let chosen = choose(&manifest, wish, from)?;
        self.check(&chosen, wish)?;
        let mut restored: Vec<Restored> = Vec::with_capacity(chosen.len());
        for (kept, name) in chosen {
            match self.one(disk, from, kept, &name, wish, stop) {
                Ok(one) => restored.push(one),
                Err(error) if restored.is_empty() => return Err(error),
                Err(error) => {
                    let done = restored.into_iter().map(|one| one.info.name).collect();
                    return Err(EngineError::RestoredInPart { done, name, source: Box::new(error) });
                }
            }
        }
        Ok(restored)
    }

    /// Refuses names that are taken, before anything is made.
    fn check(&self, chosen: &[(&Kept, String)], wish: &RestoreWish) -> Result<()> {
        let directory = self.names.now();
        let mut targets = BTreeSet::new();
        for (_, name) in chosen {
            self.names.check_new(&directory, name)?;
            targets.insert(name);
        }
        let mut aliases: BTreeMap<&String, &String> = BTreeMap::new();
        for (kept, name) in chosen.iter().filter(|_| wish.aliases) {
            for alias in &kept.aliases {
                check_name("alias", alias)?;
                if directory.collections.contains_key(alias) || targets.contains(alias) {
                    return Err(EngineError::AliasTaken { name: alias.clone() });
                }
                let other = directory
                    .aliases
                    .target(alias)
                    .or_else(|| aliases.insert(alias, name).filter(|n| *n != name));
                if let Some(target) = other {
                    let reason = format!(
                        "alias {alias:?} leads to {target:?} already, and restoring takes it from nobody; remove it first, or restore without the aliases"
                    );
                    return Err(EngineError::BadRequest { reason });
                }
            }
        }
        Ok(())
    }

    fn one(
        &self,
        disk: &Arc<dyn Disk>,
        from: &Path,
        kept: &Kept,
        name: &str,
        wish: &RestoreWish,
        stop: &Stop,
    ) -> Result<Restored> {
        let dir = from.join(&kept.folder);
        let sums = kept.sums();
        let description =
            describe(&**disk, &dir, kept, &sums, stop).map_err(|e| of_backup(from, e.into()))?;
        let info = CollectionInfo {
            name: name.to_owned(),
            aliases: Vec::new(),
            damage: None,
            ..description.info.clone()
        };
        let sums = |path: &Path| sums.get(path).copied();
        let place = CopyPlace { disk, dir: &dir, identity: kept.identity, sums: &sums };
        let info = self.names.fill_new(info, |to, spec, options| {
            let collection =
                Collection::restore(to, spec, &place, options, stop).map_err(|error| match error {
                    // The log, or the new folder, is the data folder's own; what is damaged there is not the backup.
                    CollectionError::Store(error) if !names_inside(&error, from) => {
                        CollectionError::Store(error).into()
                    }
                    error => of_backup(from, error.into()),
                })?;
            let found = collection.stats().documents;
            if found != kept.documents {
                let reason = format!(
                    "it should hold {} documents of {:?}, and holds {found}",
                    kept.documents, kept.name
                );
                return Err(EngineError::DamagedBackup { path: from.to_owned(), reason });
            }
            // Whoever waits for it may have gone.
            stop.check().map_err(CollectionError::from)?;
            Ok(collection)
        })?;
        let (mut set, mut left) = (Vec::new(), Vec::new());
        for alias in &kept.aliases {
            if wish.aliases {
                self.names.set_alias(alias, name)?;
                set.push(alias.clone());
            } else {
                left.push(alias.clone());
            }
        }
        let missing = missing_model(&self.home, self.default.as_deref(), &info);
        tracing::info!(collection = name, backup = %from.display(), documents = kept.documents, "a collection was restored");
        Ok(Restored {
            info: CollectionInfo { aliases: set.clone(), ..info },
            from: kept.name.clone(),
            documents: kept.documents,
            passages: kept.passages,
            aliases_left: left,
            missing_model: missing.map(|error| error.to_string()),
        })
    }
}

/// Whether an error of the store names something in the folder.
fn names_inside(error: &StoreError, dir: &Path) -> bool {
    match error {
        StoreError::Corrupt { path, .. } | StoreError::OtherCollection { path, .. } => path.starts_with(dir),
        _ => false,
    }
}

/// Which collections are meant, each with the name that it gets.
fn choose<'a>(manifest: &'a Manifest, wish: &RestoreWish, from: &Path) -> Result<Vec<(&'a Kept, String)>> {
    let all = &manifest.collections;
    let chosen: Vec<&Kept> = match &wish.collection {
        Some(name) => {
            let found = all.iter().find(|kept| kept.name == *name);
            vec![found.ok_or_else(|| {
                let known: Vec<&str> = all.iter().map(|kept| kept.name.as_str()).take(20).collect();
                EngineError::NoCollection { name: name.clone(), known: known.join(", ") }
            })?]
        }
        None => all.iter().collect(),
    };
    match (&wish.rename, chosen.as_slice()) {
        (_, []) => {
            let reason = format!("the backup {} has no collection", from.display());
            Err(EngineError::BadRequest { reason })
        }
        (Some(name), [one]) => Ok(vec![(*one, name.clone())]),
        (Some(_), several) => {
            let reason = format!(
                "the backup has {} collections, and one name cannot be that of all; say which of them is meant",
                several.len()
            );
            Err(EngineError::BadRequest { reason })
        }
        (None, several) => Ok(several.iter().map(|kept| (*kept, kept.name.clone())).collect()),
    }
}

/// What a collection's folder in a backup says that it is.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::NewerFormat`], [`StoreError::NotUnderstood`], [`StoreError::Io`].
pub(super) fn describe(
    disk: &dyn Disk,
    dir: &Path,
    kept: &Kept,
    sums: &BTreeMap<PathBuf, Sum>,
    stop: &Stop,
) -> Result<Description, StoreError> {
    let path = dir.join(DESCRIPTION_FILE);
    let damaged = |reason: String| StoreError::corrupt(&path, reason);
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => damaged("it is missing".to_owned()),
        std::io::ErrorKind::InvalidInput => damaged(e.to_string()),
        _ => StoreError::io(&path, e),
    };
    let file = disk.read_only(&path).map_err(failed)?;
    let expected = sums.get(Path::new(DESCRIPTION_FILE));
    let expected = expected.ok_or_else(|| damaged("the backup's own list does not name it".to_owned()))?;
    let len = file.len().map_err(failed)?;
    if len != expected.bytes || len > SMALL_BYTES_MAX {
        return Err(damaged(format!(
            "it has {len} bytes, and had {} when the backup was made",
            expected.bytes
        )));
    }
    let mut bytes = Vec::new();
    let sum = sums::read(&*file, stop, failed, |_, piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    if let Some(reason) = differs(*expected, sum) {
        return Err(damaged(reason));
    }
    let description = Description::parse(&record::unframe(&bytes, &path, "it")?.0, &path)?;
    let says = (&description.info.name, &description.folder, description.identity);
    if says != (&kept.name, &kept.folder, Some(kept.identity)) {
        return Err(damaged("it is of another collection than the backup's own list says".to_owned()));
    }
    Ok(description)
}
