//! Loss of power, a full disk, failed syncs and no handles: a segment is there as a whole or not at all.

use super::*;

fn some_docs() -> Vec<Doc> {
    (0..4).map(|n| doc(&format!("doc {n}"), 1 + n)).collect()
}

/// Runs `work` on a disk that loses power at the n-th call, for every n, and hands what is found afterwards to `look`,
/// together with whether the work was done before.
fn at_every_call(
    prepare: impl Fn(&Arc<dyn Disk>),
    work: impl Fn(&Arc<dyn Disk>) -> Result<(), SegmentError>,
    look: impl Fn(&Arc<dyn Disk>, bool, &str),
) {
    for n in 1.. {
        let seeds = 4;
        let mut is_off = false;
        for seed in 0..seeds {
            let (forgetful, disk) = forgetful(n * seeds + seed);
            prepare(&disk);
            disk.sync_dir(Path::new(DIR)).unwrap();
            forgetful.crash_at_call(n);
            let is_done = work(&disk).is_ok();
            is_off = forgetful.is_off();
            assert!(is_done || is_off, "nothing else fails");
            let after: Arc<dyn Disk> = Arc::new(forgetful.crash(seed + 1000 * n));
            look(&after, is_done, &format!("call {n}, seed {seed}"));
        }
        if !is_off {
            assert!(n > 5, "the work takes calls");
            return;
        }
    }
}

#[test]
fn a_loss_of_power_leaves_a_segment_whole_or_absent() {
    let docs = some_docs();
    at_every_call(
        |_| {},
        |disk| build(disk, 1, &docs, narrow()).map(drop),
        |disk, is_done, when| {
            let found = clean(&**disk, Path::new(DIR), |_| true).unwrap();
            assert!(!is_done || found.segments.contains(&1), "{when}: it was finished");
            assert_eq!(found.remains, Vec::<PathBuf>::new(), "{when}");
            if found.segments.contains(&1) {
                let segment = open(disk, 1).unwrap_or_else(|e| panic!("{when}: {e}"));
                check(&segment, &docs, &filters()).unwrap_or_else(|e| panic!("{when}: {e}"));
                assert_eq!(segment.verify(&Stop::default()).unwrap(), [], "{when}");
            }
            // The number may be used again where it was not taken.
            if found.segments.is_empty() {
                build(disk, 1, &docs, narrow()).unwrap_or_else(|e| panic!("{when}: {e}"));
            }
        },
    );
}

#[test]
fn a_loss_of_power_leaves_one_version_of_deletions_whole() {
    let versions = [1u64, 2].map(|version| Deleted {
        version,
        sequence: 10 * version,
        rows: (0..900 * version as u32).step_by(2).collect(),
    });
    let dir = Path::new(DIR);
    at_every_call(
        |disk| {
            build(disk, 1, &some_docs(), Limits::default()).unwrap();
            versions[0].write(disk, dir, name(1), 5000).unwrap();
        },
        |disk| versions[1].write(disk, dir, name(1), 5000),
        |disk, is_done, when| {
            let found = list(&**disk, dir).unwrap();
            let highest = *found.deleted[&1].last().unwrap();
            assert!(highest == 2 || (highest == 1 && !is_done), "{when}");
            let read = Deleted::read(disk, dir, name(1), highest, 5000);
            assert_eq!(
                read.unwrap_or_else(|e| panic!("{when}: {e}")),
                versions[highest as usize - 1],
                "{when}"
            );
            let cleaned = clean(&**disk, dir, |_| true).unwrap();
            assert_eq!(cleaned.deleted[&1], BTreeSet::from([highest]), "{when}");
            assert!(cleaned.remains.is_empty(), "{when}");
        },
    );
}

#[test]
fn a_loss_of_power_leaves_a_removed_segment_whole_or_no_segment() {
    let docs = some_docs();
    let dir = Path::new(DIR);
    let deleted = Deleted { version: 1, sequence: 1, rows: (1..2).collect() };
    at_every_call(
        |disk| {
            build(disk, 1, &docs, Limits::default()).unwrap();
            deleted.write(disk, dir, name(1), 4).unwrap();
        },
        |disk| remove(&**disk, dir, 1),
        |disk, is_done, when| {
            let found = list(&**disk, dir).unwrap();
            if found.segments.contains(&1) {
                assert!(!is_done, "{when}");
                check(&open(disk, 1).unwrap(), &docs, &[]).unwrap();
                assert_eq!(Deleted::read(disk, dir, name(1), 1, 4).unwrap(), deleted, "{when}");
            }
            // Whoever does not know it removes what is left of it.
            assert_eq!(clean(&**disk, dir, |_| false).unwrap(), Found::default(), "{when}");
            assert_eq!(disk.list(dir).unwrap(), [], "{when}");
        },
    );
}

#[test]
fn a_full_disk_a_failed_sync_and_a_lack_of_handles_leave_nothing() {
    let docs = some_docs();
    let (whole, disk) = forgetful(1);
    build(&disk, 1, &docs, narrow()).unwrap();
    drop(whole);
    let bytes: u64 = open(&disk, 1).unwrap().bytes().iter().map(|(_, bytes)| bytes).sum();

    for room in (0..bytes).step_by(512) {
        let (forgetful, disk) = forgetful(room);
        forgetful.set_room(room);
        let error = build(&disk, 1, &docs, narrow()).unwrap_err();
        assert!(matches!(error, SegmentError::DiskFull { .. }), "{room}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(disk.list(Path::new(DIR)).unwrap(), [], "{room}");
        forgetful.set_room(u64::MAX);
        check(&build(&disk, 1, &docs, narrow()).unwrap(), &docs, &filters()).unwrap();
    }
    let mut failed = 0;
    for n in 1.. {
        let (forgetful, disk) = forgetful(n);
        forgetful.fail_sync(n);
        match build(&disk, 1, &docs, Limits::default()) {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, SegmentError::Io { .. }), "{error}"),
        }
        failed += 1;
        // Only the last sync comes after the segment has its name.
        let found = list(&*disk, Path::new(DIR)).unwrap();
        assert!(found.remains.is_empty() && found.segments.len() <= 1, "{found:?}");
        if found.segments.contains(&1) {
            check(&open(&disk, 1).unwrap(), &docs, &[]).unwrap();
        }
    }
    assert!(failed >= 6, "four files and two folders are synced: {failed}");
    let mut refused = 0;
    for handles in 0.. {
        let (forgetful, disk) = forgetful(handles as u64);
        forgetful.set_handles_max(handles);
        match build(&disk, 1, &docs, narrow()) {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, SegmentError::NoHandle { .. }), "{error}"),
        }
        refused += 1;
        assert_eq!(disk.list(Path::new(DIR)).unwrap(), []);
    }
    assert!(refused > 3);
}

#[test]
fn an_open_segment_holds_no_handle_and_outlives_its_removal() {
    let docs = some_docs();
    let (forgetful, disk) = forgetful(9);
    let segment = build(&disk, 1, &docs, Limits::default()).unwrap();
    check(&segment, &docs, &filters()).unwrap();
    forgetful.set_handles_max(0);
    check(&segment, &docs, &filters()).unwrap();
    remove(&*disk, Path::new(DIR), 1).unwrap();
    check(&segment, &docs, &filters()).unwrap();
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), []);
}

#[test]
fn names_of_others_are_left_alone() {
    let (_, disk) = forgetful(10);
    let dir = Path::new(DIR);
    build(&disk, 12, &some_docs(), Limits::default()).unwrap();
    let others = ["12", "notes.new", "0000000012.index", "0000000012.deleted.x", "00000000012"];
    for other in others {
        disk.create_dir(&dir.join(other)).unwrap();
    }
    for remains in ["0000000013.new", "0000000014.gone"] {
        disk.create_dir(&dir.join(remains)).unwrap();
        disk.create(&dir.join(remains).join("documents")).unwrap();
    }
    disk.create(&dir.join("0000000012.deleted.7.new")).unwrap();
    disk.create(&dir.join("0000000099.deleted.7")).unwrap();
    let found = list(&*disk, dir).unwrap();
    assert_eq!((found.segments.clone(), found.remains.len()), (BTreeSet::from([12]), 3));
    let cleaned = clean(&*disk, dir, |number| number == 12).unwrap();
    assert_eq!(cleaned, Found { segments: BTreeSet::from([12]), ..Found::default() });
    let names: BTreeSet<_> =
        disk.list(dir).unwrap().into_iter().map(|entry| entry.name.into_string().unwrap()).collect();
    assert_eq!(names, others.iter().copied().chain(["0000000012"]).map(str::to_owned).collect());
}
