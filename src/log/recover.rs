//! Opening: the files of the log, read from the first to the last, become entries in order, a report of what is
//! damaged, and the place where the next block goes.
//!
//! What cannot be read at the end of the last file is a torn tail if nothing says that it was ever synced: no header
//! behind it does, and neither does the sequence that the caller has entries up to. It is overwritten with zeros.
//! Everything else that cannot be read is damage. What is behind it is read all the same.
//!
//! What was written and maybe not synced is written once more and synced before anything else is: the process before
//! may have been killed before the sync, or its sync may have failed, and then the page cache shows what the device
//! does not have, and no further sync would bring it there.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Damage, Entry, Identity, LogError, Lost, Seen, Sequence, Suspects,
    append::Active,
    format::{
        BlockHead, EntryRead, FileHead, FileHeadRead, HEAD_BYTES, PAGE, VERSION, encode_block, read_block,
        salt,
    },
    ledger::{Ledger, LogFile},
    scan::{Landmarks, Scan},
};
use crate::files::disk::{Disk, EntryKind};

/// Name of the file that will be the next one. It holds nothing yet.
pub(super) const SPARE: &str = "next";
/// What is said of a file that is not there.
const MISSING: &str = "the file is missing";
/// Sequences left out where nobody can tell how many were given out, so that none is given out twice.
const SKIPPED: u64 = 1 << 32;

/// The name of a file of the log.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.log"))
}

/// What recovery does besides reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For<'a> {
    /// The torn tail is cut, what may be in memory only is made durable, and the log is written on.
    Writing,
    /// Nothing: the folder is only looked at, as if it were without these files.
    Looking(&'a [PathBuf]),
}

/// What recovery leaves.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) damages: Vec<Damage>,
    /// Where a torn tail was, or is, and how many bytes of it.
    pub(super) torn: Option<(PathBuf, u64, u64)>,
    pub(super) ledger: Ledger,
    /// Where the next block goes; `None` if it needs a new file.
    pub(super) active: Option<Active>,
    pub(super) next_number: u64,
    pub(super) next: Sequence,
}

/// Reads the log in `dir` and gives the entries of `from` and later to `emit`.
pub(super) fn recover(
    purpose: For<'_>,
    disk: &Arc<dyn Disk>,
    dir: &Path,
    identity: &Identity,
    from: Sequence,
    emit: &mut dyn FnMut(Seen<'_>),
) -> Result<Recovered, LogError> {
    let from = from.max(Sequence::FIRST);
    let numbers = numbers(purpose, disk.as_ref(), dir)?;
    let mut recovery = Recovery {
        purpose,
        dir,
        identity,
        from,
        emit,
        expected: None,
        stopped: None,
        link: None,
        synced: Sequence::default(),
        ledger: Ledger::default(),
        holes: Vec::new(),
        damages: Vec::new(),
        torn: None,
        block: Vec::new(),
    };
    let mut active = None;
    for (n, number) in numbers.iter().copied().enumerate() {
        let is_last = n + 1 == numbers.len();
        if let Some(before) = n.checked_sub(1).map(|n| numbers[n])
            && before + 1 < number
        {
            recovery.stopped = None;
            recovery.unknown(path_of(dir, before + 1), 0, MISSING);
        }
        active = recovery.file(disk.as_ref(), number, is_last)?;
    }
    let mut next = recovery.expected.unwrap_or(from);
    if numbers.is_empty() && from > Sequence::FIRST {
        // From the first one that is needed: what is written next must not say that nothing was there.
        recovery.holes.push(Hole::open(path_of(dir, 1), 0, "the log has no files", from));
    }
    if let Some(hole) = recovery.holes.last()
        && hole.end.is_none()
    {
        next = Sequence(next.max(from).0.saturating_add(SKIPPED));
        active = None;
        recovery.ledger.forget_chains(hole.start);
    }
    if purpose == For::Writing {
        // Names are durable before anything that is written under them counts.
        disk.sync_dir(dir).map_err(LogError::at(dir))?;
    }
    let damages = recovery.report();
    Ok(Recovered {
        damages,
        torn: recovery.torn,
        ledger: recovery.ledger,
        active,
        next_number: numbers.last().map_or(1, |last| last + 1),
        next: next.max(from),
    })
}

/// The numbers of the files in the folder. For writing it is made if it is not there, and what was not finished goes.
fn numbers(purpose: For<'_>, disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, LogError> {
    let listed = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && purpose != For::Writing => Vec::new(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            disk.create_dir(dir).map_err(LogError::at(dir))?;
            let parent = dir.parent().unwrap_or(Path::new("."));
            disk.sync_dir(parent).map_err(LogError::at(parent))?;
            Vec::new()
        }
        listed => listed.map_err(LogError::at(dir))?,
    };
    let mut numbers = Vec::new();
    for entry in listed {
        let name = entry.name.to_string_lossy();
        if name == SPARE && entry.kind == EntryKind::File && purpose == For::Writing {
            let path = dir.join(SPARE);
            disk.remove(&path).map_err(LogError::at(&path))?;
        }
        if let Some(digits) = name.strip_suffix(".log")
            && digits.len() == 10
            && digits.bytes().all(|digit| digit.is_ascii_digit())
            && let Ok(number) = digits.parse()
        {
            let is_left_out = match purpose {
                For::Writing => false,
                For::Looking(without) => without.contains(&path_of(dir, number)),
            };
            if !is_left_out {
                numbers.push(number);
            }
        }
    }
    Ok(numbers)
}

/// See [`super::Log::identify`].
pub(super) fn identify(disk: &dyn Disk, dir: &Path) -> Result<Option<(Identity, Sequence)>, LogError> {
    for number in numbers(For::Looking(&[]), disk, dir)? {
        let path = path_of(dir, number);
        let file = disk.read_only(&path).map_err(LogError::at(&path))?;
        let mut bytes = [0; HEAD_BYTES];
        if file.read_at(0, &mut bytes).map_err(LogError::at(&path))? == HEAD_BYTES
            && let FileHeadRead::Good(head) = FileHead::read(&bytes, &Identity::default())
            && head.number == number
        {
            return Ok(Some((head.identity, head.first)));
        }
    }
    Ok(None)
}

/// A stretch of sequences of which nobody can tell whose entries they were.
#[derive(Debug)]
struct Hole {
    file: PathBuf,
    offset: u64,
    reason: String,
    start: Sequence,
    /// The first sequence behind it; `None` if nothing is known behind it.
    end: Option<Sequence>,
    /// Collections of which the first entry behind it was seen.
    seen: HashSet<u64>,
    /// Those whose first entry behind it follows one before it.
    whole: BTreeSet<u64>,
}

impl Hole {
    fn open(file: PathBuf, offset: u64, reason: &str, start: Sequence) -> Self {
        Hole {
            file,
            offset,
            reason: reason.to_owned(),
            start,
            end: None,
            seen: HashSet::new(),
            whole: BTreeSet::new(),
        }
    }
}

/// A block that was taken, and may have to be written once more.
#[derive(Debug)]
struct Taken {
    at: u64,
    head: BlockHead,
    is_scarred: bool,
}

struct Recovery<'a> {
    purpose: For<'a>,
    dir: &'a Path,
    identity: &'a Identity,
    from: Sequence,
    emit: &'a mut dyn FnMut(Seen<'_>),
    /// Of the next entry; `None` before the first file.
    expected: Option<Sequence>,
    /// Where the reading of the file before stopped; `None` if there is none.
    stopped: Option<(PathBuf, u64)>,
    /// What the next header has as the sum before it; `None` where that is not known.
    link: Option<u32>,
    /// The last sequence that something says was synced.
    synced: Sequence,
    ledger: Ledger,
    holes: Vec<Hole>,
    damages: Vec<Damage>,
    torn: Option<(PathBuf, u64, u64)>,
    block: Vec<u8>,
}

/// How the reading of a file ended.
struct End {
    /// Where no block is any more.
    at: u64,
    /// A mark says that the file has no more blocks.
    is_closed: bool,
    /// A mark at `at` says that the log ended there.
    is_marked: bool,
    taken: Vec<Taken>,
    landmarks: Option<Landmarks>,
}

impl Recovery<'_> {
    fn expected(&self) -> Sequence {
        self.expected.unwrap_or(Sequence::FIRST)
    }

    /// Nothing is known from here on, up to the next entry that is found.
    fn unknown(&mut self, file: PathBuf, offset: u64, reason: &str) {
        self.link = None;
        // The hole before goes on.
        if self.holes.last().is_none_or(|hole| hole.end.is_some()) {
            self.holes.push(Hole::open(file, offset, reason, self.expected()));
        }
    }

    /// A file begins with `next`.
    fn found_file(&mut self, next: Sequence, number: u64) {
        match self.stopped.take() {
            Some((path, offset)) => self.found(next, &path, offset, "its last blocks are missing"),
            None => self.found(next, &path_of(self.dir, number.saturating_sub(1)), 0, MISSING),
        }
    }

    /// The next entry is `next`: what was not known before ends here, or there is a gap.
    fn found(&mut self, next: Sequence, file: &Path, offset: u64, reason: &str) {
        let expected = self.expected.unwrap_or_else(|| next.min(self.from));
        if expected < next && self.holes.last().is_none_or(|hole| hole.end.is_some()) {
            self.expected = Some(expected);
            self.unknown(file.to_owned(), offset, reason);
        }
        self.expected = Some(next.max(expected));
        if let Some(hole) = self.holes.last_mut()
            && hole.end.is_none()
        {
            hole.end = Some(next.max(hole.start));
            let start = hole.start;
            if hole.end > Some(start) {
                self.ledger.forget_chains(start);
            }
        }
    }

    fn damage(&mut self, file: &Path, offset: u64, reason: impl Into<String>, lost: BTreeSet<u64>) {
        let reason = reason.into();
        let suspects = Suspects::These(lost);
        let last = self.expected.map(Sequence::before);
        self.damages.push(Damage { file: file.to_owned(), offset, reason, suspects, last });
    }

    /// Reads a file; returns where to go on writing in it, if it is the last and nothing is wrong with it.
    fn file(&mut self, disk: &dyn Disk, number: u64, is_last: bool) -> Result<Option<Active>, LogError> {
        let path = path_of(self.dir, number);
        let is_written = is_last && self.purpose == For::Writing;
        let file = if is_written { disk.open(&path) } else { disk.read_only(&path) };
        let file = file.map_err(LogError::at(&path))?;
        let len = file.len().map_err(LogError::at(&path))?;
        let scan = Scan { path, file, len, salt: salt(self.identity, number) };
        let head = self.file_head(&scan, number)?;
        let troubles = (self.holes.len(), self.damages.len());
        if let Some(head) = &head {
            self.found_file(head.first, number);
        } else if scan.len < PAGE {
            self.unknown(scan.path.clone(), scan.len, "the file is shorter than its header");
        } else {
            // A block that was not the first of the file would have a header that is not there.
            let first = match scan.head(PAGE)? {
                Some(first) => Some(first),
                None => scan.landmarks(PAGE)?.heads.first_key_value().map(|(_, first)| *first),
            };
            if let Some(first) = first {
                self.found_file(first.first, number);
            }
            self.damage(&scan.path, 0, "the header of the file is damaged", BTreeSet::new());
        }
        self.link = head.as_ref().map(FileHead::link);
        self.ledger.files.push(LogFile {
            number,
            path: scan.path.clone(),
            first: self.expected(),
            bytes: scan.len,
            spans: BTreeMap::new(),
        });
        let is_cut = scan.len < head.as_ref().map_or(PAGE, |head| head.len);
        let end = self.blocks(&scan, is_last, is_cut)?;
        self.stopped = Some((scan.path.clone(), end.at));
        if is_last {
            self.end_of_log(&scan, &end, is_cut);
            self.make_durable(&scan, &end)?;
        } else if is_cut {
            let reason = "the file is shorter than it was made";
            if self.holes.last().is_none_or(|hole| hole.end.is_some()) {
                self.damage(&scan.path, scan.len, reason, BTreeSet::new());
            }
        }
        for scar in end.taken.iter().filter(|taken| taken.is_scarred) {
            if !is_last || scar.head.next() <= self.synced.next() {
                let reason = "one of two copies of a header or a table is damaged; nothing is lost";
                self.damage(&scan.path, scar.at, reason, BTreeSet::new());
            }
        }
        let is_whole = troubles == (self.holes.len(), self.damages.len());
        Ok((is_last && is_whole && !end.is_closed).then(|| Active {
            file: scan.file,
            path: scan.path,
            at: end.at,
            len: head.map_or(scan.len, |head| head.len),
            link: self.link.expect("it is known where nothing is wrong"),
            salt: scan.salt,
        }))
    }

    /// The header of a file; `None` if it is damaged.
    fn file_head(&self, scan: &Scan, number: u64) -> Result<Option<FileHead>, LogError> {
        let mut bytes = [0; HEAD_BYTES];
        let read = scan.file.read_at(0, &mut bytes).map_err(LogError::at(&scan.path))?;
        let path = scan.path.clone();
        match FileHead::read(&bytes, self.identity) {
            FileHeadRead::Newer(got) => Err(LogError::NewerFormat { path, got, supported: VERSION }),
            FileHeadRead::Good(head) if head.identity != *self.identity => {
                Err(LogError::OtherFolder { path })
            }
            FileHeadRead::Good(head) if head.number != number => {
                Err(LogError::NotOurs { path, reason: "it has the name of another file of the log" })
            }
            FileHeadRead::Good(head) => Ok(Some(head)),
            FileHeadRead::Damaged { is_ours } => {
                let is_ours = is_ours || read < HEAD_BYTES || !scan.landmarks(PAGE)?.heads.is_empty();
                let reason = "it does not begin as one does";
                if is_ours { Ok(None) } else { Err(LogError::NotOurs { path, reason }) }
            }
        }
    }

    /// Reads the blocks of a file, as far as there are any.
    fn blocks(&mut self, scan: &Scan, is_last: bool, is_cut: bool) -> Result<End, LogError> {
        let mut end =
            End { at: PAGE, is_closed: false, is_marked: false, taken: Vec::new(), landmarks: None };
        loop {
            let head = match (scan.head(end.at)?, &end.landmarks) {
                (Some(head), _) => Some(head),
                (None, Some(landmarks)) => landmarks.heads.get(&end.at).copied(),
                (None, None) => None,
            };
            let head = head.filter(|head| {
                scan.has(end.at, head)
                    && head.first == self.expected()
                    && self.link.is_none_or(|link| link == head.previous)
            });
            match head {
                Some(head) if head.count > 0 => {
                    scan.read(end.at, &head, &mut self.block)?;
                    let read = read_block(&head, &self.block);
                    if !read.is_whole() && is_last && !is_cut && self.is_torn(scan, &mut end)? {
                        return Ok(end);
                    }
                    self.synced = self.synced.max(head.synced);
                    self.link = Some(head.link());
                    if read.is_whole() {
                        let is_scarred = read.is_scarred;
                        end.taken.push(Taken { at: end.at, head, is_scarred });
                    }
                    self.take(scan, end.at, &head, read.entries);
                    end.at += u64::from(head.len);
                    continue;
                }
                Some(mark) => {
                    self.synced = self.synced.max(mark.synced);
                    if mark.is_end {
                        end.is_closed = true;
                        return Ok(end);
                    }
                    end.is_marked = true;
                }
                None => end.is_marked = false,
            }
            // No block is here. A header at the end of the block may still tell what was.
            if end.landmarks.is_none() {
                end.landmarks = Some(scan.landmarks(end.at)?);
                if head.is_none() {
                    continue;
                }
            }
            let behind = self.behind(scan, &end);
            let Some((at, head)) = behind else { return Ok(end) };
            if is_last && !is_cut && self.is_torn(scan, &mut end)? {
                return Ok(end);
            }
            self.unknown(scan.path.clone(), end.at, "what is there is no block of the log");
            self.found(head.first, &scan.path, end.at, "");
            self.link = None;
            end.is_marked = false;
            end.at = at;
        }
    }

    /// The first block behind `end` that may go on with the log.
    fn behind(&self, scan: &Scan, end: &End) -> Option<(u64, BlockHead)> {
        let heads = &end.landmarks.as_ref()?.heads;
        let mut behind = heads.range(end.at + 1..);
        behind
            .find(|(at, head)| head.first >= self.expected() && scan.has(**at, head))
            .map(|(at, head)| (*at, *head))
    }

    /// Whether nothing says that what is at `end` and behind was ever synced.
    fn is_torn(&self, scan: &Scan, end: &mut End) -> Result<bool, LogError> {
        if end.landmarks.is_none() {
            end.landmarks = Some(scan.landmarks(end.at)?);
        }
        let heads = end.landmarks.iter().flat_map(|landmarks| landmarks.heads.range(end.at + 1..));
        let synced = heads.map(|(_, head)| head.synced).max().unwrap_or_default();
        Ok(synced.max(self.synced) < self.expected() && self.from <= self.expected())
    }

    /// Gives out the entries of a block, and reports those that are lost.
    fn take(&mut self, scan: &Scan, at: u64, head: &BlockHead, entries: Option<Vec<EntryRead>>) {
        let Some(entries) = entries else {
            self.unknown(scan.path.clone(), at, "both tables of the block are damaged");
            self.link = Some(head.link());
            self.found(head.next(), &scan.path, at, "");
            return;
        };
        let (mut lost, mut lost_at) = (BTreeSet::new(), None);
        for (sequence, entry) in (head.first.0..).map(Sequence).zip(entries) {
            let row = entry.row;
            for hole in &mut self.holes {
                let is_behind = hole.end.is_some_and(|end| end <= sequence);
                if is_behind && hole.seen.insert(row.collection) && row.before < hole.start.max(self.from) {
                    hole.whole.insert(row.collection);
                }
            }
            self.ledger.note(sequence, &row);
            if !entry.is_good {
                lost_at = lost_at.or(Some(at + entry.payload.start as u64));
                if sequence >= self.from {
                    lost.insert(row.collection);
                    let offset = at + entry.payload.start as u64;
                    let (file, collection) = (scan.path.as_path(), row.collection);
                    (self.emit)(Seen::Lost(Lost { sequence, collection, file, offset }));
                }
            } else if sequence >= self.from {
                let offset = at + entry.payload.start as u64;
                let bytes = &self.block[entry.payload];
                let (file, sum) = (scan.path.as_path(), row.sum);
                let (collection, kind) = (row.collection, row.kind);
                (self.emit)(Seen::Entry(Entry { sequence, collection, kind, bytes, file, offset, sum }));
            }
        }
        self.expected = Some(head.next());
        if let Some(offset) = lost_at {
            self.damage(&scan.path, offset, "an entry does not match its sum", lost);
        }
    }

    /// Decides whether what is missing at the end of the last file was ever there.
    fn end_of_log(&mut self, scan: &Scan, end: &End, is_cut: bool) {
        let is_proven = end.is_closed || end.is_marked;
        if end.is_closed {
            // It was there before the end of this one was marked.
            let next = self.ledger.files.last().map_or(1, |file| file.number + 1);
            self.unknown(path_of(self.dir, next), 0, MISSING);
        } else if self.expected() < self.from {
            let reason = "the log ends before what other files have of it";
            self.unknown(scan.path.clone(), end.at, reason);
        } else if is_cut && !is_proven {
            self.unknown(scan.path.clone(), scan.len, "the file is shorter than it was made");
        } else if is_cut {
            let reason = "the file is shorter than it was made; nothing is lost";
            self.damage(&scan.path, scan.len, reason, BTreeSet::new());
        }
    }

    /// Removes the torn tail, and makes sure of what may be in memory only.
    fn make_durable(&mut self, scan: &Scan, end: &End) -> Result<(), LogError> {
        // A mark that stays is no tail.
        let tail = if end.is_marked { end.at + PAGE } else { end.at };
        let torn = end.landmarks.as_ref().map_or(0, |landmarks| landmarks.filled.saturating_sub(tail));
        // Behind damage of which nobody can tell where it ends, what is there may be of writes that were answered. The log
        // goes on in another file then, and this one stays as it is.
        let is_damage = self.holes.last().is_some_and(|hole| hole.end.is_none());
        let torn = if is_damage { 0 } else { torn };
        self.torn = (torn > 0).then(|| (scan.path.clone(), tail, torn));
        if self.purpose != For::Writing {
            return Ok(());
        }
        let again: Vec<&Taken> =
            end.taken.iter().filter(|taken| taken.head.next() > self.synced.next()).collect();
        if torn == 0 && again.is_empty() {
            return Ok(());
        }
        let failed = || LogError::at(&scan.path);
        let mut bytes = Vec::new();
        for taken in again {
            scan.read(taken.at, &taken.head, &mut self.block)?;
            if taken.is_scarred {
                self.heal(&taken.head, &mut bytes);
                scan.file.write_at(taken.at, &bytes).map_err(failed())?;
            } else {
                scan.file.write_at(taken.at, &self.block).map_err(failed())?;
            }
        }
        if torn > 0 {
            tracing::info!(path = %scan.path.display(), offset = tail, bytes = torn, "log: torn tail removed");
            bytes.clear();
            bytes.resize(torn.min(1 << 20) as usize, 0);
            let mut at = tail;
            while at < tail + torn {
                let n = (tail + torn - at).min(bytes.len() as u64);
                scan.file.write_at(at, &bytes[..n as usize]).map_err(failed())?;
                at += n;
            }
        }
        scan.file.sync_data().map_err(failed())
    }

    /// The block that is read, as it was written, into `into`.
    fn heal(&self, head: &BlockHead, into: &mut Vec<u8>) {
        let entries = read_block(head, &self.block).entries.expect("it was found whole");
        let entries: Vec<_> =
            entries.into_iter().map(|entry| (entry.row, &self.block[entry.payload])).collect();
        encode_block(*head, &entries, into);
    }

    /// What is known at the end about everything that was found.
    fn report(&mut self) -> Vec<Damage> {
        let mut damages = std::mem::take(&mut self.damages);
        for hole in self.holes.drain(..) {
            let reason = match hole.end {
                // A cut removed them, and may not have come to the files before.
                Some(end) if end <= self.from && hole.reason == MISSING => continue,
                Some(end) if end == hole.start => format!("{}; no entry is missing", hole.reason),
                // So many are left out where nobody can tell how many there were.
                Some(end) if end.0 - hole.start.0 >= SKIPPED => {
                    format!(
                        "{}; how many entries from {} on are lost, nobody can tell",
                        hole.reason, hole.start.0
                    )
                }
                Some(end) => format!("{}; entries {} to {} are lost", hole.reason, hole.start.0, end.0 - 1),
                None => format!("{}; entries from {} on may be lost", hole.reason, hole.start.0),
            };
            let is_needed = hole.end.is_none_or(|end| end > self.from.max(hole.start));
            let suspects =
                if is_needed { Suspects::AllBut(hole.whole) } else { Suspects::These(BTreeSet::new()) };
            let last = hole.end.map(Sequence::before);
            damages.push(Damage { file: hole.file, offset: hole.offset, reason, suspects, last });
        }
        damages.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        damages
    }
}
