//! The one error of this crate.

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
    /// deadlock. The transaction did not happen. The database is there: the statement alone, or later, may succeed.
    #[error("the statement timed out")]
    TimedOut(#[source] sqlx::Error),
    /// The asker got no connection in time, because too many others use them. The database is there.
    #[error("too much waits for a connection to the database")]
    Crowded,
    /// A named constraint refused the write.
    #[error("constraint {0} refuses it")]
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
        /// Its name.
        what: Box<str>,
        /// PostgreSQL's code of the fault.
        code: Box<str>,
        /// Whether trying again later may help.
        passes: bool,
        /// The fault.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// Any other fault: a bug.
    #[error("a statement failed")]
    Statement(#[source] sqlx::Error),
}

/// A row that cannot be read. The caller puts it aside, so that it never stalls the rest of its batch.
#[derive(Debug)]
pub struct Unreadable {
    /// Whose it is.
    pub project_id: ProjectId,
    /// Its id.
    pub id: Uuid,
    /// Why it cannot be read.
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

    /// Whether PostgreSQL itself cancelled the statement ([`StoreError::TimedOut`]). Other statements may succeed
    /// meanwhile.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }
}

/// Whether the fault behind a code of PostgreSQL passes: a lost connection, no resources (such as a full disk),
/// shutting down or starting up, time-outs of locks and statements, a deadlock, a standby that may not write, or a
/// transaction that was idle for too long.
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
