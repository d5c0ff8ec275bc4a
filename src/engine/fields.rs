//! How many payload field names a collection may have: asked once for all documents of a call.

use std::collections::HashSet;

use super::{
    backend::{Backend, KnownFields},
    error::Result,
};
use crate::value::{Payload, PointId, ValueError};

/// The names that a collection may yet be given, as of one moment.
#[derive(Debug)]
pub(super) struct FieldNames {
    known: KnownFields,
    /// Those of the call's earlier documents that the collection does not have.
    new: HashSet<String>,
    names_max: usize,
}

impl FieldNames {
    /// Asks about all the names that documents will bring; where there are none, nobody is asked.
    ///
    /// # Errors
    /// The backend's.
    pub(super) async fn ask(backend: &dyn Backend, names: HashSet<String>, names_max: usize) -> Result<Self> {
        let known =
            if names.is_empty() { KnownFields::default() } else { backend.fields(names, names_max).await? };
        Ok(FieldNames { known, new: HashSet::new(), names_max })
    }

    /// Whether every document has its place, so that none need be looked at.
    pub(super) fn has_all(&self) -> bool {
        self.known.unknown.is_empty()
    }

    /// Checks that a payload brings no more new names than the collection may have, and notes them.
    ///
    /// # Errors
    /// [`ValueError::BadPayload`] naming the first name too many; nothing is noted then.
    pub(super) fn admit(&mut self, id: &PointId, payload: &Payload) -> Result<(), ValueError> {
        let unknown = payload.keys().filter(|name| self.known.unknown.contains(*name));
        let unknown: Vec<&String> = unknown.filter(|name| !self.new.contains(*name)).collect();
        let (names, names_max) = (self.known.total, self.names_max);
        let room = names_max.saturating_sub(names + self.new.len());
        if let Some(field) = unknown.get(room) {
            return Err(ValueError::BadPayload {
                id: id.as_str().chars().take(80).collect(),
                field: field.chars().take(80).collect(),
                reason: format!(
                    "the collection has {names} field names, and may have {names_max} (limits.field_names_max); put what differs from document to document into values, not into names"
                ),
            });
        }
        self.new.extend(unknown.into_iter().cloned());
        Ok(())
    }
}

/// Adds the names of a payload.
pub(super) fn note(names: &mut HashSet<String>, payload: &Payload) {
    for name in payload.keys() {
        if !names.contains(name) {
            names.insert(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn names_are_counted_once_and_one_too_many_is_refused_with_nothing_noted() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
        let payload = |names: &[&str]| -> Payload {
            names.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect()
        };
        let known = KnownFields { unknown: set(&["x", "y", "z"]), total: 3 };
        let mut fields = FieldNames { known, new: HashSet::new(), names_max: 5 };
        let id = PointId::new("a").unwrap();
        assert!(!fields.has_all());
        fields.admit(&id, &payload(&["x", "old"])).unwrap();
        fields.admit(&id, &payload(&["x"])).unwrap();
        let error = fields.admit(&id, &payload(&["y", "z"])).unwrap_err().to_string();
        assert!(
            error.contains("\"z\"") && error.contains("has 3") && error.contains("may have 5"),
            "{error}"
        );
        fields.admit(&id, &payload(&["z"])).unwrap();
        assert!(fields.admit(&id, &payload(&["y"])).is_err());
    }
}
