//! Reports that Beat has sent entries, or failed to send one.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat::{STORM_COUNT, is_storm};
use deadbeat_domain::celery::switch::on_trouble;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::judge::blind_spell::is_to_come;
use deadbeat_domain::limits;
use deadbeat_domain::text::Text;
use deadbeat_store::Tx;
use deadbeat_store::celery::beat::Beat;

use super::check_name;
use crate::celery::beat::flood::{Flood, slots_within};
use crate::celery::event::Verdict;
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};
use crate::{ServiceError, Services, incident};

/// Handles a report that the broker refused Beat's message.
pub(crate) async fn send_failed(
    services: &Services,
    project: ProjectId,
    name: &str,
    error: Text,
    at: DateTime<Utc>,
) -> Result<Verdict, ServiceError> {
    check_name(name)?;
    let mut tx = services.store.begin().await?;
    if let Some(mut beat) = deadbeat_store::celery::beat::lock(&mut tx, project, name).await? {
        // A delayed report is older than the known one.
        if beat
            .send_failed
            .as_ref()
            .is_none_or(|(before, _)| *before <= at || is_to_come(*before, services.now()))
        {
            beat.send_failed = Some((at, error.into()));
        }
        deadbeat_store::celery::beat::update(&mut tx, std::slice::from_ref(&beat), false).await?;
        tx.commit().await?;
    }
    Ok(Verdict::Accepted)
}

/// Records that Beat sent entries: how often each, and when the last of them.
pub(crate) async fn sent(
    services: &Services,
    project: ProjectId,
    name: &str,
    entries: &HashMap<String, u32>,
    at: DateTime<Utc>,
) -> Result<(), ServiceError> {
    let now = services.now();
    let mut flooding = Vec::new();
    for (entry, count) in entries {
        // No registered entry has such a long name.
        if entry.len() > 4 * limits::MONITOR_NAME_CHARS || name.len() > 800 {
            continue;
        }
        let in_window = services.floods.count(project, name, entry, *count, now);
        if in_window >= STORM_COUNT {
            flooding.push((entry.clone(), in_window));
        }
    }
    let mut tx = services.store.begin().await?;
    let Some(mut beat) = deadbeat_store::celery::beat::lock(&mut tx, project, name).await? else {
        return Ok(());
    };
    // Once a second is enough: readers only check whether anything was sent since a slot.
    let is_changed = beat
        .sent_at
        .is_none_or(|before| at - before >= TimeDelta::seconds(1) || is_to_come(before, now));
    if !is_changed && flooding.is_empty() {
        return Ok(());
    }
    beat.sent_at = beat
        .sent_at
        .filter(|before| !is_to_come(*before, now))
        .max(Some(at));
    let flood = flood(&mut tx, &beat, flooding, now).await?;
    let mut transition = None;
    if flood.is_some() {
        transition = on_trouble(&mut beat.state, Some((Cause::BeatStorm, TimeDelta::zero())), now);
        // The storm ends when no further one was seen for a while.
        beat.state.since = Some(now);
    }
    deadbeat_store::celery::beat::update(&mut tx, std::slice::from_ref(&beat), false).await?;
    if let (Some(transition), Some(flood)) = (transition, &flood) {
        let occurrences = Occurrence {
            changed: Changed::Flooding(&beat, flood),
            what: OccurrenceKind::Transition(transition),
        };
        incident::record(&mut tx, &services.site, &[occurrences]).await?;
    }
    tx.commit().await?;
    if transition.is_some() {
        services.outbox_bell.notify_one();
    }
    Ok(())
}

/// Returns the worst of these entries, if one was sent more often than its schedule has slots.
pub(super) async fn flood(
    tx: &mut Tx,
    beat: &Beat,
    mut often: Vec<(String, u32)>,
    now: DateTime<Utc>,
) -> Result<Option<Flood>, ServiceError> {
    if often.is_empty() {
        return Ok(None);
    }
    often.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let names: Vec<String> = often.iter().map(|(entry, _)| entry.clone()).collect();
    let monitors = deadbeat_store::monitor::of_entries(tx, beat.project_id, beat.id, &names).await?;
    for (entry, count) in often {
        let Some(monitor) = monitors
            .iter()
            .find(|monitor| monitor.entry.as_ref() == Some(&entry))
        else {
            continue;
        };
        if is_storm(count, slots_within(&monitor.state.expectation.schedule, now)) {
            let key = (monitor.project_id, monitor.id);
            let stages = deadbeat_store::celery::trace::stage::of_monitors(tx, &[key], &[None]).await?;
            let queue = stages.into_iter().next().and_then(|stage| stage.queue);
            return Ok(Some(Flood { entry, count, queue }));
        }
    }
    Ok(None)
}
