//! What the catalogue refuses is nowhere, also after a restart; what it takes is told by the folders in the end.

use std::sync::atomic::Ordering;

use super::{
    description::{describe_folder, read_description},
    tests::{check, fill, folder_of, open},
    *,
};
use crate::{
    collection::Write,
    error::{ErrorKind, Fault as _},
    store::{Catalog, disk::faulty::FaultyDisk},
    value::PointId,
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
        now.find(name).unwrap().collection().unwrap().count(None, &crate::stop::Stop::default()).unwrap()
    };
    assert_eq!((count("c"), count("e"), count("new")), (3, 3, 0));
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
