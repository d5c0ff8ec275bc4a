//! Merging against a map: what is there afterwards is what was not gone before.

use super::*;
use crate::index::columns::{Held, Known as _};

fn merge_of(
    disk: &Arc<dyn Disk>,
    number: u64,
    now: i64,
    stop: &Stop,
    limits: Limits,
    sources: &[Source<'_>],
) -> Result<(Merged, u64), SegmentError> {
    let progress = AtomicU64::new(0);
    let cache = Arc::new(BlockCache::new(1 << 20));
    let merge = Merge {
        disk,
        dir: Path::new(DIR),
        name: name(number),
        spaces: &spaces(),
        limits,
        now,
        cache: &cache,
        stop,
        progress: &progress,
    };
    Ok((merge.run(sources)?, progress.into_inner()))
}

/// Segments with their deletions, and the documents that are there, by id.
type World = (Vec<(Segment, Vec<Doc>, RoaringBitmap)>, BTreeMap<PointId, Doc>);

/// Writes documents in turns, one segment a turn, as a collection does: a document that is there already is deleted
/// where it was.
fn world(disk: &Arc<dyn Disk>, turns: &[Vec<Doc>], removed: &[prop::sample::Index]) -> World {
    let mut segments: Vec<(Segment, Vec<Doc>, RoaringBitmap)> = Vec::new();
    let mut there: BTreeMap<PointId, Doc> = BTreeMap::new();
    for (number, docs) in (1..).zip(turns) {
        for doc in docs {
            for (segment, _, deleted) in &mut segments {
                deleted.extend(segment.find(&doc.id).unwrap().map(|row| row.0));
            }
            there.insert(doc.id.clone(), doc.clone());
        }
        segments.push((build(disk, number, docs, narrow()).unwrap(), docs.clone(), RoaringBitmap::new()));
    }
    for index in removed {
        let Some(id) =
            (!there.is_empty()).then(|| there.keys().nth(index.index(there.len())).unwrap().clone())
        else {
            break;
        };
        there.remove(&id);
        for (segment, _, deleted) in &mut segments {
            deleted.extend(segment.find(&id).unwrap().map(|row| row.0));
        }
    }
    (segments, there)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_merge_holds_what_was_not_gone(
        turns in vec(any_docs(12), 0..5),
        removed in vec(any::<prop::sample::Index>(), 0..8),
        later in vec(any::<prop::sample::Index>(), 0..4),
        filters in vec(any_filter(), 0..8),
        now in -2i64..9,
        narrow_: bool,
    ) {
        let (_, disk) = forgetful(1);
        let (segments, mut there) = world(&disk, &turns, &removed);
        there.retain(|_, doc| doc.expires_at.is_none_or(|at| at > now));
        let sources: Vec<_> =
            segments.iter().map(|(segment, _, deleted)| Source { segment, deleted }).collect();
        let limits = if narrow_ { narrow() } else { Limits::default() };
        let (merged, progress) = merge_of(&disk, 50, now, &Stop::default(), limits, &sources).unwrap();
        prop_assert_eq!(progress, segments.iter().map(|(segment, ..)| u64::from(segment.len())).sum::<u64>());

        // The order is that of the sources and of their rows.
        let kept: Vec<Doc> = segments
            .iter()
            .flat_map(|(_, docs, deleted)| {
                docs.iter().zip(0..).filter(|(_, row)| !deleted.contains(*row)).map(|(doc, _)| doc)
            })
            .filter(|doc| doc.expires_at.is_none_or(|at| at > now))
            .cloned()
            .collect();
        prop_assert_eq!(kept.len(), there.len());
        let Some(segment) = &merged.segment else {
            prop_assert!(there.is_empty());
            prop_assert!(!list(&*disk, Path::new(DIR)).unwrap().segments.contains(&50));
            return Ok(());
        };
        check(segment, &kept, &filters).unwrap();
        prop_assert_eq!(segment.verify(&Stop::default()).unwrap(), []);

        // Deletions that come later are carried over, and every row is told what it became.
        let gone: Vec<PointId> =
            later.iter().map(|index| kept[index.index(kept.len())].id.clone()).collect();
        let mut carried = RoaringBitmap::new();
        for (source, (old, docs, _)) in segments.iter().enumerate() {
            let theirs: RoaringBitmap = gone.iter().filter_map(|id| old.find(id).unwrap()).map(|row| row.0).collect();
            carried |= merged.rows(source, &theirs);
            for (doc, row) in docs.iter().zip(0..) {
                match merged.row(source, Row(row)) {
                    Some(new) => prop_assert_eq!(&kept[new.0 as usize], doc),
                    None => prop_assert!(there.get(&doc.id) != Some(doc) || !kept.contains(doc)),
                }
            }
            prop_assert_eq!(merged.row(source, Row(docs.len() as u32)), None);
        }
        let expected: RoaringBitmap =
            gone.iter().map(|id| segment.find(id).unwrap().unwrap().0).collect();
        prop_assert_eq!(carried, expected);
        prop_assert_eq!(merged.row(segments.len(), Row(0)), None);
    }
}

#[test]
fn a_merge_of_merges_is_as_one() {
    let (_, disk) = forgetful(2);
    let docs: Vec<Doc> = (0..1200).map(|n| doc(&format!("doc {n}"), 1 + n)).collect();
    let parts: Vec<Segment> = docs
        .chunks(300)
        .zip(1..)
        .map(|(docs, number)| build(&disk, number, docs, Limits::default()).unwrap())
        .collect();
    let none = RoaringBitmap::new();
    let merge = |number, segments: &[&Segment]| {
        let sources: Vec<_> = segments.iter().map(|segment| Source { segment, deleted: &none }).collect();
        merge_of(&disk, number, 0, &Stop::default(), Limits::default(), &sources).unwrap().0.segment.unwrap()
    };
    let (left, right) = (merge(11, &[&parts[0], &parts[1]]), merge(12, &[&parts[2], &parts[3]]));
    let all = merge(13, &[&left, &right]);
    check_columns(&all, &docs, &filters()).unwrap();
    for row in (0..1200).step_by(37) {
        check_doc(&all, Row(row), &docs[row as usize]).unwrap();
    }
    // What a field holds in all of them together is what it holds in the one.
    for field in ["lang", "own", "nobody"] {
        let held = |segment: &Segment| fields(segment).held(field).unwrap();
        let together = parts.iter().filter_map(held).reduce(Held::with);
        assert_eq!(together, held(&all), "{field}");
    }
    // One that was built at once has the same bytes, but for its number.
    let at_once = build(&disk, 14, &docs, Limits::default()).unwrap();
    assert_eq!(all.bytes(), at_once.bytes());
}

#[test]
fn a_merge_that_fails_leaves_nothing_and_names_what_is_damaged() {
    let (forgetful, disk) = forgetful(3);
    let docs: Vec<Doc> = (0..300).map(|n| doc(&format!("doc {n}"), 1 + n)).collect();
    let first = build(&disk, 1, &docs[..200], Limits::default()).unwrap();
    build(&disk, 2, &docs[200..], Limits::default()).unwrap();
    let none = RoaringBitmap::new();
    let names = || disk.list(Path::new(DIR)).unwrap();
    let before = names();
    let run = |second: &Segment, stop: &Stop| {
        let sources = [&first, second].map(|segment| Source { segment, deleted: &none });
        merge_of(&disk, 3, 0, stop, narrow(), &sources)
    };

    for file in ["documents", "columns", "1.vectors", "4.vectors"] {
        let path = Path::new("/0000000002").join(file);
        let open_file = disk.open(&path).unwrap();
        let mut byte = [0];
        // The first section of each file holds what every merge reads.
        open_file.read_exact_at(70, &mut byte).unwrap();
        open_file.write_at(70, &[byte[0] ^ 1]).unwrap();
        let second = open(&disk, 2).unwrap();
        let error = run(&second, &Stop::default()).unwrap_err();
        assert!(matches!(&error, SegmentError::Corrupt { path: named, .. } if *named == path), "{error}");
        assert_eq!(names(), before);
        open_file.write_at(70, &byte).unwrap();
    }
    let second = open(&disk, 2).unwrap();
    let (asker, stop) = Stop::with_asker(None);
    drop(asker);
    let stopped = run(&second, &stop).unwrap_err();
    assert!(matches!(stopped, SegmentError::Stopped(_)), "{stopped}");
    assert_eq!(names(), before);
    forgetful.set_room(2000);
    assert!(matches!(run(&second, &Stop::default()), Err(SegmentError::DiskFull { .. })));
    assert_eq!(names(), before);
    forgetful.set_room(u64::MAX);
    // A document that is in both and gone in neither is nobody's to choose.
    let twin = build(&disk, 4, &docs[199..210], Limits::default()).unwrap();
    let error = run(&twin, &Stop::default()).unwrap_err();
    assert!(matches!(&error, SegmentError::Duplicate { id } if id == "doc 199"), "{error}");
    let (merged, _) = run(&second, &Stop::default()).unwrap();
    check(&merged.segment.unwrap(), &docs, &filters()).unwrap();
}

#[test]
fn a_loss_of_power_during_a_merge_leaves_the_sources_whole() {
    let docs: Vec<Doc> = (0..6).map(|n| doc(&format!("doc {n}"), 1 + n)).collect();
    let gone = RoaringBitmap::from_iter([1]);
    for n in 1.. {
        let (forgetful, disk) = forgetful(n);
        let parts = [&docs[..3], &docs[3..]];
        let sources =
            [1, 2].map(|number| build(&disk, number, parts[number as usize - 1], narrow()).unwrap());
        forgetful.crash_at_call(n);
        let of = [0, 1].map(|at| Source { segment: &sources[at], deleted: &gone });
        let is_done = merge_of(&disk, 3, 0, &Stop::default(), narrow(), &of).is_ok();
        let is_off = forgetful.is_off();
        assert!(is_done || is_off, "nothing else fails");
        let after: Arc<dyn Disk> = Arc::new(forgetful.crash(n));
        let found = clean(&*after, Path::new(DIR), |_| true).unwrap();
        for number in [1, 2] {
            check(&open(&after, number).unwrap(), parts[number as usize - 1], &filters()).unwrap();
        }
        assert!(!is_done || found.segments.contains(&3));
        if found.segments.contains(&3) {
            let kept: Vec<Doc> = [0, 2, 3, 5].map(|at| docs[at].clone()).into();
            check(&open(&after, 3).unwrap(), &kept, &filters()).unwrap();
        }
        if !is_off {
            assert!(n > 5, "a merge takes calls");
            break;
        }
    }
}
