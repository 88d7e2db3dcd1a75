//! API keys: their scopes and their form.

/// The kind of an API key. [`super::permission`] says what each kind may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reports, and registers what reports.
    Ping,
    /// Reads.
    Read,
    /// Reads and changes.
    Write,
    /// Reads the audit trail, and nothing else.
    Audit,
    /// Reads the project's figures, and nothing else.
    Metrics,
}

impl Scope {
    /// Every scope, those with the most permissions first.
    pub const ALL: [Self; 5] = [Self::Write, Self::Read, Self::Ping, Self::Audit, Self::Metrics];

    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Read => "read",
            Self::Write => "write",
            Self::Audit => "audit",
            Self::Metrics => "metrics",
        }
    }

    /// Reads [`Scope::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    /// The beginning of a key of this scope. People and secret scanners recognize the kind of a key by it.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Ping => "dbp_",
            Self::Read => "dbr_",
            Self::Write => "dbw_",
            Self::Audit => "dba_",
            Self::Metrics => "dbm_",
        }
    }
}

/// True if the text has the form of a key. The server looks up no other text.
#[must_use]
pub fn is_plausible(text: &str) -> bool {
    (20..=100).contains(&text.len())
        && Scope::ALL.iter().any(|scope| text.starts_with(scope.prefix()))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
