//! What a reader of the change feed receives when it is behind, and what the retention keeps.

use std::sync::Arc;

use chrono::TimeDelta;
use deadbeat_domain::ids::ApiKeyId;
use deadbeat_domain::limits;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::key::Scope;
use deadbeat_services::feed::{self, Changes};
use deadbeat_services::operation::retention::{Kind, RemovalCounters, Retention, RetentionSettings};
use deadbeat_services::people::api_key;
use sqlx::PgPool;

use crate::setup::World;

impl World {
    /// Adds so many changes to the project.
    async fn fill(&self, count: i64) {
        sqlx::query(
            "WITH counted AS (
                INSERT INTO change_counter AS counter VALUES ($1, $2)
                ON CONFLICT (project_id) DO UPDATE SET last = counter.last + $2 RETURNING last
            )
            INSERT INTO change SELECT $1, last - $2 + n, $3, 'monitor', $1, 'changed' FROM counted, generate_series(1, $2) AS n",
        )
        .bind(self.project.0)
        .bind(count)
        .bind(self.now())
        .execute(&self.pool)
        .await
        .unwrap();
    }

    fn feed_retention(&self, change_days: u16) -> Retention {
        let keep = RetentionSettings {
            change_days,
            ..RetentionSettings::default()
        };
        Retention::new(
            self.store(),
            Arc::new(self.clock.clone()),
            keep,
            Arc::new(RemovalCounters::default()),
        )
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_reader_that_is_too_far_behind_is_asked_to_reload(pool: PgPool) {
    let world = World::new(pool).await;
    let kept = limits::PROJECT_CHANGES;
    let retention = world.feed_retention(7);
    // There are more changes than one step of the retention removes.
    world.fill(kept + 5_001).await;

    let passed = retention.pass_once().await.unwrap();

    assert_eq!(passed.of(Kind::Changes), 5_001);
    assert_eq!(world.count("SELECT count(*) FROM change").await, kept);
    let newest = kept + 5_001;
    let reload = Changes {
        changes: Vec::new(),
        next_after: newest,
        must_reload: true,
    };
    for after in [0, 1, 5_000, newest + 1, i64::MAX] {
        assert_eq!(world.changes(Some(after), 9).await, reload, "{after}");
    }
    let oldest = world.changes(Some(5_001), 2).await;
    assert_eq!((oldest.next_after, oldest.must_reload), (5_003, false));
    let sequences: Vec<i64> = oldest.changes.iter().map(|one| one.sequence).collect();
    assert_eq!(sequences, [5_002, 5_003]);
    let at_the_end = world.changes(Some(newest), 2).await;
    assert_eq!(
        (
            at_the_end.next_after,
            at_the_end.must_reload,
            at_the_end.changes.len()
        ),
        (newest, false, 0)
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn old_changes_go_and_their_numbers_do_not_come_again(pool: PgPool) {
    let world = World::new(pool).await;
    let retention = world.feed_retention(2);
    world.fill(3).await;
    world.clock.advance(TimeDelta::days(1));
    world.fill(2).await;
    let old = world.position().await;
    world.clock.advance(TimeDelta::days(1) + TimeDelta::seconds(1));

    assert_eq!(retention.pass_once().await.unwrap().of(Kind::Changes), 3);
    assert_eq!(world.changes(Some(3), 9).await.changes.len(), 2);
    assert!(world.changes(Some(2), 9).await.must_reload);
    world.clock.advance(TimeDelta::days(1));
    assert_eq!(retention.pass_once().await.unwrap().of(Kind::Changes), 2);
    assert_eq!(retention.pass_once().await.unwrap().of(Kind::Changes), 0);

    assert_eq!(world.position().await, old);
    assert!(
        !world.changes(Some(old), 9).await.must_reload,
        "a reader at the end is not behind"
    );
    assert!(world.changes(Some(old - 1), 9).await.must_reload);
    world.monitor("new").await;
    let new = world.changes(Some(old), 9).await;
    assert_eq!((new.next_after, new.changes.len()), (old + 1, 1));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn every_project_is_trimmed_and_only_its_oldest_changes_go(pool: PgPool) {
    let world = World::new(pool).await;
    world.fill(limits::PROJECT_CHANGES + 7).await;
    // Other projects sort before and after this one. Their changes are few, and their timestamps are from a clock that stepped back.
    sqlx::query(
        "WITH others AS (
            SELECT id FROM unnest(ARRAY['00000000-0000-0000-0000-000000000001', 'ffffffff-ffff-ffff-ffff-ffffffffffff']::uuid[]) AS id
        ), counted AS (
            INSERT INTO change_counter SELECT id, 4 FROM others
        )
        INSERT INTO change
        SELECT id, n, CASE WHEN n = 2 THEN $1 - interval '9 days' ELSE $1 END, 'monitor', id, 'changed'
        FROM others, generate_series(1, 4) AS n",
    )
    .bind(world.now())
    .execute(&world.pool)
    .await
    .unwrap();

    let passed = world.feed_retention(7).pass_once().await.unwrap();

    assert_eq!(
        passed.of(Kind::Changes),
        7 + 2 * 2,
        "removed changes leave no hole"
    );
    let holes = "SELECT count(*) FROM (
            SELECT project_id FROM change JOIN change_counter USING (project_id)
            GROUP BY project_id, last HAVING max(sequence) <> last OR max(sequence) - min(sequence) + 1 <> count(*)
        ) AS holes";
    assert_eq!(world.count(holes).await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_reader_that_may_not_see_keys_goes_past_their_changes(pool: PgPool) {
    let world = World::new(pool).await;
    for name in ["one", "two", "three"] {
        api_key::issue(&world.services, &world.access, name, Scope::Read)
            .await
            .unwrap();
    }
    let job = world.monitor("job").await;
    let read = async |after: i64, scope: Scope| {
        let id = ApiKeyId::generate();
        let access = Access::new(world.project, Actor::Key { id, scope });
        feed::read(&world.services, &access, Some(after), 2)
            .await
            .unwrap()
    };

    let first = read(0, Scope::Read).await;
    assert_eq!(
        (first.changes.len(), first.next_after, first.must_reload),
        (0, 2, false)
    );
    let second = read(first.next_after, Scope::Read).await;
    assert_eq!((second.changes.len(), second.next_after), (1, 4));
    assert_eq!(second.changes[0].subject_id, job.id.0);
    assert_eq!(read(0, Scope::Write).await.changes.len(), 2);
}
