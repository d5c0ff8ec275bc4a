//! Stores of sled of every format, killed at every step.

use std::{
    io,
    sync::atomic::{AtomicI64, Ordering},
};

use super::*;
use crate::{
    files::{
        Mapped,
        disk::{DirEntry, DiskFile},
    },
    segmented::take_over::{BEGUN_FILE, take_over},
    store::{self, golden, tests::to_format_1},
};

/// The disk until a number of changing calls were made; then each fails. With room for no more than it says.
#[derive(Debug, Clone)]
pub(super) struct Dying {
    pub(super) left: Arc<AtomicI64>,
    pub(super) available: u64,
    /// A file has one name only.
    pub(super) has_no_links: bool,
    /// What ends with this cannot be read.
    pub(super) unreadable: Option<PathBuf>,
}

impl Dying {
    pub(super) fn after(calls: i64) -> Self {
        Dying {
            left: Arc::new(AtomicI64::new(calls)),
            available: u64::MAX,
            has_no_links: false,
            unreadable: None,
        }
    }

    fn call(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 { Ok(()) } else { Err(io::Error::other("killed")) }
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(DyingFile { disk: self.clone(), file })
    }
}

#[derive(Debug)]
struct DyingFile {
    disk: Dying,
    file: Arc<dyn DiskFile>,
}

impl Disk for Dying {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.call()?;
        Ok(self.file(RealDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(RealDisk.open(path)?))
    }
    fn read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.unreadable.as_ref().is_some_and(|end| path.ends_with(end)) {
            return Err(io::Error::other("the device fails here"));
        }
        RealDisk.read_only(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call().and_then(|()| RealDisk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call().and_then(|()| RealDisk.remove(path))
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.has_no_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.call().and_then(|()| RealDisk.hard_link(from, to))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call().and_then(|()| RealDisk.create_dir(path))
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.call().and_then(|()| RealDisk.remove_dir(path))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call().and_then(|()| RealDisk.sync_dir(path))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(dir)
    }
    fn available(&self, _: &Path) -> io::Result<u64> {
        Ok(self.available)
    }
}

impl DiskFile for DyingFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.call().and_then(|()| self.file.write_at(offset, bytes))
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.call().and_then(|()| self.file.set_len(len))
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.call().and_then(|()| self.file.allocate(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.call().and_then(|()| self.file.sync_data())
    }
    fn sync_all(&self) -> io::Result<()> {
        self.disk.call().and_then(|()| self.file.sync_all())
    }
    fn map(&self) -> io::Result<Mapped> {
        self.file.map()
    }
}

fn earlier(dir: &Path) -> store::Store {
    store::Store::open(&dir.join("state"), None, 4 << 20, Arc::new(store::disk::RealDisk)).unwrap()
}

/// What a store holds: of each document the body, the text and the vectors' bits.
type Held = Vec<(u64, Vec<u8>, String, Vec<u32>)>;

fn bits(vectors: &[f32]) -> Vec<u32> {
    vectors.iter().map(|value| value.to_bits()).collect()
}

fn held_earlier(store: &store::Store) -> Held {
    let mut held = Vec::new();
    store
        .load(|loaded| {
            let text = store.text(loaded.number, &loaded.head)?;
            held.push((loaded.number, loaded.head.body, text, bits(&loaded.vectors)));
            Ok::<_, StoreError>(())
        })
        .unwrap();
    held.sort();
    held
}

fn held(store: &Store) -> Held {
    let mut held = Vec::new();
    store
        .load(|loaded| {
            let text = text_in(store, loaded.number);
            let head = store.snapshot().head(loaded.number, Path::new("x"))?.unwrap();
            held.push((loaded.number, head.body.encode(), text, bits(&loaded.vectors)));
            Ok::<_, StoreError>(())
        })
        .unwrap();
    held
}

/// The collections of the folder that an earlier format left, with their dimensions.
fn left_by(format: u32, root: &Path) -> Vec<(PathBuf, u32)> {
    golden::unpack(if format == 3 { golden::FORMAT_3 } else { golden::FORMAT_2 }, root);
    let folders = std::fs::read_dir(root.join("collections")).unwrap();
    folders
        .map(|folder| {
            let dir = folder.unwrap().path();
            if format == 1 {
                to_format_1(&dir.join("state"));
            }
            let mut dimension = 0;
            let each = |loaded: store::Loaded| {
                dimension = u32::try_from(loaded.vectors.len()).unwrap() / loaded.head.passages;
                Ok::<_, StoreError>(())
            };
            earlier(&dir).load(each).unwrap();
            (dir, dimension)
        })
        .collect()
}

/// One of format 3 with few documents, of which some were removed.
fn format_3(root: &Path) -> (PathBuf, u32) {
    let collections = left_by(3, root);
    collections.into_iter().min_by_key(|(dir, _)| held_earlier(&earlier(dir)).len()).unwrap()
}

fn world_of(disk: Dying, root: &Path) -> World {
    World::new(Arc::new(disk), root)
}

fn check_taken_over(dir: &Path, dimension: u32, log: &Arc<FolderLog>) {
    let old = earlier(dir);
    let expected = held_earlier(&old);
    let store = take_over(&old, log, dir, space(dimension), OPTIONS).unwrap();
    assert_eq!(held(&store), expected, "{}", dir.display());
    assert_eq!((store.identity(), store.next_number()), (old.identity(), old.next_number()));
    assert!(!dir.join(BEGUN_FILE).exists());
    // The earlier one is as it was.
    assert_eq!(held_earlier(&old), expected);
    // Done once more, it is opened.
    drop(store);
    let store = take_over(&old, log, dir, space(dimension), OPTIONS).unwrap();
    assert_eq!(held(&store), expected);
}

#[test]
fn a_store_of_sled_of_every_format_is_taken_over_with_all_that_is_in_it() {
    for format in [1, 2, 3] {
        let root = tempfile::tempdir().unwrap();
        let world = world_of(Dying::after(i64::MAX), root.path());
        let log = world.log();
        let collections = left_by(format, root.path());
        assert_eq!(collections.len(), 3);
        for (dir, dimension) in collections {
            check_taken_over(&dir, dimension, &log);
        }
    }
}

#[test]
fn a_kill_at_any_step_leaves_the_earlier_store_and_the_next_call_begins_anew() {
    let root = tempfile::tempdir().unwrap();
    let (dir, dimension) = format_3(root.path());
    let old = earlier(&dir);
    let expected = held_earlier(&old);
    let mut kills = 0;
    for calls in 0.. {
        let disk = Dying::after(i64::MAX);
        let world = world_of(disk.clone(), root.path());
        let log = world.log();
        disk.left.store(calls, Ordering::SeqCst);
        let taken = take_over(&old, &log, &dir, space(dimension), OPTIONS);
        if let Ok(store) = taken {
            assert_eq!(held(&store), expected);
            break;
        }
        world.stop();
        kills += 1;
        assert_eq!(held_earlier(&old), expected);
        if calls % 5 == 4 {
            // Resumed, and then from the beginning again.
            let world = world_of(Dying::after(i64::MAX), root.path());
            let store = take_over(&old, &world.log(), &dir, space(dimension), OPTIONS).unwrap();
            assert_eq!(held(&store), expected);
            drop(store);
            world.log().forget(old.identity());
            world.stop();
            std::fs::remove_dir_all(root.path().join("log")).unwrap();
            for entry in std::fs::read_dir(&dir).unwrap() {
                let (path, is_state) = entry.map(|e| (e.path(), e.file_name() == "state")).unwrap();
                if !is_state && path.file_name().unwrap() != "acknowledged" {
                    if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                        .unwrap();
                }
            }
        }
    }
    assert!(kills > 5, "{kills}");
}

#[test]
fn without_room_for_all_of_it_nothing_is_written() {
    let root = tempfile::tempdir().unwrap();
    let (dir, dimension) = format_3(root.path());
    let old = earlier(&dir);
    let disk = Dying { available: (32 << 20) + 1000, ..Dying::after(i64::MAX) };
    let world = world_of(disk, root.path());
    let names =
        || -> BTreeSet<_> { std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect() };
    let log = world.log();
    let before = names();
    let full = take_over(&old, &log, &dir, space(dimension), OPTIONS).unwrap_err();
    // What sled takes for thirty documents is more than the thousand bytes that are left.
    assert!(matches!(full, StoreError::DiskFull { .. }), "{full}");
    assert_eq!(names(), before);
}

#[test]
fn segments_that_nobody_says_are_remains_are_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let world = world_of(Dying::after(i64::MAX), root.path());
    let (dir, dimension) = format_3(root.path());
    let old = earlier(&dir);
    let log = world.log();
    std::fs::create_dir(dir.join("0000000001")).unwrap();
    let error = take_over(&old, &log, &dir, space(dimension), OPTIONS).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(dir.join("0000000001").exists() && !dir.join(BEGUN_FILE).exists());
}

#[test]
fn a_store_whose_manifest_is_lost_is_not_made_anew_of_the_earlier_one() {
    let root = tempfile::tempdir().unwrap();
    let world = world_of(Dying::after(i64::MAX), root.path());
    let (dir, dimension) = format_3(root.path());
    let old = earlier(&dir);
    let store = take_over(&old, &world.log(), &dir, space(dimension), OPTIONS).unwrap();
    let (number, ..) = held(&store)[0];
    let mut batch = StoreBatch::default();
    batch.bury(number, store.snapshot().head(number, &dir).unwrap().unwrap().passages());
    store.commit(batch).unwrap();
    drop(store);
    for entry in world.disk.list(&dir).unwrap() {
        let path = dir.join(&entry.name);
        let name = entry.name.to_str().unwrap();
        if name.starts_with("0") || name == "segments" {
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
    }
    drop(old);
    for _ in 0..2 {
        let old = earlier(&dir);
        let error = take_over(&old, &world.log(), &dir, space(dimension), OPTIONS).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        world.stop();
    }
}
