#![doc = include_str!("FORMAT.md")]
//!
//! # Who does what
//!
//! | file | what |
//! |---|---|
//! | `manifest.rs` | the file `backup` |
//! | `make.rs` | a backup is made beside and put in its place |
//! | `restore.rs` | collections made of those in a backup |
//! | `verify.rs` | everything in a backup, read |
//!
//! This file is the way in for callers: by a path, for whoever may name any place on this machine, and by a name below
//! the folder that the setting `data.backups` names, for clients of a server. A client never names a path.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    CollectionInfo, Engine, EngineError,
    catalog::{Names, check_name},
    error::Result,
};
use crate::{
    error::with_sources,
    files::disk::{Disk, EntryKind, RealDisk},
    stop::Stop,
    store::StoreError,
    threads::{self, priority},
};

#[cfg(test)]
mod golden;
mod make;
mod manifest;
mod restore;
#[cfg(test)]
mod tests;
mod verify;

use manifest::Manifest;
use restore::Restoring;
pub use verify::{VerifiedBackup, verify_backup};

/// What goes into a backup, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackupWish {
    /// Names or aliases of collections. Default: none, which stands for all; one that is deleted meanwhile is left out.
    pub collections: Vec<String>,
    /// Copies every file, also where a second name would do: the backup then shares nothing with the data folder, and
    /// takes as much room again. Default: false.
    pub copy: bool,
}

/// What is restored of a backup, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreWish {
    /// The collection, by its name in the backup. Default: all of them.
    pub collection: Option<String>,
    /// Its new name, where one collection is restored. Default: the name that it had.
    pub rename: Option<String>,
    /// Points the aliases that it had at it; one that leads to another collection is a refusal. Default: false.
    pub aliases: bool,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Name of its folder.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// When it was begun, in microseconds since 1970; everything that was acknowledged before is in it. 0 if it is damaged.
    pub made_at: i64,
    /// Version of the program that made it; empty if it is damaged.
    pub version: String,
    /// By name.
    pub collections: Vec<BackupCollection>,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Why its list of files cannot be read. Only [`verify_backup`] reads the files.
    pub damage: Option<String>,
}

/// A collection in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupCollection {
    /// Its name.
    pub name: String,
    /// Documents that it holds.
    pub documents: u64,
    /// Their passages.
    pub passages: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Aliases that it had, by name.
    pub aliases: Vec<String>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MadeBackup {
    /// What is in it.
    pub backup: Backup,
    /// Bytes of files that are second names of the data folder's own.
    pub linked_bytes: u64,
    /// Bytes of files that were written.
    pub copied_bytes: u64,
}

/// A collection that was restored.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// What it is now; its aliases are those that were restored.
    pub info: CollectionInfo,
    /// Its name in the backup.
    pub from: String,
    /// Documents that it holds.
    pub documents: u64,
    /// Their passages.
    pub passages: u64,
    /// Aliases that it had, and that were not restored.
    pub aliases_left: Vec<String>,
    /// Why its texts cannot be encoded with what is installed, and what to do about it.
    pub missing_model: Option<String>,
}

/// Whether a folder is a backup, whole or not.
pub fn is_backup(dir: &Path) -> bool {
    dir.join(manifest::FILE).is_file()
}

impl Backup {
    fn of(folder: &Path, manifest: Manifest) -> Self {
        let Manifest { version, made_at, collections, .. } = manifest;
        let collections: Vec<BackupCollection> = collections
            .into_iter()
            .map(|kept| BackupCollection {
                bytes: kept.bytes(),
                name: kept.name,
                documents: kept.documents,
                passages: kept.passages,
                aliases: kept.aliases,
            })
            .collect();
        let bytes = collections.iter().map(|collection| collection.bytes).sum();
        Backup { made_at, version, collections, bytes, ..Backup::damaged(folder, None) }
    }

    fn damaged(folder: &Path, damage: Option<String>) -> Self {
        Backup {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            made_at: 0,
            version: String::new(),
            collections: Vec::new(),
            bytes: 0,
            damage,
        }
    }
}

impl Engine {
    /// Makes a backup in the new folder `to`, whose parent must be there, while everything goes on: writes that were
    /// acknowledged before this call are in it, and each collection is as of one moment. Dropped, it leaves nothing.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`]; [`EngineError::BadRequest`] for a place that will not do; [`EngineError::BackupExists`],
    /// [`EngineError::BackupBusy`]; [`EngineError::Damaged`] if something of a collection is: then no backup is made.
    pub async fn back_up(&self, to: &Path, wish: BackupWish) -> Result<MadeBackup> {
        self.check_open()?;
        let (names, to, data) = (Arc::clone(&self.names), to.to_owned(), self.config.data.dir.clone());
        beside("backup", priority::BACKGROUND, move |stop| back_up(&names, &to, &data, &wish, stop)).await
    }

    /// Makes collections of those in the backup `from`. Each is compared with what the backup says of it, and read whole,
    /// before anybody sees it. Dropped, it leaves those that were finished.
    ///
    /// # Errors
    /// [`EngineError::BadRequest`] for what is no backup; [`EngineError::DamagedBackup`], naming the file;
    /// [`EngineError::NoCollection`] for one that is not in it; [`EngineError::CollectionExists`],
    /// [`EngineError::NameIsAlias`], [`EngineError::AliasTaken`]: nothing is restored then.
    /// [`EngineError::RestoredInPart`].
    pub async fn restore(&self, from: &Path, wish: RestoreWish) -> Result<Vec<Restored>> {
        self.check_open()?;
        let (names, home, default) = (Arc::clone(&self.names), self.config.data.home.clone(), self.encoder());
        let (from, restoring) = (from.to_owned(), Restoring { names, home, default });
        beside("restore", priority::SOON, move |stop| {
            let disk: Arc<dyn Disk> = Arc::new(RealDisk);
            restoring.run(&disk, &from, &wish, stop)
        })
        .await
    }

    /// [`Engine::back_up`] to a folder of this name in the one that `data.backups` names.
    ///
    /// # Errors
    /// [`EngineError::NoBackups`], [`EngineError::BadName`]; as [`Engine::back_up`].
    pub async fn back_up_as(&self, name: &str, wish: BackupWish) -> Result<MadeBackup> {
        let to = self.backup_place(name)?;
        let root = self.config.data.backups.clone();
        super::run_blocking(move || match RealDisk.create_dir(&root) {
            // Whatever has the name is looked at later.
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                let reason = format!(
                    "the folder for backups, {} (data.backups), cannot be made: {error}",
                    root.display()
                );
                Err(EngineError::BadRequest { reason })
            }
            _ => Ok(()),
        })
        .await??;
        self.back_up(&to, wish).await
    }

    /// [`Engine::restore`] of the backup of this name in the folder that `data.backups` names.
    ///
    /// # Errors
    /// [`EngineError::NoBackups`], [`EngineError::BadName`], [`EngineError::NoBackup`]; as [`Engine::restore`].
    pub async fn restore_from(&self, name: &str, wish: RestoreWish) -> Result<Vec<Restored>> {
        let from = self.backup_place(name)?;
        let (place, root, name) = (from.clone(), self.config.data.backups.clone(), name.to_owned());
        super::run_blocking(move || {
            if is_backup(&place) {
                return Ok(());
            }
            let known: Vec<String> = names_in(&root)?.into_iter().take(20).collect();
            let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
            Err(EngineError::NoBackup { name, known })
        })
        .await??;
        self.restore(&from, wish).await
    }

    /// The backups in the folder that `data.backups` names, by name. Only their lists are read.
    ///
    /// # Errors
    /// [`EngineError::NoBackups`]; what listing the folder says.
    pub async fn backups(&self) -> Result<Vec<Backup>> {
        self.check_open()?;
        let root = self.config.data.backups.clone();
        if root.as_os_str().is_empty() {
            return Err(EngineError::NoBackups);
        }
        super::run_blocking(move || {
            let one = |name: String| {
                let folder = root.join(name);
                match restore::read(&RealDisk, &folder) {
                    Ok(manifest) => Backup::of(&folder, manifest),
                    Err(error) => Backup::damaged(&folder, Some(with_sources(&error))),
                }
            };
            Ok(names_in(&root)?.into_iter().map(one).collect())
        })
        .await?
    }

    /// Where the backup of a name lies. A name leads to nothing but a folder right below.
    fn backup_place(&self, name: &str) -> Result<PathBuf> {
        self.check_open()?;
        check_name("backup", name)?;
        let root = &self.config.data.backups;
        if root.as_os_str().is_empty() { Err(EngineError::NoBackups) } else { Ok(root.join(name)) }
    }
}

/// Makes a backup of collections of the data folder `data`.
fn back_up(names: &Names, to: &Path, data: &Path, wish: &BackupWish, stop: &Stop) -> Result<MadeBackup> {
    let (to, _held) = make::take_place(to, data)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let chosen = chosen(names, wish)?;
    let source = |name: &str| {
        let (open, description) = match names.described(name) {
            Err(EngineError::NoCollection { .. }) if wish.collections.is_empty() => return Ok(None),
            described => described?,
        };
        let (here, of) = (Arc::clone(&open), name.to_owned());
        let is_gone = move || {
            let now = names.now();
            let is_there = now.collections.get(&of).is_some_and(|now| Arc::ptr_eq(now, &here));
            wish.collections.is_empty() && !is_there
        };
        let name = name.to_owned();
        let copy = move |to: &Path| {
            let collection = open.collection()?;
            collection.back_up(to, !wish.copy, stop).map_err(|error| damaged(name, error.into()))
        };
        Ok(Some(make::Source { description, copy: Box::new(copy), is_gone: Box::new(is_gone) }))
    };
    let (manifest, bytes) = make::make(&disk, &to, &chosen, source, stop)?;
    let backup = Backup::of(&to, manifest);
    tracing::info!(backup = %to.display(), collections = chosen.len(), bytes = backup.bytes, "a backup was made");
    Ok(MadeBackup { backup, linked_bytes: bytes.linked, copied_bytes: bytes.copied })
}

/// Folders that are backups, by name; one that is not finished has a name of none.
fn names_in(root: &Path) -> Result<Vec<String>> {
    let entries = match RealDisk.list(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(|e| StoreError::io(root, e))?,
    };
    let folders = entries.into_iter().filter(|entry| entry.kind == EntryKind::Dir);
    let names = folders.filter_map(|entry| entry.name.into_string().ok());
    Ok(names.filter(|name| check_name("backup", name).is_ok() && is_backup(&root.join(name))).collect())
}

/// The collections that are meant, by their own names, each once.
fn chosen(names: &Names, wish: &BackupWish) -> Result<Vec<String>> {
    let directory = names.now();
    if wish.collections.is_empty() {
        return Ok(directory.collections.keys().cloned().collect());
    }
    let mut chosen = Vec::with_capacity(wish.collections.len());
    for name in &wish.collections {
        chosen.push(directory.find(name)?.info.name.clone());
    }
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}

/// What is damaged of a collection that is to be backed up is told to whoever asked.
fn damaged(name: String, error: EngineError) -> EngineError {
    use crate::error::{ErrorKind, Fault as _};
    if error.kind() != ErrorKind::Corrupt || matches!(error, EngineError::Damaged { .. }) {
        return error;
    }
    EngineError::Damaged { name, reason: with_sources(&error) }
}

/// Runs long work on a thread of its own, which puts others first. It hears it when nobody waits any more.
async fn beside<T: Send + 'static>(
    name: &str,
    niceness: u8,
    work: impl FnOnce(&Stop) -> Result<T> + Send + 'static,
) -> Result<T> {
    // Dropped with this future.
    let (_asker, stop) = Stop::with_asker(None);
    let (send, receive) = tokio::sync::oneshot::channel();
    let span = tracing::Span::current();
    threads::start_thread(name, move || {
        priority::lower(niceness);
        // The asker may have gone.
        let _ = send.send(span.in_scope(|| work(&stop)));
    })?;
    receive.await.map_err(|_| EngineError::Panicked {
        reason: "a backup or its restoring ended without a word; see the log".to_owned(),
    })?
}

/// Refuses to serve a backup as if it were a data folder: that would write into it.
pub(super) fn refuse_backup(dir: &Path) -> Result<()> {
    if is_backup(dir) && !dir.join("log").is_dir() {
        let shown = dir.display();
        let reason = format!(
            "{shown} is a backup and no data folder; restore it into one: `distilface restore {shown} --data DIR`"
        );
        return Err(EngineError::BadRequest { reason });
    }
    Ok(())
}
