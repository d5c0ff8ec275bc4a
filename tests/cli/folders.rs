//! Data folders that are named by mistake, that are damaged, and what is said of them.

use std::{fs, process::Stdio};

use super::harness::*;

/// A place with two collections.
fn place() -> Option<Place> {
    let place = Place::new()?;
    for (name, count) in [("papers", 8), ("laws", 3)] {
        let mut ingest = place.cli(&["ingest", "-", "-c", name]);
        run_with_stdin(&mut ingest, lines(0..count).as_bytes()).code(0);
    }
    Some(place)
}

#[test]
fn a_folder_that_is_not_there_is_told_and_not_made_but_by_what_writes() {
    let Some(place) = Place::new() else { return };
    let data = place.data();
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    let refused: [&[&str]; 12] = [
        &["backup", "to"],
        &["verify"],
        &["repair"],
        &["doctor"],
        &["search", "x"],
        &["collection", "list"],
        &["collection", "show", "default"],
        &["collection", "stats", "default"],
        &["collection", "delete", "default", "--yes"],
        &["document", "count"],
        &["document", "scroll"],
        &["document", "delete", "a", "--yes"],
    ];
    for args in refused {
        for dir in [&data, &empty] {
            let ran = run(place.command().arg("--data").arg(dir).args(args)).code(2);
            ran.says(&format!("there is no data folder at {}", dir.display())).says("distilface serve");
            assert_eq!(ran.stderr.lines().count(), 1, "it is told once: {ran:#?}");
        }
        assert!(!data.exists(), "{args:?}");
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "{args:?}");
    }
    let error = run(place.cli(&["collection", "list"]).arg("--json")).code(2).json_error();
    assert_eq!(error["kind"], "invalid");
    // These need its encoder only.
    place.run(&["embed", "one"]).code(0).prints("dimensions");
    place.run(&["similarity", "one", "two"]).code(0);
    assert!(!data.exists());
    place.run(&["collection", "create", "made"]).code(0);
    place.run(&["collection", "list"]).code(0).prints("made");
    fs::remove_dir_all(&data).unwrap();
    run_with_stdin(&mut place.cli(&["ingest", "-"]), lines(0..2).as_bytes()).code(0);
    assert_eq!(place.count("default"), 2);
    fs::remove_dir_all(&data).unwrap();
    let server = place.serve();
    server.signal("-TERM");
    server.ended().code(0);
    place.run(&["verify"]).code(0);
}

#[test]
fn the_doctor_says_what_it_did_not_look_at() {
    let Some(place) = place() else { return };
    place
        .run(&["doctor"])
        .code(0)
        .prints("what is in the data folder was not read")
        .prints("distilface verify");
    // Without --data it may well be that nothing is there yet.
    let mut command = place.command();
    command.arg("doctor").env("DISTILFACE_DATA__DIR", place.path("none"));
    let ran = run(&mut command).code(0);
    ran.prints("will be made");
    assert!(!ran.stdout.contains("was not read"), "{ran:#?}");
    assert!(!place.path("none").exists());
}

/// Flips a byte of every entry of the log that says something of this document.
fn damage_in_log(place: &Place, id: &str) {
    let path = place.data().join("log/0000000001.log");
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - id.len()).filter(|at| bytes[*at..].starts_with(id.as_bytes())).collect();
    assert!(!places.is_empty(), "{id} is not in the log");
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn damage_is_told_once_by_whatever_command_meets_it() {
    let Some(place) = place() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-", "-c", "papers"]), lines(20..22).as_bytes()).code(0);
    damage_in_log(&place, "doc-20");
    let told = |ran: &Ran| ran.stderr.matches("does not match its sum").count();
    // Whoever asks for the collection gets the error, whoever asks for another one a warning.
    let ran = place.run(&["document", "count", "-c", "papers"]).code(1);
    assert_eq!(told(&ran), 1, "{ran:#?}");
    let ran = place.run(&["document", "count", "-c", "laws"]).code(0);
    assert_eq!(told(&ran), 1, "{ran:#?}");
    ran.says("warning: ").says("papers");
    let ran = place.run(&["document", "count", "-c", "laws", "--json"]).code(0);
    let line: serde_json::Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    assert!(line["warning"].as_str().unwrap().contains("papers"), "{line}");
}

#[test]
fn entries_of_a_lost_collection_are_named_by_id_and_given_up_only_when_asked_to() {
    let Some(place) = place() else { return };
    let verified = place.run(&["verify", "--json"]).code(0).json();
    let papers = verified["collections"].as_array().unwrap().iter().find(|c| c["name"] == "papers").unwrap();
    fs::rename(papers["folder"].as_str().unwrap(), place.path("aside")).unwrap();
    fs::remove_dir_all(place.data().join("catalog")).unwrap();
    let damages = place.run(&["verify", "--json"]).code(4).json()["damages"].clone();
    let remedy = damages[0]["remedy"].as_str().unwrap();
    let name = remedy.split("distilface repair ").nth(1).unwrap().split('`').next().unwrap();
    let ids = place.path("ids.jsonl");
    let ids_arg = ids.to_str().unwrap();
    place.run(&["repair", "--yes"]).code(4).prints("cannot be repaired");
    let ran = place.run(&["repair", name, "--ids", ids_arg]).code(4);
    ran.prints("nothing was changed").prints("--yes").prints("doc-7");
    place.run(&["repair", "--dry-run", "--yes"]).code(2);
    place.run(&["repair", name, "-n", "--ids", ids_arg]).code(1).says("give a file that is not there");
    let lines = fs::read_to_string(&ids).unwrap();
    let told: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.len(), 8, "{told:?}");
    assert_eq!((&told[3]["collection"], &told[3]["id"]), (&name.into(), &"doc-3".into()));
    place.run(&["repair", name, "--yes"]).code(0).prints("the damaged files are in");
    place.run(&["verify"]).code(0);
    assert_eq!(place.count("laws"), 3);
}

/// Runs the binary on a terminal of its own, answers with this line, and tells the code and what was shown.
#[cfg(target_os = "linux")]
fn on_a_terminal(place: &Place, args: &str, answer: &str) -> Option<Ran> {
    let binary = env!("CARGO_BIN_EXE_distilface");
    let command = format!("{binary} --data {} {args}", place.data().display());
    let mut script = place.command();
    let environment: Vec<_> =
        script.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
    script = std::process::Command::new("script");
    script.args(["-qefc", &command, "/dev/null"]);
    for (name, value) in environment {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let is_there = std::process::Command::new("script").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: no `script` to make a terminal");
        return None;
    }
    Some(run_with_stdin(&mut script, answer.as_bytes()))
}

#[cfg(target_os = "linux")]
#[test]
fn a_repair_asks_on_a_terminal_and_does_nothing_without_a_yes() {
    let Some(place) = place() else { return };
    run_with_stdin(&mut place.cli(&["ingest", "-", "-c", "papers"]), lines(20..22).as_bytes()).code(0);
    damage_in_log(&place, "doc-20");
    for answer in ["\n", "n\n", "what\n"] {
        let Some(ran) = on_a_terminal(&place, "repair", answer) else { return };
        ran.code(4).prints("would drop").prints("do this? [y/N]").prints("nothing was changed");
        assert!(!place.data().join("damaged").exists());
    }
    let ran = on_a_terminal(&place, "repair --dry-run", "y\n").unwrap().code(4);
    assert!(!ran.stdout.contains("do this?"), "{ran:#?}");
    on_a_terminal(&place, "repair", "y\n").unwrap().code(0).prints("do this? [y/N]").prints("repaired");
    place.run(&["verify"]).code(0);
    // What is repaired stays damaged in the log, and is no news at any start.
    for _ in 0..2 {
        let server = place.serve();
        server.signal("-TERM");
        let ran = server.ended().code(0);
        assert!(!ran.stderr.contains("ERROR") && !ran.stderr.contains("WARN"), "{ran:#?}");
        ran.says("the log was damaged, and no collection needs what was there");
    }
    // There is nothing to be asked.
    let ran = on_a_terminal(&place, "repair", "y\n").unwrap().code(0);
    assert!(!ran.stdout.contains("do this?"), "{ran:#?}");
    assert_eq!(place.count("papers"), 8);
}

#[test]
fn verify_names_a_collection_whose_folder_is_missing() {
    let Some(place) = place() else { return };
    let verified = place.run(&["verify", "--json"]).code(0).json();
    let folder = verified["collections"][0]["folder"].as_str().unwrap().to_owned();
    assert_eq!(verified["collections"][0]["name"], "laws");
    fs::rename(&folder, place.path("aside")).unwrap();
    let ran = place.run(&["verify"]).code(4);
    ran.prints("laws").prints("is missing").prints("delete the collection");
    place.run(&["repair", "--yes"]).code(4).prints("collection laws: cannot be repaired");
    place.run(&["collection", "delete", "laws", "--yes"]).code(0);
    place.run(&["verify"]).code(0).prints("everything is whole");
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_serves_though_nobody_reads_what_it_logs() {
    let Some(place) = Place::new() else { return };
    for round in 0..2 {
        let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = place.command();
        command.arg("serve").arg("--data").arg(place.data()).args(["--listen", "127.0.0.1:0", "--json"]);
        command.args(["--metrics-listen", "off"]).stdout(Stdio::piped()).stderr(full());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        let server = Server { url: told["address"].as_str().unwrap().to_owned(), child: Some(child) };
        let documents = lines(round * 3..round * 3 + 3);
        run_with_stdin(&mut place.remote(&server, &["ingest", "-"]), documents.as_bytes()).code(0);
        // What is refused is logged, too.
        run(&mut place.remote(&server, &["search", "x", "-c", "nowhere"])).code(1);
        server.signal("-TERM");
        server.ended().code(0);
        assert_eq!(place.count("default"), round as u64 * 3 + 3);
    }
    // Where it cannot say its address nobody could use it: that is an error, and the folder is free again.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = place.command();
    command.arg("serve").arg("--data").arg(place.data()).args(["--listen", "127.0.0.1:0"]);
    command.args(["--metrics-listen", "off"]).stdout(full).stderr(Stdio::piped());
    finish(command.spawn().unwrap()).code(1).says("cannot write to stdout");
    assert_eq!(place.count("default"), 6);
}

#[test]
fn bench_writes_says_what_it_allows_and_fits_a_window() {
    let Some(place) = Place::new() else { return };
    for (args, said) in [
        (&["--seconds", "0"][..], "1..=3600"),
        (&["--writers", "0"], "1..=4096"),
        (&["--writers", "8,5000"], "1..=4096"),
        (&["--dimension", "0"], "1..=65536"),
    ] {
        run(place.command().args(["bench", "writes"]).args(args)).code(2).says(said);
    }
    let args = ["bench", "writes", "--seconds", "1", "--writers", "1,2", "--text-bytes", "64"];
    let ran = run(place.command().args(args).env("COLUMNS", "80")).code(0);
    ran.says("writers: 1, for 1 s").says("writers: 2, for 1 s");
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
}

#[test]
fn a_server_says_when_it_is_well_again() {
    let Some(place) = Place::new() else { return };
    let log = place.path("log.txt");
    let mut command = place.command();
    command.arg("serve").arg("--data").arg(place.data()).args(["--listen", "127.0.0.1:0", "--json"]);
    command.args(["--metrics-listen", "off"]).stdout(Stdio::piped());
    let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let server = Server { url: String::new(), child: Some(child) };
    let said = |what: &str| fs::read_to_string(&log).unwrap().contains(what);
    // What the disk is probed with cannot be written.
    fs::create_dir(place.data().join("probe")).unwrap();
    until("it says that it is not well", || said("not healthy"));
    assert!(!said("healthy again"));
    fs::remove_dir(place.data().join("probe")).unwrap();
    until("it says that it is well again", || said("healthy again"));
    server.signal("-TERM");
    server.ended().code(0);
}
