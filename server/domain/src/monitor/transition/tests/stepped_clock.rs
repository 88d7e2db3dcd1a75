//! The clock steps back: missing reports are still noticed at once, and the step itself raises no alert.

use super::*;
use crate::monitor::transition::forget_times_to_come;
use crate::monitor::transition::silence::{Silence, on_silence};

const HOUR: f64 = 3_600.0;

#[test]
fn what_comes_often_is_expected_again_and_what_comes_once_a_day_is_not() {
    // The last report came at noon; then the clock shows eleven.
    for (schedule, due_at) in [
        (interval(60.0), Some(60.0 - HOUR)),
        (cron("* * * * *"), Some(60.0 - HOUR)),
        (cron("*/20 * * * *"), Some(1_200.0 - HOUR)),
        // Its noon is satisfied, or comes again by the right clock. So tomorrow's noon is expected.
        (cron("0 12 * * *"), Some(24.0 * HOUR)),
        (cron("0 * * * *"), Some(HOUR)),
    ] {
        let mut state = monitor(schedule.clone(), 30.0, None);
        ping(&mut state, PingKind::Success, 0.0);

        forget_times_to_come(&mut state, at(-HOUR));

        assert_eq!(state.next_due_at, due_at.map(at), "{schedule:?}");
        assert_eq!(
            state.deadline_at,
            due_at.map(|due| at(due + 30.0)),
            "{schedule:?}"
        );
        assert_eq!(state.last_ping_at, Some(at(-HOUR)));
        assert_eq!(state.last_success_at, Some(at(-HOUR)));
    }
}

#[test]
fn clocks_of_two_machines_that_differ_a_little_move_nothing() {
    let mut state = monitor(interval(60.0), 30.0, None);
    ping(&mut state, PingKind::Success, 2.0);
    let before = state.clone();

    forget_times_to_come(&mut state, at(0.0));

    assert_eq!(state, before);
}

#[test]
fn who_stopped_before_the_step_is_missed_one_period_and_grace_after_it() {
    let mut state = monitor(interval(60.0), 30.0, None);
    ping(&mut state, PingKind::Success, 0.0);

    assert_eq!(
        on_silence(&mut state, &Evidence::default(), at(-HOUR), &[]),
        Silence::NotYet
    );
    assert_eq!(
        on_silence(&mut state, &Evidence::default(), at(89.0 - HOUR), &[]),
        Silence::NotYet
    );

    let missed = on_silence(&mut state, &Evidence::default(), at(90.0 - HOUR), &[]);
    assert!(matches!(missed, Silence::Down { .. }));
}

#[test]
fn a_run_that_was_started_before_the_step_is_given_its_longest_time_from_the_step_on() {
    let mut state = monitor(interval(60.0), 30.0, Some(600.0));
    ping_of(&mut state, 1, PingKind::Start, 0.0);

    forget_times_to_come(&mut state, at(-HOUR));

    let run = state.runs.iter().find(|run| run.is_open()).unwrap();
    assert_eq!(run.deadline_at, Some(at(600.0 - HOUR)));
    assert_eq!(run.started_at, Some(at(-HOUR)));
}
