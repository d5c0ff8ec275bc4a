//! Several models in one process: loaded once, shared, dropped when idle or for room, swapped under load.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use tempfile::TempDir;

use super::*;
use crate::{
    encoder::TextKind,
    error::{ErrorKind, Fault as _},
    model::tests::home_with,
    vector::cosine,
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn open(change: impl FnOnce(&mut EncoderConfig)) -> (TempDir, Encoders) {
    let home = home_with(&NAMES);
    let mut config = EncoderConfig {
        model: "a".into(),
        device: "cpu".into(),
        precision: "fp32".into(),
        threads: 1,
        unload_after: Duration::ZERO,
        ..EncoderConfig::default()
    };
    change(&mut config);
    let encoders = Encoders::open(home.path().to_owned(), config)
        .expect("ONNX Runtime is needed: run `make setup` first");
    (home, encoders)
}

fn get(encoders: &Encoders, name: &str) -> Arc<Encoder> {
    encoders.get(&encoders.find(name).unwrap()).unwrap()
}

fn names(encoders: &Encoders) -> Vec<String> {
    encoders.all().iter().map(|e| e.name().to_owned()).collect()
}

fn vector(encoder: &Encoder) -> Vec<f32> {
    encoder.encode(&["the cat sat on the mat"], TextKind::Raw).unwrap().remove(0).values
}

#[test]
fn a_model_is_loaded_once_for_all_who_ask_and_gives_its_own_vectors() {
    let (_home, encoders) = open(|_| {});
    assert_eq!(names(&encoders), ["a"]);
    let model = encoders.find("b").unwrap();
    let got: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| encoders.get(&model).unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(got.iter().all(|encoder| Arc::ptr_eq(encoder, &got[0])));
    assert_eq!(names(&encoders), ["a", "b"]);
    assert!(Arc::ptr_eq(&encoders.loaded(&model.fingerprint).unwrap(), &got[0]));
    assert_ne!(vector(&got[0]), vector(&encoders.default_encoder()));
    assert!(Arc::ptr_eq(&get(&encoders, "a"), &encoders.default_encoder()));
}

#[test]
fn a_model_is_found_by_name_or_fingerprint_and_never_by_path() {
    let (home, encoders) = open(|_| {});
    let before = encoders.find("b").unwrap();
    std::fs::rename(home.path().join("models/b"), home.path().join("models/z")).unwrap();
    for name in ["b", "", "../models/a", home.path().join("models/a").to_str().unwrap()] {
        let error = encoders.find(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("there are: a, c, d, z"), "{error}");
    }
    let found = encoders.find_fingerprint(&before.fingerprint).unwrap();
    assert_eq!(found.path, home.path().join("models/z"));
    std::fs::remove_dir_all(&found.path).unwrap();
    assert!(encoders.find_fingerprint(&before.fingerprint).is_none());
    // What is loaded serves on without its folder.
    std::fs::remove_dir_all(home.path().join("models/a")).unwrap();
    assert_eq!(encoders.find("a").unwrap().fingerprint, *encoders.default_encoder().fingerprint());
    vector(&encoders.default_encoder());
}

#[test]
fn what_nobody_asks_for_is_unloaded_and_loaded_again_on_demand() {
    let (_home, encoders) = open(|config| config.unload_after = Duration::from_millis(200));
    let before = vector(&get(&encoders, "b"));
    let held = get(&encoders, "c");
    let begun = Instant::now();
    while names(&encoders) != ["a", "c"] {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?} are loaded", names(&encoders));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(vector(&get(&encoders, "b")), before);
    // A request that takes longer than the time is use all the while.
    thread::sleep(Duration::from_millis(400));
    assert!(names(&encoders).contains(&"c".to_owned()));
    vector(&held);
    assert_eq!(encoders.counters().texts.load(Ordering::Relaxed), 3 + 4, "each loading encodes one text");
}

#[test]
fn the_least_lately_asked_makes_room_and_its_holders_go_on() {
    let (_home, encoders) = open(|config| config.models_max = 3);
    let b = get(&encoders, "b");
    get(&encoders, "c");
    get(&encoders, "b");
    get(&encoders, "d");
    assert_eq!(names(&encoders), ["a", "b", "d"]);
    get(&encoders, "c");
    assert_eq!(names(&encoders), ["a", "c", "d"]);
    let before = vector(&b);
    assert_eq!(vector(&get(&encoders, "b")), before);
}

#[test]
fn a_model_that_made_room_is_freed_beside_the_async_task_that_let_go_of_it_last() {
    let (_home, encoders) = open(|config| config.models_max = 2);
    let held = get(&encoders, "b");
    get(&encoders, "c");
    assert_eq!(names(&encoders), ["a", "c"]);
    let part = Arc::downgrade(&held.parts.tokenizer);
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        // The one thread for what takes long is taken.
        let (release, hold) = mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || hold.recv().is_ok());
        tokio::spawn(async move { drop(held) }).await.unwrap();
        assert!(part.strong_count() > 0, "it was freed here");
        drop(release);
        taken.await.unwrap();
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert_eq!(part.strong_count(), 0);
    });
}

#[test]
fn the_default_is_swapped_while_texts_are_encoded_and_none_is_lost() {
    let (home, encoders) = open(|_| {});
    let expected: Vec<_> = ["a", "b"].iter().map(|name| vector(&get(&encoders, name))).collect();
    let stop = AtomicBool::new(false);
    let seen = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let all = || seen.each_ref().map(|n| n.load(Ordering::Relaxed));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let encoder = encoders.default_encoder();
                    let place = usize::from(encoder.name() == "b");
                    assert!(cosine(&vector(&encoder), &expected[place]) > 1.0 - 1e-5);
                    seen[place].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // At least twenty turns, and on a slow machine as many as it takes until both models were used.
        for turn in 0..200 {
            let model = encoders.find(["b", "a"][turn % 2]).unwrap();
            assert_eq!(encoders.set_default(&model).unwrap().name(), model.manifest.name);
            thread::sleep(Duration::from_millis(10));
            if turn >= 19 && all().iter().all(|&n| n > 0) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(all().iter().all(|&n| n > 0), "{:?}", all());

    // What cannot be loaded takes nobody's place.
    let broken = encoders.find("c").unwrap();
    std::fs::write(home.path().join("models/c/tokenizer.json"), "{}").unwrap();
    assert!(encoders.set_default(&broken).is_err());
    assert_eq!(encoders.default_encoder().name(), "a");
    vector(&encoders.default_encoder());
}
