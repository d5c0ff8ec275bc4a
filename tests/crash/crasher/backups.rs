//! A client that makes backups and restores some, and what must be true of them after a kill.
//!
//! Of each backup it is known what was acknowledged before it was asked for, and what was sent by its end. Documents that
//! nobody wrote in between are in it just as they were; of the others there is the state of before or a later one. Those
//! that were answered must be there after any kill; every other one that is there must be whole too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use distilface::{
    engine::verify_backup,
    proto::{
        CreateBackupRequest, DeleteCollectionRequest, ListBackupsRequest, RestoreBackupRequest, ScrollRequest,
    },
    rpc::{
        backups_client::BackupsClient, collections_client::CollectionsClient,
        documents_client::DocumentsClient,
    },
    stop::Stop,
};
use tonic::{Code, Status, transport::Channel};

use super::{
    clients::{Place, Shared},
    hot,
    oracle::{Stored, Version},
};
use crate::Random;

/// What is restored while others work.
const BESIDE: &str = "restored-beside";
/// What is restored to be looked at.
const LOOKED_AT: &str = "restored-to-look";
/// Backups that are kept at a time.
const KEPT: usize = 4;
const MESSAGE_BYTES: usize = 64 << 20;

/// What is known of the documents of a collection at some time.
#[derive(Debug, Clone, Default)]
struct Known {
    stored: BTreeMap<String, Stored>,
    /// Some request for them is under way.
    pending: BTreeSet<String>,
    /// How many requests for each were sent: one that came and went in between leaves no other trace.
    sent: BTreeMap<String, u64>,
}

impl Known {
    fn of(place: &Place) -> Self {
        let oracle = place.oracle.lock().unwrap();
        let (stored, pending) = oracle.known();
        Known { stored: stored.clone(), pending, sent: oracle.sent().clone() }
    }
}

/// A backup that was answered: for each place what was known before and after.
#[derive(Debug)]
struct Made {
    name: String,
    before: Vec<Known>,
    after: Vec<Known>,
}

/// Backups over all rounds.
#[derive(Debug, Default)]
pub(crate) struct Backups {
    made: Vec<Made>,
    next: u64,
    /// How many were made, looked at and restored.
    pub(crate) counts: (u64, u64, u64),
}

pub(crate) struct Backer {
    random: Random,
    shared: Arc<Shared>,
    backups: Arc<Mutex<Backups>>,
    /// Where the server keeps them.
    folder: PathBuf,
    client: BackupsClient<Channel>,
    collections: CollectionsClient<Channel>,
    documents: DocumentsClient<Channel>,
}

fn what(what: &str) -> String {
    format!("the client of backups {what}")
}

impl Backer {
    pub(crate) fn new(
        seed: u64,
        round: u64,
        shared: &Arc<Shared>,
        backups: &Arc<Mutex<Backups>>,
        folder: &Path,
        channel: Channel,
    ) -> Self {
        Backer {
            random: Random(seed ^ (round << 32) ^ 0xbac_c0b5),
            shared: Arc::clone(shared),
            backups: Arc::clone(backups),
            folder: folder.to_owned(),
            client: BackupsClient::new(channel.clone()),
            collections: CollectionsClient::new(channel.clone()),
            documents: DocumentsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES),
        }
    }

    fn expect(&self, holds: bool, fault: impl FnOnce() -> String) {
        self.shared.check(1);
        if !holds {
            self.shared.fault(what(&fault()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Backups> {
        self.backups.lock().unwrap()
    }

    /// Works until an answer is none that it may get, or does not come.
    pub(crate) async fn work(mut self) -> Status {
        loop {
            let done = match self.random.below(3) {
                0 => self.restore_beside().await,
                _ => self.make().await,
            };
            if let Err(status) = done {
                return status;
            }
        }
    }

    async fn make(&mut self) -> Result<(), Status> {
        let name = {
            let mut backups = self.lock();
            backups.next += 1;
            format!("b{}", backups.next)
        };
        let known = |shared: &Shared| shared.places.iter().map(Known::of).collect::<Vec<_>>();
        let before = known(&self.shared);
        let call = CreateBackupRequest {
            name: name.clone(),
            copy: self.random.below(3) == 0,
            ..CreateBackupRequest::default()
        };
        self.shared.watch.call(what("makes one"), self.client.create(call)).await?;
        let after = known(&self.shared);
        let mut backups = self.lock();
        backups.counts.0 += 1;
        backups.made.push(Made { name, before, after });
        if backups.made.len() > KEPT {
            let old = backups.made.remove(0);
            // A user does it the same way.
            std::fs::remove_dir_all(self.folder.join(old.name)).unwrap();
        }
        Ok(())
    }

    /// Restores one while everybody works, and deletes it again.
    async fn restore_beside(&mut self) -> Result<(), Status> {
        let Some(name) = self.any_made() else { return Ok(()) };
        let place = self.random.below(self.shared.places.len() as u64) as usize;
        let collection = self.shared.places[place].shape.name;
        self.drop_collection(BESIDE).await?;
        let call = RestoreBackupRequest {
            name,
            collection: collection.into(),
            rename: BESIDE.into(),
            aliases: false,
        };
        self.shared.watch.call(what("restores one"), self.client.restore(call)).await?;
        self.drop_collection(BESIDE).await
    }

    fn any_made(&mut self) -> Option<String> {
        let backups = self.backups.lock().unwrap();
        let count = backups.made.len() as u64;
        (count > 0).then(|| backups.made[self.random.below(count) as usize].name.clone())
    }

    /// Deletes a collection if it is there.
    async fn drop_collection(&mut self, name: &str) -> Result<(), Status> {
        let call = DeleteCollectionRequest { name: name.into() };
        match self.shared.watch.call(what("deletes one"), self.collections.delete(call)).await {
            Err(status) if status.code() != Code::NotFound => Err(status),
            _ => Ok(()),
        }
    }

    /// The look after a restart, while nobody writes: every backup is whole, and one is restored.
    pub(crate) async fn look(&mut self) -> Result<(), Status> {
        for name in [BESIDE, LOOKED_AT] {
            self.drop_collection(name).await?;
        }
        let listed = self.client.list(ListBackupsRequest {}).await?.into_inner().backups;
        let names: BTreeSet<String> = listed.iter().map(|backup| backup.name.clone()).collect();
        for backup in &listed {
            self.expect(backup.damage.is_empty(), || format!("finds a damaged list: {backup:?}"));
            let dir = self.folder.join(&backup.name);
            let verified =
                tokio::task::spawn_blocking(move || verify_backup(&dir, &Stop::default(), |_, _| ()));
            let verified = verified.await.unwrap();
            let is_whole = verified.as_ref().is_ok_and(|verified| verified.whole);
            self.expect(is_whole, || format!("finds {} damaged: {verified:?}", backup.name));
        }
        let lost: Vec<String> = {
            let mut backups = self.lock();
            backups.counts.1 += listed.len() as u64;
            let made = backups.made.iter().map(|made| made.name.clone());
            made.filter(|name| !names.contains(name)).collect()
        };
        self.expect(lost.is_empty(), || format!("misses {lost:?} of those that were answered"));
        // Those that were not answered are as whole as others; nobody knows what must be in them.
        let made: BTreeSet<String> = self.lock().made.iter().map(|made| made.name.clone()).collect();
        for name in names.difference(&made) {
            std::fs::remove_dir_all(self.folder.join(name)).unwrap();
        }
        let Some(name) = self.any_made() else { return Ok(()) };
        let place = self.random.below(self.shared.places.len() as u64) as usize;
        self.look_at(&name, place).await?;
        self.drop_collection(LOOKED_AT).await
    }

    /// Restores a collection of a backup, and holds it against what was known.
    async fn look_at(&mut self, name: &str, number: usize) -> Result<(), Status> {
        let shared = Arc::clone(&self.shared);
        let shape = shared.places[number].shape;
        let call = RestoreBackupRequest {
            name: name.into(),
            collection: shape.name.into(),
            rename: LOOKED_AT.into(),
            aliases: false,
        };
        self.shared.watch.call(what("restores one to look at it"), self.client.restore(call)).await?;
        let mut found = BTreeMap::new();
        let mut call = ScrollRequest {
            collection: LOOKED_AT.into(),
            limit: 500,
            with_vectors: true,
            ..Default::default()
        };
        loop {
            let page = self.documents.scroll(call.clone()).await?.into_inner();
            for stored in &page.documents {
                match shape.found(stored, true) {
                    Ok(one) if found.contains_key(&one.id) => {
                        self.expect(false, || format!("finds {} twice in {name}", one.id));
                    }
                    Ok(one) => _ = found.insert(one.id.clone(), one),
                    Err(fault) => self.expect(false, || format!("in {name}: {fault}")),
                }
            }
            call.cursor = page.next_cursor;
            if call.cursor.is_empty() {
                break;
            }
        }
        let mut faults = Vec::new();
        {
            let mut backups = self.lock();
            backups.counts.2 += 1;
            let Some(made) = backups.made.iter().find(|made| made.name == name) else { return Ok(()) };
            let (before, after) = (&made.before[number], &made.after[number]);
            let ids: BTreeSet<&String> =
                before.stored.keys().chain(after.stored.keys()).chain(found.keys()).collect();
            for id in ids.into_iter().filter(|id| !hot::is_hot(id)) {
                let (was, is) = (before.stored.get(id), found.get(id));
                let is_quiet = before.sent.get(id) == after.sent.get(id) && !before.pending.contains(id);
                let fits = match (was, is) {
                    (None, None) => true,
                    (Some(was), Some(is)) => {
                        let same = was.content == is.content;
                        match was.version {
                            Version::Told(version) if is_quiet => same && is.version == version,
                            Version::Told(version) => is.version >= version && (same || is.version > version),
                            Version::After(version) => is.version > version && (same || !is_quiet),
                        }
                    }
                    _ => !is_quiet,
                };
                if !fits {
                    faults.push(format!(
                        "in {name}, {}: {id} is {is:?}; it was {was:?} before, and {:?} after",
                        shape.name,
                        after.stored.get(id)
                    ));
                }
            }
        }
        self.shared.check(found.len());
        faults.into_iter().take(5).for_each(|fault| self.shared.fault(what(&fault)));
        Ok(())
    }
}
