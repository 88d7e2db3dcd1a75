//! Escalations of incidents that nobody acknowledges.

use chrono::{DateTime, Utc};
use deadbeat_store::StoreResult;

use super::{ASIDE, BATCH, Batched, Evaluator, Swept};
use crate::alert::escalation;

impl Evaluator {
    /// Takes one batch of escalation steps that are due.
    pub(super) async fn escalate(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut tx = self.store.begin().await?;
        let due = deadbeat_store::alert::escalation::claim(&mut tx, now, BATCH).await?;
        let mut swept = Swept {
            claimed: due.len(),
            ..Swept::default()
        };
        if !due.is_empty() {
            let taken = escalation::take_steps(&mut tx, &self.site, &due, now, now + ASIDE).await?;
            tx.commit().await?;
            swept.escalated = taken.alerted;
            for _ in 0..taken.put_aside {
                self.selfwatch.put_aside();
            }
        }
        let is_full = due.len() as i64 == BATCH;
        Ok(Batched { swept, is_full })
    }
}
