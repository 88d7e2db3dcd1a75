//! Whether a message that a worker dropped as too old was really too old.
//!
//! `expires` is an instant by the sender's clock, and the worker compares it with its own clock. If one of the two
//! clocks is wrong, a fresh message is too old at once. That is not the entry's fault, but part of the clock's
//! incident.

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::worker::SKEW;

/// Whether a wrong clock made the message too old.
/// * `ahead`: how far the worker's clock is ahead of the server's.
/// * `claimed_at`: when the message was sent, by the message itself, which has the sender's clock.
/// * `sent_at`: when the sender reports that it sent it, corrected for its clock skew. None: that report has not come
///   yet. Then the message counts as no older than the worker's report, `expired_at`.
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
            ("the worker is ahead", SKEW, Some(40.0), Some(40.5), true),
            (
                "the worker is ahead a little",
                TimeDelta::milliseconds(9_999),
                Some(40.0),
                Some(40.5),
                false,
            ),
            ("the sender is behind", none, Some(40.0), Some(50.0), true),
            (
                "the sender is behind a little",
                none,
                Some(40.0),
                Some(49.9),
                false,
            ),
            ("the sender is ahead", none, Some(90.0), Some(40.0), false),
            ("the worker is behind", -SKEW, Some(90.0), Some(40.0), false),
            (
                "the sender has not reported, and may be behind",
                none,
                Some(90.0),
                None,
                true,
            ),
            (
                "the sender has not reported, and is not",
                none,
                Some(90.1),
                None,
                false,
            ),
            ("the message does not say", none, None, Some(40.0), false),
        ] {
            let early = is_early(ahead, claimed.map(at), sent.map(at), at(100.0));
            assert_eq!(early, expected, "{what}");
        }
    }
}
