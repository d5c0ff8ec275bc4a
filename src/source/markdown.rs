//! Markdown gives a title and the text as it is written. Only this file uses `pulldown_cmark`.
//!
//! What is kept is the source itself, with its headings, lists, line breaks and code: an encoder and a reader get along
//! with `#` and `*`. Only what says nothing is cut out of it, where CommonMark says that it is that: comments, the
//! addresses of links and images (their text stays), and lines that only define such addresses. Code is never touched.

use std::ops::Range;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The title and text of a Markdown file.
#[derive(Debug, PartialEq)]
pub(super) struct Markdown {
    /// The first heading, without its markup; may be empty.
    pub(super) title: String,
    pub(super) text: String,
}

/// Reads Markdown without its front matter.
pub(super) fn read(source: &str) -> Markdown {
    let mut cuts: Vec<Range<usize>> = Vec::new();
    let mut links: Vec<Link> = Vec::new();
    let mut title = String::new();
    let mut in_title = false;
    // Footnotes, since without them `[^1]: word` would be the address of a link, and tables, for what is code in them.
    let options = Options::ENABLE_FOOTNOTES | Options::ENABLE_TABLES;
    let mut events = Parser::new_ext(source, options).into_offset_iter();
    for (event, range) in events.by_ref() {
        let closes = matches!(event, Event::End(TagEnd::Link | TagEnd::Image));
        if let (Some(link), false) = (links.last_mut(), closes) {
            link.start.get_or_insert(range.start);
            link.end = link.end.max(range.end);
        }
        match event {
            Event::Start(Tag::Link { .. } | Tag::Image { .. }) => {
                links.push(Link { start: None, end: range.start });
            }
            Event::End(TagEnd::Link | TagEnd::Image) => {
                let Some(link) = links.pop() else { continue };
                match link.start {
                    Some(start) => cuts.extend([range.start..start, link.end..range.end]),
                    None => cuts.push(range),
                }
            }
            Event::Start(Tag::HtmlBlock) => cut_comments(source, range, &mut cuts),
            Event::InlineHtml(html) if html.starts_with("<!--") => cuts.push(range),
            Event::Start(Tag::Heading { .. }) => in_title = title.is_empty(),
            Event::End(TagEnd::Heading(_)) => {
                in_title = false;
                title = title.trim().to_owned();
            }
            Event::Text(text) | Event::Code(text) if in_title => title.push_str(&text),
            Event::SoftBreak | Event::HardBreak if in_title => title.push(' '),
            _ => {}
        }
    }
    cuts.extend(events.reference_definitions().iter().map(|(_, definition)| {
        let Range { start, end } = definition.span.clone();
        // With the end of its line.
        let line_end = usize::from(source[end..].starts_with('\n'));
        start..end + line_end
    }));
    Markdown { title, text: without(source, cuts) }
}

/// A link or image that is open: where its text begins and how far it goes.
struct Link {
    start: Option<usize>,
    end: usize,
}

/// Cuts the comments of an HTML block that are closed in it.
fn cut_comments(source: &str, block: Range<usize>, cuts: &mut Vec<Range<usize>>) {
    let mut from = block.start;
    while let Some(start) = source[from..block.end].find("<!--").map(|at| from + at) {
        let Some(end) = source[start..block.end].find("-->").map(|at| start + at + 3) else { return };
        cuts.push(start..end);
        from = end;
    }
}

/// The source without these parts, and without blanks at the ends of lines.
fn without(source: &str, mut cuts: Vec<Range<usize>>) -> String {
    cuts.sort_by_key(|cut| cut.start);
    let mut kept = String::with_capacity(source.len());
    let mut from = 0;
    for cut in cuts {
        if cut.start > from {
            kept.push_str(&source[from..cut.start]);
        }
        from = from.max(cut.end);
    }
    kept.push_str(&source[from..]);
    let mut text = String::with_capacity(kept.len());
    for line in kept.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    // Not blanks: the first line may be code by its indentation.
    text.trim_end().trim_start_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(source: &str) -> String {
        read(source).text
    }

    #[test]
    fn links_and_comments_go_and_code_stays() {
        let Markdown { title, text } = read(
            "See [the *docs*](http://x/(y)) and ![logo](a.png), [ref][1], [[2]](z), [not a link] ok.\n\
             [![badge](b.svg)](http://c) <http://auto>\n\n[1]: http://x.y\n\n<!-- gone\n# nor this -->\n```\n# code [a](b)\n```\n## Real *one* `x[0]`\n",
        );
        assert_eq!(title, "Real one x[0]");
        assert_eq!(
            text,
            "See the *docs* and logo, ref, [2], [not a link] ok.\nbadge http://auto\n\n\n\n```\n# code [a](b)\n```\n## Real *one* `x[0]`"
        );
    }

    #[test]
    fn what_looks_like_markup_and_is_none_is_kept_as_written() {
        for source in [
            "the cell `grid[0][1]` and grid[0][1], f[x](y) is `f[x](y)`".replace("f[x](y) is ", "").as_str(),
            "```html\n<!-- kept -->\n```\nand `<!-- this -->` too",
            "    <!-- indented code\n\nafter",
            "open <!-- never closed",
            "[ [ [ ](",
            "a < b && c > d, <div> stays",
            "- one\n- two\n  - three\n\n1. first\n2. second\n\n> quoted\nlazily\n\n| a | b |\n|---|---|\n| 1 | 2 |",
            "a[^1]\n\n[^1]: http://note.of/foot",
        ] {
            assert_eq!(text(source), source);
        }
        // To CommonMark the rest of the file is a comment, but a comment that never ends is hardly meant.
        assert_eq!(text("a\n\n<!-- never closed\n\nb"), "a\n\n<!-- never closed\n\nb");
        assert_eq!(text("a <!-- gone --> b\n<div><!-- gone --> c</div>"), "a  b\n<div> c</div>");
    }

    #[test]
    fn headings_of_every_kind_give_the_title() {
        for (source, title) in [
            ("# A b ###\n# Second", "A b"),
            ("text\n\nUnder *lined*\n======\n", "Under lined"),
            ("#no\n\n#\n\n####### seven\n\n## yes", "yes"),
            ("# [linked](x) title", "linked title"),
            ("```\n# code\n```", ""),
            ("", ""),
        ] {
            assert_eq!(read(source).title, title, "{source}");
        }
    }

    #[test]
    fn deep_nesting_does_no_harm() {
        for source in [
            "[".repeat(50_000),
            "> ".repeat(50_000),
            "*a ".repeat(20_000),
            "![](".repeat(20_000),
            "- ".repeat(20_000),
        ] {
            let _ = read(&source);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_added(source in "[a\\[\\]()!<>\\-`#*:\n é/]{0,80}") {
            let read = text(&source);
            prop_assert!(read.len() <= source.len());
        }
    }
}
