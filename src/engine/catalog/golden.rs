//! Data folders as earlier versions left them: opened, read to the last document, and written on.
//!
//! The files of formats 2 and 3 were written by the versions that wrote these formats, from what [`contents`] says.

use std::fs;

use super::{
    description::{describe_folder, read_description},
    tests::info,
    *,
};
use crate::{
    budget::Room,
    collection::{
        Write,
        point::{ContentHash, Passage, Point},
    },
    encoder::Chunking,
    engine::{CollectionModel, inventory::DESCRIPTION_VERSION},
    error::{ErrorKind, Fault as _},
    index::{IndexKind, IndexParams},
    model::manifest::Fingerprint,
    stop::Stop,
    store::{
        self, folder, golden,
        tests::{format_of, to_format_1},
    },
    value::{Payload, PointId, Value},
    vector::{Dim, Metric, Vector},
};

/// The graph has more vectors than are scanned.
const GRAPH_DOCUMENTS: u32 = 130;

pub(in crate::engine) fn open(root: &Path) -> Result<Names> {
    Names::open(root, || super::tests::shelf(root))
}

pub(in crate::engine) fn id(n: u32) -> PointId {
    PointId::new(format!("document {n:03}")).unwrap()
}

/// All that is written follows from the three numbers.
fn point(n: u32, version: u32, dimension: u32) -> Point {
    let dim = Dim::new(dimension).unwrap();
    let mut text = String::new();
    let passages = (0..=n % 3 + 1)
        .map(|passage| {
            let start = u32::try_from(text.len()).unwrap();
            text.push_str(&format!("document {n} version {version} passage {passage}. "));
            let angle = (n * 7 + passage * 3 + version) as f32;
            let values = (1..=dimension).map(|i| (angle * i as f32).sin() + 0.01).collect();
            Passage {
                range: start..u32::try_from(text.len()).unwrap(),
                vector: Vector::new(values, dim, Metric::Cosine).unwrap(),
            }
        })
        .collect();
    let mut hash = [0; 16];
    hash[..4].copy_from_slice(&n.to_le_bytes());
    hash[4..8].copy_from_slice(&version.to_le_bytes());
    Point {
        id: id(n),
        title: format!("title {n} {version}"),
        text,
        payload: Payload::from([
            ("n".to_owned(), Value::Integer(n.into())),
            (
                "tags".to_owned(),
                Value::List(vec![Value::String("a".to_owned()), Value::Bool(n.is_multiple_of(2))]),
            ),
        ]),
        content_hash: ContentHash(hash),
        passages,
    }
}

pub(in crate::engine) fn upsert(n: u32, version: u32, dimension: u32) -> Write {
    Write::Upsert(Box::new(point(n, version, dimension)))
}

/// Which version of which document each collection has, and their dimension.
pub(in crate::engine) fn contents() -> [(&'static str, u32, BTreeMap<u32, u32>); 3] {
    let graph = (0..GRAPH_DOCUMENTS).filter(|n| n % 10 != 3).map(|n| (n, if n % 10 == 4 { 2 } else { 1 }));
    [
        ("flat", 3, BTreeMap::from([(0, 1), (2, 2), (3, 1)])),
        ("graph", 4, graph.collect()),
        ("killed", 3, BTreeMap::from([(1, 2), (2, 1)])),
    ]
}

/// What the collections are, in the order of [`contents`].
pub(in crate::engine) fn infos() -> [CollectionInfo; 3] {
    let mut flat = info("flat", 1);
    flat.dimension = 3;
    flat.chunking = Some(Chunking { max_tokens: 128, overlap_tokens: 16 });
    flat.model = Some(CollectionModel {
        name: "a model".to_owned(),
        fingerprint: Fingerprint("0123456789abcdef".to_owned()),
    });
    let killed = CollectionInfo { dimension: 3, ..info("killed", 3) };
    let mut graph = CollectionInfo { dimension: 4, ..info("graph", 2) };
    graph.index =
        IndexParams { kind: IndexKind::HnswRs, m: 8, ef_construction: 32, ..IndexParams::default() };
    [flat, graph, killed]
}

/// Writes a data folder of the present format whose contents [`check`] knows into `root`.
fn fill(root: &Path) {
    let work = tempfile::tempdir().unwrap();
    let names = open(work.path()).unwrap();
    let write = |name: &str, writes: Vec<Write>| {
        names.now().find(name).unwrap().collection().unwrap().write(writes).unwrap();
    };
    for info in infos() {
        names.create(info).unwrap();
    }
    write("flat", (0..4).map(|n| upsert(n, 1, 3)).collect());
    write("flat", vec![Write::Delete(id(1)), upsert(2, 2, 3)]);
    for n in 0..GRAPH_DOCUMENTS {
        write("graph", vec![upsert(n, 1, 4)]);
    }
    for n in 0..GRAPH_DOCUMENTS {
        match n % 10 {
            3 => write("graph", vec![Write::Delete(id(n))]),
            4 => write("graph", vec![upsert(n, 2, 4)]),
            _ => {}
        }
    }
    names.now().find("graph").unwrap().collection().unwrap().wait_indexed();
    names.set_alias("live", "graph").unwrap();
    write("killed", (0..3).map(|n| upsert(n, 1, 3)).collect());
    write("killed", vec![Write::Delete(id(0)), upsert(1, 2, 3)]);
    names.close().unwrap();
    drop(names);
    tests::copy(work.path(), root);
}

/// Everything that [`contents`] says is there, and nothing else.
pub(in crate::engine) fn check(names: &Names) {
    let now = names.now();
    assert_eq!(now.aliases, [("live".to_owned(), "graph".to_owned())].into_iter().collect());
    let flat = &now.find("flat").unwrap().info;
    assert_eq!(flat.chunking, Some(Chunking { max_tokens: 128, overlap_tokens: 16 }));
    assert_eq!(flat.model.as_ref().unwrap().fingerprint.0, "0123456789abcdef");
    for (name, dimension, expected) in contents() {
        let collection = now.find(name).unwrap().collection().unwrap();
        let page = collection.scroll(None, None, 1000, true, &Stop::default(), &Room::unbounded()).unwrap();
        let found: Vec<_> = page.points.iter().map(|point| (point.id.clone(), point.text.clone())).collect();
        let points: Vec<Point> = expected.iter().map(|(n, version)| point(*n, *version, dimension)).collect();
        let whole: Vec<_> = points.iter().map(|point| (point.id.clone(), point.text.clone())).collect();
        assert_eq!(found, whole, "{name}");
        for whole in points {
            assert_eq!(collection.point(&whole.id).unwrap().unwrap().point, whole, "{name}");
        }
    }
}

/// The folder as an earlier format left it, in a new place.
pub(in crate::engine) fn left_by(format: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    golden::unpack(if format == 3 { golden::FORMAT_3 } else { golden::FORMAT_2 }, dir.path());
    // Format 1 had no file of what was acknowledged, no descriptions, and no totals of the catalogue.
    if format == 1 {
        for (name, ..) in contents() {
            let folder = tests::folder_of(dir.path(), name);
            fs::remove_file(folder.join(folder::DESCRIPTION_FILE)).unwrap();
            to_format_1(&folder.join("state"));
        }
        to_format_1(&dir.path().join(CATALOG_DIR));
    }
    for folder in folders(dir.path()) {
        assert_eq!(format_of(&folder.join("state")), format);
    }
    dir
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(root.join(COLLECTIONS_DIR)).unwrap();
    found.map(|entry| entry.unwrap().path()).collect()
}

/// The number of every document of an earlier store.
fn numbers(folder: &Path) -> BTreeMap<String, u64> {
    let disk = Arc::new(RealDisk);
    let store = store::Store::open(&folder.join("state"), None, 4 << 20, disk).unwrap();
    let mut numbers = BTreeMap::new();
    store
        .load(|loaded| {
            let body = store::body::Body::decode(&loaded.head.body, folder)?;
            numbers.insert(body.id.as_str().to_owned(), loaded.number);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    numbers
}

/// Everything of every collection is of today's format, and says which collection it is of; nothing else is left.
fn check_taken_over(root: &Path) {
    for (name, ..) in contents() {
        let folder = tests::folder_of(root, name);
        let left = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<String> = left
            .map(|name| name.into_string().unwrap())
            .filter(|name| name != "index" && !name.starts_with("000000000"))
            .collect();
        left.sort();
        assert_eq!(left, ["collection", "segments"], "{name}");
        let description = read_description(&folder).unwrap().unwrap();
        assert_eq!(description.version, DESCRIPTION_VERSION, "{name}");
        assert!(description.identity.is_some(), "{name}");
    }
}

#[test]
fn a_folder_of_every_earlier_format_is_taken_over_with_all_that_is_in_it() {
    for format in [1, 2, 3] {
        let dir = left_by(format);
        let before: BTreeMap<PathBuf, BTreeMap<String, u64>> =
            folders(dir.path()).into_iter().map(|folder| (folder.clone(), numbers(&folder))).collect();
        let names = open(dir.path()).unwrap();
        assert_eq!(names.findings(), [], "{format}");
        check(&names);
        for (name, ..) in contents() {
            let collection = names.now().find(name).unwrap().collection().unwrap();
            let numbers = &before[&tests::folder_of(dir.path(), name)];
            for (id, number) in numbers {
                let found = collection.point(&PointId::new(id.as_str()).unwrap()).unwrap().unwrap();
                assert_eq!(found.version, number + 1, "{name}");
            }
        }
        check_taken_over(dir.path());
        let graph = names.now().find("live").unwrap().collection().unwrap();
        graph.wait_indexed();
        assert_eq!(graph.counts().indexed, graph.counts().passages);
        drop(graph);
        // Written on: new documents, and removals of those that were taken over.
        for (name, dimension, _) in contents() {
            let collection = names.now().find(name).unwrap().collection().unwrap();
            collection.write(vec![upsert(500, 1, dimension), upsert(2, 9, dimension)]).unwrap();
            collection.write(vec![Write::Delete(id(1)), upsert(500, 2, dimension)]).unwrap();
            collection.wait_indexed();
        }
        names.close().unwrap();
        drop(names);
        assert!(tests::folder_of(dir.path(), "graph").join("index/rows").exists());
        check_taken_over(dir.path());
        for round in 0..2 {
            let names = open(dir.path()).unwrap();
            assert_eq!(names.findings(), [], "round {round}");
            for (name, dimension, expected) in contents() {
                let collection = names.now().find(name).unwrap().collection().unwrap();
                let absent = expected.get(&1).map_or(0, |_| 1);
                let new = 1 + u64::from(!expected.contains_key(&2));
                let documents = expected.len() as u64 - absent + new;
                assert_eq!(collection.count(None, &Stop::default()).unwrap(), documents, "{name}");
                for (n, version) in [(500, 2), (2, 9)] {
                    let found = collection.point(&id(n)).unwrap().map(|stored| stored.point);
                    assert_eq!(found, Some(point(n, version, dimension)), "{name}");
                }
                assert_eq!(collection.point(&id(1)).unwrap(), None, "{name}");
            }
            names.close().unwrap();
        }
        // The catalogue learned which collection is which: a lost description has the identity again.
        let folder = tests::folder_of(dir.path(), "flat");
        let identity = read_description(&folder).unwrap().unwrap().identity;
        fs::remove_file(folder.join(folder::DESCRIPTION_FILE)).unwrap();
        drop(open(dir.path()).unwrap());
        assert_eq!(read_description(&folder).unwrap().unwrap().identity, identity);
        // From then on a lost catalogue is no loss.
        fs::remove_dir_all(dir.path().join(CATALOG_DIR)).unwrap();
        let names = open(dir.path()).unwrap();
        for (name, ..) in contents() {
            names.now().find(name).unwrap().collection().unwrap();
        }
        names.close().unwrap();
    }
}

/// Each step: what lies beside the earlier store, what is of the folder afterwards, and whether the log was told.
#[test]
fn a_taking_over_that_was_cut_off_goes_on() {
    const HALF: &str = "0000000001.new";
    const SEGMENT: &str = "0000000001";
    type Step = (&'static str, &'static [&'static str], &'static [&'static str], bool);
    let steps: [Step; 8] = [
        ("a copy of the store is made", &["state.copying"], &[], false),
        ("the copied store is opened", &["state.kept"], &[], false),
        ("it has begun", &["state.kept", "segments.begun"], &[], false),
        ("the segment is half written", &["state.kept", "segments.begun", HALF], &[], false),
        ("the segment is written", &["state.kept", "segments.begun"], &[SEGMENT], false),
        ("the log was told", &["state.kept", "segments.begun"], &[SEGMENT], true),
        ("the manifest is written", &["state.kept", "segments.begun"], &[SEGMENT, "segments"], true),
        ("the description has the identity", &[], &[SEGMENT, "segments", "collection"], true),
    ];
    for format in [2, 3] {
        let (before, after) = (left_by(format), left_by(format));
        open(after.path()).unwrap().close().unwrap();
        check_taken_over(after.path());
        for (context, beside, taken, is_told) in steps {
            let half = tempfile::tempdir().unwrap();
            tests::copy(before.path(), half.path());
            // It is opened before any collection is.
            drop(tests::shelf(half.path()).unwrap());
            if is_told {
                fs::remove_dir_all(half.path().join("log")).unwrap();
                tests::copy(&after.path().join("log"), &half.path().join("log"));
            }
            for (name, ..) in contents() {
                let to = tests::folder_of(half.path(), name);
                let from = tests::folder_of(after.path(), name);
                for file in beside {
                    match *file {
                        "segments.begun" => fs::write(to.join(file), "").unwrap(),
                        HALF => {
                            fs::create_dir(to.join(HALF)).unwrap();
                            fs::write(to.join(HALF).join("documents"), "half").unwrap();
                        }
                        copied => {
                            tests::copy(&to.join("state"), &to.join(copied));
                            if copied == "state.kept" && taken.is_empty() {
                                fs::write(to.join("state/db"), "what an opening left").unwrap();
                            }
                        }
                    }
                }
                for file in taken {
                    if from.join(file).is_dir() {
                        tests::copy(&from.join(file), &to.join(file));
                    } else {
                        fs::copy(from.join(file), to.join(file)).unwrap();
                    }
                }
                // The earlier store is removed piece by piece.
                if context == "the description has the identity" {
                    fs::remove_dir_all(to.join("state")).unwrap();
                }
            }
            for round in 0..2 {
                let names = open(half.path()).unwrap();
                assert_eq!(names.findings(), [], "{context}, round {round}");
                check(&names);
                names.close().unwrap();
                drop(names);
                check_taken_over(half.path());
            }
        }
    }
}

/// A segment that was made of an earlier store is a file like any other: what is no file in its place is damage.
#[cfg(unix)]
#[test]
fn a_damaged_segment_is_refused_by_name_and_no_other_collection() {
    use crate::files::regular;
    let damages: [fn(&Path); 4] = [
        regular::pipe,
        regular::endless,
        |path| fs::write(path, "no documents").unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for damage in damages {
        let dir = left_by(3);
        open(dir.path()).unwrap().close().unwrap();
        let documents = tests::folder_of(dir.path(), "flat").join("0000000001/documents");
        damage(&documents);
        let names = open(dir.path()).unwrap();
        let error = names.now().find("flat").unwrap().collection().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&documents.parent().unwrap().display().to_string()), "{error}");
        names.now().find("graph").unwrap().collection().unwrap();
        names.delete("flat").unwrap();
        assert!(!documents.parent().unwrap().exists());
        names.close().unwrap();
        drop(names);
        let names = open(dir.path()).unwrap();
        assert_eq!(names.now().collections.keys().collect::<Vec<_>>(), ["graph", "killed"]);
        assert_eq!(names.findings(), []);
    }
}

#[test]
fn an_earlier_store_that_lost_batches_or_is_of_another_collection_is_refused_as_it_is() {
    for format in [2, 3] {
        let dir = left_by(format);
        let folder = |name: &str| tests::folder_of(dir.path(), name);
        let (flat, graph, killed) = (folder("flat"), folder("graph"), folder("killed"));
        // A graph of a later state, and a file of what was acknowledged that does not tell of it.
        let (lost, path) = if format == 2 {
            to_format_1(&graph.join("state"));
            let sequence = "100000";
            let line = format!("{sequence} {:08x}\n", crc32fast::hash(sequence.as_bytes()));
            fs::write(graph.join("index/sequence"), line).unwrap();
            ("was saved after batch 100000", "index/sequence")
        } else {
            let mut rows = fs::read(graph.join("index/rows")).unwrap();
            rows[8..16].copy_from_slice(&100_000u64.to_le_bytes());
            let crc = crc32fast::hash(&rows[4..]);
            rows[..4].copy_from_slice(&crc.to_le_bytes());
            fs::write(graph.join("index/rows"), rows).unwrap();
            ("was saved after batch 100000", "index/rows")
        };
        // Other settings than the description tells, and a store that was cut short.
        let mut changed = read_description(&flat).unwrap().unwrap();
        changed.info.dimension = 17;
        describe_folder(&flat, &changed).unwrap();
        fs::write(killed.join("state/db"), "not a database").unwrap();
        fs::remove_dir_all(dir.path().join(CATALOG_DIR)).unwrap();
        let found = || [&flat, &graph, &killed].map(|folder| tests::bytes_in(folder));
        let before = found();
        for _ in 0..2 {
            let names = open(dir.path()).unwrap();
            let refusal = |name: &str| names.now().find(name).unwrap().collection().unwrap_err().to_string();
            let said = refusal("graph");
            assert!(said.contains(lost) && said.contains(path), "{said}");
            let said = refusal("flat");
            let of_another = if format == 2 { "its dimension is 3" } else { "vectors of 17 numbers" };
            assert!(said.contains(of_another), "{said}");
            let said = refusal("killed");
            assert!(said.contains("damaged"), "{said}");
            names.close().unwrap();
            drop(names);
            assert!(found() == before, "{format}: a store that is refused is written to");
        }
        // Accepted by hand: what is there is taken over.
        fs::write(graph.join("acknowledged"), "accept\n").unwrap();
        let names = open(dir.path()).unwrap();
        let documents = contents()[1].2.len() as u64;
        let collection = names.now().find("graph").unwrap().collection().unwrap();
        assert_eq!(collection.count(None, &Stop::default()).unwrap(), documents);
        drop(collection);
        for name in ["flat", "killed"] {
            names.delete(name).unwrap();
        }
        names.close().unwrap();
        drop(names);
        assert_eq!(open(dir.path()).unwrap().findings(), []);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_room_a_folder_is_taken_over_later_and_is_as_it_was_until_then() {
    for format in [2, 3] {
        let Some(mount) = crate::store::tests::SmallDisk::mount(128) else { return };
        let (dir, root) = (left_by(format), mount.0.path().join("db"));
        tests::copy(dir.path(), &root);
        let ballast = mount.fill();
        // Enough to open, and not to take over.
        let file = fs::File::options().write(true).open(&ballast).unwrap();
        file.set_len(file.metadata().unwrap().len() - (20 << 20)).unwrap();
        drop(file);
        let names = open(&root).unwrap();
        for (name, ..) in contents() {
            let error = names.now().find(name).unwrap().collection().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("disk is full"), "{error}");
            let folder = tests::folder_of(&root, name);
            assert!(folder.join("state/db").exists() && !folder.join("segments").exists(), "{name}");
        }
        names.close().unwrap();
        drop(names);
        fs::remove_file(ballast).unwrap();
        let names = open(&root).unwrap();
        assert_eq!(names.findings(), []);
        check(&names);
        names.close().unwrap();
        check_taken_over(&root);
    }
}

#[test]
#[ignore = "makes the file of the present format, which is kept for later ones"]
fn write_golden() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let path = std::env::var_os("GOLDEN").expect("GOLDEN names the file");
    fs::write(path, golden::pack(dir.path())).unwrap();
}
