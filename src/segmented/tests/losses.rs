//! What is left after the loss of power, of a file, of room, or of a part of a file.

use super::*;
use crate::files::{forgetful::ForgetfulDisk, seeds};

/// A collection whose number in the log is another one.
const OTHER: Identity = Identity([5; 16]);

fn other_dir(world: &World) -> PathBuf {
    world.root.join("collections/y")
}

fn create_other(world: &World) -> Store {
    world.make_folder(&other_dir(world));
    Store::create(&world.log(), &other_dir(world), OTHER, space(DIMENSION), OPTIONS).unwrap()
}

fn open_other(world: &World) -> Result<Store, StoreError> {
    Store::open(&world.try_log()?, &other_dir(world), OTHER, space(DIMENSION), OPTIONS)
}

pub(super) fn forgetful(seed: u64) -> (ForgetfulDisk, World) {
    let disk = ForgetfulDisk::new(seed);
    let world = world_on(&disk);
    disk.create_dir(&world.root).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, world)
}

pub(super) fn world_on(disk: &ForgetfulDisk) -> World {
    World::new(Arc::new(disk.clone()), Path::new("/data"))
}

/// A write whose answer was an error may have been done, whole, or not at all.
#[derive(Default)]
struct Asked {
    new: Vec<u64>,
    buried: Vec<u64>,
}

/// Random steps until the power goes.
fn live_on(store: &Store, live: &mut BTreeSet<u64>, random: &mut SplitMix) -> Asked {
    loop {
        let done = match random.below(8) {
            0 => store.seal().map(drop),
            1 => store.merge_all(&Stop::default()).map(drop),
            2 => store.carry_forward().map(drop),
            3 => maintain(store).and_then(|_| store.log().cut()).map(drop),
            _ => {
                let asked = Asked { buried: some(live, 3, random), new: Vec::new() };
                let (next, count) = (store.next_number(), 1 + random.below(4));
                match write(store, count, &asked.buried) {
                    Ok(new) => {
                        asked.buried.iter().for_each(|number| _ = live.remove(number));
                        live.extend(new);
                        Ok(())
                    }
                    Err(_) => return Asked { new: (next..next + count).collect(), ..asked },
                }
            }
        };
        if done.is_err() {
            return Asked::default();
        }
    }
}

fn lose_power(seed: u64) {
    let mut random = SplitMix(seed);
    let (mut disk, mut world) = forgetful(seed);
    let mut live = BTreeSet::new();
    let mut store = Some(world.create());
    for _ in 0..4 {
        disk.crash_at_call(1 + random.below(150));
        // The power may also go while it is opened.
        let asked = match store.take().map_or_else(|| world.open(), Ok) {
            Ok(store) => live_on(&store, &mut live, &mut random),
            Err(error) => {
                assert!(disk.is_off(), "{error}");
                Asked::default()
            }
        };
        assert!(disk.is_off());
        world.stop();
        disk = disk.crash(random.next());
        world = world.on(Arc::new(disk.clone()));
        let opened = world.open().unwrap();
        let found = load(&opened).unwrap();
        if found != live {
            asked.buried.iter().for_each(|number| _ = live.remove(number));
            live.extend(&asked.new);
        }
        check(&opened, &live);
        store = Some(opened);
    }
}

#[test]
fn after_a_loss_of_power_every_batch_is_whole_and_every_acknowledged_one_is_there() {
    println!("{} seeds", seeds::each(2_000, lose_power));
}

#[test]
fn a_collection_that_is_just_made_is_whole_or_none_after_a_loss_of_power() {
    for calls in 1.. {
        let (disk, world) = forgetful(calls);
        world.make_folder(&world.dir());
        disk.crash_at_call(calls);
        let made = world
            .try_log()
            .and_then(|log| Store::create(&log, &world.dir(), IDENTITY, space(DIMENSION), OPTIONS));
        let is_done = made.is_ok();
        drop(made);
        world.stop();
        if is_done && !disk.is_off() {
            break;
        }
        let world = world_on(&disk.crash(calls));
        match world.open() {
            Ok(store) => check(&store, &BTreeSet::new()),
            // Whoever makes collections removes what was never announced.
            Err(error) => {
                assert!(!is_done && matches!(error, StoreError::Corrupt { .. }), "{error}");
            }
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_documents_can_be_buried_still() {
    let (disk, world) = forgetful(1);
    let store = world.create();
    let mut live: BTreeSet<u64> = write(&store, 20, &[]).unwrap().into_iter().collect();
    disk.set_room(0);
    let mut refused = 0;
    // Some room is there already: the log's file has its own.
    for _ in 0..200 {
        match write(&store, 5, &[]) {
            Ok(new) => live.extend(new),
            Err(error @ StoreError::DiskFull { .. }) => {
                assert!(error.is_passing());
                refused += 1;
            }
            Err(StoreError::Busy { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let sealed = store.seal();
    assert!(matches!(sealed, Err(StoreError::DiskFull { .. })), "{sealed:?}");
    assert!(refused > 0 || store.stats().unsealed_bytes > 0);
    let buried: Vec<u64> = live.iter().copied().take(3).collect();
    write(&store, 0, &buried).unwrap();
    buried.iter().for_each(|number| _ = live.remove(number));
    check(&store, &live);
    assert_eq!(store.failed(), None);
    disk.set_room(u64::MAX);
    assert!(store.seal().unwrap());
    live.extend(write(&store, 5, &[]).unwrap());
    check(&store, &live);
    drop(store);
    world.stop();
    check(&world.open().unwrap(), &live);
}

#[test]
fn after_a_failed_sync_nothing_is_written_until_a_restart_and_all_can_be_read() {
    let (disk, world) = forgetful(2);
    let store = world.create();
    let live: BTreeSet<u64> = write(&store, 5, &[]).unwrap().into_iter().collect();
    disk.fail_sync(1);
    write(&store, 2, &[]).unwrap_err();
    assert!(store.failed().is_some());
    write(&store, 2, &[]).unwrap_err();
    write(&store, 0, &[1]).unwrap_err();
    check(&store, &live);
    drop(store);
    world.stop();
    let store = world_on(&disk.crash(7)).open().unwrap();
    let found = load(&store).unwrap();
    assert!(found == live || found == (0..7).collect(), "{found:?}");
}

/// A sync of any file that seals and merges write, or of their folder.
#[test]
fn a_failed_sync_below_the_collections_makes_the_folder_read_only_and_is_never_tried_again() {
    for sync in 1.. {
        let (disk, world) = forgetful(sync);
        let (store, other) = (world.create(), create_other(&world));
        let mut live: BTreeSet<u64> = write(&store, 8, &[]).unwrap().into_iter().collect();
        store.seal().unwrap();
        live.extend(write(&store, 8, &[1]).unwrap());
        live.remove(&1);
        let theirs: BTreeSet<u64> = write(&other, 3, &[]).unwrap().into_iter().collect();
        disk.fail_sync(sync);
        let done = store.seal().and_then(|_| store.merge_all(&Stop::default()));
        if done.is_ok() && world.log().failed().is_none() {
            assert!(sync > 5, "fewer syncs than files: {sync}");
            break;
        }
        let reason = world.log().failed().expect("the folder is read-only");
        for store in [&store, &other] {
            assert!(store.failed().is_some(), "{reason}");
            write(store, 1, &[]).unwrap_err();
            write(store, 0, &[2]).unwrap_err();
            assert!(store.seal().is_err() && store.merge_all(&Stop::default()).is_err());
        }
        // All can be read, also what is only opened now.
        check(&store, &live);
        drop(other);
        check(&open_other(&world).unwrap(), &theirs);
        check(&store, &live);
        drop(store);
        world.stop();
        let world = world_on(&disk.crash(sync));
        check(&world.open().unwrap(), &live);
        check(&open_other(&world).unwrap(), &theirs);
        world.stop();
    }
}

/// Where some bytes are in the files of the log.
fn find_in_log(root: &Path, bytes: &[u8]) -> (PathBuf, usize) {
    let files = std::fs::read_dir(root.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let found = files.filter(|path| path.extension().is_some_and(|e| e == "log")).find_map(|path| {
        let content = std::fs::read(&path).unwrap();
        let at = content.windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, at))
    });
    found.expect("it is in the log")
}

fn flip(path: &Path, at: usize) {
    let mut content = std::fs::read(path).unwrap();
    content[at] ^= 1;
    std::fs::write(path, content).unwrap();
}

#[test]
fn a_merge_for_which_there_is_no_room_is_not_begun() {
    let (disk, world) = forgetful(3);
    let store = world.create();
    let mut live = BTreeSet::new();
    for _ in 0..4 {
        live.extend(write(&store, 5, &[]).unwrap());
        store.seal().unwrap();
    }
    disk.set_room(100 << 10);
    let merged = store.merge(&Stop::default());
    assert!(matches!(merged, Err(StoreError::DiskFull { .. })), "{merged:?}");
    assert!(world.names().iter().all(|name| !name.starts_with("0000000005")), "{:?}", world.names());
    check(&store, &live);
    disk.set_room(u64::MAX);
    assert_eq!(store.merge(&Stop::default()).unwrap(), 4);
    check(&store, &live);
}

#[test]
fn a_damaged_entry_refuses_the_collection_that_needs_it_and_no_other() {
    let (root, world) = world();
    let (store, other) = (world.create(), create_other(&world));
    write(&other, 4, &[]).unwrap();
    write(&store, 5, &[]).unwrap();
    other.seal().unwrap();
    let theirs: BTreeSet<u64> = (0..4).chain(write(&other, 4, &[]).unwrap()).collect();
    write(&store, 5, &[]).unwrap();
    drop((store, other));
    world.stop();
    // The other collection has no document of this number.
    let (file, at) = find_in_log(root.path(), &body(9).encode());
    flip(&file, at);
    let error = world.open().unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { path, .. } if *path == file), "{error}");
    assert!(error.to_string().contains("backup"), "{error}");
    check(&open_other(&world).unwrap(), &theirs);
    world.stop();
    flip(&file, at);
    // The first document of this number is the other one's, and its segment holds it.
    let (file, at) = find_in_log(root.path(), &body(3).encode());
    flip(&file, at);
    check(&open_other(&world).unwrap(), &theirs);
    check(&world.open().unwrap(), &(0..10).collect());
}

#[test]
fn without_its_log_or_its_manifest_a_collection_is_refused_and_never_empty() {
    let (root, world) = world();
    let store = world.create();
    write(&store, 5, &[]).unwrap();
    drop(store);
    world.stop();
    let (log, aside) = (root.path().join("log"), root.path().join("aside"));
    std::fs::rename(&log, &aside).unwrap();
    let error = world.open().unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("backup"), "{error}");
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    let manifest = Manifest::path(&world.dir());
    std::fs::rename(&manifest, root.path().join("manifest")).unwrap();
    let error = world.open().unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { path, .. } if *path == manifest), "{error}");
    std::fs::rename(root.path().join("manifest"), &manifest).unwrap();
    world.stop();
    check(&world.open().unwrap(), &(0..5).collect());
}

#[test]
fn a_log_that_ends_before_what_segments_hold_refuses_them_and_gives_no_sequence_twice() {
    let (root, world) = world();
    let (store, other) = (world.create(), create_other(&world));
    let old = root.path().join("old");
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    copy(&root.path().join("log"), &old);
    write(&store, 5, &[]).unwrap();
    store.seal().unwrap();
    let covered = store.sequence();
    drop((store, other));
    world.stop();
    std::fs::remove_dir_all(root.path().join("log")).unwrap();
    std::fs::rename(&old, root.path().join("log")).unwrap();
    for _ in 0..2 {
        let error = world.open().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        // What a new collection writes does not make the lost entries good.
        let dir = world.root.join("collections").join(format!("new {}", world.names().len()));
        if !dir.exists() {
            world.make_folder(&dir);
            let new =
                Store::create(&world.log(), &dir, Identity([8; 16]), space(DIMENSION), OPTIONS).unwrap();
            write(&new, 1, &[]).unwrap();
            assert!(new.sequence() > covered);
        }
        world.stop();
    }
}

#[test]
fn remains_of_segments_are_removed_and_segments_of_nobody_are_told() {
    let (_root, world) = world();
    let store = world.create();
    write(&store, 5, &[]).unwrap();
    store.seal().unwrap();
    write(&store, 0, &[1]).unwrap();
    drop(store);
    world.stop();
    for name in ["0000000000", "0000000007", "0000000001.new", "0000000009.gone"] {
        std::fs::create_dir(world.dir().join(name)).unwrap();
    }
    std::fs::write(world.dir().join("0000000007/documents"), "not finished").unwrap();
    std::fs::write(world.dir().join("notes.txt"), "theirs").unwrap();
    let store = world.open().unwrap();
    assert_eq!(world.names(), ["0000000000", "0000000001", "notes.txt", "segments"]);
    assert_eq!(store.unknown(), [world.dir().join("0000000000")]);
    check(&store, &BTreeSet::from([0, 2, 3, 4]));
}

/// Whoever puts an older copy of a folder in its place, and keeps the newer one beside it.
#[test]
fn a_copy_of_a_folder_takes_no_entry_from_the_one_that_has_its_name() {
    let (root, world) = world();
    let store = world.create();
    write(&store, 5, &[]).unwrap();
    let old = root.path().join("old");
    std::fs::copy(Manifest::path(&world.dir()), &old).unwrap();
    store.seal().unwrap();
    drop(store);
    world.stop();
    let beside = world.root.join("collections/y");
    std::fs::rename(world.dir(), &beside).unwrap();
    std::fs::create_dir(world.dir()).unwrap();
    std::fs::rename(&old, Manifest::path(&world.dir())).unwrap();
    for _ in 0..2 {
        check(&world.open().unwrap(), &(0..5).collect());
        world.stop();
    }
}

#[test]
fn a_segment_that_is_missing_or_cut_is_damage_that_names_it() {
    let (root, world) = world();
    let store = world.create();
    write(&store, 5, &[]).unwrap();
    store.seal().unwrap();
    write(&store, 0, &[1]).unwrap();
    write(&store, 1, &[]).unwrap();
    store.seal().unwrap();
    drop(store);
    world.stop();
    assert!(world.names().contains(&"0000000001.deleted.1".to_owned()), "{:?}", world.names());
    for name in ["0000000001", "0000000001.deleted.1"] {
        let (path, aside) = (world.dir().join(name), root.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        let error = world.open().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("0000000001"), "{error}");
        std::fs::rename(&aside, &path).unwrap();
    }
    check(&world.open().unwrap(), &BTreeSet::from([0, 2, 3, 4, 5]));
}

#[test]
fn a_collection_that_pins_the_log_is_carried_forward_and_the_log_is_cut() {
    let (root, world) = world();
    let (store, other) = (world.create(), create_other(&world));
    let mut live: BTreeSet<u64> = write(&store, 3, &[]).unwrap().into_iter().collect();
    store.seal().unwrap();
    write(&store, 2, &[0]).unwrap();
    live.extend([3, 4]);
    live.remove(&0);
    let mut theirs = BTreeSet::new();
    let files = || {
        let names =
            std::fs::read_dir(root.path().join("log")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".log")).count()
    };
    while files() < 4 {
        theirs.extend(write(&other, 5, &[]).unwrap());
        other.seal().unwrap();
    }
    assert_eq!(world.log().cut().unwrap(), 0, "the first collection pins it");
    let done = maintain(&store).unwrap();
    assert!(done.carried && !done.sealed, "{done:?}");
    assert!(files() <= 2, "{}", files());
    live.extend(write(&store, 1, &[3]).unwrap());
    live.remove(&3);
    for _ in 0..2 {
        check(&store, &live);
    }
    drop((store, other));
    world.stop();
    check(&world.open().unwrap(), &live);
    check(&open_other(&world).unwrap(), &theirs);
}

#[test]
fn two_collections_that_share_a_number_in_the_log_are_not_made() {
    let (_root, world) = world();
    let store = world.create();
    let mut twin = IDENTITY;
    twin.0[15] = 0;
    world.make_folder(&other_dir(&world));
    let create = || Store::create(&world.log(), &other_dir(&world), twin, space(DIMENSION), OPTIONS);
    assert!(matches!(create(), Err(StoreError::IdentityTaken { .. })));
    drop(store);
    world.stop();
    assert!(matches!(create(), Err(StoreError::IdentityTaken { .. })), "also after a restart");
    check(&world.open().unwrap(), &BTreeSet::new());
}

#[test]
fn a_store_that_is_opened_twice_is_refused() {
    let (_root, world) = world();
    let store = world.create();
    write(&store, 2, &[]).unwrap();
    assert!(matches!(world.open(), Err(StoreError::Io { .. })));
    drop(store);
    check(&world.open().unwrap(), &BTreeSet::from([0, 1]));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            _ = std::fs::copy(entry.path(), to).unwrap()
        }
    }
}

/// A copy of an earlier time in the place of a folder, whole or over it, is refused whatever the log has still of what came
/// after, and no file of it goes.
#[test]
fn a_folder_of_an_earlier_time_is_refused_and_keeps_every_segment() {
    for (carries, writes_more, is_merged) in
        [(true, false, false), (false, true, false), (false, false, true), (true, true, true)]
    {
        let context = format!("carries {carries}, writes more {writes_more}, merged {is_merged}");
        let (root, world) = world();
        let store = world.create();
        write(&store, 5, &[]).unwrap();
        store.seal().unwrap();
        let dir = world.dir();
        let copied = root.path().join("copy");
        copy(&dir, &copied);
        let mut live: BTreeSet<u64> = (0..5).collect();
        live.extend(write(&store, 9, &[]).unwrap());
        store.seal().unwrap();
        if writes_more {
            live.extend(write(&store, 2, &[]).unwrap());
        }
        if carries {
            live.extend(write(&store, 1, &[]).unwrap());
            store.carry_forward().unwrap();
        }
        // What the segments hold is cut off from the log.
        let other = create_other(&world);
        for _ in 0..40 {
            write(&other, 5, &[]).unwrap();
            other.seal().unwrap();
            world.log().cut().unwrap();
        }
        drop((store, other));
        world.stop();
        let newest = root.path().join("newest");
        copy(&dir, &newest);
        if !is_merged {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        copy(&copied, &dir);
        let before = world.names();
        if carries || writes_more || is_merged {
            let error = world.open().unwrap_err();
            assert!(error.to_string().contains("of an earlier time"), "{context}: {error}");
            assert_eq!(world.names(), before, "{context}");
        }
        world.stop();
        std::fs::remove_dir_all(&dir).unwrap();
        copy(&newest, &dir);
        check(&world.open().unwrap(), &live);
    }
}
