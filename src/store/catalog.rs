//! Small named values, durable when [`Catalog::put_all`] returns: which collections exist and what they are called.
//!
//! It is general on purpose: the meaning of the values is known to the code that puts them.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    disk::{Disk, RealDisk},
    record::{decode, encode},
    state::{Changes, State, TOTALS_KEY},
};
use crate::random::SplitMix;

/// Version of the layout.
const CATALOG_FORMAT: u32 = 2;

/// The last format without totals.
const FORMAT_WITHOUT_TOTALS: u32 = 1;

/// Memory for its cache; it is small.
const CACHE_BYTES: u64 = 4 << 20;

const FORMAT_KEY: &[u8] = b"f";

/// A small durable map of names to bytes. Safe from any thread; reads may wait for a running write.
#[derive(Debug)]
pub struct Catalog {
    state: State,
    /// Writers take turns: a put first looks what is there.
    totals: Mutex<Totals>,
    /// What was under the keys of a put that found no room, until that is known not to be stored.
    refused: Mutex<Option<Vec<Before>>>,
}

/// A key and what was under it.
type Before = (Vec<u8>, Option<Vec<u8>>);

/// Written with every change and compared with what is found at the next start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Totals {
    /// Counts changes; 0 before the first one of format 2.
    revision: u64,
    entries: u64,
    /// Sum over all entries, modulo 2^64; see [`digest`].
    digest: u64,
}

impl Totals {
    fn add(&mut self, key: &[u8], crc: u32) {
        self.entries = self.entries.wrapping_add(1);
        self.digest = self.digest.wrapping_add(digest(key, crc));
    }

    fn take(&mut self, key: &[u8], crc: u32) {
        self.entries = self.entries.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(digest(key, crc));
    }
}

/// An entry's part of the sum: part of the format.
fn digest(key: &[u8], value_crc: u32) -> u64 {
    SplitMix(u64::from(crc32fast::hash(key)) << 32 | u64::from(value_crc)).next()
}

impl Catalog {
    /// Opens the catalogue in `dir`, making it if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NewerFormat`], [`StoreError::Io`]; [`StoreError::Corrupt`], also if
    /// entries are not those that were put.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_on(dir, Arc::new(RealDisk))
    }

    pub(crate) fn open_on(dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        if dir.exists() && !dir.is_dir() {
            return Err(StoreError::corrupt(dir, "it is not a folder".to_owned()));
        }
        let state = if dir.join("db").exists() {
            State::open(dir, CACHE_BYTES, disk)?
        } else {
            State::create(dir, CACHE_BYTES, disk)?
        };
        let mut found = Totals::default();
        for entry in state.scan(b"k")? {
            let (key, _, crc) = entry?;
            found.add(&key, crc);
        }
        let format = match state.get(FORMAT_KEY)? {
            Some((bytes, _)) => super::documents::check_format(&bytes, CATALOG_FORMAT, dir)?,
            // New, or killed before the first commit: then nothing else was ever acknowledged.
            None if found.entries == 0 => 0,
            None => return Err(StoreError::corrupt(dir, "it has entries but no format".into())),
        };
        if format > FORMAT_WITHOUT_TOTALS {
            let (bytes, _) = state
                .get(TOTALS_KEY)?
                .ok_or_else(|| StoreError::corrupt(dir, "its totals are missing".into()))?;
            let totals: Totals = decode(&bytes, dir, "its totals")?;
            if (found.entries, found.digest) != (totals.entries, totals.digest) {
                let reason = format!(
                    "it should hold {} entries; {} were found, or others than were put",
                    totals.entries, found.entries
                );
                return Err(StoreError::corrupt(dir, reason));
            }
            found = totals;
        } else {
            let mut changes = Changes::default();
            changes.put(FORMAT_KEY, &CATALOG_FORMAT.to_le_bytes());
            changes.put(TOTALS_KEY, &encode(&found));
            match state.commit(changes) {
                // The next change brings both with it.
                Err(error) if error.is_passing() && format == FORMAT_WITHOUT_TOTALS => {}
                committed => committed?,
            }
        }
        Ok(Catalog { state, totals: Mutex::new(found), refused: Mutex::default() })
    }

    /// How many changes were made since it is kept in format 2.
    pub fn revision(&self) -> u64 {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).revision
    }

    /// The value under a name.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state.get(&inner_key(key))?.map(|(value, _)| value))
    }

    /// Puts values (`None` removes), all or none, and returns when they are on the device.
    /// Names are distinct within a call and hold no NUL.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] with nothing done; after any other error no more writes are taken.
    pub fn put_all(&self, entries: &[(&str, Option<&[u8]>)]) -> Result<(), StoreError> {
        self.put_all_at(0, entries)
    }

    /// [`Catalog::put_all`], after which the revision is the next one, and at least `least`.
    ///
    /// # Errors
    /// As [`Catalog::put_all`].
    pub fn put_all_at(&self, least: u64, entries: &[(&str, Option<&[u8]>)]) -> Result<(), StoreError> {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_back_refused(&mut totals)?;
        let mut before = Vec::new();
        let mut next = *totals;
        next.revision = (next.revision + 1).max(least);
        let mut changes = Changes::default();
        for (key, value) in entries {
            debug_assert!(!key.contains('\0'), "names hold no NUL");
            let key = inner_key(key);
            let old = self.state.get(&key)?;
            if let Some((_, crc)) = old {
                next.take(&key, crc);
            }
            before.push((key.clone(), old.map(|(value, _)| value)));
            self.state.remove(&mut changes, &key)?;
            if let Some(value) = value {
                changes.grow();
                let crc = changes.put(&key, value);
                next.add(&key, crc);
            }
        }
        changes.put(FORMAT_KEY, &CATALOG_FORMAT.to_le_bytes());
        changes.put(TOTALS_KEY, &encode(&next));
        let committed = self.state.commit(changes);
        match &committed {
            Ok(()) => *totals = next,
            Err(error) if error.is_passing() && self.state.is_unsettled() => *self.refused() = Some(before),
            Err(_) => {}
        }
        committed
    }

    /// Takes back a put that found no room, if it was stored all the same.
    fn take_back_refused(&self, totals: &mut Totals) -> Result<(), StoreError> {
        let mut place = self.refused();
        let Some(before) = &*place else { return Ok(()) };
        self.state.revive()?;
        if self.state.late() {
            let mut changes = Changes::default();
            for (key, value) in before {
                self.state.remove(&mut changes, key)?;
                if let Some(value) = value {
                    changes.put(key, value);
                }
            }
            // One for the put, one for taking it back.
            let next = Totals { revision: totals.revision + 2, ..*totals };
            changes.put(TOTALS_KEY, &encode(&next));
            self.state.commit(changes)?;
            *totals = next;
        }
        *place = None;
        Ok(())
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Option<Vec<Before>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All entries whose name begins with `prefix`, by name.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let start = [b"k", prefix.as_bytes()].concat();
        self.state
            .scan(&start)?
            .map(|entry| {
                let (key, value, _) = entry?;
                let name = key
                    .strip_prefix(b"k")
                    .and_then(|key| key.strip_suffix(b"\0"))
                    .and_then(|name| String::from_utf8(name.to_vec()).ok())
                    .ok_or_else(|| StoreError::corrupt(self.state.dir(), "a name cannot be read".into()))?;
                Ok((name, value))
            })
            .collect()
    }

    /// Why nothing can be written any more, since a write to disk failed.
    pub fn failed(&self) -> Option<String> {
        self.state.failed()
    }

    /// Opens it again after a write that found no room, if there is room now.
    pub(crate) fn revive(&self) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        // What stays wrong, [`Catalog::failed`] says.
        let _ = self.state.revive();
        if self.failed().is_none()
            && let Err(error) = self.take_back_refused(&mut totals)
        {
            tracing::warn!(dir = %self.state.dir().display(), %error, "the next change takes back what was refused");
        }
    }

    /// Closes it. Idempotent; everything that was put is durable without it, and what was refused is not there
    /// at the next opening, if that can be known.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn close(&self) -> Result<(), StoreError> {
        self.revive();
        self.state.close()
    }
}

/// The NUL ends the name, so that no name is the beginning of another.
fn inner_key(key: &str) -> Vec<u8> {
    [b"k", key.as_bytes(), b"\0"].concat()
}
