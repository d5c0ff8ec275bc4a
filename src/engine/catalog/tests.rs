//! The start against catalogues, folders and files that are damaged, lost, foreign or half done.

use std::fs;

use super::{
    description::{describe_folder, read_description},
    *,
};
use crate::{
    collection::{
        FolderLog, Identity, StoreSizes, Write,
        point::{ContentHash, Passage, Point},
    },
    config::FINDINGS_FILE,
    error::{ErrorKind, Fault as _},
    files::regular,
    index::{IndexKind, IndexParams},
    random::SplitMix,
    stop::Stop,
    store::folder::{self, Mark},
    threads::Threads,
    value::{Payload, PointId},
    vector::{Dim, Metric, Vector},
};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

pub(in crate::engine) fn info(name: &str, created_at: i64) -> CollectionInfo {
    CollectionInfo {
        name: name.to_owned(),
        dimension: 2,
        metric: Metric::Cosine,
        index: IndexParams { kind: IndexKind::Flat, ..IndexParams::default() },
        chunking: None,
        model: None,
        created_at,
        aliases: Vec::new(),
        damage: None,
    }
}

pub(super) fn shelf(root: &Path) -> Result<Arc<Shelf>> {
    shelf_of(root, 64)
}

/// For at most `open_max` open collections.
fn shelf_of(root: &Path, open_max: usize) -> Result<Arc<Shelf>> {
    let threads = Threads::new(1).unwrap();
    let log = FolderLog::of(root, &threads, StoreSizes::default())?;
    Ok(Shelf::new(open_max, log, threads))
}

pub(super) fn open(root: &Path) -> Result<Names> {
    Names::open(root, || shelf(root))
}

pub(super) fn write(names: &Names, collection: &str, document: &str) {
    let vector = Vector::new(vec![1.0, 2.0], Dim::new(2).unwrap(), Metric::Cosine).unwrap();
    let point = Point {
        id: PointId::new(document).unwrap(),
        title: String::new(),
        text: document.to_owned(),
        payload: Payload::new(),
        content_hash: ContentHash([7; 16]),
        passages: vec![Passage { range: 0..1, vector }],
    };
    let now = names.now();
    now.find(collection).unwrap().collection().unwrap().write(vec![Write::Upsert(Box::new(point))]).unwrap();
}

/// Five collections, the nth with n documents, and three aliases, one of which was moved and one removed.
pub(super) fn fill(root: &Path) {
    let names = open(root).unwrap();
    for (n, name) in (1..).zip(NAMES) {
        names.create(info(name, n)).unwrap();
        for document in 0..n {
            write(&names, name, &format!("document {document}"));
        }
    }
    for (alias, target) in [("live", "a"), ("old", "b"), ("live", "c"), ("gone", "d")] {
        names.set_alias(alias, target).unwrap();
    }
    names.delete_alias("gone").unwrap();
    names.close().unwrap();
}

/// Everything that [`fill`] made is there.
pub(super) fn check(names: &Names, context: &str) {
    let now = names.now();
    assert_eq!(now.collections.keys().map(String::as_str).collect::<Vec<_>>(), NAMES, "{context}");
    for (n, name) in (1..).zip(NAMES) {
        let open = now.find(name).unwrap();
        let documents = open.collection().map(|c| c.count(None, &Stop::default()).unwrap());
        assert_eq!(documents.unwrap_or_else(|e| panic!("{context}: {name}: {e}")), n, "{context}: {name}");
    }
    let aliases = [("live", "c"), ("old", "b")].map(|(alias, target)| (alias.to_owned(), target.to_owned()));
    assert_eq!(now.aliases, aliases.into_iter().collect(), "{context}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| entry.unwrap())
        .map(walkdir::DirEntry::into_path)
        // sled replaces its snapshots.
        .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with("snap."))
        .collect();
    files.sort();
    files
}

pub(in crate::engine) fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(super) fn folder_of(root: &Path, name: &str) -> PathBuf {
    let found = fs::read_dir(root.join(COLLECTIONS_DIR)).unwrap().map(|entry| entry.unwrap().path());
    found
        .into_iter()
        .find(|dir| read_description(dir).ok().flatten().is_some_and(|d| d.info.name == name))
        .unwrap_or_else(|| panic!("{name} has no folder"))
}

#[test]
fn no_damage_of_the_catalogue_loses_a_name_a_document_or_a_file() {
    let seed = 11;
    println!("seed {seed}");
    let mut random = SplitMix(seed);
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    fill(&good);
    let db = fs::read(good.join("catalog/db")).unwrap();
    let used = db.len() - db.iter().rev().take_while(|byte| **byte == 0).count();
    let (mut told, mut rounds) = (0, 0);
    for n in 0..50u64 {
        let root = dir.path().join(format!("damaged-{n}"));
        copy(&good, &root);
        let path = root.join("catalog/db");
        let mut bytes = db.clone();
        // Evenly over what is used, and a little off.
        let at = (used as u64 * (n % 22) / 22 + random.below(40)) as usize % used;
        let what = match n {
            0..22 => {
                bytes[at] ^= 1 << random.below(8);
                fs::write(&path, bytes).unwrap();
                "a flipped bit"
            }
            22..30 => {
                fs::write(&path, &bytes[..at]).unwrap();
                "a cut"
            }
            30..38 => {
                let end = (at + 512).min(used);
                bytes[at..end].fill(0);
                fs::write(&path, bytes).unwrap();
                "a block of zeros"
            }
            38 => {
                fs::remove_file(&path).unwrap();
                "db is gone"
            }
            39 => {
                fs::write(&path, "").unwrap();
                "db is empty"
            }
            40 => {
                fs::write(&path, &db[..used]).unwrap();
                for entry in fs::read_dir(root.join("catalog")).unwrap() {
                    let path = entry.unwrap().path();
                    if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
                        fs::remove_file(path).unwrap();
                    }
                }
                "snapshots are gone"
            }
            41 => {
                fs::remove_dir_all(root.join("catalog")).unwrap();
                fs::create_dir(root.join("catalog")).unwrap();
                "an empty folder"
            }
            // sled would open each of these as its own, and wait for the other end of a pipe.
            44 => {
                regular::pipe(&root.join("catalog/conf"));
                "a pipe for the settings"
            }
            45 => {
                fs::remove_file(root.join("catalog/conf")).unwrap();
                fs::create_dir(root.join("catalog/conf")).unwrap();
                "a folder for the settings"
            }
            46 => {
                regular::pipe(&root.join("catalog/snap.0000000000000001"));
                "a pipe for a snapshot"
            }
            47 => {
                fs::remove_dir_all(root.join("catalog/blobs")).unwrap();
                fs::write(root.join("catalog/blobs"), "").unwrap();
                "a file for a folder"
            }
            48 => {
                fs::remove_dir_all(root.join("catalog")).unwrap();
                fs::write(root.join("catalog"), "").unwrap();
                "a file for the whole"
            }
            49 => {
                fs::remove_dir_all(root.join("catalog")).unwrap();
                regular::pipe(&root.join("catalog"));
                "a pipe for the whole"
            }
            _ => {
                fs::remove_dir_all(root.join("catalog")).unwrap();
                "the folder is gone"
            }
        };
        let context = format!("round {n}, {what} at {at} of {used}");
        let before = files(&root.join(COLLECTIONS_DIR));
        let names = open(&root).unwrap_or_else(|error| panic!("{context}: {error}"));
        check(&names, &context);
        assert_eq!(files(&root.join(COLLECTIONS_DIR)), before, "{context}");
        rounds += 1;
        told += u64::from(!names.findings().is_empty());
        if n >= 41 {
            assert!(names.findings().iter().any(|f| f.what.contains("did not know collection")), "{context}");
            let written = fs::read_to_string(root.join(FINDINGS_FILE)).unwrap();
            assert!(written.contains("\"a\""), "{context}: {written}");
        }
        // What was found once is repaired.
        names.close().unwrap();
        drop(names);
        let names = open(&root).unwrap();
        check(&names, &format!("{context}, opened again"));
        assert_eq!(names.findings(), [], "{context}");
        assert!(!root.join(FINDINGS_FILE).exists());
        names.create(info("new", 99)).unwrap();
        names.delete("new").unwrap();
    }
    println!("{told} of {rounds} damages mattered");
    assert!(told > 20, "{told} of {rounds}: the damages do not reach the catalogue");
}

#[test]
fn a_catalogue_put_back_to_an_earlier_state_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("db");
    let names = open(&root).unwrap();
    names.create(info("a", 1)).unwrap();
    names.set_alias("live", "a").unwrap();
    names.close().unwrap();
    drop(names);
    let earlier = dir.path().join("earlier");
    copy(&root.join(CATALOG_DIR), &earlier);
    let names = open(&root).unwrap();
    names.create(info("b", 2)).unwrap();
    write(&names, "b", "document");
    names.set_alias("live", "b").unwrap();
    names.close().unwrap();
    drop(names);
    fs::remove_dir_all(root.join(CATALOG_DIR)).unwrap();
    copy(&earlier, &root.join(CATALOG_DIR));
    let names = open(&root).unwrap();
    assert_eq!(names.now().find("live").unwrap().info.name, "b");
    assert_eq!(
        names.now().find("b").unwrap().collection().unwrap().count(None, &Stop::default()).unwrap(),
        1
    );
    let findings = names.findings();
    assert!(findings.iter().any(|f| f.what.contains("collection \"b\"")), "{findings:?}");
    assert!(findings.iter().any(|f| f.what.contains("\"live\" is an alias of \"b\"")), "{findings:?}");
}

#[test]
fn a_folder_that_nothing_names_is_kept_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let folder = folder_of(dir.path(), "c");
    fs::remove_file(folder.join(folder::DESCRIPTION_FILE)).unwrap();
    fs::remove_dir_all(dir.path().join(CATALOG_DIR)).unwrap();
    let names = open(dir.path()).unwrap();
    assert!(folder.join("segments").exists());
    assert!(names.now().find("c").is_err());
    let findings = names.findings();
    let path = folder.display().to_string();
    assert!(findings.iter().any(|f| f.what.contains(&path) && f.what.contains("kept")), "{findings:?}");
    for name in ["a", "b", "d", "e"] {
        names.now().find(name).unwrap().collection().unwrap();
    }
}

#[test]
fn foreign_files_and_folders_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let collections = dir.path().join(COLLECTIONS_DIR);
    let folders = [
        dir.path().join("lost+found"),
        collections.join("lost+found"),
        collections.join("mine/state-of-art"),
    ];
    let foreign =
        [dir.path().join("README"), collections.join(".DS_Store"), collections.join("mine/notes.txt")];
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
    }
    for file in &foreign {
        fs::write(file, "mine").unwrap();
    }
    #[cfg(unix)]
    let rights = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    #[cfg(unix)]
    for path in folders.iter().chain(&foreign) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let names = open(dir.path()).unwrap();
    check(&names, "with foreign files");
    assert_eq!(names.findings(), []);
    for path in folders.iter().chain(&foreign) {
        assert!(path.exists(), "{}", path.display());
        #[cfg(unix)]
        assert_eq!(rights(path), 0o755, "{}", path.display());
    }
}

/// A link that somebody put among the collections leads to a folder of theirs, which has a file named as a mark is.
#[cfg(unix)]
#[test]
fn nothing_behind_a_symbolic_link_is_removed() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("data"), dir.path().join("theirs"));
    fill(&root);
    let collections = root.join(COLLECTIONS_DIR);
    for mark in ["deleting", "creating"] {
        let theirs = outside.join(mark);
        fs::create_dir_all(theirs.join("0000000001")).unwrap();
        for file in ["segments", "0000000001/documents"] {
            fs::write(theirs.join(file), "theirs").unwrap();
        }
        fs::write(theirs.join(mark), "").unwrap();
        symlink(&theirs, collections.join(mark)).unwrap();
    }
    // A folder of theirs beside the collections, with a file of such a name and no link.
    fs::create_dir_all(collections.join("notes")).unwrap();
    fs::write(collections.join("notes/deleting"), "what I mean to delete").unwrap();
    // A deletion that was cut off, of a collection that somebody moved to another disk and linked.
    let moved = folder_of(&root, "d");
    folder::mark(&moved, Mark::Deleting, None, &RealDisk).unwrap();
    fs::rename(&moved, outside.join("d")).unwrap();
    symlink(outside.join("d"), &moved).unwrap();
    // One that was moved and is served.
    let served = folder_of(&root, "a");
    let at = outside.join(served.file_name().unwrap());
    fs::rename(&served, &at).unwrap();
    symlink(&at, &served).unwrap();
    let before = files(&outside);

    let names = open(&root).unwrap();
    assert_eq!(names.now().collections.keys().collect::<Vec<_>>(), ["a", "b", "c", "e"]);
    assert_eq!(files(&outside), before);
    assert_eq!(fs::read_to_string(collections.join("notes/deleting")).unwrap(), "what I mean to delete");
    for name in ["deleting", "creating", "notes"] {
        let path = collections.join(name);
        let told = |f: &Finding| f.what.contains(&*path.to_string_lossy());
        assert!(names.findings().iter().any(told), "{name}: {:?}", names.findings());
    }
    assert_eq!(
        names.now().find("a").unwrap().collection().unwrap().count(None, &Stop::default()).unwrap(),
        1
    );
    let error = names.delete("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(files(&outside), before);
}

/// Pipes and devices in the place of our files are damage: nothing waits for them and nothing is read without end.
#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_in_the_place_of_a_file_is_damage() {
    for special in [regular::pipe, regular::endless] {
        for file in ["collection", "segments"] {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path());
            special(&folder_of(dir.path(), "a").join(file));
            let names = open(dir.path()).unwrap();
            for (n, name) in (1..).zip(NAMES).skip(1) {
                let now = names.now();
                let found = now.find(name).unwrap().collection().unwrap();
                assert_eq!(found.count(None, &Stop::default()).unwrap(), n, "{file}: {name}");
            }
            if file != "collection" {
                let error = names.now().find("a").unwrap().collection().unwrap_err();
                assert!(error.to_string().contains("regular file"), "{error}");
            }
        }
        // Without its log nothing is opened, and nothing is made in its place.
        for file in ["folder", "0000000001.log"] {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path());
            let (file, aside) = (dir.path().join("log").join(file), dir.path().join("aside"));
            fs::copy(&file, &aside).unwrap();
            special(&file);
            let before = files(dir.path());
            let error = open(dir.path()).unwrap_err();
            let error = crate::error::with_sources(&error);
            assert!(error.contains(&file.display().to_string()) && error.contains("regular file"), "{error}");
            assert_eq!(files(dir.path()), before);
            fs::remove_file(&file).unwrap();
            fs::rename(&aside, &file).unwrap();
            check(&open(dir.path()).unwrap(), "with its own log again");
        }
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        special(&dir.path().join("catalog/db"));
        let names = open(dir.path()).unwrap();
        check(&names, "a special file for the catalogue's db");
        assert!(!names.findings().is_empty());
    }
}

#[test]
fn only_what_is_marked_as_unfinished_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let collections = dir.path().join(COLLECTIONS_DIR);
    // A creation and a deletion that were cut off, each at two places.
    let half = collections.join("half");
    folder::create(&half, &RealDisk).unwrap();
    fs::create_dir(half.join("0000000001.new")).unwrap();
    fs::write(half.join("0000000001.new/documents"), "half").unwrap();
    fs::write(half.join("segments.new"), "half").unwrap();
    let (decided, begun) = (folder_of(dir.path(), "d"), folder_of(dir.path(), "e"));
    for folder in [&decided, &begun] {
        let identity = read_description(folder).unwrap().unwrap().identity;
        folder::mark(folder, Mark::Deleting, identity, &RealDisk).unwrap();
    }
    folder::empty(&begun).unwrap();
    // A creation that the catalogue knows already.
    let known = folder_of(dir.path(), "a");
    folder::mark(&known, Mark::Creating, None, &RealDisk).unwrap();
    let names = open(dir.path()).unwrap();
    assert_eq!(names.now().collections.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(
        names.now().find("a").unwrap().collection().unwrap().count(None, &Stop::default()).unwrap(),
        1
    );
    assert_eq!(names.findings(), []);
    assert!(!half.exists() && !decided.exists() && !begun.exists());
    assert_eq!(folder::marked(&known), None);
    names.close().unwrap();
    drop(names);
    // Nobody needs what the log has of those that were deleted.
    let names = open(dir.path()).unwrap();
    assert_eq!(names.now().collections.len(), 3);
    assert_eq!(names.findings(), []);
}

/// What was copied to begin with is a folder as a kill leaves it.
#[test]
fn a_deletion_that_was_cut_off_anywhere_is_finished_and_leaves_no_entry_behind() {
    type Cut = fn(&Names, &Path, Identity);
    let cuts: [(&str, Cut); 4] = [
        ("marked", |_, _, _| {}),
        ("told in the log", |names, _, identity| names.shelf.log().delete(identity).unwrap()),
        ("emptied for want of room", |_, folder, _| folder::empty(folder).unwrap()),
        ("told and half removed", |names, folder, identity| {
            names.shelf.log().delete(identity).unwrap();
            fs::remove_file(folder.join("segments")).unwrap();
        }),
    ];
    for (context, cut) in cuts {
        for catalogue_knows in [true, false] {
            let context = format!("{context}, the catalogue knows it: {catalogue_knows}");
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path());
            let folder = folder_of(dir.path(), "d");
            let names = open(dir.path()).unwrap();
            let open_now = Arc::clone(names.now().find("d").unwrap());
            let identity = open_now.identity().unwrap();
            folder::mark(&folder, Mark::Deleting, Some(identity), &RealDisk).unwrap();
            if !catalogue_knows {
                names.catalog.put_all(&[("collection/d", None)]).unwrap();
            }
            open_now.place.as_ref().unwrap().close().unwrap();
            cut(&names, &folder, identity);
            names.close().unwrap();
            drop((open_now, names));
            for _ in 0..2 {
                let names = open(dir.path()).unwrap();
                assert_eq!(names.now().collections.keys().collect::<Vec<_>>(), ["a", "b", "c", "e"]);
                assert_eq!(names.findings(), [], "{context}");
                assert!(!folder.exists(), "{context}");
                for (n, name) in (1..).zip(NAMES).filter(|(_, name)| *name != "d") {
                    let found = names.now().find(name).unwrap().collection().unwrap();
                    assert_eq!(found.count(None, &Stop::default()).unwrap(), n, "{context}");
                }
                names.close().unwrap();
            }
        }
    }
}

#[test]
fn a_creation_that_was_cut_off_anywhere_is_finished_or_undone() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let collections = dir.path().join(COLLECTIONS_DIR);
    let names = open(dir.path()).unwrap();
    names.create(info("f", 9)).unwrap();
    names.close().unwrap();
    drop(names);
    // The log has the announcement of each.
    let made = folder_of(dir.path(), "f");
    let aside = dir.path().join("aside");
    fs::rename(&made, &aside).unwrap();
    fs::remove_dir_all(dir.path().join(CATALOG_DIR)).unwrap();
    let steps: [&[&str]; 4] = [&[], &["segments.new"], &["segments"], &["segments", "collection"]];
    for there in steps {
        folder::create(&made, &RealDisk).unwrap();
        for file in there {
            fs::copy(aside.join(file.trim_end_matches(".new")), made.join(file)).unwrap();
        }
        let names = open(dir.path()).unwrap();
        check(&names, &format!("{there:?}"));
        assert!(!made.exists(), "{there:?}");
        names.close().unwrap();
        drop(names);
        let names = open(dir.path()).unwrap();
        assert_eq!(names.findings(), [], "{there:?}");
        names.create(info("f", 9)).unwrap();
        write(&names, "f", "document");
        names.delete("f").unwrap();
        names.close().unwrap();
    }
    assert_eq!(fs::read_dir(&collections).unwrap().count(), NAMES.len());
}

/// Where a folder was moved, and put back later: its documents may lie in the log alone.
#[test]
fn a_folder_that_was_moved_away_and_put_back_has_all_its_documents() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (folder, aside) = (folder_of(dir.path(), "c"), dir.path().join("aside"));
    fs::rename(&folder, &aside).unwrap();
    for round in 0..3 {
        let names = open(dir.path()).unwrap();
        let error = names.now().find("c").unwrap().collection().unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
        assert_eq!(names.findings().len(), 1, "{:?}", names.findings());
        write(&names, "e", &format!("document {round}"));
        names.close().unwrap();
    }
    // The catalogue does not know of it any more either.
    fs::remove_dir_all(dir.path().join(CATALOG_DIR)).unwrap();
    let names = open(dir.path()).unwrap();
    assert!(names.now().find("c").is_err());
    let told = |f: &Finding| f.what.contains("3 entries") || f.what.contains("4 entries");
    assert!(names.findings().iter().any(told), "{:?}", names.findings());
    names.close().unwrap();
    drop(names);
    fs::rename(&aside, &folder).unwrap();
    let names = open(dir.path()).unwrap();
    let found = names.now().find("c").unwrap().collection().unwrap();
    assert_eq!(found.count(None, &Stop::default()).unwrap(), 3);
    assert!(!names.findings().iter().any(told), "{:?}", names.findings());
}

/// A copy of the folder alone has none of what only the log had, and the log was told that nobody needs that.
#[test]
fn a_folder_put_back_after_its_deletion_is_refused_and_never_served_with_fewer_documents() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (folder, aside) = (folder_of(dir.path(), "c"), dir.path().join("aside"));
    copy(&folder, &aside);
    let names = open(dir.path()).unwrap();
    names.delete("c").unwrap();
    names.close().unwrap();
    drop(names);
    copy(&aside, &folder);
    let before = fs::read(folder.join("segments")).unwrap();
    for _ in 0..2 {
        let names = open(dir.path()).unwrap();
        let error = names.now().find("c").unwrap().collection().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("was deleted"), "{error}");
        for name in ["a", "b", "d", "e"] {
            names.now().find(name).unwrap().collection().unwrap();
        }
        names.close().unwrap();
    }
    assert_eq!(fs::read(folder.join("segments")).unwrap(), before);
    let names = open(dir.path()).unwrap();
    names.delete("c").unwrap();
    assert!(!folder.exists());
    names.close().unwrap();
}

/// Its documents may lie in that folder's log alone.
#[test]
fn a_collections_folder_of_another_data_folder_is_refused_and_a_copy_of_the_whole_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other, whole) = (dir.path().join("one"), dir.path().join("other"), dir.path().join("whole"));
    fill(&one);
    fill(&other);
    for round in 0..20 {
        write(&open(&other).unwrap(), "e", &format!("document {round}"));
    }
    copy(&one, &whole);
    check(&open(&whole).unwrap(), "a copy of the whole");
    let names = open(&one).unwrap();
    names.delete("c").unwrap();
    names.close().unwrap();
    drop(names);
    let theirs = folder_of(&other, "c");
    copy(&theirs, &one.join(COLLECTIONS_DIR).join(theirs.file_name().unwrap()));
    for _ in 0..2 {
        let names = open(&one).unwrap();
        let error = names.now().find("c").unwrap().collection().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("another data folder"), "{error}");
        for (n, name) in (1..).zip(NAMES).filter(|(_, name)| *name != "c") {
            let found = names.now().find(name).unwrap().collection().unwrap();
            assert_eq!(found.count(None, &Stop::default()).unwrap(), n);
        }
        names.close().unwrap();
    }
    // The log of another folder is none for this one.
    let log = whole.join("log");
    fs::remove_dir_all(&log).unwrap();
    copy(&other.join("log"), &log);
    let names = open(&whole).unwrap();
    for name in NAMES {
        let error = names.now().find(name).unwrap().collection().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    names.close().unwrap();
    drop(names);
    fs::remove_dir_all(&log).unwrap();
    copy(&one.join("log"), &log);
    // That of this folder, of a later time.
    let names = open(&whole).unwrap();
    for (n, name) in (1..).zip(NAMES).filter(|(_, name)| *name != "c") {
        let found = names.now().find(name).unwrap().collection().unwrap();
        assert_eq!(found.count(None, &Stop::default()).unwrap(), n);
    }
}

#[test]
fn without_its_log_nothing_is_served_as_if_it_were_all_and_nothing_is_removed() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 8] = [
        ("the log is gone", |log| fs::remove_dir_all(log).unwrap()),
        ("its files are gone", |log| fs::remove_file(log.join("0000000001.log")).unwrap()),
        ("what it is, is gone", |log| fs::remove_file(log.join("folder")).unwrap()),
        ("what it is, is empty", |log| fs::write(log.join("folder"), "").unwrap()),
        ("what it is, is cut", |log| {
            let bytes = fs::read(log.join("folder")).unwrap();
            fs::write(log.join("folder"), &bytes[..39]).unwrap();
        }),
        ("a bit of what it is, is flipped", |log| {
            let mut bytes = fs::read(log.join("folder")).unwrap();
            bytes[29] ^= 1;
            fs::write(log.join("folder"), bytes).unwrap();
        }),
        ("a file is empty", |log| fs::write(log.join("0000000001.log"), "").unwrap()),
        ("a file has the place of the log", |log| {
            fs::remove_dir_all(log).unwrap();
            fs::write(log, "").unwrap();
        }),
    ];
    for (context, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let (log, aside) = (dir.path().join("log"), dir.path().join("aside"));
        copy(&log, &aside);
        damage(&log);
        let before = files(&dir.path().join(COLLECTIONS_DIR));
        for _ in 0..2 {
            match open(dir.path()) {
                // The whole folder is refused.
                Err(error) => assert!(matches!(error, EngineError::Store(_)), "{context}: {error}"),
                Ok(names) => {
                    for name in NAMES {
                        let error = names.now().find(name).unwrap().collection().unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}: {error}");
                    }
                    names.close().unwrap();
                }
            }
        }
        assert_eq!(files(&dir.path().join(COLLECTIONS_DIR)), before, "{context}");
        if log.is_dir() { fs::remove_dir_all(&log) } else { fs::remove_file(&log) }.unwrap();
        fs::rename(&aside, &log).unwrap();
        check(&open(dir.path()).unwrap(), context);
    }
}

#[test]
fn two_folders_of_one_name_and_copies_are_never_guessed() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let collections = dir.path().join(COLLECTIONS_DIR);
    let a = folder_of(dir.path(), "a");
    let copied = collections.join("copy");
    copy(&a, &copied);
    let names = open(dir.path()).unwrap();
    check(&names, "with a copy");
    let findings = names.findings();
    assert!(findings[0].what.contains("copied or renamed"), "{findings:?}");
    names.close().unwrap();
    drop(names);

    // The copy claims to be the collection itself, and the catalogue is lost: nobody can decide.
    let mut description = read_description(&copied).unwrap().unwrap();
    description.folder = "copy".to_owned();
    describe_folder(&copied, &description).unwrap();
    fs::remove_dir_all(dir.path().join(CATALOG_DIR)).unwrap();
    let names = open(dir.path()).unwrap();
    let error = names.now().find("a").unwrap().collection().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let message = error.to_string();
    assert!(
        message.contains(&a.display().to_string()) && message.contains(&copied.display().to_string()),
        "{message}"
    );
    assert!(message.contains("move all but one out"), "{message}");
    assert_eq!(
        names.now().find("b").unwrap().collection().unwrap().count(None, &Stop::default()).unwrap(),
        2
    );
    // Giving the name up leaves both folders.
    names.delete("a").unwrap();
    assert!(a.join("segments").exists() && copied.join("segments").exists());
    names.close().unwrap();
    drop(names);
    // Whoever takes the wrong one out has everything, also what only the log had.
    fs::remove_dir_all(&copied).unwrap();
    let names = open(dir.path()).unwrap();
    check(&names, "without the copy");
    names.close().unwrap();
}

#[test]
fn a_description_that_contradicts_the_catalogue_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let folder = folder_of(dir.path(), "b");
    let mut description = read_description(&folder).unwrap().unwrap();
    description.info.dimension = 3;
    describe_folder(&folder, &description).unwrap();
    let names = open(dir.path()).unwrap();
    let message = names.now().find("b").unwrap().collection().unwrap_err().to_string();
    assert!(message.contains("\"b\"") && message.contains("settings"), "{message}");
    assert!(message.contains(&folder.join("collection").display().to_string()), "{message}");
    assert_eq!(
        names.now().find("c").unwrap().collection().unwrap().count(None, &Stop::default()).unwrap(),
        3
    );
}

#[test]
fn one_damaged_collection_is_refused_by_name_and_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (b, c, d) = (folder_of(dir.path(), "b"), folder_of(dir.path(), "c"), folder_of(dir.path(), "d"));
    fs::write(b.join("segments"), "not a manifest").unwrap();
    fs::remove_file(c.join("segments")).unwrap();
    fs::remove_dir_all(&d).unwrap();
    let names = open(dir.path()).unwrap();
    for (n, name) in (1..).zip(NAMES) {
        let now = names.now();
        let open = now.find(name).unwrap();
        let damage = now.info(open).damage;
        match open.collection() {
            Ok(collection) => {
                assert!(["a", "e"].contains(&name) && damage.is_none(), "{name}");
                assert_eq!(collection.count(None, &Stop::default()).unwrap(), n);
            }
            Err(error) => {
                assert!(["b", "c", "d"].contains(&name), "{name}: {error}");
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                let message = error.to_string();
                assert!(message.contains(&format!("{name:?}")), "{message}");
                assert!(
                    message.contains(&dir.path().join(COLLECTIONS_DIR).display().to_string()),
                    "{message}"
                );
                assert!(message.contains("backup") && message.contains("delete the collection"), "{message}");
                assert!(message.contains(&damage.unwrap()), "{message}");
            }
        }
    }
    assert_eq!(names.findings().len(), 3, "{:?}", names.findings());
    for name in ["b", "c", "d"] {
        names.delete(name).unwrap();
    }
    assert!(!b.exists() && !c.exists());
    assert_eq!(names.findings(), []);
    names.create(info("b", 77)).unwrap();
    names.close().unwrap();
    drop(names);
    let names = open(dir.path()).unwrap();
    assert_eq!(names.now().collections.keys().collect::<Vec<_>>(), ["a", "b", "e"]);
    assert_eq!(names.findings(), []);
}

/// Everything in a folder but what sled replaces while it opens and closes.
pub(in crate::engine) fn bytes_in(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(folder)
        .into_iter()
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn what_is_of_another_collection_is_refused_by_name_until_it_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    fill(&good);
    for open_max in [64, 1] {
        let swapped = ["segments"];
        let root = dir.path().join(format!("open {open_max}"));
        copy(&good, &root);
        let (b, c) = (folder_of(&root, "b"), folder_of(&root, "c"));
        let swap = || {
            for name in swapped {
                let aside = root.join("aside");
                fs::rename(b.join(name), &aside).unwrap();
                fs::rename(c.join(name), b.join(name)).unwrap();
                fs::rename(&aside, c.join(name)).unwrap();
            }
        };
        swap();
        let before = (bytes_in(&b), bytes_in(&c));
        let names = Names::open(&root, || shelf_of(&root, open_max)).unwrap();
        for (n, name) in (1..).zip(NAMES) {
            if open_max == 1 && ["b", "c"].contains(&name) {
                // Not opened yet, so nobody has told it.
                assert_eq!(names.delete(name).unwrap_err().kind(), ErrorKind::Corrupt);
            }
            let opened = names.now().find(name).unwrap().collection();
            if ["b", "c"].contains(&name) {
                let error = opened.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                let message = error.to_string();
                assert!(message.contains(&format!("{name:?}")), "{message}");
                assert!(message.contains("of another collection") && message.contains("backup"), "{message}");
                let path = if name == "b" { &b } else { &c };
                assert!(message.contains(&path.join(swapped[0]).display().to_string()), "{message}");
                // Its folder holds what is another one's.
                assert_eq!(names.delete(name).unwrap_err().kind(), ErrorKind::Corrupt);
            } else {
                assert_eq!(opened.unwrap().count(None, &Stop::default()).unwrap(), n);
            }
        }
        assert_eq!(names.findings().len(), 2);
        names.close().unwrap();
        drop(names);
        assert!((bytes_in(&b), bytes_in(&c)) == before, "{swapped:?}: what is refused is written to");
        swap();
        let names = open(&root).unwrap();
        check(&names, "put back");
        assert_eq!(names.findings(), []);
    }
}

/// What a description says that this version does not know must not be left out, and not be overwritten.
#[test]
fn a_description_that_a_later_version_wrote_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let folder = folder_of(dir.path(), "b");
    let written = folder::description(&folder).unwrap().unwrap();
    let text = String::from_utf8(written.clone()).unwrap();
    assert!(text.starts_with("{\"version\":2,\"identity\":\""), "{text}");
    let newer = [
        text.replacen("\"version\":2", "\"version\":3", 1),
        text.replacen("{\"version\"", "{\"spaces\":[],\"version\"", 1),
        text.replacen("\"ef_search\"", "\"beams\":4,\"ef_search\"", 1),
    ];
    for newer in newer {
        assert_ne!(newer, text);
        folder::describe(&folder, newer.as_bytes(), &RealDisk).unwrap();
        let names = open(dir.path()).unwrap();
        let now = names.now();
        let message = now.find("b").unwrap().collection().unwrap_err().to_string();
        assert!(message.contains("\"b\"") && message.contains("newer version"), "{message}");
        assert!(message.contains(&folder.join("collection").display().to_string()), "{message}");
        assert!(message.contains("start the version that wrote it"), "{message}");
        now.find("c").unwrap().collection().unwrap();
        assert_eq!(folder::description(&folder).unwrap().unwrap(), newer.as_bytes());
        names.close().unwrap();
    }
    // What an earlier version does not say has its default.
    let earlier = text.replacen("\"seed\":7", "", 1).replacen(",}", "}", 1);
    assert_ne!(earlier, text);
    folder::describe(&folder, earlier.as_bytes(), &RealDisk).unwrap();
    let names = open(dir.path()).unwrap();
    check(&names, "without a field");
    assert_eq!(names.findings(), []);
}

/// A folder of the same name that another collection of the same name and settings left.
#[test]
fn a_collection_that_was_made_again_is_not_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let a = folder_of(dir.path(), "a");
    let mut description = read_description(&a).unwrap().unwrap();
    description.identity = Some(Identity([1; 16]));
    describe_folder(&a, &description).unwrap();
    let names = open(dir.path()).unwrap();
    let message = names.now().find("a").unwrap().collection().unwrap_err().to_string();
    assert!(message.contains("different collections of this name"), "{message}");
    names.now().find("b").unwrap().collection().unwrap();
}

#[cfg(unix)]
#[test]
fn everything_in_the_data_folder_is_this_users_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("db");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let check_all = |context: &str| {
        for path in walkdir::WalkDir::new(&root).into_iter().map(|entry| entry.unwrap().into_path()) {
            let right = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), right, "{context}: {}", path.display());
        }
    };
    let lock = crate::store::DataLock::acquire(&root).unwrap();
    fill(&root);
    check_all("made");
    // As an earlier version left it.
    for path in walkdir::WalkDir::new(&root).into_iter().map(|entry| entry.unwrap().into_path()) {
        let wide = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(wide)).unwrap();
    }
    let names = open(&root).unwrap();
    names.close().unwrap();
    drop((names, lock));
    for below in [CATALOG_DIR, COLLECTIONS_DIR] {
        for path in
            walkdir::WalkDir::new(root.join(below)).into_iter().map(|entry| entry.unwrap().into_path())
        {
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
        }
    }
    assert_eq!(mode(&root), 0o755, "the folder itself is the user's");
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_others_fill_is_said_reads_go_on_and_writes_come_back() {
    let Some(mount) = crate::store::tests::SmallDisk::mount(96) else { return };
    let root = mount.0.path().join("db");
    fill(&root);
    let names = open(&root).unwrap();
    names.examine();
    assert_eq!(names.failed(), None);
    let ballast = mount.fill();
    names.examine();
    let said = names.failed().unwrap();
    assert!(said.contains("MiB left") && said.contains("reads go on"), "{said}");
    check(&names, "on a full disk");
    let page = |name: &str| {
        let now = names.now();
        let collection = now.find(name).unwrap().collection().unwrap();
        collection
            .scroll(None, None, 100, true, &Stop::default(), &crate::budget::Room::unbounded())
            .unwrap()
            .points
            .len()
    };
    assert_eq!(page("e"), 5);
    let error = names.create(info("new", 9)).unwrap_err();
    assert!(
        error.to_string().to_lowercase().contains("disk is full")
            || error.to_string().contains("cannot read or write"),
        "{error}"
    );
    // A whole collection can be given up to make room.
    names.delete("d").unwrap();
    assert!(names.now().find("d").is_err());
    std::fs::remove_file(ballast).unwrap();
    names.examine();
    assert_eq!(names.failed(), None);
    names.create(info("new", 9)).unwrap();
    write(&names, "new", "document");
    write(&names, "e", "another");
    assert_eq!(page("e"), 6);
    names.close().unwrap();
    drop(names);
    let names = open(&root).unwrap();
    assert_eq!(names.now().collections.keys().collect::<Vec<_>>(), ["a", "b", "c", "e", "new"]);
    assert_eq!(names.findings(), []);
}

/// A manifest that is lost is damage for whoever verifies, too, and no sign of an earlier version.
#[test]
fn a_collection_without_its_manifest_is_not_called_whole() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let verified = || super::verify::verify_folder(dir.path(), &Stop::default(), |_, _| ()).unwrap();
    assert!(verified().collections.iter().all(|collection| collection.whole));
    fs::remove_file(folder_of(dir.path(), "c").join("segments")).unwrap();
    let damaged = verified().collections.into_iter().filter(|collection| !collection.whole);
    assert_eq!(damaged.map(|collection| collection.name).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn a_second_start_that_finds_no_lock_changes_nothing_under_the_first() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let names = open(dir.path()).unwrap();
    // The first one is just writing its manifest.
    let unfinished = folder_of(dir.path(), "c").join("segments.new");
    fs::write(&unfinished, "half").unwrap();
    assert!(open(dir.path()).is_err());
    assert!(unfinished.exists());
    names.close().unwrap();
    drop(names);
    open(dir.path()).unwrap().close().unwrap();
    assert!(!unfinished.exists());
}
