//! The only way a status changes: [`record`].

pub mod acknowledgement;
pub mod button;
pub mod callback;
pub mod changed;
pub mod explain;
mod flapping;
pub mod link;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::message::Phase;
use deadbeat_domain::change::feed::{Change, ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{IncidentId, MonitorId, MonitorKey, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Consequence, SubjectKey, SubjectKind};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::transition::on_restored;
use deadbeat_store::incident::Incident;
use deadbeat_store::monitor::transition::NewTransition;
use deadbeat_store::monitor::{Monitor, Stateful};
use deadbeat_store::{StoreResult, Tx, Unreadable, with_sources};
use uuid::Uuid;

use self::changed::{Background, Changed, Named, Occurrence, OccurrenceKind};
use crate::alert::escalation;
use crate::alert::outbox::{self, IncidentAlert};
use crate::incident::explain::Explanation;
use crate::monitor::state::write_states;
use crate::{Site, feed};

/// Number of incidents that ended and could not be read. One counter serves the whole process, because requests,
/// writers and loops all record.
static UNREADABLE: AtomicU64 = AtomicU64::new(0);

/// Returns the number of incidents that ended without an alert since the start of this process, because they could
/// not be read.
#[must_use]
pub fn unreadable() -> u64 {
    UNREADABLE.load(Ordering::Relaxed)
}

/// Records changes of status with all consequences: history, incidents and alerts. Writes in the caller's
/// transaction. `occurrences` must be in the order in which the changes happened.
///
/// A second incident about one subject cannot open: the database allows one open incident for each subject. A monitor
/// joins another subject's incident where the members are written (`evaluator`), not here, because joining can fail.
///
/// # Errors
/// If the database is away.
pub async fn record(tx: &mut Tx, site: &Site, occurrences: &[Occurrence<'_>]) -> StoreResult<()> {
    if occurrences.is_empty() {
        return Ok(());
    }
    let transitions: Vec<NewTransition> = occurrences
        .iter()
        .filter_map(|one| {
            let transition = one.what.transition()?;
            let subject = one.changed.subject();
            Some(NewTransition {
                project_id: one.changed.project(),
                subject_kind: subject.kind,
                subject_id: subject.id,
                transition,
            })
        })
        .collect();
    if !transitions.is_empty() {
        deadbeat_store::monitor::transition::insert(tx, &transitions).await?;
        let changes = transitions.iter().map(|one| Change {
            project_id: one.project_id,
            subject: ChangeSubject::Watched(one.subject_kind, one.subject_id),
            what: ChangeKind::Status,
            at: one.transition.at,
        });
        deadbeat_store::feed::note(tx, changes);
    }
    // Record the changes of one subject one after the other: a failure before a success must not open its incident
    // after that success has resolved it. Different subjects share the statements.
    let mut rounds: Vec<Vec<&Occurrence<'_>>> = Vec::new();
    let mut seen: HashMap<Uuid, usize> = HashMap::new();
    for one in occurrences {
        let round = seen.entry(one.changed.subject().id).or_default();
        if *round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*round].push(one);
        *round += 1;
    }
    for round in rounds {
        record_round(tx, site, &round).await?;
    }
    Ok(())
}

/// Records changes of which no two are about one subject.
async fn record_round(tx: &mut Tx, site: &Site, occurrences: &[&Occurrence<'_>]) -> StoreResult<()> {
    let mut to_open: Vec<(Changed<'_>, Cause, DateTime<Utc>)> = Vec::new();
    let mut to_resolve: Vec<(Changed<'_>, DateTime<Utc>)> = Vec::new();
    let mut calm: Vec<(Changed<'_>, bool, DateTime<Utc>)> = Vec::new();
    for one in occurrences {
        match one.what.consequence() {
            (Consequence::Open(cause), at) => to_open.push((one.changed, cause, at)),
            (Consequence::Resolve, at) => to_resolve.push((one.changed, at)),
            (Consequence::Calm { is_down }, at) => calm.push((one.changed, is_down, at)),
            (Consequence::Join | Consequence::Nothing, _) => {}
        }
    }
    if !to_open.is_empty() {
        open(tx, site, &to_open).await?;
    }
    if !calm.is_empty() {
        flapping::calm(tx, site, &calm).await?;
    }
    if !to_resolve.is_empty() {
        resolve(tx, site, &to_resolve).await?;
        let back: Vec<MonitorKey> = to_resolve
            .iter()
            .filter_map(|(changed, _)| Some(changed.monitor()?.key()))
            .collect();
        if let Some(at) = to_resolve
            .iter()
            .map(|(_, at)| *at)
            .max()
            .filter(|_| !back.is_empty())
        {
            settle_inferred(tx, site, Some(&back), at).await?;
        }
    }
    Ok(())
}

/// Opens an incident about each of these subjects, unless one is open, with the cause that a monitor's verdict names.
/// The monitors join after that.
///
/// # Errors
/// If the database is away.
pub(crate) async fn infer(
    tx: &mut Tx,
    site: &Site,
    named: &[(Named<'_>, Cause)],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    let wanted: Vec<(Changed<'_>, Cause, DateTime<Utc>)> = named
        .iter()
        .map(|(named, cause)| (Changed::Named(named), *cause, now))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    open(tx, site, &wanted).await
}

/// Number of inferred incidents that one call settles at most.
const SETTLED: i64 = 1_000;

/// Ends inferred incidents of which no member is down any more, and sends the alerts. `monitors`: only incidents of
/// these members. Returns the number of incidents that ended.
///
/// # Errors
/// If the database is away.
pub(crate) async fn settle_inferred(
    tx: &mut Tx,
    site: &Site,
    monitors: Option<&[MonitorKey]>,
    now: DateTime<Utc>,
) -> StoreResult<usize> {
    let over = readable(deadbeat_store::incident::settle_inferred(tx, monitors, now, SETTLED).await?);
    note(tx, &over, ChangeKind::Resolved);
    escalation::over(tx, &over).await?;
    let incident_alerts: Vec<IncidentAlert<'_>> = over
        .iter()
        .map(|incident| IncidentAlert {
            phase: Phase::Resolved,
            incident,
            monitor: None,
            affected: None,
            at: now,
            step: &[],
        })
        .collect();
    outbox::announce_incidents(tx, site, &incident_alerts).await?;
    Ok(over.len())
}

/// Returns the incidents that can be read. The unreadable ones have ended too, but get no alert.
fn readable(rows: Vec<Result<Incident, Unreadable>>) -> Vec<Incident> {
    rows.into_iter()
        .filter_map(|row| {
            row.map_err(|unreadable| {
                tracing::error!(incident.id = %unreadable.id, error = %with_sources(&unreadable.error), "an incident cannot be read; it ends without an alert");
                UNREADABLE.fetch_add(1, Ordering::Relaxed);
            })
            .ok()
        })
        .collect()
}

/// Notes for the change feed that incidents were opened or resolved.
fn note<'a>(tx: &mut Tx, incidents: impl IntoIterator<Item = &'a Incident>, what: ChangeKind) {
    let changes = incidents.into_iter().map(|incident| Change {
        project_id: incident.project_id,
        subject: ChangeSubject::Incident(incident.id),
        what,
        at: incident.resolved_at.unwrap_or(incident.opened_at),
    });
    deadbeat_store::feed::note(tx, changes);
}

/// Adds monitors to the open incidents of their subjects: (subject, monitor). Returns the monitors that joined one.
///
/// # Errors
/// If the database is away.
pub(crate) async fn join(
    tx: &mut Tx,
    members: &[(SubjectKey, MonitorId)],
    now: DateTime<Utc>,
) -> StoreResult<HashSet<MonitorId>> {
    let joined = deadbeat_store::incident::member::join(tx, members, now).await?;
    for (project, incident, _) in &joined {
        let subject = ChangeSubject::Incident(*incident);
        feed::note(tx, *project, subject, ChangeKind::Changed, now);
    }
    Ok(joined.into_iter().map(|(.., monitor)| monitor).collect())
}

/// Opens incidents, and sends their alerts. Does nothing for a subject with an open incident.
async fn open(tx: &mut Tx, site: &Site, wanted: &[(Changed<'_>, Cause, DateTime<Utc>)]) -> StoreResult<()> {
    let mut projects: Vec<ProjectId> = wanted.iter().map(|(changed, ..)| changed.project()).collect();
    projects.sort_unstable();
    projects.dedup();
    let projects = deadbeat_store::people::project::for_alerts(tx, &projects).await?;
    let incidents: Vec<Incident> = wanted
        .iter()
        .map(|(changed, cause, at)| {
            let Explanation {
                summary,
                evidence,
                repair,
            } = changed.explain(*cause, *at).visible();
            let project = projects.get(&changed.project());
            let reminder = project.and_then(|project| project.reminder_seconds);
            Incident {
                id: IncidentId::generate(),
                project_id: changed.project(),
                subject: changed.subject(),
                cause: *cause,
                severity: changed
                    .monitor()
                    .and_then(|monitor| monitor.severity)
                    .unwrap_or(cause.severity()),
                summary,
                evidence,
                repair,
                opened_at: *at,
                resolved_at: None,
                acknowledged_at: None,
                acknowledged_by: None,
                remind_at: reminder.map(|seconds| *at + TimeDelta::seconds(seconds.into())),
                is_inferred: matches!(changed, Changed::Named(_)),
                is_flapping: changed
                    .monitor()
                    .is_some_and(|monitor| monitor.state.flaps.flapping.is_some()),
            }
        })
        .collect();
    let opened: HashSet<IncidentId> = deadbeat_store::incident::open(tx, &incidents)
        .await?
        .into_iter()
        .collect();
    // An inferred incident about such a subject is open: from now on it ends as an observed one does.
    let seen: Vec<SubjectKey> = incidents
        .iter()
        .filter(|incident| !incident.is_inferred && incident.subject.kind != SubjectKind::Monitor)
        .filter(|incident| !opened.contains(&incident.id))
        .map(|incident| (incident.project_id, incident.subject.kind, incident.subject.id))
        .collect();
    if !seen.is_empty() {
        deadbeat_store::incident::note_seen(tx, &seen).await?;
    }
    let new = incidents.iter().filter(|incident| opened.contains(&incident.id));
    note(tx, new, ChangeKind::Opened);
    let escalating: Vec<(&Incident, &[String])> = incidents
        .iter()
        .zip(wanted)
        .filter(|(incident, _)| opened.contains(&incident.id))
        .map(|(incident, (changed, ..))| {
            (
                incident,
                changed.monitor().map_or(&[][..], |monitor| &monitor.tags),
            )
        })
        .collect();
    escalation::open(tx, &escalating).await?;
    let incident_alerts: Vec<IncidentAlert<'_>> = incidents
        .iter()
        .zip(wanted)
        .filter(|(incident, _)| opened.contains(&incident.id))
        .map(|(incident, (changed, _, at))| IncidentAlert {
            phase: Phase::Opened,
            incident,
            monitor: changed.monitor(),
            affected: changed.affected(),
            at: *at,
            step: &[],
        })
        .collect();
    outbox::announce_incidents(tx, site, &incident_alerts).await?;
    Ok(())
}

/// Resolves the open incidents about these subjects, and sends the alerts.
async fn resolve(tx: &mut Tx, site: &Site, over: &[(Changed<'_>, DateTime<Utc>)]) -> StoreResult<()> {
    let subjects: Vec<(SubjectKey, DateTime<Utc>)> =
        over.iter().map(|(changed, at)| (changed.key(), *at)).collect();
    let resolved = readable(deadbeat_store::incident::resolve(tx, &subjects).await?);
    note(tx, &resolved, ChangeKind::Resolved);
    escalation::over(tx, &resolved).await?;
    let by_subject: HashMap<Uuid, &(Changed<'_>, DateTime<Utc>)> =
        subjects.iter().map(|((.., id), _)| *id).zip(over).collect();
    let incident_alerts: Vec<IncidentAlert<'_>> = resolved
        .iter()
        .filter_map(|incident| {
            let (changed, at) = by_subject.get(&incident.subject.id)?;
            Some(IncidentAlert {
                phase: Phase::Resolved,
                incident,
                monitor: changed.monitor(),
                affected: None,
                at: *at,
                step: &[],
            })
        })
        .collect();
    outbox::announce_incidents(tx, site, &incident_alerts).await?;
    Ok(())
}

/// Gives new deadlines to the members of these subjects' incidents, because the subjects have recovered. A monitor that still
/// does not report then gets an incident of its own. Call this before recording the recovery, which resolves the
/// incidents.
///
/// # Errors
/// If the database is away.
pub(crate) async fn rearm_members(
    tx: &mut Tx,
    site: &Site,
    subjects: &[SubjectKey],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    if subjects.is_empty() {
        return Ok(());
    }
    // Lock monitors before incidents, as the evaluator does. The second query finds monitors that joined in between;
    // after that none joins any more.
    deadbeat_store::monitor::lock_members(tx, subjects).await?;
    if deadbeat_store::incident::lock_open(tx, subjects).await? == 0 {
        return Ok(());
    }
    let mut monitors: Vec<Monitor> = Vec::new();
    for row in deadbeat_store::monitor::lock_members(tx, subjects).await? {
        match row {
            Ok(monitor) => monitors.push(monitor),
            Err(unreadable) => {
                tracing::error!(monitor.id = %unreadable.id, error = %with_sources(&unreadable.error), "a monitor cannot be read; it stays down");
            }
        }
    }
    monitors.retain(|monitor| monitor.state.status == Status::Down);
    deadbeat_store::monitor::run::load_into(tx, &mut monitors, &[]).await?;
    let mut back: Vec<(Monitor, OccurrenceKind)> = Vec::new();
    for mut monitor in monitors {
        if let Some((transition, consequence)) = on_restored(&mut monitor.state, now) {
            let what = OccurrenceKind::Decided {
                transition: Some(transition),
                consequence,
                at: now,
            };
            back.push((monitor, what));
        }
    }
    write_states(tx, back.iter().map(|(monitor, _)| monitor)).await?;
    let background = Background::default();
    let occurrences: Vec<Occurrence<'_>> = back
        .iter()
        .map(|(monitor, what)| Occurrence {
            changed: Changed::Monitor(monitor, &background),
            what: *what,
        })
        .collect();
    record(tx, site, &occurrences).await
}
