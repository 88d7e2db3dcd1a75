//! Every SQL statement of Deadbeat: one file a table, one function a statement.
//!
//! Three handles say what a caller may do: [`Store`] begins transactions, [`Tx`] writes and reads with locks, [`Reader`] reads. The
//! services hold a `Store`; HTTP handlers hold a `Reader`, so every write passes through a service. Nothing here decides anything.
//!
//! What belongs to a project is asked for with its [`deadbeat_domain::ids::ProjectId`] first: forgetting it does not compile.

pub mod alert;
pub mod celery;
pub mod connection;
pub mod error;
pub mod incident;
pub mod judge;
pub mod migrate;
pub mod monitor;
pub mod operation;
pub mod page;
pub mod people;
pub mod schedule;
mod sources;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};

use connection::gate::{Gate, Stage};
use connection::line::{Line, Lines};
use connection::turns::Turns;
pub use connection::wakeup::Wakeups;
pub use error::{StoreError, StoreResult, Unreadable};
pub use migrate::MIGRATOR;
pub use sources::{WithSources, with_sources};

/// A connection that was idle for this long is asked whether it still lives before it is used.
const IDLE_IS_SUSPECT: Duration = Duration::from_secs(1);
/// How long it may take to say that it does.
const LIVES: Duration = Duration::from_secs(1);
/// How long a statement may take when nobody says otherwise.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a statement waits for a lock at most.
const LOCK: Duration = Duration::from_secs(10);
/// After this PostgreSQL ends a transaction in which nothing happens: its client is cut off, and the locks would stay for ever.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// Begins transactions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    lines: Lines,
}

/// Plain reads, each on its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    lines: Lines,
}

/// One transaction: all writes, and reads that lock. Dropped without [`Tx::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Tx {
    line: Line,
}

/// How PostgreSQL plans the statements of this crate: by index, also while its statistics say that a table is small.
///
/// A connection keeps the plans of its statements. A plan that was made while a table had a few rows reads the whole table, and stays until
/// the table is analyzed, up to a minute later: measured, with the 10,000 monitors that a Beat registers at once, 5 ms more for each ping.
/// Without `jit = off`, PostgreSQL before 18 compiles what it cannot plan by index: it counts such a plan as very dear.
const BY_INDEX: [(&str, &str); 2] = [("enable_seqscan", "off"), ("jit", "off")];

/// How PostgreSQL plans the statements of signals: once for each connection.
///
/// They lock and write by id, so that one plan serves every batch. Left to its own cost estimates, PostgreSQL planned the lock of a
/// batch's monitors anew for six of ten batches: measured, 3 us of its CPU for each ping.
const PLANNED_ONCE: (&str, &str) = ("plan_cache_mode", "force_generic_plan");

/// A connection pool's address and size.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// `postgres://…`
    pub url: String,
    /// Connections at most.
    pub size: u32,
    /// How long a caller waits for one; then the database counts as away.
    pub wait: Duration,
    /// How long a statement may take; then PostgreSQL ends it, and if nothing is heard of that either, the connection counts as dead.
    pub answer: Duration,
    /// How long most transactions of this pool may take ([`Store::begin_within`]), if that is a limit of its own. Its connections have that
    /// limit from the start, so that such a transaction needs no statement to set it.
    pub usual: Option<Duration>,
}

impl Store {
    /// A pool that connects when first used, so that a server starts (and says that it is not ready) while its database is away.
    ///
    /// # Errors
    /// [`StoreError::Url`] when the address cannot be read.
    pub fn connect(settings: &PoolSettings) -> StoreResult<Self> {
        // The error's own text quotes the address, password and all.
        let options = PgConnectOptions::from_str(&settings.url)
            .map_err(|_| StoreError::Url)?
            .application_name("deadbeat")
            // An acknowledged ping is durable: nobody's server-wide default may weaken that (invariant 1).
            .options([("synchronous_commit", "on")])
            .options(BY_INDEX)
            .options(settings.usual.map(|_| PLANNED_ONCE))
            .options(
                [
                    (
                        "statement_timeout",
                        settings
                            .usual
                            .map_or(settings.answer, connection::line::of_statement),
                    ),
                    (
                        "lock_timeout",
                        settings
                            .usual
                            .map_or(LOCK.min(settings.answer), connection::line::of_statement),
                    ),
                    ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
                ]
                .map(|(name, limit)| (name, limit.as_millis().to_string())),
            );
        let pool = PgPoolOptions::new()
            .max_connections(settings.size)
            .acquire_timeout(settings.wait)
            // A check before each use would cost a round trip per ping. One that was idle for a while may have died meanwhile (the
            // database was restarted): it is asked first, so that an outage that is over costs nobody a refusal.
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for >= IDLE_IS_SUSPECT {
                        let lives = tokio::time::timeout(LIVES, connection.ping());
                        lives.await.map_err(|_| connection::line::no_answer())??;
                    }
                    Ok(true)
                })
            })
            .max_lifetime(Duration::from_secs(1800))
            .connect_lazy_with(options);
        Ok(Self {
            lines: Lines::new(pool, settings.answer, settings.usual),
        })
    }

    /// Wraps a pool: tests get theirs from `#[sqlx::test]`.
    #[must_use]
    pub fn from_pool(pool: PgPool) -> Self {
        Self {
            lines: Lines::new(pool, ANSWER, None),
        }
    }

    /// The same store, whose connections are shared fairly between those who ask: of `count` connections, one asker has `for_one` at
    /// most, and waits for the next one no longer than `patience`. What nobody asks for takes connections as they come.
    #[must_use]
    pub fn shared_fairly(mut self, count: usize, for_one: usize, patience: Duration) -> Self {
        self.lines.turns = Some(Arc::new(Turns::new(count, for_one, patience)));
        self
    }

    /// The same store, whose statements wait behind a gate. Migrations pass it all the same.
    #[must_use]
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.lines.gate = gate.clone();
        self
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection can be had.
    pub async fn begin(&self) -> StoreResult<Tx> {
        Ok(Tx {
            line: self.lines.begin(None).await?,
        })
    }

    /// Begins a transaction that must end within so long, waiting for a connection included. What is still to be done then fails with
    /// [`StoreError::Unavailable`]; it is unknown whether a commit that was under way happened. PostgreSQL cancels a statement that takes
    /// three quarters of that: [`StoreError::TimedOut`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection can be had.
    pub async fn begin_within(&self, limit: Duration) -> StoreResult<Tx> {
        Ok(Tx {
            line: self.lines.begin(Some(limit)).await?,
        })
    }

    /// Plain reads on the same pool.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader {
            lines: self.lines.clone(),
        }
    }

    /// Applies the migrations that are missing, under an advisory lock.
    ///
    /// # Errors
    /// When the database is away, or was written by a newer server.
    pub async fn migrate(&self) -> StoreResult<()> {
        migrate::run(&self.lines.pool).await
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.lines.pool.close().await;
    }
}

impl Reader {
    pub(crate) fn pool(&self) -> &Lines {
        &self.lines
    }

    /// How far this server has come with its database since it started.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.lines.gate.stage()
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not.
    pub async fn check(&self) -> StoreResult<()> {
        sqlx::query_scalar!("SELECT 1 AS \"one!\"")
            .fetch_one(&self.lines)
            .await?;
        Ok(())
    }
}

impl Tx {
    pub(crate) fn conn(&mut self) -> &mut Line {
        &mut self.line
    }

    /// Gives the transaction up and waits until it is: dropped instead, it keeps its locks a little longer.
    pub async fn rollback(self) {
        self.line.rollback().await;
    }

    /// Makes everything written lasting, at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the connection broke: it is then unknown whether the commit happened.
    pub async fn commit(self) -> StoreResult<()> {
        Ok(self.line.commit().await?)
    }
}
