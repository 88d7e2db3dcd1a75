//! The state machine of a monitor: what a ping, a silence, and a person change. `docs/state-machine.md` draws it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::beat::BeatView;
use crate::blind_spell::{BlindSpell, fair_deadline, is_to_come};
use crate::cause::Cause;
use crate::deadline::{deadline, run_deadline, slot_deadline};
use crate::ids::RunKey;
use crate::monitor::{Expectation, MonitorState};
use crate::ping::{PingKind, Signal, Source};
use crate::run;
use crate::slot;
use crate::status::Status;

#[cfg(test)]
pub(crate) mod tests;

/// Why a status changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A report came.
    Report,
    /// A deadline passed, or a failure came.
    Trouble(Cause),
    /// The Beat that feeds it is silent: listed in that incident, not told on its own.
    BeatSilent,
    /// Its Beat is back: it is expected anew.
    BeatBack,
    /// A person paused it.
    Pause,
    /// A person resumed it.
    Resume,
    /// Its entry left Beat's schedule.
    Retire,
    /// Its entry came back into Beat's schedule.
    Return,
    /// A worker said goodbye.
    Leave,
    /// A lost worker did not come back.
    GiveUp,
    /// It was deleted.
    Delete,
}

impl Trigger {
    /// As written in the history.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "REPORT",
            Self::Trouble(cause) => cause.as_str(),
            Self::BeatSilent => "BEAT_SILENT",
            Self::BeatBack => "BEAT_BACK",
            Self::Pause => "PAUSE",
            Self::Resume => "RESUME",
            Self::Retire => "RETIRE",
            Self::Return => "RETURN",
            Self::Leave => "LEAVE",
            Self::GiveUp => "GIVE_UP",
            Self::Delete => "DELETE",
        }
    }
}

/// A changed status and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: Status,
    /// After.
    pub to: Status,
    /// Why.
    pub trigger: Trigger,
    /// When.
    pub at: DateTime<Utc>,
}

/// What a ping did beside changing the state: which runs changed, and whether the status did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PingEffect {
    /// The runs that were opened or closed.
    pub runs: Vec<RunKey>,
    /// The change of status.
    pub transition: Option<Transition>,
    /// It failed while it was down already: that changes no status, and is an incident of its own if it was down only because its
    /// Beat is.
    pub failed_again: bool,
}

/// Takes one ping in. Pings of one monitor are folded one after the other, in the order of their arrival.
#[must_use]
pub fn on_ping(state: &mut MonitorState, signal: &Signal) -> PingEffect {
    let at = signal.received_at;
    state.ping_count += 1;
    state.last_ping_at = state.last_ping_at.max(Some(at));

    let longest = state.expectation.longest_run();
    let starts_count = state.expectation.longest_run_seconds.is_some();
    let changed = match signal.kind {
        PingKind::Log => None,
        PingKind::Start => run::start(&mut state.runs, signal, longest).cloned(),
        PingKind::Success | PingKind::Fail => run::finish(&mut state.runs, signal).cloned(),
    };
    let mut effect = PingEffect {
        runs: changed.iter().map(|run| run.key).collect(),
        ..PingEffect::default()
    };
    if let Some(length) = changed
        .as_ref()
        .filter(|_| signal.kind != PingKind::Start)
        .and_then(|run| run.duration)
    {
        state.last_duration = Some(length);
    }
    if signal.kind == PingKind::Success {
        state.last_success_at = state.last_success_at.max(Some(at));
    }

    // A retired monitor, and one that a person paused while its Beat keeps sending, stay as they are. A ping URL that is called
    // again un-pauses, as Healthchecks has it: a switch that somebody forgot to turn on again guards nothing.
    let ignored = state.retired || (state.status == Status::Paused && signal.source == Source::Event);
    if ignored || signal.kind == PingKind::Log {
        return effect;
    }

    // With a longest run of its own, a run satisfies its slot by starting; without, by ending.
    let credited_at = match signal.kind {
        PingKind::Start if !starts_count => None,
        PingKind::Start => Some(signal.occurred_at),
        _ if starts_count => changed.and_then(|run| run.started_at).or(Some(at)),
        _ => Some(at),
    };
    let to = match signal.kind {
        PingKind::Success => Status::Up,
        PingKind::Fail => Status::Down,
        PingKind::Start | PingKind::Log => state.status,
    };
    if let Some(credited_at) = credited_at {
        slot::credit(state, credited_at);
    }
    effect.failed_again = signal.kind == PingKind::Fail && state.status == Status::Down;
    if to == Status::Up {
        // The end of a long run is credited to its start. What was missed while it went on has had its incident: a success leaves
        // nothing overdue, or the monitor would trip a second time for the same slot.
        if state
            .next_due_at
            .is_some_and(|due| due + state.expectation.grace() <= at)
        {
            slot::expect_anew(state, at);
        }
        if matches!(state.status, Status::Down | Status::Paused) {
            effect.runs.extend(run::close_overdue(&mut state.runs, at));
        }
    }
    if to != state.status {
        let trigger = if to == Status::Down {
            Trigger::Trouble(Cause::Failed)
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
    }
    state.deadline_at = deadline(state);
    effect
}

/// What a passed `check_after` turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// Not overdue: the deadline has moved on; look again then (or never, when it is not armed).
    NotYet,
    /// Its Beat is silent too, and not yet past its own deadline: wait for that before blaming anything.
    Hold,
    /// It went down.
    Down {
        /// The change of status.
        transition: Transition,
        /// Runs that were open past their deadline.
        overruns: Vec<RunKey>,
    },
}

/// After its Beat's own deadline a held monitor is looked at again: late enough that the Beat was judged before.
const AFTER_BEAT: TimeDelta = TimeDelta::seconds(2);

/// The clock was stepped back: what was noted in times to come is forgotten, and the monitor is expected from now on. It would not be
/// missed otherwise until the old time has come again.
pub fn forget_times_to_come(state: &mut MonitorState, now: DateTime<Utc>) {
    let Some(before) = state.last_ping_at.filter(|at| is_to_come(*at, now)) else {
        return;
    };
    state.last_ping_at = Some(now);
    state.last_success_at = state.last_success_at.min(Some(now));
    slot::expect_again(state, before, now);
    let longest = state.expectation.longest_run();
    for run in state.runs.iter_mut().filter(|run| run.is_open()) {
        run.started_at = run.started_at.map(|at| at.min(now));
        run.deadline_at = run.deadline_at.map(|at| at.min(now + longest));
    }
    state.deadline_at = deadline(state);
}

/// Judges one monitor whose `check_after` has passed.
///
/// A slot that nobody satisfied while Beat was not heard from since is Beat's trouble: the monitor waits for the verdict on Beat,
/// and joins its incident instead of opening one of its own.
#[must_use]
pub fn on_silence(
    state: &mut MonitorState,
    beat: Option<&BeatView>,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Silence {
    if matches!(state.status, Status::Down | Status::Paused) {
        // No rule arms it. Should a row say so all the same, going down twice would be refused, and stall every sweep.
        state.deadline_at = None;
    }
    forget_times_to_come(state, now);
    if state.deadline_at.is_some() && !spells.is_empty() {
        excuse(state, spells);
    }
    let Some(passed) = state.deadline_at.filter(|deadline| *deadline <= now) else {
        return Silence::NotYet;
    };

    let overruns = run::close_overdue(&mut state.runs, now);
    let trigger = if overruns.is_empty() {
        match beat_verdict(state, beat) {
            BeatVerdict::NotToBlame => Trigger::Trouble(Cause::Missed),
            BeatVerdict::Down => Trigger::BeatSilent,
            BeatVerdict::Wait(until) => {
                state.deadline_at = Some(until.max(now + AFTER_BEAT));
                return Silence::Hold;
            }
        }
    } else {
        Trigger::Trouble(Cause::Overrun)
    };
    let transition = Transition {
        from: state.status,
        to: Status::Down,
        trigger,
        at: now,
    };
    state.status = Status::Down;
    state.deadline_at = None;
    debug_assert!(passed <= now);
    Silence::Down { transition, overruns }
}

/// Moves the deadlines whose reports may have come while we were blind.
fn excuse(state: &mut MonitorState, spells: &[BlindSpell]) {
    let grace = state.expectation.grace();
    for run in state.runs.iter_mut().filter(|run| run.is_open()) {
        if let (Some(started), Some(deadline)) = (run.started_at, run.deadline_at) {
            run.deadline_at = Some(fair_deadline(deadline, started, grace, spells));
        }
    }
    let slot = slot_deadline(state).map(|deadline| {
        let window_from = deadline - grace - slot::EARLY_TOLERANCE;
        fair_deadline(deadline, window_from, grace, spells)
    });
    // A held monitor waits for its Beat longer than for its own deadline.
    let held = state.deadline_at.filter(|held| Some(*held) > deadline(state));
    state.deadline_at = [slot, run_deadline(state)].into_iter().flatten().min().max(held);
}

enum BeatVerdict {
    NotToBlame,
    Wait(DateTime<Utc>),
    Down,
}

fn beat_verdict(state: &MonitorState, beat: Option<&BeatView>) -> BeatVerdict {
    let (Some(beat), Some(due)) = (beat, state.next_due_at) else {
        return BeatVerdict::NotToBlame;
    };
    // The SDK reports that Beat lives after each tick returned: heard from since the slot means that Beat had sent it.
    if beat.last_seen_at.is_some_and(|seen| seen >= due) {
        return BeatVerdict::NotToBlame;
    }
    match (beat.status, beat.deadline_at) {
        (Status::Down, _) => BeatVerdict::Down,
        (_, Some(deadline)) => BeatVerdict::Wait(deadline + AFTER_BEAT),
        (_, None) => BeatVerdict::NotToBlame,
    }
}

/// A person pauses it. None: it was paused.
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
    state.deadline_at = None;
    Some(transition)
}

/// A person resumes it, or its Beat is back: expected anew from now, as if never heard from. None: there was nothing to resume, or
/// its entry is not in Beat's schedule, so that nothing would ever satisfy it.
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
    // Nobody was told of the runs that hung while the trouble was Beat's: those are judged now.
    if trigger != Trigger::BeatBack {
        run::close_overdue(&mut state.runs, now);
    }
    slot::expect_anew(state, now);
    state.deadline_at = deadline(state);
    Some(transition)
}

/// The schedule, the grace or the longest run changes: recomputed from now, so that a change never raises an alarm by itself.
pub fn on_settings_change(state: &mut MonitorState, expectation: Expectation, now: DateTime<Utc>) {
    let schedule_changed = state.expectation.schedule != expectation.schedule;
    state.expectation = expectation;
    if schedule_changed {
        state.hinted_due_at = None;
        slot::expect_anew(state, now);
    }
    let longest = state.expectation.longest_run();
    for run in state.runs.iter_mut().filter(|run| run.is_open()) {
        run.deadline_at = run.started_at.map(|start| (start + longest).max(now));
    }
    state.deadline_at = deadline(state);
    // A due that has passed keeps a full grace from now on.
    let fresh_grace = now + state.expectation.grace();
    state.deadline_at = state
        .deadline_at
        .map(|deadline| if deadline <= now { fresh_grace } else { deadline });
}

/// Beat lists its schedule, and says when an entry is next due; None: never again.
pub fn on_due_hint(state: &mut MonitorState, hint: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    if state.status == Status::Paused {
        return;
    }
    slot::take_hint(state, hint, now);
    state.deadline_at = deadline(state);
}

/// Beat has just sent an entry, and says when it is next due; None: never again. What it was sent for stays owed.
pub fn on_sent(state: &mut MonitorState, hint: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    if state.status == Status::Paused {
        return;
    }
    slot::take_hint_of_sent(state, hint, now);
    state.deadline_at = deadline(state);
}
