//! Sources as a recipe states them, from files to data sets and report.

use super::{
    documents::Way,
    guard::Action,
    report::Reason,
    source::{Column, SourceKind},
    *,
};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn at(dir: &tempfile::TempDir, name: &str) -> Source {
    Source::new(dir.path().join(name).to_string_lossy())
}

fn no_collection(name: &str) -> Result<Vec<SourceDocument>, DataError> {
    Err(DataError::Unusable { name: name.to_owned(), reason: "no database is open".to_owned() })
}

fn load_with(source: Source, settings: &GuardSettings, held_out: &HeldOut) -> Result<Loaded, DataError> {
    load(&[source], settings, held_out, &mut no_collection)
}

fn load_plain(source: Source) -> Result<Loaded, DataError> {
    load_with(source, &GuardSettings::default(), &HeldOut::new())
}

/// Four sentences of which none is like another.
const LINES: &str = "The river rose quickly in spring.\n\nAll senators met in the old temple.\n   \n\
                     Hypertext changed how we read.\nA dog ran over the green field.\n";

#[test]
fn a_text_file_becomes_texts_and_the_report_says_of_what() {
    let dir = folder(&[("a.txt", LINES)]);
    let source = Source { weight: 2.0, licence: Some("CC0".into()), ..at(&dir, "a.txt") };
    let loaded = load_plain(source).unwrap();
    let set = &loaded.datasets[0];
    assert_eq!((set.name.as_str(), set.kind, set.examples.len(), set.weight), ("a", Kind::Texts, 4, 2.0));
    let report = &loaded.report.sources[0];
    assert_eq!((report.read, report.blank, report.kept, report.over_long), (4, 2, 4, 0));
    assert_eq!((report.words.texts, report.words.max), (4, 7));
    let sum = crate::model::FileSum::of_bytes(LINES.as_bytes());
    assert_eq!((report.files[0].sha256.as_str(), report.files[0].bytes), (sum.sha256.as_str(), sum.bytes));
    let table = loaded.report.table();
    for part in ["source  kind", "licence: CC0", sum.sha256.as_str(), "2 without text"] {
        assert!(table.contains(part), "{table}");
    }
    let json = serde_json::to_value(&loaded.report).unwrap();
    assert_eq!(json["sources"][0]["made"]["row"], 4);
    assert_eq!(json["guards"]["near_duplicates"], "drop");
}

#[test]
fn everything_that_is_dropped_has_a_reason_and_a_sample() {
    let rows = "anchor\tpositive\tnegative\n\
                one two three four\tfive six\tseven\n\
                one  two three four\tfive six\tseven\n\
                One two three four!\tfive six.\tseven\n\
                a b\ta  b\tc\n\
                a b\tc d\tc d\n\
                a b\tc d\ta b\n\
                a b\t\tc\n\
                what is held out here today\tis not trained on\tis it\n\
                eight nine\tten eleven\ttwelve\n";
    let dir = folder(&[("t.tsv", rows)]);
    let mut held_out = HeldOut::new();
    held_out.add("quiz", vec!["What is held out, here, today?".to_owned()]);
    let loaded = load_with(at(&dir, "t.tsv"), &GuardSettings::default(), &held_out).unwrap();
    let report = &loaded.report.sources[0];
    let dropped: Vec<(Reason, usize)> = report.dropped.iter().map(|(r, f)| (*r, f.count)).collect();
    assert_eq!(
        dropped,
        [
            (Reason::Empty, 1),
            (Reason::SidesEqual, 1),
            (Reason::NegativeIsPositive, 1),
            (Reason::NegativeIsAnchor, 1),
            (Reason::TestOverlap, 1),
            (Reason::Duplicate, 1),
            (Reason::NearDuplicate, 1),
        ]
    );
    assert_eq!((report.read, report.kept), (9, 2));
    let sample = |reason| &report.dropped[&reason].samples[0];
    assert_eq!((sample(Reason::Empty).at.as_str(), sample(Reason::Empty).like.as_str()), ("line 8", ""));
    assert_eq!(sample(Reason::Duplicate).like, "line 2");
    assert_eq!(sample(Reason::NearDuplicate).like, "line 2, similarity 1.00");
    assert_eq!(sample(Reason::TestOverlap).like, "quiz, equal: What is held out, here, today?");
    let table = loaded.report.table();
    assert!(table.contains("dropped 1 nearly the same as an earlier one:"), "{table}");
    assert!(table.contains("compared with held-out texts of: quiz (1)"), "{table}");
}

#[test]
fn what_a_guard_finds_is_dropped_kept_or_refused_as_set() {
    let dir = folder(&[(
        "a.txt",
        &format!("{LINES}the river rose quickly, in Spring\nHeld out text of six words.\n"),
    )]);
    let mut held_out = HeldOut::new();
    held_out.add("h", vec!["held out text of six words".to_owned()]);
    let run = |near_duplicates, test_overlap| {
        let settings = GuardSettings { near_duplicates, test_overlap, ..GuardSettings::default() };
        load_with(at(&dir, "a.txt"), &settings, &held_out)
    };
    let kept = |loaded: Loaded| loaded.report.sources[0].kept;
    assert_eq!(kept(run(Action::Drop, Action::Drop).unwrap()), 4);

    let loaded = run(Action::Keep, Action::Keep).unwrap();
    let found = &loaded.report.sources[0].found;
    assert_eq!((found[&Reason::NearDuplicate].count, found[&Reason::TestOverlap].count), (1, 1));
    assert!(loaded.report.table().contains("kept 1 that overlap held-out data:"));
    assert_eq!(kept(loaded), 6);

    let error = run(Action::Drop, Action::Refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.to_string();
    assert!(said.contains("a: 1 texts that overlap held-out data") && said.contains("line 8"), "{said}");
    assert!(said.contains("`test_overlap`"), "{said}");
    let said = run(Action::Refuse, Action::Drop).unwrap_err().to_string();
    assert!(
        said.contains("line 7 (line 1, similarity 1.00)") && said.contains("`near_duplicates`"),
        "{said}"
    );
}

#[test]
fn over_long_texts_are_counted_and_stay() {
    let dir = folder(&[("a.txt", LINES)]);
    let settings = GuardSettings { long_words: 6, ..GuardSettings::default() };
    let report = load_with(at(&dir, "a.txt"), &settings, &HeldOut::new()).unwrap().report;
    assert_eq!((report.sources[0].over_long, report.sources[0].kept), (2, 4));
}

#[test]
fn empty_blank_and_single_texts_are_too_few() {
    let dir = folder(&[
        ("empty.txt", ""),
        ("blank.txt", " \n\n"),
        ("one.txt", "Alone.\n"),
        ("same.txt", "A b.\nA b.\na B\n"),
    ]);
    let cases = [
        ("empty.txt", "empty: 0 texts left"),
        ("blank.txt", "blank: 0 texts left"),
        ("one.txt", "one: 1 text left, and a loss needs two or more to tell apart: it holds no more"),
        ("same.txt", "dropped 1 that were there before, 1 nearly the same"),
    ];
    for (name, expected) in cases {
        let error = load_plain(at(&dir, name)).unwrap_err();
        assert!(matches!(error, DataError::TooFew { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = folder(&[("bad.txt.gz", "no gzip"), ("a.csv", "a,b\n")]);
    std::fs::write(dir.path().join("latin1.txt"), b"one\nzw\xf6lf\n").unwrap();
    let error = load_plain(at(&dir, "none.txt")).unwrap_err();
    assert!(matches!(error, DataError::Read { .. }) && error.kind() == ErrorKind::Precondition, "{error}");
    assert!(error.to_string().contains("none.txt"), "{error}");
    // Without a known ending, but in a folder: a path that leads nowhere, not a collection.
    assert!(matches!(load_plain(at(&dir, "none")).unwrap_err(), DataError::Read { .. }));

    let cases = [
        ("bad.txt.gz", "bad.txt.gz: it cannot be unpacked"),
        ("latin1.txt", "latin1.txt, line 2: byte 6: not UTF-8"),
        ("a.csv", "a.csv, line 1: no text"),
        ("", "it has none of corpus.jsonl"),
    ];
    for (name, expected) in cases {
        let error = load_plain(at(&dir, name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

const CORPUS: &str = "{\"_id\":\"x\",\"title\":\"Rivers\",\"text\":\"The river rose quickly in spring. Nobody had foreseen it at all.\"}\n\
                      {\"_id\":\"y\",\"title\":\"Dogs\",\"text\":\"A dog ran over the green field. Its owner called it back home.\"}\n";

#[test]
fn a_beir_folder_gives_pairs_of_its_documents_alone() {
    let dir =
        folder(&[("corpus.jsonl", CORPUS), ("queries.jsonl", "{\"_id\":\"q\",\"text\":\"Never read?\"}\n")]);
    let loaded = load_plain(at(&dir, "")).unwrap();
    let set = &loaded.datasets[0];
    assert_eq!((set.kind, set.groups.as_slice()), (Kind::Pairs, &[0, 0, 1, 1][..]));
    let report = &loaded.report.sources[0];
    assert_eq!(report.made, [(Way::Title, 2), (Way::Neighbours, 0), (Way::InverseCloze, 2)].into());
    assert_eq!((report.read, report.files.len()), (2, 1));
    assert!(set.examples.iter().all(|e| e.texts().all(|t| !t.contains("Never"))));
    assert!(loaded.report.table().contains("made by inverse_cloze: 2"));

    let texts = Source { make: vec![Way::Sentences], ..at(&dir, "") };
    assert_eq!(load_plain(texts).unwrap().datasets[0].examples.len(), 4);
    // The same file by its name: documents, because it has titles.
    let file = Source { make: vec![Way::Passages], ..at(&dir, "corpus.jsonl") };
    assert_eq!(load_plain(file).unwrap().datasets[0].kind, Kind::Texts);
    std::fs::create_dir(dir.path().join("none")).unwrap();
    let stated = Source { kind: SourceKind::Beir, ..at(&dir, "none") };
    assert!(load_plain(stated).unwrap_err().to_string().contains("BEIR"));
}

#[test]
fn documents_are_read_as_ingest_reads_them() {
    let papers = "{\"doi\":\"x\",\"head\":\"Rivers\",\"abstract\":\"The river rose quickly in spring. Nobody had foreseen it at all.\",\"n\":[1,\"a\"]}\n\
                  {\"doi\":\"y\",\"head\":\"Dogs\",\"abstract\":\"A dog ran over the green field. Its owner called it back home.\"}\n";
    let csv = "ID;Title;Text\n1;Rivers;The river rose quickly in spring. Nobody had foreseen it at all.\n2;Dogs;A dog ran over the green field. Its owner called it back home.\n";
    let dir =
        folder(&[("papers.jsonl", papers), ("papers.csv", csv), ("pairs.jsonl", "[\"a b\", \"c d\"]\n")]);
    // The abstract is found by itself; the title, which makes pairs, where it is named.
    let plain = load_plain(at(&dir, "papers.jsonl")).unwrap().report;
    assert_eq!(plain.sources[0].made[&Way::Title], 0);
    let named = Source { title_field: Some("head".into()), ..at(&dir, "papers.jsonl") };
    let named = Source { id_field: Some("doi".into()), text_field: Some("abstract".into()), ..named };
    for source in [named.clone(), at(&dir, "papers.csv")] {
        let loaded = load_plain(source).unwrap();
        assert_eq!(
            loaded.report.sources[0].made,
            [(Way::Title, 2), (Way::Neighbours, 0), (Way::InverseCloze, 2)].into()
        );
    }
    let wrong = Source { text_field: Some("story".into()), ..at(&dir, "papers.jsonl") };
    let said = load_plain(wrong).unwrap_err().to_string();
    assert!(said.contains("papers.jsonl, line 1: no field \"story\", which --text-field names"), "{said}");
    let stated = Source { kind: SourceKind::Pairs, text_field: Some("a".into()), ..at(&dir, "pairs.jsonl") };
    assert!(load_plain(stated).unwrap_err().to_string().contains("`kind = \"documents\"`"));
    let folder = Source { kind: SourceKind::Documents, ..at(&dir, "") };
    assert!(load_plain(folder).unwrap_err().to_string().contains("it is a folder"));
}

#[test]
fn a_collection_is_asked_for_by_name() {
    let document = |id: &str, text: &str| SourceDocument {
        id: id.to_owned(),
        title: String::new(),
        passages: vec![text.to_owned()],
    };
    let mut answer = |name: &str| {
        assert_eq!(name, "notes");
        Ok(vec![document("a", "The river rose in spring."), document("b", "A dog ran over the field.")])
    };
    let source = Source { make: vec![Way::Sentences], ..Source::new("notes") };
    let settings = GuardSettings::default();
    let loaded = load(&[source], &settings, &HeldOut::new(), &mut answer).unwrap();
    assert_eq!(loaded.datasets[0].examples.len(), 2);
    assert!(loaded.report.table().contains("from the collection notes"));

    assert!(load_plain(Source::new("notes")).unwrap_err().to_string().contains("no database is open"));
    let mut nothing = |_: &str| Ok(Vec::new());
    let error = load(&[Source::new("notes")], &settings, &HeldOut::new(), &mut nothing).unwrap_err();
    assert!(error.to_string().contains("no document"), "{error}");
}

#[test]
fn a_limit_draws_by_seed_and_keeps_the_order() {
    let lines: String = (0..500).map(|i| format!("unlike{i} any{i} other{i}\n")).collect();
    let dir = folder(&[("a.txt", &lines)]);
    let drawn = |limit, limit_seed| {
        let source = Source { limit: Some(limit), limit_seed, ..at(&dir, "a.txt") };
        let loaded = load_plain(source).unwrap();
        let report = &loaded.report.sources[0];
        assert_eq!(report.not_drawn + report.kept, 500);
        loaded.datasets[0].examples.clone()
    };
    let number = |e: &Example| e.anchor[6..].split(' ').next().unwrap().parse::<usize>().unwrap();
    let numbers: Vec<usize> = drawn(50, 1).iter().map(number).collect();
    assert_eq!(numbers.len(), 50);
    assert!(numbers.is_sorted() && numbers[25] > 100 && numbers[25] < 400, "{numbers:?}");
    assert_eq!(drawn(50, 1), drawn(50, 1));
    assert_ne!(drawn(50, 1), drawn(50, 2));
    assert_eq!(drawn(900, 1).len(), 500);
}

#[test]
fn a_recipe_states_sources_in_toml() {
    let text = "from = \"x\"\nmake = \"title\"\nlimit = 9\nlicence = \"CC0\"";
    let source: Source = toml::from_str(text).unwrap();
    assert_eq!((source.make.as_slice(), source.limit, source.weight), (&[Way::Title][..], Some(9), 1.0));
    assert_eq!(toml::from_str::<Source>(&toml::to_string(&source).unwrap()).unwrap(), source);
    assert_eq!(toml::from_str::<Source>("from = \"x\"").unwrap(), Source::new("x"));
    let many: Source = toml::from_str("from = \"x\"\nmake = [\"title\", \"inverse_cloze\"]").unwrap();
    assert_eq!(many.make, [Way::Title, Way::InverseCloze]);
    let wrong = [
        ("from = \"x\"\nkind = \"tripels\"", "unknown variant `tripels`"),
        ("from = \"x\"\nkind = \"tripels\"", "triplets"),
        ("from = \"x\"\nmake = \"row\"", "one of title"),
        ("from = \"x\"\nwieght = 2.0", "unknown field `wieght`"),
        ("kind = \"text\"", "missing field `from`"),
    ];
    for (text, expected) in wrong {
        let said = toml::from_str::<Source>(text).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    let said = toml::from_str::<GuardSettings>("test_overlap = \"ignore\"").unwrap_err().to_string();
    assert!(said.contains("`drop`, `refuse`, `keep`"), "{said}");
}

#[test]
fn settings_out_of_bounds_are_named() {
    let x = || Source::new("x");
    let sources = [
        (Source { from: " ".into(), ..x() }, "`from` is empty"),
        (Source { weight: 0.0, ..x() }, "weight = 0"),
        (Source { weight: f64::NAN, ..x() }, "weight = NaN"),
        (Source { limit: Some(1), ..x() }, "limit must be 2 or more"),
        (Source { passage_words: 3, ..x() }, "passage_words = 3; it must be 8 or more"),
        (Source { make: vec![Way::Title, Way::Sentences], ..x() }, "two [[data]] tables"),
        (Source { columns: vec![Column::Skip], ..x() }, "one anchor"),
        (Source { columns: vec![Column::Anchor, Column::Negative], ..x() }, "only beside a positive"),
    ];
    for (source, expected) in sources {
        let said = load_plain(source).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    let guards = GuardSettings::default;
    let settings = [
        (GuardSettings { jaccard: 0.4, ..guards() }, "jaccard = 0.4; it must be 0.5 to 1"),
        (GuardSettings { jaccard: f64::NAN, ..guards() }, "jaccard = NaN"),
        (GuardSettings { shingle_words: 0, ..guards() }, "shingle_words = 0; it must be 1 to 8"),
        (GuardSettings { contained_words: 0, ..guards() }, "contained_words = 0"),
        (
            GuardSettings { overlap_words: 4, ..guards() },
            "overlap_words = 4; it must be 5 (contained_words) to 100",
        ),
    ];
    for (settings, expected) in settings {
        let said = load_with(x(), &settings, &HeldOut::new()).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    let dir = folder(&[("a.txt", LINES)]);
    let said = load_plain(Source { make: vec![Way::Title], ..at(&dir, "a.txt") }).unwrap_err().to_string();
    assert!(said.contains("`make` says how examples are made of documents"), "{said}");
}

#[test]
fn a_name_is_the_last_part_without_its_ending_unless_stated() {
    assert_eq!(Source::new("a/b/wiki.pages.txt.gz").name(), "wiki.pages");
    assert_eq!(Source::new("a/scifact/").name(), "scifact");
    assert_eq!(Source { name: Some("n".into()), ..Source::new("x.txt") }.name(), "n");
}

/// Measures, on the million sentences of the shared corpus, what a run waits for before its first step:
/// `cargo test --release --lib a_million_sentences -- --ignored --nocapture`.
#[test]
#[ignore = "takes the shared corpus and up to two minutes"]
fn a_million_sentences_are_read_and_guarded_in_two_minutes_and_two_gibibytes() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let corpus = shared.join("corpus/wiki-sentences.txt.gz");
    if !corpus.exists() {
        println!("skipped: {} is not there", corpus.display());
        return;
    }
    let start = std::time::Instant::now();
    let mut held_out = HeldOut::new();
    held_out.add_sts(&shared.join("sts")).unwrap();
    let loaded =
        load_with(Source::new(corpus.to_string_lossy()), &GuardSettings::default(), &held_out).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("{}\nloaded and guarded in {seconds:.1} s", loaded.report.table());

    let start = std::time::Instant::now();
    let mut sampler = sampler::Sampler::new(&loaded.datasets, 128, 1).unwrap();
    let batches = sampler.batches_per_epoch(0);
    for step in 0..=batches {
        sampler.batch(step);
    }
    println!("an epoch of {batches} batches told in {:.1} s", start.elapsed().as_secs_f64());

    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak_mib = peak.map_or(0, |kib| kib.trim().parse::<usize>().unwrap() / 1024);
    println!("peak memory {peak_mib} MiB");
    assert!(seconds < 120.0 && peak_mib < 2048);
}
