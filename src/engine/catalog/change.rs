//! Changes: a collection is made or deleted, an alias set or taken away.
//!
//! One change at a time, durable before it is seen. Creation and deletion mark the folder first, so that the next start
//! knows what was cut off and finishes it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard},
};

use super::{
    ALIAS, COLLECTION, COLLECTIONS_DIR, Directory, Names, Open,
    description::{describe_folder, entry_bytes, read_description, spec_of},
    listed, named,
    start::subfolders,
};
use crate::{
    collection::{Collection, CollectionOptions, CollectionSpec, FolderLog, Identity},
    engine::{
        CollectionInfo, EngineError,
        error::Result,
        inventory::{DESCRIPTION_VERSION, Description},
        opened::Place,
    },
    store::{
        StoreError,
        disk::RealDisk,
        folder::{self, Mark},
        whole::Prepared,
    },
    value::datetime,
};

impl Names {
    /// Makes a collection.
    pub(in crate::engine) fn create(&self, info: CollectionInfo) -> Result<CollectionInfo> {
        check_name("collection", &info.name)?;
        self.catalog.check_open()?;
        self.change(|directory| {
            check_free(directory, &info.name)?;
            let spec = spec_of(&info)?;
            let (folder, dir) = self.new_folder(info.created_at)?;
            let place = Place::create(&self.shelf, (&info.name, &dir), spec.clone(), |options| {
                let made = named(&info.name, || Collection::create(&dir, spec, options));
                let made = made.map_err(EngineError::from).and_then(|collection| {
                    self.enter_new(&dir, &folder, &info, Some(collection.identity()))?;
                    Ok(collection)
                });
                made.inspect_err(|_| self.discard_new(&dir))
            })?;
            self.announce(&dir, &info.name)?;
            let open = Open { info: info.clone(), identity: None, place: Ok(place), dir: Some(dir) };
            directory.collections.insert(info.name.clone(), Arc::new(open));
            Ok(info)
        })
    }

    /// Makes a collection that `fill` fills, in a folder that is empty but for its mark. That may take long, so other
    /// changes are made meanwhile; nobody sees the collection before it is whole. It answers with what `fill` says.
    pub(in crate::engine) fn fill_new(
        &self,
        info: CollectionInfo,
        fill: impl FnOnce(&Path, CollectionSpec, CollectionOptions) -> Result<Arc<Collection>>,
    ) -> Result<CollectionInfo> {
        let spec = spec_of(&info)?;
        let (folder, dir) = self.change(|directory| {
            self.check_new(directory, &info.name)?;
            self.new_folder(datetime::now())
        })?;
        let made = Place::create(&self.shelf, (&info.name, &dir), spec.clone(), |options| {
            named(&info.name, || fill(&dir, spec, options))
        });
        let place = made.inspect_err(|_| self.discard_new(&dir))?;
        let entered = self.change(|directory| {
            // Somebody may have taken the name meanwhile.
            self.check_new(directory, &info.name)?;
            self.enter_new(&dir, &folder, &info, place.identity())?;
            self.announce(&dir, &info.name)?;
            let open = Open {
                info: info.clone(),
                identity: place.identity(),
                place: Ok(Arc::clone(&place)),
                dir: Some(dir.clone()),
            };
            directory.collections.insert(info.name.clone(), Arc::new(open));
            Ok(())
        });
        if let Err(error) = entered {
            if let Err(error) = place.close() {
                tracing::warn!(collection = info.name, %error, "closing a collection that was not announced");
            }
            self.discard_new(&dir);
            return Err(error);
        }
        Ok(info)
    }

    /// A collection, and what its folder says of it, or would say now.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`].
    pub(in crate::engine) fn described(&self, name: &str) -> Result<(Arc<Open>, Description)> {
        let directory = self.now();
        let open = Arc::clone(directory.find(name)?);
        let revision = self.catalog.revision();
        let folder = open.dir.as_ref().and_then(|dir| dir.file_name()).unwrap_or_default();
        let aliases = directory.aliases.of(&open.info.name).map(|alias| (alias.clone(), revision));
        let description = Description {
            version: DESCRIPTION_VERSION,
            identity: open.identity(),
            info: open.info.clone(),
            folder: folder.to_string_lossy().into_owned(),
            aliases: aliases.collect(),
            revision,
        };
        Ok((open, description))
    }

    /// Refuses a name that no new collection may have.
    pub(in crate::engine) fn check_new(&self, directory: &Directory, name: &str) -> Result<()> {
        check_name("collection", name)?;
        check_free(directory, name)
    }

    /// A new folder for a collection, with the mark that it was not announced. `time`: that at which it is made, about.
    fn new_folder(&self, time: i64) -> Result<(String, PathBuf)> {
        // The time alone could repeat if the clock is set back.
        let folder = (0u32..)
            .map(|n| format!("{time:014x}-{n}"))
            .find(|f| !self.root.join(COLLECTIONS_DIR).join(f).exists())
            .expect("some number is free");
        let dir = self.root.join(COLLECTIONS_DIR).join(&folder);
        folder::create(&dir, &RealDisk)?;
        Ok((folder, dir))
    }

    /// Describes a new collection in its folder, and enters it into the catalogue.
    fn enter_new(
        &self,
        dir: &Path,
        folder: &str,
        info: &CollectionInfo,
        identity: Option<Identity>,
    ) -> Result<()> {
        let bytes = entry_bytes(info, folder, identity);
        let description = Description {
            version: DESCRIPTION_VERSION,
            identity,
            info: info.clone(),
            folder: folder.to_owned(),
            aliases: BTreeMap::new(),
            revision: self.catalog.revision() + 1,
        };
        describe_folder(dir, &description)?;
        self.catalog.put_all(&[(&format!("{COLLECTION}{}", info.name), Some(&bytes))])?;
        Ok(())
    }

    /// Removes the folder of a collection that could not be made. After a failed write nobody knows whether it is
    /// entered: the mark stays, and the next start finishes the creation or removes the folder.
    fn discard_new(&self, dir: &Path) {
        if self.catalog.failed().is_none()
            && let Err(left) = self.remove(dir)
        {
            tracing::warn!(folder = %dir.display(), error = %left, "the next start removes it");
        }
    }

    /// Takes the mark of a collection away that the catalogue knows; if that fails, the catalogue forgets it again.
    fn announce(&self, dir: &Path, name: &str) -> Result<()> {
        if let Err(error) = folder::unmark(dir, Mark::Creating, &RealDisk) {
            self.catalog.put_all(&[(&format!("{COLLECTION}{name}"), None)])?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Forgets a collection and its aliases, then removes its files.
    pub(in crate::engine) fn delete(&self, name: &str) -> Result<()> {
        let (open, forgotten) = self.change(|directory| {
            if let Some(target) = directory.aliases.target(name) {
                let reason = format!("{name:?} is an alias of {target:?}; delete the collection by its own name; to remove the alias alone, use `distilface collection unalias` or the method DeleteAlias");
                return Err(EngineError::BadRequest { reason });
            }
            let open = Arc::clone(directory.find(name)?);
            if let Some(path) = open.dir.clone().filter(|dir| folder::is_link(dir)) {
                return Err(EngineError::LinkedFolder { name: name.to_owned(), path });
            }
            if let Some(damage) = open.place.as_ref().ok().and_then(|place| place.holds_another()) {
                return Err(EngineError::Damaged { name: name.to_owned(), reason: damage.to_string() });
            }
            let identity = open.identity();
            if let Some(dir) = open.dir.as_ref().filter(|dir| dir.exists()) {
                let found = FolderLog::collection_in(dir).ok().flatten();
                if let (Some(found), Some(expected)) = (found, identity)
                    && found != expected
                {
                    let dir = dir.display();
                    let reason = format!(
                        "the segments in {dir} are of another collection (of identity {found}, and this one is {expected}); put them back where they belong, or put {dir} back from a backup, and start again"
                    );
                    return Err(EngineError::Damaged { name: name.to_owned(), reason });
                }
                folder::mark(dir, Mark::Deleting, identity.or(found), &RealDisk)?;
            } else if let Some(identity) = identity
                && !self.has_folder_of(identity)
            {
                // Its folder is lost, and with it the place where a mark could say what is yet to be done. Whoever
                // deletes it by name means the documents too that only the log has.
                self.shelf.log().delete(identity)?;
            }
            let mut keys = vec![format!("{COLLECTION}{name}")];
            keys.extend(directory.aliases.of(name).map(|alias| format!("{ALIAS}{alias}")));
            let keys: Vec<(&str, Option<&[u8]>)> = keys.iter().map(|k| (k.as_str(), None)).collect();
            let forgotten = self.forget(&open, &keys)?;
            directory.collections.remove(name);
            directory.aliases.remove_of(name);
            Ok((open, forgotten))
        })?;
        // From here the collection is gone for everybody; what goes wrong with its files is repaired at the next start.
        close_deleted(&open);
        // As long as the catalogue has the name, the mark must stay.
        if let Some(dir) = open.dir.as_ref().filter(|dir| forgotten && dir.exists())
            && let Err(error) = self.remove(dir)
        {
            tracing::warn!(collection = name, %error, "removing a deleted collection's files");
        }
        Ok(())
    }

    /// Whether some folder is that of a collection, or may be.
    fn has_folder_of(&self, identity: Identity) -> bool {
        let Ok(folders) = subfolders(&self.root.join(COLLECTIONS_DIR)) else { return true };
        folders.iter().any(|(_, dir)| {
            let described = read_description(dir).map(|description| description.and_then(|d| d.identity));
            let found = FolderLog::collection_in(dir);
            match (described, found) {
                (Err(_), Err(_)) => true,
                (described, found) => {
                    described.is_ok_and(|described| described == Some(identity))
                        || found.is_ok_and(|found| found == Some(identity))
                }
            }
        })
    }

    /// Removes a folder that is marked, after the log was told that its collection is no more.
    pub(super) fn remove(&self, dir: &Path) -> Result<()> {
        // The mark says it also where the rest is damaged, or removed already.
        let found = || FolderLog::collection_in(dir).ok().flatten();
        if let Some(identity) = folder::marked_identity(dir).or_else(found) {
            self.shelf.log().delete(identity)?;
        }
        Ok(folder::remove(dir, &RealDisk)?)
    }

    /// Takes the names of a marked collection out of the catalogue. On a full disk its files go first, which makes the
    /// room that the catalogue needs. `false`: it did not, and the next start does it.
    fn forget(&self, open: &Open, keys: &[(&str, Option<&[u8]>)]) -> Result<bool> {
        let Some(dir) = open.dir.as_ref().filter(|dir| dir.exists()) else {
            self.catalog.put_all(keys)?;
            return Ok(true);
        };
        match self.catalog.put_all(keys) {
            Err(error) if error.is_full() => {
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
    pub(in crate::engine) fn set_alias(&self, alias: &str, collection: &str) -> Result<Option<String>> {
        check_name("alias", alias)?;
        self.catalog.check_open()?;
        self.change(|directory| {
            if directory.collections.contains_key(alias) {
                return Err(EngineError::AliasTaken { name: alias.to_owned() });
            }
            let target = Arc::clone(directory.find(collection)?);
            let name = target.info.name.clone();
            // Written beside first, then the catalogue decides, then the folders follow it: what the catalogue refuses
            // is nowhere.
            let revision = self.catalog.revision() + 1;
            let redescribed = self.redescribe(directory, &target, revision, |aliases| {
                aliases.insert(alias.to_owned(), revision);
            })?;
            self.catalog.put_all(&[(&format!("{ALIAS}{alias}"), Some(name.as_bytes()))])?;
            redescribed.put();
            let before = directory.aliases.point(alias, name);
            if let Some(open) = before.as_ref().and_then(|before| directory.collections.get(before))
                && open.info.name != target.info.name
            {
                match self.redescribe(directory, open, self.catalog.revision(), |aliases| {
                    aliases.remove(alias);
                }) {
                    Ok(redescribed) => redescribed.put(),
                    Err(error) => tell_behind(open, &error),
                }
            }
            Ok(before)
        })
    }

    /// Prepares a change of the aliases that a collection's own folder tells, as of the catalogue's `revision`: one that
    /// the catalogue never comes to would make it look behind.
    fn redescribe<'a>(
        &'a self,
        directory: &Directory,
        open: &'a Open,
        revision: u64,
        change: impl FnOnce(&mut BTreeMap<String, u64>),
    ) -> Result<Redescribed<'a>> {
        // An opening may be entering the identity.
        let one = self.shelf.describing();
        let Some(dir) = open.dir.as_ref().filter(|dir| dir.exists()) else {
            return Ok(Redescribed { open, prepared: None, _one: one });
        };
        let mut description = match read_description(dir) {
            Ok(Some(description)) => description,
            // It says more than this version knows, and that must stay.
            Err(error @ (StoreError::NewerFormat { .. } | StoreError::NotUnderstood { .. })) => {
                return Err(error.into());
            }
            Err(error) if !self.keep_description(dir, &error) => return Err(error.into()),
            Ok(None) | Err(_) => {
                let mine = directory.aliases.of(&open.info.name);
                Description {
                    version: DESCRIPTION_VERSION,
                    identity: open.place.as_ref().ok().and_then(|place| place.identity()),
                    info: open.info.clone(),
                    folder: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                    aliases: mine.map(|alias| (alias.clone(), revision)).collect(),
                    revision,
                }
            }
        };
        description.revision = revision;
        change(&mut description.aliases);
        let prepared = folder::prepare_description(dir, &description.to_bytes(), &RealDisk)?;
        Ok(Redescribed { open, prepared: Some(prepared), _one: one })
    }

    pub(in crate::engine) fn delete_alias(&self, alias: &str) -> Result<()> {
        self.catalog.check_open()?;
        self.change(|directory| {
            if directory.aliases.target(alias).is_none() {
                let known = listed(directory.aliases.names());
                return Err(EngineError::NoAlias { alias: alias.to_owned(), known });
            }
            let target = directory.aliases.target(alias).and_then(|target| directory.collections.get(target));
            let redescribed = target.map(|open| {
                self.redescribe(directory, open, self.catalog.revision() + 1, |aliases| {
                    aliases.remove(alias);
                })
            });
            let redescribed = redescribed.transpose()?;
            self.catalog.put_all(&[(&format!("{ALIAS}{alias}"), None)])?;
            if let Some(redescribed) = redescribed {
                redescribed.put();
            }
            directory.aliases.remove(alias);
            Ok(())
        })
    }
}

/// A description that is written and not in its place yet. Nobody else describes a collection meanwhile.
struct Redescribed<'a> {
    open: &'a Open,
    prepared: Option<Prepared<'a>>,
    _one: MutexGuard<'a, ()>,
}

impl Redescribed<'_> {
    /// Makes it count. The catalogue has the change already, so what fails here is no failure of the change.
    fn put(self) {
        if let Some(Err(error)) = self.prepared.map(Prepared::put) {
            tell_behind(self.open, &error.into());
        }
    }
}

fn tell_behind(open: &Open, error: &EngineError) {
    tracing::warn!(
        collection = open.info.name,
        %error,
        "its folder does not tell its aliases as the catalogue does; the next start makes it do so"
    );
}

/// Refuses a name that a collection or an alias has.
///
/// # Errors
/// [`EngineError::CollectionExists`], [`EngineError::NameIsAlias`].
fn check_free(directory: &Directory, name: &str) -> Result<(), EngineError> {
    if directory.collections.contains_key(name) {
        return Err(EngineError::CollectionExists { name: name.to_owned() });
    }
    match directory.aliases.target(name) {
        Some(target) => Err(EngineError::NameIsAlias { name: name.to_owned(), target: target.to_owned() }),
        None => Ok(()),
    }
}

/// # Errors
/// [`EngineError::BadName`].
pub(in crate::engine) fn check_name(what: &'static str, name: &str) -> Result<(), EngineError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let ok = (1..=128).contains(&name.len())
        && name.bytes().all(allowed)
        && name.as_bytes()[0].is_ascii_alphanumeric();
    if ok { Ok(()) } else { Err(EngineError::BadName { what, name: name.chars().take(160).collect() }) }
}

fn close_deleted(open: &Open) {
    if let Ok(place) = &open.place
        && let Err(error) = place.close()
    {
        tracing::warn!(collection = open.info.name, %error, "closing a deleted collection");
    }
}
