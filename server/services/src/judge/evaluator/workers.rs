//! One sweep of overdue workers.

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::celery::worker::incarnation::next_look;
use deadbeat_domain::celery::worker::succession::{self, of_lost};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::{StoreResult, with_sources};

use super::{ASIDE, BATCH, Batched, Evaluator, Swept, downs};
use crate::celery::host::{self, Fallen};
use crate::celery::worker::orphan::{self, Colleagues, Owners};
use crate::incident;
use crate::incident::changed::{Changed, News, What};

impl Evaluator {
    /// One batch of workers.
    pub(super) async fn sweep_workers(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut swept = Swept::default();
        let mut tx = self.store.begin().await?;
        let mut workers = Vec::new();
        for row in deadbeat_store::celery::worker::claim_overdue(&mut tx, now, BATCH).await? {
            swept.claimed += 1;
            match row {
                Ok(worker) => workers.push(worker),
                Err(unreadable) => {
                    tracing::error!(worker.id = %unreadable.id, error = %with_sources(&unreadable.error), "a worker cannot be judged; set aside");
                    self.selfwatch.put_aside();
                    deadbeat_store::celery::worker::set_aside(
                        &mut tx,
                        unreadable.project_id,
                        unreadable.id,
                        now + ASIDE,
                    )
                    .await?;
                }
            }
        }
        let is_full = swept.claimed as i64 == BATCH;
        if swept.claimed == 0 {
            return Ok(Batched { swept, is_full });
        }
        let spells = self.spells(&mut tx, now).await?;
        let mut transitions = Vec::new();
        let mut owners = Owners::default();
        let mut colleagues = Colleagues::default();
        let before: Vec<Switch> = workers.iter().map(|worker| worker.state.clone()).collect();
        for worker in &mut workers {
            owners.look(worker, now, &spells);
            transitions.push(orphan::judge_silence(&mut tx, worker, &mut colleagues, now, &spells).await?);
        }
        let fallen = workers.iter_mut().zip(before).zip(&mut transitions).filter_map(
            |((worker, before), transition)| {
                Fallen::of(
                    worker.id.0,
                    worker.project_id,
                    &mut worker.state,
                    before,
                    transition,
                )
            },
        );
        let lost_hosts = host::judge_fallen(&mut tx, fallen.collect(), now, &spells).await?;
        for worker in &workers {
            let look_at = next_look(&worker.incarnations, &spells);
            let successor_at = of_lost(&worker.state).map(|_| now + succession::LOOK_EVERY);
            let look_at = [look_at, successor_at].into_iter().flatten().min();
            deadbeat_store::celery::worker::update(&mut tx, worker, true, look_at, None).await?;
        }
        let mut lost = Vec::new();
        let mut are_over = Vec::new();
        for (worker, transition) in workers.iter().zip(&transitions) {
            match transition.map(|transition| transition.to) {
                Some(Status::Down) => lost.push(worker),
                Some(_) => are_over.push((worker.project_id, SubjectKind::Worker, worker.id.0)),
                None => {}
            }
        }
        let held = deadbeat_store::monitor::lock_of_workers(&mut tx, &lost, &are_over, &owners.ids()).await?;
        if !lost.is_empty() {
            deadbeat_store::monitor::judge_runs_of(&mut tx, &lost, &held, now).await?;
        }
        owners.mark(&mut tx, &held, now).await?;
        incident::rearm_members(&mut tx, &self.site, &are_over, now).await?;
        let news: Vec<News<'_>> = workers
            .iter()
            .zip(transitions)
            .filter_map(|(worker, transition)| {
                Some(News {
                    changed: Changed::Worker(worker),
                    what: What::Transition(transition?),
                })
            })
            .collect();
        swept.down += downs(&news);
        incident::record(&mut tx, &self.site, &news).await?;
        host::tell(&mut tx, &self.site, &lost_hosts, now).await?;
        tx.commit().await?;
        Ok(Batched { swept, is_full })
    }
}
