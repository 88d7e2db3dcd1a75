//! Deadbeat finds out who consumes a queue.

use serde_json::json;
use sqlx::PgPool;

use crate::setup::{World, alerted};

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_queue_that_no_worker_consumes_is_reported_once_with_the_command_that_helps(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;
    world.queue_has("reports", 3, Some(4.0)).await;
    world.advance(28);
    world.worker_says("celery@w1", json!({})).await;
    world.queue_has("reports", 3, Some(33.0)).await;
    assert_eq!(
        world.incidents().await,
        [],
        "a consumer's report may be on its way"
    );

    world.advance(2);
    world.queue_has("reports", 4, Some(34.0)).await;
    world.advance(10);
    world.queue_has("reports", 5, Some(44.0)).await;

    let queue = world.queue_id("reports").await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_UNCONSUMED", true)]
    );
    let repair = world.repair().await;
    assert!(
        repair.contains("celery -A shop control add_consumer reports -d celery@w1"),
        "{repair}"
    );
    world
        .worker_says("celery@w1", json!({"queues": ["celery", "reports"]}))
        .await;
    world.queue_has("reports", 5, Some(46.0)).await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_UNCONSUMED", false)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_queue_whose_consumer_is_lost_is_that_workers_incident(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;
    world.sweep_after(31).await;
    let worker = world.worker_id("celery@w1").await;

    for _ in 0..60 {
        world.queue_has("celery", 9, Some(20.0)).await;
        world.advance(10);
    }

    assert_eq!(world.incidents().await, [alerted(worker, "WORKER_LOST", true)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_deployment_that_stops_all_workers_has_five_minutes(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({"state": "stopped"})).await;

    world.queue_has("celery", 9, None).await;
    world.advance(298);
    world.queue_has("celery", 9, None).await;
    assert_eq!(world.incidents().await, []);
    world.advance(2);
    world.queue_has("celery", 9, None).await;

    let queue = world.queue_id("celery").await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_UNCONSUMED", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn rabbitmq_counts_its_consumers_itself(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;
    for _ in 0..10 {
        // The consumer is not one of the reporting workers, or its SDK is old.
        let queue = json!({"name": "reports", "depth": 3, "consumers": 1});
        world.seen(json!({"transport": "amqp", "queues": [queue]})).await;
        world.advance(10);
    }
    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_queue_whose_head_changes_is_consumed_by_somebody_who_does_not_report(pool: PgPool) {
    let world = World::new(pool).await;
    let thumbs = async |head: &str| {
        world.worker_says("celery@w1", json!({})).await;
        let queue = json!({"name": "thumbs", "depth": 9, "oldest_seconds": 20.0, "head": head});
        world.seen(json!({"queues": [queue]})).await;
        world.advance(10);
    };
    for head in ["a", "a", "b"] {
        thumbs(head).await;
    }
    for _ in 0..59 {
        thumbs("b").await;
    }
    assert_eq!(
        world.incidents().await,
        [],
        "the worker may be busy for as long as a message may wait"
    );

    for _ in 0..4 {
        thumbs("b").await;
    }
    let queue = world.queue_id("thumbs").await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_UNCONSUMED", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_that_somebody_holds_is_a_consumer_that_was_never_seen_to_take_any(pool: PgPool) {
    let world = World::new(pool).await;
    for round in 0..6 {
        world.worker_says("celery@w1", json!({})).await;
        let held = f64::from(40 + round * 10);
        let queue = json!({"name": "thumbs", "depth": 9, "head": "a", "taken_seconds": held});
        world.seen(json!({"queues": [queue]})).await;
        world.advance(10);
    }
    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn workers_of_another_application_on_the_same_broker_consume_its_queues(pool: PgPool) {
    let world = World::new(pool).await;
    for (identity, expected) in [("one", 0), ("another", 1)] {
        for _ in 0..5 {
            world.worker_says("celery@w1", json!({})).await;
            let other = json!({"app": "exports", "queues": ["exports"]});
            world.worker_says("celery@b1", other).await;
            world.seen(json!({"app": "exports", "identity": "one"})).await;
            let queue = json!({"name": "exports", "depth": 3, "head": "a"});
            world.seen(json!({"identity": identity, "queues": [queue]})).await;
            world.advance(10);
        }
        assert_eq!(world.incidents().await.len(), expected, "{identity}");
    }
}
