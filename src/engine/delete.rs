//! Documents deleted: by id, or all that match a filter.

use std::{collections::HashSet, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Caller, Engine, Target,
    error::Result,
    once::{self, Asked},
    payload::ATTEMPTS,
};
use crate::{
    collection::{CollectionError, Condition, Outcome, Write, WriteOptions, Written},
    value::{PointId, filter::Filter},
};

/// Ids deleted in one step of a deletion by filter.
const DELETE_IDS_STEP: usize = 1024;

impl Engine {
    /// Deletes documents by id and answers how many of them existed. All are deleted or none: one that has not the
    /// version that its target expects, or that is not there though a version is expected, refuses the call.
    ///
    /// # Errors
    /// As [`Engine::get`]; those of [`crate::collection::Condition::check`].
    pub async fn delete(&self, collection: &str, targets: Vec<Target>, caller: Caller) -> Result<u64> {
        self.check_open()?;
        let mut targets = self.targets(&targets)?;
        // One id twice is one deletion.
        targets.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        targets.dedup();
        let open = Arc::clone(self.names().now().find(collection)?);
        let backend = self.backend(&open);
        let mut call = None;
        if let Some(request) = caller.request {
            let mut asked = Asked::of("delete");
            for (id, condition) in &targets {
                asked.feed(id.as_str().as_bytes());
                asked.feed_condition(*condition);
            }
            let (begun, done) = self.begin_once(&open, &*backend, request, asked.hash(), caller).await?;
            if let Some(done) = done {
                return Ok(deleted_of(&done.written));
            }
            call = Some(begun);
        }
        let deletions =
            targets.into_iter().map(|(id, condition)| Write::DeleteIf { id, condition }).collect();
        let once = call.as_mut().map(|call| call.step(&()));
        let options = WriteOptions { durability: caller.durability, once, ..WriteOptions::default() };
        match backend.write_with(deletions, options).await {
            Ok(written) => Ok(deleted_of(&written)),
            // The same call came before, and its caller had gone.
            Err(error) => once::found_done(&error).map(|done| deleted_of(&done.written)).ok_or(error),
        }
    }

    /// Deletes the documents that match when the call begins, and answers how many they were. One that matches no more
    /// when its turn comes stays. It works in steps, so after a failure a part may be deleted.
    ///
    /// # Errors
    /// [`super::EngineError::NoCollection`]; filter and store errors; `CollectionError::Changed` for a document that
    /// others kept changing.
    pub async fn delete_matching(&self, collection: &str, filter: Filter, caller: Caller) -> Result<u64> {
        for _ in 1..ATTEMPTS {
            match self.delete_once(collection, filter.clone(), caller).await {
                // The same call came before, and its caller had gone: it goes on after what that did.
                Err(error) if once::found_done(&error).is_some() => {}
                result => return result,
            }
        }
        self.delete_once(collection, filter, caller).await
    }

    async fn delete_once(&self, collection: &str, filter: Filter, caller: Caller) -> Result<u64> {
        self.check_open()?;
        let open = Arc::clone(self.names().now().find(collection)?);
        let backend = self.backend(&open);
        let mut call = None;
        let mut deleted = 0;
        if let Some(request) = caller.request {
            let mut asked = Asked::of("delete_matching");
            asked.feed(filter.to_string().as_bytes());
            let (begun, done) = self.begin_once(&open, &*backend, request, asked.hash(), caller).await?;
            call = Some(begun);
            if let Some(done) = done {
                let step: Step = once::note_of(&done, caller)?;
                deleted = step.before + deleted_of(&done.written);
                if step.is_last && done.written.iter().all(|written| written.outcome != Outcome::Refused) {
                    return Ok(deleted);
                }
            }
        }
        let mut left = backend.ids(filter.clone()).await?;
        for _ in 0..ATTEMPTS {
            if left.is_empty() {
                if let Some(call) = &mut call {
                    let once = Some(call.step(&Step { before: deleted, is_last: true }));
                    let options =
                        WriteOptions { durability: caller.durability, once, ..WriteOptions::default() };
                    backend.write_with(Vec::new(), options).await?;
                } else {
                    // That they are gone may not be durable yet.
                    once::settle(&*backend, caller.durability).await?;
                }
                return Ok(deleted);
            }
            // In this order: a document that has the version still, when it is deleted, is the one that matched.
            let revisions = backend.revisions(left.clone()).await?;
            let matching: HashSet<PointId> = backend.ids(filter.clone()).await?.into_iter().collect();
            let found = left.into_iter().zip(revisions).filter(|(id, _)| matching.contains(id));
            let found: Vec<(PointId, u64)> =
                found.filter_map(|(id, revision)| Some((id, revision?.version))).collect();
            left = Vec::new();
            let mut is_noted = false;
            let chunks = found.len().div_ceil(DELETE_IDS_STEP);
            for (n, some) in found.chunks(DELETE_IDS_STEP).enumerate() {
                let deletions = some.iter().map(|(id, version)| Write::DeleteIf {
                    id: id.clone(),
                    condition: Condition::Version(*version),
                });
                // One that was refused is looked at again, and so is not the last of it.
                let is_last = n + 1 == chunks && left.is_empty();
                let once = call.as_mut().map(|call| call.step(&Step { before: deleted, is_last }));
                is_noted = is_last && once.is_some();
                let options = WriteOptions { each: true, durability: caller.durability, once };
                let written = backend.write_with(deletions.collect(), options).await?;
                deleted += deleted_of(&written);
                let refused = some.iter().zip(&written).filter(|(_, w)| w.outcome == Outcome::Refused);
                left.extend(refused.map(|((id, _), _)| id.clone()));
            }
            if left.is_empty() && (is_noted || call.is_none()) {
                return Ok(deleted);
            }
        }
        match left.first() {
            Some(id) => Err(CollectionError::Changed { id: id.as_str().to_owned() }.into()),
            None => Ok(deleted),
        }
    }
}

/// What is noted of a step of a deletion by filter.
#[derive(Debug, Serialize, Deserialize)]
struct Step {
    /// Documents that steps before it deleted.
    before: u64,
    /// Nothing is left after it, unless something is refused.
    is_last: bool,
}

fn deleted_of(written: &[Written]) -> u64 {
    written.iter().filter(|written| written.outcome == Outcome::Deleted).count() as u64
}
