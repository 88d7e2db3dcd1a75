//! Columns `alarm`, `streak` and `streak_since` of table `monitor`.

use chrono::{DateTime, Utc};
use deadbeat_domain::monitor::alarm::{Alarm, Streak, Thresholds};

/// The columns as the rules know them. What a later version wrote counts as an incident that follows the status.
pub(super) fn read(kind: Option<&str>, runs: Option<i16>, since: Option<DateTime<Utc>>) -> Alarm {
    let streak = runs.zip(since).map(|(runs, since)| Streak {
        runs: runs.unsigned_abs(),
        since,
    });
    match (kind, streak) {
        (Some("member"), _) => Alarm::Member,
        (Some("bad"), Some(streak)) => Alarm::Bad(streak),
        (Some("good"), Some(streak)) => Alarm::Good(streak),
        _ => Alarm::Follows,
    }
}

/// Column `alarm`.
pub(super) fn kind(alarm: Alarm) -> Option<&'static str> {
    match alarm {
        Alarm::Follows => None,
        Alarm::Member => Some("member"),
        Alarm::Bad(_) => Some("bad"),
        Alarm::Good(_) => Some("good"),
    }
}

/// Columns `streak` and `streak_since`.
pub(super) fn streak(alarm: Alarm) -> Option<Streak> {
    match alarm {
        Alarm::Follows | Alarm::Member => None,
        Alarm::Bad(streak) | Alarm::Good(streak) => Some(streak),
    }
}

/// The thresholds as the rules know them.
pub(super) fn thresholds(failures: i16, recoveries: i16) -> Thresholds {
    Thresholds {
        failures: failures.unsigned_abs(),
        recoveries: recoveries.unsigned_abs(),
    }
}

/// A number of runs as the tables write it.
pub(super) fn small(runs: u16) -> i16 {
    i16::try_from(runs).unwrap_or(i16::MAX)
}
