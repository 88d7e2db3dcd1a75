//! Rotations: compute which person is on call.
//!
//! A rotation has **layers**. In each layer, people take **turns** of a day or a week. Turns repeat without beginning
//! or end; the layer's first date only says whose turn begins then. A layer may be limited to certain hours and
//! weekdays. While a later layer is active, it replaces the earlier ones. The first layer is always active, so exactly
//! one person is on call at any time. An **override** replaces all layers.
//!
//! All times are local times of the rotation's zone. They follow the rule of fixed times in crontabs
//! ([`crate::schedule::cron`]). A time that the clock skips means the end of the gap. A time that the clock shows twice
//! means the first of the two.

mod reading;
mod shifts;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::ChannelId;
use crate::schedule::zone::Zone;

pub use self::shifts::Shift;

/// A rotation as the API and the database write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotationSettings {
    /// Its name for people.
    pub name: String,
    /// The zone of all its times: an IANA name.
    pub timezone: String,
    /// The people who take part.
    pub people: Vec<Person>,
    /// The layers of turns. The first layer is always active. While a later layer is active, it replaces the earlier
    /// ones.
    pub layers: Vec<LayerSettings>,
    /// The overrides. If two overlap, the later one in the list counts.
    #[serde(default)]
    pub overrides: Vec<OverrideSettings>,
}

/// A person who takes part in a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The person's name, which is unique in the rotation.
    pub name: String,
    /// The channels that reach the person, best first.
    pub channels: Vec<ChannelId>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerSettings {
    /// The names of the people who take turns, in this order. A name may occur more than once.
    pub people: Vec<String>,
    /// How long a turn is.
    pub handover: Handover,
    /// The local time of the handover: `09:00`.
    pub at: String,
    /// The date on which a turn of the first person begins: `2026-10-05`. With weekly handover, this is also the
    /// weekday.
    pub starts_on: String,
    /// When the layer is active. None: always.
    #[serde(default)]
    pub only: Option<HoursSettings>,
}

/// How long a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handover {
    /// A day.
    Daily,
    /// A week.
    Weekly,
}

impl Handover {
    fn days(self) -> i64 {
        match self {
            Self::Daily => 1,
            Self::Weekly => 7,
        }
    }
}

/// The hours of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoursSettings {
    /// On which weekdays they begin. None: on all.
    #[serde(default)]
    pub weekdays: Option<Vec<Weekday>>,
    /// When they begin: `18:00`.
    pub from: String,
    /// When they end: `08:00`. If this is not after `from`, they end on the next day.
    pub to: String,
}

/// A weekday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names say all")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A stretch of time in which one person replaces all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideSettings {
    /// The person's name.
    pub person: String,
    /// The local date or time of its beginning: `2026-12-24`, `2026-12-24T09:00`.
    pub from: String,
    /// The local date or time of its end. A date means its first instant, so an override `until` a date ends before
    /// that date.
    pub until: String,
}

/// A rotation whose settings were checked ([`Rotation::read`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    settings: RotationSettings,
    zone: Zone,
    layers: Vec<Layer>,
    overrides: Vec<Override>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    /// Places in the list of people.
    people: Vec<usize>,
    handover: Handover,
    at: NaiveTime,
    starts_on: NaiveDate,
    only: Option<Hours>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hours {
    /// Bit n stands for n days after Monday.
    weekdays: u8,
    from: NaiveTime,
    to: NaiveTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Override {
    person: usize,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Rotation {
    /// The checked settings, with names in their normal form.
    #[must_use]
    pub fn settings(&self) -> &RotationSettings {
        &self.settings
    }

    /// The zone of its times.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// Every channel that it names.
    pub fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.settings
            .people
            .iter()
            .flat_map(|person| person.channels.iter().copied())
    }
}

impl Person {
    /// The person's channel for a round of an escalation, counted from 0. Each round takes the next usable channel.
    /// None: no channel is usable.
    #[must_use]
    pub fn channel(&self, round: u32, is_usable: impl Fn(ChannelId) -> bool) -> Option<ChannelId> {
        let usable: Vec<ChannelId> = self
            .channels
            .iter()
            .copied()
            .filter(|id| is_usable(*id))
            .collect();
        let place = usize::try_from(round).unwrap_or(0).checked_rem(usable.len())?;
        usable.get(place).copied()
    }
}

/// The instant of a local time. The top of this file has the rule for skipped and repeated times.
fn instant(zone: Zone, date: NaiveDate, time: NaiveTime) -> DateTime<Utc> {
    zone.first_showing(date.and_time(time))
        // The date is beyond the years of the zone data. `reading` refuses such dates.
        .unwrap_or_else(|| date.and_time(time).and_utc())
}

/// A date some days later.
fn later(date: NaiveDate, days: i64) -> NaiveDate {
    date.checked_add_signed(TimeDelta::days(days)).unwrap_or(date)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
