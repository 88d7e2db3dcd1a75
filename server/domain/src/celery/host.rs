//! A host: the machine on which Beats and workers run. When nothing on it reports any more, that is one fault, and not one of each of them.
//!
//! Nobody looks at a host. That it is lost is concluded from the silence of all that reported from it, which must have begun at one time.

pub mod load;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::celery::worker::SKEW;
use crate::celery::worker::incarnation::LEAST_GAP;
use crate::judge::blind_spell::{BlindSpell, SDK_RETURN, fair_deadline};

#[cfg(test)]
mod tests;

/// A report may be this long on its way.
const ON_ITS_WAY: TimeDelta = TimeDelta::seconds(2);
/// A part whose deadline has passed waits this long for those of its host that report seldom: it must be told in time. When they are silent, too,
/// its incident becomes the host's.
pub const PATIENCE: TimeDelta = TimeDelta::seconds(3);
/// What runs on a host that is seen to work is not judged for this long: its line to this server is cut.
pub const LONGEST_HOLD: TimeDelta = TimeDelta::minutes(15);
/// What Beat sent shows for this long that its host works.
const WORKS_FOR: TimeDelta = TimeDelta::minutes(5);
/// A part of a lost host has reported again for this long, from the same start of the machine: the host is not lost. What is cut off comes
/// back together, and Beat may report seldom.
pub const BACK_FOR: TimeDelta = TimeDelta::seconds(60);

/// A Beat or a worker, as its host's verdict needs it. One that left, or that says that it hangs or fails, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its id.
    pub id: Uuid,
    /// When its last report came, whatever that said.
    pub heard_at: DateTime<Utc>,
    /// How often it reports.
    pub period: TimeDelta,
    /// Tolerated silence beyond that.
    pub grace: TimeDelta,
    /// Within this its process fell silent and reported again: the last such stretch, as far as is known.
    pub gap: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Part {
    /// It died before this, unless it reports.
    fn died_by(&self) -> DateTime<Utc> {
        self.heard_at + self.period + ON_ITS_WAY
    }

    /// When it is back, if it was silent together with that other one: its host was cut off, and the other one has as long to return.
    fn back_with(&self, other: &Self) -> Option<DateTime<Utc>> {
        let (_, to) = self
            .gap
            .filter(|(from, to)| *from <= other.died_by() && *to > other.heard_at)?;
        Some(to + SDK_RETURN)
    }

    /// When it is overdue. What we could not hear is excused.
    fn overdue_at(&self, spells: &[BlindSpell]) -> DateTime<Utc> {
        let silence = self.period + self.grace;
        fair_deadline(
            self.heard_at + silence,
            self.heard_at,
            silence.max(SDK_RETURN),
            spells,
        )
    }

    /// When it has missed two reports. What we could not hear is excused.
    fn late_at(&self, spells: &[BlindSpell]) -> DateTime<Utc> {
        let gap = (self.period * 2).max(LEAST_GAP);
        fair_deadline(self.heard_at + gap, self.heard_at, gap.max(SDK_RETURN), spells)
    }
}

/// What a Beat sent after this shows that it lives although it is silent: clocks may be off by what is not told, and what it sent long ago says
/// nothing of now.
#[must_use]
pub fn works_after(beat: &Part, now: DateTime<Utc>) -> DateTime<Utc> {
    (beat.died_by() + SKEW).max(now - WORKS_FOR)
}

/// What the silence of a part comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is its own: others of its host go on, or there are none.
    Own,
    /// Whether the others of its host are silent, too, is known then.
    Wait(DateTime<Utc>),
    /// Nothing of its host reports any more: these have fallen silent at one time, this one among them.
    Lost(Vec<Uuid>),
}

/// Judges the silence of a part, which is overdue. `others` reported from the same machine, in the same start of it, and have not left.
#[must_use]
pub fn judge(part: &Part, others: &[Part], now: DateTime<Utc>, spells: &[BlindSpell]) -> Verdict {
    let mut silent = vec![part.id];
    let mut known_at = None;
    let mut back_by = None;
    let mut goes_on = false;
    for other in others.iter().filter(|other| other.id != part.id) {
        if other.heard_at > part.died_by() {
            let Some(at) = other.back_with(part) else {
                return Verdict::Own;
            };
            goes_on = true;
            back_by = back_by.max(Some(at));
            continue;
        }
        // It was silent before: another fault.
        if other.died_by() < part.heard_at {
            continue;
        }
        let late_at = other.late_at(spells);
        if late_at > now {
            known_at = known_at.max(Some(late_at));
        }
        silent.push(other.id);
    }
    if goes_on {
        let back_by = back_by.filter(|at| *at > now);
        return back_by.map_or(Verdict::Own, Verdict::Wait);
    }
    let patience_ends = part.overdue_at(spells) + PATIENCE;
    match known_at {
        Some(at) if now < patience_ends => Verdict::Wait(at.min(patience_ends)),
        // Whoever reports so seldom is told when it is overdue.
        Some(_) => Verdict::Own,
        None if silent.len() > 1 => Verdict::Lost(silent),
        None => Verdict::Own,
    }
}
