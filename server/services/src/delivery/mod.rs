//! Delivery: takes alerts from the outbox to their channels.
//!
//! ```text
//! claim with a lease (Tx) ─▶ sender (no Tx, bounded in time) ─▶ settle (Tx): attempt row + sent | retry at | dead
//! ```
//!
//! It promises that an alert is tried for a day and told at least once, always under the same delivery id. A process that dies
//! while sending loses nothing: its leases end and another takes over. A settlement repeats the claim's condition, so that one whose
//! lease was lost writes nothing. Order is kept per incident and channel by the claim itself. Any number of processes may deliver.
//!
//! A channel that hangs holds up nobody else: of one channel, only a few attempts are under way at once, and a claim passes over the
//! deliveries of a channel that has its share. When one of its attempts ends, the next of that channel follows.
//!
//! It leaves to others what is told and to whom (`outbox`), when to try again (`deadbeat_domain::delivery`), and how a kind of
//! channel is spoken to ([`senders`]).

mod figures;
pub mod message;
pub mod outbound;
pub mod senders;
mod slots;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::delivery::{Outcome, next_attempt};
use deadbeat_domain::ids::ChannelId;
use deadbeat_domain::time::Clock;
use deadbeat_store::attempt::{self, Attempt};
use deadbeat_store::channel::{self, Channel};
use deadbeat_store::delivery::{self, Claimed, NewAlert, Settle};
use deadbeat_store::{Store, StoreError, StoreResult, Tx};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::outbox;
use figures::End;
pub use figures::{DeliveryFigures, Progress};
use senders::{Outgoing, Senders, printable};
use slots::Slots;

/// Characters of an attempt's detail.
const DETAIL_CHARS: usize = 500;
/// A settlement that meets a database that is away is tried so often: losing it costs a second sending.
const SETTLE_TRIES: u32 = 4;
/// Between those tries; doubles.
const SETTLE_WAIT: Duration = Duration::from_millis(250);
/// Between passes while the database is away; doubles up to `TROUBLE_WAIT_MAX`.
const TROUBLE_WAIT: Duration = Duration::from_millis(250);
const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// A claim that could not be read lets go its rows a moment after it was dropped.
const ROLLBACK_WAIT: Duration = Duration::from_millis(20);
const ROLLBACK_WAITS: u32 = 50;

/// How much at once, and for how long.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// Deliveries taken by one claim.
    pub batch: usize,
    /// Attempts under way at the same time.
    pub concurrency: usize,
    /// Of those, to one channel. So many channels may hang before others wait: `concurrency` / `per_channel`.
    pub per_channel: usize,
    /// How long a claim holds. More than `send_limit` × `batch` / `concurrency`, or claimed deliveries are not begun.
    pub lease: Duration,
    /// After this, an attempt is given up, whatever its sender does. More than the senders' own limits.
    pub send_limit: Duration,
    /// The longest sleep between two looks into the outbox.
    pub poll: Duration,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            batch: 32,
            concurrency: 64,
            per_channel: 4,
            lease: Duration::from_secs(60),
            send_limit: Duration::from_secs(15),
            poll: Duration::from_secs(1),
        }
    }
}

/// A delivery that this process holds.
struct Held {
    row: Claimed,
    /// The channel is as it was then.
    claimed_at: DateTime<Utc>,
    lease_until: DateTime<Utc>,
}

/// What a claim asks for.
struct Wanted<'a> {
    limit: usize,
    of: Of<'a>,
}

/// To whom.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// To anybody, no more than `most` to one channel with those of `busy` that are under way.
    Any {
        busy: &'a [(ChannelId, usize)],
        most: usize,
    },
    /// To these, so many each.
    Channels(&'a [(ChannelId, usize)]),
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The delivery loop. Cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    store: Store,
    clock: Arc<dyn Clock>,
    senders: Senders,
    wake: Arc<Notify>,
    settings: DeliverySettings,
    figures: Arc<DeliveryFigures>,
}

impl Delivery {
    /// Puts the parts together. `wake` is rung (`notify_one`) when something was put into the outbox; an unheard ring costs at most
    /// `settings.poll`.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        senders: Senders,
        wake: Arc<Notify>,
        settings: DeliverySettings,
    ) -> Self {
        Self {
            store,
            clock,
            senders,
            wake,
            settings,
            figures: Arc::default(),
        }
    }

    /// What the loop reports of itself.
    #[must_use]
    pub fn figures(&self) -> Arc<DeliveryFigures> {
        Arc::clone(&self.figures)
    }

    /// When a delivery last arrived.
    #[must_use]
    pub fn last_success_at(&self) -> Option<DateTime<Utc>> {
        self.figures.last_success_at()
    }

    /// One pass: claims a batch and sees each of it through.
    ///
    /// # Errors
    /// When the database is away before anything was claimed.
    pub async fn deliver_once(&self) -> Result<Progress, StoreError> {
        let batch = self.settings.batch;
        let claimed = self
            .claim(&Wanted {
                limit: batch,
                of: Of::Any {
                    busy: &[],
                    most: batch,
                },
            })
            .await?;
        let mut progress = Progress {
            claimed: claimed.len(),
            ..Progress::default()
        };
        let mut ends = stream::iter(claimed)
            .map(|held| self.deliver(held))
            .buffer_unordered(self.settings.concurrency.max(1));
        while let Some(end) = ends.next().await {
            progress.count(end);
        }
        Ok(progress)
    }

    /// Delivers until told to stop; then what is under way is finished, which the senders' time limits bound.
    ///
    /// Claims go on while attempts are under way, so that an endpoint that answers slowly holds up no other.
    pub async fn run(&self, stop: CancellationToken) {
        let mut slots = Slots::new(self.settings.concurrency, self.settings.per_channel);
        let mut trouble = 0_u32;
        // Whether there may be something to claim beside the next of channels that have just got room again.
        let mut look = true;
        let mut next_look = tokio::time::Instant::now();
        while !stop.is_cancelled() {
            match self.pass(&mut slots, look).await {
                Ok(pause) => {
                    if trouble > 0 {
                        tracing::info!("the outbox can be read again");
                        trouble = 0;
                    }
                    self.passed();
                    if let Some(pause) = pause {
                        look = pause.is_zero();
                        next_look = tokio::time::Instant::now() + pause;
                    }
                }
                Err(error) => {
                    if trouble == 0 {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the outbox cannot be read; trying again"
                        );
                    }
                    trouble = trouble.saturating_add(1);
                    let pause =
                        (TROUBLE_WAIT * 2_u32.saturating_pow(trouble.min(8) - 1)).min(TROUBLE_WAIT_MAX);
                    look = true;
                    next_look = tokio::time::Instant::now() + pause;
                }
            }
            if look && trouble == 0 && slots.free() > 0 {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                // A pass follows each end: there is room again, and the next of its incident and channel may go.
                () = slots.ended() => {}
                () = self.wake.notified(), if trouble == 0 => look = true,
                () = tokio::time::sleep_until(next_look) => {
                    look = true;
                    next_look = tokio::time::Instant::now() + self.settings.poll;
                }
            }
        }
        while !slots.tasks.is_empty() {
            slots.ended().await;
        }
    }

    /// Claims what there is room for, and begins it. Answers, if it looked for all that is due, how long until it is worth looking
    /// again; zero: at once.
    async fn pass(&self, slots: &mut Slots, look: bool) -> StoreResult<Option<Duration>> {
        let limit = slots.free().min(self.settings.batch);
        if limit == 0 {
            return Ok(None);
        }
        if !look {
            let freed = slots.freed(limit);
            if !freed.is_empty() {
                let of = Of::Channels(&freed);
                let claimed = self.claim(&Wanted { limit, of }).await?;
                slots.freed.clear();
                self.begin(slots, claimed);
            }
            return Ok(None);
        }
        let busy = slots.busy();
        let most = slots.per_channel;
        let claimed = self
            .claim(&Wanted {
                limit,
                of: Of::Any { busy: &busy, most },
            })
            .await?;
        slots.freed.clear();
        let (count, is_none) = (claimed.len(), claimed.is_empty());
        let has_filled_a_channel = self.begin(slots, claimed);
        if count == limit || has_filled_a_channel {
            // There may be more, if only behind those of a channel that was passed over.
            return Ok(Some(Duration::ZERO));
        }
        if !is_none {
            // Looking for the nearest attempt can wait until these are under way: the pass that follows does it.
            return Ok(Some(self.settings.poll));
        }
        let now = self.clock.now();
        Ok(Some(
            match delivery::nearest_attempt(&self.store.reader()).await? {
                Some(at) if at > now => (at - now).to_std().unwrap_or_default().min(self.settings.poll),
                // Due but not to be had: it waits for the one before it, its channel has its share, or another process has it. No
                // reason to spin.
                _ => self.settings.poll,
            },
        ))
    }

    /// Begins attempts. True: some channel has its share now.
    fn begin(&self, slots: &mut Slots, claimed: Vec<Held>) -> bool {
        let mut has_filled_a_channel = false;
        for held in claimed {
            let channel = held.row.channel_id;
            let this = self.clone();
            // Tasks, not futures polled by the loop: one that stood still with a connection in its hand while the loop waits for one
            // would block it.
            let task = slots.tasks.spawn(async move { this.deliver(held).await });
            slots.channels.insert(task.id(), channel);
            let count = slots.busy.entry(channel).or_default();
            *count += 1;
            has_filled_a_channel |= *count >= slots.per_channel;
        }
        has_filled_a_channel
    }

    /// The loop works.
    fn passed(&self) {
        self.figures
            .last_pass
            .store(self.clock.now().timestamp_micros(), Ordering::Relaxed);
    }

    /// Takes deliveries that are due.
    async fn claim(&self, wanted: &Wanted<'_>) -> StoreResult<Vec<Held>> {
        match self.claim_up_to(wanted).await {
            Err(StoreError::Corrupt(_)) => self.claim_one_by_one(wanted).await,
            other => other,
        }
    }

    async fn claim_up_to(&self, wanted: &Wanted<'_>) -> StoreResult<Vec<Held>> {
        let mut tx = self.store.begin().await?;
        let held = self.claim_in(&mut tx, wanted).await?;
        tx.commit().await?;
        Ok(held)
    }

    async fn claim_in(&self, tx: &mut Tx, wanted: &Wanted<'_>) -> StoreResult<Vec<Held>> {
        let claimed_at = self.clock.now();
        let lease_until = claimed_at + TimeDelta::from_std(self.settings.lease).unwrap_or(TimeDelta::MAX);
        let rows = match wanted.of {
            Of::Any { busy, most } => {
                let (limit, most) = (whole(wanted.limit), whole(most));
                let busy: Vec<_> = busy.iter().map(|(id, count)| (*id, whole(*count))).collect();
                delivery::claim(tx, claimed_at, lease_until, limit, &busy, most).await?
            }
            Of::Channels(channels) => {
                let channels: Vec<_> = channels.iter().map(|(id, count)| (*id, whole(*count))).collect();
                delivery::claim_of(tx, claimed_at, lease_until, &channels).await?
            }
        };
        Ok(rows
            .into_iter()
            .map(|row| Held {
                row,
                claimed_at,
                lease_until,
            })
            .collect())
    }

    /// A row that cannot be read makes a whole claim unreadable. Taken one at a time, the good ones go their way, and the bad one is
    /// put aside for as long as a lease lasts.
    async fn claim_one_by_one(&self, wanted: &Wanted<'_>) -> StoreResult<Vec<Held>> {
        let (mut busy, most) = match wanted.of {
            Of::Any { busy, most } => (busy.iter().copied().collect(), most),
            // Only these have room.
            Of::Channels(_) => (HashMap::new(), self.settings.per_channel),
        };
        let mut claimed = Vec::new();
        let mut seen = 0;
        let mut waits = 0;
        while seen < wanted.limit {
            let one = match wanted.of {
                Of::Any { .. } => {
                    let busy: Vec<_> = busy.iter().map(|(id, count)| (*id, *count)).collect();
                    self.claim_one(Of::Any { busy: &busy, most }).await
                }
                Of::Channels(channels) => {
                    let rest: Vec<_> = channels
                        .iter()
                        .filter(|(id, count)| busy.get(id).is_none_or(|taken| taken < count))
                        .map(|(id, _)| (*id, 1))
                        .take(1)
                        .collect();
                    self.claim_one(Of::Channels(&rest)).await
                }
            };
            seen += 1;
            match one {
                Ok(Some(held)) => {
                    *busy.entry(held.row.channel_id).or_default() += 1;
                    claimed.push(held);
                }
                // The batch is being rolled back on its own connection, and until that has happened its rows are locked and
                // passed over.
                Ok(None) if seen == 1 && waits < ROLLBACK_WAITS => {
                    (seen, waits) = (0, waits + 1);
                    tokio::time::sleep(ROLLBACK_WAIT).await;
                }
                Ok(None) => break,
                Err(StoreError::Corrupt(what)) => {
                    self.figures.put_aside.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(what, "a delivery cannot be read and is put aside");
                }
                // What is claimed already is not dropped with the rest.
                Err(_) if !claimed.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(claimed)
    }

    async fn claim_one(&self, of: Of<'_>) -> StoreResult<Option<Held>> {
        let mut tx = self.store.begin().await?;
        let found = self.claim_in(&mut tx, &Wanted { limit: 1, of }).await;
        if let Ok(_) | Err(StoreError::Corrupt(_)) = &found {
            // Committed for the bad row too: its lease is what puts it aside.
            tx.commit().await?;
        }
        Ok(found?.pop())
    }

    /// Sees one claimed delivery through.
    async fn deliver(&self, held: Held) -> End {
        let began = self.clock.now();
        let limit = TimeDelta::from_std(self.settings.send_limit).unwrap_or(TimeDelta::MAX);
        if held.lease_until.signed_duration_since(began) < limit {
            // This process was held up. Another may soon take it, and both would send it.
            return End::Unsettled;
        }
        let started = Instant::now();
        let outcome = self.send(&held.row, began).await;
        let attempt = attempt_of(&held.row, &outcome, began, started.elapsed());
        let end = self.settle(&held, &outcome, &attempt).await;
        self.figures.count(end, self.clock.now());
        end
    }

    /// One attempt, in a task of its own, so that a sender that panics or never ends costs no more than the attempt.
    async fn send(&self, row: &Claimed, attempted_at: DateTime<Utc>) -> Outcome {
        let passing = |detail: String| Outcome::Retry {
            code: None,
            detail,
            retry_after: None,
        };
        let kind = row.settings.kind();
        let Some(sender) = self.senders.get(kind) else {
            return passing(format!(
                "this server does not know how to send to a channel of the kind {kind}"
            ));
        };
        let outgoing = Outgoing {
            id: row.id,
            attempted_at,
            payload: row.payload.clone(),
            settings: row.settings.clone(),
            signing_secret: row.signing_secret.clone(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(async move { sender.send(outgoing).await }));
        match tokio::time::timeout(self.settings.send_limit, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::error!(delivery.id = %row.id, kind, %error, "a sender failed");
                passing("the sender failed: a fault in Deadbeat, told in its log".to_owned())
            }
            Err(_) => passing(format!(
                "not done within {} s",
                self.settings.send_limit.as_secs()
            )),
        }
    }

    /// Writes what became of it. Tried a few times: while the database is away, a result is worth keeping.
    async fn settle(&self, held: &Held, outcome: &Outcome, attempt: &Attempt) -> End {
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
        // Read outside the transaction, which would otherwise lock it against the deliveries of others that refer to it.
        let channel = match outcome {
            Outcome::Failed { .. } => {
                channel::get(&self.store.reader(), row.project_id, row.channel_id).await?
            }
            Outcome::Sent { .. } | Outcome::Retry { .. } => None,
        };
        let mut tx = self.store.begin().await?;
        if !delivery::settle(&mut tx, row.id, row.lease, settle, now).await? {
            return Ok(End::Unsettled);
        }
        attempt::insert(&mut tx, row.id, attempt).await?;
        let mut told = 0;
        if let Some(channel) = channel {
            let reason = attempt.detail.as_deref().unwrap_or_default();
            // As of the claim: a channel that was changed since was not the one that failed.
            if channel::disable(&mut tx, channel.id, reason, held.claimed_at, now).await? {
                told = tell_others(&mut tx, &channel, reason, now).await?;
            }
        }
        tx.commit().await?;
        if told > 0 {
            self.wake.notify_one();
        }
        Ok(end)
    }
}

/// Where a delivery goes from here.
fn verdict(row: &Claimed, outcome: &Outcome, jitter: f64, now: DateTime<Utc>) -> (Settle, End) {
    match outcome {
        Outcome::Sent { .. } => (Settle::Sent, End::Sent),
        Outcome::Failed { .. } => (Settle::Dead, End::Dead),
        Outcome::Retry { retry_after, .. } => {
            match next_attempt(row.created_at, row.attempt, *retry_after, jitter, now) {
                Some(at) => (Settle::RetryAt(at), End::Retried),
                None => (Settle::Dead, End::Dead),
            }
        }
    }
}

fn attempt_of(row: &Claimed, outcome: &Outcome, began: DateTime<Utc>, took: Duration) -> Attempt {
    let (word, code, detail) = match outcome {
        Outcome::Sent { code } => ("sent", code, None),
        Outcome::Retry { code, detail, .. } => ("retry", code, Some(detail)),
        Outcome::Failed { code, detail } => ("failed", code, Some(detail)),
    };
    Attempt {
        number: row.attempt,
        started_at: began,
        duration_ms: i32::try_from(took.as_millis()).unwrap_or(i32::MAX),
        outcome: word.to_owned(),
        response_code: *code,
        // PostgreSQL takes no NUL in a text: a detail that holds one must not make the attempt unrecordable.
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

/// Tells a project's other channels that one was switched off; it cannot say so itself. Returns how many.
async fn tell_others(tx: &mut Tx, channel: &Channel, reason: &str, now: DateTime<Utc>) -> StoreResult<usize> {
    let project = channel.project_id;
    // The one switched off is no longer among them.
    let others: Vec<_> = channel::of_projects(tx, &[project])
        .await?
        .into_iter()
        .map(|(_, channel)| channel)
        .collect();
    if others.is_empty() {
        return Ok(0);
    }
    let projects = deadbeat_store::project::for_alerts(tx, &[project]).await?;
    let project_name = projects.get(&project).map(|project| project.name.as_str());
    let payload: Value = json!({
        "type": "channel.disabled",
        "timestamp": outbox::instant(now),
        "channel": {"id": channel.id, "name": channel.name, "kind": channel.settings.kind()},
        "reason": reason,
        "project": {"id": project, "name": project_name},
        "incident": null,
        "monitor": null,
    });
    // Alert::Test is the alert that belongs to no incident.
    let alert = NewAlert {
        project_id: project,
        incident_id: None,
        alert: Alert::Test,
        payload,
        channels: others,
    };
    Ok(delivery::enqueue(tx, &[alert], now).await?.len())
}
