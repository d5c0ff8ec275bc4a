//! An inverted index in memory holds the payloads and finds the documents that match a filter.
//!
//! For every field and type the distinct values are kept in order, each with the documents that have it: equality,
//! `in`, ranges and prefixes are look-ups, `contains` on text scans the distinct texts. The answer is always that of
//! [`Filter::matches`] over all documents. Memory: every distinct value once, and about 4 bytes per document and value;
//! 150 to 180 bytes for a name of 20 letters that one document has (measured with 300,000), since there may be hundreds
//! of thousands of those. Nothing here is stored, and nothing is
//! removed: it is of documents that no segment has yet, and `Living` leaves out those that are gone.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ops::{Bound, ControlFlow, RangeInclusive},
};

use roaring::RoaringBitmap;

use crate::{
    stop::{Stop, Stopped},
    value::{
        Payload, Value,
        filter::{Filter, FilterError},
    },
};

pub(crate) use evaluate::{Column, Fields, Held, Known, Test, Type, float_key};
pub(crate) use several::Several;

pub(crate) mod evaluate;
mod hints;
mod several;
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

    /// Adds a document that is not there.
    pub fn insert(&mut self, doc: u32, payload: &Payload) {
        let new = self.all.insert(doc);
        debug_assert!(new, "document {doc} is there already");
        for (name, value) in payload {
            match self.fields.get_mut(name.as_str()) {
                Some(named) => named.insert(doc, value),
                None => _ = self.fields.insert(name.as_str().into(), Named::One(doc, value.clone())),
            }
        }
    }

    /// Takes over what another index has of the documents that are left, none of which are here.
    pub(crate) fn absorb(&mut self, other: &FieldIndex, left: &RoaringBitmap) {
        debug_assert!(self.all.is_disjoint(&(&other.all & left)), "a document is in two indexes");
        self.all |= &other.all & left;
        for (name, theirs) in &other.fields {
            if !theirs.is_of(left) {
                continue;
            }
            match self.fields.get_mut(name) {
                Some(named) => named.absorb(theirs, left),
                None => {
                    let named = match theirs {
                        Named::One(doc, value) => Named::One(*doc, value.clone()),
                        Named::Many(field) => {
                            let mut left_of = Box::<Field>::default();
                            left_of.absorb(field, left);
                            Named::Many(left_of)
                        }
                    };
                    self.fields.insert(name.clone(), named);
                }
            }
        }
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
        evaluate::check(filter, &mut |field| self.held(field))?;
        evaluate::evaluate(self, filter, stop)
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
                told.fields.push((name.to_string(), named.with(Field::held).type_names(), named.documents()));
            }
        }
        stop.check()?;
        Ok(told)
    }

    /// The types that a field holds, such as `string` or `list of integer`; none if no document has it.
    pub fn type_names(&self, field: &str) -> Vec<&'static str> {
        self.fields.get(field).map(|named| named.with(Field::held).type_names()).unwrap_or_default()
    }

    /// Hands every field, and of every field all values, to `sealer`, in order.
    ///
    /// # Errors
    /// Those of the sealer.
    pub(crate) fn seal<S: Sealer>(&self, sealer: &mut S) -> Result<(), S::Error> {
        self.fields.iter().try_for_each(|(name, named)| {
            named.with(|field| {
                field.scalars.seal(false, sealer)?;
                field.elements.seal(true, sealer)?;
                sealer.field(name, &field.documents)
            })
        })
    }
}

impl Known for FieldIndex {
    type Error = FilterError;

    fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn held(&self, field: &str) -> Result<Option<Held>, FilterError> {
        Ok(self.fields.get(field).map(|named| named.with(Field::held)))
    }

    fn names_most(&self) -> usize {
        self.fields.len()
    }

    fn names(&self, from: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), FilterError> {
        let from = (Bound::Included(from), Bound::Unbounded);
        let _ = self.fields.range::<str, _>(from).try_for_each(|(name, _)| each(name));
        Ok(())
    }
}

impl Fields for FieldIndex {
    fn documents(&self) -> &RoaringBitmap {
        &self.all
    }

    fn having(&self, field: &str) -> Result<RoaringBitmap, FilterError> {
        Ok(self.fields.get(field).map(|named| named.with(|f| f.documents.clone())).unwrap_or_default())
    }

    fn satisfying(&self, field: &str, test: &Test<'_>, stop: &Stop) -> Result<RoaringBitmap, FilterError> {
        let Some(named) = self.fields.get(field) else { return Ok(RoaringBitmap::new()) };
        named.with(|field| {
            evaluate::matching(&field.scalars, &field.elements, test, stop).map_err(|never| match never {})
        })
    }
}

/// The documents of an index that are still there: it answers as if there never were others.
#[derive(Debug)]
pub(crate) struct Living<'a> {
    /// With the documents that are gone.
    pub(crate) index: &'a FieldIndex,
    pub(crate) documents: &'a RoaringBitmap,
}

impl Living<'_> {
    fn is_whole(&self) -> bool {
        self.documents.len() == self.index.all.len()
    }
}

impl Known for Living<'_> {
    type Error = FilterError;

    fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    fn held(&self, field: &str) -> Result<Option<Held>, FilterError> {
        if self.is_whole() {
            return self.index.held(field);
        }
        Ok(self.index.fields.get(field).and_then(|named| named.held_by(self.documents)))
    }

    fn names_most(&self) -> usize {
        self.index.names_most()
    }

    fn names(&self, from: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), FilterError> {
        if self.is_whole() {
            return self.index.names(from, each);
        }
        let from = (Bound::Included(from), Bound::Unbounded);
        let fields = self.index.fields.range::<str, _>(from);
        let mut there = fields.filter(|(_, named)| named.is_of(self.documents));
        let _ = there.try_for_each(|(name, _)| each(name));
        Ok(())
    }
}

impl Fields for Living<'_> {
    fn documents(&self) -> &RoaringBitmap {
        self.documents
    }

    fn having(&self, field: &str) -> Result<RoaringBitmap, FilterError> {
        self.index.having(field)
    }

    fn satisfying(&self, field: &str, test: &Test<'_>, stop: &Stop) -> Result<RoaringBitmap, FilterError> {
        self.index.satisfying(field, test, stop)
    }
}

/// Takes the values of a [`FieldIndex`]: of every field first its values, then its name. Fields come in the order of
/// their names, scalars before elements of lists, types in the order of [`Type`], values in their own order.
pub(crate) trait Sealer {
    type Error;

    /// A value of the next field with its documents, in order.
    fn value(
        &mut self,
        in_list: bool,
        of: Type,
        key: Key<'_>,
        documents: Posting<'_>,
    ) -> Result<(), Self::Error>;

    /// Ends a field that these documents have.
    fn field(&mut self, name: &str, documents: &RoaringBitmap) -> Result<(), Self::Error>;
}

/// What orders a value among those of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key<'a> {
    Text(&'a str),
    /// An integer, a [`float_key`], microseconds, or 0 and 1 for the truths.
    Number(i64),
}

/// The documents of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Posting<'a> {
    One(u32),
    Many(&'a RoaringBitmap),
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

    fn documents(&self) -> u64 {
        match self {
            Named::One(..) => 1,
            Named::Many(field) => field.documents.len(),
        }
    }

    /// Whether one of these documents has it.
    fn is_of(&self, documents: &RoaringBitmap) -> bool {
        match self {
            Named::One(doc, _) => documents.contains(*doc),
            Named::Many(field) => !field.documents.is_disjoint(documents),
        }
    }

    /// What it holds in these documents; `None` if none of them has it.
    fn held_by(&self, documents: &RoaringBitmap) -> Option<Held> {
        self.is_of(documents).then(|| match self {
            Named::One(..) => self.with(Field::held),
            Named::Many(field) => Held {
                scalars: field.scalars.held_by(documents),
                elements: field.elements.held_by(documents),
            },
        })
    }

    /// Takes over what another index has under the same name, of the documents that are left.
    fn absorb(&mut self, other: &Named, left: &RoaringBitmap) {
        match (&mut *self, other) {
            (_, Named::One(doc, value)) => {
                if left.contains(*doc) {
                    self.insert(*doc, value);
                }
            }
            (Named::Many(field), Named::Many(other)) => field.absorb(other, left),
            (Named::One(doc, value), Named::Many(other)) => {
                let mut field = Box::<Field>::default();
                field.insert(*doc, value);
                field.absorb(other, left);
                *self = Named::Many(field);
            }
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

    fn held(&self) -> Held {
        Held { scalars: self.scalars.held(), elements: self.elements.held() }
    }

    /// Takes over what another one has, of the documents that are left.
    fn absorb(&mut self, other: &Field, left: &RoaringBitmap) {
        self.documents |= &other.documents & left;
        self.scalars.absorb(&other.scalars, left);
        self.elements.absorb(&other.elements, left);
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

    /// The same in some documents only.
    fn held_by(&self, documents: &RoaringBitmap) -> [bool; 5] {
        let is_of = |values: &BTreeMap<i64, Documents>| values.values().any(|of| of.has_any(documents));
        [
            self.strings.values().any(|of| of.has_any(documents)),
            is_of(&self.integers),
            is_of(&self.floats),
            self.bools.iter().any(|of| !of.is_disjoint(documents)),
            is_of(&self.datetimes),
        ]
    }

    /// Takes over what others have, of the documents that are left.
    fn absorb(&mut self, others: &Values, left: &RoaringBitmap) {
        for (text, documents) in &others.strings {
            let Some(documents) = documents.of(left) else { continue };
            match self.strings.get_mut(text) {
                Some(there) => there.absorb(documents),
                None => _ = self.strings.insert(text.clone(), documents),
            }
        }
        let numbers = [
            (&mut self.integers, &others.integers),
            (&mut self.floats, &others.floats),
            (&mut self.datetimes, &others.datetimes),
        ];
        for (values, others) in numbers {
            for (key, documents) in others {
                let Some(documents) = documents.of(left) else { continue };
                match values.get_mut(key) {
                    Some(there) => there.absorb(documents),
                    None => _ = values.insert(*key, documents),
                }
            }
        }
        for (truth, others) in self.bools.iter_mut().zip(&others.bools) {
            *truth |= others & left;
        }
    }

    fn seal<S: Sealer>(&self, in_list: bool, sealer: &mut S) -> Result<(), S::Error> {
        for (text, documents) in &self.strings {
            sealer.value(in_list, Type::String, Key::Text(text), documents.posting())?;
        }
        // In the order of `Type`.
        for of in [Type::Integer, Type::Float] {
            self.seal_numbers(in_list, of, sealer)?;
        }
        for (truth, documents) in (0..).zip(&self.bools) {
            if !documents.is_empty() {
                sealer.value(in_list, Type::Bool, Key::Number(truth), Posting::Many(documents))?;
            }
        }
        self.seal_numbers(in_list, Type::Datetime, sealer)
    }

    fn seal_numbers<S: Sealer>(&self, in_list: bool, of: Type, sealer: &mut S) -> Result<(), S::Error> {
        self.numbers_of(of).iter().flat_map(|map| map.iter()).try_for_each(|(key, documents)| {
            sealer.value(in_list, of, Key::Number(*key), documents.posting())
        })
    }

    fn numbers_of(&self, of: Type) -> Option<&BTreeMap<i64, Documents>> {
        match of {
            Type::Integer => Some(&self.integers),
            Type::Float => Some(&self.floats),
            Type::Datetime => Some(&self.datetimes),
            Type::String | Type::Bool => None,
        }
    }
}

impl Column for Values {
    type Error = Infallible;

    fn numbers(
        &self,
        of: Type,
        keys: RangeInclusive<i64>,
        found: &mut RoaringBitmap,
        going: &mut dyn FnMut() -> bool,
    ) -> Result<(), Infallible> {
        let values = self.numbers_of(of).into_iter().flat_map(|map| map.range(keys.clone()));
        values.take_while(|_| going()).for_each(|(_, documents)| documents.add_to(found));
        Ok(())
    }

    fn bools(&self, truth: bool, found: &mut RoaringBitmap) -> Result<(), Infallible> {
        *found |= &self.bools[usize::from(truth)];
        Ok(())
    }

    fn texts(
        &self,
        bounds: (Bound<&str>, Bound<&str>),
        found: &mut RoaringBitmap,
        wanted: &mut dyn FnMut(&str) -> ControlFlow<(), bool>,
    ) -> Result<(), Infallible> {
        for (text, documents) in self.strings.range::<str, _>(bounds) {
            match wanted(text) {
                ControlFlow::Continue(true) => documents.add_to(found),
                ControlFlow::Continue(false) => {}
                ControlFlow::Break(()) => break,
            }
        }
        Ok(())
    }
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

    fn has_any(&self, documents: &RoaringBitmap) -> bool {
        match self {
            Documents::One(doc) => documents.contains(*doc),
            Documents::Many(all) => !all.is_disjoint(documents),
        }
    }

    /// Those that are left, if any.
    fn of(&self, left: &RoaringBitmap) -> Option<Self> {
        match self {
            Documents::One(doc) => left.contains(*doc).then_some(Documents::One(*doc)),
            Documents::Many(all) => {
                let all = all & left;
                (!all.is_empty()).then_some(Documents::Many(all))
            }
        }
    }

    fn absorb(&mut self, others: Self) {
        match (&mut *self, others) {
            (_, Documents::One(doc)) => self.insert(doc),
            (Documents::Many(all), Documents::Many(others)) => *all |= others,
            (Documents::One(doc), Documents::Many(mut others)) => {
                others.insert(*doc);
                *self = Documents::Many(others);
            }
        }
    }

    fn posting(&self) -> Posting<'_> {
        match self {
            Documents::One(doc) => Posting::One(*doc),
            Documents::Many(documents) => Posting::Many(documents),
        }
    }

    fn add_to(&self, found: &mut RoaringBitmap) {
        match self {
            Documents::One(doc) => _ = found.insert(*doc),
            Documents::Many(documents) => *found |= documents,
        }
    }
}
