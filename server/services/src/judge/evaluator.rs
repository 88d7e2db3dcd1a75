//! The loop that finds overdue subjects and opens incidents about them.
//!
//! The loop sleeps until the nearest deadline, a second at most. Any number of processes may sweep at once. Each
//! process claims batches of rows, skips rows that another one has locked, and judges and writes each batch in one
//! transaction. When many monitors are overdue, several transactions run at once. A row that cannot be read is put
//! aside for an hour and reported, so it does not delay other rows.

mod beats;
mod escalations;
mod long_down;
mod monitors;
mod periodic;
mod reminders;
mod switches;
mod workers;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::IncidentId;
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::time::Clock;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::judge::evaluator::Agenda;
use deadbeat_store::{Store, StoreResult, Tx, with_sources};
use futures::future::try_join_all;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use self::switches::Kind;
use crate::Site;
use crate::incident::changed::Occurrence;
use crate::judge::blind_notice;
use crate::judge::excuse::LONGEST_EXCUSE;
use crate::operation::duty::Duty;
use crate::operation::selfwatch::Selfwatch;
use crate::operation::supervisor::Health;

/// Number of rows that one transaction claims.
const BATCH: i64 = 1_000;
/// Number of transactions at once while batches are full: one computes and waits for the disk while the database
/// writes the rows of another.
const LANES: usize = 3;
/// The longest sleep. A deadline written while the evaluator sleeps may be noticed up to 1 s late: no NOTIFY
/// announces it, because that would cost each ping a notification.
const LONGEST_SLEEP: TimeDelta = TimeDelta::seconds(1);
/// The shortest sleep. Pings move deadlines all the time, so the evaluator judges together what falls due within a
/// tenth of a second. The pause also keeps the loop from spinning on a row that another process has locked.
const SHORTEST_SLEEP: TimeDelta = TimeDelta::milliseconds(100);
/// Microseconds between two stamps by which this process notes that it sweeps.
const STAMP_MICROS: i64 = 1_000_000;

/// Delay of the notice about monitors that could not be judged after a blind spell: by then all of them are counted.
const NOTICE_AFTER: TimeDelta = TimeDelta::seconds(10);
/// Time for which a row that cannot be read is put aside.
const ASIDE: TimeDelta = TimeDelta::hours(1);

/// Result of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Number of rows that the sweep claimed.
    pub claimed: usize,
    /// Number of subjects that went down.
    pub down: usize,
    /// Number of monitors that no longer flap.
    pub calm: usize,
    /// Number of incidents of which reminders were sent.
    pub reminded: usize,
    /// Number of escalation steps that were sent.
    pub escalated: usize,
}

impl Swept {
    fn add(&mut self, other: Self) {
        self.claimed += other.claimed;
        self.down += other.down;
        self.calm += other.calm;
        self.reminded += other.reminded;
        self.escalated += other.escalated;
    }
}

/// Returns the number of subjects that went down.
fn downs(occurrences: &[Occurrence<'_>]) -> usize {
    occurrences
        .iter()
        .filter(|one| {
            one.what
                .transition()
                .is_some_and(|transition| transition.to == Status::Down)
        })
        .count()
}

/// Result of one transaction.
struct Batched {
    swept: Swept,
    /// True if the batch was full: more rows may be due.
    is_full: bool,
}

/// The loop that sweeps.
pub struct Evaluator {
    store: Store,
    clock: Arc<dyn Clock>,
    site: Site,
    outbox_bell: Arc<Notify>,
    selfwatch: Selfwatch,
    settling: TimeDelta,
    /// The listener of the same process, and the health of the loops that write its signals.
    beside: Option<(Uuid, Health)>,
    /// The loop itself. The next three duties are parts of the loop that run at intervals of their own.
    duty: Duty,
    hosts_duty: Duty,
    unsampled_duty: Duty,
    unbegun_duty: Duty,
    /// Id of this process among the processes that sweep.
    id: Uuid,
    /// When this process last stamped its row: microseconds since the epoch. 0: never.
    stamped: AtomicI64,
    /// When this process last checked for brokers and queues without samples: microseconds since the epoch. 0: never.
    gave_up_at: AtomicI64,
    /// When this process last checked for runs that no worker received: microseconds since the epoch. 0: never.
    unbegun_at: AtomicI64,
    /// When this process last checked lost hosts: microseconds since the epoch. 0: never.
    hosts_at: AtomicI64,
    /// The incident of a lost host after which the next check goes on. None: it starts with the first one.
    hosts_after: Mutex<Option<IncidentId>>,
}

impl Evaluator {
    /// Makes an evaluator that judges without delay and knows no listener.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        site: Site,
        outbox_bell: Arc<Notify>,
        selfwatch: Selfwatch,
    ) -> Self {
        Self {
            store,
            clock,
            site,
            outbox_bell,
            selfwatch,
            settling: TimeDelta::zero(),
            beside: None,
            duty: Duty::new("evaluator"),
            hosts_duty: Duty::new("lost_hosts"),
            unsampled_duty: Duty::new("unseen"),
            unbegun_duty: Duty::new("unbegun_runs"),
            id: Uuid::now_v7(),
            stamped: AtomicI64::new(0),
            gave_up_at: AtomicI64::new(0),
            unbegun_at: AtomicI64::new(0),
            hosts_at: AtomicI64::new(0),
            hosts_after: Mutex::new(None),
        }
    }

    /// Returns the duties of the loop and of its parts that run at intervals of their own.
    #[must_use]
    pub fn duties(&self) -> [Duty; 4] {
        [
            &self.duty,
            &self.hosts_duty,
            &self.unsampled_duty,
            &self.unbegun_duty,
        ]
        .map(Duty::clone)
    }

    /// Makes the evaluator judge deadlines this much after they pass. A ping that came in time may still wait in the
    /// writer's queue, and must count.
    #[must_use]
    pub fn settling(self, settling: TimeDelta) -> Self {
        Self { settling, ..self }
    }

    /// Notes that this process also receives signals, as this listener. The evaluator judges nothing while a loop
    /// that writes signals does not work.
    #[must_use]
    pub fn beside(self, listener: Uuid, health: Health) -> Self {
        Self {
            beside: Some((listener, health)),
            ..self
        }
    }

    /// Sweeps until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let number = self.selfwatch.sweeps().count + 1;
            let sweep = self.sweep().instrument(tracing::info_span!("sweep", number));
            let done = sweep.await;
            self.duty.ended(&done);
            let pause = match done {
                Ok((swept, nearest)) => {
                    self.selfwatch.found(swept.down);
                    if swept.down > 0 || swept.reminded > 0 || swept.escalated > 0 {
                        tracing::info!(swept.down, swept.reminded, swept.escalated, "incidents");
                    }
                    let asleep = nearest.map_or(LONGEST_SLEEP, |at| at - (self.clock.now() - self.settling));
                    asleep.max(SHORTEST_SLEEP)
                }
                Err(error) => {
                    tracing::warn!(error = %with_sources(&error), "a sweep failed");
                    LONGEST_SLEEP
                }
            };
            let pause = pause.min(LONGEST_SLEEP).to_std().unwrap_or(Duration::ZERO);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Notes that this process sweeps: in its own watch each time, for other processes once a second.
    async fn stamp(&self) -> StoreResult<()> {
        let now = self.clock.now();
        self.selfwatch.swept(now);
        let before = self.stamped.load(Ordering::Relaxed);
        if (now.timestamp_micros() - before).abs() < STAMP_MICROS {
            return Ok(());
        }
        self.stamped.store(now.timestamp_micros(), Ordering::Relaxed);
        deadbeat_store::judge::evaluator::stamp(&self.store, self.id, now).await
    }

    /// Judges everything that is overdue now.
    ///
    /// # Errors
    /// If the database is away. What was committed stays.
    pub async fn sweep_once(&self) -> StoreResult<Swept> {
        Ok(self.sweep().await?.0)
    }

    /// Judges everything that is overdue now, and returns when something is due next. Beats come first, because the
    /// verdict on a monitor depends on its Beat's.
    async fn sweep(&self) -> StoreResult<(Swept, Option<DateTime<Utc>>)> {
        let began = Instant::now();
        // Read the clock once. If the clock stepped forward between two readings, all monitors would be overdue
        // without an excuse.
        let now = self.clock.now();
        let beside = self.beside.as_ref().map(|(listener, _)| *listener);
        let agenda = deadbeat_store::judge::evaluator::agenda(&self.store.reader(), beside, now).await?;
        self.selfwatch.turned(now);
        // While no process listens, or received signals are not written yet, a missing report proves nothing.
        let takes = self.beside.as_ref().is_none_or(|(_, health)| health.is_well());
        let Some(judged_until) = agenda.reception.judged_until(now).filter(|_| takes) else {
            return Ok((Swept::default(), None));
        };
        let judged_at = judged_until - self.settling;
        let lag = agenda.nearest().map_or(TimeDelta::zero(), |at| judged_at - at);
        self.duty.was_late(lag);
        let swept = self.work_off(&agenda, judged_at, now).await?;
        self.selfwatch.sweep_took(began.elapsed(), swept.claimed);
        let duration_ms = began.elapsed().as_millis();
        tracing::debug!(swept.claimed, swept.down, swept.reminded, duration_ms, "swept");
        self.stamp().await?;
        Ok((swept, agenda.nearest()))
    }

    /// Does what the agenda says is due. Subjects are judged as of `judged_at`; notices, reminders and escalations
    /// are due by `now`.
    async fn work_off(
        &self,
        agenda: &Agenda,
        judged_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> StoreResult<Swept> {
        let mut swept = Swept::default();
        let is_due = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at <= judged_at);
        if is_due(agenda.beat) {
            swept.add(self.sweep_all::<Beat>(judged_at).await?);
        }
        if is_due(agenda.worker) {
            swept.add(self.sweep_all::<Worker>(judged_at).await?);
        }
        if is_due(agenda.monitor) {
            let first = self.sweep_monitors(judged_at).await?;
            self.batched(&first, &mut swept).await?;
            if first.is_full {
                for lane in try_join_all((0..LANES).map(|_| self.sweep_lane(judged_at))).await? {
                    swept.add(lane);
                }
            }
        }
        self.judge_hosts(judged_at).await;
        self.give_up_unsampled(judged_at).await;
        self.find_unbegun(judged_at).await;
        if agenda.notice.is_some_and(|at| at <= now) {
            blind_notice::send_due(&self.store, now, BATCH).await?;
            self.outbox_bell.notify_one();
        }
        // Before the reminders, which it puts off.
        if agenda.long_down().is_some_and(|at| at <= now) {
            loop {
                let batch = self.alert_long_down(now).await?;
                self.batched(&batch, &mut swept).await?;
                if !batch.is_full {
                    break;
                }
            }
        }
        if agenda.reminder.is_some_and(|at| at <= now) {
            loop {
                let batch = self.remind(now).await?;
                self.batched(&batch, &mut swept).await?;
                if !batch.is_full {
                    break;
                }
            }
        }
        if agenda.escalation.is_some_and(|at| at <= now) {
            loop {
                let batch = self.escalate(now).await?;
                self.batched(&batch, &mut swept).await?;
                if !batch.is_full {
                    break;
                }
            }
        }
        Ok(swept)
    }

    /// Judges batches of switches of a kind, one after the other, until a batch is not full.
    async fn sweep_all<K: Kind>(&self, judged_at: DateTime<Utc>) -> StoreResult<Swept> {
        let mut swept = Swept::default();
        loop {
            let batch = self.sweep_switches::<K>(judged_at).await?;
            self.batched(&batch, &mut swept).await?;
            if !batch.is_full {
                return Ok(swept);
            }
        }
    }

    /// Judges batches of monitors, one after the other, until a batch is not full.
    async fn sweep_lane(&self, now: DateTime<Utc>) -> StoreResult<Swept> {
        let mut swept = Swept::default();
        loop {
            let batch = self.sweep_monitors(now).await?;
            self.batched(&batch, &mut swept).await?;
            if !batch.is_full {
                return Ok(swept);
            }
        }
    }

    /// Adds a committed batch to the result. Wakes the outbox now, because a long sweep may take much longer than a
    /// batch.
    async fn batched(&self, batch: &Batched, swept: &mut Swept) -> StoreResult<()> {
        swept.add(batch.swept);
        let Swept {
            down,
            calm,
            reminded,
            escalated,
            ..
        } = batch.swept;
        if down + calm + reminded + escalated > 0 {
            self.outbox_bell.notify_one();
        }
        self.stamp().await
    }

    /// Reads the blind spells that may still excuse silence.
    async fn spells(&self, tx: &mut Tx, now: DateTime<Utc>) -> StoreResult<Vec<BlindSpell>> {
        deadbeat_store::operation::listener::spells_since(tx, now - LONGEST_EXCUSE).await
    }
}
