//! Makes the monitors of a Beat match its reported schedule.

pub(crate) mod entries;
pub mod listing;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat::is_of_every_beat;
use deadbeat_domain::celery::beat::lineage::{Bits, LINEAGES};
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{MonitorId, MonitorKey, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::transition::on_sent;
use deadbeat_domain::monitor::{Expectation, clip};
use deadbeat_domain::text::Text;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::monitor::batch::Batch;
use deadbeat_store::monitor::settings;
use deadbeat_store::monitor::{Monitor, Stateful};
use deadbeat_store::people::quota::Counted;
use deadbeat_store::{Tx, with_sources};
use uuid::Uuid;

use self::entries::{Followed, GRACE_SECONDS, PERIOD_SECONDS, due_of, expectation, follow, register, retire};
use self::listing::{DueHints, Entry, ScheduleListing};
use crate::celery::beat;
use crate::celery::beat::incarnation::{self, Identity, Incarnations, Place};
use crate::celery::beat::schedule_emptied;
use crate::celery::event::Verdict;
use crate::incident::changed::{Background, Changed, Occurrence, OccurrenceKind};
use crate::monitor::state::write_states;
use crate::people::pace::Work;
use crate::people::quota::spend_up_to;
use crate::{ServiceError, Services, feed, incident};

/// A schedule that is older than this when it arrives was delayed on its way.
const ON_ITS_WAY: TimeDelta = TimeDelta::seconds(5);

fn background(beat: &Beat) -> Background<'_> {
    Background {
        beat: Some(beat),
        ..Background::default()
    }
}

/// Handles hints: when entries are next due. Ignores entries that were never registered, and monitors that a person paused.
pub(crate) async fn due(
    services: &Services,
    project: ProjectId,
    hints: DueHints,
    skew: TimeDelta,
) -> Result<Verdict, ServiceError> {
    beat::check_name(&hints.beat)?;
    if hints.entries.len() > limits::BEAT_ENTRIES {
        return Err(ServiceError::Limit {
            what: "entries of one Beat",
            limit: limits::BEAT_ENTRIES as i64,
        });
    }
    let now = services.now();
    let hinted: HashMap<String, Option<DateTime<Utc>>> = hints
        .entries
        .into_iter()
        .map(|hint| (hint.name.into(), by_our_clock(hint.next_due_at, skew)))
        .collect();
    let names: Vec<String> = hinted.keys().cloned().collect();

    let mut tx = services.store.begin().await?;
    let mut monitors = Vec::new();
    for row in deadbeat_store::monitor::lock_entries(&mut tx, project, &hints.beat, &names).await? {
        match row {
            Ok(monitor) => monitors.push(monitor),
            Err(unreadable) => {
                tracing::error!(monitor.id = %unreadable.id, error = %with_sources(&unreadable.error), "a monitor cannot be read; its hint is dropped");
            }
        }
    }
    deadbeat_store::monitor::run::load_into(&mut tx, &mut monitors, &[]).await?;
    monitors.retain_mut(|monitor| {
        let before = due_of(monitor);
        if let Some(hint) = monitor.entry.as_ref().and_then(|entry| hinted.get(entry)) {
            on_sent(&mut monitor.state, *hint, now);
        }
        due_of(monitor) != before
    });
    let batch = Batch {
        monitors: monitors.iter().map(Stateful::changed).collect(),
        ..Batch::default()
    };
    deadbeat_store::monitor::batch::write(&mut tx, &batch).await?;
    tx.commit().await?;
    Ok(Verdict::Accepted)
}

/// Converts a time of a client's clock to the server's clock.
fn by_our_clock(at: Option<DateTime<Utc>>, skew: TimeDelta) -> Option<DateTime<Utc>> {
    at.and_then(|at| at.checked_add_signed(skew))
        .map(deadbeat_domain::time::to_micros)
}

/// The number of entries in one transaction, and of monitors that one retires. Signals of other monitors never wait for a whole schedule.
pub(crate) const SYNC_BATCH: usize = 100;
/// The number of further batches to expect while the number of monitors to retire is unknown.
const SOME_BATCHES: usize = 10;

/// A snapshot that a Beat's monitors are being made to match.
struct Sync<'a> {
    project: ProjectId,
    beat: &'a str,
    /// The id of the snapshot in the Beat's row. A newer snapshot of the same process replaces it there.
    id: Uuid,
    /// The boot id of the process with this schedule, or `None` if its SDK does not report one.
    boot: Option<Uuid>,
    /// The lineages to which the snapshot applies.
    place: Place,
    listed_at: DateTime<Utc>,
    /// When the snapshot arrived.
    came_at: DateTime<Utc>,
    skew: TimeDelta,
}

impl Sync<'_> {
    /// Returns the hint for an entry, by the server's clock.
    fn hint(&self, entry: &Entry) -> Option<DateTime<Utc>> {
        // Ignore entries that fell due after the snapshot was taken: Beat has sent them and reports their new hints in `beat_due`. Only entries that
        // were overdue in the snapshot are due now.
        by_our_clock(entry.next_due_at, self.skew)
            .filter(|hint| *hint <= self.listed_at || *hint >= self.came_at - ON_ITS_WAY)
    }

    /// Begins a transaction of this snapshot, and locks the Beat. Returns `None` if a newer snapshot has begun, or the Beat was deleted: then nothing
    /// is left to do.
    async fn begin(&self, services: &Services) -> Result<Option<(Tx, Beat)>, ServiceError> {
        let mut tx = services.store.begin().await?;
        let Some(boot) = self.boot else {
            let beat = deadbeat_store::celery::beat::listing::lock_in_sync(
                &mut tx,
                self.project,
                self.beat,
                self.id,
            )
            .await?;
            return Ok(beat.map(|beat| (tx, beat)));
        };
        let Some(beat) = deadbeat_store::celery::beat::lock(&mut tx, self.project, self.beat).await? else {
            return Ok(None);
        };
        let follows = incarnation::follows(&mut tx, &beat, boot, self.id).await?;
        Ok(follows.then_some((tx, beat)))
    }
}

/// Makes monitors match a Beat's schedule. Registers and arms new entries, recomputes changed ones, retires missing ones, and pauses disabled ones.
/// None of this sends an alert.
///
/// This takes several transactions. After a failure in between, some monitors match the new snapshot and the others the previous one. The SDK then
/// sends the snapshot again, and the second attempt does the rest. If two snapshots are processed at once, the one that began last wins.
pub(crate) async fn sync(
    services: &Services,
    project: ProjectId,
    snapshot: ScheduleListing,
    listed_at: DateTime<Utc>,
    skew: TimeDelta,
) -> Result<Verdict, ServiceError> {
    beat::check_name(&snapshot.beat)?;
    if snapshot.entries.len() > limits::BEAT_ENTRIES {
        return Err(ServiceError::Limit {
            what: "entries of one Beat",
            limit: limits::BEAT_ENTRIES as i64,
        });
    }
    let mut piece = services.paces.take(project, Work::FollowSchedule).await?;
    let mut refused = Vec::new();
    let mut entries: Vec<(&Entry, Expectation)> = Vec::new();
    let mut seen = HashSet::new();
    for entry in &snapshot.entries {
        if !seen.insert(entry.name.as_str()) {
            continue;
        }
        match expectation(entry) {
            Ok(expectation) => entries.push((entry, expectation)),
            Err(fault) => refused.push(format!("entry {:?}: {fault}", clip(&entry.name))),
        }
    }
    let mut sync = Sync {
        project,
        beat: &snapshot.beat,
        id: Uuid::now_v7(),
        boot: snapshot.boot,
        place: Place::NAMELESS,
        listed_at,
        came_at: services.now(),
        skew,
    };
    let mut tx = services.store.begin().await?;
    let mut beat = beat::lock_or_create(
        &mut tx,
        project,
        sync.beat,
        PERIOD_SECONDS,
        GRACE_SECONDS,
        sync.came_at,
    )
    .await?;
    if sync.boot.is_none() {
        deadbeat_store::celery::beat::listing::begin_sync(&mut tx, project, beat.id, sync.id).await?;
    }
    let identity = Identity {
        boot: snapshot.boot,
        host: snapshot.host,
        pid: snapshot.pid,
        started_at: snapshot.started_at,
        state: snapshot.state,
        exit_error: None,
    };
    let mut incarnations =
        Incarnations::on_report(&mut tx, &beat, &identity, skew, listed_at, sync.came_at).await?;
    let (listed, now) = (&snapshot.entries, sync.came_at);
    let place = incarnations
        .list(&mut tx, &beat, &identity, listed, sync.id, now)
        .await?;
    incarnations.write(&mut tx, &beat).await?;
    let Some(place) = place else {
        tx.commit().await?;
        return Err(ServiceError::Limit {
            what: "Beats of one name that run at once with schedules of their own",
            limit: LINEAGES.into(),
        });
    };
    sync.place = place;
    let is_of_schedule = |entry: &&Entry| entry.enabled && !entry.canary && !is_of_every_beat(&entry.name);
    let enabled = snapshot.entries.iter().filter(is_of_schedule).count();
    if enabled == 0 {
        // Record this before the first monitor is retired: a failure in between must not hide that the schedule vanished.
        let watched =
            deadbeat_store::celery::beat::lineage::watched_by(&mut tx, project, beat.id, place.alone).await?;
        schedule_emptied::note(&mut tx, &services.site, &mut beat, watched, enabled, sync.came_at).await?;
    }
    tx.commit().await?;

    let batches = entries.len().div_ceil(SYNC_BATCH);
    for (number, batch) in entries.chunks(SYNC_BATCH).enumerate() {
        if number > 0 {
            piece.pause(batches - number).await;
        }
        if !follow_batch(services, &sync, batch, &mut refused).await? {
            return Ok(Verdict::Accepted);
        }
    }
    // Keep the monitor of an invalid entry as it is, because the entry is still in the schedule. But retire a monitor whose name only older versions
    // accepted: no event can name it any more, so its silence must not alert anybody.
    let listed: Vec<String> = seen
        .into_iter()
        .filter(|name| Text::name(name, limits::MONITOR_NAME_CHARS).is_ok())
        .map(str::to_owned)
        .collect();
    let mut after = None;
    while let Some(last) = retire_batch(services, &sync, &listed, after).await? {
        after = Some(last);
        piece.pause(SOME_BATCHES).await;
    }
    if enabled > 0
        && let Some((mut tx, mut beat)) = sync.begin(services).await?
    {
        let is_over =
            schedule_emptied::note(&mut tx, &services.site, &mut beat, 0, enabled, services.now()).await?;
        tx.commit().await?;
        if is_over {
            services.outbox_bell.notify_one();
        }
    }
    if refused.is_empty() {
        Ok(Verdict::Accepted)
    } else {
        let shown = refused.iter().take(20).cloned().collect::<Vec<_>>().join("; ");
        Ok(Verdict::Rejected {
            code: "some_entries",
            detail: format!("{} of the entries are not watched: {shown}", refused.len()),
        })
    }
}

/// Updates the monitors of some entries in one transaction. Returns false if a newer snapshot has begun.
async fn follow_batch(
    services: &Services,
    sync: &Sync<'_>,
    entries: &[(&Entry, Expectation)],
    refused: &mut Vec<String>,
) -> Result<bool, ServiceError> {
    let Some((mut tx, beat)) = sync.begin(services).await? else {
        return Ok(false);
    };
    let now = services.now();
    let names: Vec<String> = entries.iter().map(|(entry, _)| entry.name.clone()).collect();
    let mut monitors: Vec<Monitor> = Vec::new();
    let mut unreadable: HashSet<String> = HashSet::new();
    for row in deadbeat_store::monitor::lock_entries(&mut tx, sync.project, sync.beat, &names).await? {
        match row {
            Ok(monitor) => monitors.push(monitor),
            Err(found) => {
                tracing::error!(monitor.id = %found.id, error = %with_sources(&found.error), "a monitor cannot be read and stays as it is");
                unreadable.extend(found.entry);
            }
        }
    }
    deadbeat_store::monitor::run::load_into(&mut tx, &mut monitors, &[]).await?;
    let lineage = sync.place.lineage;
    // An entry that an earlier application with the same name lists follows that application's schedule.
    if sync.place.elders != 0 {
        let ids: Vec<(ProjectId, MonitorId)> = monitors
            .iter()
            .map(|monitor| (sync.project, monitor.id))
            .collect();
        let listed_by = deadbeat_store::celery::beat::lineage::of_monitors(&mut tx, &ids).await?;
        let is_theirs = |monitor: &Monitor| {
            let by = listed_by.get(&monitor.id).copied().unwrap_or(0);
            monitor.retired_at.is_none() && by & sync.place.elders != 0
        };
        unreadable.extend(
            monitors
                .iter()
                .filter(|one| is_theirs(one))
                .filter_map(|one| one.entry.clone()),
        );
        monitors.retain(|monitor| !is_theirs(monitor));
    }
    deadbeat_store::celery::beat::lineage::mark(&mut tx, sync.project, beat.id, &names, lineage).await?;
    let mut known: HashMap<String, Monitor> = monitors
        .into_iter()
        .filter_map(|monitor| Some((monitor.entry.clone()?, monitor)))
        .collect();

    let mut followed = Vec::new();
    let mut new = Vec::new();
    let is_new = |name: &String| !known.contains_key(name) && !unreadable.contains(name);
    let mut count = if names.iter().any(is_new) {
        deadbeat_store::monitor::count(&mut tx, sync.project).await?
    } else {
        0
    };
    for (entry, expectation) in entries {
        let hint = sync.hint(entry);
        match known.remove(&entry.name) {
            Some(monitor) => followed.push(follow(monitor, entry, expectation.clone(), hint, now)?),
            None if unreadable.contains(&entry.name) => {}
            None if count >= limits::PROJECT_MONITORS => {
                refused.push(format!(
                    "entry {:?}: the project has reached its limit of monitors",
                    clip(&entry.name)
                ));
            }
            None => {
                new.push((*entry, expectation.clone(), hint));
                count += 1;
            }
        }
    }
    write(services, &mut tx, &beat, &followed).await?;
    let a_day = services.quotas.settings().created_monitors_per_day;
    let wanted = new.len() as i64;
    let created = Counted::CreatedMonitors(sync.project);
    let (granted, _) = spend_up_to(&mut tx, &created, wanted, a_day, now).await?;
    for (entry, ..) in new.drain(granted as usize..) {
        refused.push(format!(
            "entry {:?}: the project has used up the {a_day} monitors that ping keys may create a day",
            clip(&entry.name)
        ));
    }
    if !new.is_empty() {
        let names: Vec<String> = new.iter().map(|(entry, ..)| entry.name.clone()).collect();
        register(&mut tx, sync.project, &beat, new, now).await?;
        deadbeat_store::celery::beat::lineage::mark(&mut tx, sync.project, beat.id, &names, lineage).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Retires monitors whose entries have left the schedule, in one transaction. They are paused for good, without an alert. Returns the monitor after
/// which to continue, or `None` if all are retired or a newer snapshot has begun.
async fn retire_batch(
    services: &Services,
    sync: &Sync<'_>,
    listed: &[String],
    after: Option<MonitorId>,
) -> Result<Option<MonitorId>, ServiceError> {
    let Some((mut tx, beat)) = sync.begin(services).await? else {
        return Ok(None);
    };
    let now = services.now();
    let limit = SYNC_BATCH as i64;
    let alone = sync.place.alone;
    if after.is_none() {
        deadbeat_store::celery::beat::lineage::leave(&mut tx, sync.project, beat.id, listed, alone).await?;
    }
    let rows = deadbeat_store::monitor::lock_unlisted(&mut tx, &beat, listed, alone, after, limit).await?;
    let mut last = None;
    let is_full = rows.len() == SYNC_BATCH;
    let mut monitors: Vec<Monitor> = Vec::new();
    for row in rows {
        match row {
            Ok(monitor) => {
                last = Some(monitor.id);
                monitors.push(monitor);
            }
            Err(found) => {
                last = Some(found.id);
                tracing::error!(monitor.id = %found.id, error = %with_sources(&found.error), "a monitor cannot be read and stays as it is");
            }
        }
    }
    if monitors.is_empty() {
        tx.commit().await?;
        return Ok(last.filter(|_| is_full));
    }
    deadbeat_store::monitor::run::load_into(&mut tx, &mut monitors, &[]).await?;
    let retired: Vec<Followed> = monitors.into_iter().map(|monitor| retire(monitor, now)).collect();
    write(services, &mut tx, &beat, &retired).await?;
    tx.commit().await?;
    tracing::info!(beat.id = %beat.id, retired = retired.len(), "entries left Beat's schedule; their monitors are retired");
    Ok(last.filter(|_| is_full))
}

/// Retires monitors that only these lineages list, in the caller's transaction. Returns their number, and whether there may be more.
pub(crate) async fn retire_listed_by(
    services: &Services,
    tx: &mut Tx,
    beat: &Beat,
    lineages: Bits,
    now: DateTime<Utc>,
) -> Result<(usize, bool), ServiceError> {
    let limit = SYNC_BATCH as i64;
    let rows = deadbeat_store::monitor::lock_unlisted(tx, beat, &[], lineages, None, limit).await?;
    let is_full = rows.len() == SYNC_BATCH;
    // An unreadable monitor stays as it is.
    let mut monitors: Vec<Monitor> = rows.into_iter().filter_map(Result::ok).collect();
    deadbeat_store::monitor::run::load_into(tx, &mut monitors, &[]).await?;
    let retired: Vec<Followed> = monitors.into_iter().map(|monitor| retire(monitor, now)).collect();
    write(services, tx, beat, &retired).await?;
    Ok((retired.len(), is_full && !retired.is_empty()))
}

/// Writes monitors that were matched with their entries, in a few array statements, with all consequences of their transitions.
async fn write(
    services: &Services,
    tx: &mut Tx,
    beat: &Beat,
    followed: &[Followed],
) -> Result<(), ServiceError> {
    let changed: Vec<&Monitor> = followed
        .iter()
        .filter(|one| one.settings_changed)
        .map(|one| &one.monitor)
        .collect();
    if !changed.is_empty() {
        settings::update_registered(tx, &changed).await?;
        let subjects = changed.iter().map(|monitor| ChangeSubject::monitor(monitor.id));
        feed::note_all(tx, beat.project_id, subjects, ChangeKind::Changed, services.now());
    }
    let learns: Vec<(MonitorKey, bool)> = followed
        .iter()
        .filter_map(|one| Some((one.monitor.key(), one.learns?)))
        .collect();
    if !learns.is_empty() {
        deadbeat_store::monitor::baseline::begin(tx, &learns).await?;
    }
    let moved = followed
        .iter()
        .filter(|one| one.settings_changed || one.is_due_changed || one.transition.is_some())
        .map(|one| &one.monitor);
    write_states(tx, moved).await?;
    let background = background(beat);
    let occurrences: Vec<Occurrence<'_>> = followed
        .iter()
        .filter_map(|one| {
            Some(Occurrence {
                changed: Changed::Monitor(&one.monitor, &background),
                what: OccurrenceKind::Transition(one.transition?),
            })
        })
        .collect();
    incident::record(tx, &services.site, &occurrences).await?;
    Ok(())
}
