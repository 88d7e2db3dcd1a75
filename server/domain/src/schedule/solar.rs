//! Solar events as Celery computes them: `celery.schedules.solar`, which asks PyEphem for the next dawn, sunrise, noon
//! or dusk.
//!
//! The slot is the time at which Beat will send the task, not the true time of the event. So this module follows
//! PyEphem's search step by step: its horizons, its way of skipping days without the event, and its limit of 366 such
//! days. Only the position of the sun comes from another source: `solar-positioning`, which agrees with PyEphem within
//! an arcsecond. `docs/schedules.md` says how far the results differ, and where the two may name different days.

mod search;
mod sun;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Datelike, Utc};

use self::search::{Crossing, Search};
use self::sun::Place;

/// The years that have slots. Beyond them the theory of the earth's orbit no longer holds.
const YEARS: std::ops::RangeInclusive<i32> = 1..=5_998;

/// Celery's nine solar events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SolarEvent {
    /// The sun's centre rises past 18 degrees below the horizon.
    DawnAstronomical,
    /// The sun's centre rises past 12 degrees below the horizon.
    DawnNautical,
    /// The sun's centre rises past 6 degrees below the horizon.
    DawnCivil,
    /// The sun's upper edge appears, with 34 arcminutes of refraction.
    Sunrise,
    /// The sun crosses the meridian.
    SolarNoon,
    /// The sun's upper edge disappears, with 34 arcminutes of refraction.
    Sunset,
    /// The sun's centre sinks past 6 degrees below the horizon.
    DuskCivil,
    /// The sun's centre sinks past 12 degrees below the horizon.
    DuskNautical,
    /// The sun's centre sinks past 18 degrees below the horizon.
    DuskAstronomical,
}

/// An event at a place on the globe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solar {
    event: SolarEvent,
    latitude: f64,
    longitude: f64,
}

/// The reason why a place is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SolarError {
    /// `latitude` or `longitude`.
    pub field: &'static str,
    /// A message for a person: the faulty value, and the allowed ones.
    pub message: String,
}

impl SolarEvent {
    /// Every event, in the order of a day.
    pub const ALL: [Self; 9] = [
        Self::DawnAstronomical,
        Self::DawnNautical,
        Self::DawnCivil,
        Self::Sunrise,
        Self::SolarNoon,
        Self::Sunset,
        Self::DuskCivil,
        Self::DuskNautical,
        Self::DuskAstronomical,
    ];

    /// Finds an event by Celery's name: `dawn_civil`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// Returns Celery's name of the event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DawnAstronomical => "dawn_astronomical",
            Self::DawnNautical => "dawn_nautical",
            Self::DawnCivil => "dawn_civil",
            Self::Sunrise => "sunrise",
            Self::SolarNoon => "solar_noon",
            Self::Sunset => "sunset",
            Self::DuskCivil => "dusk_civil",
            Self::DuskNautical => "dusk_nautical",
            Self::DuskAstronomical => "dusk_astronomical",
        }
    }

    /// Describes the event in words: "civil dawn".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::DawnAstronomical => "astronomical dawn",
            Self::DawnNautical => "nautical dawn",
            Self::DawnCivil => "civil dawn",
            Self::Sunrise => "sunrise",
            Self::SolarNoon => "solar noon",
            Self::Sunset => "sunset",
            Self::DuskCivil => "civil dusk",
            Self::DuskNautical => "nautical dusk",
            Self::DuskAstronomical => "astronomical dusk",
        }
    }

    /// Returns the event as a crossing of the horizon. None for noon.
    fn crossing(self) -> Option<Crossing> {
        match self {
            Self::DawnAstronomical => Some(Crossing::rising_centre(-18.0)),
            Self::DawnNautical => Some(Crossing::rising_centre(-12.0)),
            Self::DawnCivil => Some(Crossing::rising_centre(-6.0)),
            Self::Sunrise => Some(Crossing::RISING_EDGE),
            Self::SolarNoon => None,
            Self::Sunset => Some(Crossing::SETTING_EDGE),
            Self::DuskCivil => Some(Crossing::setting_centre(-6.0)),
            Self::DuskNautical => Some(Crossing::setting_centre(-12.0)),
            Self::DuskAstronomical => Some(Crossing::setting_centre(-18.0)),
        }
    }
}

impl Solar {
    /// Makes a schedule of an event at a place: `latitude` in degrees north of the equator, `longitude` in degrees east of Greenwich.
    ///
    /// # Errors
    /// If the latitude is outside -90 to 90, the longitude is outside -180 to 180, or one of them is not a finite
    /// number.
    pub fn new(event: SolarEvent, latitude: f64, longitude: f64) -> Result<Self, SolarError> {
        check("latitude", latitude, 90.0, "north")?;
        check("longitude", longitude, 180.0, "east")?;
        Ok(Self {
            event,
            latitude,
            longitude,
        })
    }

    /// Returns the event.
    #[must_use]
    pub fn event(&self) -> SolarEvent {
        self.event
    }

    /// Degrees north of the equator, -90 to 90.
    #[must_use]
    pub fn latitude(&self) -> f64 {
        self.latitude
    }

    /// Degrees east of Greenwich, -180 to 180.
    #[must_use]
    pub fn longitude(&self) -> f64 {
        self.longitude
    }

    /// Returns the time at which Celery runs the task next, if it last ran at `after`. Always later than `after`; in
    /// microseconds.
    ///
    /// If the event does not come on 366 days in a row, the result is the end of Celery's search, because Celery then
    /// runs the task as well. At the poles the search ends after a year and a day. None outside the years 1 to 5998.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if !YEARS.contains(&after.year()) {
            return None;
        }
        let search = Search::from(after, Place::new(self.latitude, self.longitude));
        match self.event.crossing() {
            Some(crossing) => search.next_crossing(&crossing),
            None => search.next_noon(),
        }
    }
}

fn check(field: &'static str, degrees: f64, limit: f64, towards: &str) -> Result<(), SolarError> {
    if degrees.abs() <= limit {
        return Ok(());
    }
    Err(SolarError {
        field,
        message: format!("{field} is from -{limit} to {limit} degrees {towards}, not {degrees}"),
    })
}
