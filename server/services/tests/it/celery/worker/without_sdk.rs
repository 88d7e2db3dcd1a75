//! Runs of Beat vanish into a worker that reports nothing: one incident about the queue. If another reason is as likely, the cause is open.

use deadbeat_domain::monitor::status::Status;
use deadbeat_services::celery::event::Verdict;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted};

/// The workers that answer Celery's inspect, as (name, queue).
type Answering<'a> = &'a [(&'a str, &'a str)];

const BOTH: Answering<'static> = &[("w1", "celery"), ("dumb", "celery")];

impl World {
    fn sample(&self, answering: Answering<'_>) -> Value {
        let answering: Vec<Value> = answering
            .iter()
            .map(|(name, queue)| json!({"worker": name, "queues": [queue]}))
            .collect();
        let seen = json!({
            "app": "shop", "transport": "redis", "reachable": true, "answering": answering,
            "queues": [{"name": "celery", "depth": 0}],
        });
        self.an_event("broker_sample", seen)
    }

    /// For some seconds, Beat and the worker `w1` report, a process samples the broker, and the evaluator sweeps.
    async fn sample_for(&self, seconds: i64, answering: Answering<'_>) {
        for second in 0..seconds / 5 {
            self.advance(5);
            self.alive().await;
            self.worker_says(
                "w1",
                json!({"pool": "prefork", "processes": 2, "running": [], "queues": ["celery"]}),
            )
            .await;
            if second % 2 == 0 {
                self.event(self.sample(answering)).await;
            }
            self.sweep().await;
        }
    }

    async fn publish(&self, entry: &str) {
        let run = json!({"beat": "shop", "entry": entry, "run_id": Uuid::new_v4(), "queue": "celery"});
        self.event(self.an_event("run_published", run)).await;
    }

    async fn queue(&self) -> Uuid {
        sqlx::query_scalar("SELECT id FROM queue WHERE name = 'celery'")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Two entries are due, and Beat sends their runs.
    async fn sends_both(&self, answering: Answering<'_>) {
        self.schedule(&["a", "b"]).await;
        self.sample_for(60, answering).await;
        self.publish("a").await;
        self.publish("b").await;
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn runs_that_vanish_into_one_are_one_incident_that_ends_when_it_has_gone(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    world.sends_both(BOTH).await;

    world.sample_for(45, BOTH).await;

    let queue = world.queue().await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "WORKER_WITHOUT_SDK", true)]
    );
    for name in ["a", "b"] {
        assert_eq!(world.entry(name).await.state.status, Status::Down, "{name}");
    }
    let (summary, repair): (String, Value) = sqlx::query_as("SELECT summary, repair FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(
        summary.contains("Worker dumb takes messages from queue celery"),
        "{summary}"
    );
    assert!(
        repair
            .to_string()
            .contains("celery -A shop control shutdown -d dumb"),
        "{repair}"
    );

    world.sample_for(10, &[("w1", "celery")]).await;

    assert_eq!(
        world.incidents().await,
        [alerted(queue, "WORKER_WITHOUT_SDK", false)]
    );
    let alerts = [("opened".to_owned(), channel), ("resolved".to_owned(), channel)];
    assert_eq!(world.deliveries().await, alerts);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn it_is_over_when_the_worker_begins_to_report(pool: PgPool) {
    let world = World::new(pool).await;
    world.sends_both(BOTH).await;
    world.sample_for(45, BOTH).await;
    let queue = world.queue().await;
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "WORKER_WITHOUT_SDK", true)]
    );

    world
        .worker_says("dumb", json!({"pool": "prefork", "queues": ["celery"]}))
        .await;
    world.sample_for(10, BOTH).await;

    assert_eq!(
        world.incidents().await,
        [alerted(queue, "WORKER_WITHOUT_SDK", false)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_stranger_that_takes_nothing_of_beats_is_not_reported(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    for _ in 0..5 {
        world.sample_for(30, BOTH).await;
        world.finished("a", "success").await;
        world.finished("b", "success").await;
    }
    assert_eq!(world.incidents().await, []);
}

impl World {
    /// With these workers, Deadbeat must regard vanished runs as lost.
    async fn loses(&self, answering: Answering<'_>) {
        self.sends_both(answering).await;
        self.sample_for(45, answering).await;
        let causes: Vec<String> = self.incidents().await.into_iter().map(|one| one.cause).collect();
        assert_eq!(causes, ["LOST_IN_BROKER", "LOST_IN_BROKER"]);
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_that_consumes_another_queue_is_not_to_blame(pool: PgPool) {
    let world = World::new(pool).await;
    world.loses(&[("w1", "celery"), ("dumb", "mails")]).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_that_reports_as_another_application_of_the_project_is_not_to_blame(pool: PgPool) {
    let world = World::new(pool).await;
    let elsewhere = json!({"app": "mails", "pool": "prefork", "grace_seconds": 1_000});
    world.worker_says("w2", elsewhere).await;
    world.loses(&[("w1", "celery"), ("w2", "celery")]).await;
}

impl World {
    /// For some seconds, messages wait in `mails`, and its head stays the same. `w1` reports and consumes `celery`.
    async fn mails_wait_for(&self, seconds: i64, longest_wait: f64, answering: Answering<'_>) {
        for _ in 0..seconds / 10 {
            self.advance(10);
            self.worker_says("w1", json!({"pool": "prefork", "queues": ["celery"]}))
                .await;
            let mut sample = self.sample(answering);
            sample["longest_wait_seconds"] = json!(longest_wait);
            sample["queues"] = json!([{"name": "mails", "depth": 5, "head": "m1", "oldest_seconds": 200.0}]);
            self.event(sample).await;
            self.sweep().await;
        }
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_queue_that_one_consumes_which_is_busy_with_a_long_task_is_consumed(pool: PgPool) {
    let world = World::new(pool).await;
    let with_mails: Answering<'_> = &[("w1", "celery"), ("dumb", "mails")];
    world.mails_wait_for(300, 600.0, with_mails).await;
    assert_eq!(world.incidents().await, []);

    // The worker is too slow, which is another fault.
    world.mails_wait_for(10, 100.0, with_mails).await;
    let queue: Uuid = sqlx::query_scalar("SELECT id FROM queue WHERE name = 'mails'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_SLA_BREACH", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_queue_whose_only_consumer_does_not_answer_any_more_is_unconsumed(pool: PgPool) {
    let world = World::new(pool).await;
    world
        .mails_wait_for(60, 600.0, &[("w1", "celery"), ("dumb", "mails")])
        .await;
    assert_eq!(world.incidents().await, []);

    world.mails_wait_for(60, 600.0, &[("w1", "celery")]).await;

    let queue: Uuid = sqlx::query_scalar("SELECT id FROM queue WHERE name = 'mails'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_UNCONSUMED", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_waits_for_one_which_is_busy_waits_in_its_queue(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    let answering: Answering<'_> = &[("w1", "celery"), ("dumb", "mails")];
    world.sample_for(60, answering).await;
    let run = json!({"beat": "shop", "entry": "a", "run_id": Uuid::new_v4(), "queue": "mails"});
    world.event(world.an_event("run_published", run)).await;
    for _ in 0..5 {
        world.alive().await;
        world.finished("b", "success").await;
        world.mails_wait_for(10, 600.0, answering).await;
    }

    let queue: Uuid = sqlx::query_scalar("SELECT id FROM queue WHERE name = 'mails'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(
        world.incidents().await,
        [alerted(queue, "QUEUE_SLA_BREACH", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_sample_names_a_bounded_number_of_workers(pool: PgPool) {
    let world = World::new(pool).await;
    let names: Vec<String> = (0..1_001).map(|n| format!("w{n}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "celery")).collect();
    world.event(world.sample(&all[..1_000])).await;
    let kept = "SELECT jsonb_array_length(strangers)::bigint FROM broker";
    assert_eq!(world.count(kept).await, 100);
    let verdicts = world.events(vec![world.sample(&all)]).await;
    assert!(
        matches!(
            verdicts[..],
            [Verdict::Rejected {
                code: "invalid_event",
                ..
            }]
        ),
        "{verdicts:?}"
    );
}
