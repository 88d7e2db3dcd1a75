//! Quiet hours: times of the week at which a channel gets only critical alerts. They delay alerts, and drop none.
//!
//! The wall clock of the zone decides: an instant is quiet if that clock shows a quiet time. So a night in which the
//! clock is set back has one more quiet hour. If quiet hours begin or end in a skipped hour, they begin or end when the
//! clock skips it.

use chrono::{DateTime, Datelike, NaiveTime, TimeDelta, Timelike, Utc};
use serde_json::{Value, json};

use crate::monitor::{FieldError, clip};
use crate::schedule::zone::{Reading, Zone};

/// Stretches that one channel may name.
pub const MOST_TIMES: usize = 50;

const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// When a channel is quiet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietHours {
    zone: Zone,
    times: Vec<Times>,
    /// The same times as minutes of a week that begins on Monday: begin and end, disjoint, sorted. An end may lie after
    /// the end of the week.
    minutes: Vec<(u16, u16)>,
}

/// The same hours on some days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// On which days they begin; bit 0 is Monday.
    days: u8,
    /// Minutes after midnight.
    from: u16,
    /// Minutes after midnight. If not after `from`, it means the next day.
    to: u16,
}

impl QuietHours {
    /// Reads the JSON form.
    ///
    /// # Errors
    /// A member is missing, unknown or malformed; the zone does not exist; or the whole week is quiet.
    pub fn from_json(pointer: &str, value: &Value) -> Result<Self, Vec<FieldError>> {
        let mut faults = Vec::new();
        let read = Self::read(pointer, value, &mut faults);
        match read {
            Some(read) if faults.is_empty() => Ok(read),
            _ => Err(faults),
        }
    }

    fn read(pointer: &str, value: &Value, faults: &mut Vec<FieldError>) -> Option<Self> {
        let Some(members) = value.as_object() else {
            let shape = r#"is no object; {"timezone":"Europe/Berlin","times":[{"from":"22:00","to":"07:00"}]} is allowed"#;
            faults.push(FieldError::new(pointer, shape));
            return None;
        };
        unknown(pointer, members.keys(), &["timezone", "times"], faults);
        let zone = match members
            .get("timezone")
            .map(|name| name.as_str().map(str::parse::<Zone>))
        {
            Some(Some(Ok(zone))) => Some(zone),
            Some(Some(Err(error))) => {
                faults.push(FieldError::new(format!("{pointer}/timezone"), error.to_string()));
                None
            }
            _ => {
                let message = "must be the IANA name of a time zone, such as Europe/Berlin";
                faults.push(FieldError::new(format!("{pointer}/timezone"), message));
                None
            }
        };
        let times = members.get("times").and_then(Value::as_array);
        let Some(times) = times.filter(|times| (1..=MOST_TIMES).contains(&times.len())) else {
            let message = format!(
                "must be a list of 1 to {MOST_TIMES} stretches, such as {{\"from\":\"22:00\",\"to\":\"07:00\"}}"
            );
            faults.push(FieldError::new(format!("{pointer}/times"), message));
            return None;
        };
        let times: Vec<Option<Times>> = times
            .iter()
            .enumerate()
            .map(|(index, one)| Times::read(&format!("{pointer}/times/{index}"), one, faults))
            .collect();
        let times: Vec<Times> = times.into_iter().collect::<Option<_>>()?;
        let minutes = union(&times);
        if minutes == [(0, WEEK)] {
            let message = "makes the whole week quiet: alerts would wait forever";
            faults.push(FieldError::new(format!("{pointer}/times"), message));
        }
        Some(Self {
            zone: zone?,
            times,
            minutes,
        })
    }

    /// The JSON form, as people wrote it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let times: Vec<Value> = self.times.iter().copied().map(Times::to_json).collect();
        json!({"timezone": self.zone.name(), "times": times})
    }

    /// Returns the end of the quiet stretch that contains `at`. None: `at` is not quiet.
    #[must_use]
    pub fn until(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let wall = self.zone.wall_at(at);
        let minute = wall.weekday().num_days_from_monday() as u16 * DAY
            + wall.hour() as u16 * 60
            + wall.minute() as u16;
        let left = self.minutes.iter().find_map(|(from, to)| {
            // The stretch may have begun last week.
            let minute = if minute < *from { minute + WEEK } else { minute };
            (minute < *to).then(|| to - minute)
        })?;
        let began = wall.with_second(0)?.with_nanosecond(0)?;
        let end = match self.zone.read(began + TimeDelta::minutes(left.into()))? {
            Reading::Once(end) => end,
            Reading::Twice(first, second) => {
                if first > at {
                    first
                } else {
                    second
                }
            }
            Reading::Skipped { gap_end, .. } => gap_end,
        };
        // The end lies after `at`, unless the zone's data are inconsistent. Never return a time in the past.
        Some(if end > at { end } else { at + TimeDelta::seconds(1) })
    }
}

impl Times {
    fn read(pointer: &str, value: &Value, faults: &mut Vec<FieldError>) -> Option<Self> {
        let Some(members) = value.as_object() else {
            faults.push(FieldError::new(
                pointer,
                r#"is no object; {"days":["sat","sun"],"from":"00:00","to":"24:00"} is allowed"#,
            ));
            return None;
        };
        unknown(pointer, members.keys(), &["days", "from", "to"], faults);
        let days = match members.get("days") {
            None => Some(0x7f),
            Some(days) => read_days(days).or_else(|| {
                let message = format!("must be a list of one or more of {}", DAYS.join(", "));
                faults.push(FieldError::new(format!("{pointer}/days"), message));
                None
            }),
        };
        let mut time = |member: &str, latest: u16| {
            let found = members.get(member).and_then(Value::as_str);
            let minutes = found.and_then(read_time).filter(|minutes| *minutes <= latest);
            if minutes.is_none() {
                let found = found.map_or_else(
                    || "is missing or not a text".to_owned(),
                    |text| format!("is {:?}", clip(text)),
                );
                let message = format!("{found}; a time from 00:00 to {} is allowed", show_time(latest));
                faults.push(FieldError::new(format!("{pointer}/{member}"), message));
            }
            minutes
        };
        let (from, to) = (time("from", DAY - 1), time("to", DAY));
        Some(Self {
            days: days?,
            from: from?,
            to: to?,
        })
    }

    fn to_json(self) -> Value {
        let days: Vec<&str> = (0..7)
            .filter(|day| self.days & 1 << day != 0)
            .map(|day| DAYS[day])
            .collect();
        json!({"days": days, "from": show_time(self.from), "to": show_time(self.to)})
    }

    fn length(self) -> u16 {
        if self.to > self.from {
            self.to - self.from
        } else {
            self.to + DAY - self.from
        }
    }
}

/// The disjoint stretches of the week that these times cover.
fn union(times: &[Times]) -> Vec<(u16, u16)> {
    let mut is_quiet = vec![false; usize::from(WEEK)];
    for times in times {
        for day in (0..7u16).filter(|day| times.days & 1 << day != 0) {
            for minute in 0..times.length() {
                is_quiet[usize::from((day * DAY + times.from + minute) % WEEK)] = true;
            }
        }
    }
    let mut stretches: Vec<(u16, u16)> = Vec::new();
    for (minute, _) in (0..WEEK).zip(&is_quiet).filter(|(_, is_quiet)| **is_quiet) {
        match stretches.last_mut() {
            Some((_, to)) if *to == minute => *to += 1,
            _ => stretches.push((minute, minute + 1)),
        }
    }
    // Join a stretch that crosses the end of the week.
    if let [(0, first), .., (_, WEEK)] = stretches[..] {
        stretches.remove(0);
        if let Some((_, to)) = stretches.last_mut() {
            *to += first;
        }
    }
    stretches
}

fn read_days(value: &Value) -> Option<u8> {
    let names = value
        .as_array()
        .filter(|names| !names.is_empty() && names.len() <= 7)?;
    names.iter().try_fold(0, |days, name| {
        let name = name.as_str()?;
        let day = DAYS.iter().position(|day| *day == name)?;
        Some(days | 1 << day)
    })
}

/// `HH:MM`, and `24:00` as the end of a day.
fn read_time(text: &str) -> Option<u16> {
    if text == "24:00" {
        return Some(DAY);
    }
    if text.len() != 5 {
        return None;
    }
    let time = NaiveTime::parse_from_str(text, "%H:%M").ok()?;
    Some(time.hour() as u16 * 60 + time.minute() as u16)
}

fn show_time(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// Adds a fault for each member that is not allowed.
pub(super) fn unknown<'a>(
    pointer: &str,
    members: impl Iterator<Item = &'a String>,
    allowed: &[&str],
    faults: &mut Vec<FieldError>,
) {
    for member in members.filter(|member| !allowed.contains(&member.as_str())) {
        let name = member.replace('~', "~0").replace('/', "~1");
        let message = format!("is unknown; one of {} is allowed", allowed.join(", "));
        faults.push(FieldError::new(format!("{pointer}/{name}"), message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn quiet(times: Value) -> QuietHours {
        QuietHours::from_json("", &json!({"timezone": "Europe/Berlin", "times": times})).unwrap()
    }

    #[test]
    fn it_is_quiet_when_the_clock_of_the_zone_shows_a_quiet_time() {
        let nights = quiet(json!([{"from": "22:00", "to": "07:00"}]));
        let weekend = quiet(json!([{"days": ["sat", "sun"], "from": "00:00", "to": "24:00"}]));
        let sunday_night = quiet(json!([{"days": ["sun"], "from": "22:00", "to": "07:00"}]));
        let merged = quiet(json!([
            {"from": "22:00", "to": "02:00"}, {"from": "01:00", "to": "05:00"}, {"days": ["mon"], "from": "05:00", "to": "06:00"}
        ]));
        for (hours, now, until) in [
            // A winter night: UTC+1.
            (&nights, "2026-01-07T20:59:59Z", None),
            (&nights, "2026-01-07T21:00:00Z", Some("2026-01-08T06:00:00Z")),
            (&nights, "2026-01-08T05:59:59.5Z", Some("2026-01-08T06:00:00Z")),
            (&nights, "2026-01-08T06:00:00Z", None),
            // From Sunday to Monday, which is the end of the week.
            (&nights, "2026-01-11T22:00:00Z", Some("2026-01-12T06:00:00Z")),
            (&nights, "2026-01-12T01:00:00Z", Some("2026-01-12T06:00:00Z")),
            // The night that lacks an hour, and the night that has an extra hour.
            (&nights, "2026-03-28T22:00:00Z", Some("2026-03-29T05:00:00Z")),
            (&nights, "2026-10-24T21:00:00Z", Some("2026-10-25T06:00:00Z")),
            (&weekend, "2026-01-09T22:59:59Z", None),
            (&weekend, "2026-01-09T23:00:00Z", Some("2026-01-11T23:00:00Z")),
            (&weekend, "2026-01-11T23:00:00Z", None),
            (
                &sunday_night,
                "2026-01-12T03:00:00Z",
                Some("2026-01-12T06:00:00Z"),
            ),
            (&sunday_night, "2026-01-13T03:00:00Z", None),
            (&merged, "2026-01-06T21:30:00Z", Some("2026-01-07T04:00:00Z")),
            (&merged, "2026-01-11T21:30:00Z", Some("2026-01-12T05:00:00Z")),
        ] {
            assert_eq!(hours.until(at(now)), until.map(at), "{now} {}", hours.to_json());
        }
    }

    #[test]
    fn a_skipped_or_repeated_hour_never_ends_quiet_hours_in_the_past() {
        // On 2026-03-29 the clock jumps from 02:00 to 03:00; on 2026-10-25 it goes back from 03:00 to 02:00.
        let to_half_past_two = quiet(json!([{"from": "22:00", "to": "02:30"}]));
        let from_half_past_two = quiet(json!([{"from": "02:30", "to": "06:00"}]));
        for (hours, now, until) in [
            (
                &to_half_past_two,
                "2026-03-28T23:00:00Z",
                Some("2026-03-29T01:00:00Z"),
            ),
            (&to_half_past_two, "2026-03-29T01:00:00Z", None),
            (&from_half_past_two, "2026-03-29T00:59:00Z", None),
            (
                &from_half_past_two,
                "2026-03-29T01:00:00Z",
                Some("2026-03-29T04:00:00Z"),
            ),
            // 02:15 and 02:30 twice: at 00:15 and 00:30, then at 01:15 and 01:30.
            (
                &to_half_past_two,
                "2026-10-25T00:15:00Z",
                Some("2026-10-25T00:30:00Z"),
            ),
            (&to_half_past_two, "2026-10-25T00:45:00Z", None),
            (
                &to_half_past_two,
                "2026-10-25T01:15:00Z",
                Some("2026-10-25T01:30:00Z"),
            ),
            (
                &from_half_past_two,
                "2026-10-25T00:45:00Z",
                Some("2026-10-25T05:00:00Z"),
            ),
            (&from_half_past_two, "2026-10-25T01:15:00Z", None),
        ] {
            assert_eq!(hours.until(at(now)), until.map(at), "{now} {}", hours.to_json());
        }
        // Each minute around both changes: quiet hours always end after now.
        for start in ["2026-03-28T22:00:00Z", "2026-10-24T22:00:00Z"] {
            for minute in 0..480 {
                let now = at(start) + TimeDelta::minutes(minute);
                for hours in [&to_half_past_two, &from_half_past_two] {
                    assert!(hours.until(now).is_none_or(|until| until > now), "{now}");
                }
            }
        }
    }

    #[test]
    fn bad_quiet_hours_are_refused_where_the_fault_is() {
        let zone = "Europe/Berlin";
        let good = json!({"from": "22:00", "to": "07:00"});
        for (value, pointer) in [
            (json!(7), "/q"),
            (json!([]), "/q"),
            (json!({}), "/q/timezone"),
            (
                json!({"timezone": "Europe/Atlantis", "times": [good]}),
                "/q/timezone",
            ),
            (json!({"timezone": 7, "times": [good]}), "/q/timezone"),
            (json!({"timezone": zone}), "/q/times"),
            (json!({"timezone": zone, "times": []}), "/q/times"),
            (
                json!({"timezone": zone, "times": vec![good.clone(); 51]}),
                "/q/times",
            ),
            (json!({"timezone": zone, "times": [good], "mood": 1}), "/q/mood"),
            (json!({"timezone": zone, "times": [7]}), "/q/times/0"),
            (
                json!({"timezone": zone, "times": [good, {"from": "22:00"}]}),
                "/q/times/1/to",
            ),
            (
                json!({"timezone": zone, "times": [{"from": "24:00", "to": "07:00"}]}),
                "/q/times/0/from",
            ),
            (
                json!({"timezone": zone, "times": [{"from": "7:00", "to": "08:00"}]}),
                "/q/times/0/from",
            ),
            (
                json!({"timezone": zone, "times": [{"from": "07:00", "to": "08:60"}]}),
                "/q/times/0/to",
            ),
            (
                json!({"timezone": zone, "times": [{"from": "07:00", "to": "08:00", "days": []}]}),
                "/q/times/0/days",
            ),
            (
                json!({"timezone": zone, "times": [{"from": "07:00", "to": "08:00", "days": ["Mon"]}]}),
                "/q/times/0/days",
            ),
            (
                json!({"timezone": zone, "times": [{"from": "07:00", "to": "07:00"}]}),
                "/q/times",
            ),
            (
                json!({"timezone": zone, "times": [{"from": "00:00", "to": "12:00"}, {"from": "12:00", "to": "24:00"}]}),
                "/q/times",
            ),
            (
                json!({"timezone": zone, "times": [{"from": "18:00", "to": "06:00"}, {"from": "05:00", "to": "18:00"}]}),
                "/q/times",
            ),
        ] {
            let faults = QuietHours::from_json("/q", &value).unwrap_err();

            assert_eq!(faults[0].pointer, pointer, "{value}: {faults:?}");
        }
    }
}
