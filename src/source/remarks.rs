//! Remarks on the files of a run that are no errors: front matter that stayed text, and types that were given for
//! fields that no document has.
//!
//! Filled while the files are read, and asked when they are all read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use super::{SourceDocument, SourceError, ValueType};
use crate::meant;

/// Remarks on files that are kept; more are counted.
const REMARKS_MAX: usize = 1000;
/// Names of fields that are kept to find what was meant.
const NAMES_MAX: usize = 1000;

/// Shared with the code that reports them.
#[derive(Debug, Default)]
pub struct Remarks(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    of_files: Vec<String>,
    more: u64,
    any_document: bool,
    /// The fields that were given a type, and that no document had up to now.
    unmet: BTreeMap<String, ValueType>,
    /// Fields that documents had.
    names: BTreeSet<String>,
}

impl Remarks {
    pub(super) fn new(types: &BTreeMap<String, ValueType>) -> Self {
        Remarks(Mutex::new(Noted { unmet: types.clone(), ..Noted::default() }))
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.0.lock().expect("nothing panics while it is held")
    }

    /// Takes out what was remarked on single files, each with file and line, in the order they were read; and how many
    /// more there were than are kept.
    pub fn take(&self) -> (Vec<String>, u64) {
        let mut noted = self.noted();
        (std::mem::take(&mut noted.of_files), std::mem::take(&mut noted.more))
    }

    /// For each field that was given a type and that no document had, what is to be said. Nothing, where there was no
    /// document at all.
    pub fn unmet(&self) -> Vec<String> {
        let noted = self.noted();
        let unmet = noted.unmet.iter().filter(|_| noted.any_document);
        unmet
            .map(|(field, kind)| {
                let meant = meant::hint(field, &noted.names);
                format!(
                    "--type {field}={kind} did nothing: no document of this run has the field {field:?} beside its id, \
                     title and text{meant}"
                )
            })
            .collect()
    }

    pub(super) fn note(&self, remark: String) {
        let mut noted = self.noted();
        if noted.of_files.len() < REMARKS_MAX {
            noted.of_files.push(remark);
        } else {
            noted.more += 1;
        }
    }

    /// Looks which fields a document has. One that is refused for a field has that field.
    pub(super) fn see(&self, read: &Result<SourceDocument, SourceError>) {
        let mut noted = self.noted();
        let Noted { any_document, unmet, names, .. } = &mut *noted;
        if unmet.is_empty() {
            return;
        }
        match read {
            Ok(document) => {
                *any_document = true;
                unmet.retain(|field, _| !document.payload.contains_key(field));
                for name in document.payload.keys() {
                    if names.len() < NAMES_MAX && !names.contains(name) {
                        names.insert(name.clone());
                    }
                }
            }
            Err(error) => unmet.retain(|field, _| !error.reason.contains(&format!("field {field:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn a_type_for_a_field_that_no_document_has_is_told_with_what_was_meant() {
        let types = [("yaer", ValueType::Integer), ("n", ValueType::Float), ("day", ValueType::Datetime)];
        let types = types.map(|(field, kind)| (field.to_owned(), kind)).into();
        let remarks = Remarks::new(&types);
        assert!(remarks.unmet().is_empty(), "nothing was read");
        let payload = ["year", "n"].map(|field| (field.to_owned(), Value::Integer(1))).into();
        remarks.see(&Ok(SourceDocument {
            id: "a".into(),
            title: String::new(),
            text: "t".into(),
            payload,
            vector: None,
            place: "f:1".into(),
        }));
        remarks.see(&Err(SourceError::new("f", 2, "field \"day\": the string cannot be read as datetime")));
        let [told] = remarks.unmet().try_into().unwrap();
        assert!(told.starts_with("--type yaer=integer did nothing"), "{told}");
        assert!(told.ends_with("; did you mean year?"), "{told}");
    }

    #[test]
    fn remarks_are_kept_up_to_a_bound_and_then_counted() {
        let remarks = Remarks::default();
        (0..REMARKS_MAX + 3).for_each(|i| remarks.note(i.to_string()));
        let (kept, more) = remarks.take();
        assert_eq!((kept.len(), more), (REMARKS_MAX, 3));
        assert_eq!(remarks.take(), (Vec::new(), 0));
    }
}
