use proptest::prelude::*;

use super::*;
use crate::{
    error::Fault as _,
    value::filter::{
        RangeBounds,
        tests::{any_filter, any_payload},
    },
};

fn index_of(payloads: &[&[(&str, Value)]]) -> FieldIndex {
    let mut index = FieldIndex::new();
    for (doc, payload) in (0..).zip(payloads) {
        index.insert(
            doc,
            &payload.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect(),
        );
    }
    index
}

fn s(text: &str) -> Value {
    Value::String(text.into())
}

fn find(index: &FieldIndex, text: &str) -> Result<Vec<u32>, FilterError> {
    Ok(index.matching(&Filter::parse(text)?, &Stop::default())?.into_iter().collect())
}

/// Whether any stored value of the field could satisfy a test, found without the index: by trying values.
fn mismatches(filter: &Filter, payloads: &[Payload]) -> bool {
    let comparable = |stored: &Value, given: &Value| {
        let field = String::from("f");
        let at = |value: &Value| Some(value.clone());
        let payload: Payload = [(field.clone(), stored.clone())].into();
        let below = RangeBounds { lte: at(given), ..Default::default() };
        let above = RangeBounds { gte: at(given), ..Default::default() };
        Filter::Eq { field: field.clone(), value: given.clone() }.matches(&payload)
            || Filter::Range { field: field.clone(), range: below }.matches(&payload)
            || Filter::Range { field, range: above }.matches(&payload)
            || matches!((stored, given), (Value::Bool(_), Value::Bool(_)))
    };
    let leaf = |field: &str, test: &dyn Fn(&Value, bool) -> bool| {
        let mut values =
            payloads.iter().filter_map(|payload| payload.get(field)).flat_map(|value| match value {
                Value::List(elements) => elements.iter().map(|element| (element, true)).collect(),
                scalar => vec![(scalar, false)],
            });
        let mut values = values.by_ref().peekable();
        values.peek().is_some() && !values.any(|(value, in_list)| test(value, in_list))
    };
    match filter {
        Filter::And(parts) | Filter::Or(parts) => parts.iter().any(|part| mismatches(part, payloads)),
        Filter::Not(part) => mismatches(part, payloads),
        Filter::Eq { field, value } | Filter::Ne { field, value } => {
            leaf(field, &|v, _| comparable(v, value))
        }
        Filter::In { field, values } => leaf(field, &|v, _| values.iter().any(|given| comparable(v, given))),
        Filter::Range { field, range } => {
            range.set().any(|(_, bound)| leaf(field, &|v, _| comparable(v, bound)))
        }
        Filter::Exists { .. } => false,
        Filter::Prefix { field, .. } => leaf(field, &|v, _| matches!(v, Value::String(_))),
        Filter::Contains { field, value } => leaf(field, &|v, in_list| match in_list {
            true => comparable(v, value),
            false => matches!((v, value), (Value::String(_), Value::String(_))),
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// After any inserts, replacements and removals the index answers as a scan of what is left does.
    #[test]
    fn index_answers_as_a_scan(
        steps in proptest::collection::vec((0..8u32, proptest::option::weighted(0.7, any_payload())), 0..24),
        filters in proptest::collection::vec(any_filter(), 1..6),
    ) {
        let (mut index, mut living, mut next) = (FieldIndex::new(), RoaringBitmap::new(), 0);
        let mut kept = BTreeMap::new();
        for (name, payload) in steps {
            if let Some((doc, _)) = kept.remove(&name) {
                living.remove(doc);
            }
            if let Some(payload) = payload {
                index.insert(next, &payload);
                living.insert(next);
                kept.insert(name, (next, payload));
                next += 1;
            }
        }
        let payloads: Vec<Payload> = kept.values().map(|(_, payload)| payload.clone()).collect();
        let left = Several(vec![Living { index: &index, documents: &living }]);
        // What is left, in an index of its own.
        let mut alone = FieldIndex::new();
        alone.absorb(&index, &living);
        for filter in &filters {
            let found = left.matching(filter, &Stop::default()).map(|found| found[0].clone());
            prop_assert_eq!(&found, &alone.matching(filter, &Stop::default()));
            match found {
                Ok(found) => {
                    let matching = kept.values().filter(|(_, payload)| filter.matches(payload));
                    let scanned: RoaringBitmap = matching.map(|(doc, _)| *doc).collect();
                    prop_assert_eq!(found, scanned, "{}", filter);
                    prop_assert!(!mismatches(filter, &payloads), "{} should mismatch", filter);
                }
                Err(FilterError::TypeMismatch { .. }) => {
                    prop_assert!(mismatches(filter, &payloads), "{} should not mismatch", filter);
                }
                Err(other) => prop_assert!(false, "{}: {}", filter, other),
            }
        }
        let told = left.stats(&all(), &Stop::default()).unwrap();
        prop_assert_eq!(&told, &alone.stats(&all(), &Stop::default()).unwrap());
        for (field, types, documents) in told.fields {
            let having = payloads.iter().filter(|payload| payload.contains_key(&field)).count() as u64;
            prop_assert_eq!(documents, having);
            prop_assert!(!types.is_empty() && having > 0);
        }
        let mut nothing = FieldIndex::new();
        nothing.absorb(&index, &RoaringBitmap::new());
        prop_assert!(nothing.fields.is_empty() && nothing.all.is_empty());
    }

    #[test]
    fn float_keys_order_as_floats(a in any::<f64>(), b in any::<f64>()) {
        prop_assume!(!a.is_nan() && !b.is_nan());
        prop_assert_eq!(Some(float_key(a).cmp(&float_key(b))), a.partial_cmp(&b));
    }

    /// Neighbours of an integer among the floats, where rounding bites.
    #[test]
    fn bounds_between_integers_and_floats_are_exact(integer: i64, step in -2i64..=2, sign in 0..4usize) {
        let nearest = integer as f64;
        let float = f64::from_bits(nearest.to_bits().wrapping_add_signed(step));
        prop_assume!(float.is_finite());
        for (stored, given) in [
            (Value::Integer(integer), Value::Float(float)),
            (Value::Float(float), Value::Integer(integer)),
        ] {
            let mut range = RangeBounds::default();
            *[&mut range.gt, &mut range.gte, &mut range.lt, &mut range.lte][sign] = Some(given.clone());
            let field = || "f".to_owned();
            let payload: Payload = [(field(), stored)].into();
            let mut index = FieldIndex::new();
            index.insert(0, &payload);
            for filter in [
                Filter::Range { field: field(), range },
                Filter::Eq { field: field(), value: given.clone() },
                Filter::Ne { field: field(), value: given.clone() },
                Filter::In { field: field(), values: vec![given] },
            ] {
                let found = index.matching(&filter, &Stop::default()).unwrap().contains(0);
                prop_assert_eq!(found, filter.matches(&payload), "{}", filter);
                // A float is equal to an integer only if it is that integer exactly.
                if let Filter::Eq { .. } = filter {
                    let exact = float.fract() == 0.0 && float as i128 == i128::from(integer);
                    prop_assert_eq!(found, exact, "{}", filter);
                }
            }
        }
    }

    /// Hints need nothing of a filter, and are the same for one meaning however the documents came.
    #[test]
    fn hints_are_few_and_never_panic(
        payloads in proptest::collection::vec(any_payload(), 0..6), filter in any_filter(),
    ) {
        let mut index = FieldIndex::new();
        for (doc, payload) in (0..).zip(&payloads) {
            index.insert(doc, payload);
        }
        let hints = index.hints(&filter, &Stop::default()).unwrap();
        prop_assert!(hints.len() <= 8 && hints.iter().all(|hint| !hint.is_empty()));
    }
}

#[test]
fn a_field_that_nobody_has_is_told_with_the_one_that_was_meant() {
    let index = index_of(&[
        &[("year", Value::Integer(2001)), ("lang", s("en"))],
        &[("tags", Value::List(vec![s("x")]))],
    ]);
    for (text, hints) in [
        ("yaer > 2000", &["no document has the field \"yaer\"; did you mean \"year\"?"][..]),
        ("Year = 2001 and lang = 'en'", &["no document has the field \"Year\"; did you mean \"year\"?"]),
        ("author = 'x'", &["no document has the field \"author\"; there are: lang, tags, year"]),
        ("exists(author)", &["no document has the field \"author\"; there are: lang, tags, year"]),
        ("not exists(author)", &[]),
        (
            "id = 'p1'",
            &[
                "no document has the field \"id\": filters test fields of the payload, and a document's id, title and text are none",
            ],
        ),
        ("not exists(text)", &[]),
        ("not exists(yeer)", &["no document has the field \"yeer\"; did you mean \"year\"?"]),
        (
            "not (tag contains 'x' or tag = 'y')",
            &["no document has the field \"tag\"; did you mean \"tags\"?"],
        ),
        ("year = 1999 or lang = 'xx' or tags contains 'nobody'", &[]),
    ] {
        assert_eq!(index.hints(&Filter::parse(text).unwrap(), &Stop::default()).unwrap(), hints, "{text}");
    }
    // One field in many conditions is one hint, and many fields are some.
    let many = |name: fn(usize) -> String| {
        Filter::Or((0..5000).map(|i| Filter::Eq { field: name(i), value: s("x") }).collect())
    };
    assert_eq!(index.hints(&many(|_| "author".into()), &Stop::default()).unwrap().len(), 1);
    assert_eq!(index.hints(&many(|i| format!("author{i}")), &Stop::default()).unwrap().len(), 8);
    let filter = Filter::parse("year = 1").unwrap();
    assert_eq!(
        FieldIndex::new().hints(&filter, &Stop::default()).unwrap(),
        ["the collection has no documents"]
    );
    assert_eq!(
        index_of(&[&[]]).hints(&filter, &Stop::default()).unwrap(),
        ["no document has the field \"year\"; the documents have no fields"]
    );
}

#[test]
fn a_value_that_reaches_some_of_a_fields_types_is_told() {
    let index = index_of(&[
        &[("zip", Value::Integer(10115)), ("when", Value::Datetime(0)), ("e", Value::List(vec![]))],
        &[("zip", s("01067")), ("when", s("soon")), ("n", Value::Float(0.5))],
        &[("zip", Value::Integer(80331)), ("n", Value::Integer(1))],
    ]);
    for (text, parts) in [
        (
            "zip = '10115'",
            &["\"zip\" holds string and integer", "\"10115\" is compared with string only", "without quotes"]
                [..],
        ),
        ("zip != '10115'", &["without quotes"]),
        ("zip >= 50000", &["the integer 50000 is compared with integer only", "in quotes"]),
        ("zip in [10115, 'x']", &[]),
        ("zip in [10115, true]", &["the bool true can be compared with none of them"]),
        ("zip prefix '10'", &["the prefix \"10\" is compared with string only"]),
        ("zip contains '10'", &["`contains` the string \"10\" is compared with string only"]),
        (
            "when < 2000-01-01",
            &["the datetime 2000-01-01T00:00:00Z is compared with datetime only", "in quotes"],
        ),
        ("when < 'x'", &["is compared with string only", "no RFC 3339 date"]),
        ("when < '2000-01-01'", &[]),
        ("n > 0 and n < 1.5", &[]),
        ("e = 1", &["holds empty lists only"]),
    ] {
        let hints = index.hints(&Filter::parse(text).unwrap(), &Stop::default()).unwrap();
        assert_eq!(hints.is_empty(), parts.is_empty(), "{text}: {hints:?}");
        parts.iter().for_each(|part| assert!(hints[0].contains(part), "{text}: {hints:?}"));
    }
    let integers = index_of(&[&[("zip", Value::Integer(10115))]]);
    let error = find(&integers, "zip = '10115'").unwrap_err().to_string();
    assert!(error.contains("holds integer") && error.contains("without quotes"), "{error}");
}

#[test]
fn finds_documents_by_every_test() {
    let index = index_of(&[
        &[("n", Value::Integer(1)), ("s", s("apple"))],
        &[("n", Value::Float(1.5)), ("s", s("apricot")), ("tags", Value::List(vec![s("x"), s("y")]))],
        &[("n", Value::Integer(2)), ("t", Value::Datetime(0))],
        &[],
    ]);
    for (text, expected) in [
        ("n >= 1 and <= 1.5", &[0, 1][..]),
        ("n = 2.0", &[2]),
        ("n != 2", &[0, 1, 3]),
        ("n in [1, 2]", &[0, 2]),
        ("s prefix 'ap'", &[0, 1]),
        ("s prefix 'apr'", &[1]),
        ("s contains 'l'", &[0]),
        ("s > 'apple'", &[1]),
        ("s > 'b' and < 'a'", &[]),
        ("tags contains 'y'", &[1]),
        ("t = '1970-01-01'", &[2]),
        ("not exists(s)", &[2, 3]),
        ("nobody = 1", &[]),
        ("nobody != 1", &[0, 1, 2, 3]),
        ("not nobody prefix 'x'", &[0, 1, 2, 3]),
        ("n = 1 or t < 2000-01-01", &[0, 2]),
    ] {
        assert_eq!(find(&index, text).unwrap(), expected, "{text}");
    }
    assert_eq!(index.documents().len(), 4);
}

#[test]
fn types_that_cannot_be_compared_are_an_error() {
    let index = index_of(&[
        &[("s", s("a")), ("n", Value::Integer(1)), ("t", Value::Datetime(0)), ("e", Value::List(vec![]))],
        &[("mixed", s("a")), ("l", Value::List(vec![Value::Integer(1)]))],
        &[("mixed", Value::Bool(true))],
    ]);
    for (text, parts) in [
        ("s > 5", &["field \"s\"", "it holds string", "the integer 5"][..]),
        ("s != 5", &["it holds string"]),
        ("n = 'x'", &["it holds integer", "the string \"x\""]),
        ("n = true", &["the bool true"]),
        ("n prefix 'x'", &["a prefix, which only strings have"]),
        ("n contains 1", &["`contains` the integer 1"]),
        ("t > 'soon'", &["it holds datetime", "\"soon\"", "no RFC 3339"]),
        ("s >= 2024-01-31", &["2024-01-31T00:00:00Z", "in quotes"]),
        ("mixed > 1.5", &["string and bool", "the float 1.5"]),
        ("l = 'a'", &["list of integer"]),
        ("n = 1 or (n = 1 and s > 5)", &["field \"s\""]),
    ] {
        let error = find(&index, text).unwrap_err();
        assert!(matches!(error, FilterError::TypeMismatch { .. }), "{text}: {error}");
        parts.iter().for_each(|part| assert!(error.to_string().contains(part), "{text}: {error}"));
    }
    for text in
        ["s in [5, 'a']", "mixed = 'a'", "t > '2024-01-31'", "e = 1", "e prefix 'x'", "l contains 1.0"]
    {
        find(&index, text).unwrap();
    }
    let malformed =
        index.matching(&Filter::In { field: "s".into(), values: vec![] }, &Stop::default()).unwrap_err();
    assert!(matches!(malformed, FilterError::Malformed { .. }));
}

#[test]
fn stats_name_fields_types_and_counts() {
    let index = index_of(&[
        &[("a", s("x")), ("e", Value::List(vec![]))],
        &[("a", Value::List(vec![Value::Float(1.0)])), ("b", Value::Bool(false))],
    ]);
    let expected = [
        ("a".to_owned(), vec!["string", "list of float"], 2),
        ("b".to_owned(), vec!["bool"], 1),
        ("e".to_owned(), vec!["empty list"], 1),
    ];
    assert_eq!(index.stats(&all(), &Stop::default()).unwrap().fields, expected);
    assert_eq!(index.type_names("a"), ["string", "list of float"]);
    assert!(index.type_names("nobody").is_empty());
}

#[test]
fn a_filter_is_left_off_when_it_is_time() {
    let mut index = FieldIndex::new();
    for doc in 0..5000 {
        index.insert(doc, &Payload::from([("s".to_owned(), Value::String(format!("value {doc}")))]));
    }
    let stop = Stop::at(Some(std::time::Instant::now()));
    for text in ["s contains \"nothing\"", "s prefix \"value\"", "s >= \"v\"", "not s = \"value 7\""] {
        let filter = Filter::parse(text).unwrap();
        let error = index.matching(&filter, &stop).unwrap_err();
        assert_eq!(
            (&error, error.kind()),
            (&FilterError::Stopped(crate::stop::Stopped), crate::error::ErrorKind::Timeout)
        );
        assert!(index.matching(&filter, &Stop::default()).is_ok());
    }
    // Parts that are each over at once, but are many: a value in a list, a condition, a name.
    let values = (0..5000).map(|i| s(&format!("none {i}"))).collect();
    let within = Filter::In { field: "s".into(), values };
    let Named::Many(field) = &index.fields["s"] else { panic!("5000 documents have it") };
    let Filter::In { values, .. } = &within else { unreachable!() };
    let after = values.iter().chain([&s("value 7")]).cloned().collect::<Vec<_>>();
    let matching =
        |stop: &Stop| evaluate::matching(&field.scalars, &field.elements, &Test::In(&after), stop).unwrap();
    assert!(matching(&stop).is_empty(), "the last value was looked for");
    assert_eq!(matching(&Stop::default()).len(), 1);
    let exists = Filter::Exists { field: "s".into(), expected: true };
    assert_eq!(index.matching(&exists, &stop), Err(FilterError::Stopped(crate::stop::Stopped)));
    assert_eq!(index.hints(&within, &stop), Err(crate::stop::Stopped));
    for doc in 5000..8000 {
        index.insert(doc, &Payload::from([(format!("name {doc}"), Value::Bool(true))]));
    }
    assert_eq!(index.stats(&all(), &stop), Err(crate::stop::Stopped));
    assert_eq!(index.stats(&all(), &Stop::default()).unwrap().total, 3001);
}

/// Every field there is.
fn all() -> FieldsRequest {
    FieldsRequest { limit: usize::MAX, ..FieldsRequest::default() }
}

#[test]
fn fields_are_told_page_by_page_and_by_prefix() {
    let mut index = FieldIndex::new();
    for doc in 0..30_u32 {
        let one = |i: u32| (format!("own{doc:02}.{i}"), Value::Integer(i.into()));
        let mut payload: Payload = (0..10).map(one).collect();
        payload.insert("common".into(), Value::Bool(true));
        index.insert(doc, &payload);
    }
    let page = |prefix: &str, after: &str, limit| {
        index
            .stats(&FieldsRequest { prefix: prefix.into(), after: after.into(), limit }, &Stop::default())
            .unwrap()
    };
    let mut names = Vec::new();
    loop {
        let told = page("", names.last().map_or("", String::as_str), 7);
        assert_eq!(told.total, 301);
        assert!(told.fields.len() <= 7 && told.more == (names.len() + told.fields.len() < 301));
        names.extend(told.fields.into_iter().map(|(name, ..)| name));
        if !told.more {
            break;
        }
    }
    assert_eq!((names.len(), names.is_sorted()), (301, true));
    let told = page("own07.", "own07.3", 100);
    assert_eq!((told.total, told.fields.len(), told.more), (10, 6, false));
    assert_eq!(told.fields[0], ("own07.4".to_owned(), vec!["integer"], 1));
    assert_eq!(page("common", "", 1).fields, [("common".to_owned(), vec!["bool"], 30)]);
    assert_eq!(page("", "", 0), FieldsReport::default());
    assert_eq!(index.held("comm").unwrap(), None);
}

#[test]
fn a_name_of_one_document_takes_little_memory() {
    // Three quarters of a leaf's places are in use at worst, and the name and the value have a place each.
    assert!(size_of::<(Box<str>, Named)>() <= 56, "{}", size_of::<(Box<str>, Named)>());
}
