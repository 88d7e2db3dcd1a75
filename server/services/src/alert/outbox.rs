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
pub struct Telling<'a> {
    /// The event of the incident that the alert reports.
    pub phase: Phase,
    /// The incident.
    pub incident: &'a Incident,
    /// The incident's monitor in its present state. None: the incident is about another kind of subject.
    pub monitor: Option<&'a Monitor>,
    /// The monitors that the incident affects, if the caller knows them before they join. None: [`tell`] reads them.
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
pub async fn tell(tx: &mut Tx, site: &Site, tellings: &[Telling<'_>]) -> StoreResult<usize> {
    let Some(now) = tellings.iter().map(|telling| telling.at).max() else {
        return Ok(0);
    };
    let mut projects: Vec<ProjectId> = tellings
        .iter()
        .map(|telling| telling.incident.project_id)
        .collect();
    projects.sort_unstable();
    projects.dedup();
    // This locks the projects, so it must come before the queries that choose the recipients.
    let names = deadbeat_store::people::project::for_alerts(tx, &projects).await?;
    let channels = deadbeat_store::alert::channel::for_alerts(tx, &projects).await?;
    if channels.is_empty() {
        return Ok(0);
    }
    let settled: Vec<(ProjectId, IncidentId)> = tellings
        .iter()
        .filter(|telling| matches!(telling.phase, Phase::Resolved | Phase::Acknowledged))
        .map(|telling| (telling.incident.project_id, telling.incident.id))
        .collect();
    if !settled.is_empty() {
        waiting::cancel_over(tx, &settled, now).await?;
    }
    let chosen = chosen(tx, tellings, &channels).await?;
    let tags = tags(tx, tellings).await?;
    let holds = hold::holds(tx, &projects, &monitors_of(tellings), now).await?;
    let later: Vec<(ProjectId, IncidentId)> = tellings
        .iter()
        .filter(|telling| telling.phase != Phase::Opened)
        .map(|telling| (telling.incident.project_id, telling.incident.id))
        .collect();
    let history = deadbeat_store::alert::delivery::history(tx, &later, now).await?;
    let affected = affected(tx, tellings).await?;
    let alerts: Vec<NewAlert> = tellings
        .iter()
        .filter_map(|telling| {
            let incident = telling.incident;
            let project = names.get(&incident.project_id)?;
            let message = compose(site, telling, &project.name, affected.get(&incident.id));
            let monitor = MonitorId(incident.subject.id);
            let rules = Rules {
                channels: channels.get(&incident.project_id)?,
                history: history.get(&incident.id),
                step: telling.step,
                holds: holds.get(&incident.project_id).map_or(&[], Vec::as_slice),
                tags: telling
                    .monitor
                    .map(|monitor| &monitor.tags)
                    .or_else(|| tags.get(&monitor))
                    .map_or(&[], Vec::as_slice),
            };
            let topic = chosen.get(&monitor).map_or(Topic::Project, Topic::Chosen);
            Some(NewAlert {
                project_id: incident.project_id,
                recipients: recipients(&message, topic, &rules, telling.at),
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
    tellings: &[Telling<'_>],
    channels: &HashMap<ProjectId, Vec<Channel>>,
) -> StoreResult<HashMap<MonitorId, BTreeSet<ChannelId>>> {
    // Later alerts go to the channels that got the first one. The list matters for them only if a channel does not
    // want the first alert.
    let is_by_list = |telling: &&Telling<'_>| {
        let channels = channels.get(&telling.incident.project_id);
        telling.phase == Phase::Opened
            || channels
                .into_iter()
                .flatten()
                .any(|channel| !channel.routing.hears(Alert::Opened))
    };
    let monitors: Vec<MonitorKey> = tellings
        .iter()
        .filter(is_by_list)
        .filter(|telling| telling.incident.subject.kind == SubjectKind::Monitor)
        // Most monitors alert every channel. In a storm this saves thousands of look-ups.
        .filter(|telling| telling.monitor.is_none_or(|monitor| !monitor.all_channels))
        .map(|telling| {
            (
                telling.incident.project_id,
                MonitorId(telling.incident.subject.id),
            )
        })
        .collect();
    if monitors.is_empty() {
        return Ok(HashMap::new());
    }
    deadbeat_store::alert::channel::chosen_by(tx, &monitors).await
}

/// Returns the monitors that incidents are about.
fn monitors_of(tellings: &[Telling<'_>]) -> Vec<MonitorKey> {
    let incidents = tellings.iter().map(|telling| telling.incident);
    incidents
        .filter(|incident| incident.subject.kind == SubjectKind::Monitor)
        .map(|incident| (incident.project_id, MonitorId(incident.subject.id)))
        .collect()
}

/// Reads the tags of monitors that the caller did not pass.
async fn tags(tx: &mut Tx, tellings: &[Telling<'_>]) -> StoreResult<HashMap<MonitorId, Vec<String>>> {
    let monitors: Vec<MonitorKey> = tellings
        .iter()
        .filter(|telling| telling.monitor.is_none() && telling.incident.subject.kind == SubjectKind::Monitor)
        .map(|telling| {
            let incident = telling.incident;
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
async fn affected(tx: &mut Tx, tellings: &[Telling<'_>]) -> StoreResult<HashMap<IncidentId, Affected>> {
    let about_others = || {
        tellings
            .iter()
            .filter(|telling| telling.incident.subject.kind != SubjectKind::Monitor)
    };
    let silent_beats: HashMap<Uuid, &Incident> = about_others()
        .filter(|telling| telling.phase == Phase::Opened && telling.incident.cause == Cause::BeatDown)
        .map(|telling| (telling.incident.subject.id, telling.incident))
        .collect();
    let joined: Vec<(ProjectId, IncidentId)> = about_others()
        .filter(|telling| telling.phase != Phase::Opened)
        .map(|telling| (telling.incident.project_id, telling.incident.id))
        .collect();
    let mut found: HashMap<IncidentId, Affected> = about_others()
        .filter_map(|telling| Some((telling.incident.id, telling.affected?.clone())))
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
    telling: &Telling<'_>,
    project_name: &str,
    affected: Option<&Affected>,
) -> Message {
    let incident = telling.incident;
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
        repair: match telling.phase {
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
        at: telling.at,
        event: Event::Incident(Box::new(IncidentEvent {
            phase: telling.phase,
            incident,
            monitor: telling.monitor.map(|monitor| shown(monitor, telling.at)),
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
