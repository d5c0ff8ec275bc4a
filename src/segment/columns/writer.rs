//! Writes the file `columns` from values that come in order. Texts and rows go to the disk as they come; a value's
//! place, 16 bytes, waits in a spool.

use std::{mem, path::Path, sync::Arc};

use roaring::RoaringBitmap;

use super::{DATA, DESCRIPTION_BYTES, FIELDS, GROUPS, LISTED, ONE, VALUES, bits_of};
use crate::{
    files::disk::Disk,
    index::columns::{Held, Key, Posting, Sealer, Type},
    segment::{
        Name, SegmentError,
        file::{Check, DESCRIPTION, Kind, Owner},
        write::{FileWriter, Spool},
    },
};

/// The order of a field's values: whether they are of lists, and their type.
pub(in crate::segment) const GROUPS_IN_ORDER: [(bool, Type); 10] = {
    let mut groups = [(false, Type::String); 10];
    let mut at = 0;
    while at < groups.len() {
        groups[at] = (at >= Type::ALL.len(), Type::ALL[at % Type::ALL.len()]);
        at += 1;
    }
    groups
};

/// Rows fewer than this are listed where that is smaller than a bitmap; it never is above.
const LISTED_MAX: u64 = 16;

#[derive(Debug)]
pub(in crate::segment) struct ColumnsWriter {
    file: FileWriter,
    values: Spool,
    groups: Spool,
    fields: Spool,
    value_count: u64,
    group_count: u32,
    field_count: u32,
    /// Of the field that is being written.
    held: Held,
    first_group: u32,
    open_group: Option<OpenGroup>,
    /// Bytes of a record that is being made.
    scratch: Vec<u8>,
}

#[derive(Debug, PartialEq)]
struct OpenGroup {
    in_list: bool,
    of: Type,
    first: u64,
}

impl ColumnsWriter {
    /// `path`: the file; what waits lies beside it.
    pub(in crate::segment) fn create(
        disk: &Arc<dyn Disk>,
        path: &Path,
        name: Name,
        spool_bytes: usize,
    ) -> Result<Self, SegmentError> {
        let mut file = FileWriter::create(&**disk, path, Owner { kind: Kind::Columns, name, part: 0 })?;
        file.begin(DATA, Check::FINE)?;
        let spool = |what| Spool::new(disk, path.with_extension(what), spool_bytes);
        Ok(ColumnsWriter {
            file,
            values: spool("values"),
            groups: spool("groups"),
            fields: spool("fields"),
            value_count: 0,
            group_count: 0,
            field_count: 0,
            held: Held::default(),
            first_group: 0,
            open_group: None,
            scratch: Vec::new(),
        })
    }

    /// `rows`: documents of the segment, with fields or without.
    pub(in crate::segment) fn finish(mut self, rows: u32) -> Result<(), SegmentError> {
        self.file.spooled(VALUES, Check::FINE, self.values)?;
        self.file.spooled(GROUPS, Check::FINE, self.groups)?;
        self.file.spooled(FIELDS, Check::FINE, self.fields)?;
        let mut description = [0; DESCRIPTION_BYTES];
        description[..4].copy_from_slice(&rows.to_le_bytes());
        description[4..8].copy_from_slice(&self.field_count.to_le_bytes());
        description[8..16].copy_from_slice(&self.value_count.to_le_bytes());
        description[16..20].copy_from_slice(&self.group_count.to_le_bytes());
        self.file.section(DESCRIPTION, Check::Whole, &description)?;
        self.file.finish()
    }

    /// Writes a text into the data and returns its place.
    fn text(&mut self, text: &str) -> Result<u64, SegmentError> {
        let at = self.file.section_bytes();
        let length =
            u32::try_from(text.len()).map_err(|_| SegmentError::Full { what: "bytes of a value" })?;
        self.file.write(&length.to_le_bytes())?;
        self.file.write(text.as_bytes())?;
        Ok(at)
    }

    /// Writes rows into the data, unless there is one, and returns what stands for them.
    fn rows(&mut self, rows: Posting<'_>) -> Result<u64, SegmentError> {
        let rows = match rows {
            Posting::One(row) => return Ok(ONE | u64::from(row)),
            Posting::Many(rows) if rows.len() == 1 => {
                return Ok(ONE | u64::from(rows.min().expect("there is one")));
            }
            Posting::Many(rows) => rows,
        };
        let at = self.file.section_bytes();
        let mut bytes = mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend_from_slice(&[0; 4]);
        let mut listed = 0;
        if rows.len() < LISTED_MAX {
            bytes.extend(rows.iter().flat_map(u32::to_le_bytes));
            listed = LISTED;
        } else {
            let mut rows = rows.clone();
            rows.optimize();
            rows.serialize_into(&mut bytes).expect("memory takes everything");
        }
        // A bitmap of all 2^32 rows has little more than 2^29 bytes.
        let length = (bytes.len() - 4) as u32 | listed;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        let written = self.file.write(&bytes);
        self.scratch = bytes;
        written.map(|()| at)
    }

    fn end_group(&mut self) -> Result<(), SegmentError> {
        if let Some(OpenGroup { first, .. }) = self.open_group.take() {
            self.groups.write(&first.to_le_bytes())?;
            self.groups.write(&(self.value_count - first).to_le_bytes())?;
            self.group_count =
                self.group_count.checked_add(1).ok_or(SegmentError::Full { what: "fields" })?;
        }
        Ok(())
    }
}

impl Sealer for ColumnsWriter {
    type Error = SegmentError;

    fn value(
        &mut self,
        in_list: bool,
        of: Type,
        key: Key<'_>,
        documents: Posting<'_>,
    ) -> Result<(), SegmentError> {
        if self.open_group.as_ref().is_none_or(|open| (open.in_list, open.of) != (in_list, of)) {
            self.end_group()?;
            self.open_group = Some(OpenGroup { in_list, of, first: self.value_count });
            let held = if in_list { &mut self.held.elements } else { &mut self.held.scalars };
            held[of as usize] = true;
        }
        let key = match key {
            Key::Text(text) => self.text(text)?.cast_signed(),
            Key::Number(number) => number,
        };
        let rows = self.rows(documents)?;
        self.values.write(&key.to_le_bytes())?;
        self.values.write(&rows.to_le_bytes())?;
        self.value_count += 1;
        Ok(())
    }

    fn field(&mut self, name: &str, documents: &RoaringBitmap) -> Result<(), SegmentError> {
        self.end_group()?;
        let name = self.text(name)?;
        let having = self.rows(Posting::Many(documents))?;
        let mut record = [0; super::FIELD_BYTES as usize];
        record[..8].copy_from_slice(&name.to_le_bytes());
        record[8..16].copy_from_slice(&having.to_le_bytes());
        record[16..20].copy_from_slice(&(documents.len() as u32).to_le_bytes());
        record[20..24].copy_from_slice(&self.first_group.to_le_bytes());
        record[24..26].copy_from_slice(&bits_of(mem::take(&mut self.held)).to_le_bytes());
        self.first_group = self.group_count;
        self.field_count = self.field_count.checked_add(1).ok_or(SegmentError::Full { what: "fields" })?;
        self.fields.write(&record)
    }
}
