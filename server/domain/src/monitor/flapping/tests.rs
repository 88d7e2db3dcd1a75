//! Flapping begins with the third incident within an hour, and ends after half an hour of calm.

use super::*;
use crate::change::Trigger;
use crate::incident::cause::Cause;
use crate::monitor::alarm::Thresholds;
use crate::monitor::ping::PingKind;
use crate::monitor::transition::on_pause;
use crate::monitor::transition::silence::{Silence, on_silence};
use crate::monitor::transition::tests::{Evidence, at, interval, monitor, ping};

use PingKind::{Fail, Success};

const OPEN: Consequence = Consequence::Open(Cause::Failed);

/// A monitor of ten minutes.
fn calm_one() -> MonitorState {
    let mut state = monitor(interval(600.0), 300.0, None);
    ping(&mut state, Success, 0.0);
    state
}

/// Fails and works in turn, each ten minutes, and fails for the third time at 3,000 s.
fn flapping_one() -> MonitorState {
    let mut state = calm_one();
    for (kind, seconds) in [
        (Fail, 600.0),
        (Success, 1_200.0),
        (Fail, 1_800.0),
        (Success, 2_400.0),
        (Fail, 3_000.0),
    ] {
        ping(&mut state, kind, seconds);
    }
    state
}

fn sweep(state: &mut MonitorState, seconds: f64) -> Silence {
    on_silence(state, &Evidence::default(), at(seconds), &[])
}

#[test]
fn the_third_incident_within_an_hour_is_flapping() {
    for (times, flaps) in [
        ([600.0, 1_800.0, 3_000.0], true),
        ([600.0, 1_800.0, 4_200.0], true),
        ([600.0, 1_800.0, 4_201.0], false),
    ] {
        let mut state = calm_one();
        for time in times {
            assert_eq!(ping(&mut state, Fail, time).consequence, OPEN);
            let back = ping(&mut state, Success, time + 1.0).consequence;
            let third = flaps && time == times[2];
            let expected = if third {
                Consequence::Nothing
            } else {
                Consequence::Resolve
            };
            assert_eq!(back, expected, "{times:?} at {time}");
        }

        assert_eq!(state.flaps.flapping.is_some(), flaps, "{times:?}");
    }
}

#[test]
fn while_it_flaps_the_incident_neither_ends_nor_opens_and_the_status_goes_on() {
    let mut state = flapping_one();

    for (kind, seconds, to) in [
        (Success, 3_600.0, Status::Up),
        (Fail, 4_200.0, Status::Down),
        (Success, 4_800.0, Status::Up),
    ] {
        let effect = ping(&mut state, kind, seconds);

        assert_eq!(effect.transition.map(|transition| transition.to), Some(to));
        assert_ne!(effect.consequence, Consequence::Resolve, "at {seconds}");
    }
    assert_eq!(state.swept_at(), Some(at(5_700.0)), "it is judged first");
    assert_eq!(
        state.flaps.flapping.map(|flapping| flapping.calm_at),
        Some(at(6_600.0))
    );
}

#[test]
fn it_ends_when_the_status_has_not_changed_for_half_an_hour() {
    let mut state = flapping_one();
    for seconds in [3_600.0, 4_200.0, 4_800.0] {
        ping(&mut state, Success, seconds);
    }

    assert_eq!(sweep(&mut state, 5_399.0), Silence::NotYet);
    assert_eq!(state.swept_at(), Some(at(5_400.0)));
    assert_eq!(sweep(&mut state, 5_400.0), Silence::Calm(Consequence::Resolve));

    assert_eq!(
        state.flaps,
        Flaps::default(),
        "the next failure is told as any other"
    );
    assert_eq!(ping(&mut state, Fail, 5_500.0).consequence, OPEN);
    assert_eq!(
        ping(&mut state, Success, 5_600.0).consequence,
        Consequence::Resolve
    );
}

#[test]
fn a_monitor_that_stays_down_no_longer_flaps_and_its_incident_stays_open() {
    let mut state = flapping_one();
    assert_eq!(state.deadline_at, None);
    assert_eq!(state.swept_at(), Some(at(4_800.0)));

    assert_eq!(
        sweep(&mut state, 4_800.0),
        Silence::Calm(Consequence::Calm { is_down: true })
    );

    assert_eq!((state.swept_at(), state.status), (None, Status::Down));
    assert_eq!(
        ping(&mut state, Success, 4_900.0).consequence,
        Consequence::Resolve
    );
}

#[test]
fn a_slot_that_is_missed_in_the_meantime_is_judged_before_the_calm() {
    let mut state = flapping_one();
    ping(&mut state, Success, 3_600.0);
    assert_eq!(state.deadline_at, Some(at(4_500.0)));

    let late = sweep(&mut state, 5_400.0);

    assert!(matches!(late, Silence::Down { .. }), "{late:?}");
    assert_eq!(
        state.flaps.flapping.map(|flapping| flapping.calm_at),
        Some(at(7_200.0))
    );
}

#[test]
fn good_runs_that_the_incident_needs_are_counted_beside() {
    let mut state = flapping_one();
    state.thresholds = Thresholds {
        failures: 1,
        recoveries: 4,
    };
    for seconds in [3_600.0, 4_200.0, 4_800.0] {
        assert_eq!(
            ping(&mut state, Success, seconds).consequence,
            Consequence::Nothing
        );
    }

    assert_eq!(
        sweep(&mut state, 5_400.0),
        Silence::Calm(Consequence::Calm { is_down: false })
    );

    assert_eq!(
        ping(&mut state, Success, 5_401.0).consequence,
        Consequence::Resolve
    );
}

#[test]
fn an_incident_that_waits_for_bad_runs_is_no_opening() {
    let mut state = calm_one();
    state.thresholds.failures = 2;
    for round in 0..5 {
        let then = f64::from(round) * 600.0;
        ping(&mut state, Fail, then);
        ping(&mut state, Success, then + 300.0);
    }

    assert_eq!(state.flaps, Flaps::default());
}

#[test]
fn a_pause_ends_it() {
    let mut state = flapping_one();

    let _ = on_pause(&mut state, Trigger::Pause, at(3_100.0));

    assert_eq!(state.flaps, Flaps::default());
}

#[test]
fn a_stretch_in_which_nobody_listened_is_no_calm() {
    let mut state = flapping_one();
    ping(&mut state, Success, 3_600.0);
    ping(&mut state, Success, 4_200.0);
    let spell = BlindSpell {
        started_at: at(4_300.0),
        ended_at: at(4_400.0),
    };

    for _ in 0..2 {
        assert_eq!(state.calm_down(at(5_400.0), &[spell]), None);
    }

    assert_eq!(
        state.flaps.flapping.map(|flapping| flapping.calm_at),
        Some(at(6_200.0))
    );
}

#[test]
fn a_clock_that_was_set_back_does_not_make_it_flap_for_longer() {
    let mut state = flapping_one();

    state.note_earlier_clock(at(-36_000.0));

    let flapping = state.flaps.flapping.unwrap();
    assert_eq!(flapping.calm_at, at(-36_000.0) + CALM);
    assert!(state.flaps.openings.is_empty());
}

#[test]
fn openings_are_kept_in_a_bounded_list() {
    let mut flaps = Flaps::default();
    for second in 0..100 {
        flaps.note_opening(at(f64::from(second)));
    }

    assert_eq!(flaps.openings.len(), OPENINGS);
    assert_eq!(flaps.flapping.map(|flapping| flapping.since), Some(at(2.0)));
}
