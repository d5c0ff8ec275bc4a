//! Collections, aliases, documents and models.

use super::harness::*;

#[test]
fn a_collection_lives_from_create_to_delete() {
    let Some(place) = Place::new() else { return };
    place
        .run(&["collection", "create", "x", "--index", "flat", "--chunk-tokens", "32"])
        .code(0)
        .says("created");
    place.run(&["collection", "create", "x"]).code(1).says("exists");
    // What is 0 on the wire is the default, which nobody means who types 0.
    for flag in
        ["--dimension", "--m", "--ef-construction", "--ef-search", "--chunk-tokens", "--chunk-overlap"]
    {
        let ran = place.run(&["collection", "create", "y", flag, "0"]).code(2);
        ran.says(&format!("{flag} must be at least 1; leave it out for the default"));
    }
    let made = place.run(&["collection", "show", "x", "--json"]).code(0).json();
    assert_eq!((&made["index"]["kind"], &made["chunking"]["max_tokens"]), (&"flat".into(), &32.into()));
    place.run(&["collection", "list"]).code(0).prints("cosine");
    place.run(&["collection", "create", "x", "--if-not-exists"]).code(0).says("was there already");
    let differs = place.run(&["collection", "create", "x", "--if-not-exists", "--metric", "dot"]).code(1);
    differs.says("metric is cosine, not dot");
    place.run(&["collection", "alias", "y", "x"]).code(0);
    place.run(&["collection", "delete", "y", "--yes"]).code(2).says("collection unalias");
    assert_eq!(place.run(&["collection", "show", "y", "--json"]).code(0).json()["aliases"][0], "y");
    run_with_stdin(&mut place.cli(&["ingest", "-", "-c", "y"]), lines(0..4).as_bytes()).code(0);
    let stats = place.run(&["collection", "stats", "y", "--json"]).code(0).json();
    assert_eq!((&stats["documents"], &stats["fields"][0]["field"]), (&4.into(), &"n".into()));
    place.run(&["collection", "stats", "x"]).code(0).prints("Fields");
    place.run(&["collection", "unalias", "y"]).code(0);
    place.run(&["collection", "show", "y"]).code(1).says("y");
    place.run(&["collection", "delete", "x"]).code(2).says("--yes");
    place.run(&["collection", "delete", "x", "--yes"]).code(0);
    place.run(&["collection", "show", "x"]).code(1);
    place.run(&["collection", "create", "bad name"]).code(2).says("name");
}

#[test]
fn a_deleted_collection_is_told_with_the_aliases_that_went_with_it() {
    let Some(place) = Place::new() else { return };
    for name in ["x", "y", "z"] {
        place.run(&["collection", "create", name]).code(0);
    }
    for (alias, name) in [("b", "x"), ("a", "x"), ("c", "y"), ("d", "y")] {
        place.run(&["collection", "alias", alias, name]).code(0);
    }
    let told = place.run(&["collection", "delete", "x", "-y", "--json"]).code(0).json();
    assert_eq!(told, serde_json::json!({ "deleted": "x", "aliases": ["a", "b"] }));
    place.run(&["collection", "unalias", "d"]).code(0);
    place.run(&["collection", "delete", "y", "-y"]).code(0).says("deleted collection y and its alias c\n");
    place.run(&["collection", "delete", "z", "-y"]).code(0).says("deleted collection z\n");
    place.run(&["collection", "delete", "z", "-y"]).code(1).says("z");
}

#[test]
fn a_page_of_json_lines_says_that_there_are_more() {
    let Some(place) = Place::new() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-"]), lines(0..5).as_bytes()).code(0);
    let page = place.run(&["document", "scroll", "-n", "3", "--json"]).code(0);
    assert_eq!(page.json_lines().len(), 3);
    let told: serde_json::Value = serde_json::from_str(&page.stderr).unwrap();
    let note = told["note"].as_str().unwrap();
    assert!(note.starts_with("there are more: --all, or go on with --cursor '"), "{note}");
    let cursor = note.split('\'').nth(1).unwrap();
    let rest = place.run(&["document", "scroll", "--json", "--cursor", cursor]).code(0);
    assert_eq!((rest.json_lines().len(), &*rest.stderr), (2, ""));
    for silent in [&["-n", "3", "--quiet"][..], &["-n", "5"], &["--all"]] {
        let ran = place.run(&[&["document", "scroll", "--json"], silent].concat()).code(0);
        assert_eq!(ran.stderr, "", "{silent:?}");
    }
}

#[test]
fn an_integer_beyond_64_bits_is_refused_unless_a_type_says_what_becomes_of_it() {
    let Some(place) = Place::new() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-"]), lines(0..1).as_bytes()).code(0);
    let long = "123456789012345678901";
    let (huge, refused) = ("9".repeat(400), "is out of bounds (-9223372036854775808 to 9223372036854775807)");
    for digits in [long, "18446744073709551616", "9223372036854775808", "-9223372036854775809", &huge] {
        for value in [digits.to_owned(), format!("[1,{digits}]"), format!("{{\"a\":{digits}}}")] {
            let ran = place.run(&["document", "set", "doc-0", &format!("m={value}")]).code(2);
            ran.says(refused).says("field \"m");
        }
    }
    let set = |args: &[&str]| place.run(&[&["document", "set", "doc-0", "--replace"], args].concat()).code(0);
    set(&[
        &format!("a={long}"),
        &format!("b={long}"),
        "c=1e20",
        &format!("d={long}.0"),
        &format!("e=\"{long}\""),
        &format!("f=00{long}"),
        &format!("g={{\"h\":{long}}}"),
        &format!("i={}", i64::MIN),
        "--type",
        "a=string",
        "--type",
        "b=float",
        "--type",
        "g.h=string",
    ]);
    let got = place.run(&["document", "get", "doc-0", "--json"]).code(0).json_lines();
    let float = 123_456_789_012_345_678_901.0;
    let expected = serde_json::json!({
        "a": long, "b": float, "c": 1e20, "d": float, "e": long, "f": format!("00{long}"), "g.h": long, "i": i64::MIN,
    });
    assert_eq!(got[0]["payload"], expected);
}

#[test]
fn documents_are_got_counted_listed_and_deleted() {
    let Some(place) = Place::new() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-"]), lines(0..150).as_bytes()).code(0);
    place.run(&["document", "get", "doc-7"]).code(0).prints("Text number 7 about things.").prints("n=7");
    let ran = place.run(&["document", "get", "doc-1", "nope"]).code(1);
    ran.prints("doc-1").says("nope").says("1 document missing, of 2 asked for");
    let got = place.run(&["document", "get", "doc-1", "--vectors", "--json"]).code(0).json_lines();
    assert!(got[0]["vector"].is_array() && got[0]["updated_at"].is_string());

    assert_eq!(place.run(&["document", "scroll", "--all", "--json"]).code(0).json_lines().len(), 150);
    let some = place.run(&["document", "scroll", "-n", "3", "--filter", "n < 100"]).code(0);
    some.says("--cursor");
    place.run(&["document", "count"]).code(0).prints("150");

    place.run(&["document", "delete", "doc-1"]).code(2).says("--yes");
    let deleted = place.run(&["document", "delete", "doc-1", "doc-none", "--yes"]).code(0);
    deleted.prints("deleted 1 document").says("1 of the 2 ids has no document in \"default\"");
    let deleted = place.run(&["document", "delete", "doc-none", "--yes"]).code(0);
    deleted.prints("deleted 0 documents").says("no document \"doc-none\" in \"default\"");
    let deleted =
        place.run(&["document", "delete", "--filter", "n >= 100", "--yes", "--json"]).code(0).json();
    assert_eq!(deleted["deleted"], 50);
    assert_eq!(place.count("default"), 99);
    let hits = place.run(&["search", "number 120", "-k", "200", "--json"]).code(0).json();
    assert_eq!(hits["hits"].as_array().unwrap().len(), 99);
}

#[test]
fn fields_are_unset_by_id_and_by_condition() {
    let Some(place) = Place::new() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-"]), lines(0..3).as_bytes()).code(0);
    place.run(&["document", "set", "doc-1", "lang=en", "draft=true", "--durability", "process"]).code(0);
    let unset =
        place.run(&["document", "unset", "doc-1", "doc-0", "--field", "lang", "--json"]).code(0).json();
    assert_eq!((&unset["changed"], &unset["unchanged"]), (&1.into(), &1.into()));
    let fields =
        || place.run(&["document", "get", "doc-1", "--json"]).code(0).json_lines()[0]["payload"].clone();
    assert_eq!(fields(), serde_json::json!({ "n": 1, "draft": true }));
    place.run(&["document", "unset", "--where", "draft = true", "--all"]).code(2).says("--yes");
    let all = ["document", "unset", "--where", "draft = true", "--all", "--yes", "--durability", "process"];
    place.run(&all).code(0).prints("changed 1 document");
    assert_eq!(fields(), serde_json::json!({}));
    place.run(&["document", "unset", "doc-1"]).code(2).says("--field");
    place.run(&["document", "unset", "--field", "n"]).code(2).says("--where");
    place.run(&["document", "unset", "doc-0", "nobody", "--field", "n"]).says("no document \"nobody\"");
    place
        .run(&["document", "unset", "a", "b", "--field", "n", "--expected-version", "3"])
        .code(2)
        .says("one ID");
    place.run(&["document", "delete", "doc-2", "--yes", "--durability", "process"]).code(0);
}

#[test]
fn fields_of_a_document_are_set_and_removed() {
    let Some(place) = Place::new() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-"]), lines(0..3).as_bytes()).code(0);
    let set = place.run(&["document", "set", "doc-1", "n=70", "lang=en", "tags=[\"a\",\"b\"]", "zip=01067"]);
    set.code(0).prints("updated doc-1");
    place.run(&["document", "set", "doc-1", "lang=en"]).code(0).prints("unchanged");
    let seen = ["document", "set", "doc-1", "seen=2024-05-01", "code=007", "--type", "seen=datetime"];
    place.run(&[&seen[..], &["--remove", "n", "--json"]].concat()).code(0);
    let got = place.run(&["document", "get", "doc-1", "--json"]).code(0).json_lines();
    let expected = serde_json::json!({
        "lang": "en", "tags": ["a", "b"], "zip": "01067", "seen": "2024-05-01T00:00:00Z", "code": "007"
    });
    assert_eq!(got[0]["payload"], expected);
    place.run(&["document", "set", "doc-1", "--replace", "only=1"]).code(0);
    place.run(&["document", "get", "doc-1"]).code(0).prints("only=1");
    place.run(&["document", "set", "nobody", "a=1"]).code(1).says("no document \"nobody\"");
    place.run(&["document", "set"]).code(2).says("--where");
    place.run(&["document", "set", "doc-1"]).code(2).says("FIELD=VALUE");
    place.run(&["document", "set", "doc-1", "year"]).code(2).says("year=2001");
}

#[test]
fn a_document_is_changed_or_deleted_only_if_it_still_has_the_version_that_was_read() {
    let Some(place) = Place::new() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-"]), lines(0..2).as_bytes()).code(0);
    let version = |id: &str| {
        let got = place.run(&["document", "get", id, "--json"]).code(0).json_lines();
        got[0]["version"].as_u64().unwrap()
    };
    let read = version("doc-1");
    let set = |n: &str, expected: u64| {
        place.run(&["document", "set", "doc-1", n, "--expected-version", &expected.to_string(), "--json"])
    };
    let told = set("n=7", read).code(0).json();
    assert!(told["version"].as_u64().unwrap() > read, "{told}");
    assert_eq!(told["version"].as_u64().unwrap(), version("doc-1"));
    set("n=8", read).code(1).says("read it again");
    let expected = read.to_string();
    let delete = ["document", "delete", "doc-1", "--yes", "--expected-version"];
    place.run(&[&delete[..], &[&expected]].concat()).code(1).says("read it again");
    place
        .run(&["document", "delete", "doc-0", "doc-1", "--yes", "--expected-version", "1"])
        .code(2)
        .says("one ID");
    place.run(&["document", "set", "doc-1", "n=1", "--expected-version", "0"]).code(2);
    let expected = version("doc-1").to_string();
    place.run(&[&delete[..], &[&expected]].concat()).code(0).prints("deleted 1 document");
}

#[test]
fn fields_of_all_that_match_are_set_after_asking() {
    let Some(place) = Place::new() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-"]), lines(0..30).as_bytes()).code(0);
    let set = |rest: &[&str]| place.run(&[&["document", "set", "--where", "n < 10"], rest].concat());
    set(&["old=true"]).code(2).says("--yes");
    set(&["--yes"]).code(2).says("FIELD=VALUE");
    let told = set(&["old=true", "--yes", "--json"]).code(0).json();
    assert_eq!(told, serde_json::json!({"matched": 10, "changed": 10, "unchanged": 0, "failed": 0}));
    set(&["old=true", "-y"]).code(0).prints("changed 0 documents, 10 were so already");
    place.run(&["document", "count", "--filter", "old = true"]).code(0).prints("10");
    set(&["old=false", "--yes", "--expected-version", "3"]).code(2);
    let failed = set(&[&format!("x={}", "y".repeat(70_000)), "--yes", "--json"]);
    assert_eq!(failed.code(3).json()["failed"], 10);
    let hinted = place.run(&["document", "set", "-f", "nn < 10", "a=1", "--yes"]).code(0);
    hinted.prints("changed 0 documents");
    // As people see it, the lines may break anywhere.
    let words: Vec<&str> = hinted.stderr.split_whitespace().collect();
    assert!(words.join(" ").contains("did you mean"), "{hinted:?}");
}

#[test]
fn models_are_listed_verified_and_a_damaged_one_is_told() {
    let Some(place) = Place::new() else { return };
    let model = place.run(&["model", "show", "--json"]).code(0).json();
    let from = std::path::PathBuf::from(model["path"].as_str().unwrap());
    let to = place.path("home/models/copy");
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(&from).unwrap().flatten().filter(|e| e.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let command = |args: &[&str]| run(bare().env("DISTILFACE_HOME", place.path("home")).args(args));
    command(&["model", "list"]).code(0).prints("dimension");
    command(&["model", "verify"]).code(0).prints("good");
    let tokenizer = to.join("tokenizer.json");
    let mut bytes = std::fs::read(&tokenizer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&tokenizer, bytes).unwrap();
    command(&["model", "verify"]).code(1).says("sha256");
    assert_eq!(command(&["model", "verify", "--json"]).code(1).json_error()["kind"], "corrupt");
    command(&["model", "show", "nope"]).code(1).says("distilface setup");
    command(&["model", "import", "/no/such/folder"]).code(1);
}

#[test]
fn a_missing_model_is_told_with_how_to_get_one() {
    let Some(place) = Place::new() else { return };
    let ran = run(place.cli(&["embed", "x"]).env("DISTILFACE_ENCODER__MODEL", "nope")).code(1);
    ran.says("no model \"nope\"").says("distilface setup");
}

#[test]
fn a_filter_that_may_find_less_than_was_meant_is_warned_of() {
    let Some(place) = Place::new() else { return };
    place.file(
        "towns.jsonl",
        concat!(
            r#"{"id":"a","text":"a town","zip":10115}"#,
            "\n",
            r#"{"id":"b","text":"a town","zip":"01067"}"#,
            "\n",
        ),
    );
    place.run(&["ingest", "towns.jsonl", "-c", "x"]).code(0);
    for (filter, said) in [("zpi = 10115", "did you mean \"zip\""), ("zip = '10115'", "without quotes")] {
        for command in [
            &["search", "a town", "-c", "x", "--filter", filter][..],
            &["document", "count", "-c", "x", "--filter", filter],
            &["document", "scroll", "-c", "x", "--filter", filter],
            &["document", "delete", "-c", "x", "--yes", "--filter", filter],
        ] {
            // As people see it, the lines may break anywhere.
            let ran = place.run(command).code(0);
            let words: Vec<&str> = ran.stderr.split_whitespace().collect();
            assert!(words.join(" ").contains(said), "{ran:#?}");
            let ran = place.run(&[command, &["--json"]].concat()).code(0);
            let warning: serde_json::Value =
                serde_json::from_str(ran.stderr.lines().next().unwrap()).unwrap();
            assert!(warning["warning"].as_str().unwrap().contains(said), "{ran:#?}");
            if command[1] != "scroll" {
                assert!(ran.json()["hints"][0].as_str().unwrap().contains(said), "{ran:#?}");
            }
        }
    }
    let fine = place.run(&["document", "count", "-c", "x", "--filter", "exists(zip)", "--json"]).code(0);
    assert_eq!((fine.json(), fine.stderr.as_str()), (serde_json::json!({"documents": 2}), ""));
}
