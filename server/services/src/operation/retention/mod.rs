//! The loop that makes the tables for the coming days and removes data that are too old. It never runs inside a request, and works in bounded steps.
//!
//! A pass goes through the kinds of data in turn. A turn ends after [`TURN`] steps, so that a huge table does not delay the others. The pass repeats
//! the turns until nothing is left. Each step is a transaction that removes or reads at most 5,000 rows. A failed step ends the turns of its kind in
//! this pass, but not those of other kinds.

mod figures;
mod step;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::time::Clock;
use deadbeat_store::operation::retention as store;
use deadbeat_store::{Store, StoreResult, with_sources};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::operation::duty::Duty;
pub use figures::{Count, Kind, RemovalCounters};
use step::{Places, step};

/// The pause between two passes.
const PAUSE: Duration = Duration::from_secs(3_600);
/// The pause between a start and the first pass.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
/// The pause after a failed pass, such as one that met a busy table or an unreachable database.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// How many days ahead tables are made: after a weekend without the server, today's table still exists.
const DAYS_AHEAD: i64 = 3;
/// The most steps of one kind before the turn of the next kind.
const TURN: usize = 100;

/// How long the server keeps each kind of data. Days are whole days before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Pings, not counting today.
    pub ping_days: u16,
    /// Bodies of pings, not counting today; never longer than their pings.
    pub ping_body_days: u16,
    /// The most pings of a monitor, whatever their age. The newest ones are kept.
    pub pings_per_monitor: u32,
    /// Ended runs.
    pub run_days: u16,
    /// The history of runs, including runs that never ended.
    pub trace_days: u16,
    /// Resolved incidents, with their members.
    pub incident_days: u16,
    /// Changes of status.
    pub transition_days: u16,
    /// Changes in the change feed; [`deadbeat_domain::limits::PROJECT_CHANGES`] bounds them as well.
    pub change_days: u16,
    /// Whole days for which the audit trail keeps entries.
    pub audit_days: u16,
    /// Settled deliveries; never longer than their incident.
    pub delivery_days: u16,
    /// Attempts of settled deliveries; never longer than their delivery.
    pub attempt_days: u16,
    /// Blind spells; never shorter than the time for which one may excuse a late report.
    pub blind_spell_days: u16,
    /// Workers that are no longer expected to report, after their last report. Each start of a container may add a new name.
    pub worker_days: u16,
    /// Queues, after their last sample.
    pub queue_days: u16,
    /// Brokers, after their last sample.
    pub broker_days: u16,
    /// Revoked API keys, after they were revoked.
    pub revoked_key_days: u16,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            ping_days: 30,
            ping_body_days: 30,
            pings_per_monitor: 10_000,
            run_days: 90,
            trace_days: 30,
            incident_days: 365,
            transition_days: 365,
            change_days: 7,
            audit_days: 365,
            delivery_days: 90,
            attempt_days: 30,
            blind_spell_days: 400,
            worker_days: 7,
            queue_days: 7,
            broker_days: 7,
            revoked_key_days: 365,
        }
    }
}

/// The result of a pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passed {
    removed: [u64; Kind::ALL.len()],
    /// Kinds with a failed step.
    pub failed: Vec<Kind>,
}

impl Passed {
    /// Returns the number of removed rows of one kind; for [`Kind::Days`], of tables.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.removed[kind as usize]
    }
}

/// The result of a turn.
enum Turn {
    /// No data of its kind are left to remove.
    Over,
    /// The turn has used all its steps, and more data are left.
    More,
    /// A step failed.
    Failed,
    /// Another process runs the retention, or this process stops.
    Stopped,
}

/// The retention loop.
pub struct Retention {
    store: Store,
    clock: Arc<dyn Clock>,
    settings: RetentionSettings,
    places: Mutex<Places>,
    figures: Arc<RemovalCounters>,
    duty: Duty,
}

impl Retention {
    /// Makes the loop.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        settings: RetentionSettings,
        figures: Arc<RemovalCounters>,
    ) -> Self {
        Self {
            store,
            clock,
            settings,
            places: Mutex::default(),
            figures,
            duty: Duty::new("retention"),
        }
    }

    /// Returns the duty of the loop.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Makes the days' tables at once, then runs a pass every hour until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        // Right after a start there is more urgent work than reading all monitors (5.8 s for a million, measured).
        if let Err(error) = self.make_days(self.clock.now()).await {
            tracing::warn!(error = %with_sources(&error), "the tables of the coming days could not be made; retrying");
        }
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let done = self.pass(&stop).await;
            if done.as_ref().is_ok_and(|passed| passed.failed.is_empty()) {
                self.duty.succeeded();
            } else {
                self.duty.failed();
            }
            pause = match done {
                Ok(passed) => {
                    for kind in Kind::ALL.into_iter().filter(|kind| passed.of(*kind) > 0) {
                        tracing::info!(
                            kind = kind.as_str(),
                            removed = passed.of(kind),
                            "old data removed"
                        );
                    }
                    if passed.failed.is_empty() {
                        PAUSE
                    } else {
                        PAUSE_AFTER_FAILURE
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %with_sources(&error), "old data could not be removed; retrying");
                    PAUSE_AFTER_FAILURE
                }
            };
        }
    }

    /// Makes the tables of the coming days, and removes data that are too old. Does nothing if another process is doing this. A failed step is logged
    /// and counted, and does not stop other kinds.
    ///
    /// # Errors
    /// If there is no connection to the database. The rows already removed stay removed.
    pub async fn pass_once(&self) -> StoreResult<Passed> {
        self.pass(&CancellationToken::new()).await
    }

    async fn pass(&self, stop: &CancellationToken) -> StoreResult<Passed> {
        let mut passed = Passed::default();
        let now = self.clock.now();
        match self.make_days(now).await {
            Ok(true) => {}
            Ok(false) => return Ok(passed),
            Err(error) => self.failed(Kind::Days, &error, &mut passed),
        }
        let mut left = Kind::ALL.to_vec();
        while !left.is_empty() {
            let mut unfinished: Vec<Kind> = Vec::new();
            for kind in left {
                if waits_for(kind).iter().any(|before| unfinished.contains(before)) {
                    unfinished.push(kind);
                    continue;
                }
                match self.turn(kind, now, stop, &mut passed).await? {
                    Turn::Over | Turn::Failed => {}
                    Turn::More => unfinished.push(kind),
                    Turn::Stopped => return Ok(passed),
                }
            }
            left = unfinished;
        }
        if passed.failed.is_empty() {
            self.figures.passed(now);
        }
        Ok(passed)
    }

    /// Runs some steps of one kind, each in its own transaction.
    async fn turn(
        &self,
        kind: Kind,
        now: DateTime<Utc>,
        stop: &CancellationToken,
        passed: &mut Passed,
    ) -> StoreResult<Turn> {
        let mut places = self.places.lock().await;
        for _ in 0..TURN {
            if stop.is_cancelled() {
                return Ok(Turn::Stopped);
            }
            let mut tx = self.store.begin().await?;
            let done = async {
                if !store::try_lock(&mut tx).await? {
                    return Ok(None);
                }
                let stepped = match step(&mut tx, kind, &self.settings, &mut places, now).await {
                    Ok(stepped) => stepped,
                    Err(error) => {
                        // The step for the next table requests the same lock at once.
                        tx.rollback().await;
                        return Err(error);
                    }
                };
                // Commit even if nothing was removed. Dropping the transaction would release the lock slightly later, and the next step needs that
                // lock at once.
                tx.commit().await?;
                Ok(Some(stepped))
            };
            match done.await {
                Ok(None) => return Ok(Turn::Stopped),
                Ok(Some(stepped)) => {
                    passed.removed[kind as usize] += stepped.removed;
                    self.figures.step(kind, stepped.removed);
                    if stepped.is_over {
                        return Ok(Turn::Over);
                    }
                }
                Err(error) => {
                    self.failed(kind, &error, passed);
                    return Ok(Turn::Failed);
                }
            }
        }
        let removed = passed.of(kind);
        tracing::info!(kind = kind.as_str(), removed, "removing old data; more are left");
        Ok(Turn::More)
    }

    fn failed(&self, kind: Kind, error: &deadbeat_store::StoreError, passed: &mut Passed) {
        tracing::warn!(kind = kind.as_str(), error = %with_sources(error), "old data could not be removed; the next pass retries");
        self.figures.failed(kind);
        passed.failed.push(kind);
    }

    /// Makes the tables of the coming days. Returns false if another process is doing this.
    async fn make_days(&self, now: DateTime<Utc>) -> StoreResult<bool> {
        let today = now.date_naive();
        let mut tx = self.store.begin().await?;
        if !store::try_lock(&mut tx).await? {
            return Ok(false);
        }
        // Also yesterday's, because pings from the spool keep the time of their arrival.
        let (first, last) = (today - TimeDelta::days(1), today + TimeDelta::days(DAYS_AHEAD));
        store::make_partitions(&mut tx, first, last).await?;
        let strays = store::stray_pings(&mut tx).await?;
        if strays > 0 {
            tracing::warn!(
                strays,
                "there are pings of days without a table; check the server's clock"
            );
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// Returns the kinds that must be finished before this kind: a row stays while other rows belong to it.
fn waits_for(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Deliveries => &[Kind::Attempts],
        Kind::Incidents => &[Kind::Deliveries, Kind::Members, Kind::Handles],
        _ => &[],
    }
}
