//! Strangers: workers that consume an application's queues but do not report, because they lack the SDK or its key.
//!
//! A stranger still answers Celery's inspect. So the process that samples the broker asks all workers which queues they
//! consume. If Beat sent a run, the run left its queue, and no reporting worker received it, then a stranger received
//! it.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::judge::blind_spell::is_to_come;

/// A worker that has just started may answer before its first report arrives.
pub const REPORTS_WITHIN: TimeDelta = TimeDelta::seconds(15);
/// The sampler asks all workers once a minute. An older answer than this proves nothing.
const STALE_AFTER: TimeDelta = TimeDelta::minutes(3);
/// A run that vanished longer ago than this is no longer evidence.
pub const VANISHED_FOR: TimeDelta = TimeDelta::minutes(5);
/// How long a missed run waits for the sample that opens its incident.
pub const INCIDENT_WITHIN: TimeDelta = TimeDelta::seconds(60);
/// Number of strangers that one application remembers.
pub const REMEMBERED: usize = 100;

/// A worker that answers but does not report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranger {
    /// Celery's node name.
    pub worker: String,
    /// The queues that it consumes.
    pub queues: Vec<String>,
    /// Since when it has answered without reporting.
    pub since: DateTime<Utc>,
    /// When it last answered.
    pub seen_at: DateTime<Utc>,
}

impl Stranger {
    /// True if it is known to consume that queue, and known not to report.
    #[must_use]
    pub fn takes_from(&self, queue: &str, now: DateTime<Utc>) -> bool {
        now - self.since >= REPORTS_WITHIN && self.may_take_from(queue, now)
    }

    /// Like [`Stranger::takes_from`], but also for a worker whose first report may still arrive.
    #[must_use]
    pub fn may_take_from(&self, queue: &str, now: DateTime<Utc>) -> bool {
        self.queues.iter().any(|name| name == queue)
            && now - self.seen_at < STALE_AFTER
            && !is_to_come(self.seen_at, now)
    }
}

/// Applies a sample of the broker. `answering`: all workers that answered, with their queues. None: the sampler did not
/// ask. `reports`: true if a worker of that name reports.
pub fn on_sample(
    known: &mut Vec<Stranger>,
    answering: Option<Vec<(String, Vec<String>)>>,
    reports: impl Fn(&str) -> bool,
    now: DateTime<Utc>,
) {
    if let Some(answering) = answering {
        let before = std::mem::take(known);
        *known = answering
            .into_iter()
            .map(|(worker, queues)| Stranger {
                since: before
                    .iter()
                    .find(|one| one.worker == worker && !is_to_come(one.since, now))
                    .map_or(now, |one| one.since),
                worker,
                queues,
                seen_at: now,
            })
            .collect();
    }
    known.retain(|one| !reports(&one.worker) && !one.queues.is_empty());
    known.truncate(REMEMBERED);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::transition::tests::at;

    fn answering(workers: &[&str]) -> Option<Vec<(String, Vec<String>)>> {
        let queues = vec!["celery".to_owned()];
        Some(
            workers
                .iter()
                .map(|name| ((*name).to_owned(), queues.clone()))
                .collect(),
        )
    }

    #[test]
    fn who_answers_and_does_not_report_is_a_stranger_after_a_while() {
        let mut known = Vec::new();
        let reports = |name: &str| name == "w1";
        on_sample(&mut known, answering(&["w1", "w2"]), reports, at(0.0));
        assert_eq!(
            known.iter().map(|one| one.worker.as_str()).collect::<Vec<_>>(),
            ["w2"]
        );
        assert!(
            !known[0].takes_from("celery", at(14.9)),
            "its first report may be on its way"
        );
        assert!(known[0].takes_from("celery", at(15.0)));
        assert!(!known[0].takes_from("mails", at(15.0)));
        on_sample(&mut known, None, reports, at(60.0));
        assert!(
            known[0].takes_from("celery", at(60.0)),
            "no worker was asked: the known strangers stay"
        );
        assert!(
            !known[0].takes_from("celery", at(180.0)),
            "an answer from three minutes ago does not count"
        );
        on_sample(&mut known, answering(&["w1", "w2"]), reports, at(200.0));
        assert_eq!(known[0].since, at(0.0));
        assert!(known[0].takes_from("celery", at(200.0)));
    }

    #[test]
    fn who_reports_or_has_gone_is_none() {
        let mut known = Vec::new();
        on_sample(&mut known, answering(&["w2"]), |_| false, at(0.0));
        on_sample(&mut known, None, |_| true, at(10.0));
        assert_eq!(known, [], "it reports now");
        on_sample(&mut known, answering(&["w2"]), |_| false, at(20.0));
        on_sample(&mut known, answering(&[]), |_| false, at(30.0));
        assert_eq!(known, [], "it no longer answers");
    }

    #[test]
    fn a_clock_that_was_stepped_back_and_many_names_do_no_harm() {
        let mut known = Vec::new();
        on_sample(&mut known, answering(&["w2"]), |_| false, at(9_000.0));
        assert!(!known[0].takes_from("celery", at(100.0)));
        on_sample(&mut known, answering(&["w2"]), |_| false, at(100.0));
        assert_eq!(known[0].since, at(100.0));
        let many: Vec<String> = (0..1_000).map(|n| format!("w{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        on_sample(&mut known, answering(&many), |_| false, at(200.0));
        assert_eq!(known.len(), REMEMBERED);
    }
}
