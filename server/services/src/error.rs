//! What a use case can answer that its caller can act on.

use chrono::TimeDelta;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::people::permission::Refusal;
use deadbeat_store::StoreError;
use thiserror::Error;

/// Why a use case was refused.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The project has nothing of that id.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The caller's role or key does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Fields that cannot be taken as they are.
    #[error("the request has invalid fields")]
    Invalid(Vec<FieldError>),
    /// The slug is taken.
    #[error("the project already has a monitor with the slug {0:?}")]
    SlugTaken(String),
    /// Not in this state.
    #[error("{0}")]
    Conflict(String),
    /// A quota is reached.
    #[error("the project has reached its limit of {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: i64,
    },
    /// A quota of a window of time is used up: try again when the window has ended.
    #[error("{what}; try again in {} s", .retry_after.num_seconds().max(1))]
    TooMany {
        /// Which quota, as a sentence.
        what: String,
        /// How long until the next is allowed.
        retry_after: TimeDelta,
    },
    /// Too much at once: try again soon.
    #[error("too much at once")]
    Busy,
    /// The secrets of channels cannot be sealed or opened: this server lacks a key. In words for the operator.
    #[error("{0}")]
    KeyMissing(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
