//! A host that is lost with all that runs on it: one incident about the host, and none about its parts.
//!
//! The sweeps of Beats and workers ask here before a silence becomes an incident of its own. What has been told of the first part becomes
//! the incident about the host when the others turn out to be silent, too. Each second the open ones are looked at: whoever is back is taken
//! out of their words, and when all are back or have left, they end.

pub mod lost;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::host::{BACK_FOR, LONGEST_HOLD, Part, Verdict, judge, works_after};
use deadbeat_domain::celery::switch::{self, Switch};
use deadbeat_domain::change::{Transition, Trigger};
use deadbeat_domain::ids::{BeatId, IncidentId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Subject, SubjectKind};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::host::told;
use deadbeat_store::celery::host::told::{Open, Retold};
use deadbeat_store::celery::host::{Linked, Resident};
use deadbeat_store::incident::member::Affected;
use deadbeat_store::{Store, StoreResult, Tx};
use uuid::Uuid;

use self::lost::Host;
use crate::incident::changed::{Changed, News, What};
use crate::incident::explain::{self, Explanation};
use crate::{Site, incident};

/// A host that is seen to work is looked at again after this.
const HELD: TimeDelta = TimeDelta::seconds(2);
/// Parts whose machines are asked for at a time.
const ASKED_FOR: usize = 100;
/// Incidents that are looked at in one second. When more are open, each has its turn.
const LOOKED_AT: i64 = 100;
/// A Beat or a worker whose silence a sweep has found.
pub(crate) struct Fallen<'a> {
    /// Its id.
    pub(crate) id: Uuid,
    /// Whose it is.
    pub(crate) project: ProjectId,
    /// Its state, which the sweep has moved.
    pub(crate) state: &'a mut Switch,
    /// The same, before that.
    pub(crate) before: Switch,
    /// What the sweep makes of it.
    pub(crate) transition: &'a mut Option<Transition>,
}

impl<'a> Fallen<'a> {
    /// None: it has not just fallen silent.
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

    /// It is not judged yet.
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

    fn news(&self, to: Status, trigger: Trigger, at: DateTime<Utc>) -> News<'_> {
        let from = if to == Status::Down {
            Status::Up
        } else {
            Status::Down
        };
        News {
            changed: Changed::Host(self),
            what: What::Transition(Transition {
                from,
                to,
                trigger,
                at,
            }),
        }
    }
}

/// Judges silences with what else runs on the same machines. Those of a lost host are part of its incident; answers the hosts, which are to
/// be told with [`tell`] once the states are written.
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

/// Tells of lost hosts, unless that is told, or one of their parts is: then that incident becomes the host's, and nobody is told again.
pub(crate) async fn tell(tx: &mut Tx, site: &Site, lost: &[Host], now: DateTime<Utc>) -> StoreResult<()> {
    for host in lost {
        let mut parts = host.silent.clone();
        let subjects: Vec<(SubjectKind, Uuid)> = parts.iter().map(|one| (one.kind, one.part.id)).collect();
        let ids: Vec<Uuid> = parts.iter().map(|one| one.part.id).collect();
        let known =
            deadbeat_store::incident::subjects_open(tx, host.project_id, &[(SubjectKind::Host, host.id)])
                .await?;
        if known.is_empty() {
            let told_of_part = told::told_of_part(tx, host.project_id, &ids).await?;
            if let Some(incident) = told_of_part {
                told::rewrite(tx, host.project_id, incident, &retold(host)).await?;
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
                let down = host.news(Status::Down, Trigger::Trouble(Cause::HostLost), now);
                incident::record(tx, site, &[down]).await?;
            }
        }
        // Of two that were told before the host was, one keeps its incident.
        let own = deadbeat_store::incident::subjects_open(tx, host.project_id, &subjects).await?;
        parts.retain(|one| !own.contains(&(one.kind, one.part.id)));
        deadbeat_store::celery::host::link(tx, host.project_id, host.id, &parts).await?;
    }
    Ok(())
}

fn retold(host: &Host) -> Retold {
    let Explanation {
        summary,
        evidence,
        repair,
    } = explain::of_host(host).visible();
    Retold {
        subject: host.subject(),
        cause: Cause::HostLost,
        summary,
        evidence,
        repair,
    }
}

/// Looks at the open incidents about hosts after one, each in a transaction of its own: so many at most. Answers how many ended, and the last one that
/// was looked at; None: there are no more.
pub(crate) async fn look_once(
    store: &Store,
    site: &Site,
    now: DateTime<Utc>,
    after: Option<IncidentId>,
) -> StoreResult<(usize, Option<IncidentId>)> {
    let mut tx = store.begin().await?;
    let open = told::open_after(&mut tx, after, LOOKED_AT).await?;
    drop(tx);
    let mut over = 0;
    for one in &open {
        let mut tx = store.begin().await?;
        let (ended, is_kept) = look(&mut tx, site, one, now).await?;
        if is_kept {
            tx.commit().await?;
            over += usize::from(ended);
        }
    }
    let last = open.last().map(|last| last.id);
    Ok((over, last.filter(|_| open.len() as i64 == LOOKED_AT)))
}

/// How the parts of a lost host stand. Who has left is neither silent nor back.
#[derive(Debug, Default)]
struct Standing {
    silent: Vec<Resident>,
    /// Heard again, and since when that is known.
    back: Vec<(Resident, Option<DateTime<Utc>>)>,
    /// No longer silent, which is still to be noted.
    fresh: Vec<Uuid>,
}

impl Standing {
    fn of(parts: Vec<Linked>) -> Self {
        let mut standing = Self::default();
        for linked in parts {
            // An earlier time, too, is another report: our clock may have been stepped back.
            let is_heard = |one: &Resident| one.part.heard_at != linked.heard_at;
            match linked.resident {
                Some(one) if linked.back_at.is_none() && !is_heard(&one) => {
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

/// Looks at one. Answers whether it has ended, and whether what was done is to be kept.
async fn look(tx: &mut Tx, site: &Site, open: &Open, now: DateTime<Utc>) -> StoreResult<(bool, bool)> {
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
        && let Some(told) = own(tx, one).await?
    {
        // The machine goes on: it was this one alone.
        told::rewrite(tx, open.project_id, open.id, &told).await?;
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
    let told = retold(&host);
    if told.summary != open.summary {
        told::rewrite(tx, open.project_id, open.id, &told).await?;
    }
    Ok((false, true))
}

/// All are back, or have left. False: one has fallen silent meanwhile, and nothing is to be kept.
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
    incident::record(tx, site, &[host.news(Status::Up, trigger, now)]).await?;
    // It is held now: nobody joins it any more.
    let parts = deadbeat_store::celery::host::parts_of(tx, open.project_id, open.id).await?;
    let standing = Standing::of(parts);
    deadbeat_store::celery::host::note_back(tx, open.project_id, open.id, &standing.fresh, now).await?;
    Ok(standing.silent.is_empty())
}

/// What is told of one part on its own. None: that is not overdue, or has an incident.
async fn own(tx: &mut Tx, one: &Resident) -> StoreResult<Option<Retold>> {
    let subject = (one.kind, one.part.id);
    let is_told = !deadbeat_store::incident::subjects_open(tx, one.project_id, &[subject])
        .await?
        .is_empty();
    if one.status != Status::Down || is_told {
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
    Ok(explained.map(Explanation::visible).map(|explained| Retold {
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
