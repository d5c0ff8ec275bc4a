//! Data folders as earlier versions left them: opened, read to the last document, and written on.

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
    index::{IndexKind, IndexParams},
    model::manifest::Fingerprint,
    stop::Stop,
    store::{
        folder, golden,
        tests::{format_of, to_format_1},
    },
    value::{Payload, PointId, Value},
    vector::{Dim, Metric, Vector},
};

/// The graph has more vectors than are scanned.
const GRAPH_DOCUMENTS: u32 = 130;

fn open(root: &Path) -> Result<Names> {
    Names::open(root, super::tests::shelf(root)?)
}

fn id(n: u32) -> PointId {
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

fn upsert(n: u32, version: u32, dimension: u32) -> Write {
    Write::Upsert(Box::new(point(n, version, dimension)))
}

/// Which version of which document each collection has, and their dimension.
fn contents() -> [(&'static str, u32, BTreeMap<u32, u32>); 3] {
    let graph = (0..GRAPH_DOCUMENTS).filter(|n| n % 10 != 3).map(|n| (n, if n % 10 == 4 { 2 } else { 1 }));
    [
        ("flat", 3, BTreeMap::from([(0, 1), (2, 2), (3, 1)])),
        ("graph", 4, graph.collect()),
        ("killed", 3, BTreeMap::from([(1, 2), (2, 1)])),
    ]
}

/// Writes a data folder whose contents [`check`] knows into `root`.
fn fill(root: &Path) {
    let work = tempfile::tempdir().unwrap();
    let names = open(work.path()).unwrap();
    let write = |name: &str, writes: Vec<Write>| {
        names.now().find(name).unwrap().collection().unwrap().write(writes).unwrap();
    };
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
    for info in [flat, graph, killed] {
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
    // As a kill leaves it: what was removed is still there, marked as gone.
    let folder = tests::folder_of(work.path(), "killed");
    let aside = work.path().join("aside");
    tests::copy(&folder, &aside);
    names.close().unwrap();
    drop(names);
    fs::remove_dir_all(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    tests::copy(work.path(), root);
}

fn check(names: &Names) {
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

/// The folder as format 2 left it, in a new place.
fn format_2() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    golden::unpack(golden::FORMAT_2, dir.path());
    for (name, ..) in contents() {
        assert_eq!(format_of(&tests::folder_of(dir.path(), name).join("state")), 2);
    }
    dir
}

/// Everything of every collection is of today's format, and says which collection it is of.
fn check_taken_over(root: &Path) {
    for (name, ..) in contents() {
        let folder = tests::folder_of(root, name);
        assert_eq!(format_of(&folder.join("state")), 3, "{name}");
        let description = read_description(&folder).unwrap().unwrap();
        assert_eq!(description.version, DESCRIPTION_VERSION, "{name}");
        assert!(description.identity.is_some(), "{name}");
    }
}

#[test]
fn a_folder_of_format_2_is_taken_over_with_all_that_is_in_it() {
    let dir = format_2();
    let rows = tests::folder_of(dir.path(), "graph").join("index/rows");
    let names = open(dir.path()).unwrap();
    assert_eq!(names.findings(), []);
    let graph = names.now().find("live").unwrap().collection().unwrap();
    // The graph was not built anew.
    assert!(rows.with_file_name("sequence").exists() && !rows.exists());
    assert_eq!(graph.counts().indexed, graph.counts().passages);
    drop(graph);
    check(&names);
    // Written on: new documents, and removals of those of the earlier form.
    for (name, dimension, _) in contents() {
        let collection = names.now().find(name).unwrap().collection().unwrap();
        collection.write(vec![upsert(500, 1, dimension), upsert(2, 9, dimension)]).unwrap();
        collection.write(vec![Write::Delete(id(1)), upsert(500, 2, dimension)]).unwrap();
        collection.wait_indexed();
    }
    names.close().unwrap();
    drop(names);
    assert!(rows.exists());
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
}

#[test]
fn a_taking_over_that_was_cut_off_goes_on() {
    let before = format_2();
    let dir = format_2();
    open(dir.path()).unwrap().close().unwrap();
    check_taken_over(dir.path());
    // Any of what is written for it may not have been.
    for missing in [&["state"][..], &["collection"], &["state", "collection"], &["state", "acknowledged"]] {
        let half = tempfile::tempdir().unwrap();
        tests::copy(dir.path(), half.path());
        for (name, ..) in contents() {
            let (from, to) = (tests::folder_of(before.path(), name), tests::folder_of(half.path(), name));
            for file in missing {
                let (from, to) = (from.join(file), to.join(file));
                if from.is_dir() {
                    fs::remove_dir_all(&to).unwrap();
                    tests::copy(&from, &to);
                } else {
                    fs::copy(from, to).unwrap();
                }
            }
        }
        let names = open(half.path()).unwrap();
        assert_eq!(names.findings(), [], "{missing:?}");
        check(&names);
        names.close().unwrap();
        drop(names);
        check_taken_over(half.path());
        check(&open(half.path()).unwrap());
    }
}

/// Format 1 had no file of what was acknowledged, no descriptions, and no totals of the catalogue.
#[test]
fn a_folder_of_format_1_is_taken_over() {
    let dir = format_2();
    for (name, ..) in contents() {
        let folder = tests::folder_of(dir.path(), name);
        fs::remove_file(folder.join(folder::DESCRIPTION_FILE)).unwrap();
        to_format_1(&folder.join("state"));
    }
    to_format_1(&dir.path().join(CATALOG_DIR));
    let names = open(dir.path()).unwrap();
    assert_eq!(names.findings(), []);
    check(&names);
    names.close().unwrap();
    drop(names);
    check_taken_over(dir.path());
    // From then on a lost catalogue is no loss, and a store that is cut short is noticed.
    fs::remove_dir_all(dir.path().join(CATALOG_DIR)).unwrap();
    let names = open(dir.path()).unwrap();
    let now = names.now();
    for (name, _, expected) in contents() {
        let collection = now.find(name).unwrap().collection().unwrap();
        assert_eq!(collection.count(None, &Stop::default()).unwrap(), expected.len() as u64);
        assert!(tests::folder_of(dir.path(), name).join("acknowledged").exists());
    }
}

#[test]
fn an_earlier_store_that_lost_batches_or_is_of_another_collection_is_refused_as_it_is() {
    let dir = format_2();
    let (flat, graph) = (tests::folder_of(dir.path(), "flat"), tests::folder_of(dir.path(), "graph"));
    // A graph of a later state, without the file of what was acknowledged.
    to_format_1(&graph.join("state"));
    let sequence = "100000";
    let line = format!("{sequence} {:08x}\n", crc32fast::hash(sequence.as_bytes()));
    fs::write(graph.join("index/sequence"), line).unwrap();
    // Other settings than the description tells.
    let settings = read_description(&flat).unwrap().unwrap();
    let mut changed = settings.clone();
    changed.info.index.m = 17;
    describe_folder(&flat, &changed).unwrap();
    fs::remove_dir_all(dir.path().join(CATALOG_DIR)).unwrap();
    let files = |folder: &Path| ["state/db", "acknowledged"].map(|file| fs::read(folder.join(file)).ok());
    let found = (files(&flat), files(&graph));
    let names = open(dir.path()).unwrap();
    let refusal = |name: &str| names.now().find(name).unwrap().collection().unwrap_err().to_string();
    assert!(refusal("graph").contains("index/sequence was saved after batch 100000"), "{}", refusal("graph"));
    assert!(refusal("flat").contains("its m is 16"), "{}", refusal("flat"));
    assert_eq!(names.now().find("killed").unwrap().collection().unwrap().counts().documents, 2);
    drop(names);
    assert!((files(&flat), files(&graph)) == found, "a store that is refused is written to");
}

#[test]
#[ignore = "makes the file of the present format, which is kept for later ones"]
fn write_golden() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let path = std::env::var_os("GOLDEN").expect("GOLDEN names the file");
    fs::write(path, golden::pack(dir.path())).unwrap();
}
