//! A Celery queue: a worker must consume it, and its oldest message must not wait too long.

pub mod flow;

use chrono::{DateTime, TimeDelta, Utc};

use crate::incident::cause::Cause;

/// How long messages wait in a queue without a consumer before an incident opens. A restarting worker is back by then.
pub const UNCONSUMED_PATIENCE: TimeDelta = TimeDelta::seconds(30);
/// The same, if no worker of the application is up. A deployment may take minutes.
pub const NO_WORKER_PATIENCE: TimeDelta = TimeDelta::minutes(5);
/// The successor of a worker that signed off reports within this. Until then, the worker's queue raises no alert, even
/// if other workers of the application are up.
pub const REPLACED_WITHIN: TimeDelta = TimeDelta::minutes(2);
/// How long the oldest message of a queue may wait, unless the application has another setting.
pub const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(10);

/// The consumers of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumers {
    /// A worker that is up, or a consumer that the broker names.
    Some,
    /// Workers are up, but none of them consumes it.
    None,
    /// No worker is up, or the one that consumed it has just signed off.
    NoWorker,
    /// The workers that consumed it are lost. Their incidents report that.
    Lost,
}

/// A message that left a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// How long it had waited.
    pub after: TimeDelta,
    /// When it left.
    pub at: DateTime<Utc>,
}

/// The wait of the message that was received last also stands for the messages behind it: for this long, or for as long
/// as it waited itself.
const STANDS_FOR: TimeDelta = TimeDelta::seconds(60);

/// Returns how long the oldest message has waited. RabbitMQ does not show that. There, the wait of the last received
/// message is a good estimate if the queue was never empty since then, because queues are first in, first out.
#[must_use]
pub fn oldest(
    shown: Option<TimeDelta>,
    taken: Option<Taken>,
    waiting_since: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<TimeDelta> {
    shown.or_else(|| {
        let Taken { after, at } = taken?;
        (waiting_since? <= at && at <= now && now - at <= after.max(STANDS_FOR)).then_some(after)
    })
}

/// Returns the fault of a queue, and for how long the fault must last before an incident opens.
#[must_use]
pub fn trouble(
    depth: i64,
    oldest: Option<TimeDelta>,
    longest_wait: TimeDelta,
    consumers: Consumers,
) -> Option<(Cause, TimeDelta)> {
    if depth <= 0 {
        return None;
    }
    match consumers {
        Consumers::None => Some((Cause::QueueUnconsumed, UNCONSUMED_PATIENCE)),
        Consumers::NoWorker => Some((Cause::QueueUnconsumed, NO_WORKER_PATIENCE)),
        Consumers::Lost => None,
        Consumers::Some => oldest
            .filter(|oldest| *oldest >= longest_wait)
            .map(|_| (Cause::QueueSlaBreach, TimeDelta::zero())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::transition::tests::at;

    #[test]
    fn what_was_taken_last_stands_for_what_waits_behind_it_for_a_while() {
        let taken = |after, seconds| {
            Some(Taken {
                after: TimeDelta::seconds(after),
                at: at(seconds),
            })
        };
        let seconds = |seconds| Some(TimeDelta::seconds(seconds));
        for (what, shown, taken, since, expected) in [
            (
                "the broker shows it",
                seconds(7),
                taken(500, 90.0),
                Some(0.0),
                seconds(7),
            ),
            ("there is no evidence", None, None, Some(0.0), None),
            (
                "it was received a moment ago",
                None,
                taken(20, 90.0),
                Some(0.0),
                seconds(20),
            ),
            ("a minute ago", None, taken(20, 40.0), Some(0.0), seconds(20)),
            ("more than that", None, taken(20, 39.0), Some(0.0), None),
            (
                "it waited for longer than the time since then",
                None,
                taken(300, -199.0),
                Some(-400.0),
                seconds(300),
            ),
            (
                "the queue was empty since",
                None,
                taken(20, 90.0),
                Some(91.0),
                None,
            ),
            ("the queue is empty", None, taken(20, 90.0), None, None),
            ("received in the future", None, taken(20, 101.0), Some(0.0), None),
        ] {
            assert_eq!(oldest(shown, taken, since.map(at), at(100.0)), expected, "{what}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_queue() {
        let (short, long) = (
            Some(LONGEST_WAIT - TimeDelta::milliseconds(1)),
            Some(LONGEST_WAIT),
        );
        for (depth, oldest, consumers, cause) in [
            (0, None, Consumers::None, None),
            (0, long, Consumers::Some, None),
            (1, None, Consumers::None, Some(Cause::QueueUnconsumed)),
            (1, long, Consumers::None, Some(Cause::QueueUnconsumed)),
            (1, None, Consumers::NoWorker, Some(Cause::QueueUnconsumed)),
            (5, long, Consumers::Lost, None),
            (5, None, Consumers::Some, None),
            (5, short, Consumers::Some, None),
            (5, long, Consumers::Some, Some(Cause::QueueSlaBreach)),
        ] {
            assert_eq!(
                trouble(depth, oldest, LONGEST_WAIT, consumers).map(|(cause, _)| cause),
                cause,
                "{depth} {oldest:?} {consumers:?}"
            );
        }
        let patience = |consumers| trouble(1, None, LONGEST_WAIT, consumers).map(|(_, patience)| patience);
        assert!(
            patience(Consumers::NoWorker) > patience(Consumers::None),
            "a deployment gets more time"
        );
    }
}
