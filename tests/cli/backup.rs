//! Backups of a folder and of a server, read, damaged and restored.

use std::path::{Path, PathBuf};

use super::harness::*;

/// A place with two collections and an alias.
fn place() -> Option<Place> {
    let place = Place::new()?;
    for (name, count) in [("papers", 8), ("laws", 3)] {
        let mut ingest = place.cli(&["ingest", "-", "-c", name]);
        run_with_stdin(&mut ingest, lines(0..count).as_bytes()).code(0);
    }
    place.run(&["collection", "alias", "current", "papers"]).code(0);
    Some(place)
}

fn documents(place: &Place, data: &Path, collection: &str) -> String {
    let mut command = place.command();
    command.arg("--data").arg(data).args(["document", "scroll", "-c", collection, "--all", "--json"]);
    run(&mut command).code(0).stdout
}

/// A file of a backup that ends so.
fn file_in(dir: &Path, end: &str) -> PathBuf {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                return path;
            }
        }
    }
    panic!("there is no {end}");
}

#[test]
fn a_folder_is_backed_up_verified_and_restored_elsewhere() {
    let Some(place) = place() else { return };
    let dest = place.path("monday");
    let dest_text = dest.to_str().unwrap();
    let before = documents(&place, &place.data(), "papers");
    let ran = place.run(&["backup", dest_text]).code(0);
    ran.prints("papers").prints("backed up to").prints(dest_text);
    place.run(&["backup", dest_text]).code(1).says("there already");
    // A path may be one from where the user stands.
    let told = place.run(&["backup", "tuesday", "-c", "current", "--copy", "--json"]).code(0).json();
    assert_eq!((&told["name"], &told["linked_bytes"]), (&"tuesday".into(), &0.into()));
    assert_eq!(told["collections"][0]["name"], "papers");
    assert_eq!(told["collections"][0]["documents"], 8);

    let verified = run(place.command().args(["verify", dest_text]));
    verified.code(0).prints("the backup is whole").prints("laws").prints("made at");
    let told = run(place.command().args(["verify", dest_text, "--json"])).code(0).json();
    assert_eq!((&told["whole"], &told["damages"]), (&true.into(), &serde_json::json!([])));

    let other = place.path("other");
    let restore = |args: &[&str]| run(place.command().arg("--data").arg(&other).arg("restore").args(args));
    let ran = restore(&[dest_text]).code(0);
    ran.prints("papers").prints("laws").says("aliases that were not restored").says("current");
    assert_eq!(documents(&place, &other, "papers"), before);
    restore(&[dest_text]).code(1).says("exists");
    let told = restore(&[dest_text, "-c", "papers", "--as", "old", "--aliases", "--json"]).code(0).json();
    assert_eq!(told[0]["collection"]["name"], "old");
    assert_eq!(told[0]["collection"]["aliases"], serde_json::json!(["current"]));
    assert_eq!(documents(&place, &other, "current"), before);
    let mut search = place.command();
    search.arg("--data").arg(&other).args(["search", "Text number 3 about things", "-c", "old", "--json"]);
    assert_eq!(run(&mut search).code(0).json()["hits"][0]["id"], "doc-3");
    // The data folder, in the place of a backup, and the other way round.
    let data = place.data();
    restore(&[data.to_str().unwrap()]).code(2).says("is a data folder");
    run(place.command().args(["verify", data.to_str().unwrap()])).code(2).says("is a data folder");
    run(place.command().args(["--data", dest_text, "collection", "list"])).code(2).says("distilface restore");
    run(place.command().args(["--data", dest_text, "verify"])).code(0).prints("the backup is whole");
}

#[test]
fn a_damaged_backup_is_told_by_file_and_not_restored() {
    let Some(place) = place() else { return };
    let dest = place.path("monday");
    let dest_text = dest.to_str().unwrap();
    place.run(&["backup", dest_text, "--copy"]).code(0);
    let file = file_in(&dest, "documents");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let ran = run(place.command().args(["verify", dest_text])).code(4);
    ran.prints("damaged: collection").says("the backup is damaged");
    let told = run(place.command().args(["verify", dest_text, "--json"])).code(4);
    let damaged: Vec<_> = told.json()["collections"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|collection| collection["damages"].as_array().unwrap().clone())
        .collect();
    assert_eq!(damaged[0]["file"], file.to_str().unwrap());
    assert_eq!(told.json_error()["kind"], "corrupt");
    let other = place.path("other");
    let ran = run(place.command().arg("--data").arg(&other).args(["restore", dest_text])).code(1);
    ran.says("is damaged").says(file.to_str().unwrap());
    let listed =
        run(place.command().arg("--data").arg(&other).args(["collection", "list", "--json"])).code(0);
    assert!(listed.json().as_array().unwrap().len() < 2);
    std::fs::remove_file(dest.join("backup")).unwrap();
    run(place.command().args(["verify", dest_text])).code(2).says("is no backup");
}

#[test]
fn a_server_makes_and_restores_backups_by_name() {
    let Some(place) = place() else { return };
    let backups = place.path("backups");
    let server = place.serve_with(&[("DISTILFACE_DATA__BACKUPS", backups.to_str().unwrap())]);
    let remote = |args: &[&str]| run(&mut place.remote(&server, args));
    remote(&["backup", "--list"]).code(0).says("no backups yet");
    remote(&["backup", "monday"]).code(0).prints("backed up to").prints(backups.to_str().unwrap());
    remote(&["backup", "--list"]).code(0).prints("monday").prints("11");
    let told = remote(&["backup", "--list", "--json"]).code(0).json();
    assert_eq!(told[0]["collections"][1]["aliases"], serde_json::json!(["current"]));
    remote(&["backup", "/tmp/x"]).code(2).says("data.backups").says("give a name");
    remote(&["restore", "../monday"]).code(2).says("give a name");
    remote(&["restore", "none"]).code(1).says("no backup \"none\"; there are: monday");
    let ran = remote(&["restore", "monday", "-c", "papers", "--as", "old"]).code(0);
    ran.prints("old").says("--aliases");
    let count = remote(&["document", "count", "-c", "old", "--json"]).code(0).json();
    assert_eq!(count["documents"], 8);
    // What a server made is a folder like any other.
    let monday = backups.join("monday");
    run(place.command().arg("verify").arg(&monday)).code(0).prints("the backup is whole");
    server.signal("-TERM");
    server.ended().code(0);
    place.run(&["restore", monday.to_str().unwrap(), "-c", "laws", "--as", "older"]).code(0);
    assert_eq!(place.count("older"), 3);
    place.run(&["backup", "--list"]).code(2).says("asks a server");
    run(place.command().args(["backup"])).code(2);
    let server = place.serve();
    run(&mut place.remote(&server, &["backup", "x"])).code(1).says("DISTILFACE_DATA__BACKUPS");
}
