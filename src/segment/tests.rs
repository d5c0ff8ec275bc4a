use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use proptest::{collection::vec, prelude::*};
use roaring::RoaringBitmap;

use super::*;
use crate::{
    files::{disk::Disk, forgetful::ForgetfulDisk},
    index::columns::{FieldIndex, FieldsRequest, Several},
    random::SplitMix,
    stop::Stop,
    value::filter::{
        Filter,
        tests::{any_filter, any_payload},
    },
};

mod adopting;
mod damage;
mod failing;
mod merging;

const DIR: &str = "/";

pub(super) fn name(number: u64) -> Name {
    Name { collection: Identity([7; 16]), number }
}

pub(super) fn spaces() -> Vec<Space> {
    let space = |number, dim, metric, fingerprint: &str| Space {
        number,
        dim: Dim::new(dim).unwrap(),
        metric,
        fingerprint: fingerprint.into(),
    };
    vec![space(1, 3, Metric::Cosine, "abc"), space(4, 17, Metric::Euclidean, "")]
}

/// Limits that put everything on the disk at once.
pub(super) fn narrow() -> Limits {
    Limits { columns_bytes: 1, spool_bytes: 16 }
}

/// A document of a test, with what it needs to be pushed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Doc {
    pub(super) id: PointId,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) payload: Payload,
    pub(super) version: u64,
    pub(super) expires_at: Option<i64>,
    pub(super) passages: Vec<Range<u32>>,
}

impl Doc {
    fn content_hash(&self) -> [u8; 16] {
        [self.version as u8; 16]
    }

    fn written_at(&self) -> i64 {
        -3 - self.version as i64
    }

    /// The vector of a passage: one that no other passage has.
    fn vector(&self, space: &Space, passage: usize) -> Vec<f32> {
        let mut random = SplitMix(self.version << 32 | u64::from(space.number) << 16 | passage as u64);
        (0..space.dim.len()).map(|_| random.next() as u32 as f32 / 7.0).collect()
    }

    pub(super) fn push(&self, builder: &mut Builder, spaces: &[Space]) -> Result<Row, SegmentError> {
        let vectors: Vec<Vec<Vec<f32>>> = spaces
            .iter()
            .map(|space| (0..self.passages.len()).map(|passage| self.vector(space, passage)).collect())
            .collect();
        let vectors: Vec<Vec<&[f32]>> =
            vectors.iter().map(|of| of.iter().map(Vec::as_slice).collect()).collect();
        builder.push(&Document {
            id: &self.id,
            title: &self.title,
            text: &self.text,
            payload: &self.payload,
            content_hash: self.content_hash(),
            version: self.version,
            written_at: self.written_at(),
            expires_at: self.expires_at,
            passages: &self.passages,
            vectors: &vectors,
        })
    }
}

/// A document of a name, with something of everything.
pub(super) fn doc(id: &str, version: u64) -> Doc {
    let text = format!("The text of {id} in version {version}: größer und länger.");
    let cut = text.find(':').unwrap() as u32;
    let payload = Payload::from([
        ("lang".to_owned(), Value::String(["en", "de"][version as usize % 2].to_owned())),
        ("year".to_owned(), Value::Integer(2000 + version as i64)),
        ("own".to_owned(), Value::List(vec![Value::String(id.to_owned()), Value::String("all".to_owned())])),
    ]);
    let passages = vec![0..cut, cut..text.len() as u32];
    let (id, title) = (PointId::new(id).unwrap(), format!("Title of {id}"));
    Doc { id, title, text, payload, version, expires_at: None, passages }
}

use crate::value::Value;

pub(super) fn build(
    disk: &Arc<dyn Disk>,
    number: u64,
    docs: &[Doc],
    limits: Limits,
) -> Result<Segment, SegmentError> {
    let mut builder = Builder::new(disk, Path::new(DIR), name(number), &spaces(), limits)?;
    assert!(builder.is_empty());
    for (row, doc) in (0..).zip(docs) {
        assert_eq!(builder.len(), row);
        assert_eq!(doc.push(&mut builder, &spaces())?, Row(row));
    }
    builder.finish(&Arc::new(BlockCache::new(1 << 20)))
}

pub(super) fn open(disk: &Arc<dyn Disk>, number: u64) -> Result<Segment, SegmentError> {
    Segment::open(disk, Path::new(DIR), name(number), &spaces(), &Arc::new(BlockCache::new(1 << 20)))
}

pub(super) fn forgetful(seed: u64) -> (ForgetfulDisk, Arc<dyn Disk>) {
    let disk = ForgetfulDisk::new(seed);
    (disk.clone(), Arc::new(disk))
}

/// Reads one document in every way and compares it.
pub(super) fn check_doc(segment: &Segment, row: Row, doc: &Doc) -> Result<(), SegmentError> {
    assert_eq!(segment.id(row)?, doc.id);
    assert_eq!(segment.find(&doc.id)?, Some(row));
    let head = segment.head(row)?;
    assert_eq!(
        (head.content_hash, head.version, head.written_at, head.expires_at, head.text_bytes() as usize),
        (doc.content_hash(), doc.version, doc.written_at(), doc.expires_at, doc.text.len())
    );
    assert!(head.body_bytes() as usize > doc.title.len());
    assert_eq!(segment.text(row)?, doc.text);
    assert_eq!(segment.body(row)?, Body { title: doc.title.clone(), payload: doc.payload.clone() });
    assert_eq!(segment.passages(row)?, doc.passages);
    for space in spaces() {
        let vectors = segment.vectors(space.number).unwrap();
        let all = vectors.rows(head.vectors())?;
        for (passage, at) in head.vectors().enumerate() {
            let expected = doc.vector(&space, passage);
            assert_eq!(*vectors.row(at)?, expected);
            let start = passage * vectors.stride();
            assert_eq!(all[start..start + expected.len()], expected);
            assert!(all[start + expected.len()..start + vectors.stride()].iter().all(|v| *v == 0.0));
        }
    }
    Ok(())
}

/// Reads everything that a segment can be asked, and compares it.
pub(super) fn check(segment: &Segment, docs: &[Doc], filters: &[Filter]) -> Result<(), SegmentError> {
    assert_eq!((segment.len() as usize, segment.name().collection), (docs.len(), name(0).collection));
    assert_eq!(segment.passage_count() as usize, docs.iter().map(|doc| doc.passages.len()).sum::<usize>());
    let versions = docs.iter().map(|doc| doc.version);
    assert_eq!(segment.versions(), versions.clone().min().zip(versions.max()));
    for (row, doc) in (0..).map(Row).zip(docs) {
        check_doc(segment, row, doc)?;
    }
    let sorted: Vec<(PointId, Row)> = docs
        .iter()
        .zip(0..)
        .map(|(doc, row)| (doc.id.clone(), Row(row)))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect();
    let scrolled = |after: Option<&PointId>| segment.scroll(after)?.collect::<Result<Vec<_>, _>>();
    assert_eq!(scrolled(None)?, sorted);
    for after in ["\u{20}", "b", "doc 3", "doc 33", "\u{10FFFF}"].map(|id| PointId::new(id).unwrap()) {
        let later: Vec<_> = sorted.iter().filter(|(id, _)| *id > after).cloned().collect();
        assert_eq!(scrolled(Some(&after))?, later);
        assert_eq!(segment.find(&after)?, sorted.iter().find(|(id, _)| *id == after).map(|(_, row)| *row));
    }
    for (at, (id, _)) in sorted.iter().enumerate() {
        assert_eq!(scrolled(Some(id))?, sorted[at + 1..]);
    }
    for now in [i64::MIN, -1, 0, 5, i64::MAX - 1] {
        let gone = |doc: &Doc| doc.expires_at.is_some_and(|at| at <= now);
        let expected: RoaringBitmap =
            (0..).zip(docs).filter_map(|(row, doc)| gone(doc).then_some(row)).collect();
        assert_eq!(segment.expired(now)?, expected);
        let by_head: Result<RoaringBitmap, SegmentError> = (0..segment.len())
            .filter_map(|row| {
                segment.head(Row(row)).map(|head| head.is_expired(now).then_some(row)).transpose()
            })
            .collect();
        assert_eq!(by_head?, expected);
    }
    check_columns(segment, docs, filters)
}

/// Compares the answers to filters, errors too, with those of the index in memory and of a scan: of all rows, and of
/// those that are left when some are deleted.
fn check_columns(segment: &Segment, docs: &[Doc], filters: &[Filter]) -> Result<(), SegmentError> {
    for dead in [0, 1, 3, u32::MAX] {
        let is_live = |row: u32| dead == 0 || (dead != u32::MAX && !row.is_multiple_of(dead + 1));
        check_living(segment, docs, filters, &is_live)?;
    }
    Ok(())
}

fn check_living(
    segment: &Segment,
    docs: &[Doc],
    filters: &[Filter],
    is_live: &dyn Fn(u32) -> bool,
) -> Result<(), SegmentError> {
    let mut index = FieldIndex::new();
    let left = || (0..).zip(docs).filter(|(row, _)| is_live(*row));
    left().for_each(|(row, doc)| index.insert(row, &doc.payload));
    let columns = Several(vec![segment.columns().living(index.documents())]);
    for filter in filters {
        let expected = index.matching(filter, &Stop::default());
        let scanned: RoaringBitmap =
            left().filter_map(|(row, doc)| filter.matches(&doc.payload).then_some(row)).collect();
        match columns.matching(filter, &Stop::default()) {
            Ok(found) => {
                assert_eq!(found, [scanned], "{filter}");
                assert_eq!(Ok(&found[0]), expected.as_ref(), "{filter}");
            }
            Err(SegmentError::Filter(error)) => assert_eq!(Err(error), expected, "{filter}"),
            Err(other) => return Err(other),
        }
        assert_eq!(columns.hints(filter, &Stop::default())?, index.hints(filter, &Stop::default()).unwrap());
    }
    for asked in [("", "", usize::MAX), ("", "", 2), ("b", "", 1), ("", "b", 9), ("x", "", 9), ("", "", 0)] {
        let (prefix, after, limit) = asked;
        let asked = FieldsRequest { prefix: prefix.into(), after: after.into(), limit };
        assert_eq!(
            columns.stats(&asked, &Stop::default())?,
            index.stats(&asked, &Stop::default()).unwrap(),
            "{asked:?}"
        );
    }
    Ok(())
}

/// The fields of all rows.
pub(super) fn fields(segment: &Segment) -> Several<Living<'_>> {
    Several(vec![segment.columns().living(segment.columns().rows())])
}

pub(super) fn filters() -> Vec<Filter> {
    [
        "lang = 'en'",
        "lang != 'en' or year >= 2003",
        "year > 2001 and < 2004",
        "own contains 'all'",
        "own contains 'doc 2'",
        "lang prefix 'e'",
        "lang contains 'd'",
        "not exists(own)",
        "year = 'x'",
        "nobody = 1",
    ]
    .map(|text| Filter::parse(text).unwrap())
    .into()
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        6 => "[a-zé☃ ]{0,40}",
        1 => (0..70_000usize).prop_map(|n| "word ".repeat(n / 5)),
        // Which zstd cannot make smaller, and which does not fit a block.
        1 => any::<u64>().prop_map(|seed| {
            let mut random = SplitMix(seed);
            (0..40_000).map(|_| char::from(b' ' + (random.next() % 95) as u8)).collect()
        }),
    ]
}

prop_compose! {
    fn any_passages(text: String)(cuts in vec(any::<prop::sample::Index>(), 0..8), whole: bool) -> Vec<Range<u32>> {
        let places: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        let mut cuts: Vec<u32> = cuts.iter().map(|cut| places[cut.index(places.len())] as u32).collect();
        if whole {
            cuts.extend([0, text.len() as u32]);
        }
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }
}

fn any_id() -> impl Strategy<Value = PointId> {
    let text = prop_oneof![
        "[a-c]{1,3}",
        "[a-zéß☃\u{10000} /]{1,20}",
        "[x]{512}",
        (0..40u8).prop_map(|n| format!("doc {n}"))
    ];
    text.prop_map(|id| PointId::new(id).unwrap())
}

prop_compose! {
    fn any_doc()(id in any_id(), title in "[A-Zü ]{0,20}", text in any_text(), payload in any_payload(),
        version in 1..u64::from(u32::MAX), expires_at in proptest::option::of(-2i64..9))
        (passages in any_passages(text.clone()), id in Just(id), title in Just(title), text in Just(text),
         payload in Just(payload), version in Just(version), expires_at in Just(expires_at)) -> Doc {
        Doc { id, title, text, payload, version, expires_at, passages }
    }
}

/// Documents with ids of their own.
pub(super) fn any_docs(most: usize) -> impl Strategy<Value = Vec<Doc>> {
    vec(any_doc(), 0..most).prop_map(|docs| {
        let mut seen = BTreeSet::new();
        docs.into_iter().filter(|doc| seen.insert(doc.id.clone())).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_pushed_is_what_is_read(docs in any_docs(24), filters in vec(any_filter(), 0..12), narrow_: bool) {
        let (_, disk) = forgetful(1);
        let limits = if narrow_ { narrow() } else { Limits::default() };
        let segment = build(&disk, 1, &docs, limits).unwrap();
        check(&segment, &docs, &filters).unwrap();
        prop_assert_eq!(segment.verify(&Stop::default()).unwrap(), []);
        // Opened anew, the last document is read first.
        let again = open(&disk, 1).unwrap();
        for (row, doc) in docs.iter().enumerate().rev() {
            check_doc(&again, Row(row as u32), doc).unwrap();
        }
        prop_assert_eq!(again.text_bytes(), docs.iter().map(|doc| doc.text.len() as u64).sum::<u64>());
        prop_assert!(again.find(&PointId::new("not there").unwrap()).unwrap().is_none());
        for (file, bytes) in again.bytes() {
            let path = Path::new("/0000000001").join(file);
            prop_assert_eq!(disk.read_only(&path).unwrap().len().unwrap(), bytes);
        }
        let names: Vec<_> = disk.list(Path::new("/0000000001")).unwrap().into_iter().map(|e| e.name).collect();
        prop_assert_eq!(names, ["1.vectors", "4.vectors", "columns", "documents"], "nothing else is left");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// Documents and vectors are as large as several chunks of sums.
    #[test]
    fn places_far_inside_are_found(seed: u64, narrow_: bool) {
        let (_, disk) = forgetful(2);
        let docs: Vec<Doc> = (0..3000).map(|n| doc(&format!("doc {n}"), 1 + n)).collect();
        let limits = if narrow_ { Limits { columns_bytes: 1 << 18, spool_bytes: 5000 } } else { Limits::default() };
        let segment = build(&disk, 1, &docs, limits).unwrap();
        let mut random = SplitMix(seed);
        for _ in 0..50 {
            let row = (random.next() % 3000) as u32;
            check_doc(&segment, Row(row), &docs[row as usize]).unwrap();
        }
        check_columns(&segment, &docs, &filters()).unwrap();
        prop_assert_eq!(segment.verify(&Stop::default()).unwrap(), []);
    }
}

#[test]
fn many_threads_read_a_segment_that_was_just_opened() {
    let (_, disk) = forgetful(3);
    let docs: Vec<Doc> = (0..500).map(|n| doc(&format!("doc {n}"), 1 + n)).collect();
    build(&disk, 1, &docs, Limits::default()).unwrap();
    let segment = open(&disk, 1).unwrap();
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (segment, docs) = (&segment, &docs);
            scope.spawn(move || {
                let mut random = SplitMix(seed);
                for _ in 0..200 {
                    let row = (random.next() % 500) as u32;
                    check_doc(segment, Row(row), &docs[row as usize]).unwrap();
                }
            });
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let (_, disk) = forgetful(4);
    let attempt = |change: &dyn Fn(&mut Doc), vectors: Option<Vec<Vec<&[f32]>>>| {
        let mut builder = Builder::new(&disk, Path::new(DIR), name(1), &spaces(), narrow()).unwrap();
        let mut doc = doc("a", 1);
        change(&mut doc);
        let Some(vectors) = vectors else { return doc.push(&mut builder, &spaces()).unwrap_err() };
        let document = Document {
            id: &doc.id,
            title: "",
            text: &doc.text,
            payload: &doc.payload,
            content_hash: [0; 16],
            version: 1,
            written_at: 0,
            expires_at: None,
            passages: &doc.passages[..1],
            vectors: &vectors,
        };
        builder.push(&document).unwrap_err()
    };
    let (three, four): (&[f32], &[f32]) = (&[1.0; 3], &[1.0; 4]);
    let long: &[f32] = &[1.0; 17];
    for error in [
        attempt(&|doc| doc.passages[1].end += 1, None),
        attempt(&|doc| doc.passages[1].end = doc.text.find('ß').unwrap() as u32 + 1, None),
        attempt(&|doc| doc.passages[0] = Range { start: 3, end: 2 }, None),
        attempt(&|_| {}, Some(vec![vec![three]])),
        attempt(&|_| {}, Some(vec![vec![three], vec![]])),
        attempt(&|_| {}, Some(vec![vec![four], vec![long]])),
    ] {
        assert!(matches!(&error, SegmentError::Unfit { id, .. } if id == "a"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    let twins = build(&disk, 1, &[doc("a", 1), doc("b", 2), doc("a", 3)], Limits::default()).unwrap_err();
    assert!(matches!(&twins, SegmentError::Duplicate { id } if id == "a"), "{twins}");
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), []);
}

#[test]
fn a_filter_is_left_off_when_it_is_time() {
    let (_, disk) = forgetful(5);
    let docs: Vec<Doc> = (0..3000).map(|n| doc(&format!("doc {n}"), 1 + n)).collect();
    let segment = build(&disk, 1, &docs, Limits::default()).unwrap();
    let stop = Stop::at(Some(std::time::Instant::now()));
    for text in ["lang contains 'x'", "year > 0", "own contains 'all'"] {
        let error = fields(&segment).matching(&Filter::parse(text).unwrap(), &stop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    assert!(matches!(segment.verify(&stop), Err(SegmentError::Stopped(_))));
}
