//! Where the sun is.
use chrono::{DateTime, Utc};

/// What the sun does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SolarEvent {
    /// Sunrise.
    Sunrise,
}

/// An event at a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solar {
    event: SolarEvent,
    latitude: f64,
    longitude: f64,
}

/// Why a place is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SolarError {
    /// `latitude` or `longitude`.
    pub field: &'static str,
    /// What was found and what is allowed.
    pub message: String,
}

impl SolarEvent {
    /// All, in the order of a day.
    pub const ALL: [Self; 1] = [Self::Sunrise];

    /// By Celery's name: `dawn_civil`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// Celery's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        "sunrise"
    }

    /// As a person says it: "civil dawn".
    #[must_use]
    pub fn words(self) -> &'static str {
        "sunrise"
    }
}

impl Solar {
    /// An event at a place, in degrees north and east.
    ///
    /// # Errors
    /// For a place that is not on the globe.
    pub fn new(_event: SolarEvent, _latitude: f64, _longitude: f64) -> Result<Self, SolarError> {
        Err(SolarError {
            field: "event",
            message: "solar is not there yet".to_owned(),
        })
    }

    /// What the sun does.
    #[must_use]
    pub fn event(&self) -> SolarEvent {
        self.event
    }

    /// Degrees north.
    #[must_use]
    pub fn latitude(&self) -> f64 {
        self.latitude
    }

    /// Degrees east.
    #[must_use]
    pub fn longitude(&self) -> f64 {
        self.longitude
    }

    /// The next time strictly after `after`.
    #[must_use]
    pub fn next_after(&self, _after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        None
    }
}
