//! Runs that are far shorter than usual.

use PingKind::Success;

use super::{hourly, receive, run_signal, trouble};
use crate::change::Trigger;
use crate::incident::cause::Cause;
use crate::monitor::baseline::Baseline;
use crate::monitor::transition::tests::*;

/// Twenty runs of ten seconds.
fn learned() -> Baseline {
    let mut baseline = Baseline::empty(true);
    for _ in 0..20 {
        assert!(!baseline.is_too_fast(seconds(10)));
    }
    baseline
}

fn took(run: u128, milliseconds: i64, at_seconds: f64) -> Signal {
    Signal {
        duration: Some(TimeDelta::milliseconds(milliseconds)),
        ..run_signal(run, Success, 1, at_seconds)
    }
}

#[test]
fn runs_that_are_far_too_fast_one_after_the_other_are_trouble_and_the_next_usual_one_its_end() {
    let mut state = hourly();
    state.baseline = Some(learned());
    for (run, hours) in [(1, 1.0), (2, 2.0)] {
        assert_eq!(receive(&mut state, &took(run, 999, hours * 3_600.0)), None);
        assert_eq!(state.status, Status::Up);
    }

    assert_eq!(
        receive(&mut state, &took(3, 999, 10_800.0)),
        Some(trouble(Cause::TooFast))
    );
    assert_eq!(
        (state.status, state.last_success_at),
        (Status::Down, Some(at(10_800.0)))
    );
    assert_eq!(
        receive(&mut state, &took(4, 1_000, 14_400.0)),
        Some(Trigger::Report),
        "a tenth is not less than a tenth"
    );
}

#[test]
fn further_runs_that_are_as_short_are_no_all_clear_until_they_are_the_new_usual() {
    let mut state = hourly();
    state.baseline = Some(learned());
    for run in 1..=5_u32 {
        receive(&mut state, &took(run.into(), 100, f64::from(run) * 3_600.0));
        let is_alerted = state.status == Status::Down;
        assert_eq!(is_alerted, run >= 3, "run {run}");
    }

    assert_eq!(
        receive(&mut state, &took(6, 100, 21_600.0)),
        Some(Trigger::Report)
    );
    assert_eq!(receive(&mut state, &took(7, 100, 25_200.0)), None);
    assert_eq!(state.status, Status::Up);
}

#[test]
fn what_nobody_learned_from_or_nobody_watches_is_never_too_fast() {
    let mut unlearned = hourly();
    for run in 1..=4_u32 {
        let at = f64::from(run) * 3_600.0;
        assert_eq!(receive(&mut unlearned, &took(run.into(), 0, at)), None);
    }

    for (status, retired) in [(Status::Paused, false), (Status::Up, true)] {
        let mut state = hourly();
        state.baseline = Some(learned());
        state.status = status;
        state.retired = retired;
        for run in 1..=4_u32 {
            let at = f64::from(run) * 3_600.0;
            assert_eq!(receive(&mut state, &took(run.into(), 0, at)), None, "{status:?}");
        }
    }
}
