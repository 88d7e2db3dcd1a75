//! Connections to the database, with a timeout for every answer.
//!
//! A connection can hang: a proxy or a firewall drops packets, and nobody closes the connection. Without a timeout a
//! caller would wait forever, and a pool would lose the connection for good. PostgreSQL's own timeouts do not help,
//! because none of its messages arrives. So every wait here ends. If an answer is still missing when its wait ends, the
//! connection is closed and never used again.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, PgPool, Postgres, SqlStr};
use thiserror::Error;
use tokio::time::Instant;

use crate::LOCK;
use crate::connection::asker::Asker;
use crate::connection::gate::Gate;
use crate::connection::turns::{Turn, Turns};

/// Time for PostgreSQL to report that its own limit is reached, before the connection counts as dead.
const SLACK: Duration = Duration::from_secs(1);
/// How long a connection may take to return to its pool.
const RETURN: Duration = Duration::from_secs(2);

/// How long a single read may take before its asker pauses.
const SHORT_READ: Duration = Duration::from_millis(10);
/// How many times longer than a long read its pause is, up to [`LONGEST_PAUSE`]. Measured beside a project that searches 50,000 monitors without end
/// (`scripts/soak -k neighbour`).
const PAUSES: u32 = 8;
/// The longest pause after a read. A read may also take long because the database is slow for everybody.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Returns the pause after a read that took `took`: long reads of one asker must not occupy the cores of the database (ADR 029).
fn pause_after(took: Duration) -> Duration {
    if took < SHORT_READ {
        Duration::ZERO
    } else {
        (took * PAUSES).min(LONGEST_PAUSE)
    }
}

/// The result of a statement, or one of its rows.
type Step = Either<PgQueryResult, PgRow>;

/// A pool, and the timeouts for its answers.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub(crate) pool: PgPool,
    pub(crate) gate: Gate,
    /// Shares the connections between askers. None: they are not shared.
    pub(crate) turns: Option<Arc<Turns<Asker>>>,
    answer: Duration,
    /// PostgreSQL's timeouts for a transaction begun without a limit of its own.
    own: Limits,
    /// The limit for which every connection has PostgreSQL's timeouts set from the start.
    usual: Option<Duration>,
}

/// PostgreSQL's timeouts for a statement and for the wait for a lock.
#[derive(Debug, Clone, Copy)]
struct Limits {
    statement: Duration,
    lock: Duration,
}

/// Returns how long a statement may take in a transaction that must end within `limit`. PostgreSQL cancels a slow statement before the transaction's
/// limit, so that the caller learns that the database is available.
pub(crate) fn of_statement(limit: Duration) -> Duration {
    limit * 3 / 4
}

/// A connection that was taken from its pool. Dropping the line returns the connection.
#[derive(Debug)]
pub(crate) struct Line {
    /// None only while the line is being dropped.
    connection: Option<PoolConnection<Postgres>>,
    /// The asker's turn. It ends when the connection is back in its pool.
    turn: Option<Turn>,
    answer: Duration,
    /// When the whole transaction must end. None: the transaction has no limit of its own.
    until: Option<Instant>,
    /// True while an answer is missing. If the line is dropped then, the connection cannot be used again.
    owes: bool,
    in_transaction: bool,
    /// When a single read took the connection. None: it serves a transaction, which has no pause.
    reads_since: Option<Instant>,
}

impl Lines {
    /// Wraps a pool. `answer` is PostgreSQL's own timeout for a statement.
    pub(crate) fn new(pool: PgPool, answer: Duration, usual: Option<Duration>) -> Self {
        Self {
            pool,
            gate: Gate::default(),
            turns: None,
            answer: answer + SLACK,
            own: Limits {
                statement: answer,
                lock: LOCK.min(answer),
            },
            usual,
        }
    }

    /// Takes a connection for the caller alone.
    async fn take(&self) -> sqlx::Result<Line> {
        self.gate.pass()?;
        let turn = match (&self.turns, Asker::of_current_work()) {
            (Some(turns), Some(asker)) => Some(turns.take(asker).await.ok_or_else(crowded)?),
            _ => None,
        };
        Ok(Line {
            turn,
            connection: Some(self.pool.acquire().await?),
            answer: self.answer,
            until: None,
            owes: false,
            in_transaction: false,
            reads_since: None,
        })
    }

    /// Takes a connection for a single read.
    async fn take_to_read(&self) -> sqlx::Result<Line> {
        let mut line = self.take().await?;
        line.reads_since = Some(Instant::now());
        Ok(line)
    }

    /// Takes a connection and begins a transaction, which must end within `limit`. If the line is dropped without
    /// [`Line::commit`], the transaction is rolled back.
    pub(crate) async fn begin(&self, limit: Option<Duration>) -> sqlx::Result<Line> {
        let until = limit.map(|limit| Instant::now() + limit);
        let mut line = match until {
            None => self.take().await?,
            Some(until) => tokio::time::timeout_at(until, self.take())
                .await
                .map_err(|_| no_answer())??,
        };
        line.until = until;
        line.in_transaction = true;
        if limit == self.usual {
            line.execute(sqlx::raw_sql("BEGIN")).await?;
            return Ok(line);
        }
        let limits = limit.map(of_statement).map_or(self.own, |most| Limits {
            statement: most,
            lock: most,
        });
        // Send all three in one round trip.
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}",
            limits.statement.as_millis(),
            limits.lock.as_millis()
        );
        line.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(begin))).await?;
        Ok(line)
    }
}

impl Line {
    /// Returns how long the next answer may take.
    fn patience(&self) -> Duration {
        self.until
            .map_or(self.answer, |until| self.answer.min(until - Instant::now()))
    }

    /// Commits. If the connection fails, it is unknown whether the commit happened.
    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        self.execute(sqlx::raw_sql("COMMIT")).await?;
        self.in_transaction = false;
        Ok(())
    }
}

impl Line {
    /// Rolls back. The transaction's locks are free when this returns, unless the connection is broken.
    pub(crate) async fn rollback(mut self) {
        // If this fails, dropping the line closes the connection, and PostgreSQL rolls back.
        if self.execute(sqlx::raw_sql("ROLLBACK")).await.is_ok() {
            self.in_transaction = false;
        }
    }
}

/// Waits for an answer, at most for `answer`.
async fn within<T>(
    answer: Duration,
    owes: &mut bool,
    work: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    *owes = true;
    let done = tokio::time::timeout(answer, work)
        .await
        .map_err(|_| no_answer())?;
    *owes = false;
    done
}

/// Returns the error of a connection that does not answer.
pub(crate) fn no_answer() -> sqlx::Error {
    let text = "the database does not answer on this connection";
    std::io::Error::new(std::io::ErrorKind::TimedOut, text).into()
}

/// The asker got no connection: too many requests of askers wait for one.
#[derive(Debug, Error)]
#[error("too many requests wait for a connection to the database")]
pub(crate) struct Crowded;

fn crowded() -> sqlx::Error {
    std::io::Error::new(std::io::ErrorKind::WouldBlock, Crowded).into()
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if self.owes {
            connection.close_on_drop();
            return;
        }
        let in_transaction = self.in_transaction;
        let turn = self.turn.take();
        let pause = self
            .reads_since
            .map_or(Duration::ZERO, |since| pause_after(since.elapsed()));
        // The pool checks each connection that returns, and that check can hang as well.
        tokio::spawn(async move {
            if in_transaction {
                let rolled_back = connection.execute(sqlx::raw_sql("ROLLBACK"));
                if !matches!(tokio::time::timeout(RETURN, rolled_back).await, Ok(Ok(_))) {
                    connection.close_on_drop();
                    return;
                }
            }
            // After the timeout, the connection is closed, and its place in the pool is free.
            let _ = tokio::time::timeout(RETURN, connection.return_to_pool()).await;
            if let Some(turn) = turn {
                turn.end_with_pause(pause).await;
            }
        });
    }
}

impl<'c> Executor<'c> for &'c mut Line {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Step>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        // Read all rows at once, because every caller needs all of them. A timeout for each row would not limit the
        // whole.
        let steps = async move {
            let patience = self.patience();
            let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
            let steps = connection.fetch_many(query).try_collect::<Vec<Step>>();
            let steps = within(patience, &mut self.owes, steps).await?;
            Ok::<_, sqlx::Error>(stream::iter(steps.into_iter().map(Ok)))
        };
        Box::pin(stream::once(steps).try_flatten())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let patience = self.patience();
            let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
            within(patience, &mut self.owes, connection.fetch_optional(query)).await
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let patience = self.patience();
            let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
            within(patience, &mut self.owes, connection.prepare_with(sql, parameters)).await
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let patience = self.patience();
            let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
            within(patience, &mut self.owes, connection.describe(sql)).await
        })
    }
}

impl<'c> Executor<'c> for &'c Lines {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Step>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let steps = async move {
            let mut line = self.take_to_read().await?;
            let steps: Vec<Step> = line.fetch_many(query).try_collect().await?;
            Ok::<_, sqlx::Error>(stream::iter(steps.into_iter().map(Ok)))
        };
        Box::pin(stream::once(steps).try_flatten())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move { self.take_to_read().await?.fetch_optional(query).await })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        Box::pin(async move { self.take_to_read().await?.prepare_with(sql, parameters).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        Box::pin(async move { self.take_to_read().await?.describe(sql).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_read_is_followed_by_a_pause_and_a_short_one_is_not() {
        let pauses = [1, 9, 10, 20, 5_000].map(|took| pause_after(Duration::from_millis(took)).as_millis());

        assert_eq!(pauses, [0, 0, 80, 160, 250]);
    }
}
