//! Converts filters from proto to domain, from the text form and from the structured one.
//!
//! Promises: what is left open is refused, never read as "everything matches".
//! Leaves out what a filter means and whether its types fit the stored ones.

use super::value::{scalar_from, value_from};
use crate::{
    api::ApiError,
    proto::{self, condition::Test, filter::Form},
    value::{
        Value,
        filter::{Filter, RangeBounds},
    },
};

const FIELD: &str = "filter";

/// A filter as it came in, checked.
///
/// # Errors
/// [`ApiError::Field`] for what is left open; [`ApiError::Filter`] for the rest.
pub(crate) fn filter_from(filter: proto::Filter) -> Result<Filter, ApiError> {
    let filter = unchecked(filter)?;
    filter.validate()?;
    Ok(filter)
}

/// No filter is no condition.
///
/// # Errors
/// As [`filter_from`].
pub(crate) fn optional(filter: Option<proto::Filter>) -> Result<Option<Filter>, ApiError> {
    filter.map(filter_from).transpose()
}

/// The tree as it stands. Its depth is bounded by the decoder, which refuses messages nested deeper than 100.
fn unchecked(filter: proto::Filter) -> Result<Filter, ApiError> {
    match filter.form {
        Some(Form::Expression(text)) => Ok(Filter::parse(&text)?),
        Some(Form::Condition(condition)) => Ok(condition_from(condition)?),
        Some(Form::And(list)) => Ok(Filter::And(filters(list)?)),
        Some(Form::Or(list)) => Ok(Filter::Or(filters(list)?)),
        Some(Form::Not(inner)) => Ok(Filter::Not(Box::new(unchecked(*inner)?))),
        None => Err(ApiError::field(
            FIELD,
            "it has no form; set expression, condition, and, or, not, or leave the filter out",
        )),
    }
}

fn filters(list: proto::FilterList) -> Result<Vec<Filter>, ApiError> {
    list.filters.into_iter().map(unchecked).collect()
}

fn condition_from(condition: proto::Condition) -> Result<Filter, ApiError> {
    let proto::Condition { field, test } = condition;
    let place = || format!("{FIELD} on {field:?}");
    let one = |value| scalar_from(value, place);
    Ok(match test {
        Some(Test::Eq(value)) => Filter::Eq { value: one(value)?, field },
        Some(Test::Ne(value)) => Filter::Ne { value: one(value)?, field },
        Some(Test::In(list)) => {
            let values = list.values.into_iter().map(one).collect::<Result<_, _>>()?;
            Filter::In { values, field }
        }
        Some(Test::Range(range)) => {
            let proto::Range { gt, gte, lt, lte } = range;
            let bound = |value: Option<proto::Value>| -> Result<Option<Value>, ApiError> {
                value.map(one).transpose()
            };
            let range = RangeBounds { gt: bound(gt)?, gte: bound(gte)?, lt: bound(lt)?, lte: bound(lte)? };
            Filter::Range { range, field }
        }
        Some(Test::Exists(expected)) => Filter::Exists { field, expected },
        Some(Test::Prefix(prefix)) => Filter::Prefix { field, prefix },
        Some(Test::Contains(value)) => Filter::Contains { value: value_from(value, place)?, field },
        None => {
            return Err(ApiError::field(
                place(),
                "the condition has no test; set eq, ne, in, range, exists, prefix or contains",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault as _;
    use crate::{ErrorKind, proto::value::Kind};

    fn condition(test: Option<Test>) -> proto::Filter {
        proto::Filter { form: Some(Form::Condition(proto::Condition { field: "year".into(), test })) }
    }

    fn integer(i: i64) -> proto::Value {
        proto::Value { kind: Some(Kind::Integer(i)) }
    }

    #[test]
    fn the_structured_form_means_what_the_text_form_means() {
        let structured = proto::Filter {
            form: Some(Form::And(proto::FilterList {
                filters: vec![
                    condition(Some(Test::Range(proto::Range {
                        gte: Some(integer(2000)),
                        ..Default::default()
                    }))),
                    proto::Filter {
                        form: Some(Form::Not(Box::new(condition(Some(Test::Eq(integer(2007))))))),
                    },
                ],
            })),
        };
        let text = proto::Filter { form: Some(Form::Expression("year >= 2000 and not year = 2007".into())) };
        assert_eq!(filter_from(structured).unwrap(), filter_from(text).unwrap());
    }

    #[test]
    fn what_is_left_open_is_refused() {
        for (filter, word) in [
            (proto::Filter { form: None }, "no form"),
            (condition(None), "no test"),
            (condition(Some(Test::Eq(proto::Value { kind: None }))), "no kind"),
            (condition(Some(Test::Range(proto::Range::default()))), "range"),
            (proto::Filter { form: Some(Form::Not(Box::default())) }, "no form"),
        ] {
            let error = filter_from(filter).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_position() {
        let text = proto::Filter { form: Some(Form::Expression("year >=".into())) };
        let error = filter_from(text).unwrap_err();
        assert!(error.to_string().contains("position"), "{error}");
    }
}
