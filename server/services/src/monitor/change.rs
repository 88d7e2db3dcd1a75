//! What a person sets of a monitor: checked as a whole, applied to the defaults or to what is stored.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::ChannelId;
use deadbeat_domain::incident::severity::Severity;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::alarm::Thresholds;
use deadbeat_domain::monitor::{
    Expectation, FieldError, check_grace, check_longest_run, check_slug, check_tags, read_label,
    slug_from_name,
};
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::schedule::{Schedule, ScheduleError};
use deadbeat_store::monitor::Monitor;
use serde_json::Value;

use crate::ServiceError;

/// Tolerated lateness when nobody says otherwise, in seconds.
pub const DEFAULT_GRACE_SECONDS: f64 = 60.0;

/// Which channels a monitor tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelChoice {
    /// Every one of the project, those added later too.
    All,
    /// Just these.
    These(Vec<ChannelId>),
}

/// What a person sets; None: not said. An update leaves that as it is, a creation takes the default.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Its name for people.
    pub name: Option<String>,
    /// Its name in URLs; made from the name when a creation does not say.
    pub slug: Option<String>,
    /// When reports are expected, in its JSON form.
    pub schedule: Option<Value>,
    /// Tolerated lateness.
    pub grace_seconds: Option<f64>,
    /// How long a run may take; `Some(None)`: the grace bounds it.
    pub longest_run_seconds: Option<Option<f64>>,
    /// For filters.
    pub tags: Option<Vec<String>>,
    /// The channels that get its alerts.
    pub channels: Option<ChannelChoice>,
    /// How urgent its own incidents are; `Some(None)`: as urgent as their causes.
    pub severity: Option<Option<Severity>>,
    /// Bad runs in a row after which its incident opens.
    pub failure_threshold: Option<i64>,
    /// Good runs in a row after which its incident ends.
    pub recovery_threshold: Option<i64>,
}

impl Change {
    /// The names of the fields that it sets, as in the API.
    fn fields(&self) -> impl Iterator<Item = &'static str> {
        [
            ("name", self.name.is_some()),
            ("slug", self.slug.is_some()),
            ("schedule", self.schedule.is_some()),
            ("grace_seconds", self.grace_seconds.is_some()),
            ("longest_run_seconds", self.longest_run_seconds.is_some()),
            ("tags", self.tags.is_some()),
            ("channels", self.channels.is_some()),
            ("severity", self.severity.is_some()),
            ("failure_threshold", self.failure_threshold.is_some()),
            ("recovery_threshold", self.recovery_threshold.is_some()),
        ]
        .into_iter()
        .filter_map(|(field, is_set)| is_set.then_some(field))
    }
}

/// The entry of the audit trail about a monitor that was created or changed.
pub(super) fn entry(
    access: &Access,
    monitor: &Monitor,
    act: Act,
    change: &Change,
    now: DateTime<Utc>,
) -> Entry {
    Entry::new(access, monitor.project_id, act, monitor.id.0, now)
        .named(&monitor.name)
        .changing(change.fields())
}

/// A schedule that a person may set: one with a slot to come, or the one that is set already.
fn settable(json: &Value, old: Option<&Expectation>, now: DateTime<Utc>) -> Result<Schedule, ScheduleError> {
    let schedule = Schedule::from_json(json)?;
    if old.is_some_and(|old| old.schedule == schedule) {
        return Ok(schedule);
    }
    if let Schedule::Hint(_) = schedule {
        return Err(ScheduleError::at(
            "kind",
            "a hint comes from a Celery Beat alone, which registers such an entry by itself",
        ));
    }
    if schedule.next_after(now).is_none() {
        return Err(ScheduleError::at(
            "expression",
            "this never comes again: all its years are over",
        ));
    }
    Ok(schedule)
}

/// Checks a change, and applies it to `before` (or to the defaults).
pub(super) fn apply(
    before: Option<&Monitor>,
    change: &Change,
    now: DateTime<Utc>,
) -> Result<(String, String, Vec<String>, Expectation, Thresholds), ServiceError> {
    let mut faults = Vec::new();
    let name = match (&change.name, before) {
        (Some(name), _) => read_label("/name", name, limits::MONITOR_NAME_CHARS, &mut faults),
        (None, Some(monitor)) => monitor.name.clone(),
        (None, None) => change.slug.clone().unwrap_or_else(|| {
            faults.push(FieldError::new("/name", "is missing"));
            String::new()
        }),
    };
    let slug = match (&change.slug, before) {
        (Some(slug), _) => slug.clone(),
        (None, Some(monitor)) => monitor.slug.clone(),
        (None, None) => slug_from_name(&name),
    };
    check_slug("/slug", &slug, &mut faults);
    let mut tags = match (&change.tags, before) {
        (Some(tags), _) => tags.clone(),
        (None, Some(monitor)) => monitor.tags.clone(),
        (None, None) => Vec::new(),
    };
    if change.tags.is_some() {
        check_tags("/tags", &mut tags, &mut faults);
    }

    let old = before.map(|monitor| &monitor.state.expectation);
    let grace_seconds = change
        .grace_seconds
        .or(old.map(|old| old.grace_seconds))
        .unwrap_or(DEFAULT_GRACE_SECONDS);
    check_grace("/grace_seconds", grace_seconds, &mut faults);
    let longest_run_seconds = change
        .longest_run_seconds
        .unwrap_or_else(|| old.and_then(|old| old.longest_run_seconds));
    if let Some(seconds) = longest_run_seconds {
        check_longest_run("/longest_run_seconds", seconds, &mut faults);
    }
    let schedule = match (&change.schedule, old) {
        (Some(json), _) => match settable(json, old, now) {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                faults.push(FieldError::of_schedule("/schedule", error));
                None
            }
        },
        (None, Some(old)) => Some(old.schedule.clone()),
        (None, None) => {
            faults.push(FieldError::new(
                "/schedule",
                r#"is missing; {"kind":"interval","seconds":60} or {"kind":"cron","expression":"0 2 * * *","timezone":"Europe/Berlin"}"#,
            ));
            None
        }
    };
    let thresholds = before.map_or_else(Thresholds::default, |monitor| monitor.state.thresholds);
    let thresholds = thresholds.with(change.failure_threshold, change.recovery_threshold, &mut faults);
    match schedule {
        Some(schedule) if faults.is_empty() => Ok((
            name,
            slug,
            tags,
            Expectation {
                schedule,
                // Only Beat sets it.
                delay_seconds: old.map_or(0.0, |old| old.delay_seconds),
                grace_seconds,
                longest_run_seconds,
            },
            thresholds,
        )),
        _ => Err(ServiceError::Invalid(faults)),
    }
}
