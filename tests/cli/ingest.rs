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
    place.run(&["ingest", "b.csv", "-c", "p"]).code(0).prints("2 inserted");
    let ran = run_with_stdin(&mut place.cli(&["ingest", "-", "-c", "p"]), lines(0..3).as_bytes()).code(0);
    ran.prints("3 inserted");
    assert_eq!(place.count("p"), 6);
    let filtered = place.run(&["document", "count", "-c", "p", "-f", "n >= 1", "--json"]).code(0);
    assert_eq!(filtered.json()["documents"], 2);
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
    place.run(&["ingest", "empty", "-c", "x"]).code(0).prints("0 inserted");
    assert_eq!(place.run(&["collection", "list", "--json"]).code(0).json(), serde_json::json!([]));
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
fn an_id_twice_is_written_twice_and_the_last_one_stays() {
    let Some(place) = Place::new() else { return };
    place.file("x.jsonl", "{\"id\":\"a\",\"text\":\"one\"}\n{\"id\":\"a\",\"text\":\"two\"}\n");
    place.run(&["ingest", "x.jsonl", "-c", "x"]).code(0).prints("1 inserted, 1 updated");
    let stored = place.run(&["document", "get", "a", "-c", "x", "--json"]).code(0).json_lines();
    assert_eq!(stored[0]["text"], "two");
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
    use std::io::Write;
    let mut command = place.remote(server, &["ingest", "-", "-c", "x", "--json"]);
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
