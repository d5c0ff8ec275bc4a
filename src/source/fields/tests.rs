//! Records by hand -> the documents, payloads and refusals that they must give.

use serde_json::json;

use super::*;

fn read(map: &FieldMap, record: Json) -> Result<SourceDocument, String> {
    let record = record.as_object().unwrap().clone();
    let there = record.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str());
    let roles = map.roles(there)?;
    map.document(record.clone(), &roles, Typing::Own(&BTreeSet::new()), "f:1".into())
}

fn typed(types: &[(&str, &str)]) -> FieldMap {
    let types = types.iter().map(|(field, kind)| ((*field).to_owned(), kind.parse().unwrap())).collect();
    FieldMap { types, ..Default::default() }
}

fn s(text: &str) -> Value {
    Value::String(text.into())
}

#[test]
fn defaults_find_what_datasets_call_things() {
    let map = FieldMap::default();
    let document = read(
        &map,
        json!({"_id": 7, "title": "T", "abstract": ["One.", "Two."], "metadata": {"year": 2001, "a": {"b": true}},
               "payload": {"k": "v"}, "doc_id": "other", "url": null}),
    )
    .unwrap();
    assert_eq!((document.id.as_str(), document.title.as_str()), ("7", "T"));
    assert_eq!(document.text, "One. Two.");
    let expected =
        [("a.b", Value::Bool(true)), ("doc_id", s("other")), ("k", s("v")), ("year", Value::Integer(2001))];
    assert_eq!(document.payload, expected.map(|(k, v)| (k.to_owned(), v)).into());
    assert_eq!(document.vector, None);

    let document = read(&map, json!({"id": "x", "content": "c", "body": "b", "vector": [1, 0.5]})).unwrap();
    assert_eq!((document.text.as_str(), document.vector), ("b", Some(vec![1.0, 0.5])));
    assert_eq!(document.payload, [("content".to_owned(), s("c"))].into());
    let document = read(&map, json!({"text": "t", "vector": "steering", "metadata": 5})).unwrap();
    assert_eq!(document.payload.len(), 2);
    assert!(read(&map, json!({"id": "x", "vector": [1]})).unwrap().text.is_empty());
    assert!(read(&map, json!({"id": "x", "text": "", "title": "only"})).unwrap().text.is_empty());
}

#[test]
fn record_without_an_id_gets_the_hash_of_its_content() {
    let map = FieldMap::default();
    let id = |record| read(&map, record).unwrap().id;
    let first = id(json!({"text": "a", "n": 1}));
    assert!(first.starts_with("sha-") && first.len() == 20, "{first}");
    assert_eq!(first, id(json!({"n": 1, "text": "a"})));
    assert_ne!(first, id(json!({"n": 2, "text": "a"})));
}

#[test]
fn chosen_fields_are_taken_and_must_be_there() {
    let name = |name: &str| Some(name.to_owned());
    let map = FieldMap {
        id: name("doi"),
        title: name("head"),
        text: name("story"),
        vector: name("emb"),
        ..Default::default()
    };
    let full = json!({"doi": "d", "head": "h", "story": "s", "emb": "[0.5, 1]", "text": "t", "id": 1});
    let document = read(&map, full.clone()).unwrap();
    assert_eq!((document.id.as_str(), document.title.as_str(), document.text.as_str()), ("d", "h", "s"));
    assert_eq!(document.vector, Some(vec![0.5, 1.0]));
    assert_eq!(document.payload.len(), 2);
    for (field, option) in [
        ("doi", "--id-field"),
        ("head", "--title-field"),
        ("story", "--text-field"),
        ("emb", "--vector-field"),
    ] {
        let mut record = full.clone();
        record.as_object_mut().unwrap().remove(field);
        let error = read(&map, record).unwrap_err();
        assert!(error.contains(field) && error.contains(option), "{error}");
    }
}

#[test]
fn bad_records_say_why() {
    let map = FieldMap::default();
    let vector = FieldMap { vector: Some("v".into()), ..Default::default() };
    for (map, record, part) in [
        (&map, json!({"id": "x"}), "none of the fields text, body, content, abstract"),
        (&map, json!({"id": "x", "text": " \n"}), "empty: neither text nor title"),
        (&map, json!({"id": "", "text": "t"}), "the id in field \"id\" is empty"),
        (&map, json!({"id": {"a": 1}, "text": "t"}), "\"id\" is an object"),
        (&map, json!({"text": [1]}), "\"text\" is a list"),
        (&map, json!({"text": true}), "\"text\" is a bool"),
        (&map, json!({"text": "t", "l": [1, "a"]}), "field \"l\": the list mixes"),
        (&map, json!({"text": "t", "k": 1, "metadata": {"k": 2}}), "both in \"metadata\" and beside it"),
        (&map, json!({"text": "t", "vector": [1e300]}), "not finite"),
        (&vector, json!({"text": "t", "v": ["a"]}), "no list of numbers"),
        (&vector, json!({"text": "t", "v": []}), "no list of numbers"),
    ] {
        let error = read(map, record).unwrap_err();
        assert!(error.contains(part), "{error} / {part}");
    }
}

#[test]
fn types_are_coerced_or_refused() {
    for (kind, given, expected) in [
        ("string", json!(5), Some(s("5"))),
        ("string", json!(0.5), Some(s("0.5"))),
        ("string", json!(true), Some(s("true"))),
        ("integer", json!(" 007 "), Some(Value::Integer(7))),
        ("integer", json!(3.0), Some(Value::Integer(3))),
        ("integer", json!(3.5), None),
        ("integer", json!(1e18), None),
        ("integer", json!("x"), None),
        ("integer", json!("2001.0"), Some(Value::Integer(2001))),
        ("integer", json!("2e3"), Some(Value::Integer(2000))),
        ("integer", json!("2001.5"), None),
        ("integer", json!("9007199254740993.0"), None),
        ("integer", json!("1e300"), None),
        ("integer", json!(true), None),
        ("float", json!(3), Some(Value::Float(3.0))),
        ("float", json!("1e3"), Some(Value::Float(1000.0))),
        ("float", json!("inf"), None),
        ("bool", json!("Yes"), Some(Value::Bool(true))),
        ("bool", json!(0), Some(Value::Bool(false))),
        ("bool", json!(2), None),
        ("bool", json!("maybe"), None),
        ("datetime", json!("1970-01-01"), Some(Value::Datetime(0))),
        ("datetime", json!("soon"), None),
        ("datetime", json!(5), None),
        ("integer", json!(["1", "2"]), Some(Value::List(vec![Value::Integer(1), Value::Integer(2)]))),
        ("integer", json!(["1", "x"]), None),
    ] {
        let read = read(&typed(&[("f", kind)]), json!({"text": "t", "f": given}));
        match expected {
            Some(value) => assert_eq!(read.unwrap().payload["f"], value),
            None => {
                let error = read.unwrap_err();
                assert!(
                    error.contains("field \"f\"") && error.contains(&format!("read as {kind}")),
                    "{error}"
                );
            }
        }
    }
    assert!("int".parse::<ValueType>().unwrap_err().contains("string, integer, float, bool, datetime"));
}

#[test]
fn names_in_another_case_are_taken_where_there_is_no_exact_one() {
    let map = FieldMap::default();
    let document = read(&map, json!({"ID": "a", "Title": "T", "Text": "t", "Body": "b"})).unwrap();
    assert_eq!((&*document.id, &*document.title, &*document.text), ("a", "T", "t"));
    assert_eq!(document.payload, [("Body".to_owned(), s("b"))].into());
    let document = read(&map, json!({"ID": "a", "id": "b", "BODY": "t"})).unwrap();
    assert_eq!((&*document.id, &*document.text), ("b", "t"));
    let error = read(&map, json!({"ID": "a", "Story": "t"})).unwrap_err();
    for part in ["\"ID\", \"Story\"", "--text-field", "--title-field", "--id-field"] {
        assert!(error.contains(part), "{error}");
    }
    let chosen = FieldMap { text: Some("abstract".into()), ..Default::default() };
    let error = read(&chosen, json!({"id": "a", "Story": "t"})).unwrap_err();
    assert!(error.contains("--text-field") && error.contains("\"Story\""), "{error}");
}

#[test]
fn a_column_is_read_by_its_type_and_the_told_type_goes_first() {
    let map = typed(&[("zip", "string"), ("day", "datetime"), ("year", "integer")]);
    let record =
        json!({"id": "1.50", "text": "5", "zip": "10115", "day": "1970-01-01", "n": "3", "year": "2001.0"});
    let record = record.as_object().unwrap();
    let columns = [("n", ValueType::Float), ("zip", ValueType::Integer)];
    let columns = columns.map(|(name, kind)| (name.to_owned(), kind)).into();
    let roles = map.roles(record.keys().map(String::as_str)).unwrap();
    let document = map.document(record.clone(), &roles, Typing::Columns(&columns), "f:2".into()).unwrap();
    assert_eq!((document.id.as_str(), document.text.as_str()), ("1.50", "5"));
    let expected = [
        ("day", Value::Datetime(0)),
        ("n", Value::Float(3.0)),
        ("year", Value::Integer(2001)),
        ("zip", s("10115")),
    ];
    assert_eq!(document.payload, expected.map(|(k, v)| (k.to_owned(), v)).into());
}
