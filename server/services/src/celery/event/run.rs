//! Events about runs: they become stages of traces, and for runs that Beat sent also pings of the monitor.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat::STORM_WINDOW;
use deadbeat_domain::celery::queue::Taken;
use deadbeat_domain::celery::trace::{Stage, StageKind, StageReport};
use deadbeat_domain::celery::worker::expiry::is_early;
use deadbeat_domain::ids::{MonitorId, PingId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::clip;
use deadbeat_domain::monitor::ping::{PingKind, Signal, SignalDetail, Source};
use deadbeat_domain::monitor::run::{Outcome, RunDetail};
use deadbeat_domain::text::Text;
use deadbeat_domain::time::{span, to_micros};
use futures::future::join_all;
use serde::Deserialize;
use uuid::Uuid;

use super::{Verdict, share};
use crate::celery::beat::sending;
use crate::celery::broker::queue_wait;
use crate::celery::trace::{Fresh, NewStage};
use crate::monitor::signal::incoming::{Accepted, Address, Incoming};
use crate::monitor::signal::ingest::IngestError;
use crate::{ServiceError, Services};

/// A client's time that is farther from now than this is a mistake.
const FAR: TimeDelta = TimeDelta::days(3_660);

/// A stage of a run. A run that Beat did not send has no entry, and so no monitor.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RunEvent {
    beat: Text,
    /// Required: if a mistake omitted it, the run would belong to no entry.
    #[serde(deserialize_with = "Option::deserialize")]
    entry: Option<Text>,
    run_id: Uuid,
    #[serde(default)]
    task: Option<Text>,
    #[serde(default)]
    task_id: Option<Text>,
    #[serde(default)]
    worker: Option<Text>,
    #[serde(default)]
    retries: i32,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    duration_seconds: Option<f64>,
    #[serde(default)]
    error: Option<Text>,
    #[serde(default)]
    queue: Option<Text>,
    #[serde(default)]
    attempt: Option<Uuid>,
    #[serde(default)]
    redelivered: bool,
    #[serde(default)]
    published_at: Option<DateTime<Utc>>,
    #[serde(default)]
    slot: Option<DateTime<Utc>>,
    #[serde(default)]
    eta: Option<DateTime<Utc>>,
    #[serde(default)]
    pid: Option<i64>,
    #[serde(default)]
    soft: bool,
    #[serde(default)]
    incarnation: Option<Uuid>,
    #[serde(default)]
    acks_late: bool,
}

/// A reported stage of a run.
pub(super) struct ReportedRun {
    /// The index of the stage's verdict.
    pub(super) place: usize,
    pub(super) id: Uuid,
    pub(super) kind: StageKind,
    pub(super) outcome: Option<Outcome>,
    /// By the server's clock.
    pub(super) occurred_at: DateTime<Utc>,
    /// How far the reporter's clock was ahead of the server's, when the stage happened or when it was sent. The clock may have been corrected in
    /// between.
    pub(super) ahead: TimeDelta,
    pub(super) run: RunEvent,
}

/// A stage that is also a ping of a monitor.
struct RunPing {
    /// The index of the ping's verdict.
    place: usize,
    /// The ping id of the monitor. All signals with this id take the same lane.
    monitor: PingId,
    kind: PingKind,
    outcome: Option<Outcome>,
    event: Uuid,
    /// By the server's clock.
    occurred_at: DateTime<Utc>,
    /// True if the message only expired because a clock is wrong.
    is_early_expiry: bool,
    /// Like the field of [`ReportedRun`].
    ahead: TimeDelta,
    /// When the message was sent, by the server's clock.
    published_at: Option<DateTime<Utc>>,
    run: RunEvent,
}

/// Returns how a run ended, or `None` for a stage that is not an end.
pub(super) fn outcome_of(kind: StageKind, run: &RunEvent) -> Result<Option<Outcome>, Verdict> {
    if kind != StageKind::Finished {
        return Ok(None);
    }
    let outcome = run.outcome.as_deref().and_then(Outcome::parse);
    outcome.map(Some).ok_or_else(|| {
        Verdict::rejected(
            "invalid_event",
            format!(
                "outcome is {:?}; success, ignored, failure, retries_exhausted, rejected, aborted, revoked, expired, time_limit or lost is allowed",
                run.outcome.as_deref().map(clip)
            ),
        )
    })
}

/// The entries that Beat sent a moment ago, in one request.
struct Sent {
    /// The event id of each message, with the Beat and the entry.
    messages: Vec<(Uuid, String, String)>,
    /// When the last of the messages was sent.
    at: DateTime<Utc>,
}

impl Sent {
    fn of(reported: &[ReportedRun], received_at: DateTime<Utc>) -> Self {
        let mut sent = Self {
            messages: Vec::new(),
            at: received_at,
        };
        for one in reported {
            // Ignore retries, because workers send them. Ignore delayed reports, because they do not show how often Beat sends now.
            let is_recent = one.kind == StageKind::Published
                && one.run.retries == 0
                && received_at - one.occurred_at < STORM_WINDOW;
            if let Some(entry) = &one.run.entry
                && is_recent
            {
                let (beat, entry) = (one.run.beat.clone().into(), entry.clone().into());
                sent.messages.push((one.id, beat, entry));
                sent.at = one.occurred_at;
            }
        }
        sent
    }

    /// Returns how often each entry was sent, by Beat. Counts only messages that the history did not have, because the SDK sends a batch again after
    /// a 503 or a lost answer. An entry without new messages counts 0 times.
    fn counts(&self, fresh: &Fresh) -> HashMap<&str, HashMap<String, u32>> {
        let mut counts: HashMap<&str, HashMap<String, u32>> = HashMap::new();
        for (event, beat, entry) in &self.messages {
            let of_beat = counts.entry(beat).or_default();
            *of_beat.entry(entry.clone()).or_default() += u32::from(fresh.contains(event));
        }
        counts
    }
}

/// Handles events about runs: first their traces, then how often Beat sent, then the pings.
pub(super) async fn accept(
    services: &Services,
    project: ProjectId,
    reported: Vec<ReportedRun>,
    skew: TimeDelta,
    received_at: DateTime<Utc>,
    remote_addr: Option<String>,
    verdicts: &mut [(Option<Uuid>, Verdict)],
) -> Result<(), ServiceError> {
    let sent = Sent::of(&reported, received_at);
    let waited = waited(&reported, skew);
    let (runs, fresh) = accept_stages(services, project, reported, skew, received_at, verdicts).await?;
    queue_wait::taken(services, project, waited).await;
    for (name, entries) in &sent.counts(&fresh) {
        sending::sent(services, project, name, entries, sent.at).await?;
    }
    accept_runs(services, project, runs, received_at, remote_addr, verdicts).await
}

/// Returns how long the most recently received messages had waited, by application and queue. Ignores redelivered messages, because they were not
/// waiting all the time.
fn waited(reported: &[ReportedRun], skew: TimeDelta) -> HashMap<(String, String), Taken> {
    // Keep borrowed names, because most of a batch belongs to one queue.
    let mut waited: HashMap<(&str, &str), Taken> = HashMap::new();
    for one in reported {
        let run = &one.run;
        let published_at = run.published_at.and_then(|at| at.checked_add_signed(skew));
        let (Some(queue), Some(published_at)) = (&run.queue, published_at) else {
            continue;
        };
        // The sender's clock may be slightly ahead.
        let after = (one.occurred_at - published_at).max(TimeDelta::zero());
        let is_sound = after <= span(limits::SPAN_SECONDS);
        if one.kind == StageKind::Received && !run.redelivered && is_sound {
            let at = one.occurred_at;
            waited.insert((&run.beat, queue), Taken { after, at });
        }
    }
    waited
        .into_iter()
        .map(|((app, queue), taken)| ((app.to_owned(), queue.to_owned()), taken))
        .collect()
}

/// Writes stages into the traces of their runs. Returns the stages that are also pings of a monitor, and which stages were new.
async fn accept_stages(
    services: &Services,
    project: ProjectId,
    reported: Vec<ReportedRun>,
    skew: TimeDelta,
    received_at: DateTime<Utc>,
    verdicts: &mut [(Option<Uuid>, Verdict)],
) -> Result<(Vec<RunPing>, Fresh), ServiceError> {
    let monitors = monitors_of(services, project, &reported).await?;
    let mut stages = Vec::with_capacity(reported.len());
    let mut runs = Vec::new();
    for one in reported {
        let run = &one.run;
        let monitor = match &run.entry {
            None => None,
            Some(entry) => match monitors.get(&(run.beat.as_str().into(), entry.as_str().into())) {
                Some(&found) => Some(found),
                None => {
                    verdicts[one.place].1 = unknown_entry(&run.beat, entry);
                    continue;
                }
            },
        };
        let kind = match (one.kind, one.outcome) {
            (StageKind::Started, _) => Some(PingKind::Start),
            (StageKind::Retried, _) => Some(PingKind::Log),
            (StageKind::Finished, Some(outcome)) if outcome.is_failure() => Some(PingKind::Fail),
            (StageKind::Finished, _) => Some(PingKind::Success),
            (StageKind::Published | StageKind::Received | StageKind::GivenUp, _) => None,
        };
        if let (Some(kind), Some((_, monitor))) = (kind, monitor) {
            runs.push(RunPing {
                place: one.place,
                monitor,
                kind,
                outcome: one.outcome,
                event: one.id,
                occurred_at: one.occurred_at,
                ahead: one.ahead,
                is_early_expiry: false,
                published_at: run
                    .published_at
                    .and_then(|at| at.checked_add_signed(skew))
                    .map(to_micros),
                run: run.clone(),
            });
        }
        stages.push(new_stage(one, monitor.map(|(id, _)| id), skew, received_at));
    }
    let fresh = services.traces.accept(project, received_at, stages).await?;
    note_early_expiries(services, project, &mut runs).await?;
    Ok((runs, fresh))
}

/// Marks the runs whose message expired only because a clock is wrong. Their traces are already written.
async fn note_early_expiries(
    services: &Services,
    project: ProjectId,
    runs: &mut [RunPing],
) -> Result<(), ServiceError> {
    let expired: Vec<Uuid> = runs
        .iter()
        .filter(|ping| ping.outcome == Some(Outcome::Expired))
        .map(|ping| ping.run.run_id)
        .collect();
    if expired.is_empty() {
        return Ok(());
    }
    let sent = deadbeat_store::celery::trace::sent_at(&services.reader(), project, &expired).await?;
    for ping in runs {
        if ping.outcome == Some(Outcome::Expired) {
            let sent_at = sent.get(&ping.run.run_id).copied();
            ping.is_early_expiry = is_early(ping.ahead, ping.published_at, sent_at, ping.occurred_at);
        }
    }
    Ok(())
}

/// Returns the monitors of the named entries, by Beat and entry.
async fn monitors_of(
    services: &Services,
    project: ProjectId,
    reported: &[ReportedRun],
) -> Result<HashMap<(Box<str>, Box<str>), (MonitorId, PingId)>, ServiceError> {
    let named: HashSet<(&str, &str)> = reported
        .iter()
        .filter_map(|one| Some((one.run.beat.as_str(), one.run.entry.as_deref()?)))
        .collect();
    // Runs that Beat did not send need no query.
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let (beats, entries): (Vec<String>, Vec<String>) = named
        .into_iter()
        .map(|(beat, entry)| (beat.to_owned(), entry.to_owned()))
        .unzip();
    let found =
        deadbeat_store::monitor::resolve_entries(&services.reader(), project, &beats, &entries).await?;
    services
        .ingest
        .learn(found.iter().map(|(_, monitor, ping)| (*ping, *monitor)));
    let name = |index: usize| {
        Some((
            beats.get(index)?.as_str().into(),
            entries.get(index)?.as_str().into(),
        ))
    };
    Ok(found
        .into_iter()
        .filter_map(|(index, monitor, ping)| Some((name(index)?, (monitor, ping))))
        .collect())
}

fn new_stage(
    one: ReportedRun,
    monitor_id: Option<MonitorId>,
    skew: TimeDelta,
    received_at: DateTime<Utc>,
) -> NewStage {
    let run = one.run;
    // By the server's clock, like all times of a batch. Ignore times that are too far away.
    let near = |at: DateTime<Utc>| (at - received_at).abs() <= FAR;
    let ours = |at: DateTime<Utc>| at.checked_add_signed(skew).filter(|at| near(*at)).map(to_micros);
    let published_at = match one.kind {
        StageKind::Published => Some(one.occurred_at),
        _ => run.published_at.and_then(ours).map(|at| at.min(received_at)),
    };
    let stage = Stage {
        id: one.id,
        kind: one.kind,
        at: one.occurred_at,
        retries: run.retries.max(0),
        attempt: run.attempt,
        worker: run.worker.map(String::from),
        queue: run.queue.map(String::from),
        redelivered: run.redelivered,
        pid: run.pid,
        outcome: one.outcome,
        soft: run.soft,
        duration_seconds: run
            .duration_seconds
            .filter(|seconds| (0.0..=limits::SPAN_SECONDS).contains(seconds)),
        error: run.error.map(String::from),
    };
    NewStage {
        run_id: run.run_id,
        app: run.beat.into(),
        entry: run.entry.map(String::from),
        monitor_id,
        reported: StageReport {
            stage,
            task: run.task.map(String::from),
            task_id: run.task_id.map(String::from),
            // An instant of the schedule, which does not depend on any clock.
            slot: run.slot.filter(|slot| near(*slot)).map(to_micros),
            eta: run.eta.and_then(ours),
            published_at,
        },
    }
}

fn unknown_entry(beat: &str, entry: &str) -> Verdict {
    Verdict::rejected(
        "unknown_entry",
        format!(
            "Beat {:?} has not registered an entry {:?}",
            clip(beat),
            clip(entry)
        ),
    )
}

async fn accept_runs(
    services: &Services,
    project: ProjectId,
    runs: Vec<RunPing>,
    received_at: DateTime<Utc>,
    remote_addr: Option<String>,
    verdicts: &mut [(Option<Uuid>, Verdict)],
) -> Result<(), ServiceError> {
    let mut left = runs.into_iter().peekable();
    while left.peek().is_some() {
        let part: Vec<RunPing> = left.by_ref().take(share::TOGETHER).collect();
        let _share = services.signals.take(project, part.len()).await?;
        accept_part(services, part, received_at, remote_addr.clone(), verdicts).await?;
    }
    Ok(())
}

/// Handles some of a request's signals.
async fn accept_part(
    services: &Services,
    runs: Vec<RunPing>,
    received_at: DateTime<Utc>,
    remote_addr: Option<String>,
    verdicts: &mut [(Option<Uuid>, Verdict)],
) -> Result<(), ServiceError> {
    let mut sent = Vec::new();
    for ping in runs {
        let place = ping.place;
        sent.push((
            place,
            services
                .ingest
                .accept(incoming(ping, received_at, remote_addr.clone())),
        ));
    }
    // Queue all signals before waiting for the first: this keeps their order, and lets them share commits.
    let (places, pending): (Vec<usize>, Vec<_>) = sent.into_iter().unzip();
    for (place, accepted) in places.into_iter().zip(join_all(pending).await) {
        match accepted {
            Ok(Accepted::Recorded) => {}
            Ok(Accepted::Unknown { .. } | Accepted::Refused(_)) => {
                verdicts[place].1 =
                    Verdict::rejected("unknown_entry", "the monitor was deleted in the meantime");
            }
            Err(IngestError::Full | IngestError::Unavailable) => return Err(ServiceError::Busy),
        }
    }
    Ok(())
}

fn incoming(ping: RunPing, received_at: DateTime<Utc>, remote_addr: Option<String>) -> Incoming {
    let RunPing {
        monitor,
        kind,
        outcome,
        event,
        occurred_at,
        is_early_expiry,
        published_at,
        run,
        ..
    } = ping;
    // For a failure without an exception, use its outcome: `aborted`, `revoked`.
    let error = if kind == PingKind::Fail {
        run.error.map(String::from).or(run.outcome)
    } else {
        None
    };
    Incoming {
        address: Address::Ping(monitor),
        signal: Signal {
            kind,
            received_at,
            occurred_at,
            run_id: Some(run.run_id),
            exit_code: None,
            duration: run
                .duration_seconds
                .filter(|seconds| (0.0..=limits::SPAN_SECONDS).contains(seconds))
                .map(deadbeat_domain::time::span),
            source: Source::Event,
            detail: SignalDetail {
                run: RunDetail {
                    task: run.task.map(String::from),
                    task_id: run.task_id.map(String::from),
                    worker: run.worker.map(String::from),
                    retries: run.retries.max(0),
                    error,
                    outcome,
                    attempt: run.attempt,
                    incarnation: run.incarnation,
                    acks_late: run.acks_late,
                },
                is_early_expiry,
                published_at,
                event: Some(event),
                is_retried: kind == PingKind::Log,
            },
            is_replayed: false,
        },
        method: None,
        remote_addr,
        user_agent: None,
        body: Vec::new(),
    }
}
