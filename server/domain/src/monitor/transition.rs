//! The state machine of a monitor: what a ping, a silence, and a person change. `docs/state-machine.md` draws it.

use chrono::{DateTime, Utc};

use crate::celery::blame::{AFTER, Blame, Contested, Evidence, Outage, PartOf};
use crate::celery::worker::orphan::{self, Settled};
use crate::ids::RunKey;
use crate::incident::cause::Cause;
use crate::judge::blind_spell::{BlindSpell, SDK_RETURN, fair_deadline, is_to_come};
use crate::monitor::deadline::{deadline, run_deadline, slot_deadline};
use crate::monitor::ping::{PingKind, Signal, Source};
use crate::monitor::run::{self, Contest, Outcome, Run, RunStatus};
use crate::monitor::status::Status;
use crate::monitor::{Expectation, MonitorState, order, slot};

#[cfg(test)]
pub(crate) mod tests;

/// Why a status changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A report came.
    Report,
    /// A deadline passed, or a failure came.
    Trouble(Cause),
    /// Another subject is in trouble, for that cause: listed in that incident, not told on its own.
    PartOf(Cause),
    /// What it was part of is over: it is expected anew.
    Restored,
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
            Self::PartOf(cause) => cause.as_str(),
            Self::Restored => "RESTORED",
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
    /// It failed while it was down already: that changes no status, and is an incident of its own if it was down only as part of another
    /// one.
    pub failed_again: Option<Cause>,
    /// The same event was heard before: nothing is changed, and nothing is to be kept.
    pub is_known: bool,
}

/// Takes one ping in. Pings of one monitor are folded one after the other.
///
/// The order of their receipt decides, not that of the calls: a success or a failure that was received before another one that is known
/// is counted and ends its run, and changes no status (ADR 024).
#[must_use]
pub fn on_ping(state: &mut MonitorState, signal: &Signal) -> PingEffect {
    if run::is_known(&state.runs, signal) {
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
    let changed = match signal.kind {
        PingKind::Log if signal.detail.is_retried => run::retried(&mut state.runs, signal).cloned(),
        PingKind::Log => None,
        PingKind::Start if order::has_ended(state, signal) => None,
        PingKind::Start => run::start(&mut state.runs, signal, longest).cloned(),
        PingKind::Success | PingKind::Fail => run::finish(&mut state.runs, signal).cloned(),
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
        // What was ignored did not do its work, and says nothing of how long that takes.
        let counts = signal.detail.outcome != Some(Outcome::Ignored);
        if let (Some(baseline), Some(length), true) = (&mut state.baseline, length, counts) {
            is_too_fast = baseline.is_too_fast(length);
        }
    }

    // A retired monitor, and one that a person paused while its Beat keeps sending, stay as they are. A ping URL that is called
    // again un-pauses, as Healthchecks has it: a switch that somebody forgot to turn on again guards nothing.
    // Its message was too old by a clock that is wrong: the slot stays owed, and its deadline asks whose clock that is.
    let is_excused = signal.kind == PingKind::Fail && signal.detail.is_early_expiry;
    let ignored =
        is_excused || state.retired || (state.status == Status::Paused && signal.source == Source::Event);
    if ignored || signal.kind == PingKind::Log {
        if signal.detail.is_retried {
            state.deadline_at = deadline(state);
        }
        return effect;
    }
    if decides {
        state.decided_at = state.decided_at.max(Some(at));
    }

    // With a longest run of its own, a run satisfies its slot by starting; without, by ending.
    let credited_at = match signal.kind {
        PingKind::Start if !starts_count => None,
        PingKind::Start => Some(signal.occurred_at),
        _ if starts_count => changed.as_ref().and_then(|run| run.started_at).or(Some(at)),
        _ => Some(at),
    };
    if signal.kind == PingKind::Success && state.status == Status::Down && !is_late {
        effect.runs.extend(run::note_loops(&mut state.runs, at));
    }
    let contest = changed.as_ref().and_then(|run| run.contest);
    if let (Some(Contest::Proved), Some(changed)) = (contest, &changed)
        && let Some(run) = state.runs.iter_mut().find(|run| run.key == changed.key)
    {
        run.contest = Some(Contest::Told);
    }
    // Two executions have ended well, in whatever order that is heard.
    let is_proved = contest == Some(Contest::Proved);
    let cause = if is_proved {
        Cause::DuplicateRun
    } else if is_too_fast {
        Cause::TooFast
    } else {
        Cause::of_outcome(signal.detail.outcome)
    };
    let to = match signal.kind {
        _ if is_late && !is_proved => state.status,
        // It was told that this run is executed twice: the end of the one is no all-clear.
        PingKind::Success if contest == Some(Contest::Told) && state.status == Status::Down => Status::Down,
        PingKind::Success if is_proved => Status::Down,
        PingKind::Success if state.status == Status::Down && run::is_looping(&state.runs, at) => Status::Down,
        PingKind::Success if is_too_fast => Status::Down,
        PingKind::Success => Status::Up,
        // Why its process was told to go may be said in a moment.
        PingKind::Fail if goes_on => state.status,
        PingKind::Fail => Status::Down,
        PingKind::Start | PingKind::Log => state.status,
    };
    if let Some(credited_at) = credited_at {
        slot::credit(state, credited_at);
    }
    // That it ran twice is told although it is down for another reason, such as the worker that is lost with the first one.
    let has_failed = signal.kind == PingKind::Fail && !goes_on && !is_late;
    let failed = (has_failed || is_proved) && state.status == Status::Down;
    effect.failed_again = failed.then_some(cause);
    if to == Status::Up && signal.kind == PingKind::Success && !is_late {
        // The end of a long run is credited to its start. What was missed while it went on has had its incident: a success leaves
        // nothing overdue, or the monitor would trip a second time for the same slot.
        if state
            .next_due_at
            .is_some_and(|due| due + state.expectation.patience() <= at)
        {
            slot::expect_anew(state, at);
        }
        if matches!(state.status, Status::Down | Status::Paused) {
            effect.runs.extend(run::close_overdue(&mut state.runs, at));
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
    }
    state.deadline_at = deadline(state);
    effect
}

/// What a passed `check_after` turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// Not overdue: the deadline has moved on; look again then (or never, when it is not armed).
    NotYet,
    /// What it depends on is to be judged before: wait for that before blaming anything.
    Hold,
    /// It went down.
    Down {
        /// The change of status.
        transition: Transition,
        /// Whose incident it is part of; None: it has one of its own.
        part_of: Option<PartOf>,
        /// That one is opened, unless one is.
        is_named: bool,
        /// Runs that were changed: they were open past their deadline.
        overruns: Vec<RunKey>,
    },
    /// It stays as it is; these runs, begun more than once, turned out to be fine.
    Settled(Vec<RunKey>),
    /// What it owed lies in a spell in which we could not listen: nobody can tell. It is judged from its next slot on; these runs were closed.
    Unknown {
        /// The spell.
        spell: BlindSpell,
        /// Runs that should have ended in it.
        runs: Vec<RunKey>,
    },
}

/// The clock was stepped back: what was noted in times to come is forgotten, and the monitor is expected from now on. It would not be
/// missed otherwise until the old time has come again.
pub fn forget_times_to_come(state: &mut MonitorState, now: DateTime<Utc>) {
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
    state.deadline_at = deadline(state);
}

/// Judges one monitor whose `check_after` has passed.
///
/// What is another subject's trouble waits for the verdict on that one, and joins its incident instead of opening one of its own.
#[must_use]
pub fn on_silence(
    state: &mut MonitorState,
    evidence: &Evidence,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Silence {
    if matches!(state.status, Status::Down | Status::Paused) {
        // No rule arms it. Should a row say so all the same, going down twice would be refused, and stall every sweep.
        state.deadline_at = None;
    }
    forget_times_to_come(state, now);
    if state.deadline_at.is_some() && !spells.is_empty() {
        let Unheard { spell, runs } = excuse(state, spells);
        if let Some(spell) = spell {
            // Should something else be overdue, the next look judges it.
            return Silence::Unknown { spell, runs };
        }
    }
    let Some(passed) = state.deadline_at.filter(|deadline| *deadline <= now) else {
        return Silence::NotYet;
    };

    let (mut changed, blame) = match judge_runs(state, evidence, now) {
        Some((changed, blame)) => (changed, blame),
        None => (Vec::new(), Some(judge_slot(state, evidence, now))),
    };
    let is_named = matches!(blame, Some(Blame::Named(..)));
    let (trigger, part_of) = match blame {
        None => {
            state.deadline_at = deadline(state);
            return Silence::Settled(changed);
        }
        Some(Blame::Own(cause)) => (Trigger::Trouble(cause), None),
        Some(Blame::Part(part_of, cause) | Blame::Named(part_of, cause)) => {
            (Trigger::PartOf(cause), Some(part_of))
        }
        Some(Blame::Wait(until)) => {
            state.deadline_at = Some(until.max(now + AFTER));
            return Silence::Hold;
        }
    };
    // A worker that is only named is up, and so may its runs be.
    changed.extend(close_lost(state, part_of.filter(|_| !is_named), now));
    let transition = Transition {
        from: state.status,
        to: Status::Down,
        trigger,
        at: now,
    };
    state.status = Status::Down;
    state.deadline_at = None;
    debug_assert!(passed <= now);
    Silence::Down {
        transition,
        part_of,
        is_named,
        overruns: changed,
    }
}

/// Judges the slot that is owed.
fn judge_slot(state: &MonitorState, evidence: &Evidence, now: DateTime<Utc>) -> Blame {
    let is_put_off = state
        .next_due_at
        .is_some_and(|due| due + state.expectation.patience() > now);
    if state.postponed_from.is_some() && is_put_off {
        evidence.of_put_off(now)
    } else {
        evidence.of_missed(state.next_due_at, slot::early(state), now)
    }
}

/// Judges the open runs that are past their deadline: which were changed, and who is to blame for the worst. None: there are none.
fn judge_runs(
    state: &mut MonitorState,
    evidence: &Evidence,
    now: DateTime<Utc>,
) -> Option<(Vec<RunKey>, Option<Blame>)> {
    let longest = state.longest_run();
    let mut any = false;
    let mut changed = Vec::new();
    let mut worst: Option<Blame> = None;
    let is_overdue = |run: &&mut Run| run.is_open() && run.deadline_at.is_some_and(|at| at <= now);
    for run in state.runs.iter_mut().filter(is_overdue) {
        any = true;
        let contest = run.contest.filter(|contest| *contest != Contest::Told);
        let whole = run.started_at.map_or(now, |started| started + longest);
        // One that ended because its state could not be stored is known not to run any more, which proves no kill.
        let is_aborted = run.detail.outcome == Some(Outcome::Aborted);
        let outage = is_aborted.then(|| evidence.outage_of(run)).flatten();
        if contest.is_none() && outage == Some(Outage::Over) {
            run.status = RunStatus::Fail;
            run.finished_at = Some(now);
            run.deadline_at = None;
            changed.push(run.key);
            continue;
        }
        let is_unstored =
            outage.is_some() || (is_aborted && evidence.is_troubled(run.detail.worker.as_deref()));
        let orphan = if contest.is_none() && !is_unstored {
            orphan::settle(run, evidence, whole, now)
        } else {
            Settled::None
        };
        let blame = if orphan == Settled::Later {
            changed.push(run.key);
            continue;
        } else if contest.is_some() {
            let judged = evidence.of_contested(run, now);
            if !matches!(judged, Contested::Wait(_)) {
                // Whose newest owner has ended meanwhile is decided with the next look.
                let again_at = if run.orphan.is_some() { now } else { whole };
                run.deadline_at = Some(again_at.max(now + AFTER));
            }
            match judged {
                Contested::Settled => {
                    if run.contest.take() == Some(Contest::Ended) {
                        run.status = RunStatus::Success;
                        run.finished_at = Some(now);
                        run.deadline_at = None;
                    }
                    changed.push(run.key);
                    continue;
                }
                Contested::Wait(until) => Blame::Wait(until),
                Contested::Trouble(cause) => {
                    run.contest = Some(Contest::Told);
                    if cause == Cause::RedeliveryLoop {
                        run.deadline_at = Some(now + run::LOOP_QUIET);
                    }
                    Blame::Own(cause)
                }
            }
        } else if let Settled::Dead(blame) = orphan {
            blame
        } else if run.detail.outcome == Some(Outcome::Aborted) {
            let blame = evidence.of_aborted(run, now);
            if !matches!(blame, Blame::Wait(_)) {
                run.status = RunStatus::Fail;
                run.finished_at = Some(now);
                run.deadline_at = None;
            }
            blame
        } else {
            let judged = evidence.of_overrun(run, now);
            let whole = run.started_at.map(|started| started + longest);
            if judged == Blame::Own(Cause::Overrun)
                && run.attempts > 0
                && whole.is_some_and(|whole| whole > now)
            {
                // Its worker was thought to be lost, and lives.
                run.deadline_at = whole;
                changed.push(run.key);
                continue;
            }
            let name = run.detail.worker.as_deref();
            let worker = evidence
                .workers
                .iter()
                .find(|one| Some(one.name.as_str()) == name);
            let blame = evidence.fold_overrun(judged, worker);
            if !matches!(blame, Blame::Wait(_)) {
                run.status = RunStatus::Overrun;
                run.deadline_at = None;
            }
            blame
        };
        if !matches!(blame, Blame::Wait(_)) {
            changed.push(run.key);
        }
        // What waits says nothing as long as something else is known.
        if worst.is_none_or(|before| matches!(before, Blame::Wait(_))) {
            worst = Some(blame);
        }
    }
    any.then_some((changed, worst))
}

/// The open runs of a monitor that is down with its worker have died with it.
fn close_lost(state: &mut MonitorState, part_of: Option<PartOf>, now: DateTime<Utc>) -> Vec<RunKey> {
    if matches!(part_of, Some(PartOf::Worker(_))) {
        run::close_overdue(&mut state.runs, now)
    } else {
        Vec::new()
    }
}

/// What lay wholly in a spell, so that nobody can tell what became of it.
#[derive(Debug, Default)]
struct Unheard {
    spell: Option<BlindSpell>,
    runs: Vec<RunKey>,
}

/// Moves the deadlines whose reports may have come while we were blind, and gives up what nobody can tell.
fn excuse(state: &mut MonitorState, spells: &[BlindSpell]) -> Unheard {
    let mut unheard = Unheard::default();
    let mut grace = state.expectation.patience();
    if state.by_beat {
        grace = grace.max(SDK_RETURN);
    }
    // A held monitor waits for its Beat longer than for its own deadline.
    let held = state.deadline_at.filter(|held| Some(*held) > deadline(state));
    for run in state.runs.iter_mut().filter(|run| run.is_open()) {
        if let (Some(started), Some(deadline)) = (run.started_at, run.deadline_at) {
            // Longer than the run may take: what hangs across a short outage is still told.
            let least = grace.max(deadline - started);
            let swallowing = spells
                .iter()
                .find(|spell| spell.swallows(deadline, deadline, least));
            if let (Some(spell), None) = (swallowing, run.contest) {
                run.status = RunStatus::Overrun;
                run.deadline_at = None;
                unheard.runs.push(run.key);
                unheard.spell = Some(*spell);
            } else {
                run.deadline_at = Some(fair_deadline(deadline, started, grace, spells));
            }
        }
    }
    let own_grace = state.expectation.patience();
    // Each round leaves a spell behind: the next slot comes after its end.
    while let Some(spell) = slot_deadline(state).and_then(|deadline| {
        spells
            .iter()
            .find(|spell| spell.swallows(deadline - own_grace, deadline, grace))
    }) {
        slot::expect_anew(state, spell.ended_at);
        unheard.spell = Some(*spell);
    }
    let slot = slot_deadline(state).map(|deadline| {
        let window_from = deadline - grace - slot::EARLY_TOLERANCE;
        fair_deadline(deadline, window_from, grace, spells)
    });
    let own = [slot, run_deadline(state)].into_iter().flatten().min();
    state.deadline_at = own.max(held.filter(|_| own.is_some()));
    unheard
}

/// The message of one of its runs is lost, later ones ran, and it asks for every run. None: nothing changes. The next success is its
/// all-clear.
#[must_use]
pub fn on_lost_run(state: &mut MonitorState, now: DateTime<Utc>) -> Option<Transition> {
    if state.retired || matches!(state.status, Status::Down | Status::Paused) {
        return None;
    }
    let transition = Transition {
        from: state.status,
        to: Status::Down,
        trigger: Trigger::Trouble(Cause::LostInBroker),
        at: now,
    };
    state.status = Status::Down;
    state.deadline_at = deadline(state);
    Some(transition)
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
    state.decided_at = state.decided_at.max(Some(now));
    state.deadline_at = None;
    Some(transition)
}

/// A person resumes it, or what it was part of is over: expected anew from now, as if never heard from. None: there was nothing to resume, or
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
    // Nobody was told of the runs that hung while the trouble was another's: those are judged now.
    if trigger != Trigger::Restored {
        state.decided_at = state.decided_at.max(Some(now));
        run::close_overdue(&mut state.runs, now);
    }
    slot::expect_anew(state, now);
    state.deadline_at = deadline(state);
    Some(transition)
}

/// The schedule, the delay, the grace or the longest run changes: recomputed from now, so that a change never raises an alarm by itself.
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
    state.deadline_at = deadline(state);
    // A due that has passed keeps a full grace from now on.
    let fresh_grace = now + state.expectation.patience();
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

/// The time zone data changed: what is due at another instant now is expected then. Returns whether anything changed.
pub fn on_zone_data_change(state: &mut MonitorState, now: DateTime<Utc>) -> bool {
    let has_moved = slot::on_zone_data_change(state, now);
    if has_moved {
        state.deadline_at = deadline(state);
    }
    has_moved
}
