//! The store against plain maps, against damage that only it can see, and against sled's habits.

use crate::error::Fault as _;
use std::{collections::BTreeMap, path::Path, sync::Arc, sync::atomic::Ordering};

use proptest::prelude::*;

use super::{
    Catalog, Identity, Store, StoreError,
    disk::{Disk as _, RealDisk, faulty::FaultyDisk},
    golden,
    state::{Changes, PIECE_BYTES, State},
};

fn open(dir: &Path) -> State {
    State::open(dir, 4 << 20, Arc::new(RealDisk)).unwrap()
}

fn create(dir: &Path) -> State {
    State::create(dir, 4 << 20, Arc::new(RealDisk)).unwrap()
}

/// Makes a catalogue, or a collection's store of format 2, what format 1 was.
pub(crate) fn to_format_1(dir: &Path) {
    let state = open(dir);
    let mut changes = Changes::default();
    changes.put(b"f", &1u32.to_le_bytes());
    if state.scan(b"k").unwrap().next().is_some() {
        // A catalogue: it had no totals.
        state.remove(&mut changes, b"m").unwrap();
    }
    state.commit(changes).unwrap();
    let _ = std::fs::remove_file(super::acknowledged::path_of(dir));
}

/// Bytes that do not compress.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x >> 16) as u8
        })
        .collect()
}

#[test]
fn values_of_every_length_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let state = create(dir.path());
    let lengths = [0, 1, PIECE_BYTES - 10, PIECE_BYTES - 9, PIECE_BYTES, 3 * PIECE_BYTES, 400_000];
    let mut changes = Changes::default();
    for (n, len) in (0u8..).zip(lengths) {
        changes.put(&[b'k', n], &noise(len, 7));
    }
    state.commit(changes).unwrap();
    drop(state);
    let state = open(dir.path());
    for (n, len) in (0u8..).zip(lengths) {
        assert_eq!(state.get(&[b'k', n]).unwrap().unwrap().0, noise(len, 7));
    }
    assert_eq!(state.scan(b"k").unwrap().count(), lengths.len());
    assert!(state.get(b"other").unwrap().is_none());
    let mut changes = Changes::default();
    state.remove(&mut changes, &[b'k', 6]).unwrap();
    state.commit(changes).unwrap();
    assert!(state.get(&[b'k', 6]).unwrap().is_none());
    assert_eq!(state.scan(b"k").unwrap().count(), lengths.len() - 1);
}

/// sled never syncs a page that it spills into a file of its own; ours must never be that large.
#[test]
fn no_page_is_spilled_into_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let state = create(dir.path());
    for round in 0..6u8 {
        let mut changes = Changes::default();
        for n in 0..200u8 {
            changes.put(&[b'k', n], &noise(9 * PIECE_BYTES, u32::from(round) * 1000 + u32::from(n)));
        }
        state.commit(changes).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("blobs")).unwrap().count(), 0, "round {round}");
    }
}

#[test]
fn a_failed_sync_is_final_and_a_full_disk_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let state = State::create(dir.path(), 4 << 20, Arc::clone(&disk) as _).unwrap();
    let change = |grow: bool| {
        let mut changes = Changes::default();
        if grow {
            changes.grow();
        }
        changes.put(b"k", b"v");
        changes
    };
    disk.free.store(5 << 20, Ordering::SeqCst);
    assert!(matches!(state.commit(change(true)).unwrap_err(), StoreError::DiskFull { .. }));
    state.commit(change(false)).unwrap();
    disk.free.store(0, Ordering::SeqCst);
    assert!(matches!(state.commit(change(false)).unwrap_err(), StoreError::DiskFull { .. }));
    assert_eq!(state.failed(), None);
    disk.free.store(u64::MAX, Ordering::SeqCst);
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(matches!(state.commit(change(true)).unwrap_err(), StoreError::Io { .. }));
    disk.sync_fails.store(false, Ordering::SeqCst);
    assert!(matches!(state.commit(change(true)).unwrap_err(), StoreError::Io { .. }));
    assert!(state.failed().unwrap().contains("the device is gone"));
}

#[test]
fn too_many_open_files_refuse_a_write_and_not_those_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let state = State::create(dir.path(), 4 << 20, Arc::clone(&disk) as _).unwrap();
    let change = || {
        let mut changes = Changes::default();
        changes.put(b"k", b"v");
        changes
    };
    disk.no_handle.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = state.commit(change()).unwrap_err();
        assert!(matches!(error, StoreError::NoHandle { .. }), "{error}");
        assert_eq!(error.kind(), crate::ErrorKind::Overloaded);
    }
    disk.no_handle.store(false, Ordering::SeqCst);
    state.commit(change()).unwrap();
    assert_eq!(state.failed(), None);
    assert_eq!(state.get(b"k").unwrap().unwrap().0, b"v");
}

#[test]
fn a_missing_or_locked_database_is_said_to_be_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = || (4 << 20, Arc::new(RealDisk));
    let (cache, disk) = options();
    assert!(matches!(State::open(dir.path(), cache, disk).unwrap_err(), StoreError::Corrupt { .. }));
    let _state = create(dir.path());
    let (cache, disk) = options();
    assert!(matches!(State::open(dir.path(), cache, disk).unwrap_err(), StoreError::Locked { .. }));
    let (cache, disk) = options();
    assert!(matches!(State::create(dir.path(), cache, disk).unwrap_err(), StoreError::Io { .. }));
}

/// A store's own format, whatever it is.
pub(crate) fn format_of(dir: &Path) -> u32 {
    let (bytes, _) = open(dir).get(b"f").unwrap().unwrap();
    u32::from_le_bytes(bytes.try_into().unwrap())
}

/// The documents, by number, of the collection `killed` of the folder that format 3 left, after `tamper` has been at it.
/// 0 and 1 are marked as removed.
fn tampered(tamper: impl FnOnce(&State, &mut Changes)) -> Result<Vec<u64>, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    golden::unpack(golden::FORMAT_3, dir.path());
    let folders = std::fs::read_dir(dir.path().join("collections")).unwrap();
    let is_it = |folder: &std::path::PathBuf| {
        let described = std::fs::read(folder.join("collection")).unwrap();
        String::from_utf8_lossy(&described).contains("\"killed\"")
    };
    let folder = folders.map(|entry| entry.unwrap().path()).find(is_it).unwrap();
    let place = folder.join("state");
    let open = |expected| Store::open(&place, expected, 4 << 20, Arc::new(RealDisk));
    let identity = open(None)?.identity();
    let state = self::open(&place);
    let mut changes = Changes::default();
    tamper(&state, &mut changes);
    state.commit(changes).unwrap();
    drop(state);
    let store = open(Some(identity))?;
    let mut numbers = Vec::new();
    store.load(|loaded| {
        assert!(store.text(loaded.number, &loaded.head)?.starts_with("document "));
        numbers.push(loaded.number);
        Ok::<_, StoreError>(())
    })?;
    assert_eq!((store.next_number(), store.sequence()), (4, 2));
    Ok(numbers)
}

/// A key of a document.
fn key(kind: u8, number: u64) -> Vec<u8> {
    [&[kind], number.to_be_bytes().as_slice()].concat()
}

#[test]
fn what_was_written_is_what_is_loaded() {
    assert_eq!(tampered(|_, _| {}).unwrap(), [2, 3]);
}

#[test]
fn lost_exchanged_and_revived_documents_are_damage() {
    type Tamper = fn(&State, &mut Changes);
    let cases: [(&str, Tamper); 8] = [
        ("a whole document", |state, changes| {
            for kind in [b'D', b'T', b'V'] {
                state.remove(changes, &key(kind, 2)).unwrap();
            }
        }),
        ("vectors", |state, changes| state.remove(changes, &key(b'V', 2)).unwrap()),
        ("a head", |state, changes| state.remove(changes, &key(b'D', 3)).unwrap()),
        ("a text", |state, changes| state.remove(changes, &key(b'T', 3)).unwrap()),
        ("the mark of a removal", |state, changes| state.remove(changes, &key(b'X', 1)).unwrap()),
        ("other vectors", |_, changes| {
            changes.put(&key(b'V', 2), &[0; 16]);
        }),
        ("its identity", |state, changes| state.remove(changes, b"i").unwrap()),
        ("vectors of an earlier format", |_, changes| {
            changes.put(&[b'v', 0, 0, 0, 0], &[0; 16]);
        }),
    ];
    for (what, tamper) in cases {
        let error = tampered(tamper).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error}");
    }
}

#[test]
fn a_store_of_another_collection_is_told_from_a_damaged_one() {
    let other = Identity([6; 16]);
    let error = tampered(|_, changes| {
        changes.put(b"i", &other.0);
    })
    .unwrap_err();
    assert!(matches!(&error, StoreError::OtherCollection { got, .. } if *got == other), "{error}");
    assert!(error.to_string().contains("put `state` and `acknowledged` back"), "{error}");
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let error = tampered(|_, changes| {
        changes.put(b"f", &4u32.to_le_bytes());
    })
    .unwrap_err();
    assert!(matches!(error, StoreError::NewerFormat { got: 4, supported: 3, .. }), "{error}");
    let error = tampered(|state, changes| state.remove(changes, b"f").unwrap()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_catalogue_is_a_map_that_survives(
        steps in prop::collection::vec(
            (prop::collection::btree_map("[ab]{1,3}", prop::option::of(0usize..9000), 1..4), any::<bool>()), 1..12)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("catalog");
        let mut catalog = Catalog::open(&place).unwrap();
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (n, (entries, reopen)) in (0u32..).zip(steps) {
            let entries: Vec<(String, Option<Vec<u8>>)> =
                entries.into_iter().map(|(name, len)| (name, len.map(|len| noise(len, n)))).collect();
            let borrowed: Vec<(&str, Option<&[u8]>)> =
                entries.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            catalog.put_all(&borrowed).unwrap();
            for (name, value) in entries {
                match value {
                    Some(value) => model.insert(name, value),
                    None => model.remove(&name),
                };
            }
            if reopen {
                drop(catalog);
                catalog = Catalog::open(&place).unwrap();
            }
            for prefix in ["", "a", "ab"] {
                let expected: Vec<(String, Vec<u8>)> = model
                    .iter()
                    .filter(|(name, _)| name.starts_with(prefix))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                prop_assert_eq!(catalog.scan(prefix).unwrap(), expected);
            }
            prop_assert_eq!(catalog.get("a").unwrap(), model.get("a").cloned());
        }
    }
}

#[test]
fn a_locked_catalogue_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let _catalog = Catalog::open(dir.path()).unwrap();
    assert!(matches!(Catalog::open(dir.path()).unwrap_err(), StoreError::Locked { .. }));
}

/// A disk that another process fills: reads go on, deletes too once there is room, and nothing has to be restarted.
#[test]
fn a_store_that_found_no_room_is_read_on_and_written_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let state = State::create(dir.path(), 4 << 20, Arc::clone(&disk) as _).unwrap();
    let change = |n: u8| {
        let mut changes = Changes::default();
        changes.put(&[b'k', n], &[n; 100]);
        changes.put(b"m", &[n]);
        changes
    };
    for n in 0..40 {
        state.commit(change(n)).unwrap();
    }
    disk.no_room.store(true, Ordering::SeqCst);
    disk.free.store(1 << 20, Ordering::SeqCst);
    // Seen in time: nothing is broken.
    assert!(matches!(state.commit(change(40)).unwrap_err(), StoreError::DiskFull { .. }));
    assert_eq!(state.failed(), None);
    disk.free.store(u64::MAX, Ordering::SeqCst);
    for n in 40..43 {
        assert!(matches!(state.commit(change(n)).unwrap_err(), StoreError::DiskFull { .. }));
        assert!(state.failed().is_some_and(|reason| reason.contains("disk is full")), "{:?}", state.failed());
        assert_eq!(state.scan(b"k").unwrap().count(), 40);
        assert_eq!(state.get(b"k\x07").unwrap().unwrap().0, [7; 100]);
        disk.free.store(u64::MAX, Ordering::SeqCst);
    }
    disk.no_room.store(false, Ordering::SeqCst);
    // Without a call of its own, as the health service does it...
    state.revive().unwrap();
    assert_eq!(state.failed(), None);
    // ...and by the next write.
    disk.no_room.store(true, Ordering::SeqCst);
    state.commit(change(43)).unwrap_err();
    disk.no_room.store(false, Ordering::SeqCst);
    disk.free.store(u64::MAX, Ordering::SeqCst);
    state.commit(change(44)).unwrap();
    assert_eq!(state.failed(), None);
    drop(state);
    let state = open(dir.path());
    assert_eq!(state.scan(b"k").unwrap().count(), 41);
    assert_eq!(state.get(b"m").unwrap().unwrap().0, [44]);
}

/// The health service asks from async code, and is to tell of a disk that hangs.
#[test]
fn whether_a_store_takes_writes_is_told_while_it_is_being_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let state = Arc::new(State::create(dir.path(), 4 << 20, Arc::clone(&disk) as _).unwrap());
    let mut changes = Changes::default();
    changes.put(b"k", b"value");
    disk.no_room.store(true, Ordering::SeqCst);
    state.commit(changes).unwrap_err();
    let hangs = disk.hangs.lock().unwrap();
    let asked = disk.asked.load(Ordering::SeqCst);
    let reviving = {
        let state = Arc::clone(&state);
        std::thread::spawn(move || state.revive())
    };
    while disk.asked.load(Ordering::SeqCst) == asked {
        std::thread::yield_now();
    }
    let (send, told) = std::sync::mpsc::channel();
    let asking = {
        let state = Arc::clone(&state);
        std::thread::spawn(move || send.send(state.failed()).unwrap())
    };
    let told = told.recv_timeout(std::time::Duration::from_secs(60));
    drop(hangs);
    assert!(told.unwrap().is_some_and(|reason| reason.contains("disk is full")));
    asking.join().unwrap();
    reviving.join().unwrap().unwrap_err();
}

/// A file system of a few megabytes, where this process may mount one; it ends with this.
#[cfg(target_os = "linux")]
pub(crate) struct SmallDisk(pub(crate) tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    pub(crate) fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(dir)),
            refused => {
                println!("skipped: no file system can be mounted here: {refused:?}");
                None
            }
        }
    }
}

#[cfg(target_os = "linux")]
impl SmallDisk {
    /// Takes all that is left, to the last byte, with a file.
    pub(crate) fn fill(&self) -> std::path::PathBuf {
        use std::io::Write as _;
        let path = self.0.path().join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        for block in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7u8; block]).is_ok() {}
        }
        path
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// The same with a disk that is really full to its last byte.
#[cfg(target_os = "linux")]
#[test]
fn on_a_full_file_system_reads_go_on_and_writes_come_back_with_the_room() {
    let Some(mount) = SmallDisk::mount(64) else { return };
    let place = mount.0.path().join("state");
    // Tells, when it is asked next, of room that another process takes before it is used.
    #[derive(Debug, Default)]
    struct Optimist(std::sync::atomic::AtomicBool);
    impl super::disk::Disk for Optimist {
        fn sync(&self, file: &std::fs::File) -> std::io::Result<()> {
            RealDisk.sync(file)
        }
        fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
            RealDisk.sync_dir(dir)
        }
        fn write_file(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
            RealDisk.write_file(path, bytes)
        }
        fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
            RealDisk.rename(from, to)
        }
        fn available(&self, dir: &Path) -> std::io::Result<u64> {
            if self.0.swap(false, Ordering::SeqCst) { Ok(u64::MAX) } else { RealDisk.available(dir) }
        }
    }
    let disk = Arc::new(Optimist::default());
    let state = State::create(&place, 64 << 10, Arc::clone(&disk) as _).unwrap();
    let value = |n: u64| format!("value {n} {}", "x".repeat(800)).into_bytes();
    let key = |n: u64| [&b"k"[..], &n.to_be_bytes()].concat();
    let put = |n: u64| {
        let mut changes = Changes::default();
        changes.grow();
        changes.put(&key(n), &value(n));
        changes.put(b"m", &n.to_le_bytes());
        state.commit(changes)
    };
    for n in 0..200 {
        put(n).unwrap();
    }
    let ballast = mount.fill();
    assert_eq!(RealDisk.available(&place).unwrap(), 0);
    let read_all = || (0..200).for_each(|n| assert_eq!(state.get(&key(n)).unwrap().unwrap().0, value(n)));
    read_all();
    // Goes on until sled needs a new piece of its file.
    let mut next = 200;
    let error = loop {
        disk.0.store(true, Ordering::SeqCst);
        match put(next) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        assert!(next < 20_000, "the disk never became full");
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(state.failed().is_some());
    read_all();
    assert!(matches!(put(next).unwrap_err(), StoreError::DiskFull { .. }));
    read_all();
    std::fs::remove_file(&ballast).unwrap();
    put(next).unwrap();
    assert_eq!(state.failed(), None);
    read_all();
    state.close().unwrap();
    drop(state);
    assert_eq!(open(&place).scan(b"k").unwrap().count() as u64, next + 1);
}
