//! Blocks that were unpacked not long ago, bounded in bytes and shared by all segments.
//!
//! The one that was used least recently goes first. Unpacking happens outside of the lock; two who want one block at the
//! same time both unpack it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Parts of the cache, each with its own lock.
const PARTS: usize = 16;
/// What an entry takes besides its bytes, about.
const ENTRY_BYTES: usize = 128;

/// A block of a file: a number that no other open file has, and the block's own.
pub(super) type Key = (u64, u32);

/// Unpacked blocks.
#[derive(Debug)]
pub(crate) struct BlockCache {
    parts: [Mutex<Part>; PARTS],
    /// Bytes of a part.
    part_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Part {
    blocks: HashMap<Key, (Arc<[u8]>, u64)>,
    /// Who was used when; the number counts uses.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
}

impl BlockCache {
    /// An empty cache that holds at most about `bytes_max` bytes; with 0 it holds nothing.
    pub(crate) fn new(bytes_max: usize) -> Self {
        BlockCache { parts: Default::default(), part_bytes_max: bytes_max / PARTS }
    }

    /// A block, which `unpack` makes if it is not there. One that is larger than a part of the cache is not kept.
    pub(super) fn get<E>(
        &self,
        key: Key,
        unpack: impl FnOnce() -> Result<Arc<[u8]>, E>,
    ) -> Result<Arc<[u8]>, E> {
        if let Some(block) = self.part(key).used(key) {
            return Ok(block);
        }
        let block = unpack()?;
        if block.len() + ENTRY_BYTES <= self.part_bytes_max {
            self.part(key).keep(key, &block, self.part_bytes_max);
        }
        Ok(block)
    }

    /// Removes what is kept of a file.
    pub(super) fn forget(&self, file: u64) {
        for part in &self.parts {
            let mut part = lock(part);
            let gone: Vec<Key> = part.blocks.keys().filter(|(of, _)| *of == file).copied().collect();
            gone.into_iter().for_each(|key| part.remove(key));
        }
    }

    /// Bytes that are kept.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| lock(part).bytes).sum()
    }

    fn part(&self, (file, block): Key) -> MutexGuard<'_, Part> {
        // Blocks of one file that follow one another lie in different parts.
        lock(&self.parts[((file.wrapping_mul(7)).wrapping_add(block.into()) % PARTS as u64) as usize])
    }
}

/// What a panic left is whole: nothing here panics between two changes.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    fn used(&mut self, key: Key) -> Option<Arc<[u8]>> {
        let (block, used) = self.blocks.get_mut(&key)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(Arc::clone(block))
    }

    fn keep(&mut self, key: Key, block: &Arc<[u8]>, bytes_max: usize) {
        self.remove(key);
        self.bytes += block.len() + ENTRY_BYTES;
        while self.bytes > bytes_max
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            let oldest = *oldest;
            self.remove(oldest);
        }
        self.uses += 1;
        self.by_use.insert(self.uses, key);
        self.blocks.insert(key, (Arc::clone(block), self.uses));
    }

    fn remove(&mut self, key: Key) {
        if let Some((block, used)) = self.blocks.remove(&key) {
            self.by_use.remove(&used);
            self.bytes -= block.len() + ENTRY_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(len: usize) -> Result<Arc<[u8]>, ()> {
        Ok(vec![7; len].into())
    }

    #[test]
    fn what_was_not_used_goes_first_and_the_bytes_are_bounded() {
        // Blocks of one part: every sixteenth.
        let cache = BlockCache::new(PARTS * 3 * (1000 + ENTRY_BYTES));
        let get = |n: u32| {
            let mut unpacked = false;
            let got = cache.get((0, n * PARTS as u32), || {
                unpacked = true;
                block(1000)
            });
            assert_eq!(got.unwrap().len(), 1000);
            unpacked
        };
        assert!(get(1) && get(2) && get(3));
        assert!(!get(1) && !get(2));
        assert!(get(4), "it is new");
        assert!(!get(1) && !get(2) && get(3), "the third was used least recently");
        assert!(cache.bytes() <= 3 * (1000 + ENTRY_BYTES));
        cache.get((0, 0), || block(1 << 20)).unwrap();
        assert!(cache.bytes() <= 3 * (1000 + ENTRY_BYTES), "what is too large is not kept");
        cache.forget(1);
        assert!(cache.bytes() > 0);
        cache.forget(0);
        assert_eq!(cache.bytes(), 0);
        assert_eq!(cache.get((0, 9), || Err(1)), Err(1));
    }
}
