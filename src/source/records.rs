//! Reads the records of a table from its lines, each with the line it begins in.
//!
//! CSV as RFC 4180 has it: a cell that begins with `"` ends at the next `"` that is not doubled, and may hold line ends
//! (which become `\n`). TSV has no quotes: a tab ends a cell and a line end a record, whatever stands in between.
//!
//! A quote that is not closed, or closed in the middle of a cell, is an error that names the line where it opens. The
//! record is left out as far as that line, and the error says so: what was read behind it is read again, as rows. A
//! library would hand over the rest of the file as one cell, and does not say where the quote stood.
//!
//! Below are lines and not `Rows`, which training and evaluation split at tabs: those leave out what is blank, and here
//! a blank line may lie inside a cell, and a line of tabs is a row.

use std::collections::VecDeque;

use super::lines::{Line, LineError, Lines};

/// A row of a table.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    /// The first line of it, from 1.
    pub(super) line: u64,
    pub(super) cells: Vec<String>,
}

/// The records of a table, its header among them. Empty lines are left out.
pub(super) struct Records {
    lines: Lines,
    delimiter: char,
    quotes: bool,
    /// Lines that stand behind a broken quote and are read again.
    again: VecDeque<Result<Line, LineError>>,
    bytes_max: usize,
}

impl Records {
    /// A record may have `bytes_max` bytes.
    pub(super) fn new(lines: Lines, delimiter: char, quotes: bool, bytes_max: usize) -> Self {
        Records { lines, delimiter, quotes, again: VecDeque::new(), bytes_max }
    }

    fn next_line(&mut self) -> Option<Result<Line, LineError>> {
        let line = match self.again.pop_front() {
            Some(line) => line,
            None => self.lines.next()?,
        };
        Some(line.and_then(|line| match line.text.find('\0') {
            None => Ok(line),
            Some(_) => Err(LineError {
                number: line.number,
                reason: "a NUL character: this is binary, or the end of a damaged file".into(),
            }),
        }))
    }

    /// Reads the rest of a record that begins with this line.
    fn quoted(&mut self, first: Line) -> Result<Record, LineError> {
        let mut row = Row { delimiter: self.delimiter, cells: Vec::new(), cell: String::new(), open: None };
        let number = first.number;
        let mut bytes = first.text.len();
        let mut end = row.line(&first);
        // Lines behind the first, in case that they are to be read again.
        let mut held: Vec<Line> = Vec::new();
        loop {
            let (open, reason) = match end {
                End::Record => return Ok(Record { line: number, cells: row.cells }),
                End::InQuotes(open) => match self.next_line() {
                    Some(Ok(line)) if bytes + line.text.len() <= self.bytes_max => {
                        bytes += line.text.len() + 1;
                        end = row.line(&line);
                        held.push(line);
                        continue;
                    }
                    Some(Ok(line)) => {
                        held.push(line);
                        (
                            open,
                            format!("a quote opens here and is not closed within {} bytes", self.bytes_max),
                        )
                    }
                    Some(Err(e)) => {
                        self.again.push_front(Err(e));
                        (
                            open,
                            "a quote opens here and is not closed before the line that cannot be read".into(),
                        )
                    }
                    None => (open, "a quote opens here and is never closed".into()),
                },
                End::InCell(open) => {
                    let closed = held.last().map_or(number, |line| line.number);
                    let where_to = if closed == open { String::new() } else { format!(" in line {closed}") };
                    let reason =
                        format!("the quote that opens here is closed{where_to} in the middle of a cell");
                    (open, reason)
                }
            };
            for line in held.into_iter().rev().filter(|line| line.number > open) {
                self.again.push_front(Ok(line));
            }
            let left_out = match open == number {
                true => "this line is left out".to_owned(),
                false => format!("lines {number} to {open}, which are one record so far, are left out"),
            };
            let remedy = format!("close the quote, and double each `\"` inside a cell; {left_out}");
            return Err(LineError { number: open, reason: format!("{reason}: {remedy}") });
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.next_line()? {
                Ok(line) if line.text.is_empty() => continue,
                Ok(line) => line,
                Err(e) => return Some(Err(e)),
            };
            return Some(if self.quotes {
                self.quoted(line)
            } else {
                let cells = line.text.split(self.delimiter).map(str::to_owned).collect();
                Ok(Record { line: line.number, cells })
            });
        }
    }
}

/// Where a line left a record; with the line where the quote in question opened.
enum End {
    Record,
    InQuotes(u64),
    InCell(u64),
}

/// A record that is being read.
struct Row {
    delimiter: char,
    cells: Vec<String>,
    cell: String,
    /// The line where the quote opened that is not yet closed.
    open: Option<u64>,
}

impl Row {
    fn line(&mut self, line: &Line) -> End {
        let mut rest = line.text.as_str();
        if self.open.is_some() {
            self.cell.push('\n');
        }
        loop {
            let Some(open) = self.open else {
                if let Some(inner) = rest.strip_prefix('"') {
                    self.open = Some(line.number);
                    rest = inner;
                    continue;
                }
                match rest.split_once(self.delimiter) {
                    Some((cell, behind)) => {
                        self.cells.push(cell.to_owned());
                        rest = behind;
                        continue;
                    }
                    None => {
                        self.cells.push(rest.to_owned());
                        return End::Record;
                    }
                }
            };
            let Some((inside, behind)) = rest.split_once('"') else {
                self.cell.push_str(rest);
                return End::InQuotes(open);
            };
            self.cell.push_str(inside);
            if let Some(behind) = behind.strip_prefix('"') {
                self.cell.push('"');
                rest = behind;
                continue;
            }
            // Blanks between a closing quote and the delimiter do no harm.
            let behind = behind.trim_start_matches(' ');
            if !behind.is_empty() && !behind.starts_with(self.delimiter) {
                return End::InCell(open);
            }
            self.cells.push(std::mem::take(&mut self.cell));
            self.open = None;
            match behind.strip_prefix(self.delimiter) {
                Some(behind) => rest = behind,
                None => return End::Record,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::open, *};

    fn records(content: &str, delimiter: char, quotes: bool) -> Vec<Result<Record, LineError>> {
        let bytes = std::io::Cursor::new(content.to_owned().into_bytes());
        let input = open::text(Box::new(bytes), None, true).unwrap_or_else(|e| panic!("{e:?}"));
        Records::new(Lines::new(input), delimiter, quotes, 1 << 10).collect()
    }

    fn csv(content: &str) -> Vec<Result<Record, LineError>> {
        records(content, ',', true)
    }

    fn row(line: u64, cells: &[&str]) -> Result<Record, LineError> {
        Ok(Record { line, cells: cells.iter().map(|cell| (*cell).to_owned()).collect() })
    }

    #[test]
    fn quotes_hold_delimiters_quotes_and_line_ends() {
        assert_eq!(
            csv("a,\"b,\"\"c\"\"\",\n\n\"two\r\nlines\" ,x\r\n\"\",5\" disk\n"),
            [row(1, &["a", "b,\"c\"", ""]), row(3, &["two\nlines", "x"]), row(5, &["", "5\" disk"])]
        );
        assert_eq!(csv(""), []);
    }

    #[test]
    fn a_tab_separated_file_has_no_quotes() {
        let rows = records("1\t\"Quoted\" start\n2\t\"open\n3\t5\" disk\n", '\t', false);
        assert_eq!(
            rows,
            [row(1, &["1", "\"Quoted\" start"]), row(2, &["2", "\"open"]), row(3, &["3", "5\" disk"])]
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_is_told_with_its_line_and_the_rest_is_read() {
        let rows = csv("1,a\n2,\"Unclosed here\n3,c\n4,d\n");
        assert_eq!(
            [&rows[0], &rows[2], &rows[3]],
            [&row(1, &["1", "a"]), &row(3, &["3", "c"]), &row(4, &["4", "d"])]
        );
        let error = rows[1].as_ref().unwrap_err();
        assert_eq!(error.number, 2);
        assert!(error.reason.contains("never closed"), "{}", error.reason);

        // The quote of a later row closes it in the middle of a cell.
        let rows = csv("1,\"Unclosed\n2,\"b, c\",x\n3,d\n");
        assert_eq!(rows[0].as_ref().unwrap_err().number, 1);
        assert!(rows[0].as_ref().unwrap_err().reason.contains("in line 2"), "{rows:?}");
        assert_eq!(rows[1..], [row(2, &["2", "b, c", "x"]), row(3, &["3", "d"])]);
    }

    #[test]
    fn a_quote_within_a_record_of_several_lines_is_named_where_it_opens() {
        let rows = csv("\"two\nlines\",\"open\n3,c\n");
        assert_eq!(rows[0].as_ref().unwrap_err().number, 2);
        assert!(rows[0].as_ref().unwrap_err().reason.contains("lines 1 to 2"), "{:?}", rows[0]);
        assert_eq!(rows[1..], [row(3, &["3", "c"])]);
        // Quotes that close and open in each line are one record, and none of its lines is lost without a word.
        let rows = csv(&"a\",\"\n".repeat(100));
        assert_eq!(rows.len(), 1);
        assert!(rows[0].as_ref().unwrap_err().reason.contains("lines 1 to 100"), "{:?}", rows[0]);
        let long = format!("1,\"{}\n2,b\n", "x\n".repeat(1 << 10));
        let rows = csv(&long);
        assert_eq!(rows[0].as_ref().unwrap_err().number, 1);
        assert!(rows[0].as_ref().unwrap_err().reason.contains("1024 bytes"), "{:?}", rows[0]);
        assert_eq!(rows.last().unwrap().as_ref().unwrap().cells, ["2", "b"]);
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(cells in prop::collection::vec("[a\",;\n\t é]{0,6}", 1..5)) {
            let line: Vec<String> =
                cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
            let read = csv(&(line.join(",") + "\n"));
            prop_assert_eq!(read, [Ok(Record { line: 1, cells })]);
        }

        #[test]
        fn nothing_panics_and_every_line_is_in_a_record_or_an_error(content in "[a\",\n]{0,60}") {
            let read = csv(&content);
            let lines = content.lines().filter(|line| !line.is_empty()).count();
            prop_assert!(read.len() <= lines);
            prop_assert_eq!(read.is_empty(), lines == 0);
        }
    }
}
