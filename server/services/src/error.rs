//! The errors of use cases on which a caller can act.

use chrono::TimeDelta;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::people::key_limit::KeyFault;
use deadbeat_domain::people::permission::Refusal;
use deadbeat_store::StoreError;
use thiserror::Error;

/// Why a use case was refused.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The project has nothing with that id.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The caller's role or key does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The caller's key may not be used now, from here, or for this.
    #[error(transparent)]
    KeyFault(#[from] KeyFault),
    /// Some fields are invalid.
    #[error("the request has invalid fields")]
    Invalid(Vec<FieldError>),
    /// The slug is taken.
    #[error("the project already has a monitor with the slug {0:?}")]
    SlugTaken(String),
    /// The state of the object does not allow this.
    #[error("{0}")]
    Conflict(String),
    /// The project has reached a limit on a number of things.
    #[error("the project has reached its limit of {limit} {what}")]
    Limit {
        /// The things that the limit counts.
        what: &'static str,
        /// The most that the project may have.
        limit: i64,
    },
    /// The quota of a stretch of time is used up. The caller may retry when that stretch has ended.
    #[error("{what}; try again in {} s", .retry_after.num_seconds().max(1))]
    TooMany {
        /// The quota, as a clause.
        what: String,
        /// How long to wait before the next request is allowed.
        retry_after: TimeDelta,
    },
    /// The server is overloaded; the caller should retry soon.
    #[error("the server is overloaded")]
    Busy,
    /// The server lacks a key for encrypting or decrypting the secrets of channels. The text is for the operator.
    #[error("{0}")]
    KeyMissing(String),
    /// An error of the database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
