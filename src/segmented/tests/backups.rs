//! Copies of a collection against what it held, and collections made of copies, whatever goes wrong meanwhile.

use super::{taking_over::Dying, *};
use crate::{
    files::{forgetful::ForgetfulDisk, sums::Sum},
    segmented::backup::{self, BackedUp, Copy, restore},
};

/// The collection that is made of a copy.
const RESTORED: Identity = Identity([9; 16]);

fn sums_of(backed_up: &BackedUp) -> BTreeMap<PathBuf, Sum> {
    backed_up.files.iter().map(|file| (file.path.clone(), file.sum)).collect()
}

/// Makes a collection in `world` of a copy.
fn restored(
    world: &World,
    name: &str,
    identity: Identity,
    (dir, sums): (&Path, &BTreeMap<PathBuf, Sum>),
    stop: &Stop,
) -> Result<Store, StoreError> {
    let sums = |path: &Path| sums.get(path).copied();
    let copy = Copy { disk: &world.disk, dir, identity: IDENTITY, space: space(DIMENSION), sums: &sums };
    let to = world.root.join("collections").join(name);
    let log = world.try_log()?;
    restore(&copy, &log, &to, identity, stop)?;
    Store::open(&log, &to, identity, space(DIMENSION), OPTIONS)
}

fn verified(world: &World, dir: &Path, sums: &BTreeMap<PathBuf, Sum>) -> backup::CheckedCopy {
    let sums = |path: &Path| sums.get(path).copied();
    let copy = Copy { disk: &world.disk, dir, identity: IDENTITY, space: space(DIMENSION), sums: &sums };
    backup::verify(&copy, &Stop::default()).unwrap()
}

fn make_dir(world: &World, name: &str) -> PathBuf {
    let dir = world.root.join(name);
    world.disk.create_dir(&dir).unwrap();
    dir
}

#[test]
fn a_copy_is_of_one_moment_and_is_restored_with_its_versions() {
    for (seed, links) in (0..12).map(|seed| (seed, seed % 3 > 0)) {
        println!("seed {seed}");
        let (_root, world) = world();
        let store = world.create();
        let (mut random, mut live) = (SplitMix(seed), BTreeSet::new());
        for round in 0..4 {
            for _ in 0..25 {
                step(&store, &mut live, &mut random).unwrap();
            }
            let dir = make_dir(&world, &format!("copy {round}"));
            let made = store.back_up(&dir, links, &Stop::default()).unwrap();
            let (then, next) = (live.clone(), store.next_number());
            assert_eq!(made.documents, then.len() as u64);
            assert_eq!(made.passages, then.iter().map(|number| number % 4).sum::<u64>());
            assert_eq!(made.sequence, store.sequence());
            if !links {
                assert!(made.files.iter().all(|file| !file.is_linked));
            }
            // Whatever becomes of the collection, the copy stays as it is.
            for _ in 0..25 {
                step(&store, &mut live, &mut random).unwrap();
            }
            store.merge_all(&Stop::default()).unwrap();
            let sums = sums_of(&made);
            let checked = verified(&world, &dir, &sums);
            assert_eq!(checked.faults, []);
            assert_eq!((checked.documents, checked.passages), (made.documents, made.passages));
            let name = format!("restored {round}");
            world.make_folder(&world.root.join("collections").join(&name));
            let mut identity = RESTORED;
            identity.0[0] = round;
            let copy = restored(&world, &name, identity, (&dir, &sums), &Stop::default()).unwrap();
            check(&copy, &then);
            assert_eq!(copy.next_number(), next);
            // It is a collection like any other.
            let mut own = then;
            for _ in 0..15 {
                step(&copy, &mut own, &mut random).unwrap();
            }
            check(&copy, &own);
            assert_eq!(verified(&world, &dir, &sums).faults, []);
        }
        check(&store, &live);
    }
}

#[test]
fn what_is_in_memory_alone_and_what_was_deleted_are_in_the_copy() {
    let (_root, world) = world();
    let store = world.create();
    let empty = make_dir(&world, "empty");
    let made = store.back_up(&empty, true, &Stop::default()).unwrap();
    assert_eq!((made.documents, made.files.len()), (0, 1));
    write(&store, 8, &[]).unwrap();
    store.seal().unwrap();
    write(&store, 3, &[2, 5]).unwrap();
    let dir = make_dir(&world, "copy");
    let made = store.back_up(&dir, true, &Stop::default()).unwrap();
    let paths: Vec<String> = made.files.iter().map(|file| file.path.display().to_string()).collect();
    assert!(paths.contains(&"0000000001.deleted.1".to_owned()), "{paths:?}");
    assert!(paths.contains(&"0000000002/documents".to_owned()), "{paths:?}");
    let linked = made.files.iter().filter(|file| file.is_linked).count();
    assert_eq!(linked, 3, "{paths:?}");
    // Nothing of it is in the collection's own folder.
    assert_eq!(world.names(), ["0000000001", "segments"]);
    for (name, dir, made, expected) in [
        ("one", &empty, store.back_up(&make_dir(&world, "again"), true, &Stop::default()).unwrap(), None),
        ("two", &dir, made, Some([0, 1, 3, 4, 6, 7, 8, 9, 10])),
    ] {
        world.make_folder(&world.root.join("collections").join(name));
        let sums = sums_of(&made);
        let mut identity = RESTORED;
        identity.0[0] = name.as_bytes()[0];
        match (expected, restored(&world, name, identity, (dir, &sums), &Stop::default())) {
            (Some(expected), restored) => check(&restored.unwrap(), &BTreeSet::from(expected)),
            // Of another moment than its list.
            (None, restored) => assert!(matches!(restored, Err(StoreError::Corrupt { .. })), "{restored:?}"),
        }
    }
}

/// The loss of power at every call of a copy, and at every call of a restoring.
#[test]
fn whenever_the_power_goes_the_collection_is_whole_and_a_copy_is_restored_or_not() {
    let mut done = (0, 0);
    for seed in 0..4u64 {
        let (mut lost, mut calls) = (0, 0);
        loop {
            calls += 1;
            let disk = ForgetfulDisk::new(seed * 1000 + calls);
            let world = World::new(Arc::new(disk.clone()), Path::new("/data"));
            disk.create_dir(&world.root).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            let store = world.create();
            let mut live: BTreeSet<u64> = write(&store, 6, &[]).unwrap().into_iter().collect();
            store.seal().unwrap();
            live.extend(write(&store, 3, &[1, 4]).unwrap());
            live.retain(|number| ![1, 4].contains(number));
            let dir = make_dir(&world, "copy");
            world.make_folder(&world.root.join("collections/z"));
            disk.crash_at_call(calls);
            let made = store.back_up(&dir, seed % 2 == 0, &Stop::default());
            let copied = made.is_ok() && !disk.is_off();
            let again = made
                .and_then(|made| restored(&world, "z", RESTORED, (&dir, &sums_of(&made)), &Stop::default()));
            let is_off = disk.is_off();
            if !is_off {
                check(&again.unwrap(), &live);
                drop(store);
                world.stop();
                break;
            }
            assert!(again.is_err());
            drop(store);
            world.stop();
            let world = World::new(Arc::new(disk.crash(calls)), Path::new("/data"));
            check(&world.open().unwrap(), &live);
            match Store::open(
                &world.log(),
                &world.root.join("collections/z"),
                RESTORED,
                space(DIMENSION),
                OPTIONS,
            ) {
                Ok(store) => {
                    assert!(copied);
                    check(&store, &live);
                    done.1 += 1;
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
                    lost += 1;
                }
            }
            world.stop();
        }
        assert!(lost > 20, "{lost}");
        done.0 += lost;
    }
    println!("{} times none was restored, {} times all", done.0, done.1);
}

/// A kill, as each call of the system being the last one.
#[test]
fn a_kill_at_any_step_of_a_restoring_leaves_nothing_that_passes_for_a_collection() {
    let (root, world) = world();
    let store = world.create();
    let mut live: BTreeSet<u64> = write(&store, 6, &[]).unwrap().into_iter().collect();
    store.seal().unwrap();
    live.extend(write(&store, 3, &[1]).unwrap());
    live.remove(&1);
    let dir = make_dir(&world, "copy");
    let made = store.back_up(&dir, true, &Stop::default()).unwrap();
    drop(store);
    world.stop();
    for calls in 0.. {
        let target = tempfile::tempdir().unwrap();
        let disk = Dying::after(i64::MAX);
        let other = World::new(Arc::new(disk.clone()), target.path());
        other.make_folder(&other.root.join("collections/x"));
        other.log();
        disk.left.store(calls, std::sync::atomic::Ordering::SeqCst);
        let restored = restored(&other, "x", RESTORED, (&dir, &sums_of(&made)), &Stop::default());
        if let Ok(store) = restored {
            check(&store, &live);
            assert!(calls > 30, "{calls}");
            break;
        }
        other.stop();
        let after = World::new(Arc::new(RealDisk), target.path());
        let opened =
            Store::open(&after.log(), &after.root.join("collections/x"), RESTORED, space(DIMENSION), OPTIONS);
        match opened {
            // The last step was done, and only its word is missing.
            Ok(store) => check(&store, &live),
            Err(error) => assert!(matches!(error, StoreError::Corrupt { .. }), "{error}"),
        }
        after.stop();
    }
    drop(root);
}

#[test]
fn without_second_names_files_are_copied_and_without_room_or_time_nothing_is_made() {
    let (root, world) = world();
    let store = world.create();
    write(&store, 6, &[]).unwrap();
    store.seal().unwrap();
    drop(store);
    world.stop();
    let mut disk = Dying::after(i64::MAX);
    disk.has_no_links = true;
    let other = World::new(Arc::new(disk.clone()), root.path());
    let store = other.open().unwrap();
    let dir = make_dir(&other, "copy");
    let made = store.back_up(&dir, true, &Stop::default()).unwrap();
    assert!(made.files.iter().all(|file| !file.is_linked));
    assert_eq!(verified(&other, &dir, &sums_of(&made)).faults, []);
    let stopped =
        store.back_up(&make_dir(&other, "stopped"), true, &Stop::at(Some(std::time::Instant::now())));
    assert!(matches!(stopped, Err(StoreError::Io { .. })), "{stopped:?}");
    drop(store);
    other.stop();
    disk.available = 1 << 10;
    let full = World::new(Arc::new(disk), root.path());
    let store = full.open().unwrap();
    let refused = store.back_up(&make_dir(&full, "full"), true, &Stop::default());
    assert!(matches!(refused, Err(StoreError::DiskFull { .. })), "{refused:?}");
    full.make_folder(&full.root.join("collections/z"));
    let refused = restored(&full, "z", RESTORED, (&dir, &sums_of(&made)), &Stop::default());
    assert!(matches!(refused, Err(StoreError::DiskFull { .. })), "{refused:?}");
    // Its number in the log is free again.
    full.log().claim(RESTORED).unwrap();
    drop(store);
    full.stop();
}

#[test]
fn nothing_is_copied_of_a_collection_that_is_damaged() {
    let (_root, world) = world();
    let store = world.create();
    write(&store, 6, &[]).unwrap();
    store.seal().unwrap();
    let path = world.dir().join("0000000001/0.vectors");
    let mut bytes = std::fs::read(&path).unwrap();
    // A file of a live segment is mapped: it must not be cut, but it may be replaced.
    bytes[70] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let error = store.back_up(&make_dir(&world, "copy"), true, &Stop::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { path: at, .. } if *at == path), "{error}");
    assert!(error.to_string().contains("byte 64"), "{error}");
}
