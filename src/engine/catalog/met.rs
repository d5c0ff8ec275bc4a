//! Damage that only a read meets: that read is refused, the rest is served, and it is told what there is to do.

use std::{fs, path::PathBuf, time::Instant};

use super::{
    tests::{folder_of, info},
    *,
};
use crate::{
    collection::{
        Collection, FolderLog, StoreSizes, Write,
        point::{ContentHash, Passage, Point},
    },
    error::{ErrorKind, Fault as _},
    stop::Stop,
    threads::Threads,
    value::{Payload, PointId, Value, filter::Filter},
    vector::{Dim, Metric, Vector},
};

const DOCUMENTS: u64 = 200;

fn open(root: &Path) -> Names {
    let shelf = || {
        let threads = Threads::new(1).unwrap();
        // What grew is sealed when nothing more came for a while.
        let sizes = StoreSizes { segment_bytes: 64 << 10, ..StoreSizes::default() };
        let log = FolderLog::of(root, &threads, sizes)?;
        Ok(Shelf::new(8, log, threads))
    };
    Names::open(root, shelf).unwrap()
}

fn fill(collection: &Collection) {
    let vector = Vector::new(vec![1.0, 2.0], Dim::new(2).unwrap(), Metric::Cosine).unwrap();
    let point = |n: u64| Point {
        id: PointId::new(format!("{n}")).unwrap(),
        title: String::new(),
        text: format!("text of {n}"),
        payload: Payload::from([("own".to_owned(), Value::String(format!("value {n}")))]),
        content_hash: ContentHash([7; 16]),
        passages: vec![Passage { range: 0..1, vector: vector.clone() }],
    };
    collection.write((0..DOCUMENTS).map(|n| Write::Upsert(Box::new(point(n)))).collect()).unwrap();
    let begun = Instant::now();
    while collection.counts().unsealed_bytes > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", collection.counts());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn damage_that_a_read_meets_is_among_the_findings_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let names = open(dir.path());
    names.create(info("a", 1)).unwrap();
    fill(&names.now().find("a").unwrap().collection().unwrap());
    names.close().unwrap();
    drop(names);
    let folder = folder_of(dir.path(), "a");
    let mut inside = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path().join("columns"));
    let columns: PathBuf = inside.find(|path| path.exists()).unwrap();
    let whole = fs::read(&columns).unwrap();
    let filter = Filter::parse("own contains '7'").unwrap();
    let met = (0..whole.len()).step_by(whole.len() / 40).find_map(|at| {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&columns, damaged).unwrap();
        let names = open(dir.path());
        {
            let collection = names.now().find("a").unwrap().collection().ok()?;
            assert_eq!(names.findings(), []);
            let error = collection.count(Some(&filter), &Stop::default()).err()?;
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        Some(names)
    });
    let names = met.expect("no byte of forty was read by the filter");
    let findings = names.findings();
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    let path = columns.display().to_string();
    assert!(
        finding.what.contains("collection \"a\" is damaged") && finding.what.contains(&path),
        "{finding:?}"
    );
    assert!(finding.what.contains("distilface repair") && finding.remedy.contains("backup"), "{finding:?}");
    let now = names.now();
    let collection = now.find("a").unwrap().collection().unwrap();
    assert_eq!(collection.count(None, &Stop::default()).unwrap(), DOCUMENTS);
    drop(collection);
    // It is not closed for being idle, which would forget it.
    names.close_idle(Duration::ZERO);
    assert_eq!(names.findings().len(), 1);
    names.close().unwrap();
    drop((now, names));
    fs::write(&columns, whole).unwrap();
    let names = open(dir.path());
    let now = names.now();
    let collection = now.find("a").unwrap().collection().unwrap();
    assert!(collection.count(Some(&filter), &Stop::default()).unwrap() > 0);
    assert_eq!(names.findings(), []);
}
