//! Wrong use, help, completions: what needs no database.

use super::harness::*;

#[test]
fn wrong_flags_are_wrong_use() {
    for args in [
        &["search"][..],
        &["search", "x", "--no-such-flag"],
        &["search", "x", "-k", "many"],
        &["search", "x", "--like", "y"],
        &["ingest"],
        &["no-such-command"],
        &["collection", "create", "x", "--metric", "nearness"],
        &["collection", "create", "x", "--m", "0"],
        &["collection", "create", "x", "--vectors-only"],
        &["ingest", ".", "--type", "year=number"],
        &["ingest", ".", "--format", "pdf"],
        &["ingest", "no/such/file.jsonl"],
        &["--data", "x", "--server", "http://127.0.0.1:1", "search", "x"],
        &["--server", "https://127.0.0.1:1", "search", "x"],
        &["--server", "nonsense", "search", "x"],
        &["document", "delete", "a"],
        &["search", "--vector", "[1, \"a\"]"],
        &["config", "no.such.key"],
    ] {
        let ran = run(bare().args(args)).code(2);
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{args:?}: {ran:?}");
    }
}

#[test]
fn what_is_missing_or_unreadable_is_told_with_what_may_stand_there() {
    for (args, parts) in [
        (&["search", "-c", "notes"][..], &["QUERY", "--like", "--vector"][..]),
        (&["document", "delete", "-c", "notes"], &["ID", "--filter"]),
        (&["search", "x", "-k", "abc"], &["-k", "'abc'", "it is not a whole number"]),
        (&["search", "x", "--threshold", "abc"], &["--threshold", "it is not a number"]),
        (&["search", "x", "-k", ""], &["-k"]),
    ] {
        let ran = run(bare().args(args)).code(2);
        for part in parts {
            ran.says(part);
        }
        assert!(!ran.stderr.contains("found in string"), "{ran:?}");
        let message = run(bare().args(args).arg("--json")).code(2).json_error()["message"].to_string();
        assert!(
            message.contains(parts[parts.len() - 1]) && !message.contains("found in string"),
            "{message}"
        );
    }
}

#[test]
fn the_operators_of_a_filter_are_in_the_help() {
    for command in [&["search"][..], &["document", "delete"], &["document", "scroll"], &["document", "count"]]
    {
        let help = run(bare().args(command).arg("--help")).code(0);
        for operator in [
            "= ", "!= ", "< ", "<= ", "> ", ">= ", "in [", "prefix", "contains", "exists(", "not ", " and ",
            " or ",
        ] {
            help.prints(operator);
        }
    }
}

#[test]
fn wrong_use_is_told_as_json_when_asked_for() {
    let error = run(bare().args(["search", "x", "--bad", "--json"])).code(2).json_error();
    assert_eq!(error["kind"], "usage");
    assert!(error["message"].as_str().unwrap().contains("--bad"));
    let error = run(bare().args(["--server", "nonsense", "search", "x", "--json"])).code(2).json_error();
    assert_eq!(error["exit_code"], 2);
}

#[test]
fn nobody_listening_is_told_with_what_to_do() {
    let ran = run(bare().args(["--server", "http://127.0.0.1:1", "search", "x"])).code(1);
    ran.says("no server at http://127.0.0.1:1").says("distilface serve").says("--data DIR");
    let error =
        run(bare().args(["search", "x", "--json"]).env("DISTILFACE_URL", "127.0.0.1:1")).code(1).json_error();
    assert_eq!(error["kind"], "unavailable");
}

#[test]
fn help_tells_the_exit_codes_and_fits_a_narrow_window() {
    let ran = run(bare().arg("--help")).code(0);
    for part in ["Exit codes", "130 interrupted", "ingest", "serve", "search"] {
        ran.prints(part);
    }
    for command in ["serve", "ingest", "search", "embed", "collection", "document", "model", "config"] {
        let help = run(bare().args([command, "--help"]).env("COLUMNS", "40")).code(0).stdout;
        for line in help.lines() {
            // Examples, paths and lists of values cannot be broken.
            let whole = line.starts_with("Usage:") || line.starts_with("  ") && !line.trim().contains("  ");
            let fits = line.chars().count() <= 40 || whole;
            assert!(fits, "{command}: {line:?}");
        }
    }
}

#[test]
fn every_command_has_help() {
    let ran = run(bare().arg("--help"));
    let commands = ran.stdout.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let commands: Vec<&str> = commands.filter_map(|l| l.split_whitespace().next()).collect();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        run(bare().args([command, "--help"])).code(0).prints("Usage: distilface");
    }
}

#[test]
fn completions_are_written_for_each_shell_even_with_broken_settings() {
    for (shell, mark) in [
        ("bash", "complete -F _distilface"),
        ("zsh", "#compdef distilface"),
        ("fish", "complete -c distilface"),
    ] {
        let ran = run(bare().args(["completions", shell]).env("DISTILFACE_SERVER__LISEN", "x")).code(0);
        ran.prints(mark).prints("ingest").prints("by-passage");
    }
    run(bare().args(["completions", "tcl"])).code(2);
}

#[cfg(unix)]
#[test]
fn a_bash_completion_is_accepted_by_bash() {
    let script = run(bare().args(["completions", "bash"])).code(0).stdout;
    let mut bash = std::process::Command::new("bash");
    run_with_stdin(bash.arg("-n"), script.as_bytes()).code(0);
}

#[test]
fn the_version_is_told() {
    run(bare().arg("--version")).code(0).prints(concat!("distilface ", env!("CARGO_PKG_VERSION")));
}
