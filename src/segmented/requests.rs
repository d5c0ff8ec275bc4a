//! Which writing calls were done, by the ids that their callers gave them, and what came of each: a call that is sent
//! again is not done again, and is answered with what came of it.
//!
//! An entry of the log says which calls its changes are of, so a call is remembered if its changes are there, and only
//! then. What the log may let go of is in the file `requests`, which is written before the manifest that says so; it may
//! say more than the manifest needs, never less. It is the way of Kafka's producer state and Pulsar's deduplication
//! cursor: beside the data in the log, and a snapshot where the log ends.
//!
//! The oldest calls are forgotten first: by number, by memory, and by age.

use std::{
    borrow::Borrow,
    collections::{HashSet, VecDeque},
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::manifest::{framed, replace, unframed};
use crate::{
    files::disk::Disk,
    store::{
        Identity, StoreError,
        record::{decode, encode},
    },
};

/// Its name in a collection's folder.
pub(super) const REQUESTS_FILE: &str = "requests";

const BESIDE: &str = "requests.new";
const MAGIC: [u8; 8] = *b"dfreqsts";
const VERSION: u16 = 1;

/// Calls of a collection that are remembered by default.
pub(crate) const REQUESTS_MAX: usize = 100_000;

/// How long a call is remembered, in microseconds: a day.
pub(crate) const KEPT_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// Bytes of memory for calls that are remembered, for each that may be.
const BYTES_EACH: usize = 512;

/// Longest file that is read.
const BYTES_MAX: u64 = 8 << 30;

const REMEDY: &str = "`distilface repair` goes on without it, and a call of before that is sent again is done again; else put it back from a backup with the rest of its folder";

/// A call that was done, or a step of one that is done in steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// As its caller gave it.
    pub(crate) id: String,
    /// How many steps of it were done before.
    pub(crate) step: u32,
    /// Of what was asked.
    pub(crate) hash: [u8; 16],
    /// When it was done, in microseconds since 1970.
    pub(crate) at: i64,
    /// What came of it; the collection knows what it means.
    pub(crate) outcome: Vec<u8>,
}

impl Request {
    /// Bytes that it takes in memory, and about as many in the log.
    pub(super) fn bytes(&self) -> usize {
        2 * size_of::<usize>() + size_of::<Self>() + self.id.len() + self.outcome.len()
    }
}

/// A call, found by its id.
#[derive(Debug)]
struct ById(Arc<Request>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As the `str` that it is found by.
        self.0.id.hash(state);
    }
}

/// The calls that are remembered.
#[derive(Debug)]
pub(super) struct Requests {
    by_id: HashSet<ById>,
    /// In the order in which they were done; also those that a later step took the place of.
    order: VecDeque<Arc<Request>>,
    bytes: usize,
    max: usize,
}

impl Requests {
    /// None yet, and never more than `max`.
    pub(super) fn new(max: usize) -> Self {
        Requests { by_id: HashSet::new(), order: VecDeque::new(), bytes: 0, max }
    }

    /// Remembers a call that was done, in place of what was remembered under its id.
    pub(super) fn insert(&mut self, request: &Arc<Request>) {
        if let Some(ById(before)) = self.by_id.take(&*request.id) {
            self.bytes -= before.bytes();
        }
        self.bytes += request.bytes();
        self.by_id.insert(ById(Arc::clone(request)));
        self.order.push_back(Arc::clone(request));
        let newest = request.at;
        while let Some(oldest) = self.order.front() {
            let is_last = self.by_id.get(&*oldest.id).is_some_and(|ById(last)| Arc::ptr_eq(last, oldest));
            let is_too_much = self.by_id.len() > self.max || self.bytes > self.max.saturating_mul(BYTES_EACH);
            if is_last && !is_too_much && !is_over(oldest, newest) {
                break;
            }
            if is_last {
                self.by_id.remove(&*oldest.id);
                self.bytes -= oldest.bytes();
            }
            self.order.pop_front();
        }
        // Steps of one call behind one that stays.
        if self.order.len() > 2 * self.by_id.len() + 64 {
            let by_id = &self.by_id;
            self.order.retain(|one| by_id.get(&*one.id).is_some_and(|ById(last)| Arc::ptr_eq(last, one)));
        }
    }

    /// What is remembered under an id at the time `now`.
    pub(super) fn get(&self, id: &str, now: i64) -> Option<Arc<Request>> {
        let ById(request) = self.by_id.get(id)?;
        (!is_over(request, now)).then(|| Arc::clone(request))
    }

    /// Those that are remembered, in the order in which they were done.
    pub(super) fn all(&self) -> Vec<Arc<Request>> {
        let is_last =
            |one: &&Arc<Request>| self.by_id.get(&*one.id).is_some_and(|ById(last)| Arc::ptr_eq(last, one));
        self.order.iter().filter(is_last).cloned().collect()
    }

    /// Whether a call that was done is remembered still, as it was done.
    pub(super) fn has(&self, request: &Arc<Request>) -> bool {
        self.by_id.get(&*request.id).is_some_and(|ById(last)| Arc::ptr_eq(last, request))
    }
}

fn is_over(request: &Request, now: i64) -> bool {
    request.at.saturating_add(KEPT_MICROS) < now
}

/// Where the file lies in a collection's folder.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(REQUESTS_FILE)
}

/// Puts the file in place, durably. It holds what entries of the log up to `as_of` say, and may hold more.
///
/// # Errors
/// As [`super::manifest::Manifest::write`].
pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    identity: Identity,
    as_of: u64,
    requests: &[Arc<Request>],
) -> Result<(), StoreError> {
    let requests: Vec<&Request> = requests.iter().map(|request| &**request).collect();
    let bytes = framed(MAGIC, VERSION, identity, &encode(&(as_of, requests)));
    replace(disk, &path(dir), &dir.join(BESIDE), &bytes)
}

/// What the file says, in the order in which it was done. The manifest says up to which entry of the log it holds
/// everything at least; 0: it need not be there.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::OtherCollection`], [`StoreError::NewerFormat`], [`StoreError::Io`].
pub(super) fn read(
    disk: &dyn Disk,
    dir: &Path,
    identity: Identity,
    least: u64,
) -> Result<Vec<Arc<Request>>, StoreError> {
    let path = path(dir);
    let damaged = |reason: &str| StoreError::corrupt(&path, format!("{reason}; {REMEDY}"));
    let file = match disk.read_only(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && least == 0 => return Ok(Vec::new()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged("it is missing")),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Err(damaged(&e.to_string())),
        file => file.map_err(|e| StoreError::io(&path, e))?,
    };
    let io = |e| StoreError::io(&path, e);
    let len = file.len().map_err(io)?;
    if len > BYTES_MAX {
        return Err(damaged(&format!("it has {len} bytes, more than any such file")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(0, &mut bytes).map_err(io)?;
    let (_, got, body) = unframed(&bytes, MAGIC, VERSION, &path, damaged)?;
    if got != identity {
        let remedy = "put each collection's files back into the folder that they came from".to_owned();
        return Err(StoreError::OtherCollection { path, got, expected: identity, remedy });
    }
    let (as_of, requests): (u64, Vec<Request>) = decode(body, &path, "it")?;
    if as_of < least {
        return Err(damaged("it is of an earlier time than the manifest beside it"));
    }
    Ok(requests.into_iter().map(Arc::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::disk::RealDisk;

    const IDENTITY: Identity = Identity([7; 16]);

    fn request(id: &str, step: u32, at: i64) -> Arc<Request> {
        let outcome = vec![step.to_le_bytes()[0]; 3];
        Arc::new(Request { id: id.to_owned(), step, hash: [1; 16], at, outcome })
    }

    fn ids(requests: &Requests) -> Vec<String> {
        requests.all().iter().map(|request| format!("{}{}", request.id, request.step)).collect()
    }

    #[test]
    fn the_oldest_are_forgotten_by_number_and_by_age() {
        let mut requests = Requests::new(3);
        for (n, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            requests.insert(&request(id, 0, n as i64));
        }
        assert_eq!(ids(&requests), ["b0", "c0", "d0"]);
        assert!(requests.get("a", 3).is_none());
        assert_eq!(requests.get("b", KEPT_MICROS + 1).unwrap().at, 1);
        assert!(requests.get("b", KEPT_MICROS + 2).is_none());
        requests.insert(&request("e", 0, KEPT_MICROS + 3));
        assert_eq!(ids(&requests), ["d0", "e0"]);
    }

    #[test]
    fn a_later_step_takes_the_place_of_the_one_before_and_many_steps_take_no_room() {
        let mut requests = Requests::new(100);
        requests.insert(&request("first", 0, 0));
        for step in 0..1000 {
            requests.insert(&request("steps", step, 1));
        }
        assert_eq!(ids(&requests), ["first0", "steps999"]);
        assert!(requests.order.len() < 100, "{}", requests.order.len());
        assert_eq!(requests.bytes, requests.all().iter().map(|one| one.bytes()).sum::<usize>());
    }

    #[test]
    fn large_outcomes_are_bounded_together() {
        let mut requests = Requests::new(10);
        for n in 0..10 {
            let large = Request { outcome: vec![0; 2000], ..(*request(&n.to_string(), 0, 0)).clone() };
            requests.insert(&Arc::new(large));
        }
        assert!(requests.bytes <= 10 * BYTES_EACH && ids(&requests).len() == 2, "{:?}", ids(&requests));
    }

    #[test]
    fn the_file_is_read_as_it_was_written_and_every_damage_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let read = |least| read(&RealDisk, dir.path(), IDENTITY, least);
        assert_eq!(read(0).unwrap(), []);
        assert!(matches!(read(1), Err(StoreError::Corrupt { .. })));
        let requests = [request("a", 0, 5), request("b", 3, -1)];
        write(&RealDisk, dir.path(), IDENTITY, 9, &requests).unwrap();
        assert_eq!(read(9).unwrap(), requests);
        assert!(matches!(read(10), Err(StoreError::Corrupt { .. })));
        let good = std::fs::read(path(dir.path())).unwrap();
        for at in 0..good.len() {
            for bad in [
                {
                    let mut bad = good.clone();
                    bad[at] ^= 1;
                    bad
                },
                good[..at].to_vec(),
            ] {
                std::fs::write(path(dir.path()), &bad).unwrap();
                let error = read(9).unwrap_err();
                assert!(matches!(error, StoreError::Corrupt { .. }), "{at}: {error}");
                assert!(error.to_string().contains("requests"), "{error}");
            }
        }
    }
}
