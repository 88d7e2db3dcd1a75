//! Acknowledgement of an incident by a person.

use std::net::IpAddr;

use deadbeat_domain::alert::message::Phase;
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{ChannelId, IncidentId, ProjectId};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::audit::{self as trail, Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_store::incident::Incident;
use deadbeat_store::{StoreResult, Tx};

use crate::alert::outbox::{self, IncidentAlert};
use crate::celery::beat::{incarnation, schedule_emptied};
use crate::people::audit;
use crate::{ServiceError, Services, feed};

/// The person, key or link that acknowledges.
pub(crate) enum By {
    /// An account, a key or the operator.
    Actor(Actor),
    /// A person with the link that was sent to a channel.
    Link {
        /// The channel's id.
        id: ChannelId,
        /// The channel's name.
        channel: String,
    },
    /// A user of a service that a channel writes to.
    User {
        /// The user as the service calls them, one printable line. Empty: the service does not say.
        name: String,
        /// The service.
        service: &'static str,
    },
}

impl By {
    /// The actor as the audit trail names it.
    fn audited(&self) -> trail::By {
        match self {
            Self::Actor(actor) => trail::By::Actor(*actor),
            Self::Link { id, .. } => trail::By::Link(*id),
            Self::User { .. } => trail::By::Service,
        }
    }

    /// Returns the name that people see.
    async fn words(&self, tx: &mut Tx, project: ProjectId) -> StoreResult<String> {
        let gone = || "a deleted account or key".to_owned();
        Ok(match self {
            Self::Actor(Actor::Account { id, .. }) => deadbeat_store::people::account::email_of(tx, *id)
                .await?
                .unwrap_or_else(gone),
            Self::Actor(Actor::Key { id, .. }) => {
                let name = deadbeat_store::people::api_key::name_of(tx, project, *id).await?;
                name.map_or_else(gone, |name| format!("API key {name}"))
            }
            Self::Actor(Actor::Operator) => "the operator".to_owned(),
            Self::Actor(Actor::System) => "Deadbeat".to_owned(),
            Self::Link { channel, .. } => format!("the link in channel {channel}"),
            Self::User { name, service, .. } if name.is_empty() => format!("somebody in {service}"),
            Self::User { name, service, .. } => format!("{name} in {service}"),
        })
    }
}

/// Acknowledges an incident. This ends its reminders and its escalation, and cancels alerts about it that still wait.
/// The channels that got an alert about the incident get the name of the person who acknowledged it. An incident
/// about an emptied schedule ends, and so does one about a silent Beat while another Beat of its name reports.
///
/// # Errors
/// If access is refused, the incident is not found ([`ServiceError::NotFound`]), or the database is away.
pub async fn acknowledge(
    services: &Services,
    access: &Access,
    id: IncidentId,
) -> Result<Incident, ServiceError> {
    let project = access.may(Action::Acknowledge)?;
    acknowledge_as(
        services,
        project,
        id,
        &By::Actor(access.actor()),
        access.address(),
    )
    .await
}

/// Acknowledges an incident. The caller has checked that this is allowed.
pub(crate) async fn acknowledge_as(
    services: &Services,
    project: ProjectId,
    id: IncidentId,
    by: &By,
    from: Option<IpAddr>,
) -> Result<Incident, ServiceError> {
    let mut tx = services.store.begin().await?;
    let now = services.now();
    let words = by.words(&mut tx, project).await?;
    let done = deadbeat_store::incident::acknowledge(&mut tx, project, id, &words, now).await?;
    let (seen, is_first) = done.ok_or(ServiceError::NotFound("incident"))?;
    // Cancel waiting alerts first: a channel that got no alert about the incident gets none about its
    // acknowledgement.
    outbox::forget_waiting(&mut tx, &[(project, id)], now).await?;
    let mut alerted = 0;
    if is_first {
        let subject = ChangeSubject::Incident(id);
        feed::note(&mut tx, project, subject, ChangeKind::Acknowledged, now);
        let access = Access::new(project, Actor::System).from(from);
        let entry = Entry::new(&access, project, Act::IncidentAcknowledged, id.0, now);
        audit::note(
            &mut tx,
            Entry {
                by: by.audited(),
                ..entry
            },
        );
    }
    if is_first && seen.resolved_at.is_none() {
        let incident_alert = IncidentAlert {
            phase: Phase::Acknowledged,
            incident: &seen,
            monitor: None,
            affected: None,
            at: now,
            step: &[],
        };
        alerted = outbox::announce_incidents(&mut tx, &services.site, &[incident_alert]).await?;
    }
    deadbeat_store::alert::escalation::end(&mut tx, &[(project, id)]).await?;
    tx.commit().await?;
    if alerted > 0 {
        services.outbox_bell.notify_one();
    }
    if !schedule_emptied::acknowledged(services, project, &seen).await?
        && !incarnation::acknowledged(services, project, &seen).await?
    {
        return Ok(seen);
    }
    deadbeat_store::incident::get(&services.reader(), project, id)
        .await?
        .ok_or(ServiceError::NotFound("incident"))
}
