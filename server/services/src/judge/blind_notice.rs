//! Notices of monitors that could not be judged because no process listened. Each project gets one notice for each
//! blind spell, not one for each monitor.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound, Utc};
use deadbeat_domain::alert::message::{self, BlindNotice, Event, Message, Spell};
use deadbeat_domain::alert::recipients::Topic;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::json::instant;
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_store::judge::blind_notice::Unjudged;
use deadbeat_store::{Store, StoreResult, Tx};

use crate::alert::outbox;
use crate::judge::excuse::LONGEST_EXCUSE;

/// Notes monitors that could not be judged, in the caller's transaction. The notice is due at `tell_at`.
pub(crate) async fn add(
    tx: &mut Tx,
    unjudged: &[(ProjectId, BlindSpell)],
    tell_at: DateTime<Utc>,
) -> StoreResult<()> {
    if unjudged.is_empty() {
        return Ok(());
    }
    let mut counts: BTreeMap<(ProjectId, DateTime<Utc>), Unjudged> = BTreeMap::new();
    for (project_id, spell) in unjudged {
        let count = counts.entry((*project_id, spell.started_at)).or_insert(Unjudged {
            project_id: *project_id,
            spell: *spell,
            monitors: 0,
        });
        count.monitors += 1;
    }
    let counts: Vec<Unjudged> = counts.into_values().collect();
    deadbeat_store::judge::blind_notice::add(tx, &counts, tell_at).await
}

/// Puts the due notices of at most `limit` projects into the outbox, for all of their channels.
pub(crate) async fn send_due(store: &Store, now: DateTime<Utc>, limit: i64) -> StoreResult<()> {
    let mut tx = store.begin().await?;
    let due =
        deadbeat_store::judge::blind_notice::take_due(&mut tx, now, now - LONGEST_EXCUSE, limit).await?;
    let mut projects: Vec<ProjectId> = due.iter().map(|one| one.project_id).collect();
    projects.sort_unstable();
    projects.dedup();
    let names = deadbeat_store::people::project::for_alerts(&mut tx, &projects).await?;
    let messages = due
        .iter()
        .map(|unjudged| {
            let id = unjudged.project_id;
            let name = names.get(&id).map(|project| project.name.clone());
            let project = message::Project {
                id,
                name: name.unwrap_or_default(),
            };
            (id, Topic::Project, notice(unjudged, project, now))
        })
        .collect();
    outbox::announce(&mut tx, messages, now).await?;
    tx.commit().await
}

fn notice(unjudged: &Unjudged, project: message::Project, now: DateTime<Utc>) -> Message {
    let Unjudged { spell, monitors, .. } = unjudged;
    let (from, to) = (spell.started_at.trunc_subsecs(0), spell.ended_at.trunc_subsecs(0));
    let counted = match monitors {
        1 => "1 monitor could not be judged; it is judged from its next slot on".to_owned(),
        _ => format!("{monitors} monitors could not be judged; they are judged from their next slots on"),
    };
    Message {
        at: now,
        event: Event::BlindSpell(BlindNotice {
            blind_spell: Spell {
                started_at: spell.started_at,
                ended_at: spell.ended_at,
            },
            monitors: *monitors,
            summary: format!(
                "Deadbeat was blind from {} to {}; {counted}.",
                instant(from),
                instant(to)
            ),
            project,
        }),
    }
}
