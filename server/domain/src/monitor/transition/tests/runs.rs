//! Runs that begin twice, are aborted, or end too soon; workers that die with theirs; entries that Beat puts off.

mod length;

use super::*;
use crate::celery::blame::PartOf;
use crate::celery::blame::view::WorkerView;
use crate::celery::host::load::HostLoad;
use crate::change::Trigger;
use crate::ids::{RunKey, WorkerId};
use crate::incident::cause::Cause;
use crate::monitor::run::{ABORTED_PATIENCE, CONTEST_PATIENCE, Contest, Outcome, RunStatus};
use crate::monitor::transition::silence::{Silence, on_silence};
use crate::monitor::transition::{on_due_hint, on_ping, on_resume, on_sent};

use PingKind::{Fail, Start, Success};

/// An entry of each hour, whose runs may take ten minutes.
fn hourly() -> MonitorState {
    let mut state = entry(interval(3_600.0), 60.0, Some(600.0));
    ping(&mut state, Success, 0.0);
    state
}

/// An event of a run from the SDK, about one attempt. Attempt 0: the main process sends it.
fn run_signal(run: u128, kind: PingKind, attempt: u128, seconds: f64) -> Signal {
    let mut signal = Signal {
        source: Source::Event,
        ..signal_of(run, kind, at(seconds))
    };
    signal.detail.run.worker = Some("celery@1".to_owned());
    signal.detail.event = Some(Uuid::now_v7());
    signal.detail.run.attempt = (attempt > 0).then(|| Uuid::from_u128(1_000 + attempt));
    signal
}

fn receive(state: &mut MonitorState, signal: &Signal) -> Option<Trigger> {
    on_ping(state, signal)
        .transition
        .map(|transition| transition.trigger)
}

fn ended(outcome: Outcome, attempt: u128, seconds: f64) -> Signal {
    let mut signal = run_signal(1, Fail, attempt, seconds);
    signal.detail.run.outcome = Some(outcome);
    signal
}

/// A worker that has just sent a snapshot, and executes these runs.
fn worker(status: Status, running: Vec<Uuid>, now: f64) -> WorkerView {
    WorkerView {
        id: WorkerId(Uuid::from_u128(11)),
        name: "celery@1".to_owned(),
        is_foreign: false,
        status,
        trouble: None,
        last_seen_at: Some(at(now)),
        period: TimeDelta::seconds(5),
        deadline_at: Some(at(now + 30.0)),
        started_at: None,
        progress_at: at(now),
        queues: Vec::new(),
        connected: true,
        active: running.len() as i64,
        processes: 2,
        reserved: running.len() as i64,
        unacked: running.len() as i64,
        held: 0,
        skewed_since: None,
        limited: Vec::new(),
        running: Some(running),
        incarnation: None,
        live: Vec::new(),
        gap: None,
        load: HostLoad::default(),
    }
}

fn alive(times: usize, now: f64) -> Evidence {
    Evidence {
        workers: vec![worker(Status::Up, vec![Uuid::from_u128(1); times], now)],
        ..Evidence::default()
    }
}

fn judged(state: &mut MonitorState, evidence: &Evidence, now: f64) -> Silence {
    on_silence(state, evidence, at(now), &[])
}

fn down(silence: &Silence) -> (Trigger, Option<PartOf>, Vec<RunKey>) {
    let Silence::Down {
        transition,
        trigger,
        part_of,
        overruns,
        ..
    } = silence
    else {
        panic!("{silence:?}")
    };
    assert_eq!(transition.map(|transition| transition.to), Some(Status::Down));
    (*trigger, *part_of, overruns.clone())
}

fn trouble(cause: Cause) -> Trigger {
    Trigger::Trouble(cause)
}

#[test]
fn an_event_that_is_sent_twice_changes_nothing() {
    for signal in [
        run_signal(1, Start, 2, 20.0),
        run_signal(1, Success, 1, 20.0),
        ended(Outcome::Failure, 1, 20.0),
        ended(Outcome::Aborted, 1, 20.0),
        {
            let mut retried = run_signal(1, PingKind::Log, 1, 20.0);
            retried.detail.is_retried = true;
            retried
        },
    ] {
        let mut state = hourly();
        receive(&mut state, &run_signal(1, Start, 1, 10.0));
        receive(&mut state, &signal);
        let before = state.clone();

        let later = Signal {
            received_at: at(25.0),
            ..signal
        };
        let effect = on_ping(&mut state, &later);

        assert!(effect.is_known && effect.runs.is_empty() && effect.transition.is_none());
        assert_eq!(state, before);
    }
}

#[test]
fn a_message_that_two_execute_is_reported_and_the_end_of_one_copy_is_no_all_clear() {
    let mut state = hourly();
    receive(&mut state, &run_signal(1, Start, 1, 3_600.0));
    receive(&mut state, &run_signal(1, Start, 2, 3_700.0));
    assert_eq!(state.deadline_at, Some(at(3_700.0) + CONTEST_PATIENCE));

    assert_eq!(judged(&mut state, &alive(2, 3_706.0), 3_706.9), Silence::NotYet);
    let (trigger, part_of, changed) = down(&judged(&mut state, &alive(2, 3_706.0), 3_707.0));

    assert_eq!((trigger, part_of), (trouble(Cause::DuplicateRun), None));
    let run = state.runs.iter().find(|run| run.key == changed[0]).unwrap();
    assert_eq!(
        (run.contest, run.is_open()),
        (Some(Contest::Alerted), true),
        "it continues"
    );
    for attempt in [1, 2] {
        assert_eq!(
            receive(&mut state, &run_signal(1, Success, attempt, 3_800.0)),
            None
        );
        assert_eq!((state.status, state.deadline_at), (Status::Down, None));
    }
    assert_eq!(receive(&mut state, &run_signal(2, Start, 3, 7_200.0)), None);
    assert_eq!(
        receive(&mut state, &run_signal(2, Success, 3, 7_210.0)),
        Some(Trigger::Report),
        "the next run brings it up"
    );
    assert_eq!(judged(&mut state, &Evidence::default(), 7_300.0), Silence::NotYet);
}

#[test]
fn a_message_that_ran_well_before_is_reported_when_it_runs_again() {
    let mut state = hourly();
    receive(&mut state, &run_signal(1, Start, 1, 3_600.0));
    receive(&mut state, &run_signal(1, Success, 1, 3_610.0));
    receive(&mut state, &run_signal(1, Start, 2, 3_700.0));

    let (trigger, ..) = down(&judged(&mut state, &alive(1, 3_706.0), 3_707.0));

    assert_eq!(trigger, trouble(Cause::DuplicateRun));
    assert_eq!(receive(&mut state, &run_signal(1, Success, 2, 3_720.0)), None);
    assert_eq!(state.status, Status::Down);
}

#[test]
fn a_message_that_kills_what_runs_it_is_a_loop_the_third_time() {
    let mut state = hourly();
    for (attempt, begun) in [(1, 3_600.0), (2, 3_610.0), (3, 3_620.0)] {
        receive(&mut state, &run_signal(1, Start, attempt, begun));
        let silence = judged(&mut state, &alive(1, begun + 6.0), begun + 7.0);
        match attempt {
            1 => assert_eq!(silence, Silence::NotYet),
            2 => assert!(
                matches!(silence, Silence::Settled(_)),
                "it may have been an accident"
            ),
            _ => assert_eq!(down(&silence).0, trouble(Cause::RedeliveryLoop)),
        }
    }
    assert_eq!(
        receive(&mut state, &run_signal(1, Success, 3, 3_700.0)),
        None,
        "told"
    );
    assert_eq!(state.status, Status::Down);
}

#[test]
fn a_contest_that_settles_leaves_its_run_its_time() {
    let mut state = hourly();
    receive(&mut state, &run_signal(1, Start, 1, 3_600.0));
    receive(&mut state, &run_signal(1, Start, 2, 3_700.0));

    let silence = judged(&mut state, &alive(1, 3_706.0), 3_707.0);

    assert_eq!(silence, Silence::Settled(vec![state.runs[0].key]));
    assert_eq!((state.status, state.runs[0].contest), (Status::Up, None));
    assert_eq!(
        state.deadline_at,
        Some(at(4_200.0)),
        "from its first beginning on"
    );
    let (trigger, ..) = down(&judged(&mut state, &alive(1, 4_199.0), 4_200.0));
    assert_eq!(trigger, trouble(Cause::Overrun));
}

#[test]
fn a_contest_waits_for_a_report_of_its_workers_and_then_no_longer() {
    let mut state = hourly();
    receive(&mut state, &run_signal(1, Start, 1, 3_600.0));
    receive(&mut state, &run_signal(1, Start, 2, 3_700.0));
    let not_yet_reported = alive(2, 3_701.0);

    let mut now = 3_707.0;
    let mut held = 0;
    let silence = loop {
        match judged(&mut state, &not_yet_reported, now) {
            Silence::Hold => held += 1,
            other => break other,
        }
        assert!(state.judged_at().is_some_and(|judged_at| judged_at > at(now)));
        now += 2.0;
        assert!(held < 30, "it is held forever");
    };

    assert!(held > 3);
    assert!(
        matches!(silence, Silence::Settled(_)),
        "an earlier report proves nothing about now: {silence:?}"
    );
}

#[test]
fn an_abort_that_nobody_explains_is_a_failure_a_moment_later() {
    let mut state = hourly();
    receive(&mut state, &run_signal(1, Start, 1, 3_600.0));

    assert_eq!(receive(&mut state, &ended(Outcome::Aborted, 1, 3_610.0)), None);
    assert_eq!(
        (state.status, state.deadline_at),
        (Status::Up, Some(at(3_610.0) + ABORTED_PATIENCE))
    );
    assert_eq!(judged(&mut state, &alive(0, 3_617.0), 3_617.9), Silence::NotYet);
    let (trigger, _, changed) = down(&judged(&mut state, &alive(0, 3_617.0), 3_618.0));

    assert_eq!(
        (trigger, changed),
        (trouble(Cause::Failed), vec![state.runs[0].key])
    );
    assert_eq!(
        (state.runs[0].status, state.runs[0].finished_at),
        (RunStatus::Fail, Some(at(3_618.0)))
    );
}

#[test]
fn an_abort_and_its_reason_are_one_failure_in_either_order() {
    for (reason, cause) in [
        (Outcome::Lost, Cause::WorkerKilled),
        (Outcome::TimeLimit, Cause::TimeLimit),
        (Outcome::Revoked, Cause::Revoked),
    ] {
        let reason = ended(reason, 0, 3_611.0);
        let aborted = ended(Outcome::Aborted, 1, 3_611.0);
        for order in [[&aborted, &reason], [&reason, &aborted]] {
            let mut state = hourly();
            receive(&mut state, &run_signal(1, Start, 1, 3_600.0));

            let alerted: Vec<Trigger> = order
                .into_iter()
                .filter_map(|signal| receive(&mut state, signal))
                .collect();

            assert_eq!(alerted, [trouble(cause)]);
            assert_eq!(judged(&mut state, &alive(0, 3_619.0), 3_620.0), Silence::NotYet);
            assert_eq!(state.runs[0].status, RunStatus::Fail);
            assert_eq!(state.runs[0].detail.outcome, reason.detail.run.outcome);
        }
    }
}

#[test]
fn each_bad_end_has_the_cause_of_its_outcome() {
    for (outcome, cause) in [
        (Outcome::Failure, Cause::Failed),
        (Outcome::RetriesExhausted, Cause::RetriesExhausted),
        (Outcome::Rejected, Cause::Rejected),
        (Outcome::Revoked, Cause::Revoked),
        (Outcome::Expired, Cause::Expired),
        (Outcome::TimeLimit, Cause::TimeLimit),
        (Outcome::Lost, Cause::WorkerKilled),
    ] {
        let mut state = hourly();
        assert_eq!(
            receive(&mut state, &ended(outcome, 1, 3_610.0)),
            Some(trouble(cause))
        );
    }
}

#[test]
fn a_message_that_is_too_old_by_a_clock_that_is_ahead_leaves_its_slot_owed() {
    let mut state = hourly();
    let mut early = ended(Outcome::Expired, 1, 3_610.0);
    early.detail.is_early_expiry = true;

    assert_eq!(receive(&mut state, &early), None);
    assert_eq!(state.status, Status::Up);
    assert_eq!(state.next_due_at, Some(at(3_600.0)));
    assert!(state.runs.iter().all(|run| !run.is_open()), "the run has ended");
}

#[test]
fn the_runs_of_a_lost_worker_are_over_and_the_monitor_is_part_of_its_incident() {
    let mut state = hourly();
    receive(&mut state, &run_signal(1, Start, 1, 3_600.0));
    receive(&mut state, &run_signal(2, Start, 1, 3_601.0));
    let evidence = Evidence {
        workers: vec![worker(Status::Down, Vec::new(), 3_700.0)],
        ..Evidence::default()
    };

    let (trigger, part_of, changed) = down(&judged(&mut state, &evidence, 4_201.0));

    assert_eq!(trigger, Trigger::PartOf(Cause::WorkerLost));
    assert_eq!(part_of, Some(PartOf::Worker(WorkerId(Uuid::from_u128(11)))));
    assert_eq!(changed.len(), 2);
    assert!(
        state
            .runs
            .iter()
            .all(|run| run.status == RunStatus::Overrun && run.deadline_at.is_none())
    );
    on_resume(&mut state, Trigger::Restored, at(4_300.0)).unwrap();
    assert_eq!(state.deadline_at, Some(at(7_960.0)), "no run remains");
}

#[test]
fn an_entry_that_beat_puts_off_at_each_start_is_missed_after_twice_its_interval() {
    let mut state = entry(interval(600.0), 60.0, None);
    assert_eq!(state.next_due_at, Some(at(600.0)));

    // Beat starts at 300, at 700 and at 1,100 s, and counts anew each time.
    for started in [300.0, 700.0, 1_100.0] {
        on_due_hint(&mut state, Some(at(started + 600.0)), at(started));
        assert_eq!(state.postponed_from, Some(at(600.0)), "the first slot stays");
    }
    assert_eq!(state.next_due_at, Some(at(1_700.0)));

    assert_eq!(judged(&mut state, &Evidence::default(), 1_259.9), Silence::NotYet);
    let (trigger, ..) = down(&judged(&mut state, &Evidence::default(), 1_260.0));
    assert_eq!(trigger, trouble(Cause::ScheduleReset));
}

#[test]
fn an_entry_that_is_put_off_once_and_then_sent_is_well() {
    let mut state = entry(interval(600.0), 60.0, None);
    on_due_hint(&mut state, Some(at(900.0)), at(300.0));
    assert_eq!(state.deadline_at, Some(at(960.0)));

    on_sent(&mut state, Some(at(1_500.0)), at(900.0));
    assert_eq!(state.postponed_from, None);
    ping(&mut state, Success, 901.0);

    assert_eq!(state.status, Status::Up);
    assert!(state.deadline_at.is_some_and(|deadline| deadline >= at(1_560.0)));
}

#[test]
fn two_executions_that_end_well_are_reported_without_asking_anybody() {
    let mut state = hourly();
    receive(&mut state, &run_signal(1, Start, 1, 3_600.0));
    receive(&mut state, &run_signal(1, Start, 2, 3_601.0));

    assert_eq!(receive(&mut state, &run_signal(1, Success, 1, 3_602.0)), None);
    assert_eq!(
        (state.runs[0].is_open(), state.runs[0].contest),
        (true, Some(Contest::Ended))
    );
    assert_eq!(
        receive(&mut state, &run_signal(1, Success, 2, 3_603.0)),
        Some(trouble(Cause::DuplicateRun))
    );

    assert_eq!(
        (state.runs[0].status, state.runs[0].contest),
        (RunStatus::Success, Some(Contest::Alerted))
    );
    assert_eq!(
        receive(&mut state, &run_signal(2, Success, 3, 7_200.0)),
        Some(Trigger::Report)
    );
}

#[test]
fn one_execution_that_ends_well_while_the_other_is_dead_is_a_success() {
    let mut state = hourly();
    receive(&mut state, &run_signal(1, Start, 1, 3_600.0));
    receive(&mut state, &run_signal(1, Start, 2, 3_601.0));
    receive(&mut state, &run_signal(1, Success, 2, 3_602.0));

    let silence = judged(&mut state, &alive(0, 3_609.0), 3_609.5);

    assert_eq!(silence, Silence::Settled(vec![state.runs[0].key]));
    assert_eq!(
        (state.status, state.runs[0].status, state.runs[0].contest),
        (Status::Up, RunStatus::Success, None)
    );
    assert_eq!(
        state.deadline_at,
        Some(at(7_261.0)),
        "the next slot needs a report"
    );
}
