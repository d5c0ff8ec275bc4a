//! What can still be read of a segment that is damaged: document by document, each whole or not at all.
//!
//! The columns are not needed: they follow from the payloads. Without the vectors no document can be kept, but which
//! ones are lost can be told. Sums are checked as they always are, so a document that is read is the one that was
//! written.

use std::{io, path::Path, sync::Arc};

use super::{
    BlockCache, Name, Row, SegmentError, Space, Vectors,
    documents::{self, Documents},
    folder, vectors,
};
use crate::{files::disk::Disk, stop::Stop, store::body, value::PointId};

/// Bytes read at a time.
const STEP_BYTES: usize = 1 << 20;

/// A segment of one space of which anything may be damaged.
#[derive(Debug)]
pub(crate) struct Salvage {
    documents: Documents,
    /// `Err`: why none of them can be read, and whether that is the device's doing.
    vectors: Result<Vectors, (String, bool)>,
}

/// A document that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Salvaged {
    /// Sequence of the write.
    pub(crate) version: u64,
    pub(crate) body: body::Body,
    pub(crate) text: String,
    /// All its vectors, one after the other.
    pub(crate) vectors: Vec<f32>,
}

impl Salvage {
    /// Opens what is needed to read documents.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`], [`SegmentError::Io`] and others if not even their ids can be read: the file of documents is
    /// missing, both of its ends or its table are damaged, or the device fails somewhere in it; [`SegmentError::Stopped`].
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        space: &Space,
        cache: &Arc<BlockCache>,
        stop: &Stop,
    ) -> Result<Self, SegmentError> {
        let path = dir.join(folder::name_of(name.number));
        // A device that fails below a mapping ends the process.
        read_through(&**disk, &path.join(documents::FILE), stop)?;
        let documents = Documents::open_damaged(disk, &path.join(documents::FILE), name, cache)?;
        let vectors = read_through(&**disk, &path.join(vectors::file_name(space.number)), stop)
            .and_then(|()| Vectors::open_damaged(disk, &path, name, space));
        stop.check()?;
        let vectors = vectors.map_err(|error| (error.to_string(), matches!(error, SegmentError::Io { .. })));
        Ok(Salvage { documents, vectors })
    }

    /// Whether the device fails in the vectors.
    pub(crate) fn is_unread(&self) -> bool {
        self.vectors.as_ref().is_err_and(|(_, is_unread)| *is_unread)
    }

    /// Documents, the deleted ones too.
    pub(crate) fn len(&self) -> u32 {
        self.documents.description().rows
    }

    /// Version of the document of a row, if it can be read.
    pub(crate) fn version(&self, row: Row) -> Option<u64> {
        self.documents.head(row).ok().map(|head| head.version)
    }

    /// Id of the document of a row, if it can be read.
    pub(crate) fn id(&self, row: Row) -> Option<PointId> {
        self.documents.id(row).ok()
    }

    /// The document of a row.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] if any of it is damaged.
    pub(crate) fn read(&self, row: Row) -> Result<Salvaged, SegmentError> {
        let head = self.documents.head(row)?;
        let text = self.documents.text(&head)?;
        let passages = self.documents.passages(&head)?;
        if passages.iter().any(|range| text.get(range.start as usize..range.end as usize).is_none()) {
            let reason = format!("a passage of row {} ends inside a character", row.0);
            return Err(SegmentError::corrupt(self.documents.file().path(), 0, reason));
        }
        let documents::Body { title, payload } = self.documents.body(&head)?;
        let mut vectors = Vec::new();
        for at in head.vectors() {
            let all = self.vectors.as_ref().map_err(|(reason, _)| {
                let reason = format!("its vectors cannot be read: {reason}");
                SegmentError::corrupt(self.documents.file().path(), 0, reason)
            })?;
            vectors.extend_from_slice(&all.row(at)?);
        }
        let body = body::Body {
            id: self.documents.id(row)?,
            title,
            payload,
            content_hash: head.content_hash,
            passages,
            updated_at: head.written_at,
        };
        Ok(Salvaged { version: head.version, body, text, vectors })
    }
}

/// Reads all of a file.
fn read_through(disk: &dyn Disk, path: &Path, stop: &Stop) -> Result<(), SegmentError> {
    let system = |error: io::Error| SegmentError::reading(path, error);
    let file = disk.read_only(path).map_err(system)?;
    let mut step = vec![0; STEP_BYTES];
    let mut at = 0;
    loop {
        stop.check()?;
        match file.read_at(at, &mut step).map_err(system)? {
            0 => return Ok(()),
            read => at += read as u64,
        }
    }
}
