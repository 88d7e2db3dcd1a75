//! When a monitor's own incident opens and ends, while its status says what the monitor is (ADR 038).
//!
//! The status changes with each bad run and each good one. The incident opens after
//! [`Thresholds::failures`] bad runs in a row, and ends after [`Thresholds::recoveries`] good ones. A bad run is a
//! failure, a missed slot or a run that exceeded its time.

use chrono::{DateTime, Utc};

use crate::incident::Consequence;
use crate::incident::cause::Cause;
use crate::judge::blind_spell::is_to_come;
use crate::limits;
use crate::monitor::flapping::Flaps;
use crate::monitor::status::Status;
use crate::monitor::{FieldError, MonitorState};

#[cfg(test)]
mod tests;

/// After how many runs in a row an incident opens and ends. Each is 1 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Bad runs before the incident opens.
    pub failures: u16,
    /// Good runs before the incident ends.
    pub recoveries: u16,
}

impl Thresholds {
    /// With what a person gave: 1 to 100 runs. None leaves a threshold as it is.
    #[must_use]
    pub fn with(
        mut self,
        failures: Option<i64>,
        recoveries: Option<i64>,
        faults: &mut Vec<FieldError>,
    ) -> Self {
        for (pointer, given, threshold) in [
            ("/failure_threshold", failures, &mut self.failures),
            ("/recovery_threshold", recoveries, &mut self.recoveries),
        ] {
            match given.map(|runs| check_threshold(pointer, runs)) {
                Some(Ok(runs)) => *threshold = runs,
                Some(Err(fault)) => faults.push(fault),
                None => {}
            }
        }
        self
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            failures: 1,
            recoveries: 1,
        }
    }
}

/// Runs in a row that ended alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streak {
    /// How many.
    pub runs: u16,
    /// When the first one was known.
    pub since: DateTime<Utc>,
}

/// Where a monitor's own incident stands beside its status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Alarm {
    /// The incident is open while the monitor is down.
    #[default]
    Follows,
    /// The monitor is down as a member of another subject's incident, and has no incident of its own.
    Member,
    /// The monitor is down. Its incident waits for more bad runs, so the monitor stays armed.
    Bad(Streak),
    /// The incident is open and waits for more good runs. The monitor is up; or it is down as a member of another
    /// subject's incident.
    Good(Streak),
}

impl Alarm {
    /// The bad runs in a row, while the incident waits for more.
    #[must_use]
    pub fn bad_runs(&self) -> Option<u16> {
        match self {
            Self::Bad(streak) => Some(streak.runs),
            Self::Follows | Self::Member | Self::Good(_) => None,
        }
    }

    /// The good runs in a row, while the open incident waits for more.
    #[must_use]
    pub fn good_runs(&self) -> Option<u16> {
        match self {
            Self::Good(streak) => Some(streak.runs),
            Self::Follows | Self::Member | Self::Bad(_) => None,
        }
    }
}

/// Whether a verdict with this cause is one bad run of several. The other causes are no matter of one run: Deadbeat
/// alerts at once.
fn is_counted(cause: Cause) -> bool {
    !matches!(
        cause,
        Cause::DuplicateRun | Cause::RedeliveryLoop | Cause::ScheduleReset
    )
}

impl MonitorState {
    /// Whether the monitor's own incident is open, as far as the state tells.
    fn has_incident(&self) -> bool {
        match self.alarm {
            _ if self.flaps.flapping.is_some() => true,
            Alarm::Good(_) => true,
            Alarm::Follows => self.status == Status::Down,
            Alarm::Member | Alarm::Bad(_) => false,
        }
    }

    /// Counts bad runs that were known at `at`. Call it before the status changes.
    pub(crate) fn note_bad(&mut self, runs: u16, cause: Cause, at: DateTime<Utc>) -> Consequence {
        self.raised_after = None;
        if self.has_incident() {
            // The open incident keeps its cause.
            self.alarm = Alarm::Follows;
            return Consequence::Open(cause);
        }
        let streak = match self.alarm {
            Alarm::Bad(before) => Streak {
                runs: before.runs.saturating_add(runs),
                since: before.since.min(at),
            },
            _ => Streak { runs, since: at },
        };
        if is_counted(cause) && streak.runs < self.thresholds.failures {
            self.alarm = Alarm::Bad(streak);
            return Consequence::Nothing;
        }
        self.raise(streak, cause, at)
    }

    /// Opens the incident although more bad runs were to come: no slot is known in which one could.
    pub(crate) fn raise_at_once(&mut self, cause: Cause, at: DateTime<Utc>) -> Option<Consequence> {
        match self.alarm {
            Alarm::Bad(streak) => Some(self.raise(streak, cause, at)),
            Alarm::Follows | Alarm::Member | Alarm::Good(_) => None,
        }
    }

    fn raise(&mut self, streak: Streak, cause: Cause, at: DateTime<Utc>) -> Consequence {
        self.flaps.note_opening(at);
        self.raised_after = (streak.runs > 1).then_some(streak);
        self.alarm = Alarm::Follows;
        Consequence::Open(cause)
    }

    /// Counts a good run that was known at `at`. Call it before the status changes.
    pub(crate) fn note_good(&mut self, at: DateTime<Utc>) -> Consequence {
        self.raised_after = None;
        let streak = match self.alarm {
            Alarm::Follows if self.status != Status::Down => return Consequence::Nothing,
            Alarm::Bad(_) => {
                self.alarm = Alarm::Follows;
                return Consequence::Nothing;
            }
            Alarm::Member => {
                self.alarm = Alarm::Follows;
                // There is no incident of its own. The other one may have lost its last member.
                return Consequence::Resolve;
            }
            Alarm::Good(before) => Streak {
                runs: before.runs.saturating_add(1),
                since: if before.runs == 0 {
                    at
                } else {
                    before.since.min(at)
                },
            },
            Alarm::Follows => Streak { runs: 1, since: at },
        };
        if streak.runs < self.thresholds.recoveries {
            self.alarm = Alarm::Good(streak);
            return Consequence::Nothing;
        }
        self.alarm = Alarm::Follows;
        if self.flaps.flapping.is_some() {
            // It is open until the monitor is calm.
            return Consequence::Nothing;
        }
        Consequence::Resolve
    }

    /// Counts a failure that was received before the newest decision, and is written after it (ADR 024). It is one of
    /// the bad runs in a row if no success was received since.
    pub(crate) fn note_late_bad(&mut self, cause: Cause, at: DateTime<Utc>) -> Consequence {
        let is_of_the_row = self.last_success_at.is_none_or(|success| success < at);
        match self.alarm {
            Alarm::Bad(_) if is_of_the_row => self.note_bad(1, cause, at),
            // It lies between the good runs: only the newest one surely came after it.
            Alarm::Good(streak) if streak.runs > 0 && streak.since < at => {
                self.alarm = Alarm::Good(Streak { runs: 1, since: at });
                Consequence::Nothing
            }
            _ => Consequence::Nothing,
        }
    }

    /// Counts a success that was received before the newest decision, and is written after it (ADR 024).
    pub(crate) fn note_late_good(&mut self, at: DateTime<Utc>) -> Consequence {
        match self.alarm {
            Alarm::Good(streak) if streak.runs > 0 && streak.since < at => self.note_good(at),
            _ => Consequence::Nothing,
        }
    }

    /// The monitor is down because of another subject's incident.
    pub(crate) fn note_member(&mut self, now: DateTime<Utc>) {
        self.raised_after = None;
        self.alarm = if self.has_incident() {
            Alarm::Good(Streak { runs: 0, since: now })
        } else {
            Alarm::Member
        };
    }

    /// A person paused or resumed the monitor, or the incident is over that it was a member of.
    pub(crate) fn note_anew(&mut self) {
        self.raised_after = None;
        if self.status == Status::Paused {
            self.flaps = Flaps::default();
        }
        if !matches!(self.alarm, Alarm::Good(_)) || self.status == Status::Paused {
            self.alarm = Alarm::Follows;
        }
    }

    /// Moves stored times in the future to `now`, after the clock was set back.
    pub(crate) fn note_earlier_clock(&mut self, now: DateTime<Utc>) {
        self.flaps.note_earlier_clock(now);
        if let Alarm::Bad(streak) | Alarm::Good(streak) = &mut self.alarm
            && is_to_come(streak.since, now)
        {
            streak.since = now;
        }
    }
}

fn check_threshold(pointer: &str, runs: i64) -> Result<u16, FieldError> {
    u16::try_from(runs)
        .ok()
        .filter(|runs| (1..=limits::THRESHOLD_RUNS).contains(runs))
        .ok_or_else(|| {
            FieldError::new(
                pointer,
                format!("is {runs}; 1 to {} runs are allowed", limits::THRESHOLD_RUNS),
            )
        })
}
