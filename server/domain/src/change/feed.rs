//! The change feed: what changed in a project, in the order of the commits (ADR 034).
//!
//! A change names its subject and what happened to it. It holds no values, so a reader fetches the subject again. The
//! changes of a project have the sequences 1, 2, 3, …. The server removes the oldest ones, so a slow reader may miss
//! some ([`has_missed`]).

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::ids::{ApiKeyId, ChannelId, EscalationPolicyId, IncidentId, MonitorId, ProjectId, RotationId};
use crate::incident::SubjectKind;
use crate::people::permission::Action;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeSubject {
    /// A monitor, a Beat, or another thing that incidents are about.
    Watched(SubjectKind, Uuid),
    /// An incident.
    Incident(IncidentId),
    /// A channel.
    Channel(ChannelId),
    /// A rotation.
    Rotation(RotationId),
    /// An escalation policy.
    EscalationPolicy(EscalationPolicyId),
    /// An API key.
    ApiKey(ApiKeyId),
    /// The project's own settings.
    Project(ProjectId),
}

impl ChangeSubject {
    /// A monitor.
    #[must_use]
    pub fn monitor(id: MonitorId) -> Self {
        Self::Watched(SubjectKind::Monitor, id.0)
    }

    /// Its kind, as stored.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Watched(kind, _) => kind.as_str(),
            Self::Incident(_) => "incident",
            Self::Channel(_) => "channel",
            Self::Rotation(_) => "rotation",
            Self::EscalationPolicy(_) => "escalation_policy",
            Self::ApiKey(_) => API_KEY,
            Self::Project(_) => "project",
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(self) -> Uuid {
        match self {
            Self::Watched(_, id) => id,
            Self::Incident(id) => id.0,
            Self::Channel(id) => id.0,
            Self::Rotation(id) => id.0,
            Self::EscalationPolicy(id) => id.0,
            Self::ApiKey(id) => id.0,
            Self::Project(id) => id.0,
        }
    }
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It was created; a key was issued.
    Created,
    /// Its settings, its text or its members changed, or whether a channel is in use.
    Changed,
    /// Its status changed.
    Status,
    /// It was deleted; a key was revoked.
    Deleted,
    /// An incident opened.
    Opened,
    /// A person acknowledged an incident.
    Acknowledged,
    /// An incident was resolved.
    Resolved,
}

impl ChangeKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Changed,
        Self::Status,
        Self::Deleted,
        Self::Opened,
        Self::Acknowledged,
        Self::Resolved,
    ];

    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Status => "status",
            Self::Deleted => "deleted",
            Self::Opened => "opened",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// A change that a transaction makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The project whose feed it belongs to.
    pub project_id: ProjectId,
    /// What changed.
    pub subject: ChangeSubject,
    /// How.
    pub what: ChangeKind,
    /// When.
    pub at: DateTime<Utc>,
}

/// The kind of API keys.
const API_KEY: &str = "api_key";

/// Returns the permission that a reader needs to see changes of subjects of a kind. Changes of an unknown kind, which a
/// newer server wrote, need the permission to read.
#[must_use]
pub fn needed(kind: &str) -> Action {
    if kind == API_KEY {
        Action::ManageKeys
    } else {
        Action::Read
    }
}

/// True if the feed lacks changes for a reader that knows all changes up to `after`. The reader must then reload
/// everything.
///
/// `newest` is the newest sequence of the project (0: none yet). `next` is the first kept sequence behind `after`. A
/// gap has one of two reasons:
/// * The changes behind `after` were removed, because they are too old or too many.
/// * `after` is beyond `newest`, because the database was restored from a backup.
#[must_use]
pub fn has_missed(after: i64, newest: i64, next: Option<i64>) -> bool {
    match next {
        Some(next) => next - 1 != after,
        None => after != newest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_only_with_the_very_next_change() {
        for (after, newest, next, is_missed) in [
            (0, 0, None, false),
            (7, 7, None, false),
            (0, 3, Some(1), false),
            (2, 3, Some(3), false),
            // Removed: some of those in between, and all of them.
            (2, 9, Some(5), true),
            (0, 9, Some(2), true),
            (2, 9, None, true),
            // A restored database has not reached that sequence yet.
            (8, 7, None, true),
            (i64::MAX, 7, None, true),
        ] {
            assert_eq!(
                has_missed(after, newest, next),
                is_missed,
                "{after} {newest} {next:?}"
            );
        }
    }

    #[test]
    fn a_reader_sees_changes_of_keys_only_if_it_may_see_keys() {
        let id = Uuid::nil();
        let key = ChangeSubject::ApiKey(ApiKeyId(id));

        assert_eq!(needed(key.kind()), Action::ManageKeys);
        let watched = SubjectKind::ALL.map(|kind| ChangeSubject::Watched(kind, id));
        let others = [
            ChangeSubject::Incident(IncidentId(id)),
            ChangeSubject::Channel(ChannelId(id)),
            ChangeSubject::Rotation(RotationId(id)),
            ChangeSubject::EscalationPolicy(EscalationPolicyId(id)),
            ChangeSubject::Project(ProjectId(id)),
        ];
        for one in watched.iter().chain(&others) {
            assert_eq!(needed(one.kind()), Action::Read, "{one:?}");
        }
        assert_eq!(needed("of a newer server"), Action::Read);
    }
}
