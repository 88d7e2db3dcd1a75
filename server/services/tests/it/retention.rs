//! What is too old goes, and nothing else.

use std::sync::Arc;

use chrono::TimeDelta;
use deadbeat_domain::ping::PingKind::{Start, Success};
use deadbeat_services::retention::{Removed, Retention, RetentionSettings};
use serde_json::json;
use sqlx::PgPool;

use crate::setup::World;

fn retention(world: &World, settings: RetentionSettings) -> Retention {
    Retention::new(world.store(), Arc::new(world.clock.clone()), settings)
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn days_have_their_tables_ahead_and_old_days_go_whole(pool: PgPool) {
    let world = World::new(pool).await;
    let keep = RetentionSettings {
        ping_days: 3,
        ..RetentionSettings::default()
    };
    let retention = retention(&world, keep);
    retention.pass_once().await.unwrap();
    let monitor = world.monitor("m").await;
    for _ in 0..10 {
        world.ping(&monitor, Success).await;
        world.clock.advance(TimeDelta::days(1));
        retention.pass_once().await.unwrap();
    }

    let kept: Vec<i64> = sqlx::query_scalar("SELECT n FROM ping ORDER BY n")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(kept, [8, 9, 10], "today's (none yet) and three days before");
    assert_eq!(world.count("SELECT count(*) FROM ping_default").await, 0);
    let today = world.now().date_naive();
    let ahead = format!("ping_{}", (today + TimeDelta::days(3)).format("%Y%m%d"));
    let found: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(ahead)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(found);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn pings_of_a_day_without_a_table_are_kept_and_moved_when_it_comes(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    // A server that was down for a month, or whose clock was: no table was made for this day.
    world.clock.advance(TimeDelta::days(40));
    world.ping(&monitor, Success).await;
    assert_eq!(world.count("SELECT count(*) FROM ping_default").await, 1);

    retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(world.count("SELECT count(*) FROM ping_default").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitor_keeps_its_newest_pings(pool: PgPool) {
    let world = World::new(pool).await;
    let (busy, quiet) = (world.monitor("busy").await, world.monitor("quiet").await);
    for _ in 0..12 {
        world.ping(&busy, Success).await;
    }
    world.ping(&quiet, Success).await;
    let keep = RetentionSettings {
        pings_per_monitor: 5,
        ..RetentionSettings::default()
    };

    let removed = retention(&world, keep).pass_once().await.unwrap();

    assert_eq!(removed.pings, 7);
    let kept: Vec<i64> = sqlx::query_scalar("SELECT n FROM ping WHERE monitor_id = $1 ORDER BY n")
        .bind(busy.id.0)
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(kept, [8, 9, 10, 11, 12]);
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 6);
    let again = retention(&world, keep).pass_once().await.unwrap();
    assert_eq!(again, Removed::default(), "nothing is left to remove");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_deleted_monitor_leaves_no_pings_behind(pool: PgPool) {
    let world = World::new(pool).await;
    let (gone, stays) = (world.monitor("gone").await, world.monitor("stays").await);
    for monitor in [&gone, &gone, &stays] {
        world.ping(monitor, Success).await;
    }
    deadbeat_services::monitor::delete(&world.services, world.project, gone.id)
        .await
        .unwrap();

    retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(world.count("SELECT count(*) FROM ping").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM purge").await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn old_runs_go_and_open_ones_stay(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    world.ping_of(&monitor, 1, Start).await;
    world.ping_of(&monitor, 1, Success).await;
    world.ping_of(&monitor, 2, Start).await;
    // Ids of runs are made by the machine's clock, which stands beside the stopped one.
    sqlx::query("UPDATE run SET id = overlay(id::text placing '00000000-0000' from 1 for 13)::uuid")
        .execute(&world.pool)
        .await
        .unwrap();

    let removed = retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(removed.runs, 1);
    assert_eq!(
        world
            .count("SELECT count(*) FROM run WHERE status = 'open'")
            .await,
        1
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn of_several_processes_one_removes(pool: PgPool) {
    let world = World::new(pool).await;
    let mut other = world.store().begin().await.unwrap();
    assert!(deadbeat_store::retention::try_lock(&mut other).await.unwrap());
    world.clock.advance(TimeDelta::days(40));

    let removed = retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(removed, Removed::default());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn workers_and_queues_are_forgotten_a_week_after_they_were_last_heard_of(pool: PgPool) {
    let world = World::new(pool).await;
    let retention = retention(&world, RetentionSettings::default());
    world
        .worker_says("celery@gone", json!({"state": "stopped"}))
        .await;
    world.worker_says("celery@lost", json!({})).await;
    let sample = json!({"app": "shop", "reachable": true, "queues": [{"name": "celery", "depth": 0}]});
    world.event(world.an_event("broker_sample", sample)).await;

    world.clock.advance(TimeDelta::days(7));
    let removed = retention.pass_once().await.unwrap();
    assert_eq!((removed.workers, removed.queues), (0, 0), "a week is not over");
    world.clock.advance(TimeDelta::seconds(1));
    let removed = retention.pass_once().await.unwrap();

    assert_eq!((removed.workers, removed.queues), (1, 1));
    assert_eq!(
        world
            .count("SELECT count(*) FROM worker WHERE name = 'celery@lost'")
            .await,
        1,
        "nobody has judged it yet"
    );
}
