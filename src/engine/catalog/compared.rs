//! What verifying and repairing say where catalogue, folders and log do not agree, and what a start keeps.

use std::fs;

use super::{
    tests::{bytes_in, check, copy, fill, folder_of, open, write},
    *,
};
use crate::stop::Stop;

fn verified(root: &Path) -> VerifiedFolder {
    verify_folder(root, &Stop::default(), |_, _| ()).unwrap()
}

fn repaired(root: &Path, names: &[&str], apply: bool) -> RepairedFolder {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    repair_folder(root, &names, apply, &Stop::default()).unwrap()
}

#[test]
fn a_collection_that_only_the_catalogue_knows_is_named_as_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (root, aside) = (&dir.path().join("db"), dir.path().join("aside"));
    fill(root);
    let lost = folder_of(root, "c");
    fs::rename(&lost, &aside).unwrap();
    // The lock's file is made by whoever looks first.
    verified(root);
    let before = bytes_in(root);
    let told = verified(root);
    assert!(!told.whole && told.damages.is_empty(), "{told:?}");
    let damaged: Vec<_> = told.collections.iter().filter(|collection| !collection.whole).collect();
    let [missing] = damaged.as_slice() else { panic!("{told:?}") };
    assert_eq!((missing.name.as_str(), &missing.folder), ("c", &lost));
    let [damage] = missing.damages.as_slice() else { panic!("{missing:?}") };
    assert!(damage.reason.contains("is missing") && !damage.repairable, "{damage:?}");
    assert!(damage.reason.contains("of its entries"), "the log has all of it still: {damage:?}");
    assert!(damage.remedy.contains("put it back") && damage.remedy.contains("delete the collection"));
    assert!(bytes_in(root) == before, "verifying changes nothing, not even the catalogue");
    let done = repaired(root, &[], true);
    let part = done.collections.iter().find(|part| part.name == "c").unwrap();
    assert_eq!(part.state, RepairState::Unrepairable);
    assert_eq!(repaired(root, &["c"], false).collections.len(), 1);
    assert!(bytes_in(root) == before, "a repair drops nothing of it");
    // Put back, all is as it was.
    fs::rename(&aside, &lost).unwrap();
    assert!(verified(root).whole);
    fs::rename(&lost, &aside).unwrap();
    // Deleted by name, it is missed by nobody.
    let names = open(root).unwrap();
    names.delete("c").unwrap();
    names.close().unwrap();
    drop(names);
    assert!(verified(root).whole, "{:?}", verified(root));
}

#[test]
fn entries_that_no_catalogue_and_no_folder_knows_are_damage_until_they_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let root = &dir.path().join("db");
    fill(root);
    fs::rename(folder_of(root, "c"), dir.path().join("aside")).unwrap();
    fs::remove_dir_all(root.join(CATALOG_DIR)).unwrap();
    let told = verified(root);
    assert!(!told.whole && told.collections.iter().all(|collection| collection.whole), "{told:?}");
    let [damage] = told.damages.as_slice() else { panic!("{told:?}") };
    assert!(damage.reason.contains("of a collection that is not here"), "{damage:?}");
    let name = damage.remedy.split("distilface repair ").nth(1).unwrap().split('`').next().unwrap();
    let of = |report: RepairedFolder| report.collections.into_iter().find(|part| part.name == name).unwrap();
    assert_eq!(of(repaired(root, &[], true)).state, RepairState::Unrepairable);
    let planned = of(repaired(root, &[name], false));
    assert_eq!(planned.state, RepairState::Repaired);
    assert_eq!(planned.dropped[0].documents, Some(3));
    assert_eq!(planned.dropped[0].ids, ["document 0", "document 1", "document 2"]);
    assert_eq!(verified(root).damages.len(), 1, "it was only said");
    let done = repaired(root, &[name], true);
    let dropped = fs::read_to_string(done.kept.unwrap().join("what-was-dropped.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(dropped.trim_end()).unwrap();
    assert_eq!((&line["collection"], &line["ids"][2]), (&name.into(), &"document 2".into()));
    assert!(verified(root).whole, "{:?}", verified(root));
    let error = repair_folder(root, &[name.to_owned()], false, &Stop::default()).unwrap_err().to_string();
    assert!(error.contains("a, b, d, e"), "{error}");
}

#[test]
fn a_folder_that_the_catalogue_does_not_know_is_told_and_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (root, other) = (dir.path().join("one"), dir.path().join("other"));
    fill(&root);
    copy(&root, &other);
    let names = open(&root).unwrap();
    names.delete("c").unwrap();
    names.close().unwrap();
    drop(names);
    // The catalogue of the one, and the rest of the other.
    fs::remove_dir_all(other.join(CATALOG_DIR)).unwrap();
    copy(&root.join(CATALOG_DIR), &other.join(CATALOG_DIR));
    let told = verified(&other);
    assert!(told.whole && told.collections.len() == 5, "{told:?}");
    let note = told.notes.iter().find(|note| note.contains("the catalogue did not know collection \"c\""));
    assert!(note.is_some(), "{:?}", told.notes);
    // One that was copied is left alone by a start, and is no damage either.
    let c = folder_of(&other, "c");
    copy(&c, &c.with_file_name("a copy"));
    let told = verified(&other);
    assert!(told.whole && told.notes.iter().any(|note| note.contains("was copied or renamed")), "{told:?}");
}

#[test]
fn a_catalogue_that_cannot_be_read_is_a_note_and_all_else_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let root = &dir.path().join("db");
    fill(root);
    let db = root.join(CATALOG_DIR).join("db");
    fs::remove_file(&db).unwrap();
    fs::create_dir(&db).unwrap();
    verified(root);
    let before = bytes_in(root);
    let told = verified(root);
    assert!(told.whole && told.collections.len() == 5, "{told:?}");
    assert!(told.notes.iter().any(|note| note.contains("was not compared")), "{:?}", told.notes);
    assert!(bytes_in(root) == before);
}

#[test]
fn a_damaged_description_is_kept_before_it_is_written_again() {
    let damaged = "\u{1}not what was written";
    for by_repair in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fill(root);
        let path = folder_of(root, "c").join("collection");
        fs::write(&path, damaged).unwrap();
        if by_repair {
            let planned = repaired(root, &["c"], false);
            assert_eq!(planned.collections[0].state, RepairState::Repaired, "{planned:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
            repaired(root, &["c"], true);
        }
        let names = open(root).unwrap();
        check(&names, "written again");
        names.close().unwrap();
        let kept: Vec<PathBuf> = walkdir::WalkDir::new(root.join("damaged"))
            .into_iter()
            .map(|entry| entry.unwrap().into_path())
            .filter(|path| path.ends_with("collection"))
            .collect();
        let [kept] = kept.as_slice() else { panic!("{kept:?}, by repair: {by_repair}") };
        assert_eq!(fs::read_to_string(kept).unwrap(), damaged);
    }
}

#[test]
fn a_data_folder_that_was_moved_or_is_reached_by_a_link_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new, link) = (dir.path().join("old"), dir.path().join("new"), dir.path().join("link"));
    fill(&old);
    fs::rename(&old, &new).unwrap();
    std::os::unix::fs::symlink(&new, &link).unwrap();
    for root in [&new, &link] {
        let lock = crate::store::DataLock::acquire(root).unwrap();
        let names = open(root).unwrap();
        check(&names, "moved");
        assert_eq!(names.findings(), []);
        write(&names, "e", "one more");
        names.delete("e").unwrap();
        names.create(super::tests::info("e", 5)).unwrap();
        (0..5).for_each(|n| write(&names, "e", &format!("document {n}")));
        names.close().unwrap();
        drop((names, lock));
        let told = verified(root);
        assert!(told.whole && told.notes.is_empty(), "{told:?}");
    }
    assert!(!old.exists());
}
