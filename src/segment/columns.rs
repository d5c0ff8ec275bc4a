//! The payloads of a segment, by field and value: the sealed form of [`FieldIndex`](crate::index::columns::FieldIndex).
//!
//! For every field and type the distinct values lie in order, each with the rows that have it. Opening reads no value;
//! a filter searches in the tables where they lie, by the code that the index in memory answers with, and gets the same
//! answer.

use std::{
    cmp::Ordering,
    ops::{Bound, ControlFlow, RangeInclusive},
    path::Path,
    sync::Arc,
};

use roaring::RoaringBitmap;

use super::{
    Name, SegmentError,
    file::{Kind, Owner, Place, SealedFile, i64_at, u16_at, u32_at, u64_at},
    verify::Damage,
};
use crate::{
    files::disk::Disk,
    index::columns::{
        Column, Fields, Held, Key, Known, Test, Type,
        evaluate::{self, TYPES},
    },
    stop::Stop,
};

pub(super) mod builder;
pub(super) mod merge;
pub(super) mod writer;

/// Its name in the segment's folder.
pub(super) const FILE: &str = "columns";

const DATA: u16 = 2;
const VALUES: u16 = 3;
const GROUPS: u16 = 4;
const FIELDS: u16 = 5;

const DESCRIPTION_BYTES: usize = 24;
const VALUE_BYTES: u64 = 16;
const GROUP_BYTES: u64 = 16;
const FIELD_BYTES: u64 = 32;

/// Marks the rows of a value that has one row: the row itself stands where the place of the rows would.
const ONE: u64 = 1 << 63;
/// Marks rows that are listed, in the length that stands before them; otherwise they are a bitmap.
const LISTED: u32 = 1 << 31;

/// The types that a field holds, as bits: scalars from bit 0, elements of lists from bit 5.
fn bits_of(held: Held) -> u16 {
    let bits = held.scalars.into_iter().chain(held.elements);
    bits.enumerate().fold(0, |all, (bit, held)| all | u16::from(held) << bit)
}

fn held_of(bits: u16) -> Held {
    let from = |first: usize| std::array::from_fn(|i| bits & (1 << (first + i)) != 0);
    Held { scalars: from(0), elements: from(TYPES) }
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Columns {
    file: SealedFile,
    rows: u32,
    fields: u32,
    all: RoaringBitmap,
    data: Place,
    values: Place,
    groups: Place,
    field_table: Place,
}

/// A field as the table has it.
#[derive(Debug, Clone, Copy)]
struct Field {
    documents: u32,
    having: u64,
    first_group: u32,
    held: Held,
}

/// Values of one type of one field: which of the table.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    first: u64,
    count: u64,
}

/// The values of one field, of lists or of everything else.
#[derive(Debug, Clone, Copy)]
struct Values<'a> {
    columns: &'a Columns,
    groups: [Group; TYPES],
}

impl Columns {
    /// Opens the file, which must be of so many rows.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        name: Name,
        segment_rows: u32,
    ) -> Result<Self, SegmentError> {
        let file = SealedFile::open(disk, path, Owner { kind: Kind::Columns, name, part: 0 })?;
        let description = file.description();
        if description.len() != DESCRIPTION_BYTES {
            return Err(SegmentError::corrupt(path, 0, "its description has another length"));
        }
        let (rows, fields) = (u32_at(description, 0), u32_at(description, 4));
        let (values, groups) = (u64_at(description, 8), u32_at(description, 16));
        if rows != segment_rows {
            let reason = format!("it is of {rows} documents, and the segment has {segment_rows}");
            return Err(SegmentError::corrupt(path, 0, reason));
        }
        let mut all = RoaringBitmap::new();
        all.insert_range(0..rows);
        all.optimize();
        Ok(Columns {
            rows,
            fields,
            all,
            data: file.place(DATA)?,
            values: file.table(VALUES, values, VALUE_BYTES)?,
            groups: file.table(GROUPS, groups.into(), GROUP_BYTES)?,
            field_table: file.table(FIELDS, fields.into(), FIELD_BYTES)?,
            file,
        })
    }

    pub(super) fn file(&self) -> &SealedFile {
        &self.file
    }

    /// The fields of some of its rows, which it answers for as if there were no others. `documents` has no row that is
    /// not there.
    pub(crate) fn living<'a>(&'a self, documents: &'a RoaringBitmap) -> Living<'a> {
        Living { columns: self, documents }
    }

    /// All rows, deleted and expired ones too.
    pub(crate) fn rows(&self) -> &RoaringBitmap {
        &self.all
    }

    /// Checks what the sums do not: that every name, value and set of rows can be read, in order.
    pub(super) fn verify(&self, stop: &Stop, damages: &mut Vec<Damage>) -> Result<(), SegmentError> {
        let mut before: Option<String> = None;
        for number in 0..self.fields {
            stop.check()?;
            let read = (|| {
                let name = self.field_name(number)?;
                if before.as_deref().is_some_and(|before| before >= name) {
                    return Err(self.field_damaged(number, "the names do not ascend"));
                }
                before = Some(name.to_owned());
                let field = self.field(number)?;
                if self.rows_at(field.having)?.len() != u64::from(field.documents) {
                    return Err(self.field_damaged(number, "it counts other documents than it has"));
                }
                for (in_list, of) in writer::GROUPS_IN_ORDER {
                    let values = self.values_of(&field, in_list)?;
                    let group = values.groups[of as usize];
                    for at in group.first..group.first + group.count {
                        stop.check()?;
                        let key = self.key(of, at)?;
                        if at > group.first && self.key(of, at - 1)? >= key {
                            return Err(self.file.damaged(
                                self.values,
                                at * VALUE_BYTES,
                                "values do not ascend",
                            ));
                        }
                        self.rows_at(self.value(at)?.1)?;
                    }
                }
                Ok(())
            })();
            match read {
                Err(SegmentError::Stopped(stopped)) => return Err(stopped.into()),
                Err(error) => Damage::note(error, damages)?,
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn field_damaged(&self, number: u32, reason: &str) -> SegmentError {
        self.file.damaged(self.field_table, u64::from(number) * FIELD_BYTES, reason)
    }

    fn field_record(&self, number: u32) -> Result<&[u8], SegmentError> {
        self.file.record(self.field_table, number.into(), FIELD_BYTES)
    }

    fn field_name(&self, number: u32) -> Result<&str, SegmentError> {
        let record = self.field_record(number)?;
        self.text(u64_at(record, 0))
    }

    fn field(&self, number: u32) -> Result<Field, SegmentError> {
        let record = self.field_record(number)?;
        Ok(Field {
            having: u64_at(record, 8),
            documents: u32_at(record, 16),
            first_group: u32_at(record, 20),
            held: held_of(u16_at(record, 24)),
        })
    }

    /// How many names are less than the given one.
    fn lower_bound(&self, name: &str) -> Result<u32, SegmentError> {
        let count = partition(0, self.fields.into(), |at| Ok(self.field_name(at as u32)? < name))?;
        Ok(count as u32)
    }

    fn find(&self, name: &str) -> Result<Option<Field>, SegmentError> {
        let number = self.lower_bound(name)?;
        if number < self.fields && self.field_name(number)? == name {
            return self.field(number).map(Some);
        }
        Ok(None)
    }

    /// The values of a field: those of lists, or those of everything else.
    fn values_of(&self, field: &Field, in_list: bool) -> Result<Values<'_>, SegmentError> {
        let mut next = u64::from(field.first_group);
        let mut groups = [Group::default(); TYPES];
        // Groups lie in order: those of scalars before those of elements.
        let scalars = field.held.scalars.iter().filter(|held| **held).count() as u64;
        let held = if in_list { field.held.elements } else { field.held.scalars };
        next += if in_list { scalars } else { 0 };
        for (group, _) in groups.iter_mut().zip(held).filter(|(_, held)| *held) {
            let record = self.file.record(self.groups, next, GROUP_BYTES)?;
            *group = Group { first: u64_at(record, 0), count: u64_at(record, 8) };
            let values = self.file.length(self.values) / VALUE_BYTES;
            if group.count == 0 || group.first.checked_add(group.count).is_none_or(|end| end > values) {
                return Err(self.file.damaged(
                    self.groups,
                    next * GROUP_BYTES,
                    "it names values that are not there",
                ));
            }
            next += 1;
        }
        Ok(Values { columns: self, groups })
    }

    /// Key, or place of the text, and place of the rows of a value.
    fn value(&self, at: u64) -> Result<(i64, u64), SegmentError> {
        let record = self.file.record(self.values, at, VALUE_BYTES)?;
        Ok((i64_at(record, 0), u64_at(record, 8)))
    }

    fn key(&self, of: Type, at: u64) -> Result<Key<'_>, SegmentError> {
        let (key, _) = self.value(at)?;
        Ok(if of == Type::String { Key::Text(self.text(key.cast_unsigned())?) } else { Key::Number(key) })
    }

    fn text(&self, at: u64) -> Result<&str, SegmentError> {
        let length = u32_at(self.file.bytes(self.data, at..at.saturating_add(4))?, 0);
        let bytes = self.file.bytes(self.data, at + 4..(at + 4).saturating_add(length.into()))?;
        std::str::from_utf8(bytes).map_err(|error| self.file.damaged(self.data, at, error))
    }

    /// The rows of a value, or of a field.
    fn rows_at(&self, at: u64) -> Result<RoaringBitmap, SegmentError> {
        let mut found = RoaringBitmap::new();
        self.add_rows(at, &mut found)?;
        Ok(found)
    }

    fn add_rows(&self, at: u64, found: &mut RoaringBitmap) -> Result<(), SegmentError> {
        let beyond = || self.file.damaged(self.data, at & !ONE, "it names rows that are not there");
        if at & ONE != 0 {
            let row = u32::try_from(at & !ONE).ok().filter(|row| *row < self.rows);
            found.insert(
                row.ok_or_else(|| self.file.damaged(self.values, 0, "it names a row that is not there"))?,
            );
            return Ok(());
        }
        let length = u32_at(self.file.bytes(self.data, at..at.saturating_add(4))?, 0);
        let start = at + 4;
        let bytes = self.file.bytes(self.data, start..start.saturating_add((length & !LISTED).into()))?;
        if length & LISTED != 0 {
            for row in bytes.as_chunks::<4>().0 {
                let row = u32::from_le_bytes(*row);
                if row >= self.rows {
                    return Err(beyond());
                }
                found.insert(row);
            }
            return Ok(());
        }
        let rows = RoaringBitmap::deserialize_from(bytes)
            .map_err(|error| self.file.damaged(self.data, at, error))?;
        if rows.max().is_some_and(|row| row >= self.rows) {
            return Err(beyond());
        }
        *found |= rows;
        Ok(())
    }
}

/// See [`Columns::living`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Living<'a> {
    columns: &'a Columns,
    documents: &'a RoaringBitmap,
}

impl Living<'_> {
    fn is_whole(&self) -> bool {
        self.documents.len() == u64::from(self.columns.rows)
    }

    /// Which types have a value that a living row has. The first value of a type nearly always is one.
    fn held_in(&self, field: &Field, in_list: bool) -> Result<[bool; TYPES], SegmentError> {
        let values = self.columns.values_of(field, in_list)?;
        let mut held = [false; TYPES];
        for (held, group) in held.iter_mut().zip(values.groups) {
            for at in group.first..group.first + group.count {
                if !self.columns.rows_at(self.columns.value(at)?.1)?.is_disjoint(self.documents) {
                    *held = true;
                    break;
                }
            }
        }
        Ok(held)
    }
}

impl Known for Living<'_> {
    type Error = SegmentError;

    fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    fn held(&self, field: &str) -> Result<Option<Held>, SegmentError> {
        let Some(field) = self.columns.find(field)? else { return Ok(None) };
        if self.is_whole() {
            return Ok(Some(field.held));
        }
        let having = self.columns.rows_at(field.having)?;
        if having.is_disjoint(self.documents) {
            return Ok(None);
        }
        if having.is_subset(self.documents) {
            return Ok(Some(field.held));
        }
        Ok(Some(Held { scalars: self.held_in(&field, false)?, elements: self.held_in(&field, true)? }))
    }

    fn names_most(&self) -> usize {
        self.columns.fields as usize
    }

    fn names(&self, from: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), SegmentError> {
        let Columns { fields, .. } = *self.columns;
        for number in self.columns.lower_bound(from)?..fields {
            let is_of_the_living = self.is_whole() || {
                let field = self.columns.field(number)?;
                !self.columns.rows_at(field.having)?.is_disjoint(self.documents)
            };
            if is_of_the_living && each(self.columns.field_name(number)?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Fields for Living<'_> {
    fn documents(&self) -> &RoaringBitmap {
        self.documents
    }

    fn having(&self, field: &str) -> Result<RoaringBitmap, SegmentError> {
        let field = self.columns.find(field)?;
        field.map(|field| self.columns.rows_at(field.having)).transpose().map(Option::unwrap_or_default)
    }

    fn satisfying(&self, field: &str, test: &Test<'_>, stop: &Stop) -> Result<RoaringBitmap, SegmentError> {
        let Some(field) = self.columns.find(field)? else { return Ok(RoaringBitmap::new()) };
        let scalars = self.columns.values_of(&field, false)?;
        evaluate::matching(&scalars, &self.columns.values_of(&field, true)?, test, stop)
    }
}

impl Values<'_> {
    fn group(&self, of: Type) -> Group {
        self.groups[of as usize]
    }

    fn add(&self, at: u64, found: &mut RoaringBitmap) -> Result<(), SegmentError> {
        self.columns.add_rows(self.columns.value(at)?.1, found)
    }
}

impl Column for Values<'_> {
    type Error = SegmentError;

    fn numbers(
        &self,
        of: Type,
        keys: RangeInclusive<i64>,
        found: &mut RoaringBitmap,
        going: &mut dyn FnMut() -> bool,
    ) -> Result<(), SegmentError> {
        let Group { first, count } = self.group(of);
        let end = first + count;
        let from = partition(first, end, |at| Ok(self.columns.value(at)?.0 < *keys.start()))?;
        for at in from..end {
            let (key, rows) = self.columns.value(at)?;
            if key > *keys.end() || !going() {
                break;
            }
            self.columns.add_rows(rows, found)?;
        }
        Ok(())
    }

    fn bools(&self, truth: bool, found: &mut RoaringBitmap) -> Result<(), SegmentError> {
        self.numbers(Type::Bool, i64::from(truth)..=i64::from(truth), found, &mut || true)
    }

    fn texts(
        &self,
        bounds: (Bound<&str>, Bound<&str>),
        found: &mut RoaringBitmap,
        wanted: &mut dyn FnMut(&str) -> ControlFlow<(), bool>,
    ) -> Result<(), SegmentError> {
        let Group { first, count } = self.group(Type::String);
        let end = first + count;
        let text = |at: u64| self.columns.text(self.columns.value(at)?.0.cast_unsigned());
        let from = partition(first, end, |at| {
            Ok(match bounds.0 {
                Bound::Unbounded => false,
                Bound::Included(low) => text(at)? < low,
                Bound::Excluded(low) => text(at)? <= low,
            })
        })?;
        for at in from..end {
            let text = text(at)?;
            let is_within = match bounds.1 {
                Bound::Unbounded => true,
                Bound::Included(high) => text <= high,
                Bound::Excluded(high) => text < high,
            };
            if !is_within {
                break;
            }
            match wanted(text) {
                ControlFlow::Continue(true) => self.add(at, found)?,
                ControlFlow::Continue(false) => {}
                ControlFlow::Break(()) => break,
            }
        }
        Ok(())
    }
}

/// The first place of a range for which `is_before` does not hold; it holds for all places before it.
fn partition(
    mut low: u64,
    mut high: u64,
    mut is_before: impl FnMut(u64) -> Result<bool, SegmentError>,
) -> Result<u64, SegmentError> {
    while low < high {
        let middle = low + (high - low) / 2;
        match is_before(middle)?.cmp(&true) {
            Ordering::Equal => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}
