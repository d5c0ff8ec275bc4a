//! The beginning of a CSV file shows what separates its cells: `,`, `;`, a tab or `|`.
//!
//! Spreadsheets write CSV with `;` where the comma is the decimal point. The delimiter is the one by which the header has
//! two cells or more and the rows have as many; where several do, the comma.

use std::io::Cursor;

use super::{
    lines::Lines,
    open::{HEAD_BYTES, Unmarked},
    records::Records,
};

/// The delimiters, in the order in which they are preferred.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];
/// Records that are looked at.
const RECORDS: usize = 50;
/// Percent of the rows that must have as many cells as the header.
const PERCENT_ALIKE_MIN: usize = 90;

/// Finds what separates the cells of a table that begins with `head`.
pub(super) fn of(head: &[u8]) -> char {
    // The last line may be cut.
    let head = match head.iter().rposition(|byte| *byte == b'\n') {
        Some(end) if head.len() >= HEAD_BYTES => &head[..end],
        _ => head,
    };
    let mut of_header = None;
    for delimiter in DELIMITERS {
        let (columns, percent) = fit(head, delimiter);
        if columns < 2 {
            continue;
        }
        if percent >= PERCENT_ALIKE_MIN {
            return delimiter;
        }
        of_header = of_header.or(Some(delimiter));
    }
    of_header.unwrap_or(DELIMITERS[0])
}

/// Cells of the header, and the percentage of rows with as many.
fn fit(head: &[u8], delimiter: char) -> (usize, usize) {
    let reader = Box::new(Cursor::new(head.to_vec()));
    let input = Unmarked { reader, skipped: 0, head: head.to_vec(), converted: false };
    let mut records = Records::new(Lines::new(input), delimiter, true, HEAD_BYTES);
    let Some(Ok(header)) = records.next() else { return (0, 0) };
    let columns = header.cells.len();
    let (mut rows, mut alike) = (0, 0);
    for row in records.take(RECORDS) {
        rows += 1;
        alike += usize::from(row.is_ok_and(|row| row.cells.len() == columns));
    }
    (columns, (alike * 100_usize).checked_div(rows).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delimiter_is_what_header_and_rows_agree_on() {
        for (head, delimiter) in [
            ("id,text\n1,a\n", ','),
            ("id;text\n1;a, b\n2;c, d, e\n", ';'),
            ("id;text, long\n1;a\n2;b\n", ';'),
            ("id\ttext\n1\ta;b\n", '\t'),
            ("id|text\n1|a\n", '|'),
            ("text\na, b; c\n", ','),
            ("", ','),
            ("id,text\n\"1;2\",\"a;b\"\n", ','),
            ("id,text\n1,a,b\n2,c,d\n", ','),
        ] {
            assert_eq!(of(head.as_bytes()), delimiter, "{head}");
        }
    }
}
