//! PyEphem's search for the next crossing of the horizon, and Celery's treatment of days without one.
//!
//! Their names in the originals: `Observer.next_rising`, `next_setting`, `next_transit` and `next_antitransit` of
//! PyEphem 4.2, `solar._next_event` of Celery 5.7.

#[cfg(test)]
mod tests;

use std::f64::consts::{FRAC_PI_2, PI, TAU};

use chrono::{DateTime, TimeDelta, Utc};

use super::sun::{Day, Origin, Place, Sight, wrapped};
use crate::time::to_micros;

/// Celery's `max_search_days`.
const MAX_SEARCH_DAYS: u32 = 366;
/// PyEphem's `rise_set_iterations`.
const ITERATIONS: u32 = 7;
/// A tenth of a second, in days: PyEphem's `default_newton_precision`. The search stops at a step this short.
const PRECISION: f64 = 0.1 / 86_400.0;
/// One second, in days. An event this shortly after the last run is the event of that run.
///
/// PyEphem's bounds are 0.1 s for risings and settings, and 0.2 ms for transits. This bound is as wide as the two
/// computations may differ. Otherwise a run at Celery's time would be followed at once by a slot for the same event.
const SAME_EVENT: f64 = 1.0 / 86_400.0;
const MICROSECONDS_PER_DAY: f64 = 86_400e6;

/// A crossing of the horizon to search for.
pub(super) struct Crossing {
    /// Radians above the horizon, without refraction.
    altitude: f64,
    edge: Edge,
    direction: Direction,
}

enum Edge {
    Upper,
    Centre,
}

enum Direction {
    Rising,
    Setting,
}

impl Crossing {
    /// The sun's upper edge appears; refraction lifts it by 34 arcminutes.
    pub(super) const RISING_EDGE: Self = Self {
        altitude: -34.0 / 60.0 * (PI / 180.0),
        edge: Edge::Upper,
        direction: Direction::Rising,
    };
    /// The sun's upper edge disappears.
    pub(super) const SETTING_EDGE: Self = Self {
        direction: Direction::Setting,
        ..Self::RISING_EDGE
    };

    /// Makes the crossing at which the sun's centre rises past an altitude in degrees.
    pub(super) fn rising_centre(degrees: f64) -> Self {
        Self {
            altitude: degrees.to_radians(),
            edge: Edge::Centre,
            direction: Direction::Rising,
        }
    }

    /// Makes the crossing at which the sun's centre sinks past an altitude in degrees.
    pub(super) fn setting_centre(degrees: f64) -> Self {
        Self {
            direction: Direction::Setting,
            ..Self::rising_centre(degrees)
        }
    }

    /// Returns the altitude of the sun's centre at the crossing.
    fn of_centre(&self, radius: f64) -> f64 {
        match self.edge {
            Edge::Upper => self.altitude - radius,
            Edge::Centre => self.altitude,
        }
    }

    /// Returns the hour angle at which the sun would cross if its declination stayed as it is.
    fn target(&self, place: &Place, sight: &Sight) -> Target {
        let (sin, cos) = sight.declination.sin_cos();
        let altitude = self.of_centre(sight.radius);
        let cosine = (altitude.sin() - place.latitude_sin * sin) / (place.latitude_cos * cos);
        let hour_angle = if cosine < -1.0 {
            return Target::AlwaysAbove;
        } else if cosine > 1.0 {
            return Target::AlwaysBelow;
        } else {
            cosine.acos()
        };
        match self.direction {
            Direction::Rising => Target::At(-hour_angle),
            Direction::Setting => Target::At(hour_angle),
        }
    }
}

#[derive(Clone, Copy)]
enum Target {
    At(f64),
    AlwaysAbove,
    AlwaysBelow,
}

impl Target {
    /// Returns the hour angle to try next. On a day without a crossing PyEphem tries the lowest or the highest point, where one
    /// is most likely.
    fn hour_angle(self) -> f64 {
        match self {
            Self::At(hour_angle) => hour_angle,
            Self::AlwaysAbove => PI,
            Self::AlwaysBelow => 0.0,
        }
    }
}

/// A search that starts at one instant. Times are days since that instant.
pub(super) struct Search {
    after: DateTime<Utc>,
    origin: Origin,
    place: Place,
}

impl Search {
    pub(super) fn from(after: DateTime<Utc>, place: Place) -> Self {
        let after = to_micros(after);
        Self {
            after,
            origin: Origin::at(after),
            place,
        }
    }

    /// Returns the next passage of the sun's centre through the meridian.
    pub(super) fn next_noon(&self) -> Option<DateTime<Utc>> {
        let day = self.day(0.0)?;
        self.instant(self.transit(&day, 0.0, 0.0))
    }

    /// Returns the next crossing, or the end of the search.
    pub(super) fn next_crossing(&self, crossing: &Crossing) -> Option<DateTime<Utc>> {
        let mut start = 0.0;
        let mut day = self.day(start)?;
        let mut left = MAX_SEARCH_DAYS;
        while left > 0 {
            let idle = self.idle_days(&day, start, crossing);
            if idle == 0
                && let Some(found) = self.crossing_in(&day, start, crossing)
                && let Some(instant) = self.instant(found)
            {
                return Some(instant);
            }
            let passed = idle.clamp(1, left);
            left -= passed;
            // The equation of time changes by less than an hour in a year. So this estimate is nearer to the wanted
            // passage than to any other.
            let antitransit = self.transit(&day, start, PI) + f64::from(passed - 1);
            day = self.day(antitransit)?;
            start = self.settled(&day, antitransit, PI);
        }
        self.instant(start)
    }

    fn day(&self, start: f64) -> Option<Day> {
        Day::from(self.origin, start)
    }

    /// Returns the time of a slot, cut to microseconds as Celery does. None: the time is not after the start.
    ///
    /// PyEphem may find an earlier time if its search does not converge. Celery then runs the task again and again
    /// without a pause; these runs are no slots.
    fn instant(&self, days: f64) -> Option<DateTime<Utc>> {
        let micros = (days * MICROSECONDS_PER_DAY).floor();
        (micros >= 1.0)
            .then(|| {
                self.after
                    .checked_add_signed(TimeDelta::microseconds(micros as i64))
            })
            .flatten()
    }

    /// `_find_rise_or_set`: moves from hour angle to hour angle until the time settles. Gives up if the last hour angle
    /// was no crossing.
    fn crossing_in(&self, day: &Day, start: f64, crossing: &Crossing) -> Option<f64> {
        let mut date = start;
        let mut target = Target::AlwaysBelow;
        for iteration in 0..ITERATIONS {
            let sight = day.sight(&self.place, date);
            target = crossing.target(&self.place, &sight);
            let difference = target.hour_angle() - sight.hour_angle;
            let bump = if iteration == 0 {
                let forward = difference.rem_euclid(TAU) / TAU;
                if forward < SAME_EVENT {
                    forward + 1.0
                } else {
                    forward
                }
            } else {
                wrapped(difference) / TAU
            };
            if bump.abs() < PRECISION {
                break;
            }
            date += bump;
        }
        matches!(target, Target::At(_)).then_some(date)
    }

    /// Returns the next time at which the sun has this hour angle.
    fn transit(&self, day: &Day, start: f64, hour_angle: f64) -> f64 {
        let mut ahead = (hour_angle - day.hour_angle(&self.place, start)).rem_euclid(TAU) / TAU;
        if ahead < SAME_EVENT {
            ahead += 1.0;
        }
        self.settled(day, start + ahead, hour_angle)
    }

    /// Returns the time near `date` at which the sun has this hour angle. The sun moves so evenly that each round gains three
    /// digits.
    fn settled(&self, day: &Day, mut date: f64, hour_angle: f64) -> f64 {
        for _ in 0..4 {
            date += wrapped(hour_angle - day.hour_angle(&self.place, date)) / TAU;
        }
        date
    }

    /// Returns a number of days from here on that certainly have no crossing, so that the search may skip them.
    ///
    /// A day has none while the declination is so far north or south that the sun stays on one side of the horizon. The
    /// shortest time until its return follows from the fastest motion of the sun along the ecliptic, with a margin.
    fn idle_days(&self, day: &Day, start: f64, crossing: &Crossing) -> u32 {
        /// Radians a day: above the speed at the perihelion in all years that have slots.
        const FASTEST: f64 = 1.03 * (PI / 180.0);
        /// Radians: above the sum of parallax, nutation and the change of the sun's radius.
        const MARGIN: f64 = 0.02 * (PI / 180.0);
        /// Days: the last day itself, and half a day for errors around the solstices.
        const SPARE: f64 = 1.5;
        const MEAN_SUN_RADIUS: f64 = 0.267 * (PI / 180.0);

        let altitude = crossing.of_centre(MEAN_SUN_RADIUS);
        let latitude = self.place.latitude_sin.asin().abs();
        let (declination, slope) = day.declination(start);
        // The southern hemisphere is the mirror image at the equator.
        let (declination, slope) = if self.place.latitude_sin < 0.0 {
            (-declination, -slope)
        } else {
            (declination, slope)
        };
        let lowest = latitude - FRAC_PI_2 + altitude - MARGIN;
        let highest = FRAC_PI_2 - latitude + altitude + MARGIN;
        let (depth, bound, is_leaving) = if declination < lowest {
            (declination, lowest, slope < 0.0)
        } else if declination > highest {
            (-declination, -highest, slope > 0.0)
        } else {
            return 0;
        };
        let tilt = self.origin.tilt().sin();
        let along_ecliptic = |declination: f64| (declination.sin() / tilt).clamp(-1.0, 1.0).asin();
        let (from, to) = (along_ecliptic(depth), along_ecliptic(bound));
        let way = if is_leaving { PI + from + to } else { to - from };
        // The cast makes negative values zero.
        (way / FASTEST - SPARE) as u32
    }
}
