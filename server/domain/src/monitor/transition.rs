//! The state machine of a monitor: how pings, silence and people change it. `docs/state-machine.md` draws it.

pub mod silence;

use chrono::{DateTime, Utc};

use crate::change::{Transition, Trigger};
use crate::ids::RunKey;
use crate::incident::cause::Cause;
use crate::incident::{self, Consequence};
use crate::judge::blind_spell::is_to_come;
use crate::monitor::alarm::Alarm;
use crate::monitor::ping::{PingKind, Signal, Source};
use crate::monitor::run::{Contest, Outcome, Run, pairing};
use crate::monitor::status::Status;
use crate::monitor::{Expectation, MonitorState, order, slot};
use crate::schedule::Schedule;

#[cfg(test)]
pub(crate) mod tests;

/// The effects of a ping besides the changed state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PingEffect {
    /// The runs that were opened or closed.
    pub runs: Vec<RunKey>,
    /// The change of status.
    pub transition: Option<Transition>,
    /// The effect on incidents. `Open` has no effect while an incident is open: that incident keeps its cause.
    pub consequence: Consequence,
    /// The event is known. It changed nothing, and need not be stored.
    pub is_known: bool,
}

/// Applies one ping. The caller must apply the pings of one monitor in sequence.
///
/// The order of receipt decides, not the order of calls. Example: a failure is received at 12:00:01, a success at
/// 12:00:02, but the success is applied first. The failure still counts and ends its run, but changes no status
/// (ADR 024).
#[must_use]
pub fn on_ping(state: &mut MonitorState, signal: &Signal) -> PingEffect {
    if pairing::is_known(&state.runs, signal) {
        return PingEffect {
            is_known: true,
            ..PingEffect::default()
        };
    }
    let at = signal.received_at;
    state.ping_count += 1;
    state.last_ping_at = state.last_ping_at.max(Some(at));

    let longest = state.longest_run();
    let starts_count = state.expectation.longest_run_seconds.is_some();
    let counted = ended_runs(state);
    let changed = match signal.kind {
        PingKind::Log if signal.detail.is_retried => pairing::retried(&mut state.runs, signal).cloned(),
        PingKind::Log => None,
        PingKind::Start if order::has_ended(state, signal) => None,
        PingKind::Start => pairing::start(&mut state.runs, signal, longest).cloned(),
        PingKind::Success | PingKind::Fail => pairing::finish(&mut state.runs, signal).cloned(),
    };
    let mut effect = PingEffect {
        runs: changed.iter().map(|run| run.key).collect(),
        ..PingEffect::default()
    };
    let ended = changed
        .as_ref()
        .filter(|run| matches!(signal.kind, PingKind::Success | PingKind::Fail) && !run.is_open());
    if matches!(signal.kind, PingKind::Success | PingKind::Fail) && signal.run_id.is_none() {
        state.plain_end_at = state.plain_end_at.max(Some(at));
    }
    let goes_on = signal.kind == PingKind::Fail && changed.as_ref().is_some_and(Run::is_open);
    let decides = matches!(signal.kind, PingKind::Success | PingKind::Fail) && !goes_on;
    let is_late = decides
        && state
            .decided_at
            .is_some_and(|decided| order::is_older(signal, decided));
    let length = ended.and_then(|run| run.duration);
    if length.is_some() && !is_late {
        state.last_duration = length;
    }
    let mut is_too_fast = false;
    if signal.kind == PingKind::Success {
        state.last_success_at = state.last_success_at.max(Some(at));
        // An ignored run did not do its work, so its length proves nothing.
        let counts = signal.detail.run.outcome != Some(Outcome::Ignored);
        if let (Some(baseline), Some(length), true) = (&mut state.baseline, length, counts) {
            is_too_fast = baseline.is_too_fast(length);
        }
    }

    // Three signals do not change the status:
    // * Signals of a retired monitor.
    // * Events of a monitor that a person paused while its Beat keeps sending. A ping to a ping URL ends the pause, as
    //   in Healthchecks, because a monitor that somebody forgot to resume guards nothing.
    // * An early expiry: clock skew made a fresh message expire. Its slot stays unsatisfied, and at the deadline the
    //   evaluator finds out whose clock is wrong.
    let is_excused = signal.kind == PingKind::Fail && signal.detail.is_early_expiry;
    let ignored =
        is_excused || state.retired || (state.status == Status::Paused && signal.source == Source::Event);
    if ignored || signal.kind == PingKind::Log {
        if signal.detail.is_retried {
            state.rearm();
        }
        return effect;
    }
    if decides {
        state.decided_at = state.decided_at.max(Some(at));
    }

    // With its own longest run, a run satisfies its slot at its start. Without one, it does so at its end.
    let credited_at = match signal.kind {
        PingKind::Start if !starts_count => None,
        PingKind::Start => Some(signal.occurred_at),
        _ if starts_count => changed.as_ref().and_then(|run| run.started_at).or(Some(at)),
        _ => Some(at),
    };
    if signal.kind == PingKind::Success && state.status == Status::Down && !is_late {
        effect.runs.extend(pairing::note_loops(&mut state.runs, at));
    }
    let contest = changed.as_ref().and_then(|run| run.contest);
    if let (Some(Contest::Proved), Some(changed)) = (contest, &changed)
        && let Some(run) = state.runs.iter_mut().find(|run| run.key == changed.key)
    {
        run.contest = Some(Contest::Alerted);
    }
    // Two executions have succeeded. The order in which their ends arrive does not matter.
    let is_proved = contest == Some(Contest::Proved);
    let cause = if is_proved {
        Cause::DuplicateRun
    } else if is_too_fast {
        Cause::TooFast
    } else {
        Cause::of_outcome(signal.detail.run.outcome)
    };
    let to = match signal.kind {
        _ if is_late && !is_proved => state.status,
        // The duplicate execution of this run was reported. The end of one execution does not bring the monitor up.
        PingKind::Success if contest == Some(Contest::Alerted) && state.status == Status::Down => {
            Status::Down
        }
        PingKind::Success if is_proved => Status::Down,
        PingKind::Success if state.status == Status::Down && pairing::is_looping(&state.runs, at) => {
            Status::Down
        }
        PingKind::Success if is_too_fast => Status::Down,
        PingKind::Success => Status::Up,
        // The reason why the process was ordered to exit may still arrive.
        PingKind::Fail if goes_on => state.status,
        PingKind::Fail => Status::Down,
        PingKind::Start | PingKind::Log => state.status,
    };
    if let Some(credited_at) = credited_at {
        slot::credit(state, credited_at);
    }
    let was_judged = state.is_judged();
    let is_repeated = changed.as_ref().is_some_and(|run| counted.contains(&run.key));
    let has_failed = signal.kind == PingKind::Fail && !goes_on;
    effect.consequence = match (state.alarm, signal.kind) {
        // Another report of a run that counts already.
        (Alarm::Bad(_), PingKind::Fail) | (Alarm::Good(_), PingKind::Success)
            if is_repeated && !is_proved =>
        {
            Consequence::Nothing
        }
        (_, PingKind::Fail) if has_failed && is_late && !is_proved => state.note_late_bad(cause, at),
        (_, PingKind::Success) if is_late && !is_proved => state.note_late_good(at),
        // Report the duplicate run even if the monitor is down for another reason, such as the lost worker of the first
        // execution.
        _ if has_failed || is_proved || (to == Status::Down && state.status != Status::Down) => {
            state.note_bad(1, cause, at)
        }
        (_, PingKind::Success) if to == Status::Up => state.note_good(at),
        _ => Consequence::Nothing,
    };
    if let Alarm::Bad(_) = state.alarm
        && has_failed
    {
        leave_nothing_overdue(state, at);
    }
    if to == Status::Up && signal.kind == PingKind::Success && !is_late {
        // The end of a long run is credited to its start, so slots that passed while it ran may seem overdue. They
        // already had their incident. A success must leave nothing overdue, or the monitor would go down a second time
        // for the same slot.
        leave_nothing_overdue(state, at);
        if !was_judged {
            effect.runs.extend(pairing::close_overdue(&mut state.runs, at));
        }
    }
    if to != state.status {
        let trigger = if to == Status::Down {
            Trigger::Trouble(cause)
        } else {
            Trigger::Report
        };
        effect.transition = Some(Transition {
            from: state.status,
            to,
            trigger,
            at,
        });
        state.status = to;
        state.flaps.note_change(at);
    }
    state.rearm();
    // A class of schedule that only Beat can compute has no next slot until Beat's hint comes.
    if state.deadline_at.is_none()
        && !matches!(state.expectation.schedule, Schedule::Hint(_))
        && let Some(raised) = state.raise_at_once(cause, at)
    {
        effect.consequence = raised;
    }
    effect
}

/// Returns the keys of the ended runs if the rules count the runs of this monitor. Otherwise no rule needs the keys.
fn ended_runs(state: &MonitorState) -> Vec<RunKey> {
    match state.alarm {
        Alarm::Follows | Alarm::Member => Vec::new(),
        Alarm::Bad(_) | Alarm::Good(_) => {
            let ended = state.runs.iter().filter(|run| !run.is_open());
            ended.map(|run| run.key).collect()
        }
    }
}

/// Expects the slots from now on, if an earlier one is overdue.
fn leave_nothing_overdue(state: &mut MonitorState, at: DateTime<Utc>) {
    if state
        .next_due_at
        .is_some_and(|due| due + state.expectation.patience() <= at)
    {
        slot::expect_anew(state, at);
    }
}

/// Adapts the state after the clock stepped back: moves stored future times to `now`, and expects reports from now on.
/// Otherwise no missing report would be noticed until the clock reaches the old time again.
pub fn forget_times_to_come(state: &mut MonitorState, now: DateTime<Utc>) {
    state.note_earlier_clock(now);
    for known in [&mut state.decided_at, &mut state.plain_end_at] {
        *known = known.map(|at| if is_to_come(at, now) { now } else { at });
    }
    let Some(before) = state.last_ping_at.filter(|at| is_to_come(*at, now)) else {
        return;
    };
    state.last_ping_at = Some(now);
    state.last_success_at = state.last_success_at.min(Some(now));
    slot::expect_again(state, before, now);
    let longest = state.longest_run();
    for run in state.runs.iter_mut().filter(|run| run.is_open()) {
        run.started_at = run.started_at.map(|at| at.min(now));
        run.deadline_at = run.deadline_at.map(|at| at.min(now + longest));
    }
    state.rearm();
}

/// A person pauses the monitor. None: it was paused already.
#[must_use]
pub fn on_pause(state: &mut MonitorState, trigger: Trigger, now: DateTime<Utc>) -> Option<Transition> {
    if state.status == Status::Paused {
        return None;
    }
    let transition = Transition {
        from: state.status,
        to: Status::Paused,
        trigger,
        at: now,
    };
    state.status = Status::Paused;
    state.note_anew();
    state.decided_at = state.decided_at.max(Some(now));
    state.disarm();
    Some(transition)
}

/// A person resumes the monitor, or the incident that it was a member of is over. Its reports are expected from now on,
/// as if it had never reported. None: there was nothing to resume, or its entry is not in Beat's schedule, so no report
/// would ever come.
#[must_use]
pub fn on_resume(state: &mut MonitorState, trigger: Trigger, now: DateTime<Utc>) -> Option<Transition> {
    if state.status == Status::New || state.retired {
        return None;
    }
    let transition = Transition {
        from: state.status,
        to: Status::New,
        trigger,
        at: now,
    };
    state.status = Status::New;
    state.note_anew();
    state.flaps.note_change(now);
    // While the monitor was a member of another subject's incident, nobody was alerted about its hanging runs. They
    // stay open, and are judged now.
    if trigger != Trigger::Restored {
        state.decided_at = state.decided_at.max(Some(now));
        pairing::close_overdue(&mut state.runs, now);
    }
    slot::expect_anew(state, now);
    state.rearm();
    Some(transition)
}

/// The incident that the monitor was a member of is over. Resumes the monitor as [`on_resume`] does. Returns also the
/// effect on the monitor's own incident, which may wait for more good runs.
#[must_use]
pub fn on_restored(state: &mut MonitorState, now: DateTime<Utc>) -> Option<(Transition, Consequence)> {
    let waits = matches!(state.alarm, Alarm::Good(_)) || state.flaps.flapping.is_some();
    let transition = on_resume(state, Trigger::Restored, now)?;
    let consequence = if waits {
        Consequence::Nothing
    } else {
        incident::consequence(&transition)
    };
    Some((transition, consequence))
}

/// Applies new settings, and computes the due and the deadlines from now on. So new settings alone raise no alert.
pub fn on_settings_change(state: &mut MonitorState, expectation: Expectation, now: DateTime<Utc>) {
    let schedule_changed = state.expectation.schedule != expectation.schedule;
    state.expectation = expectation;
    if schedule_changed {
        state.hinted_due_at = None;
        slot::expect_anew(state, now);
    }
    let longest = state.longest_run();
    for run in state.runs.iter_mut().filter(|run| run.is_open()) {
        run.deadline_at = run.started_at.map(|start| (start + longest).max(now));
    }
    state.rearm();
    // If the due has passed, restart the whole patience now.
    let fresh_grace = now + state.expectation.patience();
    state.deadline_at = state
        .deadline_at
        .map(|deadline| if deadline <= now { fresh_grace } else { deadline });
}

/// Beat lists its schedule, with a hint for this entry: when it is next due. None: never again.
pub fn on_due_hint(state: &mut MonitorState, hint: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    if state.status == Status::Paused {
        return;
    }
    slot::take_hint(state, hint, now);
    state.rearm();
}

/// Beat has just sent this entry, and says when it is next due. None: never again. The slot of the sending still needs
/// a report.
pub fn on_sent(state: &mut MonitorState, hint: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    if state.status == Status::Paused {
        return;
    }
    slot::take_hint_of_sent(state, hint, now);
    state.rearm();
}

/// Adapts the due and the deadline to new time zone data. Returns true if they changed.
pub fn on_zone_data_change(state: &mut MonitorState, now: DateTime<Utc>) -> bool {
    let has_moved = slot::on_zone_data_change(state, now);
    if has_moved {
        state.rearm();
    }
    has_moved
}
