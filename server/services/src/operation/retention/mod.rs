//! The loop that makes the days' tables ahead of time and removes what is too old. Never inside a request, always in bounded steps.
//!
//! A pass takes the kinds of data in turn. A turn ends after [`TURN`] steps, so a huge table keeps no other one waiting, and the pass goes
//! round until nothing is left. Each step is a transaction of its own that removes or looks at 5,000 rows at most. A step that fails ends
//! the turn of its kind for this pass, and no other kind's.

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
pub use figures::{Count, Figures, Kind};
use step::{Places, step};

/// Between two passes.
const PAUSE: Duration = Duration::from_secs(3_600);
/// Between a start and the first pass.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
/// After a pass that failed: a busy table, or the database is away.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Days that have a table before they begin: a server that is down over a weekend finds them made.
const DAYS_AHEAD: i64 = 3;
/// Steps of one kind before the next kind has its turn.
const TURN: usize = 100;

/// How long each table is kept. Days are whole days before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Pings, today not counted.
    pub ping_days: u16,
    /// Bodies of pings, today not counted; never longer than their pings.
    pub ping_body_days: u16,
    /// The newest pings of a monitor, whatever their age.
    pub pings_per_monitor: u32,
    /// Runs that are over.
    pub run_days: u16,
    /// The history of runs, those that never ended too.
    pub trace_days: u16,
    /// Resolved incidents, with their members.
    pub incident_days: u16,
    /// Changes of status.
    pub transition_days: u16,
    /// Changes in the change feed; [`deadbeat_domain::limits::PROJECT_CHANGES`] bounds them as well.
    pub change_days: u16,
    /// Settled deliveries; never longer than their incident.
    pub delivery_days: u16,
    /// Attempts of settled deliveries; never longer than their delivery.
    pub attempt_days: u16,
    /// Blind spells; never shorter than one may excuse somebody.
    pub blind_spell_days: u16,
    /// Workers that nobody waits for, after they were last heard of: each start of a container may bring a new name.
    pub worker_days: u16,
    /// Queues, after they were last seen.
    pub queue_days: u16,
    /// Brokers, after somebody last looked at them.
    pub broker_days: u16,
    /// API keys, after they were revoked.
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

/// What a pass did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passed {
    removed: [u64; Kind::ALL.len()],
    /// Kinds of which a step failed.
    pub failed: Vec<Kind>,
}

impl Passed {
    /// Rows removed of one kind; of [`Kind::Days`], tables.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.removed[kind as usize]
    }
}

/// How a turn ended.
enum Turn {
    /// Nothing of its kind is left to do.
    Over,
    /// It had its share of steps.
    More,
    /// A step failed.
    Failed,
    /// Another process removes, or this one stops.
    Stopped,
}

/// Removes.
pub struct Retention {
    store: Store,
    clock: Arc<dyn Clock>,
    settings: RetentionSettings,
    places: Mutex<Places>,
    figures: Arc<Figures>,
    duty: Duty,
}

impl Retention {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        settings: RetentionSettings,
        figures: Arc<Figures>,
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

    /// What the loop reports of itself.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// The days' tables now, and then a pass every hour until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        // After a start there is more urgent work than looking through all monitors (5.8 s for a million, measured).
        if let Err(error) = self.make_days(self.clock.now()).await {
            tracing::warn!(error = %with_sources(&error), "the tables of the days to come could not be made; trying again");
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
                    tracing::warn!(error = %with_sources(&error), "old data could not be removed; trying again");
                    PAUSE_AFTER_FAILURE
                }
            };
        }
    }

    /// Makes the tables of the days to come, and removes what is too old. Does nothing where another process is at it. A step that fails
    /// is logged and counted, and stops no other kind.
    ///
    /// # Errors
    /// When no connection to the database can be had. What was removed stays removed.
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

    /// Some steps of one kind, each in a transaction of its own.
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
                        // The next table's step asks for the same lock at once.
                        tx.rollback().await;
                        return Err(error);
                    }
                };
                // Committed even if nothing was removed: dropped instead, the transaction would give the lock back a little later than
                // the next step asks for it.
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
        tracing::info!(kind = kind.as_str(), removed, "removing old data; more is left");
        Ok(Turn::More)
    }

    fn failed(&self, kind: Kind, error: &deadbeat_store::StoreError, passed: &mut Passed) {
        tracing::warn!(kind = kind.as_str(), error = %with_sources(error), "old data could not be removed; the next pass tries again");
        self.figures.failed(kind);
        passed.failed.push(kind);
    }

    /// Makes the tables of the days to come. False: another process is at it.
    async fn make_days(&self, now: DateTime<Utc>) -> StoreResult<bool> {
        let today = now.date_naive();
        let mut tx = self.store.begin().await?;
        if !store::try_lock(&mut tx).await? {
            return Ok(false);
        }
        // Yesterday's too: pings from the spool keep the time at which they came.
        let (first, last) = (today - TimeDelta::days(1), today + TimeDelta::days(DAYS_AHEAD));
        store::make_partitions(&mut tx, first, last).await?;
        let strays = store::stray_pings(&mut tx).await?;
        if strays > 0 {
            tracing::warn!(strays, "pings of days that have no table: is the clock right?");
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// Kinds that must have nothing left to do first: a row stays while something belongs to it.
fn waits_for(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Deliveries => &[Kind::Attempts],
        Kind::Incidents => &[Kind::Deliveries, Kind::Members, Kind::Handles],
        _ => &[],
    }
}
