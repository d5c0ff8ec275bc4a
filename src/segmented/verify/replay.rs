//! What the log says after the segments: documents that grew, those that are buried, and what a repair may take from it.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

use super::{Examined, Fault, LogSeen, Piece, State, twice};
use crate::{
    segmented::{
        entries::{Batch, Carried, Entry, Put},
        logs::{Entries, id_of},
        manifest::Manifest,
        sealed::Sealed,
        state::Row,
    },
    store::{StoreError, body::Body},
    value::PointId,
};

/// Ids of which it is told that they are there twice.
const TWICE_TOLD_MAX: usize = 100;

/// A document that no segment holds.
#[derive(Debug)]
pub(in crate::segmented) struct Grown {
    pub(in crate::segmented) id: PointId,
    pub(in crate::segmented) passages: u32,
    /// All of it, where it is wanted.
    pub(in crate::segmented) put: Option<Arc<Put>>,
}

/// What entries of the log say.
#[derive(Debug, Default)]
pub(in crate::segmented) struct Replay {
    /// Segments hold everything up to this entry.
    pub(in crate::segmented) covered: u64,
    /// Documents that no segment holds and that are not buried, by number.
    pub(in crate::segmented) grown: BTreeMap<u64, Grown>,
    /// Documents of segments that were asked for.
    pub(in crate::segmented) rescued: BTreeMap<u64, Arc<Put>>,
    /// Documents that are buried, with their passages.
    pub(in crate::segmented) buried: BTreeMap<u64, u32>,
    /// Every document number given out is below, as far as is known.
    pub(in crate::segmented) next: u64,
    /// Documents that this folder's log has and that are of no use, since the segments belong to another log.
    pub(in crate::segmented) strangers: BTreeMap<u64, PointId>,
    /// Entries, or documents of entries, that mean nothing: what is wrong with them.
    pub(in crate::segmented) unread: Vec<String>,
    /// Entries were written with segments of a later time than these.
    is_ahead: bool,
}

impl Examined<'_> {
    /// What the log says after the manifest. With `keeps` whole documents are kept; and of what it says before, documents
    /// that are `wanted`, and all that are buried.
    pub(in crate::segmented) fn replay(
        &mut self,
        log: &LogSeen,
        wanted: &dyn Fn(u64) -> bool,
        keeps: bool,
    ) -> Result<Replay, StoreError> {
        let Some(identity) = self.identity else { return Ok(Replay::default()) };
        let covered = self.covered();
        let after_pieces = self.pieces.last().map_or(0, |piece| piece.named.last + 1);
        let sealed_next = self.manifest.as_ref().map_or(after_pieces, |manifest| manifest.next_number);
        let mut replay = Replay { covered, next: sealed_next, ..Replay::default() };
        let Some(of) = log.collections.get(&id_of(identity)) else { return Ok(replay) };
        let mut buried_grown = HashSet::new();
        for read in Entries::new(&self.disk, of.places.iter().cloned()) {
            self.check_stop()?;
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    self.note_store(error)?;
                    continue;
                }
            };
            let is_needed = read.sequence > covered;
            let dimension = self.known.space.dim.as_u32();
            let entry = match Entry::decode(read.kind, &read.bytes, dimension, &read.path) {
                Ok(entry) => entry,
                Err(error) => {
                    let what = format!("entry {} means nothing: {error}", read.sequence);
                    if is_needed {
                        self.note_store(error)?;
                        replay.unread.push(what);
                    } else {
                        self.notes.push(format!("{what}; segments hold what it said"));
                    }
                    continue;
                }
            };
            if let Some(reason) = entry.refuses(covered).filter(|_| is_needed && !replay.is_ahead) {
                replay.is_ahead = true;
                self.faults.push(Fault::repairable(&Manifest::path(&self.known.dir), None, reason));
            }
            if self.is_of_other_log {
                // The numbers are those of another history.
                let (Entry::Batch(Batch { puts, buried, .. }) | Entry::Carried(Carried { puts, buried, .. })) =
                    entry;
                let ids = puts.iter().filter_map(|put| Some((put.number, id_of_put(put, &read.path).ok()?)));
                replay.strangers.extend(ids);
                buried.iter().for_each(|gone| _ = replay.strangers.remove(&gone.number));
                continue;
            }
            let (puts, buried) = match entry {
                Entry::Batch(Batch { puts, buried, mut requests, reserved, .. }) => {
                    self.requests.append(&mut requests);
                    self.reserved = self.reserved.max(reserved);
                    (puts, buried)
                }
                Entry::Carried(Carried { next, puts, buried, mut requests, reserved, .. }) => {
                    self.requests.append(&mut requests);
                    self.reserved = self.reserved.max(reserved);
                    replay.next = replay.next.max(next);
                    (puts, buried)
                }
            };
            for put in puts {
                let number = put.number;
                replay.next = replay.next.max(number.saturating_add(1));
                let is_rescued = number < sealed_next && wanted(number);
                let is_grown = number >= sealed_next && is_needed;
                if !is_rescued && !is_grown {
                    continue;
                }
                match id_of_put(&put, &read.path) {
                    Ok(_) if is_rescued => {
                        // An entry that carries forward may come after the one that buries.
                        if !replay.buried.contains_key(&number) {
                            replay.rescued.insert(number, put);
                        }
                    }
                    Ok(_) if buried_grown.contains(&number) => {}
                    Ok(id) => {
                        let passages = put.passages;
                        replay.grown.insert(number, Grown { id, passages, put: keeps.then_some(put) });
                    }
                    Err(error) => {
                        let what =
                            format!("document {number} of entry {} means nothing: {error}", read.sequence);
                        self.note_store(error)?;
                        replay.unread.push(what);
                    }
                }
            }
            for gone in buried {
                replay.grown.remove(&gone.number);
                replay.rescued.remove(&gone.number);
                if gone.number >= sealed_next {
                    buried_grown.insert(gone.number);
                } else if is_needed || keeps {
                    replay.buried.insert(gone.number, gone.passages);
                }
            }
        }
        Ok(replay)
    }

    /// Marks documents of whole segments that entries of the log bury.
    pub(in crate::segmented) fn bury(&mut self, replay: &Replay) -> Result<(), StoreError> {
        for number in replay.buried.keys() {
            let at = self.pieces.partition_point(|piece| piece.named.last < *number);
            let Some(Piece { state: State::Whole(part), .. }) = self.pieces.get_mut(at) else { continue };
            if let Some(row) = part.sealed.row(*number)? {
                let passages = part.sealed.passages_of(row)?;
                part.delete(&[Row { row, passages }]);
            }
        }
        Ok(())
    }

    /// Says which ids are there twice.
    pub(in crate::segmented) fn find_twice(&mut self, replay: &Replay) -> Result<(), StoreError> {
        let mut sources = Vec::new();
        let mut numbers: Vec<Option<&Sealed>> = Vec::new();
        for piece in &self.pieces {
            if let State::Whole(part) = &piece.state {
                sources.push(twice::ids_of(part.sealed.segment(), &part.deleted)?);
                numbers.push(Some(&part.sealed));
            }
        }
        let mut grown: Vec<_> =
            replay.grown.iter().map(|(number, grown)| (grown.id.clone(), *number)).collect();
        grown.sort();
        sources.push(Box::new(grown.into_iter().map(Ok)));
        numbers.push(None);
        let mut found = Vec::new();
        let mut more = 0u64;
        let searched = twice::find(sources, &self.stop, |id, places| {
            if found.len() == TWICE_TOLD_MAX {
                more += 1;
                return;
            }
            let number = |(source, at): &(usize, u64)| match numbers[*source] {
                Some(sealed) => sealed.number_of(u32::try_from(*at).unwrap_or(u32::MAX)).unwrap_or(0),
                None => *at,
            };
            let numbers: Vec<String> = places.iter().map(|place| number(place).to_string()).collect();
            found.push(format!(
                "document {id:?} is there {} times, under the numbers {}",
                places.len(),
                numbers.join(", "),
                id = id.as_str()
            ));
        });
        searched.map_err(StoreError::from)?;
        let dir = &self.known.dir;
        self.faults.extend(found.into_iter().map(|reason| Fault::repairable(dir, None, reason)));
        if more > 0 {
            self.faults.push(Fault::repairable(
                dir,
                None,
                format!("{more} more ids are there several times"),
            ));
        }
        Ok(())
    }
}

/// The id of a document of the log, if it can be sealed.
pub(in crate::segmented) fn id_of_put(put: &Put, path: &Path) -> Result<PointId, StoreError> {
    let body = Body::decode(&put.body, path)?;
    let text = put.text(path)?;
    let fits = body.passages.len() == put.passages as usize
        && body.passages.iter().all(|range| text.get(range.start as usize..range.end as usize).is_some());
    if fits {
        return Ok(body.id);
    }
    let reason = format!("document {} has not one passage of its text for each vector", put.number);
    Err(StoreError::corrupt(path, reason))
}
