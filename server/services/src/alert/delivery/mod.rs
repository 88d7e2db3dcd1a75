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
//! An endpoint that hangs holds up nobody else. One channel, one project and one host hold a limited number of the places, and some places
//! are kept for projects that have hardly anything under way ([`share`]). A claim steps from channel to channel in an index, so its work
//! does not grow with what one project has waiting.
//!
//! It leaves to others what is told and to whom (`outbox`), when to try again (`deadbeat_domain::alert::delivery`), and how a kind of
//! channel is spoken to ([`senders`]).

mod claiming;
mod figures;
pub mod outbound;
pub(crate) mod redact;
pub mod senders;
mod settling;
mod share;
mod slots;
pub mod story;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::delivery::{Outcome, Reason, is_too_old};
use deadbeat_domain::time::Clock;
use deadbeat_store::alert::claim::{self, Claimed, Place};
use deadbeat_store::alert::delivery::{self, Settle};
use deadbeat_store::{Store, StoreError, StoreResult, with_sources};
use futures::stream::{self, StreamExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::Site;
use crate::alert::confirmation;
use crate::alert::sealing::{Opened, Unopened};
use crate::incident::link;
use crate::operation::duty::Duty;
use crate::secret::keyring::Keyring;
use figures::End;
pub use figures::{DeliveryFigures, Progress};
use senders::{Outgoing, Senders};
use share::{Busy, Target};
use slots::Slots;

/// Between passes while the database is away; doubles up to `TROUBLE_WAIT_MAX`.
const TROUBLE_WAIT: Duration = Duration::from_millis(250);
const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How much at once, and for how long.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// Deliveries taken by one claim.
    pub batch: usize,
    /// Attempts under way at the same time.
    pub concurrency: usize,
    /// Of those, to one channel.
    pub per_channel: usize,
    /// Of those, of one project.
    pub per_project: usize,
    /// Of those, to one host. All mail counts as one host: it goes through one server.
    pub per_host: usize,
    /// The last free places, which are kept for projects with fewer than two attempts under way.
    pub reserved: usize,
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
            concurrency: 128,
            per_channel: 4,
            per_project: 16,
            per_host: 32,
            reserved: 32,
            lease: Duration::from_secs(60),
            send_limit: Duration::from_secs(15),
            poll: Duration::from_secs(1),
        }
    }
}

/// A delivery that this process holds.
struct Held {
    row: Claimed,
    /// Its channel's settings and secrets in clear.
    opened: Result<Opened, Unopened>,
    /// The channel is as it was then.
    claimed_at: DateTime<Utc>,
    lease_until: DateTime<Utc>,
}

/// The delivery loop. Cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    store: Store,
    clock: Arc<dyn Clock>,
    senders: Senders,
    ring: Keyring,
    /// Where the links of messages lead. None: they have no link to acknowledge.
    site: Option<Site>,
    wake: Arc<Notify>,
    settings: DeliverySettings,
    figures: Arc<DeliveryFigures>,
    duty: Duty,
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
            ring: Keyring::default(),
            site: None,
            wake,
            settings,
            figures: Arc::default(),
            duty: Duty::new("delivery"),
        }
    }

    /// What the loop reports of itself, in the shape of all loops.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Gives messages a link with which their readers acknowledge the incident.
    #[must_use]
    pub fn with_links_to(self, site: Site) -> Self {
        Self {
            site: Some(site),
            ..self
        }
    }

    /// Opens the secrets of channels with these keys.
    #[must_use]
    pub fn with_keyring(self, ring: Keyring) -> Self {
        Self { ring, ..self }
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

    /// One pass: claims a batch, whoever it goes to, and sees each of it through.
    ///
    /// # Errors
    /// When the database is away before anything was claimed.
    pub async fn deliver_once(&self) -> Result<Progress, StoreError> {
        let batch = self.settings.batch;
        let no_limits = DeliverySettings {
            concurrency: batch,
            per_channel: batch,
            per_project: batch,
            per_host: batch,
            reserved: 0,
            ..self.settings.clone()
        };
        let mut position = claim::START;
        let claimed = self
            .claim(&Busy::default(), &no_limits, batch, &mut position)
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
        let mut slots = Slots::default();
        let mut trouble = 0_u32;
        // Where the next claim begins: it goes on where the last one ended, so that every channel has its turn.
        let mut position = claim::START;
        while !stop.is_cancelled() {
            let passed = self.pass(&mut slots, &mut position).await;
            self.duty.ended(&passed);
            self.duty.left(slots.tasks.len());
            let pause = match passed {
                Ok(pause) => {
                    if trouble > 0 {
                        tracing::info!("the outbox can be read again");
                        trouble = 0;
                    }
                    self.passed();
                    pause
                }
                Err(error) => {
                    if trouble == 0 {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the outbox cannot be read; trying again"
                        );
                    }
                    trouble = trouble.saturating_add(1);
                    (TROUBLE_WAIT * 2_u32.saturating_pow(trouble.min(8) - 1)).min(TROUBLE_WAIT_MAX)
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                // A pass follows each end: there is room again, and the next of its incident and channel may go.
                () = slots.ended() => {}
                () = self.wake.notified(), if trouble == 0 => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        while !slots.tasks.is_empty() {
            slots.ended().await;
        }
    }

    /// Claims what there is room for, and begins it. Answers how long until it is worth looking again, if nothing ends and no bell rings.
    async fn pass(&self, slots: &mut Slots, position: &mut Place) -> StoreResult<Duration> {
        let (settings, mut has_begun) = (&self.settings, false);
        loop {
            let room = settings
                .concurrency
                .saturating_sub(slots.tasks.len())
                .min(settings.batch);
            if room == 0 {
                break;
            }
            let claimed = self.claim(&slots.busy, settings, room, position).await?;
            if claimed.is_empty() {
                break;
            }
            has_begun = true;
            for held in claimed {
                let row = &held.row;
                let target = Target::new(row.project_id, row.channel_id, Some(&row.settings));
                let this = self.clone();
                // Tasks, not futures polled by the loop: one that stood still with a connection in its hand while the loop waits for
                // one would block it.
                let task = slots.tasks.spawn(async move { this.deliver(held).await });
                slots.add(task.id(), target);
            }
        }
        if has_begun {
            // The end of one of them brings the next pass.
            return Ok(settings.poll);
        }
        let now = self.clock.now();
        let nearest = delivery::nearest_attempt(&self.store.reader()).await?;
        self.duty
            .was_late(nearest.map_or(TimeDelta::zero(), |at| now - at));
        Ok(match nearest {
            Some(at) if at > now => (at - now).to_std().unwrap_or_default().min(settings.poll),
            // Due but not to be had: it waits for the one before it, has no place, or another process has it. No reason to spin.
            _ => settings.poll,
        })
    }

    /// The loop works.
    fn passed(&self) {
        self.figures
            .last_pass
            .store(self.clock.now().timestamp_micros(), Ordering::Relaxed);
    }

    /// Sees one claimed delivery through.
    async fn deliver(&self, held: Held) -> End {
        let row = &held.row;
        // The highest level: whatever is logged of an attempt has its delivery, also where only errors are logged.
        let span = tracing::error_span!(
            "attempt",
            delivery.id = %row.id,
            channel.id = %row.channel_id,
            kind = row.settings.kind(),
            number = row.attempt,
        );
        self.attempt(held).instrument(span).await
    }

    async fn attempt(&self, held: Held) -> End {
        let began = self.clock.now();
        let limit = TimeDelta::from_std(self.settings.send_limit).unwrap_or(TimeDelta::MAX);
        if held.lease_until.signed_duration_since(began) < limit {
            // This process was held up. Another may soon take it, and both would send it.
            return End::Unsettled;
        }
        if is_too_old(held.row.due_since, began) {
            return self.cancel(&held, began).await;
        }
        let started = Instant::now();
        let outcome = self.send(&held, began).await;
        if let Some(reason) = outcome.reason() {
            self.figures.count_failed(reason);
        }
        let attempt = settling::attempt_of(&held.row, &outcome, began, started.elapsed());
        let end = self.settle(&held, &outcome, &attempt).await;
        tracing::debug!(?end, duration_ms = started.elapsed().as_millis(), "attempted");
        self.figures.count(end, self.clock.now());
        end
    }

    /// Cancels what waited for more than a day: it would tell of a day that is over.
    async fn cancel(&self, held: &Held, now: DateTime<Utc>) -> End {
        let row = &held.row;
        let cancelled = async {
            let mut tx = self.store.begin().await?;
            let is_ours =
                delivery::settle(&mut tx, row.project_id, row.id, row.lease, Settle::Cancelled, now).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(is_ours)
        };
        let end = match cancelled.await {
            Ok(true) => {
                tracing::warn!(delivery.id = %row.id, created_at = %row.created_at, "an alert waited for more than a day and was cancelled");
                End::Dead
            }
            Ok(false) => End::Unsettled,
            Err(error) => {
                tracing::warn!(delivery.id = %row.id, error = %with_sources(&error), "an old alert could not be cancelled; it is when its lease ends");
                End::Unsettled
            }
        };
        self.figures.count(end, now);
        end
    }

    /// One attempt, in a task of its own, so that a sender that panics or never ends costs no more than the attempt.
    async fn send(&self, held: &Held, attempted_at: DateTime<Utc>) -> Outcome {
        let row = &held.row;
        let passing = |reason: Reason, detail: String| Outcome::Retry {
            reason,
            code: None,
            detail,
            retry_after: None,
        };
        let kind = row.settings.kind();
        let Some(sender) = self.senders.get(kind) else {
            return passing(
                Reason::Setup,
                format!("this server does not know how to send to a channel of the kind {kind}"),
            );
        };
        // The channel is not at fault, so it is not switched off: the alert waits for the operator, within its day.
        let opened = match &held.opened {
            Ok(opened) => opened.clone(),
            Err(fault) => return passing(Reason::Setup, format!("the channel {fault}")),
        };
        let clean = |outcome| match &held.opened {
            Ok(opened) => redact::clean(outcome, &opened.settings, opened.signing_secret.as_deref()),
            Err(_) => outcome,
        };
        let mut message = row.message.clone();
        confirmation::sign(
            &mut message,
            row.channel_id,
            &opened.settings,
            opened.confirm_secret.as_deref(),
        );
        if let Some(site) = &self.site {
            link::sign(&mut message, row.channel_id, &self.ring, site);
        }
        let outgoing = Outgoing {
            id: row.id,
            attempted_at,
            message,
            settings: opened.settings,
            signing_secret: opened.signing_secret,
            handle: row.handle.clone(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(
            async move { sender.send(outgoing).await }.in_current_span(),
        ));
        match tokio::time::timeout(self.settings.send_limit, task).await {
            Ok(Ok(outcome)) => clean(outcome),
            Ok(Err(error)) => {
                tracing::error!(delivery.id = %row.id, kind, %error, "a sender failed");
                passing(
                    Reason::Internal,
                    "the sender failed: a fault in Deadbeat, which its log describes".to_owned(),
                )
            }
            Err(_) => passing(
                Reason::Timeout,
                format!("not done within {} s", self.settings.send_limit.as_secs()),
            ),
        }
    }
}
