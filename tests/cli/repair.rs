//! Reading everything, and repairing what is damaged.

use std::path::{Path, PathBuf};

use super::harness::*;

/// A place with two collections.
fn place() -> Option<Place> {
    let place = Place::new()?;
    for (name, count) in [("papers", 8), ("laws", 3)] {
        let mut ingest = place.cli(&["ingest", "-", "-c", name]);
        run_with_stdin(&mut ingest, lines(0..count).as_bytes()).code(0);
    }
    place.run(&["verify"]).code(0);
    Some(place)
}

/// All files of the data folder but the lock, with what is in them.
fn files(place: &Place) -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if !path.ends_with("LOCK") {
                found.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&place.data(), &mut found);
    found.sort();
    found
}

/// Flips a byte of every entry in the log that says something of this document.
fn damage_in_log(place: &Place, id: &str) -> PathBuf {
    let path = place.data().join("log/0000000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - id.len()).filter(|at| bytes[*at..].starts_with(id.as_bytes())).collect();
    assert!(!places.is_empty(), "{id} is not in the log");
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The folder of a collection.
fn folder_of(place: &Place, name: &str) -> PathBuf {
    let verified = place.run(&["verify", "--json"]).json();
    let collections = verified["collections"].as_array().unwrap();
    let collection = collections.iter().find(|collection| collection["name"] == name).unwrap();
    PathBuf::from(collection["folder"].as_str().unwrap())
}

#[test]
fn a_whole_folder_is_told_collection_by_collection_and_left_as_it_is() {
    let Some(place) = place() else { return };
    let before = files(&place);
    let ran = place.run(&["verify"]).code(0);
    ran.prints("everything is whole").prints("papers").prints("laws");
    let told = place.run(&["verify", "--json"]).code(0).json();
    assert_eq!((&told["whole"], &told["damages"]), (&true.into(), &serde_json::json!([])));
    let counts: Vec<_> = told["collections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap(), c["documents"].as_u64().unwrap(), c["whole"] == true))
        .collect();
    assert_eq!(counts, [("laws", 3, true), ("papers", 8, true)]);
    assert!(told["log_entries"].as_u64().unwrap() > 2);
    place.run(&["repair"]).code(0).prints("nothing to repair");
    place.run(&["repair", "--apply"]).code(0);
    assert_eq!(files(&place), before);
}

#[test]
fn what_is_damaged_is_told_and_repaired_and_the_rest_is_kept() {
    let Some(place) = place() else { return };
    let mut ingest = place.cli(&["ingest", "-", "-c", "papers"]);
    run_with_stdin(&mut ingest, lines(20..22).as_bytes()).code(0);
    let log = damage_in_log(&place, "doc-20");
    let before = files(&place);
    let ran = place.run(&["verify"]).code(4);
    ran.says("damaged").prints("0000000001.log, byte ").prints("remedy: `distilface repair`");
    let told = place.run(&["verify", "--json"]).code(4);
    assert_eq!(told.json_error()["kind"], "corrupt");
    let told = told.json();
    let of = |name: &str| {
        told["collections"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone()
    };
    assert_eq!((&of("papers")["whole"], &of("laws")["whole"]), (&false.into(), &true.into()));
    let damage = &of("papers")["damages"][0];
    assert_eq!(damage["file"].as_str(), log.to_str());
    assert!(damage["offset"].as_u64().unwrap() >= 4096 && damage["repairable"] == true, "{damage}");
    // The collection is refused until it is repaired, the other is served.
    place.run(&["document", "count", "-c", "papers"]).code(1);
    assert_eq!(place.count("laws"), 3);

    let before_repair = files(&place);
    let ran = place.run(&["repair"]).code(4);
    ran.prints("collection papers: can be repaired").prints("would drop: ").prints("entry ");
    ran.prints("nothing was changed").prints("collection laws: nothing to repair");
    assert_eq!(files(&place), before_repair);
    let planned = place.run(&["repair", "papers", "--json"]).code(4).json();
    assert_eq!((&planned["applied"], planned["collections"].as_array().unwrap().len()), (&false.into(), 1));
    let ran = place.run(&["repair", "--apply"]).code(0);
    ran.prints("collection papers: repaired").prints("holds 8 documents").prints("the damaged files are in");

    place.run(&["verify"]).code(0);
    assert_eq!((place.count("papers"), place.count("laws")), (8, 3));
    place.run(&["search", "things", "-c", "papers", "-k", "3"]).code(0).prints("doc-");
    // It is written on, and the damaged file is kept as it was found.
    let mut ingest = place.cli(&["ingest", "-", "-c", "papers"]);
    run_with_stdin(&mut ingest, lines(20..22).as_bytes()).code(0);
    assert_eq!(place.count("papers"), 10);
    let (_, damaged) = before.iter().find(|(path, _)| *path == log).unwrap();
    let kept = files(&place);
    let kept = kept.iter().find(|(path, _)| path.ends_with("log/0000000001.log") && *path != log).unwrap();
    assert!(kept.1 == *damaged && kept.0.starts_with(place.data().join("damaged")), "{:?}", kept.0);

    // From now on the documents are in a segment, of which one file is lost.
    let folder = folder_of(&place, "papers");
    let lost = folder.join("0000000001/columns");
    std::fs::remove_file(&lost).unwrap();
    place.run(&["verify"]).code(4).prints("it is missing");
    place.run(&["repair", "papers", "--apply"]).code(0).prints("holds 10 documents");
    place.run(&["verify"]).code(0);
    assert_eq!(place.count("papers"), 10);
}

#[test]
fn a_report_of_damage_fits_narrow_windows() {
    let Some(place) = place() else { return };
    damage_in_log(&place, "doc-7");
    for command in ["verify", "repair"] {
        for width in [80, 40] {
            let ran = run(place.cli(&[command]).env("COLUMNS", width.to_string())).code(4);
            for line in ran.stdout.lines() {
                // A path that is wider than the window is not broken.
                let is_long_word = line.split_whitespace().any(|word| word.len() + 20 > width);
                assert!(line.chars().count() <= width || is_long_word, "{width}: {line:?}\n{}", ran.stdout);
            }
        }
    }
}

#[test]
fn a_description_that_is_damaged_is_written_again_from_the_catalogue() {
    let Some(place) = place() else { return };
    let description = folder_of(&place, "papers").join("collection");
    std::fs::write(&description, "\u{1}not what was written").unwrap();
    place.run(&["verify"]).code(4).prints("collection, byte 0:").prints("catalogue");
    let ran = place.run(&["repair"]).code(4);
    let told = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("written again as the catalogue has it"), "{told}");
    assert_eq!(std::fs::read(&description).unwrap(), b"\x01not what was written");
    place.run(&["repair", "--apply"]).code(0);
    place.run(&["verify"]).code(0);
    assert_eq!((place.count("papers"), place.count("laws")), (8, 3));
    // Where the catalogue is lost too, nobody knows what the collection was.
    std::fs::write(&description, "\u{1}not what was written").unwrap();
    std::fs::remove_dir_all(place.data().join("catalog")).unwrap();
    place.run(&["repair", "--apply"]).code(4).prints("cannot be repaired");
}

#[test]
fn a_folder_that_is_in_use_or_none_of_ours_is_refused() {
    let Some(place) = place() else { return };
    let server = place.serve();
    for command in [&["verify"][..], &["repair"], &["repair", "--apply"]] {
        let ran = place.run(command).code(1);
        ran.says("in use by another process");
    }
    drop(server);
    place.run(&["verify"]).code(0);
    place.run(&["repair", "papers", "nothing"]).code(1).says("nothing").says("laws, papers");
    for command in ["verify", "repair"] {
        let empty = place.path("empty");
        std::fs::create_dir_all(&empty).unwrap();
        let ran = run(place.command().arg("--data").arg(&empty).arg(command)).code(2);
        ran.says("no data folder");
        assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
        run(place.command().arg("--data").arg(place.path("missing")).arg(command)).code(2);
        assert!(!place.path("missing").exists());
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_reading_at_once() {
    use std::process::Stdio;
    let Some(place) = place() else { return };
    // Zeros that take no room and much time.
    let log = std::fs::OpenOptions::new().write(true).open(place.data().join("log/0000000001.log")).unwrap();
    let len = log.metadata().unwrap().len();
    log.set_len(1 << 40).unwrap();
    let mut command = place.cli(&["verify"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lock = place.data().join("LOCK");
    until("it has the lock", || {
        std::fs::read_to_string(&lock).is_ok_and(|pid| pid.trim() == child.id().to_string())
    });
    assert!(child.try_wait().unwrap().is_none());
    let begun = std::time::Instant::now();
    signal(&child, "-INT");
    finish(child).code(130);
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    log.set_len(len).unwrap();
    place.run(&["verify"]).code(0);
}
