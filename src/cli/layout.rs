//! Lays out text in lines that fit a terminal: widths in columns, wrapping, cutting, tables.
//!
//! Works on grapheme clusters and their display width, so CJK, emoji and combining marks neither split nor overflow.
//! Control characters of stored texts never reach the terminal (a document must not move the cursor). So colours are not
//! escape sequences yet while text is laid out: [`mark`] puts marks of no width around it, which pass through everything
//! here, and [`render`] makes sequences of them where a line is printed.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Narrower than this nothing is readable, so nothing is made narrower.
const WIDTH_MIN: usize = 8;

/// Ends what a mark began. Unicode sets these characters aside for use inside a program; no text has them.
const MARK_END: char = '\u{fdd0}';
/// A mark for each of [`CODES`], in that order.
const MARK_FIRST: char = '\u{fdd1}';
/// The terminal's codes for what can be marked.
const CODES: [&str; 6] = ["1", "2", "32", "33", "31", "36"];

/// `text` to be shown in the style of this number, below 6.
pub fn mark(style: usize, text: &str) -> String {
    let begin = char::from_u32(MARK_FIRST as u32 + (style % CODES.len()) as u32).unwrap_or(MARK_END);
    format!("{begin}{text}{MARK_END}")
}

/// The terminal's code that a mark stands for; `Some("0")` at the end of what is marked.
fn code(c: char) -> Option<&'static str> {
    let number = (c as u32).checked_sub(MARK_END as u32)?;
    match number {
        0 => Some("0"),
        n => CODES.get(n as usize - 1).copied(),
    }
}

/// Makes escape sequences of marks. A style ends with its line and begins again on the next.
pub fn render(text: &str) -> String {
    if !text.contains(|c| code(c).is_some()) {
        return text.to_owned();
    }
    let mut rendered = String::with_capacity(text.len() + 32);
    let mut style = None;
    for c in text.chars() {
        match code(c) {
            Some("0") => {
                style = None;
                rendered.push_str("\u{1b}[0m");
            }
            Some(begun) => {
                style = Some(begun);
                rendered.push_str(&format!("\u{1b}[{begun}m"));
            }
            None if c == '\n' => match style {
                Some(style) => rendered.push_str(&format!("\u{1b}[0m\n\u{1b}[{style}m")),
                None => rendered.push('\n'),
            },
            None => rendered.push(c),
        }
    }
    if style.is_some() {
        rendered.push_str("\u{1b}[0m");
    }
    rendered
}

/// Columns that `text` takes.
pub fn columns(text: &str) -> usize {
    if !text.contains(|c| code(c).is_some()) {
        return UnicodeWidthStr::width(text);
    }
    let shown: String = text.chars().filter(|c| code(*c).is_none()).collect();
    UnicodeWidthStr::width(&*shown)
}

/// `text` in one line: white space runs become one space, other control characters the replacement character.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    printable(&words.join(" "))
}

/// `text` with every control character replaced, and runs of spaces kept.
pub fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// What to do with a word that is wider than the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongWords {
    /// Cut it, between graphemes.
    Break,
    /// Let it stand out: a path or a command that is to be copied.
    Keep,
}

/// Lines of at most `width` columns (but no narrower than 8), broken at white space. Empty text gives no line.
pub fn wrap(text: &str, width: usize, long_words: LongWords) -> Vec<String> {
    let width = width.max(WIDTH_MIN);
    let text = one_line(text);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let wide = columns(word);
        if used > 0 && used + 1 + wide > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        if wide <= width || long_words == LongWords::Keep {
            line.push_str(word);
            used += wide;
            continue;
        }
        for grapheme in word.graphemes(true) {
            let wide = columns(grapheme);
            if used > 0 && used + wide > width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(grapheme);
            used += wide;
        }
    }
    if used > 0 || !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// [`wrap`] with a first line that begins with `first` and others with as many spaces.
pub fn wrap_after(first: &str, text: &str, width: usize, long_words: LongWords) -> String {
    let indent = columns(first);
    let lines = wrap(text, width.saturating_sub(indent), long_words);
    format!("{first}{}", lines.join(&format!("\n{}", " ".repeat(indent))))
}

/// Lines of at most `width` columns that keep the breaks and the indentation of `text`; blank lines come as empty ones,
/// and no two in a row.
pub fn wrap_lines(text: &str, width: usize, long_words: LongWords) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.trim_end().lines() {
        if line.trim().is_empty() {
            if lines.last().is_some_and(|last| !last.is_empty()) {
                lines.push(String::new());
            }
            continue;
        }
        let before = &line[..line.len() - line.trim_start().len()];
        let indent = before.chars().map(|c| if c == '\t' { 4 } else { 1 }).sum::<usize>().min(width / 3);
        let wrapped = wrap(line, width.saturating_sub(indent), long_words);
        lines.extend(wrapped.into_iter().map(|line| format!("{}{line}", " ".repeat(indent))));
    }
    lines
}

/// A list in words, `a, b, c`, without its last parts where all of it is wider than `width`. The first part stays.
pub fn fit_list(list: &str, width: usize) -> &str {
    let mut fitting = list;
    while columns(fitting) > width {
        match fitting.rsplit_once(", ") {
            Some((rest, _)) => fitting = rest,
            None => break,
        }
    }
    fitting
}

/// A pace for people: one decimal below 10, where it tells something.
pub fn rate(per_second: f64) -> String {
    if per_second < 9.95 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

/// `text` cut to `width` columns, the last of them an ellipsis where something was cut.
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        let wide = columns(grapheme);
        if used + wide + 1 > width {
            break;
        }
        short.push_str(grapheme);
        used += wide;
    }
    if width > 0 {
        short.push('…');
    }
    short
}

/// `text` with spaces up to `width` columns.
pub fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// `text` with spaces before it up to `width` columns: for numbers.
pub fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(columns(text))))
}

/// Rows under headers, in columns where they fit `width`, else each row as a block of `header: value` lines.
/// A header that begins with `#` (which is not shown) is a column of numbers, set to the right.
pub fn table(headers: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let (rows, widths) = measured(headers, rows);
    let names: Vec<&str> = headers.iter().map(|h| h.trim_start_matches('#')).collect();
    if total(&widths) > width {
        let label = names.iter().map(|n| columns(n)).max().unwrap_or(0) + 2;
        let block = |row: &Vec<String>| {
            let lines = names.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
            let lines = lines.map(|(name, cell)| {
                wrap_after(&pad(&format!("{name}:"), label), cell, width, LongWords::Break)
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        return rows.iter().map(block).collect::<Vec<_>>().join("\n\n");
    }
    let set = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.enumerate().map(|(i, cell)| {
            if headers[i].starts_with('#') { pad_left(cell, widths[i]) } else { pad(cell, widths[i]) }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![set(&mut names.iter().copied())];
    lines.extend(rows.iter().map(|row| set(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// Whether a [`table`] of these keeps its columns.
pub fn fits(headers: &[&str], rows: &[Vec<String>], width: usize) -> bool {
    total(&measured(headers, rows).1) <= width
}

/// [`table`] of figures with intervals, `0.7 [0.6, 0.8]`, that keeps its columns beside each other for longer: where
/// they are too wide, intervals go below their figures, and long headers become letters that are explained below.
pub fn figures(headers: &[&str], rows: &[Vec<String>], width: usize) -> String {
    if fits(headers, rows, width) {
        return table(headers, rows, width);
    }
    let below = |row: &Vec<String>| {
        let pair = |cell: &String| match cell.split_once(" [") {
            Some((figure, interval)) => (figure.to_owned(), format!("[{interval}")),
            None => (cell.clone(), String::new()),
        };
        let (figures, intervals): (Vec<String>, Vec<String>) = row.iter().map(pair).unzip();
        let more = intervals.iter().any(|interval| !interval.is_empty());
        [Some(figures), more.then_some(intervals)].into_iter().flatten()
    };
    let rows: Vec<Vec<String>> = rows.iter().flat_map(below).collect();
    if fits(headers, &rows, width) {
        return table(headers, &rows, width);
    }
    let mut letters = 'A'..='Z';
    let (mut short, mut legend) = (Vec::new(), String::new());
    for header in headers {
        let name = header.trim_start_matches('#');
        if columns(name) <= SHORT_HEADER {
            short.push((*header).to_owned());
        } else if let Some(letter) = letters.next() {
            legend.push_str(&format!("\n{letter}: {name}"));
            short.push(header.replacen(name, &letter.to_string(), 1));
        }
    }
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    format!("{}{legend}", table(&short, &rows, width))
}

/// Headers that are longer become letters where a table of figures is too wide.
const SHORT_HEADER: usize = 10;

/// The rows with each cell in one line, and the width of each column.
fn measured(headers: &[&str], rows: &[Vec<String>]) -> (Vec<Vec<String>>, Vec<usize>) {
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|cell| one_line(cell)).collect()).collect();
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| columns(cell));
        cells.chain([columns(headers[i].trim_start_matches('#'))]).max().unwrap_or(0)
    };
    let widths = (0..headers.len()).map(width).collect();
    (rows, widths)
}

/// Columns of a table, with what stands between its own.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

/// `label  value` lines, the values in one column, wrapped to `width`; below their labels where that is too narrow.
pub fn pairs(pairs: &[(&str, String)], width: usize) -> String {
    let label = pairs.iter().map(|(label, _)| columns(label)).max().unwrap_or(0) + 2;
    let line = |(name, value): &(&str, String)| {
        if label + WIDTH_MIN > width || label > 2 * width / 3 {
            return format!("{name}\n{}", wrap_after("  ", value, width, LongWords::Keep));
        }
        wrap_after(&pad(name, label), value, width, LongWords::Keep)
    };
    pairs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A count with thousands set apart: `12,345`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun: `1 document`, `2 documents`.
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// The same for a noun whose plural has other letters: `1 query`, `2 queries`.
pub fn counted_as(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", thousands(n), if n == 1 { one } else { more })
}

/// Bytes for people: `512 B`, `1.5 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time for people: `850 ms`, `12.3 s`, `3 min 20 s`.
pub fn duration(time: std::time::Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 0.001 => format!("{} µs", time.as_micros()),
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 60.0 && s.fract() == 0.0 => format!("{s:.0} s"),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:.0} s", time.as_secs() / 60, (s % 60.0).floor()),
        _ => format!("{} h {} min", time.as_secs() / 3600, time.as_secs() % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_break_at_white_space_and_words_that_are_too_long_break_anywhere() {
        assert_eq!(wrap("the quick  brown\nfox", 10, LongWords::Break), ["the quick", "brown fox"]);
        assert_eq!(wrap("abcdefghijklmno", 10, LongWords::Break), ["abcdefghij", "klmno"]);
        assert_eq!(wrap("a /tmp/a-long-path b", 10, LongWords::Keep), ["a", "/tmp/a-long-path", "b"]);
        assert_eq!(wrap("日本語日本語", 10, LongWords::Break), ["日本語日本", "語"]);
        assert!(wrap(" \n ", 10, LongWords::Break).is_empty());
    }

    #[test]
    fn stored_text_cannot_move_the_cursor() {
        assert_eq!(one_line("a\u{1b}[2Jb\u{7}\tc"), "a\u{fffd}[2Jb\u{fffd} c");
    }

    #[test]
    fn colours_pass_through_the_layout_and_take_no_room() {
        let name = mark(0, "mine");
        assert_eq!(columns(&name), 4);
        let rows = [("model", name.clone()), ("steps", "6 of 6".into())];
        assert_eq!(render(&pairs(&rows, 40)), "model  \u{1b}[1mmine\u{1b}[0m\nsteps  6 of 6");
        let rows = vec![vec![mark(4, "no"), "1".to_owned()], vec!["yes".into(), "2".into()]];
        assert_eq!(render(&table(&["a", "#b"], &rows, 40)), "a    b\n\u{1b}[31mno\u{1b}[0m   1\nyes  2");
        // A style that is broken over lines does not reach into what stands before the next one.
        assert_eq!(
            render(&wrap(&mark(1, "several words"), 8, LongWords::Break).join("\n")),
            "\u{1b}[2mseveral\u{1b}[0m\n\u{1b}[2mwords\u{1b}[0m"
        );
        assert_eq!(render("plain \u{fdd1}bold"), "plain \u{1b}[1mbold\u{1b}[0m");
        assert_eq!(render("as it is"), "as it is");
    }

    #[test]
    fn lines_of_a_text_stay_lines() {
        let text = "# Head\n\n\nOne two three\n    code here\n\n";
        assert_eq!(
            wrap_lines(text, 12, LongWords::Break),
            ["# Head", "", "One two", "three", "    code", "    here"]
        );
        assert!(wrap_lines(" \n", 12, LongWords::Break).is_empty());
    }

    #[test]
    fn a_list_loses_its_last_parts_where_there_is_no_room() {
        let list = "1,234 documents, 5,678 passages, 3.4/s";
        assert_eq!(fit_list(list, 80), list);
        assert_eq!(fit_list(list, 36), "1,234 documents, 5,678 passages");
        assert_eq!(fit_list(list, 20), "1,234 documents");
        assert_eq!(fit_list(list, 3), "1,234 documents");
        assert_eq!((rate(0.04), rate(9.94), rate(12.3)), ("0.0".into(), "9.9".into(), "12".into()));
    }

    #[test]
    fn cutting_keeps_whole_graphemes() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn a_table_that_does_not_fit_becomes_blocks() {
        let rows = vec![vec!["docs".to_owned(), "12".to_owned()], vec!["a".into(), "3".into()]];
        assert_eq!(table(&["name", "#count"], &rows, 40), "name  count\ndocs     12\na         3");
        assert_eq!(table(&["name", "#count"], &rows, 10), "name:  docs\ncount: 12\n\nname:  a\ncount: 3");
    }

    #[test]
    fn figures_stay_beside_each_other() {
        let headers = ["measure", "#all-minilm-l6-v2", "#mine", "#p"];
        let row = |name: &str, figure: &str| {
            let interval = format!("{figure} [0.612, 0.697]");
            vec![name.to_owned(), interval.clone(), interval, "0.03".into()]
        };
        let rows = [row("nDCG@10", "0.654"), row("MRR@10", "0.607")];
        assert_eq!(figures(&headers, &rows, 80), table(&headers, &rows, 80));
        let stacked = figures(&headers, &rows, 56);
        let lines: Vec<&str> = stacked.lines().collect();
        assert_eq!(lines[0], "measure  all-minilm-l6-v2            mine     p");
        assert_eq!(lines[1], "nDCG@10             0.654           0.654  0.03");
        assert_eq!(lines[2], "           [0.612, 0.697]  [0.612, 0.697]");
        assert_eq!(lines.len(), 5);
        let narrow = figures(&headers, &rows, 45);
        assert!(narrow.starts_with("measure               A            mine     p\n"), "{narrow}");
        assert!(narrow.ends_with("\nA: all-minilm-l6-v2"), "{narrow}");
    }

    #[test]
    fn pairs_stand_side_by_side_where_there_is_room() {
        let rows = [("plan", "exact".to_owned()), ("candidates", "12".to_owned())];
        assert_eq!(pairs(&rows, 40), "plan        exact\ncandidates  12");
        assert_eq!(pairs(&rows, 15), "plan\n  exact\ncandidates\n  12");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            (thousands(0), thousands(999), thousands(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!((counted(1, "hit"), counted(0, "hit")), ("1 hit".into(), "0 hits".into()));
        assert_eq!(
            (bytes(512), bytes(1536), bytes(3 << 30)),
            ("512 B".into(), "1.5 KiB".into(), "3.0 GiB".into())
        );
        let d = |ms| duration(std::time::Duration::from_millis(ms));
        assert_eq!(
            (d(0), d(850), d(12_300), d(200_000)),
            ("0 µs".into(), "850 ms".into(), "12.3 s".into(), "3 min 20 s".into())
        );
    }

    proptest! {
        #[test]
        fn no_line_is_too_wide_and_no_word_is_lost(text in any::<String>(), width in WIDTH_MIN..60) {
            let lines = wrap(&text, width, LongWords::Break);
            for line in &lines {
                // One grapheme may be wider than its parts suggest; it stands alone in its line then.
                prop_assert!(columns(line) <= width || line.graphemes(true).count() == 1, "{line:?}");
            }
            let squeeze = |s: &str| s.split_whitespace().collect::<String>();
            prop_assert_eq!(squeeze(&lines.concat()), squeeze(&one_line(&text)));
            prop_assert!(columns(&cut(&text, width)) <= width.max(columns(&text).min(width)));
        }
    }
}
