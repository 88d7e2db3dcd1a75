//! What could not be judged because nobody listened: each project is told so once a spell, instead of once a monitor.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::blind_spell::BlindSpell;
use deadbeat_domain::ids::ProjectId;
use deadbeat_store::blind_notice::Unheard;
use deadbeat_store::delivery::NewAlert;
use deadbeat_store::{Store, StoreResult, Tx, channel};
use serde_json::{Value, json};

use crate::listening::LONGEST_EXCUSE;
use crate::outbox::instant;

/// Notes monitors that could not be judged, in the caller's transaction.
pub(crate) async fn add(
    tx: &mut Tx,
    unheard: &[(ProjectId, BlindSpell)],
    tell_at: DateTime<Utc>,
) -> StoreResult<()> {
    if unheard.is_empty() {
        return Ok(());
    }
    let mut counts: BTreeMap<(ProjectId, DateTime<Utc>), Unheard> = BTreeMap::new();
    for (project_id, spell) in unheard {
        let count = counts.entry((*project_id, spell.started_at)).or_insert(Unheard {
            project_id: *project_id,
            spell: *spell,
            monitors: 0,
        });
        count.monitors += 1;
    }
    let counts: Vec<Unheard> = counts.into_values().collect();
    deadbeat_store::blind_notice::add(tx, &counts, tell_at).await
}

/// Tells the projects whose time has come, through all of their channels.
pub(crate) async fn tell_due(store: &Store, now: DateTime<Utc>, limit: i64) -> StoreResult<()> {
    let mut tx = store.begin().await?;
    let due = deadbeat_store::blind_notice::take_due(&mut tx, now, now - LONGEST_EXCUSE, limit).await?;
    let mut projects: Vec<ProjectId> = due.iter().map(|one| one.project_id).collect();
    projects.sort_unstable();
    projects.dedup();
    let channels = channel::of_projects(&mut tx, &projects).await?;
    let names = deadbeat_store::project::for_alerts(&mut tx, &projects).await?;
    let alerts: Vec<NewAlert> = due
        .iter()
        .map(|unheard| NewAlert {
            project_id: unheard.project_id,
            incident_id: None,
            // The alert that belongs to no incident.
            alert: Alert::Test,
            payload: payload(
                unheard,
                names
                    .get(&unheard.project_id)
                    .map(|project| project.name.as_str()),
                now,
            ),
            channels: channels
                .iter()
                .filter(|(project, _)| *project == unheard.project_id)
                .map(|(_, channel)| *channel)
                .collect(),
        })
        .filter(|alert| !alert.channels.is_empty())
        .collect();
    if !alerts.is_empty() {
        deadbeat_store::delivery::enqueue(&mut tx, &alerts, now).await?;
    }
    tx.commit().await
}

fn payload(unheard: &Unheard, project_name: Option<&str>, now: DateTime<Utc>) -> Value {
    let Unheard {
        project_id,
        spell,
        monitors,
    } = unheard;
    let (from, to) = (spell.started_at.trunc_subsecs(0), spell.ended_at.trunc_subsecs(0));
    let counted = match monitors {
        1 => "1 monitor could not be judged; it is judged from its next slot on".to_owned(),
        _ => format!("{monitors} monitors could not be judged; they are judged from their next slots on"),
    };
    json!({
        "type": "blind_spell.notice",
        "timestamp": instant(now),
        "blind_spell": {"started_at": instant(spell.started_at), "ended_at": instant(spell.ended_at)},
        "monitors": monitors,
        "summary": format!("Deadbeat was blind from {} to {}; {counted}.", instant(from), instant(to)),
        "project": {"id": project_id, "name": project_name},
        "incident": null,
        "monitor": null,
    })
}
