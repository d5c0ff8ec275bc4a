//! A text, Markdown or HTML file -> one document: its path as id, a title, and the path, type and size as payload.

use std::{borrow::Cow, io::Read};

use super::{
    Format, Input, RECORD_BYTES_MAX, SourceDocument, SourceError,
    fields::{FieldMap, content_id},
    html,
    lines::{Unmarked, not_utf8},
};
use crate::collection::point::{Payload, Value};

/// A first line of at most so many characters is a title.
const TITLE_CHARS_MAX: usize = 80;

/// Reads the whole file, at most [`RECORD_BYTES_MAX`] bytes.
pub(super) fn document(
    input: &Input,
    source: Unmarked,
    fields: &FieldMap,
) -> Result<SourceDocument, SourceError> {
    let refuse = |reason: String| SourceError::new(&input.name, None, reason);
    let mut bytes = Vec::new();
    let limited = source.reader.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    limited.map_err(|e| refuse(format!("cannot read it: {e}")))?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(refuse(format!("larger than {RECORD_BYTES_MAX} bytes; split it into several files")));
    }
    let size = bytes.len() as u64 + source.skipped;
    let content = match String::from_utf8(bytes) {
        Ok(content) => content,
        Err(e) => {
            let valid = e.utf8_error().valid_up_to();
            let line = 1 + e.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() as u64;
            return Err(SourceError::new(&input.name, line, not_utf8(source.skipped + valid as u64)));
        }
    };
    let content = if content.contains("\r\n") { content.replace("\r\n", "\n") } else { content };

    let mut payload = Payload::new();
    let (title, text) = match input.format {
        Format::Html => {
            let page = html::read(&content).map_err(refuse)?;
            (page.title, page.text)
        }
        Format::Markdown => markdown(&content, &mut payload),
        _ => (String::new(), content.trim().to_owned()),
    };
    if text.trim().is_empty() {
        return Err(refuse("empty".into()));
    }
    let title = [title, first_short_line(&text), stem(&input.relative).to_owned()]
        .into_iter()
        .find(|title| !title.is_empty())
        .unwrap_or_default();
    let id = if input.relative.is_empty() { content_id(content.as_bytes()) } else { input.relative.clone() };

    let kind = extension(&input.relative).unwrap_or_else(|| {
        match input.format {
            Format::Markdown => "md",
            Format::Html => "html",
            _ => "txt",
        }
        .to_owned()
    });
    let mut own =
        vec![("type", Value::String(kind)), ("bytes", Value::Integer(size.try_into().unwrap_or(i64::MAX)))];
    if !input.relative.is_empty() {
        own.push(("path", Value::String(input.relative.clone())));
    }
    for (field, value) in own {
        // What the front matter calls so is kept, under another name.
        if let Some(front) = payload.insert(field.to_owned(), value) {
            payload.insert(format!("front_matter.{field}"), front);
        }
    }
    fields.coerce(&mut payload).map_err(refuse)?;
    Ok(SourceDocument { id, title, text, payload, vector: None, place: format!("{}:1", input.name) })
}

/// Lower-case extension of a path with `/`.
pub(super) fn extension(relative: &str) -> Option<String> {
    let name = relative.rsplit('/').next().unwrap_or(relative);
    let (stem, extension) = name.rsplit_once('.')?;
    (!stem.is_empty() && !extension.is_empty()).then(|| extension.to_lowercase())
}

fn stem(relative: &str) -> &str {
    let name = relative.rsplit('/').next().unwrap_or(relative);
    name.rsplit_once('.').map(|(stem, _)| stem).filter(|stem| !stem.is_empty()).unwrap_or(name)
}

/// The first line with anything in it, or nothing if it is long.
fn first_short_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if line.chars().count() <= TITLE_CHARS_MAX { line.to_owned() } else { String::new() }
}

/// Title (may be empty) and text; front matter goes into the payload, but for `title`.
fn markdown(content: &str, payload: &mut Payload) -> (String, String) {
    let (front, body) = split_front_matter(content);
    let mut title = String::new();
    for (key, value) in front {
        match key {
            "title" => title = value.to_owned(),
            _ => _ = payload.insert(key.to_owned(), Value::String(value.to_owned())),
        }
    }
    let mut text = String::with_capacity(body.len());
    let mut fence: Option<&str> = None;
    let without_comments = strip_comments(body);
    for line in without_comments.lines() {
        let begin = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| begin.starts_with(mark));
        match (fence, mark) {
            (Some(open), Some(close)) if open == close => fence = None,
            (None, Some(open)) => fence = Some(open),
            _ => {}
        }
        let code = fence.is_some() || mark.is_some();
        if !code && is_link_definition(begin) {
            continue;
        }
        let line = if code { Cow::Borrowed(line) } else { without_links(line) };
        if !code
            && title.is_empty()
            && let Some(heading) = heading(&line)
        {
            title = heading.to_owned();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    (title, text.trim().to_owned())
}

/// The text of `# heading ##`.
fn heading(line: &str) -> Option<&str> {
    let marks = line.bytes().take_while(|byte| *byte == b'#').count();
    let rest = line.get(marks..).filter(|_| (1..=6).contains(&marks))?;
    let text = rest.strip_prefix([' ', '\t'])?.trim().trim_end_matches('#').trim_end();
    (!text.is_empty()).then_some(text)
}

/// `key: value` lines between two `---`, if the file begins with them; and what follows.
fn split_front_matter(content: &str) -> (Vec<(&str, &str)>, &str) {
    let Some(rest) = content.strip_prefix("---\n") else { return (Vec::new(), content) };
    let mut pairs = Vec::new();
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        at += line.len();
        let line = line.trim_end();
        if line == "---" || line == "..." {
            return (pairs, &rest[at..]);
        }
        // Lists and nested values are not read; their lines are indented or begin with a dash.
        if let Some((key, value)) = line.split_once(':')
            && !key.is_empty()
            && !key.starts_with(['-', '#', ' ', '\t'])
        {
            let value = value.trim();
            let quoted = ['"', '\''].into_iter().find_map(|q| value.strip_prefix(q)?.strip_suffix(q));
            let value = quoted.unwrap_or(value);
            if !value.is_empty() {
                pairs.push((key.trim(), value));
            }
        }
    }
    // A rule at the beginning, not front matter.
    (Vec::new(), content)
}

fn strip_comments(text: &str) -> Cow<'_, str> {
    if !text.contains("<!--") {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("<!--") {
        let Some(length) = rest[start..].find("-->") else { break };
        kept.push_str(&rest[..start]);
        rest = &rest[start + length + 3..];
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

/// `[name]: address`
fn is_link_definition(line: &str) -> bool {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
        .is_some_and(|(name, address)| !name.contains(['[', ']']) && !address.trim().contains(' '))
}

/// Links and images of one line become their text: `[text](address)`, `![text](address)`, `[text][name]`.
fn without_links(line: &str) -> Cow<'_, str> {
    if !line.contains("](") && !line.contains("][") {
        return Cow::Borrowed(line);
    }
    let mut kept = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, text, after)) = next_link(rest) {
        kept.push_str(before.strip_suffix('!').unwrap_or(before));
        // An image may stand inside a link.
        kept.push_str(&without_links(text));
        rest = after;
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

/// What stands before a link, its text, and what stands behind it.
fn next_link(line: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let open = from + line[from..].find('[')?;
        let link = closing(&line[open..], '[', ']').and_then(|close| {
            let rest = &line[open + close + 1..];
            let end = match rest.as_bytes().first()? {
                b'(' => closing(rest, '(', ')')?,
                b'[' => closing(rest, '[', ']')?,
                _ => return None,
            };
            Some((&line[..open], &line[open + 1..open + close], &rest[end + 1..]))
        });
        if link.is_some() {
            return link;
        }
        from = open + 1;
    }
}

/// Byte of the bracket that closes the one a text begins with. Looks a few thousand bytes far, no further.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices().take(4096) {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> (String, String, Payload) {
        let mut payload = Payload::new();
        let (title, text) = markdown(content, &mut payload);
        (title, text, payload)
    }

    #[test]
    fn front_matter_becomes_payload() {
        let (title, text, payload) = read(
            "---\nlang: en\nauthor: \"A: B\"\ntags:\n  - x: y\n- z: 1\n# note: no\nempty:\n---\n\n# Head #\n\nBody --- here\n",
        );
        assert_eq!(title, "Head");
        assert_eq!(text, "# Head #\n\nBody --- here");
        let expected = [("author", "A: B"), ("lang", "en")];
        assert_eq!(payload, expected.map(|(k, v)| (k.to_owned(), Value::String(v.into()))).into());
        assert_eq!(read("---\ntitle: 'Mine'\n---\n# Other\n").0, "Mine");
        assert_eq!(read("---\nno: end\n").1, "---\nno: end");
        assert_eq!(read("---\n---\n").1, "");
    }

    #[test]
    fn links_and_comments_go_and_code_stays() {
        let (title, text, _) = read(
            "See [the *docs*](http://x/(y)) and ![logo](a.png), [ref][1], [[2]](z), [not a link] ok.\n\
             [![badge](b.svg)](http://c)\n[1]: http://x.y\n<!-- gone\n# nor this -->\n```\n# code [a](b)\n```\n## Real\n",
        );
        assert_eq!(title, "Real");
        assert_eq!(
            text,
            "See the *docs* and logo, ref, [2], [not a link] ok.\nbadge\n\n```\n# code [a](b)\n```\n## Real"
        );
        assert_eq!(read("[ [ [ ](").1, "[ [ [ ](");
        assert_eq!(read("open <!-- never closed").1, "open <!-- never closed");
    }

    #[test]
    fn headings_need_a_space_and_text() {
        assert_eq!(heading("### A b ###"), Some("A b"));
        for line in ["#no", "#", "# ", "####### seven", "text", ""] {
            assert_eq!(heading(line), None, "{line}");
        }
    }

    #[test]
    fn names_have_stem_and_extension() {
        assert_eq!(extension("a/b.c/D.HTML"), Some("html".into()));
        assert_eq!(extension("a.b/c"), None);
        assert_eq!(extension(".hidden"), None);
        assert_eq!((stem("a/b.tar.md"), stem("x"), stem(".md")), ("b.tar", "x", ".md"));
    }
}
