//! What systemd loses behind a step that runs over the end of its unit.
//!
//! In `*:0/7` the minute after 56 is 63 for systemd, and 23:63 is 00:03 of the next day. When a unit turns
//! over, the one below it is set back to its start, but no further: at 00:03 the *hour* is set back, the
//! minute stays, and 00:00 is passed over. So `*:0/7` has 23:56 and then 00:07, `0/5:00` has no 00:00 on the
//! first of a month, and `*-*-1/7` has no 1 January. Steps that divide their unit (`0/15`) or have an end
//! (`0..59/7`) lose nothing, nor does a day whose day before does not match.
//!
//! Measured with systemd 252; the repair of its issue 40260, in 2026, is for January. A slot that systemd
//! passes over would be a false alarm, one that is missing here only a later one: so what 252 loses is no slot.

use chrono::{Datelike, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

use crate::schedule::wall::WallTimes;

/// The first value of each unit that is found after a step ran over the unit's end; 0 if nothing is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Overruns {
    /// In the first minute of an hour.
    pub(super) second: u32,
    /// In the first hour of a day.
    pub(super) minute: u32,
    /// On the first day of a month.
    pub(super) hour: u32,
    /// In January.
    pub(super) day: u32,
}

impl Overruns {
    /// Where systemd goes on if it passes over a matching time.
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
