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
fn every_setting_is_explained() {
    let ran = run(bare().arg("config")).code(0);
    ran.prints("# Hits of one search: 1 to 1048576. Default 1000.\nk_max = 1000");
    let ran = run(bare().args(["config", "server.drain_timeout"])).code(0);
    assert_eq!(ran.stdout, "20.0\n");
    ran.says("in seconds").says("Allowed: 0 to 3600 seconds. Default: 20");
    let json = run(bare().args(["config", "--json"])).code(0).json();
    assert_eq!(json["settings"]["limits.k_max"]["allowed"], "1 to 1048576");
    assert_eq!(json["settings"]["limits.k_max"]["default"], "1000");
    run(bare().args(["config", "limits.kmax"])).code(2).says("did you mean limits.k_max?");
}

#[test]
fn a_file_to_begin_with_is_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("distilface/config.toml");
    let mut command = bare();
    command.env("XDG_CONFIG_HOME", folder.path()).args(["config", "init"]);
    run(&mut command).code(0).prints(&format!("wrote {}", own.display()));
    let written = std::fs::read_to_string(&own).unwrap();
    assert!(
        written.contains("# Hits of one search: 1 to 1048576. Default 1000.\n#k_max = 1000\n"),
        "{written}"
    );
    // It is read, and changes nothing until a line is.
    let mut config = bare();
    config.env("XDG_CONFIG_HOME", folder.path()).args(["config", "limits.k_max"]);
    assert_eq!(run(&mut config).code(0).stdout, "1000\n");
    std::fs::write(&own, written.replace("#k_max = 1000", "k_max = 5")).unwrap();
    assert_eq!(run(&mut config).code(0).stdout, "5\n");
    run(&mut command).code(1).says("is there already, and is left as it is");
    assert!(std::fs::read_to_string(&own).unwrap().contains("\nk_max = 5\n"));
    let other = folder.path().join("new/other.toml");
    run(bare().args(["config", "init"]).arg(&other)).code(0).prints("--config");
    run(bare().arg("--config").arg(&other).arg("config")).code(0).prints("k_max = 1000  # default");
}

#[test]
fn a_file_to_begin_with_is_written_where_the_settings_are_to_be_read_from() {
    let folder = tempfile::tempdir().unwrap();
    let (flag, variable) = (folder.path().join("flag.toml"), folder.path().join("variable.toml"));
    let init = || {
        let mut command = bare();
        command.env("DISTILFACE_CONFIG", &variable).args(["config", "init"]);
        command
    };
    run(init().arg("--config").arg(&flag)).code(0).prints(&format!("wrote {}", flag.display()));
    assert!(!variable.exists());
    run(&mut init()).code(0).prints(&format!("wrote {}", variable.display())).prints("DISTILFACE_CONFIG");
    for file in [&flag, &variable] {
        assert!(std::fs::read_to_string(file).unwrap().contains("#k_max = 1000"));
        // What is there stays, whatever is in it.
        std::fs::write(file, "mine").unwrap();
    }
    run(init().arg("--config").arg(&flag)).code(1).says("is there already, and is left as it is");
    run(&mut init()).code(1).says("is there already, and is left as it is");
    for file in [&flag, &variable] {
        assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
    }
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
