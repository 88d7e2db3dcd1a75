//! Monitors whose settings arrive with their own reports, as some clients of other products send them.
//!
//! Such a client has only a ping key, which may create monitors but not change those of people. A mark decides: the server creates the monitor with
//! this tag, and changes only monitors that still have it. A person who removes the tag takes the settings over.

use deadbeat_domain::monitor::is_slug;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::Act;
use deadbeat_domain::people::key_limit::KeyFault;
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::schedule::Schedule;
use deadbeat_store::monitor::Monitor;

use super::{Change, create_by_ping, entry, update_in};
use crate::people::pace::Work;
use crate::people::{api_key, audit};
use crate::{ServiceError, Services};

/// What became of a monitor's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InStep {
    /// The server created the monitor.
    Created,
    /// The server changed the monitor.
    Changed,
    /// The monitor has these settings already.
    Same,
    /// The monitor does not have the mark: a person decides its settings.
    NotOurs,
}

/// Creates the monitor with this slug, or brings its settings in step with what its client sends. `created` has all settings of a new monitor. `kept`
/// has those that the client named: the others stay as a person has set them. `mark` is the tag of monitors that this function may change.
///
/// # Errors
/// As for [`super::create_by_ping`] and [`super::update`].
pub async fn keep_in_step(
    services: &Services,
    access: &Access,
    slug: &str,
    created: &Change,
    kept: &Change,
    mark: &str,
) -> Result<InStep, ServiceError> {
    let project = access.may(Action::Signal)?;
    if !is_slug(slug) {
        return Err(ServiceError::NotFound("monitor"));
    }
    let found = deadbeat_store::monitor::by_slug(&services.reader(), project, slug).await?;
    let Some(monitor) = found else {
        return match create_by_ping(services, access, created).await {
            Ok(_) => Ok(InStep::Created),
            // Another request has created it in the meantime, from the same settings.
            Err(ServiceError::SlugTaken(_)) => Ok(InStep::Same),
            Err(error) => Err(error),
        };
    };
    // Almost every report brings the settings of the report before it: no lock, and no transaction.
    match verdict(&monitor, kept, mark) {
        InStep::Changed => {}
        other => return Ok(other),
    }
    let _piece = services.paces.take(project, Work::CreateMonitor).await?;
    let mut tx = services.store.begin().await?;
    let monitor = deadbeat_store::monitor::lock(&mut tx, project, monitor.id).await?;
    let monitor = monitor.ok_or(ServiceError::NotFound("monitor"))?;
    match verdict(&monitor, kept, mark) {
        InStep::Changed => {}
        other => return Ok(other),
    }
    let now = services.now();
    let limits = api_key::limits_of(&mut tx, access, project).await?;
    limits.allow(access.address(), now)?;
    if !limits.covers(&monitor.slug, &monitor.tags) {
        return Err(KeyFault::Part.into());
    }
    let monitor = update_in(&mut tx, monitor, kept, now).await?;
    audit::note(&mut tx, entry(access, &monitor, Act::MonitorChanged, kept, now));
    tx.commit().await?;
    Ok(InStep::Changed)
}

/// Compares a monitor with the settings that its client sent.
fn verdict(monitor: &Monitor, kept: &Change, mark: &str) -> InStep {
    if monitor.beat_id.is_some() || !monitor.tags.iter().any(|tag| tag == mark) {
        return InStep::NotOurs;
    }
    let (expectation, thresholds) = (&monitor.state.expectation, &monitor.state.thresholds);
    let is_same = |schedule: &serde_json::Value| {
        Schedule::from_json(schedule).is_ok_and(|schedule| schedule == expectation.schedule)
    };
    let differs = kept.schedule.as_ref().is_some_and(|json| !is_same(json))
        || kept
            .grace_seconds
            .is_some_and(|seconds| seconds != expectation.grace_seconds)
        || kept
            .longest_run_seconds
            .is_some_and(|seconds| seconds != expectation.longest_run_seconds)
        || kept
            .failure_threshold
            .is_some_and(|runs| runs != i64::from(thresholds.failures))
        || kept
            .recovery_threshold
            .is_some_and(|runs| runs != i64::from(thresholds.recoveries));
    if differs { InStep::Changed } else { InStep::Same }
}
