//! Fields whose values lie in several places, such as the segments of a collection and what no segment has yet.
//!
//! Each place evaluates a filter over its own documents; whether the filter's values can be compared with what a field
//! holds, which names there are, and how many documents have them is a question to all of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
};

use roaring::RoaringBitmap;

use super::{
    Fields, FieldsReport, FieldsRequest, Held, Known,
    evaluate::{check, evaluate},
    hints,
};
use crate::{stop::Stop, value::filter::Filter};

/// Names that are taken from each place at once while they are merged.
const NAMES_AT_ONCE: usize = if cfg!(test) { 3 } else { 512 };

/// Places that have no document in common.
#[derive(Debug)]
pub(crate) struct Several<F>(pub(crate) Vec<F>);

impl<F: Fields> Several<F> {
    /// The documents of each place that satisfy a filter.
    ///
    /// # Errors
    /// As [`super::FieldIndex::matching`], and those of the places. A field's value that can be compared in one place is
    /// comparable.
    pub(crate) fn matching(&self, filter: &Filter, stop: &Stop) -> Result<Vec<RoaringBitmap>, F::Error> {
        filter.validate()?;
        // A filter may name one field in thousands of conditions.
        let mut known: HashMap<String, Option<Held>> = HashMap::new();
        check(filter, &mut |field| {
            if let Some(held) = known.get(field) {
                return Ok(*held);
            }
            stop.check()?;
            let held = self.held(field)?;
            known.insert(field.to_owned(), held);
            Ok::<_, F::Error>(held)
        })?;
        self.0.iter().map(|place| evaluate(place, filter, stop)).collect()
    }

    /// What should be said of a filter besides its answer; see [`super::FieldIndex::hints`].
    ///
    /// # Errors
    /// Those of the places; [`crate::stop::Stopped`].
    pub(crate) fn hints(&self, filter: &Filter, stop: &Stop) -> Result<Vec<String>, F::Error> {
        hints::hints(self, filter, stop)
    }

    /// Some fields with the types they hold and how many documents have them; see [`super::FieldIndex::stats`].
    ///
    /// # Errors
    /// Those of the places; [`crate::stop::Stopped`].
    pub(crate) fn stats(&self, asked: &FieldsRequest, stop: &Stop) -> Result<FieldsReport, F::Error> {
        let mut told = FieldsReport::default();
        if asked.limit == 0 {
            return Ok(told);
        }
        let mut page: BTreeMap<String, (Held, u64)> = BTreeMap::new();
        let mut going = stop.pace();
        self.names(&asked.prefix, &mut |name| {
            if !name.starts_with(asked.prefix.as_str()) || !going() {
                return ControlFlow::Break(());
            }
            told.total += 1;
            if *name > *asked.after {
                if page.len() < asked.limit {
                    page.insert(name.to_owned(), (Held::default(), 0));
                } else {
                    told.more = true;
                }
            }
            ControlFlow::Continue(())
        })?;
        stop.check()?;
        for (name, (held, documents)) in &mut page {
            for place in &self.0 {
                stop.check()?;
                if let Some(theirs) = place.held(name)? {
                    *held = held.with(theirs);
                    *documents += place.having(name)?.intersection_len(place.documents());
                }
            }
        }
        told.fields =
            page.into_iter().map(|(name, (held, documents))| (name, held.type_names(), documents)).collect();
        Ok(told)
    }
}

impl<F: Fields> Known for Several<F> {
    type Error = F::Error;

    fn is_empty(&self) -> bool {
        self.0.iter().all(Known::is_empty)
    }

    fn held(&self, field: &str) -> Result<Option<Held>, F::Error> {
        let mut all: Option<Held> = None;
        for place in &self.0 {
            if let Some(held) = place.held(field)? {
                all = Some(all.map_or(held, |all| all.with(held)));
            }
        }
        Ok(all)
    }

    fn names_most(&self) -> usize {
        self.0.iter().map(Known::names_most).sum()
    }

    fn names(&self, from: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), F::Error> {
        let mut from: Box<str> = from.into();
        let mut is_told = false;
        loop {
            let mut names: BTreeSet<Box<str>> = BTreeSet::new();
            // Names above it may be missing: one of the places has more than were taken.
            let mut bound: Option<Box<str>> = None;
            for place in &self.0 {
                let mut taken = 0;
                place.names(&from, &mut |name| {
                    if is_told && *name == *from {
                        return ControlFlow::Continue(());
                    }
                    if bound.as_deref().is_some_and(|bound| name > bound) {
                        return ControlFlow::Break(());
                    }
                    if !names.contains(name) {
                        names.insert(name.into());
                    }
                    taken += 1;
                    if taken < NAMES_AT_ONCE {
                        return ControlFlow::Continue(());
                    }
                    bound = Some(name.into());
                    ControlFlow::Break(())
                })?;
            }
            let complete = names.iter().take_while(|name| bound.as_ref().is_none_or(|bound| *name <= bound));
            if complete.into_iter().try_for_each(|name| each(name)).is_break() {
                return Ok(());
            }
            match bound {
                Some(bound) => from = bound,
                None => return Ok(()),
            }
            is_told = true;
        }
    }
}
