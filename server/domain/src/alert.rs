//! Alerts: the kinds of messages that Deadbeat sends to people.

pub mod channel;
pub mod delivery;
pub mod escalation;
pub mod hold;
pub mod message;
pub mod quiet_hours;
pub mod recipients;
pub mod rotation;
pub mod routing;
pub mod sealed;
pub mod snooze;
pub mod window;

use serde::Serialize;

/// The kind of a delivery: the event that its message reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Alert {
    /// An incident began.
    Opened,
    /// An incident still goes on.
    Reminder,
    /// A person acknowledged an incident.
    Acknowledged,
    /// An incident is over.
    Resolved,
    /// Nobody acknowledged an incident in time, so more people are notified.
    Escalated,
    /// A person wants to see whether the channel works.
    Test,
    /// Another channel of the project failed for good and was switched off.
    ChannelDisabled,
    /// Deadbeat did not listen for a while, so it could not judge some monitors.
    BlindSpell,
    /// The owner of a mail address is asked whether Deadbeat may send alerts there.
    Confirmation,
}

impl Alert {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Opened,
        Self::Reminder,
        Self::Acknowledged,
        Self::Resolved,
        Self::Escalated,
        Self::Test,
        Self::ChannelDisabled,
        Self::BlindSpell,
        Self::Confirmation,
    ];

    /// As written in SQL and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reminder => "reminder",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Escalated => "escalated",
            Self::Test => "test",
            Self::ChannelDisabled => "channel_disabled",
            Self::BlindSpell => "blind_spell",
            Self::Confirmation => "confirmation",
        }
    }

    /// The `type` of its message.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Opened => "incident.opened",
            Self::Reminder => "incident.reminder",
            Self::Acknowledged => "incident.acknowledged",
            Self::Resolved => "incident.resolved",
            Self::Escalated => "incident.escalated",
            Self::Test => "channel.test",
            Self::ChannelDisabled => "channel.disabled",
            Self::BlindSpell => "blind_spell.notice",
            Self::Confirmation => "channel.confirm",
        }
    }

    /// Reads [`Alert::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alert| alert.as_str() == text)
    }

    /// Reads [`Alert::event_type`] back.
    #[must_use]
    pub fn of_event_type(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alert| alert.event_type() == text)
    }
}
