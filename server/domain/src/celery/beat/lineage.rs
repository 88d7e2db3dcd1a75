//! Decides which schedule belongs to which processes if several processes report as one Beat.
//!
//! A lineage is a schedule and the processes that listed it, one after the other. A deployment continues a lineage. A
//! monitor belongs to the lineages that list its entry. So a list retires only entries that its own lineage listed
//! before. Example: many Django projects are called `config` or `core`. Two applications with one name are two
//! lineages, whose processes keep reporting side by side.
//!
//! A deployment with a changed schedule looks the same at first, until its old process stops reporting. Until then,
//! Deadbeat watches both lists.

use chrono::{DateTime, Utc};

use crate::celery::beat::BeatView;
use crate::celery::beat::incarnation::{Incarnation, OVERLAP_PATIENCE};
use crate::judge::blind_spell::BlindSpell;
use crate::monitor::status::Status;
use crate::time::span;

#[cfg(test)]
mod tests;

/// Number of lineages of one Beat: one for each bit of [`Bits`].
pub const LINEAGES: u8 = 8;

/// Lineages as bits; bit 0 is lineage 0.
pub type Bits = u8;

/// How many entries are listed by exactly these lineages. It leaves out the canary and Celery's own entries, which
/// every application has.
pub type Census = [(Bits, i64)];

/// A lineage as a bit. There are [`LINEAGES`].
#[must_use]
pub fn bit(lineage: u8) -> Bits {
    1u8.checked_shl(lineage.into()).unwrap_or(0)
}

/// The lineages of these incarnations.
fn bits<'a>(of: impl Iterator<Item = &'a Incarnation>) -> Bits {
    of.filter_map(|one| one.lineage)
        .map(bit)
        .fold(0, |all, one| all | one)
}

/// The lineages without a known process. Their bits in a monitor mean nothing.
#[must_use]
pub fn unknown(known: &[Incarnation]) -> Bits {
    !bits(known.iter())
}

/// The lineages with a living process.
#[must_use]
pub fn living(known: &[Incarnation], now: DateTime<Utc>, spells: &[BlindSpell]) -> Bits {
    bits(known.iter().filter(|one| one.lives(now, spells)))
}

/// The known lineages without a living process.
#[must_use]
pub fn silent(known: &[Incarnation], now: DateTime<Utc>, spells: &[BlindSpell]) -> Bits {
    bits(known.iter()) & !living(known, now, spells)
}

/// Puts the process `boot`, which lists `schedule`, into a lineage, and returns the lineage. None: all lineages belong
/// to other living processes.
///
/// The first of these that exists:
/// 1. its present lineage, if the living processes in it list the same schedule;
/// 2. the lineage of a living process that lists the same schedule;
/// 3. a silent lineage with the same schedule;
/// 4. the silent lineage that has most entries in common with its list. `common`: number of names of the list that each
///    lineage lists, greatest first;
/// 5. if no other process lives: the lineage that was last to become silent;
/// 6. a new lineage.
pub fn place(
    known: &mut [Incarnation],
    boot: uuid::Uuid,
    schedule: Option<&str>,
    common: &[(u8, i64)],
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Option<u8> {
    let lives = |one: &&Incarnation| one.boot != boot && one.lives(now, spells);
    let own = known.iter().find(|one| one.boot == boot)?.lineage;
    let is_same = |one: &&Incarnation| schedule.is_some() && one.schedule.as_deref() == schedule;
    let others = bits(known.iter().filter(lives));
    let stays = own.filter(|own| {
        let mut mates = known.iter().filter(lives).filter(|one| one.lineage == Some(*own));
        mates.all(|one| is_same(&one))
    });
    let free = |lineage: &u8| others & bit(*lineage) == 0;
    let found = stays
        .or_else(|| {
            known
                .iter()
                .filter(lives)
                .find(is_same)
                .and_then(|one| one.lineage)
        })
        .or_else(|| {
            let silent = || {
                known
                    .iter()
                    .filter(|one| one.boot != boot)
                    .filter(|one| one.lineage.as_ref().is_some_and(free))
            };
            let same = silent().find(is_same).and_then(|one| one.lineage);
            let known_of = |lineage: &u8| silent().any(|one| one.lineage == Some(*lineage));
            let akin = || {
                let mut akin = common
                    .iter()
                    .filter(|(lineage, count)| *count > 0 && known_of(lineage));
                akin.next().map(|(lineage, _)| *lineage)
            };
            let last = || silent().max_by_key(|one| one.seen_at).and_then(|one| one.lineage);
            same.or_else(akin)
                .or_else(|| if others == 0 { last() } else { None })
        })
        .or_else(|| {
            let taken = bits(known.iter().filter(|one| one.boot != boot));
            (0..LINEAGES).find(|lineage| taken & bit(*lineage) == 0)
        });
    let shares = known.iter().any(|one| one.lineage == found && one.shares);
    if let Some(one) = known.iter_mut().find(|one| one.boot == boot) {
        one.lineage = found;
        one.shares = found.is_some() && shares;
    }
    found
}

/// Marks the lineages that have run beside another one for longer than a deployment takes. Clears the mark of a lineage
/// that is the only one left.
pub fn mark_sharing(known: &mut [Incarnation], now: DateTime<Utc>, spells: &[BlindSpell]) {
    let all = bits(known.iter());
    if all.count_ones() < 2 {
        for one in known.iter_mut() {
            one.shares = false;
        }
        return;
    }
    let shared = bits(
        known
            .iter()
            .filter(|one| one.lives(now, spells) && side_by_side(known, one, now, spells).next().is_some()),
    );
    for one in known.iter_mut() {
        one.shares |= one.lineage.is_some_and(|lineage| shared & bit(lineage) != 0);
    }
}

/// The living processes of other lineages that have run beside this one for longer than a deployment takes.
fn side_by_side<'a>(
    known: &'a [Incarnation],
    one: &'a Incarnation,
    now: DateTime<Utc>,
    spells: &'a [BlindSpell],
) -> impl Iterator<Item = &'a Incarnation> {
    known.iter().filter(move |other| {
        one.lineage.is_some()
            && other.lineage.is_some()
            && other.lineage != one.lineage
            && other.lives(now, spells)
            && one.overlap(other) >= OVERLAP_PATIENCE
    })
}

/// The state of several lineages of one Beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Lineages with a living process.
    pub living: Bits,
    /// Lineages that run side by side and have few entries in common: applications with one name.
    pub sharing: Bits,
    /// Lineages that run side by side and list mostly the same entries: two releases of one application.
    pub releases: Bits,
    /// Lineages that are silent while an application with the same name still reports.
    pub lost: Bits,
    /// Lineages that another lineage has replaced. Entries that only they list are retired.
    pub replaced: Bits,
}

/// The state of a Beat's lineages. Empty while no process lives, because then the Beat itself is silent.
///
/// `is_alerted`: lineages that run side by side have an incident. Then two living lineages suffice, and a gap in the
/// reports of one lineage does not end the incident.
#[must_use]
pub fn standing(
    known: &[Incarnation],
    census: &Census,
    is_alerted: bool,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Standing {
    let living = living(known, now, spells);
    let mut standing = Standing {
        living,
        ..Standing::default()
    };
    if living == 0 {
        return standing;
    }
    let shares = |lineage: u8| known.iter().any(|one| one.lineage == Some(lineage) && one.shares);
    let silent = silent(known, now, spells);
    for lineage in (0..LINEAGES).filter(|lineage| silent & bit(*lineage) != 0) {
        if shares(lineage) && !is_release_of(census, bit(lineage), living) {
            standing.lost |= bit(lineage);
        } else {
            standing.replaced |= bit(lineage);
        }
    }
    let at_once = if is_alerted && living.count_ones() > 1 {
        living
    } else {
        let lives = known.iter().filter(|one| one.lives(now, spells));
        bits(lives.filter(|one| side_by_side(known, one, now, spells).next().is_some()))
    };
    for lineage in (0..LINEAGES).filter(|lineage| at_once & bit(*lineage) != 0) {
        let one = bit(lineage);
        if is_release_of(census, one, at_once & !one)
            || (0..LINEAGES)
                .map(bit)
                .any(|other| other & at_once & !one != 0 && is_release_of(census, other, one))
        {
            standing.releases |= one;
        } else {
            standing.sharing |= one;
        }
    }
    standing
}

/// True if one of the other lineages also lists at least half of the entries of `one`. Then it is another release of
/// the same application. A lineage without own entries counts as a release.
fn is_release_of(census: &Census, one: Bits, others: Bits) -> bool {
    let of = |matches: &dyn Fn(Bits) -> bool| -> i64 {
        census
            .iter()
            .filter(|(bits, _)| matches(*bits))
            .map(|(_, count)| count)
            .sum()
    };
    let all = of(&|bits| bits & one != 0);
    let common = of(&|bits| bits & one != 0 && bits & others != 0);
    2 * common >= all
}

/// Returns the Beat as the monitor of an entry sees it: only processes that list the entry send it. `is_alerted`: a silent
/// lineage among several has an incident.
#[must_use]
pub fn view(
    known: &[Incarnation],
    listed_by: Bits,
    whole: BeatView,
    is_alerted: bool,
    now: DateTime<Utc>,
) -> BeatView {
    let all = bits(known.iter());
    let is_silent = whole.status == Status::Down && whole.deadline_at.is_none();
    if is_silent || all.count_ones() < 2 || listed_by & all == 0 || listed_by & all == all {
        return whole;
    }
    let lists = |one: &&Incarnation| one.lineage.is_some_and(|lineage| listed_by & bit(lineage) != 0);
    let Some(last_seen_at) = known.iter().filter(lists).map(|one| one.seen_at).max() else {
        return whole;
    };
    let deadline = known.iter().filter(lists).map(|one| one.deadline(&[])).max();
    // The silence of these processes is noticed with the next report of another process.
    let next_report = known
        .iter()
        .filter(|one| !lists(one))
        .map(|one| span(one.period_seconds))
        .max();
    let is_lost = is_alerted && deadline.is_some_and(|deadline| deadline <= now);
    BeatView {
        status: if is_lost { Status::Down } else { Status::Up },
        last_seen_at: Some(last_seen_at),
        deadline_at: deadline
            .filter(|_| !is_lost)
            .zip(next_report)
            .map(|(deadline, next)| deadline + next),
        // Another process may have reported the hang.
        hung_at: None,
        ..whole
    }
}
