//! Reads documents from CSV or TSV with a header row.
//!
//! A table is read twice: first for the type of each column and for what the columns are, which holds for the whole
//! file; then for its rows. What can be read only once (standard input, a pipe) is kept in memory up to
//! [`RECORD_BYTES_MAX`]: where there is more, the types are those of this beginning, and a later cell of another form is
//! an error of its row that names `--type`. Empty cells are left out.

use std::{
    collections::{HashMap, HashSet},
    io::{Cursor, Read},
    sync::Arc,
};

use serde_json::{Map, Value as Json};

use super::{
    Documents, RECORD_BYTES_MAX, Role, SourceDocument, SourceError, Understood, UnderstoodColumn,
    UnderstoodFiles, ValueType,
    columns::Survey,
    delimiter,
    fields::{FieldMap, Roles, Typing},
    lines::Lines,
    open::{Unmarked, said},
    records::{Record, Records},
};

/// Whether a table's first cells are cut at `,` (or what stands in its place), with quotes; or at tabs, without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Csv,
    Tsv,
}

/// The inputs of a table reader.
pub(super) struct Table {
    pub(super) file: String,
    pub(super) kind: Kind,
    pub(super) fields: Arc<FieldMap>,
    pub(super) understood: Arc<UnderstoodFiles>,
    pub(super) bytes_max: usize,
    /// Whether nothing else is read: then an option that does not suit it suits nothing.
    pub(super) alone: bool,
}

impl Table {
    /// The documents of a table that can be read twice: `first` and `second` begin with the same bytes.
    pub(super) fn twice(self, first: Unmarked, second: Unmarked) -> Documents {
        let delimiter = self.delimiter(&first.head);
        let survey = self.survey(self.records(first, delimiter));
        self.rows(survey, second, delimiter)
    }

    /// The documents of a table that can be read only once.
    pub(super) fn once(self, input: Unmarked) -> Documents {
        let Unmarked { mut reader, skipped, converted, .. } = input;
        let mut beginning = Vec::new();
        if let Err(e) = reader.by_ref().take(RECORD_BYTES_MAX as u64).read_to_end(&mut beginning) {
            return Box::new(std::iter::once(Err(SourceError::new(&self.file, None, said(&e)))));
        }
        let head = beginning[..beginning.len().min(super::open::HEAD_BYTES)].to_vec();
        let begun = |reader| Unmarked { reader, skipped, head: head.clone(), converted };
        let delimiter = self.delimiter(&head);
        // The last line of the beginning may be cut.
        let whole = match beginning.iter().rposition(|byte| *byte == b'\n') {
            Some(end) if beginning.len() == RECORD_BYTES_MAX => end,
            _ => beginning.len(),
        };
        let beginning = Arc::<[u8]>::from(beginning);
        let first = Cursor::new(Arc::clone(&beginning)).take(whole as u64);
        let survey = self.survey(self.records(begun(Box::new(first)), delimiter));
        let second = begun(Box::new(Cursor::new(beginning).chain(reader)));
        self.rows(survey, second, delimiter)
    }

    fn delimiter(&self, head: &[u8]) -> char {
        match self.kind {
            Kind::Csv => delimiter::of(head),
            Kind::Tsv => '\t',
        }
    }

    fn records(&self, input: Unmarked, delimiter: char) -> Records {
        let lines = Lines::with_max(input, self.bytes_max);
        Records::new(lines, delimiter, self.kind == Kind::Csv, self.bytes_max)
    }

    /// The type of each column. Rows that cannot be read are reported on the second reading.
    fn survey(&self, mut records: Records) -> Vec<Survey> {
        let Some(Ok(header)) = records.next() else { return Vec::new() };
        let mut surveys = vec![Survey::new(); header.cells.len()];
        let columns = surveys.len();
        for row in records.flatten().filter(|row| row.cells.len() == columns) {
            for (survey, cell) in surveys.iter_mut().zip(&row.cells) {
                survey.see(cell);
            }
        }
        surveys
    }

    fn rows(self, surveys: Vec<Survey>, input: Unmarked, delimiter: char) -> Documents {
        let mut records = self.records(input, delimiter);
        let begun = match records.next() {
            None => Err(SourceError::new(&self.file, None, "empty")),
            Some(Err(e)) => Err(SourceError::new(&self.file, e.number, e.reason)),
            Some(Ok(header)) => self.begin(header, &surveys, delimiter),
        };
        match begun {
            Ok((header, roles, kinds)) => {
                Box::new(Rows { file: self.file, records, header, roles, kinds, fields: self.fields })
            }
            // Without a header there is no telling what the rows are.
            Err(e) => Box::new(std::iter::once(Err(e))),
        }
    }

    /// Reads a header: the names of the columns, what they are, and their types.
    #[expect(clippy::type_complexity, reason = "the parts of `Rows`, told one by one")]
    fn begin(
        &self,
        header: Record,
        surveys: &[Survey],
        delimiter: char,
    ) -> Result<(Vec<String>, Roles, HashMap<String, ValueType>), SourceError> {
        let refuse = |reason: String| SourceError::new(&self.file, header.line, reason);
        let mut names: Vec<String> = Vec::with_capacity(header.cells.len());
        let mut met = HashSet::new();
        for (i, cell) in header.cells.iter().enumerate() {
            let name = match cell.trim() {
                "" => format!("column_{}", i + 1),
                name => name.to_owned(),
            };
            if !met.insert(name.clone()) {
                return Err(refuse(format!("the header has the column {name:?} twice")));
            }
            names.push(name);
        }
        let roles = self.fields.roles(names.iter().map(String::as_str)).map_err(|mut reason| {
            if names.len() == 1 {
                reason.push_str(" (is the first line no header, or are the cells separated by something else than , ; tab or |?)");
            }
            SourceError { wrong_use: self.alone && self.fields.names_any(), ..refuse(reason) }
        })?;
        let mut kinds = HashMap::new();
        let mut columns = Vec::with_capacity(names.len());
        for (i, name) in names.iter().enumerate() {
            let role = roles.of(name);
            let mut kind = None;
            if role == Role::Payload {
                let found = surveys.get(i).and_then(Survey::kind);
                kind = self.fields.types.get(name).copied().or(found);
                if let Some(found) = found {
                    kinds.insert(name.clone(), found);
                }
            }
            columns.push(UnderstoodColumn { name: name.clone(), role, kind });
        }
        if self.alone {
            let checked = self.fields.check_types_of_columns(&columns);
            checked.map_err(|reason| SourceError { wrong_use: true, ..refuse(reason) })?;
        }
        self.understood.note(Understood { file: self.file.clone(), delimiter: Some(delimiter), columns });
        Ok((names, roles, kinds))
    }
}

/// One document per row; a record over several lines is named by its first.
struct Rows {
    file: String,
    records: Records,
    header: Vec<String>,
    roles: Roles,
    kinds: HashMap<String, ValueType>,
    fields: Arc<FieldMap>,
}

impl Rows {
    fn document(&self, Record { line, cells }: Record) -> Result<SourceDocument, SourceError> {
        let refuse = |reason: String| SourceError::new(&self.file, line, reason);
        if cells.len() != self.header.len() {
            return Err(refuse(format!(
                "the row has {} cells, the header has {}",
                cells.len(),
                self.header.len()
            )));
        }
        let record: Map<String, Json> = self
            .header
            .iter()
            .zip(cells)
            .filter(|(_, cell)| !cell.is_empty())
            .map(|(name, cell)| (name.clone(), Json::String(cell)))
            .collect();
        let place = format!("{}:{line}", self.file);
        self.fields.document(record, &self.roles, Typing::Columns(&self.kinds), place).map_err(refuse)
    }
}

impl Iterator for Rows {
    type Item = Result<SourceDocument, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.records.next()? {
            Ok(record) => self.document(record),
            Err(e) => Err(SourceError::new(&self.file, e.number, e.reason)),
        })
    }
}
