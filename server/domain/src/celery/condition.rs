//! A condition: the state of a subject that SDK processes sample, such as a queue or a broker. A fault must last before
//! an incident opens.

use chrono::{DateTime, TimeDelta, Utc};

use crate::change::{Transition, Trigger};
use crate::incident::cause::Cause;
use crate::monitor::status::Status;

/// A condition as the rules see it. Its status is never `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// `new` until the first sample.
    pub status: Status,
    /// The fault. None: the subject has no fault.
    pub trouble: Option<Cause>,
    /// Since when samples have shown the fault.
    pub since: Option<DateTime<Utc>>,
}

impl Condition {
    /// A subject without a sample.
    pub const FRESH: Self = Self {
        status: Status::New,
        trouble: None,
        since: None,
    };

    /// Records a fault that began earlier than the sample that proves it.
    pub fn began(&mut self, cause: Cause, since: DateTime<Utc>) {
        if self.trouble != Some(cause) {
            self.trouble = Some(cause);
            self.since = Some(since);
        }
    }
}

/// Samples come every 10 s, and may be 1 s early. Three in a row therefore mean 30 s.
const JITTER: TimeDelta = TimeDelta::seconds(1);

/// Applies a sample: no fault, or a fault that opens an incident once it has lasted for the given time.
#[must_use]
pub fn on_sampled(
    state: &mut Condition,
    trouble: Option<(Cause, TimeDelta)>,
    now: DateTime<Utc>,
) -> Option<Transition> {
    let Some((cause, patience)) = trouble else {
        state.trouble = None;
        state.since = None;
        return change(state, Status::Up, Trigger::Report, now);
    };
    if state.trouble != Some(cause) {
        state.trouble = Some(cause);
        state.since = Some(now);
    }
    if now - state.since? < patience - JITTER {
        return None;
    }
    change(state, Status::Down, Trigger::Trouble(cause), now)
}

/// No sample has come for [`UNSAMPLED_FOR`], so the stored fault is out of date. Example: a queue that is no longer used,
/// or an application that no longer exists.
#[must_use]
pub fn on_unsampled(state: &mut Condition, now: DateTime<Utc>) -> Option<Transition> {
    state.trouble = None;
    state.since = None;
    if state.status != Status::Down {
        return None;
    }
    change(state, Status::New, Trigger::GiveUp, now)
}

/// See [`on_unsampled`].
pub const UNSAMPLED_FOR: TimeDelta = TimeDelta::hours(1);

fn change(state: &mut Condition, to: Status, trigger: Trigger, at: DateTime<Utc>) -> Option<Transition> {
    if state.status == to {
        return None;
    }
    let transition = Transition {
        from: state.status,
        to,
        trigger,
        at,
    };
    state.status = to;
    Some(transition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{Consequence, consequence};
    use crate::monitor::transition::tests::at;

    const UNCONSUMED: Option<(Cause, TimeDelta)> = Some((Cause::QueueUnconsumed, TimeDelta::seconds(30)));

    #[test]
    fn trouble_is_reported_once_when_it_has_lasted_and_ends_when_it_is_gone() {
        let mut state = Condition::FRESH;
        let first = on_sampled(&mut state, None, at(0.0)).unwrap();
        assert_eq!(consequence(&first), Consequence::Nothing);

        assert_eq!(on_sampled(&mut state, UNCONSUMED, at(10.0)), None);
        assert_eq!(on_sampled(&mut state, UNCONSUMED, at(38.9)), None);
        let down = on_sampled(&mut state, UNCONSUMED, at(40.0)).unwrap();
        assert_eq!(consequence(&down), Consequence::Open(Cause::QueueUnconsumed));
        assert_eq!(on_sampled(&mut state, UNCONSUMED, at(50.0)), None, "once");

        let up = on_sampled(&mut state, None, at(60.0)).unwrap();
        assert_eq!(consequence(&up), Consequence::Resolve);
    }

    #[test]
    fn what_nobody_samples_any_more_is_not_known_to_be_in_trouble() {
        let mut state = Condition::FRESH;
        let _ = on_sampled(&mut state, UNCONSUMED, at(0.0));
        let _ = on_sampled(&mut state, UNCONSUMED, at(30.0)).unwrap();

        let given_up = on_unsampled(&mut state, at(3_630.0)).unwrap();

        assert_eq!(given_up.trigger, Trigger::GiveUp);
        assert_eq!(consequence(&given_up), Consequence::Resolve);
        assert_eq!(state, Condition::FRESH);
        assert_eq!(on_unsampled(&mut state, at(3_700.0)), None);
        assert_eq!(
            on_sampled(&mut state, UNCONSUMED, at(4_000.0)),
            None,
            "the new fault must last for its own time"
        );
    }

    #[test]
    fn a_passing_or_a_changing_trouble_begins_anew() {
        let mut state = Condition::FRESH;
        let breach = Some((Cause::QueueSlaBreach, TimeDelta::seconds(30)));

        assert_eq!(on_sampled(&mut state, UNCONSUMED, at(0.0)), None);
        let _ = on_sampled(&mut state, None, at(20.0));
        assert_eq!(on_sampled(&mut state, UNCONSUMED, at(40.0)), None);
        assert_eq!(on_sampled(&mut state, breach, at(69.0)), None);
        assert_eq!(on_sampled(&mut state, breach, at(97.9)), None);
        assert!(on_sampled(&mut state, breach, at(98.1)).is_some());
    }
}
