//! A worker as a switch.

use super::*;
use crate::incident::{Consequence, consequence};
use crate::transition::tests::at;

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
fn a_worker_that_says_goodbye_is_not_missed() {
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
    assert_eq!(state.deadline_at, None, "it is looked at no more");
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
