//! Several processes that report as one Beat.
//!
//! Each report names the start that it comes from. What the processes of one Beat are, and whether two of them run at once, decides
//! [`deadbeat_domain::incarnation`]; the list is kept at the Beat and written under its lock.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::blind_spell::BlindSpell;
use deadbeat_domain::cause::Cause;
use deadbeat_domain::incarnation::{Incarnation, Said, duplicates, on_list, on_report};
use deadbeat_domain::text::Text;
use deadbeat_store::beat::Beat;
use deadbeat_store::{StoreResult, Tx};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::listening::LONGEST_EXCUSE;
use crate::schedule_sync::Entry;

/// Which start of a Beat a report comes from. An SDK that does not name it is not told apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// Random, one a start.
    pub boot: Option<Uuid>,
    /// Where it runs.
    pub host: Option<Text>,
    /// Its process.
    pub pid: Option<i64>,
    /// When it started, by its clock.
    pub started_at: Option<DateTime<Utc>>,
}

impl Identity {
    /// The same with a clock that is off by `skew`, for a Beat that reports as often as `beat` does. None: it does not name its start.
    fn said(&self, beat: &Beat, skew: TimeDelta) -> Option<Said> {
        Some(Said {
            boot: self.boot?,
            host: self.host.clone().map(String::from),
            pid: self.pid,
            started_at: self.started_at.and_then(|at| at.checked_add_signed(skew)),
            period_seconds: beat.state.period_seconds,
            grace_seconds: beat.state.grace_seconds,
        })
    }
}

/// The processes that report as a Beat, as they are known in a transaction that holds its lock.
#[derive(Debug)]
pub(crate) struct Incarnations {
    known: Vec<Incarnation>,
    spells: Vec<BlindSpell>,
}

impl Incarnations {
    /// Reads them, and notes the report of one.
    pub(crate) async fn hear(
        tx: &mut Tx,
        beat: &Beat,
        identity: &Identity,
        skew: TimeDelta,
        seen_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> StoreResult<Self> {
        let mut known = deadbeat_store::beat::incarnations(tx, beat.id).await?;
        if let Some(said) = identity.said(beat, skew) {
            on_report(&mut known, said, seen_at, now);
        }
        // One alone is compared with none.
        let spells = if known.len() > 1 {
            deadbeat_store::listener::spells_since(tx, now - LONGEST_EXCUSE).await?
        } else {
            Vec::new()
        };
        Ok(Self { known, spells })
    }

    /// Notes what one lists.
    pub(crate) fn list(&mut self, identity: &Identity, entries: &[Entry]) {
        if let Some(boot) = identity.boot {
            on_list(&mut self.known, boot, digest(entries));
        }
    }

    /// Those that run at once with the same schedule.
    pub(crate) fn duplicates(&self, beat: &Beat, now: DateTime<Utc>) -> Vec<Incarnation> {
        let is_told = beat.state.trouble == Some(Cause::BeatDuplicate);
        let found = duplicates(&self.known, is_told, now, &self.spells);
        found.into_iter().cloned().collect()
    }

    /// Writes them.
    pub(crate) async fn write(&self, tx: &mut Tx, beat: &Beat) -> StoreResult<()> {
        deadbeat_store::beat::note_incarnations(tx, beat.id, &self.known).await
    }
}

/// Tells schedules apart: names, tasks and schedules of all entries but the canary, which changes with the queues that are consumed. None: an
/// empty one, which says nothing about whose it is.
fn digest(entries: &[Entry]) -> Option<String> {
    let mut lines: Vec<String> = entries
        .iter()
        .filter(|entry| !entry.canary)
        .map(|entry| {
            let task = entry.task.as_ref().map_or("", |task| task);
            serde_json::json!([entry.name, task, entry.schedule]).to_string()
        })
        .collect();
    if lines.is_empty() {
        return None;
    }
    lines.sort_unstable();
    let hash = Sha256::digest(lines.join("\n"));
    Some(hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}
