//! Folders of which something is flipped, cut, overwritten or lost, at seeded places of every kind of file: reading says
//! so or reads everything right, and a repair keeps all that was not hit.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{taking_over::Dying, *};
use crate::{
    files::reading::Reading,
    segmented::{
        repair::{Loss, Outcome, Repaired, repair},
        verify::{Checked, Known, LogSeen, verify},
    },
};

/// The collection in folder `y`.
pub(super) const OTHER: Identity = Identity([5; 16]);

pub(super) fn known(root: &Path) -> Vec<Known> {
    let known = |name: &str, identity| Known {
        dir: root.join("collections").join(name),
        identity: Some(identity),
        space: space(DIMENSION),
    };
    vec![known("x", IDENTITY), known("y", OTHER)]
}

/// What reading everything finds.
pub(super) struct Verdict {
    pub(super) log: LogSeen,
    pub(super) collections: Vec<Checked>,
}

impl Verdict {
    pub(super) fn of(root: &Path) -> Self {
        let reading = Reading::new(Arc::new(RealDisk), Stop::default(), |_| {});
        let disk: Arc<dyn Disk> = Arc::new(reading);
        let known = known(root);
        let dirs: Vec<PathBuf> = known.iter().map(|known| known.dir.clone()).collect();
        let log = LogSeen::read(&disk, root, &dirs, &Stop::default()).unwrap();
        let check = |known| verify(&disk, &log, known, &Stop::default()).unwrap();
        let collections: Vec<Checked> = known.iter().map(check).collect();
        for fault in log.faults.iter().chain(collections.iter().flat_map(|checked| &checked.faults)) {
            assert!(fault.file.starts_with(root), "{fault:?}");
            assert!(!fault.reason.is_empty() && !fault.remedy.is_empty(), "{fault:?}");
        }
        Verdict { log, collections }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.log.faults.is_empty() && self.collections.iter().all(|checked| checked.faults.is_empty())
    }

    #[track_caller]
    pub(super) fn assert_whole(&self) {
        assert!(self.is_whole(), "{:#?} {:#?}", self.log.faults, self.collections);
    }
}

/// All files below a folder, by their path from there.
pub(super) fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// A data folder with two collections, and what is in them.
pub(super) struct Sample {
    pub(super) dir: tempfile::TempDir,
    pub(super) live: [BTreeSet<u64>; 2],
}

impl Sample {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = SplitMix(seed);
        let (dir, world) = world();
        let mut live = [BTreeSet::new(), BTreeSet::new()];
        let other = dir.path().join("collections/y");
        let x = world.create();
        world.make_folder(&other);
        let y = Store::create(&world.log(), &other, OTHER, space(DIMENSION), OPTIONS).unwrap();
        for round in 0..30 {
            step(&x, &mut live[0], &mut random).unwrap();
            if round % 3 == 0 {
                step(&y, &mut live[1], &mut random).unwrap();
            }
        }
        // Segments with deletions, and something that only the log has.
        for (store, live) in [&x, &y].into_iter().zip(&mut live) {
            live.extend(write(store, 6, &[]).unwrap());
            store.seal().unwrap();
            let buried = some(live, 3, &mut random);
            buried.iter().for_each(|number| _ = live.remove(number));
            live.extend(write(store, 5, &buried).unwrap());
            if seed.is_multiple_of(2) {
                store.seal().unwrap();
                live.extend(write(store, 4, &[]).unwrap());
            }
        }
        drop((x, y));
        world.stop();
        Sample { dir, live }
    }

    pub(super) fn copied(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        dir
    }
}

/// What the collections hold, each document as it was put; and they are written on.
#[track_caller]
pub(super) fn held(root: &Path) -> [BTreeSet<u64>; 2] {
    let world = World::new(Arc::new(RealDisk), root);
    let log = world.log();
    let held = known(root).into_iter().map(|Known { dir, identity, space }| {
        let open = || Store::open(&log, &dir, identity.unwrap(), space.clone(), OPTIONS).unwrap();
        let store = open();
        let found = load(&store).unwrap();
        let mut more = found.clone();
        more.extend(write(&store, 2, &[]).unwrap());
        check(&store, &more);
        drop(store);
        let store = open();
        check(&store, &more);
        assert!(store.unknown().is_empty(), "{:?}", store.unknown());
        found
    });
    let held = held.collect::<Vec<_>>().try_into().unwrap();
    world.stop();
    held
}

pub(super) fn repaired(
    disk: &Arc<dyn Disk>,
    root: &Path,
    kept: Option<&str>,
) -> Result<Repaired, StoreError> {
    let kept = kept.map(|name| root.join("damaged").join(name));
    repair(disk, root, &known(root), &[0, 1], kept.as_deref(), &Stop::default())
}

pub(super) fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

pub(super) fn losses(outcome: &Outcome) -> &[Loss] {
    match outcome {
        Outcome::Repaired { losses, .. } => losses,
        _ => &[],
    }
}

/// Does something bad to a file; tells what.
fn damage(path: &Path, random: &mut SplitMix) -> String {
    let bytes = std::fs::read(path).unwrap();
    let filled: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut place = || {
        let any = usize::try_from(random.below(bytes.len().max(1) as u64)).unwrap();
        let at = usize::try_from(random.below(filled.len().max(1) as u64)).unwrap();
        if random.below(5) == 0 { any } else { filled.get(at).copied().unwrap_or(any) }
    };
    let (at, other) = (place(), place());
    let mut changed = bytes.clone();
    let told = match random.below(6) {
        0 | 1 if !bytes.is_empty() => {
            changed[at] ^= 1 << random.below(8);
            format!("byte {at} flipped")
        }
        2 => {
            changed.truncate(at);
            format!("cut at {at}")
        }
        3 => {
            std::fs::remove_file(path).unwrap();
            return "removed".to_owned();
        }
        4 => {
            let range = at.min(other)..at.max(other);
            changed.drain(range.clone());
            format!("bytes {range:?} taken out")
        }
        _ => {
            let end = (at + 300).min(bytes.len());
            changed[at..end].iter_mut().for_each(|byte| *byte = random.next().to_le_bytes()[0]);
            format!("bytes {at} to {end} overwritten")
        }
    };
    std::fs::write(path, changed).unwrap();
    told
}

#[test]
fn a_whole_folder_is_read_whole_and_left_as_it_is() {
    for seed in 0..6 {
        let sample = Sample::new(seed);
        let root = sample.dir.path();
        let before = files(root);
        let verdict = Verdict::of(root);
        verdict.assert_whole();
        for (checked, live) in verdict.collections.iter().zip(&sample.live) {
            let passages = live.iter().map(|number| number % 4).sum::<u64>();
            assert_eq!((checked.documents, checked.passages), (live.len() as u64, passages), "seed {seed}");
            assert!(checked.segments > 0);
        }
        assert!(verdict.log.entries > 0 && verdict.log.files > 0);
        let outcome = repaired(&real(), root, Some("now")).unwrap();
        assert!(outcome.log.is_none());
        assert!(outcome.collections.iter().all(|outcome| matches!(outcome, Outcome::Whole)));
        assert_eq!(files(root), before, "seed {seed}");
        assert_eq!(held(root), sample.live);
    }
}

/// How often each kind of file was damaged, and how often that was seen.
#[derive(Debug, Default)]
struct Tally {
    seen: BTreeMap<&'static str, (u64, u64)>,
    documents_lost: u64,
}

fn kind_of(path: &Path) -> &'static str {
    let name = path.file_name().unwrap().to_str().unwrap();
    match name {
        "documents" => "documents",
        "columns" => "columns",
        "segments" => "manifest",
        "folder" => "log/folder",
        name if name.ends_with(".vectors") => "vectors",
        name if name.contains(".deleted.") => "deleted",
        name if name.ends_with(".log") => "log",
        _ => "other",
    }
}

fn one_damage(sample: &Sample, seed: u64, tally: &mut Tally) {
    let mut random = SplitMix(seed);
    let dir = sample.copied();
    let root = dir.path();
    let all = files(root);
    // Of every kind about as many.
    let mut kinds: BTreeMap<&str, Vec<&PathBuf>> = BTreeMap::new();
    all.keys().for_each(|path| kinds.entry(kind_of(path)).or_default().push(path));
    let kinds: Vec<_> = kinds.into_iter().collect();
    let (kind, paths) = &kinds[usize::try_from(random.below(kinds.len() as u64)).unwrap()];
    let path = paths[usize::try_from(random.below(paths.len() as u64)).unwrap()];
    let told = format!("seed {seed}: {}: {}", path.display(), damage(&root.join(path), &mut random));
    println!("{told}");
    let damaged_bytes = std::fs::read(root.join(path)).ok();
    let before = files(root);
    let verdict = Verdict::of(root);
    assert_eq!(files(root), before, "{told}");
    let seen = tally.seen.entry(kind).or_default();
    seen.0 += 1;
    if verdict.is_whole() {
        assert_eq!(held(root), sample.live, "{told}");
        return;
    }
    seen.1 += 1;
    // Saying what would be done does nothing, and says the same as doing it.
    let planned = repaired(&real(), root, None).unwrap();
    assert_eq!(files(root), before, "{told}");
    let done = repaired(&real(), root, Some("now")).unwrap();
    Verdict::of(root).assert_whole();
    let after = files(root);
    let found = held(root);
    for (at, (found, live)) in found.iter().zip(&sample.live).enumerate() {
        let losses = losses(&done.collections[at]);
        let is_unknown = losses.iter().any(|loss| loss.documents.is_none());
        let lost: Vec<_> = live.difference(found).collect();
        let counted: u64 = losses.iter().filter_map(|loss| loss.documents).sum();
        assert!(is_unknown || lost.len() as u64 <= counted, "{told}: {lost:?} {losses:#?}");
        assert!(lost.is_empty() || !losses.is_empty(), "{told}: {lost:?}");
        let ids: BTreeSet<&String> = losses.iter().flat_map(|loss| &loss.ids).collect();
        let unnamed = lost.iter().filter(|number| !ids.contains(&format!("document {number}"))).count();
        assert!(is_unknown || unnamed as u64 <= counted - ids.len().min(counted as usize) as u64, "{told}");
        assert!(found.is_subset(live) || !losses.is_empty(), "{told}: some came back, and nothing says so");
        tally.documents_lost += lost.len() as u64;
        if let (
            Outcome::Repaired { documents, .. },
            Outcome::Repaired { documents: planned, losses: planned_losses, .. },
        ) = (&done.collections[at], &planned.collections[at])
        {
            assert_eq!(*documents, found.len() as u64, "{told}");
            assert_eq!((planned, planned_losses.as_slice()), (documents, losses), "{told}");
        }
        let is_whole = verdict.log.faults.is_empty() && verdict.collections[at].faults.is_empty();
        if is_whole {
            assert_eq!(found, live, "{told}");
            let mine = |path: &&PathBuf| path.starts_with(["collections/x", "collections/y"][at]);
            let of = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<_> {
                files.iter().filter(|(path, _)| mine(path)).map(|(p, b)| (p.clone(), b.clone())).collect()
            };
            assert_eq!(of(&after), of(&before), "{told}: it was whole, and was touched");
        }
    }
    if let Some(bytes) = damaged_bytes {
        let kept = after
            .iter()
            .any(|(kept, content)| kept.ends_with(path) && kept.starts_with("damaged") && *content == bytes);
        assert!(kept, "{told}: it was not kept: {:#?}", after.keys());
        let list = after.keys().any(|path| path.ends_with("where-these-files-were.txt"));
        assert!(list, "{told}");
    }
}

#[test]
fn any_damage_is_seen_or_harmless_and_a_repair_keeps_what_it_did_not_hit() {
    let mut tally = Tally::default();
    for seed in 0..seeds(8) {
        let sample = Sample::new(seed);
        for n in 0..30 {
            one_damage(&sample, seed * 1000 + n, &mut tally);
        }
    }
    println!("{tally:#?}");
    for kind in ["documents", "columns", "vectors", "deleted", "manifest", "log/folder", "log"] {
        assert!(tally.seen[kind].1 > 3, "{tally:?}");
    }
    assert!(tally.documents_lost > 0, "nothing that could be lost was hit: {tally:?}");
}

/// As many seeds as are asked for, or so many.
fn seeds(default: u64) -> u64 {
    std::env::var("DISTILFACE_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(default)
}

/// Files that must stay readable somewhere: in their place, or among the damaged ones.
fn is_kept(root: &Path, path: &Path, bytes: &[u8]) -> bool {
    files(root).iter().any(|(kept, content)| kept.ends_with(path) && content == bytes)
}

#[test]
fn a_kill_at_any_step_of_a_repair_leaves_the_damaged_collection_or_the_repaired_one() {
    let kills = AtomicU64::new(0);
    let sample = Sample::new(4);
    let all = files(sample.dir.path());
    let first =
        |kind: &str| all.keys().find(|path| kind_of(path) == kind && path.starts_with("collections/x"));
    let log = all.keys().rfind(|path| kind_of(path) == "log").unwrap();
    let cut =
        |path: &Path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(5000).unwrap();
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.len() / 2;
        bytes[at..at + 40].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(path, bytes).unwrap();
    };
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    type Bad<'a> = (&'a PathBuf, &'a dyn Fn(&Path));
    let folder_file = PathBuf::from("log/folder");
    let manifest = PathBuf::from("collections/x/segments");
    let scenarios: [Bad<'_>; 6] = [
        (first("documents").unwrap(), &flip),
        (first("vectors").unwrap(), &remove),
        (first("deleted").unwrap(), &remove),
        (&manifest, &flip),
        (&folder_file, &remove),
        (log, &cut),
    ];
    for (path, bad) in scenarios {
        let damaged = sample.copied();
        bad(&damaged.path().join(path));
        let bytes = std::fs::read(damaged.path().join(path)).ok();
        assert!(!Verdict::of(damaged.path()).is_whole(), "{}", path.display());
        let expected = {
            let dir = tempfile::tempdir().unwrap();
            copy(damaged.path(), dir.path());
            repaired(&real(), dir.path(), Some("now")).unwrap();
            Verdict::of(dir.path()).assert_whole();
            held(dir.path())
        };
        for calls in 0.. {
            let dir = tempfile::tempdir().unwrap();
            copy(damaged.path(), dir.path());
            let root = dir.path();
            let disk: Arc<dyn Disk> = Arc::new(Dying::after(calls));
            let is_done = repaired(&disk, root, Some("killed")).is_ok();
            if let Some(bytes) = &bytes {
                assert!(is_kept(root, path, bytes), "{} after {calls}", path.display());
            }
            // Whoever comes next finishes it.
            if !Verdict::of(root).is_whole() {
                repaired(&real(), root, Some("again")).unwrap();
            }
            Verdict::of(root).assert_whole();
            assert_eq!(held(root), expected, "{} after {calls}", path.display());
            if let Some(bytes) = &bytes {
                assert!(is_kept(root, path, bytes), "{} after {calls}", path.display());
            }
            if is_done {
                break;
            }
            kills.fetch_add(1, Ordering::Relaxed);
        }
    }
    println!("{kills:?} kills");
    assert!(kills.into_inner() > 100);
}

#[test]
fn a_repair_of_one_collection_leaves_the_others_damaged() {
    let sample = Sample::new(1);
    let dir = sample.copied();
    let root = dir.path();
    for name in ["x", "y"] {
        std::fs::write(root.join("collections").join(name).join("segments"), "no manifest").unwrap();
    }
    let kept = root.join("damaged/now");
    let done = repair(&real(), root, &known(root), &[1], Some(&kept), &Stop::default()).unwrap();
    assert!(matches!(&*done.collections, [Outcome::Repaired { .. }]), "{done:?}");
    let verdict = Verdict::of(root);
    assert_eq!(verdict.collections[1].faults, []);
    assert!(!verdict.collections[0].faults.is_empty());
}

#[test]
fn what_a_later_version_wrote_is_told_and_not_repaired() {
    let sample = Sample::new(2);
    let dir = sample.copied();
    let root = dir.path();
    let path = root.join("collections/x/segments");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    let sum = crc32c::crc32c(&bytes[..36]).to_le_bytes();
    bytes[36..40].copy_from_slice(&sum);
    std::fs::write(&path, bytes).unwrap();
    let before = files(root);
    let verdict = Verdict::of(root);
    let [fault] = &*verdict.collections[0].faults else { panic!("{:?}", verdict.collections[0]) };
    assert!(!fault.is_repairable && fault.reason.contains("newer version"), "{fault:?}");
    let done = repaired(&real(), root, Some("now")).unwrap();
    assert!(matches!(&done.collections[0], Outcome::Hopeless(faults) if faults.len() == 1), "{done:?}");
    assert_eq!(files(root), before);
}

#[test]
fn a_log_of_a_later_version_is_told_and_nothing_is_repaired() {
    let sample = Sample::new(2);
    let dir = sample.copied();
    let root = dir.path();
    let path = root.join("log/folder");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    let sum = crc32c::crc32c(&bytes[..36]).to_le_bytes();
    bytes[36..40].copy_from_slice(&sum);
    std::fs::write(&path, bytes).unwrap();
    let verdict = Verdict::of(root);
    let [fault] = &*verdict.log.faults else { panic!("{:?}", verdict.log.faults) };
    assert!(!fault.is_repairable && fault.reason.contains("newer version"), "{fault:?}");
    let before = files(root);
    let done = repaired(&real(), root, Some("now")).unwrap();
    assert!(matches!(&done.log, Some(Outcome::Hopeless(faults)) if faults.len() == 1), "{done:?}");
    assert_eq!(files(root), before);
}

#[test]
fn the_folder_of_another_collection_is_told_and_not_repaired() {
    let sample = Sample::new(2);
    let dir = sample.copied();
    let root = dir.path();
    std::fs::copy(root.join("collections/y/segments"), root.join("collections/x/segments")).unwrap();
    let verdict = Verdict::of(root);
    assert!(verdict.collections[0].faults.iter().any(|fault| fault.reason.contains("of another collection")));
    let done = repaired(&real(), root, Some("now")).unwrap();
    assert!(matches!(&done.collections[0], Outcome::Hopeless(_)), "{done:?}");
}

#[test]
fn a_file_that_is_none_of_the_log_is_moved_away() {
    let sample = Sample::new(3);
    let dir = sample.copied();
    let root = dir.path();
    let letter = b"Dear all, ".repeat(1000);
    std::fs::write(root.join("log/0000000099.log"), &letter).unwrap();
    let verdict = Verdict::of(root);
    assert!(verdict.log.faults[0].reason.contains("no file of this log"), "{:?}", verdict.log.faults);
    let done = repaired(&real(), root, Some("now")).unwrap();
    assert!(matches!(&done.log, Some(Outcome::Repaired { .. })), "{done:?}");
    assert_eq!(std::fs::read(root.join("damaged/now/log/0000000099.log")).unwrap(), letter);
    Verdict::of(root).assert_whole();
    assert_eq!(held(root), sample.live);
}

#[test]
fn an_id_that_is_there_twice_is_seen_and_its_last_document_stays() {
    for is_sealed in [false, true] {
        let (dir, world) = world();
        let root = dir.path();
        let store = world.create();
        write(&store, 8, &[]).unwrap();
        store.seal().unwrap();
        let mut batch = StoreBatch::default();
        put_as(&mut batch, 8, 3);
        put_as(&mut batch, 9, 9);
        store.commit(batch).unwrap();
        if is_sealed {
            store.seal().unwrap();
        }
        drop(store);
        world.stop();
        let known = &known(root)[..1];
        let reading: Arc<dyn Disk> = Arc::new(Reading::new(Arc::new(RealDisk), Stop::default(), |_| {}));
        let look = || {
            let log = LogSeen::read(&reading, root, &[known[0].dir.clone()], &Stop::default()).unwrap();
            verify(&reading, &log, &known[0], &Stop::default()).unwrap()
        };
        let [fault] = &*look().faults else { panic!("{:?}", look()) };
        assert!(fault.reason.contains("\"document 3\"") && fault.reason.contains("3, 8"), "{fault:?}");
        let done =
            repair(&real(), root, known, &[0], Some(&root.join("damaged/now")), &Stop::default()).unwrap();
        let [outcome] = &*done.collections else { panic!("{done:?}") };
        assert_eq!(losses(outcome)[0].ids, ["document 3"]);
        let checked = look();
        assert_eq!((checked.faults.as_slice(), checked.documents), (&[][..], 9));
        let store = world.open().unwrap();
        let snapshot = store.snapshot();
        assert_eq!(snapshot.text(8, Path::new("x")).unwrap().unwrap(), text(3));
        assert_eq!(store.documents(), 9);
        drop(store);
        world.stop();
    }
}

#[test]
fn on_a_file_system_without_second_names_damaged_files_are_copied() {
    let sample = Sample::new(4);
    let dir = sample.copied();
    let root = dir.path();
    let path = root.join("collections/x/segments");
    std::fs::write(&path, "no manifest").unwrap();
    let disk = Dying { has_no_links: true, ..Dying::after(i64::MAX) };
    repaired(&(Arc::new(disk) as _), root, Some("now")).unwrap();
    assert_eq!(std::fs::read(root.join("damaged/now/collections/x/segments")).unwrap(), b"no manifest");
    Verdict::of(root).assert_whole();
    assert_eq!(held(root), sample.live);
}

#[test]
fn what_a_device_does_not_read_is_told_and_the_rest_is_kept() {
    let sample = Sample::new(4);
    let all = files(sample.dir.path());
    let of = |kind: &str| all.keys().find(|path| kind_of(path) == kind).unwrap().clone();
    let log = all.keys().rfind(|path| kind_of(path) == "log").unwrap().clone();
    let manifest = PathBuf::from("collections/x/segments");
    for path in
        [of("documents"), of("columns"), of("vectors"), of("deleted"), manifest, of("log/folder"), log]
    {
        let dir = sample.copied();
        let root = dir.path();
        let disk: Arc<dyn Disk> =
            Arc::new(Dying { unreadable: Some(path.clone()), ..Dying::after(i64::MAX) });
        let known = known(root);
        let dirs: Vec<PathBuf> = known.iter().map(|known| known.dir.clone()).collect();
        let log = LogSeen::read(&disk, root, &dirs, &Stop::default()).unwrap();
        let checked = known.iter().map(|known| verify(&disk, &log, known, &Stop::default()).unwrap());
        let mut faults = log.faults.clone();
        checked.for_each(|checked| faults.extend(checked.faults));
        let told = faults.iter().find(|fault| fault.file.ends_with(&path)).unwrap();
        assert!(told.reason.contains("cannot be read"), "{told:?}");
        let done = repaired(&disk, root, Some("now")).unwrap();
        if kind_of(&path) == "log" {
            assert!(matches!(&done.log, Some(Outcome::Hopeless(_))), "{done:?}");
            assert!(!root.join("damaged").exists());
            continue;
        }
        Verdict::of(root).assert_whole();
        let found = held(root);
        let lost: u64 = done.collections.iter().flat_map(losses).filter_map(|loss| loss.documents).sum();
        let missing =
            sample.live[0].difference(&found[0]).chain(sample.live[1].difference(&found[1])).count();
        assert!(missing as u64 <= lost, "{}: {missing} {lost}", path.display());
    }
}

#[test]
fn a_collection_that_nothing_tells_from_others_is_not_repaired() {
    let sample = Sample::new(1);
    let dir = sample.copied();
    let root = dir.path();
    let mut unknown = known(root);
    std::fs::write(root.join("collections/x/segments"), "no manifest").unwrap();
    unknown[0].identity = None;
    unknown[1].space = space(DIMENSION + 1);
    let before = files(root);
    let kept = root.join("damaged/now");
    let done = repair(&real(), root, &unknown, &[0, 1], Some(&kept), &Stop::default()).unwrap();
    let [Outcome::Hopeless(nameless), Outcome::Hopeless(other)] = &*done.collections else {
        panic!("{done:?}")
    };
    assert!(nameless[0].reason.contains("nothing says which collection"), "{nameless:?}");
    assert!(other[0].reason.contains("its vectors have 3 numbers"), "{other:?}");
    assert_eq!(files(root), before);
}

/// Writes an entry of a collection to the log as it is.
fn write_raw(root: &Path, kind: u8, payload: &[u8]) {
    let (identity, from) = logs::read_folder_file(&RealDisk, &root.join("log")).unwrap().unwrap();
    let options = folder_options().log;
    let from = crate::log::Sequence(from);
    let opened =
        crate::log::Log::open(real(), &root.join("log"), identity, options, from, &mut |_| {}).unwrap();
    crate::log::Log::write_one(opened, logs::id_of(IDENTITY), kind, payload.to_vec()).unwrap();
}

#[test]
fn an_entry_that_means_nothing_is_dropped_and_one_of_a_later_version_is_not() {
    let sample = Sample::new(3);
    for (kind, is_repairable) in [(2, true), (200, false)] {
        let dir = sample.copied();
        let root = dir.path();
        write_raw(root, kind, b"\xff\xff not what a batch is");
        let verdict = Verdict::of(root);
        let [fault] = &*verdict.collections[0].faults else { panic!("{:?}", verdict.collections[0]) };
        assert_eq!(fault.is_repairable, is_repairable, "{fault:?}");
        let done = repaired(&real(), root, Some("now")).unwrap();
        if !is_repairable {
            assert!(matches!(&done.collections[0], Outcome::Hopeless(_)), "{done:?}");
            continue;
        }
        let [loss] = losses(&done.collections[0]) else { panic!("{done:?}") };
        assert!(loss.what.contains("means nothing"), "{loss:?}");
        Verdict::of(root).assert_whole();
        assert_eq!(held(root), sample.live);
    }
}

#[test]
fn damage_of_the_log_that_hits_nobody_is_worth_a_note() {
    let sample = Sample::new(2);
    let dir = sample.copied();
    let root = dir.path();
    std::fs::remove_dir_all(root.join("collections/y")).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Reading::new(Arc::new(RealDisk), Stop::default(), |_| {}));
    let known = &known(root)[..1];
    let notes = || {
        let log = LogSeen::read(&disk, root, &[known[0].dir.clone()], &Stop::default()).unwrap();
        let checked = verify(&disk, &log, &known[0], &Stop::default()).unwrap();
        (log.notes_beside(&Vec::from_iter(checked.covers)), checked.faults)
    };
    let (told, faults) = notes();
    assert!(faults.is_empty() && told.is_empty(), "{told:?} {faults:?}");
    // What was repaired stays damaged in the log, and nobody needs it.
    write_raw(root, 2, b"what will be damaged");
    let log = files(root).into_keys().rfind(|path| kind_of(path) == "log").unwrap();
    let mut bytes = std::fs::read(root.join(&log)).unwrap();
    let at = bytes.windows(8).rposition(|window| window == b"what wil").unwrap();
    bytes[at] ^= 1;
    std::fs::write(root.join(&log), bytes).unwrap();
    assert_eq!(notes().1.len(), 1);
    repair(&real(), root, known, &[0], Some(&root.join("damaged/now")), &Stop::default()).unwrap();
    let (told, faults) = notes();
    assert!(faults.is_empty() && told.len() == 1, "{told:?} {faults:?}");
    assert!(told[0].contains("no collection needs what was there"), "{told:?}");
}

#[test]
fn reading_and_repairing_end_when_they_are_told_to() {
    let sample = Sample::new(2);
    let root = sample.dir.path();
    let stop = Stop::at(Some(std::time::Instant::now()));
    let disk: Arc<dyn Disk> = Arc::new(Reading::new(Arc::new(RealDisk), stop.clone(), |_| {}));
    let known = known(root);
    let dirs: Vec<PathBuf> = known.iter().map(|known| known.dir.clone()).collect();
    let log = LogSeen::read(&real(), root, &dirs, &Stop::default()).unwrap();
    assert!(LogSeen::read(&disk, root, &dirs, &stop).is_err());
    assert!(verify(&disk, &log, &known[0], &stop).is_err());
    assert!(repair(&real(), root, &known, &[0], Some(&root.join("damaged/now")), &stop).is_err());
    assert!(!root.join("damaged").exists());
}
