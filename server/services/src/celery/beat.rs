//! The reports of Beat about itself: heartbeats, a hanging loop, sendings and failed sendings.

pub mod at_once;
pub mod emptied;
pub mod flood;
pub mod incarnation;
pub mod schedule_emptied;
pub mod schedule_sync;
pub(crate) mod sending;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat::{STORM_WINDOW, is_alerted_of_crashes, is_crashing};
use deadbeat_domain::celery::switch::{on_delete, on_trouble};
use deadbeat_domain::celery::worker::{SKEW, SKEW_PATIENCE};
use deadbeat_domain::change::Trigger;
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{ApiKeyId, BeatId, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::transition::on_pause;
use deadbeat_domain::monitor::{FieldError, check_grace};
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::text::Text;
use deadbeat_store::Tx;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::beat::listing;
use deadbeat_store::celery::worker::queues;
use serde::Deserialize;
use uuid::Uuid;

use crate::celery::beat::incarnation::{Identity, Incarnations};
use crate::celery::event::Verdict;
use crate::celery::result_backend::report;
use crate::celery::{broker, result_backend};
use crate::incident::changed::{Background, Changed, Occurrence, OccurrenceKind};
use crate::people::audit;
use crate::{ServiceError, Services, feed, incident};

/// A heartbeat: the Beat lives.
#[derive(Debug, Deserialize)]
pub struct Heartbeat {
    /// The Beat's name.
    pub beat: String,
    /// The interval between its heartbeats, in seconds.
    pub period_seconds: f64,
    /// How long the Beat may be silent beyond that interval, in seconds.
    pub grace_seconds: f64,
    /// The boot id of the process: random, one for each start.
    #[serde(default)]
    pub boot: Option<Uuid>,
    /// The host on which the process runs.
    #[serde(default)]
    pub host: Option<Text>,
    /// The boot id of the host.
    #[serde(default)]
    pub boot_id: Option<Text>,
    /// The process id.
    #[serde(default)]
    pub pid: Option<i64>,
    /// When the process started, by its clock.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// The argument of `celery -A` for this process.
    #[serde(default)]
    pub project: Option<Text>,
    /// The state of its calls to the result backend. `None`: it does not report that, or has no result backend.
    #[serde(default)]
    pub result_backend: Option<crate::celery::result_backend::report::Report>,
    /// Whether the process continues. `None`: an older SDK, which does not report its end.
    #[serde(default)]
    pub state: Option<State>,
    /// The class of the error, if the process ends by one.
    #[serde(default)]
    pub exit_error: Option<Text>,
    /// False if the process lives, but its tick has not returned for longer than it should take.
    #[serde(default = "yes")]
    pub ticking: bool,
}

/// Whether a process of Beat continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The process continues.
    Running,
    /// The process ends because it was ordered to.
    Stopped,
    /// The process ends by an error.
    Failed,
}

fn yes() -> bool {
    true
}

pub(crate) fn check_name(name: &str) -> Result<(), ServiceError> {
    let mut faults = Vec::new();
    deadbeat_domain::monitor::check_name("/beat", name, 200, &mut faults);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ServiceError::Invalid(faults))
    }
}

/// Returns the fault of a Beat that lives, in this order: a crash loop with an incident, a storm a moment ago, one of several applications with its
/// name is silent, its schedule vanished, several processes run at once, clock skew.
fn trouble(
    beat: &Beat,
    loops: bool,
    emptied_at: Option<DateTime<Utc>>,
    at_once: Option<Cause>,
    skew: TimeDelta,
    now: DateTime<Utc>,
) -> Option<(Cause, TimeDelta)> {
    if loops {
        return Some((Cause::BeatCrashLoop, TimeDelta::zero()));
    }
    let storms = beat.state.trouble == Some(Cause::BeatStorm)
        && beat.state.since.is_some_and(|since| now - since < STORM_WINDOW);
    if storms {
        Some((Cause::BeatStorm, TimeDelta::zero()))
    } else {
        let at_once = |is_silent: bool| {
            let found = at_once.filter(|cause| (*cause == Cause::BeatDown) == is_silent);
            found.map(|cause| (cause, TimeDelta::zero()))
        };
        let skewed = || (skew.abs() >= SKEW).then_some((Cause::ClockSkew, SKEW_PATIENCE));
        at_once(true)
            .or_else(|| schedule_emptied::trouble(emptied_at))
            .or_else(|| at_once(false))
            .or_else(skewed)
    }
}

/// Locks the Beat with that name. Creates a missing one with this period and grace.
pub(crate) async fn lock_or_create(
    tx: &mut Tx,
    project: ProjectId,
    name: &str,
    period_seconds: f64,
    grace_seconds: f64,
    now: DateTime<Utc>,
) -> Result<Beat, ServiceError> {
    if let Some(known) = deadbeat_store::celery::beat::lock(tx, project, name).await? {
        return Ok(known);
    }
    if deadbeat_store::celery::beat::count(tx, project).await? >= limits::PROJECT_APPS {
        return Err(ServiceError::Limit {
            what: "applications of a project",
            limit: limits::PROJECT_APPS,
        });
    }
    Ok(
        deadbeat_store::celery::beat::lock_or_create(tx, project, name, period_seconds, grace_seconds, now)
            .await?,
    )
}

/// Returns the name of a Beat among the processes that may sample the broker.
fn looker(beat: &Beat) -> String {
    format!("beat of {}", beat.name)
}

/// Handles a heartbeat of Beat.
pub(crate) async fn alive(
    services: &Services,
    project: ProjectId,
    alive: Heartbeat,
    seen_at: DateTime<Utc>,
    skew: TimeDelta,
    key: Option<ApiKeyId>,
) -> Result<Verdict, ServiceError> {
    check_name(&alive.beat)?;
    let mut faults = Vec::new();
    check_grace("/grace_seconds", alive.grace_seconds, &mut faults);
    if !(0.1..=86_400.0).contains(&alive.period_seconds) {
        faults.push(FieldError::new(
            "/period_seconds",
            format!("is {}; 0.1 to 86400 is allowed", alive.period_seconds),
        ));
    }
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }

    let now = services.now();
    let mut tx = services.store.begin().await?;
    let mut beat = lock_or_create(
        &mut tx,
        project,
        &alive.beat,
        alive.period_seconds,
        alive.grace_seconds,
        now,
    )
    .await?;
    beat.state.period_seconds = alive.period_seconds;
    beat.state.grace_seconds = alive.grace_seconds;
    beat.host = alive.host.clone().map(String::from);
    beat.project_word = alive.project.map(String::from).or(beat.project_word);
    let identity = Identity {
        boot: alive.boot,
        host: alive.host,
        pid: alive.pid,
        started_at: alive.started_at,
        state: alive.state,
        exit_error: alive.exit_error,
    };
    if identity.has_ended() {
        // The end alone raises no fault. The deadlines of its entries pass if no Beat starts again.
        let incarnations = Incarnations::on_report(&mut tx, &beat, &identity, skew, seen_at, now).await?;
        incarnations.write(&mut tx, &beat).await?;
        tx.commit().await?;
        return Ok(Verdict::Accepted);
    }
    let report = alive.result_backend.map(|report| report.on_our_clock(skew, now));
    let before = deadbeat_store::celery::result_backend::of_beat(&mut tx, project, beat.id).await?;
    if before.is_some() || report.is_some() {
        let stored = report
            .as_ref()
            .and_then(|report| serde_json::to_value(report).ok());
        deadbeat_store::celery::result_backend::note(&mut tx, project, beat.id, stored.as_ref()).await?;
    }
    deadbeat_store::celery::host::note_beat(&mut tx, project, beat.id, alive.boot_id.as_deref()).await?;
    let was_troubled = report::is_troubled(before.as_ref());
    let broker = deadbeat_store::celery::broker::of_app(&mut tx, project, &beat.name).await?;
    if !alive.ticking {
        beat.hung_at = Some(now);
        // The process's thread lives, but its loop hangs. Keep the Beat's own deadline, which passes if the loop hangs for too long.
        deadbeat_store::celery::beat::update(&mut tx, std::slice::from_ref(&beat), false).await?;
        // The loop may hang because of its own connection to the broker, so another process must sample the broker.
        deadbeat_store::celery::broker::dismiss(&mut tx, project, &beat.name, &looker(&beat)).await?;
        let (broker, report) = (broker.as_ref(), report.as_ref());
        let is_changed =
            result_backend::on_report(&mut tx, &services.site, broker, was_troubled, report, now).await?;
        tx.commit().await?;
        if is_changed {
            services.outbox_bell.notify_one();
        }
        return Ok(Verdict::Received {
            samples: false,
            queues: Vec::new(),
        });
    }
    let emptied_at = listing::emptied_at(&mut tx, project, beat.id).await?;
    let mut incarnations = Incarnations::on_report(&mut tx, &beat, &identity, skew, seen_at, now).await?;
    let (standing, listed) = incarnations.standing(&mut tx, &beat, now).await?;
    incarnations.write(&mut tx, &beat).await?;
    let at_once = incarnations.trouble(&beat, standing, listed, now);
    let cause = at_once.as_ref().map(|(cause, _)| *cause);
    let is_alerted = is_alerted_of_crashes(&beat.state)
        || (incarnations.are_several()
            && deadbeat_store::incident::is_open(
                &mut tx,
                project,
                SubjectKind::Beat,
                beat.id.0,
                Cause::BeatCrashLoop,
            )
            .await?);
    let crashes = incarnations.crashes(is_alerted, now);
    let loops = is_crashing(&mut beat.state, crashes.len(), is_alerted);
    let trouble = trouble(&beat, loops, emptied_at, cause, skew, now);
    let transition = deadbeat_domain::celery::switch::on_heartbeat(&mut beat.state, trouble, seen_at, now);
    // If a fault with an incident has ended, the next fault need not last before its incident opens: monitors may wait for that incident.
    let successor = transition
        .filter(|transition| transition.trigger == Trigger::Restored)
        .and_then(|_| on_trouble(&mut beat.state, trouble, now));
    deadbeat_store::celery::beat::update(&mut tx, std::slice::from_ref(&beat), false).await?;
    // Lock the broker's row before monitors, as a process with a sample does.
    let (samples, queues) = broker::samples_wanted(
        &mut tx,
        project,
        &beat.name,
        &looker(&beat),
        broker.as_ref(),
        key,
        now,
    )
    .await?;
    let most = limits::WORKER_QUEUES as i64;
    let attended = queues::attended_queues(&mut tx, project, &beat.name, key, most).await?;
    let mut is_changed = transition.is_some();
    if transition.is_none() {
        let (broker, report) = (broker.as_ref(), report.as_ref());
        is_changed =
            result_backend::on_report(&mut tx, &services.site, broker, was_troubled, report, now).await?;
    }
    if let Some(transition) = transition {
        if transition.from == Status::Down {
            let well = [(project, SubjectKind::Beat, beat.id.0)];
            incident::rearm_members(&mut tx, &services.site, &well, now).await?;
        }
        let emptied = match emptied_at.filter(|_| {
            let emptied = Trigger::Trouble(Cause::ScheduleEmptied);
            std::iter::once(transition)
                .chain(successor)
                .any(|transition| transition.trigger == emptied)
        }) {
            Some(at) => Some(schedule_emptied::evidence(&mut tx, &beat, at).await?),
            None => None,
        };
        let occurrences: Vec<Occurrence<'_>> = std::iter::once(transition)
            .chain(successor)
            .map(|transition| {
                let changed = match (&emptied, &at_once, transition.trigger) {
                    (Some(emptied), _, Trigger::Trouble(Cause::ScheduleEmptied)) => {
                        Changed::Emptied(&beat, emptied)
                    }
                    (.., Trigger::Trouble(Cause::BeatCrashLoop)) => Changed::Crashing(&beat, &crashes),
                    (_, Some((at_once, processes)), Trigger::Trouble(cause)) if cause == *at_once => {
                        Changed::Several(&beat, processes)
                    }
                    _ => Changed::Beat(&beat),
                };
                Occurrence {
                    changed,
                    what: OccurrenceKind::Transition(transition),
                }
            })
            .collect();
        incident::record(&mut tx, &services.site, &occurrences).await?;
    }
    tx.commit().await?;
    if standing.replaced != 0 {
        incarnation::release(services, project, beat.id).await?;
    }
    if is_changed {
        services.outbox_bell.notify_one();
    }
    Ok(Verdict::Ticked {
        samples,
        queues,
        attended,
    })
}

/// The number of monitors that one transaction deletes. It holds their locks only for a moment, so signals of other monitors never wait for all of
/// them.
const DELETE_BATCH: i64 = 200;

/// Deletes an application that no longer exists: its Beat and the monitors of its entries. Their incidents end. If the Beat still runs, it registers
/// everything again.
///
/// The monitors are deleted in several transactions, and the Beat in the last one. After a failure in between, a repeated call continues.
///
/// # Errors
/// If the access does not allow this, [`ServiceError::NotFound`], or the database cannot be reached.
pub async fn delete(services: &Services, access: &Access, id: BeatId) -> Result<(), ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let mut has_begun = false;
    loop {
        let mut tx = services.store.begin().await?;
        let Some(mut beat) = deadbeat_store::celery::beat::lock_by_id(&mut tx, project, id).await? else {
            // Another caller may have deleted the rest.
            return if has_begun {
                Ok(())
            } else {
                Err(ServiceError::NotFound("Beat"))
            };
        };
        // Otherwise a snapshot that is being processed would register again the monitors that are deleted here.
        listing::begin_sync(&mut tx, project, id, Uuid::now_v7()).await?;
        deadbeat_store::celery::beat::note_incarnations(&mut tx, project, id, &[]).await?;
        let now = services.now();
        let mut ids = Vec::new();
        let mut gone = Vec::new();
        for row in deadbeat_store::monitor::lock_of_beat(&mut tx, project, id, DELETE_BATCH).await? {
            match row {
                Ok(mut monitor) => {
                    ids.push(monitor.id);
                    if let Some(transition) = on_pause(&mut monitor.state, Trigger::Delete, now) {
                        gone.push((monitor, transition));
                    }
                }
                // An unreadable monitor is deleted without a transition.
                Err(unreadable) => ids.push(unreadable.id),
            }
        }
        let is_last = (ids.len() as i64) < DELETE_BATCH;
        let of_beat = if is_last {
            on_delete(&mut beat.state, now)
        } else {
            None
        };
        let background = Background::default();
        let occurrences: Vec<Occurrence<'_>> = gone
            .iter()
            .map(|(monitor, transition)| (Changed::Monitor(monitor, &background), *transition))
            .chain(of_beat.map(|transition| (Changed::Beat(&beat), transition)))
            .map(|(changed, transition)| Occurrence {
                changed,
                what: OccurrenceKind::Transition(transition),
            })
            .collect();
        incident::record(&mut tx, &services.site, &occurrences).await?;
        deadbeat_store::monitor::delete_all(&mut tx, project, &ids).await?;
        let mut deleted: Vec<ChangeSubject> = ids.into_iter().map(ChangeSubject::monitor).collect();
        if is_last {
            deadbeat_store::celery::beat::delete(&mut tx, project, id).await?;
            audit::note(
                &mut tx,
                Entry::new(access, project, Act::BeatDeleted, id.0, now).named(&beat.name),
            );
            deleted.push(ChangeSubject::Watched(SubjectKind::Beat, id.0));
        }
        feed::note_all(&mut tx, project, deleted, ChangeKind::Deleted, now);
        tx.commit().await?;
        services.outbox_bell.notify_one();
        if is_last {
            return Ok(());
        }
        has_begun = true;
    }
}

/// Records that a process of Beat's application dropped events. Verdicts then do not conclude anything from missing reports of that time.
pub(crate) async fn events_lost(
    services: &Services,
    project: ProjectId,
    name: &str,
    count: u64,
) -> Result<Verdict, ServiceError> {
    check_name(name)?;
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let mut tx = services.store.begin().await?;
    deadbeat_store::celery::beat::lose_events(&mut tx, project, name, count, services.now()).await?;
    tx.commit().await?;
    Ok(Verdict::Accepted)
}
