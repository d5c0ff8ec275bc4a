//! The front matter of a Markdown file gives its title and payload. Only this file uses `saphyr_parser`.
//!
//! YAML between two lines `---` (the second may be `...`), or TOML between two lines `+++`, at the very beginning. YAML's
//! types are those of its core schema: `2020` is an integer, `true` a bool, what is quoted is text; besides, a date or
//! datetime is a datetime, and digits with zeros in front are text. Mappings are flattened with dots; a list of mappings
//! becomes a list for each of their keys; a list of mixed values becomes a list of texts, as they are written. A block of
//! text (`>` or `|`) loses the line end behind it. What cannot be kept (a list of lists, an integer beyond 64 bits) is an
//! error that names its field.
//!
//! A rule `---` with prose behind it is no front matter, and stays text. Where the first line that says something begins
//! with a key of one word, or the fence is `+++`, a block is meant: if it has no end or cannot be read, all of it stays in
//! the text, and that is reported. A value such as `Foo: bar`, which YAML allows in quotes only, is read as if it had
//! them.
//!
//! What the library can do to us: an alias stands for any number of nodes. The guard is that copies count like what is
//! written out, up to [`NODES_MAX`].

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::columns::Form;
use crate::value::{Payload, Value, datetime, type_name};

/// A longer block is text.
const BYTES_MAX: usize = 1 << 18;
/// Most values, lists and mappings of a block, copies by alias among them.
const NODES_MAX: usize = 10_000;
/// Deepest nesting.
const DEPTH_MAX: usize = 32;

/// The front matter of a text.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FrontMatter {
    /// Empty if it has none.
    pub(super) title: String,
    pub(super) payload: Payload,
    pub(super) unread: Option<Unread>,
}

/// Front matter that cannot be read: it is text.
#[derive(Debug, PartialEq)]
pub(super) struct Unread {
    /// The block as written, with its fences; empty where it has no end, since all is the text then.
    pub(super) block: String,
    pub(super) fault: Broken,
}

/// What is wrong with front matter, and in which line of the file.
#[derive(Debug, PartialEq)]
pub(super) struct Broken {
    pub(super) line: u64,
    pub(super) reason: String,
}

/// Cuts front matter off. Without any the whole content is the text.
///
/// # Errors
/// A value that can be read and not be kept.
pub(super) fn split(content: &str) -> Result<(FrontMatter, &str), Broken> {
    let none = (FrontMatter::default(), content);
    let Some((fence, rest)) = fence(content) else { return Ok(none) };
    let Some((block, body)) = block(fence, rest) else {
        if !is_meant(fence, rest) {
            return Ok(none);
        }
        let remedy = format!("write a line {fence} behind its last line");
        let fault = told(1, &format!("it has no end in its first {} KiB", BYTES_MAX >> 10), &remedy);
        return Ok((FrontMatter { unread: Some(Unread { block: String::new(), fault }), ..none.0 }, content));
    };
    if !(is_meant(fence, block) || block.trim().is_empty()) {
        return Ok(none);
    }
    let read = if fence == "+++" { toml(block) } else { yaml_or_quoted(block) };
    let node = match read {
        Ok(node) => node,
        Err(fault) => {
            let block = content[..content.len() - body.len()].to_owned();
            return Ok((FrontMatter { unread: Some(Unread { block, fault }), ..none.0 }, body));
        }
    };
    let Node::Map(pairs) = node else { return Ok(none) };
    let mut front = FrontMatter::default();
    for (key, node) in pairs {
        match node {
            Node::Scalar { text, value } if key == "title" => {
                front.title = if value.is_some() { text } else { String::new() };
            }
            node => keep(&mut front.payload, &key, node).map_err(|(field, reason)| Broken {
                line: line_of(block, &field),
                reason: format!("front matter, field {field:?}: {reason}"),
            })?,
        }
    }
    Ok((front, body))
}

/// The remark on a block that stays text.
fn told(line: u64, why: &str, remedy: &str) -> Broken {
    let reason = format!(
        "the front matter cannot be read: {why}; it is kept as text, and gives no title and no fields; {remedy}"
    );
    Broken { line, reason }
}

/// The fence in the first line, and what stands behind that line.
fn fence(content: &str) -> Option<(&'static str, &str)> {
    let (first, rest) = content.split_once('\n')?;
    let fence = ["---", "+++"].into_iter().find(|fence| first.trim_end() == *fence)?;
    Some((fence, rest))
}

/// The text within the fences, and the text behind them.
fn block<'a>(fence: &str, rest: &'a str) -> Option<(&'a str, &'a str)> {
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        let end = line.trim_end();
        if end == fence || (fence == "---" && end == "...") {
            return Some((&rest[..at], &rest[at + line.len()..]));
        }
        at += line.len();
        if at > BYTES_MAX {
            return None;
        }
    }
    None
}

/// Whether the text behind a fence is meant as front matter.
fn is_meant(fence: &str, behind: &str) -> bool {
    let says = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    fence == "+++" || behind.lines().find(says).is_some_and(is_key)
}

/// Whether a line begins with a key of one word.
fn is_key(line: &str) -> bool {
    let Some((key, behind)) = line.split_once(':') else { return false };
    let bare = key.trim_matches(['"', '\'']);
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    (behind.is_empty() || behind.starts_with([' ', '\t']))
        && bare.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && bare.chars().all(word)
}

fn looks_like_yaml(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with([' ', '\t', '#', '-', ']', '}']) || is_key(line)
}

/// The line of the file where a top-level key stands.
fn line_of(block: &str, field: &str) -> u64 {
    let key = field.split('.').next().unwrap_or(field);
    let at = block.lines().position(|line| line.trim_matches(['"', '\'']).starts_with(key));
    at.map_or(1, |at| at as u64 + 2)
}

/// A value, or several.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// The scalar as written, and its value; `None` is null.
    Scalar {
        text: String,
        value: Option<Result<Value, String>>,
    },
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The number of nodes, itself included.
    fn size(&self) -> usize {
        match self {
            Node::Scalar { .. } => 1,
            Node::List(elements) => 1 + elements.iter().map(Node::size).sum::<usize>(),
            Node::Map(pairs) => 1 + pairs.iter().map(|(_, node)| node.size()).sum::<usize>(),
        }
    }

    fn depth(&self) -> usize {
        match self {
            Node::Scalar { .. } => 0,
            Node::List(elements) => 1 + elements.iter().map(Node::depth).max().unwrap_or(0),
            Node::Map(pairs) => 1 + pairs.iter().map(|(_, node)| node.depth()).max().unwrap_or(0),
        }
    }
}

/// A list or mapping that is being read, with the number of its anchor (0 for none).
struct Open {
    node: Node,
    key: Option<String>,
    anchor: usize,
}

/// [`yaml`], and where that fails once more with quotes around the values that need them.
fn yaml_or_quoted(block: &str) -> Result<Node, Broken> {
    let fault = match yaml(block) {
        Ok(node) => return Ok(node),
        Err(fault) => fault,
    };
    let fault = match quoted(block).as_deref().map(yaml) {
        Some(Ok(node)) => return Ok(node),
        Some(Err(left)) => left,
        None => fault,
    };
    match block.lines().position(|line| !looks_like_yaml(line)) {
        Some(at) => {
            let line: String = block.lines().nth(at).unwrap_or_default().chars().take(60).collect();
            let remedy = "indent the line if it goes on with a value, or put # in front of it";
            Err(told(at as u64 + 2, &format!("{line:?} is no line KEY: VALUE"), remedy))
        }
        None => Err(fault),
    }
}

/// A block whose values of one line are in quotes where they hold a `: `; nothing if none does.
fn quoted(block: &str) -> Option<String> {
    let mut any = false;
    let mut text = String::with_capacity(block.len());
    for line in block.lines() {
        let value = line.split_once(':').filter(|_| is_key(line)).map(|(key, value)| (key, value.trim()));
        // What begins otherwise is no plain value.
        let plain = |value: &str| {
            !value.starts_with(['"', '\'', '[', '{', '|', '>', '&', '*', '!', '#', '%', '@', '`'])
        };
        match value.filter(|(_, value)| plain(value)) {
            Some((key, value)) if value.contains(": ") || value.ends_with(':') => {
                let (value, comment) = value.split_at(value.find(" #").unwrap_or(value.len()));
                text.push_str(&format!("{key}: '{}'{comment}", value.trim_end().replace('\'', "''")));
                any = true;
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    any.then_some(text)
}

fn yaml(block: &str) -> Result<Node, Broken> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: BTreeMap<usize, Node> = BTreeMap::new();
    let mut nodes = 0;
    let mut root = None;
    for event in Parser::new_from_str(block) {
        let (event, span) = event.map_err(|e| {
            let remedy = "put a value that holds a colon or another sign of YAML in quotes, such as title: \"Foo: bar\"";
            told(e.marker().line() as u64 + 1, &format!("it is not valid YAML ({})", e.info()), remedy)
        })?;
        let line = span.start.line() as u64 + 1;
        let broken = |reason: &str| told(line, reason, "write it more simply, and each key once");
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                (scalar(&text, style, is_text), anchor)
            }
            Event::SequenceStart(anchor, _) => {
                open.push(Open { node: Node::List(Vec::new()), key: None, anchor });
                nodes += 1;
                if open.len() > DEPTH_MAX {
                    return Err(broken("it is nested too deep"));
                }
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push(Open { node: Node::Map(Vec::new()), key: None, anchor });
                nodes += 1;
                if open.len() > DEPTH_MAX {
                    return Err(broken("it is nested too deep"));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(done) => {
                    // It was counted when it began, and its elements by themselves.
                    nodes -= done.node.size();
                    (done.node, done.anchor)
                }
                None => continue,
            },
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (node.clone(), 0),
                None => return Err(broken("an alias stands within what it names")),
            },
            _ => continue,
        };
        nodes += node.size();
        if nodes > NODES_MAX {
            return Err(broken(&format!("it has more than {NODES_MAX} values, copies by alias among them")));
        }
        if open.len() + node.depth() > DEPTH_MAX {
            return Err(broken("it is nested too deep"));
        }
        if anchor > 0 {
            // A copy is memory too.
            nodes += node.size();
            anchors.insert(anchor, node.clone());
        }
        match open.last_mut() {
            None => root = Some(node),
            Some(Open { node: Node::List(elements), .. }) => elements.push(node),
            Some(Open { node: Node::Map(pairs), key, .. }) => match key.take() {
                Some(key) if pairs.iter().any(|(other, _)| *other == key) => {
                    return Err(broken(&format!("the key {key:?} stands twice")));
                }
                Some(key) => pairs.push((key, node)),
                None => match node {
                    Node::Scalar { text, .. } => *key = Some(text),
                    _ => return Err(broken("a key is a list or a mapping")),
                },
            },
            Some(Open { node: Node::Scalar { .. }, .. }) => {}
        }
    }
    Ok(root.unwrap_or(Node::Map(Vec::new())))
}

fn scalar(text: &str, style: ScalarStyle, is_text: bool) -> Node {
    let value = match style {
        ScalarStyle::Plain if !is_text => match text {
            "" | "~" | "null" | "Null" | "NULL" => None,
            _ => Some(match Form::of(text) {
                Form::Bool(truth) => Ok(Value::Bool(truth)),
                Form::Integer(number) => Ok(Value::Integer(number)),
                Form::Float(number) => Ok(Value::Float(number)),
                Form::LongInteger => Err(format!(
                    "the integer {text} does not fit into 64 bits; in quotes it is text and keeps its digits"
                )),
                Form::Text => Ok(match datetime::parse(text) {
                    Some(micros) => Value::Datetime(micros),
                    None => Value::String(text.to_owned()),
                }),
            }),
        },
        ScalarStyle::Folded | ScalarStyle::Literal => Some(Ok(Value::String(text.trim_end().to_owned()))),
        _ => Some(Ok(Value::String(text.to_owned()))),
    };
    Node::Scalar { text: text.trim_end().to_owned(), value }
}

fn toml(block: &str) -> Result<Node, Broken> {
    let table: toml::Table = toml::from_str(block).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start.min(block.len()));
        let line = block.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 2;
        let remedy = "write KEY = VALUE, with quotes around text, or --- in place of +++ if it is YAML";
        told(line, &format!("it is no TOML ({})", e.message()), remedy)
    })?;
    Ok(of_toml(toml::Value::Table(table)))
}

/// The parser refuses deep nesting by itself.
fn of_toml(value: toml::Value) -> Node {
    let value = match value {
        toml::Value::Table(table) => {
            return Node::Map(table.into_iter().map(|(key, value)| (key, of_toml(value))).collect());
        }
        toml::Value::Array(elements) => return Node::List(elements.into_iter().map(of_toml).collect()),
        value => value,
    };
    let text = match &value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let value = match value {
        toml::Value::Integer(number) => Ok(Value::Integer(number)),
        toml::Value::Boolean(truth) => Ok(Value::Bool(truth)),
        toml::Value::Float(number) if number.is_finite() => Ok(Value::Float(number)),
        toml::Value::Float(number) => Err(format!("{number} is not a finite number")),
        toml::Value::Datetime(_) => Ok(match datetime::parse(&text) {
            Some(micros) => Value::Datetime(micros),
            None => Value::String(text.clone()),
        }),
        _ => Ok(Value::String(text.clone())),
    };
    Node::Scalar { text, value: Some(value) }
}

/// Puts a node into the payload.
///
/// # Errors
/// The field and why it cannot be kept.
fn keep(payload: &mut Payload, field: &str, node: Node) -> Result<(), (String, String)> {
    let refuse = |reason: &str| Err((field.to_owned(), reason.to_owned()));
    let value = match node {
        Node::Map(pairs) => {
            for (key, node) in pairs {
                keep(payload, &format!("{field}.{key}"), node)?;
            }
            return Ok(());
        }
        Node::Scalar { value: None, .. } => return Ok(()),
        Node::Scalar { value: Some(value), .. } => value.map_err(|reason| (field.to_owned(), reason))?,
        Node::List(elements) if elements.iter().any(|element| matches!(element, Node::List(_))) => {
            return refuse("it is a list of lists; a list holds single values");
        }
        Node::List(elements) if elements.iter().any(|element| matches!(element, Node::Map(_))) => {
            let mut lists: Vec<(String, Vec<Node>)> = Vec::new();
            for element in elements {
                let Node::Map(pairs) = element else {
                    return refuse("the list mixes single values and mappings");
                };
                for (key, node) in pairs {
                    match lists.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, nodes)) => nodes.push(node),
                        None => lists.push((key, vec![node])),
                    }
                }
            }
            for (key, nodes) in lists {
                keep(payload, &format!("{field}.{key}"), Node::List(nodes))?;
            }
            return Ok(());
        }
        Node::List(elements) => list(elements).map_err(|reason| (field.to_owned(), reason))?,
    };
    match payload.insert(field.to_owned(), value) {
        None => Ok(()),
        Some(_) => refuse("this name stands twice, once with a dot in it and once as a mapping"),
    }
}

/// Scalars of one type; mixed ones become texts as they are written, integers among floats floats.
fn list(elements: Vec<Node>) -> Result<Value, String> {
    let mut texts = Vec::new();
    let mut values = Vec::new();
    for element in elements {
        if let Node::Scalar { text, value: Some(value) } = element {
            texts.push(text);
            values.push(value?);
        }
    }
    let is_float = |value: &Value| matches!(value, Value::Float(_));
    let is_number = |value: &Value| matches!(value, Value::Integer(_) | Value::Float(_));
    if values.iter().any(is_float) && values.iter().all(is_number) {
        for value in &mut values {
            if let Value::Integer(number) = value {
                *value = Value::Float(*number as f64);
            }
        }
    }
    let mixed = values.iter().any(|value| type_name(value) != type_name(&values[0]));
    Ok(Value::List(if mixed { texts.into_iter().map(Value::String).collect() } else { values }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn s(text: &str) -> Value {
        Value::String(text.into())
    }

    fn texts(texts: &[&str]) -> Value {
        Value::List(texts.iter().map(|text| s(text)).collect())
    }

    fn payload(pairs: &[(&str, Value)]) -> Payload {
        pairs.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect()
    }

    #[test]
    fn yaml_is_read_with_its_types() {
        let content = "---\ntitle: 'Mine: all'\nlang: en # note\nauthor: \"A: B\"\ntags:\n  - x\n  - y z\nauthors: [Ann, Bob]\n\
            year: 2020\ndraft: true\nscore: 1.5e-3\nzip: 01067\nversion: \"2.0\"\nempty:\nnone: ~\nday: 2024-01-31\n\
            summary: >\n  Two lines\n  of text.\n\n  A paragraph.\nlines: |\n  one\n  two\nmixed: [2020, ml, 1.10]\n\
            numbers: [1, 2.5]\nplace:\n  town: Rome\n  at: {x: 1, y: 2}\npeople:\n- name: Ann\n  age: 5\n- name: Bob\n\
            text: !!str 5\nanchor: &a [p, q]\nalias: *a\n---\nBody\n";
        let (front, body) = split(content).unwrap();
        assert_eq!((front.title.as_str(), body), ("Mine: all", "Body\n"));
        let expected = [
            ("alias", texts(&["p", "q"])),
            ("anchor", texts(&["p", "q"])),
            ("author", s("A: B")),
            ("authors", texts(&["Ann", "Bob"])),
            ("day", Value::Datetime(1_706_659_200_000_000)),
            ("draft", Value::Bool(true)),
            ("lang", s("en")),
            ("lines", s("one\ntwo")),
            ("mixed", texts(&["2020", "ml", "1.10"])),
            ("numbers", Value::List(vec![Value::Float(1.0), Value::Float(2.5)])),
            ("people.age", Value::List(vec![Value::Integer(5)])),
            ("people.name", texts(&["Ann", "Bob"])),
            ("place.at.x", Value::Integer(1)),
            ("place.at.y", Value::Integer(2)),
            ("place.town", s("Rome")),
            ("score", Value::Float(0.0015)),
            ("summary", s("Two lines of text.\nA paragraph.")),
            ("tags", texts(&["x", "y z"])),
            ("text", s("5")),
            ("version", s("2.0")),
            ("year", Value::Integer(2020)),
            ("zip", s("01067")),
        ];
        assert_eq!(front.payload, payload(&expected));
    }

    #[test]
    fn toml_is_read_with_its_types() {
        let content = "+++\ntitle = \"T\"\nyear = 2020\ntags = [\"a\", \"b\"]\ndraft = false\nday = 1970-01-01\nat = 1970-01-01T00:00:01Z\n\
            [place]\ntown = \"Rome\"\n[[people]]\nname = \"Ann\"\n[[people]]\nname = \"Bob\"\n+++\nBody";
        let (front, body) = split(content).unwrap();
        assert_eq!((front.title.as_str(), body), ("T", "Body"));
        let expected = [
            ("at", Value::Datetime(1_000_000)),
            ("day", Value::Datetime(0)),
            ("draft", Value::Bool(false)),
            ("people.name", texts(&["Ann", "Bob"])),
            ("place.town", s("Rome")),
            ("tags", texts(&["a", "b"])),
            ("year", Value::Integer(2020)),
        ];
        assert_eq!(front.payload, payload(&expected));
    }

    #[test]
    fn a_rule_with_prose_behind_it_is_text() {
        for content in [
            "---\nSome prose after a rule.\n\n---\n\nMore.",
            "---\nWhat is meant by this: nothing.\n---\n",
            "---\n- a list\n- of things\n---\n",
            "---\nSee https://x.y: it says so.\n",
            "--- \u{a0}\n",
            "---",
            "",
        ] {
            assert_eq!(split(content).unwrap(), (FrontMatter::default(), content), "{content}");
        }
        assert_eq!(split("---\n---\nx").unwrap(), (FrontMatter::default(), "x"));
        assert_eq!(split("---\na: 1\n...\nx").unwrap().1, "x");
        assert_eq!(
            split("---\n\n# note\nkey: value\n---\nx").unwrap().0.payload,
            payload(&[("key", s("value"))])
        );
    }

    #[test]
    fn a_block_that_cannot_be_read_is_kept_as_text_and_told_with_line_and_remedy() {
        for (content, line, parts) in [
            (
                "---\ntitle: D\nstray line\nlang: en\n---\n",
                3,
                ["\"stray line\" is no line KEY: VALUE", "indent"],
            ),
            ("---\ntitle: A: B\nstray\n---\n", 3, ["\"stray\"", "put # in front"]),
            ("---\nNote: this is prose,\nand it goes on.\n---\n", 3, ["kept as text", "indent"]),
            ("---\na: 1\nb: [1, 2\n---\n", 4, ["not valid YAML", "in quotes"]),
            ("---\na: 1\na: 2\n---\n", 3, ["\"a\" stands twice", "each key once"]),
            ("+++\na = 1\nb =\n+++\n", 3, ["no TOML", "KEY = VALUE"]),
            ("+++\ntitle: T\n+++\n", 2, ["no TOML", "--- in place of +++"]),
        ] {
            let whole = format!("{content}Body");
            let (front, body) = split(&whole).unwrap();
            let unread = front.unread.unwrap_or_else(|| panic!("{content} was read"));
            assert_eq!((unread.block.as_str(), body), (content, "Body"));
            assert_eq!((front.title.as_str(), front.payload.len()), ("", 0), "{content}");
            for part in parts {
                assert!(unread.fault.reason.contains(part), "{content}: {unread:?}");
            }
            assert_eq!(unread.fault.line, line, "{content}: {unread:?}");
        }
        for content in ["---\nno: end\n", "+++\ntitle = \"T\"\ntext\n"] {
            let (front, body) = split(content).unwrap();
            let unread = front.unread.unwrap();
            assert_eq!((unread.block.as_str(), unread.fault.line, body), ("", 1, content));
            assert!(unread.fault.reason.contains("it has no end"), "{unread:?}");
        }
    }

    #[test]
    fn a_value_that_needs_quotes_is_read_without_them() {
        let content = "---\ntitle: Foo: bar's # note\nlang: en\nsubtitle: what follows:\n---\nBody";
        let (front, body) = split(content).unwrap();
        assert_eq!((front.title.as_str(), body, &front.unread), ("Foo: bar's", "Body", &None));
        assert_eq!(front.payload, payload(&[("lang", s("en")), ("subtitle", s("what follows:"))]));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_line_and_name() {
        for (content, line, part) in [
            ("---\na: 1\nb: [1, [2]]\n---\n", 3, "\"b\": it is a list of lists"),
            ("---\na: 1\nn: 18446744073709551615\n---\n", 3, "\"n\": the integer 18446744073709551615"),
            ("---\na: [1, {b: 2}]\n---\n", 2, "mixes single values and mappings"),
            ("+++\na = nan\n+++\n", 2, "\"a\": NaN is not a finite number"),
        ] {
            let broken = split(content).unwrap_err();
            assert!(broken.reason.contains(part), "{content}: {broken:?}");
            assert_eq!(broken.line, line, "{content}: {broken:?}");
        }
    }

    #[test]
    fn aliases_and_depth_are_bounded() {
        let mut bomb = "---\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let copies = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{copies}]\n"));
        }
        bomb.push_str("---\n");
        assert!(split(&bomb).unwrap().0.unread.unwrap().fault.reason.contains("10000 values"));
        let deep = format!("---\na: {}{}\n---\n", "[".repeat(5000), "]".repeat(5000));
        assert!(split(&deep).unwrap().0.unread.is_some());
        let keys: String = (0..4000).map(|i| format!("k{i}: 1\n")).collect();
        assert_eq!(split(&format!("---\n{keys}---\n")).unwrap().0.payload.len(), 4000);
    }

    proptest! {
        #[test]
        fn nothing_panics(block in "[a:\\-\\[\\]{}\"'&*!|>#,? \n\t1é=]{0,80}", toml in any::<bool>()) {
            let fence = if toml { "+++" } else { "---" };
            let content = format!("{fence}\nk: {block}\n{fence}\ntext");
            let _ = split(&content);
        }
    }
}
