//! Sealing what grew, merging segments, carrying forward what pins the log: the housework of a collection.
//!
//! Nobody waits for it but who asks for it. A piece of work reads what it needs, makes new files beside the old ones,
//! has the manifest name them, and then puts them in place in memory; until the manifest is written, nothing is
//! different, and a kill leaves files that the next opening removes.
//!
//! Documents that are buried meanwhile are marked in the new segment when it takes its place. A file of deletions may say
//! more than the entries that the manifest covers do: what it says was durable in the log before.
//!
//! Segments are merged by size, as in Lucene's and Cassandra's tiered policies, but only neighbours, so that documents of
//! segments never overlap: four or more of about the same size, one of which a third or more is dead, or the cheapest two
//! where there are too many.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use roaring::RoaringBitmap;

use super::{
    Durability, Kept, Shared, Store,
    entries::{Carried, Entry, Gone},
    logs::Ticket,
    manifest::{Manifest, Named},
    requests,
    sealed::{Merged, Sealed},
    state::{Frozen, Part, Row, Saved},
};
use crate::{error::with_sources, stop::Stop, store::StoreError};

/// Segments of about the same size that are merged.
const TIER_LEAST: usize = 4;

/// Most segments that are merged at once.
const TIER_MOST: usize = 8;

/// How many times larger than the least the largest segment of a tier may be.
const TIER_RATIO: u64 = 3;

/// Smaller segments count as being of this size.
const TIER_BYTES_LEAST: u64 = 4 << 20;

/// A segment is merged, alone if need be, when one of so many of its documents is dead.
const DEAD_SHARE: u64 = 3;

/// A merge begins with so much room beside what its documents take, and a quarter of that.
const ROOM_BYTES_LEAST: u64 = 1 << 20;

/// What [`Store::tidy`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tidied {
    /// What grew is in a segment now.
    pub(crate) sealed: bool,
    /// What grew was said again at the end of the log.
    pub(crate) carried: bool,
}

impl Store {
    /// Does what is due and cannot wait for a merge: seals what grew if it is large, lets go of the log if this collection
    /// pins it, removes what nobody reads any more. To be called again at once if it did anything.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::NoHandle`]: nothing is lost, and it is tried again with the next call.
    pub(crate) fn tidy(&self) -> Result<Tidied, StoreError> {
        let tidied = self.tidy_up();
        *self.0.lock_stuck() = tidied.as_ref().err().map(|error| with_sources(error));
        tidied
    }

    fn tidy_up(&self) -> Result<Tidied, StoreError> {
        let shared = &self.0;
        shared.check_open()?;
        shared.remove_retired()?;
        let mut done = Tidied::default();
        let (unsealed, frozen) = {
            let state = shared.read_state();
            (state.growing.bytes(), state.frozen.is_some())
        };
        if frozen || unsealed >= shared.options.seal_bytes {
            done.sealed = self.seal()?;
        } else if shared.log.is_pinned_by(shared.folder.identity) {
            if unsealed <= shared.options.carry_bytes {
                done.carried = self.carry_forward()?;
            } else {
                done.sealed = self.seal()?;
            }
        }
        if done != Tidied::default() {
            shared.log.cut()?;
        }
        Ok(done)
    }

    /// Puts what grew into a segment, and its entries of the log can go. Whether there was anything.
    ///
    /// # Errors
    /// As [`Store::tidy`].
    pub(crate) fn seal(&self) -> Result<bool, StoreError> {
        let shared = &self.0;
        shared.check_open()?;
        let _turn = shared.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let frozen = {
            let mut state = shared.write_state();
            // One that could not be sealed before is there still.
            state.freeze();
            let Some(frozen) = state.frozen.clone() else { return Ok(false) };
            frozen
        };
        // A whole segment whose documents the log has lost would look like one of a later time.
        shared.log.sync()?;
        let (puts, mut burials) = frozen.part.live();
        let new = if puts.is_empty() {
            None
        } else {
            let number = shared.begin_segment();
            let built = Sealed::build(&shared.folder, number, &puts);
            Some(built.inspect_err(|_| shared.abandon(number))?)
        };
        // Each call tells those that came since the one before.
        let buried_since = |_: &[Part]| {
            let new_burials = frozen.part.burials_after(burials);
            burials += new_burials.len();
            let row = |gone: &Gone| {
                let row = puts.binary_search_by_key(&gone.number, |put| put.number).ok()?;
                Some(Row { row: u32::try_from(row).ok()?, passages: gone.passages })
            };
            Ok(new_burials.iter().filter_map(row).collect())
        };
        shared.install(new.as_ref(), Some(&frozen), |parts| parts.len()..parts.len(), buried_since)?;
        shared.tell_needed();
        Ok(true)
    }

    /// Says again, at the end of the log, what entries of this collection did that no segment holds, so that the log can
    /// be cut. Whether there was anything.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub(crate) fn carry_forward(&self) -> Result<bool, StoreError> {
        let shared = &self.0;
        shared.check_open()?;
        let _turn = shared.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let (growing, carried) = {
            let state = shared.write_state();
            if state.frozen.is_some() || state.growing.is_empty() {
                return Ok(false);
            }
            let content = state.growing.begin_carrying();
            let (puts, buried) = (content.puts, content.buried);
            let requests = shared.remembered(content.requests);
            let base = shared.covered.load(Ordering::SeqCst);
            let reserved = shared.reserved.load(Ordering::SeqCst);
            let (as_of, next) = (state.sequence, state.next);
            let carried = Carried { base, as_of, next, puts, buried, requests, reserved };
            (Arc::clone(&state.growing), carried)
        };
        let (kind, payload) = carried.encode();
        let entry =
            Entry::Carried(Carried { as_of: carried.as_of, next: carried.next, ..Carried::default() });
        let (answered, answer) = std::sync::mpsc::sync_channel(1);
        let done = {
            let shared = Arc::clone(shared);
            move |result: Result<u64, StoreError>| {
                // It holds nothing that is not in memory already.
                let _ = answered.send(result.map(|sequence| shared.apply(sequence, &entry)));
            }
        };
        let (identity, durability) = (shared.folder.identity, Durability::Power);
        let done = Box::new(done);
        shared.log.append(Ticket { identity, kind, payload, durability, frees_room: true, done })?;
        answer.recv().unwrap_or_else(|_| Err(StoreError::io(self.dir(), super::ended())))?;
        growing.carried();
        shared.tell_needed();
        Ok(true)
    }

    /// Merges one group of segments, if there is one to be merged. How many. `stop` ends it, and nothing is left of it.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::NoHandle`]: nothing is lost, and it is tried again with the next call.
    /// [`StoreError::Corrupt`] if a segment that is merged is damaged: it stays as it is.
    pub(crate) fn merge(&self, stop: &Stop) -> Result<usize, StoreError> {
        let sizes: Vec<Size> = self.0.read_state().parts.iter().map(Size::of).collect();
        let Some(group) = due(&sizes, self.0.options.segments_max) else { return Ok(0) };
        self.0.check_room(sizes[group.clone()].iter().map(|size| size.bytes).sum())?;
        self.merge_group(group, stop)
    }

    /// Removes the files of segments that others took the place of, as far as nobody reads them. What cannot be removed
    /// is tried again with the next [`Store::tidy`], which tells.
    pub(crate) fn free_room(&self) {
        if self.0.check_open().is_ok() {
            let _ = self.0.remove_retired();
        }
    }

    /// Merges all segments into one, and what is dead goes. How many there were.
    ///
    /// # Errors
    /// As [`Store::merge`].
    #[cfg(test)]
    pub(crate) fn merge_all(&self, stop: &Stop) -> Result<usize, StoreError> {
        let count = self.0.read_state().parts.len();
        self.merge_group(0..count, stop)
    }

    fn merge_group(&self, group: Range<usize>, stop: &Stop) -> Result<usize, StoreError> {
        let shared = &self.0;
        shared.check_open()?;
        let _turn = shared.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let sources: Vec<Part> = {
            let state = shared.read_state();
            // Another merge may have been faster; whatever lies there now may be merged as well.
            let Some(sources) = state.parts.get(group).filter(|parts| !parts.is_empty()) else {
                return Ok(0);
            };
            sources.to_vec()
        };
        let number = shared.begin_segment();
        let merged = Sealed::merge(&shared.folder, number, &sources, stop);
        let new = match merged {
            Ok(Merged::Segment(new)) => Some(new),
            Ok(Merged::Nothing) => {
                shared.abandon(number);
                None
            }
            Ok(Merged::Stopped) => {
                shared.abandon(number);
                return Ok(0);
            }
            Err(error) => {
                shared.abandon(number);
                return Err(error);
            }
        };
        let place = |parts: &[Part]| {
            let first = sources[0].sealed.number();
            let at = parts.iter().position(|part| part.sealed.number() == first);
            let at = at.expect("only merges take segments away, one at a time");
            at..at + sources.len()
        };
        // Rows of the new segment whose documents were buried since the call before.
        let mut known: Vec<Arc<RoaringBitmap>> =
            sources.iter().map(|part| Arc::clone(&part.deleted)).collect();
        let buried_since = |parts: &[Part]| {
            let mut rows = Vec::new();
            for (known, now) in known.iter_mut().zip(&parts[place(parts)]) {
                for row in &*now.deleted - &**known {
                    let number = now.sealed.number_of(row)?;
                    if let Some(new) = &new
                        && let Some(row) = new.row(number)?
                    {
                        rows.push(Row { row, passages: new.passages_of(row)? });
                    }
                }
                known.clone_from(&now.deleted);
            }
            Ok(rows)
        };
        shared.install(new.as_ref(), None, place, buried_since)?;
        let count = sources.len();
        drop((sources, known));
        shared.remove_retired()?;
        Ok(count)
    }
}

impl Shared {
    /// Refuses a merge for which there is no room, before it takes what little there is from those who write.
    fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let dir = &self.folder.dir;
        let needed = bytes + bytes / 4 + ROOM_BYTES_LEAST;
        match self.folder.disk.available(dir) {
            Ok(free) if free < needed => Err(StoreError::DiskFull { path: dir.clone() }),
            // Where nobody can tell, the writing does.
            _ => Ok(()),
        }
    }

    /// The number of a new segment. Until it is in place or abandoned, every manifest says that it may be removed.
    fn begin_segment(&self) -> u32 {
        let mut kept = self.lock_kept();
        let number = kept.next_segment;
        kept.next_segment += 1;
        kept.building.push(number);
        number
    }

    /// A segment that was begun will never be: its files go, now or later.
    fn abandon(&self, number: u32) {
        self.abandon_in(&mut self.lock_kept(), number);
    }

    fn abandon_in(&self, kept: &mut Kept, number: u32) {
        kept.building.retain(|building| *building != number);
        if let Err(error) = self.folder.remove_segment(number) {
            tracing::warn!(dir = %self.folder.dir.display(), number, %error, "an unfinished segment cannot be removed; the next opening does it");
        }
        if !kept.manifest.removable.contains(&number) {
            kept.manifest.removable.push(number);
        }
    }

    /// Puts `new` in place of the parts of `place` and, if `frozen` is what it was made of, in place of that: files of
    /// deletions first, then the manifest, then the memory. `buried_since` tells which documents of `new` were buried
    /// since it was asked before. Where it cannot be done, `new` is abandoned.
    fn install(
        &self,
        new: Option<&Arc<Sealed>>,
        frozen: Option<&Frozen>,
        place: impl Fn(&[Part]) -> Range<usize>,
        mut buried_since: impl FnMut(&[Part]) -> Result<Vec<Row>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut kept = self.lock_kept();
        let prepared = self.prepare(&kept, new, frozen, &place, &mut buried_since);
        let written = prepared.and_then(|prepared| {
            prepared.manifest.write(&*self.folder.disk, &self.folder.dir, self.folder.identity)?;
            Ok(prepared)
        });
        let Prepared { mut parts, gone, manifest } = match written {
            Ok(prepared) => prepared,
            Err(error @ StoreError::Unsettled { .. }) => {
                // Either manifest may be the one that the next start finds. Both are true as long as no file goes.
                self.fail(&error.to_string());
                return Err(error);
            }
            Err(error) => {
                if let Some(new) = new {
                    self.abandon_in(&mut kept, new.number());
                }
                return Err(error);
            }
        };
        kept.building.retain(|number| manifest.segments.iter().all(|segment| segment.number != *number));
        self.covered.store(manifest.covered, Ordering::SeqCst);
        kept.manifest = manifest;
        {
            let mut state = self.write_state();
            // What was buried while files were written.
            let rows = match buried_since(&state.parts) {
                Ok(rows) => rows,
                Err(error) => {
                    // The memory stays as it is, and so do the files that it names.
                    self.fail(&format!("a document that is buried cannot be found: {error}"));
                    return Err(error);
                }
            };
            for part in &mut parts {
                let number = part.sealed.number();
                if new.is_some_and(|new| new.number() == number) {
                    part.delete(&rows);
                } else if let Some(now) = state.parts.iter().find(|now| now.sealed.number() == number) {
                    part.deleted = Arc::clone(&now.deleted);
                    part.live_passages = now.live_passages;
                }
            }
            state.replace(parts);
            if frozen.is_some() {
                state.frozen = None;
            }
        }
        drop(kept);
        for part in &gone {
            part.sealed.retire();
        }
        Ok(())
    }

    /// What [`Shared::install`] writes and puts in place.
    fn prepare(
        &self,
        kept: &Kept,
        new: Option<&Arc<Sealed>>,
        frozen: Option<&Frozen>,
        place: &impl Fn(&[Part]) -> Range<usize>,
        buried_since: &mut impl FnMut(&[Part]) -> Result<Vec<Row>, StoreError>,
    ) -> Result<Prepared, StoreError> {
        let (before, sequence) = {
            let state = self.read_state();
            (Arc::clone(&state.parts), state.sequence)
        };
        let done = self.lock_requests().all();
        // What is put down here was applied before, and must not be lost with the power.
        self.log.sync()?;
        if let Some(frozen) = frozen
            && (!done.is_empty() || kept.manifest.requests > 0)
        {
            requests::write(
                &*self.folder.disk,
                &self.folder.dir,
                self.folder.identity,
                frozen.covered,
                &done,
            )?;
        }
        let mut parts = before.to_vec();
        let rows = buried_since(&before)?;
        let new_part = new.map(|sealed| {
            let mut part = Part::new(Arc::clone(sealed));
            part.delete(&rows);
            part
        });
        let gone: Vec<Part> = parts.splice(place(&before), new_part).collect();
        for part in &mut parts {
            let number = part.sealed.number();
            // Deletions of entries that are covered from now on must be in files, and those of segments that go.
            let needed = frozen.is_some() || new.is_some_and(|new| new.number() == number);
            if needed && part.is_unsaved() {
                let version = part.saved.version + 1;
                part.sealed.save_deletions(&self.folder, version, sequence, &part.deleted)?;
                part.saved =
                    Saved { version, deleted: part.deleted.len(), live_passages: part.live_passages };
            }
        }
        let mut manifest = kept.manifest.clone();
        manifest.segments = parts.iter().map(Named::of).collect();
        manifest.next_segment = kept.next_segment;
        if let Some(frozen) = frozen {
            manifest.covered = frozen.covered;
            manifest.next_number = frozen.next;
            if !done.is_empty() || manifest.requests > 0 {
                manifest.requests = frozen.covered;
            }
            let reserved = self.reserved.load(Ordering::SeqCst);
            manifest.reserved = if reserved > frozen.next { reserved } else { 0 };
        }
        let in_place: BTreeSet<u32> = manifest.segments.iter().map(|segment| segment.number).collect();
        manifest.removable.extend(gone.iter().map(|part| part.sealed.number()));
        manifest.removable.extend(&kept.building);
        manifest.removable.retain(|number| !in_place.contains(number));
        manifest.removable.sort_unstable();
        manifest.removable.dedup();
        Ok(Prepared { parts, gone, manifest })
    }

    /// Removes the files of segments that others took the place of and that no snapshot holds any more.
    pub(super) fn remove_retired(&self) -> Result<(), StoreError> {
        loop {
            let Some(number) = self.folder.next_retired() else { return Ok(()) };
            let removed = self.folder.remove_segment(number);
            if removed.is_err() {
                self.folder.still_retired(number);
            }
            removed?;
            self.lock_kept().manifest.removable.retain(|removable| *removable != number);
        }
    }
}

impl Named {
    pub(super) fn of(part: &Part) -> Self {
        let sealed = &part.sealed;
        Named {
            number: sealed.number(),
            rows: sealed.rows(),
            passages: sealed.passages(),
            first: sealed.first(),
            last: sealed.last(),
            deletions: part.saved.version,
            live: sealed.rows()
                - u32::try_from(part.saved.deleted).expect("no more are deleted than there are"),
            live_passages: part.saved.live_passages,
            bytes: sealed.bytes(),
        }
    }
}

/// What is to be put in place.
struct Prepared {
    parts: Vec<Part>,
    /// Parts that others take the place of.
    gone: Vec<Part>,
    manifest: Manifest,
}

/// What decides whether a segment is merged.
#[derive(Debug, Clone, Copy)]
struct Size {
    bytes: u64,
    rows: u64,
    dead: u64,
}

impl Size {
    fn of(part: &Part) -> Self {
        let (bytes, rows, dead) = (part.sealed.bytes(), u64::from(part.sealed.rows()), part.deleted.len());
        Size { bytes: bytes / rows.max(1) * (rows - dead), rows, dead }
    }

    /// Bytes of what lives, for comparing.
    fn weight(self) -> u64 {
        self.bytes.max(TIER_BYTES_LEAST)
    }
}

/// The neighbours that are to be merged next.
fn due(sizes: &[Size], segments_max: usize) -> Option<Range<usize>> {
    for first in 0..sizes.len() {
        let (mut least, mut most) = (u64::MAX, 0);
        let alike = sizes[first..].iter().take(TIER_MOST).take_while(|size| {
            (least, most) = (least.min(size.weight()), most.max(size.weight()));
            most <= least.saturating_mul(TIER_RATIO)
        });
        let count = alike.count();
        if count >= TIER_LEAST {
            return Some(first..first + count);
        }
    }
    if let Some(at) = sizes.iter().position(|size| size.dead > 0 && size.dead * DEAD_SHARE >= size.rows) {
        return Some(at..at + 1);
    }
    let pairs = || (1..sizes.len()).map(|at| (sizes[at - 1].bytes + sizes[at].bytes, at));
    (sizes.len() > segments_max).then(|| pairs().min().map(|(_, at)| at - 1..at + 1)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sizes(mib: &[u64]) -> Vec<Size> {
        mib.iter().map(|mib| Size { bytes: mib * MIB, rows: 100, dead: 0 }).collect()
    }

    #[test]
    fn neighbours_of_about_the_same_size_are_merged_and_so_is_what_is_mostly_dead() {
        for (mib, expected) in [
            (vec![], None),
            (vec![64, 64, 64], None),
            (vec![64, 64, 64, 64], Some(0..4)),
            (vec![1000, 64, 64, 30, 64], Some(1..5)),
            (vec![1000, 64, 64, 1000, 64, 64], None),
            // However small, they are of one tier.
            (vec![1000, 0, 1, 3, 2], Some(1..5)),
            (vec![64; 20], Some(0..8)),
        ] {
            assert_eq!(due(&sizes(&mib), 10), expected, "{mib:?}");
        }
        assert_eq!(due(&sizes(&[1000, 64, 7, 1000, 64, 7]), 5), Some(1..3));
        let mut some_dead = sizes(&[64, 500]);
        some_dead[1].dead = 33;
        assert_eq!(due(&some_dead, 10), None);
        some_dead[1].dead = 34;
        assert_eq!(due(&some_dead, 10), Some(1..2));
    }

    /// Every document is written again only a few times, however many segments come.
    #[test]
    fn many_segments_become_few_at_little_cost() {
        let (mut segments, mut written) = (Vec::new(), 0);
        for _ in 0..1000 {
            segments.append(&mut sizes(&[64]));
            while let Some(group) = due(&segments, 10) {
                let bytes: u64 = segments[group.clone()].iter().map(|size| size.bytes).sum();
                written += bytes;
                segments.splice(group, sizes(&[bytes / MIB]));
            }
            assert!(segments.len() <= 13, "{}", segments.len());
        }
        assert!(written <= 6 * 1000 * 64 * MIB, "{} times", written / (1000 * 64 * MIB));
    }
}
