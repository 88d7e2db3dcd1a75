//! Delivery: the loop that sends alerts from the outbox to their channels.
//!
//! ```text
//! claim with a lease (Tx) ─▶ sender (no Tx, bounded in time) ─▶ settle (Tx): attempt row + sent | retry at | dead
//! ```
//!
//! Delivery tries to send an alert for a day, and sends it at least once, always under the same delivery id. If a
//! process dies while it sends, nothing is lost: its leases expire, and another process takes the deliveries over. A
//! settlement checks the lease again, so a process that lost its lease writes nothing. The claim keeps the order of
//! alerts per incident and channel. Any number of processes may deliver.
//!
//! An endpoint that hangs delays no other endpoint. One channel, one project and one host may use a limited number of
//! slots. Some slots are reserved for projects with hardly any attempt under way ([`share`]). A claim steps from
//! channel to channel in an index, so a project's backlog does not make it slower.
//!
//! Other modules decide the message and its recipients (`outbox`), the time of the next attempt
//! (`deadbeat_domain::alert::delivery`), and the protocol of each kind of channel ([`senders`]).

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
use crate::alert::sealing::{Opened, Unopened};
use crate::alert::{confirmation, push_key, unsubscribe};
use crate::incident::{button, link};
use crate::operation::duty::Duty;
use crate::secret::keyring::Keyring;
use figures::End;
pub use figures::{DeliveryFigures, Progress};
use senders::{Outgoing, Senders, Signed};
use share::{Busy, Target};
use slots::Slots;

/// Pause between passes while the database is away. It doubles up to `TROUBLE_WAIT_MAX`.
const TROUBLE_WAIT: Duration = Duration::from_millis(250);
const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Limits of the loop: how many deliveries at once, and times.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// Number of deliveries that one claim takes at most.
    pub batch: usize,
    /// Number of slots: attempts that may be under way at the same time.
    pub concurrency: usize,
    /// Number of slots that one channel may use.
    pub per_channel: usize,
    /// Number of slots that one project may use.
    pub per_project: usize,
    /// Number of slots that one host may use. All mail counts as one host, because it goes through one server.
    pub per_host: usize,
    /// Number of slots that are reserved for projects with fewer than two attempts under way.
    pub reserved: usize,
    /// Duration of a claim's lease. It must be more than `send_limit` × `batch` / `concurrency`, or claimed
    /// deliveries do not start.
    pub lease: Duration,
    /// Timeout of an attempt. It must be more than the senders' own timeouts.
    pub send_limit: Duration,
    /// The longest sleep between two polls of the outbox.
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

/// A delivery that this process has claimed.
struct Held {
    row: Claimed,
    /// Its channel's settings and secrets as plain text.
    opened: Result<Opened, Unopened>,
    /// The time of the claim. The channel's settings are as of this time.
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
    /// The site to which links in messages lead. None: messages have no link to acknowledge the incident.
    site: Option<Site>,
    wake: Arc<Notify>,
    settings: DeliverySettings,
    figures: Arc<DeliveryFigures>,
    duty: Duty,
}

impl Delivery {
    /// Makes the loop. Call `notify_one` on `wake` after a write to the outbox. A lost wake-up delays the delivery by
    /// `settings.poll` at most.
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

    /// Returns the loop's duty.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Adds to messages a link with which their readers acknowledge the incident.
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

    /// Returns the loop's counters.
    #[must_use]
    pub fn figures(&self) -> Arc<DeliveryFigures> {
        Arc::clone(&self.figures)
    }

    /// Returns when a delivery was last sent.
    #[must_use]
    pub fn last_success_at(&self) -> Option<DateTime<Utc>> {
        self.figures.last_success_at()
    }

    /// Makes one pass: claims a batch without limits per channel, project or host, and attempts each delivery.
    ///
    /// # Errors
    /// If the database is away before anything was claimed.
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

    /// Delivers until `stop` is cancelled, then waits for the attempts under way. The senders' timeouts limit this
    /// wait.
    ///
    /// The loop claims while attempts are under way, so that a slow endpoint delays no other endpoint.
    pub async fn run(&self, stop: CancellationToken) {
        let mut slots = Slots::default();
        let mut trouble = 0_u32;
        // The next claim starts where the last one ended, so that every channel has its turn.
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
                // The end of an attempt frees a slot, and the next alert of the same incident and channel may be
                // sent.
                () = slots.ended() => {}
                () = self.wake.notified(), if trouble == 0 => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        while !slots.tasks.is_empty() {
            slots.ended().await;
        }
    }

    /// Claims as many deliveries as slots are free, and starts their attempts. Returns the time until the next pass,
    /// unless an attempt ends or a wake-up comes before.
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
                // Use tasks, not futures that the loop polls: such a future could hold a database connection while
                // the loop waits for one, which is a deadlock.
                let task = slots.tasks.spawn(async move { this.deliver(held).await });
                slots.add(task.id(), target);
            }
        }
        if has_begun {
            // The end of one of these attempts starts the next pass.
            return Ok(settings.poll);
        }
        let now = self.clock.now();
        let nearest = delivery::nearest_attempt(&self.store.reader()).await?;
        self.duty
            .was_late(nearest.map_or(TimeDelta::zero(), |at| now - at));
        Ok(match nearest {
            Some(at) if at > now => (at - now).to_std().unwrap_or_default().min(settings.poll),
            // The delivery is due but cannot be claimed: it waits for an earlier alert or for a slot, or another
            // process has it. Do not spin.
            _ => settings.poll,
        })
    }

    /// Notes that the loop has just made a pass.
    fn passed(&self) {
        self.figures
            .last_pass
            .store(self.clock.now().timestamp_micros(), Ordering::Relaxed);
    }

    /// Attempts one claimed delivery, and settles it.
    async fn deliver(&self, held: Held) -> End {
        let row = &held.row;
        // At the highest level, so that every log line of an attempt names the delivery, even if only errors are
        // logged.
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
            // This process was delayed. The lease may end during the attempt, and another process would send the
            // alert too.
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

    /// Cancels a delivery that waited for more than a day, because its news is too old.
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
                tracing::warn!(delivery.id = %row.id, error = %with_sources(&error), "an old alert could not be cancelled; it is cancelled after its lease ends");
                End::Unsettled
            }
        };
        self.figures.count(end, now);
        end
    }

    /// Makes one attempt in a task of its own, so that a sender that panics or hangs costs only this attempt.
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
        let mut signed = Signed {
            button: button::of_message(&message, row.channel_id, &self.ring),
            ..Signed::default()
        };
        if let Some(site) = &self.site {
            link::sign(&mut message, row.channel_id, &self.ring, site);
            signed.unsubscribe_url = unsubscribe::url(
                message.alert(),
                row.project_id,
                row.channel_id,
                &opened.settings,
                &self.ring,
                site,
            );
        }
        if senders::kind(kind).is_some_and(senders::Kind::shows_identity) {
            match push_key::identity(&self.store, &self.ring, self.site.as_ref()).await {
                Ok(identity) => signed.identity = Some(identity),
                Err(fault) => return passing(Reason::Setup, fault.to_string()),
            }
        }
        let outgoing = Outgoing {
            id: row.id,
            attempted_at,
            message,
            settings: opened.settings,
            signing_secret: opened.signing_secret,
            handle: row.handle.clone(),
            signed,
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
                    "the sender failed: this is a fault in Deadbeat, and its log describes it".to_owned(),
                )
            }
            Err(_) => passing(
                Reason::Timeout,
                format!("not done within {} s", self.settings.send_limit.as_secs()),
            ),
        }
    }
}
