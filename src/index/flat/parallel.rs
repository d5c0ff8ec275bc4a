//! A parallel scan uses several threads of a pool, none of which starts other work while it waits: chunks are the items
//! that [`parts`] hands out.

use std::sync::Arc;

use super::{Chunk, Nearest};
use crate::{
    index::{Neighbor, Slot},
    stop::{Stop, Stopped},
    threads::share::parts,
    vector::Metric,
};

/// Which slots may be answered, for several threads and as long as each needs it.
pub type SharedAllow = Arc<dyn Fn(Slot) -> bool + Send + Sync>;

/// Scans full chunks on this thread and on those of its pool that have time, beside what is `nearest` already.
///
/// # Panics
/// If a helper did, as a scan on one thread would have.
pub(super) fn scan(
    metric: Metric,
    query: &[f32],
    allow: Option<&SharedAllow>,
    stop: &Stop,
    chunks: Arc<Vec<Arc<Chunk>>>,
    mut nearest: Nearest,
) -> Result<Vec<Neighbor>, Stopped> {
    let (query, allow, stop_of_parts, k) = (query.to_vec(), allow.cloned(), stop.clone(), nearest.k);
    let found = parts(chunks.len(), move |taken| {
        let allow = allow.as_ref().map(|allow| &**allow as &dyn Fn(Slot) -> bool);
        let mut nearest = Nearest::new(k, 0);
        for place in taken {
            if stop_of_parts.is_asked() {
                break;
            }
            chunks[place].offer_to(&mut nearest, metric, &query, allow);
        }
        nearest
    });
    stop.check()?;
    found.into_iter().for_each(|part| nearest.merge(part));
    Ok(nearest.into_sorted())
}
