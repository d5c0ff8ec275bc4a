//! What the parts of a collection's memory cost, printed: `cargo test --lib -- --ignored --nocapture figures`.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    collection::{fresh::Fresh, slots::Entry},
    index::columns::FieldIndex,
    segmented::{IdHash, Ids},
};

/// Of this process, in bytes.
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

fn payload(n: u32) -> Payload {
    Payload::from([
        ("lang".to_owned(), Value::String(["de", "en", "fr"][n as usize % 3].to_owned())),
        ("path".to_owned(), Value::String(format!("folder {}/file {n}.txt", n % 100))),
        ("written".to_owned(), Value::Datetime(i64::from(n) * 1_000_003)),
        ("year".to_owned(), Value::Integer(i64::from(1990 + n % 40))),
        (
            "tags".to_owned(),
            Value::List((0..3).map(|i| Value::String(format!("tag {}", (n + i) % 50))).collect()),
        ),
    ])
}

fn entry(n: u32) -> Arc<Entry> {
    let id = PointId::new(format!("document {n:08}")).unwrap();
    Arc::new(Entry { id, hash: ContentHash([0; 16]), number: u64::from(n), first_slot: n, passages: 1 })
}

/// Prints what was allocated since for each document, and keeps it until then.
fn told<T>(what: &str, documents: u32, make: impl FnOnce() -> T) -> T {
    let before = resident();
    let made = make();
    println!("{what}: {:.1} bytes for each document", (resident() - before) as f64 / f64::from(documents));
    made
}

#[test]
#[ignore = "it prints figures"]
fn figures_of_what_is_resident_for_each_document() {
    const DOCUMENTS: u32 = 100_000;
    let entries: Vec<Arc<Entry>> = (0..DOCUMENTS).map(entry).collect();
    let _fields = told("the index of all payloads", DOCUMENTS, || {
        let mut index = FieldIndex::new();
        (0..DOCUMENTS).for_each(|n| index.insert(n, &payload(n)));
        index
    });
    let _ids = told("the map of all ids", DOCUMENTS, || {
        entries.iter().zip(0u32..).map(|(entry, n)| (entry.id.clone(), n)).collect::<BTreeMap<_, _>>()
    });
    let _filter = told("the filters of ids", DOCUMENTS, || {
        let mut ids = Ids::with_capacity(DOCUMENTS as usize);
        entries.iter().for_each(|entry| ids.insert(IdHash::of(&entry.id)));
        ids
    });
    let _fresh = told("runs of what no segment has", DOCUMENTS, || {
        let mut fresh = Fresh::default();
        for batch in entries.iter().zip(0..).collect::<Vec<_>>().chunks(100) {
            fresh.add(batch.iter().map(|(entry, n)| (*n, Arc::clone(entry), payload(*n))));
        }
        fresh
    });
}

#[test]
#[ignore = "it prints figures"]
fn figures_of_a_batch_beside_sixty_thousand_growing_documents() {
    for size in [1, 64, 1000] {
        let mut fresh = Fresh::default();
        let add = |fresh: &mut Fresh, n: u32, size: u32| {
            let batch: Vec<_> = (n..n + size).map(|n| (n, entry(n), payload(n))).collect();
            let begun = Instant::now();
            // As the memory is: somebody holds what was there before.
            let held = fresh.clone();
            fresh.add(batch);
            drop(held);
            begun.elapsed()
        };
        for n in (0..60_000).step_by(size as usize) {
            add(&mut fresh, n, size);
        }
        let mut times: Vec<Duration> =
            (0..400).map(|batch| add(&mut fresh, 61_000 + batch * size, size)).collect();
        let runs = fresh.runs().len();
        let mean = times.iter().sum::<Duration>() / 400;
        times.sort_unstable();
        let found = Instant::now();
        let missing: Vec<PointId> = (0..1000).map(|n| PointId::new(format!("nobody {n}")).unwrap()).collect();
        assert!(missing.iter().all(|id| fresh.find(id, IdHash::of(id)).is_none()));
        println!(
            "batches of {size}: {mean:?} each, half of them below {:?}, the longest {:?}; {runs} runs, an id that is not there: {:?}",
            times[200],
            times[399],
            found.elapsed() / 1000
        );
    }
}
