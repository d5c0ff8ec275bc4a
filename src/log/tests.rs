//! Tests of the whole log: on a disk that forgets, on one that is damaged, and with many threads.

use std::{path::Path, sync::Arc};

use super::*;
use crate::files::forgetful::ForgetfulDisk;

mod commit;
mod crash;
mod damage;
mod speed;

const IDENTITY: Identity = [7; 16];
/// Bytes of a small file: so many pages.
const FILE_BYTES: u64 = 8 * format::PAGE;

fn dir() -> &'static Path {
    Path::new("/log")
}

fn options() -> LogOptions {
    LogOptions { file_bytes: FILE_BYTES, reserve_bytes: 2 * format::PAGE, ..LogOptions::default() }
}

/// An entry that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    sequence: u64,
    collection: u64,
    kind: u8,
    bytes: Vec<u8>,
}

fn try_open_with(
    disk: &ForgetfulDisk,
    options: LogOptions,
    from: u64,
) -> Result<(Opened, Vec<Read>), LogError> {
    let mut read = Vec::new();
    let mut emit = |entry: Entry<'_>| {
        // It is where it says that it is.
        if let Ok(file) = disk.read_only(entry.file) {
            let mut again = vec![0; entry.bytes.len()];
            file.read_exact_at(entry.offset, &mut again).unwrap();
            assert_eq!((again.as_slice(), entry.sum), (entry.bytes, crc32c::crc32c(entry.bytes)));
        }
        read.push(Read {
            sequence: entry.sequence.0,
            collection: entry.collection,
            kind: entry.kind,
            bytes: entry.bytes.to_vec(),
        });
    };
    let opened = Log::open(Arc::new(disk.clone()), dir(), IDENTITY, options, Sequence(from), &mut emit)?;
    Ok((opened, read))
}

fn try_open(disk: &ForgetfulDisk, from: u64) -> Result<(Opened, Vec<Read>), LogError> {
    try_open_with(disk, options(), from)
}

fn open(disk: &ForgetfulDisk) -> (Opened, Vec<Read>) {
    try_open(disk, 1).unwrap()
}

/// What became of a ticket.
type Told = Arc<Mutex<Vec<Result<Sequence, LogError>>>>;

fn told() -> (Told, impl FnOnce(Result<Sequence, LogError>) + Send + 'static) {
    let told = Told::default();
    let teller = Arc::clone(&told);
    (told, move |done| lock(&teller).push(done))
}

/// Hands in a ticket, gives the committer a turn, and returns what became of it.
fn write(
    opened: &mut Opened,
    collection: u64,
    bytes: &[u8],
    durability: Durability,
) -> Result<Sequence, LogError> {
    let (told, done) = told();
    opened.log.submit(Ticket::new(collection, 1, bytes.to_vec(), durability, done))?;
    opened.committer.turn();
    let mut told = lock(&told);
    assert_eq!(told.len(), 1, "a ticket is answered once");
    told.pop().unwrap()
}

/// Ends a log as a process does that ends in order.
fn close(mut opened: Opened) {
    opened.log.leave();
    while opened.committer.turn() != crate::threads::crew::Next::Leave {}
}

#[test]
fn what_is_written_is_read_in_order_from_where_it_is_wanted() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, read) = open(&disk);
    assert!(read.is_empty() && opened.next == Sequence::FIRST && opened.damages.is_empty());
    for n in 0..40u64 {
        let bytes = vec![n as u8; (n * 131 % 3000) as usize];
        let durability = if n % 3 == 0 { Durability::Process } else { Durability::Power };
        assert_eq!(write(&mut opened, n % 4, &bytes, durability).unwrap(), Sequence(n + 1));
    }
    let sizes = opened.log.sizes();
    assert!(sizes.files.len() > 3 && sizes.oldest(3) == Some(Sequence(4)), "{sizes:?}");
    close(opened);
    for from in [1, 2, 17, 40, 41] {
        let (opened, read) = try_open(&disk, from).unwrap();
        assert!(opened.damages.is_empty() && opened.next == Sequence(41), "{:?}", opened.damages);
        assert_eq!(read.len() as u64, 41 - from);
        for (entry, n) in read.iter().zip(from - 1..) {
            assert_eq!((entry.sequence, entry.collection, entry.kind), (n + 1, n % 4, 1));
            assert_eq!(entry.bytes, vec![n as u8; (n * 131 % 3000) as usize]);
        }
        assert_eq!(opened.log.sizes(), sizes, "what is read again is what was known");
        close(opened);
    }
}

#[test]
fn a_log_that_is_closed_goes_on_in_the_same_file() {
    let disk = ForgetfulDisk::new(1);
    for n in 1..=5 {
        let (mut opened, read) = open(&disk);
        assert_eq!(read.len(), n - 1);
        write(&mut opened, 1, b"a", Durability::Power).unwrap();
        assert_eq!(opened.log.sizes().files.len(), 1);
        close(opened);
    }
    assert_eq!(disk.list(dir()).unwrap().len(), 1, "no unfinished file is left");
}

#[test]
fn files_go_when_everything_in_them_is_kept_elsewhere() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    for _ in 0..20 {
        write(&mut opened, 1, &[1; 3000], Durability::Power).unwrap();
    }
    let files = opened.log.sizes().files;
    let end = files[1].end.unwrap();
    assert_eq!(opened.log.cut(Sequence::FIRST).unwrap(), 0);
    assert_eq!(opened.log.cut(end.before()).unwrap(), 1);
    assert_eq!(opened.log.cut(end).unwrap(), 1);
    assert_eq!(opened.log.cut(Sequence(1000)).unwrap(), files.len() - 3, "the last file stays");
    close(opened);
    let (opened, read) = try_open(&disk, 20).unwrap();
    assert!(opened.damages.is_empty() && read.len() == 1);
    close(opened);
    let (opened, _) = try_open(&disk, 5).unwrap();
    assert_eq!(opened.damages.len(), 1, "too much was cut: {:?}", opened.damages);
    assert!(opened.damages[0].reason.contains("entries 5 to "), "{:?}", opened.damages);
}

#[test]
fn a_ticket_larger_than_a_file_has_one_of_its_own() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    let large = vec![5; 3 * FILE_BYTES as usize];
    for bytes in [b"a".as_slice(), &large, b"b", &large, &large, b"c"] {
        write(&mut opened, 1, bytes, Durability::Power).unwrap();
    }
    let max = LogOptions::default().queue_bytes;
    let (_, done) = told();
    let refused = opened.log.submit(Ticket::new(1, 1, vec![0; max + 1], Durability::Power, done));
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
    close(opened);
    let (opened, read) = open(&disk);
    assert!(opened.damages.is_empty());
    assert_eq!(
        read.iter().map(|read| read.bytes.len()).collect::<Vec<_>>(),
        [1, large.len(), 1, large.len(), large.len(), 1]
    );
}

#[test]
fn what_is_not_of_this_log_is_refused_by_name_and_left_alone() {
    let path = path(1);
    let refused = |change: &dyn Fn(&ForgetfulDisk)| {
        let disk = ForgetfulDisk::new(1);
        let (mut opened, _) = open(&disk);
        write(&mut opened, 1, b"a", Durability::Power).unwrap();
        close(opened);
        change(&disk);
        let before = disk.read_only(&path).unwrap().map().unwrap().to_vec();
        let error = try_open(&disk, 1).unwrap_err();
        assert_eq!(*disk.read_only(&path).unwrap().map().unwrap(), before);
        assert!(error.to_string().contains("/log/000000000"), "{error}");
        error
    };
    let head = |disk: &ForgetfulDisk, head: format::FileHead| {
        disk.open(&path).unwrap().write_at(0, &head.encode()).unwrap();
    };
    let good = format::FileHead { number: 1, identity: IDENTITY, first: Sequence(1), len: FILE_BYTES };
    let error = refused(&|disk| head(disk, format::FileHead { identity: [8; 16], ..good.clone() }));
    assert!(matches!(error, LogError::OtherFolder { .. }), "{error}");
    let error = refused(&|disk| head(disk, format::FileHead { number: 2, ..good.clone() }));
    assert!(matches!(error, LogError::NotOurs { .. }), "{error}");
    let error = refused(&|disk| {
        let mut bytes = good.encode();
        bytes[8] = 2;
        let sum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        disk.open(&path).unwrap().write_at(0, &bytes).unwrap();
    });
    assert!(matches!(error, LogError::NewerFormat { got: 2, supported: 1, .. }), "{error}");
    let error = refused(&|disk| {
        let letter = b"Dear all, ".repeat(1000);
        disk.remove(&path).unwrap();
        disk.create(&path).unwrap().write_at(0, &letter).unwrap();
    });
    assert!(matches!(error, LogError::NotOurs { .. }), "{error}");
}

fn path(number: u64) -> std::path::PathBuf {
    recover::path_of(dir(), number)
}
