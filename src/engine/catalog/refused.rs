//! What the catalogue refuses is nowhere, also after a restart; what it takes is told by the folders in the end.

use std::sync::atomic::Ordering;

use super::{
    description::{describe_folder, read_description},
    tests::{check, fill, folder_of, open},
    *,
};
use crate::{
    collection::{
        FolderLog, Write,
        point::{ContentHash, Passage, Point},
    },
    error::{ErrorKind, Fault as _},
    files,
    random::SplitMix,
    segmented::logs::FolderOptions,
    stop::Stop,
    store::{Catalog, disk::faulty::FaultyDisk},
    threads::Threads,
    value::{Payload, PointId},
    vector::{Dim, Metric, Vector},
};

/// Names over a catalogue whose disk fails when it is told to.
fn open_on_faulty(root: &Path) -> (Names, Arc<FaultyDisk>) {
    let mut names = open(root).unwrap();
    names.catalog.close().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let dir = root.join(CATALOG_DIR);
    names.catalog = Cache::of(&dir, Catalog::open_on(&dir, Arc::clone(&disk) as _).unwrap());
    (names, disk)
}

#[test]
fn a_refused_change_of_an_alias_is_nowhere_also_after_a_restart() {
    type Change = fn(&Names) -> Result<()>;
    let changes: [(&str, Change); 3] = [
        ("moved", |names| names.set_alias("live", "b").map(drop)),
        ("new", |names| names.set_alias("new", "e").map(drop)),
        ("removed", |names| names.delete_alias("old")),
    ];
    type Fault = fn(&FaultyDisk);
    let faults: [(&str, Fault); 3] = [
        ("seen in time", |disk| disk.free.store(1 << 20, Ordering::SeqCst)),
        ("while it is written", |disk| disk.no_room.store(true, Ordering::SeqCst)),
        ("when all is stored", |disk| disk.no_room_late.store(true, Ordering::SeqCst)),
    ];
    for (fault_name, fault) in faults {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        for (change_name, change) in changes {
            let context = format!("{change_name}, {fault_name}");
            let (names, disk) = open_on_faulty(dir.path());
            fault(&disk);
            let error = change(&names).unwrap_err();
            assert!(error.to_string().contains("disk is full"), "{context}: {error}");
            check(&names, &context);
            disk.no_room.store(false, Ordering::SeqCst);
            disk.no_room_late.store(false, Ordering::SeqCst);
            disk.free.store(u64::MAX, Ordering::SeqCst);
            names.close().unwrap();
            drop(names);
            let names = open(dir.path()).unwrap();
            check(&names, &format!("{context}, after a restart"));
            assert_eq!(names.findings(), [], "{context}");
            names.close().unwrap();
        }
    }
}

#[test]
fn a_refused_collection_is_nowhere_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (names, disk) = open_on_faulty(dir.path());
    disk.no_room_late.store(true, Ordering::SeqCst);
    names.create(tests::info("new", 9)).unwrap_err();
    check(&names, "refused");
    disk.no_room_late.store(false, Ordering::SeqCst);
    disk.free.store(u64::MAX, Ordering::SeqCst);
    names.close().unwrap();
    drop(names);
    let names = open(dir.path()).unwrap();
    check(&names, "after a restart");
    names.create(tests::info("new", 9)).unwrap();
    names.close().unwrap();
}

/// A change of an alias that is cut off between the catalogue and the folder.
#[test]
fn a_folder_that_is_behind_the_catalogue_learns_its_aliases_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    // No folder is ahead of the catalogue after a clean end.
    let catalog = Catalog::open(&dir.path().join(CATALOG_DIR)).unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        let described = read_description(&folder_of(dir.path(), name)).unwrap().unwrap();
        assert!(described.revision <= catalog.revision(), "{name}");
    }
    catalog.close().unwrap();
    let c = folder_of(dir.path(), "c");
    let told = || -> Vec<String> { read_description(&c).unwrap().unwrap().aliases.keys().cloned().collect() };
    assert_eq!(told(), ["live"]);
    let mut behind = read_description(&c).unwrap().unwrap();
    behind.aliases.clear();
    describe_folder(&c, &behind).unwrap();
    let names = open(dir.path()).unwrap();
    check(&names, "as the catalogue says");
    assert_eq!(names.findings(), []);
    names.close().unwrap();
    drop(names);
    assert_eq!(told(), ["live"]);
    // So it is known without the catalogue too.
    std::fs::remove_dir_all(dir.path().join(CATALOG_DIR)).unwrap();
    let names = open(dir.path()).unwrap();
    check(&names, "without the catalogue");
    names.close().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_disk_without_a_byte_left_a_start_serves_reads_and_deletes() {
    let Some(mount) = crate::store::tests::SmallDisk::mount(96) else { return };
    let root = mount.0.path().join("db");
    drop(crate::store::DataLock::acquire(&root).unwrap());
    fill(&root);
    // Damage of today's catalogue must not be what is seen afterwards.
    let ballast = mount.fill();
    let lock = crate::store::DataLock::acquire(&root).unwrap();
    let names = open(&root).unwrap();
    check(&names, "without a byte left");
    assert_eq!(names.findings(), [], "nothing is wrong but that there is no room");
    names.examine();
    let failed = names.failed().unwrap();
    assert!(failed.contains("MiB left") || failed.contains("disk is full"), "{failed}");
    // What grows is refused, and what goes away goes.
    type Change = fn(&Names) -> Result<()>;
    let grow: [Change; 3] = [
        |names| names.create(tests::info("new", 9)).map(drop),
        |names| names.set_alias("new", "e").map(drop),
        |names| names.delete_alias("old"),
    ];
    for grow in grow {
        let error = grow(&names).unwrap_err();
        assert!(error.to_string().contains("disk is full"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Overloaded);
    }
    check(&names, "after what was refused");
    let delete = |names: &Names, collection: &str, document: &str| {
        let delete = Write::Delete(PointId::new(document).unwrap());
        names.now().find(collection).unwrap().collection().unwrap().write(vec![delete]).unwrap();
    };
    delete(&names, "e", "document 0");
    names.delete("d").unwrap();
    assert!(names.now().find("d").is_err());
    names.close().unwrap();
    drop((names, lock));
    // Once more on the full disk: nothing came back.
    let lock = crate::store::DataLock::acquire(&root).unwrap();
    let names = open(&root).unwrap();
    let left = |names: &Names| names.now().collections.keys().cloned().collect::<Vec<_>>();
    assert_eq!(left(&names), ["a", "b", "c", "e"]);
    delete(&names, "e", "document 1");
    std::fs::remove_file(ballast).unwrap();
    names.examine();
    assert_eq!(names.failed(), None, "there is room again, and no restart was needed");
    names.create(tests::info("new", 9)).unwrap();
    names.close().unwrap();
    drop((names, lock));
    let names = open(&root).unwrap();
    assert_eq!(left(&names), ["a", "b", "c", "e", "new"]);
    assert_eq!(names.findings(), []);
    let count = |name: &str| {
        let now = names.now();
        now.find(name).unwrap().collection().unwrap().count(None, &Stop::default()).unwrap()
    };
    assert_eq!((count("c"), count("e"), count("new")), (3, 3, 0));
    names.close().unwrap();
}

/// The log is well, and writes nothing more all the same: nobody knows what a device has that failed to sync.
#[test]
fn a_failed_sync_of_a_segment_shows_in_the_health_and_ends_writing_to_every_collection() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let open_on = |disk: Arc<dyn files::disk::Disk>| {
        Names::open(root, || {
            let threads = Threads::new(1).unwrap();
            let options = FolderOptions { segment_bytes: 64 << 10, ..FolderOptions::default() };
            let log = FolderLog::open(&disk, root, &threads, options)?.0;
            Ok(Shelf::new(64, log, threads))
        })
        .unwrap()
    };
    let mut random = SplitMix(1);
    let mut write = |names: &Names, collection: &str, id: &str| {
        let text: String = (0..200).map(|_| format!("{:016x}", random.next())).collect();
        let vector = Vector::new(vec![1.0, 2.0], Dim::new(2).unwrap(), Metric::Cosine).unwrap();
        let point = Point {
            id: PointId::new(id).unwrap(),
            title: String::new(),
            text,
            payload: Payload::new(),
            content_hash: ContentHash([7; 16]),
            passages: vec![Passage { range: 0..1, vector }],
        };
        let now = names.now();
        let collection = now.find(collection).unwrap().collection().unwrap();
        collection.write(vec![Write::Upsert(Box::new(point))]).map(drop)
    };
    let count = |names: &Names, collection: &str| {
        let now = names.now();
        now.find(collection).unwrap().collection().unwrap().count(None, &Stop::default()).unwrap()
    };
    let faulty = files::faulty::FaultyDisk::default();
    let names = open_on(Arc::new(faulty.clone()));
    for name in ["a", "b"] {
        names.create(tests::info(name, 1)).unwrap();
        write(&names, name, "before").unwrap();
    }
    assert_eq!(names.failed(), None);
    *faulty.0.sync_fails_below.lock().unwrap() = Some(root.join(COLLECTIONS_DIR));
    let (mut kept, begun) = (1, std::time::Instant::now());
    while names.failed().is_none() {
        assert!(begun.elapsed().as_secs() < 120, "nothing was sealed");
        kept += u64::from(write(&names, "a", &format!("document {kept}")).is_ok());
    }
    *faulty.0.sync_fails_below.lock().unwrap() = None;
    let failed = names.failed().unwrap();
    assert!(failed.contains("nothing is written any more") && failed.contains("restart"), "{failed}");
    for name in ["a", "b"] {
        let error = write(&names, name, "after").unwrap_err();
        assert!(crate::error::with_sources(&error).contains("could not be synced"), "{error}");
    }
    assert_eq!((count(&names, "a"), count(&names, "b")), (kept, 1), "reads go on");
    let _ = names.close();
    drop(names);
    let names = open_on(Arc::new(files::disk::RealDisk));
    assert_eq!((names.failed(), count(&names, "b")), (None, 1));
    // The write that was on its way may be there or not.
    assert!([kept, kept + 1].contains(&count(&names, "a")), "{kept}");
    write(&names, "b", "after").unwrap();
    names.close().unwrap();
}

#[test]
fn a_name_is_of_a_collection_or_of_an_alias_and_the_refusal_says_of_which() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let names = open(dir.path()).unwrap();
    let taken = names.create(tests::info("live", 9)).unwrap_err().to_string();
    assert!(taken.contains("\"live\" is an alias of \"c\""), "{taken}");
    let taken = names.set_alias("a", "b").unwrap_err().to_string();
    assert!(taken.contains("\"a\" is a collection"), "{taken}");
    names.close().unwrap();
}
