//! Stretches in which Deadbeat could not listen: nobody is blamed for a report that we may have missed.
//!
//! A deadline whose window of possible reports overlaps with a spell moves to the spell's end plus the grace. What is really dead is
//! therefore found within one grace after the spell.
//!
//! What lay wholly in a spell is *unknown*: its report can neither have been heard nor be still to come. It is waited for the next one. After
//! a backup was restored, whose spell lasts a day, one grace more would call every monitor down before any is due again.

use chrono::{DateTime, TimeDelta, Utc};

/// After an outage of ours the SDK may wait this long before it tries again: 10 s and some, and what it gathers meanwhile.
pub const SDK_RETURN: TimeDelta = TimeDelta::seconds(15);

#[cfg(test)]
mod tests;

/// One stretch in which no process of ours could take a signal in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlindSpell {
    /// When we were last known to listen.
    pub started_at: DateTime<Utc>,
    /// When we listened again.
    pub ended_at: DateTime<Utc>,
}

/// A silence of ours this long is a spell. Processes say each second that they listen.
pub const BLIND_AFTER: TimeDelta = TimeDelta::milliseconds(2_500);

/// Whether an instant that was noted lies in times to come: the clock was stepped back since. Clocks of several machines differ a little.
#[must_use]
pub fn is_to_come(noted: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    // Most are in the past, and a comparison costs less than the difference.
    noted > now && noted - now > BLIND_AFTER
}

/// Whether anybody has listened lately: `last_stamp` is the newest word of any process that it does. None: there never was one.
#[must_use]
pub fn is_blind(last_stamp: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    last_stamp.is_some_and(|stamp| now - stamp > BLIND_AFTER)
}

impl BlindSpell {
    fn lasts(&self) -> TimeDelta {
        self.ended_at - self.started_at
    }

    /// Whether what was owed from `due` to `deadline` lies wholly in this spell, and the spell is longer than `least`.
    #[must_use]
    pub fn swallows(&self, due: DateTime<Utc>, deadline: DateTime<Utc>, least: TimeDelta) -> bool {
        self.started_at <= due && deadline <= self.ended_at && self.lasts() > least
    }
}

/// The deadline, moved where a spell may have swallowed the report: one that could have come from `window_from` on, until the deadline.
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
