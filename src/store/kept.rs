//! A copy of a store, kept while the store is opened: opening a damaged one must not be the end of what is left of it.
//!
//! sled takes the first damage in its log for the log's end, and writes over everything behind it as it opens. Whether
//! that took anything is known only afterwards. So the folder is copied first; if the store is refused, the copy takes
//! its place and every byte is as it was found. The copy is given up before the first write, so it never replaces a
//! store that took one. A copy that a kill left behind belongs to an opening that never ended: it is put back.
//!
//! Where the disk, or a limit on the size of files, leaves no room for the copy, the store is opened without one, with a
//! warning. File systems that share blocks between files (XFS, Btrfs) make the copy in no time and no space.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    StoreError,
    disk::{Disk as _, RealDisk},
    state::RESERVE_BYTES,
};
use crate::files;

/// The whole copy of `state`, durable.
pub(crate) const KEPT_DIR: &str = "state.kept";

/// A copy that is being made, or one that is no longer needed.
pub(crate) const COPYING_DIR: &str = "state.copying";

/// What an opening that was refused made of the store.
pub(crate) const BAD_DIR: &str = "state.bad";

/// A store's folder as it was before it was opened.
#[derive(Debug)]
#[must_use = "either discarded or put back"]
pub(crate) struct Kept {
    state: PathBuf,
    taken: bool,
}

impl Kept {
    /// Copies the store's folder, after putting back what an opening that was killed left.
    ///
    /// # Errors
    /// [`StoreError::Io`]; nothing was changed then.
    pub(crate) fn take(state: &Path) -> Result<Self, StoreError> {
        let mut kept = Kept { state: state.to_owned(), taken: false };
        if kept.path(KEPT_DIR).is_dir() {
            kept.replace().map_err(|e| StoreError::io(&kept.path(KEPT_DIR), e))?;
        }
        for left in [COPYING_DIR, BAD_DIR] {
            remove(&kept.path(left)).map_err(|e| StoreError::io(&kept.path(left), e))?;
        }
        if !state.is_dir() {
            return Ok(kept);
        }
        kept.taken = match kept.copy() {
            Err(error) if super::is_full(&error) || error.kind() == io::ErrorKind::FileTooLarge => {
                tracing::warn!(dir = %state.display(), %error, "the store is opened without a copy; a damaged one would not keep its rest");
                remove(&kept.path(COPYING_DIR)).map_err(|e| StoreError::io(&kept.path(COPYING_DIR), e))?;
                false
            }
            copied => copied.map_err(|e| StoreError::io(state, e))?,
        };
        Ok(kept)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.with_file_name(name)
    }

    fn sync_parent(&self) -> io::Result<()> {
        self.state.parent().map_or(Ok(()), |parent| RealDisk.sync_dir(parent))
    }

    /// Whether there was room for the copy.
    fn copy(&self) -> io::Result<bool> {
        let entries = walkdir::WalkDir::new(&self.state).into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut bytes = RESERVE_BYTES;
        for entry in entries.iter().filter(|entry| !entry.file_type().is_dir()) {
            // A link to a file is copied as the file that it leads to.
            let found = fs::metadata(entry.path())?;
            if !found.is_file() {
                let reason = format!("{} in it is neither a file nor a folder", entry.path().display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            bytes += found.len();
        }
        if fs2::available_space(&self.state)? < bytes {
            tracing::warn!(
                dir = %self.state.display(),
                bytes,
                "the disk has no room for a copy of the store while it is opened; a damaged one would not keep its rest"
            );
            return Ok(false);
        }
        let copying = self.path(COPYING_DIR);
        let mut folders = Vec::new();
        for entry in &entries {
            let below = entry.path().strip_prefix(&self.state).map_err(io::Error::other)?;
            let to = copying.join(below);
            if entry.file_type().is_dir() {
                files::create_private(&to)?;
                folders.push(to);
            } else {
                fs::copy(entry.path(), &to)?;
                File::open(&to)?.sync_all()?;
            }
        }
        for folder in folders.iter().rev() {
            RealDisk.sync_dir(folder)?;
        }
        fs::rename(&copying, self.path(KEPT_DIR))?;
        self.sync_parent()?;
        Ok(true)
    }

    /// The store is whole: the copy goes, durably, before anything is written to the store.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the store must not be written to then, for the next start would put the copy back.
    pub(crate) fn discard(self) -> Result<(), StoreError> {
        if !self.taken {
            return Ok(());
        }
        let (kept, copying) = (self.path(KEPT_DIR), self.path(COPYING_DIR));
        fs::rename(&kept, &copying)
            .and_then(|()| self.sync_parent())
            .map_err(|e| StoreError::io(&kept, e))?;
        if let Err(error) = remove(&copying) {
            tracing::warn!(dir = %copying.display(), %error, "a copy that is no longer needed cannot be removed");
        }
        Ok(())
    }

    /// The store was refused and is closed: it becomes what it was before.
    pub(crate) fn put_back(self) {
        if self.taken
            && let Err(error) = self.replace()
        {
            let kept = self.path(KEPT_DIR);
            tracing::error!(kept = %kept.display(), %error, "the store as it was found lies here; the next start puts it back");
        }
    }

    fn replace(&self) -> io::Result<()> {
        let bad = self.path(BAD_DIR);
        remove(&bad)?;
        match fs::rename(&self.state, &bad) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        fs::rename(self.path(KEPT_DIR), &self.state)?;
        self.sync_parent()?;
        remove(&bad)
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn store(dir: &Path, content: &str) -> PathBuf {
        let state = dir.join("state");
        fs::create_dir_all(state.join("blobs")).unwrap();
        fs::write(state.join("db"), content).unwrap();
        fs::write(state.join("blobs/1"), "a blob").unwrap();
        state
    }

    #[test]
    fn what_an_opening_wrote_is_undone_or_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = store(dir.path(), "as found");
        let kept = Kept::take(&state).unwrap();
        fs::write(state.join("db"), "cut").unwrap();
        fs::remove_dir_all(state.join("blobs")).unwrap();
        kept.put_back();
        assert_eq!(fs::read_to_string(state.join("db")).unwrap(), "as found");
        assert_eq!(fs::read_to_string(state.join("blobs/1")).unwrap(), "a blob");
        assert_eq!(names(dir.path()), ["state"]);

        let kept = Kept::take(&state).unwrap();
        fs::write(state.join("db"), "opened").unwrap();
        kept.discard().unwrap();
        assert_eq!(fs::read_to_string(state.join("db")).unwrap(), "opened");
        assert_eq!(names(dir.path()), ["state"]);
    }

    #[test]
    fn an_opening_that_was_killed_is_undone_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let state = store(dir.path(), "as found");
        let killed = Kept::take(&state).unwrap();
        fs::write(state.join("db"), "cut").unwrap();
        drop(killed);
        fs::create_dir(dir.path().join(COPYING_DIR)).unwrap();
        Kept::take(&state).unwrap().discard().unwrap();
        assert_eq!(fs::read_to_string(state.join("db")).unwrap(), "as found");
        assert_eq!(names(dir.path()), ["state"]);
    }
}
