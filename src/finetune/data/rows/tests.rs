use super::*;

fn read_as(name: &str, text: &str, source: Source) -> Result<Rows, DataError> {
    // What is given is not packed, whatever the name says.
    let unpacked = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    let rows = eval::Rows::of(Path::new(unpacked), std::io::Cursor::new(text.to_owned()))?;
    read(Path::new(name), rows, &source)
}

fn rows(name: &str, text: &str) -> Vec<Example> {
    read_as(name, text, Source::new(name)).unwrap().examples
}

fn fault(name: &str, text: &str) -> String {
    read_as(name, text, Source::new(name)).unwrap_err().to_string()
}

fn stated(kind: SourceKind) -> Source {
    Source { kind, ..Source::new("x") }
}

#[test]
fn a_text_file_is_one_text_a_line_and_blank_lines_are_counted() {
    let read = read_as("a.txt.gz", "\u{feff}One.\r\n\n \t\n  Two.  \n", Source::new("a")).unwrap();
    assert_eq!(read.examples, [Example::text("One."), Example::text("Two.")]);
    assert_eq!((read.kind, read.rows, read.blank), (Kind::Texts, 2, 2));
    assert_eq!(read.lines, [1, 4]);
}

#[test]
fn json_rows_of_every_form() {
    let cases = [
        (r#"{"anchor":"a","positive":"p","negative":"n"}"#, Example::triplet("a", "p", "n")),
        (r#"{"query":" a ","pos":"p","neg":"n","id":7}"#, Example::triplet("a", "p", "n")),
        (r#"{"query":"a","pos":["p"],"neg":[]}"#, Example::pair("a", "p")),
        (r#"{"anchor":"a","positive":"p","negative":null}"#, Example::pair("a", "p")),
        (r#"{"text":"a"}"#, Example::text("a")),
        (r#"{"set":["a","p"]}"#, Example::pair("a", "p")),
        (r#"["a"]"#, Example::text("a")),
        (r#"["a","p"]"#, Example::pair("a", "p")),
        (r#"["a","p","n"]"#, Example::triplet("a", "p", "n")),
    ];
    for (line, expected) in cases {
        assert_eq!(rows("x.jsonl", line), [expected], "{line}");
    }
}

#[test]
fn each_positive_is_an_example_and_negatives_are_dealt_out() {
    let made = rows("x.jsonl", r#"{"query":"q","pos":["a","b","c"],"neg":["x","y"]}"#);
    let expected = [("a", "x"), ("b", "y"), ("c", "x")].map(|(p, n)| Example::triplet("q", p, n));
    assert_eq!(made, expected);
}

#[test]
fn a_bad_json_row_is_named_with_what_is_wrong() {
    let cases = [
        ("{\"text\":\"a\"}\n\n{", "x.jsonl, line 3: not JSON"),
        ("[]", "line 1: an array: expected one to three texts, got none"),
        (r#"["a","b","c","d"]"#, "got 4"),
        (r#"["a",1]"#, "expected a text, got a number"),
        (r#"{"set":["a"]}"#, "set: expected two texts, got 1"),
        (r#"{"set":"a"}"#, "set: expected two texts, got a text"),
        (r#"{"positive":"a"}"#, "no text found; an object has one of anchor"),
        (r#"{"anchor":"a","negative":"n"}"#, "a negative without a positive"),
        (r#"{"query":"a","text":"b"}"#, "query and text would be the same side"),
        (r#"{"anchor":{"a":1}}"#, "anchor: expected a text, got an object"),
        (r#"{"sentence1":"a","sentence2":"b","score":2.5}"#, "score says how alike"),
        ("7", "expected an object or an array of texts, got a number"),
    ];
    for (text, expected) in cases {
        let fault = fault("x.jsonl", text);
        assert!(fault.contains(expected), "{text} gave {fault}");
    }
}

#[test]
fn kinds_are_not_mixed_and_the_line_is_named() {
    let text = "[\"a\",\"b\"]\n[\"c\",\"d\"]\n[\"a\",\"b\",\"c\"]\n";
    let error = read_as("x.jsonl", text, Source::new("x")).unwrap_err();
    assert!(matches!(error, DataError::Mixed { line: 3, expected: Kind::Pairs, got: Kind::Triplets, .. }));
    let said = error.to_string();
    assert!(
        said.contains("x.jsonl, line 3: a triplet in a file of pairs") && said.contains("\"pairs\""),
        "{said}"
    );
    let said = fault("x.jsonl", "{\"text\":\"a\"}\n[\"a\",\"b\"]");
    assert!(said.contains("state `kind = \"text\"`"), "{said}");

    // What the error advises works.
    let pairs = read_as("x.jsonl", text, stated(SourceKind::Pairs)).unwrap();
    assert_eq!((pairs.kind, pairs.examples.len()), (Kind::Pairs, 3));
    let texts = read_as("x.jsonl", text, stated(SourceKind::Text)).unwrap();
    assert_eq!((texts.kind, texts.examples.len(), texts.rows), (Kind::Texts, 7, 3));
    assert_eq!(texts.lines, [1, 1, 2, 2, 3, 3, 3]);
}

#[test]
fn a_stated_kind_is_held_to() {
    for (kind, text) in [(SourceKind::Triplets, "a\tb\n"), (SourceKind::Pairs, "a\n")] {
        let said = read_as("x.tsv", text, stated(kind)).unwrap_err().to_string();
        assert!(said.contains("x.tsv, line 1") && said.contains("`kind` says"), "{said}");
    }
}

#[test]
fn a_header_is_known_by_its_names_or_stated() {
    let nli = rows("x.tsv", "anchor\tentailment\tcontradiction\nA b.\tC d.\tE f.\n");
    assert_eq!(nli, [Example::triplet("A b.", "C d.", "E f.")]);
    assert_eq!(rows("x.tsv", "Rewrite\tSentence\na\tb\n"), [Example::pair("b", "a")]);
    assert_eq!(rows("x.tsv", "id\ttext\n7\ta\n"), [Example::text("a")]);
    // Not a header: a word is not a known name.
    assert_eq!(rows("x.tsv", "query\tanother\na\tb\n").len(), 2);

    let own = Source { header: Some(true), ..Source::new("x") };
    assert_eq!(read_as("x.tsv", "links\trechts\na\tb\n", own).unwrap().examples, [Example::pair("a", "b")]);
    let none = Source { header: Some(false), ..Source::new("x") };
    assert_eq!(read_as("x.tsv", "query\tanswer\na\tb\n", none).unwrap().examples.len(), 2);

    let columns = vec![Column::Skip, Column::Positive, Column::Anchor];
    let own = Source { columns, ..Source::new("x") };
    assert_eq!(read_as("x.tsv", "0.9\tp\ta\n", own).unwrap().examples, [Example::pair("a", "p")]);
}

#[test]
fn a_bad_table_row_is_named_with_what_is_wrong() {
    let cases = [
        ("a\tb\tc\nd\te\n", "x.tsv, line 2: 2 columns separated by tabs, where 3 were expected"),
        ("a\tb\tc\td\n", "line 1: 4 columns, and no header"),
        ("sentence1\tsentence2\tscore\na\tb\t3\n", "line 1: score says how alike"),
        ("anchor\tquery\na\tb\n", "line 1: its columns are not one anchor"),
        ("anchor\tnegative\na\tb\n", "line 1: its columns are not one anchor"),
    ];
    for (text, expected) in cases {
        let fault = fault("x.tsv", text);
        assert!(fault.contains(expected), "{text} gave {fault}");
    }
    let columns = vec![Column::Anchor, Column::Skip];
    let own = Source { columns, ..Source::new("x") };
    let fault = read_as("x.tsv", "a\tb\tc\n", own).unwrap_err().to_string();
    assert!(fault.contains("3 columns separated by tabs, where 2 were stated"), "{fault}");
}

#[test]
fn an_empty_cell_is_left_for_the_guards_to_count() {
    assert_eq!(rows("x.tsv", "a\t\nb\tc\n")[0], Example::pair("a", ""));
    assert!(rows("x.tsv", "").is_empty());
}

#[test]
fn a_name_that_tells_nothing_is_refused() {
    for name in ["x.csv", "x", "x.gz"] {
        let said = fault(name, "a");
        assert!(said.contains(name) && said.contains(".jsonl"), "{said}");
    }
}

#[test]
fn documents_are_known_by_their_title_or_by_a_text_that_rows_do_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let [path, table] = ["x.jsonl", "x.tsv"].map(|name| dir.path().join(name));
    let source = Source::new("x");
    for (text, expected) in [
        ("{\"_id\":\"1\",\"title\":\"T\",\"text\":\"b\"}\n\n{\"text\":\"c\"}\n", true),
        ("{\"doi\":\"10.1\",\"abstract\":\"b\"}", true),
        ("{\"Title\":\"T\",\"Body\":\"b\"}", true),
        ("{\"text\":\"b\"}", false),
        ("{\"query\":\"a\",\"positive\":\"b\",\"content\":\"c\"}", false),
        ("[\"a\",\"b\"]", false),
        ("", false),
    ] {
        std::fs::write(&path, text).unwrap();
        std::fs::write(&table, text).unwrap();
        assert_eq!(are_documents(&path, &source).unwrap(), expected, "{text}");
        assert!(!are_documents(&path, &stated(SourceKind::Text)).unwrap());
        assert!(!are_documents(&table, &source).unwrap());
    }
}
