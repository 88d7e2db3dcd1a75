//! API keys: their scopes and their form.

/// What kind of key it is. [`super::permission`] says what each may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reports, and registers what reports.
    Ping,
    /// Reads.
    Read,
    /// Reads and changes.
    Write,
}

impl Scope {
    /// Every scope, most powerful first.
    pub const ALL: [Self; 3] = [Self::Write, Self::Read, Self::Ping];

    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// Reads [`Scope::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    /// How a key of this scope begins: secret scanners and people tell them apart by it.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Ping => "dbp_",
            Self::Read => "dbr_",
            Self::Write => "dbw_",
        }
    }
}

/// Whether a text can be a key at all: saves the look-up of what cannot.
#[must_use]
pub fn is_plausible(text: &str) -> bool {
    (20..=100).contains(&text.len())
        && Scope::ALL.iter().any(|scope| text.starts_with(scope.prefix()))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
