//! HTML -> readable text and a title; alone names `html2text`.
//!
//! What the library can do to us: wrap lines (the width is set beyond any paragraph), draw rules and tables (borders
//! are off, rules are taken out), fail or panic on odd input (both become an error).

use html2text::{config, render::TrivialDecorator};

/// Wide enough that paragraphs stay whole; a rule of this width is still cheap.
const WIDTH: usize = 10_000;

/// What a page says.
pub(super) struct Page {
    /// Of `<title>`, else of the first `<h1>`; one line, may be empty.
    pub(super) title: String,
    pub(super) text: String,
}

/// # Errors
/// The reason, for the user.
pub(super) fn read(html: &str) -> Result<Page, String> {
    let title = ["title", "h1"].iter().find_map(|tag| {
        let text = render(inside(html, tag)?).ok()?;
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (!line.is_empty()).then_some(line)
    });
    Ok(Page { title: title.unwrap_or_default(), text: render(html)? })
}

fn render(html: &str) -> Result<String, String> {
    let rendered = std::panic::catch_unwind(|| {
        config::with_decorator(TrivialDecorator::new())
            .raw_mode(true)
            .allow_width_overflow()
            .string_from_read(html.as_bytes(), WIDTH)
    });
    let text = match rendered {
        Ok(Ok(text)) => text,
        Ok(Err(e)) => return Err(format!("this HTML cannot be read: {e}")),
        Err(_) => return Err("this HTML cannot be read: the parser failed".into()),
    };
    let is_rule = |line: &str| !line.is_empty() && line.chars().all(|c| c == '─');
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end).filter(|line| !is_rule(line)) {
        // One blank line between paragraphs is enough.
        if !(line.is_empty() && lines.last().is_none_or(|before| before.is_empty())) {
            lines.push(line);
        }
    }
    Ok(lines.join("\n").trim_end().to_owned())
}

/// What stands between the first `<tag …>` and its end, comments left aside.
fn inside<'a>(html: &'a str, tag: &str) -> Option<&'a str> {
    let mut from = 0;
    loop {
        let start = from + html[from..].find('<')?;
        let rest = &html[start..];
        if rest.starts_with("<!--") {
            from = start + rest.find("-->")? + 3;
            continue;
        }
        let name = rest.get(1..=tag.len());
        let ends = rest.as_bytes()[1..].get(tag.len()).is_some_and(|b| *b == b'>' || b.is_ascii_whitespace());
        if ends && name.is_some_and(|name| name.eq_ignore_ascii_case(tag)) {
            let open = rest.find('>')? + 1;
            let close = rest.to_ascii_lowercase().find(&format!("</{tag}"))?;
            return rest.get(open..close);
        }
        from = start + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_becomes_text_without_markup() {
        let long = "word ".repeat(500);
        let page = read(&format!(
            "<!DOCTYPE html><html><head><!-- <title>no</title> --><TITLE lang=en>A &amp; B\n two</TITLE>\
             <style>p {{ color: red }}</style><script>var x = 1;</script></head><body><h1>Head</h1>\
             <p>Some <b>bold</b> and <a href=\"http://x.y\">linked</a> text.<hr><p>{long}\
             <table><tr><td>one</td><td>two</td></tr></table><ul><li>item</li></ul></body></html>"
        ))
        .unwrap();
        assert_eq!(page.title, "A & B two");
        assert!(page.text.starts_with("Head\n\nSome bold and linked text.\n\nword word"), "{}", page.text);
        assert!(page.text.contains(long.trim_end()), "paragraphs are not wrapped");
        for (part, there) in
            [("one", true), ("item", true), ("color", false), ("var x", false), ("http", false)]
        {
            assert_eq!(page.text.contains(part), there, "{part}: {}", page.text);
        }
        assert!(!page.text.contains(['─', '│', '<']), "{}", page.text);
    }

    #[test]
    fn title_falls_back_to_the_first_heading() {
        assert_eq!(read("<h1 class='x'>He<i>a</i>d</h1><h1>b</h1>").unwrap().title, "Head");
        assert_eq!(read("<title> </title><h1>x</h1>").unwrap().title, "x");
        assert_eq!(read("<p>no title <").unwrap().title, "");
        assert_eq!(read("<titlepage>x</titlepage><title").unwrap().title, "");
        assert_eq!(read("<!-- unclosed <title>x</title>").unwrap().title, "");
    }

    #[test]
    fn odd_pages_do_no_harm() {
        let deep = format!("{}x{}", "<div>".repeat(20_000), "</div>".repeat(20_000));
        for html in ["", "<", "plain", "<table><tr>", "&#0;&bogus;", "<p>é<p>\u{0}", &deep] {
            let _ = read(html);
        }
    }
}
