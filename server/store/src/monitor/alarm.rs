//! Columns `alarm`, `streak`, `streak_since`, `opened_lately`, `flapping_since` and `calm_at` of table `monitor`.

use chrono::{DateTime, Utc};
use deadbeat_domain::monitor::alarm::{Alarm, Streak, Thresholds};
use deadbeat_domain::monitor::flapping::{Flapping, Flaps};

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

/// The columns about flapping, as the rules know them.
pub(super) fn flaps(
    openings: Option<Vec<DateTime<Utc>>>,
    since: Option<DateTime<Utc>>,
    calm_at: Option<DateTime<Utc>>,
) -> Flaps {
    Flaps {
        openings: openings.unwrap_or_default(),
        flapping: since
            .zip(calm_at)
            .map(|(since, calm_at)| Flapping { since, calm_at }),
    }
}

/// Column `opened_lately`, as PostgreSQL's text: an array of arrays would have to be rectangular. None: no incident opened.
pub(super) fn openings(flaps: &Flaps) -> Option<String> {
    let times: Vec<String> = flaps
        .openings
        .iter()
        .map(|at| format!("\"{}\"", at.to_rfc3339()))
        .collect();
    (!times.is_empty()).then(|| format!("{{{}}}", times.join(",")))
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
