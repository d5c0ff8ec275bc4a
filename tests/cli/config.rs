//! Settings from file, environment and flags, and all faults at once.

use super::harness::*;

#[test]
fn effective_settings_are_printed_with_where_they_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, "[limits]\nk_max = 7\n").unwrap();
    let command = || {
        let mut command = bare();
        command
            .arg("--config")
            .arg(&file)
            .args(["--device", "cpu", "config"])
            .env("DISTILFACE_ENCODER__THREADS", "3");
        command
    };
    let ran = run(&mut command()).code(0);
    ran.prints(&format!("k_max = 7  # {}:2", file.display()));
    ran.prints("threads = 3  # variable DISTILFACE_ENCODER__THREADS");
    ran.prints("device = \"cpu\"  # flag --device");
    ran.prints("listen = \"127.0.0.1:7700\"  # default");
    // What is printed is a file.
    let copy = folder.path().join("copy.toml");
    std::fs::write(&copy, &ran.stdout).unwrap();
    let again = run(bare().arg("--config").arg(&copy).args(["config", "limits.k_max"])).code(0);
    assert_eq!(again.stdout, "7\n");

    let json = run(command().arg("--json")).code(0).json();
    assert_eq!(json["values"]["limits"]["k_max"], 7);
    assert_eq!(json["origins"]["encoder.device"], "flag --device");
}

#[test]
fn all_faults_are_told_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, "[server]\nlisen = \"127.0.0.1:1\"\n[encoder]\ndevice = \"gpu\"\n").unwrap();
    let mut command = bare();
    command
        .arg("--config")
        .arg(&file)
        .args(["serve", "--listen", "0.0.0.0:7700"])
        .env("DISTILFACE_LIMITS__K_MAX", "0");
    let ran = run(&mut command).code(2);
    for part in [
        "4 faults",
        ":2: unknown key server.lisen; did you mean server.listen?",
        ":4: encoder.device",
        "flag --listen: server.listen: 0.0.0.0:7700 can be reached from other machines",
        "variable DISTILFACE_LIMITS__K_MAX: limits.k_max",
    ] {
        ran.says(part);
    }
    let error = run(command.arg("--json")).code(2).json_error();
    assert_eq!(error["kind"], "invalid");
}

#[test]
fn a_missing_or_unreadable_file_is_told() {
    run(bare().args(["--config", "/no/such.toml", "config"]))
        .code(2)
        .says("/no/such.toml")
        .says("No such file");
    run(bare().args(["--config", "/", "config"])).code(2).says("cannot read the configuration file /");
}

#[test]
fn a_bad_log_filter_is_told() {
    run(bare().args(["config"]).env("DISTILFACE_LOG__FILTER", "distilface=loud")).code(2).says("log.filter");
}
