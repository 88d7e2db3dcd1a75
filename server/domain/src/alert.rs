//! Alerts: what is told about an incident.

use serde::Serialize;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Alert {
    /// Something is wrong.
    Opened,
    /// It still is.
    Reminder,
    /// It is right again.
    Resolved,
    /// A person wants to see whether the channel works.
    Test,
}

impl Alert {
    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }

    /// The `type` of a webhook.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Opened => "incident.opened",
            Self::Reminder => "incident.reminder",
            Self::Resolved => "incident.resolved",
            Self::Test => "channel.test",
        }
    }

    /// Reads [`Alert::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Opened, Self::Reminder, Self::Resolved, Self::Test]
            .into_iter()
            .find(|a| a.as_str() == text)
    }
}
