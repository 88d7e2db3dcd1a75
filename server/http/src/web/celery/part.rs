//! A Beat, a broker, a queue and a worker, as the page shows them.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::IncidentId;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::time::{read_instant, span};
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::celery::worker::queues::Consumers;
use deadbeat_store::incident::Incident;
use serde_json::Value;

use crate::web::format::{self, Moment};

/// The most queue names that the page shows for a worker.
const QUEUES_NAMED: usize = 8;
/// A queue or broker without a newer sample than this is stale. The SDK samples every ten seconds.
const STALE: TimeDelta = TimeDelta::minutes(1);

/// The fault of a subject, and the incident about it.
pub(super) struct PartFacts<'a> {
    pub(super) trouble: Option<Cause>,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) incident: Option<&'a Incident>,
    pub(super) is_on_dashboard: bool,
}

/// A fault in words.
pub(super) struct Trouble {
    pub(super) cause: &'static str,
    pub(super) page: String,
    pub(super) words: &'static str,
    pub(super) since: Option<Moment>,
    /// True if an incident is open.
    pub(super) is_alerted: bool,
    /// The incident, if the dashboard shows its card with the repair.
    pub(super) incident: Option<IncidentId>,
}

impl Trouble {
    fn of(facts: &PartFacts<'_>, now: DateTime<Utc>) -> Option<Self> {
        let alerted = facts.incident.map(|incident| incident.cause);
        let cause = facts.trouble.or(alerted)?;
        // If the fault and the incident are the same, show the earlier start: each report of a storm overwrites the start of the fault.
        let opened_at = facts
            .incident
            .filter(|incident| incident.cause == cause)
            .map(|incident| incident.opened_at);
        let since = [facts.since, opened_at].into_iter().flatten().min();
        Some(Self {
            cause: cause.as_str(),
            page: cause.page(),
            words: if facts.trouble == Some(Cause::BeatDown) {
                "One of several Beats of this name is silent."
            } else {
                words(cause)
            },
            since: since.map(|at| Moment::at(at, now)),
            is_alerted: alerted.is_some(),
            incident: facts
                .incident
                .filter(|_| facts.is_on_dashboard)
                .map(|incident| incident.id),
        })
    }
}

/// Returns a cause in words, for the subject that has the fault or whose host has it. Only causes of Beats, brokers, queues and workers occur here.
fn words(cause: Cause) -> &'static str {
    match cause {
        Cause::BeatDown => "It is silent: nothing is being scheduled.",
        Cause::BeatCrashLoop => "It crashes again and again, and misses what is due.",
        Cause::BeatStalled => "Its process lives, but sends nothing.",
        Cause::BeatStorm => "It sends one entry over and over.",
        Cause::ScheduleEmptied => "Its whole schedule vanished: Deadbeat watches none of its entries.",
        Cause::BeatDuplicate => "Two Beats of this name run at once: they send everything twice.",
        Cause::AppNameShared => "Two applications have this name.",
        Cause::WorkerWithoutSdk => "A worker receives messages from it, but does not report.",
        Cause::BrokerDown => "It does not answer.",
        Cause::QueueUnconsumed => "Messages wait in it, but no worker consumes it.",
        Cause::QueueSlaBreach => "Its oldest message has waited for too long.",
        Cause::HostLost => "It fell silent together with everything on its host.",
        Cause::WorkerLost => "It vanished without signing off.",
        Cause::GhostWorker => "It reports, but gets nothing done.",
        Cause::ClockSkew => "Its clock is off.",
        _ => "It is in trouble.",
    }
}

/// An application's Beat.
pub(super) struct BeatCard {
    pub(super) status: &'static str,
    pub(super) trouble: Option<Trouble>,
    pub(super) host: Option<String>,
    pub(super) last_report: Option<Moment>,
    pub(super) every: String,
    pub(super) sent: Option<Moment>,
    /// When the broker refused a message after the last successful sending, and the exception's class.
    pub(super) send_failed: Option<(Moment, String)>,
    /// When another thread of the Beat's process reported that the Beat's loop hangs.
    pub(super) hung: Option<Moment>,
}

impl BeatCard {
    pub(super) fn of(beat: &Beat, facts: &PartFacts<'_>, now: DateTime<Utc>) -> Self {
        let state = &beat.state;
        let failed = beat
            .send_failed
            .as_ref()
            .filter(|(at, _)| Some(*at) > beat.sent_at);
        Self {
            status: state.status.as_str(),
            trouble: Trouble::of(facts, now),
            host: beat.host.clone(),
            last_report: state.last_seen_at.map(|at| Moment::at(at, now)),
            every: format::span(span(state.period_seconds)),
            sent: beat.sent_at.map(|at| Moment::at(at, now)),
            send_failed: failed.map(|(at, error)| (Moment::at(*at, now), error.clone())),
            hung: beat
                .hung_at
                .filter(|at| Some(*at) > state.last_seen_at)
                .map(|at| Moment::at(at, now)),
        }
    }
}

/// An application's broker.
pub(super) struct BrokerCard {
    pub(super) status: &'static str,
    pub(super) trouble: Option<Trouble>,
    pub(super) transport: Option<String>,
    pub(super) error: Option<String>,
    pub(super) sampler: Option<String>,
    pub(super) seen: Option<Moment>,
    pub(super) is_stale: bool,
    pub(super) unacked: Option<String>,
    pub(super) oldest_unacked: Option<String>,
    pub(super) visibility_timeout: Option<String>,
    /// Redis's `maxmemory-policy`, if that policy may delete waiting messages.
    pub(super) evicting: Option<String>,
}

impl BrokerCard {
    pub(super) fn of(broker: &Broker, facts: &PartFacts<'_>, now: DateTime<Utc>) -> Self {
        let field = |name: &str| broker.sample.as_ref().and_then(|sample| sample.get(name));
        let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
        let seconds = |name: &str| field(name).and_then(Value::as_f64);
        Self {
            status: broker.state.status.as_str(),
            trouble: Trouble::of(facts, now),
            transport: text("transport"),
            error: text("error"),
            sampler: broker.sampler.clone(),
            seen: broker.sampled_at.map(|at| Moment::at(at, now)),
            is_stale: broker.sampled_at.is_some_and(|at| now - at >= STALE),
            unacked: field("unacked").and_then(Value::as_i64).map(format::grouped),
            oldest_unacked: seconds("oldest_unacked_seconds").map(age),
            visibility_timeout: seconds("visibility_timeout_seconds").map(age),
            // Messages have no time to live, so the volatile policies do not delete them.
            evicting: text("maxmemory_policy").filter(|policy| policy.starts_with("allkeys")),
        }
    }
}

/// A queue.
pub(super) struct QueueRow {
    pub(super) status: &'static str,
    pub(super) trouble: Option<Trouble>,
    pub(super) name: String,
    pub(super) depth: String,
    pub(super) is_empty: bool,
    pub(super) unacked: Option<String>,
    pub(super) oldest: Option<String>,
    pub(super) oldest_task: Option<String>,
    /// The workers that report that they consume the queue: some of their names, and how many more there are.
    pub(super) consumers: Vec<String>,
    pub(super) more_consumers: i64,
    /// Consumers that are lost or ghosts: some of their names, and how many more there are.
    pub(super) lost: Vec<String>,
    pub(super) more_lost: i64,
    /// The number of consumers according to the broker.
    pub(super) counted: Option<i64>,
    /// The time of the last sample, if that sample is stale.
    pub(super) stale: Option<Moment>,
}

impl QueueRow {
    pub(super) fn of<'a>(
        queue: &Queue,
        consumers: impl Iterator<Item = &'a Consumers>,
        facts: &PartFacts<'_>,
        now: DateTime<Utc>,
    ) -> Self {
        // A worker whose only fault is clock skew still receives messages.
        let (takes, lost): (Vec<&Consumers>, Vec<&Consumers>) = consumers.partition(|consumers| {
            consumers.status == Status::Up || consumers.trouble == Some(Cause::ClockSkew)
        });
        let named = |of: &[&Consumers]| -> (Vec<String>, i64) {
            let mut names: Vec<String> = of.iter().flat_map(|group| group.names.iter().cloned()).collect();
            names.sort();
            names.truncate(3);
            let total: i64 = of.iter().map(|group| group.workers).sum();
            let more = total - names.len() as i64;
            (names, more)
        };
        let (consumers, more_consumers) = named(&takes);
        let (lost, more_lost) = named(&lost);
        Self {
            status: queue.state.status.as_str(),
            trouble: Trouble::of(facts, now),
            name: queue.name.clone(),
            depth: format::grouped(queue.depth),
            is_empty: queue.depth == 0,
            unacked: queue.unacked.filter(|unacked| *unacked > 0).map(format::grouped),
            oldest: queue.oldest_seconds.map(age),
            oldest_task: queue.oldest_task.clone(),
            consumers,
            more_consumers,
            lost,
            more_lost,
            counted: queue.consumers,
            stale: (now - queue.seen_at >= STALE).then(|| Moment::at(queue.seen_at, now)),
        }
    }
}

/// A worker that is expected to report.
pub(super) struct WorkerRow {
    pub(super) status: &'static str,
    pub(super) trouble: Option<Trouble>,
    pub(super) name: String,
    pub(super) celery: Option<String>,
    /// True if the worker is not connected to the broker.
    pub(super) is_cut_off: bool,
    pub(super) pool: Option<String>,
    pub(super) processes: Option<i64>,
    pub(super) active: Option<i64>,
    pub(super) reserved: Option<i64>,
    pub(super) longest: Option<Longest>,
    pub(super) queues: String,
    pub(super) more_queues: usize,
    pub(super) memory: Option<String>,
    pub(super) last_report: Option<Moment>,
}

/// The task that has been running longest on a worker.
pub(super) struct Longest {
    pub(super) task: String,
    pub(super) task_id: String,
    pub(super) began: Option<Moment>,
}

impl WorkerRow {
    pub(super) fn of(worker: &Worker, facts: &PartFacts<'_>, now: DateTime<Utc>) -> Self {
        let field = |name: &str| worker.snapshot.get(name).filter(|value| !value.is_null());
        let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| field(name).and_then(Value::as_i64);
        let longest = field("longest").and_then(|longest| {
            Some(Longest {
                task: longest.get("task")?.as_str()?.to_owned(),
                task_id: longest.get("task_id")?.as_str()?.to_owned(),
                began: longest
                    .get("started_at")
                    .and_then(Value::as_str)
                    .and_then(read_instant)
                    .map(|at| Moment::at(at, now)),
            })
        });
        let named = worker.queues.len().min(QUEUES_NAMED);
        Self {
            status: worker.state.status.as_str(),
            trouble: Trouble::of(facts, now),
            name: worker.name.clone(),
            celery: text("celery"),
            is_cut_off: field("connected").and_then(Value::as_bool) == Some(false),
            pool: text("pool"),
            processes: number("processes"),
            active: number("active"),
            reserved: number("reserved"),
            longest,
            queues: worker.queues[..named].join(", "),
            more_queues: worker.queues.len() - named,
            memory: number("rss_bytes").filter(|bytes| *bytes > 0).map(format::bytes),
            last_report: worker.state.last_seen_at.map(|at| Moment::at(at, now)),
        }
    }
}

/// A worker that is no longer expected to report.
pub(super) struct LeftWorker {
    pub(super) name: String,
    pub(super) how: &'static str,
    pub(super) last_report: Option<Moment>,
}

impl LeftWorker {
    pub(super) fn of(worker: &Worker, now: DateTime<Utc>) -> Self {
        Self {
            name: worker.name.clone(),
            how: match worker.snapshot.get("state").and_then(Value::as_str) {
                Some("stopping") => "finishing its tasks",
                Some("stopped") => "signed off",
                // It never signed off.
                _ => "given up",
            },
            last_report: worker.state.last_seen_at.map(|at| Moment::at(at, now)),
        }
    }
}

/// Formats an age that a client reported. A client may report any number.
fn age(seconds: f64) -> String {
    format::seconds(seconds.max(0.0))
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::incident::{Subject, SubjectKind};
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn incident(cause: Cause, opened_at: DateTime<Utc>) -> Incident {
        Incident {
            id: IncidentId::generate(),
            project_id: deadbeat_domain::ids::ProjectId::generate(),
            subject: Subject {
                kind: SubjectKind::Worker,
                id: Uuid::nil(),
                name: "celery@w1".to_owned(),
            },
            cause,
            severity: cause.severity(),
            summary: String::new(),
            evidence: Vec::new(),
            repair: Vec::new(),
            opened_at,
            resolved_at: None,
            acknowledged_at: None,
            acknowledged_by: None,
            remind_at: None,
            is_inferred: false,
            is_flapping: false,
        }
    }

    #[test]
    fn trouble_is_reported_with_the_cause_that_holds_now_and_its_beginning() {
        let lost = incident(Cause::WorkerLost, at(50));
        let storm = incident(Cause::BeatStorm, at(20));
        let (skew, flood) = (Some(Cause::ClockSkew), Some(Cause::BeatStorm));
        for (trouble, since, alerted, expected) in [
            (None, None, None, None),
            (skew, Some(at(30)), None, Some(("CLOCK_SKEW", at(30), false))),
            (None, None, Some(&lost), Some(("WORKER_LOST", at(50), true))),
            (
                flood,
                Some(at(90)),
                Some(&storm),
                Some(("BEAT_STORM", at(20), true)),
            ),
            (
                skew,
                Some(at(90)),
                Some(&storm),
                Some(("CLOCK_SKEW", at(90), true)),
            ),
        ] {
            let facts = PartFacts {
                trouble,
                since,
                incident: alerted,
                is_on_dashboard: false,
            };
            let seen = Trouble::of(&facts, at(100));
            let seen = seen.map(|seen| (seen.cause, seen.since.unwrap().machine, seen.is_alerted));
            let expected = expected.map(|(cause, at, alerted)| (cause, Moment::at(at, at).machine, alerted));
            assert_eq!(seen, expected, "{trouble:?}");
        }
    }
}
