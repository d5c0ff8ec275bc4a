//! Files in: what is stored, what is skipped, what is told and with which exit code.

use std::process::Stdio;

use super::harness::*;

#[test]
fn a_folder_is_stored_once_and_found() {
    let Some(place) = Place::new() else { return };
    place.file("docs/a.txt", "The harbour was quiet.\n\nOnly gulls were awake.");
    place.file("docs/sub/b.md", "# Bread\n\nFlour, water, salt and time.");
    place.file(
        "docs/c.html",
        "<html><head><title>Stars</title></head><body><p>Light from far away.</p></body></html>",
    );
    place.file("docs/d.bin", [0u8, 159, 146, 150]);
    let ran = place.run(&["ingest", "docs", "-c", "notes"]).code(0);
    ran.prints("3 inserted").says("created collection notes").says(".bin");
    let again = place.run(&["ingest", "docs", "-c", "notes", "--json"]).code(0).json();
    assert_eq!((&again["inserted"], &again["unchanged"]), (&0.into(), &3.into()));
    assert_eq!(again["complete"], true);
    place.file("docs/a.txt", "The harbour was loud.");
    let changed = place.run(&["ingest", "docs", "-c", "notes", "--json"]).code(0).json();
    assert_eq!((&changed["updated"], &changed["unchanged"]), (&1.into(), &2.into()));
    assert_eq!(place.count("notes"), 3);
    place.run(&["search", "bread", "-c", "notes", "-k", "3"]).code(0).prints("Flour, water, salt and time.");
}

#[test]
fn long_titles_and_unknown_words_are_told_for_what_they_are() {
    let Some(place) = Place::new() else { return };
    let title = "a long title about many things ".repeat(60);
    let text = "The harbour was quiet. ".repeat(300);
    let word = "x".repeat(120);
    place.file("a.jsonl", format!("{{\"id\":\"1\",\"title\":\"{title}\",\"text\":\"{text}{word}\"}}\n"));
    let ran = place.run(&["ingest", "a.jsonl"]).code(0);
    ran.says("1 document had a long title").says("1 word that the model does not know");
    assert!(!ran.stderr.contains("chunking is off"), "{ran:?}");
    place.run(&["search", "quiet harbour"]).code(0);
    // In one process the second search is another server's first: ask within one.
    place.run(&["search", "quiet harbour", "--explain"]).code(0).prints("encode");
}

#[test]
fn json_lines_csv_and_stdin_are_read_with_field_mapping_and_types() {
    let Some(place) = Place::new() else { return };
    place
        .file("a.jsonl", "{\"doi\":\"x1\",\"head\":\"T\",\"abstract\":\"About cells.\",\"year\":\"1999\"}\n");
    place
        .run(&[
            "ingest",
            "a.jsonl",
            "-c",
            "p",
            "--id-field",
            "doi",
            "--title-field",
            "head",
            "--type",
            "year=integer",
        ])
        .code(0)
        .prints("1 inserted");
    let stored = place.run(&["document", "get", "x1", "-c", "p", "--json"]).code(0).json_lines();
    assert_eq!(stored[0]["title"], "T");
    assert_eq!(stored[0]["payload"]["year"], 1999);

    place.file("b.csv", "id,text,price\nr1,\"one, two\",3.5\nr2,three,4\n");
    // How the columns were understood is said once, and not to programs.
    let ran = place.run(&["ingest", "b.csv", "-c", "p"]).code(0);
    ran.prints("2 inserted").says("reading b.csv").says("id from \"id\", text from \"text\"");
    assert_eq!(place.run(&["ingest", "b.csv", "-c", "p", "--json"]).code(0).stderr, "");
    let ran = run_with_stdin(&mut place.cli(&["ingest", "-", "-c", "p"]), lines(0..3).as_bytes()).code(0);
    ran.prints("3 inserted");
    assert_eq!(place.count("p"), 6);
    let filtered = place.run(&["document", "count", "-c", "p", "-f", "n >= 1", "--json"]).code(0);
    assert_eq!(filtered.json()["documents"], 2);
}

#[test]
fn a_column_of_a_table_is_of_one_type_and_a_filter_finds_all_of_it() {
    let Some(place) = Place::new() else { return };
    place.file(
        "t.csv",
        "ID;Text;zip;p;year\n1;one, two;10115;0.05;2001.0\n2;three;01067;1e-05;1999\n3;four;80331;1.5e-05;\n4;\"open;1;1;1\n5;five;04109;.5;2000\n",
    );
    let ran = place.run(&["ingest", "t.csv", "-c", "x", "--type", "year=integer"]).code(3);
    ran.prints("4 inserted").says("t.csv:5: ").says("never closed");
    for (filter, documents) in
        [("zip = \"10115\"", 1), ("zip = \"01067\"", 1), ("p < 0.01", 2), ("year >= 2000", 2)]
    {
        let count = place.run(&["document", "count", "-c", "x", "-f", filter, "--json"]).code(0).json();
        assert_eq!(count["documents"], documents, "{filter}");
    }
}

#[test]
fn a_type_for_a_field_that_is_nowhere_is_told() {
    let Some(place) = Place::new() else { return };
    place.file("t.csv", "id,text,year\n1,one,2000\n");
    place.file("t.jsonl", "{\"id\":\"a\",\"text\":\"one\",\"year\":5}\n");
    let ran = place.run(&["ingest", "t.csv", "-c", "x", "--type", "yaer=integer"]).code(2);
    ran.says("t.csv:1: --type yaer=integer").says("did you mean year?");
    place.run(&["ingest", "t.csv", "-c", "x", "--id-field", "doi"]).code(2).says("--id-field names");
    place.run(&["ingest", "t.csv", "-c", "x", "--type", "text=string"]).code(2).says("always text");
    place.run(&["document", "count", "-c", "x"]).code(1);
    let ran = place.run(&["ingest", "t.jsonl", "-c", "x", "--type", "yaer=integer"]).code(0);
    ran.prints("1 inserted").says("--type yaer=integer did nothing").says("did you mean year?");
    let set = ["document", "set", "a", "-c", "x", "year=7", "--type", "yaer=integer"];
    place.run(&set).code(2).says("did you mean year?");
    place.file("notes/a.md", "---\ntitle: D\nstray\n---\nBody\n");
    let ran = place.run(&["ingest", "notes", "-c", "n"]).code(0);
    ran.prints("1 inserted").says("a.md:3: the front matter cannot be read").says("kept as text");
}

#[test]
fn a_file_that_is_named_is_read_or_is_an_error_and_menus_are_kept_on_demand() {
    let Some(place) = Place::new() else { return };
    let lines = "{\"id\":\"a\",\"text\":\"one\"}\n";
    place.file("noext", lines);
    place.file(
        "a.jsonl.zst",
        zstd::stream::encode_all(lines.replace("\"a\"", "\"b\"").as_bytes(), 1).unwrap(),
    );
    place.file("program", b"\x7fELF\0\0");
    place.file("page.html", "<nav><a>Home</a><a>About</a></nav><article>News</article>");
    let ran = place.run(&["ingest", "noext", "a.jsonl.zst", "program", "page.html", "-c", "x"]).code(3);
    ran.prints("3 inserted").says("program: binary");
    let text = |place: &Place| {
        let got = place.run(&["document", "get", "page.html", "-c", "x", "--json"]).code(0).json_lines();
        got[0]["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(text(&place), "News");
    place.run(&["ingest", "page.html", "-c", "x", "--keep-menus"]).code(0).prints("1 updated");
    assert_eq!(text(&place), "Home About\n\nNews");
}

#[test]
fn a_bad_line_is_told_with_its_number_and_the_rest_is_stored() {
    let Some(place) = Place::new() else { return };
    let file =
        "{\"id\":\"a\",\"text\":\"one\"}\n{\"id\":\"b\",\"text\":\n{\"id\":\"c\",\"text\":\"three\"}\n[1]\n";
    place.file("bad.jsonl", file);
    let ran = place.run(&["ingest", "bad.jsonl", "-c", "x"]).code(3);
    ran.says("bad.jsonl:2: ").says("bad.jsonl:4: ").prints("2 inserted").prints("2 failed");
    assert_eq!(place.count("x"), 2);

    let ran = place.run(&["ingest", "bad.jsonl", "-c", "x", "--json"]).code(3);
    let json = ran.json();
    assert_eq!((&json["unchanged"], &json["failed"]), (&2.into(), &2.into()));
    let warning: serde_json::Value = serde_json::from_str(ran.stderr.lines().next().unwrap()).unwrap();
    assert!(warning["warning"].as_str().unwrap().starts_with("bad.jsonl:2: "));
}

#[test]
fn a_file_full_of_faults_does_not_flood_the_terminal() {
    let Some(place) = Place::new() else { return };
    place.file("bad.jsonl", "nonsense\n".repeat(40));
    let ran = place.run(&["ingest", "bad.jsonl", "-c", "x"]).code(3);
    ran.says("bad.jsonl:10: ").says("only counted").prints("40 failed");
    assert_eq!(ran.stderr.lines().count(), 11, "{ran:?}");
    assert_eq!(place.run(&["ingest", "bad.jsonl", "-c", "x", "--json"]).code(3).stderr.lines().count(), 40);
}

#[test]
fn a_document_that_the_server_refuses_is_told_with_its_line() {
    let Some(place) = Place::new() else { return };
    let id = "i".repeat(600);
    place.file(
        "x.jsonl",
        format!("{{\"id\":\"a\",\"text\":\"one\"}}\n{{\"id\":\"{id}\",\"text\":\"two\"}}\n"),
    );
    let ran = place.run(&["ingest", "x.jsonl", "-c", "x"]).code(3);
    ran.says("x.jsonl:2: ").says("600").prints("1 inserted").prints("1 failed");
}

#[test]
fn a_file_that_is_not_utf8_is_told_and_the_others_are_stored() {
    let Some(place) = Place::new() else { return };
    place.file("d/bad.txt", [b'a', 0xff, 0xfe, b'b', b'\n']);
    place.file("d/good.txt", "fine");
    let ran = place.run(&["ingest", "d", "-c", "x"]).code(3);
    ran.says("bad.txt").says("UTF-8").prints("1 inserted");
}

#[test]
fn an_empty_folder_makes_no_collection() {
    let Some(place) = Place::new() else { return };
    std::fs::create_dir(place.path("empty")).unwrap();
    place.run(&["ingest", "empty", "-c", "x"]).code(0).prints("0 inserted").says("there is no file to read");
    let ran = place.run(&["ingest", "empty", "-c", "x", "--json"]).code(0);
    assert!(ran.stderr.contains("{\"warning\":\"there is no file to read"), "{ran:?}");
    assert_eq!(place.run(&["collection", "list", "--json"]).code(0).json(), serde_json::json!([]));
}

#[test]
fn what_is_left_out_of_a_folder_is_told() {
    let Some(place) = Place::new() else { return };
    place.file("set/corpus.jsonl", "{\"_id\":\"1\",\"text\":\"rain\"}\n");
    place.file("set/queries.jsonl", "{\"_id\":\"q\",\"text\":\"wet\"}\n");
    place.file("set/qrels.tsv", "query-id\tcorpus-id\tscore\nq\t1\t1\n");
    place.file("set/README.md", "# About");
    place.file("set/.git/x.txt", "hidden");
    place.file("set/.draft.txt", "hidden");
    let ran = place.run(&["ingest", "set", "-c", "x"]).code(0);
    ran.prints("2 inserted").says("beside corpus.jsonl").says("qrels.tsv, queries.jsonl");
    ran.says("left out 2 hidden files and folders");
}

#[test]
fn text_on_stdin_is_told_how_to_be_read() {
    let Some(place) = Place::new() else { return };
    for text in ["some text\n", "true stories\n"] {
        let ran = run_with_stdin(&mut place.cli(&["ingest", "-", "-c", "x1"]), text.as_bytes()).code(3);
        ran.says("--format").says("text, markdown").says("JSON lines begin with {");
        assert!(!ran.stderr.contains("ident"), "{ran:?}");
    }
    let as_text = ["ingest", "-", "-c", "x1", "--format", "text"];
    run_with_stdin(&mut place.cli(&as_text), b"some text\n").code(0).prints("1 inserted");
    let word = b"{\"id\": \"a\", \"text\": tru}\n";
    run_with_stdin(&mut place.cli(&["ingest", "-"]), word).code(3).says("expected true, false or null");
}

#[test]
fn a_new_collection_is_no_refusal_in_the_log_and_times_are_short() {
    let Some(place) = Place::new() else { return };
    let server = place.serve();
    place.file("docs/a.txt", "The harbour was quiet.");
    run(&mut place.remote(&server, &["ingest", "docs", "-c", "new"])).code(0).says("created collection new");
    run(&mut place.remote(&server, &["ingest", "docs", "-c", "new"])).code(0).prints("1 unchanged");
    run(&mut place.remote(&server, &["search", "x", "-c", "nope"])).code(1);
    server.signal("-TERM");
    let ran = server.ended().code(0);
    let refused: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("refused or failed")).collect();
    let [line] = refused[..] else { panic!("{refused:#?}") };
    let time = line.split("elapsed_ms=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(time.split('.').nth(1).is_none_or(|digits| digits.len() <= 3), "{line}");
}

#[test]
fn vectors_make_a_collection_without_an_encoder() {
    let Some(place) = Place::new() else { return };
    place.file("v.jsonl", "{\"id\":\"a\",\"vector\":[1,0,0]}\n{\"id\":\"b\",\"vector\":[0,1,0]}\n{\"id\":\"c\",\"vector\":[1]}\n");
    let ran = place.run(&["ingest", "v.jsonl", "-c", "v"]).code(3);
    ran.says("vectors of dimension 3").says("v.jsonl:3: ").prints("2 inserted");
    let found = place.run(&["search", "--vector", "[0.1, 1, 0]", "-c", "v", "--json"]).code(0).json();
    assert_eq!(found["hits"][0]["id"], "b");
    place.run(&["search", "words", "-c", "v"]).code(2);
}

#[test]
fn an_id_twice_in_a_run_leaves_the_later_one_and_is_told() {
    let Some(place) = Place::new() else { return };
    place.file("x.jsonl", "{\"id\":\"a\",\"text\":\"one\"}\n{\"id\":\"a\",\"text\":\"two\"}\n");
    let ran = place.run(&["ingest", "x.jsonl", "-c", "x"]).code(0);
    ran.prints("1 inserted, 1 updated")
        .says("1 document replaced an earlier one of the same id")
        .says("x.jsonl:2");
    let text = || {
        let stored = place.run(&["document", "get", "a", "-c", "x", "--json"]).code(0).json_lines();
        stored[0]["text"].clone()
    };
    assert_eq!(text(), "two");
    // The same across requests, and with many others between.
    let first = "{\"id\":\"a\",\"text\":\"three\"}\n".to_owned();
    place.file("y.jsonl", first + &lines(0..200) + "{\"id\":\"a\",\"text\":\"four\"}\n");
    let json = place.run(&["ingest", "y.jsonl", "-c", "x", "--json"]).code(0).json();
    assert_eq!((&json["repeated"], &json["updated"]), (&1.into(), &2.into()));
    assert_eq!(text(), "four");
    // The same document twice replaces nothing.
    place.file("z.jsonl", "{\"id\":\"b\",\"text\":\"b\"}\n{\"id\":\"b\",\"text\":\"b\"}\n");
    let json = place.run(&["ingest", "z.jsonl", "-c", "x", "--json"]).code(0).json();
    assert_eq!((&json["repeated"], &json["unchanged"]), (&0.into(), &1.into()));
}

#[test]
fn a_mode_makes_or_replaces_only_and_counts_what_it_refuses() {
    let Some(place) = Place::new() else { return };
    let text = || {
        let stored = place.run(&["document", "get", "a", "-c", "x", "--json"]).code(0).json_lines();
        stored[0]["text"].clone()
    };
    place.file("one.jsonl", "{\"id\":\"a\",\"text\":\"one\"}\n");
    place.file("two.jsonl", "{\"id\":\"a\",\"text\":\"two\"}\n{\"id\":\"b\",\"text\":\"new\"}\nnonsense\n");
    // Where nothing is, nothing is replaced, and no collection is made.
    let ran = place.run(&["ingest", "one.jsonl", "-c", "x", "--mode", "replace"]).code(1);
    ran.says("\"x\"");
    assert_eq!(place.run(&["collection", "list", "--json"]).code(0).json(), serde_json::json!([]));

    let ran = place.run(&["ingest", "one.jsonl", "-c", "x", "--mode", "insert"]).code(0);
    ran.prints("1 inserted").prints("0 refused, 0 failed");
    let ran = place.run(&["ingest", "two.jsonl", "-c", "x", "--mode", "insert"]).code(3);
    ran.prints("1 inserted, 0 updated, 0 unchanged, 1 refused, 1 failed");
    ran.says("two.jsonl:1: ").says("two.jsonl:3: ");
    assert_eq!(text(), "one");

    place.file("three.jsonl", "{\"id\":\"a\",\"text\":\"three\"}\n{\"id\":\"c\",\"text\":\"new\"}\n");
    let ran = place.run(&["ingest", "three.jsonl", "-c", "x", "--mode", "replace", "--json"]).code(3);
    let json = ran.json();
    let counts = ["inserted", "updated", "unchanged", "refused", "failed"].map(|name| json[name].clone());
    assert_eq!(counts, [0, 1, 0, 1, 0].map(serde_json::Value::from));
    assert!(ran.stderr.contains("three.jsonl:2: "), "{ran:?}");
    assert_eq!((text(), place.count("x")), ("three".into(), 2));

    let ran = place.run(&["ingest", "three.jsonl", "-c", "x", "--mode", "upsert"]).code(0);
    ran.prints("1 inserted, 0 updated, 1 unchanged, 0 failed");
    place.run(&["ingest", "one.jsonl", "--mode", "overwrite"]).code(2).says("upsert");
}

#[test]
fn a_file_of_another_folder_is_refused_under_insert_as_any_document_is() {
    let Some(place) = Place::new() else { return };
    place.file("a/README.md", "# Alpha\n\nThe first folder.");
    place.file("b/README.md", "# Beta\n\nThe second folder.");
    place.run(&["ingest", "a", "-c", "x"]).code(0);
    place.run(&["ingest", "b", "-c", "x", "--mode", "insert"]).code(3).prints("1 refused, 0 failed");
}

#[test]
fn a_file_of_the_same_name_from_another_folder_is_refused_until_it_is_said() {
    let Some(place) = Place::new() else { return };
    place.file("a/README.md", "# Alpha\n\nThe first folder.");
    place.file("b/README.md", "# Beta\n\nThe second folder.");
    place.file("b/other.md", "# Other\n\nOnly here.");
    place.run(&["ingest", "a", "-c", "x"]).code(0).prints("1 inserted");
    let ran = place.run(&["ingest", "b", "-c", "x"]).code(3);
    ran.prints("1 inserted")
        .prints("1 failed")
        .says("b/README.md:1: ")
        .says("--id-prefix b")
        .says("--take-over");
    ran.says(&format!("from {}", place.path("a").canonicalize().unwrap().display()));
    let title = |id: &str| {
        let stored = place.run(&["document", "get", id, "-c", "x", "--json"]).code(0).json_lines();
        stored[0]["title"].clone()
    };
    assert_eq!(title("README.md"), "Alpha");
    // The same folder again is the same documents, from wherever it is named.
    let again = place.run(&["ingest", "./b/../a", "-c", "x", "--json"]).code(0).json();
    assert_eq!((&again["unchanged"], &again["failed"]), (&1.into(), &0.into()));
    place.file("a/README.md", "# Alpha two\n\nThe first folder.");
    place.run(&["ingest", "a/README.md", "-c", "x"]).code(0).prints("1 updated");
    // Both are kept.
    place.run(&["ingest", "b", "-c", "x", "--id-prefix", "b/"]).code(0).prints("2 inserted");
    assert_eq!((title("README.md"), title("b/README.md")), ("Alpha two".into(), "Beta".into()));
    let again = place.run(&["ingest", "b", "-c", "x", "--id-prefix", "b", "--json"]).code(0).json();
    // What had another id before is left over.
    assert_eq!((&again["unchanged"], &again["missing"]), (&2.into(), &1.into()));
    // The folder was moved.
    std::fs::rename(place.path("a"), place.path("moved")).unwrap();
    place.run(&["ingest", "moved", "-c", "x"]).code(3).prints("1 failed");
    place.run(&["ingest", "moved", "-c", "x", "--take-over"]).code(0).prints("1 updated");
    place.run(&["ingest", "moved", "-c", "x"]).code(0).prints("1 unchanged");
}

#[test]
fn documents_of_a_folder_stored_without_it_keep_their_ids() {
    let Some(place) = Place::new() else { return };
    // As a version stored it that did not write the folder down.
    let old = "{\"id\":\"n.txt\",\"title\":\"n\",\"text\":\"a note\",\"path\":\"n.txt\",\"type\":\"txt\",\"bytes\":6}\n";
    place.file("old.jsonl", old);
    place.run(&["ingest", "old.jsonl", "-c", "x"]).code(0);
    place.file("notes/n.txt", "a note");
    let ran = place.run(&["ingest", "notes", "-c", "x"]).code(0);
    ran.prints("1 updated").says("1 document of files were stored by an earlier version");
    assert_eq!(place.count("x"), 1);
    let again = place.run(&["ingest", "notes", "-c", "x"]).code(0);
    again.prints("1 unchanged");
    assert!(!again.stderr.contains("earlier version"), "{again:?}");
}

#[test]
fn a_file_that_is_gone_is_told_and_pruned_on_demand() {
    let Some(place) = Place::new() else { return };
    for name in ["a.txt", "b.txt", "sub/c.txt"] {
        place.file(&format!("notes/{name}"), format!("text of {name}"));
    }
    place.file("else/d.txt", "from another folder");
    place.file("rows.jsonl", lines(0..2));
    place.run(&["ingest", "notes", "else", "rows.jsonl", "-c", "x"]).code(0).prints("6 inserted");
    std::fs::remove_file(place.path("notes/b.txt")).unwrap();
    std::fs::remove_file(place.path("notes/sub/c.txt")).unwrap();
    std::fs::remove_file(place.path("else/d.txt")).unwrap();
    let ran = place.run(&["ingest", "notes", "-c", "x"]).code(0);
    ran.says("2 documents from").says("belong to no file that is there now; --prune removes them");
    assert_eq!(place.count("x"), 6);

    let ran = place.run(&["ingest", "notes", "-c", "x", "--prune"]).code(2);
    ran.says("no terminal to ask on").says("--dry-run").says("--yes");
    let ran = place.run(&["ingest", "notes", "-c", "x", "--prune", "--dry-run"]).code(0);
    assert_eq!(ran.stdout, "b.txt\nsub/c.txt\n");
    assert_eq!(place.count("x"), 6);
    let json = place.run(&["ingest", "notes", "-c", "x", "--prune", "--yes", "--json"]).code(0).json();
    assert_eq!((&json["missing"], &json["pruned"], &json["unchanged"]), (&2.into(), &2.into(), &1.into()));
    // What came from elsewhere stays, and so do rows.
    assert_eq!(place.count("x"), 4);
    place.run(&["document", "get", "a.txt", "d.txt", "doc-0", "doc-1", "-c", "x"]).code(0);
    // A folder without any file may not be mounted.
    let ran = place.run(&["ingest", "else", "-c", "x", "--prune", "--yes"]).code(0);
    ran.says("warning: kept ").says(": there is no file at all in it");
    assert_eq!(place.count("x"), 4);
    // One that cannot be read whole says nothing about what is missing.
    std::fs::remove_file(place.path("notes/a.txt")).unwrap();
    place.file("notes/e.txt", "text of e");
    std::os::unix::fs::symlink(place.path("nowhere"), place.path("notes/gone.txt")).unwrap();
    let ran = place.run(&["ingest", "notes", "-c", "x", "--prune", "--yes"]).code(3);
    ran.says("1 document from").says("not all of the folder could be searched");
    assert_eq!(place.count("x"), 5);
}

#[test]
fn a_file_that_was_named_by_itself_is_not_pruned_with_its_folder() {
    let Some(place) = Place::new() else { return };
    for name in ["a.txt", "noext", ".hidden.md"] {
        place.file(&format!("notes/{name}"), format!("text of {name}"));
    }
    place
        .run(&["ingest", "notes", "notes/noext", "notes/.hidden.md", "-c", "x"])
        .code(0)
        .prints("3 inserted");
    let ran = place.run(&["ingest", "notes", "-c", "x", "--prune", "--yes"]).code(0);
    assert!(!ran.stderr.contains("belong to no file"), "{ran:?}");
    assert_eq!(place.count("x"), 3);
    std::fs::remove_file(place.path("notes/noext")).unwrap();
    place.run(&["ingest", "notes", "-c", "x", "--prune", "--yes"]).code(0);
    assert_eq!(place.count("x"), 2);
}

#[test]
fn linked_files_come_once_and_names_are_found_as_typed() {
    let Some(place) = Place::new() else { return };
    place.file("notes/real/Cafe\u{301}.md", "# Coffee\n\nBeans and water.");
    std::os::unix::fs::symlink(place.path("notes/real"), place.path("notes/link")).unwrap();
    std::os::unix::fs::symlink(place.path("notes"), place.path("notes/real/loop")).unwrap();
    place.run(&["ingest", "notes", "-c", "x"]).code(0).prints("1 inserted");
    for typed in ["real/Caf\u{e9}.md", "real/Cafe\u{301}.md"] {
        place.run(&["document", "get", typed, "-c", "x"]).code(0).prints("Beans and water.");
    }
    place.run(&["search", "--like", "real/Cafe\u{301}.md", "-c", "x"]).code(0);
    place
        .run(&["document", "delete", "real/Cafe\u{301}.md", "-c", "x", "--yes"])
        .code(0)
        .prints("deleted 1 document");
}

#[test]
fn what_scroll_exports_can_be_ingested_again() {
    let Some(place) = Place::new() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-", "-c", "a"]), lines(0..5).as_bytes()).code(0);
    let export = place.run(&["document", "scroll", "--all", "-c", "a", "--json"]).code(0);
    assert_eq!(export.json_lines().len(), 5);
    let ran = run_with_stdin(&mut place.cli(&["ingest", "-", "-c", "a"]), export.stdout.as_bytes()).code(0);
    ran.prints("0 inserted, 0 updated, 5 unchanged");
}

#[test]
fn an_export_ingested_into_another_collection_is_the_same_export() {
    let Some(place) = Place::new() else { return };
    place.file(
        "all.jsonl",
        concat!(
            r#"{"id":"a","text":"t","begin":"0001-01-01","end":"9999-12-31","looks":"2024-01-31","zip":"01067"}"#,
            "\n",
            r#"{"id":"b","title":"only a title","text":"","whole":2.0,"odd":0.30000000000000004,"n":9007199254740993}"#,
            "\n",
            r#"{"id":"c","text":"t","none":[],"days":["2024-01-31","1970-01-01T00:00:00.000001Z"],"yes":[true],"f":[1.0,2.5]}"#,
            "\n",
        ),
    );
    let types = ["--type", "begin=datetime", "--type", "end=datetime", "--type", "days=datetime"];
    let mut arguments = vec!["ingest", "all.jsonl", "-c", "a"];
    arguments.extend(types);
    place.run(&arguments).code(0).prints("3 inserted");
    let export = |collection| place.run(&["document", "scroll", "--all", "-c", collection, "--json"]).code(0);
    let first = export("a");
    place.file("export.jsonl", &first.stdout);
    place.run(&["ingest", "export.jsonl", "-c", "b"]).code(0).prints("3 inserted");
    assert_eq!(export("b").stdout, first.stdout);
    let lines = first.json_lines();
    assert_eq!(lines[0]["types"], serde_json::json!({"begin": "datetime", "end": "datetime"}));
    assert_eq!(lines[0]["payload"]["end"], "9999-12-31T00:00:00Z");
    assert_eq!(lines[1]["types"], serde_json::json!({"whole": "float"}));
    for collection in ["a", "b"] {
        for filter in
            ["end > 9999-12-30", "days = 2024-01-31", "looks = '2024-01-31'", "n = 9007199254740993"]
        {
            let ran = place.run(&["document", "count", "-c", collection, "-f", filter]).code(0);
            assert_eq!((ran.stdout.trim(), ran.stderr.as_str()), ("1", ""), "{collection}: {filter}");
        }
    }
}

#[test]
fn a_collection_of_vectors_is_exported_with_its_vectors() {
    let Some(place) = Place::new() else { return };
    for collection in ["a", "b"] {
        place.run(&["collection", "create", collection, "--vectors-only", "--dimension", "2"]).code(0);
    }
    place.file(
        "v.jsonl",
        "{\"id\":\"x\",\"vector\":[0.1,-3]}\n{\"id\":\"y\",\"vector\":[1,0],\"text\":\"t\"}\n",
    );
    place.run(&["ingest", "v.jsonl", "-c", "a"]).code(0).prints("2 inserted");
    let export = |collection| {
        place.run(&["document", "scroll", "--all", "-c", collection, "--json", "--vectors"]).code(0)
    };
    let without = place.run(&["document", "scroll", "-n", "1", "-c", "a", "--json"]).code(0);
    assert_eq!(without.stderr.matches("\"warning\"").count(), 1, "{without:#?}");
    without.says("--vectors brings them");
    place.file(
        "without.jsonl",
        &place.run(&["document", "scroll", "--all", "-c", "a", "--json"]).code(0).stdout,
    );
    let refused = place.run(&["ingest", "without.jsonl", "-c", "b"]).code(3);
    assert_eq!(refused.stderr.matches("`document scroll --vectors`").count(), 2, "{refused:#?}");
    assert_eq!(export("a").stderr, "");
    place.file("export.jsonl", &export("a").stdout);
    place.run(&["ingest", "export.jsonl", "-c", "b"]).code(0).prints("2 inserted");
    let (first, second) = (export("a").json_lines(), export("b").json_lines());
    assert_eq!((first.len(), first[0]["vector"].as_array().unwrap().len()), (2, 2));
    for (a, b) in first.iter().zip(&second) {
        for (a, b) in a["vector"].as_array().unwrap().iter().zip(b["vector"].as_array().unwrap()) {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() < 1e-6, "normalised twice, {a} is {b}");
        }
    }
}

/// Starts an ingest that has sent some batches and now waits for more lines.
#[cfg(unix)]
fn half_way(place: &Place, server: &Server) -> std::process::Child {
    half_way_of(&mut place.remote(server, &["ingest", "-", "-c", "x", "--json"]), place, server)
}

#[cfg(unix)]
fn half_way_of(command: &mut std::process::Command, place: &Place, server: &Server) -> std::process::Child {
    use std::io::Write;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines(0..300).as_bytes()).unwrap();
    stdin.flush().unwrap();
    // Stays open for as long as the child lives.
    child.stdin = Some(stdin);
    until("documents arrive", || {
        let ran = run(&mut place.remote(server, &["document", "count", "-c", "x", "--json"]));
        ran.code == 0 && ran.json()["documents"].as_u64().unwrap() >= 128
    });
    child
}

#[cfg(unix)]
fn stored(json: &serde_json::Value) -> u64 {
    ["inserted", "updated", "unchanged"].iter().map(|key| json[key].as_u64().unwrap()).sum()
}

#[cfg(unix)]
#[test]
fn an_interrupted_ingest_tells_what_is_stored_and_the_next_one_goes_on() {
    let Some(place) = Place::new() else { return };
    let server = place.serve();
    let child = half_way(&place, &server);
    signal(&child, "-INT");
    let ran = finish(child).code(130);
    let told = ran.json();
    assert_eq!(told["complete"], false);
    assert_eq!(ran.json_error()["kind"], "interrupted");
    let count = run(&mut place.remote(&server, &["document", "count", "-c", "x", "--json"])).code(0).json();
    assert_eq!(count["documents"].as_u64().unwrap(), stored(&told));

    let mut again = place.remote(&server, &["ingest", "-", "-c", "x", "--json"]);
    let again = run_with_stdin(&mut again, lines(0..300).as_bytes()).code(0).json();
    assert_eq!(again["unchanged"].as_u64().unwrap(), stored(&told));
    assert_eq!(again["inserted"].as_u64().unwrap(), 300 - stored(&told));
}

#[test]
fn a_source_that_gives_nothing_for_long_is_waited_for() {
    use std::io::Write;
    let Some(place) = Place::new() else { return };
    let server = place.serve_with(&[("DISTILFACE_SERVER__STREAM_IDLE_TIMEOUT", "0.3")]);
    let mut command = place.remote(&server, &["ingest", "-", "-c", "x", "--json"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines(0..100).as_bytes()).unwrap();
    stdin.flush().unwrap();
    until("the first documents are stored", || {
        let ran = run(&mut place.remote(&server, &["document", "count", "-c", "x", "--json"]));
        ran.code == 0 && ran.json()["documents"].as_u64().unwrap() >= 64
    });
    // Longer than the server waits.
    std::thread::sleep(std::time::Duration::from_secs(1));
    stdin.write_all(lines(100..200).as_bytes()).unwrap();
    drop(stdin);
    assert_eq!(finish(child).code(0).json()["inserted"], 200);
}

/// The same end of the other side, killed or asked to stop: what was acknowledged is told, and how to go on.
#[cfg(unix)]
#[test]
fn a_server_that_goes_away_during_ingest_leaves_a_true_count() {
    for how in ["-TERM", "-KILL"] {
        let Some(place) = Place::new() else { return };
        let server = place.serve();
        let mut command = place.remote(&server, &["ingest", "-", "-c", "x"]);
        let child = half_way_of(&mut command, &place, &server);
        server.signal(how);
        let ran = finish(child).code(1);
        ran.says("acknowledged and stored").says("Run the same command again to go on");
        assert!(!ran.stderr.contains("h2 protocol error"), "{ran:?}");
        if how == "-KILL" {
            ran.says(&format!("the server at {} went away", server.url)).says("distilface serve");
        }
        let told: u64 = ran.stdout.split_once("x: ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        drop(server);
        assert!(told >= 64 && place.count("x") >= told, "{told}: {ran:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_server_that_stops_during_ingest_keeps_what_it_acknowledged() {
    let Some(place) = Place::new() else { return };
    let server = place.serve();
    let child = half_way(&place, &server);
    server.signal("-TERM");
    let ran = finish(child).code(1);
    let told = ran.json();
    assert_eq!(told["complete"], false);
    assert_eq!(ran.json_error()["kind"], "unavailable", "{ran:?}");
    server.ended().code(0);
    let count = place.count("x");
    assert!(count >= stored(&told) && stored(&told) >= 1, "{count} of {told}");
    let again =
        run_with_stdin(&mut place.cli(&["ingest", "-", "-c", "x", "--json"]), lines(0..300).as_bytes());
    let again = again.code(0).json();
    assert_eq!((again["unchanged"].as_u64(), again["inserted"].as_u64()), (Some(count), Some(300 - count)));
}
