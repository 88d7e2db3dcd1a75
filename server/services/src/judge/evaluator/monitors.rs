//! The sweep of overdue monitors.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::blame::{Evidence, PartOf};
use deadbeat_domain::celery::worker::stranger::VANISHED_FOR;
use deadbeat_domain::change::Trigger;
use deadbeat_domain::ids::{MonitorId, ProjectId, QueueId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{SubjectKey, SubjectKind};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::monitor::transition::on_restored;
use deadbeat_domain::monitor::transition::silence::{Silence, on_silence};
use deadbeat_store::monitor::batch::Batch;
use deadbeat_store::monitor::{Monitor, Stateful};
use deadbeat_store::{StoreResult, with_sources};
use uuid::Uuid;

use super::{ASIDE, BATCH, Batched, Evaluator, NOTICE_AFTER, Swept};
use crate::celery::gather::Surroundings;
use crate::incident;
use crate::incident::changed::{Background, Changed, Named, Occurrence, OccurrenceKind};
use crate::judge::blind_notice;

/// The subject whose incident a monitor joins.
fn subject(part_of: PartOf, monitor: &Monitor) -> Option<(SubjectKind, Uuid)> {
    Some(match part_of {
        PartOf::Beat => (SubjectKind::Beat, monitor.beat_id?.0),
        PartOf::Worker(id) => (SubjectKind::Worker, id.0),
        PartOf::Queue(id) => (SubjectKind::Queue, id.0),
        PartOf::Broker(id) => (SubjectKind::Broker, id.0),
        PartOf::ResultBackend(id) => (SubjectKind::ResultBackend, id.0),
    })
}

impl Evaluator {
    /// Judges one batch of monitors.
    pub(super) async fn sweep_monitors(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut swept = Swept::default();
        let mut tx = self.store.begin().await?;
        let mut monitors: Vec<Monitor> = Vec::new();
        let mut claimed = 0;
        for row in deadbeat_store::monitor::claim_overdue(&mut tx, now, BATCH).await? {
            claimed += 1;
            match row {
                Ok(monitor) => monitors.push(monitor),
                Err(unreadable) => {
                    tracing::error!(monitor.id = %unreadable.id, error = %with_sources(&unreadable.error), "a monitor cannot be judged; put aside");
                    self.selfwatch.put_aside();
                    deadbeat_store::monitor::set_aside(
                        &mut tx,
                        unreadable.project_id,
                        unreadable.id,
                        now + ASIDE,
                    )
                    .await?;
                }
            }
        }
        swept.claimed = claimed;
        let is_full = claimed as i64 == BATCH;
        if claimed == 0 {
            return Ok(Batched { swept, is_full });
        }
        let spells = self.spells(&mut tx, now).await?;
        deadbeat_store::monitor::run::load_into(&mut tx, &mut monitors, &[]).await?;
        // Most rows are only claimed because their `check_after` moves lazily.
        let overdue: Vec<&Monitor> = monitors
            .iter()
            .filter(|monitor| {
                monitor
                    .state
                    .judged_at()
                    .is_some_and(|judged_at| judged_at <= now)
            })
            .collect();
        let mut known = Surroundings::gather(&mut tx, &overdue, now).await?;
        known.note_courses(&overdue, &spells);

        let mut batch = Batch {
            moves_check: true,
            ..Batch::default()
        };
        let mut recorded: Vec<(usize, OccurrenceKind)> = Vec::new();
        let mut joining: Vec<(usize, SubjectKind, Uuid)> = Vec::new();
        let mut naming: Vec<(usize, (SubjectKind, Uuid), Cause)> = Vec::new();
        let mut unjudged: Vec<(ProjectId, BlindSpell)> = Vec::new();
        let mut vanished: Vec<(ProjectId, QueueId)> = Vec::new();
        for (place, monitor) in monitors.iter_mut().enumerate() {
            let is_overdue = monitor
                .state
                .judged_at()
                .is_some_and(|judged_at| judged_at <= now);
            let evidence = if is_overdue {
                known.evidence(monitor)
            } else {
                Evidence::default()
            };
            let changed = match on_silence(&mut monitor.state, &evidence, now, &spells) {
                Silence::NotYet => continue,
                Silence::Hold => {
                    let project = monitor.project_id;
                    vanished.extend(evidence.vanished_from().into_iter().map(|queue| (project, queue)));
                    continue;
                }
                Silence::Calm(consequence) => {
                    swept.calm += 1;
                    let what = OccurrenceKind::Decided {
                        transition: None,
                        consequence,
                        at: now,
                    };
                    recorded.push((place, what));
                    continue;
                }
                Silence::Settled(runs) => runs,
                Silence::Unknown { spell, runs } => {
                    unjudged.push((monitor.project_id, spell));
                    runs
                }
                Silence::Down {
                    transition,
                    trigger,
                    consequence,
                    part_of,
                    is_named,
                    overruns,
                } => {
                    swept.down += 1;
                    let what = OccurrenceKind::Decided {
                        transition,
                        consequence,
                        at: now,
                    };
                    recorded.push((place, what));
                    let subject = part_of
                        .and_then(|part_of| subject(part_of, monitor))
                        .map(|subject| known.or_host(monitor, subject));
                    if let (Some(part_of), Some(subject), Trigger::PartOf(cause)) =
                        (part_of, subject, trigger)
                        && is_named
                    {
                        known.note_named(monitor, part_of);
                        naming.push((place, subject, cause));
                    }
                    joining.extend(subject.map(|(kind, id)| (place, kind, id)));
                    overruns
                }
            };
            let runs = monitor.state.runs.iter().filter(|run| changed.contains(&run.key));
            let key = (monitor.project_id, monitor.id);
            batch.runs.extend(runs.map(|run| (key, run.clone())));
        }
        let named: Vec<(Named<'_>, Cause)> = naming
            .iter()
            .filter_map(|(place, subject, cause)| Some((known.named(&monitors[*place], *subject)?, *cause)))
            .collect();
        incident::infer(&mut tx, &self.site, &named, now).await?;
        if !joining.is_empty() {
            let members: Vec<(SubjectKey, MonitorId)> = joining
                .iter()
                .map(|(place, kind, subject)| {
                    let monitor = &monitors[*place];
                    ((monitor.project_id, *kind, *subject), monitor.id)
                })
                .collect();
            let joined: HashSet<MonitorId> = incident::join(&mut tx, &members, now).await?;
            for (place, ..) in joining {
                let monitor = &mut monitors[place];
                if !joined.contains(&monitor.id) {
                    // Its subject recovered between the two queries: the monitor gets a new deadline.
                    let back = on_restored(&mut monitor.state, now);
                    recorded.extend(back.map(|(transition, consequence)| {
                        let what = OccurrenceKind::Decided {
                            transition: Some(transition),
                            consequence,
                            at: now,
                        };
                        (place, what)
                    }));
                }
            }
        }
        batch.monitors = monitors.iter().map(Stateful::changed).collect();
        deadbeat_store::monitor::batch::write(&mut tx, &batch).await?;
        blind_notice::add(&mut tx, &unjudged, now + NOTICE_AFTER).await?;
        let backgrounds: Vec<Background<'_>> = recorded
            .iter()
            .map(|(place, _)| known.background(&monitors[*place]))
            .collect();
        let occurrences: Vec<Occurrence<'_>> = recorded
            .iter()
            .zip(&backgrounds)
            .map(|((place, what), background)| Occurrence {
                changed: Changed::Monitor(&monitors[*place], background),
                what: *what,
            })
            .collect();
        incident::record(&mut tx, &self.site, &occurrences).await?;
        tx.commit().await?;
        if !vanished.is_empty() {
            // In a transaction of its own: samples lock queues before monitors.
            let mut tx = self.store.begin().await?;
            deadbeat_store::celery::worker::stranger::note_vanished(&mut tx, &vanished, now, VANISHED_FOR)
                .await?;
            tx.commit().await?;
        }
        Ok(Batched { swept, is_full })
    }
}
