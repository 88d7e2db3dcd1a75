//! Workers as a kind of switch: how the sweep claims, judges and writes them.

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::celery::worker::incarnation::next_judgement;
use deadbeat_domain::celery::worker::succession::{self, of_lost};
use deadbeat_domain::change::Transition;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::incident::{SubjectKey, SubjectKind};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::{StoreResult, Tx, Unreadable};
use uuid::Uuid;

use super::switches::Kind;
use crate::celery::worker::orphan::{self, Colleagues, Owners};
use crate::incident::changed::Changed;

/// Facts about the runs and colleagues of the judged workers.
#[derive(Default)]
pub(super) struct Learned {
    owners: Owners,
    colleagues: Colleagues,
}

impl Kind for Worker {
    const SUBJECT: SubjectKind = SubjectKind::Worker;
    type Learned = Learned;

    fn parts(&mut self) -> (Uuid, ProjectId, &mut Switch) {
        (self.id.0, self.project_id, &mut self.state)
    }

    async fn claim(
        tx: &mut Tx,
        now: DateTime<Utc>,
        limit: i64,
    ) -> StoreResult<Vec<Result<Self, Unreadable>>> {
        deadbeat_store::celery::worker::claim_overdue(tx, now, limit).await
    }

    async fn set_aside(tx: &mut Tx, project: ProjectId, id: Uuid, until: DateTime<Utc>) -> StoreResult<()> {
        deadbeat_store::celery::worker::set_aside(tx, project, id, until).await
    }

    async fn judge(
        &mut self,
        tx: &mut Tx,
        learned: &mut Learned,
        now: DateTime<Utc>,
        spells: &[BlindSpell],
    ) -> StoreResult<Option<Transition>> {
        learned.owners.end_silent(self, now, spells);
        orphan::judge_silence(tx, self, &mut learned.colleagues, now, spells).await
    }

    async fn update(
        tx: &mut Tx,
        judged: &[Self],
        now: DateTime<Utc>,
        spells: &[BlindSpell],
    ) -> StoreResult<()> {
        for worker in judged {
            let judge_at = next_judgement(&worker.incarnations, spells);
            let successor_at = of_lost(&worker.state).map(|_| now + succession::JUDGE_EVERY);
            let judge_at = [judge_at, successor_at].into_iter().flatten().min();
            deadbeat_store::celery::worker::update(tx, worker, true, judge_at, None).await?;
        }
        Ok(())
    }

    async fn settle(
        tx: &mut Tx,
        judged: &[(Self, Option<Transition>)],
        over: &[SubjectKey],
        learned: &Learned,
        now: DateTime<Utc>,
    ) -> StoreResult<()> {
        let lost: Vec<&Worker> = judged
            .iter()
            .filter(|(_, transition)| transition.is_some_and(|transition| transition.to == Status::Down))
            .map(|(worker, _)| worker)
            .collect();
        let held = deadbeat_store::monitor::lock_of_workers(tx, &lost, over, &learned.owners.ids()).await?;
        if !lost.is_empty() {
            deadbeat_store::monitor::judge_runs_of(tx, &lost, &held, now).await?;
        }
        learned.owners.mark(tx, &held, now).await
    }

    fn changed<'a>(&'a self, _: &Transition, _: &'a Learned) -> Changed<'a> {
        Changed::Worker(self)
    }
}
