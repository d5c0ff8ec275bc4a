//! Queries in, hits out, for people and for programs.

use std::process::Stdio;

use super::harness::*;

fn filled() -> Option<Place> {
    let place = Place::new()?;
    let docs = concat!(
        "{\"id\":\"a\",\"title\":\"Über Brücken\",\"text\":\"Die Brücke über den Fluß ist gesperrt.\",\"year\":1999,\"tags\":[\"x\",\"y\"]}\n",
        "{\"id\":\"b\",\"title\":\"日本語の題名\",\"text\":\"これは日本語の文章です。検索できますか。とても長い文章なので、折り返しが必要です。\",\"year\":2005}\n",
        "{\"id\":\"c\",\"text\":\"Emoji 👩‍👩‍👧‍👦 families and flags 🇩🇪 stay whole when lines are broken at any width at all.\",\"year\":2010}\n",
        "{\"id\":\"d\",\"title\":\"Escape\",\"text\":\"A document with \\u001b[31m an escape code and a very-long-word-without-any-break-that-does-not-fit-into-forty-columns.\",\"year\":2020}\n",
    );
    place.file("docs.jsonl", docs);
    place.run(&["ingest", "docs.jsonl"]).code(0).prints("4 inserted");
    Some(place)
}

#[test]
fn hits_are_printed_for_people_at_every_width() {
    let Some(place) = filled() else { return };
    for width in [20usize, 40, 80, 200] {
        let mut command = place.cli(&["search", "brücke", "-k", "4", "--payload", "--explain"]);
        let ran = run(command.env("COLUMNS", width.to_string())).code(0);
        ran.prints(" 1. ").prints(" 4. ").prints("year=").prints("plan");
        assert!(!ran.stdout.contains('\u{1b}'), "an escape code reached the terminal: {ran:?}");
        for line in ran.stdout.lines() {
            assert!(unicode_width::UnicodeWidthStr::width(line) <= width, "{width}: {line:?}");
        }
    }
}

#[test]
fn a_passage_keeps_its_lines() {
    let Some(place) = Place::new() else { return };
    place.file("d/list.txt", "Shopping\n\n- bread\n- milk\n    - cold\n\nEnd");
    place.run(&["ingest", "d", "-c", "x"]).code(0);
    let ran = place.run(&["search", "milk", "-c", "x", "--lines", "0"]).code(0);
    ran.prints("\n    Shopping\n\n    - bread\n    - milk\n        - cold\n\n    End\n");
    let ran = place.run(&["search", "milk", "-c", "x", "--lines", "3"]).code(0);
    ran.prints("\n    Shopping\n    - bread\n    - milk …\n");
}

#[test]
fn a_long_title_is_cut_to_two_lines() {
    let Some(place) = Place::new() else { return };
    let title = (0..280).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" ");
    place.file("d.jsonl", format!("{{\"id\":\"the-id\",\"title\":\"{title}\",\"text\":\"milk\"}}\n"));
    place.run(&["ingest", "d.jsonl"]).code(0);
    for width in ["20", "80"] {
        let ran = run(place.cli(&["search", "milk"]).env("COLUMNS", width)).code(0);
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert!(lines[0].contains("word0") && lines[1].ends_with('…'), "{ran:#?}");
        assert!(lines[1].chars().count() <= width.parse().unwrap(), "{ran:#?}");
        assert!(lines[2].trim_start().starts_with("the-id"), "{ran:#?}");
    }
    let found = place.run(&["search", "milk", "--json"]).code(0).json();
    assert_eq!(found["hits"][0]["title"], title);
}

#[test]
fn hits_are_json_for_programs() {
    let Some(place) = filled() else { return };
    let found = place.run(&["search", "brücke", "-k", "2", "--explain", "--json"]).code(0).json();
    let hits = found["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 2);
    assert!(hits[0]["score"].as_f64() >= hits[1]["score"].as_f64());
    assert!(hits[0]["passage"]["text"].is_string() && hits[0]["payload"]["year"].is_i64());
    assert!(found["query"]["tokens"].as_u64().unwrap() > 0);
    assert!(found["explain"]["plan"].is_string() && found["explain"]["total_us"].is_u64());
}

#[test]
fn filters_thresholds_and_likeness_narrow_the_hits() {
    let Some(place) = filled() else { return };
    let ids = |args: &[&str]| -> Vec<String> {
        let args = [&["search", "--json"], args].concat();
        let found = place.run(&args).code(0).json();
        found["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut found = ids(&["text", "--filter", "year >= 2005 and year < 2015"]);
    found.sort();
    assert_eq!(found, ["b", "c"]);
    assert_eq!(ids(&["text", "--filter", "tags contains \"x\""]), ["a"]);
    assert_eq!(ids(&["text", "--filter", "year = 1", "--exact"]), Vec::<String>::new());
    assert_eq!(ids(&["text", "--threshold", "1.01"]), Vec::<String>::new());
    let like = ids(&["--like", "a"]);
    assert!(like.len() == 3 && !like.contains(&"a".to_owned()), "{like:?}");
}

#[test]
fn a_filter_that_cannot_be_read_is_told_with_its_position() {
    let Some(place) = filled() else { return };
    place.run(&["search", "x", "--filter", "year >= and"]).code(2).says("position");
    place.run(&["search", "x", "--filter", "year = \"old\""]).code(2).says("year");
    let error = place.run(&["search", "x", "--filter", "(year", "--json"]).code(2).json_error();
    assert_eq!(error["kind"], "invalid");
}

#[test]
fn what_does_not_exist_is_told_with_what_there_is() {
    let Some(place) = filled() else { return };
    place.run(&["search", "x", "-c", "nope"]).code(1).says("nope").says("default");
    assert_eq!(place.run(&["search", "x", "-c", "nope", "--json"]).code(1).json_error()["kind"], "not_found");
    place.run(&["search", "--like", "nope"]).code(1).says("nope");
}

#[test]
fn wrong_questions_are_wrong_use() {
    let Some(place) = filled() else { return };
    place.run(&["search", "x", "-k", "0"]).code(2).says("k");
    place.run(&["search", "x", "-k", "1000000"]).code(2).says("1000");
    place.run(&["search", ""]).code(2);
    place.run(&["search", "--vector", "[1, 2]"]).code(2).says("dimension");
}

#[test]
fn texts_become_vectors() {
    let Some(place) = Place::new() else { return };
    let json = place.run(&["embed", "one", "two", "--json"]).code(0).json();
    let vectors = json["embeddings"].as_array().unwrap();
    assert_eq!(vectors.len(), 2);
    let norm: f64 =
        vectors[0]["vector"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap().powi(2)).sum();
    assert!((norm - 1.0).abs() < 1e-3, "{norm}");
    place.run(&["embed", "one"]).code(0).prints("dimensions").prints("one");
    let lines = run_with_stdin(&mut place.cli(&["embed", "-", "--json"]), "a\nb\nc\n".as_bytes()).code(0);
    assert_eq!(lines.json_lines().len(), 3);
    run_with_stdin(&mut place.cli(&["embed", "-"]), &[0xff, b'\n']).code(1).says("UTF-8");
    let same = place.run(&["similarity", "one", "one", "two", "--json"]).code(0).json();
    assert!((same["others"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-4, "{same}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let Some(place) = Place::new() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-"]), lines(0..500).as_bytes()).code(0);
    let mut scroll = place.cli(&["document", "scroll", "--all", "--json"]);
    let mut scroll = scroll.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut head = std::process::Command::new("head");
    let head = head.arg("-1").stdin(scroll.stdout.take().unwrap()).output().unwrap();
    assert_eq!(head.stdout.iter().filter(|b| **b == b'\n').count(), 1);
    let ran = finish(scroll).code(0);
    assert_eq!(ran.stderr, "");
}

#[test]
fn colours_only_where_they_are_asked_for() {
    let Some(place) = filled() else { return };
    assert!(!place.run(&["search", "x"]).code(0).stdout.contains('\u{1b}'));
    let ran = place.run(&["search", "x", "--color", "always"]).code(0);
    assert!(ran.stdout.contains("\u{1b}[1m"));
    assert!(!place.run(&["search", "x", "--color", "always", "--json"]).code(0).stdout.contains('\u{1b}'));
}
