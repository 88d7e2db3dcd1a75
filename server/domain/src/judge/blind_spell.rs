//! Blind spells: stretches in which no process of Deadbeat listened. Deadbeat may have missed reports in them, so a
//! report that is missing because of a spell raises no alert.
//!
//! If a spell overlaps the window in which a report could have come, the deadline moves to the end of the spell plus
//! the grace. So Deadbeat finds a switch that is really dead within one grace after the spell.
//!
//! A slot that lies wholly in a spell, its grace included, is *unknown*: no process could receive its report, and the
//! report will not come later. Deadbeat waits for the next slot. Otherwise a restored backup, whose spell lasts a day,
//! would declare every monitor down before its next slot.

use chrono::{DateTime, TimeDelta, Utc};

/// After an outage of Deadbeat, the SDK may need this long until it sends again: some 10 s between its attempts, and
/// the time in which it collects a batch.
pub const SDK_RETURN: TimeDelta = TimeDelta::seconds(15);

#[cfg(test)]
mod tests;

/// One stretch in which no process of Deadbeat could receive a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlindSpell {
    /// The last time at which a process was known to listen.
    pub started_at: DateTime<Utc>,
    /// When a process listened again.
    pub ended_at: DateTime<Utc>,
}

/// If no process has listened for this long, a spell begins. Listening processes write a stamp each second.
pub const BLIND_AFTER: TimeDelta = TimeDelta::milliseconds(2_500);

/// True if a stored instant lies in the future by more than the small clock skew between machines. Then the clock
/// stepped back after the instant was stored.
#[must_use]
pub fn is_to_come(noted: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    // Most stored instants are in the past, and a comparison is cheaper than a subtraction.
    noted > now && noted - now > BLIND_AFTER
}

/// True if no process listens any more. `last_stamp` is the newest stamp of any process. None: no process has listened
/// yet, which is not a blind spell.
#[must_use]
pub fn is_blind(last_stamp: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    last_stamp.is_some_and(|stamp| now - stamp > BLIND_AFTER)
}

impl BlindSpell {
    fn lasts(&self) -> TimeDelta {
        self.ended_at - self.started_at
    }

    /// True if the window from `due` to `deadline` lies wholly in this spell, and the spell is longer than `least`.
    #[must_use]
    pub fn swallows(&self, due: DateTime<Utc>, deadline: DateTime<Utc>, least: TimeDelta) -> bool {
        self.started_at <= due && deadline <= self.ended_at && self.lasts() > least
    }
}

/// Moves a deadline if Deadbeat may have missed its report in a spell. The report could come from `window_from` until
/// the deadline.
#[must_use]
pub fn fair_deadline(
    deadline: DateTime<Utc>,
    window_from: DateTime<Utc>,
    grace: TimeDelta,
    spells: &[BlindSpell],
) -> DateTime<Utc> {
    spells
        .iter()
        .filter(|spell| spell.ended_at > window_from && spell.started_at < deadline)
        .map(|spell| spell.ended_at + grace)
        .fold(deadline, DateTime::max)
}
