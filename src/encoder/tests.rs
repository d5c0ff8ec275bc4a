//! The encoder contract on the tiny model: same text, same vector, in any company; nothing lost, nothing silent.

use std::{
    cell::Cell,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use super::{scheduler::Lanes, *};
use crate::{
    config::{EncoderConfig, default_home},
    error::{ErrorKind, Fault},
    runtime::{Plan, Precision, RuntimeError, Session},
    vector::cosine,
};

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")
}

fn open(change: impl FnOnce(&mut EncoderConfig)) -> Encoder {
    let mut config = EncoderConfig {
        device: "cpu".into(),
        precision: "fp32".into(),
        threads: 1,
        ..EncoderConfig::default()
    };
    change(&mut config);
    Encoder::open(&ModelDir::open(&tiny()).unwrap(), &default_home(), &config)
        .expect("ONNX Runtime is needed: run `make setup` first")
}

fn owned(texts: &[impl AsRef<str>]) -> Vec<String> {
    texts.iter().map(|text| text.as_ref().to_owned()).collect()
}

fn ask(
    encoder: &Encoder,
    texts: &[&str],
    class: Class,
    limits: Limits,
) -> mpsc::Receiver<Result<Vec<Embedding>, EncoderError>> {
    let (send, receive) = mpsc::channel();
    encoder.submit(
        owned(texts),
        TextKind::Raw,
        class,
        limits,
        Box::new(move |r| send.send(r.map(|(e, _)| e)).unwrap()),
    );
    receive
}

const TEXTS: [&str; 7] = [
    "",
    "a",
    "the cat sat on the mat",
    "Rain!",
    "one two three four five six seven",
    "zażółć 漢字 🙂",
    "the cat sat on the mat, and then it went away again because the rain had come",
];

#[test]
fn a_text_has_one_vector_alone_and_in_any_batch() {
    let encoder = open(|_| {});
    let alone: Vec<_> =
        TEXTS.iter().map(|t| encoder.encode(&[t], TextKind::Raw).unwrap().remove(0)).collect();
    for start in 0..TEXTS.len() {
        let order: Vec<usize> = (0..TEXTS.len()).map(|i| (i * 3 + start) % TEXTS.len()).collect();
        let texts: Vec<&str> = order.iter().map(|&i| TEXTS[i]).collect();
        for (&i, together) in order.iter().zip(encoder.encode(&texts, TextKind::Raw).unwrap()) {
            assert!(1.0 - cosine(&alone[i].values, &together.values) < 1e-5, "text {i}");
            assert_eq!(alone[i].tokens, together.tokens);
        }
    }
    // Different texts are not all one vector.
    assert!(cosine(&alone[2].values, &alone[4].values) < 0.999);
}

#[test]
fn in_8_bits_a_text_has_the_same_bits_in_any_batch_and_lane_and_is_near_full_precision() {
    let full = open(|_| {});
    let encoder = open(|config| {
        config.precision = "int8".into();
        config.threads = 2;
        config.batch_tokens_max = 40;
    });
    assert_eq!(encoder.device().device, "cpu (int8)");
    let alone: Vec<_> =
        TEXTS.iter().map(|t| encoder.encode(&[t], TextKind::Raw).unwrap().remove(0)).collect();
    for start in 0..TEXTS.len() {
        let order: Vec<usize> = (0..TEXTS.len()).map(|i| (i * 3 + start) % TEXTS.len()).collect();
        let texts: Vec<&str> = order.iter().map(|&i| TEXTS[i]).collect();
        let query = ask(&encoder, &texts, Class::Query, Limits::default());
        let bulk = encoder.encode(&texts, TextKind::Raw).unwrap();
        assert_eq!(query.recv().unwrap().unwrap(), bulk);
        for (&i, together) in order.iter().zip(bulk) {
            assert_eq!(alone[i], together, "text {i}");
        }
    }
    for (full, rounded) in full.encode(&TEXTS, TextKind::Raw).unwrap().iter().zip(&alone) {
        assert!(cosine(&full.values, &rounded.values) > 0.998);
        assert_eq!((full.tokens, full.truncated), (rounded.tokens, rounded.truncated));
    }
    // Nothing is padded.
    let counters = encoder.counters();
    assert_eq!(counters.tokens.load(Ordering::Relaxed), counters.padded_tokens.load(Ordering::Relaxed));
}

#[test]
fn a_precision_that_a_device_has_not_is_refused_with_what_to_do() {
    let refused = |device: &str, precision: &str| {
        let config =
            EncoderConfig { device: device.into(), precision: precision.into(), ..EncoderConfig::default() };
        let model = ModelDir::open(&tiny()).unwrap();
        Encoder::open(&model, &default_home(), &config).unwrap_err()
    };
    let error = refused("cpu", "bf16");
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(error.to_string().contains("take device openvino, or precision int8"), "{error}");
    for (device, precision, word) in [
        ("cpu", "fp16", "precision int8, or device cuda"),
        ("openvino", "fp16", "bf16 instead"),
        ("cuda", "bf16", "fp32 and fp16"),
        // No CUDA device is here; where one is, this opens.
        ("auto", "fp16", "CUDA"),
        ("cuda:1", "fp16", "CUDA"),
    ] {
        let error = refused(device, precision);
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(refused("openvino", "int8").to_string().contains("int8 runs on cpu alone"));
    assert_eq!(refused("cpu", "fp64").kind(), ErrorKind::Invalid);
}

#[test]
fn a_query_asked_again_is_not_encoded_again() {
    let encoder = open(|config| config.query_cache = 2);
    let texts = |n: usize| encoder.counters().texts.load(Ordering::Relaxed) == n as u64;
    let query = |text: &str| ask(&encoder, &[text], Class::Query, Limits::default()).recv().unwrap().unwrap();
    let first = query("rain");
    // One to warm up, one query.
    assert!(texts(2));
    assert_eq!(query("rain"), first);
    assert!(texts(2));
    // Documents are not looked up.
    assert_eq!(encoder.encode(&["rain"], TextKind::Raw).unwrap(), first);
    assert!(texts(3));
    let counters = encoder.counters();
    assert_eq!(
        (counters.cache_hits.load(Ordering::Relaxed), counters.cache_misses.load(Ordering::Relaxed)),
        (1, 1)
    );
    let off = open(|config| config.query_cache = 0);
    ask(&off, &["rain"], Class::Query, Limits::default()).recv().unwrap().unwrap();
    ask(&off, &["rain"], Class::Query, Limits::default()).recv().unwrap().unwrap();
    assert_eq!(off.counters().texts.load(Ordering::Relaxed), 3);
}

thread_local! {
    /// Requests that this thread tokenizes, one on the stack of the other.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

#[test]
fn requests_that_are_tokenized_on_one_pool_never_lie_on_each_others_stack() {
    const REQUESTS: usize = 48;
    let encoder = Arc::new(open(|_| {}));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let (deepest, (send, answers)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
    for _ in 0..REQUESTS {
        let (encoder, deepest, send) = (Arc::clone(&encoder), Arc::clone(&deepest), send.clone());
        pool.spawn(move || {
            DEPTH.set(DEPTH.get() + 1);
            deepest.fetch_max(DEPTH.get(), Ordering::Relaxed);
            let many = vec!["rain fell on the river ".repeat(16); 2 * PARALLEL_TEXTS_MIN];
            let answer = Box::new(move |answer: Encoded| send.send(answer.map(|(e, _)| e.len())).unwrap());
            encoder.submit(many, TextKind::Raw, Class::Bulk, Limits::default(), answer);
            DEPTH.set(DEPTH.get() - 1);
        });
    }
    for _ in 0..REQUESTS {
        match answers.recv_timeout(Duration::from_secs(60)).expect("a request hangs") {
            Ok(texts) => assert_eq!(texts, 2 * PARALLEL_TEXTS_MIN),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}"),
        }
    }
    assert_eq!(deepest.load(Ordering::Relaxed), 1);
}

/// Keeps the encoder's thread in a callback until what is returned is sent to or dropped.
fn hold(encoder: &Encoder) -> mpsc::Sender<()> {
    let (hold, held) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    encoder.submit(
        owned(&["a"]),
        TextKind::Raw,
        Class::Bulk,
        Limits::default(),
        Box::new(move |_| {
            entered.send(()).unwrap();
            let _ = held.recv();
        }),
    );
    inside.recv().unwrap();
    hold
}

#[test]
fn clients_take_turns_within_a_class() {
    // One text a batch: the order of answers is the order of batches.
    let encoder = open(|config| config.batch_tokens_max = 16);
    // Both clients wait before the first of their texts is taken, however slow this machine is.
    let held = hold(&encoder);
    let (send, receive) = mpsc::channel();
    let long = "rain on the river ".repeat(12);
    let ask = |client: u64, n: usize, what: &'static str| {
        for _ in 0..n {
            let send = send.clone();
            encoder.submit(
                owned(&[&long]),
                TextKind::Raw,
                Class::Bulk,
                Limits { client, ..Limits::default() },
                Box::new(move |_| send.send(what).unwrap()),
            );
        }
    };
    ask(1, 50, "greedy");
    ask(2, 3, "modest");
    drop(held);
    let order: Vec<&str> = receive.iter().take(53).collect();
    let places: Vec<usize> = (0..order.len()).filter(|&i| order[i] == "modest").collect();
    assert!(places.len() == 3 && places[2] <= 6, "three texts beside another client's 50 came at {places:?}");
}

#[test]
fn vectors_are_unit_length_and_of_the_models_dimension() {
    let encoder = open(|_| {});
    for embedding in encoder.encode(&TEXTS, TextKind::Document).unwrap() {
        assert_eq!(embedding.values.len(), encoder.dim().len());
        let norm: f32 = embedding.values.iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-4, "{norm}");
    }
}

#[test]
fn truncation_is_counted_and_reported() {
    let encoder = open(|_| {});
    let long = "rain ".repeat(encoder.max_tokens() * 3);
    let fits = "rain ".repeat(encoder.room());
    let results = encoder.encode(&[long.as_str(), fits.as_str()], TextKind::Raw).unwrap();
    assert!(results[0].truncated && results[0].tokens as usize > encoder.max_tokens() * 3);
    assert!(!results[1].truncated);
    assert_eq!(results[1].tokens as usize, encoder.max_tokens());
    // What lies past the limit changes nothing.
    let cut = encoder.encode(&[fits.trim_end()], TextKind::Raw).unwrap();
    assert!(1.0 - cosine(&results[0].values, &cut[0].values) < 1e-6);
}

#[test]
fn passages_fit_the_model_with_their_title() {
    let encoder = open(|_| {});
    let text = "The rain fell on the river. It was cold and dark outside. ".repeat(20);
    let title = "Weather in the north";
    let ranges = chunked(&encoder, title, &text, encoder.room(), 8).unwrap();
    assert!(ranges.len() > 3);
    for range in ranges {
        let (_, count) = encoder.token_ids(&Encoder::passage_text(title, &text[range])).unwrap();
        assert!(count <= encoder.max_tokens(), "{count}");
    }
    for (max_tokens, overlap_tokens) in [(0, 0), (8, 8), (8, 9)] {
        let error = chunked(&encoder, "", &text, max_tokens, overlap_tokens).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_long_title_is_cut_between_words_and_the_text_never() {
    let encoder = open(|_| {});
    let title = "the cat and the dog went to the river ".repeat(30);
    let text = "Rain fell on the old bridge. ".repeat(40);
    let chunking = Chunking { max_tokens: encoder.room(), overlap_tokens: 3 };
    let short = encoder.short_title(&title, &text, Some(chunking)).unwrap();
    let (_, tokens) = encoder.token_ids(short).unwrap();
    assert!(title.starts_with(short) && short.ends_with(|c: char| c.is_alphabetic()), "{short:?}");
    assert!(tokens - 2 <= encoder.room() / TITLE_SHARE && tokens > 10, "{tokens}");
    let ranges = encoder.chunk(short, &text, chunking, &Limits::default()).unwrap();
    assert!(ranges.len() > 2);
    for range in ranges {
        let (_, count) = encoder.token_ids(&Encoder::passage_text(short, &text[range])).unwrap();
        assert!(count <= encoder.max_tokens(), "{count}");
    }
    // One that fits, one word that does not, and one that stands for the text.
    assert_eq!(encoder.short_title("The cat", &text, Some(chunking)).unwrap(), "The cat");
    let word = "0123456789".repeat(9);
    let cut = encoder.short_title(&word, &text, Some(chunking)).unwrap();
    assert!(word.starts_with(cut) && (1..=encoder.room() / TITLE_SHARE).contains(&cut.len()), "{cut:?}");
    assert_eq!(encoder.short_title(&title, "", Some(chunking)).unwrap(), title);
}

#[test]
fn a_text_without_tokens_is_refused_and_the_lane_goes_on() {
    for packed in [false, true] {
        let scheduler = scheduler(packed, Arc::default());
        let (send, receive) = mpsc::channel();
        let ask = |texts: Texts| {
            let send = send.clone();
            let done = Box::new(move |result: Encoded| send.send(result.map(drop)).unwrap());
            scheduler.submit(texts, Class::Bulk, Limits::default(), done);
            receive.recv().unwrap()
        };
        let refused = ask(texts(&[&[2, 3], &[]])).unwrap_err();
        assert!(matches!(refused, EncoderError::NoTokens) && refused.kind() == ErrorKind::Invalid);
        assert!(ask(texts(&[&[2, 3]])).is_ok());
    }
}

#[test]
fn a_request_of_many_texts_goes_on_where_it_was_cancelled() {
    // One text a batch; the third answer in sight cancels the rest.
    let encoder = Arc::new(open(|config| config.batch_tokens_max = 8));
    let many: Vec<String> = (0..40).map(|i| format!("rain number {i} on the river")).collect();
    let encoded = || encoder.counters().texts.load(Ordering::Relaxed);
    let before = encoded();
    let mut attempts = 0;
    let embeddings = loop {
        attempts += 1;
        assert!(attempts <= 40, "it never ends");
        let flag = Arc::new(AtomicBool::new(false));
        let unfinished = encoder.unfinished();
        let limits = Limits {
            cancelled: Some(Arc::clone(&flag)),
            unfinished: Some(Arc::clone(&unfinished)),
            ..Limits::default()
        };
        let (send, receive) = mpsc::channel();
        let done = Box::new(move |result: Encoded| send.send(result.map(|(e, _)| e)).unwrap());
        let start = encoded();
        encoder.submit(many.clone(), TextKind::Document, Class::Bulk, limits, done);
        let answer = loop {
            match receive.try_recv() {
                Ok(answer) => break answer,
                Err(_) if encoded() >= start + 3 => flag.store(true, Ordering::Relaxed),
                Err(_) => std::thread::yield_now(),
            }
        };
        match answer {
            Ok(embeddings) => {
                assert_eq!(unfinished.done(), many.len());
                unfinished.finish();
                break embeddings;
            }
            Err(error) => assert!(matches!(error, EncoderError::Cancelled), "{error}"),
        }
    };
    // Nothing was encoded twice, and nothing is kept once it is forgotten.
    assert_eq!(encoded() - before, many.len() as u64);
    assert_eq!(embeddings, encoder.encode(&many, TextKind::Document).unwrap());
    assert_eq!(encoded() - before, 2 * many.len() as u64);
}

/// Texts of these token ids.
fn texts(ids: &[&[u32]]) -> Texts {
    let tokens = |ids: &&[u32]| tokenize::Tokens { ids: ids.to_vec(), count: ids.len(), unknown: 0 };
    Texts {
        texts: ids.iter().map(|ids| Text::Tokens(tokens(ids))).collect(),
        unfinished: None,
        tokenize: Duration::ZERO,
    }
}

fn chunked(
    encoder: &Encoder,
    title: &str,
    text: &str,
    max_tokens: usize,
    overlap_tokens: usize,
) -> Result<Vec<Range<usize>>, EncoderError> {
    encoder.chunk(title, text, Chunking { max_tokens, overlap_tokens }, &Limits::default())
}

#[test]
fn expired_and_cancelled_requests_are_answered_without_being_encoded() {
    let encoder = open(|_| {});
    let before = encoder.counters().texts.load(Ordering::Relaxed);
    let past = Limits { deadline: Some(Instant::now() - Duration::from_secs(1)), ..Limits::default() };
    let flag = Arc::new(AtomicBool::new(true));
    let cancelled = Limits { cancelled: Some(flag), ..Limits::default() };
    let expired = ask(&encoder, &["a"], Class::Bulk, past).recv().unwrap();
    let cancelled = ask(&encoder, &["a"], Class::Query, cancelled).recv().unwrap();
    assert!(matches!(expired, Err(EncoderError::Expired)));
    assert!(matches!(cancelled, Err(EncoderError::Cancelled)));
    assert_eq!(encoder.counters().texts.load(Ordering::Relaxed), before);
    assert_eq!(encoder.counters().waiting.load(Ordering::Relaxed), 0);
}

#[test]
fn a_full_queue_refuses_and_says_so() {
    let encoder = open(|c| c.queue_max = 4);
    let held = hold(&encoder);
    let fits = ask(&encoder, &["a", "b", "c"], Class::Bulk, Limits::default());
    let refused = ask(&encoder, &["d", "e"], Class::Bulk, Limits::default()).recv().unwrap().unwrap_err();
    assert!(matches!(refused, EncoderError::QueueFull { limit: 4 }));
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    // Queries have a queue of their own and go first.
    let query = ask(&encoder, &["q"], Class::Query, Limits::default());
    drop(held);
    assert_eq!(query.recv().unwrap().unwrap().len(), 1);
    assert_eq!(fits.recv().unwrap().unwrap().len(), 3);
}

#[test]
fn dropping_the_encoder_answers_everybody() {
    let encoder = open(|_| {});
    let answers: Vec<_> = (0..50).map(|_| ask(&encoder, &TEXTS, Class::Bulk, Limits::default())).collect();
    drop(encoder);
    for answer in answers {
        let answer = answer.recv().expect("every request is answered");
        assert!(matches!(answer, Ok(_) | Err(EncoderError::Closed)));
    }
}

#[test]
fn a_panicking_callback_does_not_stop_the_encoder() {
    let encoder = open(|_| {});
    encoder.submit(
        owned(&["a"]),
        TextKind::Raw,
        Class::Bulk,
        Limits::default(),
        Box::new(|_| panic!("as planned")),
    );
    assert_eq!(encoder.encode(&["b"], TextKind::Raw).unwrap().len(), 1);
}

#[test]
fn no_texts_are_no_work() {
    let encoder = open(|_| {});
    assert!(encoder.encode(&[] as &[&str], TextKind::Raw).unwrap().is_empty());
}

#[test]
fn an_unusable_device_or_tokenizer_is_refused() {
    let model = ModelDir::open(&tiny()).unwrap();
    let config = EncoderConfig { device: "tpu".into(), ..EncoderConfig::default() };
    assert_eq!(Encoder::open(&model, &default_home(), &config).unwrap_err().kind(), ErrorKind::Invalid);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, "{}").unwrap();
    let error = Tokenizer::open(&path, 64).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    let error = Tokenizer::open(&model.tokenizer_path(), 2).unwrap_err();
    assert!(error.to_string().contains("special tokens"), "{error}");
}

#[test]
fn cuda_without_a_device_is_an_error_and_auto_goes_past_it() {
    let model = ModelDir::open(&tiny()).unwrap();
    if crate::runtime::inspect(&default_home()).cuda.is_ok() {
        println!("skipped: this machine has CUDA");
        return;
    }
    let config = |device: &str| EncoderConfig { device: device.into(), ..EncoderConfig::default() };
    let error = Encoder::open(&model, &default_home(), &config("cuda:0")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(error.to_string().contains("cuda:0"), "{error}");
    let auto = Encoder::open(&model, &default_home(), &config("auto")).unwrap();
    assert!(!auto.device().device.contains("cuda") && !auto.device().reason.is_empty());
}

#[test]
fn the_lane_for_queries_is_loaded_by_the_first_query_and_by_nothing_else() {
    let opened_after = |query: bool| {
        let opened = Arc::new(AtomicUsize::new(0));
        let scheduler = scheduler(true, Arc::clone(&opened));
        if query {
            let (send, receive) = mpsc::channel();
            let done = Box::new(move |result: Encoded| send.send(result.map(drop)).unwrap());
            scheduler.submit(texts(&[&[0, 1]]), Class::Query, Limits::default(), done);
            receive.recv().unwrap().unwrap();
        }
        // Closing wakes the lane too, and a session loaded then would outlive the command that made it.
        drop(scheduler);
        opened.load(Ordering::Relaxed)
    };
    assert_eq!([opened_after(false), opened_after(true)], [1, 2]);
}

#[test]
fn queries_share_the_bulk_lane_where_their_own_cannot_be_loaded() {
    for panics in [false, true] {
        let opened = AtomicUsize::new(0);
        let scheduler = scheduler_of(true, move |open| match opened.fetch_add(1, Ordering::Relaxed) {
            0 => open(),
            _ if panics => panic!("as planned"),
            _ => Err(RuntimeError::Load { path: tiny(), reason: "as planned".to_owned() }),
        });
        for _ in 0..2 {
            let (send, receive) = mpsc::channel();
            let done = Box::new(move |result: Encoded| send.send(result.map(drop)).unwrap());
            scheduler.submit(texts(&[&[0, 1]]), Class::Query, Limits::default(), done);
            let answer = receive.recv_timeout(Duration::from_secs(60));
            answer.unwrap_or_else(|_| panic!("a query is lost; the lane panicked: {panics}")).unwrap();
        }
        assert_eq!(scheduler.fault(Duration::from_secs(60)), None);
    }
}

/// Lanes of the tiny model; `opened` counts its sessions.
fn scheduler(packed: bool, opened: Arc<AtomicUsize>) -> Scheduler {
    scheduler_of(packed, move |open| {
        opened.fetch_add(1, Ordering::Relaxed);
        open()
    })
}

type Opened = Result<Session, RuntimeError>;

/// Lanes of the tiny model, whose sessions are opened by way of `opening`.
fn scheduler_of(
    packed: bool,
    opening: impl Fn(&dyn Fn() -> Opened) -> Opened + Send + Sync + 'static,
) -> Scheduler {
    let model = ModelDir::open(&tiny()).unwrap();
    let plan = Plan::new(&default_home(), "cpu".parse().unwrap(), Precision::Fp32, packed).unwrap();
    let file = model.onnx_path_of(plan.layout()).unwrap();
    let config = EncoderConfig::default();
    Scheduler::start(Lanes {
        layout: plan.layout(),
        query_lane: true,
        open: Box::new(move || opening(&|| Session::open(&plan, &file, 1))),
        bulk_niceness: 0,
        dim: model.manifest.dimension as usize,
        batch_tokens_max: config.batch_tokens_max,
        queue_max: config.queue_max,
        common: Arc::default(),
    })
    .unwrap()
}
