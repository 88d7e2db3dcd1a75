//! Wall-clock times without a zone.
//!
//! All dialects share [`WallTimes`], the seconds that an expression's fields name. Each dialect has its own rule for a
//! wall time that the zone's clock skips or shows twice: Debian's is in `cron`, Celery's in `celery_crontab`, systemd's
//! in `calendar`.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc};

/// How far ahead a search goes. The widest real gap is 40 years: between two 29 Februaries on the same weekday around
/// 2100.
const SEARCH_YEARS: i32 = 50;

/// More than the largest difference between two offsets from UTC, so no clock is ever set back or forward by more.
pub(crate) const OFFSET_SPREAD: TimeDelta = TimeDelta::hours(32);

/// The start and the end of a search: whole seconds strictly after an instant, and a last year.
pub(crate) struct SearchWindow {
    pub(crate) first: DateTime<Utc>,
    pub(crate) last_year: i32,
}

impl SearchWindow {
    /// Makes the window of a search. None: nobody schedules anything in such a year. This keeps the arithmetic below
    /// far from chrono's limits.
    pub(crate) fn after(after: DateTime<Utc>) -> Option<Self> {
        let year = after.year();
        (1..=9_900).contains(&year).then_some(())?;
        let first = DateTime::from_timestamp(after.timestamp() + 1, 0)?;
        Some(Self {
            first,
            last_year: year + SEARCH_YEARS,
        })
    }
}

/// The seconds that an expression's fields name on a wall clock. In each mask, bit n stands for value n.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WallTimes {
    /// The seconds of a minute. Dialects that have whole minutes only set bit 0 alone.
    pub(crate) seconds: u64,
    pub(crate) minutes: u64,
    pub(crate) hours: u32,
    pub(crate) months: u16,
    pub(crate) days: DayRule,
    pub(crate) years: Years,
}

/// The years that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Years {
    /// The dialect has no years, or the field allows every year.
    Every,
    /// Bit n over all words stands for [`FIRST_YEAR`] + n.
    Listed([u64; 4]),
}

/// The first year that can be listed, as in every dialect that has years.
pub(crate) const FIRST_YEAR: i32 = 1970;
/// The last year that can be listed.
pub(crate) const LAST_YEAR: i32 = FIRST_YEAR + 255;

impl Years {
    /// No year.
    pub(crate) const NONE: Self = Self::Listed([0; 4]);

    /// Adds a year. Ignores a year that cannot be listed.
    pub(crate) fn insert(&mut self, year: i32) {
        if let Self::Listed(words) = self
            && let Ok(bit) = usize::try_from(year - FIRST_YEAR)
            && let Some(word) = words.get_mut(bit / 64)
        {
            *word |= 1 << (bit % 64);
        }
    }

    /// Returns the first matching year from `from` on.
    fn at_or_after(self, from: i32) -> Option<i32> {
        let Self::Listed(words) = self else {
            return Some(from);
        };
        let first = u32::try_from(from.max(FIRST_YEAR) - FIRST_YEAR).ok()?;
        (0u32..).zip(words).find_map(|(index, word)| {
            let bit = first_bit(word, first.saturating_sub(index * 64))?;
            Some(FIRST_YEAR + (index * 64 + bit) as i32)
        })
    }
}

/// The days of a month that match. Weekday masks count from Sunday, bit 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DayRule {
    pub(crate) dates: u32,
    /// Counted from the end of the month: bit 1 is the last day, bit 2 the one before.
    pub(crate) dates_from_end: u32,
    pub(crate) last_workday: bool,
    pub(crate) weekdays: u8,
    /// `[k - 1]`: the weekdays whose k-th occurrence in the month matches.
    pub(crate) nth_weekdays: [u8; 5],
    pub(crate) last_weekdays: u8,
    pub(crate) join: Join,
}

/// How the two day rules combine: a day must match both as a date and as a weekday, or one of them is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    Both,
    Either,
}

impl DayRule {
    pub(crate) const NONE: Self = Self {
        dates: 0,
        dates_from_end: 0,
        last_workday: false,
        weekdays: 0,
        nth_weekdays: [0; 5],
        last_weekdays: 0,
        join: Join::Both,
    };

    /// Returns the matching days, bits 1 to `length`, of a month that starts on weekday `first` (0 is Sunday).
    fn matching(&self, length: u32, first: u32) -> u32 {
        let existing = (u32::MAX >> (31 - length)) & !1;

        // Bit k from the end is day length + 1 - k.
        let from_end = (u64::from(self.dates_from_end.reverse_bits()) << 1) >> (31 - length);
        let mut by_date = self.dates | from_end as u32;
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

/// Rotates a mask of weekdays so that bit 0 is weekday `first`.
fn week_from(weekdays: u8, first: u32) -> u8 {
    let doubled = u16::from(weekdays) | (u16::from(weekdays) << 7);
    (doubled >> first) as u8 & 0x7f
}

impl WallTimes {
    /// Returns the first matching second at or after `wall`, up to the end of `last_year`. If years are listed, the search reaches the last of them.
    pub(crate) fn at_or_after(&self, wall: NaiveDateTime, last_year: i32) -> Option<NaiveDateTime> {
        let wall = if wall.nanosecond() == 0 {
            wall
        } else {
            wall.with_nanosecond(0)? + TimeDelta::seconds(1)
        };
        let first_second = first_bit(self.seconds, 0)?;
        let first_minute = first_bit(self.minutes, 0)?;
        let first_hour = first_bit(self.hours.into(), 0)?;
        let last_year = match self.years {
            Years::Every => last_year,
            Years::Listed(_) => LAST_YEAR,
        };
        let (mut month, mut day) = (wall.month(), wall.day());
        let mut year = self.years.at_or_after(wall.year())?;
        if year > wall.year() {
            (month, day) = (1, 0);
        } else if self.days_of(year, month)? & 1 << day != 0 {
            if self.hours & 1 << wall.hour() != 0 {
                let this_minute = self.minutes & 1 << wall.minute() != 0;
                if let Some(second) = first_bit(self.seconds, wall.second()).filter(|_| this_minute) {
                    return wall.date().and_hms_opt(wall.hour(), wall.minute(), second);
                }
                if let Some(minute) = first_bit(self.minutes, wall.minute() + 1) {
                    return wall.date().and_hms_opt(wall.hour(), minute, first_second);
                }
            }
            if let Some(hour) = first_bit(self.hours.into(), wall.hour() + 1) {
                return wall.date().and_hms_opt(hour, first_minute, first_second);
            }
        }
        while year <= last_year {
            if let Some(day) = first_bit(self.days_of(year, month)?.into(), day + 1) {
                let date = NaiveDate::from_ymd_opt(year, month, day)?;
                return date.and_hms_opt(first_hour, first_minute, first_second);
            }
            day = 0;
            (year, month) = if month == 12 {
                (self.years.at_or_after(year + 1)?, 1)
            } else {
                (year, month + 1)
            };
        }
        None
    }

    /// True if a day matches, whatever the time.
    pub(crate) fn has_day(&self, date: NaiveDate) -> bool {
        self.years.at_or_after(date.year()) == Some(date.year())
            && self
                .days_of(date.year(), date.month())
                .is_some_and(|days| days & 1 << date.day() != 0)
    }

    /// True if year and month match, whatever the day.
    pub(crate) fn has_month(&self, year: i32, month: u32) -> bool {
        self.years.at_or_after(year) == Some(year) && self.months & 1 << month != 0
    }

    fn days_of(&self, year: i32, month: u32) -> Option<u32> {
        if self.months & 1 << month == 0 {
            return Some(0);
        }
        let first = NaiveDate::from_ymd_opt(year, month, 1)?;
        let length = month_length(month, first.leap_year());
        Some(self.days.matching(length, first.weekday().num_days_from_sunday()))
    }

    /// True if any month of any year has a matching day. Each month starts on each weekday sooner or later, and so does
    /// each February of 29 days. Listed years are searched one by one.
    pub(crate) fn has_a_date(&self) -> bool {
        if let Years::Listed(_) = self.years {
            let start = NaiveDate::from_ymd_opt(FIRST_YEAR, 1, 1).and_then(|day| day.and_hms_opt(0, 0, 0));
            return start.is_some_and(|start| self.at_or_after(start, LAST_YEAR).is_some());
        }
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
