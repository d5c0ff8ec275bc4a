//! What lies in a data folder that no server has open, compared with what its catalogue says. Nothing is changed: the
//! catalogue is read from a copy, since opening it writes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    CATALOG_DIR, COLLECTIONS_DIR,
    description::read_description,
    io,
    start::{catalogued, read_folders},
};
use crate::{
    collection::{FolderLog, Identity},
    engine::{
        EngineError,
        backup::refuse_backup,
        error::Result,
        inventory::{self, Catalogued, Description, Finding},
    },
    error::with_sources,
    files::{
        self,
        disk::{DirEntry, Disk, EntryKind, RealDisk},
    },
    segmented::verify::{Fault, Known},
    stop::Stop,
    store::{
        Catalog, DataLock, StoreError,
        folder::{self, DESCRIPTION_FILE, Mark, SEGMENTS_FILE, Standing},
    },
    vector::Dim,
};

/// Refuses a folder that is no data folder, as a backup is none, or that cannot be read. Changes nothing.
///
/// # Errors
/// Of kind Invalid, saying what is there, and what makes a data folder.
pub fn check_data_folder(dir: &Path) -> Result<()> {
    refuse_backup(dir)?;
    let dir_text = dir.display();
    let makes = format!(
        "`distilface serve --data {dir_text}` and `distilface ingest --data {dir_text}` make one; give another one with --data"
    );
    // Whoever may not look into it must not hear that nothing is there.
    let reason = match std::fs::read_dir(dir) {
        Ok(_) if is_data_folder(dir) => return Ok(()),
        Ok(_) => {
            format!("there is no data folder at {dir_text}: it has neither a log nor collections; {makes}")
        }
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no data folder at {dir_text}; {makes}"),
            std::io::ErrorKind::PermissionDenied => {
                format!("{dir_text} cannot be read by this user; run this as the user whose data it is")
            }
            _ => format!("{dir_text} cannot be read: {error}; give another data folder with --data"),
        },
    };
    Err(EngineError::BadRequest { reason })
}

fn is_data_folder(dir: &Path) -> bool {
    ["log", COLLECTIONS_DIR, CATALOG_DIR].iter().any(|name| dir.join(name).is_dir())
}

/// Takes the lock of a folder that is one of ours.
pub(super) fn take(dir: &Path) -> Result<DataLock> {
    check_data_folder(dir)?;
    Ok(DataLock::acquire(dir)?)
}

/// A folder of a collection.
#[derive(Debug)]
pub(super) struct At {
    /// As its description says, else as the catalogue does, else the folder's own.
    pub(super) name: String,
    pub(super) dir: PathBuf,
    /// How it is read, or why it cannot be.
    pub(super) state: Result<Known, Fault>,
    /// Why a start refuses it all the same.
    pub(super) refused: Vec<Fault>,
}

/// A collection that the catalogue names, and that has no folder.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) name: String,
    pub(super) identity: Option<Identity>,
    pub(super) fault: Fault,
}

/// What lies in a data folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of their names.
    pub(super) collections: Vec<At>,
    pub(super) missing: Vec<Missing>,
    /// Of whatever lies here, also of what is left alone or half deleted.
    pub(super) identities: Vec<Identity>,
    pub(super) notes: Vec<String>,
    /// What the catalogue says; where it cannot be read, what one that is level with the folders would say.
    pub(super) catalogued: Catalogued,
}

impl Found {
    pub(super) fn look(root: &Path) -> Result<Self> {
        let dir = root.join(COLLECTIONS_DIR);
        let mut found = Found::default();
        let mut marked = Vec::new();
        let mut dirs = Vec::new();
        for DirEntry { name, kind, .. } in list(&RealDisk, &dir)? {
            let (EntryKind::Dir, Some(name)) = (kind, name.to_str()) else { continue };
            dirs.push((name.to_owned(), dir.join(name)));
        }
        for (name, dir) in &dirs {
            let described = read_description(dir).ok().flatten().and_then(|description| description.identity);
            let segments = FolderLog::collection_in(dir).ok().flatten();
            found
                .identities
                .extend([folder::marked_identity(dir), described, segments].into_iter().flatten());
            if let Some(note) = marked_note(dir) {
                found.notes.push(format!("{}: {note}", dir.display()));
                marked.push((name.clone(), dir.clone()));
            }
        }
        let is_marked = |dir: &PathBuf| marked.iter().any(|(_, marked)| marked == dir);
        let folders = if dir.is_dir() {
            read_folders(&dir, marked.iter().map(|(_, dir)| dir.clone()).collect())?
        } else {
            Vec::new()
        };
        match read_catalogue(root) {
            Ok(Some(catalogued)) => found.catalogued = catalogued,
            Ok(None) => found.catalogued = Catalogued::of(&folders),
            Err(note) => {
                found.catalogued = Catalogued::of(&folders);
                found.notes.push(note);
            }
        }
        // As a start does: what is being deleted is no collection any more.
        found.catalogued.entries.retain(|_, entry| {
            let of = marked.iter().find(|(name, _)| *name == entry.folder);
            of.is_none_or(|(_, dir)| folder::marked(dir) != Some(Mark::Deleting))
        });
        for (name, dir) in dirs.into_iter().filter(|(_, dir)| !is_marked(dir)) {
            found.add(&name, dir);
        }
        found.compare(&dir, &folders);
        found.collections.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Says what a start would find wrong between catalogue and folders.
    fn compare(&mut self, dir: &Path, folders: &[inventory::Folder]) {
        let inventory = inventory::take(dir, &self.catalogued, folders);
        for (name, item) in inventory.collections {
            let Some(Finding { what, remedy }) = item.refused else { continue };
            let folder = item.folder.map(|folder| dir.join(folder));
            let mut all = self.collections.iter_mut();
            let at = match &folder {
                Some(folder) => all.find(|at| at.dir == *folder),
                None => all.find(|at| at.name == name),
            };
            let entered = self.catalogued.entries.get(&name).map(|entry| dir.join(&entry.folder));
            let place = folder.or(entered).unwrap_or_else(|| dir.to_owned());
            let fault = Fault::hopeless(&place, what, &remedy);
            match at {
                // What is wrong with its description is told already.
                Some(At { state: Err(_), .. }) => {}
                Some(at) => at.refused.push(fault),
                None => {
                    let identity = item.identity;
                    self.missing.push(Missing { name, identity, fault });
                }
            }
        }
        let is_told = |what: &str| {
            let mut broken = self.collections.iter().filter(|at| at.state.is_err());
            broken.any(|at| what.starts_with(&*at.dir.to_string_lossy()))
        };
        let findings = inventory.findings.into_iter().filter(|finding| !is_told(&finding.what));
        let notes: Vec<String> = findings.map(|finding| finding.to_string()).collect();
        self.notes.extend(notes);
    }

    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        self.collections.iter().map(|at| at.dir.clone()).collect()
    }

    fn add(&mut self, folder: &str, dir: PathBuf) {
        let mut left = |what: &str| self.notes.push(format!("{}: {what}", dir.display()));
        let path = dir.join(DESCRIPTION_FILE);
        let has_segments = dir.join(SEGMENTS_FILE).exists();
        let entered = self.catalogued.entries.values().find(|entry| entry.folder == folder);
        let entered = entered.map_or_else(|| folder.to_owned(), |entry| entry.info.name.clone());
        let (name, state) = match read_description(&dir) {
            // A copy, or one that was renamed: comparing it with the catalogue tells that.
            Ok(Some(description)) if description.folder != folder => return,
            Ok(Some(_)) if !has_segments && folder::has_earlier_state(&dir) => {
                return left("an earlier version kept it; the next start takes it over");
            }
            Ok(Some(description)) => (description.info.name.clone(), known(&dir, &description)),
            Ok(None) if !has_segments && !folder::has_state(&dir) => return left("nothing is in it"),
            Ok(None) => (entered, Err(undescribed(&path, None, "it is missing".to_owned()))),
            Err(StoreError::Corrupt { reason, .. }) => (entered, Err(undescribed(&path, Some(0), reason))),
            Err(error @ (StoreError::NewerFormat { .. } | StoreError::NotUnderstood { .. })) => {
                (entered, Err(Fault::newer(&path, &error)))
            }
            Err(error) => {
                let error = with_sources(&error);
                (entered, Err(undescribed(&path, None, format!("it cannot be read: {error}"))))
            }
        };
        self.collections.push(At { name, dir, state, refused: Vec::new() });
    }
}

/// What is to be said of a folder that is left alone for its mark.
fn marked_note(dir: &Path) -> Option<String> {
    match folder::standing(dir) {
        Standing::Removable(Mark::Creating) => {
            Some("left by a creation that was cut off; the next start removes it".to_owned())
        }
        Standing::Removable(Mark::Deleting) => {
            Some("left by a deletion that was cut off; the next start removes it".to_owned())
        }
        Standing::Held(_, reason) => Some(format!("a creation or deletion of it was cut off, but {reason}")),
        Standing::NoMark(_) | Standing::Unmarked => None,
    }
}

fn undescribed(path: &Path, offset: Option<u64>, reason: String) -> Fault {
    let remedy = "`distilface repair --yes` and the next start of the server write it again if the catalogue knows the collection; else put it back from a backup";
    Fault { remedy: remedy.to_owned(), ..Fault::repairable(path, offset, reason) }
}

pub(super) fn known(dir: &Path, description: &Description) -> Result<Known, Fault> {
    let info = &description.info;
    let fingerprint = info.model.as_ref().map_or_else(String::new, |model| model.fingerprint.0.clone());
    match Dim::new(info.dimension) {
        Ok(dim) => Ok(Known::new(dir, description.identity, dim, info.metric, fingerprint)),
        Err(error) => {
            let reason = format!("what it says cannot be true: {error}");
            let remedy = "put the folder back from a backup, or delete the collection";
            Err(Fault::hopeless(&dir.join(DESCRIPTION_FILE), reason, remedy))
        }
    }
}

/// All that the catalogue says, read from a copy: opening it writes. `None` where there is none.
///
/// # Errors
/// Why it was not read, as a note.
fn read_catalogue(root: &Path) -> Result<Option<Catalogued>, String> {
    let dir = root.join(CATALOG_DIR);
    if !dir.is_dir() {
        return Ok(None);
    }
    let unread = |reason: String| {
        format!(
            "{}: it was not compared with the folders ({reason}), so a collection whose folder is missing is not named; it is a cache, and the next start makes it again where it is damaged",
            dir.display()
        )
    };
    let copy =
        Copied::of(&dir).map_err(|error| unread(format!("it cannot be copied to be read: {error}")))?;
    let read = || {
        let catalog = Catalog::open(&copy.0)?;
        let catalogued = catalogued(root, &catalog)?;
        catalog.close()?;
        Ok::<_, EngineError>(catalogued)
    };
    read().map(Some).map_err(|error| {
        // The copy is nobody's business.
        unread(with_sources(&error).replace(&*copy.0.to_string_lossy(), &dir.to_string_lossy()))
    })
}

/// A copy of a folder among the system's temporary files, for this user alone; it ends with this.
struct Copied(PathBuf);

impl Copied {
    fn of(dir: &Path) -> std::io::Result<Self> {
        let copy = Copied(files::temporary_beside(&std::env::temp_dir().join("distilface-catalog")));
        files::create_private(&copy.0)?;
        copy_below(dir, &copy.0)?;
        Ok(copy)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // What stays is a small folder among temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Files and folders; nothing behind a link, and nothing that is neither.
fn copy_below(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files::create_private(&place)?;
            copy_below(&path, &place)?;
        } else if kind.is_file() {
            std::fs::copy(&path, &place)?;
        }
    }
    Ok(())
}

/// A cache that cannot be read is worth a word.
pub(super) fn catalogue_note(disk: &Arc<dyn Disk>, dir: &Path, stop: &Stop) -> Result<Option<String>> {
    let mut step = vec![0; 1 << 20];
    for DirEntry { name, kind, .. } in list(&**disk, dir)? {
        if kind != EntryKind::File {
            continue;
        }
        let path = dir.join(name);
        let read = disk.read_only(&path).and_then(|file| {
            let mut at = 0;
            loop {
                match file.read_at(at, &mut step)? {
                    0 => return Ok(()),
                    read => at += read as u64,
                }
            }
        });
        if let Err(error) = read {
            stop.check().map_err(|stopped| io(&path, std::io::Error::other(stopped)))?;
            return Ok(Some(format!(
                "{}: it cannot be read ({error}); it is a cache, and the next start makes it again",
                path.display()
            )));
        }
    }
    Ok(None)
}

/// What is in a folder; nothing if it is not there.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<DirEntry>> {
    match disk.list(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => Ok(listed.map_err(|e| io(dir, e))?),
    }
}
