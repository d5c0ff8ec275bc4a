//! Flipped bytes, cut files and files in the wrong place: an error that names the file, or the right answer.

use super::*;
use crate::segment::file::{FOOTER_BYTES, HEADER_BYTES, seal};

fn some_docs() -> Vec<Doc> {
    let mut docs: Vec<Doc> = (0..5).map(|n| doc(&format!("doc {n}"), 1 + n)).collect();
    docs[1].expires_at = Some(0);
    docs[2].text = "many many words ".repeat(40);
    docs[2].passages = vec![0..4, 5..200];
    docs[3].text.clear();
    docs[3].passages.clear();
    docs[4].payload.clear();
    docs
}

/// The file that an error names.
fn named(error: &SegmentError) -> &Path {
    match error {
        SegmentError::Corrupt { path, .. }
        | SegmentError::Foreign { path, .. }
        | SegmentError::NewerFormat { path, .. } => path,
        other => panic!("it does not tell of damage: {other:?}"),
    }
}

fn files(disk: &Arc<dyn Disk>) -> Vec<PathBuf> {
    let dir = Path::new("/0000000001");
    disk.list(dir).unwrap().into_iter().map(|entry| dir.join(entry.name)).collect()
}

fn content(disk: &Arc<dyn Disk>, path: &Path) -> Vec<u8> {
    disk.read_only(path).unwrap().map().unwrap().to_vec()
}

fn put(disk: &Arc<dyn Disk>, path: &Path, bytes: &[u8]) {
    let file = disk.open(path).unwrap();
    file.set_len(0).unwrap();
    file.write_at(0, bytes).unwrap();
}

#[test]
fn every_flipped_byte_is_seen_or_does_not_matter() {
    let (_, disk) = forgetful(1);
    let (docs, filters) = (some_docs(), filters());
    build(&disk, 1, &docs, Limits::default()).unwrap();
    let mut random = SplitMix(7);
    let mut seen_by_reading = 0;
    for path in files(&disk) {
        let whole = content(&disk, &path);
        let file = disk.open(&path).unwrap();
        for at in 0..whole.len() {
            let flip = 1 << (random.next() % 8);
            file.write_at(at as u64, &[whole[at] ^ flip]).unwrap();
            match open(&disk, 1) {
                Err(error) => {
                    assert_eq!(named(&error), path, "byte {at}");
                    seen_by_reading += 1;
                }
                Ok(segment) => {
                    if let Err(error) = check(&segment, &docs, &filters) {
                        assert_eq!(named(&error), path, "byte {at}: {error}");
                        seen_by_reading += 1;
                    }
                    // What no reader looks at is seen by `verify` all the same.
                    let damages = segment.verify(&Stop::default()).unwrap();
                    assert!(!damages.is_empty(), "{} byte {at} was flipped unseen", path.display());
                    for damage in damages {
                        assert_eq!(damage.path, path, "{damage:?}");
                        assert!(damage.offset as usize <= at, "{damage:?} of byte {at}");
                    }
                }
            }
            file.write_at(at as u64, &whole[at..=at]).unwrap();
        }
    }
    assert!(seen_by_reading > 2000, "{seen_by_reading}");
    check(&open(&disk, 1).unwrap(), &docs, &filters).unwrap();
}

#[test]
fn every_cut_and_everything_added_is_seen_at_opening() {
    let (_, disk) = forgetful(2);
    build(&disk, 1, &some_docs(), Limits::default()).unwrap();
    for path in files(&disk) {
        let whole = content(&disk, &path);
        let file = disk.open(&path).unwrap();
        for len in (0..whole.len()).rev() {
            file.set_len(len as u64).unwrap();
            assert_eq!(named(&open(&disk, 1).unwrap_err()), path, "{len}");
        }
        put(&disk, &path, &[&whole[..], &[0; 64]].concat());
        assert_eq!(named(&open(&disk, 1).unwrap_err()), path);
        disk.remove(&path).unwrap();
        let error = open(&disk, 1).unwrap_err();
        assert!(named(&error) == path && error.to_string().contains("missing"), "{error}");
        let file = disk.create(&path).unwrap();
        file.write_at(0, &whole).unwrap();
    }
    open(&disk, 1).unwrap();
}

/// What was cut or changed between opening and the first reading is not taken for what was opened.
#[test]
fn a_file_that_changes_after_it_was_opened_is_refused() {
    let (_, disk) = forgetful(3);
    let docs = some_docs();
    build(&disk, 1, &docs, Limits::default()).unwrap();
    for path in files(&disk) {
        let whole = content(&disk, &path);
        for changed in [&whole[..whole.len() - 1], &whole[..0]] {
            let segment = open(&disk, 1).unwrap();
            put(&disk, &path, changed);
            assert_eq!(named(&check(&segment, &docs, &filters()).unwrap_err()), path);
            assert!(!segment.verify(&Stop::default()).unwrap().is_empty());
            put(&disk, &path, &whole);
        }
    }
}

#[test]
fn files_of_others_and_of_later_versions_are_told_by_name() {
    let (_, disk) = forgetful(4);
    build(&disk, 1, &some_docs(), Limits::default()).unwrap();
    build(&disk, 2, &some_docs(), Limits::default()).unwrap();
    for path in files(&disk) {
        let whole = content(&disk, &path);
        let other = content(&disk, &Path::new("/0000000002").join(path.file_name().unwrap()));
        put(&disk, &path, &other);
        let error = open(&disk, 1).unwrap_err();
        assert!(matches!(error, SegmentError::Foreign { .. }) && named(&error) == path, "{error}");
        assert!(error.to_string().contains("segment 2") && error.kind() == ErrorKind::Corrupt, "{error}");

        let mut newer = whole.clone();
        newer[8..10].copy_from_slice(&2u16.to_le_bytes());
        let mut header: [u8; HEADER_BYTES] = newer[..HEADER_BYTES].try_into().unwrap();
        seal(&mut header);
        newer[..HEADER_BYTES].copy_from_slice(&header);
        put(&disk, &path, &newer);
        let error = open(&disk, 1).unwrap_err();
        assert!(matches!(error, SegmentError::NewerFormat { got: 2, supported: 1, .. }), "{error}");
        assert_eq!((named(&error), error.kind()), (&*path, ErrorKind::Precondition));
        put(&disk, &path, &whole);
    }
    let identity = Name { collection: Identity([8; 16]), number: 1 };
    let cache = Arc::new(BlockCache::new(0));
    let error = Segment::open(&disk, Path::new(DIR), identity, &spaces(), &cache).unwrap_err();
    assert!(matches!(error, SegmentError::Foreign { .. }), "{error}");
    // A space of another model, dimension or metric is not this one.
    let changes: [fn(&mut Space); 3] = [
        |space| space.fingerprint = "other".into(),
        |space| space.dim = Dim::new(4).unwrap(),
        |space| space.metric = Metric::Dot,
    ];
    for change in changes {
        let mut spaces = spaces();
        change(&mut spaces[0]);
        let error = Segment::open(&disk, Path::new(DIR), name(1), &spaces, &cache).unwrap_err();
        assert!(matches!(error, SegmentError::Foreign { .. }), "{error}");
        assert_eq!(named(&error), Path::new("/0000000001/1.vectors"));
    }
    let fewer = Segment::open(&disk, Path::new(DIR), name(1), &spaces()[1..], &cache).unwrap();
    assert!(fewer.vectors(1).is_none() && fewer.vectors(4).is_some());
}

/// Whatever a footer, a table or a description says, with right sums: no panic, and no memory for what is not there.
#[test]
fn nonsense_with_right_sums_is_an_error() {
    let (_, disk) = forgetful(5);
    let docs = some_docs();
    build(&disk, 1, &docs, Limits::default()).unwrap();
    let mut random = SplitMix(11);
    for path in files(&disk) {
        let whole = content(&disk, &path);
        let footer_at = whole.len() - FOOTER_BYTES;
        let table_at = u64::from_le_bytes(whole[footer_at + 8..footer_at + 16].try_into().unwrap()) as usize;
        let count = whole[footer_at + 16] as usize;
        for round in 0..500 {
            let mut bytes = whole.clone();
            // A byte, or a number that is beyond everything.
            let at = match round % 3 {
                0 => footer_at + 8 + (random.next() % 24) as usize,
                1 => table_at + (random.next() % (24 * count as u64)) as usize,
                _ => HEADER_BYTES + (random.next() % (table_at - HEADER_BYTES) as u64) as usize,
            };
            let wide = (random.next() % 8) as usize;
            bytes[at..(at + wide).min(whole.len())].fill(random.next() as u8);
            bytes[at] = random.next() as u8;
            // Sums are made right again: of sections that have one, of the table and of the footer.
            for section in 0..count {
                let entry = table_at + 24 * section;
                let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
                let (start, len) = (number(entry + 8), number(entry + 16));
                let Some(content) = start.checked_add(len).and_then(|end| bytes.get(start..end)) else {
                    continue;
                };
                let sum = crc32c::crc32c(content).to_le_bytes();
                if bytes[entry + 2] == 2 && len > 0 {
                    let sums = (start + len).next_multiple_of(64);
                    if sums + 4 <= bytes.len() {
                        bytes[sums..sums + 4].copy_from_slice(&sum);
                        let sum = crc32c::crc32c(&sum).to_le_bytes();
                        bytes[entry + 4..entry + 8].copy_from_slice(&sum);
                    }
                } else if bytes[entry + 2] == 1 {
                    bytes[entry + 4..entry + 8].copy_from_slice(&sum);
                }
            }
            let sum = crc32c::crc32c(&bytes[table_at..table_at + 24 * count]).to_le_bytes();
            bytes[footer_at + 20..footer_at + 24].copy_from_slice(&sum);
            let mut footer: [u8; FOOTER_BYTES] = bytes[footer_at..].try_into().unwrap();
            seal(&mut footer);
            bytes[footer_at..].copy_from_slice(&footer);
            put(&disk, &path, &bytes);
            let Ok(segment) = open(&disk, 1) else { continue };
            // Other answers are no surprise here; there is an end to all of them.
            let _ = segment.verify(&Stop::default()).unwrap();
            for row in (0..segment.len().min(50)).map(Row) {
                let _ = (segment.id(row), segment.body(row), segment.text(row), segment.passages(row));
                let _ = segment
                    .head(row)
                    .map(|head| segment.vectors(1).unwrap().rows(head.vectors()).map(|rows| rows.len()));
            }
            for doc in &docs {
                let _ = segment.find(&doc.id);
            }
            let _ = segment.scroll(None).map(|scroll| scroll.take(50).count());
            let _ = segment.expired(i64::MAX - 1);
            for filter in &filters() {
                let _ = fields(&segment).matching(filter, &Stop::default());
            }
            let _ = fields(&segment)
                .stats(&FieldsRequest { limit: 9, ..FieldsRequest::default() }, &Stop::default());
        }
        put(&disk, &path, &whole);
    }
}

#[test]
fn every_damage_of_a_file_of_deletions_is_seen() {
    let (_, disk) = forgetful(6);
    let dir = Path::new(DIR);
    let deleted = Deleted { version: 3, sequence: 77, rows: (0..5000).step_by(3).collect() };
    deleted.write(&disk, dir, name(1), 5000).unwrap();
    let read = || Deleted::read(&disk, dir, name(1), 3, 5000);
    let verify = || Deleted::verify(&disk, dir, name(1), 3, 5000, &Stop::default()).unwrap();
    assert_eq!(read().unwrap(), deleted);
    assert_eq!(verify(), []);
    let path = Path::new("/0000000001.deleted.3");
    let whole = content(&disk, path);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        put(&disk, path, &bytes);
        match read() {
            Ok(read) => assert_eq!(read, deleted, "byte {at}"),
            Err(error) => assert_eq!(named(&error), path),
        }
        assert!(!verify().is_empty(), "byte {at}");
        put(&disk, path, &whole[..at]);
        assert_eq!(named(&read().unwrap_err()), path);
    }
    put(&disk, path, &whole);
    assert!(Deleted::read(&disk, dir, name(1), 3, 5001).is_err(), "of another segment");
    assert!(matches!(Deleted::read(&disk, dir, name(2), 3, 5000), Err(SegmentError::Corrupt { .. })));
    disk.rename(path, Path::new("/0000000001.deleted.4")).unwrap();
    let error = Deleted::read(&disk, dir, name(1), 4, 5000).unwrap_err();
    assert!(matches!(error, SegmentError::Foreign { .. }), "{error}");
}
