//! Settlements: record the outcome of an attempt, and its consequences for the channel.
//!
//! Locks are taken in one order: project, channel, deliveries. A caller that needs a channel's row therefore locks it
//! before the delivery's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::delivery::{HANDLE_BYTES, Outcome, Reason, next_attempt};
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_store::StoreResult;
use deadbeat_store::alert::attempt::{self, Attempt};
use deadbeat_store::alert::channel;
use deadbeat_store::alert::claim::Claimed;
use deadbeat_store::alert::delivery::{self, Settle};
use deadbeat_store::alert::handle;

use super::figures::End;
use super::senders::printable;
use super::{Delivery, Held};
use crate::alert::switched_off::{self, Why};
use crate::feed;

/// The most characters of an attempt's detail.
const DETAIL_CHARS: usize = 500;
/// Number of tries of a settlement while the database is away: a lost settlement means that the alert is sent again.
const SETTLE_TRIES: u32 = 4;
/// The wait between those tries; it doubles.
const SETTLE_WAIT: Duration = Duration::from_millis(250);

impl Delivery {
    /// Writes the outcome. Retries a few times while the database is away, because a lost outcome means a second
    /// sending.
    pub(super) async fn settle(&self, held: &Held, outcome: &Outcome, attempt: &Attempt) -> End {
        let row = &held.row;
        let mut wait = SETTLE_WAIT;
        for remaining in (0..SETTLE_TRIES).rev() {
            match self.settle_once(held, outcome, attempt).await {
                Ok(End::Unsettled) => {
                    tracing::warn!(delivery.id = %row.id, "the lease was lost while sending; nothing was written");
                    return End::Unsettled;
                }
                Ok(end) => {
                    report(row, end, attempt);
                    return end;
                }
                Err(error) if remaining == 0 || !error.is_unavailable() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(delivery.id = %row.id, error, "an attempt could not be recorded; the delivery is sent again");
                    return End::Unsettled;
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait *= 2;
        }
        End::Unsettled
    }

    async fn settle_once(&self, held: &Held, outcome: &Outcome, attempt: &Attempt) -> StoreResult<End> {
        let row = &held.row;
        let now = self.clock.now();
        let (settle, end) = verdict(row, outcome, rand::random(), now);
        let mut tx = self.store.begin().await?;
        let mut failed = None;
        match outcome {
            Outcome::Failed { .. } => {
                failed = channel::lock_to_disable(&mut tx, row.project_id, row.channel_id).await?;
            }
            Outcome::Sent { .. } if row.is_failing => {
                channel::set_failing(&mut tx, row.project_id, row.channel_id, None).await?;
            }
            Outcome::Retry { .. } if !row.is_failing => {
                channel::set_failing(&mut tx, row.project_id, row.channel_id, Some(now)).await?;
            }
            Outcome::Sent { .. } | Outcome::Retry { .. } => {}
        }
        if !delivery::settle(&mut tx, row.project_id, row.id, row.lease, settle, now).await? {
            return Ok(End::Unsettled);
        }
        attempt::insert(&mut tx, row.project_id, row.id, attempt).await?;
        if let (
            Outcome::Sent {
                handle: Some(new), ..
            },
            Some(incident),
        ) = (outcome, row.incident_id)
            && row.handle.as_ref() != Some(new)
            && new.to_string().len() <= HANDLE_BYTES
        {
            handle::put(&mut tx, row.project_id, incident, row.channel_id, new, now).await?;
        }
        let mut alerted = 0;
        if let Some(channel) = failed {
            let reason = attempt.detail.as_deref().unwrap_or_default();
            // Disable the channel as of the claim: if somebody changed it since, the new settings have not failed.
            if channel::disable(
                &mut tx,
                channel.project_id,
                channel.id,
                reason,
                held.claimed_at,
                now,
            )
            .await?
            {
                alerted = switched_off::alert_others(&mut tx, &channel, reason, Why::Failed, now).await?;
                let (project, subject) = (row.project_id, ChangeSubject::Channel(channel.id));
                feed::note(&mut tx, project, subject, ChangeKind::Changed, now);
            }
        }
        tx.commit().await?;
        if alerted > 0 {
            self.wake.notify_one();
        }
        Ok(end)
    }
}

/// Decides what happens to the delivery after this outcome.
fn verdict(row: &Claimed, outcome: &Outcome, jitter: f64, now: DateTime<Utc>) -> (Settle, End) {
    match outcome {
        Outcome::Sent { .. } => (Settle::Sent, End::Sent),
        Outcome::Failed { .. } => (Settle::Dead, End::Dead),
        Outcome::Retry { retry_after, .. } => {
            match next_attempt(row.due_since, row.attempt, *retry_after, jitter, now) {
                Some(at) => (Settle::RetryAt(at), End::Retried),
                None => (Settle::Dead, End::Dead),
            }
        }
    }
}

pub(super) fn attempt_of(row: &Claimed, outcome: &Outcome, began: DateTime<Utc>, took: Duration) -> Attempt {
    let (word, code, detail) = match outcome {
        Outcome::Sent { code, .. } => ("sent", code, None),
        Outcome::Retry { code, detail, .. } => ("retry", code, Some(detail)),
        Outcome::Failed { code, detail, .. } => ("failed", code, Some(detail)),
    };
    Attempt {
        number: row.attempt,
        started_at: began,
        duration_ms: i32::try_from(took.as_millis()).unwrap_or(i32::MAX),
        outcome: word.to_owned(),
        reason: outcome.reason().map(|reason| Reason::as_str(reason).to_owned()),
        response_code: *code,
        // PostgreSQL refuses NUL in a text, and the attempt must be recorded even if its detail has one.
        detail: detail.map(|detail| printable(detail, DETAIL_CHARS)),
    }
}

fn report(row: &Claimed, end: End, attempt: &Attempt) {
    let (number, duration_ms, code) = (attempt.number, attempt.duration_ms, attempt.response_code);
    match end {
        End::Dead => {
            tracing::warn!(delivery.id = %row.id, channel.id = %row.channel_id, number, code, "an alert was given up undelivered");
        }
        _ => {
            tracing::debug!(delivery.id = %row.id, number, duration_ms, code, outcome = attempt.outcome, "an attempt ended")
        }
    }
}
