//! Open: from what is on disk to what searches read.
//!
//! The store is the truth. Documents, fields and the exact index are rebuilt from it; the saved graph is taken if every
//! byte of it is right and it is of this collection's past, else it is thrown away and the indexer builds another.
//! A whole graph of this collection's future is proof that the store has lost batches: it is refused then.

use std::{path::Path, sync::Arc};

use super::{
    CollectionError, CollectionSpec, Made, Means,
    indexer::{self, Saved},
    memory::{Graph, Memory},
    point::ContentHash,
    rows::{Numbering, Rows},
    slots::Entry,
};
use crate::{
    files,
    index::{IndexError, IndexKind, Slot, VectorIndex},
    store::{EarlierSpec, Identity, Store, StoreError, body::Body, folder::STATE_DIR, kept::Kept},
    vector::Metric,
};

/// A collection brought level.
pub(super) struct Recovered {
    pub(super) spec: CollectionSpec,
    pub(super) store: Store,
    pub(super) memory: Memory,
    /// Removed documents whose space is yet to be taken back.
    pub(super) removed: Vec<u64>,
}

/// Makes the folder, if it is not there, and an empty store in it.
pub(super) fn create(
    dir: &Path,
    spec: CollectionSpec,
    means: &Means<'_>,
) -> Result<Recovered, CollectionError> {
    spec.index.validate()?;
    if dir.join(STATE_DIR).exists() {
        let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(CollectionError::io(dir, exists));
    }
    files::create_private(dir).map_err(|e| CollectionError::io(dir, e))?;
    let (cache_bytes, disk) = (means.options.store_cache_bytes, Arc::clone(&means.disk));
    let store = Store::create(&dir.join(STATE_DIR), Identity::draw(), cache_bytes, disk)?;
    if let Some(parent) = dir.parent() {
        means.disk.sync_dir(parent).map_err(|e| CollectionError::io(parent, e))?;
    }
    let memory = Memory::new(spec.dim, spec.metric);
    Ok(Recovered { spec, store, memory, removed: Vec::new() })
}

/// Reads the store and whatever index files are good. A store that is refused keeps every byte it was found with.
pub(super) fn open(dir: &Path, made: Made, means: &Means<'_>) -> Result<Recovered, CollectionError> {
    let kept = Kept::take(&dir.join(STATE_DIR))?;
    let recovered = match read(dir, made, means) {
        Ok(recovered) => recovered,
        Err(error) => {
            kept.put_back();
            return Err(error);
        }
    };
    kept.discard()?;
    match recovered.store.settle() {
        // It is read as it is; the first write that has room does it.
        Err(error) if error.is_passing() => {
            tracing::warn!(dir = %dir.display(), %error, "the store is taken over later");
        }
        settled => settled?,
    }
    Ok(recovered)
}

fn read(dir: &Path, made: Made, means: &Means<'_>) -> Result<Recovered, CollectionError> {
    let begun = std::time::Instant::now();
    let Made { spec, identity } = made;
    let (cache_bytes, disk) = (means.options.store_cache_bytes, Arc::clone(&means.disk));
    let store = Store::open(&dir.join(STATE_DIR), identity, cache_bytes, disk)?;
    if let Some(earlier) = store.earlier() {
        check_made(earlier, &spec, store.dir())?;
    }
    let saved = if spec.index.kind == IndexKind::Flat { None } else { load_graph(dir, &spec, &store)? };
    let fitting = saved.filter(|(graph, _)| is_worth_its_slots(graph, &store, means.numbers_max));
    let with_graph = match fitting {
        Some((graph, rows)) => match fill(&spec, &store, Some((&rows, graph.indexed)), means.numbers_max)? {
            Some((memory, removed)) => Some((Memory { graph: Some(graph), ..memory }, removed)),
            None => {
                let reason = format!("{} names other documents than the store", rows.path.display());
                discard_graph(dir, &reason);
                None
            }
        },
        None => None,
    };
    let (memory, removed) = match with_graph {
        Some(filled) => filled,
        None => fill(&spec, &store, None, means.numbers_max)?
            .ok_or(CollectionError::Full { limit: means.numbers_max })?,
    };
    tracing::info!(
        dir = %dir.display(),
        documents = memory.slots.documents(),
        passages = memory.slots.live(),
        indexed = memory.graph.as_ref().map_or(0, |graph| graph.index.len()),
        elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "collection opened"
    );
    Ok(Recovered { spec, store, memory, removed })
}

/// All documents of a store in memory, the slots of a graph's documents as its rows say, and the numbers of documents
/// whose space is yet to be taken back. `None`: the graph is of other documents, or there are more than `numbers_max`.
pub(super) fn fill(
    spec: &CollectionSpec,
    store: &Store,
    graph: Option<(&Rows, u32)>,
    numbers_max: u32,
) -> Result<Option<(Memory, Vec<u64>)>, CollectionError> {
    let mut memory = Memory::new(spec.dim, spec.metric);
    let mut numbering = Numbering::new(graph, numbers_max);
    let mut fits = true;
    let place = store.dir().to_owned();
    let damaged = |reason: String| StoreError::corrupt(&place, reason);
    let removed = store.load(|loaded| {
        let body = Body::decode(&loaded.head.body, &place)?;
        let passages = loaded.head.passages;
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
        let first_slot = numbering.first_slot(loaded.number, loaded.head.first_vector, passages);
        let doc = memory.slots.docs_end();
        let Some(first_slot) = first_slot.filter(|_| fits && doc < numbers_max) else {
            // The rest is read all the same: damage is told before anything else.
            fits = false;
            return Ok(());
        };
        let items: Vec<(Slot, &[f32])> =
            (first_slot..).map(Slot).zip(loaded.vectors.chunks_exact(spec.dim.len())).collect();
        memory.flat.insert(&items).map_err(|e| damaged(format!("its vectors are out of order: {e}")))?;
        let Body { id, payload, content_hash, .. } = body;
        let hash = ContentHash(content_hash);
        memory.slots.insert(doc, Entry { id, hash, number: loaded.number, first_slot, passages });
        memory.fields.insert(doc, &payload);
        Ok::<(), CollectionError>(())
    })?;
    Ok(fits.then_some((memory, removed)))
}

/// Refuses a store that an earlier version made otherwise than the collection's description says.
fn check_made(earlier: &EarlierSpec, spec: &CollectionSpec, dir: &Path) -> Result<(), StoreError> {
    let metric = match spec.metric {
        Metric::Cosine => 0,
        Metric::Dot => 1,
        Metric::Euclidean => 2,
    };
    let index = match spec.index.kind {
        IndexKind::Flat => 0,
        IndexKind::HnswRs => 1,
    };
    let params = &spec.index;
    let numbers: [(&str, u64, u64); 7] = [
        ("dimension", earlier.dimension.into(), spec.dim.as_u32().into()),
        ("metric", earlier.metric.into(), metric),
        ("index kind", earlier.index.into(), index),
        ("m", earlier.m.into(), params.m.into()),
        ("ef_construction", earlier.ef_construction.into(), params.ef_construction.into()),
        ("ef_search", earlier.ef_search.into(), params.ef_search.into()),
        ("seed", earlier.seed, params.seed),
    ];
    match numbers.iter().find(|(_, stored, described)| stored != described) {
        None => Ok(()),
        Some((what, stored, described)) => Err(StoreError::corrupt(
            dir,
            format!(
                "its {what} is {stored}, and the collection's description says {described}: it may be of another collection; put the collection's whole folder back from a backup"
            ),
        )),
    }
}

/// Whether the slots that a saved graph takes are worth their number: those of removed vectors must not keep the others
/// from a place.
fn is_worth_its_slots(graph: &Graph, store: &Store, numbers_max: u32) -> bool {
    let (taken, live, max) = (u64::from(graph.indexed), store.passages(), u64::from(numbers_max));
    let worth = taken + live <= max && (taken + live <= max / 2 || taken <= 2 * live);
    if !worth {
        tracing::info!(dir = %store.dir().display(), taken, live, max, "numbers in memory begin anew, so the graph is built anew");
    }
    worth
}

fn load_graph(dir: &Path, spec: &CollectionSpec, store: &Store) -> Result<Option<(Graph, Rows)>, StoreError> {
    let state = (store.sequence(), store.next_number());
    let reason = match indexer::load(dir, &spec.index, spec.dim, spec.metric, store.identity(), state) {
        Ok(Saved::Graph(graph, rows)) => return Ok(Some((graph, rows))),
        Ok(Saved::None) => return Ok(None),
        Ok(Saved::Later(rows)) if !store.accepted() => return Err(store.behind(&rows.path, rows.sequence)),
        Ok(Saved::Later(_)) => "it is of a later state than the one that was accepted".to_owned(),
        Err(error) => describe(&error),
    };
    discard_graph(dir, &reason);
    Ok(None)
}

fn discard_graph(dir: &Path, reason: &str) {
    tracing::warn!(dir = %dir.display(), reason, "the saved graph is of no use; it is built again");
    if let Err(error) = indexer::discard(dir) {
        tracing::warn!(dir = %dir.display(), %error, "the saved graph cannot be removed");
    }
}

fn describe(error: &IndexError) -> String {
    match error {
        IndexError::Io { path, source } => format!("{}: {source}", path.display()),
        other => other.to_string(),
    }
}
