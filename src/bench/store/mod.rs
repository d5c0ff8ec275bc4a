//! What the store alone can do, without an encoder: vectors and texts come from a seed.
//!
//! | file | measures |
//! |---|---|
//! | `writes.rs` | acknowledged writes/s through gRPC by number of writers, beside what the disk can do and beside peers |
//! | `open.rs` | opening a large folder after a clean end and after a kill |
//! | `churn.rs` | disk after every document was written again and again |
//! | `many.rs` | many small collections |
//! | `beside.rs` | queries while sealing and merging run |

use std::fmt::Write as _;

use crate::{
    bench::{COLLECTION, Result},
    config::{Config, NO_MODEL},
    engine::{Caller, Document, Engine, NewCollection},
    processor::Processor,
    random::SplitMix,
};

pub mod beside;
pub mod churn;
pub mod many;
pub mod open;
pub mod writes;

/// Documents of one write while a collection is filled.
const BATCH: usize = 500;

/// What documents are made of.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// Numbers of a vector, 1 to 65,536.
    pub dimension: u32,
    /// Bytes of a text, 1 or more.
    pub text_bytes: usize,
}

impl Made {
    /// Numbers in -1 to 1, no two vectors alike.
    fn vector(&self, random: &mut SplitMix) -> Vec<f32> {
        (0..self.dimension).map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }

    /// Words, so that it packs about as a text does.
    fn text(&self, random: &mut SplitMix) -> String {
        let mut text = String::with_capacity(self.text_bytes + 8);
        while text.len() < self.text_bytes {
            let _ = write!(text, "{:x} ", random.next() & 0xf_ffff);
        }
        text.truncate(self.text_bytes);
        text
    }

    fn document(&self, n: usize, random: &mut SplitMix) -> Document {
        Document {
            id: format!("document {n:08}"),
            text: self.text(random),
            vector: Some(self.vector(random)),
            ..Document::default()
        }
    }

    /// Writes documents of these numbers, [`BATCH`] a call.
    async fn fill(
        &self,
        engine: &Engine,
        numbers: std::ops::Range<usize>,
        random: &mut SplitMix,
    ) -> Result<()> {
        for first in numbers.clone().step_by(BATCH) {
            let documents =
                (first..numbers.end.min(first + BATCH)).map(|n| self.document(n, random)).collect();
            engine.upsert(COLLECTION, documents, Caller::default()).await?;
        }
        Ok(())
    }

    fn collection(&self) -> NewCollection {
        NewCollection {
            name: COLLECTION.into(),
            dimension: Some(self.dimension),
            vectors_only: true,
            ..NewCollection::default()
        }
    }
}

/// The settings without a model, over a folder.
fn without_model(config: &Config, folder: &std::path::Path) -> Config {
    let mut config = config.clone();
    folder.clone_into(&mut config.data.dir);
    NO_MODEL.clone_into(&mut config.encoder.model);
    config
}

/// Opens an engine off the async threads.
async fn open_engine(config: Config) -> Result<std::sync::Arc<Engine>> {
    Ok(tokio::task::spawn_blocking(move || Engine::open(&config)).await??)
}

/// What everything here was measured on.
fn processor() -> String {
    let name = Processor::look().field("model name").unwrap_or("unknown").to_owned();
    format!("{name}, {} threads", crate::threads::cores())
}

/// Bytes that the files below a folder take on the disk, a file with several names once.
fn disk_bytes(folder: &std::path::Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let found = match entry.metadata() {
            Ok(found) => found,
            // Removed since it was listed.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        bytes += if found.is_dir() { disk_bytes(&entry.path())? } else { found.blocks() * 512 };
    }
    Ok(bytes)
}

/// The share of the sorted values that lies at `share`, 0 to 1; 0 of none.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0.0)
}
