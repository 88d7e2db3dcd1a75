//! Recipients: which channels get a message.
//!
//! [`recipients`] is the only place that decides this. docs/alerting.md shows it as a table, and a test compares the two.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::alert::Alert;
use crate::alert::message::Message;
use crate::ids::ChannelId;

/// A project gets at most one notice in this time that the same channel was switched off.
pub const NOTICE_AGAIN: TimeDelta = TimeDelta::days(1);

/// What a message is about, as far as this decides who gets it.
#[derive(Debug, Clone, Copy)]
pub enum Topic<'a> {
    /// A monitor with its own list of channels: only those get its alerts.
    Chosen(&'a BTreeSet<ChannelId>),
    /// A monitor without a list of channels, any other subject, or the project as a whole.
    Project,
    /// One channel: it is tested, asks for its confirmation, or was switched off.
    Channel(ChannelId),
}

/// A channel, as far as its state decides what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// A permanent failure switched the channel off.
    pub is_disabled: bool,
    /// Whether alerts may go there: only the owner of a mail address can allow mail.
    pub is_confirmed: bool,
    /// The last attempt failed.
    pub is_failing: bool,
    /// When the project's other channels last got a notice that this one was switched off.
    pub reported_at: Option<DateTime<Utc>>,
}

/// Which channels have got messages of an incident. A withheld message counts as got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The channels that got `opened`.
    pub opened: BTreeSet<ChannelId>,
    /// The channels that got `escalated`.
    pub escalated: BTreeSet<ChannelId>,
}

/// The other facts that decide.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Every channel of the project.
    pub channels: &'a [Channel],
    /// Which channels have got messages of the incident. None: no channel has, or the message belongs to no incident.
    pub history: Option<&'a History>,
    /// The channels that a step of the escalation names.
    pub step: &'a [ChannelId],
}

/// Why a message is recorded for a channel, and not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// The owner of the mail address has not confirmed.
    NotConfirmed,
}

impl Withheld {
    /// The `cancel_reason` of the delivery.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotConfirmed => "not_confirmed",
        }
    }
}

/// A channel that gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    /// The channel.
    pub channel: ChannelId,
    /// None: the message is sent. Else the delivery is cancelled from the start, so that a reader of deliveries sees
    /// why no message came.
    pub withheld: Option<Withheld>,
}

/// Decides which channels get a message, in the order of `rules.channels`.
#[must_use]
pub fn recipients(
    message: &Message,
    topic: Topic<'_>,
    rules: &Rules<'_>,
    now: DateTime<Utc>,
) -> Vec<Recipient> {
    let alert = message.alert();
    if alert == Alert::ChannelDisabled && was_reported(topic, rules.channels, now) {
        return Vec::new();
    }
    let hears = |channel: &&Channel| is_addressed(alert, topic, rules, channel.id) && is_fit(alert, channel);
    rules
        .channels
        .iter()
        .filter(hears)
        .map(|channel| Recipient {
            channel: channel.id,
            // The request for confirmation is the one message that an unconfirmed address gets.
            withheld: (!channel.is_confirmed && alert != Alert::Confirmation)
                .then_some(Withheld::NotConfirmed),
        })
        .collect()
}

/// Whether a message is meant for a channel, whatever its state.
fn is_addressed(alert: Alert, topic: Topic<'_>, rules: &Rules<'_>, channel: ChannelId) -> bool {
    let heard = |of: fn(&History) -> &BTreeSet<ChannelId>| {
        rules
            .history
            .is_some_and(|history| of(history).contains(&channel))
    };
    match (alert, topic) {
        (Alert::Opened, Topic::Chosen(chosen)) => chosen.contains(&channel),
        (Alert::Opened | Alert::BlindSpell, _) => true,
        (Alert::Reminder, _) => heard(|history| &history.opened),
        (Alert::Acknowledged | Alert::Resolved, _) => {
            heard(|history| &history.opened) || heard(|history| &history.escalated)
        }
        (Alert::Escalated, _) => rules.step.contains(&channel),
        (Alert::Test | Alert::Confirmation, Topic::Channel(itself)) => channel == itself,
        // A channel that was switched off cannot send the notice itself.
        (Alert::ChannelDisabled, Topic::Channel(itself)) => channel != itself,
        (Alert::Test | Alert::Confirmation | Alert::ChannelDisabled, _) => false,
    }
}

/// Whether the state of a channel allows such a message.
fn is_fit(alert: Alert, channel: &Channel) -> bool {
    match alert {
        // A person repairs the channel and wants to see whether it works again.
        Alert::Test | Alert::Confirmation => true,
        // Notices must not cause notices: `n` channels that all fail make fewer than `n` notices.
        Alert::ChannelDisabled => !channel.is_disabled && !channel.is_failing && channel.is_confirmed,
        _ => !channel.is_disabled,
    }
}

/// Whether the project got a notice lately that this channel was switched off. A time in the future stems from a clock
/// that was set back: it does not count.
fn was_reported(topic: Topic<'_>, channels: &[Channel], now: DateTime<Utc>) -> bool {
    let Topic::Channel(id) = topic else {
        return false;
    };
    channels
        .iter()
        .find(|channel| channel.id == id)
        .and_then(|channel| channel.reported_at)
        .is_some_and(|at| at <= now && now - at < NOTICE_AGAIN)
}

#[cfg(test)]
mod tests;
