//! Several processes that report as one Beat.
//!
//! Each report names the process that sends it. [`deadbeat_domain::celery::beat::incarnation`] decides which processes
//! belong to one Beat, and whether two of them run at once. [`deadbeat_domain::celery::beat::lineage`] decides which
//! schedule belongs to which. The list of processes is stored with the Beat, and written under its lock.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat::incarnation::{
    BeatReport, EndReport, Incarnation, duplicates, on_list, on_report,
};
use deadbeat_domain::celery::beat::lineage::{self, Bits, Standing, bit};
use deadbeat_domain::celery::beat::{SCHEDULE_ENTRIES, crash_loop};
use deadbeat_domain::celery::switch::on_trouble;
use deadbeat_domain::ids::{BeatId, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::text::Text;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::beat::lineage::Listed;
use deadbeat_store::celery::beat::listing;
use deadbeat_store::incident::Incident;
use deadbeat_store::{StoreResult, Tx};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::celery::beat::at_once::AtOnce;
use crate::celery::beat::schedule_sync::listing::Entry;
use crate::celery::beat::{State, schedule_sync};
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};
use crate::judge::excuse::LONGEST_EXCUSE;
use crate::{ServiceError, Services, incident};

/// The process that sends a report. Processes of an SDK that does not name them cannot be distinguished.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// Its boot id: random, one for each start.
    pub boot: Option<Uuid>,
    /// Its host.
    pub host: Option<Text>,
    /// Its process id.
    pub pid: Option<i64>,
    /// When it started, by its clock.
    pub started_at: Option<DateTime<Utc>>,
    /// Whether it continues or ends.
    pub state: Option<State>,
    /// The class of the error, if it ends by one.
    pub exit_error: Option<Text>,
}

impl Identity {
    /// Returns true if the process reports its end.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, Some(State::Stopped | State::Failed))
    }

    /// Converts the report to the domain's form, for a clock that is off by `skew`, with the period of `beat`. Returns `None` if the report does not
    /// name its process.
    fn said(&self, beat: &Beat, skew: TimeDelta) -> Option<BeatReport> {
        Some(BeatReport {
            boot: self.boot?,
            host: self.host.clone().map(String::from),
            pid: self.pid,
            started_at: self.started_at.and_then(|at| at.checked_add_signed(skew)),
            period_seconds: beat.state.period_seconds,
            grace_seconds: beat.state.grace_seconds,
            says_goodbye: self.state.map(|_| true),
            goodbye: match self.state {
                Some(State::Stopped) => Some(EndReport::Stopped),
                Some(State::Failed) => Some(EndReport::Failed(self.exit_error.clone().map(String::from))),
                Some(State::Running) | None => None,
            },
        })
    }
}

/// The lineages to which a reported schedule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The lineage that the schedule continues.
    pub(crate) lineage: Bits,
    /// That lineage, and the lineages without a known process. Entries that only these lineages list are retired if the schedule lacks them.
    pub(crate) alone: Bits,
    /// Earlier applications with the same name. Entries in their schedules follow those schedules, not this one.
    pub(crate) elders: Bits,
}

impl Place {
    /// The place for an SDK that does not name its processes.
    pub(crate) const NAMELESS: Self = Self {
        lineage: 1,
        alone: 1,
        elders: 0,
    };
}

/// The processes that report as a Beat, read in a transaction that holds its lock.
#[derive(Debug)]
pub(crate) struct Incarnations {
    known: Vec<Incarnation>,
    spells: Vec<BlindSpell>,
}

impl Incarnations {
    /// Reads the processes.
    async fn read(tx: &mut Tx, beat: &Beat, now: DateTime<Utc>) -> StoreResult<Self> {
        let known = deadbeat_store::celery::beat::incarnations(tx, beat.project_id, beat.id).await?;
        let spells = deadbeat_store::operation::listener::spells_since(tx, now - LONGEST_EXCUSE).await?;
        Ok(Self { known, spells })
    }

    /// Reads the processes, and records the report of one.
    pub(crate) async fn on_report(
        tx: &mut Tx,
        beat: &Beat,
        identity: &Identity,
        skew: TimeDelta,
        seen_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> StoreResult<Self> {
        let mut known = deadbeat_store::celery::beat::incarnations(tx, beat.project_id, beat.id).await?;
        if let Some(said) = identity.said(beat, skew) {
            on_report(&mut known, said, seen_at, now);
        }
        // A single process need not be compared with others, so the blind spells do not matter.
        let spells = if known.len() > 1 {
            deadbeat_store::operation::listener::spells_since(tx, now - LONGEST_EXCUSE).await?
        } else {
            Vec::new()
        };
        lineage::mark_sharing(&mut known, now, &spells);
        Ok(Self { known, spells })
    }

    /// Records the schedule of a process with that schedule's id, and finds the lineage that it continues. Returns `None` if too many lineages run at
    /// once.
    pub(crate) async fn list(
        &mut self,
        tx: &mut Tx,
        beat: &Beat,
        identity: &Identity,
        entries: &[Entry],
        sync: Uuid,
        now: DateTime<Utc>,
    ) -> StoreResult<Option<Place>> {
        let Some(boot) = identity.boot else {
            return Ok(Some(Place::NAMELESS));
        };
        let schedule = digest(entries);
        on_list(&mut self.known, boot, schedule.clone());
        let mut common = Vec::new();
        if lineage::silent(&self.known, now, &self.spells) != 0 {
            let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
            let (project, id) = (beat.project_id, beat.id);
            let listed = deadbeat_store::celery::beat::lineage::census(tx, project, id, Some(&names)).await?;
            common = (0..lineage::LINEAGES)
                .map(|lineage| {
                    let of = listed.iter().filter(|listed| listed.by & bit(lineage) != 0);
                    (lineage, of.map(|listed| listed.count).sum())
                })
                .collect();
            common.sort_by_key(|(_, count): &(u8, i64)| -count);
        }
        let found = lineage::place(
            &mut self.known,
            boot,
            schedule.as_deref(),
            &common,
            now,
            &self.spells,
        );
        if let Some(one) = self.known.iter_mut().find(|one| one.boot == boot) {
            one.sync = Some(sync);
        }
        let Some(found) = found else {
            return Ok(None);
        };
        let living = lineage::living(&self.known, now, &self.spells);
        let shares = self.known.iter().any(|one| one.boot == boot && one.shares);
        Ok(Some(Place {
            lineage: bit(found),
            alone: bit(found) | lineage::unknown(&self.known),
            elders: if shares { living & (bit(found) - 1) } else { 0 },
        }))
    }

    /// Returns the state of the lineages, and their entries. A silent application that now reports under another name, as its incident asks, counts
    /// as replaced.
    pub(crate) async fn standing(
        &mut self,
        tx: &mut Tx,
        beat: &Beat,
        now: DateTime<Utc>,
    ) -> StoreResult<(Standing, Vec<Listed>)> {
        let lineages =
            lineage::living(&self.known, now, &self.spells) | lineage::silent(&self.known, now, &self.spells);
        if lineages.count_ones() < 2 {
            return Ok((Standing::default(), Vec::new()));
        }
        let listed =
            deadbeat_store::celery::beat::lineage::census(tx, beat.project_id, beat.id, None).await?;
        let counts: Vec<(Bits, i64)> = listed.iter().map(|listed| (listed.by, listed.count)).collect();
        let is_alerted = matches!(
            beat.state.trouble,
            Some(Cause::BeatDuplicate | Cause::AppNameShared)
        );
        let standing = lineage::standing(&self.known, &counts, is_alerted, now, &self.spells);
        let mut renamed = 0;
        for one in &self.known {
            let lineage = one.lineage.map_or(0, bit);
            if standing.lost & lineage & !renamed != 0
                && let Some(schedule) = &one.schedule
                && listing::is_listed_elsewhere(tx, beat.project_id, beat.id, schedule, one.seen_at).await?
            {
                renamed |= lineage;
            }
        }
        for one in &mut self.known {
            one.shares &= renamed & one.lineage.map_or(0, bit) == 0;
        }
        let standing = Standing {
            lost: standing.lost & !renamed,
            replaced: standing.replaced | renamed,
            ..standing
        };
        Ok((standing, listed))
    }

    /// Returns the fault of a Beat with several processes, and the processes with that fault.
    pub(crate) fn trouble(
        &self,
        beat: &Beat,
        standing: Standing,
        listed: Vec<Listed>,
        now: DateTime<Utc>,
    ) -> Option<(Cause, AtOnce)> {
        let of = |lineages: Bits, is_living: bool| -> Vec<Incarnation> {
            let mut found: Vec<Incarnation> = self
                .known
                .iter()
                .filter(|one| one.lineage.is_some_and(|lineage| lineages & bit(lineage) != 0))
                .filter(|one| one.lives(now, &self.spells) == is_living)
                .cloned()
                .collect();
            found.sort_by_key(|one| (one.started_at.unwrap_or(one.since), one.boot));
            found
        };
        let is_alerted = beat.state.trouble == Some(Cause::BeatDuplicate);
        let twins = duplicates(&self.known, is_alerted, now, &self.spells);
        let (cause, processes) = if standing.lost != 0 {
            let last = |found: Vec<Incarnation>| found.into_iter().max_by_key(|one| one.seen_at);
            let lost = (0..lineage::LINEAGES)
                .map(bit)
                .filter(|one| standing.lost & one != 0);
            (
                Cause::BeatDown,
                lost.filter_map(|one| last(of(one, false))).collect(),
            )
        } else if !twins.is_empty() {
            (Cause::BeatDuplicate, twins.into_iter().cloned().collect())
        } else if standing.releases != 0 {
            (Cause::BeatDuplicate, of(standing.releases, true))
        } else if standing.sharing != 0 {
            (Cause::AppNameShared, of(standing.sharing, true))
        } else {
            return None;
        };
        Some((cause, AtOnce { processes, listed }))
    }

    /// Returns the processes that have crashed in a row until now. `is_alerted` is true if the crash loop has an incident.
    pub(crate) fn crashes(&self, is_alerted: bool, now: DateTime<Utc>) -> Vec<Incarnation> {
        let crashes = crash_loop::longest(&self.known, is_alerted, now, &self.spells);
        crashes.into_iter().cloned().collect()
    }

    /// Returns true if more than one process is known.
    pub(crate) fn are_several(&self) -> bool {
        self.known.len() > 1
    }

    /// Writes the processes.
    pub(crate) async fn write(&self, tx: &mut Tx, beat: &Beat) -> StoreResult<()> {
        deadbeat_store::celery::beat::note_incarnations(tx, beat.project_id, beat.id, &self.known).await
    }
}

/// Returns the processes of a silent Beat that have crashed in a row until now.
pub(crate) async fn crashes_of(
    tx: &mut Tx,
    beat: &Beat,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> StoreResult<Vec<Incarnation>> {
    let known = deadbeat_store::celery::beat::incarnations(tx, beat.project_id, beat.id).await?;
    let crashes = crash_loop::longest(&known, false, now, spells);
    Ok(crashes.into_iter().cloned().collect())
}

/// Returns true if the monitors of a Beat still follow that schedule of that process.
pub(crate) async fn follows(tx: &mut Tx, beat: &Beat, boot: Uuid, sync: Uuid) -> StoreResult<bool> {
    let known = deadbeat_store::celery::beat::incarnations(tx, beat.project_id, beat.id).await?;
    Ok(known.iter().any(|one| one.boot == boot && one.sync == Some(sync)))
}

/// Removes lineages of a Beat that others have replaced, and retires entries that only they list. This takes several transactions. After a failure in
/// between, the Beat's next report continues.
pub(crate) async fn release(services: &Services, project: ProjectId, id: BeatId) -> Result<(), ServiceError> {
    let mut retired = 0;
    let mut began_at = None;
    loop {
        let mut tx = services.store.begin().await?;
        let Some(beat) = deadbeat_store::celery::beat::lock_by_id(&mut tx, project, id).await? else {
            return Ok(());
        };
        let now = services.now();
        let began_at = *began_at.get_or_insert(now);
        let mut incarnations = Incarnations::read(&mut tx, &beat, now).await?;
        let (standing, _) = incarnations.standing(&mut tx, &beat, now).await?;
        if standing.replaced == 0 {
            return Ok(());
        }
        let gone = standing.replaced | lineage::unknown(&incarnations.known);
        let (count, is_full) = schedule_sync::retire_listed_by(services, &mut tx, &beat, gone, now).await?;
        retired += count;
        if !is_full {
            let limit = schedule_sync::SYNC_BATCH as i64;
            let cleared =
                deadbeat_store::celery::beat::lineage::clear(&mut tx, project, id, gone, limit).await?;
            if cleared < limit as u64 {
                incarnations
                    .known
                    .retain(|one| one.lineage.is_none_or(|lineage| gone & bit(lineage) == 0));
                lineage::mark_sharing(&mut incarnations.known, now, &incarnations.spells);
                incarnations.write(&mut tx, &beat).await?;
                if retired >= SCHEDULE_ENTRIES && listing::watched(&mut tx, project, id).await? == 0 {
                    listing::note_emptied(&mut tx, project, id, began_at).await?;
                }
                tx.commit().await?;
                tracing::info!(beat.id = %id, retired, "a process of Beat has ended; the entries that only it listed are retired");
                return Ok(());
            }
        }
        tx.commit().await?;
    }
}

/// Ends an incident about the lost Beat of one of several applications. The person who acknowledges it knows that this Beat is gone for good. Also
/// retires the Beat's monitors. Returns true if the incident ended.
///
/// # Errors
/// If the database cannot be reached.
pub(crate) async fn acknowledged(
    services: &Services,
    project: ProjectId,
    incident: &Incident,
) -> Result<bool, ServiceError> {
    if incident.cause != Cause::BeatDown
        || incident.subject.kind != SubjectKind::Beat
        || incident.resolved_at.is_some()
    {
        return Ok(false);
    }
    let mut tx = services.store.begin().await?;
    let id = BeatId(incident.subject.id);
    let Some(mut beat) = deadbeat_store::celery::beat::lock_by_id(&mut tx, project, id).await? else {
        return Ok(false);
    };
    // If every process is silent, the Beat is expected until it comes back.
    if beat.state.trouble != Some(Cause::BeatDown) {
        return Ok(false);
    }
    let now = services.now();
    let mut incarnations = Incarnations::read(&mut tx, &beat, now).await?;
    let (standing, _) = incarnations.standing(&mut tx, &beat, now).await?;
    for one in &mut incarnations.known {
        if one
            .lineage
            .is_some_and(|lineage| standing.lost & bit(lineage) != 0)
        {
            one.shares = false;
        }
    }
    incarnations.write(&mut tx, &beat).await?;
    let transition = on_trouble(&mut beat.state, None, now);
    deadbeat_store::celery::beat::update(&mut tx, std::slice::from_ref(&beat), false).await?;
    if let Some(transition) = transition {
        let subject = (project, SubjectKind::Beat, id.0);
        incident::rearm_members(&mut tx, &services.site, &[subject], now).await?;
        let occurrences = Occurrence {
            changed: Changed::Beat(&beat),
            what: OccurrenceKind::Transition(transition),
        };
        incident::record(&mut tx, &services.site, &[occurrences]).await?;
    }
    tx.commit().await?;
    services.outbox_bell.notify_one();
    release(services, project, id).await?;
    Ok(transition.is_some())
}

/// Returns a digest that distinguishes schedules: the names, tasks and schedules of all entries, without the canary, which changes with the consumed
/// queues. Returns `None` for an empty schedule, because that may belong to any application.
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
