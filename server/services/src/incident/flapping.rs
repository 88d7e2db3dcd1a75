//! Monitors that no longer flap while their incidents stay open.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::message::Phase;
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::MonitorKey;
use deadbeat_domain::incident::Fact;
use deadbeat_domain::monitor::flapping::CALM;
use deadbeat_store::monitor::Stateful;
use deadbeat_store::{StoreResult, Tx};
use uuid::Uuid;

use super::changed::Changed;
use super::readable;
use crate::alert::outbox::{self, IncidentAlert};
use crate::{Site, feed};

/// Records that monitors have been calm for long enough. If a monitor has been down all the time, its channels get one
/// reminder, because people may expect that it comes back by itself.
///
/// # Errors
/// If the database is away.
pub(super) async fn calm(
    tx: &mut Tx,
    site: &Site,
    monitors: &[(Changed<'_>, bool, DateTime<Utc>)],
) -> StoreResult<()> {
    let facts: Vec<(MonitorKey, Fact)> = monitors
        .iter()
        .filter_map(|(changed, is_down, at)| {
            let since = if *is_down {
                "it has been down"
            } else {
                "its status has been the same"
            };
            let fact = format!("It no longer flaps: {since} for {} minutes.", CALM.num_minutes());
            let fact = Fact { at: Some(*at), fact };
            Some((changed.monitor()?.key(), fact))
        })
        .collect();
    let incidents = readable(deadbeat_store::incident::end_flapping(tx, &facts).await?);
    let times: HashMap<Uuid, DateTime<Utc>> = monitors
        .iter()
        .map(|(changed, _, at)| (changed.subject().id, *at))
        .collect();
    for incident in &incidents {
        if let Some(at) = times.get(&incident.subject.id) {
            let subject = ChangeSubject::Incident(incident.id);
            feed::note(tx, incident.project_id, subject, ChangeKind::Changed, *at);
        }
    }
    let down: HashMap<Uuid, (Changed<'_>, DateTime<Utc>)> = monitors
        .iter()
        .filter(|(_, is_down, _)| *is_down)
        .map(|(changed, _, at)| (changed.subject().id, (*changed, *at)))
        .collect();
    let incident_alerts: Vec<IncidentAlert<'_>> = incidents
        .iter()
        .filter(|incident| incident.acknowledged_at.is_none())
        .filter_map(|incident| {
            let (changed, at) = down.get(&incident.subject.id)?;
            Some(IncidentAlert {
                phase: Phase::Reminder,
                incident,
                monitor: changed.monitor(),
                affected: None,
                at: *at,
                step: &[],
            })
        })
        .collect();
    outbox::announce_incidents(tx, site, &incident_alerts).await?;
    Ok(())
}
