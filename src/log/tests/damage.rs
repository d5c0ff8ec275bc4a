//! Flipped bytes, cut and missing files: right answers, torn tails, or damage that is named.

use std::collections::BTreeSet;

use super::*;
use crate::{files::disk::DiskFile, log::format::PAGE};

/// A log of a few files, with blocks of one and of several entries, ended in order.
struct Sample {
    disk: ForgetfulDisk,
    entries: Vec<Read>,
    /// Where the files have something besides zeros: file and page.
    pages: Vec<(u64, u64)>,
    files: u64,
}

fn sample() -> Sample {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    let mut id = 0u8;
    for count in [1, 3, 2, 1, 4, 1, 1, 2, 1] {
        for _ in 0..count {
            id += 1;
            let (_, done) = told();
            let bytes = vec![id; 1 + usize::from(id) % 23];
            let ticket = Ticket::new(u64::from(id) % 3, id, bytes, Durability::Power, done);
            opened.log.submit(ticket).unwrap();
        }
        opened.committer.turn();
    }
    close(opened);
    let (opened, entries) = open(&disk);
    assert!(opened.damages.is_empty() && entries.len() == usize::from(id));
    let files = opened.log.sizes().files.len() as u64;
    close(opened);
    assert_eq!(files, 2);
    let mut pages = Vec::new();
    for number in 1..=files {
        let bytes = bytes(&disk, number);
        let filled = |page: &(usize, &[u8])| page.1.iter().any(|byte| *byte != 0);
        let of_file = bytes.chunks(PAGE as usize).enumerate().filter(filled);
        pages.extend(of_file.map(|(page, _)| (number, page as u64 * PAGE)));
    }
    Sample { disk: disk.crash(1), entries, pages, files }
}

fn file(disk: &ForgetfulDisk, number: u64) -> Arc<dyn DiskFile> {
    disk.open(&path(number)).unwrap()
}

fn bytes(disk: &ForgetfulDisk, number: u64) -> Vec<u8> {
    file(disk, number).map().unwrap().to_vec()
}

impl Sample {
    /// Opens a copy that was changed, checks that nothing is wrong or silently lost, and returns what is lost and what
    /// is reported.
    fn changed(&self, change: impl FnOnce(&ForgetfulDisk)) -> (Vec<Read>, Vec<Damage>) {
        let (disk, lost, damages) = self.opened(change);
        // It stays so, whatever is written now and however often the log is opened.
        for _ in 0..2 {
            let (mut opened, read) = open(&disk);
            let again: Vec<Read> =
                self.entries.iter().filter(|entry| !read.contains(entry)).cloned().collect();
            assert_eq!(again, lost);
            check(&lost, &opened.damages);
            write(&mut opened, 1, b"new", Durability::Power).unwrap();
            close(opened);
            let (opened, read) = open(&disk);
            assert_eq!(read.last().unwrap().bytes, b"new");
            check(&lost, &opened.damages);
        }
        (lost, damages)
    }

    fn opened(&self, change: impl FnOnce(&ForgetfulDisk)) -> (ForgetfulDisk, Vec<Read>, Vec<Damage>) {
        let disk = self.disk.copy();
        change(&disk);
        let (opened, read) = open(&disk);
        let mut left = self.entries.iter();
        for read in &read {
            assert!(left.any(|entry| entry == read), "invented or out of order: {read:?}");
        }
        let lost: Vec<Read> = self.entries.iter().filter(|entry| !read.contains(entry)).cloned().collect();
        check(&lost, &opened.damages);
        let damages = opened.damages.clone();
        close(opened);
        (disk, lost, damages)
    }
}

/// Whatever is lost is suspected, with a place and a reason.
fn check(lost: &[Read], damages: &[Damage]) {
    for entry in lost {
        let suspected = damages.iter().any(|damage| damage.suspects.contains(entry.collection));
        assert!(suspected, "silently lost: {entry:?}; {damages:?}");
    }
    for damage in damages {
        assert!(damage.file.starts_with(dir()) && !damage.reason.is_empty());
    }
}

/// The offsets of a page that a reader looks at, and a few of the others.
fn looked_at(page: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let is_far = |at: usize| {
        let near = &page[at.saturating_sub(40)..(at + 40).min(page.len())];
        near.iter().all(|byte| *byte == 0)
    };
    (0..page.len()).filter(move |at| !is_far(*at) || at % 509 == 0)
}

#[test]
fn any_flipped_byte_is_made_good_or_named_with_exactly_those_it_hit() {
    let sample = sample();
    let last = *sample.pages.last().unwrap();
    let mut named = 0;
    for (number, page) in sample.pages.iter().copied() {
        let content = bytes(&sample.disk, number);
        let content = &content[page as usize..(page + PAGE) as usize];
        for at in looked_at(content) {
            let flip = |disk: &ForgetfulDisk| {
                let with = [0x01, 0x80, 0xff][at % 3];
                file(disk, number).write_at(page + at as u64, &[content[at] ^ with]).unwrap();
            };
            let (_, lost, damages) = sample.opened(flip);
            let collections: BTreeSet<u64> = lost.iter().map(|entry| entry.collection).collect();
            assert!(lost.len() <= 1, "{number} {page} {at}: {lost:?}");
            for damage in &damages {
                assert_eq!(damage.file, path(number));
                assert!((damage.offset..damage.offset + PAGE).contains(&(page + at as u64)), "{damage}");
                assert_eq!(damage.suspects, Suspects::These(collections.clone()), "{number} {page} {at}");
            }
            assert!(lost.is_empty() || damages.len() == 1);
            let reaches = |entry: &Read| damages[0].last.is_none_or(|last| last.0 >= entry.sequence);
            assert!(lost.iter().all(reaches), "{damages:?}");
            named += damages.len();
            // Headers and tables, which are kept twice, are told as well; of the last mark nothing hangs.
            let is_used = content[at] != 0;
            if is_used && (number, page) != last && !(number == 1 && page == content_end(&sample, 1)) {
                assert_eq!(damages.len(), 1, "{number} {page} {at}");
            }
        }
    }
    assert!(named > 1000, "{named}");
}

/// Where the mark of a file stands.
fn content_end(sample: &Sample, number: u64) -> u64 {
    sample.pages.iter().filter(|(n, _)| *n == number).map(|(_, page)| *page).max().unwrap()
}

#[test]
fn damage_stays_until_it_is_cut_away_and_the_log_goes_on() {
    let sample = sample();
    for (number, page) in sample.pages.iter().copied() {
        for at in [0, 20, 64, 80, 100, 130, PAGE - 100, PAGE - 1] {
            sample.changed(|disk| {
                let file = file(disk, number);
                let mut byte = [0];
                file.read_exact_at(page + at, &mut byte).unwrap();
                file.write_at(page + at, &[byte[0] ^ 4]).unwrap();
            });
        }
    }
}

#[test]
fn any_file_cut_anywhere_loses_nothing_in_silence() {
    let sample = sample();
    for number in 1..=sample.files {
        let whole = bytes(&sample.disk, number);
        for len in 0..whole.len() {
            let is_near = (len as u64 + 2) % PAGE < 5 || len as u64 % PAGE < 400;
            if !is_near && len % 487 > 0 {
                continue;
            }
            let (_, _, damages) = sample.opened(|disk| file(disk, number).set_len(len as u64).unwrap());
            assert!(!damages.is_empty(), "{number} {len}");
            assert!(damages.iter().all(|damage| damage.file == path(number)), "{damages:?}");
        }
        for len in [0, 63, 64, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE + 70, FILE_BYTES - 1] {
            sample.changed(|disk| file(disk, number).set_len(len).unwrap());
        }
    }
}

#[test]
fn what_nobody_can_tell_is_suspected_of_all_that_are_not_proven_whole() {
    let sample = sample();
    // The third block of the first file has two entries: of collections 2 and 0.
    let (lost, damages) = sample.changed(|disk| {
        file(disk, 1).write_at(3 * PAGE, &[0x55; PAGE as usize]).unwrap();
    });
    assert_eq!(lost.iter().map(|entry| entry.collection).collect::<Vec<_>>(), [2, 0]);
    let expected = Damage {
        file: path(1),
        offset: 3 * PAGE,
        reason: "what is there is no block of the log; entries 5 to 6 are lost".to_owned(),
        suspects: Suspects::AllBut([1].into()),
        last: Some(Sequence(6)),
    };
    assert_eq!(damages, [expected]);
    let suspects = &damages[0].suspects;
    assert!(suspects.contains(0) && !suspects.contains(1) && suspects.contains(2) && suspects.contains(77));
    // What is kept elsewhere is not lost.
    let disk = sample.disk.copy();
    file(&disk, 1).write_at(3 * PAGE, &[0x55; PAGE as usize]).unwrap();
    for (from, suspects) in [(6, Suspects::AllBut([1, 2].into())), (7, Suspects::These([].into()))] {
        let (opened, _) = try_open(&disk, from).unwrap();
        assert_eq!(opened.damages[0].suspects, suspects, "{from}");
    }
}

#[test]
fn missing_files_are_holes() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    for n in 0..30 {
        write(&mut opened, n % 2, &[1; 3000], Durability::Power).unwrap();
    }
    close(opened);
    let without = |numbers: &[u64], from: u64| {
        let disk = disk.copy();
        for number in numbers {
            disk.remove(&path(*number)).unwrap();
        }
        let (opened, read) = try_open(&disk, from).unwrap();
        (opened.damages.clone(), read.len(), opened.next)
    };
    let (damages, read, _) = without(&[2], 1);
    assert_eq!((damages.len(), &damages[0].file, read), (1, &path(2), 24), "{damages:?}");
    assert_eq!(damages[0].suspects, Suspects::AllBut([].into()));
    assert!(damages[0].reason.ends_with("entries 7 to 12 are lost"), "{damages:?}");
    let (damages, ..) = without(&[1], 1);
    assert_eq!((damages.len(), &damages[0].file), (1, &path(1)));
    assert!(without(&[1, 3], 19).0.is_empty(), "a cut that was not finished is no damage");
    let (damages, _, next) = without(&[5], 31);
    assert_eq!((damages.len(), next > Sequence(1 << 32)), (1, true), "{damages:?}");
    let (damages, _, next) = without(&[1, 2, 3, 4, 5], 31);
    assert_eq!((damages.len(), next > Sequence(1 << 32)), (1, true), "{damages:?}");
}

/// A file that was cut in the middle of a block: what is left of that block may be of a write that was answered.
#[test]
fn what_is_behind_damage_stays_and_no_number_is_told_that_nobody_knows() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    for n in 0..3 {
        write(&mut opened, n % 2, &[9; 6000], Durability::Power).unwrap();
    }
    close(opened);
    // Of the last block the first page is left.
    let cut = PAGE + 2 * 2 * PAGE + PAGE;
    file(&disk, 1).set_len(cut).unwrap();
    let before = bytes(&disk, 1);
    let looked =
        Log::look(&(Arc::new(disk.clone()) as _), dir(), &IDENTITY, Sequence::FIRST, &[], &mut |_| {});
    let looked = looked.unwrap();
    assert_eq!((looked.torn, looked.damages.len()), (None, 1), "it is damage and no torn tail");
    let (mut opened, read) = open(&disk);
    assert_eq!((opened.damages.len(), read.len()), (1, 2));
    assert!(opened.damages[0].reason.ends_with("entries from 3 on may be lost"), "{:?}", opened.damages);
    assert_eq!(bytes(&disk, 1), before, "nothing is overwritten");
    write(&mut opened, 1, b"behind it", Durability::Power).unwrap();
    close(opened);
    for _ in 0..2 {
        let (opened, read) = open(&disk);
        assert_eq!(read.last().unwrap().bytes, b"behind it");
        // That the file is shorter than it was made is told beside it.
        let [damage, _] = &*opened.damages else { panic!("{:?}", opened.damages) };
        assert!(damage.reason.contains("how many entries from 3 on are lost, nobody can tell"), "{damage:?}");
        assert!(damage.suspects.contains(0) && damage.last.is_some(), "{damage:?}");
        assert_eq!(bytes(&disk, 1), before);
        close(opened);
    }
}

#[test]
fn a_torn_tail_is_removed_and_never_comes_back() {
    let sample = sample();
    // A block that was written behind the last one and not synced: all of it but one sector.
    let disk = sample.disk.copy();
    let (mut opened, _) = open(&disk);
    write(&mut opened, 1, &[9; 3000], Durability::Process).unwrap();
    drop(opened);
    let written = bytes(&disk, sample.files);
    let at = content_end(&sample, sample.files);
    for sector in 0..PAGE / 512 {
        let disk = disk.copy();
        file(&disk, sample.files).write_at(at + sector * 512, &[0; 512]).unwrap();
        let (mut opened, mut read) = open(&disk);
        if sector == 7 {
            // It holds what is kept twice, and nothing else.
            assert_eq!(read.pop().unwrap().bytes, [9; 3000]);
        }
        assert_eq!((opened.damages.clone(), read), (vec![], sample.entries.clone()), "{sector}");
        write(&mut opened, 2, b"short", Durability::Power).unwrap();
        close(opened);
        let after = bytes(&disk, sample.files);
        let kept = after.chunks(512).zip(written.chunks(512)).skip(at as usize / 512);
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        assert!(sector == 7 || kept.clone().all(|(now, then)| now != then || is_zero(then)));
        assert_eq!(open(&disk).1.last().unwrap().bytes, b"short");
    }
}
