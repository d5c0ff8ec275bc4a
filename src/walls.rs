//! The walls between modules: which foreign crate is named where, and which way dependencies point.

use std::path::{Path, PathBuf};

/// Every source file under `src/`, with its path from there.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 50, "the sources were not found");
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            (name, std::fs::read_to_string(path).unwrap())
        })
        .filter(|(name, _)| name != "walls.rs")
        .collect()
}

/// Lines of code: no comments, and nothing from the first test module on.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]") && !line.starts_with("mod tests"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(i, line)| (i + 1, line))
}

/// Whether `line` uses `name` as the first part of a path.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':'))
    })
}

#[test]
fn a_foreign_crate_is_named_in_one_place() {
    let places: &[(&str, &[&str])] = &[
        ("ort", &["runtime/"]),
        ("tokenizers", &["encoder/tokenize.rs"]),
        ("sled", &["store/state.rs"]),
        ("bincode", &["store/record.rs"]),
        ("hnsw_rs", &["index/baseline"]),
        ("anndists", &["index/baseline"]),
        ("tonic", &["server/", "cli/", "proto.rs", "proto/"]),
        ("prometheus_client", &["server/metrics.rs"]),
        ("axum", &["server/"]),
        ("jiff", &["collection/datetime.rs"]),
        ("html5ever", &["source/html.rs"]),
        ("pulldown_cmark", &["source/markdown.rs"]),
        ("saphyr_parser", &["source/front_matter.rs"]),
        ("flate2", &["source/"]),
        ("unicode_normalization", &["source/whole.rs"]),
        ("zip", &["setup/"]),
        ("clap", &["cli/"]),
        ("indicatif", &["cli/"]),
        ("hf_hub", &["model/pull.rs"]),
        ("plotters", &["eval/plot.rs"]),
        ("lru", &["encoder/cache.rs"]),
        ("rustix", &["priority.rs"]),
    ];
    let mut faults = Vec::new();
    for (file, text) in sources() {
        for (name, allowed) in places {
            if allowed.iter().any(|a| file.starts_with(a)) {
                continue;
            }
            faults.extend(
                code(&text)
                    .filter(|(_, line)| names(line, name))
                    .map(|(n, line)| format!("{file}:{n} names {name}: {}", line.trim())),
            );
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn dependencies_point_one_way() {
    // A module and what it must not know.
    let walls: &[(&str, &[&str])] = &[
        (
            "vector",
            &[
                "index",
                "store",
                "collection",
                "encoder",
                "engine",
                "server",
                "cli",
                "eval",
                "model",
                "runtime",
            ],
        ),
        (
            "index",
            &[
                "store",
                "collection",
                "encoder",
                "engine",
                "server",
                "cli",
                "eval",
                "model",
                "runtime",
                "onnx",
            ],
        ),
        ("store", &["index", "encoder", "engine", "server", "cli", "eval", "model", "runtime", "onnx"]),
        ("encoder", &["index", "store", "collection", "engine", "server", "cli"]),
        ("runtime", &["index", "store", "collection", "encoder", "engine", "server", "cli", "eval", "model"]),
        ("onnx", &["index", "store", "collection", "encoder", "engine", "server", "cli", "eval", "runtime"]),
        ("model", &["index", "store", "collection", "encoder", "engine", "server", "cli", "eval", "runtime"]),
        ("collection", &["encoder", "engine", "server", "cli", "eval", "model", "runtime", "onnx", "proto"]),
        ("engine", &["server", "cli", "eval", "proto"]),
        ("eval", &["server", "cli", "proto"]),
        (
            "source",
            &[
                "index", "store", "encoder", "engine", "server", "cli", "eval", "finetune", "model",
                "runtime", "proto",
            ],
        ),
        ("finetune", &["index", "store", "collection", "engine", "server", "cli", "proto"]),
        ("server", &["cli", "eval"]),
    ];
    let mut faults = Vec::new();
    for (file, text) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        // Tests may look over the walls.
        if file.contains("tests") {
            continue;
        }
        for (_, forbidden) in walls.iter().filter(|(m, _)| *m == module) {
            for (n, line) in code(&text) {
                let imports = line.trim_start().strip_suffix("::{").unwrap_or(line.trim_start());
                for name in *forbidden {
                    if line.contains(&format!("crate::{name}::")) || in_crate_list(&text, n, imports, name) {
                        faults.push(format!("{file}:{n} knows {name}: {}", line.trim()));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether line `n` stands in the first level of a `use crate::{ ... }` list and begins with `name`.
fn in_crate_list(text: &str, n: usize, line: &str, name: &str) -> bool {
    if !line.starts_with(&format!("{name}::")) && line.trim_end_matches(',') != name {
        return false;
    }
    let mut depth = 0;
    for before in text.lines().take(n - 1).collect::<Vec<_>>().into_iter().rev() {
        depth += before.matches('{').count() as i32 - before.matches('}').count() as i32;
        if depth > 0 {
            return before.trim_start().trim_start_matches("pub ").starts_with("use crate::{");
        }
    }
    false
}

#[test]
fn only_the_command_line_prints() {
    let mut faults = Vec::new();
    for (file, text) in sources() {
        if file.starts_with("cli/") || file.contains("tests") || file.contains("conformance") {
            continue;
        }
        let prints = ["println!", "eprintln!", "print!(", "eprint!(", "dbg!"];
        faults.extend(
            code(&text)
                .filter(|(_, line)| prints.iter().any(|p| line.contains(p)))
                .map(|(n, line)| format!("{file}:{n}: {}", line.trim())),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
