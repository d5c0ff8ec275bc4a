//! Open: from what is on disk to what searches read.
//!
//! The store is the truth. Documents, fields and the exact index are rebuilt from it; the saved graph is taken if every
//! byte of it is right and it is of this collection's past, else it is thrown away and the indexer builds another.
//! A whole graph of this collection's future is proof that the store has lost batches: it is refused then.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    CollectionError, CollectionOptions, CollectionSpec,
    body::Body,
    indexer::{self, Saved},
    memory::Memory,
    slots::Entry,
};
use crate::{
    index::{IndexError, IndexKind, Slot, Stamp, VectorIndex},
    store::{Store, StoreError, disk::Disk, folder::STATE_DIR, kept::Kept, private},
};

/// What the store keeps about the collection itself.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    spec: CollectionSpec,
    /// Tells this collection's index files from those of any other.
    stamp: [u8; 16],
}

/// A collection brought level.
pub(super) struct Recovered {
    pub(super) spec: CollectionSpec,
    pub(super) stamp: Stamp,
    pub(super) store: Store,
    pub(super) memory: Memory,
    /// Removed documents whose space is yet to be taken back.
    pub(super) buried: Vec<u32>,
}

/// Makes the folder, if it is not there, and an empty store in it.
pub(super) fn create(
    dir: &Path,
    spec: CollectionSpec,
    options: &CollectionOptions,
    disk: Arc<dyn Disk>,
) -> Result<Recovered, CollectionError> {
    spec.index.validate()?;
    if dir.join(STATE_DIR).exists() {
        let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(CollectionError::io(dir, exists));
    }
    private::create_dir_all(dir).map_err(|e| CollectionError::io(dir, e))?;
    let stored = Stored { spec: spec.clone(), stamp: random() };
    let store = Store::create(&dir.join(STATE_DIR), &stored, options.store_cache_bytes, Arc::clone(&disk))?;
    if let Some(parent) = dir.parent() {
        disk.sync_dir(parent).map_err(|e| CollectionError::io(parent, e))?;
    }
    let memory = Memory::new(spec.dim, spec.metric);
    Ok(Recovered { spec, stamp: Stamp(stored.stamp), store, memory, buried: Vec::new() })
}

/// Reads the store and whatever index files are good. A store that is refused keeps every byte it was found with.
pub(super) fn open(
    dir: &Path,
    options: &CollectionOptions,
    disk: Arc<dyn Disk>,
) -> Result<Recovered, CollectionError> {
    let kept = Kept::take(&dir.join(STATE_DIR))?;
    match read(dir, options, disk) {
        Ok(recovered) => {
            kept.discard()?;
            Ok(recovered)
        }
        Err(error) => {
            kept.put_back();
            Err(error)
        }
    }
}

fn read(dir: &Path, options: &CollectionOptions, disk: Arc<dyn Disk>) -> Result<Recovered, CollectionError> {
    let begun = std::time::Instant::now();
    let store = Store::open(&dir.join(STATE_DIR), options.store_cache_bytes, disk)?;
    let Stored { spec, stamp } = store.spec()?;
    let stamp = Stamp(stamp);
    let mut memory = Memory::new(spec.dim, spec.metric);
    let place = store.dir().to_owned();
    let damaged = |reason: String| StoreError::corrupt(&place, reason);
    let buried = store.load(|loaded| {
        let body = Body::decode(&loaded.head.body, &place)?;
        let (first_slot, passages) = (loaded.head.first_vector, loaded.head.passages);
        if loaded.vectors.len() != spec.dim.len() * passages as usize
            || body.passages.len() != passages as usize
        {
            return Err(
                damaged(format!("document {:?} has not one vector per passage", body.id.as_str())).into()
            );
        }
        if memory.slots.number(&body.id).is_some() {
            return Err(damaged(format!("document {:?} is there twice", body.id.as_str())).into());
        }
        let items: Vec<(Slot, &[f32])> =
            (first_slot..).map(Slot).zip(loaded.vectors.chunks_exact(spec.dim.len())).collect();
        memory.flat.insert(&items).map_err(|e| damaged(format!("its vectors are out of order: {e}")))?;
        let entry = Entry { id: body.id, hash: body.content_hash, first_slot, passages };
        memory.slots.insert(loaded.doc, entry);
        memory.fields.insert(loaded.doc, &body.payload);
        Ok::<(), CollectionError>(())
    })?;
    if spec.index.kind != IndexKind::Flat {
        memory.graph = load_graph(dir, &spec, stamp, &store)?;
    }
    tracing::info!(
        dir = %dir.display(),
        documents = memory.slots.documents(),
        passages = memory.slots.live(),
        indexed = memory.graph.as_ref().map_or(0, |graph| graph.index.len()),
        elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "collection opened"
    );
    Ok(Recovered { spec, stamp, store, memory, buried })
}

fn load_graph(
    dir: &Path,
    spec: &CollectionSpec,
    stamp: Stamp,
    store: &Store,
) -> Result<Option<super::memory::Graph>, StoreError> {
    let state = (store.sequence(), store.next_vector());
    let reason = match indexer::load(dir, &spec.index, spec.dim, spec.metric, stamp, state) {
        Ok(Saved::Graph(graph)) => return Ok(Some(graph)),
        Ok(Saved::None) => return Ok(None),
        Ok(Saved::Later { path, sequence }) if !store.accepted() => return Err(store.behind(&path, sequence)),
        Ok(Saved::Later { .. }) => "it is of a later state than the one that was accepted".to_owned(),
        Err(error) => describe(&error),
    };
    tracing::warn!(dir = %dir.display(), reason, "the saved graph is of no use; it is built again");
    if let Err(error) = indexer::discard(dir) {
        tracing::warn!(dir = %dir.display(), %error, "the saved graph cannot be removed");
    }
    Ok(None)
}

fn describe(error: &IndexError) -> String {
    match error {
        IndexError::Io { path, source } => format!("{}: {source}", path.display()),
        other => other.to_string(),
    }
}

/// Sixteen bytes that no other collection has: the standard library seeds its hashers from the system.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        hasher.write_u128(
            std::time::SystemTime::now()
                .duration_since(std::time::SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos()),
        );
        half.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    bytes
}
