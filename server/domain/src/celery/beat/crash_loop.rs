//! A Beat that ends again and again without having been told to.
//!
//! A Beat that is told to end reports that it does: a deployment is no crash. One that ends without that report, and is started again, has crashed.
//! Where its schedule file is lost with it, as in a container, an interval that is longer than its life never comes to be due.

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::beat::incarnation::{Goodbye, Incarnation};
use crate::celery::beat::lineage::{Bits, bit};
use crate::celery::worker::incarnation::{LEAST_GAP, is_silence_unheard};
use crate::incident::cause::Cause;
use crate::judge::blind_spell::{BlindSpell, is_to_come};
use crate::time::span;

#[cfg(test)]
mod tests;

/// So many crashes one after the other are a loop, whatever is missed.
pub const CRASHES: usize = 3;
/// So many are one for an entry that each of them has put off.
pub const CRASHES_OF_PUT_OFF: usize = 2;
/// A crash that lies further back is not counted. A container is started again after five minutes at the latest.
const WITHIN: TimeDelta = TimeDelta::minutes(30);
/// A process that lived for longer than this was steady, whatever ended it.
const STEADY_AT_LAST: TimeDelta = TimeDelta::minutes(10);
/// A process is not steady before this.
const STEADY_AT_FIRST: TimeDelta = TimeDelta::seconds(60);
/// A process that lives for so many times as long as those that crashed is steady.
const STEADY_TIMES: i32 = 3;
/// After a crash it is not known yet for so long whether it was one of many.
const DOUBT: TimeDelta = TimeDelta::seconds(60);

/// How a Beat goes on from one start to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Course {
    /// How often it has crashed until now, one time after the other.
    pub crashes: usize,
    /// Until then another crash may come to be known. None: it has not crashed.
    pub doubt_until: Option<DateTime<Utc>>,
}

impl Course {
    /// The course that these crashes are.
    #[must_use]
    pub fn of(crashes: &[&Incarnation]) -> Self {
        Self {
            crashes: crashes.len(),
            doubt_until: crashes.last().map(|one| one.seen_at + DOUBT.max(gap(one) * 2)),
        }
    }

    /// Whether it crashes in a loop.
    #[must_use]
    pub fn loops(&self) -> bool {
        self.crashes >= CRASHES
    }
}

/// The processes that have crashed one after the other until now, in the order of their starts: of those that list for these lineages, or that
/// have not listed anything. Empty once one of them lives for long enough, or was told to end.
///
/// `is_told`: that they crash is told. Then it is over once one lives for long enough: an attempt to mend it by a restart is no end.
#[must_use]
pub fn crashes<'a>(
    known: &'a [Incarnation],
    lineages: Bits,
    is_told: bool,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Vec<&'a Incarnation> {
    let is_of = |one: &&Incarnation| one.lineage.is_none_or(|lineage| lineages & bit(lineage) != 0);
    let mut akin: Vec<&Incarnation> = known.iter().filter(is_of).collect();
    akin.sort_by_key(|one| (one.began_at(), one.boot));
    let mut row: Vec<&Incarnation> = Vec::new();
    for one in &akin {
        let is_steady = one.life() >= steady_after(&row);
        let is_told_to_end = !one.says_goodbye || one.goodbye == Some(Goodbye::Stopped);
        if is_steady || (is_told_to_end && !is_told) {
            row.clear();
        }
        if !is_steady && has_crashed(one, &akin, now, spells) {
            row.push(one);
        }
    }
    // Another one of it goes on, and sends what is due.
    let goes_on = |one: &&Incarnation| {
        one.goodbye.is_none() && now - one.seen_at < gap(one) && one.life() >= steady_after(&row)
    };
    if akin.iter().any(goes_on) {
        row.clear();
    }
    row
}

/// What the silence of a Beat comes to, whose processes crashed so often one after the other until now.
#[must_use]
pub fn silence(cause: Cause, crashes: usize) -> Cause {
    if cause == Cause::BeatDown && crashes >= CRASHES {
        Cause::BeatCrashLoop
    } else {
        cause
    }
}

/// The longest such row of any lineage.
#[must_use]
pub fn longest<'a>(
    known: &'a [Incarnation],
    is_told: bool,
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
        .map(|one| crashes(known, one, is_told, now, spells));
    rows.max_by_key(Vec::len).unwrap_or_default()
}

/// Missed reports: a silence of this length is a gap.
fn gap(one: &Incarnation) -> TimeDelta {
    (span(one.period_seconds) * 2).max(LEAST_GAP)
}

/// For how long a process must live to be steady after these crashes.
fn steady_after(crashes: &[&Incarnation]) -> TimeDelta {
    let mut lives: Vec<TimeDelta> = crashes.iter().map(|one| one.life()).collect();
    lives.sort_unstable();
    lives.get(lives.len() / 2).map_or(STEADY_AT_LAST, |usual| {
        (*usual * STEADY_TIMES).clamp(STEADY_AT_FIRST, STEADY_AT_LAST)
    })
}

/// Whether a process ended by an error, or without a word: it is silent, and another one has started since. One that is only silent may hang.
fn has_crashed(one: &Incarnation, akin: &[&Incarnation], now: DateTime<Utc>, spells: &[BlindSpell]) -> bool {
    let is_young = now - one.seen_at <= WITHIN && !is_to_come(one.seen_at, now);
    match one.goodbye {
        _ if !one.says_goodbye || !is_young => false,
        Some(Goodbye::Failed(_)) => true,
        Some(Goodbye::Stopped) => false,
        // Its goodbye may have been said to nobody.
        None if is_silence_unheard(one.seen_at, gap(one), spells) => false,
        None => now - one.seen_at >= gap(one) && akin.iter().any(|other| other.began_at() > one.seen_at),
    }
}
