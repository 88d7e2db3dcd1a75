//! Snoozes: a person or a deploy script holds alerts for a while.

use chrono::TimeDelta;

/// The longest snooze: a day, in seconds.
pub const MOST_SNOOZE_SECONDS: i64 = 86_400;

/// The length of a snooze, as ping URLs write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// From a second to a day.
    Allowed(TimeDelta),
    /// No time at all, or more than a day.
    OutOfRange,
}

/// Reads a length such as `90s`, `20m` or `2h`. None: the text is no length, so the URL has another meaning.
#[must_use]
pub fn read_length(text: &str) -> Option<Length> {
    let (digits, seconds) = if let Some(digits) = text.strip_suffix('s') {
        (digits, 1)
    } else if let Some(digits) = text.strip_suffix('m') {
        (digits, 60)
    } else {
        (text.strip_suffix('h')?, 3_600)
    };
    if digits.is_empty() || digits.len() > 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = digits
        .parse::<i64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds));
    Some(match seconds {
        Some(seconds) if (1..=MOST_SNOOZE_SECONDS).contains(&seconds) => {
            Length::Allowed(TimeDelta::seconds(seconds))
        }
        _ => Length::OutOfRange,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_a_unit_and_is_a_day_at_most() {
        let allowed = |seconds| Some(Length::Allowed(TimeDelta::seconds(seconds)));
        for (text, expected) in [
            ("20m", allowed(1_200)),
            ("1s", allowed(1)),
            ("24h", allowed(86_400)),
            ("86400s", allowed(86_400)),
            ("86401s", Some(Length::OutOfRange)),
            ("25h", Some(Length::OutOfRange)),
            ("0m", Some(Length::OutOfRange)),
            ("99999999999999999999h", Some(Length::OutOfRange)),
            // Exit codes, actions and other texts.
            ("20", None),
            ("m", None),
            ("", None),
            ("-5m", None),
            ("1.5h", None),
            ("20M", None),
            ("1d", None),
            ("start", None),
            ("999999999999999999999h", None),
        ] {
            assert_eq!(read_length(text), expected, "{text}");
        }
    }
}
