//! Small named values, durable when [`Catalog::put_all`] returns: which collections exist and what they are called.
//!
//! General on purpose: what the values mean is known to whoever puts them.

use std::{path::Path, sync::Arc, sync::Mutex, sync::PoisonError};

use super::{
    StoreError,
    disk::{Disk, RealDisk},
    state::{Changes, State},
};

/// Version of the layout.
const CATALOG_FORMAT: u32 = 1;

/// Memory for its cache; it is small.
const CACHE_BYTES: u64 = 4 << 20;

const FORMAT_KEY: &[u8] = b"f";

/// A small durable map of names to bytes. Safe from any thread; reads may wait for a running write.
#[derive(Debug)]
pub struct Catalog {
    state: State,
    /// Writers take turns: a put first looks what is there.
    writing: Mutex<()>,
}

impl Catalog {
    /// Opens the catalogue in `dir`, making it if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Corrupt`], [`StoreError::NewerFormat`], [`StoreError::Io`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_on(dir, Arc::new(RealDisk))
    }

    pub(crate) fn open_on(dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let state = if dir.join("db").exists() {
            State::open(dir, CACHE_BYTES, disk)?
        } else {
            State::create(dir, CACHE_BYTES, disk)?
        };
        match state.get(FORMAT_KEY)? {
            Some((bytes, _)) => super::documents::check_format(&bytes, CATALOG_FORMAT, dir)?,
            // New, or killed before the first commit: then nothing else was ever acknowledged.
            None if state.scan(b"k")?.next().is_none() => {
                let mut changes = Changes::default();
                changes.put(FORMAT_KEY, &CATALOG_FORMAT.to_le_bytes());
                state.commit(changes)?;
            }
            None => return Err(StoreError::corrupt(dir, "it has entries but no format".into())),
        }
        Ok(Catalog { state, writing: Mutex::new(()) })
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
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Changes::default();
        for (key, value) in entries {
            debug_assert!(!key.contains('\0'), "names hold no NUL");
            let key = inner_key(key);
            self.state.remove(&mut changes, &key)?;
            if let Some(value) = value {
                changes.grow();
                changes.put(&key, value);
            }
        }
        self.state.commit(changes)
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
        self.state.failed().map(str::to_owned)
    }

    /// Closes it. Idempotent; everything that was put is durable without it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn close(&self) -> Result<(), StoreError> {
        self.state.close()
    }
}

/// The NUL ends the name, so that no name is the beginning of another.
fn inner_key(key: &str) -> Vec<u8> {
    [b"k", key.as_bytes(), b"\0"].concat()
}
