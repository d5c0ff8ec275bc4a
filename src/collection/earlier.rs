//! A collection that an earlier version kept in sled: its documents become segments when it is first opened.
//!
//! Until they are, whole and compared, the store of sled is the collection and keeps every byte; then it is removed. A
//! take-over that is cut off is begun anew by the next opening.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{CollectionError, Made, Means, indexer, recover::space_of};
use crate::{
    files::regular,
    index::{self, IndexKind, Stamp},
    segmented::{self, Store, take_over::BEGUN_FILE},
    store::{
        self, StoreError,
        disk::RealDisk,
        folder::{self, ACKNOWLEDGED_FILE, INDEX_DIR, STATE_DIR},
        kept::{self, Kept},
    },
    vector::Metric,
};

/// Memory for sled's cache while it is read from beginning to end.
const CACHE_BYTES: u64 = 16 << 20;

/// Whether an earlier version's store lies in a collection's folder, whole or not.
pub(super) fn is_there(dir: &Path) -> bool {
    folder::has_earlier_state(dir)
}

/// Makes segments of the store in `dir`.
///
/// # Errors
/// As `segmented::take_over`. The earlier store is as it was found then.
pub(super) fn take_over(dir: &Path, made: &Made, means: &Means<'_>) -> Result<Store, CollectionError> {
    let state = dir.join(STATE_DIR);
    let kept = Kept::take(&state)?;
    let taken = read(&state, made).and_then(|earlier| {
        let (log, space) = (&means.options.log, space_of(&made.spec));
        let taken = segmented::take_over::take_over(&earlier, log, dir, space, means.kept);
        // Before its files go, or are put back.
        earlier.close()?;
        taken
    });
    let store = match taken {
        Ok(store) => store,
        Err(error) => {
            kept.put_back();
            return Err(error.into());
        }
    };
    // From here on the segments are the collection.
    if let Err(error) = kept.discard() {
        tracing::warn!(dir = %dir.display(), %error, "a copy of the earlier store cannot be removed; the next opening does it");
    }
    remove(dir);
    // Its rows name entries of another log.
    if let Err(error) = indexer::discard(dir) {
        tracing::warn!(dir = %dir.display(), %error, "the saved graph cannot be removed");
    }
    Ok(store)
}

fn read(state: &Path, made: &Made) -> Result<store::Store, StoreError> {
    let earlier = store::Store::open(state, made.identity, CACHE_BYTES, Arc::new(RealDisk))?;
    if let Some(spec) = earlier.earlier() {
        check_made(spec, &made.spec, state)?;
    }
    check_graph(&earlier, state, made)?;
    Ok(earlier)
}

/// Refuses a store of which a whole graph was saved after a batch that it does not have: it has lost batches.
fn check_graph(earlier: &store::Store, state: &Path, made: &Made) -> Result<(), StoreError> {
    let dir = state.with_file_name(INDEX_DIR);
    let Some((path, sequence)) = graph_saved_after(&dir) else { return Ok(()) };
    if sequence <= earlier.sequence() || earlier.accepted() {
        return Ok(());
    }
    let super::CollectionSpec { index: params, dim, metric, .. } = &made.spec;
    // One that is damaged, or of another collection, proves nothing.
    match index::load(&dir, params, *dim, *metric, Stamp(earlier.identity().0)) {
        Ok(_) => Err(earlier.behind(&path, sequence)),
        Err(_) => Ok(()),
    }
}

/// The batch after which the graph in `dir` was saved, and the file that says so: `rows`, which begins with the CRC32 of
/// what follows, a version `u32` and the batch `u64`; or, of formats 1 and 2, `sequence`, a line with the batch and its
/// CRC32. `None` if there is no graph, or that file is damaged.
fn graph_saved_after(dir: &Path) -> Option<(PathBuf, u64)> {
    let path = dir.join("rows");
    match regular::read(&path, u64::MAX) {
        Ok(bytes) => {
            let (crc, rest) = bytes.split_first_chunk::<4>()?;
            let (_, after_version) = rest.split_first_chunk::<4>()?;
            let sequence = u64::from_le_bytes(*after_version.first_chunk::<8>()?);
            (crc32fast::hash(rest) == u32::from_le_bytes(*crc)).then_some((path, sequence))
        }
        Err(_) => {
            let path = dir.join("sequence");
            let line = regular::read_text(&path).ok()?;
            let (number, crc) = line.trim_end().split_once(' ')?;
            let is_whole = crc == format!("{:08x}", crc32fast::hash(number.as_bytes()));
            is_whole.then_some((path, number.parse().ok()?))
        }
    }
}

/// Removes what is left of an earlier store beside segments that took its place.
pub(super) fn remove(dir: &Path) {
    // First the word that segments may be the remains of a take-over: they are the collection.
    for name in [BEGUN_FILE, STATE_DIR, kept::KEPT_DIR, kept::COPYING_DIR, kept::BAD_DIR, ACKNOWLEDGED_FILE] {
        let path = dir.join(name);
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "an earlier store's file cannot be removed; the next opening does it");
            }
            _ => {}
        }
    }
}

/// Refuses a store that an earlier version made otherwise than the collection's description says.
fn check_made(
    earlier: &store::EarlierSpec,
    spec: &super::CollectionSpec,
    dir: &Path,
) -> Result<(), StoreError> {
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
