//! Every SQL statement of Deadbeat: one file per table, one function per statement.
//!
//! Three handles limit what a caller may do. [`Store`] begins transactions, [`Tx`] writes and reads with locks, and
//! [`Reader`] reads. The services hold a `Store`. HTTP handlers hold a `Reader`, so every write passes through a
//! service. This crate makes no decisions.
//!
//! A function about data of a project takes the [`deadbeat_domain::ids::ProjectId`] first, so that code without the
//! project does not compile.

pub mod alert;
pub mod celery;
pub mod connection;
pub mod error;
pub mod feed;
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

use connection::gate::{Gate, StartPhase};
use connection::line::{Line, Lines};
use connection::turns::Turns;
pub use connection::wakeup::Wakeups;
use deadbeat_domain::people::audit::Entry;
pub use error::{StoreError, StoreResult, Unreadable};
pub use migrate::MIGRATOR;
pub use sources::{WithSources, with_sources};

/// Check a connection before use if it was idle for this long.
const IDLE_IS_SUSPECT: Duration = Duration::from_secs(1);
/// How long that check may take.
const LIVES: Duration = Duration::from_secs(1);
/// How long a statement may take, unless the caller sets another limit.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a statement may wait for a lock.
const LOCK: Duration = Duration::from_secs(10);
/// PostgreSQL ends a transaction that is idle for this long. Otherwise the locks of a client that lost its network
/// would stay forever.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// Begins transactions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    lines: Lines,
}

/// Reads, each statement on its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    lines: Lines,
}

/// One transaction: all writes, and reads that lock rows. A transaction that is dropped without [`Tx::commit`] writes
/// nothing.
#[derive(Debug)]
pub struct Tx {
    line: Line,
    /// The noted changes. [`Tx::commit`] writes them just before the commit.
    changes: feed::Noted,
    /// The noted entries of the audit trail. [`Tx::commit`] writes them with the changes.
    audited: Vec<Entry>,
}

/// Makes PostgreSQL plan the statements of this crate by index, even while its statistics say that a table is small.
///
/// A connection keeps the plans of its statements. A plan made while a table had a few rows reads the whole table. That
/// plan stays until PostgreSQL analyzes the table, up to a minute later. Measured with the 10,000 monitors that a Beat
/// registers at once: 5 ms more for each ping. Without `jit = off`, PostgreSQL before 18 compiles a statement that it
/// cannot plan by index, because it counts such a plan as very expensive.
const BY_INDEX: [(&str, &str); 2] = [("enable_seqscan", "off"), ("jit", "off")];

/// Makes PostgreSQL plan the statements of signals only once for each connection.
///
/// These statements lock and write by id, so one plan serves every batch. Left to its own cost estimates, PostgreSQL
/// planned the lock of a batch's monitors anew for six of ten batches. Measured: 3 us of its CPU for each ping.
const PLANNED_ONCE: (&str, &str) = ("plan_cache_mode", "force_generic_plan");

/// A connection pool's address and size.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// `postgres://…`
    pub url: String,
    /// The most connections.
    pub size: u32,
    /// How long a caller waits for a connection. After that the database counts as away.
    pub wait: Duration,
    /// How long a statement may take. After that PostgreSQL cancels the statement. If PostgreSQL does not report that
    /// either, the connection counts as dead.
    pub answer: Duration,
    /// A second limit, for most transactions of this pool ([`Store::begin_within`]). Its connections have that limit
    /// from the start, so that such a transaction needs no statement to set it.
    pub usual: Option<Duration>,
}

impl Store {
    /// Makes a pool that connects at its first use. So a server can start while its database is away, and reports that
    /// it is not ready.
    ///
    /// # Errors
    /// [`StoreError::Url`] if the address cannot be read.
    pub fn connect(settings: &PoolSettings) -> StoreResult<Self> {
        // The error's own text contains the address with its password, so drop it.
        let options = PgConnectOptions::from_str(&settings.url)
            .map_err(|_| StoreError::Url)?
            .application_name("deadbeat")
            // An acknowledged ping must be durable (invariant 1), so override a weaker default of the database server.
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
            // A check before each use would cost a round trip for each ping. Only a connection that was idle for a
            // while is likely to be dead, for example after a restart of the database. So only such a connection is
            // checked, and no request fails after the outage is over.
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

    /// Wraps a pool. Tests get theirs from `#[sqlx::test]`.
    #[must_use]
    pub fn from_pool(pool: PgPool) -> Self {
        Self {
            lines: Lines::new(pool, ANSWER, None),
        }
    }

    /// Shares the store's connections fairly between askers. Of `count` connections, one asker has at most `for_one`,
    /// and waits at most `patience` for the next one. Work without an asker takes connections without waiting for a
    /// turn.
    #[must_use]
    pub fn shared_fairly(mut self, count: usize, for_one: usize, patience: Duration) -> Self {
        self.lines.turns = Some(Arc::new(Turns::new(count, for_one, patience)));
        self
    }

    /// Puts the store's statements behind a gate. Migrations ignore the gate.
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
            changes: feed::Noted::default(),
            audited: Vec::new(),
        })
    }

    /// Begins a transaction that must end within `limit`, including the wait for a connection. After that, its
    /// statements fail with [`StoreError::Unavailable`], and it is unknown whether a commit in progress happened.
    /// PostgreSQL cancels a statement that takes three quarters of `limit`: [`StoreError::TimedOut`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection can be had.
    pub async fn begin_within(&self, limit: Duration) -> StoreResult<Tx> {
        Ok(Tx {
            line: self.lines.begin(Some(limit)).await?,
            changes: feed::Noted::default(),
            audited: Vec::new(),
        })
    }

    /// Returns a reader on the same pool.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader {
            lines: self.lines.clone(),
        }
    }

    /// Applies the missing migrations, under an advisory lock.
    ///
    /// # Errors
    /// If the database is away, or was written by a newer server.
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

    /// Returns how far the server has come with its database since its start.
    #[must_use]
    pub fn stage(&self) -> StartPhase {
        self.lines.gate.stage()
    }

    /// Checks that the database answers.
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

    /// Makes PostgreSQL plan each statement of this transaction for its arguments, and with the table's present size.
    ///
    /// Without this, a connection may keep a plan that it made while a table had a few rows, when all indexes seemed equally good. Measured on a new
    /// database: the plan that locks the runs of a batch read all runs of the project for each of its 200 runs, which took up to 5 s, until PostgreSQL
    /// analyzed the table a minute later.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn plan_anew(&mut self) -> StoreResult<()> {
        sqlx::raw_sql("SET LOCAL plan_cache_mode = force_custom_plan")
            .execute(&mut self.line)
            .await?;
        Ok(())
    }

    /// Rolls the transaction back, and waits until PostgreSQL has done so. A dropped transaction keeps its locks a
    /// little longer.
    pub async fn rollback(self) {
        self.line.rollback().await;
    }

    /// Commits: makes all writes durable at once. First writes the noted entries of the audit trail ([`people::audit::note`]), and the noted changes
    /// ([`feed::note`]) into the change feed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the connection broke. Then it is unknown whether the commit happened. If the statement that writes the changes
    /// fails, the transaction wrote nothing.
    pub async fn commit(mut self) -> StoreResult<()> {
        people::audit::write(&mut self.line, &self.audited).await?;
        feed::write(&mut self.line, &self.changes).await?;
        Ok(self.line.commit().await?)
    }
}
