//! Takes over a store of sled, of any format that `store::Store` opens: its documents, under the numbers that they have,
//! become one segment, beside it.
//!
//! The manifest is written last, after every document, text and vector was read back from the segment and found equal.
//! Until it is there, the earlier store is the collection and nothing of it was changed; from then on the segments are,
//! and the caller may remove the earlier store. A take-over that is cut off anywhere, or finds no room, is begun anew by
//! the next call: the file [`BEGUN_FILE`] says that segments without a manifest are the remains of one.

use std::{io, path::Path, sync::Arc};

use super::{
    Options, Store,
    entries::Put,
    logs::FolderLog,
    manifest::{Manifest, Named},
    remains,
    sealed::{Building, Folder, Sealed},
    state::Part,
};
use crate::{
    log,
    segment::Space,
    store::{self, StoreError},
};

/// Says that segments without a manifest beside it are the remains of a take-over.
pub(crate) const BEGUN_FILE: &str = "segments.begun";

/// The only segment.
const SEGMENT: u32 = 1;

/// Room that a take-over leaves to others.
const RESERVE_BYTES: u64 = store::RESERVE_BYTES;

/// Makes the store of segments in `dir`, a collection's folder, of `earlier`, which nobody writes to meanwhile. Where it
/// is made already, it is opened.
///
/// Reads everything three times and takes about as much room again as the earlier store.
///
/// # Errors
/// [`StoreError::DiskFull`], before anything is written if there is no room for all of it; [`StoreError::Corrupt`] if a
/// document cannot be read, or was not read back as it was; as [`Store::open`] and [`Store::create`].
pub(crate) fn take_over(
    earlier: &store::Store,
    log: &Arc<FolderLog>,
    dir: &Path,
    space: Space,
    options: Options,
) -> Result<Store, StoreError> {
    let identity = earlier.identity();
    let folder = Folder::new(log.disk(), log.cache(), dir, identity, space.clone());
    if Manifest::read(&*folder.disk, dir, identity)?.is_none() {
        log.claim(identity)?;
        make(earlier, log, &folder)?;
    }
    end(&folder)?;
    Store::open(log, dir, identity, space, options)
}

/// No segment in the folder is the remains of a take-over any more.
fn end(folder: &Folder) -> Result<(), StoreError> {
    let begun = folder.dir.join(BEGUN_FILE);
    match folder.disk.remove(&begun) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io(&begun, e)),
        _ => Ok(()),
    }
}

fn make(earlier: &store::Store, log: &Arc<FolderLog>, folder: &Folder) -> Result<(), StoreError> {
    let dir = &folder.dir;
    if log.has_written(folder.identity) {
        return Err(Manifest::missing(dir, "the log says that documents were written after it was"));
    }
    let needed = store::disk::folder_bytes(earlier.dir()).saturating_add(RESERVE_BYTES);
    if folder.disk.available(dir).map_err(|e| StoreError::io(dir, e))? < needed {
        return Err(StoreError::DiskFull { path: dir.clone() });
    }
    begin(folder, log.identity())?;
    let made = fill(earlier, folder);
    if made.is_err()
        && let Err(error) = folder.remove_segment(SEGMENT).and_then(|()| end(folder))
    {
        tracing::warn!(dir = %dir.display(), %error, "an unfinished take-over cannot be removed; the next one does it");
    }
    let sealed = made?;
    let sequence = log.announce(folder.identity)?;
    let mut manifest = Manifest::new(log.identity(), folder.dimension, sequence);
    manifest.next_number = earlier.next_number();
    manifest.next_segment = SEGMENT + 1;
    manifest.segments.extend(sealed.map(|sealed| Named::of(&Part::new(sealed))));
    manifest.write(&*folder.disk, dir, folder.identity)?;
    tracing::info!(dir = %dir.display(), documents = manifest.documents(), "a store of sled was taken over");
    Ok(())
}

/// Says that a take-over has begun, and removes what an earlier one left.
fn begin(folder: &Folder, log: log::Identity) -> Result<(), StoreError> {
    let begun = folder.dir.join(BEGUN_FILE);
    let io = |e| StoreError::full_or_io(&begun, e);
    let remains = remains::find(folder, &Manifest::new(log, folder.dimension, 0))?;
    match folder.disk.create(&begun) {
        Ok(_) if !remains.is_empty() => {
            // Nothing says that they are of a take-over.
            folder.disk.remove(&begun).map_err(io)?;
            return Err(Manifest::missing(&folder.dir, "there are segments"));
        }
        Ok(file) => {
            file.sync_all().map_err(io)?;
            folder.disk.sync_dir(&folder.dir).map_err(io)?;
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(io(e)),
    }
    remains.remove(folder)
}

/// The segment of all documents, compared with what it was made of; `None` if there is no document.
fn fill(earlier: &store::Store, folder: &Folder) -> Result<Option<Arc<Sealed>>, StoreError> {
    let mut building: Option<Building> = None;
    earlier.load(|loaded| {
        let dimension = u64::from(folder.dimension);
        if loaded.vectors.len() as u64 != u64::from(loaded.head.passages) * dimension {
            let reason = format!(
                "document {} has not the vectors of {dimension} numbers that the collection's description tells: it may be of another collection; put the collection's whole folder back from a backup",
                loaded.number
            );
            return Err(StoreError::corrupt(earlier.dir(), reason));
        }
        let text = earlier.text(loaded.number, &loaded.head)?;
        if building.is_none() {
            building = Some(Sealed::begin(folder, SEGMENT)?);
        }
        let put =
            Put::of_vectors(loaded.number, loaded.head.body, &text, loaded.head.passages, loaded.vectors);
        building.as_mut().map_or(Ok(()), |building| building.push(&put))
    })?;
    let Some(sealed) = building.map(Building::finish).transpose()? else { return Ok(None) };
    let mut rows = 0..sealed.rows();
    earlier.load(|loaded| {
        let text = earlier.text(loaded.number, &loaded.head)?;
        let is_equal = match rows.next() {
            Some(row) => {
                let head = sealed.head(row)?;
                let vectors = sealed.vectors(row)?;
                sealed.number_of(row)? == loaded.number
                    && head.body.encode() == loaded.head.body
                    && head.passages() == loaded.head.passages
                    && head.text_bytes() == text.len()
                    && sealed.text(row)? == text
                    && vectors.iter().map(|v| v.to_bits()).eq(loaded.vectors.iter().map(|v| v.to_bits()))
            }
            None => false,
        };
        if is_equal {
            return Ok(());
        }
        let reason = format!("document {} was not read back as it was written", loaded.number);
        Err(StoreError::corrupt(&folder.dir, reason))
    })?;
    match rows.next() {
        None => Ok(Some(sealed)),
        Some(row) => Err(StoreError::corrupt(&folder.dir, format!("row {row} is of no document"))),
    }
}
