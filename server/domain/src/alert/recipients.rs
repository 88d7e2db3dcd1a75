//! Recipients: which channels get a message, and when.
//!
//! [`recipients`] is the only place that decides this. docs/alerting.md shows it as a table, and a test compares the two.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::alert::Alert;
use crate::alert::hold::{About, Hold, Release, release};
use crate::alert::message::Message;
use crate::alert::routing::{Routing, Traits};
use crate::ids::ChannelId;
use crate::incident::cause::Cause;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Which alerts about incidents it gets, and when.
    pub routing: Routing,
}

/// Which channels have got messages of an incident. A message to an address that is not confirmed counts as got. A message that waits for
/// its time does not, nor one that a mute or the channel's rules keep back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The channels that got `opened`.
    pub opened: BTreeSet<ChannelId>,
    /// The channels that got `escalated`.
    pub escalated: BTreeSet<ChannelId>,
    /// The channels for which a message was held, and not sent yet, that says that the incident began or goes on.
    pub waiting: BTreeSet<ChannelId>,
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
    /// What keeps alerts of the project back: windows, snoozes and mutes.
    pub holds: &'a [Hold],
    /// The tags of the incident's monitor.
    pub tags: &'a [String],
}

/// Why a message is recorded for a channel, and not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// The owner of the mail address has not confirmed.
    NotConfirmed,
    /// Somebody muted what it is about.
    Muted,
    /// The channel's rules changed while the message waited.
    Rules,
}

impl Withheld {
    /// The `cancel_reason` of the delivery.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotConfirmed => "not_confirmed",
            Self::Muted => "muted",
            Self::Rules => "rules",
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
    /// The time before which the message is not sent. None: it is sent at once.
    pub not_before: Option<DateTime<Utc>>,
}

impl Recipient {
    /// A channel that gets a message at once.
    #[must_use]
    pub fn at_once(channel: ChannelId) -> Self {
        Self {
            channel,
            withheld: None,
            not_before: None,
        }
    }
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
    let about = about(message, rules.tags);
    let holds: Vec<&Hold> = about.as_ref().map_or_else(Vec::new, |about| {
        rules.holds.iter().filter(|hold| hold.covers(about)).collect()
    });
    rules
        .channels
        .iter()
        .filter(|channel| {
            is_addressed(alert, topic, rules, about.as_ref(), channel) && is_fit(alert, channel)
        })
        .map(|channel| match &about {
            Some(about) if channel.is_confirmed => {
                recipient(channel.id, release(alert, about, &channel.routing, &holds, now))
            }
            // The request for confirmation is the one message that an unconfirmed address gets.
            _ => Recipient {
                withheld: (!channel.is_confirmed && alert != Alert::Confirmation)
                    .then_some(Withheld::NotConfirmed),
                ..Recipient::at_once(channel.id)
            },
        })
        .collect()
}

fn recipient(channel: ChannelId, release: Release) -> Recipient {
    let at_once = Recipient::at_once(channel);
    match release {
        Release::Now => at_once,
        Release::At(at) => Recipient {
            not_before: Some(at),
            ..at_once
        },
        Release::Never => Recipient {
            withheld: Some(Withheld::Muted),
            ..at_once
        },
    }
}

/// What the rules of channels and the holds need to know. None: the message is about no incident, so no rule applies to it.
fn about<'a>(message: &Message, tags: &'a [String]) -> Option<About<'a>> {
    let incident = message.incident()?;
    Some(About {
        traits: Traits {
            kind: incident.subject.kind,
            cause: Cause::parse(&incident.cause.code),
            severity: incident.severity(),
            tags,
        },
        subject: incident.subject.id,
        opened_at: incident.opened_at,
    })
}

/// Whether a message is meant for a channel, whatever its state.
fn is_addressed(
    alert: Alert,
    topic: Topic<'_>,
    rules: &Rules<'_>,
    about: Option<&About<'_>>,
    channel: &Channel,
) -> bool {
    let id = channel.id;
    let is_in = |of: fn(&History) -> &BTreeSet<ChannelId>| {
        rules.history.is_some_and(|history| of(history).contains(&id))
    };
    let is_chosen = || match topic {
        Topic::Chosen(chosen) => chosen.contains(&id),
        _ => true,
    };
    let asks_for = || is_chosen() && about.is_none_or(|about| channel.routing.matches(&about.traits));
    // A channel that asks not to hear when incidents begin hears of the later events of each incident that it asks for.
    let skips_beginnings = || !channel.routing.hears(Alert::Opened) && asks_for();
    if !channel.routing.hears(alert) {
        return false;
    }
    match (alert, topic) {
        (Alert::Opened, _) => asks_for(),
        (Alert::BlindSpell, _) => true,
        // One that waits says enough.
        (Alert::Reminder, _) => {
            !is_in(|history| &history.waiting) && (is_in(|history| &history.opened) || skips_beginnings())
        }
        (Alert::Acknowledged | Alert::Resolved, _) => {
            is_in(|history| &history.opened) || is_in(|history| &history.escalated) || skips_beginnings()
        }
        (Alert::Escalated, _) => rules.step.contains(&id),
        (Alert::Test | Alert::Confirmation, Topic::Channel(itself)) => id == itself,
        // A channel that was switched off cannot send the notice itself.
        (Alert::ChannelDisabled, Topic::Channel(itself)) => id != itself,
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
