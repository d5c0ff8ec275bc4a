//! A folder that is made under another name and put in its place as a whole.
//!
//! The other name is `.NAME.distilface-new`, beside the place. Whoever allows no name that begins with a dot takes nothing
//! that was cut off for something that is finished.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::disk::Disk;

/// Ends the name of a folder that is not finished.
const UNFINISHED: &str = ".distilface-new";

/// A folder that is being made. Dropped before it is put in its place, it leaves nothing, unless the disk fails.
#[derive(Debug)]
pub(crate) struct Staged {
    disk: Arc<dyn Disk>,
    /// Where it will be.
    place: PathBuf,
    /// Where it is.
    path: PathBuf,
    is_done: bool,
}

impl Staged {
    /// Begins to make the folder `path`, where nothing is, or an empty folder. What was cut off before goes. Only one
    /// may make a folder of this name at a time.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something is there; what the system says.
    pub(crate) fn begin(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        if !is_free(&**disk, path)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut name = OsString::from(".");
        name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        name.push(UNFINISHED);
        let beside = path.with_file_name(name);
        remove_all(&**disk, &beside)?;
        disk.create_dir(&beside)?;
        Ok(Staged { disk: Arc::clone(disk), place: path.to_owned(), path: beside, is_done: false })
    }

    /// Where it is filled.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place. All files in it are synced, and so are the folders in it.
    ///
    /// # Errors
    /// As [`Staged::begin`]; nothing is left then, unless it was the last sync that failed.
    pub(crate) fn put(mut self) -> io::Result<()> {
        self.disk.sync_dir(&self.path)?;
        // A system may let a folder take the place of an empty one only.
        if !is_free(&*self.disk, &self.place)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.disk.rename(&self.path, &self.place)?;
        self.is_done = true;
        self.disk.sync_dir(self.place.parent().unwrap_or(&self.place))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_done
            && let Err(error) = remove_all(&*self.disk, &self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished folder is left behind; the next one of this name removes it");
        }
    }
}

/// Whether there is nothing, or an empty folder.
fn is_free(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.list(path) {
        Ok(entries) => Ok(entries.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a file, or a folder with all that is in it, if it is there. Of a symbolic link only the link goes.
///
/// # Errors
/// What the system says.
pub(crate) fn remove_all(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    // By its name alone, before anybody asks what it leads to.
    let refused = match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if is_folder(&error) => error,
        removed => return removed,
    };
    let Ok(entries) = disk.list(path) else { return Err(refused) };
    entries.iter().try_for_each(|entry| remove_all(disk, &path.join(&entry.name)))?;
    disk.remove_dir(path)
}

/// Whether a file was to be removed and it is a folder. Not every system has a word for it.
fn is_folder(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied)
}

/// A folder in which only this process makes new ones; until it is dropped, or the process ends.
#[derive(Debug)]
pub(crate) struct Held {
    folder: Option<File>,
}

impl Held {
    /// Removes what was cut off of folders that were made in it, whatever their names. Nothing where the file system has
    /// no locks, since somebody may be at them.
    ///
    /// # Errors
    /// What the system says; it can be tried again.
    pub(crate) fn sweep(&self, disk: &dyn Disk, folder: &Path) -> io::Result<()> {
        if self.folder.is_none() {
            return Ok(());
        }
        for entry in disk.list(folder)? {
            let name = entry.name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(UNFINISHED) {
                remove_all(disk, &folder.join(&entry.name))?;
            }
        }
        Ok(())
    }
}

/// Takes a folder for this process; another one that asks by this function is refused. Nothing is written into it. Where
/// the file system has no locks, nobody is refused.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if another process, or another call of this one, has it; what opening it says.
pub(crate) fn hold(folder: &Path) -> io::Result<Held> {
    // Elsewhere a folder cannot be opened as a file.
    if !cfg!(unix) {
        return fs::metadata(folder).map(|_| Held { folder: None });
    }
    let file = File::open(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(Held { folder: Some(file) }),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => {
            tracing::debug!(folder = %folder.display(), %error, "its file system has no locks");
            Ok(Held { folder: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{disk::RealDisk, forgetful::ForgetfulDisk};

    fn write(disk: &dyn Disk, path: &Path) {
        let file = disk.create(path).unwrap();
        file.write_at(0, b"x").unwrap();
        file.sync_all().unwrap();
    }

    #[test]
    fn it_is_there_as_a_whole_or_not_at_all_whenever_the_power_goes() {
        let place = Path::new("/backups/b");
        for calls in 1.. {
            let disk = ForgetfulDisk::new(calls);
            disk.create_dir(Path::new("/backups")).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            disk.crash_at_call(calls);
            let made = (|| {
                let staged = Staged::begin(&shared, place)?;
                shared.create_dir(&staged.path().join("d"))?;
                for name in ["d/1", "2"] {
                    let file = shared.create(&staged.path().join(name))?;
                    file.write_at(0, b"x")?;
                    file.sync_all()?;
                }
                shared.sync_dir(&staged.path().join("d"))?;
                staged.put()
            })();
            if !disk.is_off() {
                made.unwrap();
                break;
            }
            let disk = disk.crash(calls);
            match disk.list(place) {
                Ok(entries) => {
                    assert_eq!(entries.len(), 2, "call {calls}");
                    assert_eq!(disk.list(&place.join("d")).unwrap().len(), 1, "call {calls}");
                }
                Err(_) => assert!(made.is_err()),
            }
            // Whatever was left is no obstacle.
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            if disk.list(place).is_err() {
                let staged = Staged::begin(&shared, place).unwrap();
                write(&*shared, &staged.path().join("2"));
                staged.put().unwrap();
            }
            let left = disk.list(Path::new("/backups")).unwrap();
            assert!(left.iter().all(|entry| entry.name == "b"), "call {calls}: {left:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_replaced_and_nothing_behind_a_link_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        for (name, is_folder) in [("file", false), ("full", true)] {
            if is_folder {
                fs::create_dir(path(name)).unwrap();
                fs::write(path(name).join("theirs"), "").unwrap();
            } else {
                fs::write(path(name), "").unwrap();
            }
            let error = Staged::begin(&disk, &path(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        // What was cut off before, with a link to somebody's files in it.
        fs::create_dir_all(path(".b.distilface-new/d")).unwrap();
        std::os::unix::fs::symlink(path("full"), path(".b.distilface-new/d/link")).unwrap();
        fs::create_dir(path("b")).unwrap();
        let staged = Staged::begin(&disk, &path("b")).unwrap();
        write(&*disk, &staged.path().join("new"));
        staged.put().unwrap();
        assert!(path("b/new").exists() && path("full/theirs").exists());
        // Somebody was faster.
        let staged = Staged::begin(&disk, &path("c")).unwrap();
        write(&*disk, &staged.path().join("new"));
        fs::create_dir(path("c")).unwrap();
        fs::write(path("c/theirs"), "").unwrap();
        assert_eq!(staged.put().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(path("c/theirs").exists() && !path(".c.distilface-new").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let held = hold(dir.path()).unwrap();
        assert_eq!(hold(dir.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for name in [".a.distilface-new", "b.distilface-new", ".c.new", "d"] {
            fs::create_dir_all(dir.path().join(name).join("inside")).unwrap();
        }
        held.sweep(&RealDisk, dir.path()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".c.new", "b.distilface-new", "d"]);
        drop(held);
        hold(dir.path()).unwrap();
        assert_eq!(hold(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is written into it");
    }
}
