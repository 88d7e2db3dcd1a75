//! Workers: silence opens an incident, a reported end does not, and one worker samples the broker.

mod clock;
mod incarnation;
mod without_sdk;

use deadbeat_services::celery::event::Verdict;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted};

impl World {
    /// Sends a snapshot of a worker.
    pub async fn worker_says(&self, name: &str, rest: Value) -> Verdict {
        let mut said = json!({
            "app": "shop", "worker": name, "host": "w1", "state": "running", "period_seconds": 5, "grace_seconds": 25,
            "active": 0, "reserved": 0, "accepted": 1, "queues": ["celery"],
        });
        for (field, value) in rest.as_object().unwrap() {
            said[field] = value.clone();
        }
        let verdicts = self.events(vec![self.an_event("worker_snapshot", said)]).await;
        verdicts.into_iter().next().unwrap()
    }

    pub async fn worker_id(&self, name: &str) -> Uuid {
        sqlx::query_scalar("SELECT id FROM worker WHERE project_id = $1 AND name = $2")
            .bind(self.project.0)
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_worker_that_falls_silent_is_one_incident_and_is_resolved_when_it_is_back(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    world
        .worker_says("celery@w1", json!({"active": 2, "reserved": 6}))
        .await;

    assert_eq!(world.sweep_after(29).await.down, 0);
    assert_eq!(world.sweep_after(2).await.down, 1);
    assert_eq!(world.sweep_after(60).await.down, 0, "once");

    let id = world.worker_id("celery@w1").await;
    assert_eq!(world.incidents().await, [alerted(id, "WORKER_LOST", true)]);
    let evidence: Value = sqlx::query_scalar("SELECT evidence FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(
        evidence
            .to_string()
            .contains("It held 6 messages, 2 of them running."),
        "{evidence}"
    );
    let repair: Value = sqlx::query_scalar("SELECT repair FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(
        repair
            .to_string()
            .contains("celery -A shop worker -n celery@w1 -Q celery"),
        "{repair}"
    );

    world.worker_says("celery@w1", json!({})).await;
    assert_eq!(world.incidents().await, [alerted(id, "WORKER_LOST", false)]);
    assert_eq!(
        world.deliveries().await,
        [("opened".to_owned(), channel), ("resolved".to_owned(), channel)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_deployment_pages_nobody(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;

    world.worker_says("celery@w1", json!({"state": "stopping"})).await;
    world.worker_says("celery@w1", json!({"state": "stopped"})).await;
    for _ in 0..10 {
        world.sweep_after(60).await;
    }
    world.worker_says("celery@w1", json!({})).await;

    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_lost_worker_that_was_replaced_is_given_up_after_an_hour(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;
    world.sweep_after(31).await;
    let id = world.worker_id("celery@w1").await;
    assert_eq!(world.incidents().await, [alerted(id, "WORKER_LOST", true)]);

    for _ in 0..61 {
        world.sweep_after(60).await;
    }

    assert_eq!(world.incidents().await, [alerted(id, "WORKER_LOST", false)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_worker_of_an_application_samples_the_broker_and_is_replaced_when_it_is_silent_or_leaves(
    pool: PgPool,
) {
    let world = World::new(pool).await;
    let (samples, other) = (
        Verdict::Received {
            samples: true,
            queues: vec!["celery".to_owned()],
        },
        Verdict::Received {
            samples: false,
            queues: Vec::new(),
        },
    );
    assert_eq!(world.worker_says("celery@w1", json!({})).await, samples);
    assert_eq!(world.worker_says("celery@w2", json!({})).await, other);
    assert_eq!(
        world.worker_says("celery@w2", json!({"app": "other"})).await,
        samples,
        "another application has another broker"
    );
    world.advance(20);
    assert_eq!(world.worker_says("celery@w1", json!({})).await, samples);
    world.advance(20);
    assert_eq!(world.worker_says("celery@w2", json!({})).await, other);

    world.advance(11);
    assert_eq!(
        world.worker_says("celery@w2", json!({})).await,
        samples,
        "the other worker was silent for thirty seconds"
    );
    world.worker_says("celery@w2", json!({"state": "stopping"})).await;
    assert_eq!(world.worker_says("celery@w1", json!({})).await, samples);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_bad_snapshot_is_refused_with_what_is_wrong(pool: PgPool) {
    let world = World::new(pool).await;
    for (field, value) in [
        ("worker", json!("")),
        ("app", json!("a\u{0}b")),
        ("period_seconds", json!(0)),
        ("grace_seconds", json!(-1)),
        ("queues", json!(vec!["q"; 201])),
        ("state", json!("ill")),
    ] {
        let verdict = world.worker_says("celery@w1", json!({field: value})).await;
        assert!(
            matches!(&verdict, Verdict::Rejected { code: "invalid_event", detail } if detail.contains(field) || field == "state"),
            "{field}: {verdict:?}"
        );
    }
    assert_eq!(world.count("SELECT count(*) FROM worker").await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn workers_that_left_make_room_for_new_ones(pool: PgPool) {
    let world = World::new(pool).await;
    let fill = async |status: &str, from: i32, to: i32| {
        sqlx::query(
            "INSERT INTO worker (id, project_id, app, name, status, period_seconds, grace_seconds, last_seen_at, snapshot, queues,
                progress_at, created_at)
            SELECT gen_random_uuid(), $1, 'shop', 'w' || n, $2, 5, 25, $3, '{}', '{}', $3, $3 FROM generate_series($4, $5) AS n",
        )
        .bind(world.project.0)
        .bind(status)
        .bind(world.now())
        .bind(from)
        .bind(to)
        .execute(&world.pool)
        .await
        .unwrap();
    };
    fill("up", 1, 9_999).await;
    fill("paused", 10_000, 10_000).await;

    let received = world.worker_says("celery@new", json!({})).await;
    assert!(matches!(received, Verdict::Received { .. }), "{received:?}");
    let one_more = world.worker_says("celery@newer", json!({})).await;

    assert!(
        matches!(&one_more, Verdict::Rejected { code: "refused", detail } if detail.contains("10000")),
        "{one_more:?}"
    );
    assert_eq!(world.count("SELECT count(*) FROM worker").await, 10_000);
}
