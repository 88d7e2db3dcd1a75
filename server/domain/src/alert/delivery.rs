//! Deliveries: how an attempt can end, and when the next one comes.

use chrono::{DateTime, TimeDelta, Utc};

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver accepted the message.
    Sent {
        /// HTTP or SMTP code.
        code: Option<i32>,
    },
    /// A passing fault: try again.
    Retry {
        /// HTTP or SMTP code.
        code: Option<i32>,
        /// The fault, for a person.
        detail: String,
        /// The wait that the receiver asked for.
        retry_after: Option<TimeDelta>,
    },
    /// A permanent fault: it will never work like this, so the channel is switched off.
    Failed {
        /// HTTP or SMTP code.
        code: Option<i32>,
        /// What a person must repair.
        detail: String,
    },
}

/// How long a delivery is retried.
pub const PATIENCE: TimeDelta = TimeDelta::hours(24);

/// Whether an unsettled delivery is too old to send. Example: the outbox of a restored backup holds alerts of a day
/// that is over.
#[must_use]
pub fn is_too_old(created_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - created_at > PATIENCE
}

/// Waits between attempts, in seconds; the last one repeats. Early attempts follow closely, because an alert is worth
/// most while it is fresh.
const WAITS: [i64; 9] = [2, 5, 15, 30, 60, 300, 900, 1_800, 3_600];

/// When to try again after attempt number `attempt` (from 1) failed at `now`. None: the day is over.
///
/// `jitter` in 0..1 spreads the attempts by ±20 %, so that a thousand deliveries to one failing endpoint do not return
/// at one moment. A `Retry-After` of the receiver is honoured up to an hour.
#[must_use]
pub fn next_attempt(
    created_at: DateTime<Utc>,
    attempt: i32,
    retry_after: Option<TimeDelta>,
    jitter: f64,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let index = usize::try_from(attempt.max(1) - 1)
        .unwrap_or(usize::MAX)
        .min(WAITS.len() - 1);
    let seconds = WAITS[index] as f64 * (0.8 + 0.4 * jitter.clamp(0.0, 1.0));
    let wait = TimeDelta::milliseconds((seconds * 1000.0) as i64);
    let asked = retry_after
        .unwrap_or_default()
        .clamp(TimeDelta::zero(), TimeDelta::hours(1));
    let at = now + wait.max(asked);
    (at <= created_at + PATIENCE).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn tries_come_soon_at_first_and_end_after_a_day() {
        assert_eq!(next_attempt(at(0), 1, None, 0.5, at(0)), Some(at(2)));
        let mut now = at(0);
        let mut attempts = 1;
        while let Some(next) = next_attempt(at(0), attempts, None, 0.5, now) {
            assert!(next > now);
            now = next;
            attempts += 1;
        }
        assert!(now <= at(86_400));
        assert!(
            now >= at(86_400 - 2 * 3_600),
            "gave up {} s after the start",
            (now - at(0)).num_seconds()
        );
    }

    #[test]
    fn what_waited_for_more_than_a_day_is_too_old() {
        assert!(!is_too_old(at(0), at(86_400)));
        assert!(is_too_old(at(0), at(86_401)));
        assert!(!is_too_old(at(10), at(0)), "the clock was stepped back");
    }

    #[test]
    fn retry_after_is_honoured_up_to_an_hour() {
        assert_eq!(
            next_attempt(at(0), 1, Some(TimeDelta::seconds(90)), 0.0, at(0)),
            Some(at(90))
        );
        assert_eq!(
            next_attempt(at(0), 1, Some(TimeDelta::days(9)), 0.0, at(0)),
            Some(at(3_600))
        );
        assert_eq!(
            next_attempt(at(0), 1, Some(TimeDelta::seconds(-5)), 0.5, at(0)),
            Some(at(2))
        );
    }
}
