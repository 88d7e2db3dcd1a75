//! Samples of the broker by workers: queues without consumers, queues whose messages wait too long, an unreachable broker.

mod consumers;

use deadbeat_services::celery::event::Verdict;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted};

impl World {
    /// A worker reports its sample of the broker of "shop".
    async fn seen(&self, rest: Value) -> Verdict {
        let mut said = json!({"app": "shop", "worker": "celery@w1", "transport": "redis", "reachable": true, "queues": []});
        for (field, value) in rest.as_object().unwrap() {
            said[field] = value.clone();
        }
        let verdicts = self.events(vec![self.an_event("broker_sample", said)]).await;
        verdicts.into_iter().next().unwrap()
    }

    async fn queue_has(&self, name: &str, depth: i64, oldest_seconds: Option<f64>) {
        let queue = json!({"name": name, "depth": depth, "oldest_seconds": oldest_seconds, "oldest_task": "shop.report"});
        assert_eq!(self.seen(json!({"queues": [queue]})).await, Verdict::Accepted);
    }

    async fn queue_id(&self, name: &str) -> Uuid {
        sqlx::query_scalar("SELECT id FROM queue WHERE project_id = $1 AND name = $2")
            .bind(self.project.0)
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn repair(&self) -> String {
        let repair: Value = sqlx::query_scalar("SELECT repair FROM incident")
            .fetch_one(&self.pool)
            .await
            .unwrap();
        repair.to_string()
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_queue_whose_oldest_message_waits_too_long_is_reported(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;
    world.queue_has("celery", 90_000, Some(599.0)).await;
    assert_eq!(world.incidents().await, [], "a deep queue is not a late one");

    world.queue_has("celery", 2, Some(600.0)).await;

    let queue = world.queue_id("celery").await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_SLA_BREACH", true)]
    );
    world.queue_has("celery", 2, Some(3.0)).await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_SLA_BREACH", false)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_broker_that_stays_away_is_reported_and_its_queues_are_left_as_they_were(pool: PgPool) {
    let world = World::new(pool).await;
    world.queue_has("celery", 1, None).await;
    let away = json!({"reachable": false, "error": "ConnectionError"});
    world.seen(away.clone()).await;
    world.advance(18);
    world.seen(away.clone()).await;
    assert_eq!(world.incidents().await, [], "a failover takes seconds");
    world.advance(2);
    world.seen(away).await;

    let broker: Uuid = sqlx::query_scalar("SELECT id FROM broker")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(world.incidents().await, [alerted(broker, "BROKER_DOWN", true)]);
    assert!(world.repair().await.contains("redis-cli ping"));
    assert_eq!(world.count("SELECT depth FROM queue").await, 1);

    world.queue_has("celery", 0, None).await;
    assert_eq!(world.incidents().await, [alerted(broker, "BROKER_DOWN", false)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_came_due_in_an_outage_is_no_second_incident_once_the_broker_is_back(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["late", "never"]).await;
    world.queue_has("celery", 0, None).await;
    world.advance(42);
    for _ in 0..3 {
        world.alive().await;
        world
            .seen(json!({"reachable": false, "error": "ConnectionError"}))
            .await;
        world.advance(10);
    }
    let broker: Uuid = sqlx::query_scalar("SELECT id FROM broker")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    let alerted_of_broker = |open| alerted(broker, "BROKER_DOWN", open);
    assert_eq!(world.incidents().await, [alerted_of_broker(true)]);
    world.queue_has("celery", 0, None).await;
    assert_eq!(world.incidents().await, [alerted_of_broker(false)]);

    // Beat reaches the broker again, and its entries are on their way.
    world.alive().await;
    world.sweep_after(6).await;
    assert_eq!(world.incidents().await, [alerted_of_broker(false)]);
    world.finished("late", "success").await;
    for _ in 0..4 {
        world.alive().await;
        world.sweep_after(5).await;
    }

    let never = world.entry("never").await.id.0;
    assert_eq!(
        world.incidents().await,
        [alerted_of_broker(false), alerted(never, "UNKNOWN", true)],
        "the entry has had time to arrive"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_broker_is_away_since_the_first_sample_that_failed(pool: PgPool) {
    let world = World::new(pool).await;
    // Beat reaches the broker, and a moment later no process does. Beat's success counts for 15 s; until then, the worker alone may be cut off.
    world.seen(json!({"worker": "beat@vm"})).await;
    world.advance(2);
    for _ in 0..5 {
        world.seen(json!({"reachable": false})).await;
        world.advance(4);
    }
    assert_eq!(world.incidents().await, []);
    world.seen(json!({"reachable": false})).await;

    let broker: Uuid = sqlx::query_scalar("SELECT id FROM broker")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(world.incidents().await, [alerted(broker, "BROKER_DOWN", true)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_queue_is_reported_once_a_sample_and_by_a_name(pool: PgPool) {
    let world = World::new(pool).await;
    for queues in [
        json!([{"name": "a", "depth": 1}, {"name": "a", "depth": 2}]),
        json!([{"name": "", "depth": 1}]),
        json!([{"name": "a", "depth": "deep"}]),
    ] {
        let verdict = world.seen(json!({"queues": queues})).await;
        assert!(
            matches!(
                verdict,
                Verdict::Rejected {
                    code: "invalid_event",
                    ..
                }
            ),
            "{verdict:?}"
        );
    }
    assert_eq!(world.count("SELECT count(*) FROM queue").await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_queue_that_is_no_more_is_in_trouble_no_more(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;
    for _ in 0..5 {
        world.queue_has("deleted", 1, None).await;
        world.queue_has("renamed", 1, None).await;
        world.advance(10);
    }
    assert_eq!(world.incidents().await.len(), 2);

    world
        .seen(json!({"queues": [{"name": "deleted", "depth": 0}, {"name": "renamed", "depth": null}, {"name": "never", "depth": null}]}))
        .await;
    let deleted = world.queue_id("deleted").await;
    assert!(
        world
            .incidents()
            .await
            .contains(&alerted(deleted, "QUEUE_UNCONSUMED", false))
    );
    assert_eq!(world.count("SELECT count(*) FROM queue").await, 2);

    world.advance(3_600);
    world.seen(json!({})).await;
    let renamed = world.queue_id("renamed").await;
    assert!(
        world
            .incidents()
            .await
            .contains(&alerted(renamed, "QUEUE_UNCONSUMED", false))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_incidents_of_an_application_that_is_gone_end_after_an_hour(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;
    for _ in 0..4 {
        world.queue_has("reports", 3, Some(4.0)).await;
        world.advance(10);
    }
    for _ in 0..4 {
        world.seen(json!({"reachable": false})).await;
        world.advance(10);
    }
    world.worker_says("celery@w1", json!({"state": "stopped"})).await;
    let queue = world.queue_id("reports").await;
    let broker: Uuid = sqlx::query_scalar("SELECT id FROM broker")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    let both = |open| {
        [
            alerted(queue, "QUEUE_UNCONSUMED", open),
            alerted(broker, "BROKER_DOWN", open),
        ]
    };
    assert_eq!(world.incidents().await, both(true));

    for _ in 0..59 {
        world.sweep_after(60).await;
    }
    assert_eq!(
        world.incidents().await,
        both(true),
        "a process may sample the broker again"
    );
    world.sweep_after(60).await;
    assert_eq!(world.incidents().await, both(false));
    world.sweep_after(60).await;

    assert_eq!(
        world
            .count("SELECT count(*) FROM queue WHERE status = 'new'")
            .await,
        1
    );
    assert_eq!(
        world
            .count("SELECT count(*) FROM broker WHERE status = 'new'")
            .await,
        1
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn nobody_is_given_up_because_we_did_not_listen(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;
    for _ in 0..4 {
        world.seen(json!({"reachable": false})).await;
        world.advance(10);
    }
    let broker: Uuid = sqlx::query_scalar("SELECT id FROM broker")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    sqlx::query("INSERT INTO blind_spell (id, started_at, ended_at) VALUES ($1, $2, $3)")
        .bind(Uuid::from_u128(1))
        .bind(world.now())
        .bind(world.now() + chrono::TimeDelta::hours(2))
        .execute(&world.pool)
        .await
        .unwrap();

    world.sweep_after(2 * 3_600 + 60).await;

    assert!(
        world
            .incidents()
            .await
            .contains(&alerted(broker, "BROKER_DOWN", true))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_project_has_so_many_queues_and_no_more(pool: PgPool) {
    let world = World::new(pool).await;
    sqlx::query(
        "INSERT INTO queue (id, project_id, app, name, status, depth, seen_at, created_at)
        SELECT gen_random_uuid(), $1, 'other', 'q' || n, 'new', 0, $2, $2 FROM generate_series(1, 9999) AS n",
    )
    .bind(world.project.0)
    .bind(world.now())
    .execute(&world.pool)
    .await
    .unwrap();
    let queues = |depth| json!({"queues": [{"name": "a", "depth": depth}, {"name": "b", "depth": depth}]});

    assert_eq!(world.seen(queues(1)).await, Verdict::Accepted);
    assert_eq!(world.seen(queues(2)).await, Verdict::Accepted);

    assert_eq!(world.count("SELECT depth FROM queue WHERE app = 'shop'").await, 2);
    assert_eq!(
        world.count("SELECT count(*) FROM queue WHERE app = 'shop'").await,
        1
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn where_the_broker_shows_no_age_what_workers_took_last_shows_it(pool: PgPool) {
    let world = World::new(pool).await;
    let depth = async |depth: i64| {
        world.worker_says("celery@w1", json!({})).await;
        let queue = json!({"name": "celery", "depth": depth, "consumers": 1});
        world
            .seen(json!({"transport": "amqp", "longest_wait_seconds": 60, "queues": [queue]}))
            .await;
    };
    let received = async |run: u128, waited: i64, redelivered: bool| {
        let said = json!({"beat": "shop", "entry": null, "run_id": Uuid::from_u128(run), "task": "t", "queue": "celery",
            "published_at": world.now() - chrono::TimeDelta::seconds(waited), "redelivered": redelivered});
        world.event(world.an_event("run_received", said)).await;
    };
    depth(5).await;
    world.advance(10);
    received(1, 500, true).await;
    received(2, 59, false).await;
    depth(6).await;
    assert_eq!(world.incidents().await, []);
    world.advance(10);

    received(3, 61, false).await;
    depth(7).await;

    let queue = world.queue_id("celery").await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_SLA_BREACH", true)]
    );
    assert_eq!(
        world
            .count("SELECT oldest_seconds::int8 FROM queue WHERE name = 'celery'")
            .await,
        61
    );
    world.advance(10);
    received(4, 0, false).await;
    depth(1).await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_SLA_BREACH", false)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_sampler_is_asked_for_the_queues_in_trouble_first(pool: PgPool) {
    let world = World::new(pool).await;
    world
        .worker_says("celery@w1", json!({"queues": ["a", "b", "z"]}))
        .await;
    let queues = json!([{"name": "b", "depth": 0}, {"name": "y", "depth": 2}, {"name": "z", "depth": 1, "oldest_seconds": 900}]);
    world.seen(json!({"queues": queues})).await;
    // Another application's queue of that name is a different queue.
    world
        .seen(json!({"app": "other", "queues": [{"name": "a", "depth": 5}]}))
        .await;

    let received = world
        .worker_says("celery@w1", json!({"queues": ["a", "b", "z"]}))
        .await;

    let names = ["y", "z", "a", "b"].map(str::to_owned).to_vec();
    assert_eq!(
        received,
        Verdict::Received {
            samples: true,
            queues: names
        }
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_older_report_of_a_wait_changes_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    world.queue_has("celery", 3, None).await;
    let received = async |run: u128, waited: i64, ago: i64| {
        let at = world.now() - chrono::TimeDelta::seconds(ago);
        let mut said = world.an_event(
            "run_received",
            json!({"beat": "shop", "entry": null, "run_id": Uuid::from_u128(run), "task": "t", "queue": "celery",
                "published_at": at - chrono::TimeDelta::seconds(waited)}),
        );
        said["at"] = json!(at);
        world.event(said).await;
        world.advance(6);
    };
    let waited = async || {
        world
            .count("SELECT coalesce(taken_after_seconds, -1)::int8 FROM queue WHERE name = 'celery'")
            .await
    };
    received(1, 0, 0).await;
    assert_eq!(waited().await, -1, "a queue without a wait costs no write");
    received(2, 30, 0).await;
    assert_eq!(waited().await, 30);
    received(3, 300, 60).await;
    assert_eq!(waited().await, 30, "the report arrived too late to count");
    // The sender's clock is ahead of the worker's clock.
    received(4, -1, 0).await;
    assert_eq!(waited().await, 0);
}
