//! Where the log has entries of a collection, and the entries read again from there.

use std::{collections::VecDeque, path::Path, sync::Arc};

use super::REMEDY;
use crate::{
    files::disk::{Disk, DiskFile},
    store::StoreError,
};

/// Where an entry is.
#[derive(Debug, Clone)]
pub(in crate::segmented) struct Place {
    pub(in crate::segmented) sequence: u64,
    pub(in crate::segmented) kind: u8,
    pub(in crate::segmented) path: Arc<Path>,
    pub(in crate::segmented) offset: u64,
    pub(in crate::segmented) len: u32,
    pub(in crate::segmented) sum: u32,
}

/// An entry, as it is read again.
#[derive(Debug)]
pub(in crate::segmented) struct Read {
    pub(in crate::segmented) sequence: u64,
    pub(in crate::segmented) kind: u8,
    pub(in crate::segmented) bytes: Vec<u8>,
    pub(in crate::segmented) path: Arc<Path>,
}

/// Entries of a collection, read again from where they are.
pub(in crate::segmented) struct Entries {
    disk: Arc<dyn Disk>,
    places: VecDeque<Place>,
    file: Option<(Arc<Path>, Arc<dyn DiskFile>)>,
}

impl Entries {
    pub(in crate::segmented) fn new(disk: &Arc<dyn Disk>, places: impl IntoIterator<Item = Place>) -> Self {
        Entries { disk: Arc::clone(disk), places: places.into_iter().collect(), file: None }
    }

    fn read(&mut self, place: &Place) -> Result<Read, StoreError> {
        let io = |e| StoreError::io(&place.path, e);
        let file = match &self.file {
            Some((path, file)) if *path == place.path => Arc::clone(file),
            _ => {
                let file = self.disk.read_only(&place.path).map_err(io)?;
                self.file = Some((Arc::clone(&place.path), Arc::clone(&file)));
                file
            }
        };
        let mut bytes = vec![0; place.len as usize];
        file.read_exact_at(place.offset, &mut bytes).map_err(io)?;
        if crc32c::crc32c(&bytes) != place.sum {
            let reason = format!("at byte {}: an entry does not match its sum; {REMEDY}", place.offset);
            return Err(StoreError::corrupt(&place.path, reason));
        }
        Ok(Read { sequence: place.sequence, kind: place.kind, bytes, path: Arc::clone(&place.path) })
    }
}

impl Iterator for Entries {
    type Item = Result<Read, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.places.pop_front()?;
        Some(self.read(&place))
    }
}
