//! Records each second that this process listens. If there was no record for a while, the next one writes a blind spell (ADR 025).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::judge::blind_spell::{BLIND_AFTER, BlindSpell, is_blind, is_to_come};
use deadbeat_domain::time::Clock;
use deadbeat_store::operation::listener::{self, Addresses, Stamp};
use deadbeat_store::{Store, StoreResult, with_sources};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::monitor::signal::incoming::Address;
use crate::monitor::signal::ingest::Ingest;
use crate::operation::duty::Duty;

/// The time between two records ("stamps").
const PAUSE: Duration = Duration::from_secs(1);
/// How long other processes wait for one that fell silent without signing off, unless it sets another time.
pub const PATIENCE: TimeDelta = TimeDelta::seconds(60);

/// Writes the stamps of this process.
pub struct Listening {
    store: Store,
    clock: Arc<dyn Clock>,
    ingest: Ingest,
    id: Uuid,
    /// True if the process has a spool, and may therefore hold signals.
    may_hold: bool,
    duty: Duty,
    patience: TimeDelta,
    /// The last stamp of this process. A stamp in the future means one of two things. If it is another process's, that process's clock may be wrong.
    /// If it is our own, our clock was set back.
    last: Mutex<Option<DateTime<Utc>>>,
}

impl Listening {
    /// Makes the loop for one process.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, ingest: Ingest) -> Self {
        Self {
            store,
            clock,
            id: ingest.listener().unwrap_or_else(Uuid::now_v7),
            may_hold: ingest.listener().is_some(),
            ingest,
            duty: Duty::new("listening"),
            patience: PATIENCE,
            last: Mutex::default(),
        }
    }

    /// Sets how long other processes wait for this one if it falls silent without signing off.
    #[must_use]
    pub fn patience(self, patience: TimeDelta) -> Self {
        Self { patience, ..self }
    }

    /// Returns this process's id among the listeners.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the duty of the loop.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Stamps each second until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut pause = tokio::time::interval(PAUSE);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = pause.tick() => {}
            }
            let stamped = self.stamp_once().await;
            self.duty.ended(&stamped);
            if let Err(error) = stamped {
                tracing::debug!(error = %with_sources(&error), "could not record that this process listens");
            }
        }
    }

    /// Writes one stamp. Returns the blind spell that the stamp ended, if any. Writes no stamp while a loop that signals depend on has failed: a
    /// process that refuses signals does not listen.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn stamp_once(&self) -> StoreResult<Option<BlindSpell>> {
        if !self.ingest.health().is_well() {
            return Ok(None);
        }
        let mut tx = self.store.begin().await?;
        let now = self.clock.now();
        let stamp = Stamp {
            id: self.id,
            spooled: i64::try_from(self.ingest.spooled()).unwrap_or(i64::MAX),
            awaited_until: self.may_hold.then(|| now + self.patience),
            aside: addresses(self.ingest.fresh_aside()),
        };
        let said = listener::stamp(&mut tx, stamp, now).await?;
        let before = said.any;
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stepped_back = last.or(before).is_some_and(|last| is_to_come(last, now));
        if is_stepped_back {
            listener::rewind(&mut tx, now).await?;
        }
        let since = |started_at| BlindSpell {
            started_at,
            ended_at: now,
        };
        let mut spell = before.filter(|_| is_blind(before, now)).map(since);
        if let Some(spell) = spell {
            listener::wait_again(&mut tx, spell.started_at, now + self.patience).await?;
        } else if let Some(own) = said.own.filter(|_| is_blind(said.own, now)) {
            // Other processes listened, so only the clients of this process may have been refused.
            let covered = BlindSpell {
                started_at: own + BLIND_AFTER,
                ended_at: now - BLIND_AFTER,
            };
            if !listener::is_known_spell(&mut tx, covered).await? {
                spell = Some(since(own));
            }
        }
        if let Some(spell) = spell {
            listener::insert_spell(&mut tx, spell).await?;
            listener::forget_gone(&mut tx, now).await?;
            let seconds = (spell.ended_at - spell.started_at).num_milliseconds() as f64 / 1_000.0;
            tracing::warn!(
                spell.started_at = %spell.started_at, seconds,
                "a process did not listen for a while; deadlines that passed in that time are moved"
            );
        }
        tx.commit().await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        if is_stepped_back {
            tracing::warn!(
                "the clock was stepped back: times that now lie in the future count as the present"
            );
        }
        Ok(spell)
    }

    /// Signs this process off. Other processes need not wait for it, unless its spool still has signals.
    ///
    /// # Errors
    /// If the database cannot be reached. Other processes then wait for this one, because it may hold signals.
    pub async fn sign_off(&self) -> StoreResult<()> {
        if self.ingest.spooled() > 0 || !self.ingest.fresh_aside().is_empty() {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        listener::sign_off(&mut tx, self.id).await?;
        tx.commit().await
    }
}

fn addresses(aside: Vec<Address>) -> Addresses {
    let mut addresses = Addresses::default();
    for address in aside {
        match address {
            Address::Ping(id) => addresses.ping_ids.push(id.0),
            Address::Slug { digest, slug } => {
                addresses.digests.push(digest);
                addresses.slugs.push(slug);
            }
        }
    }
    addresses
}
