//! The processes that report as one Beat. An incarnation is one such process, from its start to its end. A random boot
//! id identifies it.
//!
//! Celery allows one Beat per application. A second Beat sends everything twice. Both report under the application's
//! name, so each would hide the other. The boot id distinguishes them: a process that reports at two instants lived in
//! between. The rules compare the times at which the processes made their reports. So a report that arrives late, twice
//! or out of order proves nothing new.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::judge::blind_spell::{BlindSpell, SDK_RETURN, fair_deadline, is_to_come};
use crate::time::span;

#[cfg(test)]
mod tests;

/// Two Beats must report side by side for this long before that is a fault. A rolling deployment starts the new process
/// before it ends the old one, and health checks may keep both for a minute.
pub const OVERLAP_PATIENCE: TimeDelta = TimeDelta::minutes(2);
/// Number of incarnations that one Beat remembers. A holder of a ping key can invent boot ids, so the incarnation that
/// has been silent longest is dropped first.
pub const REMEMBERED: usize = 16;
/// A silent incarnation is forgotten after this.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::hours(1);
/// If an incarnation is silent for more than three periods plus this, its life has a gap. Example: a process that was
/// stopped and continued (SIGSTOP, SIGCONT) sent nothing in between.
const GAP: TimeDelta = TimeDelta::seconds(5);

/// The way in which a process reports its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReport {
    /// It was ordered to stop.
    Stopped,
    /// It ends by an error, of this class.
    Failed(Option<String>),
}

/// One process that reports as a Beat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Its boot id: random, one for each start.
    pub boot: Uuid,
    /// The host on which it runs.
    pub host: Option<String>,
    /// Its process id.
    pub pid: Option<i64>,
    /// When it started, by the server's clock.
    pub started_at: Option<DateTime<Utc>>,
    /// A digest of its schedule, without the canary. None: it has not listed one, or the list is empty.
    pub schedule: Option<String>,
    /// The lineage that its list continues ([`crate::celery::beat::lineage`]). None: it has not listed anything.
    #[serde(default)]
    pub lineage: Option<u8>,
    /// Its lineage has run beside another one for longer than a deployment takes.
    #[serde(default)]
    pub shares: bool,
    /// The id of its newest list, to which the monitors are being adapted. Each list gets a new id.
    #[serde(default)]
    pub sync: Option<Uuid>,
    /// Since when it has reported without a gap.
    pub since: DateTime<Utc>,
    /// When it made its last report.
    pub seen_at: DateTime<Utc>,
    /// How often it reports, in seconds.
    pub period_seconds: f64,
    /// Tolerated silence beyond the period, in seconds.
    pub grace_seconds: f64,
    /// It reports an ordered end. False: its SDK is too old for that.
    #[serde(default)]
    pub says_goodbye: bool,
    /// How it reported its end. None: it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodbye: Option<EndReport>,
}

/// The facts that a report carries about its incarnation.
#[derive(Debug, Clone, PartialEq)]
pub struct BeatReport {
    /// Its boot id.
    pub boot: Uuid,
    /// The host on which it runs. None: the known value stays.
    pub host: Option<String>,
    /// Its process id. None: the known value stays.
    pub pid: Option<i64>,
    /// When it started, by the server's clock. None: the known value stays.
    pub started_at: Option<DateTime<Utc>>,
    /// How often it reports, in seconds.
    pub period_seconds: f64,
    /// Tolerated silence beyond the period, in seconds.
    pub grace_seconds: f64,
    /// Whether it reports an ordered end. None: the known value stays.
    pub says_goodbye: Option<bool>,
    /// How the process ends. None: it does not end.
    pub goodbye: Option<EndReport>,
}

impl Incarnation {
    /// When it started, or, if that is not known, when its first report came.
    #[must_use]
    pub fn began_at(&self) -> DateTime<Utc> {
        self.started_at.unwrap_or(self.since)
    }

    /// For how long it has lived, by its reports.
    #[must_use]
    pub fn life(&self) -> TimeDelta {
        self.seen_at - self.began_at()
    }

    fn patience(&self) -> TimeDelta {
        span(self.period_seconds) + span(self.grace_seconds)
    }

    /// Until when its silence is tolerated. Blind spells extend this.
    #[must_use]
    pub fn deadline(&self, spells: &[BlindSpell]) -> DateTime<Utc> {
        let patience = self.patience();
        fair_deadline(
            self.seen_at + patience,
            self.seen_at,
            patience.max(SDK_RETURN),
            spells,
        )
    }

    /// True if it still reports.
    #[must_use]
    pub fn lives(&self, now: DateTime<Utc>, spells: &[BlindSpell]) -> bool {
        now < self.deadline(spells)
    }

    /// For how long both incarnations have reported without a gap.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> TimeDelta {
        self.seen_at.min(other.seen_at) - self.since.max(other.since)
    }

    fn update(&mut self, report: BeatReport, seen_at: DateTime<Utc>) {
        let gap = span(3.0 * self.period_seconds) + GAP;
        if seen_at - self.seen_at > gap {
            self.since = seen_at;
        }
        self.seen_at = seen_at;
        self.host = report.host.or(self.host.take());
        self.pid = report.pid.or(self.pid);
        self.started_at = report.started_at.or(self.started_at);
        self.period_seconds = report.period_seconds;
        self.grace_seconds = report.grace_seconds;
        self.says_goodbye = report.says_goodbye.unwrap_or(self.says_goodbye);
        self.goodbye = report.goodbye;
    }
}

/// Applies a report that an incarnation made at `seen_at`, and that arrived at `now`.
pub fn on_report(
    known: &mut Vec<Incarnation>,
    report: BeatReport,
    seen_at: DateTime<Utc>,
    now: DateTime<Utc>,
) {
    // After the clock steps back, clamp stored future times. Otherwise a future time would count as the newest until
    // the clock passes it.
    for one in known.iter_mut() {
        if is_to_come(one.seen_at, now) {
            one.seen_at = now;
            one.since = one.since.min(now);
        }
    }
    let last = last_of_lineages(known);
    known.retain(|one| {
        one.boot == report.boot || last.contains(&one.boot) || now - one.seen_at < FORGOTTEN_AFTER
    });
    if let Some(one) = known.iter_mut().find(|one| one.boot == report.boot) {
        // A report that a later one has overtaken proves nothing new. A report of the end counts even at the same time.
        if seen_at > one.seen_at || (seen_at == one.seen_at && report.goodbye.is_some()) {
            one.update(report, seen_at);
        }
        return;
    }
    if known.len() >= REMEMBERED {
        let may_go = |one: &Incarnation| !last.contains(&one.boot);
        let longest_silent = known
            .iter()
            .enumerate()
            .filter(|(_, one)| may_go(one))
            .min_by_key(|(_, one)| one.seen_at);
        if let Some((place, _)) = longest_silent {
            known.remove(place);
        }
    }
    known.push(Incarnation {
        boot: report.boot,
        host: report.host,
        pid: report.pid,
        started_at: report.started_at,
        schedule: None,
        lineage: None,
        shares: false,
        sync: None,
        since: seen_at,
        seen_at,
        period_seconds: report.period_seconds,
        grace_seconds: report.grace_seconds,
        says_goodbye: report.says_goodbye.unwrap_or(false),
        goodbye: report.goodbye,
    });
}

/// The newest process of each lineage. It must be kept, because its state decides about the lineage's monitors. There
/// are fewer than [`REMEMBERED`].
fn last_of_lineages(known: &[Incarnation]) -> Vec<Uuid> {
    let is_last = |one: &Incarnation| {
        let mates = known.iter().filter(|other| other.lineage == one.lineage);
        one.lineage.is_some()
            && mates.map(|other| (other.seen_at, other.boot)).max() == Some((one.seen_at, one.boot))
    };
    known
        .iter()
        .filter(|one| is_last(one))
        .map(|one| one.boot)
        .collect()
}

/// Stores the schedule that an incarnation lists.
pub fn on_list(known: &mut [Incarnation], boot: Uuid, schedule: Option<String>) {
    if let Some(one) = known.iter_mut().find(|one| one.boot == boot) {
        one.schedule = schedule;
    }
}

/// The incarnations that run at the same time as another one with the same schedule, sorted by their start.
///
/// `is_alerted`: the duplicate has an incident. The incident then lasts while two of them live, and a gap in the reports
/// of one does not end it.
#[must_use]
pub fn duplicates<'a>(
    known: &'a [Incarnation],
    is_alerted: bool,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Vec<&'a Incarnation> {
    let live: Vec<&Incarnation> = known.iter().filter(|one| one.lives(now, spells)).collect();
    let is_beside = |one: &Incarnation, other: &Incarnation| {
        one.boot != other.boot
            && one.schedule.is_some()
            && one.schedule == other.schedule
            && (is_alerted || one.overlap(other) >= OVERLAP_PATIENCE)
    };
    let mut found: Vec<&Incarnation> = live
        .iter()
        .copied()
        .filter(|one| live.iter().any(|other| is_beside(one, other)))
        .collect();
    found.sort_by_key(|one| (one.started_at.unwrap_or(one.since), one.boot));
    found
}
