//! A record's fields become id, title, text, vector and payload.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use super::{
    Role, SourceDocument, SourceError, UnderstoodColumn,
    columns::{self, Form},
    export,
};
use crate::{
    meant,
    value::{Payload, Value, datetime, json::payload_from_json, type_name},
};

pub(super) const ID_NAMES: [&str; 3] = ["id", "_id", "doc_id"];
const TITLE_NAMES: [&str; 1] = ["title"];
const TEXT_NAMES: [&str; 4] = ["text", "body", "content", "abstract"];
const VECTOR_NAME: &str = "vector";
/// Objects of these names are merged into the payload.
pub(super) const PAYLOAD_NAMES: [&str; 2] = ["metadata", "payload"];

/// Which fields of a record are what. A field that is named must be in every record; of the defaults the first that is
/// there is taken: id from `id`, `_id`, `doc_id` (else a hash of the record); title from `title`; text from `text`,
/// `body`, `content`, `abstract`; vector from `vector`. Where there is none written so, `ID` or `Text` is as good. All
/// others become payload, those of an object named `metadata` or `payload` without that name in front. Beside `payload`
/// an object `types` may stand, as exports have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldMap {
    /// Field with the id. Default: the first of `id`, `_id` and `doc_id`, else a hash of the record.
    pub id: Option<String>,
    /// Field with the title. Default: `title`.
    pub title: Option<String>,
    /// Field with the text. Default: the first of `text`, `body`, `content` and `abstract`.
    pub text: Option<String>,
    /// Field with the vector, a list of numbers. Default: `vector`.
    pub vector: Option<String>,
    /// Payload fields that must have a type; a record whose value cannot be read as that type is an error.
    /// Default: none.
    pub types: BTreeMap<String, ValueType>,
    /// Ignores the payload, so that nothing in it is an error. Default: off.
    pub without_payload: bool,
}

/// A type that a payload field is read as; in a list, every element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// Text.
    String,
    /// An integer of 64 bits.
    Integer,
    /// A number in double precision.
    Float,
    /// `true` or `false`.
    Bool,
    /// A date or datetime in RFC 3339 form; see [`crate::value::datetime`].
    Datetime,
}

impl ValueType {
    /// Whether it is written as text, also where that looks like something else.
    pub fn is_text(self) -> bool {
        matches!(self, ValueType::String | ValueType::Datetime)
    }

    const ALL: [(&'static str, ValueType); 5] = [
        ("string", ValueType::String),
        ("integer", ValueType::Integer),
        ("float", ValueType::Float),
        ("bool", ValueType::Bool),
        ("datetime", ValueType::Datetime),
    ];
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, _) = Self::ALL.iter().find(|(_, kind)| kind == self).expect("all types are listed");
        f.write_str(name)
    }
}

impl std::str::FromStr for ValueType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, kind)| *kind).ok_or_else(|| {
            format!("unknown type {name:?}; give one of {}", Self::ALL.map(|(known, _)| known).join(", "))
        })
    }
}

/// Where the types of a record's values come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Typing<'a> {
    /// From the record, as in JSON. The fields named stand for integers beyond 64 bits: they hold the digits as text.
    Own(&'a BTreeSet<String>),
    /// All values are text, and each column has one type.
    Columns(&'a HashMap<String, ValueType>),
}

/// Which fields of one record, or of all rows of a table, are what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Roles {
    id: Option<String>,
    title: Option<String>,
    text: Option<String>,
    vector: Option<String>,
}

impl Roles {
    /// What a field of this name is taken for.
    pub(super) fn of(&self, name: &str) -> Role {
        let is = |role: &Option<String>| role.as_deref() == Some(name);
        if is(&self.id) {
            Role::Id
        } else if is(&self.title) {
            Role::Title
        } else if is(&self.text) {
            Role::Text
        } else if is(&self.vector) {
            Role::Vector
        } else {
            Role::Payload
        }
    }
}

impl FieldMap {
    /// Finds out which of these fields are what.
    ///
    /// # Errors
    /// A field that the user named and that is not there; no field with a text. The reason lists the fields.
    pub(super) fn roles<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<Roles, String> {
        let find = |chosen: &Option<String>, defaults: &[&str], option: &str| match chosen {
            Some(name) if names.clone().any(|there| there == name) => Ok(Some(name.clone())),
            Some(name) => {
                Err(format!("no field {name:?}, which {option} names; there are {}", listed(names.clone())))
            }
            None => Ok(defaults.iter().find_map(|default| {
                let exact = names.clone().find(|there| there == default);
                exact
                    .or_else(|| names.clone().find(|there| there.eq_ignore_ascii_case(default)))
                    .map(str::to_owned)
            })),
        };
        let roles = Roles {
            id: find(&self.id, &ID_NAMES, "--id-field")?,
            title: find(&self.title, &TITLE_NAMES, "--title-field")?,
            text: find(&self.text, &TEXT_NAMES, "--text-field")?,
            vector: find(&self.vector, &[VECTOR_NAME], "--vector-field")?,
        };
        if roles.text.is_none() && roles.vector.is_none() {
            return Err(format!(
                "no text: it has none of the fields {}; name the field with --text-field, and if need be --title-field \
                 and --id-field; there are {}",
                TEXT_NAMES.join(", "),
                listed(names)
            ));
        }
        Ok(roles)
    }

    /// Makes a document of a record.
    ///
    /// # Errors
    /// The reason, for the user, with the document's id where that is known.
    pub(super) fn document(
        &self,
        mut record: Map<String, Json>,
        roles: &Roles,
        typing: Typing<'_>,
        place: String,
    ) -> Result<SourceDocument, String> {
        let has =
            |record: &Map<String, Json>, name: &str| record.get(name).is_some_and(|value| !value.is_null());
        let empty_id = |name: &String| format!("the id in field {name:?} is empty");
        let own_id = match &roles.id {
            Some(name) if has(&record, name) => {
                let id = take_text(&mut record, name)?;
                if id.is_empty() {
                    return Err(empty_id(name));
                }
                Some(id)
            }
            Some(name) if self.id.is_some() => return Err(empty_id(name)),
            _ => None,
        };
        // Of the whole record: before anything is taken out.
        let id = own_id.clone().unwrap_or_else(|| {
            content_id(&serde_json::to_vec(&record).expect("a map with text keys is valid JSON"))
        });
        let of_document = |reason: String| match &own_id {
            Some(id) => format!("document {:?}: {reason}", id.chars().take(80).collect::<String>()),
            None => reason,
        };
        let mut text_of = |name: &Option<String>| match name {
            Some(name) if has(&record, name) => take_text(&mut record, name).map(Some),
            _ => Ok(None),
        };
        let title = text_of(&roles.title).map_err(of_document)?;
        let text = text_of(&roles.text).map_err(of_document)?;
        let vector = self.take_vector(&mut record, roles.vector.as_deref()).map_err(of_document)?;
        if vector.is_none() {
            let blank = |text: &Option<String>| text.as_ref().is_none_or(|text| text.trim().is_empty());
            if blank(&text) && blank(&title) {
                let exported = text.is_some() && record.get(export::PAYLOAD).is_some_and(Json::is_object);
                let hint = if exported {
                    "; if this is an export of a collection of vectors, make it with `document scroll --vectors`"
                } else {
                    ""
                };
                return Err(of_document(format!("empty: neither text nor title{hint}")));
            }
        }
        let payload = self.payload(record, typing).map_err(of_document)?;
        Ok(SourceDocument {
            id,
            title: title.unwrap_or_default(),
            text: text.unwrap_or_default(),
            payload,
            vector,
            place,
        })
    }

    /// Whether all types are of fields: the id, the title and the text of a record are none.
    ///
    /// # Errors
    /// The type that is of something else.
    pub(super) fn check_types(&self) -> Result<(), SourceError> {
        for (field, kind) in &self.types {
            let roles = [(&self.id, "id"), (&self.title, "title"), (&self.text, "text")];
            let role = roles.into_iter().find(|(chosen, role)| chosen.as_deref().unwrap_or(role) == field);
            if let Some((_, role)) = role {
                return Err(SourceError::new(&format!("--type {field}={kind}"), None, never_typed(role)));
            }
        }
        Ok(())
    }

    /// Whether a table, which is all that is read, has a column of fields for each type.
    ///
    /// # Errors
    /// The type without one, and why.
    pub(super) fn check_types_of_columns(&self, columns: &[UnderstoodColumn]) -> Result<(), String> {
        for (field, kind) in &self.types {
            let reason = match columns.iter().find(|column| column.name == *field).map(|column| column.role) {
                Some(Role::Payload) => continue,
                Some(Role::Vector) => {
                    "it is the vector, whose numbers are floats; leave this --type out".to_owned()
                }
                Some(Role::Id) => never_typed("id"),
                Some(Role::Title) => never_typed("title"),
                Some(Role::Text) => never_typed("text"),
                None => {
                    let names =
                        || columns.iter().filter(|c| c.role == Role::Payload).map(|c| c.name.as_str());
                    let (there, meant) = (listed(names()), meant::hint(field, names()));
                    format!("no column of fields {field:?}{meant}; there are {there}")
                }
            };
            return Err(format!("--type {field}={kind}: {reason}"));
        }
        Ok(())
    }

    /// Whether the user named a field.
    pub(super) fn names_any(&self) -> bool {
        [&self.id, &self.title, &self.text, &self.vector].into_iter().any(Option::is_some)
    }

    /// Gives the fields that have a type in the map that type.
    ///
    /// # Errors
    /// The field and why its value cannot be read so.
    pub fn coerce(&self, payload: &mut Payload) -> Result<(), String> {
        coerce_fields(payload, self.types.iter())
    }

    fn payload(&self, mut record: Map<String, Json>, typing: Typing) -> Result<Payload, String> {
        if self.without_payload {
            return Ok(Payload::new());
        }
        let exported = export::take_types(&mut record);
        for name in PAYLOAD_NAMES {
            if !record.get(name).is_some_and(Json::is_object) {
                continue;
            }
            let Some(Json::Object(inner)) = record.remove(name) else { continue };
            for (field, value) in inner {
                if record.contains_key(&field) {
                    return Err(format!("field {field:?} stands both in {name:?} and beside it"));
                }
                record.insert(field, value);
            }
        }
        if let Typing::Own(long) = typing
            && let Some(field) = long.iter().find(|field| {
                let is_top = record.contains_key(field.split('.').next().unwrap_or(field))
                    || record.contains_key(*field);
                is_top && !matches!(self.types.get(*field), Some(ValueType::String | ValueType::Float))
            })
        {
            return Err(format!(
                "field {field:?}: the integer does not fit into 64 bits; write it as text, or read the field with --type as \
                 string, which keeps its digits"
            ));
        }
        let mut payload =
            payload_from_json(&record).map_err(|(field, reason)| format!("field {field:?}: {reason}"))?;
        if let Typing::Columns(columns) = typing {
            for (field, value) in &mut payload {
                if let Value::String(text) = value
                    && !self.types.contains_key(field)
                    && let Some(kind) = columns.get(field)
                {
                    *value =
                        columns::value(text, *kind).map_err(|reason| format!("field {field:?}: {reason}"))?;
                }
            }
        }
        coerce_fields(&mut payload, exported.iter().filter(|(field, _)| !self.types.contains_key(*field)))?;
        self.coerce(&mut payload)?;
        Ok(payload)
    }

    fn take_vector(
        &self,
        record: &mut Map<String, Json>,
        name: Option<&str>,
    ) -> Result<Option<Vec<f32>>, String> {
        let Some(name) = name else { return Ok(None) };
        let numbers: Option<Vec<f64>> = match record.get(name) {
            Some(Json::Array(elements)) => elements.iter().map(Json::as_f64).collect(),
            // A cell of a table.
            Some(Json::String(text)) => {
                let parts = text.trim_matches(['[', ']']).split([',', ';', ' ']);
                parts.map(str::trim).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
            }
            _ => None,
        };
        let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else {
            return match self.vector {
                Some(_) => Err(format!("the vector in field {name:?} is no list of numbers")),
                // Some other thing of that name is payload.
                None => Ok(None),
            };
        };
        record.remove(name);
        let vector: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
        match vector.iter().position(|number| !number.is_finite()) {
            Some(at) => {
                Err(format!("the vector in field {name:?} has a number at place {at} that is not finite"))
            }
            None => Ok(Some(vector)),
        }
    }
}

/// Why a type cannot be given for the id, the title or the text.
fn never_typed(role: &str) -> String {
    format!(
        "it is the document's {role}, which is always text and no field that a filter asks for; leave this --type out"
    )
}

fn coerce_fields<'a>(
    payload: &mut Payload,
    types: impl Iterator<Item = (&'a String, &'a ValueType)>,
) -> Result<(), String> {
    for (field, kind) in types {
        let Some(value) = payload.get_mut(field) else { continue };
        *value = coerce(value, *kind).map_err(|reason| format!("field {field:?}: {reason}"))?;
    }
    Ok(())
}

/// Names of the fields that a record's title and text would be read from, if nothing else is said.
pub(crate) fn title_and_text(record: &Map<String, Json>) -> (Option<String>, Option<String>) {
    let there = record.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str());
    let roles = FieldMap::default().roles(there).unwrap_or_default();
    (roles.title, roles.text)
}

/// Whether an id was made of the content, since the file gave none.
pub(crate) fn is_content_id(id: &str) -> bool {
    id.strip_prefix("sha-")
        .is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// `sha-` and 16 hexadecimal digits.
pub(super) fn content_id(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let digits: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha-{digits}")
}

/// Names in the order of the file, as many as a line holds.
fn listed<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<String> = names
        .clone()
        .take(SHOWN)
        .map(|name| format!("{:?}", name.chars().take(60).collect::<String>()))
        .collect();
    match names.count() {
        0 => "none".to_owned(),
        count if count > SHOWN => format!("{} and {} more", shown.join(", "), count - SHOWN),
        _ => shown.join(", "),
    }
}

/// Takes a field out as text: strings, numbers, and lists of strings (sentences) with spaces between.
fn take_text(record: &mut Map<String, Json>, name: &str) -> Result<String, String> {
    let kind = match record.remove(name) {
        Some(Json::String(text)) => return Ok(text),
        Some(Json::Number(number)) => return Ok(number.to_string()),
        Some(Json::Array(parts)) => {
            if let Some(parts) = parts.iter().map(Json::as_str).collect::<Option<Vec<_>>>() {
                return Ok(parts.join(" "));
            }
            "a list"
        }
        Some(Json::Bool(_)) => "a bool",
        _ => "an object",
    };
    Err(format!("field {name:?} is {kind}, a text is wanted"))
}

fn coerce(value: &Value, kind: ValueType) -> Result<Value, String> {
    let cannot = || {
        let shown = match value {
            Value::String(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Datetime(micros) => datetime::format(*micros),
            Value::List(_) => String::new(),
        };
        let hint = match (kind, value) {
            (ValueType::Datetime, Value::String(text)) => match datetime::read(text.trim()) {
                Err(reason) => format!(": it is {reason}"),
                Ok(_) => String::new(),
            },
            (ValueType::Datetime, _) => " (as RFC 3339, such as 2024-01-31T10:00:00Z)".to_owned(),
            _ => String::new(),
        };
        format!("the {} {shown} cannot be read as {kind}{hint}", type_name(value))
    };
    let typed = match (kind, value) {
        (_, Value::List(elements)) => {
            Some(Value::List(elements.iter().map(|element| coerce(element, kind)).collect::<Result<_, _>>()?))
        }
        (ValueType::String, Value::String(_))
        | (ValueType::Integer, Value::Integer(_))
        | (ValueType::Float, Value::Float(_))
        | (ValueType::Bool, Value::Bool(_))
        | (ValueType::Datetime, Value::Datetime(_)) => Some(value.clone()),
        (ValueType::String, Value::Integer(number)) => Some(Value::String(number.to_string())),
        (ValueType::String, Value::Float(number)) => Some(Value::String(number.to_string())),
        (ValueType::String, Value::Bool(truth)) => Some(Value::String(truth.to_string())),
        (ValueType::Integer, Value::String(text)) => match text.trim().parse() {
            Ok(number) => Some(Value::Integer(number)),
            // `2001.0`, as programs write a column of integers with gaps.
            Err(_) => match Form::of(text) {
                Form::Float(number) => whole(number),
                _ => None,
            },
        },
        (ValueType::Integer, Value::Float(number)) => whole(*number),
        (ValueType::Float, Value::Integer(number)) => Some(Value::Float(*number as f64)),
        (ValueType::Float, Value::String(text)) => {
            text.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Float)
        }
        (ValueType::Bool, Value::Integer(number @ (0 | 1))) => Some(Value::Bool(*number == 1)),
        (ValueType::Bool, Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Some(Value::Bool(true)),
            "false" | "no" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        (ValueType::Datetime, Value::String(text)) => datetime::parse(text.trim()).map(Value::Datetime),
        _ => None,
    };
    typed.ok_or_else(cannot)
}

/// A float without a fraction as integer. 2^53: below it every whole float is one integer only.
fn whole(number: f64) -> Option<Value> {
    let exact = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    exact.then_some(Value::Integer(number as i64))
}

#[cfg(test)]
mod tests;
