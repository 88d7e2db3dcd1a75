//! The loop that makes the days' tables ahead of time and removes what is too old. Never inside a request, always in bounded steps.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::time::Clock;
use deadbeat_store::{Store, StoreResult, retention, with_sources};
use tokio_util::sync::CancellationToken;

/// Between two passes.
const PAUSE: Duration = Duration::from_secs(3_600);
/// Between a start and the first pass.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
/// After a pass that failed: a busy table, or the database is away.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Days that have a table before they begin: a server that is down over a weekend finds them made.
const DAYS_AHEAD: i64 = 3;
/// Rows of one transaction.
const BATCH: i64 = 5_000;
/// Monitors of one transaction.
const MONITORS: i64 = 1_000;

/// Workers that nobody waits for, and queues, are forgotten when they were not heard of for this long: each start of a container may
/// bring a new name.
const UNHEARD_FOR: TimeDelta = TimeDelta::days(7);

/// How long what was heard is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Whole days of pings and their bodies, today not counted.
    pub ping_days: u16,
    /// The newest pings of a monitor, whatever their age.
    pub pings_per_monitor: u32,
    /// Whole days of ended runs.
    pub run_days: u16,
    /// Whole days of the history of runs, those that never ended too.
    pub trace_days: u16,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            ping_days: 30,
            pings_per_monitor: 10_000,
            run_days: 90,
            trace_days: 30,
        }
    }
}

/// What a pass removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Tables of whole days.
    pub partitions: i32,
    /// Pings one by one: beyond a monitor's share, of monitors that are gone, of days without a table.
    pub pings: u64,
    /// Ended runs.
    pub runs: u64,
    /// Traces of runs.
    pub traces: u64,
    /// Workers that said goodbye long ago.
    pub workers: u64,
    /// Queues that nobody has seen for long.
    pub queues: u64,
    /// Brokers that nobody has looked at for long.
    pub brokers: u64,
}

/// Removes.
pub struct Retention {
    store: Store,
    clock: Arc<dyn Clock>,
    settings: RetentionSettings,
}

impl Retention {
    /// Puts the parts together.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, settings: RetentionSettings) -> Self {
        Self {
            store,
            clock,
            settings,
        }
    }

    /// The days' tables now, and then a pass every hour until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        // After a start there is more urgent work than looking through all monitors (5.8 s for a million, measured).
        if let Err(error) = self.turn_tables(self.clock.now(), &mut Removed::default()).await {
            tracing::warn!(error = %with_sources(&error), "the tables of the days to come could not be made; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FIRST_PAUSE) => {}
        }
        loop {
            let pause = match self.pass_once().await {
                Ok(removed) => {
                    if removed != Removed::default() {
                        tracing::info!(
                            removed.partitions,
                            removed.pings,
                            removed.runs,
                            removed.traces,
                            removed.workers,
                            removed.queues,
                            removed.brokers,
                            "old data removed"
                        );
                    }
                    PAUSE
                }
                Err(error) => {
                    tracing::warn!(error = %with_sources(&error), "old data could not be removed; trying again");
                    PAUSE_AFTER_FAILURE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Makes the tables of the days to come, and removes what is too old. Does nothing where another process is at it.
    ///
    /// # Errors
    /// When the database is away. What was removed stays removed.
    pub async fn pass_once(&self) -> StoreResult<Removed> {
        let mut removed = Removed::default();
        let now = self.clock.now();
        if !self.turn_tables(now, &mut removed).await? {
            return Ok(removed);
        }
        let oldest_ping = days_before(now, self.settings.ping_days);
        removed.pings += self.repeat(Step::Strays(oldest_ping)).await?;
        removed.pings += self.repeat(Step::Purge).await?;
        removed.pings += self.trim_counts().await?;
        let oldest_run = days_before(now, self.settings.run_days);
        removed.runs += self.repeat(Step::Runs(oldest_run)).await?;
        let oldest_trace = days_before(now, self.settings.trace_days);
        removed.traces += self.trim_traces(oldest_trace).await?;
        removed.workers += self.repeat(Step::Workers(now - UNHEARD_FOR)).await?;
        removed.queues += self.repeat(Step::Queues(now - UNHEARD_FOR)).await?;
        removed.brokers += self.repeat(Step::Brokers(now - UNHEARD_FOR)).await?;
        Ok(removed)
    }

    /// False: another process is at it.
    async fn turn_tables(&self, now: DateTime<Utc>, removed: &mut Removed) -> StoreResult<bool> {
        let today = now.date_naive();
        let mut tx = self.store.begin().await?;
        if !retention::try_lock(&mut tx).await? {
            return Ok(false);
        }
        // Yesterday's too: pings from the spool keep the time at which they came.
        let (first, last) = (today - TimeDelta::days(1), today + TimeDelta::days(DAYS_AHEAD));
        retention::make_partitions(&mut tx, first, last).await?;
        let strays = retention::stray_pings(&mut tx).await?;
        if strays > 0 {
            tracing::warn!(strays, "pings of days that have no table: is the clock right?");
        }
        tx.commit().await?;

        let mut tx = self.store.begin().await?;
        if !retention::try_lock(&mut tx).await? {
            return Ok(false);
        }
        let oldest = today - TimeDelta::days(i64::from(self.settings.ping_days));
        removed.partitions = retention::drop_partitions(&mut tx, oldest).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn trim_counts(&self) -> StoreResult<u64> {
        let mut pings = 0;
        let mut after: Option<MonitorId> = None;
        loop {
            let mut tx = self.store.begin().await?;
            if !retention::try_lock(&mut tx).await? {
                return Ok(pings);
            }
            let keep = i64::from(self.settings.pings_per_monitor);
            let (last, gone) = retention::trim_counts(&mut tx, after, keep, MONITORS).await?;
            tx.commit().await?;
            pings += gone;
            match last {
                Some(last) => after = Some(last),
                None => return Ok(pings),
            }
        }
    }

    /// Project by project, as the index has them.
    async fn trim_traces(&self, before: DateTime<Utc>) -> StoreResult<u64> {
        let mut gone = 0;
        let mut after = None;
        loop {
            let mut tx = self.store.begin().await?;
            if !retention::try_lock(&mut tx).await? {
                return Ok(gone);
            }
            let next = deadbeat_store::trace::next_project(&mut tx, after).await?;
            // Dropped instead, it would give the right to remove back a little later than the next step asks for it.
            tx.commit().await?;
            let Some(project) = next else { return Ok(gone) };
            gone += self.repeat(Step::Traces(project, before)).await?;
            after = Some(project);
        }
    }

    /// Repeats a bounded step, each in a transaction of its own, until nothing is left. Answers how many rows went.
    async fn repeat(&self, step: Step) -> StoreResult<u64> {
        let mut count = 0;
        loop {
            let mut tx = self.store.begin().await?;
            if !retention::try_lock(&mut tx).await? {
                return Ok(count);
            }
            let (gone, is_over) = match step {
                Step::Strays(before) => {
                    let gone = retention::trim_default(&mut tx, before, BATCH).await?;
                    (gone, gone == 0)
                }
                Step::Purge => {
                    let gone = retention::purge_one(&mut tx, BATCH).await?;
                    (gone.unwrap_or(0), gone.is_none())
                }
                Step::Runs(before) => {
                    let gone = retention::trim_runs(&mut tx, before, BATCH).await?;
                    (gone, gone == 0)
                }
                Step::Traces(project, before) => {
                    let gone = deadbeat_store::trace::trim(&mut tx, project, before, BATCH).await?;
                    (gone, gone == 0)
                }
                Step::Workers(before) => {
                    let gone = deadbeat_store::worker::forget(&mut tx, before, BATCH).await?;
                    (gone, gone == 0)
                }
                Step::Queues(before) => {
                    let gone = deadbeat_store::queue::forget(&mut tx, before, BATCH).await?;
                    (gone, gone == 0)
                }
                Step::Brokers(before) => {
                    let gone = deadbeat_store::broker::forget(&mut tx, before, BATCH).await?;
                    (gone, gone == 0)
                }
            };
            tx.commit().await?;
            count += gone;
            if is_over {
                return Ok(count);
            }
        }
    }
}

/// What is removed in repeated steps.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Pings of days without a table, before this.
    Strays(DateTime<Utc>),
    /// Pings of monitors that are gone.
    Purge,
    /// Runs begun before this that are over.
    Runs(DateTime<Utc>),
    /// A project's traces first heard of before this.
    Traces(ProjectId, DateTime<Utc>),
    /// Workers last heard from before this that nobody waits for.
    Workers(DateTime<Utc>),
    /// Queues last seen before this.
    Queues(DateTime<Utc>),
    /// Brokers last looked at before this.
    Brokers(DateTime<Utc>),
}

fn days_before(now: DateTime<Utc>, days: u16) -> DateTime<Utc> {
    now - TimeDelta::days(i64::from(days))
}
