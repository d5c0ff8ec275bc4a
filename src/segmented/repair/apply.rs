//! Carries out what was planned: new segments are made, and then the manifest names them, at once.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Keeping,
    plan::{NewPart, Origin, Plan},
};
use crate::{
    segment::Row as SegmentRow,
    segmented::{
        entries::Put,
        manifest::{Manifest, Named},
        requests::{self, REQUESTS_MAX, Requests},
        sealed::Sealed,
        state::{Part, Saved},
        verify::{LogSeen, system},
    },
    stop::Stop,
    store::{StoreError, folder::INDEX_DIR},
};

impl Plan<'_> {
    pub(super) fn apply(self, keep: &Keeping<'_>, log: &LogSeen, stop: &Stop) -> Result<(), StoreError> {
        let Plan { mut examined, parts, covered, next_number, damaged, goes, .. } = self;
        let (Some(folder), Some(log)) = (examined.folder.take(), log.identity()) else { return Ok(()) };
        let dir = &examined.known.dir;
        for file in damaged.keys() {
            keep.link(file)?;
        }
        keep.say(dir, &damaged)?;
        // It was made of what was there before, and is made again.
        keep.away(&dir.join(INDEX_DIR))?;

        let manifest = examined.manifest.take();
        let before = manifest.as_ref().map(|manifest| manifest.next_segment);
        let mut next_segment = before.unwrap_or(1);
        let taken = examined.found.segments.iter().chain(examined.found.deleted.keys());
        for number in taken {
            next_segment = next_segment.max(u32::try_from(*number).unwrap_or(u32::MAX).saturating_add(1));
        }
        let mut segments: Vec<Named> = Vec::new();
        for part in parts {
            match part {
                NewPart::Kept(mut part) => {
                    if part.is_unsaved() {
                        let version = part.saved.version + 1;
                        part.sealed.save_deletions(&folder, version, covered, &part.deleted)?;
                        let (deleted, live_passages) = (part.deleted.len(), part.live_passages);
                        part.saved = Saved { version, deleted, live_passages };
                    }
                    segments.push(Named::of(&part));
                }
                NewPart::Made { documents, .. } if documents.is_empty() => {}
                NewPart::Made { salvage, documents } => {
                    let mut building = Sealed::begin(&folder, next_segment)?;
                    for (number, (_, origin)) in documents {
                        stop.check().map_err(|stopped| system(dir, stopped))?;
                        let put = match (origin, &salvage) {
                            (Origin::Put(put), _) => put,
                            (Origin::Row(row), Some(salvage)) => {
                                let document = salvage.read(SegmentRow(row))?;
                                let passages =
                                    u32::try_from(document.body.passages.len()).unwrap_or(u32::MAX);
                                let body = document.body.encode();
                                let vectors = document.vectors;
                                Arc::new(Put::of_vectors(number, body, &document.text, passages, vectors))
                            }
                            (Origin::Row(_), None) => continue,
                        };
                        building.push(&put)?;
                    }
                    segments.push(Named::of(&Part::new(building.finish()?)));
                    next_segment += 1;
                }
            }
        }
        let mut known = Requests::new(REQUESTS_MAX);
        examined.requests.iter().for_each(|request| known.insert(request));
        let done = known.all();
        let last = segments.last().map_or(0, |named| named.last + 1);
        let mut removable: BTreeSet<u32> =
            manifest.map(|m| m.removable.into_iter().collect()).unwrap_or_default();
        // What a repair left that was cut off is nobody's.
        // A whole segment of documents that nobody else knows is of a later time, and stays.
        let is_known = |number: u64| folder.last_of(number).is_none_or(|last| last < next_number.max(last));
        let is_left =
            |number: &&u64| before.is_some_and(|before| **number >= u64::from(before)) && is_known(**number);
        let found = examined.found.segments.iter().chain(examined.found.deleted.keys());
        let go = goes.iter().chain(found.filter(is_left));
        removable.extend(go.filter_map(|number| u32::try_from(*number).ok()));
        let manifest = Manifest {
            log,
            dimension: folder.dimension,
            covered,
            next_number: next_number.max(last),
            next_segment,
            segments,
            removable: removable.into_iter().collect(),
            requests: if done.is_empty() { 0 } else { covered },
            reserved: examined.reserved,
        };
        let file = requests::path(dir);
        if !done.is_empty() {
            requests::write(&*folder.disk, dir, folder.identity, covered, &done)?;
        } else if damaged.contains_key(&file) {
            keep.away(&file)?;
        }
        manifest.write(&*folder.disk, dir, folder.identity)?;
        tracing::info!(dir = %dir.display(), documents = manifest.documents(), "a collection was repaired");
        for number in goes.iter().filter_map(|number| u32::try_from(*number).ok()) {
            folder.remove_segment(number)?;
        }
        Ok(())
    }
}
