//! Converts between RFC 3339 text and microseconds since 1970-01-01T00:00:00Z. Only this file uses `jiff`.
//!
//! It reads `2024-01-31` (midnight UTC) and `2024-01-31T10:00:00Z`, with an offset, with a fraction of a second (cut
//! after microseconds) and with a space in place of the `T`. A datetime without an offset is UTC. It always writes UTC
//! with a `Z`.
//!
//! Every date of the years 1 to 9999 can be held, since many use `9999-12-31` for "no end". A datetime whose offset
//! takes it past either end (`9999-12-31T23:59:59-05:00`) is read as that end. Moments are computed as days of the
//! calendar, because `jiff`'s own timestamps end a day earlier.

use jiff::{SignedDuration, civil};

/// 0001-01-01T00:00:00Z, the first moment that payloads and filters may hold.
pub const MICROS_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z, the last one.
pub const MICROS_MAX: i64 = 253_402_300_799_999_999;

const EPOCH: civil::DateTime = civil::date(1970, 1, 1).at(0, 0, 0, 0);

/// Why a text is not a moment that can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It does not look like a date, or names a day or time that does not exist.
    NoDate,
    /// It is a date outside the years 1 to 9999.
    OutOfBounds,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unreadable::NoDate => "no date or datetime such as 2024-01-31 or 2024-01-31T10:00:00Z",
            Unreadable::OutOfBounds => "outside the years 1 to 9999, which a date may have",
        })
    }
}

/// Reads a date or datetime, in microseconds since 1970; `None` if it is neither or outside the years 1 to 9999.
///
/// ```
/// use distilface::value::datetime;
///
/// let micros = datetime::parse("2024-01-31T10:00:00+01:00").unwrap();
/// assert_eq!(datetime::format(micros), "2024-01-31T09:00:00Z");
/// ```
pub fn parse(text: &str) -> Option<i64> {
    read(text).ok()
}

/// Reads a date or datetime, or says why it cannot.
///
/// # Errors
/// [`Unreadable`].
pub fn read(text: &str) -> Result<i64, Unreadable> {
    let bytes = text.as_bytes();
    if !starts_like_date(bytes) || !text.is_ascii() {
        return Err(if starts_like_far_date(bytes) { Unreadable::OutOfBounds } else { Unreadable::NoDate });
    }
    if bytes.starts_with(b"0000") {
        return Err(Unreadable::OutOfBounds);
    }
    read_civil(text).ok_or(Unreadable::NoDate)
}

/// Reads a text that begins like a date of the years 1 to 9999.
fn read_civil(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() == 10 {
        return Some(micros_of(text.parse::<civil::Date>().ok()?.at(0, 0, 0, 0), 0));
    }
    let time = &bytes[11..];
    let allowed = |b: &u8| b.is_ascii_digit() || b":.,+-Zz".contains(b);
    // Hours and minutes at least; jiff also reads forms that RFC 3339 does not have.
    if !b"Tt ".contains(&bytes[10]) || time.get(2) != Some(&b':') || !time.iter().all(allowed) {
        return None;
    }
    let (moment, offset_seconds) = match time.iter().position(|b| b"Zz+-".contains(b)) {
        None => (text, 0),
        Some(at) => {
            let (moment, offset) = text.split_at(11 + at);
            (moment, offset_seconds(offset)?)
        }
    };
    Some(micros_of(moment.parse::<civil::DateTime>().ok()?, offset_seconds))
}

/// `Z`, `+01:00`, `+0100` or `+01`, in seconds east of UTC.
fn offset_seconds(offset: &str) -> Option<i64> {
    let sign = match offset.as_bytes() {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let (hours, minutes) = match offset.as_bytes()[1..] {
        [h, i] => ([h, i], [b'0', b'0']),
        [h, i, m, n] | [h, i, b':', m, n] => ([h, i], [m, n]),
        _ => return None,
    };
    let number = |digits: [u8; 2], below: i64| {
        let all = digits.iter().all(u8::is_ascii_digit);
        let value = i64::from(digits[0].wrapping_sub(b'0')) * 10 + i64::from(digits[1].wrapping_sub(b'0'));
        (all && value < below).then_some(value)
    };
    Some(sign * (number(hours, 24)? * 3600 + number(minutes, 60)? * 60))
}

/// The moment at which clocks with this offset show a date and time, within the bounds.
fn micros_of(moment: civil::DateTime, offset_seconds: i64) -> i64 {
    let micros =
        moment.duration_since(EPOCH).as_nanos().div_euclid(1000) - i128::from(offset_seconds) * 1_000_000;
    let micros = i64::try_from(micros).expect("the years 1 to 9999 have fewer than 2^63 microseconds");
    micros.clamp(MICROS_MIN, MICROS_MAX)
}

/// The present moment; 0 if the clock is set before 1970.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Writes a moment as `2024-01-31T10:00:00Z`, with a fraction only where it is not zero.
/// A moment out of bounds is written as the nearest bound.
pub fn format(micros: i64) -> String {
    let since = SignedDuration::from_micros(micros.clamp(MICROS_MIN, MICROS_MAX));
    let moment = EPOCH.checked_add(since).expect("the bounds lie inside jiff's calendar");
    format!("{moment}Z")
}

/// Whether payloads and filters may hold this moment.
pub fn in_bounds(micros: i64) -> bool {
    (MICROS_MIN..=MICROS_MAX).contains(&micros)
}

/// Whether text begins with four digits, `-`, two digits, `-`, two digits.
pub(crate) fn starts_like_date(bytes: &[u8]) -> bool {
    bytes.len() >= 10
        && bytes[..10].iter().enumerate().all(|(i, b)| match i {
            4 | 7 => *b == b'-',
            _ => b.is_ascii_digit(),
        })
}

/// Whether text begins like a date with a sign or more than four digits of a year.
pub(crate) fn starts_like_far_date(bytes: &[u8]) -> bool {
    let unsigned = bytes.strip_prefix(b"-").or(bytes.strip_prefix(b"+"));
    let digits = unsigned.unwrap_or(bytes).iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = &unsigned.unwrap_or(bytes)[digits..];
    let more = if unsigned.is_some() { digits >= 4 } else { digits >= 5 };
    more && rest.len() >= 6
        && rest[..6].iter().enumerate().all(|(i, b)| match i {
            0 | 3 => *b == b'-',
            _ => b.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_rfc_3339_says() {
        for (text, micros) in [
            ("1970-01-01", 0),
            ("1970-01-01T00:00:01Z", 1_000_000),
            ("1970-01-01t00:00:01z", 1_000_000),
            ("1970-01-01 00:00:01Z", 1_000_000),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1970-01-01T01:00:00+0100", 0),
            ("1970-01-01T01:00:00+01", 0),
            ("1970-01-01T00:00:00.000001Z", 1),
            ("1970-01-01T00:00:00.0000019Z", 1),
            ("1969-12-31T23:59:59.9999999Z", -1),
            ("1970-01-01T00:00:01", 1_000_000),
            ("1970-01-01T00:00", 0),
            ("2024-01-31T10:00:00Z", 1_706_695_200_000_000),
            ("1969-12-31T23:59:59Z", -1_000_000),
            ("0001-01-01", MICROS_MIN),
        ] {
            assert_eq!(parse(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn both_ends_of_the_calendar_can_be_held_whatever_the_offset() {
        for (text, micros, written) in [
            ("9999-12-31", 253_402_214_400_000_000, "9999-12-31T00:00:00Z"),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000, "9999-12-31T23:59:59Z"),
            ("9999-12-31T23:59:59.999999999Z", MICROS_MAX, "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T23:59:59+14:00", 253_402_250_399_000_000, "9999-12-31T09:59:59Z"),
            ("9999-12-31T23:59:59-05:00", MICROS_MAX, "9999-12-31T23:59:59.999999Z"),
            ("0001-01-01", MICROS_MIN, "0001-01-01T00:00:00Z"),
            ("0001-01-01T00:00:00-12:00", MICROS_MIN + 43_200_000_000, "0001-01-01T12:00:00Z"),
            ("0001-01-01T00:00:00+05:00", MICROS_MIN, "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(text), Ok(micros), "{text}");
            assert_eq!(format(micros), written, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "2024",
            "2024-1-31",
            "2024-13-01",
            "2024-02-30",
            "20240131",
            "2024-01-31T",
            "2024-01-31T10",
            "2024-01-31T25:00:00Z",
            "2024-01-31T10:00:00Z[Europe/Berlin]",
            "2024-01-31T10:00:00+24:00",
            "2024-01-31T10:00:00+1",
            "2024-01-31T10:00:00ZZ",
            "2024-01-31x",
            "2024-01-3é",
            " 2024-01-31",
        ] {
            assert_eq!(read(text), Err(Unreadable::NoDate), "{text}");
        }
        for text in ["0000-01-01", "10000-01-01", "-0044-03-15", "+12345-01-01T00:00:00Z"] {
            assert_eq!(read(text), Err(Unreadable::OutOfBounds), "{text}");
        }
    }

    #[test]
    fn out_of_bounds_is_written_as_the_bound() {
        assert_eq!(format(i64::MIN), "0001-01-01T00:00:00Z");
        assert_eq!(format(i64::MAX), "9999-12-31T23:59:59.999999Z");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(micros in MICROS_MIN..=MICROS_MAX) {
            prop_assert_eq!(parse(&format(micros)), Some(micros));
        }

        #[test]
        fn nothing_panics(text in "[0-9TZ:.+ é-]{0,30}") {
            let _ = parse(&text);
        }

        #[test]
        fn dates_of_every_shape_do_not_panic(
            date in "[0-9]{4}-[01][0-9]-[0-3][0-9]", rest in "(T[0-2][0-9]:[0-5][0-9](:[0-5][0-9])?)?([Z+-][0-9:]{0,6})?"
        ) {
            let _ = parse(&format!("{date}{rest}"));
        }
    }
}
