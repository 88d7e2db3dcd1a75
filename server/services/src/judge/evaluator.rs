//! The one loop that finds what is overdue: silence becomes an incident.
//!
//! It sleeps until the nearest deadline, a second at most. Any number of processes may sweep: each takes bounded batches of rows
//! that nobody else holds, and decides and writes each in one transaction; in a storm, several of them at once. A row that cannot be
//! read is put aside for an hour and reported; it never stalls the rest.

mod beats;
mod escalations;
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
use crate::incident::changed::{News, What};
use crate::judge::blind_notice;
use crate::judge::excuse::LONGEST_EXCUSE;
use crate::operation::duty::Duty;
use crate::operation::selfwatch::Selfwatch;
use crate::operation::supervisor::Health;

/// Rows of one transaction.
const BATCH: i64 = 1_000;
/// Transactions at once while full batches come back: one computes and waits for the disk while the other's rows are written.
const LANES: usize = 3;
/// The longest sleep: a deadline that was written meanwhile, by whomever, is seen after that at the latest. One that is nearer than that
/// when it is written is late by what is left of the second; nobody is told of it (NOTIFY), so that it costs pings nothing.
const LONGEST_SLEEP: TimeDelta = TimeDelta::seconds(1);
/// The shortest one. Pings move deadlines all the time, and what has come due in a tenth of a second is looked at together; and a row
/// that somebody holds does not make the loop spin.
const SHORTEST_SLEEP: TimeDelta = TimeDelta::milliseconds(100);
/// Microseconds between two stamps that say that this process sweeps.
const STAMP_MICROS: i64 = 1_000_000;

/// After a blind spell a project is told this much later what could not be judged: by then all of it is counted.
const NOTICE_AFTER: TimeDelta = TimeDelta::seconds(10);
/// How long a row that cannot be read is put aside.
const ASIDE: TimeDelta = TimeDelta::hours(1);

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Rows looked at.
    pub claimed: usize,
    /// Rows that went down.
    pub down: usize,
    /// Incidents that were told again.
    pub reminded: usize,
    /// Steps of escalations that were told.
    pub escalated: usize,
}

impl Swept {
    fn add(&mut self, other: Self) {
        self.claimed += other.claimed;
        self.down += other.down;
        self.reminded += other.reminded;
        self.escalated += other.escalated;
    }
}

/// How many of these went down.
fn downs(news: &[News<'_>]) -> usize {
    news.iter()
        .filter(|one| matches!(one.what, What::Transition(transition) if transition.to == Status::Down))
        .count()
}

/// What one transaction did.
struct Batched {
    swept: Swept,
    /// It was full: there may be more.
    is_full: bool,
}

/// Sweeps.
pub struct Evaluator {
    store: Store,
    clock: Arc<dyn Clock>,
    site: Site,
    outbox_bell: Arc<Notify>,
    selfwatch: Selfwatch,
    settling: TimeDelta,
    /// The listener of the same process, and the loops that its signals need.
    beside: Option<(Uuid, Health)>,
    /// What the loop, and its parts that have times of their own, report of themselves.
    duty: Duty,
    hosts_duty: Duty,
    unseen_duty: Duty,
    unbegun_duty: Duty,
    /// Names this process among those that sweep.
    id: Uuid,
    /// When it last said so; microseconds since the epoch, 0: never.
    stamped: AtomicI64,
    /// When it last looked for what nobody looks at; microseconds since the epoch, 0: never.
    gave_up_at: AtomicI64,
    /// When it last looked for runs that nobody has taken; microseconds since the epoch, 0: never.
    unbegun_at: AtomicI64,
    /// When it last looked at lost hosts; microseconds since the epoch, 0: never.
    hosts_at: AtomicI64,
    /// After which of their incidents it goes on with that; None: with the first.
    hosts_after: Mutex<Option<IncidentId>>,
}

impl Evaluator {
    /// Puts the parts together.
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
            unseen_duty: Duty::new("unseen"),
            unbegun_duty: Duty::new("unbegun_runs"),
            id: Uuid::now_v7(),
            stamped: AtomicI64::new(0),
            gave_up_at: AtomicI64::new(0),
            unbegun_at: AtomicI64::new(0),
            hosts_at: AtomicI64::new(0),
            hosts_after: Mutex::new(None),
        }
    }

    /// What the loop, and its parts that have times of their own, report of themselves.
    #[must_use]
    pub fn duties(&self) -> [Duty; 4] {
        [
            &self.duty,
            &self.hosts_duty,
            &self.unseen_duty,
            &self.unbegun_duty,
        ]
        .map(Duty::clone)
    }

    /// Judges what was overdue this long ago: a ping that came in time, and is still on its way through the writer, beats the silence.
    #[must_use]
    pub fn settling(self, settling: TimeDelta) -> Self {
        Self { settling, ..self }
    }

    /// This process also takes signals in, under that name. It judges nobody while a loop that signals need does not work.
    #[must_use]
    pub fn beside(self, listener: Uuid, health: Health) -> Self {
        Self {
            beside: Some((listener, health)),
            ..self
        }
    }

    /// Sweeps until told to stop.
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

    /// Says that this process sweeps: to its own watch each time, to the other processes once a second.
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
    /// When the database is away. What was committed stays.
    pub async fn sweep_once(&self) -> StoreResult<Swept> {
        Ok(self.sweep().await?.0)
    }

    /// Judges everything that is overdue now, and says when there is something to do again. Beats first: a monitor's verdict asks for its
    /// Beat's.
    async fn sweep(&self) -> StoreResult<(Swept, Option<DateTime<Utc>>)> {
        let began = Instant::now();
        // One look at the clock for all that follows: were it stepped on in between, all would be overdue and nobody excused.
        let now = self.clock.now();
        let beside = self.beside.as_ref().map(|(listener, _)| *listener);
        let agenda = deadbeat_store::judge::evaluator::agenda(&self.store.reader(), beside, now).await?;
        self.selfwatch.turned(now);
        // While nobody listens, or what was heard is not written yet, silence means nothing.
        let hears = self.beside.as_ref().is_none_or(|(_, health)| health.is_well());
        let Some(judged_until) = agenda.hearing.judged_until(now).filter(|_| hears) else {
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

    /// Does what the agenda says is due: judges what was due by `judged_at`.
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
        self.look_at_hosts(judged_at).await;
        self.give_up_unseen(judged_at).await;
        self.look_for_unbegun(judged_at).await;
        if agenda.notice.is_some_and(|at| at <= now) {
            blind_notice::tell_due(&self.store, now, BATCH).await?;
            self.outbox_bell.notify_one();
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

    /// Batches of switches of a kind, one after the other, until there are no more.
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

    /// Batches of monitors, one after the other, until there are no more.
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

    /// A batch is committed: who waits for it hears of it now, not at the end of a long sweep.
    async fn batched(&self, batch: &Batched, swept: &mut Swept) -> StoreResult<()> {
        swept.add(batch.swept);
        if batch.swept.down > 0 || batch.swept.reminded > 0 || batch.swept.escalated > 0 {
            self.outbox_bell.notify_one();
        }
        self.stamp().await
    }

    /// When we could not listen: what may excuse somebody today.
    async fn spells(&self, tx: &mut Tx, now: DateTime<Utc>) -> StoreResult<Vec<BlindSpell>> {
        deadbeat_store::operation::listener::spells_since(tx, now - LONGEST_EXCUSE).await
    }
}
