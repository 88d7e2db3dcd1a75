//! Computes who is on call, and from when to when.
//!
//! An **edge** is a handover, or the beginning or end of a layer's hours or of an override. Between two edges, the
//! person on call does not change. A shift continues over an edge that does not change its person's duty, such as a
//! handover in a replaced layer.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};

use super::{Hours, Layer, Person, Rotation, instant, later};
use crate::schedule::zone::Zone;

/// The first year of which a rotation says who is on call.
pub(super) const FIRST_YEAR: i32 = 1970;
/// The last year of which a rotation says who is on call.
pub(super) const LAST_YEAR: i32 = 2199;

/// How far to look for edges at a time. If two edges are further apart, a shift is joined from several steps.
const STRIDE: TimeDelta = TimeDelta::days(1);
/// Edges lie in whole seconds, so a second before an edge is still before it.
const SECOND: TimeDelta = TimeDelta::seconds(1);

/// A stretch of time in which one person is on call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift<'a> {
    /// The person.
    pub person: &'a Person,
    /// When it begins.
    pub starts_at: DateTime<Utc>,
    /// When it ends, and the next shift begins.
    pub ends_at: DateTime<Utc>,
    /// True if an override put the person on call.
    pub is_override: bool,
}

/// The reason why a person is on call. A shift lasts as long as its duty stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    Override(usize),
    Turn {
        layer: usize,
        turn: i64,
        /// The date on which the hours began, in a layer that has hours.
        hours: Option<NaiveDate>,
    },
}

impl Rotation {
    /// Returns the shift at an instant. None: the instant lies outside the years 1970 to 2199.
    #[must_use]
    pub fn on_call(&self, at: DateTime<Utc>) -> Option<Shift<'_>> {
        if !(FIRST_YEAR..=LAST_YEAR).contains(&at.year()) {
            return None;
        }
        let duty = self.duty(at);
        let (mut starts_at, mut ends_at) = self.edges(at);
        // An override lasts at most a year, and a turn at most a week, so both loops end.
        while self.duty(starts_at - SECOND) == duty {
            starts_at = self.edges(starts_at - SECOND).0;
        }
        while self.duty(ends_at) == duty {
            ends_at = self.edges(ends_at).1;
        }
        let (person, is_override) = match duty {
            Duty::Override(index) => (self.overrides[index].person, true),
            Duty::Turn { layer, turn, .. } => {
                let people = &self.layers[layer].people;
                let place = usize::try_from(turn.rem_euclid(people.len() as i64)).unwrap_or(0);
                (people[place], false)
            }
        };
        Some(Shift {
            person: &self.settings.people[person],
            starts_at,
            ends_at,
            is_override,
        })
    }

    /// The shifts that have a part between two instants, oldest first.
    pub fn shifts(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> impl Iterator<Item = Shift<'_>> {
        let first = self.on_call(from).filter(|_| from < to);
        std::iter::successors(first, |shift| self.on_call(shift.ends_at))
            .take_while(move |shift| shift.starts_at < to)
    }

    fn duty(&self, at: DateTime<Utc>) -> Duty {
        let stands_in = self
            .overrides
            .iter()
            .rposition(|one| one.from <= at && at < one.until);
        if let Some(index) = stands_in {
            return Duty::Override(index);
        }
        let turn = |(index, layer): (usize, &Layer)| {
            let hours = match layer.only {
                None => None,
                Some(hours) => Some(hours.around(at, self.zone)?),
            };
            Some(Duty::Turn {
                layer: index,
                turn: layer.turn(at, self.zone),
                hours,
            })
        };
        let layers = self.layers.iter().enumerate();
        layers.rev().find_map(turn).unwrap_or(Duty::Turn {
            // Unreachable: the first layer has no hours.
            layer: 0,
            turn: 0,
            hours: None,
        })
    }

    /// The last edge up to an instant, and the first edge after it; each at most [`STRIDE`] away.
    fn edges(&self, at: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let (mut before, mut after) = (at - STRIDE, at + STRIDE);
        let mut note = |edge: DateTime<Utc>| {
            if edge <= at {
                before = before.max(edge);
            } else {
                after = after.min(edge);
            }
        };
        for one in &self.overrides {
            note(one.from);
            note(one.until);
        }
        for layer in &self.layers {
            let turn = layer.turn(at, self.zone);
            note(layer.handover_to(turn, self.zone));
            note(layer.handover_to(turn + 1, self.zone));
            for (from, to) in layer.only.iter().flat_map(|hours| hours.near(at, self.zone)) {
                note(from.1);
                note(to);
            }
        }
        (before, after)
    }
}

impl Layer {
    /// When a turn begins.
    fn handover_to(&self, turn: i64, zone: Zone) -> DateTime<Utc> {
        instant(zone, later(self.starts_on, turn * self.handover.days()), self.at)
    }

    /// The number of the turn at an instant. The turn that begins on the layer's first date has the number 0.
    fn turn(&self, at: DateTime<Utc>, zone: Zone) -> i64 {
        let days = (zone.wall_at(at).date() - self.starts_on).num_days();
        // Start too late: the handover may be later on this date, and some zones have moved the date line by a day.
        let mut turn = days.div_euclid(self.handover.days()) + 2;
        while self.handover_to(turn, zone) > at {
            turn -= 1;
        }
        turn
    }
}

impl Hours {
    /// The date on which the hours that contain an instant began.
    fn around(&self, at: DateTime<Utc>, zone: Zone) -> Option<NaiveDate> {
        self.near(at, zone)
            .find(|((_, from), to)| *from <= at && at < *to)
            .map(|((date, _), _)| date)
    }

    /// The hours that may begin or end within [`STRIDE`] of an instant: date and beginning, then end.
    fn near(
        &self,
        at: DateTime<Utc>,
        zone: Zone,
    ) -> impl Iterator<Item = ((NaiveDate, DateTime<Utc>), DateTime<Utc>)> {
        let today = zone.wall_at(at).date();
        let Self { weekdays, from, to } = *self;
        (-4..=3)
            .map(move |days| later(today, days))
            .filter(move |date| weekdays & (1 << date.weekday().num_days_from_monday()) != 0)
            .map(move |date| {
                let end = if to > from { date } else { later(date, 1) };
                ((date, instant(zone, date, from)), instant(zone, end, to))
            })
    }
}
