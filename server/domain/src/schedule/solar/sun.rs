//! The position of the sun over a place.

#[cfg(test)]
mod tests;

use std::f64::consts::{PI, TAU};

use chrono::{DateTime, Utc};
use solar_positioning::{Location, SolarPositions, delta_t, time::JulianDate};

const SECONDS_PER_DAY: f64 = 86_400.0;
const JULIAN_DATE_OF_UNIX_EPOCH: f64 = 2_440_587.5;
const JULIAN_DATE_OF_2000: f64 = 2_451_545.0;
/// PyEphem's units: an astronomical unit of 149,597,870 km over an equatorial radius of 6,378.16 km.
const EARTH_RADII_PER_AU: f64 = 149_597_870.0 / 6_378.16;
const EARTH_FLATTENING: f64 = 1.0 / 298.257;
/// The sun's radius in astronomical units, as in PyEphem.
const SUN_RADIUS_AU: f64 = 4.652_42e-3;

/// A place on the earth's ellipsoid, at sea level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) latitude_sin: f64,
    pub(super) latitude_cos: f64,
    /// The longitude in radians, east.
    longitude: f64,
    /// Distance from the earth's axis and from the plane of its equator, in equatorial radii.
    from_axis: f64,
    from_equator: f64,
}

impl Place {
    /// Makes a place at `latitude` degrees north and `longitude` degrees east.
    pub(super) fn new(latitude: f64, longitude: f64) -> Self {
        let (sin, cos) = latitude.to_radians().sin_cos();
        let eccentricity_squared = EARTH_FLATTENING * (2.0 - EARTH_FLATTENING);
        let normal = 1.0 / (1.0 - eccentricity_squared * sin * sin).sqrt();
        Self {
            latitude_sin: sin,
            latitude_cos: cos,
            longitude: longitude.to_radians(),
            from_axis: normal * cos,
            from_equator: normal * (1.0 - eccentricity_squared) * sin,
        }
    }
}

/// The sun as seen from a place. Angles in radians.
pub(super) struct Sight {
    /// The hour angle of the sun's centre, westwards from the meridian.
    pub(super) hour_angle: f64,
    pub(super) declination: f64,
    /// Half of the sun's apparent diameter.
    pub(super) radius: f64,
}

/// The instant from which a search counts its days.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    julian_date: f64,
    /// The fraction of the day in UTC, 0 to 1.
    fraction_of_day: f64,
    /// Terrestrial time minus universal time, in seconds.
    delta_t: f64,
}

impl Origin {
    pub(super) fn at(instant: DateTime<Utc>) -> Self {
        let seconds = instant.timestamp();
        let fraction = f64::from(instant.timestamp_subsec_micros().min(999_999)) / 1e6;
        let days = (seconds as f64 + fraction) / SECONDS_PER_DAY;
        let julian_date = JULIAN_DATE_OF_UNIX_EPOCH + days;
        Self {
            julian_date,
            fraction_of_day: (seconds.rem_euclid(86_400) as f64 + fraction) / SECONDS_PER_DAY,
            delta_t: delta_t_of_pyephem(2000.0 + (julian_date - JULIAN_DATE_OF_2000) / 365.25),
        }
    }

    /// Returns the mean tilt of the earth's axis in radians, correct within an arcsecond for thousands of years (IAU 1980).
    pub(super) fn tilt(&self) -> f64 {
        let centuries = (self.julian_date - JULIAN_DATE_OF_2000) / 36_525.0;
        let arcseconds = 84_381.448 + centuries * (-46.815 + centuries * (-0.000_59 + centuries * 0.001_813));
        (arcseconds / 3_600.0).to_radians()
    }
}

/// The sun during one day, or somewhat longer.
///
/// A full position takes 7 µs, hundreds of times as long as a point on a parabola, and a search computes up to seven
/// positions a day. Three positions 13 hours apart fix parabolas that differ from the positions by less than 0.01
/// arcseconds.
pub(super) struct Day {
    origin: Origin,
    middle: f64,
    /// The true sun's hour angle minus the mean sun's.
    equation_of_time: Parabola,
    declination: Parabola,
    distance_au: Parabola,
}

impl Day {
    /// Returns the day from `start`, with an hour before it and after it. `start` counts in days from the origin.
    ///
    /// None outside the years -2000 to 6000.
    pub(super) fn from(origin: Origin, start: f64) -> Option<Self> {
        let middle = start + 0.5;
        let before = Position::at(origin, middle - Parabola::STEP)?;
        let central = Position::at(origin, middle)?;
        let later = Position::at(origin, middle + Parabola::STEP)?;
        let through = |value: fn(&Position) -> f64| {
            let values = [&before, &central, &later].map(value);
            Parabola::through(values)
        };
        Some(Self {
            origin,
            middle,
            equation_of_time: through(|position| position.equation_of_time),
            declination: through(|position| position.declination),
            distance_au: through(|position| position.distance_au),
        })
    }

    /// Returns the hour angle of the sun as seen from the earth's centre, west of the place's meridian. Not normalised.
    pub(super) fn hour_angle(&self, place: &Place, days: f64) -> f64 {
        let mean_sun = (self.origin.fraction_of_day + days) * TAU - PI;
        mean_sun + self.equation_of_time.at(days - self.middle) + place.longitude
    }

    /// Returns the declination in radians, and how much it grows in a day.
    pub(super) fn declination(&self, days: f64) -> (f64, f64) {
        let offset = days - self.middle;
        (
            self.declination.at(offset),
            self.declination.slope + 2.0 * self.declination.bend * offset,
        )
    }

    pub(super) fn sight(&self, place: &Place, days: f64) -> Sight {
        let offset = days - self.middle;
        let (hour_sin, hour_cos) = self.hour_angle(place, days).sin_cos();
        let (declination_sin, declination_cos) = self.declination.at(offset).sin_cos();
        let distance = self.distance_au.at(offset) * EARTH_RADII_PER_AU;
        // The vector from the place to the sun: towards the meridian, west, and north, in radii of the earth.
        let meridian = distance * declination_cos * hour_cos - place.from_axis;
        let west = distance * declination_cos * hour_sin;
        let north = distance * declination_sin - place.from_equator;
        let on_equator = meridian.hypot(west);
        Sight {
            hour_angle: west.atan2(meridian),
            declination: north.atan2(on_equator),
            radius: SUN_RADIUS_AU * EARTH_RADII_PER_AU / on_equator.hypot(north),
        }
    }
}

/// The sun as seen from the earth's centre.
struct Position {
    equation_of_time: f64,
    declination: f64,
    distance_au: f64,
}

impl Position {
    fn at(origin: Origin, days: f64) -> Option<Self> {
        let julian_date = origin.julian_date + days;
        let time = JulianDate::new(julian_date, origin.delta_t).ok()?;
        let sun = SolarPositions::new().for_time_from_julian(time).ok()?;
        // At the north pole the azimuth is the hour angle, counted from midnight. The crate does not return the hour
        // angle itself.
        let pole = Location {
            latitude: 90.0,
            longitude: 0.0,
        };
        let azimuth = sun.at(pole, 0.0, None).ok()?.azimuth().to_radians();
        let since_midnight = (julian_date - 0.5).rem_euclid(1.0) * TAU;
        Some(Self {
            equation_of_time: wrapped(azimuth - since_midnight),
            declination: sun.declination().to_radians(),
            distance_au: sun.earth_radius_vector()?,
        })
    }
}

/// A parabola through three values at equal distances. Its argument is the offset from the middle one.
struct Parabola {
    value: f64,
    slope: f64,
    bend: f64,
}

impl Parabola {
    const STEP: f64 = 13.0 / 24.0;

    fn through([before, central, later]: [f64; 3]) -> Self {
        Self {
            value: central,
            slope: (later - before) / (2.0 * Self::STEP),
            bend: (later - 2.0 * central + before) / (2.0 * Self::STEP * Self::STEP),
        }
    }

    fn at(&self, offset: f64) -> f64 {
        self.value + (self.slope + self.bend * offset) * offset
    }
}

/// Wraps an angle into the range from half a turn back to half a turn forward.
pub(super) fn wrapped(angle: f64) -> f64 {
    (angle + PI).rem_euclid(TAU) - PI
}

/// Returns terrestrial time minus universal time in seconds, as in PyEphem 4.2, within a second. `year` has a fraction.
///
/// PyEphem predicts a larger difference than astronomers expect today: 91 s in 2040 rather than 74. The sun moves an
/// arcsecond in 24 s, so the error shows only close to the polar circles.
fn delta_t_of_pyephem(year: f64) -> f64 {
    if year < 2018.0 {
        return delta_t::estimate(year).unwrap_or(0.0);
    }
    if year < 2119.0 {
        let since_2020 = year - 2020.0;
        return 69.800_2
            + since_2020 * (0.478_868_4 + since_2020 * (0.031_483_41 - since_2020 * 0.000_164_599_2));
    }
    let centuries = (year - 1820.0) / 100.0;
    32.0 * centuries * centuries - 20.0
}
