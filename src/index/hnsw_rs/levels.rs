//! Predicts the level of each next point of an `hnsw_rs` graph before it is inserted.
//!
//! `hnsw_rs` draws levels inside `insert`, from a generator with a constant seed, so the sequence is the same in
//! every graph of one M and can be repeated here. Its adapter needs it: points above level 0 must be inserted alone.

use rand::{
    SeedableRng,
    distr::{Distribution, Uniform},
    rngs::{StdRng, Xoshiro256PlusPlus},
};

/// The constant seed inside `hnsw_rs` 0.3.
const SEED: u64 = 397;

/// Number of layers `hnsw_rs` has at most.
pub(super) const LAYERS: usize = 16;

/// The levels of the points to come, in the order they are inserted.
#[derive(Debug)]
pub(super) struct Levels {
    rng: StdRng,
    uniform: Uniform<f64>,
    scale: f64,
    next: usize,
}

impl Levels {
    /// From the first point of a graph that was just made, or just loaded.
    pub(super) fn new(m: u16) -> Self {
        let mut levels = Levels {
            rng: StdRng::from_rng(&mut Xoshiro256PlusPlus::seed_from_u64(SEED)),
            uniform: Uniform::new(0.0, 1.0).expect("0 is below 1, and both are finite"),
            scale: 1.0 / f64::from(m).ln(),
            next: 0,
        };
        levels.next = levels.draw();
        levels
    }

    /// Takes the next point's level.
    pub(super) fn take(&mut self) -> usize {
        let next = self.draw();
        std::mem::replace(&mut self.next, next)
    }

    /// Whether the next point will be on level 0 alone.
    pub(super) fn next_is_ground(&self) -> bool {
        self.next == 0
    }

    /// "mult" of Malkov & Yashunin 2018, algorithm 1 line 4, with the redraw of `hnsw_rs` above its last layer.
    fn draw(&mut self) -> usize {
        let level = (-self.uniform.sample(&mut self.rng).ln() * self.scale).floor() as usize;
        if level < LAYERS {
            return level;
        }
        Uniform::new(0, LAYERS).expect("there are layers").sample(&mut self.rng)
    }
}
