//! The server as a process: its address, its end, and what keeps it from starting.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::harness::*;

#[test]
fn a_client_finds_the_server_and_a_signal_ends_it() {
    let Some(place) = Place::new() else { return };
    let server = place.serve();
    run_with_stdin(&mut place.remote(&server, &["ingest", "-"]), lines(0..5).as_bytes())
        .code(0)
        .prints("5 inserted");
    let found = run(&mut place.remote(&server, &["search", "number 3", "--json"])).code(0).json();
    assert_eq!(found["hits"].as_array().unwrap().len(), 5);
    let models = run(&mut place.remote(&server, &["model", "list", "--json"])).code(0).json();
    assert!(models.as_array().unwrap().iter().any(|m| m["loaded"] == true), "{models}");
    // The answer names the server that was asked, which matters most where only a variable names it.
    assert_eq!(models[0]["server"], server.url);
    let by_variable = run(place.command().args(["model", "list"]).env("DISTILFACE_URL", &server.url)).code(0);
    by_variable.says(&format!("models of the server at {} (DISTILFACE_URL)", server.url));
    server.signal("-TERM");
    server.ended().code(0);
    assert_eq!(place.count("default"), 5);
}

#[test]
fn the_first_signal_ends_whatever_waits_or_computes() {
    let Some(place) = Place::new() else { return };
    place.run(&["collection", "create", "default"]).code(0);
    place.file("texts.txt", "rain on the river\na cat\n");
    let rounds = ["--only", "cpu/fp32", "--rounds", "1000"];
    for args in [
        &["embed", "-"][..],
        &["search", "--vector", "-"],
        &[&["bench", "encode", "texts.txt"], &rounds[..]].concat(),
    ] {
        for name in ["-INT", "-TERM"] {
            let mut command = place.cli(args);
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let kept = child.stdin.take();
            // Its handlers are there as soon as the thread that listens is.
            let threads = format!("/proc/{}/task", child.id());
            until("it listens", || {
                let threads = fs::read_dir(&threads).unwrap().flatten();
                let names = threads.map(|t| fs::read_to_string(t.path().join("comm")).unwrap_or_default());
                names.into_iter().any(|name| name.trim() == "signals")
            });
            thread::sleep(Duration::from_millis(100));
            signal(&child, name);
            finish(child).code(130).says("interrupted");
            drop(kept);
        }
    }
}

#[test]
fn one_folder_has_one_owner() {
    let Some(place) = Place::new() else { return };
    let server = place.serve();
    let ran = place.run(&["search", "x"]).code(1);
    ran.says("in use by another process").says(place.data().to_str().unwrap());
    let mut second = place.command();
    second.arg("serve").arg("--data").arg(place.data()).args([
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "off",
    ]);
    run(&mut second).code(1).says("in use by another process");
    server.signal("-INT");
    server.ended().code(0);
}

#[test]
fn a_port_in_use_is_told() {
    let Some(place) = Place::new() else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = place.command();
    command.arg("serve").arg("--data").arg(place.data()).args([
        "--listen",
        &address,
        "--metrics-listen",
        "off",
    ]);
    run(&mut command).code(1).says(&format!("cannot listen on {address}")).says("--listen");
    // It let go of the folder again.
    place.run(&["collection", "list"]).code(0);
}

#[test]
fn a_file_in_place_of_the_folder_is_told() {
    let Some(place) = Place::new() else { return };
    place.file("data", "not a folder");
    for command in [&["collection", "list"][..], &["verify"]] {
        place.run(command).code(2).says(place.data().to_str().unwrap()).says("cannot be read");
    }
    place.run(&["collection", "create", "c"]).code(1).says(place.data().to_str().unwrap());
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let Some(place) = Place::new() else { return };
    let closed = place.path("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(closed.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write everywhere (root)");
        return;
    }
    let mut command = place.command();
    command.arg("--data").arg(closed.join("db")).args(["collection", "create", "c"]);
    run(&mut command).code(1).says("closed").says("denied");
}

#[test]
fn an_address_for_everybody_must_be_meant() {
    let ran = run(bare().args(["serve", "--listen", "0.0.0.0:0"])).code(2);
    ran.says("--allow-remote");
}

#[test]
fn the_address_line_is_for_people_too() {
    use std::io::{BufRead, BufReader};
    let Some(place) = Place::new() else { return };
    let mut command = place.command();
    command.arg("serve").arg("--data").arg(place.data()).args([
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
    ]);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("listening on http://127.0.0.1:") && !first.ends_with(":0"), "{first}");
    assert!(lines.next().unwrap().unwrap().ends_with("/metrics"));
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_server_has_several_models_and_changes_the_default_without_a_restart() {
    let Some(place) = Place::with_other_model() else { return };
    let server = place.serve();
    let ask = |args: &[&str]| run(&mut place.remote(&server, args));
    let vector = |args: &[&str]| ask(args).code(0).json()["embeddings"][0]["vector"].clone();
    let first = vector(&["embed", "rain", "--json"]);
    let other = vector(&["embed", "rain", "--json", "--model", "other"]);
    assert_ne!(first, other);
    ask(&["similarity", "rain", "the river", "--model", "other"]).code(0);
    ask(&["embed", "rain", "--model", "nope"]).code(1).says("\"nope\" (there are: other)");

    ask(&["collection", "create", "made", "--model", "other"]).code(0);
    run_with_stdin(
        &mut place.remote(&server, &["ingest", "-", "-c", "fed", "--model", "other"]),
        b"{\"id\":\"1\",\"text\":\"rain\"}\n",
    )
    .code(0);
    for collection in ["made", "fed"] {
        let shown = ask(&["collection", "show", collection, "--json"]).code(0).json();
        assert_eq!(shown["model"], "other");
    }
    run_with_stdin(
        &mut place.remote(&server, &["ingest", "-", "-c", "fed", "--model", "tiny"]),
        b"{\"id\":\"1\",\"text\":\"rain\"}\n",
    )
    .code(1)
    .says("fed was made with model other, not tiny");
    assert_eq!(
        ask(&["search", "rain", "-c", "fed", "--json"]).code(0).json()["hits"].as_array().unwrap().len(),
        1
    );

    ask(&["model", "use", "other"]).code(0).prints("other serves from now on").says("made with");
    assert_eq!(vector(&["embed", "rain", "--json"]), other);
    ask(&["model", "list"]).code(0).prints(", the default");
    ask(&["model", "use", "nope"]).code(1).says("there are: other");
    place.run(&["model", "use", "other"]).code(2).says("asks a running server");
    // Tiny is loaded still, and known by name, though its folder is none of the home's.
    assert_eq!(vector(&["embed", "rain", "--json", "--model", "tiny"]), first);
}

/// A JSON value in which no object has a key twice.
struct Strict;

impl<'de> serde::Deserialize<'de> for Strict {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Strict;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("JSON without a key twice")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
                Ok(Strict)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
                Ok(Strict)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
                Ok(Strict)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
                Ok(Strict)
            }
            fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
                Ok(Strict)
            }
            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
                while seq.next_element::<Strict>()?.is_some() {}
                Ok(Strict)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut seen = std::collections::HashSet::new();
                while let Some((key, _)) = map.next_entry::<String, Strict>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom(format!("the key {key} stands twice")));
                    }
                }
                Ok(Strict)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Every line is one JSON object, without a key twice and without the forms that Rust prints for its programmers.
#[track_caller]
fn assert_json_lines(text: &str) {
    for line in text.lines() {
        if let Err(error) = serde_json::from_str::<Strict>(line) {
            panic!("{error}: {line}");
        }
        assert!(line.starts_with('{'), "{line}");
        for debug in ["Some(", "\"None\"", "Ok(", "Err(", " { "] {
            assert!(!line.contains(debug), "{debug} is in {line}");
        }
    }
}

#[test]
fn with_a_json_log_every_line_of_a_server_is_json() {
    let Some(place) = Place::new() else { return };
    place.file("c.toml", "[log]\nformat = \"json\"\nfilter = \"distilface=debug,info\"\n");
    let server = |arguments: &[&str]| {
        let mut command = place.command();
        command.args(["serve", "--config", "c.toml", "--data"]).arg(place.data());
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        command
    };
    for metrics in ["off", "127.0.0.1:0"] {
        let mut command = server(&["--metrics-listen", metrics]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_json_lines(&line);
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        let running = Server { url: told["address"].as_str().unwrap().to_owned(), child: Some(child) };
        run_with_stdin(&mut place.remote(&running, &["ingest", "-", "-c", "notes"]), lines(0..5).as_bytes())
            .code(0);
        run(&mut place.remote(&running, &["search", "x", "-c", "notes", "--filter", "n = "])).code(2);
        run(&mut place.remote(&running, &["search", "x", "-c", "nowhere"])).code(1);
        running.signal("-TERM");
        let ran = running.ended().code(0);
        assert_json_lines(&ran.stderr);
        ran.says("\"serving\"").says("\"stopped\"").says("request ended").says("NOT_FOUND");
        if metrics != "off" {
            // The second start opens the collection that the first one made.
            ran.says("\"span\":{\"collection\":\"notes\"").says("\"metrics_address\":\"127.0.0.1:");
        }
    }

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (arguments, said) in [
        (&["--no-such-flag"][..], "no-such-flag"),
        (&["--metrics-listen", &address], "cannot listen on"),
        (&["--metrics-listen", "nowhere"], "metrics_listen"),
    ] {
        let ran = run(&mut server(arguments));
        assert_ne!(ran.code, 0);
        assert_json_lines(&ran.stderr);
        assert_json_lines(&ran.stdout);
        ran.says(said);
    }
    place.file("c.toml", "[log]\nformat = \"json\"\n[server]\nlisten = 5\n");
    let ran = run(&mut server(&[])).code(2);
    assert_json_lines(&ran.stderr);
    place.file("c.toml", "[log]\nformat = \"text\"\n");
    let ran = run(server(&["--no-such-flag"]).env("DISTILFACE_LOG__FORMAT", "json")).code(2);
    assert_json_lines(&ran.stderr);
    assert!(!run(&mut server(&["--no-such-flag"])).code(2).stderr.starts_with('{'));
}

#[cfg(unix)]
#[test]
fn a_folder_of_many_collections_is_served_with_few_file_handles() {
    let Some(place) = Place::new() else { return };
    let server = place.serve();
    let names: Vec<String> = (0..24).map(|n| format!("c{n}")).collect();
    for name in &names {
        let create = ["collection", "create", name, "--vectors-only", "--dimension", "2"];
        run(&mut place.remote(&server, &create)).code(0);
    }
    server.signal("-TERM");
    server.ended().code(0);

    let server = place.serve_as(limited(place.command(), "ulimit -n 64"));
    for name in &names {
        run(&mut place.remote(&server, &["document", "count", "-c", name])).code(0).prints("0");
    }
    server.signal("-TERM");
    server.ended().code(0);
}

/// The same command below a limit that the shell sets.
#[cfg(unix)]
fn limited(command: Command, limit: &str) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")]).arg(command.get_program());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.current_dir(command.get_current_dir().unwrap());
    limited
}

#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files_makes_them_smaller_and_ends_nothing() {
    let Some(place) = Place::new() else { return };
    // 512 or 1024 bytes each, as the shell likes: no more than 8 MiB.
    let server = place.serve_as(limited(place.command(), "ulimit -f 8192"));
    let create = ["collection", "create", "c", "--vectors-only", "--dimension", "2"];
    run(&mut place.remote(&server, &create)).code(0);
    // 16 MiB that do not get smaller by compression.
    let mut state = 1u64;
    let mut digits = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", state >> 32)
    };
    let lines: String = (0..2000)
        .map(|n| {
            let text: String = (0..1024).map(|_| digits()).collect();
            format!("{{\"id\":\"{n}\",\"vector\":[1,{n}],\"text\":\"{text}\"}}\n")
        })
        .collect();
    run_with_stdin(&mut place.remote(&server, &["ingest", "-", "-c", "c"]), lines.as_bytes()).code(0);
    let count = run(&mut place.remote(&server, &["document", "count", "-c", "c", "--json"])).code(0).json();
    assert_eq!(count["documents"], 2000);
    server.signal("-TERM");
    server.ended().code(0);
    assert_eq!(place.count("c"), 2000);
}

/// Threads that nobody waits for may be in the library when the process ends.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn no_end_runs_the_destructors_of_a_library_that_threads_may_be_in() {
    let Some(place) = Place::new() else { return };
    // The loader of the system says what it begins and finishes, in a file with the process's number.
    let check = |name: &str| {
        let told: String = std::fs::read_dir(place.path("."))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(name))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        let of_runtime = |what: &str| {
            told.lines().filter(|line| line.contains(what) && line.contains("onnxruntime")).count()
        };
        assert!(of_runtime("calling init") > 0, "{name}: the library is not loaded: {told}");
        assert_eq!(of_runtime("calling fini"), 0, "{name}: {told}");
    };
    let file = place.path("loader-server");
    let server = place.serve_with(&[("LD_DEBUG", "files"), ("LD_DEBUG_OUTPUT", file.to_str().unwrap())]);
    server.signal("-TERM");
    server.ended().code(0);
    check("loader-server");
    let file = place.path("loader-command");
    run(place.cli(&["embed", "a text"]).env("LD_DEBUG", "files").env("LD_DEBUG_OUTPUT", file)).code(0);
    check("loader-command");
}
