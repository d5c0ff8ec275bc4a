//! The walls between modules: which part of this crate may name which, and which foreign crate is named where.
//!
//! A source is parsed and looked at to its last line; only what is compiled for tests alone may look over the walls.
//! [`MODULES`] says for each part of the crate what it may name. What stands there and ought not to is in [`DEBTS`] with
//! its reason; everything else must keep one direction, followed through all that lies between.
//!
//! `cargo test --lib walls -- --nocapture` prints the map of the parts, from the ground floor up.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::LazyLock,
};

mod names;

use names::{Mention, What, names};

/// A part of the crate, the parts that it may name, and the foreign crates.
type Module = (&'static str, &'static [&'static str], &'static [&'static str]);

/// What lies below every part, and may be named by any. What these name of each other, [`MODULES`] says.
const FOUNDATION: &[&str] = &[
    "error",
    "stop",
    "allocator",
    "budget",
    "spelling",
    "meant",
    "random",
    "files",
    "panics",
    "processor",
    "threads",
    "handles",
    "aside",
    "simd",
    "value",
    "vector",
];

/// Crates for plain data, errors, logs and sums, which any part may name.
const PLAIN: &[&str] =
    &["serde", "serde_json", "thiserror", "tracing", "sha2", "crc32c", "crc32fast", "bytes", "toml", "rayon"];

/// `facade` is what `lib.rs` makes of the errors of all others: `crate::Error`, `crate::Result` and `crate::fault_of`.
const MODULES: &[Module] = &[
    ("allocator", &[], &["libc"]),
    (
        "api",
        &["collection", "config", "encoder", "engine", "index", "model", "proto"],
        &["prost", "prost_types", "tokio", "tokio_stream", "tokio_util"],
    ),
    ("aside", &[], &["tokio"]),
    (
        "bench",
        &[
            "config",
            "encoder",
            "engine",
            "eval",
            "finetune",
            "index",
            "model",
            "onnx",
            "proto",
            "rpc",
            "server",
            "telemetry",
        ],
        &["hdrhistogram", "tokio", "tokio_stream", "tonic"],
    ),
    ("budget", &["allocator", "error"], &["tokio"]),
    (
        "cli",
        &[
            "api",
            "bench",
            "collection",
            "config",
            "encoder",
            "engine",
            "eval",
            "facade",
            "finetune",
            "hub",
            "model",
            "onnx",
            "process",
            "proto",
            "rpc",
            "runtime",
            "server",
            "setup",
            "source",
            "telemetry",
            "training",
        ],
        &[
            "anyhow",
            "clap",
            "clap_complete",
            "indicatif",
            "prost",
            "prost_types",
            "terminal_size",
            "tokio",
            "tokio_stream",
            "tokio_util",
            "tonic",
            "unicode_segmentation",
            "unicode_width",
        ],
    ),
    ("collection", &["index", "segmented", "store"], &["arc_swap", "roaring"]),
    ("config", &[], &[]),
    (
        "encoder",
        &["config", "model", "onnx", "runtime"],
        &["lru", "prost", "tokenizers", "unicode_segmentation"],
    ),
    (
        "engine",
        &["collection", "config", "encoder", "index", "model", "segmented", "store"],
        &["arc_swap", "tokio"],
    ),
    ("error", &[], &[]),
    ("eval", &["encoder", "model", "onnx", "source"], &["plotters"]),
    ("files", &["handles", "stop"], &["fs2", "memmap2", "rustix"]),
    ("finetune", &["encoder", "eval", "model", "onnx", "runtime", "source"], &["prost", "safetensors"]),
    ("handles", &[], &["rustix"]),
    ("hub", &["model", "onnx"], &["hf_hub"]),
    ("index", &[], &["hnsw_rs", "rand", "roaring"]),
    ("log", &[], &[]),
    ("meant", &["spelling"], &[]),
    ("model", &["onnx"], &["safetensors"]),
    ("onnx", &[], &["half", "prost", "safetensors"]),
    ("panics", &[], &[]),
    ("process", &[], &["libc"]),
    ("processor", &[], &[]),
    ("proto", &[], &["prost", "prost_types"]),
    ("random", &[], &[]),
    ("rpc", &["proto"], &["prost", "tonic", "tonic_prost"]),
    ("runtime", &["onnx"], &["half", "ort"]),
    ("segment", &["index", "store"], &["bytemuck", "roaring", "zstd"]),
    ("segmented", &["log", "segment", "store"], &["roaring", "zstd"]),
    (
        "server",
        &["api", "config", "engine", "proto", "rpc", "telemetry"],
        &[
            "axum",
            "http_body",
            "hyper_util",
            "prometheus_client",
            "prost",
            "tokio",
            "tokio_stream",
            "tokio_util",
            "tonic",
            "tonic_health",
            "tonic_reflection",
            "tonic_types",
            "tower",
        ],
    ),
    ("setup", &["config", "encoder", "hub", "model", "runtime"], &["zip"]),
    ("simd", &[], &[]),
    (
        "source",
        &[],
        &[
            "flate2",
            "html5ever",
            "pulldown_cmark",
            "saphyr_parser",
            "unicode_normalization",
            "walkdir",
            "zstd",
        ],
    ),
    ("spelling", &[], &[]),
    ("stop", &[], &[]),
    ("store", &[], &["bincode", "fs2", "sled", "walkdir", "zstd"]),
    ("telemetry", &["config"], &["tracing_subscriber"]),
    ("threads", &["error", "panics", "stop"], &["rustix", "tokio"]),
    ("training", &["config", "encoder", "engine", "eval", "finetune", "model", "runtime"], &["tokio"]),
    ("value", &["error", "stop"], &["jiff"]),
    ("vector", &["error", "simd"], &[]),
];

/// Names that point the wrong way, each with the reason that it stands: from, to, why.
const DEBTS: &[(&str, &str, &str)] = &[];

/// Parts that must not know others, not even by way of a third.
const WALLS: &[(&str, &[&str])] = &[
    ("vector", &["index", "store", "collection", "encoder", "engine", "model", "runtime", "onnx"]),
    ("index", &["store", "log", "collection", "encoder", "engine", "model", "runtime", "onnx"]),
    ("segment", &["collection", "encoder", "engine", "model", "runtime", "onnx"]),
    ("segmented", &["collection", "encoder", "engine", "model", "runtime", "onnx"]),
    ("store", &["index", "collection", "encoder", "engine", "model", "runtime", "onnx"]),
    ("log", &["index", "store", "collection", "encoder", "engine", "model", "runtime", "onnx"]),
    ("encoder", &["index", "store", "log", "collection", "engine"]),
    ("runtime", &["index", "store", "collection", "encoder", "engine", "model"]),
    ("onnx", &["index", "store", "collection", "encoder", "engine", "runtime"]),
    ("hub", &["index", "store", "collection", "encoder", "engine", "runtime"]),
    ("model", &["hub", "index", "store", "collection", "encoder", "engine", "runtime"]),
    ("value", &["vector", "index", "store", "collection", "encoder", "engine", "model"]),
    ("collection", &["encoder", "engine", "model", "runtime", "onnx"]),
    ("api", &["server", "rpc", "tonic", "axum", "tower", "http_body", "hyper_util"]),
    ("source", &["encoder", "engine", "model", "runtime", "onnx"]),
    ("eval", &["index", "store", "collection", "engine"]),
    ("finetune", &["index", "store", "collection", "engine"]),
];

/// What only the outermost parts may know, and which these are.
const OUTERMOST: &[(&str, &[&str])] = &[
    ("cli", &[]),
    ("clap", &["cli"]),
    ("bench", &["cli"]),
    ("server", &["cli", "bench"]),
    ("axum", &["cli", "bench", "server"]),
    ("rpc", &["cli", "bench", "server"]),
    ("tonic", &["cli", "bench", "server", "rpc"]),
    ("api", &["cli", "bench", "server"]),
    ("proto", &["cli", "bench", "server", "api", "rpc"]),
];

/// Foreign crates that are named in one place: the beginnings of the files that may.
const PLACES: &[(&str, &[&str])] = &[
    ("ort", &["runtime/"]),
    ("tokenizers", &["encoder/tokenize.rs"]),
    ("sled", &["store/state.rs"]),
    ("bincode", &["store/record.rs"]),
    ("hnsw_rs", &["index/hnsw_rs"]),
    ("rand", &["index/hnsw_rs/levels.rs"]),
    ("tonic", &["server/", "cli/", "bench/", "rpc/"]),
    ("prometheus_client", &["server/metrics.rs"]),
    ("axum", &["server/"]),
    ("jiff", &["value/datetime.rs"]),
    ("html5ever", &["source/html.rs"]),
    ("pulldown_cmark", &["source/markdown.rs"]),
    ("saphyr_parser", &["source/front_matter.rs"]),
    ("flate2", &["source/"]),
    ("unicode_normalization", &["source/whole.rs"]),
    ("walkdir", &["source/walk.rs", "store/"]),
    ("zip", &["setup/wheel.rs"]),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/output.rs"]),
    ("hf_hub", &["hub/pull.rs"]),
    ("plotters", &["eval/plot.rs"]),
    ("lru", &["encoder/cache.rs"]),
    ("libc", &["allocator.rs", "process.rs"]),
    ("rustix", &["threads/priority.rs", "handles.rs", "files/disk.rs"]),
    ("memmap2", &["files/map.rs"]),
    ("bytemuck", &["segment/vectors.rs"]),
    (
        "zstd",
        &[
            "segment/blocks.rs",
            "segmented/entries.rs",
            "store/documents.rs",
            "store/golden.rs",
            "source/open.rs",
        ],
    ),
    ("fs2", &["store/", "files/disk.rs"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file below `src/`.
struct Source {
    /// Its path from there.
    file: String,
    /// Its path as a module; empty for the crate's root.
    module: Vec<String>,
    mentions: Vec<Mention>,
}

impl Source {
    /// The part of the crate that it belongs to.
    fn part(&self) -> &str {
        self.module.first().map_or("root", String::as_str)
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The dependencies of one section of `Cargo.toml`, as code writes them.
fn dependencies(section: &str) -> BTreeSet<String> {
    let cargo: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    cargo[section].as_table().unwrap().keys().map(|name| name.replace('-', "_")).collect()
}

fn all_dependencies() -> BTreeSet<String> {
    ["dependencies", "dev-dependencies", "build-dependencies"].into_iter().flat_map(dependencies).collect()
}

/// Every source below `src/` that is not for tests alone, parsed once for all tests.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(sources);

fn sources() -> Vec<Source> {
    let (foreign, src) = (all_dependencies(), root().join("src"));
    let mut sources = Vec::new();
    let mut for_tests: Vec<Vec<String>> = Vec::new();
    for path in rust_files(&src) {
        let file = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        let mut module: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if ["mod", "lib", "main"].contains(&module[module.len() - 1].as_str()) {
            module.pop();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let read = names(&text, &module, &foreign).unwrap_or_else(|e| panic!("{file}: {e}"));
        for_tests.extend(read.tests);
        sources.push(Source { file, module, mentions: read.mentions });
    }
    assert!(sources.len() > 50, "the sources were not found");
    sources.retain(|source| !for_tests.iter().any(|test| source.module.starts_with(test)));
    sources
}

/// The part of the crate that a path from its root leads into; `None` for the root itself, as in `pub(crate)`.
fn part(path: &[String]) -> Option<&str> {
    match path.first()?.as_str() {
        "Error" | "Result" | "fault_of" => Some("facade"),
        "ErrorKind" | "Fault" => Some("error"),
        first => Some(first),
    }
}

/// Every name that leads from one part of the crate to another: from, to, and where.
fn ties(sources: &[Source]) -> Vec<(&str, &str, String)> {
    let mut ties = Vec::new();
    for source in sources {
        for Mention { line, what } in &source.mentions {
            let What::Ours(path) = what else { continue };
            let Some(to) = part(path) else { continue };
            let from = source.part();
            if from != to && from != "root" {
                ties.push((from, to, format!("{}:{line}", source.file)));
            }
        }
    }
    ties
}

/// What each part may know by way of others, debts left out.
fn reach(from: &str, modules: &[Module], debts: &[(&str, &str, &str)]) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut open = vec![(from.to_owned(), from.to_owned())];
    while let Some((at, way)) = open.pop() {
        let Some((_, ours, foreign)) = modules.iter().find(|(name, ..)| *name == at) else { continue };
        for next in ours.iter().chain(*foreign) {
            if debts.iter().any(|(a, b, _)| *a == at && b == next) || found.contains_key(*next) {
                continue;
            }
            let way = format!("{way} -> {next}");
            found.insert((*next).to_owned(), way.clone());
            open.push(((*next).to_owned(), way));
        }
    }
    found
}

/// How far above the ground floor each part stands: higher by one than the highest that it names. `ties` has no circle.
fn floors<'a>(parts: &BTreeSet<&'a str>, ties: &BTreeSet<(&'a str, &'a str)>) -> BTreeMap<&'a str, usize> {
    let mut floors: BTreeMap<&str, usize> = parts.iter().map(|part| (*part, 0)).collect();
    // No way is longer than there are parts.
    for _ in parts {
        for (from, to) in ties {
            let above = floors[to] + 1;
            floors.entry(from).and_modify(|floor| *floor = above.max(*floor));
        }
    }
    floors
}

/// The parts as a text, a line for each, from the ground floor up: the floor, the name, what it names and, in brackets,
/// which foreign crates. What every part may name ([`FOUNDATION`], [`PLAIN`]) is left out of the lists.
fn map(sources: &[Source]) -> String {
    let ties: BTreeSet<(&str, &str)> =
        ties(sources).into_iter().map(|(from, to, _)| (from, to)).filter(|(_, to)| *to != "facade").collect();
    let parts: BTreeSet<&str> = sources.iter().map(Source::part).filter(|part| *part != "root").collect();
    let floors = floors(&parts, &ties);
    let mut lines: Vec<(usize, &str, String)> = Vec::new();
    for (part, floor) in floors {
        let named: Vec<&str> = ties
            .iter()
            .filter(|(from, to)| *from == part && !FOUNDATION.contains(to))
            .map(|(_, to)| *to)
            .collect();
        let foreign: BTreeSet<&str> = sources
            .iter()
            .filter(|source| source.part() == part)
            .flat_map(|source| &source.mentions)
            .filter_map(|mention| match &mention.what {
                What::Foreign(name) if !PLAIN.contains(&name.as_str()) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let mut line = format!("{floor:>2}  {part}");
        if !named.is_empty() {
            line += &format!(" -> {}", named.join(", "));
        }
        if !foreign.is_empty() {
            line += &format!(" [{}]", Vec::from_iter(foreign).join(", "));
        }
        lines.push((floor, part, line));
    }
    lines.sort();
    lines.into_iter().map(|(_, _, line)| line + "\n").collect()
}

/// `cargo test --lib walls -- --nocapture` shows the map.
#[test]
fn the_map_shows_each_part_above_what_it_names() {
    let map = map(&SOURCES);
    println!("{map}");
    let lines: Vec<(&str, &str)> = map
        .lines()
        .map(|line| {
            let line = line[4..].split(" [").next().unwrap();
            line.split_once(" -> ").unwrap_or((line, ""))
        })
        .collect();
    for (number, (part, named)) in lines.iter().enumerate() {
        for name in named.split(", ").filter(|name| !name.is_empty()) {
            let above = lines[..number].iter().any(|(below, _)| *below == name);
            assert!(above, "{part} names {name}, which does not stand above it in the map:\n{map}");
        }
    }
    let listed: BTreeSet<&str> = lines.iter().map(|(part, _)| *part).collect();
    let known: BTreeSet<&str> = MODULES.iter().map(|(name, ..)| *name).collect();
    let unlisted: Vec<_> = listed.symmetric_difference(&known).collect();
    assert!(unlisted.is_empty(), "only in the sources or only in MODULES: {unlisted:?}");
}

#[test]
fn a_floor_is_one_above_the_highest_that_is_named() {
    let parts = BTreeSet::from(["a", "b", "c", "d"]);
    let floors = floors(&parts, &BTreeSet::from([("a", "b"), ("a", "d"), ("b", "c"), ("d", "b")]));
    assert_eq!(floors, BTreeMap::from([("a", 3), ("b", 1), ("c", 0), ("d", 2)]));
}

#[test]
fn a_part_names_only_what_it_may() {
    let mut faults = BTreeSet::new();
    let may = |from: &str, to: &str, of: fn(&Module) -> &'static [&'static str]| {
        (FOUNDATION.contains(&to) && !FOUNDATION.contains(&from))
            || PLAIN.contains(&to)
            || MODULES.iter().find(|(name, ..)| *name == from).is_some_and(|module| of(module).contains(&to))
    };
    for (from, to, place) in ties(&SOURCES) {
        if !may(from, to, |module| module.1) {
            faults.insert(format!("{place}: {from} may not name {to}"));
        }
    }
    for source in &*SOURCES {
        let from = source.part();
        for Mention { line, what } in &source.mentions {
            let What::Foreign(name) = what else { continue };
            if !may(from, name, |module| module.2) {
                faults.insert(format!("{}:{line}: {from} may not name the crate {name}", source.file));
            }
        }
    }
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "{}\n(what may name what: src/walls.rs)", faults.join("\n"));
}

#[test]
fn a_debt_that_was_paid_is_struck_out() {
    let ties = ties(&SOURCES);
    for (from, to, why) in DEBTS {
        assert!(!why.is_empty());
        let stands = ties.iter().any(|(a, b, _)| a == from && b == to);
        assert!(stands, "{from} no longer names {to}: remove the debt, and {to} from what {from} may name");
    }
}

#[test]
fn no_two_parts_know_each_other_and_walls_hold_by_any_way() {
    let mut faults = Vec::new();
    for (name, ..) in MODULES {
        let reach = reach(name, MODULES, DEBTS);
        if let Some(way) = reach.get(*name) {
            faults.push(format!("a circle: {way}"));
        }
        let forbidden = WALLS.iter().filter(|(from, _)| from == name).flat_map(|(_, to)| *to);
        let outermost = OUTERMOST.iter().filter(|(_, who)| !who.contains(name)).map(|(what, _)| what);
        for to in forbidden.chain(outermost) {
            faults.extend(reach.get(*to).map(|way| format!("{name} must not know {to}: {way}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What lies below every part knows none that is not there too, so no circle goes through it unseen.
#[test]
fn the_foundation_stands_on_itself_and_the_errors_on_nothing() {
    let mut faults = Vec::new();
    for (name, ours, foreign) in MODULES.iter().filter(|(name, ..)| FOUNDATION.contains(name)) {
        let above: Vec<_> = ours.iter().filter(|part| !FOUNDATION.contains(part)).collect();
        if !above.is_empty() {
            faults.push(format!("{name} may name {above:?}, which stand above the foundation"));
        }
        if *name == "error" && !(ours.is_empty() && foreign.is_empty()) {
            faults.push(format!("error may name {ours:?} and {foreign:?}, and ought to name nothing"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn ways_are_followed_and_debts_left_out() {
    let modules: &[Module] =
        &[("a", &["b"], &[]), ("b", &["c"], &["sled"]), ("c", &["d"], &[]), ("d", &["b"], &[])];
    let all = reach("a", modules, &[]);
    assert_eq!(all["sled"], "a -> b -> sled");
    assert_eq!(all["d"], "a -> b -> c -> d");
    assert!(reach("b", modules, &[]).contains_key("b"), "a circle is seen");
    assert!(!reach("b", modules, &[("c", "d", "for now")]).contains_key("b"));
}

#[test]
fn a_foreign_crate_is_named_in_one_place() {
    let mut faults = Vec::new();
    for source in &*SOURCES {
        for Mention { line, what } in &source.mentions {
            let What::Foreign(name) = what else { continue };
            let places = PLACES.iter().find(|(listed, _)| listed == name).map(|(_, places)| *places);
            if places.is_some_and(|places| !places.iter().any(|place| source.file.starts_with(place))) {
                faults.push(format!("{}:{line} names {name}", source.file));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What makes threads, and the beginnings of the files that may use it.
const THREAD_MAKERS: &[(&[&str], &[&str])] = &[
    (&["ThreadPoolBuilder"], &["threads/"]),
    // A thread that unloads models; the lanes, which own ONNX Runtime's threads; readers of a child process's output;
    // the command line's own.
    (&["thread", "spawn"], &["setup/pip.rs"]),
    (&["thread", "Builder"], &["threads/", "encoder/registry.rs", "encoder/scheduler.rs", "cli/"]),
    (&["runtime", "Builder"], &["cli/"]),
    (&["Runtime", "new"], &["cli/"]),
];

/// Where `source` uses one of `makers` and may not.
fn thread_faults(source: &Source, makers: &[(&[&str], &[&str])]) -> Vec<String> {
    let mut faults = Vec::new();
    for Mention { line, what } in &source.mentions {
        let What::Path(path) = what else { continue };
        for (maker, places) in makers {
            let used = path.windows(maker.len()).any(|part| part == *maker);
            if used && !places.iter().any(|place| source.file.starts_with(place)) {
                faults.push(format!("{}:{line}: {}", source.file, path.join("::")));
            }
        }
    }
    faults
}

/// A pool made elsewhere would take cores that the budget has given away.
#[test]
fn only_the_thread_budget_makes_pools() {
    let faults: Vec<String> =
        SOURCES.iter().flat_map(|source| thread_faults(source, THREAD_MAKERS)).collect();
    assert!(faults.is_empty(), "these make threads of their own:\n{}", faults.join("\n"));
    let unused: Vec<_> = THREAD_MAKERS
        .iter()
        .flat_map(|(maker, places)| places.iter().map(move |place| (maker, place)))
        .filter(|(maker, place)| {
            let makers: &[(&[&str], &[&str])] = &[(maker, &[])];
            !SOURCES.iter().any(|s| s.file.starts_with(**place) && !thread_faults(s, makers).is_empty())
        })
        .filter(|(maker, _)| maker[0] != "Runtime")
        .collect();
    assert!(unused.is_empty(), "strike these out: {unused:?}");
}

#[test]
fn a_pool_is_seen_wherever_it_stands_in_a_file() {
    let text = "#[cfg(test)]\nmod tests;\nuse std::thread;\nfn a() { rayon::ThreadPoolBuilder::new(); }\n\
                fn b() { thread::spawn(|| ()); }\nfn c() { std::thread::Builder::new(); }";
    let read = names(text, &["collection".to_owned()], &BTreeSet::from(["rayon".to_owned()])).unwrap();
    let (file, module) = ("collection/mod.rs".to_owned(), vec!["collection".to_owned()]);
    let faults = thread_faults(&Source { file, module, mentions: read.mentions }, THREAD_MAKERS);
    assert_eq!(faults.len(), 3, "{faults:?}");
}

/// What `fault_of` does not list is told to callers as a failure of no kind.
#[test]
fn every_fault_is_known_to_the_facade() {
    let src = root().join("src");
    let facade = std::fs::read_to_string(src.join("lib.rs")).unwrap();
    let (_, list) = facade.split_once("first_of!(").unwrap();
    let (list, _) = list.split_once(')').unwrap();
    let listed: BTreeSet<&str> = list
        .split(',')
        .map(|path| path.trim().rsplit("::").next().unwrap())
        .filter(|n| !n.is_empty())
        .collect();
    let mut faults: BTreeSet<String> = BTreeSet::new();
    for source in &*SOURCES {
        let text = std::fs::read_to_string(src.join(&source.file)).unwrap();
        // Those that stand further to the right are of tests.
        let bearers = text.lines().filter(|line| line.starts_with("impl ")).filter_map(|line| {
            let (_, bearer) = line.split_once("Fault for ")?;
            bearer.split(' ').next()
        });
        faults.extend(bearers.map(str::to_owned));
    }
    assert!(faults.len() > 20, "{faults:?}");
    let faults: BTreeSet<&str> = faults.iter().map(String::as_str).collect();
    let unlisted: Vec<_> = faults.symmetric_difference(&listed).collect();
    assert!(unlisted.is_empty(), "only in the sources or only in `fault_of`: {unlisted:?}");
}

#[test]
fn only_the_command_line_prints() {
    let mut faults = Vec::new();
    for source in SOURCES.iter().filter(|source| source.part() != "cli") {
        for Mention { line, what } in &source.mentions {
            let What::Macro(name) = what else { continue };
            if ["print", "println", "eprint", "eprintln", "dbg"].contains(&name.as_str()) {
                faults.push(format!("{}:{line}: {name}!", source.file));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_dependency_is_named() {
    let foreign = all_dependencies();
    fn crates(mentions: &[Mention]) -> impl Iterator<Item = String> {
        mentions.iter().filter_map(|mention| match &mention.what {
            What::Foreign(name) => Some(name.clone()),
            What::Ours(_) | What::Macro(_) | What::Path(_) => None,
        })
    }
    let named_in = |path: &Path| -> Vec<String> {
        // What is for tests alone counts here, so nothing says that it is.
        let text = std::fs::read_to_string(path).unwrap().replace("#[cfg(test)]", "");
        crates(&names(&text, &[], &foreign).unwrap().mentions).collect()
    };
    let built: BTreeSet<String> = SOURCES.iter().flat_map(|source| crates(&source.mentions)).collect();
    let tested: BTreeSet<String> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|dir| rust_files(&root().join(dir)))
        .flat_map(|file| named_in(&file))
        .collect();
    let building: BTreeSet<String> = named_in(&root().join("proto/build.rs")).into_iter().collect();
    let mut faults = Vec::new();
    for (section, named) in
        [("dependencies", built), ("dev-dependencies", tested), ("build-dependencies", building)]
    {
        for name in dependencies(section) {
            if !named.contains(&name) {
                faults.push(format!("{name} of [{section}] is named nowhere: remove it from Cargo.toml"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
