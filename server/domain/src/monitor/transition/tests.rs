//! Truth tables of the state machine, and builders that the other tests of the rules share.

mod healthy;
mod orders;
mod replayed;
mod runs;
mod silence;
mod stepped_clock;
mod table;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

pub(crate) use crate::celery::blame::Evidence;
use crate::monitor::alarm::Alarm;
use crate::monitor::ping::{PingKind, Signal, SignalDetail, Source};
use crate::monitor::status::Status;
use crate::monitor::{Expectation, MonitorState};
use crate::schedule::Schedule;

use super::{PingEffect, on_ping};

/// Seconds after a Thursday noon: 2026-01-15T12:00:00Z.
pub(crate) fn at(seconds: f64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_768_478_400, 0).unwrap() + crate::time::span(seconds)
}

pub(crate) fn seconds(count: i64) -> TimeDelta {
    TimeDelta::seconds(count)
}

pub(crate) fn interval(seconds: f64) -> Schedule {
    Schedule::interval(seconds).unwrap()
}

pub(crate) fn cron(expression: &str) -> Schedule {
    Schedule::cron(expression, "UTC").unwrap()
}

pub(crate) fn expectation(schedule: Schedule, grace_seconds: f64, longest: Option<f64>) -> Expectation {
    Expectation {
        schedule,
        delay_seconds: 0.0,
        grace_seconds,
        longest_run_seconds: longest,
    }
}

/// A monitor of a person, created at noon.
pub(crate) fn monitor(schedule: Schedule, grace_seconds: f64, longest: Option<f64>) -> MonitorState {
    MonitorState::fresh(expectation(schedule, grace_seconds, longest), false, at(0.0))
}

/// A monitor that a Beat registered at noon.
pub(crate) fn entry(schedule: Schedule, grace_seconds: f64, longest: Option<f64>) -> MonitorState {
    MonitorState::fresh(expectation(schedule, grace_seconds, longest), true, at(0.0))
}

pub(crate) fn signal(kind: PingKind, at: DateTime<Utc>) -> Signal {
    Signal {
        kind,
        received_at: at,
        occurred_at: at,
        run_id: None,
        exit_code: None,
        duration: None,
        source: Source::Http,
        detail: SignalDetail::default(),
        is_replayed: false,
    }
}

pub(crate) fn signal_of(run: u128, kind: PingKind, at: DateTime<Utc>) -> Signal {
    Signal {
        run_id: Some(Uuid::from_u128(run)),
        ..signal(kind, at)
    }
}

pub(crate) fn ping(state: &mut MonitorState, kind: PingKind, seconds: f64) -> PingEffect {
    on_ping(state, &signal(kind, at(seconds)))
}

pub(crate) fn ping_of(state: &mut MonitorState, run: u128, kind: PingKind, seconds: f64) -> PingEffect {
    on_ping(state, &signal_of(run, kind, at(seconds)))
}

/// True if the monitor is armed: it expects a report that can be late.
pub(crate) fn is_armed(state: &MonitorState) -> bool {
    let expects_slot = match (state.status, state.alarm) {
        (Status::Up, _) | (Status::Down, Alarm::Bad(_)) => true,
        (Status::New, _) => state.by_beat,
        (Status::Down | Status::Paused, _) => return false,
    };
    (expects_slot && state.next_due_at.is_some()) || state.open_runs() > 0
}
