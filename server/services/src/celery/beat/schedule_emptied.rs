//! A Beat whose whole schedule vanished.
//!
//! One list without enabled entries retires every monitor of its Beat, and any holder of a ping key can send one. So a
//! list that takes a whole schedule away is noted with the Beat. From then on each report of the Beat shows a fault,
//! and after [`EMPTIED_PATIENCE`] an incident opens. A list with an enabled entry ends it, and so does a person who
//! acknowledges the incident. The monitors are kept, and come back with their entries.

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
use crate::incident::changed::{Changed, News, What};
use crate::{ServiceError, Services, Site, incident};

/// The most names in an incident.
const NAMES: i64 = 10;

/// Takes a list: `watched` monitors of the Beat were not retired before it, and it has `enabled` enabled entries.
/// Returns whether an incident ended, whose alert the caller must send.
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

/// Ends the noted state.
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
    let news = News {
        changed: Changed::Beat(beat),
        what: What::Transition(transition),
    };
    incident::record(tx, site, &[news]).await?;
    Ok(true)
}

/// The facts for the incident of a Beat that has just been found in this state.
pub(crate) async fn evidence(tx: &mut Tx, beat: &Beat, at: DateTime<Utc>) -> StoreResult<Emptied> {
    let (names, count) = listing::retired_since(tx, beat.project_id, beat.id, at, NAMES).await?;
    Ok(Emptied { at, names, count })
}

/// The fault since `emptied_at`, and for how long it must last before an incident opens.
pub(crate) fn trouble(emptied_at: Option<DateTime<Utc>>) -> Option<(Cause, chrono::TimeDelta)> {
    emptied_at.map(|_| (Cause::ScheduleEmptied, EMPTIED_PATIENCE))
}

/// A person acknowledged the incident: the schedule is meant to be empty, so the incident ends. Returns whether it did.
///
/// # Errors
/// If the database is away.
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
