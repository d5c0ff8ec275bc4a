//! Backups of a data folder that is at work, and what is made of them, whole or damaged, and cut off anywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::*;
use crate::{
    collection::Durability,
    config::{Config, DataConfig, EncoderConfig, NO_MODEL},
    engine::{
        Caller, Document, ListingQuery, NewCollection,
        catalog::tests::{bytes_in, copy},
        repair_folder, verify_folder,
    },
    error::{ErrorKind, Fault as _},
    files::{forgetful::ForgetfulDisk, regular, staged},
    log::LogOptions,
    random::SplitMix,
    segmented::{
        Options, SPACE, Space, Store, StoreBatch,
        logs::{FolderLog, FolderOptions},
    },
    store::{Identity, body::Body},
    threads::Threads,
    value::{Payload, PointId, Value},
    vector::{Dim, Metric},
};

const CALLER: Caller = Caller { deadline: None, client: 0, durability: Durability::Power, request: None };

/// A data folder, and a place for backups beside it.
struct Home {
    folder: tempfile::TempDir,
    config: Config,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataConfig {
            dir: folder.path().join("db"),
            home: folder.path().join("home"),
            backups: folder.path().join("backups"),
            segment_bytes: 64 << 10,
            log_bytes_max: 1 << 20,
            ..DataConfig::default()
        };
        let encoder = EncoderConfig { model: NO_MODEL.into(), ..EncoderConfig::default() };
        Home { config: Config { data, encoder, ..Config::default() }, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self) -> Arc<Engine> {
        Engine::open(&self.config).unwrap()
    }

    /// Folders of collections.
    fn folders(&self) -> usize {
        fs::read_dir(self.config.data.dir.join("collections")).unwrap().count()
    }
}

fn document(n: u64, generation: u64) -> Document {
    Document {
        id: format!("document {n:04}"),
        title: format!("title {n} {generation}"),
        text: format!("the text of document {n} in generation {generation}. ")
            .repeat(1 + (n as usize % 5) * 20),
        payload: Payload::from([
            ("n".to_owned(), Value::Integer(n.cast_signed())),
            ("generation".to_owned(), Value::Integer(generation.cast_signed())),
        ]),
        vector: Some(vec![n as f32 + 1.0, generation as f32 + 0.5]),
        ..Document::default()
    }
}

async fn create(engine: &Engine, name: &str) {
    let new = NewCollection {
        name: name.into(),
        vectors_only: true,
        dimension: Some(2),
        ..NewCollection::default()
    };
    engine.create_collection(new).await.unwrap();
}

async fn fill(engine: &Engine, name: &str, documents: u64) {
    create(engine, name).await;
    engine.upsert(name, (0..documents).map(|n| document(n, 1)).collect(), CALLER).await.unwrap();
    let gone = (0..documents).step_by(7).map(|n| document(n, 1).id.as_str().into()).collect();
    engine.delete(name, gone, CALLER).await.unwrap();
    engine
        .upsert(name, (0..documents).skip(3).step_by(9).map(|n| document(n, 2)).collect(), CALLER)
        .await
        .unwrap();
}

/// Waits until some of a collection lies in a segment.
async fn sealed(engine: &Engine, name: &str) {
    while engine.stats(name, Default::default()).await.unwrap().segments == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every document of a collection: what it holds, by its id.
async fn contents(engine: &Engine, name: &str) -> BTreeMap<String, (u64, String, u64)> {
    let (mut found, mut cursor) = (BTreeMap::new(), None);
    loop {
        let query = ListingQuery {
            filter: None,
            cursor: cursor.take(),
            limit: 500,
            with_text: true,
            with_vectors: false,
        };
        let page = engine.scroll(name, query, crate::budget::Room::unbounded()).await.unwrap();
        for point in page.points {
            let Some(Value::Integer(generation)) = point.payload.get("generation") else {
                panic!("{point:?}")
            };
            let generation = generation.cast_unsigned();
            let n = point.id.as_str().rsplit(' ').next().unwrap().parse().unwrap();
            let whole = document(n, generation);
            assert_eq!(
                (point.id.as_str(), &point.title, &point.text),
                (&*whole.id, &whole.title, &whole.text)
            );
            let before = found.insert(whole.id, (generation, point.text, point.version));
            assert!(before.is_none(), "{n} is there twice");
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return found;
        }
    }
}

fn wish(collection: &str, rename: &str) -> RestoreWish {
    RestoreWish { collection: Some(collection.into()), rename: Some(rename.into()), aliases: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_backed_up_is_restored_beside_it_and_elsewhere() {
    let home = Home::new();
    let engine = home.open();
    fill(&engine, "a", 300).await;
    fill(&engine, "b", 20).await;
    create(&engine, "empty").await;
    engine.set_alias("live", "a").await.unwrap();
    engine.set_alias("other", "a").await.unwrap();
    let before = [contents(&engine, "a").await, contents(&engine, "b").await];

    let made = engine.back_up_as("monday", BackupWish::default()).await.unwrap();
    let names: Vec<&str> = made.backup.collections.iter().map(|c| c.name.as_str()).collect();
    assert_eq!((made.backup.name.as_str(), names), ("monday", vec!["a", "b", "empty"]));
    assert_eq!(made.backup.collections[0].documents, before[0].len() as u64);
    assert_eq!(made.backup.collections[0].aliases, ["live", "other"]);
    assert_eq!(made.linked_bytes + made.copied_bytes, made.backup.bytes);
    assert!(made.linked_bytes > 0, "{made:?}");
    assert_eq!(engine.backups().await.unwrap(), std::slice::from_ref(&made.backup));
    let verified = verify_backup(&home.path("backups/monday"), &Stop::default(), |_, _| ()).unwrap();
    assert!(verified.whole && verified.notes.is_empty(), "{verified:?}");

    // What becomes of the collections is nothing to the backup.
    engine.upsert("a", (0..300).map(|n| document(n, 9)).collect(), CALLER).await.unwrap();
    engine.delete_collection("b").await.unwrap();
    let restored = engine.restore_from("monday", wish("a", "then")).await.unwrap();
    assert_eq!((restored[0].documents, restored[0].from.as_str()), (before[0].len() as u64, "a"));
    assert_eq!(restored[0].aliases_left, ["live", "other"]);
    assert_eq!(restored[0].missing_model, None);
    assert_eq!(contents(&engine, "then").await, before[0]);
    let restored =
        engine.restore_from("monday", RestoreWish { collection: Some("b".into()), ..RestoreWish::default() });
    assert_eq!(restored.await.unwrap()[0].info.name, "b");
    assert_eq!(contents(&engine, "b").await, before[1]);
    // Each has an identity of its own, and is a collection like any other.
    let identity = |name: &str| engine.names.now().find(name).unwrap().collection().unwrap().identity();
    assert_ne!(identity("a"), identity("then"));
    let outcome = engine.upsert("then", vec![document(1, 3)], CALLER).await.unwrap();
    assert!(outcome[0].version > before[0].values().map(|(_, _, version)| *version).max().unwrap());

    // Another folder, all of it, with the aliases; and a backup of what was restored.
    let other = Home::new();
    let elsewhere = other.open();
    let all = RestoreWish { aliases: true, ..RestoreWish::default() };
    let restored = elsewhere.restore(&home.path("backups/monday"), all).await.unwrap();
    assert_eq!(restored.iter().map(|r| r.info.name.as_str()).collect::<Vec<_>>(), ["a", "b", "empty"]);
    assert_eq!(restored[0].info.aliases, ["live", "other"]);
    assert_eq!(contents(&elsewhere, "live").await, before[0]);
    elsewhere.close().await.unwrap();
    drop(elsewhere);
    let elsewhere = other.open();
    assert_eq!(elsewhere.findings(), []);
    assert_eq!([contents(&elsewhere, "a").await, contents(&elsewhere, "b").await], before);
    let again =
        elsewhere.back_up_as("again", BackupWish { copy: true, ..BackupWish::default() }).await.unwrap();
    assert_eq!(again.linked_bytes, 0);
    elsewhere.close().await.unwrap();
    drop(elsewhere);
    let folder = verify_folder(&other.config.data.dir, &Stop::default(), |_, _| ()).unwrap();
    assert!(folder.whole, "{folder:?}");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_and_places_that_will_not_do_are_refused_before_anything_is_made() {
    let home = Home::new();
    let engine = home.open();
    fill(&engine, "a", 10).await;
    fill(&engine, "b", 10).await;
    engine.set_alias("live", "a").await.unwrap();
    engine.back_up_as("one", BackupWish::default()).await.unwrap();
    let all = BackupWish::default;

    for name in ["", ".", "..", "../one", "/etc", "a/b", ".one.distilface-new", "a\0b", "ä"] {
        let refused = engine.back_up_as(name, all()).await.unwrap_err();
        assert!(matches!(refused, EngineError::BadName { .. }), "{name:?}: {refused}");
        let refused = engine.restore_from(name, wish("a", "x")).await.unwrap_err();
        assert!(matches!(refused, EngineError::BadName { .. }), "{name:?}: {refused}");
    }
    let refused = engine.back_up_as("one", all()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Exists, "{refused}");
    let refused = engine.restore_from("two", RestoreWish::default()).await.unwrap_err();
    assert!(refused.to_string().contains("there are: one"), "{refused}");

    fs::create_dir(home.path("full")).unwrap();
    fs::write(home.path("full/theirs"), "").unwrap();
    fs::write(home.path("file"), "").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&home.config.data.dir, home.path("link")).unwrap();
    let places = [
        ("full", "there already"),
        ("file", "there already"),
        ("db", "in the data folder"),
        ("db/backup", "in the data folder"),
        ("link/backup", "in the data folder"),
        ("link", "there already"),
        ("none/backup", "no folder"),
        ("full/..", "no place"),
    ];
    for (place, word) in places {
        let refused = engine.back_up(&home.path(place), all()).await.unwrap_err();
        assert!(refused.to_string().contains(word), "{place}: {refused}");
    }
    let held = staged::hold(&home.path("backups")).unwrap();
    let busy = engine.back_up_as("three", all()).await.unwrap_err();
    assert!(matches!(busy, EngineError::BackupBusy { .. }), "{busy}");
    drop(held);
    let unknown = BackupWish { collections: vec!["live".into(), "none".into()], ..all() };
    let refused = engine.back_up_as("three", unknown).await.unwrap_err();
    assert!(matches!(refused, EngineError::NoCollection { .. }), "{refused}");

    let folders = home.folders();
    let from = home.path("backups/one");
    type Refusal = (RestoreWish, &'static str);
    let wishes: [Refusal; 8] = [
        (RestoreWish::default(), "\"a\" exists"),
        (wish("a", "live"), "is an alias"),
        (wish("a", "../x"), "not allowed"),
        (wish("none", "x"), "no collection or alias \"none\""),
        (RestoreWish { rename: Some("x".into()), ..RestoreWish::default() }, "2 collections"),
        (RestoreWish { aliases: true, ..wish("a", "x") }, "alias \"live\" leads to \"a\""),
        (RestoreWish { aliases: true, ..wish("a", "a") }, "\"a\" exists"),
        (RestoreWish { collection: Some("b".into()), ..RestoreWish::default() }, "\"b\" exists"),
    ];
    for (wish, word) in wishes {
        let refused = engine.restore(&from, wish).await.unwrap_err();
        assert!(refused.to_string().contains(word), "{word}: {refused}");
    }
    for (place, word) in
        [("db", "is a data folder"), ("full", "is no backup"), ("none", "there is no backup")]
    {
        let refused = engine.restore(&home.path(place), wish("a", "x")).await.unwrap_err();
        assert!(refused.to_string().contains(word), "{place}: {refused}");
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{place}");
    }
    assert_eq!(home.folders(), folders);
    engine.delete_alias("live").await.unwrap();
    engine
        .create_collection(NewCollection {
            name: "live".into(),
            vectors_only: true,
            dimension: Some(2),
            ..NewCollection::default()
        })
        .await
        .unwrap();
    let refused = engine.restore(&from, RestoreWish { aliases: true, ..wish("a", "x") }).await.unwrap_err();
    assert!(matches!(refused, EngineError::AliasTaken { .. }), "{refused}");
    engine.close().await.unwrap();
    drop(engine);

    let mut config = home.config.clone();
    config.data.backups = PathBuf::new();
    let engine = Engine::open(&config).unwrap();
    for refused in [
        engine.back_up_as("x", all()).await.map(drop),
        engine.restore_from("x", wish("a", "x")).await.map(drop),
        engine.backups().await.map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains("data.backups"), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Precondition);
    }
    engine.close().await.unwrap();
    drop(engine);
    // A backup is not served: that would write into it.
    config.data.dir = from.clone();
    let before = bytes_in(&from);
    let refused = Engine::open(&config).unwrap_err();
    assert!(refused.to_string().contains("distilface restore"), "{refused}");
    assert!(bytes_in(&from) == before);
}

/// Every kind of damage of every file is named, and nothing damaged is restored.
#[tokio::test(flavor = "multi_thread")]
async fn damage_of_any_file_is_named_and_never_restored() {
    let home = Home::new();
    let engine = home.open();
    fill(&engine, "a", 120).await;
    fill(&engine, "b", 10).await;
    // Some of it lies in segments, with deletions.
    sealed(&engine, "a").await;
    engine.delete("a", vec!["document 0005".into(), "document 0101".into()], CALLER).await.unwrap();
    let made = engine.back_up_as("good", BackupWish { copy: true, ..BackupWish::default() }).await.unwrap();
    let good = home.path("backups/good");
    let files: Vec<PathBuf> = bytes_in(&good).into_keys().collect();
    assert!(files.iter().any(|file| file.to_string_lossy().contains(".deleted.1")), "{files:?}");
    let mut random = SplitMix(7);
    let mut tried = 0;
    for file in &files {
        let inside = file.strip_prefix(&good).unwrap();
        let bytes = fs::read(file).unwrap();
        let mut damages: Vec<Option<Vec<u8>>> =
            vec![None, Some(Vec::new()), Some(bytes[..bytes.len() - 1].to_vec())];
        damages.push(Some([&bytes[..], b"x"].concat()));
        let places: Vec<u64> =
            (0..6).map(|_| random.below(bytes.len() as u64)).chain([0, bytes.len() as u64 - 1]).collect();
        for at in places {
            let mut flipped = bytes.clone();
            flipped[at as usize] ^= 1 << random.below(8);
            damages.push(Some(flipped));
        }
        let bad = home.path("backups/bad");
        for damage in damages {
            tried += 1;
            let _ = fs::remove_dir_all(&bad);
            copy(&good, &bad);
            match &damage {
                Some(bytes) => fs::write(bad.join(inside), bytes).unwrap(),
                None => fs::remove_file(bad.join(inside)).unwrap(),
            }
            let context = format!("{}, {:?}", inside.display(), damage.map(|bytes| bytes.len()));
            let folders = home.folders();
            if inside == Path::new(manifest::FILE) && !bad.join(inside).exists() {
                let refused = verify_backup(&bad, &Stop::default(), |_, _| ()).unwrap_err();
                assert!(refused.to_string().contains("no file \"backup\""), "{context}: {refused}");
                assert!(engine.restore(&bad, wish("a", "x")).await.is_err(), "{context}");
                continue;
            }
            let verified = verify_backup(&bad, &Stop::default(), |_, _| ());
            let (is_a, is_whole) = match verified {
                Ok(verified) => {
                    let named = verified
                        .collections
                        .iter()
                        .find(|c| c.damages.iter().any(|d| d.file == bad.join(inside)));
                    let is_named =
                        named.is_some() || verified.damages.iter().any(|d| d.file == bad.join(inside));
                    assert!(is_named, "{context}: {verified:?}");
                    (named.map(|c| c.name.clone()), verified.whole)
                }
                // One byte tells of a later version.
                Err(error) => {
                    assert_eq!(
                        (error.kind(), inside),
                        (ErrorKind::Precondition, Path::new(manifest::FILE)),
                        "{context}"
                    );
                    (None, false)
                }
            };
            assert!(!is_whole, "{context}");
            let hit = is_a.clone().unwrap_or_else(|| "a".to_owned());
            let refused = engine.restore(&bad, wish(&hit, "x")).await.unwrap_err();
            assert!(
                matches!(refused.kind(), ErrorKind::Corrupt | ErrorKind::Precondition),
                "{context}: {refused}"
            );
            assert!(refused.to_string().contains(&bad.display().to_string()), "{context}: {refused}");
            assert_eq!(home.folders(), folders, "{context}");
            // The other one is not touched by it.
            if let Some(other) = is_a.map(|name| if name == "a" { "b" } else { "a" })
                && tried % 9 == 0
            {
                engine.restore(&bad, wish(other, "y")).await.unwrap();
                assert_eq!(contents(&engine, "y").await, contents(&engine, other).await, "{context}");
                engine.delete_collection("y").await.unwrap();
            }
        }
    }
    println!("{tried} damages of {} files", files.len());
    // Some are told by name.
    let listed = engine.backups().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[1], made.backup);
    #[cfg(unix)]
    for damage in [regular::pipe, regular::endless] {
        let bad = home.path("backups/bad");
        let _ = fs::remove_dir_all(&bad);
        copy(&good, &bad);
        let file = bad.join(files[2].strip_prefix(&good).unwrap());
        damage(&file);
        let verified = verify_backup(&bad, &Stop::default(), |_, _| ()).unwrap();
        assert!(!verified.whole);
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_collections_those_before_a_damaged_one_are_restored_and_told() {
    let home = Home::new();
    let engine = home.open();
    fill(&engine, "a", 10).await;
    fill(&engine, "b", 10).await;
    let made = engine.back_up_as("one", BackupWish { copy: true, ..BackupWish::default() }).await.unwrap();
    let before = contents(&engine, "a").await;
    for name in ["a", "b"] {
        engine.delete_collection(name).await.unwrap();
    }
    let manifest = Manifest::read(&RealDisk, &made.backup.folder).unwrap().unwrap();
    let kept = &manifest.collections[1];
    fs::remove_file(made.backup.folder.join(&kept.folder).join(&kept.files[0].path)).unwrap();
    let refused = engine.restore_from("one", RestoreWish::default()).await.unwrap_err();
    assert!(refused.to_string().starts_with("a is restored, and \"b\" is not: "), "{refused}");
    assert!(refused.is_for_callers());
    assert_eq!(contents(&engine, "a").await, before);
    assert_eq!(engine.collections().await.unwrap().len(), 1);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_backup_is_made_of_what_is_damaged_and_nothing_is_left_of_one_that_nobody_waits_for() {
    let home = Home::new();
    let engine = home.open();
    fill(&engine, "a", 200).await;
    sealed(&engine, "a").await;
    let left = || fs::read_dir(home.path("backups")).map_or(0, |entries| entries.count());
    // Of a call that is dropped at once, and of one that is dropped later.
    for wait in [0, 1, 3, 10] {
        let call = engine.back_up_as("dropped", BackupWish { copy: true, ..BackupWish::default() });
        let done = tokio::time::timeout(Duration::from_millis(wait), call).await;
        // The thread may not have begun, or need a moment to hear it.
        let unfinished = || {
            let entries = fs::read_dir(home.path("backups")).into_iter().flatten();
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with('.'))
        };
        let mut quiet = 0;
        for _ in 0..6000 {
            quiet = if unfinished() { 0 } else { quiet + 1 };
            if quiet == 20 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!unfinished(), "{wait}");
        // It may have been finished at the same time; then it is a whole one.
        if done.is_ok() || left() > 0 {
            let verified = verify_backup(&home.path("backups/dropped"), &Stop::default(), |_, _| ()).unwrap();
            assert!(verified.whole, "{verified:?}");
        }
        let _ = fs::remove_dir_all(home.path("backups/dropped"));
    }
    // What a kill left goes with the next one.
    fs::create_dir_all(home.path("backups/.old.distilface-new/0001-0")).unwrap();
    engine.back_up_as("one", BackupWish::default()).await.unwrap();
    assert_eq!(left(), 1);
    let folders = home.folders();
    for wait in [0, 1, 3, 10] {
        let call = engine.restore_from("one", wish("a", "dropped"));
        let _ = tokio::time::timeout(Duration::from_millis(wait), call).await;
        let mut quiet = 0;
        for _ in 0..6000 {
            // It may have been finished at the same time.
            let _ = engine.delete_collection("dropped").await;
            quiet = if home.folders() > folders { 0 } else { quiet + 1 };
            if quiet == 20 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(home.folders(), folders, "{wait}");
    }
    engine.close().await.unwrap();
    drop(engine);
    let folder =
        fs::read_dir(home.config.data.dir.join("collections")).unwrap().next().unwrap().unwrap().path();
    let segment =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("documents").is_file());
    let documents = segment.unwrap().join("documents");
    let mut bytes = fs::read(&documents).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::remove_file(&documents).unwrap();
    fs::write(&documents, bytes).unwrap();
    let engine = home.open();
    let refused = engine.back_up_as("two", BackupWish::default()).await.unwrap_err();
    assert!(matches!(&refused, EngineError::Damaged { name, .. } if name == "a"), "{refused}");
    assert!(refused.to_string().contains(&documents.display().to_string()), "{refused}");
    assert_eq!(left(), 1);
    // The backup of before has it still, and a repair writes into no file that the backup shares.
    engine.close().await.unwrap();
    drop(engine);
    let before = bytes_in(&home.path("backups/one"));
    repair_folder(&home.config.data.dir, &[], true, &Stop::default()).unwrap();
    assert!(bytes_in(&home.path("backups/one")) == before);
    let verified = verify_backup(&home.path("backups/one"), &Stop::default(), |_, _| ()).unwrap();
    assert!(verified.whole, "{verified:?}");
}

/// The state of a data folder when the process is killed while a collection is restored, just before it is announced.
#[tokio::test(flavor = "multi_thread")]
async fn a_restoring_that_was_cut_off_is_removed_by_the_next_start() {
    let home = Home::new();
    let engine = home.open();
    fill(&engine, "a", 30).await;
    let before = contents(&engine, "a").await;
    let made = engine.back_up_as("one", BackupWish::default()).await.unwrap();
    let manifest = Manifest::read(&RealDisk, &made.backup.folder).unwrap().unwrap();
    let kept = &manifest.collections[0];
    let (disk, sums): (Arc<dyn Disk>, _) = (Arc::new(RealDisk), kept.sums());
    let dir = made.backup.folder.join(&kept.folder);
    let (half, root) = (home.path("half"), home.config.data.dir.clone());
    let names = Arc::clone(&engine.names);
    let info = CollectionInfo { name: "x".into(), ..engine.collection("a").await.unwrap() };
    let refused = crate::engine::run_blocking(move || {
        names.fill_new(info, |to, spec, options| {
            let sums = |path: &Path| sums.get(path).copied();
            let place = crate::collection::CopyPlace {
                disk: &disk,
                dir: &dir,
                identity: kept_identity(&dir),
                sums: &sums,
            };
            let collection =
                crate::collection::Collection::restore(to, spec, &place, options, &Stop::default());
            drop(collection?);
            copy(&root, &half);
            Err(EngineError::Closing)
        })
    })
    .await
    .unwrap();
    assert!(matches!(refused, Err(EngineError::Closing)), "{refused:?}");
    assert_eq!(home.folders(), 1, "what failed is removed at once");
    engine.close().await.unwrap();
    drop(engine);
    let mut config = home.config.clone();
    config.data.dir = home.path("half");
    assert_eq!(fs::read_dir(home.path("half/collections")).unwrap().count(), 2);
    let engine = Engine::open(&config).unwrap();
    assert_eq!(engine.findings(), []);
    assert_eq!(fs::read_dir(home.path("half/collections")).unwrap().count(), 1);
    assert_eq!(contents(&engine, "a").await, before);
    engine.close().await.unwrap();
}

fn kept_identity(dir: &Path) -> Identity {
    FolderLog::collection_in(dir).unwrap().unwrap()
}

/// Writers, deleters, sealing, merging and backups at once; every backup holds what was acknowledged before it began, and
/// nothing that was not sent by its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn backups_beside_writers_and_merges_hold_all_that_was_acknowledged() {
    const WRITERS: u64 = 4;
    const OWN: u64 = 40;
    const BACKUPS: u64 = 6;
    // One generation in five deletes.
    let deletes = |generation: u64| generation.is_multiple_of(5);
    let home = Home::new();
    let engine = home.open();
    create(&engine, "c").await;
    let numbers = || (0..WRITERS * OWN).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let (sent, acknowledged, is_done) =
        (Arc::new(numbers()), Arc::new(numbers()), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (engine, sent, acknowledged, is_done) =
            (Arc::clone(&engine), Arc::clone(&sent), Arc::clone(&acknowledged), Arc::clone(&is_done));
        writers.push(tokio::spawn(async move {
            let mut random = SplitMix(writer);
            while !is_done.load(Ordering::SeqCst) {
                let ids: BTreeSet<u64> =
                    (0..1 + random.below(6)).map(|_| writer * OWN + random.below(OWN)).collect();
                let next = |n: &u64| sent[*n as usize].fetch_add(1, Ordering::SeqCst) + 1;
                let changes: Vec<(u64, u64)> = ids.iter().map(|n| (*n, next(n))).collect();
                let (gone, put): (Vec<_>, Vec<_>) =
                    changes.iter().partition(|(_, generation)| deletes(*generation));
                let put: Vec<Document> =
                    put.iter().map(|(n, generation)| document(*n, *generation)).collect();
                if !put.is_empty() {
                    engine.upsert("c", put, CALLER).await.unwrap();
                }
                if !gone.is_empty() {
                    let gone = gone.iter().map(|(n, _)| document(*n, 0).id.as_str().into()).collect();
                    engine.delete("c", gone, CALLER).await.unwrap();
                }
                for (n, generation) in changes {
                    acknowledged[n as usize].store(generation, Ordering::SeqCst);
                }
            }
        }));
    }
    let state =
        |numbers: &[AtomicU64]| -> Vec<u64> { numbers.iter().map(|n| n.load(Ordering::SeqCst)).collect() };
    let mut taken: Vec<(String, Vec<u64>, Vec<u64>)> = Vec::new();
    for number in 0..BACKUPS {
        // So that there is something new in each.
        let total = |numbers: &[AtomicU64]| state(numbers).iter().sum::<u64>();
        let before = total(&acknowledged);
        while total(&acknowledged) < before + 400 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (name, least) = (format!("b{number}"), state(&acknowledged));
        let wish = BackupWish { copy: number % 3 == 2, ..BackupWish::default() };
        engine.back_up_as(&name, wish).await.unwrap();
        taken.push((name, least, state(&sent)));
    }
    is_done.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let stats = engine.stats("c", Default::default()).await.unwrap();
    println!("{} writes, {} segments in the end", state(&sent).iter().sum::<u64>(), stats.segments);
    for (name, least, most) in &taken {
        let verified = verify_backup(&home.path("backups").join(name), &Stop::default(), |_, _| ()).unwrap();
        assert!(verified.whole, "{verified:?}");
        engine.restore_from(name, wish("c", name)).await.unwrap();
        let found = contents(&engine, name).await;
        assert_eq!(verified.collections[0].documents, found.len() as u64);
        for n in 0..WRITERS * OWN {
            let (least, most) = (least[n as usize], most[n as usize]);
            let generation = found.get(&document(n, 0).id).map(|(generation, ..)| *generation);
            let fits = match generation {
                Some(generation) => (least.max(1)..=most).contains(&generation) && !deletes(generation),
                // Never written, or deleted.
                None => (least..=most).any(deletes),
            };
            assert!(fits, "{name}: document {n} is {generation:?}, of {least} to {most}");
        }
    }
    engine.close().await.unwrap();
    drop(engine);
    let folder = verify_folder(&home.config.data.dir, &Stop::default(), |_, _| ()).unwrap();
    assert!(folder.whole, "{folder:?}");
}

/// Of all collections those are in a backup that are there all the time; whatever is made and deleted meanwhile breaks none.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_of_all_collections_goes_on_while_some_are_deleted_and_made() {
    let home = Home::new();
    let engine = home.open();
    for n in 0..6 {
        fill(&engine, &format!("c{n}"), 40).await;
    }
    let is_done = Arc::new(AtomicBool::new(false));
    let changing = {
        let (engine, is_done) = (Arc::clone(&engine), Arc::clone(&is_done));
        tokio::spawn(async move {
            let mut random = SplitMix(1);
            while !is_done.load(Ordering::SeqCst) {
                let name = format!("c{}", 1 + random.below(5));
                let _ = engine.delete_collection(&name).await;
                fill(&engine, &name, 20).await;
            }
        })
    };
    for number in 0..12 {
        let wish = BackupWish { copy: number % 2 == 0, ..BackupWish::default() };
        let made = engine.back_up_as(&format!("b{number}"), wish).await.unwrap();
        assert!(made.backup.collections.iter().any(|collection| collection.name == "c0"), "{made:?}");
        let verified = verify_backup(&made.backup.folder, &Stop::default(), |_, _| ()).unwrap();
        assert!(verified.whole && verified.notes.is_empty(), "{verified:?}");
    }
    is_done.store(true, Ordering::SeqCst);
    changing.await.unwrap();
    engine.close().await.unwrap();
}

/// A store on a disk that forgets, and how it is put into a backup.
struct Stored {
    store: Store,
    info: CollectionInfo,
}

const IDENTITY: Identity = Identity([7; 16]);

impl Stored {
    fn new(disk: &Arc<dyn Disk>, threads: &Arc<Threads>) -> Self {
        let (root, dir) = (Path::new("/data"), Path::new("/data/collections/0001-0"));
        for dir in [root, Path::new("/data/collections"), dir, Path::new("/backups")] {
            disk.create_dir(dir).unwrap();
        }
        for dir in [Path::new("/"), root, Path::new("/data/collections")] {
            disk.sync_dir(dir).unwrap();
        }
        let log = LogOptions { file_bytes: 64 << 10, reserve_bytes: 8 << 10, ..LogOptions::default() };
        let options = FolderOptions { log, ..FolderOptions::default() };
        let log = FolderLog::open(disk, root, threads, options).unwrap().0;
        let space = Space {
            number: SPACE,
            dim: Dim::new(2).unwrap(),
            metric: Metric::Cosine,
            fingerprint: String::new(),
        };
        let store = Store::create(&log, dir, IDENTITY, space, Options::sealed_at(4 << 10)).unwrap();
        let info = crate::engine::catalog::tests::info("a", 1);
        Stored { store, info }
    }

    fn write(&self, numbers: std::ops::Range<u64>, gone: &[u64]) {
        let mut batch = StoreBatch::default();
        for number in numbers {
            let body = Body {
                id: PointId::new(format!("document {number}")).unwrap(),
                title: String::new(),
                payload: Payload::new(),
                content_hash: [1; 16],
                passages: std::iter::once(0..4).collect(),
                updated_at: 5,
            };
            batch.put(number, &body, "text", [&[1.0f32, 2.0][..]].into_iter());
        }
        gone.iter().for_each(|number| batch.bury(*number, 1));
        self.store.commit(batch).unwrap();
    }

    fn back_up(&self, disk: &Arc<dyn Disk>, links: bool) -> Result<Manifest> {
        let stop = Stop::default();
        let source = |_: &str| {
            let description = crate::engine::inventory::Description {
                version: crate::engine::inventory::DESCRIPTION_VERSION,
                identity: None,
                info: self.info.clone(),
                folder: "0001-0".to_owned(),
                aliases: BTreeMap::from([("live".to_owned(), 3)]),
                revision: 3,
            };
            let copy = |to: &Path| Ok(self.store.back_up(to, links, &Stop::default())?);
            Ok(Some(make::Source { description, copy: Box::new(copy), is_gone: Box::new(|| false) }))
        };
        let made = make::make(disk, Path::new("/backups/b"), &["a".to_owned()], source, &stop)?;
        Ok(made.0)
    }
}

/// The power goes at every call that a backup makes; what passes for a backup afterwards is whole.
#[test]
fn whenever_the_power_goes_there_is_a_whole_backup_or_none() {
    let threads = Threads::new(1).unwrap();
    let (mut whole, mut none) = (0, 0);
    for seed in 0..6u64 {
        for calls in 1.. {
            let disk = ForgetfulDisk::new((seed << 20) | calls);
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let stored = Stored::new(&shared, &threads);
            stored.write(0..9, &[]);
            stored.store.seal().unwrap();
            stored.write(9..12, &[2, 5]);
            // With other things on the disk that were not synced.
            disk.crash_at_call(calls);
            let made = stored.back_up(&shared, seed % 2 == 0);
            let is_off = disk.is_off();
            drop(stored);
            let after: Arc<dyn Disk> =
                if is_off { Arc::new(disk.crash((seed << 20) | calls)) } else { Arc::new(disk.copy()) };
            match restore::read(&*after, Path::new("/backups/b")) {
                Ok(manifest) => {
                    let verified = verify::verify_one(
                        &after,
                        Path::new("/backups/b"),
                        &manifest.collections[0],
                        &Stop::default(),
                    )
                    .unwrap();
                    assert!(verified.whole, "seed {seed}, call {calls}: {verified:?}");
                    assert_eq!((verified.documents, manifest.collections[0].aliases.len()), (10, 1));
                    whole += 1;
                }
                Err(error) => {
                    assert!(made.is_err(), "seed {seed}, call {calls}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Invalid, "seed {seed}, call {calls}: {error}");
                    none += 1;
                }
            }
            let left = after.list(Path::new("/backups")).unwrap();
            assert!(
                left.iter().all(|entry| entry.name == "b" || entry.name == ".b.distilface-new"),
                "{left:?}"
            );
            if !is_off {
                made.unwrap();
                break;
            }
        }
    }
    println!("{none} times there was none, {whole} times a whole one");
    assert!(none > 100 && whole >= 6);
}

/// A disk that fails at any sync, or is full, leaves nothing of a backup, and harms no collection.
#[test]
fn a_failure_at_any_sync_and_a_full_disk_leave_nothing() {
    let threads = Threads::new(1).unwrap();
    for n in 1.. {
        let disk = ForgetfulDisk::new(n);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let stored = Stored::new(&shared, &threads);
        stored.write(0..9, &[]);
        stored.store.seal().unwrap();
        stored.write(9..12, &[2]);
        disk.fail_sync(n);
        let made = stored.back_up(&shared, true);
        let names: Vec<_> = shared.list(Path::new("/backups")).unwrap().into_iter().map(|e| e.name).collect();
        if made.is_ok() {
            assert!(n > 8, "{n}");
            break;
        }
        // The last sync is of the name: then it is there, and may not be durable.
        assert!(names.is_empty() || names == ["b"], "{names:?}");
        assert_eq!(stored.store.failed(), None);
        stored.write(12..13, &[]);
    }
    let disk = ForgetfulDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let stored = Stored::new(&shared, &threads);
    stored.write(0..9, &[]);
    disk.set_room(1 << 10);
    let refused = stored.back_up(&shared, true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
    assert!(shared.list(Path::new("/backups")).unwrap().is_empty());
}

#[test]
fn two_calls_that_ask_at_once_make_one_backup_each_or_are_refused() {
    // Whichever comes first, nobody finds half of another's.
    let home = Home::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = home.open();
        fill(&engine, "a", 50).await;
        let refused = Mutex::new(0);
        for round in 0..10 {
            let name = format!("r{round}");
            let (one, two) = tokio::join!(
                engine.back_up_as(&name, BackupWish::default()),
                engine.back_up_as(&name, BackupWish::default())
            );
            let done = [&one, &two].iter().filter(|made| made.is_ok()).count();
            assert!(done <= 1, "{one:?} {two:?}");
            for error in [one, two].into_iter().filter_map(std::result::Result::err) {
                assert!(
                    matches!(error, EngineError::BackupBusy { .. } | EngineError::BackupExists { .. }),
                    "{error}"
                );
                *refused.lock().unwrap() += 1;
            }
            let verified = verify_backup(&home.path("backups").join(name), &Stop::default(), |_, _| ());
            assert!(done == 0 || verified.unwrap().whole);
        }
        assert_eq!(*refused.lock().unwrap(), 10);
        engine.close().await.unwrap();
    });
}
