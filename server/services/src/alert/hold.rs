//! Snoozes, mutes and maintenance windows: set, change, end. Each change also decides again when the held alerts go
//! out.

pub mod window;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::hold::Hold;
use deadbeat_domain::alert::snooze::MOST_SNOOZE_SECONDS;
use deadbeat_domain::ids::{MonitorId, MonitorKey, ProjectId, SnoozeId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, check_tags};
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::key_limit::KeyFault;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::alert::snooze::{self, Target};
use deadbeat_store::alert::waiting::Only;
use deadbeat_store::people::project::lock_rules;
use deadbeat_store::{StoreResult, Tx};

use crate::alert::waiting::decide_anew;
use crate::people::api_key;
use crate::people::audit;
use crate::people::pace::Work;
use crate::{ServiceError, Services};

/// Reads the snoozes, mutes and windows that hold alerts of these projects and about these monitors.
///
/// # Errors
/// If the database is away.
pub(crate) async fn holds(
    tx: &mut Tx,
    projects: &[ProjectId],
    monitors: &[MonitorKey],
    now: DateTime<Utc>,
) -> StoreResult<HashMap<ProjectId, Vec<Hold>>> {
    let mut holds = snooze::holds(tx, projects, monitors, now).await?;
    for (project, windows) in deadbeat_store::alert::window::holds(tx, projects, now).await? {
        holds.entry(project).or_default().extend(windows);
    }
    Ok(holds)
}

/// Returns which waiting alerts a snooze or mute of this target can hold.
fn only(target: &Target) -> Only {
    match target {
        Target::Monitor(id) => Only::Subject(id.0),
        Target::Project | Target::Tag(_) => Only::All,
    }
}

/// The entry of the audit trail about a snooze or mute that begins or ends.
fn of_hold(
    access: &Access,
    project: ProjectId,
    target: &Target,
    is_mute: bool,
    is_end: bool,
    now: DateTime<Utc>,
) -> Entry {
    let (act, subject) = match (target, is_mute, is_end) {
        (Target::Monitor(id), false, false) => (Act::MonitorSnoozed, id.0),
        (Target::Monitor(id), false, true) => (Act::MonitorSnoozeEnded, id.0),
        (Target::Monitor(id), true, false) => (Act::MonitorMuted, id.0),
        (Target::Monitor(id), true, true) => (Act::MonitorMuteEnded, id.0),
        (Target::Tag(_), _, false) => (Act::TagSnoozed, project.0),
        (Target::Tag(_), _, true) => (Act::TagSnoozeEnded, project.0),
        (Target::Project, _, false) => (Act::ProjectSnoozed, project.0),
        (Target::Project, _, true) => (Act::ProjectSnoozeEnded, project.0),
    };
    let entry = Entry::new(access, project, act, subject, now);
    match target {
        Target::Tag(tag) => entry.named(tag),
        Target::Monitor(_) | Target::Project => entry,
    }
}

/// Holds the alerts about a monitor for `seconds` from now on. Replaces an earlier snooze.
///
/// # Errors
/// If access is refused, the monitor is not found, the length is invalid, or the database is away.
pub async fn snooze(
    services: &Services,
    access: &Access,
    monitor: MonitorId,
    seconds: i64,
) -> Result<DateTime<Utc>, ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    if !(1..=MOST_SNOOZE_SECONDS).contains(&seconds) {
        return Err(ServiceError::Invalid(vec![FieldError::new(
            "/seconds",
            format!("is a whole number from 1 to {MOST_SNOOZE_SECONDS} (a day)"),
        )]));
    }
    let ends_at = services.now() + TimeDelta::seconds(seconds);
    set(
        services,
        access,
        project,
        &Target::Monitor(monitor),
        Some(ends_at),
    )
    .await?;
    Ok(ends_at)
}

/// Holds the alerts about a monitor until somebody ends the mute.
///
/// # Errors
/// If access is refused, the monitor or the snooze is not found, or the database is away.
pub async fn mute(services: &Services, access: &Access, monitor: MonitorId) -> Result<(), ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    set(services, access, project, &Target::Monitor(monitor), None).await
}

async fn set(
    services: &Services,
    access: &Access,
    project: ProjectId,
    target: &Target,
    ends_at: Option<DateTime<Utc>>,
) -> Result<(), ServiceError> {
    let now = services.now();
    let mut tx = services.store.begin().await?;
    lock_rules(&mut tx, project).await?;
    snooze::delete_ended(&mut tx, project, now).await?;
    if !snooze::replace(&mut tx, project, target, ends_at, access.actor(), now).await? {
        return Err(ServiceError::NotFound("monitor"));
    }
    audit::note(
        &mut tx,
        of_hold(access, project, target, ends_at.is_none(), false, now),
    );
    decide_anew(&mut tx, project, only(target), now).await?;
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(())
}

/// The target of a snooze by a ping key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snoozed {
    /// The monitor of this slug.
    Slug(String),
    /// Every monitor with this tag.
    Tag(String),
    /// The whole project.
    Project,
}

/// Returns an error if the limits of the ping key do not allow this snooze. A key with a limit to tags may snooze these tags, and monitors with them.
async fn check_limits(
    tx: &mut Tx,
    access: &Access,
    project: ProjectId,
    what: &Snoozed,
) -> Result<(), ServiceError> {
    let limits = api_key::limits_of(tx, access, project).await?;
    let is_covered = match what {
        Snoozed::Project => !limits.is_partial(),
        Snoozed::Tag(tag) => limits.covers("", std::slice::from_ref(tag)),
        Snoozed::Slug(slug) => {
            limits.covers(slug, &[]) || {
                let tags = deadbeat_store::monitor::tags_of_slug(tx, project, slug).await?;
                tags.is_none_or(|tags| limits.covers(slug, &tags))
            }
        }
    };
    if is_covered {
        Ok(())
    } else {
        Err(KeyFault::Part.into())
    }
}

/// Snoozes with a ping key, such as from a deploy script. A longer snooze stays as it is.
///
/// # Errors
/// If access is refused, the target is beyond the key's limits, the monitor is not found, the tag is invalid, the quota is used up, too many such requests
/// run at once, or the database is away.
pub async fn snooze_by_ping(
    services: &Services,
    access: &Access,
    what: &Snoozed,
    length: TimeDelta,
) -> Result<(), ServiceError> {
    let project = access.may(Action::Signal)?;
    let _piece = services.paces.take(project, Work::Snooze).await?;
    let now = services.now();
    let ends_at = now + length;
    let mut tx = services.store.begin().await?;
    check_limits(&mut tx, access, project, what).await?;
    lock_rules(&mut tx, project).await?;
    snooze::delete_ended(&mut tx, project, now).await?;
    let target = match what {
        Snoozed::Project => Target::Project,
        Snoozed::Tag(tag) => {
            let (mut tags, mut faults) = (vec![tag.clone()], Vec::new());
            check_tags("/tag", &mut tags, &mut faults);
            match tags.pop() {
                Some(tag) if faults.is_empty() => Target::Tag(tag),
                _ => return Err(ServiceError::Invalid(faults)),
            }
        }
        Snoozed::Slug(slug) => {
            let found = snooze::monitor_of_slug(&mut tx, project, slug).await?;
            Target::Monitor(found.ok_or(ServiceError::NotFound("monitor"))?)
        }
    };
    let before = snooze::find(&mut tx, project, &target, false).await?;
    if before
        .as_ref()
        .is_some_and(|before| before.ends_at >= Some(ends_at))
    {
        return Ok(());
    }
    if matches!(target, Target::Tag(_))
        && before.is_none()
        && snooze::count_tags(&mut tx, project).await? >= limits::PROJECT_SNOOZED_TAGS
    {
        return Err(ServiceError::Limit {
            what: "snoozed tags",
            limit: limits::PROJECT_SNOOZED_TAGS,
        });
    }
    if !snooze::replace(&mut tx, project, &target, Some(ends_at), access.actor(), now).await? {
        return Err(ServiceError::NotFound("monitor"));
    }
    audit::note(&mut tx, of_hold(access, project, &target, false, false, now));
    decide_anew(&mut tx, project, only(&target), now).await?;
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(())
}

/// Ends a monitor's snooze. Held alerts about faults that still last go out now. Without a snooze it does nothing.
///
/// # Errors
/// If access is refused, the monitor or the snooze is not found, or the database is away.
pub async fn end_snooze(
    services: &Services,
    access: &Access,
    monitor: MonitorId,
) -> Result<(), ServiceError> {
    end_of(services, access, monitor, false).await
}

/// Ends a monitor's mute. Held alerts about faults that still last go out now. Without a mute it does nothing.
///
/// # Errors
/// If access is refused, the monitor or the snooze is not found, or the database is away.
pub async fn end_mute(services: &Services, access: &Access, monitor: MonitorId) -> Result<(), ServiceError> {
    end_of(services, access, monitor, true).await
}

async fn end_of(
    services: &Services,
    access: &Access,
    monitor: MonitorId,
    is_mute: bool,
) -> Result<(), ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let found = deadbeat_store::monitor::get(&services.reader(), project, monitor).await?;
    found.ok_or(ServiceError::NotFound("monitor"))?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    lock_rules(&mut tx, project).await?;
    let target = Target::Monitor(monitor);
    if snooze::remove(&mut tx, project, &target, is_mute).await? {
        audit::note(&mut tx, of_hold(access, project, &target, is_mute, true, now));
        decide_anew(&mut tx, project, Only::Subject(monitor.0), now).await?;
    }
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(())
}

/// Ends a snooze or mute of the project, by its id.
///
/// # Errors
/// If access is refused, the monitor or the snooze is not found, or the database is away.
pub async fn end(services: &Services, access: &Access, id: SnoozeId) -> Result<(), ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    lock_rules(&mut tx, project).await?;
    let target = snooze::delete(&mut tx, project, id).await?;
    let (target, is_mute) = target.ok_or(ServiceError::NotFound("snooze"))?;
    audit::note(&mut tx, of_hold(access, project, &target, is_mute, true, now));
    decide_anew(&mut tx, project, only(&target), now).await?;
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(())
}
