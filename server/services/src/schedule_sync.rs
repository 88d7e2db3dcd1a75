//! What Beat says of its schedule becomes monitors.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{MonitorId, PingId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{
    Expectation, MonitorState, check_grace, check_longest_run, clip, slug_from_name,
};
use deadbeat_domain::schedule::Schedule;
use deadbeat_domain::text::Text;
use deadbeat_domain::transition::{Trigger, on_due_hint, on_pause, on_resume, on_sent, on_settings_change};
use deadbeat_store::batch::Batch;
use deadbeat_store::beat::Beat;
use deadbeat_store::monitor::{Monitor, Stateful};
use deadbeat_store::{StoreError, Tx, with_sources};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::event::Verdict;
use crate::incident::Background;
use crate::monitor::{apply_transition, write_states};
use crate::{ServiceError, Services, beat};

/// A Beat's whole schedule: what is not in it is not scheduled.
#[derive(Debug, Deserialize)]
pub struct Snapshot {
    /// The Beat's name.
    pub beat: String,
    /// Every entry.
    #[serde(deserialize_with = "objects")]
    pub entries: Vec<Entry>,
}

/// One entry of a Beat's schedule.
#[derive(Debug, Deserialize)]
pub struct Entry {
    /// Its name, unique within the Beat.
    pub name: String,
    /// The task that it sends.
    #[serde(default)]
    pub task: Option<Text>,
    /// In native form.
    pub schedule: Value,
    /// False: known, and not sent.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Tolerated lateness.
    pub grace_seconds: f64,
    /// How long a run may take.
    #[serde(default)]
    pub longest_run_seconds: Option<f64>,
    /// Nobody has said how long one may take: what is learned bounds it, too.
    #[serde(default)]
    pub longest_run_is_a_guess: bool,
    /// When Beat says that it is next due.
    #[serde(default)]
    pub next_due_at: Option<DateTime<Utc>>,
}

fn yes() -> bool {
    true
}

/// serde would take a list for an object, and go by the order of the members.
fn objects<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let read = |value: Value| match value {
        Value::Object(_) => serde_json::from_value(value).map_err(D::Error::custom),
        _ => Err(D::Error::custom("an entry is an object")),
    };
    Vec::<Value>::deserialize(deserializer)?
        .into_iter()
        .map(read)
        .collect()
}

/// When entries of a Beat are next due, by its own reckoning.
#[derive(Debug, Deserialize)]
pub struct DueHints {
    /// The Beat's name.
    pub beat: String,
    /// The entries that it sent.
    #[serde(deserialize_with = "objects")]
    pub entries: Vec<DueHint>,
}

/// When one entry is next due.
#[derive(Debug, Deserialize)]
pub struct DueHint {
    /// The entry's name.
    pub name: Text,
    /// None: never again. It must be said: left out by mistake, it would disarm the monitor.
    #[serde(deserialize_with = "Option::deserialize")]
    pub next_due_at: Option<DateTime<Utc>>,
}

/// What is kept of an entry as Beat told it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Registered {
    schedule: Value,
    grace_seconds: f64,
    longest_run_seconds: Option<f64>,
    #[serde(default)]
    longest_run_is_a_guess: bool,
    task: Option<String>,
}

/// Until it says otherwise: how often a Beat reports, and the silence tolerated beyond that.
const PERIOD_SECONDS: f64 = 15.0;
const GRACE_SECONDS: f64 = 60.0;

/// A list that is older than this when it arrives was held up.
const ON_ITS_WAY: TimeDelta = TimeDelta::seconds(5);

fn background(beat: &Beat) -> Background<'_> {
    Background {
        beat: Some(beat),
        ..Background::default()
    }
}

/// Beat said when entries are next due. What it never registered, and what a person paused, stays as it is.
pub(crate) async fn due(
    services: &Services,
    project: ProjectId,
    hints: DueHints,
    skew: TimeDelta,
) -> Result<Verdict, ServiceError> {
    beat::check_name(&hints.beat)?;
    if hints.entries.len() > limits::BEAT_ENTRIES {
        return Err(ServiceError::Limit {
            what: "entries of one Beat",
            limit: limits::BEAT_ENTRIES as i64,
        });
    }
    let now = services.now();
    let told: HashMap<String, Option<DateTime<Utc>>> = hints
        .entries
        .into_iter()
        .map(|hint| (hint.name.into(), by_our_clock(hint.next_due_at, skew)))
        .collect();
    let names: Vec<String> = told.keys().cloned().collect();

    let mut tx = services.store.begin().await?;
    let mut monitors = Vec::new();
    for row in deadbeat_store::monitor::lock_entries(&mut tx, project, &hints.beat, &names).await? {
        match row {
            Ok(monitor) => monitors.push(monitor),
            Err(unreadable) => {
                tracing::error!(monitor.id = %unreadable.id, error = %with_sources(&unreadable.error), "a monitor cannot be read; its hint is dropped");
            }
        }
    }
    deadbeat_store::run::load_into(&mut tx, &mut monitors, &[]).await?;
    monitors.retain_mut(|monitor| {
        let before = due_of(monitor);
        if let Some(hint) = monitor.entry.as_ref().and_then(|entry| told.get(entry)) {
            on_sent(&mut monitor.state, *hint, now);
        }
        due_of(monitor) != before
    });
    let batch = Batch {
        monitors: monitors.iter().map(Stateful::changed).collect(),
        ..Batch::default()
    };
    deadbeat_store::batch::write(&mut tx, &batch).await?;
    tx.commit().await?;
    Ok(Verdict::Accepted)
}

/// A time by a client's clock, as ours would have shown it.
fn by_our_clock(at: Option<DateTime<Utc>>, skew: TimeDelta) -> Option<DateTime<Utc>> {
    at.and_then(|at| at.checked_add_signed(skew))
        .map(deadbeat_domain::time::to_micros)
}

/// Makes monitors follow a Beat's schedule: new entries are registered and armed, changed ones recomputed, missing ones retired,
/// disabled ones paused. None of it raises an alarm.
pub(crate) async fn sync(
    services: &Services,
    project: ProjectId,
    snapshot: Snapshot,
    listed_at: DateTime<Utc>,
    skew: TimeDelta,
) -> Result<Verdict, ServiceError> {
    beat::check_name(&snapshot.beat)?;
    if snapshot.entries.len() > limits::BEAT_ENTRIES {
        return Err(ServiceError::Limit {
            what: "entries of one Beat",
            limit: limits::BEAT_ENTRIES as i64,
        });
    }
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let beat = beat::lock_or_create(
        &mut tx,
        project,
        &snapshot.beat,
        PERIOD_SECONDS,
        GRACE_SECONDS,
        now,
    )
    .await?;
    let mut monitors: Vec<Monitor> = Vec::new();
    let mut unreadable: HashSet<String> = HashSet::new();
    for row in deadbeat_store::monitor::lock_of_beat(&mut tx, beat.id).await? {
        match row {
            Ok(monitor) => monitors.push(monitor),
            Err(found) => {
                tracing::error!(monitor.id = %found.id, error = %with_sources(&found.error), "a monitor cannot be read; it stays as it is");
                unreadable.extend(found.entry);
            }
        }
    }

    deadbeat_store::run::load_into(&mut tx, &mut monitors, &[]).await?;
    let mut known: HashMap<String, Monitor> = monitors
        .into_iter()
        .filter_map(|monitor| Some((monitor.entry.clone()?, monitor)))
        .collect();

    let mut refused = Vec::new();
    let mut moved = Vec::new();
    let mut new = Vec::new();
    let mut seen = HashSet::new();
    let mut count = deadbeat_store::monitor::count(&mut tx, project).await?;
    for entry in &snapshot.entries {
        if unreadable.contains(&entry.name) || !seen.insert(entry.name.as_str()) {
            continue;
        }
        let expectation = match expectation(entry) {
            Ok(expectation) => expectation,
            Err(fault) => {
                refused.push(format!("entry {:?}: {fault}", clip(&entry.name)));
                // One that is known stays as it is: what cannot be read is no reason to forget it. A name that older versions took, and
                // that no event can name any more, is retired: its silence must not page anybody.
                if Text::name(&entry.name, limits::MONITOR_NAME_CHARS).is_ok() {
                    known.remove(&entry.name);
                }
                continue;
            }
        };
        // What came due since it was listed has been sent since, and Beat says that apart. Only what was overdue then is due now.
        let is_due_or_to_come = |hint: &DateTime<Utc>| *hint <= listed_at || *hint >= now - ON_ITS_WAY;
        let hint = by_our_clock(entry.next_due_at, skew).filter(is_due_or_to_come);
        match known.remove(&entry.name) {
            Some(monitor) => {
                moved.extend(follow(services, &mut tx, &beat, monitor, entry, expectation, hint, now).await?);
            }
            None if count >= limits::PROJECT_MONITORS => {
                refused.push(format!(
                    "entry {:?}: the project has reached its limit of monitors",
                    clip(&entry.name)
                ));
            }
            None => {
                new.push((entry, expectation, hint));
                count += 1;
            }
        }
    }
    write_states(&mut tx, &moved).await?;
    register(&mut tx, project, &beat, new, now).await?;
    for (_, mut monitor) in known {
        retire(services, &mut tx, &beat, &mut monitor, now).await?;
    }
    tx.commit().await?;
    if refused.is_empty() {
        Ok(Verdict::Accepted)
    } else {
        let shown = refused.iter().take(20).cloned().collect::<Vec<_>>().join("; ");
        Ok(Verdict::Rejected {
            code: "some_entries",
            detail: format!("{} of the entries are not watched: {shown}", refused.len()),
        })
    }
}

fn expectation(entry: &Entry) -> Result<Expectation, String> {
    let mut faults = Vec::new();
    deadbeat_domain::monitor::check_name("name", &entry.name, limits::MONITOR_NAME_CHARS, &mut faults);
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
        grace_seconds: entry.grace_seconds,
        longest_run_seconds: entry.longest_run_seconds,
    })
}

fn registered(entry: &Entry) -> Result<Value, ServiceError> {
    let registered = Registered {
        schedule: entry.schedule.clone(),
        grace_seconds: entry.grace_seconds,
        longest_run_seconds: entry.longest_run_seconds,
        longest_run_is_a_guess: entry.longest_run_is_a_guess,
        task: entry.task.clone().map(String::from),
    };
    serde_json::to_value(registered).map_err(|error| StoreError::Corrupt(error.to_string()).into())
}

/// Makes monitors of new entries.
async fn register(
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
    let taken = deadbeat_store::monitor::slugs_taken(tx, project, &wanted).await?;
    let mut taken: HashSet<String> = taken.into_iter().collect();
    // Entries may all come to the same slug: those with names of another script.
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut monitors = Vec::with_capacity(entries.len());
    let mut bounds = Vec::with_capacity(entries.len());
    for ((entry, expectation, hint), slug) in entries.into_iter().zip(wanted) {
        let slug = if taken.contains(&slug) {
            if !numbers.contains_key(&slug) {
                taken.extend(deadbeat_store::monitor::slugs_like(tx, project, &slug).await?);
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
            // A fresh one has no history to record this in.
            let _ = on_pause(&mut state, Trigger::Retire, now);
            state.retired = true;
        }
        let id = MonitorId::generate();
        bounds.push((id, entry.longest_run_is_a_guess));
        monitors.push(Monitor {
            id,
            project_id: project,
            ping_id: PingId::generate(),
            slug,
            name: entry.name.clone(),
            tags: Vec::new(),
            all_channels: true,
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
    // Somebody took a slug since we looked for a free one: the whole schedule is sent again.
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
    deadbeat_store::baseline::begin(tx, &bounds).await?;
    Ok(())
}

/// A slug that is taken, with the first number behind it after `number` that is not.
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

/// An entry meets its monitor. Answers the monitor where only its state is left to be written.
#[expect(
    clippy::too_many_arguments,
    reason = "one entry meeting its monitor; bundling would only name the bundle"
)]
async fn follow(
    services: &Services,
    tx: &mut Tx,
    beat: &Beat,
    mut monitor: Monitor,
    entry: &Entry,
    expectation: Expectation,
    hint: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Option<Monitor>, ServiceError> {
    let told = registered(entry)?;
    let before = monitor.clone();
    // Only when Beat's own word changed: a grace that a person set stays. What a newer SDK says beside is no change of that.
    if monitor.registered.as_ref() != Some(&told) {
        if !is_same_expectation(monitor.registered.as_ref(), &told) {
            on_settings_change(&mut monitor.state, expectation, now);
        }
        monitor.registered = Some(told);
        monitor.updated_at = now;
        deadbeat_store::baseline::begin(tx, &[(monitor.id, entry.longest_run_is_a_guess)]).await?;
    }
    let was_retired = monitor.retired_at.is_some();
    monitor.retired_at = if entry.enabled {
        None
    } else {
        monitor.retired_at.or(Some(now))
    };
    monitor.state.retired = !entry.enabled;
    let transition = match (entry.enabled, was_retired) {
        (false, false) => on_pause(&mut monitor.state, Trigger::Retire, now),
        (true, true) => on_resume(&mut monitor.state, Trigger::Return, now),
        (true, false) | (false, true) => None,
    };
    if let Some(hint) = hint {
        on_due_hint(&mut monitor.state, Some(hint), now);
    }
    let settings_changed = monitor.registered != before.registered || monitor.retired_at != before.retired_at;
    if settings_changed {
        deadbeat_store::monitor::update_settings(tx, &monitor).await?;
    }
    match transition {
        Some(transition) => {
            apply_transition(tx, &services.site, &monitor, &background(beat), &transition).await?;
        }
        None if settings_changed || due_of(&monitor) != due_of(&before) => return Ok(Some(monitor)),
        None => {}
    }
    Ok(None)
}

/// Whether Beat says the same of when an entry is due, how late and how long it may be.
fn is_same_expectation(before: Option<&Value>, now: &Value) -> bool {
    ["schedule", "grace_seconds", "longest_run_seconds"]
        .iter()
        .all(|field| before.and_then(|before| before.get(field)) == now.get(field))
}

fn due_of(monitor: &Monitor) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
    (monitor.state.next_due_at, monitor.state.hinted_due_at)
}

/// The entry has left Beat's schedule: its monitor is paused for good, and nobody is paged for it.
async fn retire(
    services: &Services,
    tx: &mut Tx,
    beat: &Beat,
    monitor: &mut Monitor,
    now: DateTime<Utc>,
) -> Result<(), ServiceError> {
    if monitor.retired_at.is_some() {
        return Ok(());
    }
    monitor.retired_at = Some(now);
    monitor.updated_at = now;
    monitor.state.retired = true;
    let transition = on_pause(&mut monitor.state, Trigger::Retire, now);
    deadbeat_store::monitor::update_settings(tx, monitor).await?;
    if let Some(transition) = transition {
        apply_transition(tx, &services.site, monitor, &background(beat), &transition).await?;
    }
    tracing::info!(monitor.id = %monitor.id, "its entry left Beat's schedule; retired");
    Ok(())
}
