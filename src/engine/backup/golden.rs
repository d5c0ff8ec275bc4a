//! Backups as versions left them, which must be restored for ever; and backups of what earlier versions kept.

use std::{fs, sync::Arc};

use super::*;
use crate::{
    collection::{FolderLog, StoreSizes, Write},
    engine::{
        catalog::golden::{check, contents, id, infos, left_by, open, upsert},
        opened::Shelf,
    },
    error::{ErrorKind, Fault as _},
    store::golden::{pack, unpack},
    threads::Threads,
};

/// A backup of format 1, written by [`write_the_golden_file`] in the version that had the format first.
const FORMAT_1: &[u8] = include_bytes!("golden/format-1.zst");

/// One of every format.
const ALL: &[&[u8]] = &[FORMAT_1];

/// Restores everything with its aliases into a new data folder, and looks at it, also after a restart.
fn check_restored(from: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let names = Arc::new(open(dir.path()).unwrap());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let restoring = Restoring { names: Arc::clone(&names), home: dir.path().join("home"), default: None };
    let wish = RestoreWish { aliases: true, ..RestoreWish::default() };
    let restored = restoring.run(&disk, from, &wish, &Stop::default()).unwrap();
    let names_restored: Vec<&str> = restored.iter().map(|one| one.info.name.as_str()).collect();
    assert_eq!(names_restored, ["flat", "graph", "killed"]);
    // A model that is not here is told with its fingerprint and what to do.
    let missing: Vec<_> = restored.iter().map(|one| one.missing_model.as_deref()).collect();
    assert!(matches!(missing[..], [Some(_), None, None]), "{missing:?}");
    let told = missing[0].unwrap();
    assert!(told.contains("a model (0123456789ab)") && told.contains("install it again"), "{told}");
    check(&names);
    assert_eq!(names.findings(), []);
    names.close().unwrap();
    drop((restoring, names));
    let names = open(dir.path()).unwrap();
    check(&names);
    assert_eq!(names.findings(), []);
    names.close().unwrap();
}

fn back_up_all(names: &Names, data: &Path, to: &Path) -> MadeBackup {
    back_up(names, to, data, &BackupWish::default(), &Stop::default()).unwrap()
}

#[test]
fn a_backup_of_every_version_is_verified_and_restored() {
    for packed in ALL {
        let dir = tempfile::tempdir().unwrap();
        unpack(packed, dir.path());
        let verified = verify_backup(dir.path(), &Stop::default(), |_, _| ()).unwrap();
        assert!(verified.whole && verified.notes.is_empty(), "{verified:?}");
        check_restored(dir.path());
    }
}

/// A data folder of every earlier version is opened, put into a backup, and that restored. A copy of such a folder is no
/// backup, and is told what it is.
#[test]
fn what_earlier_versions_kept_is_backed_up_and_restored_and_a_copy_of_their_folder_is_opened_as_it_is() {
    for format in [1, 2, 3] {
        let dir = left_by(format);
        let refused = restore::read(&RealDisk, dir.path()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(refused.to_string().contains("open it with --data"), "{refused}");
        let names = open(dir.path()).unwrap();
        check(&names);
        let to = tempfile::tempdir().unwrap();
        back_up_all(&names, dir.path(), &to.path().join("b"));
        names.close().unwrap();
        check_restored(&to.path().join("b"));
    }
}

/// What is in the golden file: several segments with deletions, documents that were in no segment, aliases, a model.
fn make_golden(root: &Path, to: &Path) {
    let shelf = || {
        let threads = Threads::new(1).unwrap();
        let sizes = StoreSizes { segment_bytes: 8 << 10, ..StoreSizes::default() };
        Ok(Shelf::new(64, FolderLog::of(root, &threads, sizes)?, threads))
    };
    let names = Names::open(root, shelf).unwrap();
    for (info, (name, dimension, expected)) in infos().into_iter().zip(contents()) {
        names.create(info).unwrap();
        let collection = names.now().find(name).unwrap().collection().unwrap();
        let earlier = expected.keys().chain(&[900]).map(|n| upsert(*n, 0, dimension)).collect();
        collection.write(earlier).unwrap();
        // The others are too small for a segment of their own.
        while name == "graph" && collection.stats().segments == 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for (n, version) in expected {
            collection.write(vec![upsert(n, version, dimension)]).unwrap();
        }
        collection.write(vec![Write::Delete(id(900))]).unwrap();
    }
    names.set_alias("live", "graph").unwrap();
    back_up_all(&names, root, to);
    names.close().unwrap();
}

/// [`make_golden`] until it has several segments and deletions: merging, which nobody waits for, may have made one of them.
fn make_golden_of_everything() -> tempfile::TempDir {
    let mut seen = Vec::new();
    for _ in 0..20 {
        let (root, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_golden(root.path(), &to.path().join("b"));
        let kept = Manifest::read(&RealDisk, &to.path().join("b")).unwrap().unwrap().collections;
        let graph = kept.into_iter().find(|kept| kept.name == "graph").unwrap();
        let paths: Vec<String> = graph.files.into_iter().map(|file| file.path).collect();
        if paths.iter().any(|path| path.ends_with(".deleted.1"))
            && paths.iter().filter(|path| path.ends_with("/documents")).count() > 1
        {
            return to;
        }
        seen = paths;
    }
    panic!("twenty times something was missing, at last of {seen:?}");
}

#[test]
fn what_would_be_the_golden_file_has_something_of_everything() {
    check_restored(&make_golden_of_everything().path().join("b"));
}

/// Only for a new format: the files of earlier ones stay as they were written.
#[test]
#[ignore = "it writes a golden file"]
fn write_the_golden_file() {
    let to = make_golden_of_everything();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/engine/backup/golden/format-1.zst");
    assert!(!Path::new(path).exists(), "a golden file is never written again");
    fs::write(path, pack(&to.path().join("b"))).unwrap();
}
