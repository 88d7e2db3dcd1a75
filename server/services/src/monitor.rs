//! Monitors: create, change, pause, resume, delete.

mod change;
pub mod healthchecks;
pub mod in_step;
pub mod signal;
pub(crate) mod state;

use chrono::{DateTime, Utc};
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::change::{Transition, Trigger};
use deadbeat_domain::ids::{MonitorId, PingId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::transition::{on_pause, on_resume, on_settings_change};
use deadbeat_domain::monitor::{FieldError, MonitorState, check_slug};
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::key_limit::KeyFault;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::monitor::settings;
use deadbeat_store::people::quota::Counted;
use deadbeat_store::{StoreResult, Tx};

pub use self::change::{Change, ChannelChoice, DEFAULT_GRACE_SECONDS};
use self::change::{apply, entry};
use self::state::{load_runs, write_state};
use crate::incident::changed::{Background, Changed, Occurrence, OccurrenceKind};
use crate::people::api_key;
use crate::people::audit;
use crate::people::pace::Work;
use crate::people::quota::spend;
use crate::{ServiceError, Services, Site, feed, incident};

/// Creates a monitor.
///
/// # Errors
/// Refused, invalid fields, a taken slug, the quota, or the database is away. Nothing is half-written.
pub async fn create(services: &Services, access: &Access, change: &Change) -> Result<Monitor, ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let mut tx = services.store.begin().await?;
    let now = services.now();
    let monitor = create_in(&mut tx, project, change, now).await?;
    audit::note(&mut tx, entry(access, &monitor, Act::MonitorCreated, change, now));
    tx.commit().await?;
    Ok(monitor)
}

/// Creates a monitor on behalf of a ping key, which may create so many a day.
///
/// # Errors
/// As for [`create`]; the day's allowance is used up, or too many of the project wait for the same.
pub async fn create_by_ping(
    services: &Services,
    access: &Access,
    change: &Change,
) -> Result<Monitor, ServiceError> {
    let project = access.may(Action::Signal)?;
    let _piece = services.paces.take(project, Work::CreateMonitor).await?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    check_limits(&mut tx, access, project, change, now).await?;
    let a_day = services.quotas.settings().created_monitors_per_day;
    spend(&mut tx, &Counted::CreatedMonitors(project), a_day, now).await?;
    let monitor = create_in(&mut tx, project, change, now).await?;
    audit::note(&mut tx, entry(access, &monitor, Act::MonitorCreated, change, now));
    tx.commit().await?;
    Ok(monitor)
}

/// Returns an error if the limits of the ping key do not allow this monitor.
async fn check_limits(
    tx: &mut Tx,
    access: &Access,
    project: ProjectId,
    change: &Change,
    now: DateTime<Utc>,
) -> Result<(), ServiceError> {
    let limits = api_key::limits_of(tx, access, project).await?;
    limits.allow(access.address(), now)?;
    let (slug, tags) = (change.slug.as_deref(), change.tags.as_deref());
    if limits.covers(slug.unwrap_or_default(), tags.unwrap_or_default()) {
        Ok(())
    } else {
        Err(KeyFault::Part.into())
    }
}

async fn create_in(
    tx: &mut Tx,
    project: ProjectId,
    change: &Change,
    now: DateTime<Utc>,
) -> Result<Monitor, ServiceError> {
    let (name, slug, tags, expectation, thresholds) = apply(None, change, now)?;
    if deadbeat_store::monitor::count(tx, project).await? >= limits::PROJECT_MONITORS {
        return Err(ServiceError::Limit {
            what: "monitors",
            limit: limits::PROJECT_MONITORS,
        });
    }
    let monitor = Monitor {
        id: MonitorId::generate(),
        project_id: project,
        ping_id: PingId::generate(),
        slug,
        name,
        tags,
        all_channels: !matches!(change.channels, Some(ChannelChoice::These(_))),
        severity: change.severity.flatten(),
        beat_id: None,
        entry: None,
        registered: None,
        retired_at: None,
        created_at: now,
        updated_at: now,
        open_runs: 0,
        state: MonitorState {
            thresholds,
            ..MonitorState::fresh(expectation, false, now)
        },
    };
    insert(tx, &monitor).await?;
    set_channels(tx, &monitor, change).await?;
    feed::note(
        tx,
        project,
        ChangeSubject::monitor(monitor.id),
        ChangeKind::Created,
        now,
    );
    Ok(monitor)
}

async fn insert(tx: &mut Tx, monitor: &Monitor) -> Result<(), ServiceError> {
    deadbeat_store::monitor::insert(tx, &[monitor])
        .await
        .map_err(|error| slug_taken(error, &monitor.slug))
}

fn slug_taken(error: deadbeat_store::StoreError, slug: &str) -> ServiceError {
    if error.is_constraint("monitor_slug_unique") {
        ServiceError::SlugTaken(slug.to_owned())
    } else {
        error.into()
    }
}

async fn set_channels(tx: &mut Tx, monitor: &Monitor, change: &Change) -> Result<(), ServiceError> {
    let ids = match &change.channels {
        None => return Ok(()),
        Some(ChannelChoice::All) => &[][..],
        Some(ChannelChoice::These(ids)) => ids,
    };
    let mut distinct = ids.to_vec();
    distinct.sort();
    distinct.dedup();
    let written = settings::set_channels(tx, monitor.project_id, monitor.id, &distinct).await?;
    if written != distinct.len() as u64 {
        return Err(ServiceError::Invalid(vec![FieldError::new(
            "/channels",
            "names a channel that this project does not have; \"all\" or a list of the project's channel ids is allowed",
        )]));
    }
    Ok(())
}

/// Changes a monitor.
///
/// # Errors
/// Refused, not found, invalid fields, a taken slug, or the database is away. Nothing is half-written.
pub async fn update(
    services: &Services,
    access: &Access,
    id: MonitorId,
    change: &Change,
) -> Result<Monitor, ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let mut tx = services.store.begin().await?;
    let monitor = deadbeat_store::monitor::lock(&mut tx, project, id).await?;
    let monitor = monitor.ok_or(ServiceError::NotFound("monitor"))?;
    let now = services.now();
    let monitor = update_in(&mut tx, monitor, change, now).await?;
    audit::note(&mut tx, entry(access, &monitor, Act::MonitorChanged, change, now));
    tx.commit().await?;
    Ok(monitor)
}

async fn update_in(
    tx: &mut Tx,
    mut monitor: Monitor,
    change: &Change,
    now: DateTime<Utc>,
) -> Result<Monitor, ServiceError> {
    let (name, slug, tags, expectation, thresholds) = apply(Some(&monitor), change, now)?;
    monitor.name = name;
    monitor.slug = slug;
    monitor.tags = tags;
    monitor.state.thresholds = thresholds;
    monitor.updated_at = now;
    match &change.channels {
        Some(ChannelChoice::All) => monitor.all_channels = true,
        Some(ChannelChoice::These(_)) => monitor.all_channels = false,
        None => {}
    }
    monitor.severity = change.severity.unwrap_or(monitor.severity);
    if monitor.state.expectation != expectation {
        load_runs(tx, &mut monitor).await?;
        on_settings_change(&mut monitor.state, expectation, now);
        write_state(tx, &monitor).await?;
    }
    settings::update_settings(tx, &monitor)
        .await
        .map_err(|error| slug_taken(error, &monitor.slug))?;
    set_channels(tx, &monitor, change).await?;
    let (project, subject) = (monitor.project_id, ChangeSubject::monitor(monitor.id));
    feed::note(tx, project, subject, ChangeKind::Changed, now);
    Ok(monitor)
}

/// Creates the monitor of that slug, or changes it. True: created.
///
/// # Errors
/// As for [`create`] and [`update`].
pub async fn upsert(
    services: &Services,
    access: &Access,
    change: &Change,
    slug: &str,
) -> Result<(Monitor, bool), ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    // Before the look: PostgreSQL takes no NUL in a text.
    let mut faults = Vec::new();
    check_slug("/slug", slug, &mut faults);
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    let change = Change {
        slug: Some(slug.to_owned()),
        ..change.clone()
    };
    // Twice: another request may create it between our look and our insert.
    for _ in 0..2 {
        let mut tx = services.store.begin().await?;
        let found = deadbeat_store::monitor::lock_by_slug(&mut tx, project, slug).await?;
        let now = services.now();
        let (result, created) = match found {
            Some(monitor) => (update_in(&mut tx, monitor, &change, now).await, false),
            None => (create_in(&mut tx, project, &change, now).await, true),
        };
        match result {
            Err(ServiceError::SlugTaken(_)) => {}
            Err(error) => return Err(error),
            Ok(monitor) => {
                let act = if created {
                    Act::MonitorCreated
                } else {
                    Act::MonitorChanged
                };
                audit::note(&mut tx, entry(access, &monitor, act, &change, now));
                tx.commit().await?;
                return Ok((monitor, created));
            }
        }
    }
    Err(ServiceError::Busy)
}

/// Pauses a monitor: it is not judged until it is resumed, or until its ping URL is called again. Pausing twice is fine.
///
/// # Errors
/// Refused, not found, or the database is away.
pub async fn pause(services: &Services, access: &Access, id: MonitorId) -> Result<Monitor, ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    change_status(
        services,
        access,
        project,
        id,
        Act::MonitorPaused,
        |monitor, now| on_pause(&mut monitor.state, Trigger::Pause, now),
    )
    .await
}

/// Resumes a paused monitor: expected anew from now.
///
/// # Errors
/// Refused, not found, not paused, retired by its Beat, or the database is away.
pub async fn resume(services: &Services, access: &Access, id: MonitorId) -> Result<Monitor, ServiceError> {
    use deadbeat_domain::monitor::status::Status;
    let project = access.may(Action::ChangeMonitors)?;
    let monitor = deadbeat_store::monitor::get(&services.reader(), project, id).await?;
    let monitor = monitor.ok_or(ServiceError::NotFound("monitor"))?;
    if monitor.state.status != Status::Paused {
        return Err(ServiceError::Conflict(format!(
            "the monitor is {}, not paused: there is nothing to resume",
            monitor.state.status.as_str()
        )));
    }
    // Its signals change nothing: resumed, it would be armed with nobody to report, and go down.
    if monitor.state.retired {
        return Err(ServiceError::Conflict(
            "its entry left Beat's schedule or is disabled there: the monitor comes back with its entry"
                .to_owned(),
        ));
    }
    change_status(
        services,
        access,
        project,
        id,
        Act::MonitorResumed,
        |monitor, now| {
            (monitor.state.status == Status::Paused)
                .then(|| on_resume(&mut monitor.state, Trigger::Resume, now))
                .flatten()
        },
    )
    .await
}

async fn change_status(
    services: &Services,
    access: &Access,
    project: ProjectId,
    id: MonitorId,
    act: Act,
    rule: impl Fn(&mut Monitor, DateTime<Utc>) -> Option<Transition>,
) -> Result<Monitor, ServiceError> {
    let mut tx = services.store.begin().await?;
    let monitor = deadbeat_store::monitor::lock(&mut tx, project, id).await?;
    let mut monitor = monitor.ok_or(ServiceError::NotFound("monitor"))?;
    load_runs(&mut tx, &mut monitor).await?;
    let now = services.now();
    if let Some(transition) = rule(&mut monitor, now) {
        audit::note(
            &mut tx,
            Entry::new(access, project, act, id.0, now).named(&monitor.name),
        );
        apply_transition(
            &mut tx,
            &services.site,
            &monitor,
            &Background::default(),
            &transition,
        )
        .await?;
    }
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(monitor)
}

/// Deletes a monitor; an open incident about it is resolved, with an alert. Its pings and runs are hidden at once, and the retention
/// removes them.
///
/// # Errors
/// Refused, not found, or the database is away.
pub async fn delete(services: &Services, access: &Access, id: MonitorId) -> Result<(), ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let mut tx = services.store.begin().await?;
    let monitor = deadbeat_store::monitor::lock(&mut tx, project, id).await?;
    let mut monitor = monitor.ok_or(ServiceError::NotFound("monitor"))?;
    let now = services.now();
    if let Some(transition) = on_pause(&mut monitor.state, Trigger::Delete, now) {
        let occurrences = Occurrence {
            changed: Changed::Monitor(&monitor, &Background::default()),
            what: OccurrenceKind::Transition(transition),
        };
        incident::record(&mut tx, &services.site, &[occurrences]).await?;
    }
    deadbeat_store::monitor::delete(&mut tx, project, id).await?;
    audit::note(
        &mut tx,
        Entry::new(access, project, Act::MonitorDeleted, id.0, now).named(&monitor.name),
    );
    feed::note(
        &mut tx,
        project,
        ChangeSubject::monitor(id),
        ChangeKind::Deleted,
        now,
    );
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(())
}

/// Writes a changed status and what follows from it.
pub(crate) async fn apply_transition(
    tx: &mut Tx,
    site: &Site,
    monitor: &Monitor,
    background: &Background<'_>,
    transition: &Transition,
) -> StoreResult<()> {
    write_state(tx, monitor).await?;
    let occurrences = Occurrence {
        changed: Changed::Monitor(monitor, background),
        what: OccurrenceKind::Transition(*transition),
    };
    incident::record(tx, site, &[occurrences]).await
}
