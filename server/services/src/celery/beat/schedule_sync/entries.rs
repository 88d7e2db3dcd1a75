//! Creates the monitor of an entry in Beat's schedule, or changes it.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::change::{Transition, Trigger};
use deadbeat_domain::ids::{MonitorId, PingId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::transition::{on_due_hint, on_pause, on_resume, on_settings_change};
use deadbeat_domain::monitor::{Expectation, MonitorState, check_grace, check_longest_run, slug_from_name};
use deadbeat_domain::schedule::Schedule;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::monitor::settings;
use deadbeat_store::{StoreError, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::celery::beat::schedule_sync::listing::{Entry, is_none};
use crate::{ServiceError, feed};

/// The stored form of an entry as Beat reported it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Registered {
    schedule: Value,
    // Omitted if zero, so that a row from before delays existed counts as unchanged.
    #[serde(default, skip_serializing_if = "is_none")]
    delay_seconds: f64,
    grace_seconds: f64,
    longest_run_seconds: Option<f64>,
    #[serde(default)]
    longest_run_is_a_guess: bool,
    task: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    every_run: bool,
}

/// A Beat's period and grace until it reports its own.
pub(crate) const PERIOD_SECONDS: f64 = 15.0;

pub(crate) const GRACE_SECONDS: f64 = 60.0;

/// A monitor that was compared with its entry, and the changes to write.
pub(super) struct Followed {
    pub(super) monitor: Monitor,
    pub(super) settings_changed: bool,
    /// Some if the duration of its runs must be learned again; true if that duration limits them.
    pub(super) learns: Option<bool>,
    pub(super) is_due_changed: bool,
    pub(super) transition: Option<Transition>,
}

pub(super) fn expectation(entry: &Entry) -> Result<Expectation, String> {
    let mut faults = Vec::new();
    deadbeat_domain::monitor::check_name("name", &entry.name, limits::MONITOR_NAME_CHARS, &mut faults);
    check_grace("delay_seconds", entry.delay_seconds, &mut faults);
    check_grace("grace_seconds", entry.grace_seconds, &mut faults);
    if let Some(seconds) = entry.longest_run_seconds {
        check_longest_run("longest_run_seconds", seconds, &mut faults);
    }
    let schedule = match Schedule::from_json(&entry.schedule) {
        Ok(schedule) => schedule,
        Err(error) => return Err(error.to_string()),
    };
    if let Some(fault) = faults.first() {
        return Err(format!("{} {}", fault.pointer, fault.message));
    }
    Ok(Expectation {
        schedule,
        delay_seconds: entry.delay_seconds,
        grace_seconds: entry.grace_seconds,
        longest_run_seconds: entry.longest_run_seconds,
    })
}

fn registered(entry: &Entry) -> Result<Value, ServiceError> {
    let registered = Registered {
        schedule: entry.schedule.clone(),
        delay_seconds: entry.delay_seconds,
        grace_seconds: entry.grace_seconds,
        longest_run_seconds: entry.longest_run_seconds,
        longest_run_is_a_guess: entry.longest_run_is_a_guess,
        task: entry.task.clone().map(String::from),
        every_run: entry.every_run,
    };
    serde_json::to_value(registered).map_err(|error| StoreError::Corrupt(error.to_string()).into())
}

/// Creates monitors of new entries.
pub(super) async fn register(
    tx: &mut Tx,
    project: ProjectId,
    beat: &Beat,
    entries: Vec<(&Entry, Expectation, Option<DateTime<Utc>>)>,
    now: DateTime<Utc>,
) -> Result<(), ServiceError> {
    if entries.is_empty() {
        return Ok(());
    }
    let wanted: Vec<String> = entries
        .iter()
        .map(|(entry, ..)| slug_from_name(&entry.name))
        .collect();
    let taken = settings::slugs_taken(tx, project, &wanted).await?;
    let mut taken: HashSet<String> = taken.into_iter().collect();
    // All entries may have the same slug, for example if their names are in a non-Latin script.
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut monitors = Vec::with_capacity(entries.len());
    let mut bounds = Vec::with_capacity(entries.len());
    for ((entry, expectation, hint), slug) in entries.into_iter().zip(wanted) {
        let slug = if taken.contains(&slug) {
            if !numbers.contains_key(&slug) {
                taken.extend(settings::slugs_like(tx, project, &slug).await?);
            }
            let number = numbers.entry(slug.clone()).or_insert(1);
            numbered(&slug, &taken, number)
        } else {
            slug
        };
        taken.insert(slug.clone());
        let mut state = MonitorState::fresh(expectation, true, now);
        if let Some(hint) = hint {
            on_due_hint(&mut state, Some(hint), now);
        }
        if !entry.enabled {
            // A new monitor has no history in which to record this.
            let _ = on_pause(&mut state, Trigger::Retire, now);
            state.retired = true;
        }
        let id = MonitorId::generate();
        bounds.push(((project, id), entry.longest_run_is_a_guess));
        monitors.push(Monitor {
            id,
            project_id: project,
            ping_id: PingId::generate(),
            slug,
            name: entry.name.clone(),
            tags: Vec::new(),
            all_channels: true,
            severity: None,
            beat_id: Some(beat.id),
            entry: Some(entry.name.clone()),
            registered: Some(registered(entry)?),
            retired_at: (!entry.enabled).then_some(now),
            created_at: now,
            updated_at: now,
            open_runs: 0,
            state,
        });
    }
    // If another request has taken a slug since the look-up, the SDK sends the whole schedule again.
    let monitors: Vec<&Monitor> = monitors.iter().collect();
    deadbeat_store::monitor::insert(tx, &monitors)
        .await
        .map_err(|error| {
            if error.is_constraint("monitor_slug_unique") {
                ServiceError::Busy
            } else {
                error.into()
            }
        })?;
    deadbeat_store::monitor::baseline::begin(tx, &bounds).await?;
    let subjects = monitors.iter().map(|monitor| ChangeSubject::monitor(monitor.id));
    feed::note_all(tx, project, subjects, ChangeKind::Created, now);
    Ok(())
}

/// Returns the taken slug with the first free number after `number`.
fn numbered(slug: &str, taken: &HashSet<String>, number: &mut u32) -> String {
    loop {
        *number += 1;
        let tail = format!("-{number}");
        let head = slug.chars().take(limits::SLUG_CHARS - tail.len());
        let candidate: String = head.chain(tail.chars()).collect();
        if !taken.contains(&candidate) {
            return candidate;
        }
    }
}

/// Adapts a monitor to its entry.
pub(super) fn follow(
    mut monitor: Monitor,
    entry: &Entry,
    expectation: Expectation,
    hint: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Followed, ServiceError> {
    let registration = registered(entry)?;
    let due_before = due_of(&monitor);
    let retired_before = monitor.retired_at;
    let mut learns = None;
    // Only if Beat's own entry changed, so that a grace set by a person stays. A new field from a newer SDK is no such change.
    if monitor.registered.as_ref() != Some(&registration) {
        if !is_same_expectation(monitor.registered.as_ref(), &registration) {
            on_settings_change(&mut monitor.state, expectation, now);
        }
        monitor.registered = Some(registration);
        monitor.updated_at = now;
        learns = Some(entry.longest_run_is_a_guess);
    }
    monitor.retired_at = if entry.enabled {
        None
    } else {
        monitor.retired_at.or(Some(now))
    };
    monitor.state.retired = !entry.enabled;
    let transition = match (entry.enabled, retired_before.is_some()) {
        (false, false) => on_pause(&mut monitor.state, Trigger::Retire, now),
        (true, true) => on_resume(&mut monitor.state, Trigger::Return, now),
        (true, false) | (false, true) => None,
    };
    if let Some(hint) = hint {
        on_due_hint(&mut monitor.state, Some(hint), now);
    }
    Ok(Followed {
        settings_changed: learns.is_some() || monitor.retired_at != retired_before,
        is_due_changed: due_of(&monitor) != due_before,
        learns,
        transition,
        monitor,
    })
}

/// Returns true if both have the same due times, the same tolerated lateness and the same longest run.
fn is_same_expectation(before: Option<&Value>, now: &Value) -> bool {
    [
        "schedule",
        "delay_seconds",
        "grace_seconds",
        "longest_run_seconds",
    ]
    .iter()
    .all(|field| before.and_then(|before| before.get(field)) == now.get(field))
}

pub(super) fn due_of(monitor: &Monitor) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
    (monitor.state.next_due_at, monitor.state.hinted_due_at)
}

/// Retires a monitor whose entry has left Beat's schedule: pauses it for good, without an alert.
pub(super) fn retire(mut monitor: Monitor, now: DateTime<Utc>) -> Followed {
    monitor.retired_at = Some(now);
    monitor.updated_at = now;
    monitor.state.retired = true;
    let transition = on_pause(&mut monitor.state, Trigger::Retire, now);
    Followed {
        settings_changed: true,
        learns: None,
        is_due_changed: false,
        transition,
        monitor,
    }
}
