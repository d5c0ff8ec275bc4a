//! Many collections: few are open, and no one owns a thread.

use std::{
    path::Path,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    config::{DataConfig, EncoderConfig},
    error::ErrorKind,
};

const MANY: usize = 200;
const OPEN_MAX: usize = 4;

fn config(dir: &Path) -> Config {
    Config {
        data: DataConfig {
            dir: dir.join("db"),
            open_collections_max: OPEN_MAX,
            close_after: Duration::from_millis(50),
            ..DataConfig::default()
        },
        encoder: EncoderConfig { model: NO_MODEL.into(), ..EncoderConfig::default() },
        ..Config::default()
    }
}

fn name(n: usize) -> String {
    format!("c{n:03}")
}

async fn create(engine: &Engine, n: usize) {
    let new = NewCollection { name: name(n), dimension: Some(2), vectors_only: true, ..Default::default() };
    engine.create_collection(new).await.unwrap();
    let document = Document {
        id: "only".into(),
        payload: [("n".to_owned(), crate::value::Value::Integer(n as i64))].into(),
        vector: Some(vec![1.0, n as f32]),
        ..Document::default()
    };
    engine.upsert(&name(n), vec![document], Caller::default()).await.unwrap();
}

/// Threads and open files of the process that belong to an engine; those of tokio, and sled's own helpers, are the
/// process's.
#[cfg(target_os = "linux")]
fn held(data: &Path) -> (usize, usize) {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let files = files
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(data))
        .count();
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let threads = threads
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .filter(|name| !["tokio", "sled"].iter().any(|others| name.starts_with(others)))
        .count();
    (threads, files)
}

/// In a process of its own, since threads and files of other tests would be counted too.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test after it"]
async fn many_alone() {
    let dir = tempfile::tempdir().unwrap();
    // All are open.
    let data = DataConfig { open_collections_max: MANY, ..config(dir.path()).data };
    let data = DataConfig { close_after: Duration::ZERO, dir: dir.path().join("all"), ..data };
    let engine = Engine::open(&Config { data, ..config(dir.path()) }).unwrap();
    create(&engine, 0).await;
    let one = held(dir.path());
    for n in 1..MANY {
        create(&engine, n).await;
    }
    assert_eq!(engine.counts().await.unwrap().open.len(), MANY);
    assert_eq!(held(dir.path()), one, "threads and files: an open collection has none of its own");
    assert!(!crate::allocator::is_due(), "nothing was closed yet");
    engine.close().await.unwrap();
    drop(engine);

    let engine = Engine::open(&config(dir.path())).unwrap();
    for n in 0..OPEN_MAX {
        create(&engine, n).await;
    }
    let few = held(dir.path());
    for n in OPEN_MAX..MANY {
        create(&engine, n).await;
    }
    assert!(crate::allocator::is_due(), "what those that were closed gave back stays with the process");
    assert_eq!(held(dir.path()), few, "threads and files");
    engine.close().await.unwrap();
    drop(engine);

    let engine = Engine::open(&config(dir.path())).unwrap();
    assert_eq!(engine.counts().await.unwrap().open.len(), 0, "none is open at the start");
    assert_eq!(engine.collections().await.unwrap().len(), MANY);
    // More at once than may be open.
    let asked: Vec<_> = (0..MANY)
        .step_by(5)
        .map(|n| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let query = SearchQuery::new(Ask::Vector(vec![1.0, n as f32]), 3);
                let hits = engine.search(&name(n), query, Caller::default()).await.unwrap().hits;
                assert_eq!(hits.len(), 1);
                assert_eq!(hits[0].payload["n"], crate::value::Value::Integer(n as i64));
            })
        })
        .collect();
    for asked in asked {
        asked.await.unwrap();
    }
    assert_eq!(held(dir.path()), few, "threads and files");
    // What nobody needs any more is closed.
    let waiting = Instant::now();
    loop {
        let open = engine.counts().await.unwrap().open;
        if open.is_empty() {
            break;
        }
        engine.probe();
        assert!(waiting.elapsed() < Duration::from_secs(60), "{open:?} are open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(engine.count(&name(7), None).await.unwrap(), 1);
    engine.close().await.unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn two_hundred_collections_hold_no_more_threads_and_files_than_the_few_that_are_open() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["engine::tests::many::many_alone", "--exact", "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_collection_is_refused_when_it_is_first_needed_and_the_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let engine = Engine::open(&config).unwrap();
    for n in 0..OPEN_MAX + 2 {
        create(&engine, n).await;
    }
    engine.close().await.unwrap();
    drop(engine);
    let folders = config.data.dir.join("collections");
    let victim = std::fs::read_dir(&folders).unwrap().next().unwrap().unwrap().path();
    std::fs::write(victim.join("segments"), b"nonsense").unwrap();
    let engine = Engine::open(&config).unwrap();
    let mut refused = 0;
    for n in 0..OPEN_MAX + 2 {
        match engine.count(&name(n), None).await {
            Ok(count) => assert_eq!(count, 1),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert!(error.to_string().contains(&name(n)), "{error}");
                assert!(engine.collection(&name(n)).await.unwrap().damage.is_some());
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 1);
    engine.close().await.unwrap();
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_cannot_be_opened_now_is_not_called_damaged_and_opens_later() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let engine = Engine::open(&config).unwrap();
    create(&engine, 0).await;
    engine.close().await.unwrap();
    drop(engine);
    let folders = config.data.dir.join("collections");
    let folder = std::fs::read_dir(&folders).unwrap().next().unwrap().unwrap().path();
    // A link in a circle stands for whatever the system refuses, such as one file too many.
    let (file, aside) = (folder.join("segments"), folder.join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    std::os::unix::fs::symlink(&file, &file).unwrap();
    let engine = Engine::open(&config).unwrap();
    let error = engine.count(&name(0), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let said = error.to_string();
    assert!(said.contains(&name(0)) && said.contains("cannot be opened now"), "{said}");
    assert!(!said.contains("backup") && !said.contains("delete"), "{said}");
    std::fs::remove_file(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    let begun = Instant::now();
    while let Err(error) = engine.count(&name(0), None).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(engine.collection(&name(0)).await.unwrap().damage, None);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_made_opened_and_deleted_while_the_work_pool_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(&config(dir.path())).unwrap();
    let new = |n| NewCollection {
        name: name(n),
        dimension: Some(2),
        vectors_only: true,
        ..NewCollection::default()
    };
    let held = engine.occupy_work_pool();
    let changes = async {
        // Each of the later ones closes another.
        for n in 0..OPEN_MAX + 2 {
            engine.create_collection(new(n)).await.unwrap();
        }
        engine.set_alias("a", &name(0)).await.unwrap();
        engine.delete_alias("a").await.unwrap();
        engine.delete_collection(&name(1)).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(60), changes).await.unwrap();
    drop(held);
    assert_eq!(engine.count(&name(0), None).await.unwrap(), 0);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_listed_and_counted_by_the_work_pool() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(&config(dir.path())).unwrap();
    create(&engine, 0).await;
    let held = engine.occupy_work_pool();
    let (mut list, mut counts) = (Box::pin(engine.collections()), Box::pin(engine.counts()));
    let begun = std::future::poll_fn(|context| {
        Poll::Ready((list.as_mut().poll(context).is_ready(), counts.as_mut().poll(context).is_ready()))
    });
    assert_eq!(begun.await, (false, false), "an async thread did it");
    drop(held);
    assert_eq!(list.await.unwrap()[0].name, name(0));
    let Counts { open, damaged } = counts.await.unwrap();
    assert_eq!((open[0].0.as_str(), open[0].1.documents, damaged), ("c000", 1, 0));
    engine.close().await.unwrap();
}
