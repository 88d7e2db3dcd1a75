//! Pairs starts with ends. Several runs may be open at once, and each is judged separately.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    ABORTED_PATIENCE, CONTEST_PATIENCE, Contest, LOOP_ATTEMPTS, LOOP_QUIET, Outcome, Run, RunDetail,
    RunStatus,
};
use crate::ids::RunKey;
use crate::limits;
use crate::monitor::order::is_older;
use crate::monitor::ping::{PingKind, Signal, SignalDetail, Source};

/// How long a retry may be late before its run counts as missed.
const RETRY_PATIENCE: TimeDelta = TimeDelta::days(1);

/// Number of events that a run remembers.
const EVENTS: usize = 16;

/// Remembers an event that changed a run.
fn remember(run: &mut Run, event: Option<Uuid>) {
    if run.events.len() >= EVENTS {
        run.events.remove(0);
    }
    run.events.extend(event);
}

/// True if an event is known. Clients send an event again if they got no answer.
#[must_use]
pub fn is_known(runs: &[Run], signal: &Signal) -> bool {
    signal.detail.event.is_some_and(|event| {
        runs.iter()
            .any(|run| run.run_id == signal.run_id && run.events.contains(&event))
    })
}

/// Applies the end of an attempt that a retry will follow, maybe much later. Returns the run, which stays open.
pub fn retried<'a>(runs: &'a mut [Run], signal: &Signal) -> Option<&'a Run> {
    let run = runs
        .iter_mut()
        .find(|run| run.is_open() && run.run_id.is_some() && run.run_id == signal.run_id)?;
    if signal.detail.run.retries < run.detail.retries {
        // The retry's start overtook this report of the attempt before it.
        remember(run, signal.detail.event);
        return Some(run);
    }
    run.deadline_at = Some(signal.received_at + RETRY_PATIENCE);
    run.detail.outcome = None;
    run.attempts = 0;
    run.ended_at = None;
    run.orphan = None;
    run.contest = run.contest.filter(|contest| *contest == Contest::Alerted);
    remember(run, signal.detail.event);
    Some(run)
}

/// True if a start is another execution of a message: neither a known start that was sent again, nor a retry.
fn is_another(run: &Run, signal: &Signal) -> bool {
    signal.source == Source::Event
        && signal.run_id.is_some()
        && run.run_id == signal.run_id
        && run.attempts > 0
        && run.detail.retries == signal.detail.run.retries
        && matches!((run.detail.attempt, signal.detail.run.attempt), (Some(before), Some(now)) if before != now)
}

/// True if an end belongs to another execution than the newest one.
fn is_of_another(run: &Run, signal: &Signal) -> bool {
    matches!((run.detail.attempt, signal.detail.run.attempt), (Some(last), Some(ended)) if last != ended)
}

/// For a run in [`Contest::Ended`]: when the server received the end of one of its executions. The last release stores
/// this instant only as a part of the deadline.
pub(crate) fn ended_at(run: &Run) -> Option<DateTime<Utc>> {
    run.ended_at
        .or_else(|| run.deadline_at.map(|judged_at| judged_at - CONTEST_PATIENCE))
}

/// Starts a run, or starts it again. Returns the changed run. None: too many runs are open.
///
/// Starts with the same run id belong to the same run. All starts without an id belong to one run. A repeated start
/// moves the beginning, as in Healthchecks. A Celery retry keeps the first start, because the run lasts as long as all
/// its attempts together.
pub fn start<'a>(runs: &'a mut Vec<Run>, signal: &Signal, longest: TimeDelta) -> Option<&'a Run> {
    if let Some(ended) = ended_before_its_start(runs, signal) {
        let run = &mut runs[ended];
        let known = run.started_at;
        // From a ping URL, the newest start is the beginning. From the SDK, the first attempt is the beginning.
        let started_at = match signal.source {
            Source::Http => known.max(Some(signal.occurred_at)),
            Source::Event => known.map(|start| start.min(signal.occurred_at)),
        };
        run.started_at = started_at.or(Some(signal.occurred_at));
        let length = run
            .finished_at
            .zip(run.started_at)
            .map(|(end, start)| end - start);
        run.duration = match (signal.source, known) {
            (Source::Http, Some(_)) => run.duration.and(length),
            _ => run.duration.or(length),
        };
        remember(run, signal.detail.event);
        return runs.get(ended);
    }
    let found = runs
        .iter()
        .position(|run| run.is_open() && run.run_id == signal.run_id);
    let index = match found {
        Some(index) if is_another(&runs[index], signal) => {
            let run = &mut runs[index];
            let was_loop = run.contest == Some(Contest::Alerted) && run.attempts >= LOOP_ATTEMPTS;
            run.attempts += 1;
            run.contest = match run.contest {
                None => Some(Contest::Again),
                // A start that occurred before that end was only delayed on its way.
                Some(Contest::Ended)
                    if ended_at(run).is_some_and(|ended_at| signal.occurred_at > ended_at) =>
                {
                    Some(Contest::Repeated)
                }
                other => other,
            };
            if was_loop {
                run.deadline_at = Some(signal.received_at + LOOP_QUIET);
            } else if matches!(run.contest, Some(Contest::Again | Contest::Repeated)) {
                let judged_at = signal.received_at + CONTEST_PATIENCE;
                run.deadline_at = run.deadline_at.min(Some(judged_at)).or(Some(judged_at));
            }
            run.detail = signal.detail.run.clone();
            run.orphan = None;
            index
        }
        // A replayed start that is older than the current beginning does not change the beginning.
        Some(index) if signal.source == Source::Http && is_older_than_start(&runs[index], signal) => index,
        Some(index)
            if signal.source == Source::Event && signal.detail.run.retries < runs[index].detail.retries =>
        {
            // The retry's start overtook this report of the attempt before it.
            let run = &mut runs[index];
            run.started_at = run.started_at.min(Some(signal.occurred_at));
            index
        }
        Some(index) => {
            let run = &mut runs[index];
            let retries_more = signal.detail.run.retries > run.detail.retries;
            if signal.detail.run.retries == 0 {
                run.started_at = Some(signal.occurred_at);
            }
            if signal.detail.run.retries == 0 || retries_more {
                run.deadline_at = Some(signal.occurred_at + longest);
                run.attempts = 1;
                run.orphan = None;
            }
            run.detail = signal.detail.run.clone();
            index
        }
        None if runs.iter().filter(|run| run.is_open()).count() >= limits::OPEN_RUNS => return None,
        None => {
            // A message that was sent after the run had ended is another message. Somebody chose the same task id
            // again.
            let is_new = |run: &Run| signal.detail.published_at > run.finished_at;
            let repeats = runs
                .iter()
                .any(|run| run.status == RunStatus::Success && is_another(run, signal) && !is_new(run));
            let deadline_at = if repeats {
                (signal.occurred_at + longest).min(signal.received_at + CONTEST_PATIENCE)
            } else {
                signal.occurred_at + longest
            };
            runs.push(Run {
                key: RunKey::generate(),
                run_id: signal.run_id,
                status: RunStatus::Open,
                started_at: Some(signal.occurred_at),
                finished_at: None,
                deadline_at: Some(deadline_at),
                duration: None,
                exit_code: None,
                detail: signal.detail.run.clone(),
                attempts: 1,
                contest: repeats.then_some(Contest::Repeated),
                events: Vec::new(),
                orphan: None,
                ended_at: None,
            });
            runs.len() - 1
        }
    };
    remember(&mut runs[index], signal.detail.event);
    runs.get(index)
}

/// Returns the ended run that a late start belongs to. Signals of several processes arrive in no order, so a start that
/// occurred before a known end belongs to the ended run. If a client of a ping URL reuses an id, the start belongs to
/// the first such run.
fn ended_before_its_start(runs: &[Run], signal: &Signal) -> Option<usize> {
    let belongs = |run: &Run| {
        run.run_id == signal.run_id
            && match signal.source {
                Source::Http => run.finished_at.is_some_and(|end| is_older(signal, end)),
                Source::Event => {
                    !is_another(run, signal) && run.finished_at.is_some_and(|end| end >= signal.occurred_at)
                }
            }
    };
    signal.run_id?;
    let ended = runs.iter().enumerate().filter(|(_, run)| belongs(run));
    ended
        .min_by_key(|(_, run)| run.finished_at)
        .map(|(index, _)| index)
}

/// True if a run began after this replayed signal of a ping URL.
fn is_older_than_start(run: &Run, signal: &Signal) -> bool {
    run.started_at.is_some_and(|start| is_older(signal, start))
}

/// Ends the run that a success or a failure belongs to. Returns the changed run. None: the end belongs to no run.
///
/// The end belongs to the first of these:
/// 1. the open run of the same run id;
/// 2. the overrun of that id, which gets its true length;
/// 3. the ended run of that id, if the SDK sent the end: the later end wins. Example: a child process reports
///    `aborted`, then the worker reports why;
/// 4. if the end has no run id: the only open run. Its client forgot the id, so the run gets no duration;
/// 5. if the end has an unknown run id: a new run without a start.
///
/// When a process is ordered to exit, its run stays open for a moment, because the worker's main process may report the
/// reason.
pub fn finish<'a>(runs: &'a mut Vec<Run>, signal: &Signal) -> Option<&'a Run> {
    let status = if signal.kind == PingKind::Success {
        RunStatus::Success
    } else {
        RunStatus::Fail
    };
    let same_id = |run: &Run| run.run_id == signal.run_id;
    let open: Vec<usize> = runs
        .iter()
        .enumerate()
        .filter(|(_, run)| run.is_open())
        // A run that began after this end cannot be the run that ended.
        .filter(|(_, run)| signal.source == Source::Event || !is_older_than_start(run, signal))
        .map(|(index, _)| index)
        .collect();
    let paired = open.iter().copied().find(|&index| same_id(&runs[index]));
    let late = || {
        runs.iter().position(|run| {
            run.status == RunStatus::Overrun
                && signal.run_id.is_some()
                && same_id(run)
                && run.finished_at.is_none()
        })
    };
    let again = || {
        runs.iter().rposition(|run| {
            signal.source == Source::Event
                && signal.run_id.is_some()
                && same_id(run)
                && matches!(run.status, RunStatus::Success | RunStatus::Fail)
        })
    };
    let only = if signal.run_id.is_none() && open.len() == 1 {
        Some(open[0])
    } else {
        None
    };

    let (index, claims_duration) = match (paired.or_else(late).or_else(again), only) {
        (Some(index), _) => (index, true),
        (None, Some(index)) => (index, false),
        (None, None) if signal.run_id.is_some() => {
            runs.push(Run {
                key: RunKey::generate(),
                run_id: signal.run_id,
                status,
                started_at: signal.duration.map(|length| signal.occurred_at - length),
                finished_at: Some(signal.occurred_at),
                deadline_at: None,
                duration: signal.duration,
                exit_code: signal.exit_code,
                detail: signal.detail.run.clone(),
                attempts: 0,
                contest: None,
                events: signal.detail.event.into_iter().collect(),
                orphan: None,
                ended_at: None,
            });
            return runs.last();
        }
        (None, None) => return None,
    };

    let run = &mut runs[index];
    remember(run, signal.detail.event);
    if signal.detail.run.outcome == Some(Outcome::Aborted) {
        // The abort of an earlier execution does not affect the newest one, which continues.
        if run.is_open() && !is_of_another(run, signal) {
            let judged_at = signal.received_at + ABORTED_PATIENCE;
            run.deadline_at = run.deadline_at.min(Some(judged_at)).or(Some(judged_at));
            run.detail.outcome = signal.detail.run.outcome;
        }
        if run.is_open() || run.status == RunStatus::Fail {
            return Some(run);
        }
    }
    // An ignored execution did not do the work, and proves nothing about the other executions.
    let is_ignored = signal.detail.run.outcome == Some(Outcome::Ignored);
    if is_ignored && run.is_open() && run.contest == Some(Contest::Again) {
        return Some(run);
    }
    if status == RunStatus::Success && !is_ignored && run.is_open() && signal.detail.run.attempt.is_some() {
        match run.contest {
            // Another execution may be alive. The deadline checks this soon.
            Some(Contest::Again) => {
                run.contest = Some(Contest::Ended);
                run.ended_at = Some(signal.received_at);
                run.deadline_at = Some(signal.received_at + CONTEST_PATIENCE);
                run.detail.attempt = signal.detail.run.attempt;
                return Some(run);
            }
            Some(Contest::Ended) if run.detail.attempt != signal.detail.run.attempt => {
                run.contest = Some(Contest::Proved);
            }
            Some(Contest::Repeated) => run.contest = Some(Contest::Proved),
            _ => {}
        }
    }
    if run.status != RunStatus::Overrun {
        run.status = status;
    }
    let finished_at = run
        .started_at
        .map_or(signal.occurred_at, |start| signal.occurred_at.max(start));
    run.finished_at = Some(finished_at);
    run.deadline_at = None;
    run.exit_code = signal.exit_code;
    if claims_duration {
        run.duration = signal
            .duration
            .or_else(|| run.started_at.map(|start| finished_at - start));
    }
    if signal.detail != SignalDetail::default() {
        // The worker's main process does not know the attempt.
        let attempt = signal.detail.run.attempt.or(run.detail.attempt);
        run.detail = RunDetail {
            attempt,
            ..signal.detail.run.clone()
        };
    }
    Some(run)
}

/// True if a message is in a reported redelivery loop. During the loop, the success of another run does not bring the
/// monitor up.
#[must_use]
pub fn is_looping(runs: &[Run], now: DateTime<Utc>) -> bool {
    runs.iter().any(|run| {
        run.is_open()
            && run.contest == Some(Contest::Alerted)
            && run.attempts >= LOOP_ATTEMPTS
            && run.deadline_at.is_some_and(|quiet_at| quiet_at > now)
    })
}

/// Marks redelivery loops that run while the monitor is down for another reason. The end of that other fault must not
/// end the report of the loop.
pub(crate) fn note_loops(runs: &mut [Run], now: DateTime<Utc>) -> Vec<RunKey> {
    let is_loop = |run: &&mut Run| {
        run.is_open() && run.contest == Some(Contest::Again) && run.attempts >= LOOP_ATTEMPTS
    };
    let note = |run: &mut Run| {
        run.contest = Some(Contest::Alerted);
        run.deadline_at = Some(now + LOOP_QUIET);
        run.key
    };
    runs.iter_mut().filter(is_loop).map(note).collect()
}

/// Closes the open runs that are past their deadline as overruns, and returns them.
pub fn close_overdue(runs: &mut [Run], now: DateTime<Utc>) -> Vec<RunKey> {
    let is_overdue = |run: &Run| run.is_open() && run.deadline_at.is_some_and(|deadline| deadline <= now);
    let close = |run: &mut Run| {
        run.status = RunStatus::Overrun;
        run.deadline_at = None;
        run.key
    };
    runs.iter_mut().filter(|run| is_overdue(run)).map(close).collect()
}
