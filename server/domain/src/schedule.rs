//! When reports are expected: the kinds of schedule, and the computation of next slots that all kinds share.
//!
//! A [`Schedule`] is checked when it is made: it names a real zone and has a slot. So code that has a schedule never
//! meets a bad expression. Next slots are computed, never stored. For crontabs they are UTC instants in whole seconds.
//!
//! Nothing here reads the clock. No input panics or takes long: texts are limited before they are parsed, and searches
//! end after 50 years.

pub mod calendar;
pub mod celery_crontab;
pub mod cron;
pub mod expression;
mod interval;
pub(crate) mod json;
#[cfg(test)]
mod properties;
pub mod quartz;
pub mod solar;
#[cfg(test)]
mod tests;
pub(crate) mod wall;
mod words;
pub mod zone;

use std::fmt::Display;

use chrono::{DateTime, TimeDelta, Utc};

use self::interval::Rounding;
use crate::schedule::calendar::Calendar;
use crate::schedule::celery_crontab::CeleryCrontab;
use crate::schedule::cron::Cron;
use crate::schedule::expression::ExpressionError;
use crate::schedule::quartz::Quartz;
use crate::schedule::solar::Solar;
use crate::schedule::wall::Years;
use crate::schedule::zone::Zone;

pub use self::interval::{Interval, MAX_INTERVAL_SECONDS, MIN_INTERVAL_SECONDS};

/// When reports are expected.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Slots at a fixed distance, counted from the last report or from an anchor.
    Interval(Interval),
    /// A crontab line as Debian's cron reads it, or one with seconds as cronsim reads it.
    Cron(CronSchedule),
    /// Six or seven fields with seconds and years, in the format of the Quartz scheduler and similar programs.
    Quartz(QuartzSchedule),
    /// A crontab as Celery reads it.
    Celery(CelerySchedule),
    /// An event of the sun, such as sunrise.
    Solar(Solar),
    /// systemd's calendar expressions.
    OnCalendar(Calendar),
    /// A schedule that only Beat can compute. Each of Beat's reports has the time at which the entry is next due.
    Hint(HintSchedule),
}

/// A crontab line, and the zone of the clock that it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronSchedule {
    cron: Cron,
    zone: Zone,
}

/// A Quartz expression, and the zone of the clock that it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuartzSchedule {
    quartz: Quartz,
    zone: Zone,
}

/// A Celery crontab, and the zone of the application that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CelerySchedule {
    crontab: CeleryCrontab,
    zone: Zone,
}

/// A schedule that only Beat's process can compute: an `rrule`, a `clocked` one, or a class of the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintSchedule {
    class: String,
    text: Option<String>,
}

/// The reason why a schedule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ScheduleError {
    /// JSON pointer to the faulty member, below the schedule object: `/expression`. Empty: the object itself is at
    /// fault.
    pub field: String,
    /// The first faulty character of that member's text, counted from 1. None: no single character is at fault.
    pub position: Option<usize>,
    /// A message for a person: the faulty value, and the allowed ones.
    pub message: String,
}

impl ScheduleError {
    /// Makes the error for a fault of one member.
    #[must_use]
    pub fn at(member: &str, message: impl Display) -> Self {
        let member = member.replace('~', "~0").replace('/', "~1");
        Self {
            field: format!("/{member}"),
            position: None,
            message: message.to_string(),
        }
    }

    fn in_text(member: &str, error: &ExpressionError) -> Self {
        Self {
            position: Some(error.position),
            ..Self::at(member, error)
        }
    }

    fn whole(message: impl Display) -> Self {
        Self {
            field: String::new(),
            position: None,
            message: message.to_string(),
        }
    }
}

impl Schedule {
    /// Makes a schedule with a slot every `seconds`, from 1 second to 366 days.
    ///
    /// # Errors
    /// If `seconds` lies outside of that, or is not a number.
    pub fn interval(seconds: f64) -> Result<Self, ScheduleError> {
        interval(seconds, Rounding::Exact)
    }

    /// Makes a schedule from a crontab line as Debian's cron reads it, on the clock of an IANA zone.
    ///
    /// # Errors
    /// If the expression cannot be read or never comes, or the zone is unknown.
    pub fn cron(expression: &str, timezone: &str) -> Result<Self, ScheduleError> {
        cron(expression, parse_zone(timezone)?)
    }

    /// Returns the next slot strictly after `after`. None: there is none within 50 years or until the last listed year, or only Beat can compute it.
    ///
    /// For an interval, `after` is the last report. For a Celery crontab near a clock change, it is the last dispatch.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Interval(interval) => interval.next_after(after),
            Self::Cron(CronSchedule { cron, zone }) => cron.next_after(after, *zone),
            Self::Quartz(QuartzSchedule { quartz, zone }) => quartz.next_after(after, *zone),
            Self::Celery(CelerySchedule { crontab, zone }) => crontab.next_after(after, *zone),
            Self::Solar(solar) => solar.next_after(after),
            Self::OnCalendar(calendar) => calendar.next_after(after),
            Self::Hint(_) => None,
        }
    }

    /// Returns the slots strictly after `after`, each computed from the one before, as the program that runs the task does.
    pub fn slots(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        std::iter::successors(self.next_after(after), |slot| self.next_after(*slot))
    }

    /// True if the next slot is counted from the last report, so that no slots are fixed in advance.
    #[must_use]
    pub fn follows_reports(&self) -> bool {
        matches!(self, Self::Interval(interval) if interval.anchor().is_none())
    }

    /// Returns the `kind` of the JSON form.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Interval(_) => "interval",
            Self::Cron(_) => "cron",
            Self::Quartz(_) => "quartz",
            Self::Celery(_) => "celery",
            Self::Solar(_) => "solar",
            Self::OnCalendar(_) => "oncalendar",
            Self::Hint(_) => "hint",
        }
    }

    /// Returns the zone of the wall clock that the schedule follows; UTC if the zone does not matter.
    #[must_use]
    pub fn timezone(&self) -> Zone {
        match self {
            Self::Interval(interval) => interval.zone().unwrap_or_else(Zone::utc),
            Self::Cron(CronSchedule { zone, .. })
            | Self::Quartz(QuartzSchedule { zone, .. })
            | Self::Celery(CelerySchedule { zone, .. }) => *zone,
            Self::OnCalendar(calendar) => calendar.zone(),
            Self::Solar(_) | Self::Hint(_) => Zone::utc(),
        }
    }

    /// Describes the schedule in words: "every 90 seconds", "at 02:30 on weekdays, Europe/Berlin". Returns the
    /// expression itself if words would be longer.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Interval(interval) => words::interval(interval),
            Self::Cron(CronSchedule { cron, zone }) => {
                let words = words::wall_times(cron.times());
                format!(
                    "{}, {zone}",
                    words.unwrap_or_else(|| format!("cron {}", cron.expression()))
                )
            }
            Self::Quartz(QuartzSchedule { quartz, zone }) => {
                let words = words::wall_times(quartz.times());
                format!(
                    "{}, {zone}",
                    words.unwrap_or_else(|| format!("quartz {}", quartz.expression()))
                )
            }
            Self::Celery(CelerySchedule { crontab, zone }) => {
                let words = words::wall_times(crontab.times());
                format!(
                    "{}, {zone}",
                    words.unwrap_or_else(|| format!("celery {}", crontab.fields().join(" ")))
                )
            }
            Self::Solar(solar) => words::solar(solar),
            Self::OnCalendar(calendar) => words::calendar(calendar),
            Self::Hint(HintSchedule { class, text }) => match text {
                Some(text) => format!("at times that Beat computes ({class}: {text})"),
                None => format!("at times that Beat computes ({class})"),
            },
        }
    }
}

fn interval(seconds: f64, rounding: Rounding) -> Result<Schedule, ScheduleError> {
    let interval = Interval::new(seconds, rounding).ok_or_else(|| {
        let message = format!("seconds is from 1 to {MAX_INTERVAL_SECONDS} (366 days), not {seconds}");
        ScheduleError::at("seconds", message)
    })?;
    Ok(Schedule::Interval(interval))
}

fn cron(expression: &str, zone: Zone) -> Result<Schedule, ScheduleError> {
    let cron = Cron::parse(expression).map_err(|error| ScheduleError::in_text("expression", &error))?;
    let schedule = Schedule::Cron(CronSchedule { cron, zone });
    check_comes(&schedule, zone)?;
    Ok(schedule)
}

fn quartz(expression: &str, zone: Zone) -> Result<Schedule, ScheduleError> {
    let quartz = Quartz::parse(expression).map_err(|error| ScheduleError::in_text("expression", &error))?;
    let schedule = Schedule::Quartz(QuartzSchedule { quartz, zone });
    check_comes(&schedule, zone)?;
    Ok(schedule)
}

fn calendar(expression: &str, zone: Zone) -> Result<Schedule, ScheduleError> {
    // Each line may name a zone of its own, so the calendar itself checks that each line has a slot.
    Calendar::parse(expression, zone)
        .map(Schedule::OnCalendar)
        .map_err(|error| ScheduleError::in_text("expression", &error))
}

/// Refuses an expression that never comes on the zone's clock, although its dates exist. Example: `* 2 * 3 SUN#2` in
/// New York names only minutes that the clock skips.
///
/// The search starts at fixed instants, so that the answer does not depend on today's date. A stored schedule whose
/// listed years are over must still be readable. The code that sets a schedule refuses one without a future slot.
fn check_comes(schedule: &Schedule, zone: Zone) -> Result<(), ScheduleError> {
    let start_of_2026 = DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default();
    // In zones ahead of UTC, 1970 began while UTC was still in 1969.
    let before_1970 = DateTime::UNIX_EPOCH - TimeDelta::days(2);
    let comes = match schedule {
        // For listed years, search to the last of them.
        Schedule::Quartz(QuartzSchedule { quartz, .. }) if quartz.times().years != Years::Every => {
            schedule.next_after(before_1970).is_some()
        }
        _ => schedule.next_after(start_of_2026).is_some(),
    };
    if comes {
        return Ok(());
    }
    let message = format!("this never comes: {zone} skips these hours when its clock changes");
    Err(ScheduleError::at("expression", message))
}

fn celery(fields: [&str; 5], zone: Zone) -> Result<Schedule, ScheduleError> {
    let crontab = CeleryCrontab::parse(fields).map_err(|error| ScheduleError {
        position: error.position,
        ..ScheduleError::at(error.field, error)
    })?;
    Ok(Schedule::Celery(CelerySchedule { crontab, zone }))
}

fn parse_zone(name: &str) -> Result<Zone, ScheduleError> {
    name.parse().map_err(|error| ScheduleError::at("timezone", error))
}
