//! Times, durations and counts in words.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use deadbeat_domain::json::instant;

/// An instant as pages show it: relative to now, as a clock time, and for machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// `12 min ago`, `in 4 min`.
    pub words: String,
    /// The distance from now, without its direction: `12 min`.
    pub span: String,
    /// `02:14:05 UTC`, with the date if that is not today.
    pub clock: String,
    /// `2026-07-01 02:14:05 UTC`.
    pub full: String,
    /// RFC 3339 with `Z`.
    pub machine: String,
}

impl Moment {
    /// Formats an instant for a page that is made at `now`.
    #[must_use]
    pub fn at(at: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        Self {
            words: relative(at, now),
            span: span((now - at).abs()),
            clock: clock(at, now),
            full: at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            machine: instant(at),
        }
    }
}

/// Returns the distance from now: `just now`, `12 min ago`, `in 4 min`.
fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let ago = now - at;
    // Clocks may differ by a second or so, and loading a page takes time.
    if ago.abs() < TimeDelta::seconds(2) {
        "just now".to_owned()
    } else if ago > TimeDelta::zero() {
        format!("{} ago", span(ago))
    } else {
        format!("in {}", span(-ago))
    }
}

/// Returns the clock time in UTC. It includes the date unless that is today.
fn clock(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let form = if at.date_naive() == now.date_naive() {
        "%H:%M:%S UTC"
    } else if at.year() == now.year() {
        "%-d %b %H:%M UTC"
    } else {
        "%-d %b %Y, %H:%M UTC"
    };
    at.format(form).to_string()
}

/// Formats a duration in its two largest units: `45 s`, `12 min`, `3 h 20 min`, `4 d 2 h`, `1 y 40 d`. Rounds down: a run that began 119 minutes ago
/// did not begin two hours ago.
#[must_use]
pub fn span(span: TimeDelta) -> String {
    let seconds = span.num_seconds();
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{large} {large_unit}")
        } else {
            format!("{large} {large_unit} {small} {small_unit}")
        }
    };
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        86_400..31_536_000 => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
        _ => two(seconds / 31_536_000, "y", seconds % 31_536_000 / 86_400, "d"),
    }
}

/// Formats a measured duration in seconds to about three digits: `4 ms`, `1.75 s`, `12.3 s`. From one minute on it is formatted like [`span`].
#[must_use]
pub fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.9995 => format!("{:.0} ms", seconds * 1_000.0),
        ..9.995 => format!("{seconds:.2} s"),
        ..59.95 => format!("{seconds:.1} s"),
        _ => span(deadbeat_domain::time::span(seconds)),
    }
}

/// Formats a number to about two digits: `0.03`, `4.2`, `117`.
#[must_use]
pub fn decimal(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        ..0.995 => format!("{number:.2}"),
        ..9.95 => format!("{number:.1}"),
        _ => grouped(number.round() as i64),
    }
}

/// Formats an amount of memory in its largest unit, to about two digits: `512 kB`, `4.2 MB`, `1.8 GB`.
#[must_use]
pub fn bytes(bytes: i64) -> String {
    let kilobytes = bytes as f64 / 1_000.0;
    match kilobytes {
        ..999.5 => format!("{} kB", decimal(kilobytes)),
        ..999_500.0 => format!("{} MB", decimal(kilobytes / 1_000.0)),
        _ => format!("{} GB", decimal(kilobytes / 1_000_000.0)),
    }
}

/// Formats a number with its noun: `1 monitor`, `1,204 monitors`.
#[must_use]
pub fn count(number: i64, singular: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {singular}{plural}", grouped(number))
}

/// Formats a number with separators between its thousands.
#[must_use]
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn durations_are_reported_by_their_two_largest_units() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (119, "1 min"),
            (3_599, "59 min"),
            (3_600, "1 h"),
            (7_199, "1 h 59 min"),
            (86_399, "23 h 59 min"),
            (86_400, "1 d"),
            (360_000, "4 d 4 h"),
            (31_535_999, "364 d 23 h"),
            (31_536_000, "1 y"),
            (35_000_000, "1 y 40 d"),
        ] {
            assert_eq!(span(TimeDelta::seconds(seconds)), words, "{seconds}");
        }
    }

    #[test]
    fn measured_durations_are_reported_as_finely_as_they_matter() {
        for (value, words) in [
            (0.0, "0 ms"),
            (0.0042, "4 ms"),
            (0.9994, "999 ms"),
            (0.9996, "1.00 s"),
            (1.754, "1.75 s"),
            (12.34, "12.3 s"),
            (59.96, "59 s"),
            (61.0, "1 min"),
            (7_300.0, "2 h 1 min"),
        ] {
            assert_eq!(seconds(value), words, "{value}");
        }
        for (value, words) in [
            (0.0, "0"),
            (0.034, "0.03"),
            (4.23, "4.2"),
            (116.6, "117"),
            (12_000.0, "12,000"),
        ] {
            assert_eq!(decimal(value), words, "{value}");
        }
    }

    #[test]
    fn memory_is_reported_in_its_largest_unit() {
        for (value, words) in [
            (0, "0 kB"),
            (4_200, "4.2 kB"),
            (999_400, "999 kB"),
            (999_600, "1.0 MB"),
            (412_000_000, "412 MB"),
            (999_600_000, "1.0 GB"),
            (17_300_000_000, "17 GB"),
        ] {
            assert_eq!(bytes(value), words, "{value}");
        }
    }

    #[test]
    fn instants_are_reported_beside_now_and_on_the_clock() {
        let now = at("2026-07-01T02:26:31Z");
        for (instant, words, clock) in [
            ("2026-07-01T02:26:31Z", "just now", "02:26:31 UTC"),
            ("2026-07-01T02:26:32.5Z", "just now", "02:26:32 UTC"),
            ("2026-07-01T02:26:29Z", "2 s ago", "02:26:29 UTC"),
            ("2026-07-01T02:14:05Z", "12 min ago", "02:14:05 UTC"),
            ("2026-07-01T02:31:00Z", "in 4 min", "02:31:00 UTC"),
            ("2026-06-30T23:00:00Z", "3 h 26 min ago", "30 Jun 23:00 UTC"),
            ("2025-12-31T00:00:00Z", "182 d 2 h ago", "31 Dec 2025, 00:00 UTC"),
        ] {
            let moment = Moment::at(at(instant), now);
            assert_eq!(
                (moment.words.as_str(), moment.clock.as_str()),
                (words, clock),
                "{instant}"
            );
        }
        let moment = Moment::at(at("2026-07-01T02:14:05Z"), now);
        assert_eq!(moment.machine, "2026-07-01T02:14:05Z");
        assert_eq!(moment.full, "2026-07-01 02:14:05 UTC");
    }

    #[test]
    fn no_instant_is_too_far() {
        let (first, last) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        for (instant, now) in [(first, last), (last, first)] {
            assert!(!Moment::at(instant, now).words.is_empty());
        }
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!(count(0, "monitor"), "0 monitors");
        assert_eq!(count(1, "monitor"), "1 monitor");
        assert_eq!(count(1_204, "monitor"), "1,204 monitors");
        assert_eq!(grouped(100_000), "100,000");
        assert_eq!(grouped(-1_234_567), "-1,234,567");
        assert_eq!(grouped(999), "999");
    }
}
