//! The incarnations of a worker: the processes that have reported under one node name.
//!
//! An incarnation owns each run that it began. When the incarnation ends, its open runs are decided, even if another
//! process still runs under the same name. A name may have several live incarnations. Example: two pods with the same
//! `-n`.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::celery::worker::Phase;
use crate::judge::blind_spell::{BlindSpell, SDK_RETURN, fair_deadline, is_to_come};
use crate::limits::WORKER_INCARNATIONS;
use crate::time::span;

#[cfg(test)]
mod tests;

/// A worker counts as silent after two missed reports and at least this time, because a report may be delayed by some
/// seconds.
pub const LEAST_GAP: TimeDelta = TimeDelta::seconds(4);
/// A silence of this length is a gap. The SDK may keep reports of runs during a gap, and delivers them within
/// [`SDK_RETURN`] of its end.
const HOLDING_GAP: TimeDelta = TimeDelta::seconds(10);
/// After a worker signs off, the last reports of its runs may arrive for this long.
pub const END_SETTLES_AFTER: TimeDelta = TimeDelta::seconds(8);
/// An ended incarnation is judged again after this, because the report of a start may arrive late. Then it is
/// forgotten.
pub const LATE_STARTS: TimeDelta = TimeDelta::seconds(30);
/// The time within which a broker redelivers an unacknowledged message, unless it has a setting for that. RabbitMQ
/// redelivers as soon as the connection is closed.
pub const REDELIVERY: TimeDelta = TimeDelta::seconds(60);
/// The longest wait for a redelivery: the default visibility timeout of Redis, plus a minute.
pub const LONGEST_REDELIVERY: TimeDelta = TimeDelta::seconds(3_660);

/// How an incarnation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// It reported that it stopped.
    Stopped,
    /// A younger incarnation on the same host took its name, and this one has not reported since.
    Replaced,
    /// It has not reported for longer than its period plus its grace.
    Silent,
    /// Like [`End::Silent`], but its silence began in a blind spell.
    Unheard,
}

/// One process that reported under a node name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Its id. The SDK chooses it when the worker starts.
    pub id: Uuid,
    /// The host on which it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// When its first report came.
    pub first_seen_at: DateTime<Utc>,
    /// When its last report came.
    pub last_seen_at: DateTime<Utc>,
    /// How often it reports, in seconds.
    pub period_seconds: f64,
    /// Tolerated silence beyond the period, in seconds.
    pub grace_seconds: f64,
    /// When its last gap began and ended. The reports of its runs come within [`SDK_RETURN`] of the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// When and how it ended. None: it counts as alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<(DateTime<Utc>, End)>,
    /// Its runs were decided once. It is kept because starts may be reported late.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_decided: bool,
}

/// The facts that a snapshot carries about its incarnation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkerReport<'a> {
    /// Its id.
    pub id: Uuid,
    /// The host on which it runs.
    pub host: Option<&'a str>,
    /// How often it reports, in seconds.
    pub period_seconds: f64,
    /// Tolerated silence beyond the period, in seconds.
    pub grace_seconds: f64,
    /// Its phase: running, stopping or stopped.
    pub phase: Phase,
}

/// Incarnations whose open runs must be decided now, and how each ended.
pub type Ended = Vec<(Uuid, End)>;

impl Incarnation {
    /// A silence of this length is a gap: two missed reports.
    fn gap_after(&self) -> TimeDelta {
        (span(self.period_seconds) * 2).max(LEAST_GAP)
    }

    fn patience(&self) -> TimeDelta {
        span(self.period_seconds) + span(self.grace_seconds)
    }

    /// True if it counts as alive.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.ended.is_none()
    }

    /// When it counts as silent. Blind spells delay this.
    fn silent_at(&self, spells: &[BlindSpell]) -> DateTime<Utc> {
        let patience = self.patience();
        let deadline = self.last_seen_at + patience;
        fair_deadline(deadline, self.last_seen_at, patience.max(SDK_RETURN), spells)
    }

    /// True if its silence may have begun in a blind spell.
    fn is_unreceived(&self, spells: &[BlindSpell]) -> bool {
        is_silence_of_server(self.last_seen_at, self.gap_after(), spells)
    }
}

/// True if a silence may have begun in a blind spell: the first missing report was due in one.
#[must_use]
pub fn is_silence_of_server(last_seen_at: DateTime<Utc>, gap: TimeDelta, spells: &[BlindSpell]) -> bool {
    spells
        .iter()
        .any(|spell| last_seen_at + gap >= spell.started_at && last_seen_at <= spell.ended_at)
}

/// Applies a report of an incarnation. Returns true if another live incarnation has the same name. Then the end of this
/// incarnation is not the end of the name.
pub fn on_report(incarnations: &mut Vec<Incarnation>, report: &WorkerReport<'_>, now: DateTime<Utc>) -> bool {
    let known = incarnations.iter().position(|one| one.id == report.id);
    let place = known.unwrap_or_else(|| {
        make_room(incarnations);
        incarnations.push(Incarnation {
            id: report.id,
            host: report.host.map(str::to_owned),
            first_seen_at: now,
            last_seen_at: now,
            period_seconds: report.period_seconds,
            grace_seconds: report.grace_seconds,
            gap: None,
            ended: None,
            is_decided: false,
        });
        incarnations.len() - 1
    });
    let one = &mut incarnations[place];
    if now - one.last_seen_at >= one.gap_after().max(HOLDING_GAP) {
        one.gap = Some((one.last_seen_at, now));
    }
    // After the clock steps back, a stored future time would count as the newest.
    one.first_seen_at = one.first_seen_at.min(now);
    one.last_seen_at = now;
    one.period_seconds = report.period_seconds;
    one.grace_seconds = report.grace_seconds;
    one.ended = match (report.phase, one.ended) {
        (Phase::Stopped, Some((at, End::Stopped))) => Some((at, End::Stopped)),
        (Phase::Stopped, _) => Some((now, End::Stopped)),
        // It counted as ended, but lives.
        _ => None,
    };
    one.is_decided &= one.ended.is_some();
    incarnations
        .iter()
        .any(|other| other.id != report.id && other.is_live() && now - other.last_seen_at < other.gap_after())
}

/// Bounds the list: drops the incarnation that ended longest ago, else the one whose last report is oldest.
fn make_room(incarnations: &mut Vec<Incarnation>) {
    while incarnations.len() >= WORKER_INCARNATIONS {
        let oldest = incarnations
            .iter()
            .enumerate()
            .min_by_key(|(_, one)| (one.is_live(), one.last_seen_at))
            .map(|(place, _)| place);
        let Some(oldest) = oldest else { return };
        incarnations.remove(oldest);
    }
}

/// Finds the incarnations that have ended. Returns those whose open runs must be decided now.
pub fn end_silent(incarnations: &mut Vec<Incarnation>, now: DateTime<Utc>, spells: &[BlindSpell]) -> Ended {
    for place in 0..incarnations.len() {
        if !incarnations[place].is_live() {
            continue;
        }
        // The clock has stepped back since its last report.
        if is_to_come(incarnations[place].last_seen_at, now) {
            incarnations[place].last_seen_at = now;
        }
        let one = &incarnations[place];
        let end = if replaced_at(incarnations, place, spells).is_some_and(|at| at <= now) {
            Some(End::Replaced)
        } else if one.silent_at(spells) <= now {
            Some(if one.is_unreceived(spells) {
                End::Unheard
            } else {
                End::Silent
            })
        } else {
            None
        };
        if let Some(end) = end {
            incarnations[place].ended = Some((now, end));
        }
    }
    let mut decided = Ended::new();
    incarnations.retain_mut(|one| {
        let Some((at, end)) = one.ended else { return true };
        let is_last = now >= at + LATE_STARTS || is_to_come(at, now);
        let is_first = !one.is_decided && now >= settled_at(at, end);
        if is_last || is_first {
            one.is_decided = true;
            decided.push((one.id, end));
        }
        !is_last
    });
    decided
}

/// When its runs are decided.
fn settled_at(ended_at: DateTime<Utc>, end: End) -> DateTime<Utc> {
    match end {
        End::Stopped => ended_at + END_SETTLES_AFTER,
        End::Replaced | End::Silent | End::Unheard => ended_at,
    }
}

/// When an incarnation counts as replaced: a younger one reports from the same host, and this one has missed its
/// reports since then.
///
/// Two live workers with one name report alternately, so each reports after the other's first report. A younger
/// incarnation on another host proves nothing. Then only the silence of this one counts.
fn replaced_at(incarnations: &[Incarnation], place: usize, spells: &[BlindSpell]) -> Option<DateTime<Utc>> {
    let one = &incarnations[place];
    let host = one.host.as_deref()?;
    let younger = incarnations
        .iter()
        .filter(|other| other.host.as_deref() == Some(host) && other.first_seen_at > one.last_seen_at)
        .map(|other| other.first_seen_at)
        .min()?;
    let deadline = younger.max(one.last_seen_at + one.gap_after());
    Some(fair_deadline(deadline, one.last_seen_at, SDK_RETURN, spells))
}

/// When [`end_silent`] must be called next. None: there is nothing to wait for.
#[must_use]
pub fn next_judgement(incarnations: &[Incarnation], spells: &[BlindSpell]) -> Option<DateTime<Utc>> {
    let next = |(place, one): (usize, &Incarnation)| match one.ended {
        None => {
            let silent_at = one.silent_at(spells);
            replaced_at(incarnations, place, spells).map_or(silent_at, |at| at.min(silent_at))
        }
        Some((at, end)) if !one.is_decided => settled_at(at, end),
        Some((at, _)) => at + LATE_STARTS,
    };
    incarnations.iter().enumerate().map(next).min()
}

/// Until when the broker is expected to redeliver an unacknowledged message.
#[must_use]
pub fn redelivered_by(orphaned_at: DateTime<Utc>, visibility_timeout: Option<TimeDelta>) -> DateTime<Utc> {
    let timeout = visibility_timeout.map_or(REDELIVERY, |timeout| timeout + REDELIVERY);
    orphaned_at + timeout.min(LONGEST_REDELIVERY)
}
