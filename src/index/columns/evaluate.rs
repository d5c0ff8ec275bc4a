//! Finds the documents that match a filter, wherever the values of the fields are kept.
//!
//! [`FieldIndex`](super::FieldIndex) keeps them in memory and a sealed segment keeps them in a file; both answer through
//! this code, so that they answer alike. It knows which keys a test lets through, and asks [`Fields`] and [`Column`] for
//! the documents of these keys.
//!
//! Whether a filter's values can be compared with what a field holds is a question of its own ([`check`]): a field that
//! lies in several places holds what it holds in any of them.

use std::ops::{Bound, ControlFlow, RangeInclusive};

use roaring::RoaringBitmap;

use super::hints;
use crate::{
    stop::{Stop, Stopped},
    value::{
        Value, compare_exactly, datetime,
        filter::{Filter, FilterError},
    },
};

/// Types of values that are kept apart.
pub(crate) const TYPES: usize = 5;

/// One of the [`TYPES`], in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    String,
    Integer,
    Float,
    Bool,
    Datetime,
}

impl Type {
    pub(crate) const ALL: [Type; TYPES] =
        [Type::String, Type::Integer, Type::Float, Type::Bool, Type::Datetime];
}

/// The types of values that a field holds, as [`Type`] orders them. Those of lists are apart, since `contains` treats
/// them otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    /// Of values that are no lists.
    pub(crate) scalars: [bool; TYPES],
    /// Of elements of lists.
    pub(crate) elements: [bool; TYPES],
}

impl Held {
    /// What two places hold together.
    pub(crate) fn with(self, other: Held) -> Held {
        let both = |a: [bool; TYPES], b: [bool; TYPES]| std::array::from_fn(|i| a[i] || b[i]);
        Held { scalars: both(self.scalars, other.scalars), elements: both(self.elements, other.elements) }
    }

    /// The types for users, such as `string` or `list of integer`; never empty.
    pub(crate) fn type_names(self) -> Vec<&'static str> {
        const SCALARS: [&str; TYPES] = ["string", "integer", "float", "bool", "datetime"];
        const LISTS: [&str; TYPES] =
            ["list of string", "list of integer", "list of float", "list of bool", "list of datetime"];
        let held = |held: [bool; TYPES], names: [&'static str; TYPES]| names.into_iter().zip(held);
        let mut names: Vec<_> = held(self.scalars, SCALARS)
            .chain(held(self.elements, LISTS))
            .filter_map(|(name, held)| held.then_some(name))
            .collect();
        if names.is_empty() {
            names.push("empty list");
        }
        names
    }

    /// Whether there is a value that the test could hold for, or none at all (only empty lists).
    fn is_comparable(self, test: &Test<'_>) -> bool {
        let either =
            |given: &Value| is_comparable(self.scalars, given) || is_comparable(self.elements, given);
        let [strings, list_strings] = [self.scalars, self.elements].map(|held| held[Type::String as usize]);
        if self == Held::default() {
            return true;
        }
        match test {
            Test::In(values) => values.iter().any(either),
            Test::Range(bounds) => bounds.iter().all(|(_, bound)| either(bound)),
            Test::Prefix(_) => strings || list_strings,
            Test::Contains(value) => {
                is_comparable(self.elements, value) || (matches!(value, Value::String(_)) && strings)
            }
        }
    }
}

/// Whether a value can be compared with one of the types.
fn is_comparable([strings, integers, floats, bools, datetimes]: [bool; TYPES], given: &Value) -> bool {
    match given {
        Value::String(text) => strings || (datetimes && datetime::parse(text).is_some()),
        Value::Integer(_) | Value::Float(_) => integers || floats,
        Value::Bool(_) => bools,
        Value::Datetime(_) => datetimes,
        Value::List(_) => false,
    }
}

/// A test of one field's values.
pub(crate) enum Test<'a> {
    In(&'a [Value]),
    /// Signs and bounds, of which one value must satisfy all.
    Range(Vec<(&'static str, &'a Value)>),
    Prefix(&'a str),
    Contains(&'a Value),
}

impl Test<'_> {
    /// The given values, for an error message.
    fn describe(&self, held: Held) -> String {
        let (what, value) = match self {
            Test::Prefix(_) => return "a prefix, which only strings have".into(),
            Test::In(values) => ("", &values[0]),
            Test::Range(bounds) => ("", bounds[0].1),
            Test::Contains(value) => ("`contains` ", *value),
        };
        let missed = std::array::from_fn(|i| held.scalars[i] || held.elements[i]);
        let hint = hints::remedy(value, missed);
        format!("{what}{}{hint}", hints::shown(value))
    }
}

/// What fields there are, wherever their values lie.
pub(crate) trait Known {
    /// Why an answer cannot be had.
    type Error: From<FilterError> + From<Stopped>;

    /// Whether there is no document.
    fn is_empty(&self) -> bool;

    /// What a field holds; `None` if no document has it.
    fn held(&self, field: &str) -> Result<Option<Held>, Self::Error>;

    /// At least as many as there are names of fields, and not many more as a rule. It is known without a look at them.
    fn names_most(&self) -> usize;

    /// Hands over the names of fields that a document has, in order, from the first that is not less than `from` on.
    fn names(&self, from: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), Self::Error>;
}

/// Fields by name, each with its values.
pub(crate) trait Fields: Known {
    /// Every document, with fields or without.
    fn documents(&self) -> &RoaringBitmap;

    /// The documents that have a field; perhaps some more, which [`Fields::documents`] does not have.
    fn having(&self, field: &str) -> Result<RoaringBitmap, Self::Error>;

    /// The documents with a value that satisfies the test, as [`matching`] finds them; perhaps some more, which
    /// [`Fields::documents`] does not have. Incomplete if `stop` says to leave off.
    fn satisfying(&self, field: &str, test: &Test<'_>, stop: &Stop) -> Result<RoaringBitmap, Self::Error>;
}

/// Values of one field in order, each with its documents: those of lists, or those of everything else.
pub(crate) trait Column {
    type Error;

    /// Adds the documents of the integers, [`float_key`]s or datetimes in a range of keys, while it is `going`.
    fn numbers(
        &self,
        of: Type,
        keys: RangeInclusive<i64>,
        found: &mut RoaringBitmap,
        going: &mut dyn FnMut() -> bool,
    ) -> Result<(), Self::Error>;

    /// Adds the documents of one truth.
    fn bools(&self, truth: bool, found: &mut RoaringBitmap) -> Result<(), Self::Error>;

    /// Walks over the texts within bounds, in order, and adds the documents of those that are wanted, until it is told
    /// to break off. The lower bound is not above the upper one.
    fn texts(
        &self,
        bounds: (Bound<&str>, Bound<&str>),
        found: &mut RoaringBitmap,
        wanted: &mut dyn FnMut(&str) -> ControlFlow<(), bool>,
    ) -> Result<(), Self::Error>;
}

/// The documents that satisfy a filter, whether or not its values can be compared with what the fields hold: see
/// [`check`].
///
/// # Errors
/// [`FilterError::Malformed`] as [`Filter::validate`] says; [`FilterError::Stopped`]; those of `fields`.
pub(crate) fn evaluate<F: Fields>(
    fields: &F,
    filter: &Filter,
    stop: &Stop,
) -> Result<RoaringBitmap, F::Error> {
    filter.validate()?;
    let mut found = evaluate_part(fields, filter, stop)?;
    found &= fields.documents();
    Ok(found)
}

fn evaluate_part<F: Fields>(fields: &F, filter: &Filter, stop: &Stop) -> Result<RoaringBitmap, F::Error> {
    // A part costs as much as the bitmaps are large, and there may be thousands.
    stop.check()?;
    let all = fields.documents();
    let test = |field: &str, test: &Test<'_>| {
        let found = fields.satisfying(field, test, stop)?;
        stop.check()?;
        Ok(found)
    };
    match filter {
        Filter::And(parts) => {
            let mut result = all.clone();
            for part in parts {
                result &= evaluate_part(fields, part, stop)?;
            }
            Ok(result)
        }
        Filter::Or(parts) => {
            let mut result = RoaringBitmap::new();
            for part in parts {
                result |= evaluate_part(fields, part, stop)?;
            }
            Ok(result)
        }
        Filter::Not(part) => Ok(all - evaluate_part(fields, part, stop)?),
        Filter::Exists { field, expected } => {
            let there = fields.having(field)?;
            Ok(if *expected { there } else { all - there })
        }
        Filter::Eq { field, value } => test(field, &Test::In(std::slice::from_ref(value))),
        Filter::Ne { field, value } => Ok(all - test(field, &Test::In(std::slice::from_ref(value)))?),
        Filter::In { field, values } => test(field, &Test::In(values)),
        Filter::Range { field, range } => test(field, &Test::Range(range.set().collect())),
        Filter::Prefix { field, prefix } => test(field, &Test::Prefix(prefix)),
        Filter::Contains { field, value } => test(field, &Test::Contains(value)),
    }
}

/// Checks that every value of a filter can be compared with a value of its field. `held` says what a field holds,
/// wherever its values lie; `None` if no document has it, which is no error.
///
/// # Errors
/// [`FilterError::TypeMismatch`] for the first field none of whose values can be compared; those of `held`.
pub(crate) fn check<E: From<FilterError>>(
    filter: &Filter,
    held: &mut dyn FnMut(&str) -> Result<Option<Held>, E>,
) -> Result<(), E> {
    let (name, test) = match filter {
        // Every part is looked at, so that a type mismatch shows whatever the other parts say.
        Filter::And(parts) | Filter::Or(parts) => return parts.iter().try_for_each(|part| check(part, held)),
        Filter::Not(part) => return check(part, held),
        Filter::Exists { .. } => return Ok(()),
        Filter::Eq { field, value } | Filter::Ne { field, value } => {
            (field, Test::In(std::slice::from_ref(value)))
        }
        Filter::In { field, values } => (field, Test::In(values)),
        Filter::Range { field, range } => (field, Test::Range(range.set().collect())),
        Filter::Prefix { field, prefix } => (field, Test::Prefix(prefix)),
        Filter::Contains { field, value } => (field, Test::Contains(value)),
    };
    match held(name)? {
        Some(held) if !held.is_comparable(&test) => Err(FilterError::TypeMismatch {
            field: name.clone(),
            stored: held.type_names().join(" and "),
            given: test.describe(held),
        }
        .into()),
        _ => Ok(()),
    }
}

/// The documents of one field with a value that satisfies the test. Incomplete if `stop` says to leave off.
pub(crate) fn matching<C: Column>(
    scalars: &C,
    elements: &C,
    test: &Test<'_>,
    stop: &Stop,
) -> Result<RoaringBitmap, C::Error> {
    let mut found = RoaringBitmap::new();
    let mut going = stop.pace();
    let both = [scalars, elements];
    match test {
        Test::In(values) => {
            for value in values.iter().take_while(|_| going()) {
                both.iter().try_for_each(|column| equal(*column, value, &mut found, stop))?;
            }
        }
        Test::Range(bounds) => {
            both.iter().try_for_each(|column| within(*column, bounds, &mut found, stop))?;
        }
        Test::Prefix(prefix) => both.iter().try_for_each(|column| {
            let from = (Bound::Included(*prefix), Bound::Unbounded);
            column.texts(from, &mut found, &mut |text| {
                if going() && text.starts_with(prefix) {
                    ControlFlow::Continue(true)
                } else {
                    ControlFlow::Break(())
                }
            })
        })?,
        Test::Contains(value) => {
            equal(elements, value, &mut found, stop)?;
            if let Value::String(part) = value {
                scalars.texts((Bound::Unbounded, Bound::Unbounded), &mut found, &mut |text| {
                    if going() {
                        ControlFlow::Continue(text.contains(part.as_str()))
                    } else {
                        ControlFlow::Break(())
                    }
                })?;
            }
        }
    }
    Ok(found)
}

fn equal<C: Column>(
    column: &C,
    value: &Value,
    found: &mut RoaringBitmap,
    stop: &Stop,
) -> Result<(), C::Error> {
    match value {
        Value::Bool(truth) => column.bools(*truth, found),
        value => within(column, &[(">=", value), ("<=", value)], found, stop),
    }
}

/// Adds the documents of every value that satisfies all bounds, which are of one type.
fn within<C: Column>(
    column: &C,
    bounds: &[(&'static str, &Value)],
    found: &mut RoaringBitmap,
    stop: &Stop,
) -> Result<(), C::Error> {
    let mut going = stop.pace();
    let ranges: [(_, ReachOf); 3] = [
        (Type::Integer, reach_of_integers),
        (Type::Float, reach_of_floats),
        (Type::Datetime, reach_of_datetimes),
    ];
    for (of, reach) in ranges {
        if let Some(keys) = keys_within(bounds, reach) {
            column.numbers(of, keys, found, &mut going)?;
        }
    }
    let Some(texts) = texts_within(bounds) else { return Ok(()) };
    column.texts(texts, found, &mut |_| {
        if going() { ControlFlow::Continue(true) } else { ControlFlow::Break(()) }
    })
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
pub(crate) fn float_key(number: f64) -> i64 {
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
