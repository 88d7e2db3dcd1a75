//! A Beat whose whole schedule vanished.
//!
//! A single schedule without enabled entries retires every monitor of its Beat, and any holder of a ping key can send one. If a report removes a
//! whole schedule, the Beat's row records that. From then on each report of the Beat has a fault, and after [`EMPTIED_PATIENCE`] an incident opens. A
//! schedule with an enabled entry ends the fault, and so does a person who acknowledges the incident. The monitors are kept, and come back with their
//! entries.

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::beat::{EMPTIED_PATIENCE, is_emptied};
use deadbeat_domain::celery::switch::on_trouble;
use deadbeat_domain::ids::{BeatId, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::beat::listing;
use deadbeat_store::incident::Incident;
use deadbeat_store::{StoreResult, Tx};

use crate::celery::beat::emptied::Emptied;
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};
use crate::{ServiceError, Services, Site, incident};

/// The most names in an incident.
const NAMES: i64 = 10;

/// Handles a schedule with `enabled` enabled entries. Before it, `watched` monitors of the Beat were not retired. Returns true if an incident ended,
/// for which the caller must send the alert.
pub(crate) async fn note(
    tx: &mut Tx,
    site: &Site,
    beat: &mut Beat,
    watched: usize,
    enabled: usize,
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    if is_emptied(watched, enabled) {
        listing::note_emptied(tx, beat.project_id, beat.id, now).await?;
        tracing::warn!(beat.id = %beat.id, watched, "a list without enabled entries retired all monitors of a Beat");
        return Ok(false);
    }
    if enabled == 0 {
        return Ok(false);
    }
    end(tx, site, beat, now).await
}

/// Ends the recorded fault.
async fn end(tx: &mut Tx, site: &Site, beat: &mut Beat, now: DateTime<Utc>) -> StoreResult<bool> {
    if listing::emptied_at(tx, beat.project_id, beat.id).await?.is_none() {
        return Ok(false);
    }
    listing::forget_emptied(tx, beat.project_id, beat.id).await?;
    if beat.state.trouble != Some(Cause::ScheduleEmptied) {
        return Ok(false);
    }
    let transition = on_trouble(&mut beat.state, None, now);
    deadbeat_store::celery::beat::update(tx, std::slice::from_ref(beat), false).await?;
    let Some(transition) = transition else {
        return Ok(false);
    };
    let subject = (beat.project_id, SubjectKind::Beat, beat.id.0);
    incident::rearm_members(tx, site, &[subject], now).await?;
    let occurrences = Occurrence {
        changed: Changed::Beat(beat),
        what: OccurrenceKind::Transition(transition),
    };
    incident::record(tx, site, &[occurrences]).await?;
    Ok(true)
}

/// Returns the facts for the incident of a Beat with this new fault.
pub(crate) async fn evidence(tx: &mut Tx, beat: &Beat, at: DateTime<Utc>) -> StoreResult<Emptied> {
    let (names, count) = listing::retired_since(tx, beat.project_id, beat.id, at, NAMES).await?;
    Ok(Emptied { at, names, count })
}

/// Returns the fault since `emptied_at`, and how long it must last before an incident opens.
pub(crate) fn trouble(emptied_at: Option<DateTime<Utc>>) -> Option<(Cause, chrono::TimeDelta)> {
    emptied_at.map(|_| (Cause::ScheduleEmptied, EMPTIED_PATIENCE))
}

/// Ends the incident after a person acknowledged it: the schedule is meant to be empty. Returns true if the incident ended.
///
/// # Errors
/// If the database cannot be reached.
pub(crate) async fn acknowledged(
    services: &Services,
    project: ProjectId,
    incident: &Incident,
) -> Result<bool, ServiceError> {
    if incident.cause != Cause::ScheduleEmptied || incident.resolved_at.is_some() {
        return Ok(false);
    }
    let mut tx = services.store.begin().await?;
    let id = BeatId(incident.subject.id);
    let ended = match deadbeat_store::celery::beat::lock_by_id(&mut tx, project, id).await? {
        Some(mut beat) => end(&mut tx, &services.site, &mut beat, services.now()).await?,
        None => false,
    };
    tx.commit().await?;
    if ended {
        services.outbox_bell.notify_one();
    }
    Ok(ended)
}
