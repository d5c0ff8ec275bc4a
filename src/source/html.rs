//! HTML pages give readable text and a title. Only this file uses `html5ever`.
//!
//! The tokens are read in one pass, without a tree: nesting of any depth is a short stack of the elements that matter.
//! Blocks stand in lines of their own, paragraphs with a blank line between, cells and the links of a menu with blanks;
//! what stands in `<pre>` keeps its lines. Left out are scripts, styles and drawings, and by default what a page repeats
//! or does not show: `<nav>`, the page's own `<header>` (but for its headings) and `<footer>`, and what is hidden.

use std::{cell::RefCell, collections::HashMap};

use html5ever::{
    LocalName,
    tendril::StrTendril,
    tokenizer::{
        BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
        states::RawKind,
    },
};

/// Elements that are kept in mind at once; what is nested deeper is text all the same.
const OPEN_MAX: usize = 1 << 16;
/// Open elements that are looked through for one that a start tag closes.
const LOOK_BACK: usize = 64;

/// The title and text of a page.
pub(super) struct Page {
    /// The text of `<title>`, else of the first `<h1>`; one line, may be empty.
    pub(super) title: String,
    pub(super) text: String,
}

/// Reads a page; `keep_menus` keeps menus, headers, footers and hidden parts.
pub(super) fn read(html: &str, keep_menus: bool) -> Page {
    let state = State { keep_menus, ..State::default() };
    let tokenizer = Tokenizer::new(Reader { state: RefCell::new(state) }, TokenizerOpts::default());
    let input = BufferQueue::default();
    // A tendril holds at most 4 GiB; files are bounded far below.
    input.push_back(StrTendril::from(html));
    // It stops for scripts that a sink wants to run, which this one does not.
    let _ = tokenizer.feed(&input);
    tokenizer.end();
    let mut state = tokenizer.sink.state.into_inner();
    while !state.open.is_empty() {
        state.close_last();
    }
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let title =
        [one_line(&state.title), one_line(&state.heading)].into_iter().find(|title| !title.is_empty());
    Page { title: title.unwrap_or_default(), text: trimmed(&state.text).to_owned() }
}

/// Removes blank lines around the text; blanks that begin the first line of `<pre>` stay.
fn trimmed(text: &str) -> &str {
    text.trim_end().trim_start_matches(['\n', '\r'])
}

struct Reader {
    state: RefCell<State>,
}

impl TokenSink for Reader {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut state = self.state.borrow_mut();
        match token {
            Token::CharacterTokens(text) => state.characters(&text),
            Token::TagToken(tag) => match tag.kind {
                TagKind::StartTag => return state.start(&tag),
                TagKind::EndTag => state.end(&tag.name),
            },
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

/// The separator between the text so far and the text to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Gap {
    #[default]
    None,
    Blank,
    Cell,
    Line,
    Paragraph,
}

/// How the text within an element is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    LeftOut,
    /// The page's header, of which only the headings are kept.
    Header,
}

struct Open {
    name: LocalName,
    fate: Fate,
}

#[derive(Default)]
struct State {
    keep_menus: bool,
    text: String,
    gap: Gap,
    open: Vec<Open>,
    /// The number of open elements of each name.
    counts: HashMap<LocalName, usize>,
    left_out: usize,
    headers: usize,
    in_title: bool,
    title: String,
    /// The text of the first `<h1>`, and where it begins in the text.
    heading: String,
    heading_start: Option<usize>,
    /// A link or button ended, and no text came since.
    behind_link: bool,
    /// `<pre>` began, and no text came since.
    behind_pre: bool,
}

impl State {
    fn is_open(&self, name: &str) -> bool {
        self.counts.get(&LocalName::from(name)).is_some_and(|count| *count > 0)
    }

    fn is_shown(&self) -> bool {
        let in_heading = || ["h1", "h2", "h3", "h4", "h5", "h6"].into_iter().any(|name| self.is_open(name));
        self.left_out == 0 && (self.headers == 0 || in_heading())
    }

    fn separate(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    fn characters(&mut self, text: &str) {
        if self.in_title {
            self.title.push_str(text);
            return;
        }
        if !self.is_shown() {
            return;
        }
        let pre = self.is_open("pre") || self.is_open("textarea");
        // The line end behind `<pre>` is no part of it.
        let first = std::mem::take(&mut self.behind_pre) && text.starts_with('\n');
        for c in text.chars().skip(usize::from(first)) {
            if c.is_whitespace() && !pre {
                self.separate(Gap::Blank);
            } else {
                self.flush();
                self.text.push(c);
                self.behind_link = false;
            }
        }
    }

    fn flush(&mut self) {
        let gap = std::mem::take(&mut self.gap);
        if self.text.is_empty() {
            return;
        }
        let ends_line = self.text.ends_with('\n');
        self.text.push_str(match gap {
            Gap::None => "",
            Gap::Blank | Gap::Cell | Gap::Line if ends_line => "",
            Gap::Blank => " ",
            Gap::Cell => "  ",
            Gap::Line => "\n",
            Gap::Paragraph if ends_line => "\n",
            Gap::Paragraph => "\n\n",
        });
    }

    fn start(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name = &*tag.name;
        for (closed, within) in closed_by(name) {
            self.close_within(closed, within);
        }
        let is_link = matches!(name, "a" | "button" | "label" | "option");
        if is_link && self.behind_link {
            self.separate(Gap::Blank);
        }
        self.separate(gap(name));
        if name == "img"
            && self.is_shown()
            && let Some(alt) = attribute(tag, "alt")
        {
            let alt = format!(" {alt} ");
            self.characters(&alt);
        }
        // Of drawings the title is no title of the page.
        if name == "title" && self.left_out == 0 && self.title.trim().is_empty() {
            self.in_title = true;
        }
        self.behind_pre = matches!(name, "pre" | "textarea" | "listing");
        let within = self.left_out > 0;
        let fate = self.fate(tag);
        let is_void = matches!(
            name,
            "area"
                | "base"
                | "br"
                | "col"
                | "embed"
                | "hr"
                | "img"
                | "input"
                | "link"
                | "meta"
                | "param"
                | "source"
                | "track"
                | "wbr"
        );
        // Within a drawing a slash closes, as in XML.
        let closes_itself = tag.self_closing && within;
        let matters =
            fate != Fate::Kept || within || gap(name) > Gap::None || matches!(name, "html" | "body" | "head");
        if matters && !is_void && !closes_itself && self.open.len() < OPEN_MAX {
            if name == "h1" && self.heading.is_empty() && self.heading_start.is_none() {
                self.heading_start = Some(self.text.len());
            }
            *self.counts.entry(tag.name.clone()).or_default() += 1;
            self.left_out += usize::from(fate == Fate::LeftOut);
            self.headers += usize::from(fate == Fate::Header);
            self.open.push(Open { name: tag.name.clone(), fate });
        }
        match name {
            "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
            "style" | "xmp" | "iframe" | "noembed" | "noframes" => TokenSinkResult::RawData(RawKind::Rawtext),
            "script" => TokenSinkResult::RawData(RawKind::ScriptData),
            _ => TokenSinkResult::Continue,
        }
    }

    fn fate(&self, tag: &Tag) -> Fate {
        let name = &*tag.name;
        if matches!(
            name,
            "script" | "style" | "template" | "svg" | "iframe" | "noembed" | "noframes" | "object" | "canvas"
        ) {
            return Fate::LeftOut;
        }
        if self.keep_menus || matches!(name, "html" | "body") {
            return Fate::Kept;
        }
        let hidden = attribute(tag, "hidden").is_some_and(|value| !value.eq_ignore_ascii_case("until-found"))
            || attribute(tag, "aria-hidden").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
            || attribute(tag, "style").is_some_and(|style| {
                let style: String = style.to_ascii_lowercase().split_whitespace().collect();
                style.contains("display:none")
            });
        let role = attribute(tag, "role").unwrap_or_default().to_ascii_lowercase();
        // A header or footer within these belongs to a part of the page, not to the page.
        let in_part = || {
            ["article", "section", "main", "aside", "blockquote", "td"].iter().any(|part| self.is_open(part))
        };
        match name {
            _ if hidden => Fate::LeftOut,
            "nav" => Fate::LeftOut,
            "footer" if !in_part() => Fate::LeftOut,
            "header" if !in_part() => Fate::Header,
            _ => match role.trim() {
                "navigation" | "menu" | "menubar" | "contentinfo" => Fate::LeftOut,
                "banner" => Fate::Header,
                _ => Fate::Kept,
            },
        }
    }

    fn end(&mut self, name: &LocalName) {
        let text = &**name;
        if text == "title" {
            self.in_title = false;
        }
        self.separate(gap(text));
        self.behind_link |= matches!(text, "a" | "button" | "label" | "option");
        if self.counts.get(name).is_none_or(|count| *count == 0) {
            return;
        }
        while self.close_last().is_some_and(|closed| closed != *name) {}
    }

    /// Closes the innermost element of one of these names and all within it, unless another boundary stands in between.
    fn close_within(&mut self, names: &[&str], boundaries: &[&str]) {
        if !names.iter().any(|name| self.is_open(name)) {
            return;
        }
        let found = self
            .open
            .iter()
            .rev()
            .take(LOOK_BACK)
            .position(|open| names.contains(&&*open.name) || boundaries.contains(&&*open.name));
        let Some(at) = found else { return };
        if names.contains(&&*self.open[self.open.len() - 1 - at].name) {
            for _ in 0..=at {
                self.close_last();
            }
        }
    }

    fn close_last(&mut self) -> Option<LocalName> {
        let Open { name, fate } = self.open.pop()?;
        self.left_out -= usize::from(fate == Fate::LeftOut);
        self.headers -= usize::from(fate == Fate::Header);
        if let Some(count) = self.counts.get_mut(&name) {
            *count -= 1;
        }
        if &*name == "h1"
            && !self.is_open("h1")
            && let Some(start) = self.heading_start.take()
        {
            self.heading = self.text[start..].trim().to_owned();
        }
        Some(name)
    }
}

fn attribute<'a>(tag: &'a Tag, name: &str) -> Option<&'a str> {
    tag.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

/// The separators before and behind an element.
fn gap(name: &str) -> Gap {
    match name {
        "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "blockquote" | "pre" | "ul" | "ol" | "dl"
        | "menu" | "table" | "article" | "section" | "main" | "aside" | "header" | "footer" | "nav"
        | "figure" | "form" | "fieldset" | "details" | "dialog" | "address" | "hgroup" | "search" | "hr"
        | "body" => Gap::Paragraph,
        "div" | "li" | "dt" | "dd" | "tr" | "thead" | "tbody" | "tfoot" | "caption" | "figcaption"
        | "summary" | "legend" | "option" | "optgroup" | "select" | "textarea" | "br" | "center" | "dir"
        | "listing" | "xmp" | "noscript" | "video" | "audio" | "head" | "title" => Gap::Line,
        "td" | "th" => Gap::Cell,
        "button" | "input" => Gap::Blank,
        // Elements that a page defines for itself are mostly blocks.
        _ if name.contains('-') => Gap::Line,
        _ => Gap::None,
    }
}

/// The elements that are closed where an element begins, and what bounds that.
fn closed_by(name: &str) -> Vec<(&'static [&'static str], &'static [&'static str])> {
    const LISTS: &[&str] = &["ul", "ol", "menu", "table", "nav"];
    const CELLS: &[&str] = &["table"];
    const HEADINGS: &[&str] = &["h1", "h2", "h3", "h4", "h5", "h6"];
    let mut closed: Vec<(&[&str], &[&str])> = Vec::new();
    if gap(name) == Gap::Paragraph
        || matches!(name, "div" | "li" | "dt" | "dd" | "center" | "listing" | "xmp")
    {
        closed.push((&["p"], &["button", "table", "td", "th", "caption", "object", "body"]));
    }
    match name {
        "li" => closed.push((&["li"], LISTS)),
        "dt" | "dd" => closed.push((&["dt", "dd"], &["dl", "table"])),
        "td" | "th" => closed.push((&["td", "th"], CELLS)),
        "tr" | "thead" | "tbody" | "tfoot" => closed.push((&["tr"], CELLS)),
        "option" | "optgroup" => closed.push((&["option"], &["select", "datalist"])),
        "body" => closed.push((&["head"], &[])),
        _ if HEADINGS.contains(&name) => {
            closed.push((HEADINGS, &["div", "li", "td", "article", "section", "header", "body"]));
        }
        _ => {}
    }
    closed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(html: &str) -> String {
        read(html, false).text
    }

    #[test]
    fn page_becomes_text_without_markup() {
        let long = "word ".repeat(500);
        let page = read(
            &format!(
                "<!DOCTYPE html><html><head><!-- <title>no</title> --><TITLE lang=en>A &amp; B\n two</TITLE>\
                 <style>p {{ color: red }}</style><script>var x = '<p>';</script></head><body><h1>Head</h1>\
                 <p>Some <b>bo</b>ld and <a href=\"http://x.y\">linked</a> text&hellip;<hr><p>{long}\
                 <table><tr><td>one</td><td>two</td></tr><tr><td>three<td>four</table><ul><li>item<li>other</ul>\
                 line<br>break<img alt=picture><pre>\n  a\n    b</pre></body></html>"
            ),
            false,
        );
        assert_eq!(page.title, "A & B two");
        let expected = format!(
            "Head\n\nSome bold and linked text…\n\n{}\n\none  two\nthree  four\n\nitem\nother\n\nline\nbreak picture\n\n  a\n    b",
            long.trim_end()
        );
        assert_eq!(page.text, expected);
    }

    #[test]
    fn words_stay_apart_across_blocks_and_menus() {
        for (html, expected) in [
            ("<article>News today</article><article>Prices</article>", "News today\n\nPrices"),
            ("<section>a</section><section>b</section>", "a\n\nb"),
            ("<div>a</div><div>b</div>c", "a\nb\nc"),
            ("<a>Home</a><a>About</a>", "Home About"),
            ("<button>Yes</button><button>No</button>", "Yes No"),
            ("<select><option>a<option>b</select>", "a\nb"),
            ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\nb\nc\nd"),
            ("<x-card>a</x-card><x-card>b</x-card>", "a\nb"),
            ("<figure>a<figcaption>b</figcaption></figure>", "a\nb"),
            ("<details><summary>a</summary>b</details>", "a\nb"),
            // Where a browser shows no space, there is none.
            ("f<b>oo</b><i>bar</i>, <a>x</a>.", "foobar, x."),
            ("<span>fn</span><span>(</span>", "fn("),
            ("a&nbsp;b&#8203;c", "a b\u{200b}c"),
        ] {
            assert_eq!(text(html), expected, "{html}");
        }
    }

    #[test]
    fn menus_and_hidden_parts_are_left_out_unless_kept() {
        let html = "<body><header><a>Shop</a><h1>My page</h1><nav>Home</nav></header><nav><ul><li>One<li>Two</ul></nav>\
            <main><article><header>By Ann</header><p>Text<footer>Filed under x</footer></article></main>\
            <div role=navigation>Crumbs</div><p hidden>secret<p aria-hidden=true>deco<p style='display: none'>none<p>more\
            <template>tpl</template><script>js</script><svg><title>draw</title><text>t</text></svg><footer>Imprint</footer>";
        let page = read(html, false);
        assert_eq!(page.text, "My page\n\nBy Ann\n\nText\n\nFiled under x\n\nmore");
        assert_eq!(page.title, "My page");
        let kept = read(html, true).text;
        for part in ["Shop", "Home", "One\nTwo", "Crumbs", "secret", "deco", "none", "Imprint"] {
            assert!(kept.contains(part), "{part}: {kept}");
        }
        for part in ["tpl", "js", "draw"] {
            assert!(!kept.contains(part), "{part}: {kept}");
        }
        // What is open when a menu ends does not swallow the page.
        assert_eq!(text("<nav><b>x<span></nav>text"), "text");
        assert_eq!(text("<div><nav>x</div>text"), "text");
        assert_eq!(text("<span hidden><span>a</span>b</span>c"), "c");
    }

    #[test]
    fn title_falls_back_to_the_first_heading() {
        for (html, title) in [
            ("<h1 class='x'>He<i>a</i>d</h1><h1>b</h1>", "Head"),
            ("<title> </title><h1>x</h1>", "x"),
            ("<h1>open", "open"),
            ("<p>no title <", ""),
            ("<titlepage>x</titlepage><title", ""),
            ("<!-- unclosed <title>x</title>", ""),
            ("<title>a</title><svg><title>b</title></svg><title>c</title>", "a"),
        ] {
            assert_eq!(read(html, false).title, title, "{html}");
        }
    }

    #[test]
    fn odd_pages_do_no_harm() {
        let deep = format!("{}x{}", "<div>".repeat(100_000), "</div>".repeat(100_000));
        assert_eq!(text(&deep), "x");
        let spread = format!("{}x{}", "<div><li><p>".repeat(30_000), "</b></nav></td>".repeat(30_000));
        assert_eq!(text(&spread), "x");
        for html in [
            "",
            "<",
            "plain",
            "<table><tr>",
            "&#0;&bogus;",
            "<p>é<p>\u{0}",
            "</p></p>",
            "<nav hidden></nav></nav>",
        ] {
            let _ = read(html, false);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(html in "(<|>|/|p|nav|h1|div|title|script|!--|a|&|;| |x|=|'|li|svg|hidden){0,60}") {
            let _ = read(&html, false);
            let _ = read(&html, true);
        }
    }
}
