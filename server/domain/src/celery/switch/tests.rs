//! A Beat as a switch.

use super::*;
use crate::monitor::transition::tests::at;

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
    on_heartbeat(state, None, at(seconds), at(seconds))
}

#[test]
fn a_beat_that_never_reported_is_not_judged() {
    let mut state = fresh();

    assert_eq!(on_silence(&mut state, Cause::BeatDown, at(1e9), &[]), None);
}

#[test]
fn beat_is_down_when_period_and_grace_have_passed_and_up_with_its_next_heartbeat() {
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
fn an_old_heartbeat_says_that_beat_lives_and_not_that_it_has_sent_more() {
    let mut state = fresh();
    let _ = alive(&mut state, 100.0);

    assert_eq!(on_heartbeat(&mut state, None, at(50.0), at(101.0)), None);

    assert_eq!(
        (state.last_seen_at, state.deadline_at),
        (Some(at(100.0)), Some(at(176.0)))
    );
}

#[test]
fn what_was_received_before_the_clock_was_stepped_back_is_not_the_newest_for_ever() {
    let mut state = fresh();
    let _ = alive(&mut state, 3_600.0);

    let _ = alive(&mut state, 0.0);

    assert_eq!(state.last_seen_at, Some(at(0.0)));
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

/// A fault that opens an incident once it has lasted for 20 s.
const SKEW: Option<(Cause, TimeDelta)> = Some((Cause::ClockSkew, TimeDelta::seconds(20)));
/// A fault that opens an incident at once.
const GHOST: Option<(Cause, TimeDelta)> = Some((Cause::GhostWorker, TimeDelta::zero()));

fn report(
    state: &mut Switch,
    trouble: Option<(Cause, TimeDelta)>,
    seconds: f64,
) -> Option<(Status, Trigger)> {
    on_heartbeat(state, trouble, at(seconds), at(seconds))
        .map(|transition| (transition.to, transition.trigger))
}

const UP: Option<(Status, Trigger)> = Some((Status::Up, Trigger::Report));

fn alerted(cause: Cause) -> Option<(Status, Trigger)> {
    Some((Status::Down, Trigger::Trouble(cause)))
}

#[test]
fn trouble_is_reported_once_when_it_has_lasted_and_ends_when_it_is_gone() {
    let mut state = fresh();

    assert_eq!(report(&mut state, SKEW, 0.0), UP, "it lives");
    assert_eq!(report(&mut state, SKEW, 19.9), None);
    assert_eq!(report(&mut state, SKEW, 20.0), alerted(Cause::ClockSkew));
    assert_eq!(report(&mut state, SKEW, 35.0), None, "once");
    assert_eq!(
        state.deadline_at,
        Some(at(110.0)),
        "its reports are expected all the same"
    );
    assert_eq!(report(&mut state, None, 50.0), UP);
    assert_eq!((state.trouble, state.since), (None, None));
}

#[test]
fn a_trouble_that_passes_or_changes_begins_anew() {
    let mut state = fresh();
    let storm = Some((Cause::BeatStorm, TimeDelta::seconds(30)));

    assert_eq!(report(&mut state, SKEW, 0.0), UP);
    assert_eq!(report(&mut state, None, 15.0), None);
    assert_eq!(report(&mut state, SKEW, 30.0), None);
    assert_eq!(report(&mut state, storm, 45.0), None);
    assert_eq!(report(&mut state, storm, 74.0), None);
    assert_eq!(report(&mut state, storm, 75.0), alerted(Cause::BeatStorm));
}

#[test]
fn what_is_reported_at_once_is_reported_with_the_first_report() {
    let mut state = fresh();

    assert_eq!(report(&mut state, GHOST, 0.0), alerted(Cause::GhostWorker));
}

#[test]
fn another_trouble_in_place_of_a_reported_one_is_reported_in_its_own_time() {
    let mut state = fresh();
    report(&mut state, GHOST, 0.0);

    let over = report(&mut state, SKEW, 5.0);
    assert_eq!(over, Some((Status::New, Trigger::Restored)));
    assert_eq!(report(&mut state, SKEW, 10.0), UP, "not reported yet");
    assert_eq!(report(&mut state, SKEW, 60.0), alerted(Cause::ClockSkew));
    assert_eq!(report(&mut state, None, 65.0), UP);
}

#[test]
fn what_was_silent_is_back_when_it_is_received_even_with_a_trouble_that_is_not_reported_yet() {
    let mut state = fresh();
    report(&mut state, None, 0.0);
    assert!(on_silence(&mut state, Cause::BeatDown, at(75.0), &[]).is_some());

    assert_eq!(report(&mut state, SKEW, 80.0), UP, "a report ends the silence");
    assert_eq!(
        report(&mut state, SKEW, 100.0),
        alerted(Cause::ClockSkew),
        "and the trouble must last for its own time"
    );
}

#[test]
fn a_silence_forgets_the_trouble_that_was_not_reported() {
    let mut state = fresh();
    report(&mut state, None, 0.0);
    report(&mut state, SKEW, 15.0);

    let silent = on_silence(&mut state, Cause::BeatDown, at(90.0), &[]).unwrap();

    assert_eq!(silent.trigger, Trigger::Trouble(Cause::BeatDown));
    assert_eq!((state.trouble, state.since), (None, None));
}

#[test]
fn what_falls_silent_while_its_trouble_is_reported_is_reported_as_that_with_the_next_judgement() {
    let mut state = fresh();
    report(&mut state, GHOST, 0.0);
    assert_eq!(on_silence(&mut state, Cause::BeatDown, at(74.0), &[]), None);

    let over = on_silence(&mut state, Cause::BeatDown, at(75.0), &[]).unwrap();
    assert_eq!((over.from, over.to), (Status::Down, Status::New));
    let silent = on_silence(&mut state, Cause::BeatDown, at(75.1), &[]).unwrap();

    assert_eq!(
        (silent.to, silent.trigger),
        (Status::Down, Trigger::Trouble(Cause::BeatDown))
    );
    assert_eq!(
        on_silence(&mut state, Cause::BeatDown, at(1e6), &[]),
        None,
        "once"
    );
    assert_eq!(report(&mut state, None, 200.0), UP);
}

#[test]
fn a_silence_that_is_excused_is_judged_later_and_never_earlier() {
    let mut state = fresh();
    report(&mut state, None, 0.0);

    hold(&mut state, at(70.0));
    assert_eq!(state.deadline_at, Some(at(75.0)));
    hold(&mut state, at(90.0));

    assert_eq!(on_silence(&mut state, Cause::BeatDown, at(89.0), &[]), None);
    assert!(on_silence(&mut state, Cause::BeatDown, at(90.0), &[]).is_some());
}
