//! Slots that systemd loses after a step that runs beyond the end of its unit.
//!
//! Example: in `*:0/7` the minute after 56 is 63 for systemd, and 23:63 is 00:03 of the next day. When a unit rolls
//! over, systemd resets only the next smaller unit to its start. At 00:03 it resets the *hour*, keeps the minute, and
//! so misses 00:00. Therefore `*:0/7` has 23:56 and then 00:07, `0/5:00` has no 00:00 on the first of a month, and
//! `*-*-1/7` has no 1 January. Nothing is lost if the step divides its unit (`0/15`) or has an end (`0..59/7`), or if
//! the day before does not match.
//!
//! Measured with systemd 252. Issue 40260 of systemd repaired January in 2026. Deadbeat follows 252: a slot that
//! systemd misses would raise a false alarm, while a slot that is missing here only makes an alarm later.

use chrono::{Datelike, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

use crate::schedule::wall::WallTimes;

/// The first value of each unit that systemd finds after a step ran beyond the unit's end. 0: nothing is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Overruns {
    /// For the first minute of an hour.
    pub(super) second: u32,
    /// For the first hour of a day.
    pub(super) minute: u32,
    /// For the first day of a month.
    pub(super) hour: u32,
    /// For January.
    pub(super) day: u32,
}

impl Overruns {
    /// Returns the time at which systemd continues its search, if it misses the matching time `wall`.
    pub(super) fn resume(self, times: &WallTimes, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        if self == Self::default() {
            return None;
        }
        let date = wall.date();
        let had_day_before = || date.pred_opt().is_some_and(|day| times.has_day(day));
        if date.month() == 1 && date.day() < self.day && times.has_month(date.year() - 1, 12) {
            return Some(date.with_day(self.day)?.and_time(NaiveTime::MIN));
        }
        if date.day() == 1 && wall.hour() < self.hour && had_day_before() {
            return date.and_hms_opt(self.hour, 0, 0);
        }
        let has_hour = |hour: u32| times.hours & 1 << hour != 0;
        if wall.hour() == 0 && wall.minute() < self.minute && has_hour(23) && had_day_before() {
            return date.and_hms_opt(0, self.minute, 0);
        }
        let minute_before = wall - TimeDelta::minutes(1);
        if wall.minute() == 0
            && wall.second() < self.second
            && times.minutes & 1 << 59 != 0
            && has_hour(minute_before.hour())
            && times.has_day(minute_before.date())
        {
            return date.and_hms_opt(wall.hour(), 0, self.second);
        }
        None
    }
}
