//! An open run whose owner has ended, or does not list it.

use chrono::{DateTime, Utc};

/// Why a run counts as an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphaned {
    /// Its incarnation ended.
    Ended,
    /// Its incarnation ended in a blind spell, so nobody knows how the run ended.
    Unheard,
    /// Its incarnation lives, but no longer lists it.
    Unlisted,
}

impl Orphaned {
    /// As written in SQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Unheard => "unheard",
            Self::Unlisted => "unlisted",
        }
    }

    /// Reads [`Orphaned::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ended, Self::Unheard, Self::Unlisted]
            .into_iter()
            .find(|one| one.as_str() == text)
    }
}

/// An open run without an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why.
    pub how: Orphaned,
}
