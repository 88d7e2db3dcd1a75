//! A Celery queue: somebody must consume it, and its oldest message must not wait too long.

use chrono::TimeDelta;

use crate::cause::Cause;

/// Messages wait this long in a queue without a consumer before that is told: a worker that restarts is back by then.
pub const UNCONSUMED_PATIENCE: TimeDelta = TimeDelta::seconds(30);
/// The same, when the application has no worker at all at the moment: a deployment may take minutes.
pub const NO_WORKER_PATIENCE: TimeDelta = TimeDelta::minutes(5);
/// A worker that left in good order has its successor within this: so long nobody is said to have forgotten its queue, although others
/// of the application are up.
pub const REPLACED_WITHIN: TimeDelta = TimeDelta::minutes(2);
/// How long the oldest message of a queue may wait, unless the application says otherwise.
pub const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(10);

/// Who takes messages from a queue, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumers {
    /// A worker that is up, or the broker names a consumer.
    Some,
    /// Workers are up, and none of them.
    None,
    /// No worker is up, or the one that did has just left.
    NoWorker,
    /// Those that did are lost, which is told already.
    Lost,
}

/// What is wrong with a queue, and for how long it must last to be told.
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
            "a deployment is waited for"
        );
    }
}
