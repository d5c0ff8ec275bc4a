//! A segment that becomes another collection's has every document, and is nobody else's.

use std::cell::RefCell;

use super::*;
use crate::files::sums::{self, Sum};

const OTHER: Name = Name { collection: Identity([9; 16]), number: 5 };

fn adopt(
    disk: &Arc<dyn Disk>,
    stop: &Stop,
    expect: &dyn Fn(&str, Sum) -> Result<(), SegmentError>,
) -> Result<Segment, SegmentError> {
    Adopt {
        disk,
        from: (Path::new(DIR), name(1)),
        to: (Path::new("/other"), OTHER),
        spaces: &spaces(),
        cache: &Arc::new(BlockCache::new(1 << 20)),
        stop,
        expect,
    }
    .run()
}

fn world() -> (Arc<dyn Disk>, Vec<Doc>) {
    let disk: Arc<dyn Disk> = Arc::new(ForgetfulDisk::new(1));
    let docs: Vec<Doc> = (0..30).map(|n| doc(&format!("document {n:02}"), n + 3)).collect();
    build(&disk, 1, &docs, narrow()).unwrap();
    disk.create_dir(Path::new("/other")).unwrap();
    (disk, docs)
}

#[test]
fn an_adopted_segment_has_every_document_and_names_its_new_owner() {
    let (disk, docs) = world();
    let read = RefCell::new(Vec::new());
    let expect = |file: &str, sum: Sum| {
        read.borrow_mut().push((file.to_owned(), sum));
        Ok(())
    };
    let adopted = adopt(&disk, &Stop::default(), &expect).unwrap();
    assert_eq!(adopted.verify(&Stop::default()).unwrap(), []);
    assert_eq!((adopted.name(), adopted.len()), (OTHER, 30));
    let source = open(&disk, 1).unwrap();
    for (row, doc) in (0..).map(Row).zip(&docs) {
        assert_eq!(adopted.id(row).unwrap(), doc.id);
        assert_eq!(adopted.head(row).unwrap(), source.head(row).unwrap());
        assert_eq!(adopted.text(row).unwrap(), doc.text);
        assert_eq!(adopted.body(row).unwrap(), source.body(row).unwrap());
        assert_eq!(adopted.passages(row).unwrap(), doc.passages);
        for space in spaces() {
            for passage in adopted.head(row).unwrap().vectors() {
                let of =
                    |segment: &Segment| segment.vectors(space.number).unwrap().row(passage).unwrap().to_vec();
                assert_eq!(of(&adopted), of(&source));
            }
        }
    }
    // The sums are those of the source, every file once.
    let read = read.into_inner();
    let names: Vec<&str> = read.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(names, ["documents", "columns", "1.vectors", "4.vectors"]);
    for (file, sum) in &read {
        let path = source.path().join(file);
        assert_eq!(sums::of(&*disk, &path, &Stop::default()).unwrap(), *sum);
    }
    // Nobody takes it for a segment of the collection that it was of.
    let cache = Arc::new(BlockCache::new(1 << 20));
    let old = Name { number: 5, ..name(1) };
    let error = Segment::open(&disk, Path::new("/other"), old, &spaces(), &cache).unwrap_err();
    assert!(matches!(error, SegmentError::Foreign { .. }), "{error}");
}

#[test]
fn what_is_not_as_it_should_be_leaves_nothing() {
    let (disk, _) = world();
    let left = |disk: &Arc<dyn Disk>| disk.list(Path::new("/other")).unwrap().len();
    let refuse = |file: &str, _| match file {
        "columns" => Err(SegmentError::corrupt(Path::new(file), 0, "it is another one")),
        _ => Ok(()),
    };
    let error = adopt(&disk, &Stop::default(), &refuse).unwrap_err();
    assert!(matches!(&error, SegmentError::Corrupt { path, .. } if path == Path::new("columns")), "{error}");
    assert_eq!(left(&disk), 0);
    let stopped = adopt(&disk, &Stop::at(Some(std::time::Instant::now())), &|_, _| Ok(())).unwrap_err();
    assert!(matches!(stopped, SegmentError::Stopped(_)), "{stopped}");
    assert_eq!(left(&disk), 0);
    let path = Path::new("/0000000001/columns");
    let len = disk.read_only(path).unwrap().len().unwrap();
    disk.open(path).unwrap().set_len(len - 1).unwrap();
    let error = adopt(&disk, &Stop::default(), &|_, _| Ok(())).unwrap_err();
    assert!(matches!(&error, SegmentError::Corrupt { path: at, .. } if at == path), "{error}");
    assert_eq!(left(&disk), 0);
}

/// What it costs to make a segment another collection's, by a copy of its files and by a merge, each read to the last byte
/// afterwards. It asserts nothing about time:
/// `cargo test --release --lib segment::tests::adopting -- --ignored --nocapture`.
#[test]
#[ignore = "it measures"]
fn copying_beside_merging() {
    const DOCUMENTS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(crate::files::disk::RealDisk);
    let (cache, stop) = (Arc::new(BlockCache::new(64 << 20)), Stop::default());
    let space = Space { dim: Dim::new(384).unwrap(), ..spaces()[0].clone() };
    let spaces = std::slice::from_ref(&space);
    let mut builder = Builder::new(&disk, dir.path(), name(1), spaces, Limits::default()).unwrap();
    let mut random = SplitMix(3);
    for n in 0..DOCUMENTS {
        let words: Vec<String> = (0..200).map(|_| format!("word{}", random.below(20_000))).collect();
        let one = Doc {
            text: words.join(" "),
            passages: std::iter::once(0..10).collect(),
            ..doc(&format!("document {n:06}"), n + 1)
        };
        one.push(&mut builder, spaces).unwrap();
    }
    let source = builder.finish(&cache).unwrap();
    let bytes: u64 = source.bytes().iter().map(|(_, bytes)| bytes).sum();
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("{DOCUMENTS} documents, {mib:.0} MiB");
    let timed = |what: &str, work: &dyn Fn() -> Segment| {
        let begun = std::time::Instant::now();
        let made = work();
        let written = begun.elapsed();
        assert_eq!(made.verify(&stop).unwrap(), []);
        let all = begun.elapsed();
        println!(
            "{what}: {:.2} s ({:.0} MiB/s), and {:.2} s to read it again; with that {:.0} MiB/s",
            written.as_secs_f64(),
            mib / written.as_secs_f64(),
            (all - written).as_secs_f64(),
            mib / all.as_secs_f64()
        );
    };
    for round in 0..3_u64 {
        let to = |number| Name { number: 10 * round + number, ..OTHER };
        timed("copied", &|| {
            let (from, to) = ((dir.path(), name(1)), (dir.path(), to(1)));
            let expect = |_: &str, _| Ok(());
            Adopt { disk: &disk, from, to, spaces, cache: &cache, stop: &stop, expect: &expect }
                .run()
                .unwrap()
        });
        timed("merged", &|| {
            let merge = Merge {
                disk: &disk,
                dir: dir.path(),
                name: to(2),
                spaces,
                limits: Limits::default(),
                now: i64::MIN,
                cache: &cache,
                stop: &stop,
                progress: &AtomicU64::new(0),
            };
            let gone = RoaringBitmap::new();
            merge.run(&[Source { segment: &source, deleted: &gone }]).unwrap().segment.unwrap()
        });
    }
}
