//! Incidents that have lasted 14 days: one more reminder each. Only a person mutes or deletes the subject.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::message::Phase;
use deadbeat_domain::incident::LONG_DOWN;
use deadbeat_store::{StoreResult, with_sources};

use super::{BATCH, Batched, Evaluator, Swept};
use crate::alert::outbox::{self, IncidentAlert};

impl Evaluator {
    /// Writes the reminders about open incidents that have lasted [`LONG_DOWN`], one batch.
    pub(super) async fn alert_long_down(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut swept = Swept::default();
        let mut tx = self.store.begin().await?;
        let mut incidents = Vec::new();
        for row in deadbeat_store::incident::claim_long_down(&mut tx, now - LONG_DOWN, now, BATCH).await? {
            swept.claimed += 1;
            match row {
                Ok(incident) => incidents.push(incident),
                Err(unreadable) => {
                    tracing::error!(incident.id = %unreadable.id, error = %with_sources(&unreadable.error), "no reminder says that an incident has lasted 14 days: the incident cannot be read");
                    self.selfwatch.put_aside();
                }
            }
        }
        let incident_alerts: Vec<IncidentAlert<'_>> = incidents
            .iter()
            .map(|incident| IncidentAlert {
                phase: Phase::LongDown,
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
