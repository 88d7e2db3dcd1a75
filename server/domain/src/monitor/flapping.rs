//! Flapping: a monitor whose incidents open again and again (ADR 038).
//!
//! A monitor flaps when its incident opens for the third time within an hour. That incident then stays open, whatever
//! the status does, until the status has not changed for half an hour.

use chrono::{DateTime, TimeDelta, Utc};

use crate::incident::Consequence;
use crate::judge::blind_spell::{BlindSpell, is_to_come};
use crate::monitor::MonitorState;
use crate::monitor::alarm::Alarm;
use crate::monitor::status::Status;

#[cfg(test)]
mod tests;

/// So many openings within [`WINDOW`] are flapping.
pub const OPENINGS: usize = 3;
/// See [`OPENINGS`].
pub const WINDOW: TimeDelta = TimeDelta::hours(1);
/// Flapping ends when the status has not changed for so long.
pub const CALM: TimeDelta = TimeDelta::minutes(30);

/// What is known of a monitor's flapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flaps {
    /// When its own incident opened lately, in order: [`OPENINGS`] at most.
    pub openings: Vec<DateTime<Utc>>,
    /// Some: it flaps.
    pub flapping: Option<Flapping>,
}

/// A monitor flaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flapping {
    /// Since the opening that was one too many.
    pub since: DateTime<Utc>,
    /// When it ends, unless the status changes before.
    pub calm_at: DateTime<Utc>,
}

impl Flaps {
    /// Its own incident opens.
    pub(crate) fn note_opening(&mut self, at: DateTime<Utc>) {
        self.openings.retain(|before| (at - *before).abs() <= WINDOW);
        self.openings.push(at);
        self.openings.sort_unstable();
        if self.openings.len() > OPENINGS {
            self.openings.remove(0);
        }
        if self.openings.len() == OPENINGS && self.flapping.is_none() {
            self.flapping = Some(Flapping {
                since: at,
                calm_at: at + CALM,
            });
        }
    }

    /// The status changed. A change that was received before a known one, and is written after it, does not bring the
    /// end nearer.
    pub(crate) fn note_change(&mut self, at: DateTime<Utc>) {
        if let Some(flapping) = &mut self.flapping {
            flapping.calm_at = flapping.calm_at.max(at + CALM);
        }
    }

    /// Nobody listened in these spells, so nobody knows whether it was calm: the time begins anew after them.
    fn excuse(&mut self, spells: &[BlindSpell]) {
        if let Some(flapping) = &mut self.flapping {
            for spell in spells {
                let began = flapping.calm_at - CALM;
                if spell.started_at < flapping.calm_at && spell.ended_at > began {
                    flapping.calm_at = spell.ended_at + CALM;
                }
            }
        }
    }

    /// Moves stored times in the future to `now`, after the clock was set back.
    pub(crate) fn note_earlier_clock(&mut self, now: DateTime<Utc>) {
        if self.openings.iter().any(|at| is_to_come(*at, now)) {
            self.openings.clear();
        }
        if let Some(flapping) = &mut self.flapping
            && is_to_come(flapping.calm_at - CALM, now)
        {
            flapping.since = flapping.since.min(now);
            flapping.calm_at = now + CALM;
        }
    }
}

impl MonitorState {
    /// Ends the flapping if the monitor has been calm for long enough. None: it does not flap, or goes on.
    pub(crate) fn calm_down(&mut self, now: DateTime<Utc>, spells: &[BlindSpell]) -> Option<Consequence> {
        self.flaps.excuse(spells);
        if self.flaps.flapping?.calm_at > now || self.hold_until.is_some() {
            return None;
        }
        self.flaps = Flaps::default();
        Some(match (self.status, self.alarm) {
            (_, Alarm::Good(_)) => Consequence::Calm { is_down: false },
            (Status::Down, _) => Consequence::Calm { is_down: true },
            _ => Consequence::Resolve,
        })
    }
}
