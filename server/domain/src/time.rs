//! The clock as a value, so that tests can stop it.

use chrono::{DateTime, Datelike, SubsecRound, TimeDelta, Utc};

/// The source of the current time. `app/src/clock.rs` reads the system's clock; tests stop theirs.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time, in whole microseconds. PostgreSQL keeps no more, so a stored instant equals the one that is
    /// read back.
    fn now(&self) -> DateTime<Utc>;
}

/// Cuts an instant to the microseconds that PostgreSQL keeps.
#[must_use]
pub fn to_micros(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(6)
}

/// Reads an instant in RFC 3339 form, cut to microseconds. None for any other form: chrono's reader accepts more than
/// RFC 3339.
///
/// Every returned instant can be written in RFC 3339 again. An instant whose offset leads out of the years 0 to 9999 is
/// refused, because RFC 3339 cannot write it. A leap second becomes the second after it, as in PostgreSQL.
#[must_use]
pub fn read_instant(text: &str) -> Option<DateTime<Utc>> {
    let blank_between = text.as_bytes().get(10) == Some(&b' ');
    let read = DateTime::parse_from_rfc3339(text)
        .ok()
        .filter(|_| !blank_between)?;
    let instant = DateTime::from_timestamp_micros(read.timestamp_micros())?;
    (0..=9_999).contains(&instant.year()).then_some(instant)
}

/// Converts seconds, as the API writes them, to a time span.
///
/// Values beyond ±10,000 years are cut to that bound, and NaN becomes 0. Settings are checked long before.
#[must_use]
pub fn span(seconds: f64) -> TimeDelta {
    const BOUND: f64 = 3.2e11;
    let seconds = if seconds.is_nan() {
        0.0
    } else {
        seconds.clamp(-BOUND, BOUND)
    };
    TimeDelta::microseconds((seconds * 1e6) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_that_is_read_can_be_written_and_read_again() {
        let table = [
            ("2026-03-29T02:00:00+02:00", Some("2026-03-29T00:00:00Z")),
            (
                "2026-03-29t00:00:00.1234567z",
                Some("2026-03-29T00:00:00.123456Z"),
            ),
            ("2016-12-31T23:59:60.5Z", Some("2017-01-01T00:00:00.500Z")),
            ("0000-01-01T00:00:00Z", Some("0000-01-01T00:00:00Z")),
            ("9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59Z")),
            ("9999-12-31T23:59:59-00:01", None),
            ("0000-01-01T00:00:00+00:01", None),
            ("+10000-01-01T00:00:00Z", None),
            ("2026-03-29 00:00:00Z", None),
            ("2026-3-29T00:00:00Z", None),
            ("2026-03-29T00:00:00", None),
            ("2026-03-29", None),
            ("2026-02-30T00:00:00Z", None),
            ("", None),
        ];
        for (text, expected) in table {
            let written =
                read_instant(text).map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
            assert_eq!(written.as_deref(), expected, "{text}");
            if let Some(written) = written {
                assert_eq!(read_instant(&written), read_instant(text), "{text}");
            }
        }
    }
}
