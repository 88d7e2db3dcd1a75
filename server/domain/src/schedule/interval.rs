//! Intervals, and Celery's rounding of them.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Timelike, Utc};

use crate::schedule::wall::SearchWindow;
use crate::schedule::zone::{Reading, Zone};

/// The shortest interval, in seconds. Network delay may be longer than the lateness of a shorter one.
pub const MIN_INTERVAL_SECONDS: f64 = 1.0;

/// The longest interval: a yearly job, also in a leap year.
pub const MAX_INTERVAL_SECONDS: f64 = 366.0 * 86_400.0;

/// An interval, to the microsecond, as in Python's `timedelta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    every: TimeDelta,
    pub(super) rounding: Rounding,
}

/// Where the next slot lies: at the interval's end, at the round wall-clock time before that, or on a fixed grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    Exact,
    /// Celery's `schedule(relative=True)`: rounds down to the day, hour, minute or second, by the largest of these that
    /// the interval reaches.
    Down(Zone),
    /// Fixed slots at whole intervals after and before this anchor. No report moves them.
    From(DateTime<Utc>),
}

impl Interval {
    /// Makes an interval. None: the length is not allowed.
    pub(super) fn new(seconds: f64, rounding: Rounding) -> Option<Self> {
        // NaN lies in no range.
        let allowed = (MIN_INTERVAL_SECONDS..=MAX_INTERVAL_SECONDS).contains(&seconds);
        let every = TimeDelta::microseconds((seconds * 1e6).round() as i64);
        allowed.then_some(Self { every, rounding })
    }

    /// Returns the length in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        // Both parts are far below 2^53; the sum is the float nearest to the microseconds.
        self.every.as_seconds_f64()
    }

    /// Returns the anchor, from which whole intervals are counted. None: they are counted from the last report.
    #[must_use]
    pub fn anchor(&self) -> Option<DateTime<Utc>> {
        match self.rounding {
            Rounding::From(anchor) => Some(anchor),
            Rounding::Exact | Rounding::Down(_) => None,
        }
    }

    /// Returns the zone on whose clock the next slot is a round time.
    pub(super) fn zone(&self) -> Option<Zone> {
        match self.rounding {
            Rounding::Down(zone) => Some(zone),
            Rounding::Exact | Rounding::From(_) => None,
        }
    }

    pub(super) fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        SearchWindow::after(after)?;
        match self.rounding {
            Rounding::Exact => Some(after + self.every),
            Rounding::Down(zone) => self.next_round_time(after, zone),
            Rounding::From(anchor) => self.next_on_row(after, anchor),
        }
    }

    fn next_on_row(&self, after: DateTime<Utc>, anchor: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let every = self.every.num_microseconds()?;
        let passed = (after - anchor).num_microseconds()?.div_euclid(every);
        anchor.checked_add_signed(TimeDelta::microseconds((passed + 1).checked_mul(every)?))
    }

    /// Computes the next slot as Celery 5.7 does. Earlier releases differ only around clock changes.
    fn next_round_time(&self, after: DateTime<Utc>, zone: Zone) -> Option<DateTime<Utc>> {
        let end = after + self.every;
        if self.every >= TimeDelta::days(1) {
            // Count whole days on the calendar, across days of 23 and 25 hours. If a midnight comes twice, the first
            // one counts.
            let wall_end = zone.wall_at(after) + self.every;
            let midnights = showings(floor_to_day(wall_end)?, zone)?;
            return match midnights.into_iter().find(|midnight| *midnight > after) {
                Some(midnight) => Some(midnight),
                None => Some(showings(wall_end, zone)?[0]),
            };
        }
        let (unit, floor): (_, fn(NaiveDateTime) -> Option<NaiveDateTime>) = match self.every {
            every if every >= TimeDelta::hours(1) => (TimeDelta::hours(1), floor_to_hour),
            every if every >= TimeDelta::minutes(1) => (TimeDelta::minutes(1), floor_to_minute),
            // No clock change is shorter than a second, so whole seconds need no zone.
            _ => return end.with_nanosecond(0),
        };
        let wall_end = zone.wall_at(end);
        let mut round_times = showings(floor(wall_end)?, zone)?.to_vec();
        let latest = round_times.iter().copied().filter(|time| *time <= end).max();
        if let Some(time) = latest
            .or_else(|| round_times.iter().copied().min())
            .filter(|time| *time > after)
        {
            return Some(time);
        }
        // The clock was set back by a part of an hour, so the round time lies before the start. Search among more round
        // times.
        round_times.extend(showings(floor(wall_end + unit)?, zone)?);
        round_times.extend(showings(floor(zone.wall_at(after) + self.every)?, zone)?);
        round_times.retain(|time| *time > after);
        let latest = round_times.iter().copied().filter(|time| *time <= end).max();
        Some(
            latest
                .or_else(|| round_times.iter().copied().min())
                .unwrap_or(end),
        )
    }
}

/// Returns the instants that Python's two `fold` values give to a wall time, the earlier first.
fn showings(wall: NaiveDateTime, zone: Zone) -> Option<[DateTime<Utc>; 2]> {
    Some(match zone.read(wall)? {
        Reading::Once(instant) | Reading::Skipped { shifted: instant, .. } => [instant; 2],
        Reading::Twice(first, second) => [first, second],
    })
}

fn floor_to_day(wall: NaiveDateTime) -> Option<NaiveDateTime> {
    wall.date().and_hms_opt(0, 0, 0)
}

fn floor_to_hour(wall: NaiveDateTime) -> Option<NaiveDateTime> {
    wall.date().and_hms_opt(wall.hour(), 0, 0)
}

fn floor_to_minute(wall: NaiveDateTime) -> Option<NaiveDateTime> {
    wall.date().and_hms_opt(wall.hour(), wall.minute(), 0)
}
