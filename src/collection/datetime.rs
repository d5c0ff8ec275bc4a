//! RFC 3339 text <-> microseconds since 1970-01-01T00:00:00Z; alone names `jiff`.
//!
//! Read: `2024-01-31` (midnight UTC), `2024-01-31T10:00:00Z`, with an offset, with a fraction of a second (cut after
//! microseconds), with a space for the `T`. A datetime without an offset is taken as UTC. Written: always UTC, `Z`.

use jiff::{Timestamp, civil, tz::TimeZone};

/// 0001-01-01T00:00:00Z, the first moment that payloads and filters may hold.
pub const MICROS_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-30T22:00:00Z, the last one (it can still be written in every time zone).
pub const MICROS_MAX: i64 = 253_402_207_200_000_000;

/// Reads a date or datetime; `None` if it is none or outside [`MICROS_MIN`] to [`MICROS_MAX`].
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if !starts_like_date(bytes) || !text.is_ascii() {
        return None;
    }
    let micros = if bytes.len() == 10 {
        at_utc(text.parse::<civil::Date>().ok()?.at(0, 0, 0, 0))?
    } else {
        let time = &bytes[11..];
        let allowed = |b: &u8| b.is_ascii_digit() || b":.,+-Zz".contains(b);
        // Hours and minutes at least; jiff also reads forms that RFC 3339 does not have.
        if !b"Tt ".contains(&bytes[10]) || time.get(2) != Some(&b':') || !time.iter().all(allowed) {
            return None;
        }
        let has_offset = time.iter().any(|b| b"Zz+-".contains(b));
        if has_offset {
            text.parse::<Timestamp>().ok()?.as_microsecond()
        } else {
            at_utc(text.parse::<civil::DateTime>().ok()?)?
        }
    };
    in_bounds(micros).then_some(micros)
}

/// The present moment; 0 on a clock that stands before 1970.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Writes a moment as `2024-01-31T10:00:00Z`, with a fraction only where it is not zero.
/// A moment out of bounds is written as the nearest bound.
pub fn format(micros: i64) -> String {
    Timestamp::from_microsecond(micros.clamp(MICROS_MIN, MICROS_MAX))
        .expect("the bounds lie inside jiff's")
        .to_string()
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

fn at_utc(moment: civil::DateTime) -> Option<i64> {
    Some(TimeZone::UTC.to_timestamp(moment).ok()?.as_microsecond())
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
            ("1970-01-01T00:00:00.000001Z", 1),
            ("1970-01-01T00:00:00.0000019Z", 1),
            ("1970-01-01T00:00:01", 1_000_000),
            ("2024-01-31T10:00:00Z", 1_706_695_200_000_000),
            ("1969-12-31T23:59:59Z", -1_000_000),
            ("0001-01-01", MICROS_MIN),
        ] {
            assert_eq!(parse(text), Some(micros), "{text}");
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
            "2024-01-31x",
            "0000-01-01",
            "2024-01-3é",
            " 2024-01-31",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn out_of_bounds_is_written_as_the_bound() {
        assert_eq!(format(i64::MIN), "0001-01-01T00:00:00Z");
        assert_eq!(format(i64::MAX), "9999-12-30T22:00:00Z");
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
    }
}
