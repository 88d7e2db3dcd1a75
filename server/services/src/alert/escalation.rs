//! Escalations: the steps that notify more people of an incident which nobody acknowledges.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::escalation::{self, Pending, Policy, TargetKind};
use deadbeat_domain::alert::message::Phase;
use deadbeat_domain::alert::recipients;
use deadbeat_domain::alert::rotation::Rotation;
use deadbeat_domain::ids::{ChannelId, EscalationPolicyId, IncidentId, ProjectId, RotationId};
use deadbeat_store::alert::escalation::{Due, Escalation, IncidentKey, begin, end, move_on};
use deadbeat_store::alert::policy::{self, StoredPolicy};
use deadbeat_store::alert::{channel, rotation};
use deadbeat_store::incident::{self, Incident};
use deadbeat_store::{StoreResult, Tx, Unreadable, with_sources};
use uuid::Uuid;

use crate::Site;
use crate::alert::outbox::{self, IncidentAlert};

/// Notes the first steps of incidents that open in this transaction: each with the tags of its monitor.
///
/// # Errors
/// If the database is away.
pub(crate) async fn open(tx: &mut Tx, opened: &[(&Incident, &[String])]) -> StoreResult<()> {
    let mut projects: Vec<ProjectId> = opened.iter().map(|(incident, _)| incident.project_id).collect();
    projects.sort_unstable();
    projects.dedup();
    if projects.is_empty() {
        return Ok(());
    }
    let candidates = policy::candidates(tx, &projects).await?;
    let first = |(incident, tags): &(&Incident, &[String])| {
        let chosen = escalation::choose(candidates.get(&incident.project_id)?, tags)?;
        Some(Escalation {
            incident: (incident.project_id, incident.id),
            policy: chosen.id,
            pending: chosen.first(incident.opened_at),
        })
    };
    let escalations: Vec<Escalation> = opened.iter().filter_map(first).collect();
    if escalations.is_empty() {
        return Ok(());
    }
    begin(tx, &escalations).await
}

/// Ends the escalations of incidents that end in this transaction.
///
/// # Errors
/// If the database is away.
pub(crate) async fn over(tx: &mut Tx, incidents: &[Incident]) -> StoreResult<()> {
    let keys: Vec<IncidentKey> = incidents.iter().map(|one| (one.project_id, one.id)).collect();
    end(tx, &keys).await
}

/// Result of [`take_steps`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Number of steps that name at least one channel.
    pub alerted: usize,
    /// Number of escalations that were put aside because their rows cannot be read.
    pub put_aside: usize,
}

/// Takes steps that the caller claimed, and notes the next steps. An escalation whose rows cannot be read waits until
/// `aside_until`.
///
/// # Errors
/// If the database is away.
pub(crate) async fn take_steps(
    tx: &mut Tx,
    site: &Site,
    due: &[Due],
    now: DateTime<Utc>,
    aside_until: DateTime<Utc>,
) -> StoreResult<Taken> {
    let background = Background::of(tx, due).await?;
    let (mut ended, mut next, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut taken = Taken::default();
    for one in due {
        let key = one.escalation.incident;
        let pending = one.escalation.pending;
        let incident = background.incidents.get(&key.1);
        let policy = background.policies.get(&one.escalation.policy);
        let (false, Some(incident), Some(policy)) = (one.is_over, incident, policy) else {
            // The incident is over or acknowledged, or the policy was deleted.
            ended.push(key);
            continue;
        };
        let (Some(incident), Some(policy)) = (incident, policy) else {
            taken.put_aside += 1;
            next.push(Escalation {
                pending: Pending {
                    due_at: aside_until,
                    ..pending
                },
                ..one.escalation
            });
            continue;
        };
        let channels = background.channels(key.0, policy, pending, now);
        let has_reached = channels.iter().any(|id| background.is_usable(key.0, *id));
        match policy.after(pending.step, pending.round, has_reached, now) {
            Some(pending) => next.push(Escalation {
                pending,
                ..one.escalation
            }),
            None => ended.push(key),
        }
        if !channels.is_empty() {
            steps.push((incident, channels));
        }
    }
    let incident_alerts: Vec<IncidentAlert<'_>> = steps
        .iter()
        .map(|(incident, channels)| IncidentAlert {
            phase: Phase::Escalated,
            incident,
            monitor: None,
            affected: None,
            at: now,
            step: channels,
        })
        .collect();
    outbox::announce_incidents(tx, site, &incident_alerts).await?;
    move_on(tx, &next).await?;
    end(tx, &ended).await?;
    taken.alerted = incident_alerts.len();
    Ok(taken)
}

/// The rows that the steps need. None: the row cannot be read.
struct Background {
    incidents: HashMap<IncidentId, Option<Incident>>,
    policies: HashMap<EscalationPolicyId, Option<Policy>>,
    rotations: HashMap<(ProjectId, RotationId), Rotation>,
    /// The channels of each project that can get a message.
    usable: HashMap<ProjectId, HashSet<ChannelId>>,
}

impl Background {
    async fn of(tx: &mut Tx, due: &[Due]) -> StoreResult<Self> {
        let going_on = || due.iter().filter(|one| !one.is_over).map(|one| one.escalation);
        let incidents: Vec<IncidentKey> = going_on().map(|one| one.incident).collect();
        let policies: HashSet<(ProjectId, EscalationPolicyId)> =
            going_on().map(|one| (one.incident.0, one.policy)).collect();
        let policies: Vec<(ProjectId, EscalationPolicyId)> = policies.into_iter().collect();
        let projects: HashSet<ProjectId> = incidents.iter().map(|(project, _)| *project).collect();
        let projects: Vec<ProjectId> = projects.into_iter().collect();

        let incidents = by_id(incident::named(tx, &incidents).await?, |incident| incident.id.0);
        let policies = by_id(policy::named(tx, &policies).await?, |stored: &StoredPolicy| {
            stored.id.0
        });
        let rotations: HashSet<(ProjectId, RotationId)> = policies
            .values()
            .flatten()
            .flat_map(|stored| {
                let targets = stored.policy.all_targets();
                let rotations = targets.filter(|(_, target)| target.kind == TargetKind::Rotation);
                rotations.map(|(_, target)| (stored.project_id, RotationId(target.id)))
            })
            .collect();
        let rotations: Vec<(ProjectId, RotationId)> = rotations.into_iter().collect();
        let rotations = by_id(rotation::named(tx, &rotations).await?, |stored| stored.id.0);
        let channels = channel::for_alerts(tx, &projects).await?;
        let is_usable = |channel: &&recipients::Channel| !channel.is_disabled && channel.is_confirmed;
        Ok(Self {
            incidents: incidents
                .into_iter()
                .map(|(id, incident)| (IncidentId(id), incident))
                .collect(),
            policies: policies
                .into_iter()
                .map(|(id, stored)| (EscalationPolicyId(id), stored.map(|stored| stored.policy)))
                .collect(),
            // A rotation that cannot be read names no channel. If its step then reaches nobody, the next step is due
            // at once.
            rotations: rotations
                .into_values()
                .flatten()
                .map(|stored| ((stored.project_id, stored.id), stored.rotation))
                .collect(),
            usable: channels
                .into_iter()
                .map(|(project, channels)| {
                    let usable = channels.iter().filter(is_usable).map(|channel| channel.id);
                    (project, usable.collect())
                })
                .collect(),
        })
    }

    /// True if a channel can get a message.
    fn is_usable(&self, project: ProjectId, id: ChannelId) -> bool {
        let usable = self.usable.get(&project);
        usable.is_some_and(|usable| usable.contains(&id))
    }

    /// Returns the channels of a step: those that it names, and one channel of each person who is on call now.
    fn channels(
        &self,
        project: ProjectId,
        policy: &Policy,
        pending: Pending,
        now: DateTime<Utc>,
    ) -> Vec<ChannelId> {
        let of_target = |target: &escalation::Target| match target.kind {
            TargetKind::Channel => Some(ChannelId(target.id)),
            TargetKind::Rotation => {
                let rotation = self.rotations.get(&(project, RotationId(target.id)))?;
                let person = rotation.on_call(now)?.person;
                person.channel(pending.round, |id| self.is_usable(project, id))
            }
        };
        policy
            .targets(pending.step)
            .iter()
            .filter_map(of_target)
            .collect()
    }
}

/// Groups rows by their ids. None: the row cannot be read.
fn by_id<T>(rows: Vec<Result<T, Unreadable>>, id: impl Fn(&T) -> Uuid) -> HashMap<Uuid, Option<T>> {
    rows.into_iter()
        .map(|row| match row {
            Ok(row) => (id(&row), Some(row)),
            Err(unreadable) => {
                tracing::error!(row.id = %unreadable.id, error = %with_sources(&unreadable.error), "an escalation needs a row that cannot be read");
                (unreadable.id, None)
            }
        })
        .collect()
}
