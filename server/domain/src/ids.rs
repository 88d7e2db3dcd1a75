//! Typed ids: the compiler refuses a monitor's id where a channel's id is expected.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id that sorts by its time of creation (UUID v7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// A person.
    AccountId);
id!(/// One session of an account.
    SessionId);
id!(/// The owner and isolation border of everything else.
    ProjectId);
id!(/// One thing that is expected to report.
    MonitorId);
id!(/// One Celery Beat.
    BeatId);
id!(/// One Celery worker, by its node name.
    WorkerId);
id!(/// One queue of a Celery application.
    QueueId);
id!(/// The broker of a Celery application.
    BrokerId);
id!(/// One stretch of a fault, about one subject.
    IncidentId);
id!(/// A destination for alerts.
    ChannelId);
id!(/// One alert to one channel; also the `webhook-id` that a receiver sees.
    DeliveryId);
id!(
    /// A snooze or mute.
    SnoozeId
);
id!(
    /// A maintenance window.
    WindowId
);
id!(/// A rotation of people who are on call.
    RotationId);
id!(/// A policy that says who is notified of an incident that nobody acknowledges.
    EscalationPolicyId);
id!(/// A named key of a project.
    ApiKeyId);
id!(/// An invitation of a person to a project.
    InvitationId);
id!(/// An entry of a project's audit trail.
    AuditEntryId);
id!(/// One execution, as stored; the client's own `rid` is kept beside it.
    RunKey);

/// A monitor's project, and the monitor's id.
pub type MonitorKey = (ProjectId, MonitorId);

/// The id in a ping URL: a capability, so it is random (v4) and is not the monitor's own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PingId(pub Uuid);

impl PingId {
    /// A new unguessable id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}
