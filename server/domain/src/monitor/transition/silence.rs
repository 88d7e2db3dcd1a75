//! The effect of silence on a monitor: slots and runs whose deadline has passed.

use chrono::{DateTime, Utc};

use super::forget_times_to_come;
use crate::celery::blame::{AFTER, Blame, Contested, Evidence, Outage, PartOf};
use crate::celery::worker::orphan::{self, Settled};
use crate::change::{Transition, Trigger};
use crate::ids::RunKey;
use crate::incident::Consequence;
use crate::incident::cause::Cause;
use crate::judge::blind_spell::{BlindSpell, SDK_RETURN, fair_deadline};
use crate::monitor::deadline::{run_deadline, slot_deadline};
use crate::monitor::run::pairing;
use crate::monitor::run::{self, Contest, Outcome, Run, RunStatus};
use crate::monitor::status::Status;
use crate::monitor::{MonitorState, slot};

/// The verdict on a monitor whose `check_after` has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// Not overdue: the deadline has moved on. Judge it again at that time, or never if it is not armed.
    NotYet,
    /// Another subject must be judged first. Wait for that verdict before choosing a cause.
    Hold,
    /// The monitor went down, or it is down and has another bad run.
    Down {
        /// The change of status. None: it was down.
        transition: Option<Transition>,
        /// Why.
        trigger: Trigger,
        /// What it means for the monitor's own incident.
        consequence: Consequence,
        /// The subject whose incident it joins. None: it opens an incident of its own.
        part_of: Option<PartOf>,
        /// That subject is named. Its incident must be opened, unless one is open.
        is_named: bool,
        /// The runs that changed: they were open past their deadline.
        overruns: Vec<RunKey>,
    },
    /// The status stays, and the monitor no longer flaps.
    Calm(Consequence),
    /// The status stays. These runs, whose messages began more than once, turned out to be fine.
    Settled(Vec<RunKey>),
    /// Its slot lies in a blind spell, so nobody knows whether its report came. The monitor is judged again from its
    /// next slot on. The listed runs were closed.
    Unknown {
        /// The spell.
        spell: BlindSpell,
        /// The runs that should have ended in the spell.
        runs: Vec<RunKey>,
    },
}

/// Judges one monitor whose `check_after` has passed.
///
/// If another subject may be the cause, the monitor waits for the verdict on that subject. Then it joins that subject's
/// incident, and opens no own incident.
#[must_use]
pub fn on_silence(
    state: &mut MonitorState,
    evidence: &Evidence,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Silence {
    if !state.is_judged() {
        // No rule arms such a monitor. If a row has a deadline all the same, drop it. Otherwise a second `down` would
        // be refused in every sweep, and stall it.
        state.disarm();
    }
    forget_times_to_come(state, now);
    if state.deadline_at.is_some() && !spells.is_empty() {
        let Unjudged { spell, runs } = excuse(state, spells);
        if let Some(spell) = spell {
            // If something else is overdue as well, the next sweep judges it.
            return Silence::Unknown { spell, runs };
        }
    }
    if state.judged_at().is_none_or(|judged_at| judged_at > now) {
        let calm = state.calm_down(now, spells);
        return calm.map_or(Silence::NotYet, Silence::Calm);
    }

    let judged = judge_runs(state, evidence, now);
    let (mut changed, bad_runs, blame) = match judged {
        Some(Judged { changed, bad, worst }) => (changed, Some(bad), worst),
        None => (Vec::new(), None, Some(judge_slot(state, evidence, now))),
    };
    let is_named = matches!(blame, Some(Blame::Named(..)));
    let (trigger, part_of) = match blame {
        None => {
            state.rearm();
            return Silence::Settled(changed);
        }
        Some(Blame::Own(cause)) => (Trigger::Trouble(cause), None),
        Some(Blame::Part(part_of, cause) | Blame::Named(part_of, cause)) => {
            (Trigger::PartOf(cause), Some(part_of))
        }
        Some(Blame::Wait(until)) => {
            state.hold_until = Some(until.max(now + AFTER));
            return Silence::Hold;
        }
    };
    // A worker that is only named is up, so its runs may still execute.
    changed.extend(close_lost(state, part_of.filter(|_| !is_named), now));
    let consequence = match trigger {
        Trigger::Trouble(cause) => note_bad(state, bad_runs, cause, now),
        _ => {
            state.note_member(now);
            Consequence::Join
        }
    };
    let transition = (state.status != Status::Down).then_some(Transition {
        from: state.status,
        to: Status::Down,
        trigger,
        at: now,
    });
    if transition.is_some() {
        state.flaps.note_change(now);
    }
    state.status = Status::Down;
    state.rearm();
    Silence::Down {
        transition,
        trigger,
        consequence,
        part_of,
        is_named,
        overruns: changed,
    }
}

/// Counts a missed slot (`runs` is None) or runs that are past their deadline. If the incident waits for more, expects
/// the next slot; without one it opens at once.
fn note_bad(state: &mut MonitorState, runs: Option<u16>, cause: Cause, now: DateTime<Utc>) -> Consequence {
    let consequence = state.note_bad(runs.unwrap_or(1).max(1), cause, now);
    if consequence != Consequence::Nothing {
        return consequence;
    }
    match runs {
        None => slot::pass_missed(state),
        // Without a longest run, the end of a run satisfies its slot: with a bad result, as a failure does.
        Some(_) if state.expectation.longest_run_seconds.is_none() => slot::credit(state, now),
        Some(_) => {}
    }
    let has_more = state.next_due_at.is_some() || state.open_runs() > 0;
    let raised = if has_more {
        None
    } else {
        state.raise_at_once(cause, now)
    };
    raised.unwrap_or(consequence)
}

/// Judges the earliest unsatisfied slot.
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

/// The verdict on open runs that are past their deadline.
struct Judged {
    /// The runs that changed.
    changed: Vec<RunKey>,
    /// The number of runs that are bad by a cause of the monitor's own.
    bad: u16,
    /// The verdict on the worst run.
    worst: Option<Blame>,
}

/// Judges the open runs that are past their deadline. None: no run is past its deadline.
fn judge_runs(state: &mut MonitorState, evidence: &Evidence, now: DateTime<Utc>) -> Option<Judged> {
    let longest = state.longest_run();
    let mut any = false;
    let mut bad = 0;
    let mut changed = Vec::new();
    let mut worst: Option<Blame> = None;
    let is_overdue = |run: &&mut Run| run.is_open() && run.deadline_at.is_some_and(|at| at <= now);
    for run in state.runs.iter_mut().filter(is_overdue) {
        any = true;
        let contest = run.contest.filter(|contest| *contest != Contest::Alerted);
        let whole = run.started_at.map_or(now, |started| started + longest);
        // A run that ended because its result could not be stored no longer executes. That does not prove that its
        // process was killed.
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
                // If the run's newest owner has ended meanwhile, the next sweep judges that.
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
                    run.contest = Some(Contest::Alerted);
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
                // The worker only seemed lost: it lives.
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
        if matches!(blame, Blame::Own(_)) {
            bad += 1;
        }
        // A verdict on another run overrides a wait.
        if worst.is_none_or(|before| matches!(before, Blame::Wait(_))) {
            worst = Some(blame);
        }
    }
    any.then_some(Judged { changed, bad, worst })
}

/// If a monitor is down because its worker is lost, its overdue open runs died with the worker. Closes them.
fn close_lost(state: &mut MonitorState, part_of: Option<PartOf>, now: DateTime<Utc>) -> Vec<RunKey> {
    if matches!(part_of, Some(PartOf::Worker(_))) {
        pairing::close_overdue(&mut state.runs, now)
    } else {
        Vec::new()
    }
}

/// The slots and runs that lie wholly in a blind spell, so that nobody knows how they ended.
#[derive(Debug, Default)]
struct Unjudged {
    spell: Option<BlindSpell>,
    runs: Vec<RunKey>,
}

/// Moves each deadline whose report may have come in a blind spell. Gives up slots and runs that lie wholly in a spell.
fn excuse(state: &mut MonitorState, spells: &[BlindSpell]) -> Unjudged {
    let mut unjudged = Unjudged::default();
    let mut grace = state.expectation.patience();
    if state.by_beat {
        grace = grace.max(SDK_RETURN);
    }
    for run in state.runs.iter_mut().filter(|run| run.is_open()) {
        if let (Some(started), Some(deadline)) = (run.started_at, run.deadline_at) {
            // Only a spell longer than a run may take closes the run. A run that hangs across a short spell is still
            // reported.
            let least = grace.max(deadline - started);
            let swallowing = spells
                .iter()
                .find(|spell| spell.swallows(deadline, deadline, least));
            if let (Some(spell), None) = (swallowing, run.contest) {
                run.status = RunStatus::Overrun;
                run.deadline_at = None;
                unjudged.runs.push(run.key);
                unjudged.spell = Some(*spell);
            } else {
                run.deadline_at = Some(fair_deadline(deadline, started, grace, spells));
            }
        }
    }
    let own_grace = state.expectation.patience();
    // Each round passes one spell: the next slot comes after the spell's end.
    while let Some(spell) = slot_deadline(state).and_then(|deadline| {
        spells
            .iter()
            .find(|spell| spell.swallows(deadline - own_grace, deadline, grace))
    }) {
        slot::expect_anew(state, spell.ended_at);
        unjudged.spell = Some(*spell);
    }
    let slot = slot_deadline(state).map(|deadline| {
        let window_from = deadline - grace - slot::EARLY_TOLERANCE;
        fair_deadline(deadline, window_from, grace, spells)
    });
    let own = [slot, run_deadline(state)].into_iter().flatten().min();
    state.deadline_at = own;
    state.hold_until = state.hold_until.filter(|_| own.is_some());
    unjudged
}

/// The message of one of the monitor's runs is lost although later runs came, and the monitor demands every run. None:
/// nothing changes. The next success brings the monitor up.
#[must_use]
pub fn on_lost_run(
    state: &mut MonitorState,
    now: DateTime<Utc>,
) -> Option<(Option<Transition>, Consequence)> {
    if state.retired || !state.is_judged() {
        return None;
    }
    let cause = Cause::LostInBroker;
    let consequence = state.note_bad(1, cause, now);
    let transition = (state.status != Status::Down).then_some(Transition {
        from: state.status,
        to: Status::Down,
        trigger: Trigger::Trouble(cause),
        at: now,
    });
    state.status = Status::Down;
    state.flaps.note_change(now);
    state.rearm();
    let raised = if state.deadline_at.is_none() {
        state.raise_at_once(cause, now)
    } else {
        None
    };
    Some((transition, raised.unwrap_or(consequence)))
}
