//! The outbox: alerts become delivery rows, in the transaction of the change that they report.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::message::{self, CauseOfIncident, Event, IncidentEvent, Member, Message, Phase};
use deadbeat_domain::alert::recipients::{Channel, Rules, Topic, recipients};
use deadbeat_domain::ids::{ChannelId, DeliveryId, IncidentId, MonitorId, MonitorKey, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::status::ShownStatus;
use deadbeat_store::alert::delivery::NewAlert;
use deadbeat_store::alert::waiting;
use deadbeat_store::incident::Incident;
use deadbeat_store::incident::member;
use deadbeat_store::incident::member::Affected;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::{StoreResult, Tx};
use uuid::Uuid;

use crate::Site;
use crate::alert::hold;

/// An alert about an incident.
#[derive(Debug, Clone, Copy)]
pub struct IncidentAlert<'a> {
    /// The event of the incident that the alert reports.
    pub phase: Phase,
    /// The incident.
    pub incident: &'a Incident,
    /// The incident's monitor in its present state. None: the incident is about another kind of subject.
    pub monitor: Option<&'a Monitor>,
    /// The monitors that the incident affects, if the caller knows them before they join. None: [`announce_incidents`] reads them.
    pub affected: Option<&'a Affected>,
    /// The time at which it happened.
    pub at: DateTime<Utc>,
    /// For an escalation: the channels that its step names. Otherwise empty.
    pub step: &'a [ChannelId],
}

/// Puts alerts about incidents into the outbox. Returns the number of new deliveries. [`recipients`] decides which
/// channels get them.
///
/// # Errors
/// If the database is away.
pub async fn announce_incidents(
    tx: &mut Tx,
    site: &Site,
    incident_alerts: &[IncidentAlert<'_>],
) -> StoreResult<usize> {
    let Some(now) = incident_alerts
        .iter()
        .map(|incident_alert| incident_alert.at)
        .max()
    else {
        return Ok(0);
    };
    let mut projects: Vec<ProjectId> = incident_alerts
        .iter()
        .map(|incident_alert| incident_alert.incident.project_id)
        .collect();
    projects.sort_unstable();
    projects.dedup();
    // This locks the projects, so it must come before the queries that choose the recipients.
    let names = deadbeat_store::people::project::for_alerts(tx, &projects).await?;
    let channels = deadbeat_store::alert::channel::for_alerts(tx, &projects).await?;
    if channels.is_empty() {
        return Ok(0);
    }
    let settled: Vec<(ProjectId, IncidentId)> = incident_alerts
        .iter()
        .filter(|incident_alert| matches!(incident_alert.phase, Phase::Resolved | Phase::Acknowledged))
        .map(|incident_alert| (incident_alert.incident.project_id, incident_alert.incident.id))
        .collect();
    if !settled.is_empty() {
        waiting::cancel_over(tx, &settled, now).await?;
    }
    let chosen = chosen(tx, incident_alerts, &channels).await?;
    let tags = tags(tx, incident_alerts).await?;
    let holds = hold::holds(tx, &projects, &monitors_of(incident_alerts), now).await?;
    let later: Vec<(ProjectId, IncidentId)> = incident_alerts
        .iter()
        .filter(|incident_alert| incident_alert.phase != Phase::Opened)
        .map(|incident_alert| (incident_alert.incident.project_id, incident_alert.incident.id))
        .collect();
    let history = deadbeat_store::alert::delivery::history(tx, &later, now).await?;
    let affected = affected(tx, incident_alerts).await?;
    let alerts: Vec<NewAlert> = incident_alerts
        .iter()
        .filter_map(|incident_alert| {
            let incident = incident_alert.incident;
            let project = names.get(&incident.project_id)?;
            let message = compose(site, incident_alert, &project.name, affected.get(&incident.id));
            let monitor = MonitorId(incident.subject.id);
            let rules = Rules {
                channels: channels.get(&incident.project_id)?,
                history: history.get(&incident.id),
                step: incident_alert.step,
                holds: holds.get(&incident.project_id).map_or(&[], Vec::as_slice),
                tags: incident_alert
                    .monitor
                    .map(|monitor| &monitor.tags)
                    .or_else(|| tags.get(&monitor))
                    .map_or(&[], Vec::as_slice),
            };
            let topic = chosen.get(&monitor).map_or(Topic::Project, Topic::Chosen);
            Some(NewAlert {
                project_id: incident.project_id,
                recipients: recipients(&message, topic, &rules, incident_alert.at),
                message,
            })
        })
        .filter(|alert| !alert.recipients.is_empty())
        .collect();
    if alerts.is_empty() {
        return Ok(0);
    }
    let made = deadbeat_store::alert::delivery::enqueue(tx, &alerts, now).await?;
    Ok(made.len())
}

/// Cancels waiting alerts that would report the start of these incidents, or remind of them: a person has
/// acknowledged them.
///
/// # Errors
/// If the database is away.
pub(crate) async fn forget_waiting(
    tx: &mut Tx,
    incidents: &[(ProjectId, IncidentId)],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    let projects: Vec<ProjectId> = incidents.iter().map(|(project, _)| *project).collect();
    // The lock on the projects orders this against a mute that ends now: the mute either decided before, or finds no
    // waiting alert.
    deadbeat_store::people::project::for_alerts(tx, &projects).await?;
    waiting::cancel_over(tx, incidents, now).await
}

/// The result of [`announce`].
pub(crate) struct Announced {
    /// Number of channels that should get the messages.
    pub recipients: usize,
    /// The new deliveries. A channel that already has a waiting notice of this kind gets no second one.
    pub made: Vec<DeliveryId>,
}

/// Puts messages that belong to no incident into the outbox.
///
/// # Errors
/// If the database is away.
pub(crate) async fn announce(
    tx: &mut Tx,
    messages: Vec<(ProjectId, Topic<'_>, Message)>,
    now: DateTime<Utc>,
) -> StoreResult<Announced> {
    let mut projects: Vec<ProjectId> = messages.iter().map(|(project, ..)| *project).collect();
    projects.sort_unstable();
    projects.dedup();
    let channels = deadbeat_store::alert::channel::for_alerts(tx, &projects).await?;
    let alerts: Vec<NewAlert> = messages
        .into_iter()
        .filter_map(|(project_id, topic, message)| {
            let rules = Rules {
                channels: channels.get(&project_id)?,
                history: None,
                step: &[],
                holds: &[],
                tags: &[],
            };
            Some(NewAlert {
                project_id,
                recipients: recipients(&message, topic, &rules, now),
                message,
            })
        })
        .filter(|alert| !alert.recipients.is_empty())
        .collect();
    let made = if alerts.is_empty() {
        Vec::new()
    } else {
        deadbeat_store::alert::delivery::enqueue(tx, &alerts, now).await?
    };
    Ok(Announced {
        recipients: alerts.iter().map(|alert| alert.recipients.len()).sum(),
        made,
    })
}

/// Reads the channels of monitors that have a list of channels.
async fn chosen(
    tx: &mut Tx,
    incident_alerts: &[IncidentAlert<'_>],
    channels: &HashMap<ProjectId, Vec<Channel>>,
) -> StoreResult<HashMap<MonitorId, BTreeSet<ChannelId>>> {
    // Later alerts go to the channels that got the first one. The list matters for them only if a channel does not
    // want the first alert.
    let is_by_list = |incident_alert: &&IncidentAlert<'_>| {
        let channels = channels.get(&incident_alert.incident.project_id);
        incident_alert.phase == Phase::Opened
            || channels
                .into_iter()
                .flatten()
                .any(|channel| !channel.routing.takes(Alert::Opened))
    };
    let monitors: Vec<MonitorKey> = incident_alerts
        .iter()
        .filter(is_by_list)
        .filter(|incident_alert| incident_alert.incident.subject.kind == SubjectKind::Monitor)
        // Most monitors alert every channel. In a storm this saves thousands of look-ups.
        .filter(|incident_alert| incident_alert.monitor.is_none_or(|monitor| !monitor.all_channels))
        .map(|incident_alert| {
            (
                incident_alert.incident.project_id,
                MonitorId(incident_alert.incident.subject.id),
            )
        })
        .collect();
    if monitors.is_empty() {
        return Ok(HashMap::new());
    }
    deadbeat_store::alert::channel::chosen_by(tx, &monitors).await
}

/// Returns the monitors that incidents are about.
fn monitors_of(incident_alerts: &[IncidentAlert<'_>]) -> Vec<MonitorKey> {
    let incidents = incident_alerts
        .iter()
        .map(|incident_alert| incident_alert.incident);
    incidents
        .filter(|incident| incident.subject.kind == SubjectKind::Monitor)
        .map(|incident| (incident.project_id, MonitorId(incident.subject.id)))
        .collect()
}

/// Reads the tags of monitors that the caller did not pass.
async fn tags(
    tx: &mut Tx,
    incident_alerts: &[IncidentAlert<'_>],
) -> StoreResult<HashMap<MonitorId, Vec<String>>> {
    let monitors: Vec<MonitorKey> = incident_alerts
        .iter()
        .filter(|incident_alert| {
            incident_alert.monitor.is_none() && incident_alert.incident.subject.kind == SubjectKind::Monitor
        })
        .map(|incident_alert| {
            let incident = incident_alert.incident;
            (incident.project_id, MonitorId(incident.subject.id))
        })
        .collect();
    if monitors.is_empty() {
        return Ok(HashMap::new());
    }
    deadbeat_store::monitor::settings::tags(tx, &monitors).await
}

/// Reads the monitors that incidents about other subjects affect. Monitors join such an incident after it has opened. If a
/// Beat has just fallen silent, these are the monitors that it schedules. For a lost host, the caller names them.
async fn affected(
    tx: &mut Tx,
    incident_alerts: &[IncidentAlert<'_>],
) -> StoreResult<HashMap<IncidentId, Affected>> {
    let about_others = || {
        incident_alerts
            .iter()
            .filter(|incident_alert| incident_alert.incident.subject.kind != SubjectKind::Monitor)
    };
    let silent_beats: HashMap<Uuid, &Incident> = about_others()
        .filter(|incident_alert| {
            incident_alert.phase == Phase::Opened && incident_alert.incident.cause == Cause::BeatDown
        })
        .map(|incident_alert| (incident_alert.incident.subject.id, incident_alert.incident))
        .collect();
    let joined: Vec<(ProjectId, IncidentId)> = about_others()
        .filter(|incident_alert| incident_alert.phase != Phase::Opened)
        .map(|incident_alert| (incident_alert.incident.project_id, incident_alert.incident.id))
        .collect();
    let mut found: HashMap<IncidentId, Affected> = about_others()
        .filter_map(|incident_alert| Some((incident_alert.incident.id, incident_alert.affected?.clone())))
        .collect();
    if !silent_beats.is_empty() {
        let beats: Vec<(ProjectId, Uuid)> = silent_beats
            .iter()
            .map(|(beat, incident)| (incident.project_id, *beat))
            .collect();
        let scheduled = member::first_scheduled(tx, &beats, limits::ALERT_MEMBERS).await?;
        for (beat, affected) in scheduled {
            found.extend(silent_beats.get(&beat).map(|incident| (incident.id, affected)));
        }
    }
    if !joined.is_empty() {
        found.extend(member::first_members(tx, &joined, limits::ALERT_MEMBERS).await?);
    }
    Ok(found)
}

/// Builds the message that is stored with each delivery.
#[must_use]
pub fn compose(
    site: &Site,
    incident_alert: &IncidentAlert<'_>,
    project_name: &str,
    affected: Option<&Affected>,
) -> Message {
    let incident = incident_alert.incident;
    let (members, member_count) = affected.map_or_else(Default::default, |affected| {
        let named = affected.first.iter().map(|(MonitorId(id), name)| Member {
            kind: SubjectKind::Monitor,
            id: *id,
            name: name.clone(),
        });
        (named.collect(), affected.count)
    });
    let incident = message::Incident {
        id: incident.id,
        project: message::Project {
            id: incident.project_id,
            name: project_name.to_owned(),
        },
        subject: incident.subject.clone(),
        cause: CauseOfIncident {
            code: incident.cause.as_str().to_owned(),
            summary: incident.summary.clone(),
            url: Some(site.cause_url(incident.cause)),
        },
        severity: Some(incident.severity),
        evidence: incident.evidence.clone(),
        repair: match incident_alert.phase {
            Phase::LongDown => [&incident.repair[..], &giving_up::steps(site, &incident.subject)].concat(),
            _ => incident.repair.clone(),
        },
        members,
        member_count,
        flapping: incident.is_flapping,
        opened_at: incident.opened_at,
        resolved_at: incident.resolved_at,
        acknowledged_at: incident.acknowledged_at,
        acknowledged_by: incident.acknowledged_by.clone(),
        acknowledge_url: None,
        url: format!("{}/", site.url),
    };
    Message {
        at: incident_alert.at,
        event: Event::Incident(Box::new(IncidentEvent {
            phase: incident_alert.phase,
            incident,
            monitor: incident_alert
                .monitor
                .map(|monitor| shown(monitor, incident_alert.at)),
        })),
    }
}

/// Returns a monitor as messages show it.
fn shown(monitor: &Monitor, now: DateTime<Utc>) -> message::Monitor {
    let state = &monitor.state;
    let status = ShownStatus::at(state.status, state.next_due_at, state.deadline_at.is_some(), now);
    message::Monitor {
        id: monitor.id,
        name: monitor.name.clone(),
        slug: monitor.slug.clone(),
        tags: monitor.tags.clone(),
        status: status.as_str().to_owned(),
        schedule: state.expectation.schedule.to_json(),
        schedule_summary: state.expectation.schedule.summary(),
        delay_seconds: state.expectation.delay_seconds,
        grace_seconds: state.expectation.grace_seconds,
        last_ping_at: state.last_ping_at,
        next_due_at: state.next_due_at,
    }
}

mod giving_up;
#[cfg(test)]
pub(crate) mod samples;
