//! A worker whose clock is ahead drops messages as too old. Its clock is at fault, even where the worker does not report it.

use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted};

const CANARY: &str = "deadbeat.canary";
/// How far the clock of the worker's host is ahead after the step.
const AHEAD: TimeDelta = TimeDelta::seconds(600);

impl World {
    /// Beat and a worker report each second, and the worker samples the broker. The worker's clock is ahead by `ahead`.
    async fn report_with(&self, seconds: i64, ahead: TimeDelta) {
        for second in 0..seconds {
            self.advance(1);
            let alive = json!({"beat": "shop", "period_seconds": 1, "grace_seconds": 4, "host": "h1"});
            self.event(self.an_event("beat_alive", alive)).await;
            let said = json!({
                "app": "shop", "worker": "w1", "host": "w1", "state": "running", "period_seconds": 1, "grace_seconds": 25,
                "pool": "prefork", "processes": 2, "active": 0, "reserved": 0, "accepted": 1, "running": [], "queues": ["celery"],
            });
            let mut snapshot = self.an_event("worker_snapshot", said);
            snapshot["at"] = json!(self.now() + ahead);
            self.batch(json!({"sent_at": self.now() + ahead, "events": [snapshot]}))
                .await
                .unwrap();
            if second % 10 == 0 {
                let queues = json!([{"name": "celery", "depth": 0}]);
                let sample =
                    json!({"app": "shop", "transport": "redis", "reachable": true, "queues": queues});
                self.event(self.an_event("broker_sample", sample)).await;
            }
            self.sweep().await;
        }
    }

    async fn alerted_of_canary(&self, kind: &str, run: Uuid, rest: Value) {
        let mut said =
            json!({"beat": "shop", "entry": CANARY, "task": CANARY, "run_id": run, "queue": "celery"});
        for (field, value) in rest.as_object().unwrap() {
            said[field] = value.clone();
        }
        self.event(self.an_event(kind, said)).await;
    }

    async fn canary_each_two_seconds(&self) {
        let canary = json!({
            "name": CANARY, "task": CANARY, "canary": true, "schedule": {"kind": "interval", "seconds": 2}, "grace_seconds": 4.0,
            "queue": "celery",
        });
        self.event(self.an_event("beat_schedule", json!({"beat": "shop", "entries": [canary]})))
            .await;
    }

    async fn a_canary_runs(&self) {
        let run = Uuid::new_v4();
        let worker = json!({"worker": "w1"});
        self.alerted_of_canary("run_published", run, json!({})).await;
        self.alerted_of_canary("run_received", run, worker.clone()).await;
        self.alerted_of_canary("run_started", run, worker.clone()).await;
        let ended = json!({"worker": "w1", "outcome": "success"});
        self.alerted_of_canary("run_finished", run, ended).await;
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_canary_that_was_taken_and_dropped_by_a_clock_that_is_ahead_is_part_of_that(pool: PgPool) {
    let world = World::new(pool).await;
    world.report_with(12, TimeDelta::zero()).await;
    world.canary_each_two_seconds().await;
    for _ in 0..3 {
        world.report_with(2, TimeDelta::zero()).await;
        world.a_canary_runs().await;
    }

    // The clock steps after the report that the canary was received, and before its start. Later messages are dropped when they arrive.
    world.report_with(2, TimeDelta::zero()).await;
    let run = Uuid::new_v4();
    world.alerted_of_canary("run_published", run, json!({})).await;
    world
        .alerted_of_canary("run_received", run, json!({"worker": "w1"}))
        .await;
    for _ in 0..20 {
        world.report_with(2, AHEAD).await;
        world
            .alerted_of_canary("run_published", Uuid::new_v4(), json!({}))
            .await;
    }

    let worker = world.worker_id("w1").await;
    assert_eq!(world.incidents().await, [alerted(worker, "CLOCK_SKEW", true)]);
    assert_eq!(world.members().await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_expired_by_a_clock_that_is_set_right_before_it_is_reported_is_part_of_that(pool: PgPool) {
    let world = World::new(pool).await;
    world.report_with(12, TimeDelta::zero()).await;
    world.canary_each_two_seconds().await;
    world.report_with(2, TimeDelta::zero()).await;
    world.a_canary_runs().await;
    for _ in 0..20 {
        world.report_with(2, AHEAD).await;
        world
            .alerted_of_canary("run_published", Uuid::new_v4(), json!({}))
            .await;
    }
    let alerted = [alerted(world.worker_id("w1").await, "CLOCK_SKEW", true)];
    assert_eq!(world.incidents().await, alerted);

    // The message expired by the old clock, and the worker sends its report by the new clock.
    let ended = json!({
        "beat": "shop", "entry": CANARY, "run_id": Uuid::new_v4(), "queue": "celery", "worker": "w1", "outcome": "expired",
        "published_at": world.now(),
    });
    let mut ended = world.an_event("run_finished", ended);
    ended["at"] = json!(world.now() + AHEAD);
    world.event(ended).await;

    assert_eq!(world.incidents().await, alerted);
}
