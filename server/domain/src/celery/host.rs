//! A host: the machine on which Beats and workers run. If nothing on it reports any more, that is one fault, not one
//! fault of each of its parts.
//!
//! No process samples a host. Its loss is inferred: everything that reported from it stopped reporting at the same
//! time.

pub mod load;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::celery::worker::SKEW;
use crate::celery::worker::incarnation::LEAST_GAP;
use crate::judge::blind_spell::{BlindSpell, SDK_RETURN, fair_deadline};

#[cfg(test)]
mod tests;

/// A report may be delayed by this much.
const ON_ITS_WAY: TimeDelta = TimeDelta::seconds(2);
/// How long a part whose deadline has passed waits for those parts of its host that report less often. A longer wait
/// would delay its alert. If those parts stop reporting later, the part's incident becomes the host's.
pub const PATIENCE: TimeDelta = TimeDelta::seconds(3);
/// If Beat's sent messages show that a host works, its parts are not judged for this long. Only the host's connection
/// to this server is broken.
pub const LONGEST_HOLD: TimeDelta = TimeDelta::minutes(15);
/// For this long, a message that Beat sent shows that its host works.
const WORKS_FOR: TimeDelta = TimeDelta::minutes(5);
/// A host is not lost if one of its parts has reported again for this long, from the same start of the machine. Parts
/// that were cut off come back at about the same time, but Beat may report less often.
pub const BACK_FOR: TimeDelta = TimeDelta::seconds(60);

/// A Beat or a worker of a host. A process that signed off, or that reports that it hangs or fails, is not a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its id.
    pub id: Uuid,
    /// When its last report came, with any content.
    pub heard_at: DateTime<Utc>,
    /// How often it reports.
    pub period: TimeDelta,
    /// Tolerated silence beyond the period.
    pub grace: TimeDelta,
    /// The last stretch in which the process did not report, before it reported again. None: no such stretch is known.
    pub gap: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Part {
    /// The latest time at which it can have died, unless it still reports.
    fn died_by(&self) -> DateTime<Utc> {
        self.heard_at + self.period + ON_ITS_WAY
    }

    /// If this part and `other` were silent at the same time, their host was cut off. Returns until when `other` may
    /// come back.
    fn back_with(&self, other: &Self) -> Option<DateTime<Utc>> {
        let (_, to) = self
            .gap
            .filter(|(from, to)| *from <= other.died_by() && *to > other.heard_at)?;
        Some(to + SDK_RETURN)
    }

    /// When it is overdue. Blind spells delay this.
    fn overdue_at(&self, spells: &[BlindSpell]) -> DateTime<Utc> {
        let silence = self.period + self.grace;
        fair_deadline(
            self.heard_at + silence,
            self.heard_at,
            silence.max(SDK_RETURN),
            spells,
        )
    }

    /// When it has missed two reports. Blind spells delay this.
    fn late_at(&self, spells: &[BlindSpell]) -> DateTime<Utc> {
        let gap = (self.period * 2).max(LEAST_GAP);
        fair_deadline(self.heard_at + gap, self.heard_at, gap.max(SDK_RETURN), spells)
    }
}

/// A message that Beat sent after this instant shows that the silent Beat lives. Clock skew below the reported limit
/// may shift the time of the message, and an old message proves nothing about now.
#[must_use]
pub fn works_after(beat: &Part, now: DateTime<Utc>) -> DateTime<Utc> {
    (beat.died_by() + SKEW).max(now - WORKS_FOR)
}

/// The verdict on the silence of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its own fault: other parts of its host still report, or there are none.
    Own,
    /// Not known yet whether the other parts are also silent. Judge again at that time.
    Wait(DateTime<Utc>),
    /// Nothing on its host reports any more. These parts, including this one, stopped reporting at the same time.
    Lost(Vec<Uuid>),
}

/// Judges the silence of an overdue part. `others` reported from the same start of the same machine, and have not
/// signed off.
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
        // The other part stopped reporting earlier, so that is another fault.
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
        // The other part reports too seldom to wait for it. It is judged at its own deadline.
        Some(_) => Verdict::Own,
        None if silent.len() > 1 => Verdict::Lost(silent),
        None => Verdict::Own,
    }
}
