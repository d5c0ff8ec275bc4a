//! The catalogue as the engine has it: open, or not open yet since its disk is full.
//!
//! It is a cache of what the collections' folders say. So a full disk keeps it from being opened and keeps nothing from
//! being read: until there is room the folders stand in for it, and what would change it is refused. A deletion goes on,
//! since its mark in the folder decides it.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{CATALOG_DIR, io};
use crate::{
    engine::{FINDINGS_TARGET, error::Result, inventory::Finding},
    store::{
        Catalog, OPEN_BYTES, StoreError,
        disk::{Disk as _, RealDisk},
    },
};

/// What is written of the catalogue, and when.
type Changes<'a> = [(&'a str, Option<&'a [u8]>)];

#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    /// Not set while there is no room to open it.
    catalog: OnceLock<Catalog>,
}

impl Cache {
    /// Opens the catalogue below `root` if there is room for it. One that is damaged is set aside, which is the finding,
    /// and an empty one takes its place.
    pub(super) fn open(root: &Path) -> Result<(Self, Option<Finding>)> {
        let cache = Cache { dir: root.join(CATALOG_DIR), catalog: OnceLock::new() };
        let set_aside = cache.try_open(root)?;
        if cache.get().is_none() {
            tracing::warn!(
                dir = %cache.dir.display(),
                free_mib_needed = OPEN_BYTES >> 20,
                "the disk is full, so the catalogue is not opened yet: the collections' folders tell what there is, reads and deletes go on"
            );
        }
        Ok((cache, set_aside))
    }

    /// Over a catalogue that a test has opened.
    #[cfg(test)]
    pub(super) fn of(dir: &Path, catalog: Catalog) -> Self {
        Cache { dir: dir.to_owned(), catalog: OnceLock::from(catalog) }
    }

    fn try_open(&self, root: &Path) -> Result<Option<Finding>> {
        // Where nobody can tell how much there is, opening it does.
        if RealDisk.available(root).is_ok_and(|free| free < OPEN_BYTES) {
            return Ok(None);
        }
        match open(root, &self.dir) {
            Ok((catalog, set_aside)) => {
                let _ = self.catalog.set(catalog);
                Ok(set_aside)
            }
            Err(StoreError::NoRoomToOpen { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The catalogue, if it is open.
    pub(super) fn get(&self) -> Option<&Catalog> {
        self.catalog.get()
    }

    fn no_room(&self) -> StoreError {
        StoreError::DiskFull { path: self.dir.clone() }
    }

    /// Refuses what changes the catalogue while it is not open.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`].
    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        self.get().map(drop).ok_or_else(|| self.no_room())
    }

    /// See [`Catalog::revision`].
    pub(super) fn revision(&self) -> u64 {
        self.get().map_or(0, Catalog::revision)
    }

    /// See [`Catalog::put_all`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn put_all(&self, entries: &Changes<'_>) -> Result<(), StoreError> {
        self.get().ok_or_else(|| self.no_room())?.put_all(entries)
    }

    /// See [`Catalog::put_all_at`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn put_all_at(&self, least: u64, entries: &Changes<'_>) -> Result<(), StoreError> {
        self.get().ok_or_else(|| self.no_room())?.put_all_at(least, entries)
    }

    /// Why it takes no changes, if so.
    pub(super) fn failed(&self) -> Option<String> {
        match self.get() {
            Some(catalog) => catalog.failed(),
            None => Some(self.no_room().to_string()),
        }
    }

    /// Opens it, or opens it again, if there is room now. Whether it was never open before: then it does not know yet
    /// what was done meanwhile.
    pub(super) fn revive(&self, root: &Path) -> bool {
        if let Some(catalog) = self.get() {
            catalog.revive();
            return false;
        }
        match self.try_open(root) {
            Ok(set_aside) => {
                if let Some(Finding { what, remedy }) = set_aside {
                    tracing::warn!(target: FINDINGS_TARGET, what, remedy, "the data folder needs attention");
                }
                self.get().is_some()
            }
            Err(error) => {
                tracing::debug!(dir = %self.dir.display(), %error, "the catalogue cannot be opened yet");
                false
            }
        }
    }

    /// Closes it. Idempotent.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(super) fn close(&self) -> Result<(), StoreError> {
        self.get().map_or(Ok(()), Catalog::close)
    }
}

/// The catalogue; if it is damaged, it is set aside and an empty one takes its place.
fn open(root: &Path, dir: &Path) -> Result<(Catalog, Option<Finding>), StoreError> {
    let error = match Catalog::open(dir) {
        Ok(catalog) => return Ok((catalog, None)),
        Err(error @ StoreError::Corrupt { .. }) => error,
        Err(error) => return Err(error),
    };
    let aside = (1u32..)
        .map(|n| root.join(format!("{CATALOG_DIR}.damaged-{n}")))
        .find(|aside| !aside.exists())
        .expect("some number is free");
    std::fs::rename(dir, &aside).map_err(|e| io(dir, e))?;
    RealDisk.sync_dir(root).map_err(|e| io(root, e))?;
    let finding = Finding {
        what: format!(
            "{error}; it was set aside as {} and made again from the collections' folders",
            aside.display()
        ),
        remedy: "compare the list of collections with what it should be, and look at the disk".to_owned(),
    };
    Ok((Catalog::open(dir)?, Some(finding)))
}
