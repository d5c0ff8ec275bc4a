//! The bytes of the log, as `FORMAT.md` says: what is written and, checked, what is read. Knows no files.
//!
//! The sum in a block's header covers the sum of its table, which covers the sums of its payloads, and every header has
//! the sum of the header before: a block vouches for all that it holds and for all that went before it in its file.

use super::{Identity, Sequence};
use crate::random::mixed;

/// Bytes that a file's header and a block are multiples of, and begin at multiples of. No device and no page cache
/// writes less at once, so that writing a block never touches what was synced before it.
pub(super) const PAGE: u64 = 4096;
/// Bytes of every header.
pub(super) const HEAD_BYTES: usize = 64;
/// Version of the format that this program writes, and the last that it reads.
pub(super) const VERSION: u16 = 1;
/// Bytes of a row of a table.
pub(super) const ROW_BYTES: usize = 32;

const FILE_MAGIC: [u8; 8] = *b"DFACELOG";
const HEAD_MAGIC: [u8; 8] = *b"DFBLOCK\x01";
const FOOT_MAGIC: [u8; 8] = *b"DFBLOCK\x02";
/// The flag of a mark behind which its file has no blocks.
const IS_END: u8 = 1;

/// What is the number of a file's blocks alone, so that no bytes of another file are taken for them.
pub(super) fn salt(identity: &Identity, number: u64) -> u64 {
    let (low, high) = identity.split_at(8);
    mixed(mixed(u64_at(low, 0), u64_at(high, 0)), number)
}

/// The beginning of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileHead {
    pub(super) number: u64,
    pub(super) identity: Identity,
    /// Of the first entry that the file has, or would have.
    pub(super) first: Sequence,
    /// Bytes that the file was made with.
    pub(super) len: u64,
}

/// What the beginning of a file turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileHeadRead {
    Good(FileHead),
    /// Of a version that this program does not know.
    Newer(u16),
    /// Not as it was written. Whether something in it says that it is a file of this log.
    Damaged {
        is_ours: bool,
    },
}

impl FileHead {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&FILE_MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.identity);
        bytes[40..48].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.len.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    /// `identity` is that of the folder.
    pub(super) fn read(bytes: &[u8; HEAD_BYTES], identity: &Identity) -> FileHeadRead {
        let (has_magic, has_identity) = (bytes[..8] == FILE_MAGIC, bytes[24..40] == *identity);
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if !has_magic || !is_sealed(bytes) || version == 0 {
            return FileHeadRead::Damaged { is_ours: has_magic || has_identity };
        }
        if version > VERSION {
            return FileHeadRead::Newer(version);
        }
        FileHeadRead::Good(FileHead {
            number: u64_at(bytes, 16),
            identity: std::array::from_fn(|n| bytes[24 + n]),
            first: Sequence(u64_at(bytes, 40)),
            len: u64_at(bytes, 48),
        })
    }

    /// What the header of the first block has as the sum before it.
    pub(super) fn link(&self) -> u32 {
        u32_at(&self.encode(), HEAD_BYTES - 4)
    }
}

/// The header of a block, which stands at its end once more. A block without entries is a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHead {
    /// Of the whole block.
    pub(super) len: u32,
    pub(super) count: u32,
    /// Of its first entry; of a mark, of the entry that will come next.
    pub(super) first: Sequence,
    pub(super) salt: u64,
    /// The last entry known to be synced when the block was written.
    pub(super) synced: Sequence,
    /// The link of the header before.
    pub(super) previous: u32,
    pub(super) table_sum: u32,
    /// No block follows in this file.
    pub(super) is_end: bool,
}

impl BlockHead {
    fn encode(&self, magic: [u8; 8]) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&magic);
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.previous.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.table_sum.to_le_bytes());
        bytes[48] = if self.is_end { IS_END } else { 0 };
        seal(&mut bytes);
        bytes
    }

    /// A header at the beginning of a block.
    pub(super) fn read_head(bytes: &[u8], salt: u64) -> Option<Self> {
        Self::read(bytes, HEAD_MAGIC, salt)
    }

    /// The header once more, from the end of a block.
    pub(super) fn read_foot(bytes: &[u8], salt: u64) -> Option<Self> {
        Self::read(bytes, FOOT_MAGIC, salt)
    }

    fn read(bytes: &[u8], magic: [u8; 8], salt: u64) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.try_into().ok()?;
        if bytes[..8] != magic || u64_at(bytes, 24) != salt || !is_sealed(bytes) {
            return None;
        }
        let head = BlockHead {
            len: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            first: Sequence(u64_at(bytes, 16)),
            salt,
            synced: Sequence(u64_at(bytes, 32)),
            previous: u32_at(bytes, 40),
            table_sum: u32_at(bytes, 44),
            is_end: bytes[48] & IS_END != 0,
        };
        let is_possible = u64::from(head.len).is_multiple_of(PAGE)
            && block_bytes(head.count as usize, 0) <= u64::from(head.len)
            && head.first.0.checked_add(u64::from(head.count)).is_some();
        is_possible.then_some(head)
    }

    /// What the header of the next block has as the sum before it.
    pub(super) fn link(&self) -> u32 {
        u32_at(&self.encode(HEAD_MAGIC), HEAD_BYTES - 4)
    }

    /// The sequence of the entry after the block.
    pub(super) fn next(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.count))
    }
}

/// A row of a table: an entry without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) collection: u64,
    /// The entry of the same collection before this one; 0 if the log has none.
    pub(super) before: Sequence,
    /// Bytes of the payload.
    pub(super) len: u32,
    pub(super) sum: u32,
    pub(super) kind: u8,
}

impl Row {
    fn encode(&self) -> [u8; ROW_BYTES] {
        let mut bytes = [0; ROW_BYTES];
        bytes[..8].copy_from_slice(&self.collection.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.before.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.sum.to_le_bytes());
        bytes[24] = self.kind;
        bytes
    }

    fn read(bytes: &[u8]) -> Self {
        Row {
            collection: u64_at(bytes, 0),
            before: Sequence(u64_at(bytes, 8)),
            len: u32_at(bytes, 16),
            sum: u32_at(bytes, 20),
            kind: bytes[24],
        }
    }
}

/// Bytes that a payload of `len` takes in a block.
pub(super) fn payload_bytes(len: usize) -> u64 {
    (len as u64).next_multiple_of(8)
}

/// Bytes of a block of `count` entries whose payloads take `payloads` bytes.
pub(super) fn block_bytes(count: usize, payloads: u64) -> u64 {
    (2 * (HEAD_BYTES + count * ROW_BYTES) as u64 + payloads).next_multiple_of(PAGE)
}

/// Writes a block into `into`, which is emptied before. The length, the number of entries and the sum of the table in
/// `head` are filled in; returns what was written as the header.
pub(super) fn encode_block(mut head: BlockHead, entries: &[(Row, &[u8])], into: &mut Vec<u8>) -> BlockHead {
    let payloads: u64 = entries.iter().map(|(_, payload)| payload_bytes(payload.len())).sum();
    let len = block_bytes(entries.len(), payloads);
    head.len = u32::try_from(len).expect("tickets are bounded far below");
    head.count = u32::try_from(entries.len()).expect("tickets of a block are bounded far below");
    into.clear();
    into.reserve(len as usize);
    into.extend_from_slice(&[0; HEAD_BYTES]);
    for (row, _) in entries {
        into.extend_from_slice(&row.encode());
    }
    let table_end = into.len();
    head.table_sum = crc32c::crc32c(&into[HEAD_BYTES..table_end]);
    for (_, payload) in entries {
        into.extend_from_slice(payload);
        into.resize(into.len().next_multiple_of(8), 0);
    }
    into.resize(len as usize - HEAD_BYTES - (table_end - HEAD_BYTES), 0);
    into.extend_from_within(HEAD_BYTES..table_end);
    into.extend_from_slice(&head.encode(FOOT_MAGIC));
    into[..HEAD_BYTES].copy_from_slice(&head.encode(HEAD_MAGIC));
    head
}

/// What the bytes of a block hold, of which the header is known.
#[derive(Debug)]
pub(super) struct BlockRead {
    /// `None` if both tables are damaged.
    pub(super) entries: Option<Vec<EntryRead>>,
    /// Nothing is lost, yet a copy of the header or of the table is not as it was written.
    pub(super) is_scarred: bool,
}

/// An entry of a block.
#[derive(Debug)]
pub(super) struct EntryRead {
    pub(super) row: Row,
    /// Where the payload is in the block.
    pub(super) payload: std::ops::Range<usize>,
    /// Whether the payload is what was written.
    pub(super) is_good: bool,
}

impl BlockRead {
    /// Whether every entry is what was written.
    pub(super) fn is_whole(&self) -> bool {
        self.entries.as_ref().is_some_and(|entries| entries.iter().all(|entry| entry.is_good))
    }
}

/// Reads a block; `bytes` has as many as the header says.
pub(super) fn read_block(head: &BlockHead, bytes: &[u8]) -> BlockRead {
    let table_bytes = head.count as usize * ROW_BYTES;
    let first = &bytes[HEAD_BYTES..HEAD_BYTES + table_bytes];
    let foot_at = bytes.len() - HEAD_BYTES;
    let second = &bytes[foot_at - table_bytes..foot_at];
    let is_good = |table: &&[u8]| crc32c::crc32c(table) == head.table_sum;
    let copies = [first, second].iter().filter(|table| is_good(table)).count();
    let heads = [
        BlockHead::read_head(&bytes[..HEAD_BYTES], head.salt),
        BlockHead::read_foot(&bytes[foot_at..], head.salt),
    ];
    let is_scarred = copies < 2 || heads.iter().any(|read| read.as_ref() != Some(head));
    let table = [first, second].into_iter().find(is_good);
    let entries = table.and_then(|table| entries(table, &bytes[HEAD_BYTES..foot_at - table_bytes]));
    BlockRead { entries, is_scarred }
}

/// The entries of a table, with payloads in `inside`, which begins with the table. `None` if they do not fit.
fn entries(table: &[u8], inside: &[u8]) -> Option<Vec<EntryRead>> {
    let mut at = table.len();
    let mut entries = Vec::with_capacity(table.len() / ROW_BYTES);
    for row in table.chunks_exact(ROW_BYTES).map(Row::read) {
        let end = at.checked_add(row.len as usize)?;
        let is_good = crc32c::crc32c(inside.get(at..end)?) == row.sum;
        entries.push(EntryRead { row, payload: HEAD_BYTES + at..HEAD_BYTES + end, is_good });
        at = end.next_multiple_of(8);
    }
    Some(entries)
}

/// Puts the sum of a header at its end.
fn seal(bytes: &mut [u8; HEAD_BYTES]) {
    let sum = crc32c::crc32c(&bytes[..HEAD_BYTES - 4]);
    bytes[HEAD_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(bytes: &[u8; HEAD_BYTES]) -> bool {
    crc32c::crc32c(&bytes[..HEAD_BYTES - 4]) == u32_at(bytes, HEAD_BYTES - 4)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(first: u64) -> BlockHead {
        BlockHead {
            len: 0,
            count: 0,
            first: Sequence(first),
            salt: 7,
            synced: Sequence(3),
            previous: 11,
            table_sum: 0,
            is_end: false,
        }
    }

    fn rows(entries: &[(u64, u8, Vec<u8>)]) -> Vec<(Row, &[u8])> {
        let row = |(collection, kind, payload): &(u64, u8, Vec<u8>)| Row {
            collection: *collection,
            before: Sequence(collection / 2),
            len: payload.len() as u32,
            sum: crc32c::crc32c(payload),
            kind: *kind,
        };
        entries.iter().map(|entry| (row(entry), &*entry.2)).collect()
    }

    /// The polynomial of RFC 3720, and its test vectors (appendix B.4).
    #[test]
    fn sums_are_those_of_iscsi() {
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    /// Written down once, so that a change of the format does not go unnoticed.
    #[test]
    fn a_file_begins_as_it_is_specified() {
        let head = FileHead { number: 2, identity: [9; 16], first: Sequence(77), len: 1 << 26 };
        let bytes = head.encode();
        assert_eq!(&bytes[..10], b"DFACELOG\x01\0");
        assert_eq!((bytes[16], bytes[24..40] == [9; 16], bytes[40], bytes[51]), (2, true, 77, 4));
        assert_eq!(FileHead::read(&bytes, &[9; 16]), FileHeadRead::Good(head.clone()));
        assert_eq!(u32_at(&bytes, 60), head.link());
        assert_eq!(salt(&[0; 16], 1), mixed(mixed(0, 0), 1));
    }

    #[test]
    fn a_mark_is_a_page_without_entries() {
        let mut bytes = Vec::new();
        let written = encode_block(BlockHead { is_end: true, ..head(5) }, &[], &mut bytes);
        assert_eq!((bytes.len() as u64, written.next()), (PAGE, Sequence(5)));
        let read = BlockHead::read_head(&bytes[..64], 7).unwrap();
        assert!(read == written && read.is_end && read_block(&read, &bytes).is_whole());
    }

    #[test]
    fn any_flipped_byte_of_a_files_header_is_seen() {
        let bytes = FileHead { number: 2, identity: [9; 16], first: Sequence(77), len: 1 << 26 }.encode();
        for at in 0..HEAD_BYTES {
            let mut flipped = bytes;
            flipped[at] ^= 0x10;
            assert_eq!(FileHead::read(&flipped, &[9; 16]), FileHeadRead::Damaged { is_ours: true }, "{at}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        seal(&mut newer);
        assert_eq!(FileHead::read(&newer, &[9; 16]), FileHeadRead::Newer(2));
        assert_eq!(FileHead::read(&[0; 64], &[9; 16]), FileHeadRead::Damaged { is_ours: false });
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            entries in prop::collection::vec(
                (0..5u64, any::<u8>(), prop::collection::vec(any::<u8>(), 0..5000)), 0..9),
            first in 1..u64::MAX / 2,
        ) {
            let mut bytes = vec![1; 99];
            let written = encode_block(head(first), &rows(&entries), &mut bytes);
            prop_assert_eq!(bytes.len(), written.len as usize);
            prop_assert_eq!(bytes.len() as u64 % PAGE, 0);
            prop_assert_eq!(BlockHead::read_head(&bytes[..64], 7), Some(written));
            prop_assert_eq!(BlockHead::read_foot(&bytes[bytes.len() - 64..], 7), Some(written));
            prop_assert_eq!(BlockHead::read_head(&bytes[..64], 8), None);
            let read = read_block(&written, &bytes);
            prop_assert!(read.is_whole() && !read.is_scarred);
            let read = read.entries.unwrap();
            prop_assert_eq!(read.len(), entries.len());
            for (read, (row, payload)) in read.iter().zip(rows(&entries)) {
                prop_assert_eq!(read.row, row);
                prop_assert_eq!(&bytes[read.payload.clone()], payload);
                prop_assert_eq!(read.payload.start % 8, 0);
            }
        }

        /// Whatever one byte becomes: every entry is as it was written or is known to be lost.
        #[test]
        fn one_changed_byte_never_makes_another_entry(
            entries in prop::collection::vec(
                (0..5u64, any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)), 1..5),
            at in any::<prop::sample::Index>(),
            with in 1..=255u8,
        ) {
            let mut bytes = Vec::new();
            let written = encode_block(head(9), &rows(&entries), &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            let known = BlockHead::read_head(&bytes[..64], 7)
                .or_else(|| BlockHead::read_foot(&bytes[bytes.len() - 64..], 7));
            prop_assert_eq!(known, Some(written));
            let read = read_block(&written, &bytes).entries.unwrap();
            let lost = read.iter().filter(|entry| !entry.is_good).count();
            prop_assert!(lost <= 1);
            for (read, (row, payload)) in read.iter().zip(rows(&entries)) {
                prop_assert_eq!(read.row, row);
                prop_assert_eq!(read.is_good, &bytes[read.payload.clone()] == payload);
            }
        }

        /// Bytes of any kind are read without a panic, whatever the header says.
        #[test]
        fn anything_is_read_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 4096),
            count in 0..200u32,
            table_sum in any::<u32>(),
        ) {
            let mut bytes = bytes;
            let mut odd = BlockHead { len: 4096, count, table_sum, ..head(1) };
            if block_bytes(count as usize, 0) <= 4096 {
                odd.table_sum = crc32c::crc32c(&bytes[64..64 + count as usize * ROW_BYTES]);
                bytes[..64].copy_from_slice(&odd.encode(HEAD_MAGIC));
                let odd = BlockHead::read_head(&bytes[..64], 7).unwrap();
                read_block(&odd, &bytes);
            }
        }
    }
}
