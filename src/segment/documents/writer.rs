//! Writes the file `documents`. Texts and bodies go to the disk block by block; heads and passages wait in spools, and
//! only the ids stay in memory, to be sorted.

use std::{ops::Range, path::Path, sync::Arc};

use super::{
    BLOCK_TABLE, BLOCKS, BY_ID, Description, EXPIRIES, FILE, HEADS, Head, ID_OFFSETS, IDS, PASSAGES,
};
use crate::{
    files::disk::Disk,
    segment::{
        Name, Row, SegmentError,
        blocks::{BlockWriter, Of, Span},
        file::{Check, DESCRIPTION, Kind, Owner},
        write::{FileWriter, Spool},
    },
};

/// What is written of a document.
pub(in crate::segment) struct Entry<'a> {
    pub(in crate::segment) id: &'a str,
    pub(in crate::segment) content_hash: [u8; 16],
    pub(in crate::segment) version: u64,
    pub(in crate::segment) written_at: i64,
    pub(in crate::segment) expires_at: Option<i64>,
    pub(in crate::segment) passages: &'a [Range<u32>],
    pub(in crate::segment) text: &'a [u8],
    pub(in crate::segment) body: &'a [u8],
}

#[derive(Debug)]
pub(in crate::segment) struct DocumentsWriter {
    file: FileWriter,
    blocks: BlockWriter,
    description: Description,
    ids: Vec<u8>,
    /// Where each id ends.
    id_ends: Vec<u64>,
    heads: Spool,
    passages: Spool,
    expiries: Vec<(i64, u32)>,
}

impl DocumentsWriter {
    /// `dir`: the folder that is being filled.
    pub(in crate::segment) fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        spool_bytes: usize,
    ) -> Result<Self, SegmentError> {
        let owner = Owner { kind: Kind::Documents, name, part: 0 };
        let mut file = FileWriter::create(&**disk, &dir.join(FILE), owner)?;
        file.begin(BLOCKS, Check::Parts)?;
        Ok(DocumentsWriter {
            file,
            blocks: BlockWriter::new(),
            description: Description { versions: (u64::MAX, 0), ..Description::default() },
            ids: Vec::new(),
            id_ends: Vec::new(),
            heads: Spool::new(disk, dir.join("heads"), spool_bytes),
            passages: Spool::new(disk, dir.join("passages"), spool_bytes),
            expiries: Vec::new(),
        })
    }

    /// Documents so far.
    pub(in crate::segment) fn rows(&self) -> u32 {
        self.description.rows
    }

    pub(in crate::segment) fn push(&mut self, entry: &Entry<'_>) -> Result<Row, SegmentError> {
        let row = self.description.rows;
        let rows = row.checked_add(1).ok_or(SegmentError::Full { what: "documents" })?;
        let first_passage = self.description.passages;
        let passages = u32::try_from(entry.passages.len()).ok();
        let last_passage = passages.and_then(|passages| first_passage.checked_add(passages));
        let last_passage = last_passage.ok_or(SegmentError::Full { what: "passages" })?;
        let text = self.blocks.add(Of::Text, entry.text, &mut self.file)?;
        let body = self.blocks.add(Of::Body, entry.body, &mut self.file)?;
        let head = Head {
            content_hash: entry.content_hash,
            version: entry.version,
            written_at: entry.written_at,
            // The last moment of all stands for "never".
            expires_at: entry.expires_at.filter(|at| *at != super::NEVER),
            first_passage,
            passages: last_passage - first_passage,
            body,
            text,
        };
        self.heads.write(&head.encode())?;
        for range in entry.passages {
            self.passages.write(&range.start.to_le_bytes())?;
            self.passages.write(&range.end.to_le_bytes())?;
        }
        self.ids.extend_from_slice(entry.id.as_bytes());
        self.id_ends.push(self.ids.len() as u64);
        self.expiries.extend(head.expires_at.map(|at| (at, row)));
        let Span { length: text_bytes, .. } = text;
        let description = &mut self.description;
        description.rows = rows;
        description.passages = last_passage;
        description.text_bytes += u64::from(text_bytes);
        description.body_bytes += u64::from(body.length);
        let (low, high) = description.versions;
        description.versions = (low.min(entry.version), high.max(entry.version));
        Ok(Row(row))
    }

    /// # Errors
    /// [`SegmentError::Duplicate`] if two documents have one id.
    pub(in crate::segment) fn finish(mut self) -> Result<(), SegmentError> {
        let table = self.blocks.finish(&mut self.file)?;
        let mut description = self.description;
        description.blocks = (table.len() as u64 / crate::segment::blocks::ENTRY_BYTES) as u32;
        description.id_bytes = self.ids.len() as u64;
        description.expiring = self.expiries.len() as u32;
        if description.rows == 0 {
            description.versions = (0, 0);
        }
        let id = |row: u32| {
            let start = row.checked_sub(1).map_or(0, |before| self.id_ends[before as usize]);
            &self.ids[start as usize..self.id_ends[row as usize] as usize]
        };
        let mut by_id: Vec<u32> = (0..description.rows).collect();
        by_id.sort_unstable_by(|a, b| id(*a).cmp(id(*b)));
        if let Some(twins) = by_id.windows(2).find(|pair| id(pair[0]) == id(pair[1])) {
            return Err(SegmentError::Duplicate { id: String::from_utf8_lossy(id(twins[0])).into_owned() });
        }
        let file = &mut self.file;
        file.section(BLOCK_TABLE, Check::FINE, &table)?;
        file.begin(ID_OFFSETS, Check::FINE)?;
        file.write(&0u64.to_le_bytes())?;
        self.id_ends.iter().try_for_each(|end| file.write(&end.to_le_bytes()))?;
        file.section(IDS, Check::FINE, &self.ids)?;
        file.begin(BY_ID, Check::FINE)?;
        by_id.iter().try_for_each(|row| file.write(&row.to_le_bytes()))?;
        file.spooled(HEADS, Check::FINE, self.heads)?;
        file.spooled(PASSAGES, Check::FINE, self.passages)?;
        self.expiries.sort_unstable();
        file.begin(EXPIRIES, Check::FINE)?;
        for (at, row) in &self.expiries {
            file.write(&at.to_le_bytes())?;
            file.write(&row.to_le_bytes())?;
        }
        file.section(DESCRIPTION, Check::Whole, &description.encode())?;
        self.file.finish()
    }
}
