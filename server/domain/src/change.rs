//! A change of status: the state machine of each subject returns it, and the history stores it.

pub mod feed;

use chrono::{DateTime, Utc};

use crate::incident::cause::Cause;
use crate::monitor::status::Status;

/// Why a status changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A report arrived.
    Report,
    /// A deadline passed, or a failure was reported.
    Trouble(Cause),
    /// Another subject has a fault with that cause. The subject joins that subject's incident as a member, and opens
    /// none of its own.
    PartOf(Cause),
    /// The incident that the subject was a member of is over: the subject gets a new deadline.
    Restored,
    /// A person paused it.
    Pause,
    /// A person resumed it.
    Resume,
    /// Its entry left Beat's schedule.
    Retire,
    /// The entry is back in Beat's schedule.
    Return,
    /// A worker signed off before it stopped.
    Leave,
    /// A lost worker did not come back for an hour.
    GiveUp,
    /// It was deleted.
    Delete,
}

impl Trigger {
    /// As written in the history.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "REPORT",
            Self::Trouble(cause) => cause.as_str(),
            Self::PartOf(cause) => cause.as_str(),
            Self::Restored => "RESTORED",
            Self::Pause => "PAUSE",
            Self::Resume => "RESUME",
            Self::Retire => "RETIRE",
            Self::Return => "RETURN",
            Self::Leave => "LEAVE",
            Self::GiveUp => "GIVE_UP",
            Self::Delete => "DELETE",
        }
    }
}

/// A changed status and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The status before.
    pub from: Status,
    /// The status after.
    pub to: Status,
    /// Why.
    pub trigger: Trigger,
    /// When.
    pub at: DateTime<Utc>,
}
