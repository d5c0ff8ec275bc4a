//! Collects the payloads of documents as they come, for the file `columns`.
//!
//! They are kept in an index in memory up to a limit; then it is sealed as a run, a file of its own, and the runs are
//! merged at the end.

use std::{
    mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Columns, FILE, merge, writer::ColumnsWriter};
use crate::{
    files::disk::Disk,
    index::columns::FieldIndex,
    segment::{Name, SegmentError},
    stop::Stop,
    value::{Payload, Value},
};

/// What the index takes for a name or a value besides its bytes, about.
const OVERHEAD_BYTES: usize = 128;

#[derive(Debug)]
pub(in crate::segment) struct ColumnsBuilder {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    name: Name,
    spool_bytes: usize,
    /// Bytes of the index at which it is sealed.
    bytes_max: usize,
    index: FieldIndex,
    bytes: usize,
    rows: u32,
    /// Each with the number of rows up to its end.
    runs: Vec<(PathBuf, u32)>,
}

impl ColumnsBuilder {
    /// `dir`: the folder that is being filled.
    pub(in crate::segment) fn new(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        bytes_max: usize,
        spool_bytes: usize,
    ) -> Self {
        ColumnsBuilder {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            name,
            spool_bytes,
            bytes_max,
            index: FieldIndex::new(),
            bytes: 0,
            rows: 0,
            runs: Vec::new(),
        }
    }

    /// Adds the payload of the next row.
    pub(in crate::segment) fn push(&mut self, payload: &Payload) -> Result<(), SegmentError> {
        self.index.insert(self.rows, payload);
        self.rows += 1;
        self.bytes += payload.iter().map(|(name, value)| name.len() + bytes_of(value)).sum::<usize>();
        if self.bytes >= self.bytes_max {
            self.seal_run()?;
        }
        Ok(())
    }

    fn seal_run(&mut self) -> Result<(), SegmentError> {
        let path = self.dir.join(format!("columns-{}", self.runs.len()));
        self.bytes = 0;
        let index = mem::take(&mut self.index);
        self.runs.push((path.clone(), self.rows));
        let mut writer = ColumnsWriter::create(&self.disk, &path, self.name, self.spool_bytes)?;
        index.seal(&mut writer)?;
        writer.finish(self.rows)
    }

    pub(in crate::segment) fn finish(mut self) -> Result<(), SegmentError> {
        if !self.runs.is_empty() && self.bytes > 0 {
            self.seal_run()?;
        }
        let path = self.dir.join(FILE);
        let mut writer = ColumnsWriter::create(&self.disk, &path, self.name, self.spool_bytes)?;
        if self.runs.is_empty() {
            self.index.seal(&mut writer)?;
        } else {
            let runs = self.runs.iter().map(|(run, rows)| Columns::open(&self.disk, run, self.name, *rows));
            let runs = runs.collect::<Result<Vec<_>, _>>()?;
            let sources: Vec<_> =
                runs.iter().map(|columns| merge::Source { columns, row: &|row| Some(row) }).collect();
            merge::merge(&sources, &mut writer, &Stop::default())?;
            drop(sources);
            drop(runs);
            for (run, _) in &self.runs {
                self.disk.remove(run).map_err(|e| SegmentError::io(run, e))?;
            }
        }
        writer.finish(self.rows)
    }
}

/// What a value adds to the index in memory, about.
fn bytes_of(value: &Value) -> usize {
    OVERHEAD_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::List(elements) => elements.iter().map(bytes_of).sum(),
            _ => 0,
        }
}
