//! The only way a status changes: [`record`].

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::cause::Cause;
use deadbeat_domain::ids::{IncidentId, ProjectId};
use deadbeat_domain::incident::{self, Consequence, Subject, SubjectKind};
use deadbeat_domain::ping::Signal;
use deadbeat_domain::transition::Transition;
use deadbeat_store::beat::Beat;
use deadbeat_store::incident::Incident;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::{StoreResult, Tx};

use crate::diagnosis::{self, Explanation};
use crate::{ServiceError, Services, Site, outbox};

/// Whose status changed.
#[derive(Debug, Clone, Copy)]
pub enum Changed<'a> {
    /// A monitor, with the name of the Beat that feeds it.
    Monitor(&'a Monitor, Option<&'a str>),
    /// A monitor, by a signal that says more about it.
    Signalled(&'a Monitor, &'a Signal),
    /// A Beat.
    Beat(&'a Beat),
}

impl Changed<'_> {
    fn project(&self) -> ProjectId {
        match self {
            Self::Monitor(monitor, _) | Self::Signalled(monitor, _) => monitor.project_id,
            Self::Beat(beat) => beat.project_id,
        }
    }

    fn subject(&self) -> Subject {
        match self {
            Self::Monitor(monitor, _) | Self::Signalled(monitor, _) => Subject {
                kind: SubjectKind::Monitor,
                id: monitor.id.0,
                name: monitor.name.clone(),
            },
            Self::Beat(beat) => Subject {
                kind: SubjectKind::Beat,
                id: beat.id.0,
                name: beat.name.clone(),
            },
        }
    }

    fn monitor(&self) -> Option<&Monitor> {
        match self {
            Self::Monitor(monitor, _) | Self::Signalled(monitor, _) => Some(monitor),
            Self::Beat(_) => None,
        }
    }

    fn explain(&self, cause: Cause, now: DateTime<Utc>) -> Explanation {
        match self {
            Self::Monitor(monitor, beat) => diagnosis::of_monitor(monitor, *beat, None, cause, now),
            Self::Signalled(monitor, signal) => {
                diagnosis::of_monitor(monitor, None, Some(signal), cause, now)
            }
            Self::Beat(beat) => diagnosis::of_beat(beat),
        }
    }
}

/// Records a change of status with all that follows from it: the history, the incident, the alerts, in the caller's transaction.
///
/// A second incident about one subject cannot open, whoever tries: the database holds one open incident a subject. Joining a
/// Beat's incident is not done here but where the members are written (`evaluator`), because it can fail.
///
/// # Errors
/// When the database is away.
pub async fn record(
    tx: &mut Tx,
    site: &Site,
    changed: Changed<'_>,
    transition: &Transition,
) -> StoreResult<()> {
    let subject = changed.subject();
    let project = changed.project();
    deadbeat_store::transition::insert(tx, project, subject.kind, subject.id, transition).await?;
    match incident::consequence(transition) {
        Consequence::Open(cause) => open_if_none(tx, site, changed, cause, transition.at).await?,
        Consequence::Resolve => {
            let resolved =
                deadbeat_store::incident::resolve(tx, subject.kind, subject.id, transition.at).await?;
            if let Some(incident) = resolved {
                outbox::tell(
                    tx,
                    site,
                    Alert::Resolved,
                    &incident,
                    changed.monitor(),
                    transition.at,
                )
                .await?;
            }
        }
        Consequence::JoinBeat | Consequence::Nothing => {}
    }
    Ok(())
}

/// Opens an incident and tells of it, unless one about that subject is open already.
///
/// # Errors
/// When the database is away.
pub(crate) async fn open_if_none(
    tx: &mut Tx,
    site: &Site,
    changed: Changed<'_>,
    cause: Cause,
    at: DateTime<Utc>,
) -> StoreResult<()> {
    let project = changed.project();
    let (_, reminder) = deadbeat_store::project::for_alert(tx, project).await?;
    let Explanation {
        summary,
        evidence,
        repair,
    } = changed.explain(cause, at);
    let incident = Incident {
        id: IncidentId::generate(),
        project_id: project,
        subject: changed.subject(),
        cause,
        summary,
        evidence,
        repair,
        opened_at: at,
        resolved_at: None,
        acknowledged_at: None,
        remind_at: reminder.map(|seconds| at + TimeDelta::seconds(seconds.into())),
    };
    if deadbeat_store::incident::open(tx, &incident).await? {
        outbox::tell(tx, site, Alert::Opened, &incident, changed.monitor(), at).await?;
    }
    Ok(())
}

/// A person has seen an incident: no more reminders.
///
/// # Errors
/// [`ServiceError::NotFound`], or the database is away.
pub async fn acknowledge(
    services: &Services,
    project: ProjectId,
    id: IncidentId,
) -> Result<Incident, ServiceError> {
    let mut tx = services.store.begin().await?;
    let found = deadbeat_store::incident::acknowledge(&mut tx, project, id, services.now()).await?;
    tx.commit().await?;
    if !found {
        return Err(ServiceError::NotFound("incident"));
    }
    deadbeat_store::incident::get(&services.reader(), project, id)
        .await?
        .ok_or(ServiceError::NotFound("incident"))
}
