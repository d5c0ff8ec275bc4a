//! An inverted index in memory holds the payloads and finds the documents that match a filter.
//!
//! For every field and type the distinct values are kept in order, each with the documents that have it: equality,
//! `in`, ranges and prefixes are look-ups, `contains` on text scans the distinct texts. The answer is always that of
//! [`Filter::matches`] over all documents. Memory: every distinct value once, and about 4 bytes per document and value;
//! 150 to 180 bytes for a name of 20 letters that one document has (measured with 300,000), since there may be hundreds
//! of thousands of those. Nothing here is stored; the index is rebuilt from the payloads when a collection is opened.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeInclusive},
};

use roaring::RoaringBitmap;

use crate::{
    stop::{Stop, Stopped},
    value::{
        Payload, Value, compare_exactly, datetime,
        filter::{Filter, FilterError},
    },
};

mod hints;
#[cfg(test)]
mod tests;

/// The documents that have each payload value. Documents are numbers that the collection assigns.
#[derive(Debug, Default)]
pub struct FieldIndex {
    all: RoaringBitmap,
    fields: BTreeMap<Box<str>, Named>,
}

/// Which fields statistics report: those after a name, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldsRequest {
    /// Beginning of the names. Default: empty, which selects all.
    pub prefix: String,
    /// The last name of the previous page. Default: empty, which begins at the first name.
    pub after: String,
    /// Fields reported at most. Default 0, which reports and counts none.
    pub limit: usize,
}

/// Fields with the types they hold and how many documents have them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldsReport {
    /// Field, the types it holds, documents that have it; by name.
    pub fields: Vec<(String, Vec<&'static str>, u64)>,
    /// Number of fields with the prefix, reported or not.
    pub total: u64,
    /// Whether more fields follow the last one reported.
    pub more: bool,
}

impl FieldIndex {
    /// Makes an empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a document. One that is there already must be removed first, with the payload it was inserted with.
    pub fn insert(&mut self, doc: u32, payload: &Payload) {
        let new = self.all.insert(doc);
        debug_assert!(new, "document {doc} was not removed before it was inserted again");
        for (name, value) in payload {
            match self.fields.get_mut(name.as_str()) {
                Some(named) => named.insert(doc, value),
                None => _ = self.fields.insert(name.as_str().into(), Named::One(doc, value.clone())),
            }
        }
    }

    /// Removes a document; `payload` is the one it was inserted with.
    pub fn remove(&mut self, doc: u32, payload: &Payload) {
        self.all.remove(doc);
        for (name, value) in payload {
            if self.fields.get_mut(name.as_str()).is_some_and(|named| named.remove(doc, value)) {
                self.fields.remove(name.as_str());
            }
        }
    }

    /// The number of names.
    pub fn names(&self) -> usize {
        self.fields.len()
    }

    /// Whether any document has a field of this name.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Every document.
    pub fn documents(&self) -> &RoaringBitmap {
        &self.all
    }

    /// The documents that satisfy a filter. A field that no document has matches nothing.
    ///
    /// # Errors
    /// [`FilterError::Malformed`] as [`Filter::validate`] says; [`FilterError::TypeMismatch`] if a field is there and
    /// none of its values, in any document, can be compared with the filter's; [`FilterError::Stopped`] if `stop` said
    /// so meanwhile.
    pub fn matching(&self, filter: &Filter, stop: &Stop) -> Result<RoaringBitmap, FilterError> {
        filter.validate()?;
        self.evaluate(filter, stop)
    }

    /// Some fields with the types they hold and how many documents have them, by name. Walks over every field with the
    /// prefix.
    ///
    /// # Errors
    /// [`Stopped`] if `stop` said so meanwhile.
    pub fn stats(&self, asked: &FieldsRequest, stop: &Stop) -> Result<FieldsReport, Stopped> {
        let mut told = FieldsReport::default();
        if asked.limit == 0 {
            return Ok(told);
        }
        let mut going = stop.pace();
        let from = (Bound::Included(asked.prefix.as_str()), Bound::Unbounded);
        let with_prefix =
            self.fields.range::<str, _>(from).take_while(|(name, _)| name.starts_with(asked.prefix.as_str()));
        for (name, named) in with_prefix.take_while(|_| going()) {
            told.total += 1;
            if **name <= *asked.after {
                continue;
            }
            if told.fields.len() == asked.limit {
                told.more = true;
            } else {
                told.fields.push((name.to_string(), named.with(Field::type_names), named.documents()));
            }
        }
        stop.check()?;
        Ok(told)
    }

    /// The types that a field holds, such as `string` or `list of integer`; none if no document has it.
    pub fn type_names(&self, field: &str) -> Vec<&'static str> {
        self.fields.get(field).map(|named| named.with(Field::type_names)).unwrap_or_default()
    }

    fn evaluate(&self, filter: &Filter, stop: &Stop) -> Result<RoaringBitmap, FilterError> {
        // A part costs as much as the bitmaps are large, and there may be thousands.
        stop.check()?;
        match filter {
            // Every part is looked at, so that a type mismatch shows whatever the other parts say.
            Filter::And(parts) => {
                let mut result = self.all.clone();
                for part in parts {
                    result &= self.evaluate(part, stop)?;
                }
                Ok(result)
            }
            Filter::Or(parts) => {
                let mut result = RoaringBitmap::new();
                for part in parts {
                    result |= self.evaluate(part, stop)?;
                }
                Ok(result)
            }
            Filter::Not(part) => Ok(&self.all - self.evaluate(part, stop)?),
            Filter::Exists { field, expected } => {
                let there = self.fields.get(field.as_str());
                let there = there.map(|named| named.with(|f| f.documents.clone())).unwrap_or_default();
                Ok(if *expected { there } else { &self.all - there })
            }
            Filter::Eq { field, value } => self.test(field, &Test::In(std::slice::from_ref(value)), stop),
            Filter::Ne { field, value } => {
                Ok(&self.all - self.test(field, &Test::In(std::slice::from_ref(value)), stop)?)
            }
            Filter::In { field, values } => self.test(field, &Test::In(values), stop),
            Filter::Range { field, range } => self.test(field, &Test::Range(range.set().collect()), stop),
            Filter::Prefix { field, prefix } => self.test(field, &Test::Prefix(prefix), stop),
            Filter::Contains { field, value } => self.test(field, &Test::Contains(value), stop),
        }
    }

    fn test(&self, name: &str, test: &Test<'_>, stop: &Stop) -> Result<RoaringBitmap, FilterError> {
        let Some(named) = self.fields.get(name) else { return Ok(RoaringBitmap::new()) };
        named.with(|field| {
            if !field.is_comparable(test) {
                return Err(FilterError::TypeMismatch {
                    field: name.to_owned(),
                    stored: field.type_names().join(" and "),
                    given: test.describe(field),
                });
            }
            let found = field.matching(test, stop);
            stop.check()?;
            Ok(found)
        })
    }
}

/// A test of one field's values.
enum Test<'a> {
    In(&'a [Value]),
    /// Signs and bounds, of which one value must satisfy all.
    Range(Vec<(&'static str, &'a Value)>),
    Prefix(&'a str),
    Contains(&'a Value),
}

impl Test<'_> {
    /// The given values, for an error message.
    fn describe(&self, field: &Field) -> String {
        let (what, value) = match self {
            Test::Prefix(_) => return "a prefix, which only strings have".into(),
            Test::In(values) => ("", &values[0]),
            Test::Range(bounds) => ("", bounds[0].1),
            Test::Contains(value) => ("`contains` ", *value),
        };
        let missed = std::array::from_fn(|i| field.scalars.held()[i] || field.elements.held()[i]);
        let hint = hints::remedy(value, missed);
        format!("{what}{}{hint}", hints::shown(value))
    }
}

/// The values of a name. One document is nearly all that a name has where there are very many names, and needs a
/// seventh of the memory.
#[derive(Debug)]
enum Named {
    One(u32, Value),
    Many(Box<Field>),
}

impl Named {
    fn insert(&mut self, doc: u32, value: &Value) {
        match self {
            Named::Many(field) => field.insert(doc, value),
            Named::One(other, theirs) => {
                let mut field = Box::<Field>::default();
                field.insert(*other, theirs);
                field.insert(doc, value);
                *self = Named::Many(field);
            }
        }
    }

    /// Whether none is left.
    fn remove(&mut self, doc: u32, value: &Value) -> bool {
        match self {
            Named::One(other, _) => *other == doc,
            Named::Many(field) => {
                field.documents.remove(doc);
                field.each_value(value, |typed, value| typed.remove(doc, value));
                field.documents.is_empty()
            }
        }
    }

    fn documents(&self) -> u64 {
        match self {
            Named::One(..) => 1,
            Named::Many(field) => field.documents.len(),
        }
    }

    /// Looks at the field, which for one document is made for the moment.
    fn with<T>(&self, look: impl FnOnce(&Field) -> T) -> T {
        match self {
            Named::Many(field) => look(field),
            Named::One(doc, value) => {
                let mut field = Field::default();
                field.insert(*doc, value);
                look(&field)
            }
        }
    }
}

/// One field's values. Those of lists are apart, since `contains` treats them otherwise.
#[derive(Debug, Default)]
struct Field {
    documents: RoaringBitmap,
    scalars: Values,
    elements: Values,
}

impl Field {
    fn insert(&mut self, doc: u32, value: &Value) {
        self.documents.insert(doc);
        self.each_value(value, |typed, value| typed.insert(doc, value));
    }

    /// Hands a scalar, or each element of a list, to where it belongs.
    fn each_value(&mut self, value: &Value, mut change: impl FnMut(&mut Values, &Value)) {
        match value {
            Value::List(elements) => elements.iter().for_each(|element| change(&mut self.elements, element)),
            scalar => change(&mut self.scalars, scalar),
        }
    }

    fn type_names(&self) -> Vec<&'static str> {
        const SCALARS: [&str; 5] = ["string", "integer", "float", "bool", "datetime"];
        const LISTS: [&str; 5] =
            ["list of string", "list of integer", "list of float", "list of bool", "list of datetime"];
        let held = |values: &Values, names: [&'static str; 5]| names.into_iter().zip(values.held());
        let mut names: Vec<_> = held(&self.scalars, SCALARS)
            .chain(held(&self.elements, LISTS))
            .filter_map(|(name, held)| held.then_some(name))
            .collect();
        if names.is_empty() {
            names.push("empty list");
        }
        names
    }

    /// Whether there is a value that the test could hold for, or none at all (only empty lists).
    fn is_comparable(&self, test: &Test<'_>) -> bool {
        let either = |given: &Value| self.scalars.is_comparable(given) || self.elements.is_comparable(given);
        let has_strings = |values: &Values| !values.strings.is_empty();
        let holds_nothing = |values: &Values| values.held() == [false; 5];
        if holds_nothing(&self.scalars) && holds_nothing(&self.elements) {
            return true;
        }
        match test {
            Test::In(values) => values.iter().any(either),
            Test::Range(bounds) => bounds.iter().all(|(_, bound)| either(bound)),
            Test::Prefix(_) => has_strings(&self.scalars) || has_strings(&self.elements),
            Test::Contains(value) => {
                self.elements.is_comparable(value)
                    || (matches!(value, Value::String(_)) && has_strings(&self.scalars))
            }
        }
    }

    /// Incomplete if `stop` says to leave off.
    fn matching(&self, test: &Test<'_>, stop: &Stop) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        let mut going = stop.pace();
        let both = [&self.scalars, &self.elements];
        match test {
            Test::In(values) => {
                for value in values.iter().take_while(|_| going()) {
                    both.iter().for_each(|typed| typed.equal(value, &mut found, stop));
                }
            }
            Test::Range(bounds) => both.iter().for_each(|typed| typed.within(bounds, &mut found, stop)),
            Test::Prefix(prefix) => both.iter().for_each(|typed| {
                let from = (Bound::Included(*prefix), Bound::Unbounded);
                let with_prefix = typed
                    .strings
                    .range::<str, _>(from)
                    .take_while(|(text, _)| going() && text.starts_with(prefix));
                with_prefix.for_each(|(_, documents)| documents.add_to(&mut found));
            }),
            Test::Contains(value) => {
                self.elements.equal(value, &mut found, stop);
                if let Value::String(part) = value {
                    let with_part = self
                        .scalars
                        .strings
                        .iter()
                        .take_while(|_| going())
                        .filter(|(text, _)| text.contains(part.as_str()));
                    with_part.for_each(|(_, documents)| documents.add_to(&mut found));
                }
            }
        }
        found
    }
}

/// Distinct values in order, each with its documents.
#[derive(Debug, Default)]
struct Values {
    strings: BTreeMap<Box<str>, Documents>,
    integers: BTreeMap<i64, Documents>,
    /// Floats, by [`float_key`].
    floats: BTreeMap<i64, Documents>,
    /// The documents with `false` and those with `true`.
    bools: [RoaringBitmap; 2],
    datetimes: BTreeMap<i64, Documents>,
}

impl Values {
    fn insert(&mut self, doc: u32, value: &Value) {
        let numbers = match value {
            Value::String(text) => {
                match self.strings.get_mut(text.as_str()) {
                    Some(documents) => documents.insert(doc),
                    None => _ = self.strings.insert(text.as_str().into(), Documents::One(doc)),
                }
                return;
            }
            Value::Bool(truth) => {
                self.bools[usize::from(*truth)].insert(doc);
                return;
            }
            _ => self.numbers_mut(value),
        };
        if let Some((numbers, key)) = numbers {
            numbers.entry(key).and_modify(|documents| documents.insert(doc)).or_insert(Documents::One(doc));
        }
    }

    fn remove(&mut self, doc: u32, value: &Value) {
        match value {
            Value::String(text) => {
                if self.strings.get_mut(text.as_str()).is_some_and(|documents| documents.remove(doc)) {
                    self.strings.remove(text.as_str());
                }
            }
            Value::Bool(truth) => _ = self.bools[usize::from(*truth)].remove(doc),
            _ => {
                let Some((numbers, key)) = self.numbers_mut(value) else { return };
                if numbers.get_mut(&key).is_some_and(|documents| documents.remove(doc)) {
                    numbers.remove(&key);
                }
            }
        }
    }

    /// Where an integer, float or datetime is kept, and under which key. Values that no filter can find have no place.
    fn numbers_mut(&mut self, value: &Value) -> Option<(&mut BTreeMap<i64, Documents>, i64)> {
        match value {
            Value::Integer(number) => Some((&mut self.integers, *number)),
            Value::Float(number) if !number.is_nan() => Some((&mut self.floats, float_key(*number))),
            Value::Datetime(micros) => Some((&mut self.datetimes, *micros)),
            _ => None,
        }
    }

    /// Whether there are strings, integers, floats, bools, datetimes.
    fn held(&self) -> [bool; 5] {
        [
            !self.strings.is_empty(),
            !self.integers.is_empty(),
            !self.floats.is_empty(),
            self.bools.iter().any(|documents| !documents.is_empty()),
            !self.datetimes.is_empty(),
        ]
    }

    fn is_comparable(&self, given: &Value) -> bool {
        let [strings, integers, floats, bools, datetimes] = self.held();
        match given {
            Value::String(text) => strings || (datetimes && datetime::parse(text).is_some()),
            Value::Integer(_) | Value::Float(_) => integers || floats,
            Value::Bool(_) => bools,
            Value::Datetime(_) => datetimes,
            Value::List(_) => false,
        }
    }

    fn equal(&self, value: &Value, found: &mut RoaringBitmap, stop: &Stop) {
        match value {
            Value::Bool(truth) => *found |= &self.bools[usize::from(*truth)],
            value => self.within(&[(">=", value), ("<=", value)], found, stop),
        }
    }

    /// Adds the documents of every value that satisfies all bounds, which are of one type.
    fn within(&self, bounds: &[(&'static str, &Value)], found: &mut RoaringBitmap, stop: &Stop) {
        let mut going = stop.pace();
        let ranges: [(_, ReachOf); 3] = [
            (&self.integers, reach_of_integers),
            (&self.floats, reach_of_floats),
            (&self.datetimes, reach_of_datetimes),
        ];
        for (values, reach) in ranges {
            if let Some(keys) = keys_within(bounds, reach) {
                values.range(keys).take_while(|_| going()).for_each(|(_, documents)| documents.add_to(found));
            }
        }
        if let Some(texts) = texts_within(bounds) {
            self.strings
                .range::<str, _>(texts)
                .take_while(|_| going())
                .for_each(|(_, documents)| documents.add_to(found));
        }
    }
}

/// Lowest and highest key that a bound lets through; wide enough for one beyond every `i64`.
type Reach = (i128, i128);
/// Takes a sign and a bound; `None` if the bound cannot be compared with the values of this map.
type ReachOf = fn(&str, &Value) -> Option<Reach>;

/// The keys that all bounds let through; `None` if there are none or a bound cannot be compared with these values.
fn keys_within(bounds: &[(&'static str, &Value)], reach: ReachOf) -> Option<RangeInclusive<i64>> {
    let (mut low, mut high) = (i64::MIN, i64::MAX);
    for (sign, bound) in bounds {
        let (from, to) = reach(sign, bound)?;
        low = low.max(i64::try_from(from.max(i64::MIN.into())).ok()?);
        high = high.min(i64::try_from(to.min(i64::MAX.into())).ok()?);
    }
    (low <= high).then_some(low..=high)
}

/// What a sign lets through where `below` and `above` are the keys next to the bound and `at` is the bound's own.
/// Where no key equals the bound, `at` is `None` and `below` and `above` are neighbours.
fn reach(sign: &str, below: i128, at: Option<i128>, above: i128) -> Reach {
    match sign {
        ">" => (above, i128::MAX),
        ">=" => (at.unwrap_or(above), i128::MAX),
        "<" => (i128::MIN, below),
        _ => (i128::MIN, at.unwrap_or(below)),
    }
}

fn reach_of_integers(sign: &str, bound: &Value) -> Option<Reach> {
    match bound {
        Value::Integer(number) => {
            let at = i128::from(*number);
            Some(reach(sign, at - 1, Some(at), at + 1))
        }
        Value::Float(number) if number.fract() == 0.0 => {
            // Saturates far outside of `i64`, where it makes no difference.
            let at = (*number as i128).clamp(-(1 << 100), 1 << 100);
            Some(reach(sign, at - 1, Some(at), at + 1))
        }
        Value::Float(number) => Some(reach(sign, number.floor() as i128, None, number.ceil() as i128)),
        _ => None,
    }
}

fn reach_of_floats(sign: &str, bound: &Value) -> Option<Reach> {
    let at_float = |number: f64| i128::from(float_key(number));
    match bound {
        Value::Float(number) => {
            let at = at_float(*number);
            Some(reach(sign, at - 1, Some(at), at + 1))
        }
        Value::Integer(number) => {
            // The nearest float may lie on either side of the integer, with no float between the two.
            let nearest = *number as f64;
            let at = at_float(nearest);
            Some(match compare_exactly(*number, nearest)? {
                std::cmp::Ordering::Equal => reach(sign, at - 1, Some(at), at + 1),
                std::cmp::Ordering::Less => reach(sign, at - 1, None, at),
                std::cmp::Ordering::Greater => reach(sign, at, None, at + 1),
            })
        }
        _ => None,
    }
}

fn reach_of_datetimes(sign: &str, bound: &Value) -> Option<Reach> {
    let micros = match bound {
        Value::Datetime(micros) => *micros,
        Value::String(text) => datetime::parse(text)?,
        _ => return None,
    };
    let at = i128::from(micros);
    Some(reach(sign, at - 1, Some(at), at + 1))
}

/// A number that orders as the float does; both zeros have one key, as they are equal.
fn float_key(number: f64) -> i64 {
    let bits = if number == 0.0 { 0 } else { number.to_bits().cast_signed() };
    // Negative floats order backwards by their bits: all but the sign are turned over (as `f64::total_cmp` does).
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

/// The texts that all bounds let through; `None` if there can be none.
fn texts_within<'a>(bounds: &[(&'static str, &'a Value)]) -> Option<(Bound<&'a str>, Bound<&'a str>)> {
    let mut low: Option<(&str, bool)> = None;
    let mut high: Option<(&str, bool)> = None;
    for (sign, bound) in bounds {
        let Value::String(text) = bound else { return None };
        let text = text.as_str();
        let excluded = matches!(*sign, ">" | "<");
        // Of two bounds on one text the excluding one is narrower.
        if sign.starts_with('>') {
            low = low.max(Some((text, excluded)));
        } else if high.is_none_or(|(other, other_excluded)| (text, !excluded) < (other, !other_excluded)) {
            high = Some((text, excluded));
        }
    }
    if let (Some((from, from_excluded)), Some((to, to_excluded))) = (low, high)
        && (from > to || (from == to && (from_excluded || to_excluded)))
    {
        return None;
    }
    let bound = |side: Option<(&'a str, bool)>| match side {
        None => Bound::Unbounded,
        Some((text, true)) => Bound::Excluded(text),
        Some((text, false)) => Bound::Included(text),
    };
    Some((bound(low), bound(high)))
}

/// Documents of one value. Most values of a field such as a path or a date have one, which needs no allocation.
#[derive(Debug)]
enum Documents {
    One(u32),
    Many(RoaringBitmap),
}

impl Documents {
    fn insert(&mut self, doc: u32) {
        match self {
            Documents::One(other) if *other == doc => {}
            Documents::One(other) => *self = Documents::Many([*other, doc].into_iter().collect()),
            Documents::Many(documents) => _ = documents.insert(doc),
        }
    }

    /// Whether none is left.
    fn remove(&mut self, doc: u32) -> bool {
        match self {
            Documents::One(other) => *other == doc,
            Documents::Many(documents) => {
                documents.remove(doc);
                documents.is_empty()
            }
        }
    }

    fn add_to(&self, found: &mut RoaringBitmap) {
        match self {
            Documents::One(doc) => _ = found.insert(*doc),
            Documents::Many(documents) => *found |= documents,
        }
    }
}
