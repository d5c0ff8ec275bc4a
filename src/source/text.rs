//! A text, Markdown or HTML file becomes one document: its path is the id, and path, type and size are the payload.

use std::io::Read;

use super::{
    Format, Input, RECORD_BYTES_MAX, RECORD_MIB_MAX, Remarks, SourceDocument, SourceError,
    fields::{FieldMap, content_id},
    front_matter::{self, Broken, Unread},
    html,
    lines::not_utf8,
    markdown,
    open::{Unmarked, packing, said},
};
use crate::value::{Payload, Value};

/// A first line of at most so many characters is a title.
const TITLE_CHARS_MAX: usize = 80;

/// Reads the whole file, at most [`RECORD_BYTES_MAX`] bytes.
pub(super) fn document(
    input: &Input,
    format: Format,
    source: Unmarked,
    fields: &FieldMap,
    keep_menus: bool,
    remarks: &Remarks,
) -> Result<SourceDocument, SourceError> {
    let refuse = |reason: String| SourceError::new(&input.name, None, reason);
    let mut bytes = Vec::new();
    let limited = source.reader.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    limited.map_err(|e| refuse(said(&e)))?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(refuse(format!("larger than {RECORD_MIB_MAX} MiB; split it into several files")));
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(refuse(format!("binary, not text: byte {} is NUL", source.skipped + at as u64)));
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
    let mut titled = false;
    let (title, text) = match format {
        Format::Html => {
            let page = html::read(&content, keep_menus);
            if page.text.is_empty() && !keep_menus && !html::read(&content, true).text.is_empty() {
                return Err(refuse(
                    "empty but for its menus, header, footer and hidden parts (--keep-menus keeps them)"
                        .into(),
                ));
            }
            (page.title, page.text)
        }
        Format::Markdown => {
            let (front, body) = front_matter::split(&content)
                .map_err(|broken| SourceError::new(&input.name, broken.line, broken.reason))?;
            payload = front.payload;
            titled = !front.title.is_empty();
            let read = markdown::read(body);
            let title = if titled { front.title } else { read.title };
            match front.unread {
                None => (title, read.text),
                Some(Unread { block, fault: Broken { line, reason } }) => {
                    remarks.note(format!("{}:{line}: {reason}", input.name));
                    let title = if title.is_empty() { first_short_line(&read.text) } else { title };
                    (title, format!("{block}{}", read.text).trim_end().to_owned())
                }
            }
        }
        _ => (String::new(), content.trim().to_owned()),
    };
    if text.trim().is_empty() && !titled {
        let reason =
            if payload.is_empty() { "empty" } else { "empty: neither text nor a title in its front matter" };
        return Err(refuse(reason.into()));
    }
    let title = [title, first_short_line(&text), stem(&input.relative).to_owned()]
        .into_iter()
        .find(|title| !title.is_empty())
        .unwrap_or_default();
    let id = if input.relative.is_empty() { content_id(content.as_bytes()) } else { input.relative.clone() };

    let kind = content_extension(&input.relative).unwrap_or_else(|| {
        match format {
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

/// [`extension`] of what is in a packed file.
pub(super) fn content_extension(relative: &str) -> Option<String> {
    extension(unpacked_name(relative))
}

/// A name without `.gz` or `.zst`.
pub(super) fn unpacked_name(relative: &str) -> &str {
    packing(relative).map_or(relative, |ending| &relative[..relative.len() - ending.len() - 1])
}

fn stem(relative: &str) -> &str {
    let relative = unpacked_name(relative);
    let name = relative.rsplit('/').next().unwrap_or(relative);
    name.rsplit_once('.').map(|(stem, _)| stem).filter(|stem| !stem.is_empty()).unwrap_or(name)
}

/// The first line with a word in it, or nothing if it is long.
fn first_short_line(text: &str) -> String {
    let line =
        text.lines().map(str::trim).find(|line| line.contains(char::is_alphanumeric)).unwrap_or_default();
    if line.chars().count() <= TITLE_CHARS_MAX { line.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_stem_and_extension() {
        assert_eq!(extension("a/b.c/D.HTML"), Some("html".into()));
        assert_eq!(extension("a.b/c"), None);
        assert_eq!(extension(".hidden"), None);
        assert_eq!((stem("a/b.tar.md"), stem("x"), stem(".md")), ("b.tar", "x", ".md"));
        assert_eq!(content_extension("a/b.JSONL.gz"), Some("jsonl".into()));
        assert_eq!((content_extension("a.gz"), stem("a/b.md.zst")), (None, "b"));
    }
}
