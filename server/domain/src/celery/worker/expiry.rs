//! Decides whether a message that a worker dropped as too old was really too old.
//!
//! `expires` is an instant by the sender's clock, and the worker compares it with its own clock. If one of the two
//! clocks is wrong, a fresh message may expire at once. That is part of the clock's incident, and not a fault of the
//! entry.

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::worker::SKEW;

/// True if a wrong clock made the message too old.
/// * `ahead`: how far the worker's clock is ahead of the server's.
/// * `claimed_at`: when the message was sent, as the message says, by the sender's clock.
/// * `sent_at`: when the sender reports that it sent the message, corrected for its clock skew. None: the report has
///   not come yet. The message then counts as no older than the worker's report, `expired_at`.
#[must_use]
pub fn is_early(
    ahead: TimeDelta,
    claimed_at: Option<DateTime<Utc>>,
    sent_at: Option<DateTime<Utc>>,
    expired_at: DateTime<Utc>,
) -> bool {
    let behind = claimed_at.map(|claimed| sent_at.unwrap_or(expired_at) - claimed);
    ahead >= SKEW || behind.is_some_and(|behind| behind >= SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::transition::tests::at;

    #[test]
    fn a_message_is_too_old_too_early_by_either_clock() {
        let none = TimeDelta::zero();
        for (what, ahead, claimed, sent, expected) in [
            ("it waited for a minute", none, Some(40.0), Some(40.5), false),
            ("the worker's clock is fast", SKEW, Some(40.0), Some(40.5), true),
            (
                "the worker's clock is slightly fast",
                TimeDelta::milliseconds(9_999),
                Some(40.0),
                Some(40.5),
                false,
            ),
            ("the sender's clock is slow", none, Some(40.0), Some(50.0), true),
            (
                "the sender's clock is slightly slow",
                none,
                Some(40.0),
                Some(49.9),
                false,
            ),
            ("the sender's clock is fast", none, Some(90.0), Some(40.0), false),
            ("the worker's clock is slow", -SKEW, Some(90.0), Some(40.0), false),
            (
                "the sender has not reported, and its clock may be slow",
                none,
                Some(90.0),
                None,
                true,
            ),
            (
                "the sender has not reported, and its clock is right",
                none,
                Some(90.1),
                None,
                false,
            ),
            ("the message has no time", none, None, Some(40.0), false),
        ] {
            let early = is_early(ahead, claimed.map(at), sent.map(at), at(100.0));
            assert_eq!(early, expected, "{what}");
        }
    }
}
