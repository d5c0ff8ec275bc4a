//! Reads lines of UTF-8, numbered from 1, of bounded length. A line that is not UTF-8 or is too long is an error, and
//! the next one is read normally. `\r\n` ends a line like `\n`; where there is no `\n` at all, `\r` does.

use std::io::{self, BufRead, BufReader, Read};

use super::{RECORD_BYTES_MAX, open::Unmarked};

/// A line without its end.
#[derive(Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) text: String,
}

/// Why a line could not be read.
#[derive(Debug, PartialEq)]
pub(super) struct LineError {
    pub(super) number: u64,
    pub(super) reason: String,
}

/// The lines of a reader; ends after an error of the disk.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    number: u64,
    /// Number of the next line in the file.
    offset: u64,
    bytes_max: usize,
    /// What ends a line: `\n`, and in what an old spreadsheet wrote `\r`.
    end: u8,
    broken: bool,
}

impl Lines {
    pub(super) fn new(input: Unmarked) -> Self {
        Self::with_max(input, RECORD_BYTES_MAX)
    }

    pub(super) fn with_max(input: Unmarked, bytes_max: usize) -> Self {
        let reader = BufReader::with_capacity(1 << 16, input.reader);
        let old = input.head.contains(&b'\r') && !input.head.contains(&b'\n');
        let end = if old { b'\r' } else { b'\n' };
        Lines { reader, number: 0, offset: input.skipped, bytes_max, end, broken: false }
    }

    /// Reads up to and with the next `\n`; beyond the limit bytes are counted and dropped.
    /// Returns the kept bytes and how many there were.
    fn read(&mut self) -> io::Result<(Vec<u8>, u64)> {
        let mut kept = Vec::new();
        let mut bytes = 0u64;
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let end = buffer.iter().position(|byte| *byte == self.end);
            let used = end.map_or(buffer.len(), |end| end + 1);
            bytes += used as u64;
            // Two more than the limit: the line's end does not count.
            if bytes <= self.bytes_max as u64 + 2 {
                kept.extend_from_slice(&buffer[..used]);
            } else {
                kept = Vec::new();
            }
            self.reader.consume(used);
            if end.is_some() || used == 0 {
                return Ok((kept, bytes));
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Line, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        self.number += 1;
        let number = self.number;
        let start = self.offset;
        let (mut line, bytes) = match self.read() {
            Ok((_, 0)) => return None,
            Ok(read) => read,
            Err(e) => {
                self.broken = true;
                return Some(Err(LineError { number, reason: format!("cannot read on: {e}") }));
            }
        };
        self.offset += bytes;
        if line.last() == Some(&self.end) {
            line.pop();
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > self.bytes_max || (line.is_empty() && bytes > 2) {
            let reason = format!("the line has about {bytes} bytes, the limit is {}", self.bytes_max);
            return Some(Err(LineError { number, reason }));
        }
        Some(
            String::from_utf8(line).map(|text| Line { number, text }).map_err(|e| LineError {
                number,
                reason: not_utf8(start + e.utf8_error().valid_up_to() as u64),
            }),
        )
    }
}

/// The message for bytes that are no UTF-8 from this byte of the file on.
pub(super) fn not_utf8(offset: u64) -> String {
    format!("byte {offset}: not UTF-8; convert it, for example with `iconv -f LATIN1 -t UTF-8`")
}

#[cfg(test)]
mod tests {
    use super::{super::open, *};

    fn begun(reader: impl Read + Send + 'static) -> Unmarked {
        open::text(Box::new(reader), None, true).unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn lines_of(bytes: &'static [u8], bytes_max: usize) -> Vec<Result<Line, LineError>> {
        Lines::with_max(begun(bytes), bytes_max).collect()
    }

    fn line(number: u64, text: &str) -> Result<Line, LineError> {
        Ok(Line { number, text: text.into() })
    }

    #[test]
    fn lines_end_with_or_without_carriage_return_and_bom_goes() {
        assert_eq!(lines_of(b"\xef\xbb\xbfa\r\n\nb", 10), [line(1, "a"), line(2, ""), line(3, "b")]);
        assert_eq!(lines_of(b"a\n", 10), [line(1, "a")]);
        assert_eq!(lines_of(b"\xef\xbb", 10).len(), 1);
        assert_eq!(lines_of(b"", 10), []);
        assert_eq!(lines_of(b"a\rb\r", 10), [line(1, "a"), line(2, "b")]);
        assert_eq!(lines_of(b"a\rb\nc", 10), [line(1, "a\rb"), line(2, "c")]);
    }

    #[test]
    fn bad_utf8_names_its_byte_in_the_file_and_reading_goes_on() {
        let lines = lines_of(b"\xef\xbb\xbfab\ncd\xffe\nok", 10);
        assert_eq!(lines[0], line(1, "ab"));
        let error = lines[1].as_ref().unwrap_err();
        assert_eq!(error.number, 2);
        assert!(error.reason.starts_with("byte 8: not UTF-8"), "{}", error.reason);
        assert_eq!(lines[2], line(3, "ok"));
    }

    #[test]
    fn long_lines_are_refused_and_not_kept() {
        let lines = lines_of(b"12345\n123456\r\n12345\r\n1234567890123\n\nx", 5);
        assert_eq!(lines[0], line(1, "12345"));
        assert!(lines[1].as_ref().unwrap_err().reason.contains("the limit is 5"));
        assert_eq!(lines[2], line(3, "12345"));
        assert_eq!(lines[3].as_ref().unwrap_err().number, 4);
        assert_eq!(lines[4..], [line(5, ""), line(6, "x")]);

        // A line without an end must not be collected: the reader would fill any memory.
        let endless = begun(io::repeat(b'x').take(1 << 24));
        let mut lines = Lines::with_max(endless, 1 << 10);
        assert!(lines.next().unwrap().is_err());
        assert!(lines.next().is_none());
    }

    #[test]
    fn failing_reader_is_reported_once() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk on fire"))
            }
        }
        assert!(open::text(Box::new(Failing), None, true).err().unwrap().text.contains("disk on fire"));
        let mut lines = Lines::new(begun(io::Cursor::new(b"a\n").chain(Failing)));
        assert_eq!(lines.next(), Some(line(1, "a")));
        assert!(lines.next().unwrap().unwrap_err().reason.contains("disk on fire"));
        assert!(lines.next().is_none());
    }
}
