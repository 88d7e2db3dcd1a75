//! This process says each second that it takes signals in; the first to come back after a silence writes a blind spell.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::blind_spell::{BlindSpell, is_blind, is_to_come};
use deadbeat_domain::time::Clock;
use deadbeat_store::{Store, StoreResult, listener, with_sources};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ingest::Ingest;

/// Between two stamps.
const PAUSE: Duration = Duration::from_secs(1);

/// Stamps.
pub struct Listening {
    store: Store,
    clock: Arc<dyn Clock>,
    ingest: Ingest,
    id: Uuid,
    /// This process's last word. Another one's may lie in times to come because its clock is wrong; our own only when ours was stepped.
    last: Mutex<Option<DateTime<Utc>>>,
}

impl Listening {
    /// Puts the parts together, for one process.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, ingest: Ingest) -> Self {
        Self {
            store,
            clock,
            ingest,
            id: Uuid::now_v7(),
            last: Mutex::default(),
        }
    }

    /// Stamps each second until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        let mut pause = tokio::time::interval(PAUSE);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = pause.tick() => {}
            }
            if let Err(error) = self.stamp_once().await {
                tracing::debug!(error = %with_sources(&error), "could not say that this process listens");
            }
        }
    }

    /// One stamp. Answers the spell that it ended, if there was one.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn stamp_once(&self) -> StoreResult<Option<BlindSpell>> {
        let mut tx = self.store.begin().await?;
        let now = self.clock.now();
        let spooled = i64::try_from(self.ingest.spooled()).unwrap_or(i64::MAX);
        let before = listener::stamp(&mut tx, self.id, spooled, now).await?;
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stepped_back = last.or(before).is_some_and(|last| is_to_come(last, now));
        if is_stepped_back {
            listener::rewind(&mut tx, now).await?;
        }
        let spell = before.filter(|_| is_blind(before, now)).map(|before| BlindSpell {
            started_at: before,
            ended_at: now,
        });
        if let Some(spell) = spell {
            listener::insert_spell(&mut tx, spell).await?;
            listener::forget_gone(&mut tx, now).await?;
            let seconds = (spell.ended_at - spell.started_at).num_milliseconds() as f64 / 1_000.0;
            tracing::warn!(
                spell.started_at = %spell.started_at, seconds,
                "nobody listened for a while: deadlines of that time are moved"
            );
        }
        tx.commit().await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        if is_stepped_back {
            tracing::warn!("the clock was stepped back: what was noted in times to come counts from now");
        }
        Ok(spell)
    }
}

/// Spells older than any grace excuse nobody any more.
pub(crate) const LONGEST_EXCUSE: TimeDelta = TimeDelta::days(400);
