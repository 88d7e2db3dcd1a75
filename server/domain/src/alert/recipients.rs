//! Recipients: which channels get a message, and when.
//!
//! Only [`recipients`] decides this. docs/alerting.md shows its rules as a table, and a test compares the two.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::alert::Alert;
use crate::alert::hold::{About, Hold, Release, release};
use crate::alert::message::{Event, Message, Phase};
use crate::alert::routing::{Routing, Traits};
use crate::ids::ChannelId;
use crate::incident::cause::Cause;

/// A project gets at most one notice in this time that the same channel was switched off.
pub const NOTICE_AGAIN: TimeDelta = TimeDelta::days(1);

/// The subject of a message, as far as it decides which channels get the message.
#[derive(Debug, Clone, Copy)]
pub enum Topic<'a> {
    /// A monitor with its own list of channels: only those get its alerts.
    Chosen(&'a BTreeSet<ChannelId>),
    /// A monitor without a list of channels, any other subject, or the project as a whole.
    Project,
    /// One channel: the message tests it, asks for its confirmation, or reports that it was switched off.
    Channel(ChannelId),
}

/// A channel, with the state that decides which messages it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// A permanent failure switched the channel off.
    pub is_disabled: bool,
    /// True if alerts may go there. Only the owner of a mail address can allow mail.
    pub is_confirmed: bool,
    /// The last attempt failed.
    pub is_failing: bool,
    /// When the project's other channels were last notified that this one was switched off.
    pub reported_at: Option<DateTime<Utc>>,
    /// Which alerts about incidents it gets, and when.
    pub routing: Routing,
}

/// The channels that have got messages of an incident. A message to an unconfirmed address counts as got. A message
/// does not count if it still waits, or if a mute or the channel's rules hold it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The channels that got `opened`.
    pub opened: BTreeSet<ChannelId>,
    /// The channels that got `escalated`.
    pub escalated: BTreeSet<ChannelId>,
    /// The channels with a held message, not sent yet, that reports that the incident began or goes on.
    pub waiting: BTreeSet<ChannelId>,
}

/// The other facts that decide which channels get a message.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Every channel of the project.
    pub channels: &'a [Channel],
    /// The channels that have got messages of the incident. None: no channel has, or the message belongs to no
    /// incident.
    pub history: Option<&'a History>,
    /// The channels that a step of the escalation names.
    pub step: &'a [ChannelId],
    /// The holds of the project: windows, snoozes and mutes.
    pub holds: &'a [Hold],
    /// The tags of the incident's monitor.
    pub tags: &'a [String],
}

/// Why a message is recorded for a channel, but not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// The owner of the mail address has not confirmed.
    NotConfirmed,
    /// Somebody muted the subject of the message.
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
    /// None: the message is sent. Otherwise the delivery is cancelled at once, and shows readers of deliveries why no
    /// message came.
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
            is_addressed(message, topic, rules, about.as_ref(), channel) && is_fit(alert, channel)
        })
        .map(|channel| match &about {
            Some(about) if channel.is_confirmed => {
                recipient(channel.id, release(alert, about, &channel.routing, &holds, now))
            }
            // An unconfirmed address gets only the request for confirmation.
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

/// The facts that the rules of channels and the holds check. None: the message is about no incident, so no rule applies
/// to it.
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

/// True if a message is meant for a channel, whatever the channel's state.
fn is_addressed(
    message: &Message,
    topic: Topic<'_>,
    rules: &Rules<'_>,
    about: Option<&About<'_>>,
    channel: &Channel,
) -> bool {
    let (id, alert) = (channel.id, message.alert());
    // This reminder comes once, and says more than a message that waits.
    let is_long_down = matches!(&message.event, Event::Incident(event) if event.phase == Phase::LongDown);
    let is_in = |of: fn(&History) -> &BTreeSet<ChannelId>| {
        rules.history.is_some_and(|history| of(history).contains(&id))
    };
    let is_chosen = || match topic {
        Topic::Chosen(chosen) => chosen.contains(&id),
        _ => true,
    };
    let asks_for = || is_chosen() && about.is_none_or(|about| channel.routing.matches(&about.traits));
    // A channel that leaves out `opened` gets the later alerts of each incident that its rules match.
    let skips_beginnings = || !channel.routing.takes(Alert::Opened) && asks_for();
    if !channel.routing.takes(alert) {
        return false;
    }
    match (alert, topic) {
        (Alert::Opened, _) => asks_for(),
        (Alert::BlindSpell, _) => true,
        // A waiting message already says that the incident goes on.
        (Alert::Reminder, _) => {
            (is_long_down || !is_in(|history| &history.waiting))
                && (is_in(|history| &history.opened) || skips_beginnings())
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

/// True if the state of a channel allows such a message.
fn is_fit(alert: Alert, channel: &Channel) -> bool {
    match alert {
        // A person repairs the channel, and needs a test to see whether it works again.
        Alert::Test | Alert::Confirmation => true,
        // Notices must not cause notices: if `n` channels fail, fewer than `n` notices follow.
        Alert::ChannelDisabled => !channel.is_disabled && !channel.is_failing && channel.is_confirmed,
        _ => !channel.is_disabled,
    }
}

/// True if the project lately got a notice that this channel was switched off. Ignores a time in the future, which was
/// written before the clock stepped back.
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
