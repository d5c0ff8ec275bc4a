//! Vectors that are equal bit for bit share one node of the graph.
//!
//! Copies link to copies alone: a node keeps its nearest links, and copies are the nearest there are. A few hundred of
//! them therefore close a graph against everything else. So only the first goes into the graph, under its own slot;
//! the slots of the others are kept here and put beside it in every answer.
//!
//! Equal means an equal SHA-256, cut to 16 bytes: the vector of a node need not be looked up, and no two different
//! vectors that anybody can find are taken for one.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
};

use sha2::{Digest as _, Sha256};

use super::super::Slot;

/// Identifies the bits of a vector.
pub(super) type Digest = [u8; 16];

/// The digest of a vector's bits; 0 and -0 differ.
pub(super) fn digest(vector: &[f32]) -> Digest {
    let mut hasher = Sha256::new();
    let mut bytes = [0u8; 256];
    for values in vector.chunks(bytes.len() / 4) {
        let (quads, _) = bytes.as_chunks_mut::<4>();
        for (quad, value) in quads.iter_mut().zip(values) {
            *quad = value.to_le_bytes();
        }
        hasher.update(&bytes[..4 * values.len()]);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(&hasher.finalize()[..16]);
    digest
}

/// Which node each vector is at.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// The node of every vector that is inside.
    nodes: HashMap<Digest, Slot>,
    /// Slots of a node beyond its own, ascending.
    further: HashMap<Slot, Vec<Slot>>,
    /// Number of those slots.
    extra: usize,
}

impl Twins {
    /// The node that has this vector.
    pub(super) fn node(&self, digest: &Digest) -> Option<Slot> {
        self.nodes.get(digest).copied()
    }

    /// Notes a new node; one that has the vector already stays the one that others join.
    pub(super) fn add(&mut self, digest: Digest, node: Slot) {
        self.nodes.entry(digest).or_insert(node);
    }

    /// Puts a slot, higher than all before, to a node.
    pub(super) fn join(&mut self, node: Slot, slot: Slot) {
        self.further.entry(node).or_default().push(slot);
        self.extra += 1;
    }

    /// Vectors that are inside without a node of their own.
    pub(super) fn extra(&self) -> usize {
        self.extra
    }

    /// All slots of a node, ascending.
    pub(super) fn slots(&self, node: Slot) -> impl Iterator<Item = Slot> {
        std::iter::once(node).chain(self.further.get(&node).into_iter().flatten().copied())
    }

    /// Number of nodes, then of each its digest and slot; number of further slots, then of each its node and itself.
    /// All numbers little-endian.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&(self.nodes.len() as u64).to_le_bytes())?;
        for (digest, node) in &self.nodes {
            out.write_all(digest)?;
            out.write_all(&node.0.to_le_bytes())?;
        }
        out.write_all(&(self.extra as u64).to_le_bytes())?;
        for (node, slots) in &self.further {
            for slot in slots {
                out.write_all(&node.0.to_le_bytes())?;
                out.write_all(&slot.0.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Reads what [`Twins::write`] wrote.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut twins = Twins::default();
        // Not reserved for: what the file says of itself is not believed before it was read.
        for _ in 0..read_u64(from)? {
            let mut digest = Digest::default();
            from.read_exact(&mut digest)?;
            twins.nodes.insert(digest, Slot(read_u32(from)?));
        }
        for _ in 0..read_u64(from)? {
            let node = Slot(read_u32(from)?);
            twins.join(node, Slot(read_u32(from)?));
        }
        Ok(twins)
    }
}

pub(super) fn read_u64(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

pub(super) fn read_u32(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_vectors_apart_by_every_bit() {
        let vector: Vec<f32> = (0..130).map(|i| i as f32).collect();
        let same = digest(&vector);
        assert_eq!(digest(&vector.clone()), same);
        for at in 0..vector.len() {
            let mut other = vector.clone();
            other[at] = f32::from_bits(other[at].to_bits() ^ 1);
            assert_ne!(digest(&other), same, "{at}");
        }
        assert_ne!(digest(&vector[..129]), same);
        assert_ne!(digest(&[0.0]), digest(&[-0.0]));
    }

    #[test]
    fn written_and_read_twins_are_the_same() {
        let mut twins = Twins::default();
        for i in 0..5u32 {
            twins.add(digest(&[i as f32]), Slot(10 * i));
        }
        for (node, slot) in [(0, 41), (20, 42), (0, u32::MAX)] {
            twins.join(Slot(node), Slot(slot));
        }
        let mut bytes = Vec::new();
        twins.write(&mut bytes).unwrap();
        let again = Twins::read(&mut bytes.as_slice()).unwrap();
        assert_eq!((&again.nodes, &again.further, again.extra()), (&twins.nodes, &twins.further, 3));
        assert_eq!(again.slots(Slot(0)).collect::<Vec<_>>(), [Slot(0), Slot(41), Slot(u32::MAX)]);
        assert_eq!(again.slots(Slot(30)).collect::<Vec<_>>(), [Slot(30)]);
        for cut in 0..bytes.len() {
            assert!(Twins::read(&mut &bytes[..cut]).is_err(), "{cut}");
        }
    }
}
