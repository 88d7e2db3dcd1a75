//! Wall-clock times without a zone, and the instants at which a zone's clock shows them.
//!
//! What every crontab dialect shares: [`WallTimes`], the minutes that five fields name, and [`Reading`]. What a dialect makes of a
//! wall time that is skipped or shown twice is its own business: Debian's rule is in `cron`, Celery's in `celery_crontab`.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::{GapInfo, Tz};

/// How far ahead a search goes: longer than the widest real gap, 40 years between two 29 Februaries on one weekday around 2100.
const SEARCH_YEARS: i32 = 50;

/// More than any two offsets from UTC differ, so more than any clock was ever set back or forward.
pub(crate) const OFFSET_SPREAD: TimeDelta = TimeDelta::hours(32);

/// Where a search starts and ends: whole seconds strictly after an instant, and a last year.
pub(crate) struct SearchWindow {
    pub(crate) first: DateTime<Utc>,
    pub(crate) last_year: i32,
}

impl SearchWindow {
    /// None for years in which nobody schedules anything; it keeps all arithmetic below far from chrono's limits.
    pub(crate) fn after(after: DateTime<Utc>) -> Option<Self> {
        let year = after.year();
        (1..=9_999).contains(&year).then_some(())?;
        let first = DateTime::from_timestamp(after.timestamp() + 1, 0)?;
        Some(Self {
            first,
            last_year: year + SEARCH_YEARS,
        })
    }
}

/// What a zone's clock shows at an instant.
pub(crate) fn wall_at(zone: Tz, instant: DateTime<Utc>) -> NaiveDateTime {
    instant.naive_utc() + offset_at(zone, instant)
}

pub(crate) fn offset_at(zone: Tz, instant: DateTime<Utc>) -> TimeDelta {
    let offset = zone.offset_from_utc_datetime(&instant.naive_utc()).fix();
    TimeDelta::seconds(offset.local_minus_utc().into())
}

/// The first second after `from`, up to `to`, with another offset than `from`.
///
/// Only the ends are compared before searching between them: no zone changes its clock and back within a few days.
pub(crate) fn first_change(zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let offset = offset_at(zone, from);
    if to <= from || offset_at(zone, to) == offset {
        return None;
    }
    let (mut same, mut other) = (from.timestamp(), to.timestamp());
    while other - same > 1 {
        let middle = same + (other - same) / 2;
        if offset_at(zone, DateTime::from_timestamp(middle, 0)?) == offset {
            same = middle;
        } else {
            other = middle;
        }
    }
    DateTime::from_timestamp(other, 0)
}

/// When a zone's clock shows a wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Once(DateTime<Utc>),
    /// The clock is set back over it: the first showing and the second.
    Twice(DateTime<Utc>, DateTime<Utc>),
    /// The clock is set forward over it.
    Skipped {
        /// The first instant with a wall time of its own after the gap.
        gap_end: DateTime<Utc>,
        /// The instant it would have been without the change, so the clock then shows it plus the gap (Python's reading).
        shifted: DateTime<Utc>,
    },
}

impl Reading {
    /// None only outside the years the zone data can express.
    pub(crate) fn of(wall: NaiveDateTime, zone: Tz) -> Option<Self> {
        use chrono::LocalResult::{Ambiguous, None as Missing, Single};
        Some(match zone.from_local_datetime(&wall) {
            Single(instant) => Self::Once(instant.to_utc()),
            Ambiguous(one, other) => {
                Self::Twice(one.to_utc().min(other.to_utc()), one.to_utc().max(other.to_utc()))
            }
            Missing => {
                let gap = GapInfo::new(&wall, &zone)?;
                let (_, before) = gap.begin?;
                let before = TimeDelta::seconds(before.fix().local_minus_utc().into());
                Self::Skipped {
                    gap_end: gap.end?.to_utc(),
                    shifted: (wall - before).and_utc(),
                }
            }
        })
    }
}

/// The minutes that five crontab fields name on a wall clock; in each mask bit n stands for value n.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WallTimes {
    pub(crate) minutes: u64,
    pub(crate) hours: u32,
    pub(crate) months: u16,
    pub(crate) days: DayRule,
}

/// Which days of a month match. Weekday masks count from Sunday, bit 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DayRule {
    pub(crate) dates: u32,
    pub(crate) last_date: bool,
    pub(crate) last_workday: bool,
    pub(crate) weekdays: u8,
    /// `[k - 1]`: the weekdays whose k-th occurrence in the month matches.
    pub(crate) nth_weekdays: [u8; 5],
    pub(crate) last_weekdays: u8,
    pub(crate) join: Join,
}

/// Whether a day has to match as date and as weekday, or one is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    Both,
    Either,
}

impl DayRule {
    pub(crate) const NONE: Self = Self {
        dates: 0,
        last_date: false,
        last_workday: false,
        weekdays: 0,
        nth_weekdays: [0; 5],
        last_weekdays: 0,
        join: Join::Both,
    };

    /// The matching days, bits 1 to `length`, of a month that starts on weekday `first` (0 is Sunday).
    fn matching(&self, length: u32, first: u32) -> u32 {
        let existing = (u32::MAX >> (31 - length)) & !1;

        let mut by_date = self.dates;
        if self.last_date {
            by_date |= 1 << length;
        }
        if self.last_workday {
            let back = match (first + length - 1) % 7 {
                0 => 2,
                6 => 1,
                _ => 0,
            };
            by_date |= 1 << (length - back);
        }

        // Seven days from the 1st, copied at weekly strides.
        let mut by_weekday = (u64::from(week_from(self.weekdays, first)) * 0x1020_4081) << 1;
        for (week, &weekdays) in (0u32..).zip(&self.nth_weekdays) {
            by_weekday |= u64::from(week_from(weekdays, first)) << (7 * week + 1);
        }
        let final_week = length - 6;
        by_weekday |= u64::from(week_from(self.last_weekdays, (first + final_week - 1) % 7)) << final_week;

        let by_weekday = by_weekday as u32;
        existing
            & match self.join {
                Join::Both => by_date & by_weekday,
                Join::Either => by_date | by_weekday,
            }
    }
}

/// A mask of weekdays turned so that bit 0 is weekday `first`.
fn week_from(weekdays: u8, first: u32) -> u8 {
    let doubled = u16::from(weekdays) | (u16::from(weekdays) << 7);
    (doubled >> first) as u8 & 0x7f
}

impl WallTimes {
    /// The first matching minute at or after `wall`, up to the end of `last_year`.
    pub(crate) fn at_or_after(&self, wall: NaiveDateTime, last_year: i32) -> Option<NaiveDateTime> {
        let wall = if wall.second() == 0 && wall.nanosecond() == 0 {
            wall
        } else {
            wall.with_second(0)?.with_nanosecond(0)? + TimeDelta::minutes(1)
        };
        let first_minute = first_bit(self.minutes, 0)?;
        let first_hour = first_bit(self.hours.into(), 0)?;
        let (mut year, mut month, mut day) = (wall.year(), wall.month(), wall.day());

        if self.days_of(year, month)? & 1 << day != 0 {
            let this_hour = self.hours & 1 << wall.hour() != 0;
            if let Some(minute) = first_bit(self.minutes, wall.minute()).filter(|_| this_hour) {
                return wall.date().and_hms_opt(wall.hour(), minute, 0);
            }
            if let Some(hour) = first_bit(self.hours.into(), wall.hour() + 1) {
                return wall.date().and_hms_opt(hour, first_minute, 0);
            }
        }
        while year <= last_year {
            if let Some(day) = first_bit(self.days_of(year, month)?.into(), day + 1) {
                return NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(first_hour, first_minute, 0);
            }
            day = 0;
            (year, month) = if month == 12 {
                (year + 1, 1)
            } else {
                (year, month + 1)
            };
        }
        None
    }

    fn days_of(&self, year: i32, month: u32) -> Option<u32> {
        if self.months & 1 << month == 0 {
            return Some(0);
        }
        let first = NaiveDate::from_ymd_opt(year, month, 1)?;
        let length = month_length(month, first.leap_year());
        Some(self.days.matching(length, first.weekday().num_days_from_sunday()))
    }

    /// Whether any month of any year has a matching day; each month starts on each weekday sooner or later, and so does each
    /// February of 29 days.
    pub(crate) fn has_a_date(&self) -> bool {
        (1..=12)
            .filter(|month| self.months & 1 << month != 0)
            .any(|month| {
                [false, true].into_iter().any(|leap_year| {
                    (0..7).any(|first| self.days.matching(month_length(month, leap_year), first) != 0)
                })
            })
    }
}

fn month_length(month: u32, leap_year: bool) -> u32 {
    match month {
        2 if leap_year => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn first_bit(mask: u64, from: u32) -> Option<u32> {
    let rest = mask.checked_shr(from)?;
    (rest != 0).then(|| rest.trailing_zeros() + from)
}
