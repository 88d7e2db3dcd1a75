//! Thresholds: after how many bad runs an incident opens, and after how many good ones it ends.

use proptest::prelude::*;

use super::*;
use crate::celery::beat::BeatView;
use crate::change::Trigger;
use crate::judge::blind_spell::BlindSpell;
use crate::monitor::ping::{PingKind, Signal};
use crate::monitor::transition::silence::{Silence, on_lost_run, on_silence};
use crate::monitor::transition::tests::{
    Evidence, at, cron, entry, interval, monitor, ping, ping_of, signal,
};
use crate::monitor::transition::{on_pause, on_ping, on_restored, on_settings_change};
use crate::schedule::Schedule;

use PingKind::{Fail, Start, Success};

fn after(state: MonitorState, failures: u16, recoveries: u16) -> MonitorState {
    MonitorState {
        thresholds: Thresholds { failures, recoveries },
        ..state
    }
}

/// A monitor of a minute with 30 s of grace.
fn of(failures: u16, recoveries: u16) -> MonitorState {
    after(monitor(interval(60.0), 30.0, None), failures, recoveries)
}

/// What the evaluator makes of it at that time.
fn judge(state: &mut MonitorState, seconds: f64) -> Consequence {
    match on_silence(state, &Evidence::default(), at(seconds), &[]) {
        Silence::Down { consequence, .. } => consequence,
        _ => Consequence::Nothing,
    }
}

/// The open incident by these runs: `b` is a failure, `g` a success, `m` a missed slot. `O` is an incident that opens,
/// `R` one that ends, `.` neither.
fn story(state: &mut MonitorState, runs: &str) -> String {
    let mut now = 0.0;
    let mut is_open = false;
    let mut alerted = String::new();
    for run in runs.chars() {
        // Flapping has tests of its own.
        state.flaps = Flaps::default();
        let consequence = match run {
            'b' => {
                now += 60.0;
                ping(state, Fail, now).consequence
            }
            'g' => {
                now += 60.0;
                ping(state, Success, now).consequence
            }
            _ => {
                let deadline = state.deadline_at.unwrap();
                now = (deadline - at(0.0)).as_seconds_f64();
                judge(state, now)
            }
        };
        alerted.push(match consequence {
            Consequence::Open(_) if !is_open => 'O',
            Consequence::Resolve if is_open => 'R',
            _ => '.',
        });
        is_open = match consequence {
            Consequence::Open(_) => true,
            Consequence::Resolve => false,
            Consequence::Join | Consequence::Calm { .. } | Consequence::Nothing => is_open,
        };
    }
    alerted
}

#[test]
fn an_incident_opens_after_so_many_bad_runs_and_ends_after_so_many_good_ones() {
    for (failures, recoveries, runs, alerted) in [
        (1, 1, "gbgb", ".ORO"),
        (3, 1, "gbbgbbb", "......O"),
        (3, 1, "gmmm", "...O"),
        (3, 1, "gmbm", "...O"),
        (2, 1, "gmgmgmm", "......O"),
        (1, 3, "gbggg", ".O..R"),
        (1, 3, "gbggbgggb", ".O.....RO"),
        (2, 2, "gbbgbgg", "..O...R"),
        (2, 2, "gbbgmgg", "..O...R"),
        (2, 1, "bb", ".O"),
    ] {
        let mut state = of(failures, recoveries);

        assert_eq!(story(&mut state, runs), alerted, "{failures}/{recoveries} {runs}");
    }
}

#[test]
fn the_status_says_at_once_what_the_monitor_is() {
    let mut state = of(3, 2);
    ping(&mut state, Success, 0.0);

    let failed = ping(&mut state, Fail, 60.0);
    let worked = ping(&mut state, Success, 120.0);

    let trigger = failed
        .transition
        .map(|transition| (transition.to, transition.trigger));
    assert_eq!(trigger, Some((Status::Down, Trigger::Trouble(Cause::Failed))));
    assert_eq!(failed.consequence, Consequence::Nothing);
    assert_eq!(
        worked.transition.map(|transition| transition.to),
        Some(Status::Up)
    );
    assert_eq!(worked.consequence, Consequence::Nothing);
}

#[test]
fn each_missed_slot_counts_once_and_the_last_one_opens_the_incident() {
    let mut state = of(3, 1);
    ping(&mut state, Success, 0.0);

    assert_eq!(judge(&mut state, 90.0), Consequence::Nothing);
    assert_eq!((state.status, state.alarm.bad_runs()), (Status::Down, Some(1)));
    assert_eq!(state.deadline_at, Some(at(150.0)), "it stays armed");
    assert_eq!(judge(&mut state, 149.0), Consequence::Nothing);
    assert_eq!(state.alarm.bad_runs(), Some(1), "the same slot");
    assert_eq!(judge(&mut state, 150.0), Consequence::Nothing);
    assert_eq!(judge(&mut state, 210.0), Consequence::Open(Cause::Missed));

    assert_eq!(state.deadline_at, None);
    assert_eq!(
        state.raised_after,
        Some(Streak {
            runs: 3,
            since: at(90.0)
        })
    );
}

#[test]
fn slots_that_passed_while_nobody_judged_count_each() {
    let mut state = after(monitor(cron("*/5 * * * *"), 60.0, None), 4, 1);
    ping(&mut state, Success, 0.0);
    let late = 300.0 * 3.0 + 61.0;

    for _ in 0..3 {
        assert_eq!(judge(&mut state, late), Consequence::Nothing);
    }

    assert_eq!(state.alarm.bad_runs(), Some(3));
    assert_eq!(
        judge(&mut state, late),
        Consequence::Nothing,
        "nothing else is overdue"
    );
    assert_eq!(state.deadline_at, Some(at(1_260.0)));
}

#[test]
fn a_run_that_hangs_is_one_bad_run_and_not_a_missed_slot_as_well() {
    for longest in [None, Some(20.0)] {
        let mut state = after(monitor(interval(60.0), 30.0, longest), 2, 1);
        ping(&mut state, Success, 0.0);
        ping_of(&mut state, 1, Start, 60.0);

        assert_eq!(judge(&mut state, 90.0), Consequence::Nothing, "{longest:?}");

        assert_eq!(state.alarm.bad_runs(), Some(1), "{longest:?}");
        assert_eq!(
            ping_of(&mut state, 1, Fail, 100.0).consequence,
            Consequence::Nothing,
            "its end counts no second time: {longest:?}"
        );
        assert_eq!(
            ping_of(&mut state, 2, Fail, 120.0).consequence,
            Consequence::Open(Cause::Failed)
        );
    }
}

#[test]
fn each_of_several_hanging_runs_counts() {
    let mut state = after(monitor(interval(3_600.0), 30.0, Some(60.0)), 3, 1);
    ping(&mut state, Success, 0.0);
    for run in 1..=3 {
        ping_of(&mut state, run, Start, 10.0);
    }

    assert_eq!(judge(&mut state, 80.0), Consequence::Open(Cause::Overrun));
}

#[test]
fn the_last_slot_of_a_schedule_opens_the_incident_at_once() {
    let once = Schedule::from_json(&serde_json::json!({
        "kind": "quartz", "expression": "0 5 12 15 1 ? 2026", "timezone": "UTC"
    }));
    let mut state = after(entry(once.unwrap(), 60.0, None), 5, 1);

    assert_eq!(judge(&mut state, 360.0), Consequence::Open(Cause::Missed));
}

#[test]
fn a_failure_without_a_slot_to_come_opens_the_incident_at_once() {
    let once = Schedule::from_json(&serde_json::json!({
        "kind": "quartz", "expression": "0 5 12 15 1 ? 2026", "timezone": "UTC"
    }));
    let mut state = after(entry(once.unwrap(), 60.0, None), 5, 1);

    assert_eq!(
        ping(&mut state, Fail, 301.0).consequence,
        Consequence::Open(Cause::Failed)
    );
}

#[test]
fn a_repeated_execution_is_reported_at_once() {
    assert!(!is_counted(Cause::DuplicateRun));
    let mut state = of(5, 1);
    ping(&mut state, Success, 0.0);

    let consequence = state.note_bad(1, Cause::RedeliveryLoop, at(1.0));

    assert_eq!(consequence, Consequence::Open(Cause::RedeliveryLoop));
}

#[test]
fn a_lost_run_of_an_entry_that_demands_every_run_is_a_bad_run() {
    let mut state = after(entry(interval(60.0), 30.0, None), 2, 1);
    ping(&mut state, Success, 0.0);

    let first = on_lost_run(&mut state, at(10.0)).unwrap();
    let second = on_lost_run(&mut state, at(20.0)).unwrap();

    assert_eq!(first.0.map(|transition| transition.to), Some(Status::Down));
    assert_eq!(first.1, Consequence::Nothing);
    assert_eq!(second, (None, Consequence::Open(Cause::LostInBroker)));
    assert_eq!(on_lost_run(&mut state, at(30.0)), None);
}

fn silent_beat() -> Evidence {
    Evidence::of_beat(Some(BeatView {
        status: Status::Down,
        last_seen_at: Some(at(0.0)),
        deadline_at: None,
        hung_at: None,
        sent_at: None,
        send_failed_at: None,
        lost_at: None,
        skewed_since: None,
        back_at: None,
    }))
}

#[test]
fn slots_that_another_subject_explains_do_not_count() {
    let mut state = after(entry(interval(60.0), 30.0, None), 2, 1);
    ping(&mut state, Success, 0.0);
    assert_eq!(ping(&mut state, Fail, 60.0).consequence, Consequence::Nothing);

    let joined = on_silence(&mut state, &silent_beat(), at(150.0), &[]);

    let Silence::Down {
        transition,
        consequence,
        part_of,
        ..
    } = joined
    else {
        panic!("{joined:?}")
    };
    assert_eq!(
        (transition, consequence),
        (None, Consequence::Join),
        "it is down already"
    );
    assert!(part_of.is_some());
    assert_eq!((state.alarm, state.deadline_at), (Alarm::Member, None));
    let (back, consequence) = on_restored(&mut state, at(200.0)).unwrap();
    assert_eq!((back.to, consequence), (Status::New, Consequence::Resolve));
    assert_eq!(
        judge(&mut state, 290.0),
        Consequence::Nothing,
        "the count begins anew"
    );
}

#[test]
fn a_failure_while_it_is_a_member_counts_and_is_judged_on() {
    let mut state = after(entry(interval(60.0), 30.0, None), 2, 1);
    let _ = on_silence(&mut state, &silent_beat(), at(90.0), &[]);

    assert_eq!(ping(&mut state, Fail, 100.0).consequence, Consequence::Nothing);

    assert_eq!(state.alarm.bad_runs(), Some(1));
    assert!(state.deadline_at.is_some());
    assert_eq!(judge(&mut state, 190.0), Consequence::Open(Cause::Missed));
}

#[test]
fn an_incident_that_waits_for_good_runs_stays_open_while_another_subject_is_down() {
    let mut state = after(entry(interval(60.0), 30.0, None), 1, 3);
    ping(&mut state, Fail, 0.0);
    ping(&mut state, Success, 60.0);
    assert_eq!(state.alarm.good_runs(), Some(1));

    let _ = on_silence(&mut state, &silent_beat(), at(150.0), &[]);

    assert_eq!((state.status, state.alarm.good_runs()), (Status::Down, Some(0)));
    let (_, consequence) = on_restored(&mut state, at(200.0)).unwrap();
    assert_eq!(consequence, Consequence::Nothing, "its own incident stays open");
    assert_eq!(ping(&mut state, Success, 260.0).consequence, Consequence::Nothing);
    assert_eq!(ping(&mut state, Success, 320.0).consequence, Consequence::Nothing);
    assert_eq!(ping(&mut state, Success, 380.0).consequence, Consequence::Resolve);
}

#[test]
fn a_pause_ends_an_incident_that_waits_for_good_runs() {
    let mut state = of(1, 3);
    ping(&mut state, Fail, 0.0);
    ping(&mut state, Success, 60.0);

    let paused = on_pause(&mut state, Trigger::Pause, at(61.0)).unwrap();

    assert_eq!(paused.from, Status::Up);
    assert_eq!(crate::incident::consequence(&paused), Consequence::Resolve);
    assert_eq!(state.alarm, Alarm::Follows);
}

#[test]
fn new_thresholds_raise_nothing_by_themselves() {
    let mut state = of(5, 1);
    ping(&mut state, Success, 0.0);
    judge(&mut state, 90.0);
    judge(&mut state, 150.0);

    state.thresholds.failures = 2;
    let expectation = state.expectation.clone();
    on_settings_change(&mut state, expectation, at(151.0));

    assert_eq!(state.alarm.bad_runs(), Some(2));
    assert_eq!(judge(&mut state, 152.0), Consequence::Nothing);
    assert_eq!(
        judge(&mut state, 210.0),
        Consequence::Open(Cause::Missed),
        "the next bad run does"
    );
}

#[test]
fn a_slot_in_a_blind_spell_is_no_bad_run() {
    let mut state = after(monitor(cron("*/5 * * * *"), 60.0, None), 2, 1);
    ping(&mut state, Success, 0.0);
    judge(&mut state, 361.0);
    assert_eq!(state.alarm.bad_runs(), Some(1));
    let spell = BlindSpell {
        started_at: at(500.0),
        ended_at: at(800.0),
    };

    let verdict = on_silence(&mut state, &Evidence::default(), at(801.0), &[spell]);

    assert!(matches!(verdict, Silence::Unknown { .. }), "{verdict:?}");
    assert_eq!(state.alarm.bad_runs(), Some(1));
    assert_eq!(state.deadline_at, Some(at(960.0)));
}

fn replayed(kind: PingKind, seconds: f64) -> Signal {
    Signal {
        is_replayed: true,
        ..signal(kind, at(seconds))
    }
}

#[test]
fn failures_in_any_order_of_replay_count_if_no_success_was_received_since() {
    for order in [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [2.0, 3.0, 1.0]] {
        let mut state = of(3, 1);
        let _ = on_ping(&mut state, &replayed(Success, 0.0));

        let alerted = order.map(|seconds| on_ping(&mut state, &replayed(Fail, seconds)).consequence);

        let open = Consequence::Open(Cause::Failed);
        assert_eq!(
            alerted,
            [Consequence::Nothing, Consequence::Nothing, open],
            "{order:?}"
        );
    }
    let mut state = of(2, 1);
    let _ = on_ping(&mut state, &replayed(Success, 10.0));
    let _ = on_ping(&mut state, &replayed(Fail, 20.0));

    let older = on_ping(&mut state, &replayed(Fail, 5.0));

    assert_eq!(
        older.consequence,
        Consequence::Nothing,
        "a success came in between"
    );
    assert_eq!(state.alarm.bad_runs(), Some(1));
}

#[test]
fn a_success_that_is_replayed_late_counts_among_the_good_runs() {
    let mut state = of(1, 3);
    for (kind, seconds) in [(Fail, 1.0), (Success, 2.0), (Success, 4.0)] {
        let _ = on_ping(&mut state, &replayed(kind, seconds));
    }

    assert_eq!(
        on_ping(&mut state, &replayed(Success, 3.0)).consequence,
        Consequence::Resolve
    );
}

#[test]
fn the_limits_of_a_threshold() {
    for (runs, allowed) in [
        (0, false),
        (1, true),
        (100, true),
        (101, false),
        (-1, false),
        (65_537, false),
    ] {
        assert_eq!(check_threshold("/x", runs).is_ok(), allowed, "{runs}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// As a person would count: bad runs and good runs in a row.
    #[test]
    fn runs_are_counted_as_a_person_counts(
        failures in 1..6_u16,
        recoveries in 1..6_u16,
        runs in proptest::collection::vec(prop_oneof![Just('b'), Just('g')], 1..40),
    ) {
        let runs: String = std::iter::once('g').chain(runs).collect();
        let (mut bad, mut good, mut is_open) = (0, 0, false);
        let mut expected = String::new();
        for run in runs.chars() {
            if run == 'b' { (bad, good) = (bad + 1, 0) } else { (bad, good) = (0, good + 1) }
            let turns = if is_open { good == recoveries } else { bad == failures };
            expected.push(match (turns, is_open) { (false, _) => '.', (true, true) => 'R', (true, false) => 'O' });
            is_open ^= turns;
        }

        prop_assert_eq!(story(&mut of(failures, recoveries), &runs), expected);
    }
}
