//! The outbox: alerts become delivery rows, in the transaction of what they tell.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::cause::Cause;
use deadbeat_domain::ids::{ChannelId, IncidentId, MonitorId, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::limits;
use deadbeat_domain::status::ShownStatus;
use deadbeat_store::delivery::NewAlert;
use deadbeat_store::incident::{Affected, Incident};
use deadbeat_store::monitor::Monitor;
use deadbeat_store::{StoreResult, Tx};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Site;

/// An alert about an incident.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// What is told.
    pub alert: Alert,
    /// About which.
    pub incident: &'a Incident,
    /// The monitor that it is about, if it is about one, as it is now.
    pub monitor: Option<&'a Monitor>,
    /// The monitors that it affects, where the caller knows them before they join; None: they are looked up.
    pub affected: Option<&'a Affected>,
    /// When that happened.
    pub at: DateTime<Utc>,
}

/// Puts alerts about incidents into the outbox. Returns how many deliveries that makes.
///
/// Whom: for a monitor its channels, for a Beat all of the project's; that it is over is told to those who were told that it began.
///
/// # Errors
/// When the database is away.
pub async fn tell(tx: &mut Tx, site: &Site, tellings: &[Telling<'_>]) -> StoreResult<usize> {
    let Some(now) = tellings.iter().map(|telling| telling.at).max() else {
        return Ok(0);
    };
    let channels = channels(tx, tellings).await?;
    let mut projects: Vec<ProjectId> = tellings
        .iter()
        .map(|telling| telling.incident.project_id)
        .collect();
    projects.sort_unstable();
    projects.dedup();
    let projects = deadbeat_store::project::for_alerts(tx, &projects).await?;
    let affected = affected(tx, tellings).await?;
    let alerts: Vec<NewAlert> = tellings
        .iter()
        .zip(channels)
        .filter(|(_, channels)| !channels.is_empty())
        .filter_map(|(telling, channels)| {
            let incident = telling.incident;
            let project = projects.get(&incident.project_id)?;
            Some(NewAlert {
                project_id: incident.project_id,
                incident_id: Some(incident.id),
                alert: telling.alert,
                payload: payload(site, telling, &project.name, affected.get(&incident.id)),
                channels,
            })
        })
        .collect();
    if alerts.is_empty() {
        return Ok(0);
    }
    let made = deadbeat_store::delivery::enqueue(tx, &alerts, now).await?;
    Ok(made.len())
}

/// Whom each of them is told to.
async fn channels(tx: &mut Tx, tellings: &[Telling<'_>]) -> StoreResult<Vec<Vec<ChannelId>>> {
    let mut told_before: HashMap<IncidentId, Vec<ChannelId>> = HashMap::new();
    let mut of_monitor: HashMap<MonitorId, Vec<ChannelId>> = HashMap::new();
    let mut of_project: HashMap<ProjectId, Vec<ChannelId>> = HashMap::new();
    let whom = |telling: &Telling<'_>| match (telling.alert, telling.incident.subject.kind) {
        (Alert::Resolved | Alert::Reminder, _) => Whom::ToldBefore(telling.incident.id),
        (_, SubjectKind::Monitor) if telling.monitor.is_none_or(|monitor| !monitor.all_channels) => {
            Whom::OfMonitor(MonitorId(telling.incident.subject.id))
        }
        // Asked for once a project, not once a monitor: in a storm there are thousands.
        (_, SubjectKind::Monitor) => Whom::OfProject(telling.incident.project_id),
        (
            _,
            SubjectKind::Beat
            | SubjectKind::Worker
            | SubjectKind::Queue
            | SubjectKind::Broker
            | SubjectKind::ResultBackend
            | SubjectKind::Host,
        ) => Whom::OfProject(telling.incident.project_id),
    };
    for telling in tellings {
        match whom(telling) {
            Whom::ToldBefore(id) => drop(told_before.entry(id).or_default()),
            Whom::OfMonitor(id) => drop(of_monitor.entry(id).or_default()),
            Whom::OfProject(id) => drop(of_project.entry(id).or_default()),
        }
    }
    if !told_before.is_empty() {
        let ids: Vec<IncidentId> = told_before.keys().copied().collect();
        for (id, channel) in deadbeat_store::delivery::channels_told(tx, &ids).await? {
            told_before.entry(id).or_default().push(channel);
        }
    }
    if !of_monitor.is_empty() {
        let ids: Vec<MonitorId> = of_monitor.keys().copied().collect();
        for (id, channel) in deadbeat_store::channel::of_monitors(tx, &ids).await? {
            of_monitor.entry(id).or_default().push(channel);
        }
    }
    if !of_project.is_empty() {
        let ids: Vec<ProjectId> = of_project.keys().copied().collect();
        for (id, channel) in deadbeat_store::channel::of_projects(tx, &ids).await? {
            of_project.entry(id).or_default().push(channel);
        }
    }
    Ok(tellings
        .iter()
        .map(|telling| match whom(telling) {
            Whom::ToldBefore(id) => told_before.get(&id),
            Whom::OfMonitor(id) => of_monitor.get(&id),
            Whom::OfProject(id) => of_project.get(&id),
        })
        .map(|channels| channels.cloned().unwrap_or_default())
        .collect())
}

enum Whom {
    ToldBefore(IncidentId),
    OfMonitor(MonitorId),
    OfProject(ProjectId),
}

/// The monitors that incidents about other subjects affect. Monitors join such an incident after it has opened; when a Beat has just
/// fallen silent, they are those that it schedules, and of a host that is lost the caller says which.
async fn affected(tx: &mut Tx, tellings: &[Telling<'_>]) -> StoreResult<HashMap<IncidentId, Affected>> {
    let about_others = || {
        tellings
            .iter()
            .filter(|telling| telling.incident.subject.kind != SubjectKind::Monitor)
    };
    let silent_beats: HashMap<Uuid, IncidentId> = about_others()
        .filter(|telling| telling.alert == Alert::Opened && telling.incident.cause == Cause::BeatDown)
        .map(|telling| (telling.incident.subject.id, telling.incident.id))
        .collect();
    let joined: Vec<IncidentId> = about_others()
        .filter(|telling| telling.alert != Alert::Opened)
        .map(|telling| telling.incident.id)
        .collect();
    let mut found: HashMap<IncidentId, Affected> = about_others()
        .filter_map(|telling| Some((telling.incident.id, telling.affected?.clone())))
        .collect();
    if !silent_beats.is_empty() {
        let beats: Vec<Uuid> = silent_beats.keys().copied().collect();
        let scheduled = deadbeat_store::incident::first_scheduled(tx, &beats, limits::ALERT_MEMBERS).await?;
        for (beat, affected) in scheduled {
            found.extend(silent_beats.get(&beat).map(|incident| (*incident, affected)));
        }
    }
    if !joined.is_empty() {
        found.extend(deadbeat_store::incident::first_members(tx, &joined, limits::ALERT_MEMBERS).await?);
    }
    Ok(found)
}

/// What is told, as every attempt sends it.
fn payload(site: &Site, telling: &Telling<'_>, project_name: &str, affected: Option<&Affected>) -> Value {
    json!({
        "type": telling.alert.event_type(),
        "timestamp": instant(telling.at),
        "incident": incident_json(site, telling.incident, project_name, affected),
        "monitor": telling.monitor.map(|monitor| monitor_json(monitor, telling.at)),
    })
}

/// An incident as alerts show it.
fn incident_json(site: &Site, incident: &Incident, project_name: &str, affected: Option<&Affected>) -> Value {
    let IncidentId(id) = incident.id;
    json!({
        "id": id,
        "project": {"id": incident.project_id, "name": project_name},
        "subject": incident.subject,
        "cause": cause_json(site, incident),
        "evidence": incident.evidence.iter()
            .map(|fact| json!({"at": fact.at.map(instant), "fact": fact.fact}))
            .collect::<Vec<_>>(),
        "repair": incident.repair,
        "members": affected.map_or_else(Vec::new, |affected| {
            affected.first.iter().map(|(id, name)| json!({"id": id, "name": name})).collect()
        }),
        "member_count": affected.map_or(0, |affected| affected.count),
        "opened_at": instant(incident.opened_at),
        "resolved_at": incident.resolved_at.map(instant),
        "acknowledged_at": incident.acknowledged_at.map(instant),
        "url": format!("{}/", site.url),
    })
}

/// An incident's cause, with the address of its page, as alerts and the API show it.
#[must_use]
pub fn cause_json(site: &Site, incident: &Incident) -> Value {
    json!({"code": incident.cause.as_str(), "summary": incident.summary, "url": site.cause_url(incident.cause)})
}

fn monitor_json(monitor: &Monitor, now: DateTime<Utc>) -> Value {
    let state = &monitor.state;
    json!({
        "id": monitor.id,
        "name": monitor.name,
        "slug": monitor.slug,
        "tags": monitor.tags,
        "status": ShownStatus::at(state.status, state.next_due_at, state.deadline_at.is_some(), now),
        "schedule": state.expectation.schedule.to_json(),
        "schedule_summary": state.expectation.schedule.summary(),
        "delay_seconds": seconds(state.expectation.delay_seconds),
        "grace_seconds": seconds(state.expectation.grace_seconds),
        "last_ping_at": state.last_ping_at.map(instant),
        "next_due_at": state.next_due_at.map(instant),
    })
}

/// An instant as JSON shows it: RFC 3339, UTC, with `Z`.
#[must_use]
pub fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Seconds as JSON shows them: whole where they are whole.
#[must_use]
pub fn seconds(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}
