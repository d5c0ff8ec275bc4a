//! Entries of the log whose collection is not there, given up: the log says from then on that it was deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{IDS_TOLD_MAX, Keeping, LOG_FILE_BYTES, Loss};
use crate::{
    files::disk::Disk,
    log::{Log, LogOptions, Sequence},
    segmented::{
        entries::{GONE, Outline},
        logs::Entries,
        verify::{LogSeen, OrphanSeen, system},
    },
    stop::Stop,
    store::{StoreError, body::Body},
};

/// Says what is lost with the entries of a collection that is not there, and gives them up if `kept` is given, where the
/// files of the log are kept that have them.
///
/// # Errors
/// [`StoreError::DiskFull`], [`StoreError::Io`], also if it was told to stop.
pub(crate) fn give_up(
    disk: &Arc<dyn Disk>,
    root: &Path,
    log: &LogSeen,
    orphan: &OrphanSeen,
    kept: Option<&Path>,
    stop: &Stop,
) -> Result<Loss, StoreError> {
    let places = log.collections.get(&orphan.id).map(|of| of.places.as_slice()).unwrap_or_default();
    let mut documents: BTreeMap<u64, Option<String>> = BTreeMap::new();
    let mut buried = BTreeSet::new();
    let mut unread = orphan.lost;
    for read in Entries::new(disk, places.iter().cloned()) {
        stop.check().map_err(|stopped| system(root, stopped))?;
        let outline = read.and_then(|read| {
            let outline = Outline::decode(read.kind, &read.bytes, &read.path)?;
            let ids = outline.puts.into_iter().map(|(number, body)| {
                (number, Body::decode(&body, &read.path).ok().map(|body| body.id.as_str().to_owned()))
            });
            Ok((ids.collect::<Vec<_>>(), outline.buried))
        });
        match outline {
            Ok((puts, gone)) => {
                buried.extend(gone);
                documents.extend(puts);
            }
            Err(_) => unread += 1,
        }
    }
    documents.retain(|number, _| !buried.contains(number));
    let mut what = format!("{orphan}; what segments of it held is not here either");
    if unread > 0 {
        what.push_str(&format!("; {unread} of the entries cannot be read"));
    }
    let count = documents.len() as u64;
    let mut ids: Vec<String> = documents.into_values().flatten().collect();
    ids.truncate(IDS_TOLD_MAX);
    let loss = Loss { file: log.dir.clone(), what, documents: (unread == 0).then_some(count), ids };
    let (Some(to), Some((identity, _))) = (kept, log.head) else { return Ok(loss) };
    let keep = Keeping { disk: &**disk, root, to };
    let files: BTreeSet<PathBuf> = places.iter().map(|place| place.path.to_path_buf()).collect();
    let mut why = BTreeMap::new();
    for file in files {
        if keep.copy(&file)? {
            why.insert(file, format!("{orphan} (this is a copy; the file stays in the log)"));
        }
    }
    keep.say(&log.dir, &why)?;
    let options =
        LogOptions { file_bytes: LOG_FILE_BYTES, reserve_bytes: LOG_FILE_BYTES / 8, ..LogOptions::default() };
    let from = Sequence(log.opened_from);
    let opened = Log::open(Arc::clone(disk), &log.dir, identity, options, from, &mut |_| {})?;
    Log::write_one(opened, orphan.id, GONE, Vec::new())?;
    Ok(loss)
}
