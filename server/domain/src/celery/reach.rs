//! Finds the processes that reach a broker. If only one process does not reach it, the fault is that process's own.

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::blame::BROKER_DOWN_PATIENCE;

/// Samples come every 10 s. A process that reached the broker within this time still counts as reaching it. If only its
/// next sample is late, that sample ends the doubt long before an incident opens ([`BROKER_DOWN_PATIENCE`]).
const REACHES_FOR: TimeDelta = TimeDelta::seconds(15);
/// A process that does not reach the broker fails again within this time, or has ended. One attempt may take 10 s.
const FAILS_FOR: TimeDelta = TimeDelta::seconds(25);
/// A process that does not reach the broker samples it again every few seconds.
const NEXT_FAILURE: TimeDelta = TimeDelta::seconds(6);

/// The last samples of different processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// When a process last reached the broker.
    pub reached_at: Option<DateTime<Utc>>,
    /// The process that last reached it.
    pub reached_by: Option<String>,
    /// The process whose last attempt failed.
    pub failed_by: Option<String>,
    /// Since when its attempts have failed.
    pub failed_since: Option<DateTime<Utc>>,
    /// When its last attempt failed.
    pub failed_at: Option<DateTime<Utc>>,
}

impl Reach {
    /// Applies one sample. Returns true if the broker is away: this process did not reach it, and no other one does.
    pub fn take_sample(&mut self, who: &str, has_reached: bool, now: DateTime<Utc>) -> bool {
        let is_same = self.failed_by.as_deref() == Some(who) && is_within(FAILS_FOR, self.failed_at, now);
        if has_reached {
            self.reached_at = Some(now);
            self.reached_by = Some(who.to_owned());
            if self.failed_by.as_deref() == Some(who) {
                (self.failed_by, self.failed_since, self.failed_at) = (None, None, None);
            }
            return false;
        }
        if !is_same {
            self.failed_by = Some(who.to_owned());
            self.failed_since = Some(now);
        }
        self.failed_at = Some(now);
        if self.reached_by.as_deref() == Some(who) {
            // The process's earlier success no longer counts.
            (self.reached_by, self.reached_at) = (None, None);
        }
        !self.is_reached_without(who, now)
    }

    /// True if this process must continue sampling, because only it can report that it reaches the broker again.
    #[must_use]
    pub fn is_asked_again(&self, who: &str, now: DateTime<Utc>) -> bool {
        self.failed_by.as_deref() == Some(who) && is_within(FAILS_FOR, self.failed_at, now)
    }

    /// True if this process has not reached the broker for long enough to open an incident, while others reach it.
    #[must_use]
    pub fn is_cut_off(&self, who: &str, now: DateTime<Utc>) -> bool {
        self.is_asked_again(who, now)
            && self
                .failed_since
                .is_some_and(|since| now - since >= BROKER_DOWN_PATIENCE)
            && self.is_reached_without(who, now)
    }

    /// Until when it is in doubt whether the broker is away: one process does not reach it, and no other one has
    /// sampled it since. After that, the next failure of that process shows that the broker is away.
    #[must_use]
    pub fn doubt_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let (failed_since, reached_at) = (self.failed_since?, self.reached_at?);
        let until = reached_at + REACHES_FOR + NEXT_FAILURE;
        (reached_at < failed_since && is_within(FAILS_FOR, self.failed_at, now) && now < until)
            .then_some(until)
    }

    /// True if another process reaches the broker.
    #[must_use]
    pub fn is_reached_without(&self, who: &str, now: DateTime<Utc>) -> bool {
        self.reached_by.as_deref().is_some_and(|by| by != who) && is_within(REACHES_FOR, self.reached_at, now)
    }
}

fn is_within(limit: TimeDelta, at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    at.is_some_and(|at| at <= now && now - at < limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::transition::tests::at;

    #[test]
    fn a_broker_that_nobody_reaches_is_away() {
        let mut reach = Reach::default();
        assert!(!reach.take_sample("a", true, at(0.0)));
        assert!(
            reach.take_sample("a", false, at(10.0)),
            "its own earlier success proves nothing"
        );
        assert!(reach.take_sample("b", false, at(12.0)));
        assert!(reach.take_sample("a", false, at(16.0)));
        assert!(!reach.is_cut_off("a", at(40.0)));
    }

    #[test]
    fn one_that_does_not_reach_it_while_another_does_is_cut_off() {
        let mut reach = Reach::default();
        assert!(reach.take_sample("a", false, at(0.0)));
        assert!(reach.is_asked_again("a", at(3.0)));
        assert!(!reach.take_sample("b", true, at(3.0)));
        assert!(!reach.is_asked_again("b", at(3.0)));
        for second in [4.0, 8.0, 12.0, 16.0] {
            assert!(!reach.take_sample("a", false, at(second)));
        }
        let _ = reach.take_sample("b", true, at(13.0));
        assert!(!reach.is_cut_off("a", at(19.9)));
        let _ = reach.take_sample("a", false, at(20.0));
        assert!(reach.is_cut_off("a", at(20.0)));
        assert!(!reach.is_cut_off("b", at(20.0)));

        // The other process fails, too: now the broker is at fault.
        assert!(!reach.is_cut_off("a", at(38.0)));
        assert!(reach.take_sample("a", false, at(38.0)));
    }

    #[test]
    fn a_broker_is_in_doubt_until_a_second_process_has_sampled_it() {
        let mut reach = Reach::default();
        let _ = reach.take_sample("b", true, at(0.0));
        assert_eq!(reach.doubt_until(at(1.0)), None);
        assert!(!reach.take_sample("a", false, at(12.0)));
        assert_eq!(reach.doubt_until(at(12.0)), Some(at(21.0)));
        assert_eq!(reach.doubt_until(at(21.0)), None);
        // The other process ends the doubt, in either way.
        let mut reached = reach.clone();
        let _ = reached.take_sample("b", true, at(14.0));
        assert_eq!(reached.doubt_until(at(14.0)), None);
        assert!(reach.take_sample("b", false, at(14.0)));
        assert_eq!(reach.doubt_until(at(14.0)), None);
    }

    #[test]
    fn a_process_that_misses_its_sample_does_not_count_for_long() {
        let mut reach = Reach::default();
        let _ = reach.take_sample("b", true, at(0.0));
        assert!(
            reach.take_sample("a", false, at(16.0)),
            "the next sample of the first process was due 6 s ago"
        );
    }

    #[test]
    fn one_that_reaches_it_again_is_well() {
        let mut reach = Reach::default();
        let _ = reach.take_sample("a", false, at(1.0));
        let _ = reach.take_sample("b", true, at(20.0));
        let _ = reach.take_sample("a", false, at(21.0));
        assert!(reach.is_cut_off("a", at(22.0)));
        let _ = reach.take_sample("a", true, at(23.0));
        assert!(!reach.is_cut_off("a", at(23.0)));
        assert!(!reach.is_asked_again("a", at(23.0)));
    }
}
