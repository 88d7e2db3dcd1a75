//! One process of a worker owns each run that has begun, and the end of that process decides the run.

use deadbeat_services::celery::event::Verdict;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted, entry};

const OLD: Uuid = Uuid::from_u128(0xa);
const NEW: Uuid = Uuid::from_u128(0xb);
const RUN: Uuid = Uuid::from_u128(1);

impl World {
    /// Beat lists an hourly entry whose runs may take an hour.
    async fn list_hourly(&self) {
        let mut entry = entry("a");
        entry["schedule"] = json!({"kind": "interval", "seconds": 86_400});
        entry["longest_run_seconds"] = json!(86_400);
        self.event(self.an_event("beat_schedule", json!({"beat": "shop", "entries": [entry]})))
            .await;
    }

    async fn lives(&self, incarnation: Uuid, rest: Value) -> Verdict {
        let mut said =
            json!({"incarnation": incarnation, "running": [], "processes": 2, "loop_lag_seconds": 0});
        for (field, value) in rest.as_object().unwrap() {
            said[field] = value.clone();
        }
        self.worker_says("w1", said).await
    }

    async fn begins(&self, incarnation: Uuid, rest: Value) {
        let mut said = json!({
            "beat": "shop", "entry": "a", "run_id": RUN, "queue": "celery", "worker": "w1",
            "attempt": Uuid::now_v7(), "incarnation": incarnation,
        });
        for (field, value) in rest.as_object().unwrap() {
            said[field] = value.clone();
        }
        self.event(self.an_event("run_started", said)).await;
    }

    /// For some seconds, Beat and this process report, and the evaluator sweeps.
    async fn pass(&self, seconds: i64, incarnation: Uuid, rest: &Value) {
        for _ in 0..seconds {
            self.advance(1);
            if self.now().timestamp() % 5 == 0 {
                self.alive().await;
                self.lives(incarnation, rest.clone()).await;
            }
            self.sweep().await;
        }
    }

    async fn a_id(&self) -> Uuid {
        self.entry("a").await.id.0
    }

    async fn summary(&self) -> String {
        sqlx::query_scalar("SELECT summary FROM incident")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

/// Starts a worker that runs the entry.
async fn running(pool: PgPool, rest: Value) -> World {
    let world = World::new(pool).await;
    world.list_hourly().await;
    world.alive().await;
    world.lives(OLD, json!({"running": [RUN], "active": 1})).await;
    world.begins(OLD, rest).await;
    world.sweep().await;
    assert_eq!(world.incidents().await, []);
    world
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_of_a_worker_that_was_killed_and_restarted_is_reported_within_seconds(pool: PgPool) {
    let world = running(pool, json!({})).await;
    world.advance(3);
    world.lives(NEW, json!({})).await;

    world.pass(9, NEW, &json!({})).await;

    assert_eq!(
        world.incidents().await,
        [alerted(world.a_id().await, "WORKER_KILLED", true)]
    );
    assert!(
        world.summary().await.contains("has been replaced"),
        "{}",
        world.summary().await
    );
    world.pass(120, NEW, &json!({})).await;
    assert_eq!(
        world.incidents().await,
        [alerted(world.a_id().await, "WORKER_KILLED", true)],
        "once"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_of_a_worker_that_is_killed_while_it_stops_is_reported(pool: PgPool) {
    let world = running(pool, json!({})).await;
    world
        .lives(OLD, json!({"state": "stopping", "running": [RUN], "active": 1}))
        .await;
    world.advance(3);
    world.worker_says("w2", json!({"incarnation": NEW})).await;

    for _ in 0..32 {
        world.sweep_after(1).await;
    }

    let incidents = world.incidents().await;
    assert!(
        incidents.contains(&alerted(world.a_id().await, "WORKER_KILLED", true)),
        "{incidents:?}"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_end_report_with_an_open_run_is_reported_when_its_last_reports_have_come(pool: PgPool) {
    let world = running(pool, json!({})).await;
    world
        .lives(OLD, json!({"state": "stopped", "running": [RUN]}))
        .await;

    assert_eq!(world.sweep_after(7).await.down, 0);
    for _ in 0..4 {
        world.sweep_after(1).await;
    }

    assert_eq!(
        world.incidents().await,
        [alerted(world.a_id().await, "WORKER_KILLED", true)]
    );
    assert!(
        world
            .summary()
            .await
            .contains("stopped without reporting its end")
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_is_delivered_again_alerts_nobody(pool: PgPool) {
    let world = running(pool, json!({"acks_late": true})).await;
    world.advance(3);
    world.lives(NEW, json!({})).await;
    world.pass(30, NEW, &json!({})).await;
    assert_eq!(world.incidents().await, [], "the redelivery is awaited");

    world.begins(NEW, json!({"acks_late": true})).await;
    world
        .pass(120, NEW, &json!({"running": [RUN], "active": 1}))
        .await;

    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_is_never_delivered_again_is_reported(pool: PgPool) {
    let world = running(pool, json!({"acks_late": true})).await;
    world.advance(3);
    world.lives(NEW, json!({})).await;

    world.pass(90, NEW, &json!({})).await;

    assert_eq!(
        world.incidents().await,
        [alerted(world.a_id().await, "WORKER_KILLED", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_start_that_is_reported_after_the_end_of_its_owner_is_reported_too(pool: PgPool) {
    let world = World::new(pool).await;
    world.list_hourly().await;
    world.lives(OLD, json!({})).await;
    world.advance(3);
    world.lives(NEW, json!({})).await;
    world.pass(10, NEW, &json!({})).await;

    world.begins(OLD, json!({})).await;
    world.pass(60, NEW, &json!({})).await;

    assert_eq!(
        world.incidents().await,
        [alerted(world.a_id().await, "WORKER_KILLED", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_workers_of_one_name_do_not_end_one_another(pool: PgPool) {
    let world = running(pool, json!({})).await;
    for _ in 0..12 {
        world.advance(2);
        world.alive().await;
        world.lives(NEW, json!({})).await;
        world.sweep().await;
        world.advance(3);
        world.lives(OLD, json!({"running": [RUN], "active": 1})).await;
        world.sweep().await;
    }
    assert_eq!(world.incidents().await, []);

    // The end of one process does not end the worker of that name.
    world.lives(NEW, json!({"state": "stopped"})).await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM worker WHERE status = 'up'")
            .await,
        1
    );
    world.pass(60, OLD, &json!({"running": [RUN], "active": 1})).await;
    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_its_worker_does_not_list_any_more_is_reported(pool: PgPool) {
    let world = running(pool, json!({})).await;
    world.pass(20, OLD, &json!({"running": [RUN], "active": 1})).await;
    assert_eq!(world.incidents().await, []);

    world.pass(25, OLD, &json!({})).await;

    assert_eq!(
        world.incidents().await,
        [alerted(world.a_id().await, "WORKER_KILLED", true)]
    );
    assert!(world.summary().await.contains("nothing has reported its end"));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_is_not_listed_for_a_moment_goes_on(pool: PgPool) {
    let world = running(pool, json!({})).await;
    world.pass(20, OLD, &json!({"running": [RUN], "active": 1})).await;
    world.pass(6, OLD, &json!({})).await;

    world
        .pass(120, OLD, &json!({"running": [RUN], "active": 1}))
        .await;

    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incarnation_of_another_project_ends_no_run(pool: PgPool) {
    let world = running(pool.clone(), json!({})).await;
    // The other project uses the same ids, and its process is replaced.
    let other = World::new(pool).await;
    other.lives(OLD, json!({"running": []})).await;
    other.advance(3);
    other.lives(NEW, json!({})).await;
    // The owner in this project has not been silent for long enough yet.
    other.pass(20, NEW, &json!({})).await;

    assert_eq!(
        world
            .count("SELECT count(*) FROM run WHERE orphaned IS NOT NULL")
            .await,
        0
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_worker_that_ends_by_an_error_is_lost_unless_a_new_one_takes_its_queues(pool: PgPool) {
    let failed = json!({"state": "stopped", "exit_code": 1, "exit_error": "ResponseError", "queues": []});
    let world = World::new(pool).await;
    world.worker_says("w1", json!({"incarnation": OLD})).await;
    world.worker_says("w2", json!({"incarnation": NEW})).await;
    world.advance(5);
    world.lives(OLD, failed.clone()).await;
    for _ in 0..31 {
        world.advance(1);
        world.worker_says("w2", json!({"incarnation": NEW})).await;
        world.sweep().await;
    }
    let w1 = world.worker_id("w1").await;
    assert_eq!(world.incidents().await, [alerted(w1, "WORKER_LOST", true)]);
    assert!(
        world
            .summary()
            .await
            .contains("ended by an error (ResponseError)")
    );
    world.lives(Uuid::from_u128(3), json!({})).await;
    assert_eq!(world.incidents().await, [alerted(w1, "WORKER_LOST", false)]);

    // The same happens again, and now a new worker consumes the queue.
    world.advance(5);
    world.lives(Uuid::from_u128(3), failed).await;
    world.advance(5);
    for _ in 0..40 {
        world.advance(1);
        world
            .worker_says("w3", json!({"incarnation": Uuid::from_u128(4)}))
            .await;
        world.worker_says("w2", json!({"incarnation": NEW})).await;
        world.sweep().await;
    }
    assert_eq!(world.incidents().await, [alerted(w1, "WORKER_LOST", false)]);
    assert_eq!(
        world
            .count("SELECT count(*) FROM worker WHERE name = 'w1' AND status = 'paused'")
            .await,
        1
    );
}

/// A worker is lost, and an incident opens; then other workers start. The incident ends when one of them consumes the lost worker's queue.
async fn is_replaced_later(pool: PgPool, last_report: Option<Value>) {
    let world = World::new(pool).await;
    let said = |incarnation: u128, started_at, queue: &str| json!({"incarnation": Uuid::from_u128(incarnation), "started_at": started_at, "queues": [queue]});
    let colleague = said(2, world.now(), "celery");
    world.worker_says("w1", said(1, world.now(), "celery")).await;
    world.worker_says("w2", colleague.clone()).await;
    world.advance(5);
    if let Some(last_report) = last_report {
        world.worker_says("w1", last_report).await;
    }
    for _ in 0..60 {
        world.advance(1);
        world.worker_says("w2", colleague.clone()).await;
        world.sweep().await;
    }
    let w1 = world.worker_id("w1").await;
    let lost = |is_open| [alerted(w1, "WORKER_LOST", is_open)];
    assert_eq!(world.incidents().await, lost(true), "a colleague is no successor");

    let elsewhere = said(3, world.now(), "mail");
    let successor = said(4, world.now(), "celery");
    for (name, said, is_open) in [("w3", elsewhere, true), ("w4", successor, false)] {
        for _ in 0..15 {
            world.advance(1);
            world.worker_says(name, said.clone()).await;
            world.worker_says("w2", colleague.clone()).await;
            world.sweep().await;
        }
        assert_eq!(world.incidents().await, lost(is_open), "{name}");
    }
    let given_up = "SELECT count(*) FROM worker WHERE name = 'w1' AND status = 'paused'";
    assert_eq!(world.count(given_up).await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_incident_of_a_worker_that_ended_by_an_error_ends_with_a_later_successor(pool: PgPool) {
    let error = json!({"incarnation": Uuid::from_u128(1), "state": "stopped", "exit_code": 1, "exit_error": "ResponseError", "queues": []});
    is_replaced_later(pool, Some(error)).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_incident_of_a_worker_that_was_killed_ends_with_a_later_successor(pool: PgPool) {
    is_replaced_later(pool, None).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_worker_that_ends_by_its_brokers_fault_is_reported_when_the_broker_is_well_and_it_stays_away(
    pool: PgPool,
) {
    let world = World::new(pool).await;
    let sample = |refused: Value| {
        let said = json!({"app": "shop", "worker": "beat@vm", "transport": "redis", "reachable": true, "queues": [],
            "refused_command": "LPUSHX", "refused_why": refused});
        world.an_event("broker_sample", said)
    };
    let refuses = json!("ReadOnlyError: You can't write against a read only replica.");
    world.worker_says("w1", json!({"incarnation": OLD})).await;
    world.event(sample(refuses.clone())).await;
    world
        .lives(
            OLD,
            json!({"state": "stopped", "exit_code": 1, "exit_error": "ResponseError", "queues": []}),
        )
        .await;
    for _ in 0..8 {
        world.advance(10);
        world.event(sample(refuses.clone())).await;
        world.sweep().await;
    }
    let broker: Uuid = sqlx::query_scalar("SELECT id FROM broker")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(world.incidents().await, [alerted(broker, "BROKER_DOWN", true)]);

    for _ in 0..8 {
        world.event(sample(Value::Null)).await;
        world.advance(10);
        world.sweep().await;
    }
    let w1 = world.worker_id("w1").await;
    let mut incidents = world.incidents().await;
    incidents.sort_by_key(|incident| format!("{incident:?}").contains("WORKER_LOST"));
    assert_eq!(
        incidents,
        [
            alerted(broker, "BROKER_DOWN", false),
            alerted(w1, "WORKER_LOST", true)
        ]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_older_sdk_is_judged_as_before(pool: PgPool) {
    let world = World::new(pool).await;
    world.list_hourly().await;
    world.worker_says("w1", json!({"running": [RUN]})).await;
    world
        .event(world.an_event(
            "run_started",
            json!({"beat": "shop", "entry": "a", "run_id": RUN, "worker": "w1", "attempt": Uuid::from_u128(5)}),
        ))
        .await;

    for _ in 0..30 {
        world.advance(2);
        world.alive().await;
        world.worker_says("w1", json!({"running": []})).await;
        world.sweep().await;
    }

    assert_eq!(world.incidents().await, []);
}
