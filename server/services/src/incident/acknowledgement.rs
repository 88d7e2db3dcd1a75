//! A person acknowledges an incident.

use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::IncidentId;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::incident::Incident;

use crate::celery::beat::{incarnation, schedule_emptied};
use crate::{ServiceError, Services, feed};

/// Acknowledges an incident: no more reminders. This ends an incident about an emptied schedule, and one about a Beat
/// that is silent while another Beat of its name goes on.
///
/// # Errors
/// If access is refused, the incident is not found ([`ServiceError::NotFound`]), or the database is away.
pub async fn acknowledge(
    services: &Services,
    access: &Access,
    id: IncidentId,
) -> Result<Incident, ServiceError> {
    let project = access.may(Action::Acknowledge)?;
    let mut tx = services.store.begin().await?;
    let now = services.now();
    if !deadbeat_store::incident::acknowledge(&mut tx, project, id, now).await? {
        return Err(ServiceError::NotFound("incident"));
    }
    feed::note(
        &mut tx,
        project,
        ChangeSubject::Incident(id),
        ChangeKind::Acknowledged,
        now,
    );
    tx.commit().await?;
    let reader = services.reader();
    let seen = deadbeat_store::incident::get(&reader, project, id).await?;
    let seen = seen.ok_or(ServiceError::NotFound("incident"))?;
    if !schedule_emptied::acknowledged(services, project, &seen).await?
        && !incarnation::acknowledged(services, project, &seen).await?
    {
        return Ok(seen);
    }
    deadbeat_store::incident::get(&reader, project, id)
        .await?
        .ok_or(ServiceError::NotFound("incident"))
}
