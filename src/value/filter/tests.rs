use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const TWO_53: i64 = 1 << 53;

fn s(text: &str) -> Value {
    Value::String(text.into())
}

fn eq(field: &str, value: Value) -> Filter {
    Filter::Eq { field: field.into(), value }
}

/// Values that meet one another: equal ones of several types, neighbours that floats cannot tell apart.
pub(crate) fn any_scalar() -> impl Strategy<Value = Value> {
    let day = datetime::parse("2024-01-31").unwrap();
    prop_oneof![
        select(vec![
            "",
            "a",
            "ab",
            "abc",
            "b",
            "2024-01-31",
            "2024-01-31T00:00:00.000001Z",
            "é\"\\\n`'\u{7f}"
        ])
        .prop_map(s),
        select(vec![i64::MIN, -1, 0, 1, TWO_53 - 1, TWO_53, TWO_53 + 1, i64::MAX]).prop_map(Value::Integer),
        select(vec![
            -1e300,
            i64::MIN as f64,
            -1.5,
            -1.0,
            -0.5,
            -0.0,
            0.0,
            0.5,
            1.0,
            TWO_53 as f64,
            (TWO_53 + 2) as f64,
            i64::MAX as f64,
            1e300
        ])
        .prop_map(Value::Float),
        any::<bool>().prop_map(Value::Bool),
        select(vec![day - 1, day, day + 1, datetime::MICROS_MIN, datetime::MICROS_MAX])
            .prop_map(Value::Datetime),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let list = |of: fn(&Value) -> bool| {
        vec(any_scalar(), 0..6).prop_map(move |list| Value::List(list.into_iter().filter(of).collect()))
    };
    prop_oneof![
        4 => any_scalar(),
        1 => list(|v| matches!(v, Value::String(_))),
        1 => list(|v| matches!(v, Value::Integer(_))),
        1 => list(|v| matches!(v, Value::Float(_))),
        1 => list(|v| matches!(v, Value::Datetime(_))),
    ]
}

fn any_field() -> impl Strategy<Value = String> {
    select(vec!["a", "b-1.x_", "In", "two words", "tick`"]).prop_map(String::from)
}

pub(crate) fn any_payload() -> impl Strategy<Value = Payload> {
    proptest::collection::btree_map(any_field(), any_value(), 0..5)
}

fn any_range() -> impl Strategy<Value = RangeBounds> {
    let kind = |value: &Value| match value {
        Value::Float(_) => "integer",
        other => type_name(other),
    };
    (vec(any_scalar(), 4), 1..16u8).prop_map(move |(bounds, given)| {
        let first = bounds.iter().find(|b| kind(b) != "bool").cloned().unwrap_or(Value::Integer(7));
        let bound = |i: usize| {
            let same = if kind(&bounds[i]) == kind(&first) { bounds[i].clone() } else { first.clone() };
            (given & (1 << i) != 0).then_some(same)
        };
        RangeBounds { gt: bound(0), gte: bound(1), lt: bound(2), lte: bound(3) }
    })
}

pub(crate) fn any_condition() -> impl Strategy<Value = Filter> {
    let (field, value) = (any_field, any_scalar);
    prop_oneof![
        (field(), value()).prop_map(|(field, value)| Filter::Eq { field, value }),
        (field(), value()).prop_map(|(field, value)| Filter::Ne { field, value }),
        (field(), vec(value(), 1..4)).prop_map(|(field, values)| Filter::In { field, values }),
        (field(), any_range()).prop_map(|(field, range)| Filter::Range { field, range }),
        (field(), any::<bool>()).prop_map(|(field, expected)| Filter::Exists { field, expected }),
        (field(), select(vec!["", "a", "ab", "\t"]))
            .prop_map(|(field, prefix)| Filter::Prefix { field, prefix: prefix.into() }),
        (field(), value()).prop_map(|(field, value)| Filter::Contains { field, value }),
    ]
}

pub(crate) fn any_filter() -> impl Strategy<Value = Filter> {
    any_condition().prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(Filter::And),
            vec(inner.clone(), 2..4).prop_map(Filter::Or),
            inner.prop_map(|part| Filter::Not(Box::new(part))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(filter in any_filter()) {
        let text = filter.to_string();
        prop_assert_eq!(Filter::parse(&text), Ok(filter), "{}", text);
    }

    #[test]
    fn any_float_and_integer_reads_back(float in proptest::num::f64::NORMAL | proptest::num::f64::ZERO, integer: i64) {
        for value in [Value::Float(float), Value::Integer(integer)] {
            let filter = eq("f", value);
            prop_assert_eq!(Filter::parse(&filter.to_string()), Ok(filter));
        }
    }

    #[test]
    fn no_text_panics(text in "[a-z0-9 ()\\[\\],=!<>\"'`\\\\.eé-]{0,40}") {
        if let Ok(filter) = Filter::parse(&text) {
            filter.validate().unwrap();
        }
    }

    #[test]
    fn ne_is_not_eq(payload in any_payload(), field in any_field(), value in any_scalar()) {
        let eq = Filter::Eq { field: field.clone(), value: value.clone() };
        prop_assert_eq!(Filter::Ne { field, value }.matches(&payload), !eq.matches(&payload));
    }

    #[test]
    fn integers_and_floats_compare_as_through_wide_integers(integer: i64, float in -1e19f64..1e19) {
        // Whole floats have an exact wide integer.
        let float = float.trunc();
        let expected = i128::from(integer).cmp(&(float as i128));
        prop_assert_eq!(compare_exactly(integer, float), Some(expected));
    }
}

#[test]
fn reads_every_test_and_binds_as_told() {
    let year = |range| Filter::Range { field: "year".into(), range };
    let text = r#"year >= 2000 AND (lang = "en" or tags CONTAINS 'draft') and not exists(retracted)"#;
    let expected = Filter::And(vec![
        year(RangeBounds { gte: Some(Value::Integer(2000)), ..Default::default() }),
        Filter::Or(vec![eq("lang", s("en")), Filter::Contains { field: "tags".into(), value: s("draft") }]),
        Filter::Exists { field: "retracted".into(), expected: false },
    ]);
    assert_eq!(Filter::parse(text), Ok(expected));

    let (a, b, c) = (eq("a", Value::Integer(1)), eq("b", Value::Float(-0.5)), eq("c", Value::Bool(true)));
    let expected =
        Filter::Or(vec![a.clone(), Filter::And(vec![Filter::Not(Box::new(b.clone())), c.clone()])]);
    assert_eq!(Filter::parse("a=1 or not b=-0.5 and c==True"), Ok(expected));
    let expected = Filter::And(vec![Filter::Or(vec![a.clone(), b]), c]);
    assert_eq!(Filter::parse("((a = 1) or b = -.5) and c = true"), Ok(expected));

    let expected =
        year(RangeBounds { gt: Some(Value::Integer(1)), lte: Some(Value::Float(1e3)), ..Default::default() });
    assert_eq!(Filter::parse("year > 1 and <= 1e3"), Ok(expected));

    let expected = Filter::In { field: "a`b c".into(), values: vec![s("x"), s("é"), Value::Datetime(0)] };
    assert_eq!(Filter::parse(r#"`a``b c` in ["x", "\u{e9}", 1970-01-01T01:00:00+01:00]"#), Ok(expected));
    assert_eq!(
        Filter::parse("größe.x-1 prefix ''"),
        Ok(Filter::Prefix { field: "größe.x-1".into(), prefix: "".into() })
    );
    assert_eq!(
        Filter::parse("not (exists(a))"),
        Ok(Filter::Not(Box::new(Filter::Exists { field: "a".into(), expected: true })))
    );
}

#[test]
fn errors_name_position_find_and_expectation() {
    for (text, position, parts) in [
        ("", 1, &["found the end", "a field name"][..]),
        ("   ", 4, &["found the end", "a field name"]),
        ("year", 5, &["found the end", "a test"]),
        ("year >=", 8, &["found the end", "a value"]),
        ("lang = en", 8, &["found the word \"en\"", "in quotes"]),
        ("größe = en", 9, &["found the word \"en\""]),
        ("a = 1 b = 2", 7, &["found the word \"b\"", "`and`, `or` or the end"]),
        ("a = 1)", 6, &["found `)`", "the end"]),
        ("(a = 1", 7, &["found the end", "`)`"]),
        ("a = 1 and", 10, &["found the end", "a field name"]),
        ("and = 1", 1, &["found `and`", "`and`"]),
        ("OR = 1", 1, &["found `or`", "`OR`"]),
        ("5 = a", 1, &["found the number 5", "a field name"]),
        ("a ! 1", 3, &["found `!`", "!="]),
        ("a & b", 3, &["found '&'"]),
        ("a in 1", 6, &["found the number 1", "`[`"]),
        ("a in []", 7, &["found `]`", "a value"]),
        ("a in [1, 2", 11, &["found the end", "`,` or `]`"]),
        ("a in [1 2]", 9, &["found the number 2", "`,` or `]`"]),
        ("a in [[1]]", 7, &["found `[`", "a value"]),
        ("a prefix 5", 10, &["found the number 5", "a text in quotes"]),
        ("exists a", 8, &["found the word \"a\"", "`(`"]),
        ("exists()", 8, &["found `)`", "a field name"]),
        ("exists(a", 9, &["found the end", "`)`"]),
        ("a = \"x", 7, &["found the end", "position 5"]),
        ("a = '\\q'", 6, &["found `\\q`", "expected one of"]),
        ("a = '\\u{d800}'", 6, &["hexadecimal"]),
        ("a = '\\", 6, &["found the end"]),
        ("`a = 1", 7, &["found the end", "position 1"]),
        ("`` = 1", 1, &["is empty"]),
        ("a = 2024-13-01", 5, &["no date or datetime"]),
        ("a = 0000-01-01", 5, &["outside the years 1 to 9999"]),
        ("a = 10000-01-01", 5, &["outside the years 1 to 9999"]),
        ("a = 99999999999999999999", 5, &["out of bounds", "as a float"]),
        (
            "a = 18446744073709551615",
            5,
            &["out of bounds", "as a float (18446744073709551615.0)", "in quotes"],
        ),
        ("a = 1e999", 5, &["too large"]),
        ("a = 12x", 5, &["found \"12x\"", "a number or a date"]),
        ("a = -", 5, &["found \"-\""]),
        ("a = 1.2.3", 5, &["found \"1.2.3\""]),
        ("a > true", 5, &["found a bool"]),
        ("a > 1 and > 2", 11, &["`>` twice"]),
    ] {
        match Filter::parse(text) {
            Err(FilterError::Syntax { position: at, message }) => {
                assert_eq!(at, position, "{text}: {message}");
                parts.iter().for_each(|part| assert!(message.contains(part), "{text}: {message}"));
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let mixed = Filter::parse("a > 1 and < 'b'").unwrap_err();
    assert!(mixed.to_string().contains("several types (integer and string)"), "{mixed}");
}

#[test]
fn deep_and_long_texts_are_refused_not_overflown() {
    let nested = |depth| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    Filter::parse(&nested(DEPTH_MAX)).unwrap();
    assert!(matches!(Filter::parse(&nested(100_000)), Err(FilterError::Syntax { position: 129, .. })));
    assert!(matches!(Filter::parse(&"not ".repeat(100_000)), Err(FilterError::Syntax { .. })));
    let nots = |depth| format!("{}a = 1", "not ".repeat(depth));
    Filter::parse(&nots(DEPTH_MAX - 1)).unwrap();
    assert!(Filter::parse(&nots(DEPTH_MAX)).unwrap_err().to_string().contains("64 deep"));
    assert!(Filter::parse(&" ".repeat(EXPRESSION_BYTES_MAX + 1)).unwrap_err().to_string().contains("bytes"));
}

#[test]
fn malformed_structures_are_refused() {
    let range = |range| Filter::Range { field: "f".into(), range };
    let mut deep = eq("f", s("x"));
    for _ in 0..DEPTH_MAX {
        deep = Filter::Not(Box::new(deep));
    }
    for (filter, part) in [
        (range(RangeBounds::default()), "no bounds"),
        (
            range(RangeBounds { gt: Some(Value::Integer(1)), lt: Some(s("x")), ..Default::default() }),
            "several types (integer and string)",
        ),
        (range(RangeBounds { gt: Some(Value::Bool(true)), ..Default::default() }), "bounded by a bool"),
        (range(RangeBounds { gt: Some(Value::Float(f64::NAN)), ..Default::default() }), "finite"),
        (eq("f", Value::Float(f64::INFINITY)), "finite"),
        (eq("f", Value::Datetime(i64::MAX)), "years 1 to 9999"),
        (eq("f", Value::List(vec![])), "use `in`"),
        (Filter::In { field: "f".into(), values: vec![Value::List(vec![])] }, "use `in`"),
        (Filter::In { field: "f".into(), values: vec![] }, "empty list"),
        (Filter::In { field: "f".into(), values: vec![s("x"); VALUES_MAX] }, "more than"),
        (Filter::And(vec![]), "at least one"),
        (Filter::Not(Box::new(Filter::Or(vec![]))), "at least one"),
        (eq("", s("x")), "names no field"),
        (eq("a\0", s("x")), "control characters"),
        (eq(&"x".repeat(257), s("x")), "257 bytes"),
        (deep, "64 deep"),
    ] {
        let error = filter.validate().unwrap_err();
        assert!(matches!(error, FilterError::Malformed { .. }));
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(part), "{error} / {part}");
    }
    range(RangeBounds { gt: Some(Value::Integer(1)), lt: Some(Value::Float(2.5)), ..Default::default() })
        .validate()
        .unwrap();
}

#[test]
fn matches_as_the_semantics_say() {
    let payload: Payload = [
        ("n", Value::Integer(TWO_53 + 1)),
        ("x", Value::Float(2.0)),
        ("s", s("Hello")),
        ("t", Value::Datetime(datetime::parse("2024-01-31T10:00:00Z").unwrap())),
        ("b", Value::Bool(true)),
        ("tags", Value::List(vec![s("red"), s("green")])),
        ("nums", Value::List(vec![Value::Integer(1), Value::Integer(10)])),
        ("none", Value::List(vec![])),
    ]
    .map(|(field, value)| (field.to_owned(), value))
    .into();
    for (text, expected) in [
        ("n = 9007199254740993", true),
        ("n = 9007199254740992.0", false),
        ("n > 9007199254740992.0", true),
        ("x = 2", true),
        ("x < 3 and >= 2.0", true),
        ("s = 'Hello'", true),
        ("s = 'hello'", false),
        ("s prefix 'He'", true),
        ("s contains 'ell'", true),
        ("s contains 'ELL'", false),
        ("s > 'Hell'", true),
        ("s > 5", false),
        ("t = '2024-01-31T11:00:00+01:00'", true),
        ("t >= 2024-01-31 and < 2024-02-01", true),
        ("t > 'soon'", false),
        ("t < 9999-12-31", true),
        ("t < '9999-12-31T23:59:59-05:00'", true),
        ("t > 0001-01-01T00:00:00+14:00", true),
        ("b = true", true),
        ("b = false", false),
        ("tags = 'red'", true),
        ("tags != 'red'", false),
        ("tags contains 'red'", true),
        ("tags contains 're'", false),
        ("tags prefix 're'", true),
        ("tags in ['blue', 'green']", true),
        // One element has to lie between, which two conditions do not ask.
        ("nums > 2 and < 9", false),
        ("nums > 2 and nums < 9", true),
        ("x contains 2", false),
        ("exists(none)", true),
        ("none = 1", false),
        ("none != 1", true),
        ("exists(missing)", false),
        ("not exists(missing)", true),
        ("missing = 1", false),
        ("missing != 1", true),
        ("not missing = 1", true),
        ("missing in [1]", false),
        ("missing < 1", false),
        ("missing prefix ''", false),
        ("missing contains ''", false),
        ("x = 1 or x = 2", true),
        ("x = 1 and x = 2", false),
    ] {
        assert_eq!(Filter::parse(text).unwrap().matches(&payload), expected, "{text}");
    }
}
