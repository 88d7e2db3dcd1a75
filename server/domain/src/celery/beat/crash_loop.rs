//! Detects a Beat whose processes crash again and again.
//!
//! A Beat that is ordered to stop reports that, so a deployment is no crash. A Beat that ends without such a report,
//! and is started again, has crashed. If its schedule file is lost at each crash, as in a container, an interval that
//! is longer than the process's life never becomes due.

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::beat::incarnation::{EndReport, Incarnation};
use crate::celery::beat::lineage::{Bits, bit};
use crate::celery::worker::incarnation::{LEAST_GAP, is_silence_of_server};
use crate::incident::cause::Cause;
use crate::judge::blind_spell::{BlindSpell, is_to_come};
use crate::time::span;

#[cfg(test)]
mod tests;

/// This many crashes in a row are a crash loop, whichever entries are missing.
pub const CRASHES: usize = 3;
/// This many crashes in a row are a crash loop for an entry that each of them has put off.
pub const CRASHES_OF_PUT_OFF: usize = 2;
/// Crashes older than this do not count. A restart of a container is delayed by five minutes at most.
const WITHIN: TimeDelta = TimeDelta::minutes(30);
/// A process that lived for longer than this was steady, even if it crashed.
const STEADY_AT_LAST: TimeDelta = TimeDelta::minutes(10);
/// A process is never steady before this age.
const STEADY_AT_FIRST: TimeDelta = TimeDelta::seconds(60);
/// A process is steady if it lives this many times as long as the processes that crashed.
const STEADY_TIMES: i32 = 3;
/// After a crash, wait this long to see whether another one follows.
const DOUBT: TimeDelta = TimeDelta::seconds(60);

/// How the processes of a Beat follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Course {
    /// Crashes in a row until now.
    pub crashes: usize,
    /// Until when another crash may become known. None: it has not crashed.
    pub doubt_until: Option<DateTime<Utc>>,
}

impl Course {
    /// The course after these crashes.
    #[must_use]
    pub fn of(crashes: &[&Incarnation]) -> Self {
        Self {
            crashes: crashes.len(),
            doubt_until: crashes.last().map(|one| one.seen_at + DOUBT.max(gap(one) * 2)),
        }
    }

    /// True if it is in a crash loop.
    #[must_use]
    pub fn loops(&self) -> bool {
        self.crashes >= CRASHES
    }
}

/// The processes that have crashed in a row until now, in the order of their starts. Counts processes of these
/// lineages, and those that have not listed a schedule. Empty once a process lives long enough, or was ordered to stop.
///
/// `is_alerted`: the crash loop has an incident. Then only a process that lives long enough ends the crash loop. A restart
/// by hand is an attempt to repair it, and does not end it.
#[must_use]
pub fn crashes<'a>(
    known: &'a [Incarnation],
    lineages: Bits,
    is_alerted: bool,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Vec<&'a Incarnation> {
    let is_of = |one: &&Incarnation| one.lineage.is_none_or(|lineage| lineages & bit(lineage) != 0);
    let mut akin: Vec<&Incarnation> = known.iter().filter(is_of).collect();
    akin.sort_by_key(|one| (one.began_at(), one.boot));
    let mut row: Vec<&Incarnation> = Vec::new();
    for one in &akin {
        let is_steady = one.life() >= steady_after(&row);
        let reports_an_ordered_end = !one.says_goodbye || one.goodbye == Some(EndReport::Stopped);
        if is_steady || (reports_an_ordered_end && !is_alerted) {
            row.clear();
        }
        if !is_steady && has_crashed(one, &akin, now, spells) {
            row.push(one);
        }
    }
    // Another process of the lineage lives on, and sends the due entries.
    let goes_on = |one: &&Incarnation| {
        one.goodbye.is_none() && now - one.seen_at < gap(one) && one.life() >= steady_after(&row)
    };
    if akin.iter().any(goes_on) {
        row.clear();
    }
    row
}

/// The cause of a Beat's silence, if its processes crashed this often in a row.
#[must_use]
pub fn silence(cause: Cause, crashes: usize) -> Cause {
    if cause == Cause::BeatDown && crashes >= CRASHES {
        Cause::BeatCrashLoop
    } else {
        cause
    }
}

/// The longest sequence of crashes of any lineage.
#[must_use]
pub fn longest<'a>(
    known: &'a [Incarnation],
    is_alerted: bool,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Vec<&'a Incarnation> {
    let mut each: Vec<Bits> = known.iter().filter_map(|one| one.lineage.map(bit)).collect();
    each.sort_unstable();
    each.dedup();
    if each.is_empty() {
        each.push(Bits::MAX);
    }
    let rows = each
        .into_iter()
        .map(|one| crashes(known, one, is_alerted, now, spells));
    rows.max_by_key(Vec::len).unwrap_or_default()
}

/// A silence of this length is a gap: two missed reports.
fn gap(one: &Incarnation) -> TimeDelta {
    (span(one.period_seconds) * 2).max(LEAST_GAP)
}

/// How long a process must live to be steady after these crashes.
fn steady_after(crashes: &[&Incarnation]) -> TimeDelta {
    let mut lives: Vec<TimeDelta> = crashes.iter().map(|one| one.life()).collect();
    lives.sort_unstable();
    lives.get(lives.len() / 2).map_or(STEADY_AT_LAST, |usual| {
        (*usual * STEADY_TIMES).clamp(STEADY_AT_FIRST, STEADY_AT_LAST)
    })
}

/// True if a process ended by an error or without a report: it is silent, and another process has started since then. A
/// process that is only silent may hang.
fn has_crashed(one: &Incarnation, akin: &[&Incarnation], now: DateTime<Utc>, spells: &[BlindSpell]) -> bool {
    let is_young = now - one.seen_at <= WITHIN && !is_to_come(one.seen_at, now);
    match one.goodbye {
        _ if !one.says_goodbye || !is_young => false,
        Some(EndReport::Failed(_)) => true,
        Some(EndReport::Stopped) => false,
        // It may have signed off while no process of Deadbeat listened.
        None if is_silence_of_server(one.seen_at, gap(one), spells) => false,
        None => now - one.seen_at >= gap(one) && akin.iter().any(|other| other.began_at() > one.seen_at),
    }
}
