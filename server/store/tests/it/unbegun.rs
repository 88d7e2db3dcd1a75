//! Runs that no worker has received: a project has a limited number of notes, and takes none from another project.

use chrono::TimeDelta;
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::limits::UNBEGUN_RUNS;
use deadbeat_store::celery::trace::unbegun::{Unbegun, note};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, at};

fn runs(project: ProjectId, count: i64) -> Vec<Unbegun> {
    (0..count)
        .map(|_| Unbegun {
            project_id: project,
            run_id: Uuid::now_v7(),
            monitor_id: MonitorId::generate(),
            published_at: at(0),
            check_after: at(0) + TimeDelta::seconds(20),
        })
        .collect()
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_project_notes_so_many_runs_and_takes_none_from_another(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let (flood, other) = (ProjectId(Uuid::now_v7()), ProjectId(Uuid::now_v7()));
    for (project, count) in [(flood, UNBEGUN_RUNS - 1), (flood, 3), (flood, 3), (other, 2)] {
        let mut tx = world.begin().await;
        note(&mut tx, &runs(project, count), &[]).await.unwrap();
        tx.commit().await.unwrap();
    }

    for (project, noted) in [(flood, UNBEGUN_RUNS), (other, 2)] {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM unbegun_run WHERE project_id = $1")
            .bind(project.0)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(count, noted);
    }
}
