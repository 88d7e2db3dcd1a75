//! Lost hosts: one incident about the host, and none about the Beats and workers on it.
//!
//! The sweeps of Beats and workers call this module before a silence opens an incident. If the other parts of the host are also silent, the first
//! part's incident becomes the host's. Open incidents are checked each second. Parts that report again leave the incident's text. When all have come
//! back or signed off, the incident ends.

pub mod lost;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::host::{BACK_FOR, LONGEST_HOLD, Part, Verdict, judge, works_after};
use deadbeat_domain::celery::switch::{self, Switch};
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::change::{Transition, Trigger};
use deadbeat_domain::ids::{BeatId, IncidentId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Subject, SubjectKind};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::host::open;
use deadbeat_store::celery::host::open::{Open, RewrittenText};
use deadbeat_store::celery::host::{Linked, Resident};
use deadbeat_store::incident::member::Affected;
use deadbeat_store::{Store, StoreResult, Tx};
use uuid::Uuid;

use self::lost::Host;
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};
use crate::incident::explain::{self, Explanation};
use crate::{Site, feed, incident};

/// If a host turns out to work, its parts are judged again after this time.
const HELD: TimeDelta = TimeDelta::seconds(2);
/// The most parts whose machines one query reads.
const ASKED_FOR: usize = 100;
/// The most incidents that are checked in one second. If more are open, they take turns.
const BATCH: i64 = 100;
/// A Beat or a worker that a sweep has found silent.
pub(crate) struct Fallen<'a> {
    /// Its id.
    pub(crate) id: Uuid,
    /// The project that owns it.
    pub(crate) project: ProjectId,
    /// Its state after the sweep.
    pub(crate) state: &'a mut Switch,
    /// Its state before the sweep.
    pub(crate) before: Switch,
    /// The sweep's transition.
    pub(crate) transition: &'a mut Option<Transition>,
}

impl<'a> Fallen<'a> {
    /// Returns `None` unless it has just fallen silent.
    pub(crate) fn of(
        id: Uuid,
        project: ProjectId,
        state: &'a mut Switch,
        before: Switch,
        transition: &'a mut Option<Transition>,
    ) -> Option<Self> {
        let is_silent = transition.is_some_and(|transition| {
            transition.to == Status::Down
                && matches!(
                    transition.trigger,
                    Trigger::Trouble(Cause::BeatDown | Cause::WorkerLost)
                )
        });
        is_silent.then_some(Self {
            id,
            project,
            state,
            before,
            transition,
        })
    }

    /// Postpones the judgement.
    fn hold(&mut self, until: DateTime<Utc>) {
        *self.state = self.before.clone();
        switch::hold(self.state, until);
        *self.transition = None;
    }
}

impl Host {
    fn ids(&self, kind: SubjectKind) -> Vec<Uuid> {
        let of = self.silent.iter().filter(|one| one.kind == kind);
        of.map(|one| one.part.id).collect()
    }

    fn occurrences(&self, to: Status, trigger: Trigger, at: DateTime<Utc>) -> Occurrence<'_> {
        let from = if to == Status::Down {
            Status::Up
        } else {
            Status::Down
        };
        Occurrence {
            changed: Changed::Host(self),
            what: OccurrenceKind::Transition(Transition {
                from,
                to,
                trigger,
                at,
            }),
        }
    }
}

/// Judges silences together with the other Beats and workers on the same machines. Parts of a lost host join its incident. Returns the lost hosts,
/// for which the caller must call [`open_incidents`] after writing the states.
pub(crate) async fn judge_fallen(
    tx: &mut Tx,
    mut fallen: Vec<Fallen<'_>>,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> StoreResult<Vec<Host>> {
    if fallen.is_empty() {
        return Ok(Vec::new());
    }
    let mut projects: Vec<ProjectId> = fallen.iter().map(|one| one.project).collect();
    projects.sort_unstable();
    projects.dedup();
    let ids: Vec<Uuid> = fallen.iter().map(|one| one.id).collect();
    let mut machines: HashMap<(ProjectId, String), Vec<Resident>> = HashMap::new();
    let mut place: HashMap<Uuid, (ProjectId, String)> = HashMap::new();
    for some in ids.chunks(ASKED_FOR) {
        for one in deadbeat_store::celery::host::beside(tx, &projects, some).await? {
            let machine = (one.project_id, one.machine.clone());
            if place.insert(one.part.id, machine.clone()).is_none() {
                machines.entry(machine).or_default().push(one);
            }
        }
    }
    let mut lost: HashMap<Uuid, Host> = HashMap::new();
    for one in &mut fallen {
        let Some(residents) = place.get(&one.id).and_then(|machine| machines.get(machine)) else {
            continue;
        };
        let parts: Vec<Part> = residents.iter().map(|one| one.part).collect();
        let Some(part) = parts.iter().find(|part| part.id == one.id) else {
            continue;
        };
        match judge(part, &parts, now, spells) {
            Verdict::Own => {}
            Verdict::Wait(until) => one.hold(until),
            Verdict::Lost(ids) => {
                let silent: Vec<Resident> = residents
                    .iter()
                    .filter(|resident| ids.contains(&resident.part.id))
                    .cloned()
                    .collect();
                let beats: Vec<(Uuid, DateTime<Utc>)> = silent
                    .iter()
                    .filter(|one| one.kind == SubjectKind::Beat)
                    .map(|one| (one.part.id, works_after(&one.part, now)))
                    .collect();
                let works = !beats.is_empty()
                    && deadbeat_store::celery::host::has_sent_since(tx, one.project, &beats).await?;
                if works && now - part.heard_at < LONGEST_HOLD {
                    one.hold(now + HELD);
                    continue;
                }
                if let Some(transition) = one.transition {
                    transition.trigger = Trigger::PartOf(Cause::HostLost);
                }
                if let Some(host) = Host::of(silent, works) {
                    lost.entry(host.id).or_insert(host);
                }
            }
        }
    }
    Ok(lost.into_values().collect())
}

/// Opens incidents about lost hosts, unless one is open. If one of a host's parts has an incident, it becomes the host's, and no second alert is
/// sent.
pub(crate) async fn open_incidents(
    tx: &mut Tx,
    site: &Site,
    lost: &[Host],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    for host in lost {
        let mut parts = host.silent.clone();
        let subjects: Vec<(SubjectKind, Uuid)> = parts.iter().map(|one| (one.kind, one.part.id)).collect();
        let ids: Vec<Uuid> = parts.iter().map(|one| one.part.id).collect();
        let known =
            deadbeat_store::incident::subjects_open(tx, host.project_id, &[(SubjectKind::Host, host.id)])
                .await?;
        if known.is_empty() {
            let about_part = open::about_part(tx, host.project_id, &ids).await?;
            if let Some(incident) = about_part {
                rewrite(tx, host.project_id, incident, &rewritten_text(host), now).await?;
            } else {
                let (beats, workers) = (host.ids(SubjectKind::Beat), host.ids(SubjectKind::Worker));
                let most = limits::ALERT_MEMBERS;
                let host = Host {
                    affected: deadbeat_store::celery::host::first_affected(
                        tx,
                        host.project_id,
                        &beats,
                        &workers,
                        most,
                    )
                    .await?,
                    ..host.clone()
                };
                let down = host.occurrences(Status::Down, Trigger::Trouble(Cause::HostLost), now);
                incident::record(tx, site, &[down]).await?;
            }
        }
        // If two parts have an incident each, only one becomes the host's, and the other stays.
        let own = deadbeat_store::incident::subjects_open(tx, host.project_id, &subjects).await?;
        parts.retain(|one| !own.contains(&(one.kind, one.part.id)));
        deadbeat_store::celery::host::link(tx, host.project_id, host.id, &parts).await?;
    }
    Ok(())
}

/// Changes the subject, the cause or the text of an open incident.
async fn rewrite(
    tx: &mut Tx,
    project: ProjectId,
    id: IncidentId,
    rewritten: &RewrittenText,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    open::rewrite(tx, project, id, rewritten).await?;
    feed::note(tx, project, ChangeSubject::Incident(id), ChangeKind::Changed, now);
    Ok(())
}

fn rewritten_text(host: &Host) -> RewrittenText {
    let Explanation {
        summary,
        evidence,
        repair,
    } = explain::of_host(host).visible();
    RewrittenText {
        subject: host.subject(),
        cause: Cause::HostLost,
        summary,
        evidence,
        repair,
    }
}

/// Checks at most `limit` open incidents about hosts after a given one, each in its own transaction. Returns how many ended, and the last checked
/// one, or `None` if there are no more.
pub(crate) async fn judge_once(
    store: &Store,
    site: &Site,
    now: DateTime<Utc>,
    after: Option<IncidentId>,
) -> StoreResult<(usize, Option<IncidentId>)> {
    let mut tx = store.begin().await?;
    let open = open::open_after(&mut tx, after, BATCH).await?;
    drop(tx);
    let mut over = 0;
    for one in &open {
        let mut tx = store.begin().await?;
        let (ended, is_kept) = judge_open(&mut tx, site, one, now).await?;
        if is_kept {
            tx.commit().await?;
            over += usize::from(ended);
        }
    }
    let last = open.last().map(|last| last.id);
    Ok((over, last.filter(|_| open.len() as i64 == BATCH)))
}

/// The parts of a lost host. A part that signed off is neither silent nor back.
#[derive(Debug, Default)]
struct Standing {
    silent: Vec<Resident>,
    /// Parts that report again, and since when the server has known that.
    back: Vec<(Resident, Option<DateTime<Utc>>)>,
    /// Parts that report again, which is not recorded yet.
    fresh: Vec<Uuid>,
}

impl Standing {
    fn of(parts: Vec<Linked>) -> Self {
        let mut standing = Self::default();
        for linked in parts {
            // Any other time means another report, even an earlier time: the server's clock may have been set back.
            let has_reported = |one: &Resident| one.part.heard_at != linked.heard_at;
            match linked.resident {
                Some(one) if linked.back_at.is_none() && !has_reported(&one) => {
                    standing.silent.push(one);
                    continue;
                }
                Some(one) => standing.back.push((one, linked.back_at)),
                None => {}
            }
            if linked.back_at.is_none() {
                standing.fresh.push(linked.id);
            }
        }
        standing
    }
}

/// Checks one incident. Returns whether it has ended, and whether to commit.
async fn judge_open(tx: &mut Tx, site: &Site, open: &Open, now: DateTime<Utc>) -> StoreResult<(bool, bool)> {
    let parts = deadbeat_store::celery::host::parts_of(tx, open.project_id, open.id).await?;
    let Standing { silent, back, fresh } = Standing::of(parts);
    if silent.is_empty() {
        return Ok((true, end(tx, site, open, &back, now).await?));
    }
    if !fresh.is_empty() {
        deadbeat_store::celery::host::note_back(tx, open.project_id, open.id, &fresh, now).await?;
    }
    if let [one] = silent.as_slice()
        && back.iter().any(|(other, since)| {
            other.machine == one.machine && since.is_some_and(|since| now - since >= BACK_FOR)
        })
        && let Some(rewritten) = own(tx, one).await?
    {
        // The machine still runs, so only this part is silent.
        rewrite(tx, open.project_id, open.id, &rewritten, now).await?;
        return Ok((false, true));
    }
    let host = Host {
        id: open.subject.id,
        project_id: open.project_id,
        name: open.subject.name.clone(),
        silent,
        back: back.into_iter().map(|(one, _)| one).collect(),
        works: false,
        affected: Affected::default(),
    };
    let rewritten = rewritten_text(&host);
    if rewritten.summary != open.summary {
        rewrite(tx, open.project_id, open.id, &rewritten, now).await?;
    }
    Ok((false, true))
}

/// Ends an incident whose parts are all back or have signed off. Returns false if one has fallen silent in the meantime: then do not commit.
async fn end(
    tx: &mut Tx,
    site: &Site,
    open: &Open,
    back: &[(Resident, Option<DateTime<Utc>>)],
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    incident::rearm_members(
        tx,
        site,
        &[(open.project_id, SubjectKind::Host, open.subject.id)],
        now,
    )
    .await?;
    let host = Host {
        id: open.subject.id,
        project_id: open.project_id,
        name: open.subject.name.clone(),
        silent: Vec::new(),
        back: Vec::new(),
        works: false,
        affected: Affected::default(),
    };
    let trigger = if back.is_empty() {
        Trigger::GiveUp
    } else {
        Trigger::Report
    };
    incident::record(tx, site, &[host.occurrences(Status::Up, trigger, now)]).await?;
    // The incident is now locked, so no further part can join it.
    let parts = deadbeat_store::celery::host::parts_of(tx, open.project_id, open.id).await?;
    let standing = Standing::of(parts);
    deadbeat_store::celery::host::note_back(tx, open.project_id, open.id, &standing.fresh, now).await?;
    Ok(standing.silent.is_empty())
}

/// Returns the text for one part's own incident, or `None` if the part is not overdue or has an incident.
async fn own(tx: &mut Tx, one: &Resident) -> StoreResult<Option<RewrittenText>> {
    let subject = (one.kind, one.part.id);
    let is_alerted = !deadbeat_store::incident::subjects_open(tx, one.project_id, &[subject])
        .await?
        .is_empty();
    if one.status != Status::Down || is_alerted {
        return Ok(None);
    }
    let (cause, explained) = if one.kind == SubjectKind::Beat {
        let beats =
            deadbeat_store::celery::beat::by_ids(tx, &[(one.project_id, BeatId(one.part.id))]).await?;
        let cause = Cause::BeatDown;
        (cause, beats.first().map(|beat| explain::of_beat(beat, cause)))
    } else {
        let workers = deadbeat_store::celery::worker::of_app(tx, one.project_id, &one.app).await?;
        let worker = workers.iter().find(|worker| worker.id.0 == one.part.id);
        let cause = Cause::WorkerLost;
        (cause, worker.map(|worker| explain::of_worker(worker, cause)))
    };
    Ok(explained
        .map(Explanation::visible)
        .map(|explained| RewrittenText {
            subject: Subject {
                kind: one.kind,
                id: one.part.id,
                name: one.name.clone(),
            },
            cause,
            summary: explained.summary,
            evidence: explained.evidence,
            repair: explained.repair,
        }))
}
