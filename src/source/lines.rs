//! Bytes -> lines of UTF-8, numbered from 1, of bounded length. A line that is no UTF-8 or too long is an error, and
//! the next one is read as if nothing had been. `\r\n` ends a line like `\n`.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use super::RECORD_BYTES_MAX;

/// A reader behind its byte order mark.
pub(super) struct Unmarked {
    pub(super) reader: Box<dyn Read + Send>,
    /// Bytes of the mark.
    pub(super) skipped: u64,
}

/// Why a reader could not be begun.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) text: String,
    /// Whether it is the fault of the text (else of the disk).
    pub(super) in_text: bool,
}

/// Takes the byte order mark of UTF-8 off; those of UTF-16 are refused.
pub(super) fn without_bom(mut reader: Box<dyn Read + Send>) -> Result<Unmarked, Refused> {
    let mut start = Vec::with_capacity(3);
    if let Err(e) = reader.by_ref().take(3).read_to_end(&mut start) {
        return Err(Refused { text: format!("cannot read it: {e}"), in_text: false });
    }
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
        let text = "byte 0: not UTF-8 but UTF-16; convert it, for example with `iconv -f UTF-16 -t UTF-8`";
        return Err(Refused { text: text.into(), in_text: true });
    }
    let skipped = if start == [0xef, 0xbb, 0xbf] { 3 } else { 0 };
    let rest = start.split_off(skipped);
    Ok(Unmarked { reader: Box::new(Cursor::new(rest).chain(reader)), skipped: skipped as u64 })
}

/// A line without its end.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) text: String,
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
    /// Of the next line in the file.
    offset: u64,
    bytes_max: usize,
    broken: bool,
}

impl Lines {
    pub(super) fn new(input: Unmarked) -> Self {
        Self::with_max(input, RECORD_BYTES_MAX)
    }

    pub(super) fn with_max(input: Unmarked, bytes_max: usize) -> Self {
        let reader = BufReader::with_capacity(1 << 16, input.reader);
        Lines { reader, number: 0, offset: input.skipped, bytes_max, broken: false }
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
            let end = buffer.iter().position(|byte| *byte == b'\n');
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
        if line.last() == Some(&b'\n') {
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
    use super::*;

    fn lines_of(bytes: &'static [u8], bytes_max: usize) -> Vec<Result<Line, LineError>> {
        let input = without_bom(Box::new(bytes)).unwrap();
        Lines::with_max(input, bytes_max).collect()
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
        let endless = without_bom(Box::new(io::repeat(b'x').take(1 << 24))).unwrap();
        let mut lines = Lines::with_max(endless, 1 << 10);
        assert!(lines.next().unwrap().is_err());
        assert!(lines.next().is_none());
    }

    #[test]
    fn utf16_is_refused() {
        let refused = without_bom(Box::new(&b"\xff\xfea\0"[..])).err().unwrap();
        assert!(refused.in_text && refused.text.contains("UTF-16"));
    }

    #[test]
    fn failing_reader_is_reported_once() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk on fire"))
            }
        }
        assert!(without_bom(Box::new(Failing)).err().unwrap().text.contains("disk on fire"));
        let mut lines =
            Lines::new(Unmarked { reader: Box::new(Cursor::new(b"a\n").chain(Failing)), skipped: 0 });
        assert_eq!(lines.next(), Some(line(1, "a")));
        assert!(lines.next().unwrap().unwrap_err().reason.contains("disk on fire"));
        assert!(lines.next().is_none());
    }
}
