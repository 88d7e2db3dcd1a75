//! The error type of this crate.

use deadbeat_domain::ids::ProjectId;
use thiserror::Error;
use uuid::Uuid;

use crate::connection::certificate;
use crate::connection::line::Crowded;

/// A result of this crate.
pub type StoreResult<T> = Result<T, StoreError>;

/// The faults of the database.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database cannot be reached, or is shutting down: try again later.
    #[error("the database is away")]
    Unavailable(#[source] sqlx::Error),
    /// PostgreSQL cancelled the statement: it took too long, waited too long for a lock, or was the victim of a
    /// deadlock. The transaction did not happen. The database is available: the same statement may succeed alone or
    /// later.
    #[error("the statement timed out")]
    TimedOut(#[source] sqlx::Error),
    /// The asker got no connection in time, because too many others use them. The database is available.
    #[error("too many requests wait for a connection to the database")]
    Crowded,
    /// A named constraint refused the write.
    #[error("constraint {0} refused the write")]
    Constraint(String),
    /// A stored value cannot be read back.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// The address of the database cannot be read.
    #[error("the database's address is not of the form postgres://user:password@host:5432/database")]
    Url,
    /// The database was written by a newer server, or its migrations were changed.
    #[error("the database's schema does not fit this server: {0}")]
    Schema(String),
    /// A migration failed.
    #[error("{what} was stopped ({code})")]
    Migration {
        /// The name of the migration.
        what: Box<str>,
        /// PostgreSQL's error code.
        code: Box<str>,
        /// True if trying again later may help.
        passes: bool,
        /// The error of the database.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// Any other fault: a bug.
    #[error("a statement failed")]
    Statement(#[source] sqlx::Error),
}

/// A row that cannot be read. The caller puts the row aside, so that it never delays the rest of its batch.
#[derive(Debug)]
pub struct Unreadable {
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The row's id.
    pub id: Uuid,
    /// Why the row cannot be read.
    pub error: StoreError,
}

/// Reads each row on its own: an unreadable row does not spoil the others. `key` yields the project and the id of a row.
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
    /// True if a named constraint refused the write.
    #[must_use]
    pub fn is_constraint(&self, name: &str) -> bool {
        matches!(self, Self::Constraint(constraint) if constraint == name)
    }

    /// True if trying again later may help: the database is away, or a statement timed out.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::TimedOut(_) | Self::Migration { passes: true, .. }
        )
    }

    /// True if PostgreSQL itself cancelled the statement ([`StoreError::TimedOut`]). Other statements may succeed at
    /// the same time.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }
}

/// True if the fault behind an error code of PostgreSQL is temporary:
/// * a lost connection, or no resources (such as a full disk);
/// * a server that starts or stops, or a standby that refuses writes;
/// * a timeout of a lock or a statement, a deadlock, or a transaction that was idle for too long.
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
