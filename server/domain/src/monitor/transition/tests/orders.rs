//! No order of signals breaks the invariants.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::celery::beat::BeatView;
use crate::change::Trigger;
use crate::ids::RunKey;
use crate::incident::{Consequence, consequence};
use crate::monitor::alarm::Thresholds;
use crate::monitor::run::{RunDetail, RunStatus};
use crate::monitor::transition::silence::{Silence, on_silence};
use crate::monitor::transition::{
    on_due_hint, on_pause, on_restored, on_resume, on_sent, on_settings_change,
};

#[derive(Debug, Clone)]
enum Step {
    Ping {
        kind: PingKind,
        run: Option<u128>,
        event: bool,
        ago: i64,
        took: Option<i64>,
        retries: i32,
    },
    Silence(Option<BeatView>),
    Pause,
    Resume(Trigger),
    Retire,
    Return,
    Settings(usize, f64, Option<f64>),
    Hint(i64),
    Sent(Option<i64>),
}

fn schedules() -> [Schedule; 5] {
    let lord_howe = json!({"kind": "celery", "minute": "20,35", "timezone": "Australia/Lord_Howe"});
    [
        interval(1.0),
        interval(90.5),
        cron("*/5 * * * *"),
        Schedule::cron("30 2 * * *", "Europe/Berlin").unwrap(),
        Schedule::from_json(&lord_howe).unwrap(),
    ]
}

fn beat() -> impl Strategy<Value = BeatView> {
    let status = prop_oneof![Just(Status::New), Just(Status::Up), Just(Status::Down)];
    let instant = || proptest::option::of((-500_i64..500).prop_map(|offset| at(0.0) + seconds(offset * 10)));
    (status, instant(), instant()).prop_map(|(status, last_seen_at, deadline_at)| BeatView {
        status,
        last_seen_at,
        deadline_at,
        hung_at: None,
        sent_at: None,
        send_failed_at: None,
        lost_at: None,
        skewed_since: None,
        back_at: None,
    })
}

fn a_ping() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        Just(PingKind::Start),
        Just(PingKind::Success),
        Just(PingKind::Fail),
        Just(PingKind::Log)
    ];
    let run = proptest::option::of(0_u128..4);
    let ago = prop_oneof![Just(0_i64), 0_i64..86_400];
    let took = proptest::option::of(0_i64..5_000);
    (kind, run, any::<bool>(), ago, took, 0..3_i32).prop_map(|(kind, run, event, ago, took, retries)| {
        Step::Ping {
            kind,
            run,
            event,
            ago,
            took,
            retries,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let settings = (
        0..5_usize,
        prop_oneof![Just(0.0), 1.0..7_200.0_f64],
        proptest::option::of(1.0..9_000.0_f64),
    );
    prop_oneof![
        10 => a_ping(),
        5 => proptest::option::of(beat()).prop_map(Step::Silence),
        1 => Just(Step::Pause),
        1 => prop_oneof![Just(Trigger::Resume), Just(Trigger::Restored)].prop_map(Step::Resume),
        1 => Just(Step::Retire),
        1 => Just(Step::Return),
        1 => settings.prop_map(|(schedule, grace, longest)| Step::Settings(schedule, grace, longest)),
        1 => (-1_000_000_i64..1_000_000).prop_map(Step::Hint),
        1 => proptest::option::of(-10_000_i64..10_000).prop_map(Step::Sent),
    ]
}

/// Takes a step, and says whether the monitor's own incident is open after it.
fn take(state: &mut MonitorState, step: &Step, now: DateTime<Utc>, is_alerted: bool) -> bool {
    let before = state.clone();
    let mut decided = None;
    let transition = match step {
        Step::Ping {
            kind,
            run,
            event,
            ago,
            took,
            retries,
        } => {
            let signal = Signal {
                run_id: run.map(Uuid::from_u128),
                occurred_at: now - seconds(*ago),
                duration: took.map(seconds),
                source: if *event { Source::Event } else { Source::Http },
                detail: SignalDetail {
                    run: RunDetail {
                        retries: *retries,
                        ..RunDetail::default()
                    },
                    ..SignalDetail::default()
                },
                ..signal(*kind, now)
            };
            let effect = on_ping(state, &signal);
            assert_eq!(state.ping_count, before.ping_count + 1);
            assert_eq!(state.last_ping_at, before.last_ping_at.max(Some(now)));
            assert_changes_are_reported(&before, state, &effect.runs);
            let ignored = before.retired || (before.status == Status::Paused && *event);
            if *kind == PingKind::Success && !ignored {
                assert_success_re_arms(&before, state, now);
            }
            decided = Some(effect.consequence);
            effect.transition
        }
        Step::Silence(view) => match on_silence(state, &Evidence::of_beat(*view), now, &[]) {
            Silence::Down {
                transition,
                consequence,
                overruns,
                ..
            } => {
                assert!(before.deadline_at.is_some_and(|deadline| deadline <= now));
                assert_changes_are_reported(&before, state, &overruns);
                decided = Some(consequence);
                transition
            }
            Silence::NotYet | Silence::Hold => {
                assert!(
                    state.swept_at().is_none_or(|swept_at| swept_at > now),
                    "the sweep would spin"
                );
                assert_eq!(state.runs, before.runs);
                None
            }
            Silence::Unknown { .. } => panic!("the test has no spell"),
            Silence::Calm(consequence) => {
                assert!(before.swept_at().is_some_and(|swept_at| swept_at <= now));
                decided = Some(consequence);
                None
            }
            Silence::Settled(runs) => {
                // The next sweep comes at once, and judges a slot that is also overdue. So this sweep must settle a run.
                let is_due = state.deadline_at.is_some_and(|deadline| deadline <= now);
                assert!(!is_due || !runs.is_empty(), "the sweep would spin");
                assert_changes_are_reported(&before, state, &runs);
                None
            }
        },
        Step::Pause => on_pause(state, Trigger::Pause, now),
        Step::Resume(Trigger::Restored) => {
            let restored = on_restored(state, now);
            decided = restored.map(|(_, consequence)| consequence);
            restored.map(|(transition, _)| transition)
        }
        // Only who is paused is resumed.
        Step::Resume(trigger) if state.status == Status::Paused => on_resume(state, *trigger, now),
        Step::Resume(_) => None,
        Step::Retire => {
            state.retired = true;
            on_pause(state, Trigger::Retire, now)
        }
        Step::Return if state.retired => {
            state.retired = false;
            on_resume(state, Trigger::Return, now)
        }
        Step::Return => None,
        Step::Settings(schedule, grace, longest) => {
            let schedule = schedules()[*schedule].clone();
            on_settings_change(state, expectation(schedule, *grace, *longest), now);
            assert!(*grace == 0.0 || state.deadline_at.is_none_or(|deadline| deadline > now));
            None
        }
        Step::Hint(offset) => {
            let owed = before.next_due_at.filter(|due| *due <= now);
            on_due_hint(state, Some(now + seconds(*offset)), now);
            // If Beat has put off an interval, its deadline is bounded by the slot that was put off.
            let is_put_off = state.postponed_from.is_some_and(|from| Some(from) <= owed);
            assert!(
                owed.is_none() || state.next_due_at == owed || is_put_off,
                "a hint excused a slot that had come"
            );
            None
        }
        Step::Sent(offset) => {
            let owed = before.next_due_at.filter(|due| *due <= now);
            on_sent(state, offset.map(|offset| now + seconds(offset)), now);
            assert!(
                owed.is_none() || state.next_due_at == owed,
                "a hint excused a slot that had come"
            );
            None
        }
    };
    match transition {
        Some(transition) => {
            assert_eq!(
                (transition.from, transition.to, transition.at),
                (before.status, state.status, now)
            );
            assert_ne!(transition.from, transition.to);
        }
        None => assert_eq!(state.status, before.status),
    }
    assert!(
        state.hold_until.is_none() || state.deadline_at.is_some(),
        "only an armed monitor is held"
    );
    let decided = decided.or(transition.as_ref().map(consequence));
    match decided.unwrap_or_default() {
        Consequence::Open(_) => true,
        Consequence::Resolve => false,
        Consequence::Join | Consequence::Calm { .. } | Consequence::Nothing => is_alerted,
    }
}

/// After a success nothing is overdue, except a run that overran while the monitor was armed and that must still be reported.
fn assert_success_re_arms(before: &MonitorState, after: &MonitorState, now: DateTime<Utc>) {
    assert_eq!(after.status, Status::Up);
    let was_watched = before.is_judged();
    let overrun = after
        .runs
        .iter()
        .any(|run| run.is_open() && run.deadline_at.is_some_and(|at| at <= now));
    let re_armed = after.deadline_at.is_some_and(|deadline| deadline > now);
    assert!(re_armed || (was_watched && overrun), "{before:#?} {after:#?}");
}

/// A run that is not reported as changed is not written.
fn assert_changes_are_reported(before: &MonitorState, after: &MonitorState, reported: &[RunKey]) {
    for run in after.runs.iter().filter(|run| !before.runs.contains(run)) {
        assert!(reported.contains(&run.key), "{run:?} changed and is not reported");
    }
}

/// What the state says of the own incident, and the incident itself, agree; and nobody waits for runs that cannot come.
fn assert_alarm(state: &MonitorState, is_alerted: bool) {
    let says = match state.alarm {
        _ if state.flaps.flapping.is_some() => true,
        Alarm::Follows => state.status == Status::Down,
        Alarm::Member | Alarm::Bad(_) => false,
        Alarm::Good(_) => true,
    };
    assert_eq!(says, is_alerted, "{state:#?}");
    match state.alarm {
        Alarm::Bad(streak) => {
            assert_eq!(state.status, Status::Down, "{state:#?}");
            assert!(streak.runs > 0, "{state:#?}");
            // Beat may say that it never sends the entry again.
            let has_more = state.deadline_at.is_some() || state.next_due_at.is_none();
            assert!(has_more, "nothing would count on: {state:#?}");
        }
        Alarm::Good(_) => assert_ne!(state.status, Status::Paused, "{state:#?}"),
        Alarm::Member => assert_eq!(state.status, Status::Down, "{state:#?}"),
        Alarm::Follows => {}
    }
}

/// The invariants that the tables' constraints demand.
fn assert_sound(state: &MonitorState) {
    assert_eq!(state.deadline_at.is_some(), is_armed(state), "{state:#?}");
    assert!(
        !state.retired || state.status == Status::Paused,
        "a retired monitor is judged: {state:#?}"
    );
    let mut open = Vec::new();
    for run in &state.runs {
        match run.status {
            RunStatus::Open => {
                let complete =
                    run.started_at.is_some() && run.finished_at.is_none() && run.deadline_at.is_some();
                assert!(complete, "{run:?}");
                assert!(!open.contains(&run.run_id), "two open runs of one id");
                open.push(run.run_id);
            }
            RunStatus::Success | RunStatus::Fail => assert!(run.finished_at.is_some(), "{run:?}"),
            RunStatus::Overrun => {}
        }
        assert!(
            run.duration.is_none_or(|length| length >= TimeDelta::zero()),
            "{run:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_signals_breaks_the_state(
        schedule in 0..5_usize,
        grace in prop_oneof![Just(0.0), 1.0..7_200.0_f64],
        longest in proptest::option::of(1.0..9_000.0_f64),
        by_beat in any::<bool>(),
        failures in 1..4_u16,
        recoveries in 1..4_u16,
        steps in proptest::collection::vec((prop_oneof![Just(0_i64), 0_i64..200, 0_i64..20_000], step()), 1..60),
    ) {
        let mut now = at(0.0);
        let expectation = expectation(schedules()[schedule].clone(), grace, longest);
        let mut state = MonitorState::fresh(expectation, by_beat, now);
        state.thresholds = Thresholds { failures, recoveries };
        assert_sound(&state);
        let mut is_alerted = false;
        for (later, step) in &steps {
            now += seconds(*later);
            is_alerted = take(&mut state, step, now, is_alerted);
            assert_sound(&state);
            assert_alarm(&state, is_alerted);
        }
    }
}
