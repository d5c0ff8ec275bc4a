//! Hints explain why a filter may find less than was meant, given what is stored.
//!
//! A filter is valid whose field no document has, and one whose value can be compared with some of a field's values
//! only: the digits of `01067` are a text and those of `10115` an integer where nobody said otherwise. Both find less
//! than was meant, which nobody would see in the answer. A value that can be compared with none is an error already
//! ([`FilterError::TypeMismatch`](crate::value::filter::FilterError)). Nothing here looks at a document.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use super::{FieldIndex, Held, Known, Test};
use crate::{
    spelling,
    stop::{Stop, Stopped},
    value::{Value, datetime, filter::Filter, type_name},
};

/// Most remarks on one filter.
const HINTS_MAX: usize = 8;
/// Most fields that a remark lists, and most that are compared with a name that is not known.
const LISTED_MAX: usize = 8;
const COMPARED_MAX: usize = 1000;
/// Longest name or value in a remark, in characters.
const SHOWN_CHARS: usize = 60;

const TYPES: [&str; 5] = ["string", "integer", "float", "bool", "datetime"];

impl FieldIndex {
    /// What should be said of a filter besides its answer, in whole sentences without a full stop: fields that no
    /// document has (and which name was probably meant), and values that some of a field's types cannot be compared
    /// with. Empty where there is nothing odd; at most `HINTS_MAX`.
    ///
    /// # Errors
    /// [`Stopped`] if `stop` said so meanwhile.
    pub fn hints(&self, filter: &Filter, stop: &Stop) -> Result<Vec<String>, Stopped> {
        hints(self, filter, stop).map_err(|_| Stopped)
    }
}

/// The same, wherever the values of the fields lie.
///
/// # Errors
/// [`Stopped`], and those of `known`.
pub(super) fn hints<K: Known>(known: &K, filter: &Filter, stop: &Stop) -> Result<Vec<String>, K::Error> {
    if known.is_empty() {
        return Ok(vec!["the collection has no documents".to_owned()]);
    }
    let mut hints = Hints {
        known,
        found: Vec::new(),
        unknown: BTreeSet::new(),
        held: BTreeMap::new(),
        names: None,
        stop,
    };
    hints.collect(filter)?;
    Ok(hints.found)
}

/// The remarks on one filter so far.
struct Hints<'a, K> {
    known: &'a K,
    found: Vec<String>,
    /// Fields that nobody has, each looked at once: a filter may name one in thousands of conditions.
    unknown: BTreeSet<&'a str>,
    /// What fields hold that were asked about, each once too.
    held: BTreeMap<&'a str, Option<Held>>,
    /// The first names, and how many there are, once somebody asked.
    names: Option<(Vec<String>, usize)>,
    stop: &'a Stop,
}

impl<'a, K: Known> Hints<'a, K> {
    fn collect(&mut self, filter: &'a Filter) -> Result<(), K::Error> {
        // A condition may have thousands of values, or name a field that is compared with a thousand names.
        self.stop.check()?;
        if self.found.len() >= HINTS_MAX {
            return Ok(());
        }
        let found = match filter {
            Filter::And(parts) | Filter::Or(parts) => {
                return parts.iter().try_for_each(|part| self.collect(part));
            }
            Filter::Not(part) => return self.collect(part),
            Filter::Exists { field, expected } => match self.held(field)? {
                Some(_) => None,
                // That nobody has the field may be just what `not exists` asks for.
                None => self.unknown(field, !expected)?,
            },
            Filter::Eq { field, value } | Filter::Ne { field, value } => {
                self.on_test(field, &Test::In(std::slice::from_ref(value)))?
            }
            Filter::In { field, values } => self.on_test(field, &Test::In(values))?,
            Filter::Range { field, range } => self.on_test(field, &Test::Range(range.set().collect()))?,
            Filter::Prefix { field, prefix } => self.on_test(field, &Test::Prefix(prefix))?,
            Filter::Contains { field, value } => self.on_test(field, &Test::Contains(value))?,
        };
        let new = found.filter(|hint| !self.found.contains(hint));
        self.found.extend(new);
        Ok(())
    }

    fn held(&mut self, field: &'a str) -> Result<Option<Held>, K::Error> {
        if let Some(held) = self.held.get(field) {
            return Ok(*held);
        }
        let held = self.known.held(field)?;
        self.held.insert(field, held);
        Ok(held)
    }

    fn on_test(&mut self, name: &'a str, test: &Test<'_>) -> Result<Option<String>, K::Error> {
        match self.held(name)? {
            None => self.unknown(name, false),
            Some(held) => Ok(partly_comparable(name, held, test)),
        }
    }

    /// `only_if_meant`: nothing is said unless some other name was probably meant.
    fn unknown(&mut self, field: &'a str, only_if_meant: bool) -> Result<Option<String>, K::Error> {
        if self.unknown.len() >= HINTS_MAX || !self.unknown.insert(field) {
            return Ok(None);
        }
        if ["id", "title", "text"].contains(&field) && !only_if_meant {
            return Ok(Some(format!(
                "no document has the field {field:?}: filters test fields of the payload, and a document's id, title and \
                 text are none"
            )));
        }
        let (names, count) = self.names()?;
        let meant = spelling::nearest(field, names.iter().map(AsRef::as_ref));
        let hint = match meant {
            Some(near) => format!("; did you mean {:?}?", shortened(near)),
            None if only_if_meant => return Ok(None),
            None if names.is_empty() => "; the documents have no fields".to_owned(),
            None => {
                let mut listed: Vec<String> =
                    names.iter().take(LISTED_MAX).map(|name| shortened(name)).collect();
                if count > LISTED_MAX {
                    listed.push(format!("and {} more", count - LISTED_MAX));
                }
                format!("; there are: {}", listed.join(", "))
            }
        };
        Ok(Some(format!("no document has the field {:?}{hint}", shortened(field))))
    }

    /// The first names in their order, and how many there are.
    fn names(&mut self) -> Result<(&[String], usize), K::Error> {
        if self.names.is_none() {
            let (mut names, mut count) = (Vec::new(), 0);
            let mut going = self.stop.pace();
            self.known.names("", &mut |name| {
                if names.len() < COMPARED_MAX {
                    names.push(name.to_owned());
                }
                count += 1;
                if going() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            self.stop.check()?;
            self.names = Some((names, count));
        }
        let (names, count) = self.names.as_ref().expect("they were just read");
        Ok((names, *count))
    }
}

/// Notes a test that reaches some of the types that a field holds, but not all.
fn partly_comparable(name: &str, field: Held, test: &Test<'_>) -> Option<String> {
    let held = either(field.scalars, field.elements);
    if held == [false; 5] {
        return Some(format!("field {:?} holds empty lists only", shortened(name)));
    }
    let (what, value, reached) = match test {
        Test::Prefix(prefix) => {
            (format!("the prefix {:?}", shortened(prefix)), None, [true, false, false, false, false])
        }
        Test::Range(bounds) => (shown(bounds[0].1), Some(bounds[0].1), reach(bounds[0].1)),
        Test::Contains(value) => {
            // Of values that are no lists only texts contain anything.
            let text = matches!(value, Value::String(_));
            let elements = field.elements;
            let reached = std::array::from_fn(|i| reach(value)[i] && (elements[i] || (i == 0 && text)));
            (format!("`contains` {}", shown(value)), Some(*value), reached)
        }
        Test::In(values) => {
            let reaches = |value: &&Value| both(reach(value), held).contains(&true);
            match values.iter().find(|value| !reaches(value)) {
                // Some other value of the list reaches what is held.
                Some(lost) if values.len() > 1 => (shown(lost), Some(lost), reach(lost)),
                _ => {
                    let all = values.iter().map(reach).fold([false; 5], either);
                    (shown(&values[0]), Some(&values[0]), all)
                }
            }
        }
    };
    let missed: [bool; 5] = std::array::from_fn(|i| held[i] && !reached[i]);
    if !missed.contains(&true) {
        return None;
    }
    let names = |of: [bool; 5]| {
        TYPES
            .iter()
            .zip(of)
            .filter_map(|(name, held)| held.then_some(*name))
            .collect::<Vec<_>>()
            .join(" and ")
    };
    let compared = match names(both(held, reached)) {
        none if none.is_empty() => "can be compared with none of them".to_owned(),
        some => format!("is compared with {some} only"),
    };
    let remedy = value.map_or("", |value| remedy(value, missed));
    Some(format!("field {:?} holds {}; {what} {compared}{remedy}", shortened(name), names(held)))
}

/// The condition that would reach the values that are missed.
pub(super) fn remedy(value: &Value, missed: [bool; 5]) -> &'static str {
    let [strings, integers, floats, _, datetimes] = missed;
    match value {
        Value::String(text) if (integers || floats) && text.parse::<f64>().is_ok_and(f64::is_finite) => {
            " (write it without quotes to compare it as a number)"
        }
        Value::String(_) if datetimes => " (no RFC 3339 date)",
        Value::Integer(_) | Value::Float(_) if strings => " (write it in quotes to compare it as text)",
        Value::Datetime(_) if strings => {
            " (write it in quotes to compare it as text, or store the field as datetime)"
        }
        _ => "",
    }
}

/// The types, in the order of [`TYPES`], that a given value can be compared with.
fn reach(given: &Value) -> [bool; 5] {
    match given {
        Value::String(text) => [true, false, false, false, datetime::parse(text).is_some()],
        Value::Integer(_) | Value::Float(_) => [false, true, true, false, false],
        Value::Bool(_) => [false, false, false, true, false],
        Value::Datetime(_) => [false, false, false, false, true],
        Value::List(_) => [false; 5],
    }
}

/// A value with its type, for a message.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("{:?}", shortened(text)),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Bool(truth) => truth.to_string(),
        Value::Datetime(micros) => datetime::format(*micros),
        Value::List(_) => String::new(),
    };
    format!("the {} {text}", type_name(value))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn either(a: [bool; 5], b: [bool; 5]) -> [bool; 5] {
    std::array::from_fn(|i| a[i] || b[i])
}

fn both(a: [bool; 5], b: [bool; 5]) -> [bool; 5] {
    std::array::from_fn(|i| a[i] && b[i])
}
