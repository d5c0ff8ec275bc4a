//! Whether an id may be among some: a filter of Bloom's, so that an id that is in none of many places is looked for in
//! none of them.
//!
//! Bits of one id lie in one line of the processor's cache (Putze, Sanders and Singler 2007, "blocked"). Of ids that are
//! not there about one in a hundred may be; of those that are, all.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::value::PointId;

/// Bits for an id.
const BITS: usize = 12;

/// Bits that an id sets.
const PROBES: u32 = 7;

/// Numbers of 64 bits in a block.
const BLOCK: usize = 8;

/// What of an id says where its bits are. The same in all filters of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdHash(u64);

impl IdHash {
    /// Of an id.
    pub(crate) fn of(id: &PointId) -> Self {
        let mut hasher = DefaultHasher::new();
        id.as_str().hash(&mut hasher);
        IdHash(hasher.finish())
    }

    /// The number itself: of two ids that are not the same it hardly ever is.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// The ids of some documents, with 1.5 bytes for each.
#[derive(Debug)]
pub(crate) struct Ids {
    blocks: Box<[[u64; BLOCK]]>,
}

impl Ids {
    /// A filter with nothing in it, for so many ids.
    pub(crate) fn with_capacity(ids: usize) -> Self {
        let blocks = (ids * BITS).div_ceil(64 * BLOCK).max(1);
        Ids { blocks: vec![[0; BLOCK]; blocks].into() }
    }

    /// Adds an id.
    pub(crate) fn insert(&mut self, id: IdHash) {
        let block = self.block(id);
        for bit in bits(id) {
            self.blocks[block][bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Whether the id may have been added; false: it was not.
    pub(crate) fn may_have(&self, id: IdHash) -> bool {
        let block = &self.blocks[self.block(id)];
        bits(id).all(|bit| block[bit / 64] & (1 << (bit % 64)) != 0)
    }

    fn block(&self, IdHash(hash): IdHash) -> usize {
        ((u128::from(hash) * self.blocks.len() as u128) >> 64) as usize
    }
}

/// Places in a block. The block is chosen by the upper bits of the hash, these by the lower ones, remixed.
fn bits(IdHash(hash): IdHash) -> impl Iterator<Item = usize> {
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |probe| (mixed >> (9 * probe) & 511) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> IdHash {
        IdHash::of(&PointId::new(format!("document {n}")).unwrap())
    }

    #[test]
    fn what_is_there_may_be_and_what_is_not_hardly_ever() {
        for count in [0, 1, 100, 100_000] {
            let mut ids = Ids::with_capacity(count as usize);
            (0..count).for_each(|n| ids.insert(hash(n)));
            assert!((0..count).all(|n| ids.may_have(hash(n))));
            let wrong = (count..count + 10_000).filter(|n| ids.may_have(hash(*n))).count();
            assert!(wrong < 200, "{count}: {wrong} of 10,000");
        }
    }
}
