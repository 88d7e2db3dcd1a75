//! The audit trail: who changed what in a project, when, and from where (ADR 044).
//!
//! An entry names the changed thing and its changed fields. It holds no values, so it can hold no secret.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::ids::{AuditEntryId, ChannelId, ProjectId};
use crate::people::access::{Access, Actor};
use crate::text::Text;

/// The most characters of a thing's name that an entry keeps.
const NAME_CHARS: usize = 200;

macro_rules! acts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that an actor did to a thing of a project.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Act {
            $($(#[$doc])* $name,)*
        }

        impl Act {
            /// Every act.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The act as stored and shown: the kind of the thing, a dot, and a verb in the past tense.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

acts! {
    /// A person, a key, or a ping of a key created a monitor.
    MonitorCreated = "monitor.created",
    /// Somebody changed a monitor's settings.
    MonitorChanged = "monitor.changed",
    /// Somebody paused a monitor.
    MonitorPaused = "monitor.paused",
    /// Somebody resumed a monitor.
    MonitorResumed = "monitor.resumed",
    /// Somebody deleted a monitor.
    MonitorDeleted = "monitor.deleted",
    /// Somebody snoozed a monitor.
    MonitorSnoozed = "monitor.snoozed",
    /// Somebody ended a monitor's snooze.
    MonitorSnoozeEnded = "monitor.snooze_ended",
    /// Somebody muted a monitor.
    MonitorMuted = "monitor.muted",
    /// Somebody ended a monitor's mute.
    MonitorMuteEnded = "monitor.mute_ended",
    /// Somebody snoozed the monitors of a tag.
    TagSnoozed = "tag.snoozed",
    /// Somebody ended the snooze of a tag.
    TagSnoozeEnded = "tag.snooze_ended",
    /// Somebody snoozed the whole project.
    ProjectSnoozed = "project.snoozed",
    /// Somebody ended the snooze of the project.
    ProjectSnoozeEnded = "project.snooze_ended",
    /// Somebody changed the project's settings.
    ProjectChanged = "project.changed",
    /// Somebody planned a maintenance window.
    WindowCreated = "maintenance_window.created",
    /// Somebody changed a maintenance window.
    WindowChanged = "maintenance_window.changed",
    /// Somebody deleted a maintenance window.
    WindowDeleted = "maintenance_window.deleted",
    /// Somebody added a channel.
    ChannelCreated = "channel.created",
    /// Somebody changed a channel.
    ChannelChanged = "channel.changed",
    /// Somebody deleted a channel.
    ChannelDeleted = "channel.deleted",
    /// Somebody tested a channel.
    ChannelTested = "channel.tested",
    /// Somebody requested another confirmation mail.
    ChannelConfirmationRequested = "channel.confirmation_requested",
    /// Somebody added a rotation.
    RotationCreated = "rotation.created",
    /// Somebody changed a rotation.
    RotationChanged = "rotation.changed",
    /// Somebody deleted a rotation.
    RotationDeleted = "rotation.deleted",
    /// Somebody added an escalation policy.
    PolicyCreated = "escalation_policy.created",
    /// Somebody changed an escalation policy.
    PolicyChanged = "escalation_policy.changed",
    /// Somebody deleted an escalation policy.
    PolicyDeleted = "escalation_policy.deleted",
    /// Somebody sent a delivery again.
    DeliveryResent = "delivery.resent",
    /// Somebody acknowledged an incident.
    IncidentAcknowledged = "incident.acknowledged",
    /// Somebody issued an API key.
    KeyIssued = "api_key.issued",
    /// Somebody replaced an API key by a new one.
    KeyRotated = "api_key.rotated",
    /// Somebody revoked an API key.
    KeyRevoked = "api_key.revoked",
    /// Somebody changed a member's role.
    MemberChanged = "member.changed",
    /// Somebody removed a member.
    MemberRemoved = "member.removed",
    /// A member left the project.
    MemberLeft = "member.left",
    /// Somebody invited a person.
    InvitationCreated = "invitation.created",
    /// Somebody withdrew an invitation.
    InvitationWithdrawn = "invitation.withdrawn",
    /// A person accepted an invitation and became a member.
    InvitationAccepted = "invitation.accepted",
    /// An account created the project.
    ProjectCreated = "project.created",
    /// An owner made another member the owner.
    ProjectTransferred = "project.transferred",
    /// Somebody deleted a Beat with its monitors.
    BeatDeleted = "beat.deleted",
    /// A member deleted their account.
    MemberAccountDeleted = "member.account_deleted",
}

/// Who acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An actor with access to the project.
    Actor(Actor),
    /// The holder of a signed link in a message of this channel.
    Link(ChannelId),
    /// A user of a service to which a channel writes. The incident has the user's name.
    Service,
}

impl By {
    /// The kind of actor, as stored.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Actor(Actor::Account { .. }) => "account",
            Self::Actor(Actor::Key { .. }) => "api_key",
            Self::Actor(Actor::Operator) => "operator",
            Self::Actor(Actor::System) => "system",
            Self::Link(_) => "link",
            Self::Service => "service",
        }
    }

    /// The id of the account or key, or of the link's channel.
    #[must_use]
    pub fn id(self) -> Option<Uuid> {
        match self {
            Self::Actor(Actor::Account { id, .. }) => Some(id.0),
            Self::Actor(Actor::Key { id, .. }) => Some(id.0),
            Self::Actor(Actor::Operator | Actor::System) | Self::Service => None,
            Self::Link(channel) => Some(channel.0),
        }
    }
}

/// An entry of a project's audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The project.
    pub project_id: ProjectId,
    /// The entry's id. It sorts by time.
    pub id: AuditEntryId,
    /// When the actor acted.
    pub at: DateTime<Utc>,
    /// Who acted.
    pub by: By,
    /// The client's address. None: the request did not come over the network.
    pub from: Option<IpAddr>,
    /// What the actor did.
    pub act: Act,
    /// The thing's id.
    pub subject_id: Uuid,
    /// The thing's name at that time, if it has one.
    pub subject_name: Option<String>,
    /// The names of the fields that the actor set.
    pub changed: Vec<String>,
}

impl Entry {
    /// An entry about a thing of the project, by whoever has this access.
    #[must_use]
    pub fn new(
        access: &Access,
        project_id: ProjectId,
        act: Act,
        subject_id: Uuid,
        at: DateTime<Utc>,
    ) -> Self {
        Self {
            project_id,
            id: AuditEntryId::generate(),
            at,
            by: By::Actor(access.actor()),
            from: access.address(),
            act,
            subject_id,
            subject_name: None,
            changed: Vec::new(),
        }
    }

    /// The same entry with the thing's name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.subject_name = Some(Text::clean(name, NAME_CHARS).into_owned());
        self
    }

    /// The same entry with the names of the fields that the actor set.
    #[must_use]
    pub fn changing(mut self, fields: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.changed = fields.into_iter().map(Into::into).collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_act_names_a_kind_of_thing_and_a_verb_and_no_two_are_the_same() {
        let texts: HashSet<&str> = Act::ALL.iter().map(|act| act.as_str()).collect();

        assert_eq!(texts.len(), Act::ALL.len());
        for text in texts {
            let (kind, verb) = text.split_once('.').unwrap();
            assert!(!kind.is_empty() && !verb.is_empty(), "{text}");
        }
    }

    #[test]
    fn an_entry_keeps_a_bounded_name_without_control_characters() {
        let access = Access::new(ProjectId::generate(), Actor::Operator);
        let project = ProjectId::generate();
        let name = format!("a\u{202e}b\n{}", "x".repeat(1_000));

        let entry = Entry::new(
            &access,
            project,
            Act::MonitorCreated,
            Uuid::nil(),
            DateTime::UNIX_EPOCH,
        )
        .named(&name);

        let kept = entry.subject_name.unwrap();
        assert!(
            kept.chars().count() <= NAME_CHARS && !kept.contains(['\n', '\u{202e}']),
            "{kept}"
        );
    }
}
