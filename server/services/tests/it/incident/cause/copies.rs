//! A message that workers execute more than once.

use deadbeat_domain::monitor::status::Status;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::healthy;
use crate::setup::{World, alerted};

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_executed_twice_is_reported_and_the_end_of_one_copy_is_no_all_clear(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    world.until_due(&scene).await;
    world.attempt(1, 1).await;
    world.live(20, &scene).await;
    let id = Uuid::from_u128(1);
    scene.workers = vec![("w1", json!({"active": 2, "reserved": 2, "running": [id, id]}))];
    world.attempt(1, 2).await;

    world.live(15, &scene).await;

    let a = world.a().await;
    world.only(a, "DUPLICATE_RUN", true).await;
    world
        .run_says(
            "run_finished",
            1,
            json!({"outcome": "success", "attempt": Uuid::from_u128(1)}),
        )
        .await;
    world
        .run_says(
            "run_finished",
            1,
            json!({"outcome": "success", "attempt": Uuid::from_u128(2)}),
        )
        .await;
    world.only(a, "DUPLICATE_RUN", true).await;
    world.finished("a", "success").await;
    world.only(a, "DUPLICATE_RUN", false).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_executed_again_after_its_success_is_reported(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    world.attempt(1, 1).await;
    world
        .run_says(
            "run_finished",
            1,
            json!({"outcome": "success", "attempt": Uuid::from_u128(1)}),
        )
        .await;
    world.attempt(1, 2).await;

    world.live(15, &healthy()).await;

    world.only(world.a().await, "DUPLICATE_RUN", true).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_executed_twice_is_reported_also_when_the_second_copy_ends_first(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    world.until_due(&scene).await;
    let ended = async |run: u128, attempt: u128| {
        let end = json!({"outcome": "success", "attempt": Uuid::from_u128(attempt)});
        world.run_says("run_finished", run, end).await;
    };
    // The process that ran the message first is dead. The redelivered message succeeds, which is in order.
    world.attempt(1, 1).await;
    world.attempt(1, 2).await;
    ended(1, 2).await;
    world.live(15, &scene).await;
    assert_eq!(world.incidents().await, []);
    assert_eq!(
        world
            .count("SELECT count(*) FROM run WHERE status = 'success'")
            .await,
        1
    );

    // The process that ran the message first goes on.
    world.attempt(2, 3).await;
    world.attempt(2, 4).await;
    ended(2, 4).await;
    scene.workers = vec![(
        "w1",
        json!({"active": 1, "reserved": 1, "running": [Uuid::from_u128(2)]}),
    )];
    world.live(15, &scene).await;
    let a = world.a().await;
    world.only(a, "DUPLICATE_RUN", true).await;
    ended(2, 3).await;
    world.only(a, "DUPLICATE_RUN", true).await;
    world.finished("a", "success").await;
    world.only(a, "DUPLICATE_RUN", false).await;

    // Both attempts have ended before Deadbeat could compare them with a report of the worker.
    world.attempt(3, 5).await;
    world.attempt(3, 6).await;
    ended(3, 6).await;
    ended(3, 5).await;
    assert_eq!(
        world.incidents().await,
        [
            alerted(a, "DUPLICATE_RUN", false),
            alerted(a, "DUPLICATE_RUN", true)
        ]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_that_kills_what_runs_it_is_reported_after_its_third_try(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    world.attempt(1, 1).await;
    world.attempt(1, 2).await;
    world.live(15, &healthy()).await;
    assert_eq!(world.incidents().await, [], "one redelivery is not a fault");

    world.attempt(1, 3).await;
    world.live(15, &healthy()).await;

    world.only(world.a().await, "REDELIVERY_LOOP", true).await;

    // Runs of other messages succeed, which proves nothing about this message.
    world.finished("a", "success").await;
    world.live(50, &healthy()).await;
    world.attempt(1, 4).await;
    world.live(20, &healthy()).await;
    world.finished("a", "success").await;
    world.only(world.a().await, "REDELIVERY_LOOP", true).await;
    world.live(50, &healthy()).await;
    world.finished("a", "success").await;
    world.only(world.a().await, "REDELIVERY_LOOP", false).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn why_a_process_was_ordered_to_go_is_said_by_the_main_process(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    world.attempt(1, 1).await;
    world
        .run_says(
            "run_finished",
            1,
            json!({"outcome": "aborted", "attempt": Uuid::from_u128(1)}),
        )
        .await;
    assert_eq!(world.incidents().await, []);
    world
        .run_says(
            "run_finished",
            1,
            json!({"outcome": "time_limit", "error": "TimeLimitExceeded"}),
        )
        .await;
    world.only(world.a().await, "TIME_LIMIT", true).await;
    world.finished("a", "success").await;

    // No report gives a reason, as when a task ends its own process.
    world.attempt(2, 2).await;
    world
        .run_says(
            "run_finished",
            2,
            json!({"outcome": "aborted", "attempt": Uuid::from_u128(2)}),
        )
        .await;
    world.live(10, &healthy()).await;
    let last = world.incidents().await.pop().unwrap();
    assert_eq!((last.cause.as_str(), last.open), ("FAILED", true));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_event_that_is_sent_again_changes_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    let run = json!({"beat": "shop", "entry": "a", "run_id": Uuid::from_u128(1)});
    let started = world.an_event("run_started", run.clone());
    let mut failed = world.an_event("run_finished", run);
    failed["outcome"] = json!("failure");
    for _ in 0..2 {
        world.event(started.clone()).await;
        world.event(failed.clone()).await;
    }
    world.finished("a", "success").await;

    world.event(failed.clone()).await;
    world.event(started).await;

    world.only(world.a().await, "FAILED", false).await;
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 3);
    assert_eq!(world.entry("a").await.state.status, Status::Up);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_is_proved_to_have_run_twice_is_reported_although_its_monitor_is_down(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    let success = |attempt: u128| json!({"outcome": "success", "attempt": Uuid::from_u128(attempt)});
    world.attempt(1, 1).await;
    world.run_says("run_finished", 1, success(1)).await;
    let mut scene = healthy();
    scene.beat = false;
    world.live(120, &scene).await;
    let beat = world.beat_id().await;
    world.only(beat, "BEAT_DOWN", true).await;

    world.attempt(1, 2).await;
    world.run_says("run_finished", 1, success(2)).await;

    assert_eq!(
        world.incidents().await,
        [
            alerted(beat, "BEAT_DOWN", true),
            alerted(world.a().await, "DUPLICATE_RUN", true)
        ]
    );
}
