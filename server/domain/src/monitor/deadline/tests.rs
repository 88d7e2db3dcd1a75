//! Deadlines as tables.

use super::*;
use crate::monitor::Expectation;
use crate::monitor::ping::PingKind::{Start, Success};
use crate::monitor::transition::on_settings_change;
use crate::monitor::transition::tests::{at, cron, entry, interval, is_armed, monitor, ping, ping_of};

#[test]
fn without_a_longest_run_the_deadline_is_healthchecks() {
    // min(due, start) + grace; the due is 60 after the last success at 0, the grace 30: (start, deadline)
    for (start, deadline) in [
        (None, 90.0),
        (Some(10.0), 40.0),
        (Some(59.0), 89.0),
        (Some(70.0), 90.0),
    ] {
        for run in [None, Some(3)] {
            let mut state = monitor(interval(60.0), 30.0, None);
            ping(&mut state, Success, 0.0);
            match (start, run) {
                (Some(start), None) => drop(ping(&mut state, Start, start)),
                (Some(start), Some(run)) => drop(ping_of(&mut state, run, Start, start)),
                (None, _) => {}
            }
            assert_eq!(
                state.deadline_at,
                Some(at(deadline)),
                "start {start:?}, run id {run:?}"
            );
        }
    }
}

#[test]
fn a_success_credits_its_arrival_without_a_longest_run_and_its_start_with_one() {
    // Every ten minutes; the run of 12:10 ends at 12:25.
    for (longest, due, deadline) in [(None, 1_800.0, 1_860.0), (Some(3_600.0), 1_200.0, 1_800.0)] {
        let mut state = monitor(
            cron("*/10 * * * *"),
            if longest.is_some() { 600.0 } else { 60.0 },
            longest,
        );
        ping(&mut state, Success, 0.0);
        ping_of(&mut state, 1, Start, 601.0);
        ping_of(&mut state, 1, Success, 1_500.0);
        assert_eq!(
            (state.next_due_at, state.deadline_at),
            (Some(at(due)), Some(at(deadline))),
            "longest {longest:?}"
        );
    }
}

#[test]
fn each_open_run_is_bound_alone() {
    let mut state = monitor(cron("0 * * * *"), 300.0, Some(1_000.0));
    ping(&mut state, Success, 0.0);

    ping_of(&mut state, 1, Start, 10.0);
    ping_of(&mut state, 2, Start, 500.0);
    assert_eq!(state.deadline_at, Some(at(1_010.0)));
    ping_of(&mut state, 1, Success, 900.0);
    assert_eq!(state.deadline_at, Some(at(1_500.0)), "the second run remains");
    ping_of(&mut state, 2, Success, 1_000.0);
    assert_eq!(state.deadline_at, Some(at(3_900.0)), "then the slot of 13:00");
}

#[test]
fn only_what_is_armed_has_a_deadline() {
    for status in [Status::New, Status::Up, Status::Down, Status::Paused] {
        for by_beat in [false, true] {
            for started in [false, true] {
                let mut state = entry(interval(60.0), 30.0, None);
                state.by_beat = by_beat;
                if started {
                    ping(&mut state, Start, 1.0);
                }
                state.status = status;
                assert_eq!(
                    deadline(&state).is_some(),
                    is_armed(&state),
                    "{status:?} {by_beat} {started}"
                );
            }
        }
    }
}

#[test]
fn a_run_with_a_countdown_is_waited_for_that_much_longer_and_satisfies_its_own_slot() {
    // Every five seconds, with a countdown of 8 s and 4 s of grace: (report, due, deadline)
    let mut state = entry(cron("*/5 * * * * *"), 4.0, Some(600.0));
    let with_delay = Expectation {
        delay_seconds: 8.0,
        ..state.expectation.clone()
    };
    on_settings_change(&mut state, with_delay, at(0.0));
    assert_eq!(
        (state.next_due_at, state.deadline_at),
        (Some(at(5.0)), Some(at(17.0)))
    );
    for (start, due, deadline) in [
        (13.0, 10.0, 22.0),
        // The slots up to 20 have come, and have no report yet.
        (18.1, 15.0, 27.0),
        // The next run does not hide a lost run: both slots need a report, and this report belongs to 12:00:20.
        (28.0, 25.0, 37.0),
    ] {
        ping_of(&mut state, start as u128, Start, start);
        assert_eq!(
            (state.next_due_at, state.deadline_at),
            (Some(at(due)), Some(at(deadline))),
            "a run that starts at {start}"
        );
    }
}
