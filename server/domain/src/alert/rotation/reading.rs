//! Reads the settings of a rotation, and reports each fault.

use std::collections::HashMap;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

use super::shifts::{FIRST_YEAR, LAST_YEAR};
use super::{
    Hours, HoursSettings, Layer, LayerSettings, Override, OverrideSettings, Person, Rotation,
    RotationSettings, instant,
};
use crate::limits;
use crate::monitor::{FieldError, clip, read_label};
use crate::schedule::zone::Zone;
use crate::text::Text;

impl Rotation {
    /// Checks settings.
    ///
    /// # Errors
    /// Every fault, with its JSON pointer.
    pub fn read(mut settings: RotationSettings) -> Result<Self, Vec<FieldError>> {
        let mut faults = Vec::new();
        settings.name = read_label("/name", &settings.name, limits::NAME_CHARS, &mut faults);
        let zone = match settings.timezone.parse::<Zone>() {
            Ok(zone) => {
                settings.timezone = zone.name().to_owned();
                zone
            }
            Err(unknown) => {
                faults.push(FieldError::new("/timezone", unknown.to_string()));
                Zone::utc()
            }
        };
        check_count(
            "/people",
            settings.people.len(),
            1,
            limits::ROTATION_PEOPLE,
            &mut faults,
        );
        check_count(
            "/layers",
            settings.layers.len(),
            1,
            limits::ROTATION_LAYERS,
            &mut faults,
        );
        let count = settings.overrides.len();
        check_count("/overrides", count, 0, limits::ROTATION_OVERRIDES, &mut faults);
        // Check no further: a body of a megabyte must not cause ten thousand faults.
        if !faults.is_empty() {
            return Err(faults);
        }
        let places = read_people(&mut settings.people, &mut faults);
        let reader = Reader { zone, places };
        let layers = settings.layers.iter_mut().enumerate();
        let layers: Vec<Option<Layer>> = layers
            .map(|(index, layer)| reader.layer(index, layer, &mut faults))
            .collect();
        let overrides = settings.overrides.iter_mut().enumerate();
        let overrides: Vec<Option<Override>> = overrides
            .map(|(index, one)| reader.stand_in(&format!("/overrides/{index}"), one, &mut faults))
            .collect();
        match (layers.into_iter().collect(), overrides.into_iter().collect()) {
            (Some(layers), Some(overrides)) if faults.is_empty() => Ok(Self {
                settings,
                zone,
                layers,
                overrides,
            }),
            _ => Err(faults),
        }
    }
}

fn check_count(pointer: &str, count: usize, least: usize, most: usize, faults: &mut Vec<FieldError>) {
    if !(least..=most).contains(&count) {
        let message = format!("has {count} entries; {least} to {most} are allowed");
        faults.push(FieldError::new(pointer, message));
    }
}

/// Checks the people. Returns the index of each name.
fn read_people(people: &mut [Person], faults: &mut Vec<FieldError>) -> HashMap<String, usize> {
    let mut places = HashMap::new();
    for (place, person) in people.iter_mut().enumerate() {
        let pointer = format!("/people/{place}");
        person.name = read_label(
            &format!("{pointer}/name"),
            &person.name,
            limits::NAME_CHARS,
            faults,
        );
        if !person.name.is_empty() && places.insert(person.name.clone(), place).is_some() {
            let message = format!("is {:?} again; each name may occur once", clip(&person.name));
            faults.push(FieldError::new(format!("{pointer}/name"), message));
        }
        let channels = format!("{pointer}/channels");
        check_count(
            &channels,
            person.channels.len(),
            1,
            limits::PERSON_CHANNELS,
            faults,
        );
        for (index, id) in person.channels.iter().enumerate().take(limits::PERSON_CHANNELS) {
            if person.channels[..index].contains(id) {
                let message = format!("is {id} again; each channel may occur once");
                faults.push(FieldError::new(format!("{channels}/{index}"), message));
            }
        }
    }
    places
}

struct Reader {
    zone: Zone,
    places: HashMap<String, usize>,
}

impl Reader {
    fn layer(&self, index: usize, layer: &mut LayerSettings, faults: &mut Vec<FieldError>) -> Option<Layer> {
        let pointer = format!("/layers/{index}");
        let count = layer.people.len();
        check_count(
            &format!("{pointer}/people"),
            count,
            1,
            limits::ROTATION_PEOPLE,
            faults,
        );
        let people: Vec<Option<usize>> = layer
            .people
            .iter_mut()
            .enumerate()
            .take(limits::ROTATION_PEOPLE)
            .map(|(index, name)| self.person(&format!("{pointer}/people/{index}"), name, faults))
            .collect();
        let at = read_time(&format!("{pointer}/at"), &layer.at, faults);
        let starts_on = read_date(&layer.starts_on);
        if starts_on.is_none() {
            let message = format!(
                "is {:?}; a date like 2026-10-05 is allowed",
                clip(&layer.starts_on)
            );
            faults.push(FieldError::new(format!("{pointer}/starts_on"), message));
        }
        let only = match &layer.only {
            None => Some(None),
            Some(_) if index == 0 => {
                let message = "the first layer is always active, so that somebody is on call at any time";
                faults.push(FieldError::new(format!("{pointer}/only"), message));
                None
            }
            Some(hours) => read_hours(&format!("{pointer}/only"), hours, faults).map(Some),
        };
        Some(Layer {
            people: people.into_iter().collect::<Option<_>>()?,
            handover: layer.handover,
            at: at?,
            starts_on: starts_on?,
            only: only?,
        })
    }

    fn stand_in(
        &self,
        pointer: &str,
        settings: &mut OverrideSettings,
        faults: &mut Vec<FieldError>,
    ) -> Option<Override> {
        let person = self.person(&format!("{pointer}/person"), &mut settings.person, faults);
        let from = self.local(&format!("{pointer}/from"), &settings.from, faults);
        let until = self.local(&format!("{pointer}/until"), &settings.until, faults);
        let (person, from, until) = (person?, from?, until?);
        if until <= from || until - from > TimeDelta::days(limits::OVERRIDE_DAYS) {
            let message = format!(
                "is {:?}; a time after {:?}, at most {} days later, is allowed",
                settings.until,
                settings.from,
                limits::OVERRIDE_DAYS
            );
            faults.push(FieldError::new(format!("{pointer}/until"), message));
            return None;
        }
        Some(Override { person, from, until })
    }

    /// The index of a person.
    fn person(&self, pointer: &str, name: &mut String, faults: &mut Vec<FieldError>) -> Option<usize> {
        if let Ok(label) = Text::label(name, limits::NAME_CHARS) {
            *name = label.into();
        }
        let place = self.places.get(name).copied();
        if place.is_none() {
            let message = format!("is {:?}; a name of `people` is allowed", clip(name));
            faults.push(FieldError::new(pointer, message));
        }
        place
    }

    /// The instant of a local date or time.
    fn local(&self, pointer: &str, text: &str, faults: &mut Vec<FieldError>) -> Option<DateTime<Utc>> {
        let wall = read_date(text)
            .map(|date| date.and_time(NaiveTime::MIN))
            .or_else(|| read_wall(text));
        if wall.is_none() {
            let message = format!(
                "is {:?}; a local date or time like 2026-12-24 or 2026-12-24T09:00 is allowed",
                clip(text)
            );
            faults.push(FieldError::new(pointer, message));
        }
        wall.map(|wall| instant(self.zone, wall.date(), wall.time()))
    }
}

fn read_hours(pointer: &str, hours: &HoursSettings, faults: &mut Vec<FieldError>) -> Option<Hours> {
    let from = read_time(&format!("{pointer}/from"), &hours.from, faults);
    let to = read_time(&format!("{pointer}/to"), &hours.to, faults);
    let mut weekdays = 0;
    match &hours.weekdays {
        None => weekdays = 0x7F,
        Some(listed) => {
            for day in listed {
                weekdays |= 1 << (*day as u8);
            }
        }
    }
    if weekdays == 0 {
        let message = "is empty; one weekday or more are allowed, or null for all";
        faults.push(FieldError::new(format!("{pointer}/weekdays"), message));
        return None;
    }
    Some(Hours {
        weekdays,
        from: from?,
        to: to?,
    })
}

/// Reads `09:00`.
fn read_time(pointer: &str, text: &str, faults: &mut Vec<FieldError>) -> Option<NaiveTime> {
    let time = strict(text, "dd:dd")
        .then(|| NaiveTime::parse_from_str(text, "%H:%M").ok())
        .flatten();
    if time.is_none() {
        let message = format!("is {:?}; a local time like 09:00 is allowed", clip(text));
        faults.push(FieldError::new(pointer, message));
    }
    time
}

/// Reads `2026-12-24`.
fn read_date(text: &str) -> Option<NaiveDate> {
    let date = strict(text, "dddd-dd-dd")
        .then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok())
        .flatten()?;
    (FIRST_YEAR..=LAST_YEAR).contains(&date.year()).then_some(date)
}

/// Reads `2026-12-24T09:00`.
fn read_wall(text: &str) -> Option<NaiveDateTime> {
    let (date, time) = text.split_once('T')?;
    let time = strict(time, "dd:dd")
        .then(|| NaiveTime::parse_from_str(time, "%H:%M").ok())
        .flatten()?;
    Some(read_date(date)?.and_time(time))
}

/// True if a text has this form, where `d` stands for a digit. Needed because chrono's reader also accepts blanks,
/// signs and single digits.
fn strict(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text
            .bytes()
            .zip(form.bytes())
            .all(|(found, wanted)| match wanted {
                b'd' => found.is_ascii_digit(),
                _ => found == wanted,
            })
}
