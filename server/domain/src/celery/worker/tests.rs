//! A worker as a switch.

use super::*;
use crate::incident::{Consequence, consequence};
use crate::monitor::transition::tests::at;

fn running(seconds: f64) -> Switch {
    let mut state = Switch {
        status: Status::New,
        period_seconds: 5.0,
        grace_seconds: 25.0,
        last_seen_at: None,
        deadline_at: None,
        trouble: None,
        since: None,
    };
    let came = on_snapshot(&mut state, Phase::Running, None, at(seconds)).unwrap();
    assert_eq!(consequence(&came), Consequence::Nothing);
    state
}

#[test]
fn a_silent_worker_is_lost_when_period_and_grace_have_passed() {
    let mut state = running(0.0);

    assert_eq!(on_silence(&mut state, at(29.9), &[]), None);
    let lost = on_silence(&mut state, at(30.0), &[]).unwrap();

    assert_eq!(consequence(&lost), Consequence::Open(Cause::WorkerLost));
    let back = on_snapshot(&mut state, Phase::Running, None, at(40.0)).unwrap();
    assert_eq!(consequence(&back), Consequence::Resolve);
    assert_eq!(state.deadline_at, Some(at(70.0)));
}

#[test]
fn a_worker_that_reports_its_end_is_not_missed() {
    for phase in [Phase::Stopping, Phase::Stopped] {
        let mut state = running(0.0);

        let left = on_snapshot(&mut state, phase, None, at(5.0)).unwrap();

        assert_eq!(
            (left.to, consequence(&left)),
            (Status::Paused, Consequence::Nothing)
        );
        assert_eq!(
            on_snapshot(&mut state, Phase::Stopped, None, at(6.0)),
            None,
            "no news"
        );
        assert_eq!(on_silence(&mut state, at(1e6), &[]), None);
    }
}

#[test]
fn a_lost_worker_that_never_returns_is_given_up_and_its_incident_ends() {
    let mut state = running(0.0);
    let _ = on_silence(&mut state, at(30.0), &[]);

    assert_eq!(on_silence(&mut state, at(3629.0), &[]), None);
    let given_up = on_silence(&mut state, at(3630.0), &[]).unwrap();

    assert_eq!(given_up.to, Status::Paused);
    assert_eq!(consequence(&given_up), Consequence::Resolve);
    assert_eq!(state.deadline_at, None, "it is judged no more");
}

#[test]
fn a_worker_is_not_blamed_for_a_blind_spell() {
    let mut state = running(0.0);
    let spell = BlindSpell {
        started_at: at(3.0),
        ended_at: at(100.0),
    };

    assert_eq!(on_silence(&mut state, at(101.0), &[spell]), None);
    assert!(on_silence(&mut state, at(131.0), &[spell]).is_some());
}

/// An idle worker with a pool of two processes, connected.
const IDLE: SnapshotFacts = SnapshotFacts {
    connected: true,
    is_solo: false,
    active: 0,
    processes: 2,
    reserved: 0,
    limited: 0,
    loop_lag: TimeDelta::zero(),
    stuck_for: TimeDelta::zero(),
    is_waited_for: false,
    is_cut_off: false,
    skew: TimeDelta::zero(),
    is_starving: false,
};
const MINUTE: TimeDelta = GHOST_PATIENCE;
const JUST_NOT: TimeDelta = TimeDelta::milliseconds(59_999);

#[test]
fn a_ghost_is_known_by_what_it_gets_done() {
    for (what, facts, is_ghost) in [
        ("idle", IDLE, false),
        (
            "idle for long",
            SnapshotFacts {
                stuck_for: TimeDelta::hours(9),
                ..IDLE
            },
            false,
        ),
        (
            "busy",
            SnapshotFacts {
                active: 2,
                reserved: 10,
                is_cut_off: false,
                is_waited_for: true,
                ..IDLE
            },
            false,
        ),
        (
            "busy with long tasks",
            SnapshotFacts {
                active: 2,
                reserved: 10,
                is_waited_for: true,
                stuck_for: TimeDelta::hours(1),
                ..IDLE
            },
            false,
        ),
        (
            "one long task, and nothing to do for the other process",
            SnapshotFacts {
                active: 1,
                reserved: 1,
                stuck_for: TimeDelta::hours(1),
                ..IDLE
            },
            false,
        ),
        (
            "rate-limited",
            SnapshotFacts {
                reserved: 8,
                limited: 7,
                is_waited_for: true,
                stuck_for: MINUTE,
                ..IDLE
            },
            false,
        ),
        (
            "solo with a long task",
            SnapshotFacts {
                is_solo: true,
                active: 1,
                processes: 1,
                reserved: 4,
                loop_lag: TimeDelta::hours(1),
                stuck_for: TimeDelta::hours(1),
                is_waited_for: true,
                ..IDLE
            },
            false,
        ),
        (
            "solo, wedged",
            SnapshotFacts {
                is_solo: true,
                processes: 1,
                loop_lag: MINUTE,
                ..IDLE
            },
            true,
        ),
        (
            "the broker is away",
            SnapshotFacts {
                connected: false,
                reserved: 8,
                is_waited_for: true,
                loop_lag: MINUTE,
                stuck_for: MINUTE,
                ..IDLE
            },
            false,
        ),
        (
            "a frozen pool",
            SnapshotFacts {
                reserved: 8,
                stuck_for: MINUTE,
                ..IDLE
            },
            true,
        ),
        (
            "a frozen pool, not yet a ghost",
            SnapshotFacts {
                reserved: 8,
                stuck_for: JUST_NOT,
                ..IDLE
            },
            false,
        ),
        (
            "a worker that gets no CPU time",
            SnapshotFacts {
                reserved: 8,
                stuck_for: MINUTE,
                loop_lag: MINUTE,
                is_waited_for: true,
                is_starving: true,
                ..IDLE
            },
            false,
        ),
        (
            "a consumer that receives nothing",
            SnapshotFacts {
                is_waited_for: true,
                stuck_for: MINUTE,
                ..IDLE
            },
            true,
        ),
        (
            "a consumer that receives nothing, not yet a ghost",
            SnapshotFacts {
                is_waited_for: true,
                stuck_for: JUST_NOT,
                ..IDLE
            },
            false,
        ),
        (
            "a consumer that receives nothing, with one long task",
            SnapshotFacts {
                active: 1,
                reserved: 1,
                is_waited_for: true,
                stuck_for: MINUTE,
                ..IDLE
            },
            true,
        ),
        (
            "a wedged loop",
            SnapshotFacts {
                loop_lag: MINUTE,
                ..IDLE
            },
            true,
        ),
        (
            "a wedged loop, not yet a ghost",
            SnapshotFacts {
                loop_lag: JUST_NOT,
                ..IDLE
            },
            false,
        ),
        (
            "a wedged loop while all processes are busy",
            SnapshotFacts {
                active: 2,
                reserved: 2,
                loop_lag: MINUTE,
                ..IDLE
            },
            true,
        ),
    ] {
        // A loop that does not turn may be reconnecting to a broker that has just come back.
        let patience = if what.contains("wedged") {
            GHOST_PATIENCE
        } else {
            TimeDelta::zero()
        };
        let expected = is_ghost.then_some((Cause::GhostWorker, patience));
        assert_eq!(trouble(&facts), expected, "{what}");
    }
}

#[test]
fn a_clock_that_is_off_is_reported_when_it_lasts_and_a_ghost_comes_before_it() {
    let alerted = Some((Cause::ClockSkew, SKEW_PATIENCE));
    for (milliseconds, expected) in [
        (9_999, None),
        (-9_999, None),
        (10_000, alerted),
        (-10_000, alerted),
    ] {
        let facts = SnapshotFacts {
            skew: TimeDelta::milliseconds(milliseconds),
            ..IDLE
        };
        assert_eq!(trouble(&facts), expected, "{milliseconds} ms");
    }
    let both = SnapshotFacts {
        skew: TimeDelta::hours(1),
        loop_lag: MINUTE,
        ..IDLE
    };
    assert_eq!(trouble(&both).map(|(cause, _)| cause), Some(Cause::GhostWorker));
    let away = SnapshotFacts {
        connected: false,
        skew: TimeDelta::hours(1),
        ..IDLE
    };
    assert_eq!(trouble(&away), alerted);
}

#[test]
fn a_ghost_that_falls_silent_is_reported_as_lost_and_is_given_up() {
    let mut state = running(0.0);
    let ghost = Some((Cause::GhostWorker, TimeDelta::zero()));
    let alerted = on_snapshot(&mut state, Phase::Running, ghost, at(5.0)).unwrap();
    assert_eq!(consequence(&alerted), Consequence::Open(Cause::GhostWorker));

    assert_eq!(on_silence(&mut state, at(34.9), &[]), None);
    assert_eq!(state.trouble, Some(Cause::GhostWorker), "not overdue");
    let over = on_silence(&mut state, at(35.0), &[]).unwrap();
    assert_eq!(consequence(&over), Consequence::Resolve);
    let lost = on_silence(&mut state, at(35.1), &[]).unwrap();
    assert_eq!(consequence(&lost), Consequence::Open(Cause::WorkerLost));
    assert_eq!(on_silence(&mut state, at(3_600.0), &[]), None);
    let given_up = on_silence(&mut state, at(3_636.0), &[]).unwrap();
    assert_eq!((given_up.to, given_up.trigger), (Status::Paused, Trigger::GiveUp));
}

#[test]
fn a_worker_in_trouble_that_reports_its_end_ends_its_incident() {
    let mut state = running(0.0);
    let _ = on_snapshot(
        &mut state,
        Phase::Running,
        Some((Cause::GhostWorker, TimeDelta::zero())),
        at(5.0),
    );

    let left = on_snapshot(&mut state, Phase::Stopping, None, at(10.0)).unwrap();

    assert_eq!(
        (left.to, consequence(&left)),
        (Status::Paused, Consequence::Resolve)
    );
    assert_eq!(
        (state.trouble, state.since, state.deadline_at),
        (None, None, None)
    );
}
