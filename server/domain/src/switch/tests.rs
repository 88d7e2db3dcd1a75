//! A Beat as a switch.

use super::*;
use crate::transition::tests::at;

fn fresh() -> Switch {
    Switch {
        status: Status::New,
        period_seconds: 15.0,
        grace_seconds: 60.0,
        last_seen_at: None,
        deadline_at: None,
        trouble: None,
        since: None,
    }
}

fn alive(state: &mut Switch, seconds: f64) -> Option<Transition> {
    on_alive(state, None, at(seconds), at(seconds))
}

#[test]
fn a_beat_that_was_never_heard_from_is_not_judged() {
    let mut state = fresh();

    assert_eq!(on_silence(&mut state, Cause::BeatDown, at(1e9), &[]), None);
}

#[test]
fn beat_is_down_when_period_and_grace_have_passed_and_up_with_its_next_sign_of_life() {
    let mut state = fresh();

    let first = alive(&mut state, 0.0).unwrap();
    assert_eq!(
        (first.from, first.to, state.deadline_at),
        (Status::New, Status::Up, Some(at(75.0)))
    );
    assert_eq!(alive(&mut state, 15.0), None, "no news");
    assert_eq!(on_silence(&mut state, Cause::BeatDown, at(89.999), &[]), None);
    let down = on_silence(&mut state, Cause::BeatDown, at(90.0), &[]).unwrap();
    assert_eq!(
        (down.to, down.trigger),
        (Status::Down, Trigger::Trouble(Cause::BeatDown))
    );
    assert_eq!(
        on_silence(&mut state, Cause::BeatDown, at(1e6), &[]),
        None,
        "once"
    );
    let back = alive(&mut state, 200.0).unwrap();
    assert_eq!(
        (back.from, back.to, state.deadline_at),
        (Status::Down, Status::Up, Some(at(275.0)))
    );
}

#[test]
fn an_old_sign_of_life_says_that_beat_lives_and_not_that_it_has_sent_more() {
    let mut state = fresh();
    let _ = alive(&mut state, 100.0);

    assert_eq!(on_alive(&mut state, None, at(50.0), at(101.0)), None);

    assert_eq!(
        (state.last_seen_at, state.deadline_at),
        (Some(at(100.0)), Some(at(176.0)))
    );
}

#[test]
fn a_down_beat_is_not_judged_again_whatever_deadline_a_row_holds() {
    let mut state = Switch {
        status: Status::Down,
        deadline_at: Some(at(1.0)),
        ..fresh()
    };

    assert_eq!(on_silence(&mut state, Cause::BeatDown, at(2.0), &[]), None);

    assert_eq!(state.deadline_at, None);
}
