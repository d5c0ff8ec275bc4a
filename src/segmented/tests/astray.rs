//! What is in the wrong place: segments of another collection, of another data folder's log, and entries of nobody.

use super::{
    damage::{OTHER, Sample, Verdict, copy, files, held, known, losses, real, repaired},
    taking_over::Dying,
    *,
};
use crate::segmented::{
    repair::{Outcome, give_up, misplaced, repair},
    verify::{Known, LogSeen},
};

/// Puts two files or folders into each other's place.
fn swap(root: &Path, name: &str) {
    let (x, y) = (root.join("collections/x").join(name), root.join("collections/y").join(name));
    let aside = root.join("aside");
    std::fs::rename(&x, &aside).unwrap();
    std::fs::rename(&y, &x).unwrap();
    std::fs::rename(&aside, &y).unwrap();
}

/// A segment that both collections have.
fn shared_segment(root: &Path) -> String {
    let of = |name: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root.join("collections").join(name)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.len() == 10 && name.bytes().all(|b| b.is_ascii_digit())).collect()
    };
    of("x").intersection(&of("y")).next().expect("both have one of a number").clone()
}

/// A folder in which both collections have a segment of one number.
fn sample() -> Sample {
    let have_one = |sample: &Sample| {
        let of = |name: &str| files(&sample.dir.path().join("collections").join(name));
        let (x, y) = (of("x"), of("y"));
        x.keys().any(|path| path.ends_with("documents") && y.contains_key(path))
    };
    (0..50).map(Sample::new).find(have_one).expect("some have")
}

#[test]
fn files_that_lie_in_each_others_place_are_told_and_put_back() {
    let sample = sample();
    let segment = shared_segment(sample.dir.path());
    for names in [vec!["segments"], vec![&*segment], vec!["segments", &segment]] {
        let dir = sample.copied();
        let root = dir.path();
        let good = files(root);
        names.iter().for_each(|name| swap(root, name));
        let bad = files(root);
        assert!(!Verdict::of(root).is_whole());
        let found = misplaced(&RealDisk, &known(root)).unwrap();
        assert_eq!(found.len(), 2 * names.len(), "{names:?}: {found:?}");
        let planned = repaired(&real(), root, None).unwrap();
        assert_eq!(files(root), bad, "{names:?}");
        for outcome in &planned.collections {
            let told = losses(outcome);
            assert!(told.iter().all(|loss| loss.documents == Some(0) && loss.what.contains("is moved to")));
            assert_eq!(told.len(), 2 * names.len(), "{names:?}: {told:?}");
        }
        repaired(&real(), root, Some("now")).unwrap();
        assert_eq!(files(root), good, "{names:?}: nothing is different from before they were mixed up");
        Verdict::of(root).assert_whole();
        assert_eq!(held(root), sample.live);
    }
}

#[test]
fn a_kill_while_files_are_put_back_leaves_what_the_next_repair_finishes() {
    let sample = sample();
    let segment = shared_segment(sample.dir.path());
    for calls in 0.. {
        let dir = sample.copied();
        let root = dir.path();
        swap(root, "segments");
        swap(root, &segment);
        let disk: Arc<dyn Disk> = Arc::new(Dying::after(calls));
        let is_done = repaired(&disk, root, Some("killed")).is_ok();
        repaired(&real(), root, Some("again")).unwrap();
        Verdict::of(root).assert_whole();
        assert_eq!(held(root), sample.live, "after {calls}");
        if is_done {
            assert!(calls > 8, "{calls}");
            break;
        }
    }
}

#[test]
fn a_file_of_another_collection_whose_own_place_is_taken_stays_where_it_is() {
    let sample = sample();
    let dir = sample.copied();
    let root = dir.path();
    std::fs::copy(root.join("collections/y/segments"), root.join("collections/x/segments")).unwrap();
    assert_eq!(misplaced(&RealDisk, &known(root)).unwrap(), []);
    let before = files(root);
    let done = repaired(&real(), root, Some("now")).unwrap();
    assert!(matches!(&done.collections[0], Outcome::Hopeless(_)), "{done:?}");
    assert_eq!(files(root), before);
}

/// The same collection in another data folder, with a history of its own since.
#[test]
fn segments_of_another_data_folders_log_keep_what_they_have_and_the_rest_is_told() {
    let (dir, world) = world();
    let store = world.create();
    write(&store, 6, &[]).unwrap();
    store.seal().unwrap();
    let covered = store.sequence();
    // Only this log has it.
    write(&store, 3, &[0]).unwrap();
    drop(store);
    world.stop();
    let (other_dir, other) = super::world();
    let store = other.create();
    write(&store, 2, &[]).unwrap();
    drop(store);
    other.stop();
    std::fs::remove_dir_all(other.dir()).unwrap();
    copy(&world.dir(), &other.dir());
    let root = other_dir.path();
    let known = &known(root)[..1];
    let error = other.open().unwrap_err();
    assert!(error.to_string().contains("another data folder"), "{error}");
    other.stop();
    let run = |kept: Option<&Path>| repair(&real(), root, known, &[0], kept, &Stop::default()).unwrap();
    let planned = run(None);
    let [outcome] = &*planned.collections else { panic!("{planned:?}") };
    let [theirs, ours] = losses(outcome) else { panic!("{planned:?}") };
    assert!(theirs.what.contains(&format!("after its entry {covered}")), "{theirs:?}");
    assert_eq!(theirs.documents, None, "nobody here can tell");
    assert_eq!(
        (ours.documents, ours.ids.as_slice()),
        (Some(2), &["document 0", "document 1"].map(String::from)[..])
    );
    let done = run(Some(&root.join("damaged/now")));
    assert_eq!(losses(&done.collections[0]), losses(outcome));
    let store = other.open().unwrap();
    check(&store, &(0..6).collect());
    let new = write(&store, 2, &[5]).unwrap();
    check(&store, &(0..5).chain(new).collect());
    drop((store, dir));
    other.stop();
    assert!(other.open().is_ok());
}

#[test]
fn without_its_vectors_a_segment_tells_which_documents_are_lost() {
    let (dir, world) = world();
    let root = dir.path();
    let store = world.create();
    // A document whose number is a multiple of 4 has no vectors, and needs none.
    write(&store, 6, &[]).unwrap();
    store.seal().unwrap();
    write(&store, 0, &[1]).unwrap();
    store.merge_all(&Stop::default()).unwrap();
    // So that the log has them no more.
    while store.log().cut().unwrap() == 0 {
        write(&store, 5, &[]).unwrap();
        store.seal().unwrap();
        store.merge_all(&Stop::default()).unwrap();
    }
    let mut live = load(&store).unwrap();
    drop(store);
    world.stop();
    let segment = files(root).into_keys().find(|path| path.ends_with("0.vectors")).unwrap();
    std::fs::write(root.join(&segment), "no vectors").unwrap();
    let known = &known(root)[..1];
    let kept = root.join("damaged/now");
    let done = repair(&real(), root, known, &[0], Some(&kept), &Stop::default()).unwrap();
    let [loss] = losses(&done.collections[0]) else { panic!("{done:?}") };
    let lost: BTreeSet<String> = loss.ids.iter().cloned().collect();
    let store = world.open().unwrap();
    let found = load(&store).unwrap();
    live.retain(|number| !found.contains(number));
    assert_eq!(lost, live.iter().map(|number| format!("document {number}")).collect());
    assert_eq!(loss.documents, Some(lost.len() as u64));
    assert!(found.contains(&0) && found.contains(&4) && !lost.is_empty(), "{found:?}");
}

/// One sector at either end of a file is no reason to lose the rest of it.
#[test]
fn a_segment_one_of_whose_ends_is_damaged_loses_nothing() {
    let (dir, world) = world();
    let root = dir.path();
    let store = world.create();
    write(&store, 6, &[]).unwrap();
    store.seal().unwrap();
    while store.log().cut().unwrap() == 0 {
        write(&store, 5, &[]).unwrap();
        store.seal().unwrap();
        store.merge_all(&Stop::default()).unwrap();
    }
    let live = load(&store).unwrap();
    drop(store);
    world.stop();
    let of = |name: &str| files(root).into_keys().find(|path| path.ends_with(name)).unwrap();
    for path in [of("documents"), of("0.vectors")] {
        for is_end in [false, true] {
            for damage in [[0; 60], [0x55; 60]] {
                let dir = tempfile::tempdir().unwrap();
                copy(root, dir.path());
                let root = dir.path();
                let mut bytes = std::fs::read(root.join(&path)).unwrap();
                let at = if is_end { bytes.len() - 62 } else { 1 };
                bytes[at..at + 60].copy_from_slice(&damage);
                std::fs::write(root.join(&path), bytes).unwrap();
                let known = &known(root)[..1];
                let kept = root.join("damaged/now");
                let done = repair(&real(), root, known, &[0], Some(&kept), &Stop::default()).unwrap();
                assert!(matches!(&done.collections[0], Outcome::Repaired { .. }), "{done:?}");
                assert_eq!(losses(&done.collections[0]), [], "{} {is_end}", path.display());
                let world = World::new(real(), root);
                check(&world.open().unwrap(), &live);
                world.stop();
            }
        }
    }
}

#[test]
fn entries_whose_collection_is_not_there_are_told_and_given_up_by_name_only() {
    let (dir, world) = world();
    let root = dir.path();
    let store = world.create();
    world.make_folder(&root.join("collections/y"));
    let other =
        Store::create(&world.log(), &root.join("collections/y"), OTHER, space(DIMENSION), OPTIONS).unwrap();
    write(&store, 4, &[]).unwrap();
    write(&other, 5, &[]).unwrap();
    write(&other, 1, &[2, 3]).unwrap();
    drop((store, other));
    world.stop();
    std::fs::rename(root.join("collections/y"), root.join("aside")).unwrap();
    let known: Vec<Known> = known(root).into_iter().take(1).collect();
    let look = || LogSeen::read(&real(), root, &[known[0].dir.clone()], &Stop::default()).unwrap();
    let log = look();
    let [orphan] = &*log.orphans(&[IDENTITY]) else { panic!("{:?}", log.orphans(&[IDENTITY])) };
    assert_eq!((orphan.identity, orphan.entries, orphan.lost), (Some(OTHER), 2, 0));
    assert_eq!(log.orphans(&[IDENTITY, OTHER]), []);
    // Repairing all that is there gives nothing up.
    repair(&real(), root, &known, &[0], Some(&root.join("damaged/all")), &Stop::default()).unwrap();
    assert_eq!(look().orphans(&[IDENTITY]).len(), 1);
    let told = give_up(&real(), root, &log, orphan, None, &Stop::default()).unwrap();
    assert_eq!(told.documents, Some(4));
    assert_eq!(told.ids, ["document 0", "document 1", "document 4", "document 5"]);
    let before = files(root);
    let kept = root.join("damaged/now");
    assert_eq!(give_up(&real(), root, &log, orphan, Some(&kept), &Stop::default()).unwrap(), told);
    assert_eq!(look().orphans(&[IDENTITY]), []);
    let copied = std::fs::read(kept.join("log/0000000001.log")).unwrap();
    assert!(copied == before[Path::new("log/0000000001.log")], "the log that had them is kept");
    check(&world.open().unwrap(), &(0..4).collect());
    world.stop();
    assert_eq!(world.log().orphans().len(), 0);
}
