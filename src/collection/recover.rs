//! Open: from what is on disk to what searches read.
//!
//! The store is the truth. Ids, vectors and what no segment has yet are read from it; texts and payloads of segments are
//! not touched; the saved graph is taken if every
//! byte of it is right and it is of this collection's past, else it is thrown away and the indexer builds another.
//! A whole graph of this collection's future is proof that the log has lost entries: the collection is refused then.

use std::{collections::HashSet, path::Path, sync::Arc};

use super::{
    CollectionError, CollectionSpec, Made, Means, earlier,
    fresh::RUN_DOCS,
    indexer::{self, Saved},
    memory::{Graph, Memory},
    point::ContentHash,
    rows::{Numbering, Rows},
    slots::Entry,
};
use crate::{
    files,
    index::{IndexError, IndexKind, Slot, VectorIndex},
    segmented::{self, IdHash, Loaded, SPACE, Space, Store},
    store::{Identity, StoreError, folder::INDEX_DIR},
    value::PointId,
};

/// A collection brought level.
pub(super) struct Recovered {
    pub(super) spec: CollectionSpec,
    pub(super) store: Store,
    pub(super) memory: Memory,
}

/// Makes the folder, if it is not there, and an empty store in it.
pub(super) fn create(
    dir: &Path,
    spec: CollectionSpec,
    means: &Means<'_>,
) -> Result<Recovered, CollectionError> {
    spec.index.validate()?;
    let log = &means.options.log;
    if earlier::is_there(dir) || segmented::identity_in(&**log.disk(), dir)?.is_some() {
        let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(CollectionError::io(dir, exists));
    }
    files::create_private(dir).map_err(|e| CollectionError::io(dir, e))?;
    if let Some(parent) = dir.parent() {
        log.disk().sync_dir(parent).map_err(|e| CollectionError::io(parent, e))?;
    }
    let store = loop {
        match Store::create(log, dir, Identity::draw(), space_of(&spec), means.kept) {
            // Two of 2^64 are the same, and another draw is free.
            Err(StoreError::IdentityTaken { .. }) => {}
            made => break made?,
        }
    };
    let memory = Memory::new(spec.dim, spec.metric, store.snapshot());
    Ok(Recovered { spec, store, memory })
}

/// The vector space of a collection.
pub(super) fn space_of(spec: &CollectionSpec) -> Space {
    let CollectionSpec { dim, metric, fingerprint, .. } = spec.clone();
    Space { number: SPACE, dim, metric, fingerprint }
}

/// Reads the store and whatever index files are good. A store that is refused keeps every byte it was found with.
pub(super) fn open(dir: &Path, made: Made, means: &Means<'_>) -> Result<Recovered, CollectionError> {
    let begun = std::time::Instant::now();
    let store = open_store(dir, &made, means)?;
    let Made { spec, .. } = made;
    let saved = if spec.index.kind == IndexKind::Flat { None } else { load_graph(dir, &spec, &store)? };
    let fitting = saved.filter(|(graph, _)| is_worth_its_slots(graph, &store, means.numbers_max));
    let with_graph = match fitting {
        Some((graph, rows)) => match fill(&spec, &store, Some((&rows, graph.indexed)), means.numbers_max)? {
            Some(memory) => Some(Memory { graph: Some(graph), ..memory }),
            None => {
                let reason = format!("{} names other documents than the store", rows.path.display());
                discard_graph(dir, &reason);
                None
            }
        },
        None => None,
    };
    let memory = match with_graph {
        Some(filled) => filled,
        None => fill(&spec, &store, None, means.numbers_max)?
            .ok_or(CollectionError::Full { limit: means.numbers_max })?,
    };
    tracing::info!(
        dir = %dir.display(),
        documents = memory.table.documents(),
        passages = memory.table.live(),
        indexed = memory.graph.as_ref().map_or(0, |graph| graph.index.len()),
        elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "collection opened"
    );
    Ok(Recovered { spec, store, memory })
}

/// Opens the segments; what an earlier version kept in sled becomes segments first.
fn open_store(dir: &Path, made: &Made, means: &Means<'_>) -> Result<Store, CollectionError> {
    let log = &means.options.log;
    let found = segmented::identity_in(&**log.disk(), dir)?;
    if found.is_none() && earlier::is_there(dir) {
        return earlier::take_over(dir, made, means);
    }
    // Where the description does not tell it, an earlier version made the collection, and a take-over was cut off before
    // its identity was entered.
    let Some(identity) = made.identity.or(found) else {
        let reason = "there is no store in it: neither `segments` nor `state`; put the collection's folder back from a backup, or delete the collection";
        return Err(StoreError::corrupt(dir, reason.to_owned()).into());
    };
    let store = Store::open(log, dir, identity, space_of(&made.spec), means.kept)?;
    earlier::remove(dir);
    Ok(store)
}

/// All documents of a store in memory, the slots of a graph's documents as its rows say. `None`: the graph is of other
/// documents, or there are more than `numbers_max`. Nobody writes to the store meanwhile.
pub(super) fn fill(
    spec: &CollectionSpec,
    store: &Store,
    graph: Option<(&Rows, u32)>,
    numbers_max: u32,
) -> Result<Option<Memory>, CollectionError> {
    let mut memory = Memory::new(spec.dim, spec.metric, store.snapshot());
    let mut numbering = Numbering::new(graph, numbers_max);
    let (mut fits, mut hashes, mut unsealed) = (true, Vec::new(), Vec::new());
    let place = store.dir().to_owned();
    let damaged = |reason: String| CollectionError::from(StoreError::corrupt(&place, reason));
    memory.documents = store.load(|loaded| {
        let Loaded { number, id, content_hash, passages, vectors, payload } = loaded;
        if vectors.len() != spec.dim.len() * passages as usize {
            return Err(damaged(format!("document {:?} has not one vector per passage", id.as_str())));
        }
        let first_slot = numbering.first_slot(number, passages);
        let doc = memory.table.docs_end();
        let Some(first_slot) = first_slot.filter(|_| fits && doc < numbers_max) else {
            // The rest is read all the same: damage is told before anything else.
            fits = false;
            return Ok(());
        };
        let items: Vec<(Slot, &[f32])> =
            (first_slot..).map(Slot).zip(vectors.chunks_exact(spec.dim.len())).collect();
        memory.flat.insert(&items).map_err(|e| damaged(format!("its vectors are out of order: {e}")))?;
        hashes.push(IdHash::of(&id).number());
        let entry = Arc::new(Entry { id, hash: ContentHash(content_hash), number, first_slot, passages });
        memory.table.insert(doc, Arc::clone(&entry));
        unsealed.extend(payload.map(|payload| (doc, entry, payload)));
        if unsealed.len() == RUN_DOCS {
            memory.fresh.add(unsealed.drain(..));
        }
        Ok::<(), CollectionError>(())
    })?;
    if !unsealed.is_empty() {
        memory.fresh.add(unsealed);
    }
    if !fits {
        return Ok(None);
    }
    if let Some(twice) = twice_there(&memory, hashes) {
        return Err(damaged(format!("document {:?} is there twice", twice.as_str())));
    }
    memory.place().map_err(|e| damaged(e.to_string()))?;
    Ok(Some(memory))
}

/// An id that two documents have. `hashes` are those of all ids.
fn twice_there(memory: &Memory, mut hashes: Vec<u64>) -> Option<PointId> {
    hashes.sort_unstable();
    let same: HashSet<u64> =
        hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    if same.is_empty() {
        return None;
    }
    let mut seen = HashSet::new();
    let suspects = memory.table.entries().filter(|entry| same.contains(&IdHash::of(&entry.id).number()));
    suspects.map(|entry| &entry.id).find(|id| !seen.insert(*id)).cloned()
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
        Ok(Saved::Later(rows)) => {
            let (ends, index) = (store.sequence(), dir.join(INDEX_DIR));
            let reason = format!(
                "it ends at entry {ends} of the log, but {} was saved after entry {}: entries are lost; put the whole data folder back from one backup, or, to go on with what is there, remove {}",
                rows.path.display(),
                rows.sequence,
                index.display()
            );
            return Err(StoreError::corrupt(dir, reason));
        }
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
