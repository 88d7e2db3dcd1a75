//! A change of status: what the state machine of every subject answers, and the history keeps.

use chrono::{DateTime, Utc};

use crate::incident::cause::Cause;
use crate::monitor::status::Status;

/// Why a status changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A report came.
    Report,
    /// A deadline passed, or a failure came.
    Trouble(Cause),
    /// Another subject is in trouble, for that cause: listed in that incident, not told on its own.
    PartOf(Cause),
    /// What it was part of is over: it is expected anew.
    Restored,
    /// A person paused it.
    Pause,
    /// A person resumed it.
    Resume,
    /// Its entry left Beat's schedule.
    Retire,
    /// Its entry came back into Beat's schedule.
    Return,
    /// A worker said goodbye.
    Leave,
    /// A lost worker did not come back.
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
    /// Before.
    pub from: Status,
    /// After.
    pub to: Status,
    /// Why.
    pub trigger: Trigger,
    /// When.
    pub at: DateTime<Utc>,
}
