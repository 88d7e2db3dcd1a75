//! Decides whether messages leave a queue. For consumers that do not report, this is the only evidence.
//!
//! Redis does not show who consumes a list. It shows the message that is received next (the head), and the messages
//! that consumers hold. A changed head proves a consumer, whatever its program. So does a held message that was
//! received lately.

use chrono::{DateTime, TimeDelta, Utc};

/// For this long after a worker's last report, changes of the queue count as that worker's, because it gives back the
/// messages that it held.
const AFTERMATH: TimeDelta = TimeDelta::seconds(15);

/// The facts about a queue that are kept between two samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow {
    /// A digest of the head. None: the queue is empty, or its broker does not show the head.
    pub head: Option<String>,
    /// Since when that message is the head.
    pub head_since: Option<DateTime<Utc>>,
    /// When a reporting worker that consumes it last reported.
    pub attended_at: Option<DateTime<Utc>>,
    /// When a consumer that does not report last received messages from it.
    pub others_at: Option<DateTime<Utc>>,
}

/// One sample of a queue.
#[derive(Debug, Clone, Copy)]
pub struct Glimpse<'a> {
    /// Number of waiting messages.
    pub depth: i64,
    /// A digest of the head.
    pub head: Option<&'a str>,
    /// When the newest message was received that a consumer holds unacknowledged, or that a run reported.
    pub taken_at: Option<DateTime<Utc>>,
    /// When the previous sample was taken.
    pub before: Option<DateTime<Utc>>,
    /// When a reporting worker that consumes it last reported.
    pub attended_at: Option<DateTime<Utc>>,
}

impl Flow {
    /// Applies one sample.
    pub fn take_sample(&mut self, glimpse: &Glimpse<'_>, now: DateTime<Utc>) {
        self.attended_at = self.attended_at.max(glimpse.attended_at).filter(|at| *at <= now);
        let is_shown = glimpse.head.is_some() || glimpse.depth <= 0;
        let has_moved = self.head.is_some() && is_shown && self.head.as_deref() != glimpse.head;
        // The old head left the queue after the previous sample.
        let moved_at = glimpse.before.filter(|_| has_moved);
        let is_others = |at: &DateTime<Utc>| {
            *at <= now && self.attended_at.is_none_or(|attended| *at > attended + AFTERMATH)
        };
        if moved_at.as_ref().is_some_and(is_others) {
            self.others_at = Some(now);
        }
        self.others_at = self
            .others_at
            .filter(|at| *at <= now)
            .max(glimpse.taken_at.filter(is_others));
        if self.head.as_deref() != glimpse.head {
            self.head = glimpse.head.map(str::to_owned);
            self.head_since = None;
        }
        self.head_since = self
            .head
            .as_ref()
            .map(|_| self.head_since.filter(|at| *at <= now).unwrap_or(now));
    }

    /// True if a consumer that does not report consumes the queue. One task may keep such a consumer busy for as long
    /// as a message may wait.
    #[must_use]
    pub fn has_others(&self, longest_wait: TimeDelta, now: DateTime<Utc>) -> bool {
        self.others_at.is_some_and(|at| now - at < longest_wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::transition::tests::at;

    const WAIT: TimeDelta = TimeDelta::minutes(10);

    fn glimpse(head: Option<&str>, before: Option<f64>) -> Glimpse<'_> {
        Glimpse {
            depth: i64::from(head.is_some()),
            head,
            taken_at: None,
            before: before.map(at),
            attended_at: None,
        }
    }

    #[test]
    fn a_head_that_changes_proves_a_consumer_until_nothing_has_left_for_as_long_as_may_be() {
        let mut flow = Flow::default();
        flow.take_sample(&glimpse(Some("a"), None), at(0.0));
        assert!(!flow.has_others(WAIT, at(0.0)), "one sample proves nothing");
        flow.take_sample(&glimpse(Some("a"), Some(0.0)), at(10.0));
        assert!(!flow.has_others(WAIT, at(10.0)));
        assert_eq!(flow.head_since, Some(at(0.0)));

        flow.take_sample(&glimpse(Some("b"), Some(10.0)), at(20.0));
        assert!(flow.has_others(WAIT, at(20.0)));
        assert_eq!(flow.head_since, Some(at(20.0)));
        flow.take_sample(&glimpse(Some("b"), Some(20.0)), at(619.0));
        assert!(flow.has_others(WAIT, at(619.0)));
        assert!(!flow.has_others(WAIT, at(620.0)));
    }

    #[test]
    fn a_queue_that_was_emptied_was_consumed_and_one_that_fills_was_not() {
        let mut flow = Flow::default();
        flow.take_sample(&glimpse(None, None), at(0.0));
        flow.take_sample(&glimpse(Some("a"), Some(0.0)), at(10.0));
        assert!(!flow.has_others(WAIT, at(10.0)));
        flow.take_sample(&glimpse(None, Some(10.0)), at(20.0));
        assert!(flow.has_others(WAIT, at(20.0)));
        assert_eq!((flow.head, flow.head_since), (None, None));
    }

    #[test]
    fn a_sample_that_does_not_show_the_head_proves_nothing() {
        let mut flow = Flow::default();
        flow.take_sample(&glimpse(Some("a"), None), at(0.0));
        let blind = Glimpse {
            depth: 3,
            ..glimpse(None, Some(0.0))
        };
        flow.take_sample(&blind, at(10.0));
        assert!(!flow.has_others(WAIT, at(10.0)));
    }

    #[test]
    fn what_a_reporting_worker_took_or_gave_back_is_not_others() {
        let mut flow = Flow::default();
        let attended = |head, before, seen| Glimpse {
            attended_at: Some(at(seen)),
            ..glimpse(head, before)
        };
        flow.take_sample(&attended(Some("a"), None, 0.0), at(0.0));
        flow.take_sample(&attended(Some("b"), Some(0.0), 9.0), at(10.0));
        // The worker stops at 12 s, and gives its messages back.
        flow.take_sample(&attended(Some("c"), Some(10.0), 12.0), at(20.0));
        flow.take_sample(&attended(Some("d"), Some(20.0), 12.0), at(30.0));
        assert!(!flow.has_others(WAIT, at(30.0)));

        // Another consumer comes long after that.
        flow.take_sample(&attended(Some("e"), Some(30.0), 12.0), at(40.0));
        assert!(flow.has_others(WAIT, at(40.0)));
    }

    #[test]
    fn a_message_that_somebody_holds_proves_a_consumer_at_the_first_sample() {
        let held = |taken| Glimpse {
            taken_at: Some(at(taken)),
            ..glimpse(Some("a"), None)
        };
        let mut flow = Flow::default();
        flow.take_sample(&held(-50.0), at(0.0));
        assert!(flow.has_others(WAIT, at(0.0)));
        assert!(!flow.has_others(WAIT, at(550.0)));

        // A future time was stored before the clock stepped back.
        let mut flow = Flow::default();
        flow.take_sample(&held(1.0), at(0.0));
        assert_eq!(flow.others_at, None);
    }
}
