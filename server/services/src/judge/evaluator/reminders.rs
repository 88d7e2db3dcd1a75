//! Reminders of incidents that stay open.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::message::Phase;
use deadbeat_domain::incident::is_reminder_sent;
use deadbeat_store::{StoreResult, with_sources};

use super::{BATCH, Batched, Evaluator, Swept};
use crate::alert::outbox::{self, IncidentAlert};

impl Evaluator {
    /// Sends one batch of reminders of open incidents.
    pub(super) async fn remind(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut swept = Swept::default();
        let mut tx = self.store.begin().await?;
        let mut incidents = Vec::new();
        for row in deadbeat_store::incident::claim_reminders(&mut tx, now, BATCH).await? {
            swept.claimed += 1;
            match row {
                Ok(incident) => incidents.push(incident),
                Err(unreadable) => {
                    tracing::error!(incident.id = %unreadable.id, error = %with_sources(&unreadable.error), "an incident cannot be read; put aside until its next reminder");
                    self.selfwatch.put_aside();
                }
            }
        }
        let spells = self.spells(&mut tx, now).await?;
        // An incident without a next reminder belongs to a project that has switched its reminders off meanwhile.
        let incident_alerts: Vec<IncidentAlert<'_>> = incidents
            .iter()
            .filter(|(incident, due_at)| incident.remind_at.is_some() && is_reminder_sent(*due_at, &spells))
            .map(|(incident, _)| IncidentAlert {
                phase: Phase::Reminder,
                affected: None,
                incident,
                monitor: None,
                at: now,
                step: &[],
            })
            .collect();
        outbox::announce_incidents(&mut tx, &self.site, &incident_alerts).await?;
        swept.reminded = incident_alerts.len();
        let is_full = swept.claimed as i64 == BATCH;
        if swept.claimed > 0 {
            tx.commit().await?;
        }
        Ok(Batched { swept, is_full })
    }
}
