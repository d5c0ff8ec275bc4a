//! Merges sealed columns into one, value by value in order: no more of them is in memory than the rows of one value.

use std::cmp::Ordering;

use roaring::RoaringBitmap;

use super::{
    Columns, Field, Group, Values,
    writer::{ColumnsWriter, GROUPS_IN_ORDER},
};
use crate::{
    index::columns::{Key, Posting, Sealer as _, Type},
    segment::SegmentError,
    stop::Stop,
};

/// Columns, and which row each of theirs becomes; `None` if it is dropped. Rows keep their order, and all rows of one
/// source come before those of the next.
pub(in crate::segment) struct Source<'a> {
    pub(in crate::segment) columns: &'a Columns,
    pub(in crate::segment) row: &'a (dyn Fn(u32) -> Option<u32> + Sync),
}

impl Source<'_> {
    /// Adds what the rows at a place of the data become.
    fn add(&self, at: u64, rows: &mut Vec<u32>) -> Result<(), SegmentError> {
        if at & super::ONE != 0 && at & !super::ONE < u64::from(self.columns.rows) {
            rows.extend((self.row)((at & !super::ONE) as u32));
        } else {
            rows.extend(self.columns.rows_at(at)?.into_iter().filter_map(self.row));
        }
        Ok(())
    }
}

/// Writes the fields of all sources.
///
/// # Errors
/// [`SegmentError::Corrupt`] of a source; [`SegmentError::Stopped`]; those of writing.
pub(in crate::segment) fn merge(
    sources: &[Source<'_>],
    into: &mut ColumnsWriter,
    stop: &Stop,
) -> Result<(), SegmentError> {
    let mut next = vec![0; sources.len()];
    let mut rows = Vec::new();
    loop {
        // The next field by name, and who has it.
        let mut having: Vec<usize> = Vec::new();
        let mut name = None;
        for (at, source) in sources.iter().enumerate() {
            if next[at] == source.columns.fields {
                continue;
            }
            let theirs = source.columns.field_name(next[at])?;
            match name.map_or(Ordering::Less, |name| theirs.cmp(name)) {
                Ordering::Less => {
                    name = Some(theirs);
                    having = vec![at];
                }
                Ordering::Equal => having.push(at),
                Ordering::Greater => {}
            }
        }
        let Some(name) = name else { return Ok(()) };
        stop.check()?;
        let mut fields = Vec::with_capacity(having.len());
        rows.clear();
        for at in having {
            let field = sources[at].columns.field(next[at])?;
            sources[at].add(field.having, &mut rows)?;
            fields.push((&sources[at], field));
            next[at] += 1;
        }
        if !rows.is_empty() {
            let documents = bitmap(&rows);
            for (in_list, of) in GROUPS_IN_ORDER {
                merge_group(&fields, in_list, of, &mut rows, into, stop)?;
            }
            into.field(name, &documents)?;
        }
    }
}

/// A source's values of one group that are still to come.
struct Cursor<'a> {
    source: &'a Source<'a>,
    values: Group,
    key: Key<'a>,
}

fn merge_group<'a>(
    fields: &[(&'a Source<'a>, Field)],
    in_list: bool,
    of: Type,
    rows: &mut Vec<u32>,
    into: &mut ColumnsWriter,
    stop: &Stop,
) -> Result<(), SegmentError> {
    let mut cursors = Vec::new();
    for (source, field) in fields {
        let Values { columns, groups } = source.columns.values_of(field, in_list)?;
        let values = groups[of as usize];
        if values.count > 0 {
            cursors.push(Cursor { source, values, key: columns.key(of, values.first)? });
        }
    }
    let mut going = stop.pace();
    while let Some(key) = cursors.iter().map(|cursor| cursor.key).min() {
        if !going() {
            stop.check()?;
        }
        rows.clear();
        for cursor in cursors.iter_mut().filter(|cursor| cursor.key == key) {
            let Cursor { source, values, .. } = cursor;
            source.add(source.columns.value(values.first)?.1, rows)?;
            values.first += 1;
            values.count -= 1;
            if values.count > 0 {
                cursor.key = source.columns.key(of, values.first)?;
            }
        }
        cursors.retain(|cursor| cursor.values.count > 0);
        match **rows {
            [] => {}
            [row] => into.value(in_list, of, key, Posting::One(row))?,
            _ => into.value(in_list, of, key, Posting::Many(&bitmap(rows)))?,
        }
    }
    Ok(())
}

/// Rows that ascend, as a bitmap.
fn bitmap(rows: &[u32]) -> RoaringBitmap {
    RoaringBitmap::from_sorted_iter(rows.iter().copied())
        .expect("rows keep their order and those of one source come before those of the next")
}
