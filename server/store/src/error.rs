//! The one error of this crate.

use deadbeat_domain::ids::ProjectId;
use thiserror::Error;
use uuid::Uuid;

use crate::connection::certificate;
use crate::connection::line::Crowded;

/// A result of this crate.
pub type StoreResult<T> = Result<T, StoreError>;

/// What can go wrong with the database.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database cannot be reached, or is shutting down: try again later.
    #[error("the database is away")]
    Unavailable(#[source] sqlx::Error),
    /// PostgreSQL cancelled the statement: it took too long, waited too long for a lock, or was the victim of a deadlock. The
    /// transaction did not happen. The database is there; the same statement alone, or later, may succeed.
    #[error("the statement timed out")]
    TimedOut(#[source] sqlx::Error),
    /// The asker got no connection in time: too much else was asked for. The database is there.
    #[error("too much waits for a connection to the database")]
    Crowded,
    /// A named constraint refused the write.
    #[error("constraint {0} refuses it")]
    Constraint(String),
    /// What is stored cannot be read back as what it should be.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// The address of the database cannot be read.
    #[error("the database's address is not of the form postgres://user:password@host:5432/database")]
    Url,
    /// The database was written by a newer server, or its migrations were changed.
    #[error("the database's schema does not fit this server: {0}")]
    Schema(String),
    /// A migration did not end.
    #[error("{what} was stopped ({code})")]
    Migration {
        /// Which one.
        what: Box<str>,
        /// PostgreSQL's code for what stopped it.
        code: Box<str>,
        /// Trying again later may help.
        passes: bool,
        /// What stopped it.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// Anything else: a bug.
    #[error("a statement failed")]
    Statement(#[source] sqlx::Error),
}

/// A row that cannot be read. The caller sets it aside, so that the row never stalls the rest of its batch.
#[derive(Debug)]
pub struct Unreadable {
    /// Whose it is.
    pub project_id: ProjectId,
    /// Which one.
    pub id: Uuid,
    /// Why.
    pub error: StoreError,
}

/// Reads rows each on its own: one that cannot be read does not spoil the others. `key`: the project and the id of a row.
pub(crate) fn each<R, T: TryFrom<R, Error = StoreError>>(
    rows: Vec<R>,
    key: impl Fn(&R) -> (Uuid, Uuid),
) -> Vec<Result<T, Unreadable>> {
    rows.into_iter()
        .map(|row| {
            let (project, id) = key(&row);
            T::try_from(row).map_err(|error| Unreadable {
                project_id: ProjectId(project),
                id,
                error,
            })
        })
        .collect()
}

impl StoreError {
    /// Whether a named constraint refused the write.
    #[must_use]
    pub fn is_constraint(&self, name: &str) -> bool {
        matches!(self, Self::Constraint(constraint) if constraint == name)
    }

    /// Whether trying again later may help: the database is away, or a statement timed out.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::TimedOut(_) | Self::Migration { passes: true, .. }
        )
    }

    /// Whether PostgreSQL itself cancelled the statement ([`StoreError::TimedOut`]): other statements may succeed meanwhile.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }
}

/// Whether what PostgreSQL reports by this code passes: connection trouble, out of resources (a full disk too), shutting down or starting
/// up, lock and statement time-outs, deadlock, a standby that may not write, a transaction in which nothing happened for too long.
pub(crate) fn passes(code: &str) -> bool {
    ["08", "53", "57", "58"]
        .iter()
        .any(|class| code.starts_with(class))
        || ["55P03", "40P01", "25006", "25P03"].contains(&code)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let error = certificate::named(error);
        match &error {
            sqlx::Error::Database(database) => {
                if let Some(constraint) = database.constraint() {
                    return Self::Constraint(constraint.to_owned());
                }
                match database.code().as_deref() {
                    // query_canceled (statement_timeout), lock_not_available (lock_timeout), deadlock_detected.
                    Some("57014" | "55P03" | "40P01") => Self::TimedOut(error),
                    Some(code) if passes(code) => Self::Unavailable(error),
                    _ => Self::Statement(error),
                }
            }
            sqlx::Error::Io(io) if io.get_ref().is_some_and(|cause| cause.is::<Crowded>()) => Self::Crowded,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            _ => Self::Statement(error),
        }
    }
}
