//! Files that lie in the folder of one collection and are another's, as after folders were mixed up by hand: each says
//! whose it is, so each can be put back.
//!
//! First all are renamed into their own folders under names that mean nothing to an opening, then each gets its name. So
//! it does not matter that two are in each other's place, and a kill in between leaves what the next repair finishes.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::Loss;
use crate::{
    files::disk::{Disk, EntryKind},
    segment,
    segmented::{manifest::Manifest, verify::Known},
    store::{Identity, StoreError, folder::SEGMENTS_FILE},
};

/// Ends the name of what is in its own folder again and has not its name yet.
const MOVED: &str = ".moved";

/// A file or a folder, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misplaced {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
}

impl Misplaced {
    /// Whether it lies in this folder, or belongs there.
    pub(super) fn touches(&self, dir: &Path) -> bool {
        self.from.parent() == Some(dir) || self.to.parent() == Some(dir)
    }

    pub(super) fn loss(&self) -> Loss {
        let what = format!("nothing: it belongs to another folder, and is moved to {}", self.to.display());
        Loss { file: self.from.clone(), what, documents: Some(0), ids: Vec::new() }
    }
}

/// What lies in the wrong one of these folders and can be put where it belongs, since that place is free, or will be.
///
/// # Errors
/// What listing a folder says.
pub(crate) fn misplaced(disk: &dyn Disk, all: &[Known]) -> Result<Vec<Misplaced>, StoreError> {
    let mut found = Vec::new();
    let mut taken: BTreeSet<PathBuf> = BTreeSet::new();
    for Known { dir, identity, .. } in all {
        let entries = disk.list(dir).map_err(|e| StoreError::io(dir, e))?;
        for entry in entries {
            let from = dir.join(&entry.name);
            taken.insert(from.clone());
            let Some(name) = entry.name.to_str() else { continue };
            let own_name = name.strip_suffix(MOVED);
            let Some(whose) = whose(disk, &from, own_name.unwrap_or(name), entry.kind) else { continue };
            let owner = all.iter().find(|known| known.identity == Some(whose));
            let is_at_home = *identity == Some(whose);
            if let Some(owner) = owner
                && (!is_at_home || own_name.is_some())
            {
                found.push(Misplaced { from, to: owner.dir.join(own_name.unwrap_or(name)) });
            }
        }
    }
    // What would take the place of something that stays is left where it is, and so is what waits for that.
    loop {
        let leaving: BTreeSet<&PathBuf> = found.iter().map(|wrong| &wrong.from).collect();
        let is_free = |wrong: &Misplaced| {
            let twins = found.iter().filter(|other| other.to == wrong.to).count();
            twins == 1 && (!taken.contains(&wrong.to) || leaving.contains(&wrong.to))
        };
        let kept: Vec<Misplaced> = found.iter().filter(|wrong| is_free(wrong)).cloned().collect();
        if kept.len() == found.len() {
            return Ok(found);
        }
        found = kept;
    }
}

/// Which collection a file of segments, or the folder of one, is of.
fn whose(disk: &dyn Disk, path: &Path, name: &str, kind: EntryKind) -> Option<Identity> {
    if name == SEGMENTS_FILE && kind == EntryKind::File {
        return Manifest::look_at(disk, path).ok().flatten().map(|(identity, _)| identity);
    }
    segment::owner_of(disk, path, name).map(|name| name.collection)
}

/// Puts everything where it belongs.
///
/// # Errors
/// [`StoreError::Io`]; what is not in its place yet, the next repair finds.
pub(super) fn put_right(disk: &dyn Disk, wrong: &[Misplaced]) -> Result<(), StoreError> {
    let aside = |to: &Path| {
        let mut name: OsString = to.file_name().unwrap_or_default().to_owned();
        name.push(MOVED);
        to.with_file_name(name)
    };
    let sync = |path: &Path| {
        let dir = path.parent().unwrap_or(path);
        disk.sync_dir(dir).map_err(|e| StoreError::io(dir, e))
    };
    let rename = |from: &Path, to: &Path| disk.rename(from, to).map_err(|e| StoreError::io(from, e));
    for Misplaced { from, to } in wrong {
        if *from != aside(to) {
            rename(from, &aside(to))?;
        }
    }
    for Misplaced { from, to } in wrong {
        sync(from)?;
        sync(to)?;
    }
    for Misplaced { from, to } in wrong {
        rename(&aside(to), to)?;
        tracing::info!(from = %from.display(), to = %to.display(), "it is where it belongs again");
    }
    wrong.iter().try_for_each(|Misplaced { to, .. }| sync(to))
}

/// Documents that the segments of a collection hold when everything is where it belongs, as far as can be told.
pub(super) fn documents_of(disk: &dyn Disk, known: &Known, wrong: &[Misplaced]) -> u64 {
    let place = Manifest::path(&known.dir);
    let from = wrong.iter().find(|wrong| wrong.to == place).map_or(&place, |wrong| &wrong.from);
    Manifest::look_at(disk, from).ok().flatten().map_or(0, |(_, manifest)| manifest.documents())
}
