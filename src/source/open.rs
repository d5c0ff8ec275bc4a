//! Raw bytes become the bytes of a text: they are unpacked, decoded from UTF-16, and lose their byte order mark. Bytes
//! that are no text are refused with what they are. Only this file uses `flate2`, and, beside the store, `zstd`.
//!
//! What is packed is known by its first bytes, not by its name; a name that ends in `.gz` or `.zst` must keep its word.
//! What the libraries can do to us: a few packed bytes become any number of zeros. The guards are [`Unpacked`], and the
//! readers behind it, which keep one bounded record at a time; zstd itself takes no window above 128 MiB.

use std::{
    io::{self, BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::lines::not_utf8;

/// A boxed reader, as one thread hands it to another.
pub(super) type Bytes = Box<dyn Read + Send>;

/// Bytes of the beginning that are looked at, where that needs no waiting.
pub(super) const HEAD_BYTES: usize = 1 << 16;
/// Packed bytes that are read ahead. They count as read, so that many would show a small file as done at its beginning.
const PACKED_AHEAD: usize = 4 << 10;
/// Unpacked bytes beyond which the ratio is looked at.
const UNPACKED_BYTES_FREE: u64 = 256 << 20;
/// Largest ratio of unpacked to packed bytes. Text hardly reaches 30; a gzip file of zeros has 1,000.
const RATIO_MAX: u64 = 300;

/// A text from behind its byte order mark on.
pub(super) struct Unmarked {
    pub(super) reader: Bytes,
    /// Bytes of the mark.
    pub(super) skipped: u64,
    /// What the reader begins with: up to [`HEAD_BYTES`], less where more has not arrived yet.
    pub(super) head: Vec<u8>,
    /// Whether the bytes of the file are not those of the reader.
    pub(super) converted: bool,
}

/// Why a text could not be begun.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) text: String,
    /// Whether it is the fault of the text (else of the disk).
    pub(super) in_text: bool,
}

/// The packing that a file's name promises.
pub(super) fn packing(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    ["gz", "zst"].into_iter().find(|ending| name.ends_with(&format!(".{ending}")))
}

/// Begins a text. `packed` is what the name promises ([`packing`]); `wait` fills the whole head, which a pipe may not
/// be asked for.
pub(super) fn text(raw: Bytes, packed: Option<&str>, wait: bool) -> Result<Unmarked, Refused> {
    let (head, raw) = begin(raw, wait)?;
    let is = known(&head);
    let unpack = match is {
        Some("gzip") => Some("gz"),
        Some("zstd") => Some("zst"),
        _ => None,
    };
    if let Some(promised) = packed
        && unpack != Some(promised)
    {
        let text = format!("it cannot be unpacked: its name ends in .{promised}, and it is not packed so");
        return Err(Refused { text, in_text: false });
    }
    if let (None, Some(what)) = (unpack, is) {
        return Err(binary(&format!("it is {what}")));
    }
    let (head, raw) = match unpack {
        None => (head, raw),
        Some(how) => {
            let packed_bytes = Arc::new(AtomicU64::new(0));
            let counted = Counted { inner: raw, bytes: Arc::clone(&packed_bytes) };
            let inner: Bytes = if how == "gz" {
                Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(
                    PACKED_AHEAD,
                    counted,
                )))
            } else {
                let ahead = BufReader::with_capacity(PACKED_AHEAD, counted);
                let decoder = zstd::stream::read::Decoder::with_buffer(ahead)
                    .map_err(|e| Refused { text: said(&e), in_text: false })?;
                Box::new(decoder)
            };
            begin(Box::new(Unpacked { inner, packed_bytes, bytes: 0 }), wait)?
        }
    };
    let converted = unpack.is_some();
    let (head, raw, converted) = match head.get(..2) {
        Some([0xff, 0xfe]) => {
            let (head, raw) = begin(Box::new(Utf16::new(raw, u16::from_le_bytes)), wait)?;
            (head, raw, true)
        }
        Some([0xfe, 0xff]) => {
            let (head, raw) = begin(Box::new(Utf16::new(raw, u16::from_be_bytes)), wait)?;
            (head, raw, true)
        }
        _ => (head, raw, converted),
    };
    if let Some(at) = head.iter().position(|byte| *byte == 0) {
        return Err(binary(&format!("byte {at} is NUL")));
    }
    let skipped = if head.starts_with(&[0xef, 0xbb, 0xbf]) { 3 } else { 0 };
    let mut reader = raw;
    if skipped > 0 {
        // It lies in the head and so in memory.
        io::copy(&mut reader.by_ref().take(skipped), &mut io::sink())
            .map_err(|e| Refused { text: said(&e), in_text: false })?;
    }
    Ok(Unmarked { reader, skipped, head: head[skipped as usize..].to_vec(), converted })
}

fn binary(why: &str) -> Refused {
    Refused { text: format!("binary, not text: {why}"), in_text: false }
}

/// The beginning of a reader, and the reader as it was before.
fn begin(mut raw: Bytes, wait: bool) -> Result<(Vec<u8>, Bytes), Refused> {
    /// Enough to tell what it is.
    const LEAST: usize = 8;
    let mut head = vec![0; HEAD_BYTES];
    let mut filled = 0;
    let most = if wait { HEAD_BYTES } else { LEAST };
    let mut failed = None;
    while filled < most {
        match raw.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if filled == 0 => return Err(Refused { text: said(&e), in_text: false }),
            // What was read before it is read first.
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    head.truncate(filled);
    let start = Cursor::new(head.clone());
    let rest: Bytes = match failed {
        Some(e) => Box::new(Failed(Some(e))),
        None => raw,
    };
    Ok((head, Box::new(start.chain(rest))))
}

/// Describes an error for people. The decoders here describe what is wrong with the bytes themselves, by the kind
/// `InvalidData`.
pub(super) fn said(e: &io::Error) -> String {
    if e.kind() == io::ErrorKind::InvalidData { e.to_string() } else { format!("cannot read it: {e}") }
}

/// Reports an error that occurred while looking ahead.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// What a file is by its first bytes, of those that are met where texts are meant.
fn known(head: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 12] = [
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "packed with xz, which is not read here; unpack it first"),
        (b"BZh91AY&SY", "packed with bzip2, which is not read here; unpack it first"),
        (b"PK\x03\x04", "a zip archive (or an office document, which is one); unpack it, or save it as text"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
        (b"%PDF-", "a PDF; take its text out first, for example with `pdftotext`"),
        (b"\x89PNG", "an image"),
        (b"\xff\xd8\xff", "an image"),
        (b"GIF8", "an image"),
        (b"\x7fELF", "a program"),
        (b"PAR1", "a Parquet file; convert it to JSON lines or CSV"),
    ];
    KNOWN.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, what)| *what)
}

struct Counted {
    inner: Bytes,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// Fails where packed bytes become too many.
struct Unpacked {
    inner: Bytes,
    packed_bytes: Arc<AtomicU64>,
    bytes: u64,
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            _ => io::Error::new(io::ErrorKind::InvalidData, format!("it cannot be unpacked: {e}")),
        })?;
        self.bytes += bytes as u64;
        let packed = self.packed_bytes.load(Ordering::Relaxed);
        if self.bytes > UNPACKED_BYTES_FREE && self.bytes / RATIO_MAX > packed {
            let reason = format!(
                "{packed} packed bytes became more than {RATIO_MAX} times as many: that is no text; the rest is left out"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(bytes)
    }
}

/// Decodes UTF-16 to UTF-8, its byte order mark included.
struct Utf16 {
    inner: BufReader<Bytes>,
    unit: fn([u8; 2]) -> u16,
    /// Decoded bytes that were not yet asked for, and how many of them were.
    ready: Vec<u8>,
    at: usize,
    /// The first half of a pair.
    half: Option<u16>,
    /// Bytes decoded, for messages.
    offset: u64,
}

impl Utf16 {
    fn new(inner: Bytes, unit: fn([u8; 2]) -> u16) -> Self {
        let inner = BufReader::with_capacity(1 << 16, inner);
        Utf16 { inner, unit, ready: Vec::new(), at: 0, half: None, offset: 0 }
    }

    fn refuse(&self) -> io::Error {
        let reason = format!("byte {}: not UTF-16, as the mark at its beginning says", self.offset);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }

    /// Decodes up to a few thousand characters.
    fn decode(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.at = 0;
        while self.ready.len() < 1 << 13 {
            let mut unit = [0; 2];
            let mut filled = 0;
            while filled < 2 {
                match self.inner.read(&mut unit[filled..]) {
                    Ok(0) => break,
                    Ok(bytes) => filled += bytes,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            match filled {
                0 if self.half.is_none() => return Ok(()),
                2 => {}
                _ => return Err(self.refuse()),
            }
            let unit = (self.unit)(unit);
            let units = match self.half.take() {
                Some(first) => [first, unit],
                None if (0xd800..0xdc00).contains(&unit) => {
                    self.half = Some(unit);
                    continue;
                }
                None => [unit, 0],
            };
            let used = if units[1] == 0 && !(0xd800..0xdc00).contains(&units[0]) { 1 } else { 2 };
            match char::decode_utf16(units[..used].iter().copied()).next() {
                Some(Ok(c)) => self.ready.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => return Err(self.refuse()),
            }
            self.offset += 2 * used as u64;
        }
        Ok(())
    }
}

impl Read for Utf16 {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() {
            self.decode()?;
        }
        let bytes = buffer.len().min(self.ready.len() - self.at);
        buffer[..bytes].copy_from_slice(&self.ready[self.at..self.at + bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}

/// Why a whole text could not be read.
#[derive(Debug)]
pub(crate) struct NotText {
    /// The line, from 1; `None` where the fault is not in a line.
    pub(crate) line: Option<u64>,
    pub(crate) reason: String,
}

/// A whole text, for readers of other forms than documents. `name` tells by its ending whether it must be packed.
///
/// # Errors
/// What is no text, or is damaged; the line that is not UTF-8.
pub(crate) fn whole_text(name: &str, raw: impl Read + Send + 'static) -> Result<String, NotText> {
    let in_file = |reason: String| NotText { line: None, reason };
    let mut input = text(Box::new(raw), packing(name), true).map_err(|refused| in_file(refused.text))?;
    let mut bytes = Vec::new();
    input.reader.read_to_end(&mut bytes).map_err(|e| in_file(said(&e)))?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() as u64;
        NotText { line: Some(line), reason: not_utf8(input.skipped + valid as u64) }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(content).unwrap();
        packed.finish().unwrap()
    }

    fn whole(name: &str, bytes: &[u8]) -> Result<String, NotText> {
        whole_text(name, Cursor::new(bytes.to_vec()))
    }

    fn utf16(text: &str, little: bool) -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        units.flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    }

    #[test]
    fn packed_and_marked_texts_read_as_what_is_in_them() {
        let text = "Zwölf Boxkämpfer 🥊\n".repeat(5000);
        assert_eq!(whole("a.txt", text.as_bytes()).unwrap(), text);
        assert_eq!(whole("a.txt", format!("\u{feff}{text}").as_bytes()).unwrap(), text);
        let packed = gzip(text.as_bytes());
        assert_eq!(whole("a.gz", &packed).unwrap(), text);
        assert_eq!(whole("noext", &packed).unwrap(), text);
        // Two members behind one another are one file.
        assert_eq!(whole("a.GZ", &[gzip(b"a\n"), gzip(b"b\n")].concat()).unwrap(), "a\nb\n");
        let packed = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
        assert_eq!(whole("a.txt.zst", &packed).unwrap(), text);
        for little in [true, false] {
            assert_eq!(whole("a.txt", &utf16(&text, little)).unwrap(), text);
            assert_eq!(whole("a.gz", &gzip(&utf16(&text, little))).unwrap(), text);
        }
        assert_eq!(whole("a.txt", b"").unwrap(), "");
    }

    #[test]
    fn what_is_no_text_is_refused_by_what_it_is() {
        let packed = gzip(&[b'a'; 4000]);
        for (name, bytes, part) in [
            ("a.gz", &b"plain"[..], "name ends in .gz"),
            ("a.zst", &packed, "name ends in .zst"),
            ("a.gz", &packed[..packed.len() - 8], "cannot be unpacked"),
            ("a.txt", b"ab\0c", "binary, not text: byte 2 is NUL"),
            ("a", b"%PDF-1.7", "a PDF"),
            ("a", b"PK\x03\x04....", "a zip archive"),
            ("a", b"\x89PNG\r\n", "an image"),
            ("a", b"\xff\xfea", "not UTF-16"),
            ("a", b"\xff\xfe\x00\xdc", "not UTF-16"),
        ] {
            let error = whole(name, bytes).unwrap_err();
            assert!(error.reason.contains(part), "{name}: {error:?}");
        }
        let error = whole("a", b"one\nzw\xf6lf").unwrap_err();
        assert_eq!(error.line, Some(2));
    }

    #[test]
    fn a_bomb_is_left_after_a_bounded_part() {
        let zeros = vec![b' '; 1 << 20];
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..400 {
            packed.write_all(&zeros).unwrap();
        }
        let packed = packed.finish().unwrap();
        let mut input =
            text(Box::new(Cursor::new(packed)), Some("gz"), true).unwrap_or_else(|e| panic!("{e:?}"));
        let error = io::copy(&mut input.reader, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("that is no text"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic in 0usize..5) {
            let magics: [&[u8]; 5] = [b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"\xef\xbb\xbf"];
            bytes.splice(0..0, magics[magic].iter().copied());
            let _ = whole("a", &bytes);
        }
    }
}
