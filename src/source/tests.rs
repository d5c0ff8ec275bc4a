use std::{fs, io::Cursor, path::Path};

use tempfile::TempDir;

use super::*;
use crate::value::Value;

type Read1 = Result<SourceDocument, SourceError>;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn open(paths: &[&Path], options: SourceOptions) -> Sources {
    Sources::open(&paths.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>(), options).unwrap()
}

/// All that one file gives.
fn read(name: &str, content: &[u8]) -> Vec<Read1> {
    let folder = folder(&[(name, content)]);
    open(&[&folder.path().join(name)], SourceOptions::default()).collect()
}

fn ids(documents: &[Read1]) -> Vec<&str> {
    documents.iter().map(|document| document.as_ref().unwrap().id.as_str()).collect()
}

fn error(read: &Read1) -> (Option<u64>, &str) {
    let error = read.as_ref().unwrap_err();
    (error.line, &error.reason)
}

fn s(text: &str) -> Value {
    Value::String(text.into())
}

#[test]
fn folder_is_read_in_order_and_unknown_files_are_counted() {
    let folder = folder(&[
        ("b.txt", b"Second file\n\nwith text."),
        ("a/z.md", b"---\ntype: post\nlang: en\n---\n# Heading\n\nA [link](http://x)."),
        ("a/deep/page.HTML", b"<title>Page</title><p>Hello &amp; good day"),
        ("c.jsonl", b"{\"id\": \"j\", \"text\": \"t\"}\n"),
        ("d.csv", b"id,text\nrow,t\n"),
        (".hidden/x.txt", b"no"),
        (".x.txt", b"no"),
        ("pic.png", b"\0"),
        ("pic2.PNG", b"\0"),
        ("Makefile", b"all:"),
        ("e.json", b"[{\"id\": \"k\", \"text\": \"t\"}]"),
    ]);
    let sources = open(&[folder.path()], SourceOptions::default());
    let skipped: std::collections::BTreeMap<String, u64> =
        [("", 1), ("png", 2)].map(|(k, v)| (k.to_owned(), v)).into();
    assert_eq!((&sources.left_out().kinds, sources.left_out().hidden), (&skipped, 2));
    let progress = sources.progress();
    assert_eq!(progress.bytes_read.load(Ordering::Relaxed), 0);
    let documents: Vec<_> = sources.collect();
    assert_eq!(ids(&documents), ["a/deep/page.HTML", "a/z.md", "b.txt", "j", "row", "k"]);
    assert!(progress.bytes_total > 0);
    assert_eq!(progress.bytes_read.load(Ordering::Relaxed), progress.bytes_total);

    let [page, markdown, plain, line, row, _] = documents.map_all();
    assert_eq!((page.title.as_str(), page.text.as_str()), ("Page", "Hello & good day"));
    assert_eq!(page.payload["type"], s("html"));
    assert_eq!((markdown.title.as_str(), markdown.text.as_str()), ("Heading", "# Heading\n\nA link."));
    assert_eq!(markdown.payload["front_matter.type"], s("post"));
    assert_eq!((&markdown.payload["type"], &markdown.payload["lang"]), (&s("md"), &s("en")));
    assert_eq!(plain.title, "Second file");
    let expected = [("bytes", Value::Integer(23)), ("path", s("b.txt")), ("type", s("txt"))];
    assert_eq!(plain.payload, expected.map(|(k, v)| (k.to_owned(), v)).into());
    assert_eq!(plain.place, format!("{}:1", folder.path().join("b.txt").display()));
    assert!(line.place.ends_with("c.jsonl:1"));
    assert!(row.place.ends_with("d.csv:2"));
}

trait MapAll {
    fn map_all<const N: usize>(self) -> [SourceDocument; N];
}

impl MapAll for Vec<Read1> {
    fn map_all<const N: usize>(self) -> [SourceDocument; N] {
        self.into_iter().map(Result::unwrap).collect::<Vec<_>>().try_into().unwrap()
    }
}

#[test]
fn title_of_a_text_is_its_first_line_if_short_else_the_name() {
    let long = format!("{}\nrest", "x".repeat(81));
    assert_eq!(read("stem.name.txt", long.as_bytes())[0].as_ref().unwrap().title, "stem.name");
    let documents = read("n.txt", b"\xef\xbb\xbf\r\n Title \r\nrest\r\n");
    let document = documents[0].as_ref().unwrap();
    assert_eq!((document.title.as_str(), document.text.as_str()), ("Title", "Title \nrest"));
    assert_eq!(document.payload["bytes"], Value::Integer(20));
}

#[test]
fn bad_text_files_are_named_and_reading_goes_on() {
    let folder = folder(&[
        ("a.txt", b"ok\nb\xe4d"),
        ("b.md", b" \n"),
        ("c.html", b"<p> </p>"),
        ("d.txt", b""),
        ("e.txt", b"\xff\xfeh\0\0"),
        ("f.txt", b"good"),
        ("g.txt", b"a\0b"),
    ]);
    let read: Vec<_> = open(&[folder.path()], SourceOptions::default()).collect();
    assert_eq!(error(&read[0]).0, Some(2));
    assert!(error(&read[0]).1.starts_with("byte 4: not UTF-8"), "{read:?}");
    assert!(read[0].as_ref().unwrap_err().to_string().contains("a.txt:2: byte 4"));
    for empty in &read[1..4] {
        assert_eq!(error(empty), (None, "empty"));
    }
    assert!(error(&read[4]).1.contains("UTF-16"));
    assert_eq!(ids(&read[5..6]), ["f.txt"]);
    assert!(read[6].as_ref().unwrap_err().to_string().contains("g.txt: binary"), "{read:?}");
}

#[test]
fn json_lines_go_on_behind_broken_ones() {
    let read = read(
        "f.jsonl",
        b"\xef\xbb\xbf{\"_id\": \"1\", \"title\": \"T\", \"text\": \"a\"}\r\n\n{\"_id\": \"2\", \n[1]\n5\n{\"_id\":\"3\"}\n\xff\n{\"text\": \"b\"}",
    );
    assert_eq!(read.len(), 7);
    let first = read[0].as_ref().unwrap();
    assert_eq!((first.id.as_str(), first.title.as_str(), first.text.as_str()), ("1", "T", "a"));
    assert!(first.place.ends_with("f.jsonl:1") && first.payload.is_empty());
    for (read, line, part) in [
        (&read[1], 3, "broken JSON, column 13: EOF"),
        (&read[2], 4, "a list where an object"),
        (&read[3], 5, "a single value where an object"),
        (&read[4], 6, "no text"),
        (&read[5], 7, "not UTF-8"),
    ] {
        assert_eq!(error(read).0, Some(line));
        assert!(error(read).1.contains(part), "{read:?}");
    }
    assert!(read[6].as_ref().unwrap().id.starts_with("sha-"));
    assert_eq!(error(&self::read("e.jsonl", b"")[0]), (None, "empty"));
}

#[test]
fn json_files_hold_lists_objects_or_lines() {
    let list = b" [\n {\"id\": 1, \"text\": \"a\"},\n\n {\"id\": 2,\n \"text\": \"b\"}, 5]\n";
    let documents = read("f.json", list);
    assert_eq!(ids(&documents[..2]), ["1", "2"]);
    assert!(documents[1].as_ref().unwrap().place.ends_with(":4"));
    assert_eq!(
        error(&documents[2]),
        (Some(5), "a single value where an object such as {\"id\": …, \"text\": …} is wanted")
    );
    assert_eq!(
        ids(&read("f.json", b"{\n\"id\": 1,\n\"text\": \"a\"}\n\n{\"id\": 2, \"text\": \"b\"}")),
        ["1", "2"]
    );
    let lines = read("f.json", b"{\"id\": 1, \"text\": \"a\"}\n{\n{\"id\": 2, \"text\": \"b\"}\n");
    assert_eq!((ids(&lines[..1]), error(&lines[1]).0, ids(&lines[2..])), (vec!["1"], Some(2), vec!["2"]));
    for (content, line, part) in [
        (&b"[{\"id\": 1, \"text\": \"a\"}, {]"[..], Some(1), "the rest of the file is left out"),
        (b"[{\"id\": 1, \"text\": \"a\"}\n", Some(2), "the list has no end"),
        (b"[{\"id\": 1, \"text\": \"a\"}]\n x", Some(2), "behind the end"),
    ] {
        let documents = read("f.json", content);
        assert_eq!(ids(&documents[..1]), ["1"]);
        assert_eq!(documents.len(), 2);
        assert_eq!(error(&documents[1]).0, line);
        assert!(error(&documents[1]).1.contains(part), "{documents:?}");
    }
    assert_eq!(error(&read("f.json", b" \n")[0]), (None, "empty"));
    assert_eq!(error(&read("f.json", b"[\n\xff]")[0]).0, Some(2));
    assert!(read("f.json", b"[]").is_empty());
}

#[test]
fn tables_keep_line_numbers_over_quotes_blanks_and_carriage_returns() {
    let rows = b"id,text,n,when\n1,\"two\nlines, \"\"quoted\"\"\",007,\n\n\n2,b,5\n3,c,1.5,2024\n4,d,x,true";
    for content in
        [rows.to_vec(), String::from_utf8(rows.to_vec()).unwrap().replace('\n', "\r\n").into_bytes()]
    {
        let read = read("t.csv", &content);
        assert_eq!(read.len(), 4, "{read:?}");
        let first = read[0].as_ref().unwrap();
        assert_eq!(first.text.replace('\r', ""), "two\nlines, \"quoted\"");
        assert_eq!(first.payload, [("n".to_owned(), s("007"))].into());
        assert!(first.place.ends_with("t.csv:2"));
        assert_eq!(error(&read[1]), (Some(6), "the row has 3 cells, the header has 4"));
        let third = read[2].as_ref().unwrap();
        assert!(third.place.ends_with("t.csv:7"), "{}", third.place);
        // `007` and `true` make their columns text.
        assert_eq!((&third.payload["n"], &third.payload["when"]), (&s("1.5"), &s("2024")));
        let last = read[3].as_ref().unwrap();
        assert!(last.place.ends_with("t.csv:8"), "{}", last.place);
        assert_eq!(last.payload["when"], s("true"));
    }
    let read = read("t.tsv", b"\xef\xbb\xbfdoc_id\t\tbody\na\tx\t\"b, c\"\n");
    let document = read[0].as_ref().unwrap();
    assert_eq!((document.id.as_str(), document.text.as_str()), ("a", "\"b, c\""));
    assert_eq!(document.payload, [("column_2".to_owned(), s("x"))].into());
}

#[test]
fn bad_tables_say_where() {
    let read_csv = |content: &[u8]| read("t.csv", content);
    assert_eq!(error(&read_csv(b"")[0]), (None, "empty"));
    assert!(read_csv(b"id,text\n").is_empty());
    assert!(error(&read_csv(b"id,id\n1,2\n")[0]).1.contains("\"id\" twice"));
    assert!(error(&read_csv(b"id,t\xff\n1,2\n")[0]).1.starts_with("byte 4: not UTF-8"));
    assert_eq!(read_csv(b"id,id\n1,2\n").len(), 1);
    let documents = read_csv(b"\xef\xbb\xbfid,text\n1,a\xff\n2,b\n3,\n");
    assert_eq!(error(&documents[0]).0, Some(2));
    assert!(error(&documents[0]).1.starts_with("byte 14: not UTF-8"), "{documents:?}");
    assert_eq!(ids(&documents[1..2]), ["2"]);
    assert_eq!(error(&documents[2]).1, "document \"3\": empty: neither text nor title");

    let content = format!("id,text\n1,a\n2,\"{}", "x\n".repeat(1 << 12));
    let rows: Vec<_> = table(&content, 1 << 10).collect();
    assert_eq!(ids(&rows[..1]), ["1"]);
    assert_eq!(error(&rows[1]).0, Some(3));
    assert!(error(&rows[1]).1.contains("not closed within 1024 bytes"), "{:?}", rows[1]);
    // What stands behind the quote is read as rows.
    assert_eq!(error(&rows[2]), (Some(4), "the row has 1 cells, the header has 2"));
}

fn table(content: &str, bytes_max: usize) -> Documents {
    let begin = || {
        let bytes = Cursor::new(content.to_owned().into_bytes());
        open::text(Box::new(bytes), None, true).unwrap_or_else(|e| panic!("{e:?}"))
    };
    let (fields, understood) = (Arc::default(), Arc::default());
    let table = table::Table {
        file: "t.csv".into(),
        kind: table::Kind::Csv,
        fields,
        understood,
        bytes_max,
        alone: true,
    };
    table.twice(begin(), begin())
}

#[test]
fn many_rows_are_read_within_the_bound() {
    let content =
        "id,text\n".to_owned() + &(0..50_000).map(|i| format!("{i},text {i}\n")).collect::<String>();
    let rows = table(&content, 64);
    let last =
        rows.map(Result::unwrap).enumerate().inspect(|(i, row)| assert_eq!(row.id, i.to_string())).last();
    assert_eq!(last.unwrap().1.place, "t.csv:50001");
}

/// The values of one field, in the order of the documents.
fn values(documents: &[Read1], field: &str) -> Vec<Option<Value>> {
    documents.iter().map(|document| document.as_ref().unwrap().payload.get(field).cloned()).collect()
}

#[test]
fn a_column_of_a_table_has_one_type_over_the_whole_file() {
    let csv = b"text,p,zip,n,ok,day,none\na,0.05,10115,1,true,2024-01-31,\nb,1e-05,01067,+4,False,2024-02-01,\nc,1.5e-05,80331,-3,TRUE,,\n";
    let tsv = String::from_utf8(csv.to_vec()).unwrap().replace(',', "\t").into_bytes();
    let stdin = |format, content: &[u8]| -> Vec<Read1> {
        let options = SourceOptions { format: Some(format), ..Default::default() };
        let content = Cursor::new(content.to_vec());
        Sources::open_with_stdin(&["-".into()], options, Box::new(content)).unwrap().collect()
    };
    for read in [read("t.csv", csv), read("t.tsv", &tsv), stdin(Format::Csv, csv), stdin(Format::Tsv, &tsv)] {
        assert_eq!(values(&read, "p"), [0.05, 1e-5, 1.5e-5].map(|p| Some(Value::Float(p))));
        assert_eq!(values(&read, "zip"), ["10115", "01067", "80331"].map(|zip| Some(s(zip))));
        assert_eq!(values(&read, "n"), [1, 4, -3].map(|n| Some(Value::Integer(n))));
        assert_eq!(values(&read, "ok"), [true, false, true].map(|ok| Some(Value::Bool(ok))));
        assert_eq!(values(&read, "day"), [Some(s("2024-01-31")), Some(s("2024-02-01")), None]);
        assert_eq!(values(&read, "none"), [None, None, None]);
    }
}

#[test]
fn a_told_type_goes_before_what_a_column_looks_like() {
    let folder = folder(&[("t.csv", b"text,zip,year\na,10115,2001.0\nb,80331,\n")]);
    let types = [("zip".to_owned(), ValueType::String), ("year".to_owned(), ValueType::Integer)].into();
    let options = SourceOptions { fields: FieldMap { types, ..Default::default() }, ..Default::default() };
    let read: Vec<_> = open(&[folder.path()], options).collect();
    assert_eq!(values(&read, "zip"), [Some(s("10115")), Some(s("80331"))]);
    assert_eq!(values(&read, "year"), [Some(Value::Integer(2001)), None]);
}

#[test]
fn integers_beyond_64_bits_are_refused_by_line_and_field_in_json_and_csv() {
    let lines = b"{\"id\": 123456789012345678901, \"text\": \"a\"}\n{\"id\": 123456789012345678902, \"text\": \"b\"}\n\
                  {\"id\": \"c\", \"text\": \"c\", \"n\": 18446744073709551615}\n{\"id\": \"d\", \"text\": \"d\", \"n\": 5}\n";
    let list = [b"[", lines.trim_ascii_end(), b"]"].concat();
    let list = String::from_utf8(list).unwrap().replace('\n', ",\n").into_bytes();
    for (name, content) in [("f.jsonl", &lines[..]), ("f.json", &list)] {
        let read = read(name, content);
        assert_eq!(ids(&read[..2]), ["123456789012345678901", "123456789012345678902"]);
        assert_eq!(error(&read[2]).0, Some(3));
        assert!(error(&read[2]).1.starts_with("document \"c\": field \"n\": the integer"), "{read:?}");
        assert_eq!(ids(&read[3..]), ["d"]);
    }
    let csv =
        b"id,text,n\n123456789012345678901,a,\n123456789012345678902,b,\nc,c,18446744073709551615\nd,d,5\n";
    let table = read("t.csv", csv);
    assert_eq!(ids(&table[..2]), ["123456789012345678901", "123456789012345678902"]);
    assert_eq!(error(&table[2]).0, Some(4));
    assert!(error(&table[2]).1.starts_with("document \"c\": field \"n\": the integer"), "{table:?}");
    assert_eq!(table[3].as_ref().unwrap().payload["n"], Value::Integer(5));

    // Told to be text, they are kept in both.
    let types: std::collections::BTreeMap<_, _> = [("n".to_owned(), ValueType::String)].into();
    for (name, content) in [("f.jsonl", &lines[..]), ("t.csv", csv)] {
        let folder = folder(&[(name, content)]);
        let fields = FieldMap { types: types.clone(), ..Default::default() };
        let options = SourceOptions { fields, ..Default::default() };
        let read: Vec<_> = open(&[folder.path()], options).collect();
        assert_eq!(values(&read[2..], "n"), [Some(s("18446744073709551615")), Some(s("5"))]);
    }
}

#[test]
fn a_broken_line_of_many_is_told_by_place_and_id() {
    let line = |i: usize| match i {
        150 => "{\"id\": \"d150\", \"text\": \"half \\ud800\"}\n".to_owned(),
        200 => "{\"text\": \"t\", \"id\": 200, \"v\": NaN}\n".to_owned(),
        _ => format!("{{\"id\": \"d{i}\", \"text\": \"t\"}}\n"),
    };
    let content: String = (1..=300).map(line).collect();
    let lines = read("f.jsonl", content.as_bytes());
    assert_eq!((lines.len(), lines.iter().filter(|read| read.is_ok()).count()), (300, 298));
    assert_eq!(error(&lines[149]).0, Some(150));
    assert!(error(&lines[149]).1.starts_with("document \"d150\": broken JSON, column"), "{:?}", lines[149]);
    assert_eq!(error(&lines[199]).0, Some(200));
    assert!(error(&lines[199]).1.starts_with("document \"200\": broken JSON"), "{:?}", lines[199]);
    assert!(error(&lines[199]).1.contains("NaN"), "{:?}", lines[199]);
    // In a list too, half of a pair spoils its own record alone.
    let list = b"[{\"id\": \"a\", \"text\": \"\\udc00\"},\n{\"id\": \"b\", \"text\": \"t\"}]";
    let list = read("f.json", list);
    assert_eq!((error(&list[0]).0, ids(&list[1..])), (Some(1), vec!["b"]));
}

#[test]
fn the_columns_of_a_file_are_told_as_they_were_understood() {
    let folder = folder(&[
        ("a.csv", b"ID;Body;zip;n\n1;a, b;01067;5\n2;c;80331;6\n"),
        ("b.csv", b"ID;Body;zip;n\n3;a, b;01067;5\n4;d;1;2\n"),
        ("c.csv", b"a;b\n1;2\n"),
        ("d.jsonl", b"{\"_id\": 1, \"Title\": \"T\", \"text\": \"t\", \"n\": 5}\n"),
    ]);
    let sources = open(&[folder.path()], SourceOptions::default());
    let understood = sources.understood();
    assert!(understood.take().is_empty());
    let read: Vec<_> = sources.collect();
    assert_eq!(ids(&read[..4]), ["1", "2", "3", "4"]);
    let told: Vec<String> = understood.take().iter().map(ToString::to_string).collect();
    let [table, json] = told.as_slice() else { panic!("{told:?}") };
    assert!(
        table.ends_with("a.csv (cells separated by ';'): id from \"ID\", text from \"Body\"; fields zip (string), n (integer)"),
        "{table}"
    );
    assert!(
        json.ends_with("d.jsonl: id from \"_id\", title from \"Title\", text from \"text\"; fields n"),
        "{json}"
    );
    // One error for the whole file.
    assert_eq!((read.len(), error(&read[4]).0), (6, Some(1)));
    for part in ["no text", "\"a\", \"b\"", "--text-field", "--title-field", "--id-field"] {
        assert!(error(&read[4]).1.contains(part), "{read:?}");
    }
}

#[test]
fn packed_files_are_read_wherever_they_lie_and_what_is_named_is_read_or_refused() {
    use std::io::Write;

    let gzip = |content: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(content).unwrap();
        packed.finish().unwrap()
    };
    let json = b"{\"id\": \"j\", \"text\": \"t\"}\n{\"id\": \"k\", \"text\": \"t\"}\n";
    let zst = zstd::stream::encode_all(&b"id,text,n\nr,t,1\n"[..], 1).unwrap();
    let utf16: Vec<u8> = "\u{feff}Grüße\n\nund mehr".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let folder = folder(&[
        ("a.jsonl.gz", &gzip(json)),
        ("b.csv.zst", &zst),
        ("c.md.gz", &gzip(b"# Head\n\ntext")),
        ("d.txt", &utf16),
        ("lines", json),
        ("page", b" <!DOCTYPE html><title>P</title><p>x"),
        ("plain.log", b"words"),
        ("program", b"\x7fELF\0\0"),
        ("table.json.gz", b"not packed"),
    ]);
    let sources = open(&[folder.path()], SourceOptions::default());
    assert_eq!(sources.left_out().kinds.values().sum::<u64>(), 4);
    let progress = sources.progress();
    let read: Vec<_> = sources.collect();
    assert_eq!(ids(&read[..5]), ["j", "k", "r", "c.md.gz", "d.txt"]);
    assert_eq!(read[2].as_ref().unwrap().payload["n"], Value::Integer(1));
    let markdown = read[3].as_ref().unwrap();
    assert_eq!((markdown.title.as_str(), &markdown.payload["type"]), ("Head", &s("md")));
    assert_eq!(read[4].as_ref().unwrap().text, "Grüße\n\nund mehr");
    assert!(error(&read[5]).1.contains("cannot be unpacked"), "{read:?}");
    assert_eq!(progress.bytes_read.load(Ordering::Relaxed), progress.bytes_total);

    let named =
        |name: &str| -> Vec<Read1> { open(&[&folder.path().join(name)], SourceOptions::default()).collect() };
    assert_eq!(ids(&named("lines")), ["j", "k"]);
    let page = named("page");
    assert_eq!(page[0].as_ref().unwrap().title, "P");
    assert_eq!(named("plain.log")[0].as_ref().unwrap().text, "words");
    assert!(error(&named("program")[0]).1.contains("a program"));
}

#[test]
fn no_bytes_of_any_kind_panic_or_hang_a_reader() {
    use proptest::prelude::*;

    let names = ["a.txt", "a.md", "a.html", "a.jsonl", "a.json", "a.csv", "a.tsv", "a"];
    let mut runner = proptest::test_runner::TestRunner::default();
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[\\[\\]{}\",:;<>/a#`*|\\-\n\t é😀0-9.e]{0,120}".prop_map(String::into_bytes),
        // Truncated in the middle of a character.
        "[é😀\"<`{\n]{1,20}".prop_map(|text| text.as_bytes()[..text.len() - 1].to_vec()),
    ];
    runner
        .run(&(bytes, 0..names.len()), |(bytes, name)| {
            let read = read(names[name], &bytes);
            prop_assert!(read.len() <= bytes.len() + 1);
            Ok(())
        })
        .unwrap();
}

#[test]
fn long_lines_and_wide_tables_are_read() {
    let long = "x".repeat(10 << 20);
    for (name, content) in [
        ("a.jsonl", format!("{{\"id\": \"a\", \"text\": \"{long}\"}}\n")),
        ("a.csv", format!("id,text\na,\"{long}\"\n")),
        ("a.tsv", format!("id\ttext\na\t{long}\n")),
        ("a.md", long.clone()),
        ("a.txt", long.clone()),
        ("a.html", format!("<p>{long}")),
    ] {
        let read = read(name, content.as_bytes());
        assert_eq!((read.len(), read[0].as_ref().unwrap().text.len()), (1, long.len()), "{name}");
    }
    let names: Vec<String> = (0..1000).map(|i| format!("c{i}")).collect();
    let cells: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    let wide = read("w.csv", format!("text,{}\nt,{}\n", names.join(","), cells.join(",")).as_bytes());
    assert_eq!(wide[0].as_ref().unwrap().payload["c999"], Value::Integer(999));
}

#[test]
fn standard_input_needs_a_format_and_comes_once() {
    let dash = [PathBuf::from("-")];
    let with = |format| SourceOptions { format, ..Default::default() };
    let read = |format, content: &'static [u8]| -> Vec<Read1> {
        Sources::open_with_stdin(&dash, with(Some(format)), Box::new(content)).unwrap().collect()
    };
    let documents = read(Format::JsonLines, b"{\"id\": \"a\", \"text\": \"t\"}\nx");
    assert_eq!(documents[0].as_ref().unwrap().place, "standard input:1");
    assert_eq!(documents[1].as_ref().unwrap_err().file, "standard input");
    assert_eq!(ids(&read(Format::Csv, b"id,text\na,b")), ["a"]);
    let documents = read(Format::Text, b"Title\ntext");
    let document = documents[0].as_ref().unwrap();
    assert!(document.id.starts_with("sha-") && !document.payload.contains_key("path"));
    assert_eq!((document.title.as_str(), &document.payload["type"]), ("Title", &s("txt")));

    assert!(Sources::open(&dash, with(None)).unwrap_err().reason.contains("needs --format"));
    let twice = [dash[0].clone(), dash[0].clone()];
    assert!(Sources::open(&twice, with(Some(Format::Csv))).unwrap_err().reason.contains("twice"));
    assert_eq!("tsv".parse(), Ok(Format::Tsv));
    assert!("pdf".parse::<Format>().unwrap_err().contains("jsonl"));
}

#[test]
fn format_overrides_the_extension_of_a_file_but_not_of_a_folder() {
    let folder = folder(&[("data.log", b"{\"id\": \"a\", \"text\": \"t\"}\n"), ("b.txt", b"text")]);
    let options = SourceOptions { format: Some(Format::JsonLines), ..Default::default() };
    let documents: Vec<_> = open(&[&folder.path().join("data.log"), folder.path()], options).collect();
    assert_eq!(ids(&documents), ["a", "b.txt"]);
    let sources = open(&[folder.path()], SourceOptions::default());
    assert_eq!(sources.left_out().kinds.get("log"), Some(&1));
}

#[test]
fn a_packed_file_does_not_count_as_read_before_its_documents() {
    let line = |n: u64| {
        let word = |m: u64| format!("{:016x} ", (8 * n + m).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        format!("{{\"id\": \"{n}\", \"text\": \"{}\"}}\n", (0..8).map(word).collect::<String>())
    };
    let text: String = (0..4000).map(line).collect();
    let packed = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
    assert!(packed.len() > 256 << 10, "small beside what the library reads ahead: {}", packed.len());
    let folder = folder(&[("a.jsonl.zst", &packed)]);
    let mut sources = open(&[folder.path()], SourceOptions::default());
    let progress = sources.progress();
    let mut unpacked = 0;
    for document in sources.by_ref() {
        unpacked += line(document.unwrap().id.parse().unwrap()).len() as u64;
        let read = progress.bytes_read.load(Ordering::Relaxed) as f64 / progress.bytes_total as f64;
        // What is ahead: a reader's buffer of unpacked text, and a little of what is packed.
        let ahead = (128 << 10) as f64 / text.len() as f64 + 0.05;
        assert!(read <= unpacked as f64 / text.len() as f64 + ahead, "{read} of {unpacked}");
    }
}

#[test]
fn what_is_larger_than_a_record_may_be_is_told_in_mib() {
    assert_eq!(RECORD_BYTES_MAX, 64 << 20);
    let read = read("big.txt", &vec![b'a'; RECORD_BYTES_MAX + 1]);
    assert!(error(&read[0]).1.starts_with("larger than 64 MiB;"), "{read:?}");
}

#[test]
fn missing_path_is_refused_at_once_and_lost_file_in_its_turn() {
    let folder = folder(&[("a.txt", b"a"), ("b.txt", b"b")]);
    let missing = folder.path().join("none");
    let error = Sources::open(std::slice::from_ref(&missing), SourceOptions::default()).unwrap_err();
    assert!(error.file == missing.display().to_string() && error.reason.contains("cannot open"));
    let sources = open(&[folder.path()], SourceOptions::default());
    fs::remove_file(folder.path().join("a.txt")).unwrap();
    let read: Vec<_> = sources.collect();
    assert!(self::error(&read[0]).1.contains("cannot open"));
    assert_eq!(ids(&read[1..]), ["b.txt"]);
}

#[test]
fn files_that_would_share_an_id_are_reported() {
    let folder = folder(&[("x/a.txt", b"1"), ("y/a.txt", b"2"), ("x/l.jsonl", b""), ("y/l.jsonl", b"")]);
    let read: Vec<_> =
        open(&[&folder.path().join("x"), &folder.path().join("y")], SourceOptions::default()).collect();
    assert_eq!(ids(&read[..1]), ["a.txt"]);
    assert!(error(&read[2]).1.contains("same id (\"a.txt\")"), "{read:?}");
    assert_eq!(read.len(), 4);
}

#[test]
fn beir_folder_gives_its_corpus_only() {
    let folder = folder(&[
        ("corpus.jsonl", b"{\"_id\": \"d\", \"title\": \"\", \"text\": \"t\", \"metadata\": {}}\n"),
        ("queries.jsonl", b"{\"_id\": \"q\", \"text\": \"t\"}\n"),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq\td\t1\n"),
    ]);
    assert_eq!(ids(&open(&[folder.path()], SourceOptions::default()).collect::<Vec<_>>()), ["d"]);
    fs::remove_file(folder.path().join("queries.jsonl")).unwrap();
    assert_eq!(open(&[folder.path()], SourceOptions::default()).count(), 2);
}

#[cfg(unix)]
#[test]
fn links_that_lead_back_are_left_out_and_broken_ones_reported() {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt, fs::symlink},
    };

    let folder = folder(&[("a/f.txt", b"text")]);
    symlink(folder.path(), folder.path().join("a/back")).unwrap();
    symlink(folder.path().join("gone.txt"), folder.path().join("b.txt")).unwrap();
    fs::write(folder.path().join(OsStr::from_bytes(b"c\xff.txt")), "x").unwrap();
    let read: Vec<_> = open(&[folder.path()], SourceOptions::default()).collect();
    assert_eq!(ids(&read[..1]), ["a/f.txt"]);
    assert!(error(&read[1]).1.contains("cannot open"));
    assert_eq!(error(&read[2]).1, "its name is not UTF-8");
    assert_eq!(read.len(), 3);
}

#[test]
fn menus_of_a_page_are_left_out_unless_they_are_to_be_kept() {
    let folder = folder(&[
        (
            "a.html",
            b"<nav><a>Home</a><a>About</a></nav><article>News today</article><article>Prices</article>",
        ),
        ("b.html", b"<nav>Only a menu</nav>"),
    ]);
    let read: Vec<_> = open(&[folder.path()], SourceOptions::default()).collect();
    assert_eq!(read[0].as_ref().unwrap().text, "News today\n\nPrices");
    assert!(error(&read[1]).1.contains("--keep-menus"), "{read:?}");
    let kept: Vec<_> =
        open(&[folder.path()], SourceOptions { keep_menus: true, ..Default::default() }).collect();
    assert_eq!(kept[0].as_ref().unwrap().text, "Home About\n\nNews today\n\nPrices");
    assert_eq!(kept[1].as_ref().unwrap().text, "Only a menu");
}

#[test]
fn broken_front_matter_is_told_with_its_line() {
    let folder = folder(&[
        ("a.md", b"---\nlang: en\ntitle: Foo: bar\n---\ntext"),
        ("b.md", b"---\ntitle: D anchor\nstray line\nlang: en\n---\n# Head\n\nBody"),
        ("c.md", b"---\ntitle: Only a title\n---\n"),
        ("d.md", b"---\nlang: en\n---\n"),
        ("e.md", b"---\ntitle: no end\n\nBody"),
    ]);
    let sources = open(&[folder.path()], SourceOptions::default());
    let remarks = sources.remarks();
    let read: Vec<_> = sources.collect();
    let title_and_text = |i: usize| {
        let document = read[i].as_ref().unwrap();
        (document.title.as_str(), document.text.as_str())
    };
    assert_eq!(title_and_text(0), ("Foo: bar", "text"));
    assert_eq!(
        title_and_text(1),
        ("Head", "---\ntitle: D anchor\nstray line\nlang: en\n---\n# Head\n\nBody")
    );
    assert_eq!(title_and_text(2), ("Only a title", ""));
    assert!(error(&read[3]).1.contains("neither text nor a title"), "{read:?}");
    assert!(title_and_text(4).1.contains("title: no end\n\nBody"), "{read:?}");
    let (told, more) = remarks.take();
    assert_eq!((told.len(), more), (2, 0), "{told:?}");
    assert!(told[0].contains("b.md:3: the front matter") && told[0].contains("indent"), "{told:?}");
    assert!(told[1].contains("e.md:1: the front matter") && told[1].contains("a line ---"), "{told:?}");
}

#[test]
fn a_type_for_what_is_no_field_is_refused() {
    let folder = folder(&[
        ("a.csv", b"id,text,year,abstract\n1,one,2000,x\n"),
        ("n/a.md", b"---\nid: 0017\n---\ntext"),
        ("j/a.jsonl", b"{\"id\": 1, \"text\": \"t\", \"year\": 5}\n"),
    ]);
    let with = |name: &str, field: &str, text: Option<&str>| {
        let types = [(field.to_owned(), ValueType::Integer)].into();
        let fields = FieldMap { types, text: text.map(str::to_owned), ..Default::default() };
        Sources::open(&[folder.path().join(name)], SourceOptions { fields, ..Default::default() })
    };
    for field in ["id", "text"] {
        let refused = with("a.csv", field, None).unwrap_err().to_string();
        assert!(refused.contains("always text") && refused.starts_with("--type"), "{refused}");
    }
    for (field, text, part) in [
        ("yaer", None, "did you mean year?; there are \"year\", \"abstract\""),
        ("abstract", Some("abstract"), "it is the document's text"),
    ] {
        let refused = match with("a.csv", field, text) {
            Ok(mut sources) => sources.next().unwrap().unwrap_err(),
            Err(refused) => refused,
        };
        assert!(refused.reason.contains(part), "{refused:?}");
        assert_eq!(refused.wrong_use, text.is_none(), "{refused:?}");
    }
    let document = with("a.csv", "year", None).unwrap().next().unwrap().unwrap();
    assert_eq!(document.payload["year"], Value::Integer(2000));
    // Front matter may have a field of this name.
    let document = with("n", "id", None).unwrap().next().unwrap().unwrap();
    assert_eq!(document.payload["id"], Value::Integer(17));
    let mut sources = with("j", "yaer", None).unwrap();
    let remarks = sources.remarks();
    assert!(sources.next().unwrap().is_ok());
    assert!(remarks.unmet()[0].contains("did you mean year?"));
}

#[test]
fn types_apply_to_front_matter_too() {
    let folder =
        folder(&[("a.md", b"---\nday: 1970-01-01\n---\ntext"), ("b.md", b"---\nday: soon\n---\ntext")]);
    let types = [("day".to_owned(), ValueType::Datetime)].into();
    let options = SourceOptions { fields: FieldMap { types, ..Default::default() }, ..Default::default() };
    let read: Vec<_> = open(&[folder.path()], options).collect();
    assert_eq!(read[0].as_ref().unwrap().payload["day"], Value::Datetime(0));
    assert!(error(&read[1]).1.contains("cannot be read as datetime"));
}
