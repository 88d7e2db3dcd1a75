//! One fault is one incident with the right cause and subject. The affected entries are its members.

mod copies;
mod lost;
mod starving;

use chrono::TimeDelta;
use deadbeat_domain::monitor::status::Status;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted};

/// The reports of each five seconds.
struct Scene {
    beat: bool,
    broker: Value,
    workers: Vec<(&'static str, Value)>,
}

/// Beat, a broker with an empty queue, and an idle worker.
fn healthy() -> Scene {
    Scene {
        beat: true,
        broker: json!({"queues": [{"name": "celery", "depth": 0}]}),
        workers: vec![("w1", json!({}))],
    }
}

impl World {
    /// Lets time pass with the reports of the scene, and sweeps.
    async fn live(&self, seconds: i64, scene: &Scene) {
        for _ in 0..seconds / 5 {
            self.advance(5);
            if scene.beat {
                self.alive().await;
            }
            for (name, rest) in &scene.workers {
                let mut said = json!({"pool": "prefork", "processes": 2, "running": []});
                for (field, value) in rest.as_object().unwrap() {
                    said[field] = value.clone();
                }
                self.worker_says(name, said).await;
            }
            if !scene.broker.is_null() {
                let mut said = json!({"app": "shop", "transport": "redis", "reachable": true, "queues": []});
                for (field, value) in scene.broker.as_object().unwrap() {
                    said[field] = value.clone();
                }
                self.event(self.an_event("broker_sample", said)).await;
            }
            self.sweep().await;
        }
    }

    async fn run_says(&self, kind: &str, run: u128, rest: Value) {
        let mut said = json!({"beat": "shop", "entry": "a", "run_id": Uuid::from_u128(run), "queue": "celery", "worker": "w1"});
        for (field, value) in rest.as_object().unwrap() {
            said[field] = value.clone();
        }
        self.event(self.an_event(kind, said)).await;
    }

    async fn attempt(&self, run: u128, attempt: u128) {
        self.run_says("run_started", run, json!({"attempt": Uuid::from_u128(attempt)}))
            .await;
    }

    async fn only(&self, subject: impl Into<Uuid>, cause: &str, open: bool) {
        assert_eq!(self.incidents().await, [alerted(subject, cause, open)]);
    }

    async fn a(&self) -> Uuid {
        self.entry("a").await.id.0
    }

    /// Beat lists an entry of a minute with 5 s of grace, whose runs may take an hour.
    async fn list_long_running(&self) {
        let mut entry = crate::setup::entry("a");
        entry["longest_run_seconds"] = json!(3_600);
        self.event(self.an_event("beat_schedule", json!({"beat": "shop", "entries": [entry]})))
            .await;
    }

    /// Lists the entry and waits a minute, until it is due.
    async fn until_due(&self, scene: &Scene) {
        self.list_long_running().await;
        self.live(60, scene).await;
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_that_is_nowhere_was_lost_in_the_broker(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    scene.broker["maxmemory_policy"] = json!("allkeys-lru");
    world.until_due(&scene).await;
    world.run_says("run_published", 1, json!({})).await;

    world.live(30, &scene).await;

    world.only(world.a().await, "LOST_IN_BROKER", true).await;
    let evidence: Value = sqlx::query_scalar("SELECT evidence FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(evidence.to_string().contains("allkeys-lru"), "{evidence}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_that_is_nowhere_may_be_a_report_that_was_lost(pool: PgPool) {
    let world = World::new(pool).await;
    let scene = healthy();
    world.until_due(&scene).await;
    world.run_says("run_published", 1, json!({})).await;
    world
        .event(world.an_event(
            "client_loss",
            json!({"dropped": 7, "app": "shop", "process": "celery@w1/4"}),
        ))
        .await;

    world.live(30, &scene).await;

    world.only(world.a().await, "UNKNOWN", true).await;
    let evidence: Value = sqlx::query_scalar("SELECT evidence FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(evidence.to_string().contains("dropped 7 reports"), "{evidence}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_no_worker_accounts_for_is_not_called_lost(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    scene.broker["unacked"] = json!(1);
    world.until_due(&scene).await;
    world.run_says("run_published", 1, json!({})).await;

    world.live(30, &scene).await;

    world.only(world.a().await, "UNKNOWN", true).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_whose_queue_nobody_consumes_is_part_of_that_queues_incident(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    world.until_due(&scene).await;
    world
        .run_says("run_published", 1, json!({"queue": "reports"}))
        .await;
    scene.broker["queues"] = json!([{"name": "reports", "depth": 1, "oldest_seconds": 9}]);

    world.live(90, &scene).await;

    let queue: Uuid = sqlx::query_scalar("SELECT id FROM queue WHERE name = 'reports'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    world.only(queue, "QUEUE_UNCONSUMED", true).await;
    assert_eq!(world.members().await, 1);
    assert_eq!(world.entry("a").await.state.status, Status::Down);

    scene.workers[0].1 = json!({"queues": ["celery", "reports"]});
    world.live(5, &scene).await;
    world.only(queue, "QUEUE_UNCONSUMED", false).await;
    assert_eq!(world.entry("a").await.state.status, Status::New, "expected anew");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_a_lost_worker_was_at_is_part_of_its_incident(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    world.until_due(&scene).await;
    world.run_says("run_started", 1, json!({})).await;
    world.live(5, &scene).await;

    scene.workers.clear();
    world.live(60, &scene).await;

    let worker = world.worker_id("w1").await;
    world.only(worker, "WORKER_LOST", true).await;
    assert_eq!(world.members().await, 1);
    assert_eq!(
        world
            .count("SELECT count(*) FROM run WHERE status = 'overrun'")
            .await,
        1
    );

    scene.workers = healthy().workers;
    world.live(5, &scene).await;
    world.only(worker, "WORKER_LOST", false).await;
    assert_eq!(world.entry("a").await.state.status, Status::New);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_in_a_busy_worker_beside_an_idle_one_is_starved(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    scene.workers = vec![("w1", json!({"active": 2, "reserved": 3})), ("w2", json!({}))];
    world.until_due(&scene).await;
    world.run_says("run_published", 1, json!({})).await;
    world.run_says("run_received", 1, json!({})).await;

    world.live(30, &scene).await;

    world.only(world.a().await, "PREFETCH_STARVATION", true).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_broker_that_is_away_is_one_incident_whatever_stops_with_it(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    let away = Scene {
        beat: false,
        broker: json!({"reachable": false, "error": "ConnectionError"}),
        workers: vec![("w1", json!({"connected": false, "loop_lag_seconds": 200}))],
    };

    world.live(200, &away).await;

    let broker: Uuid = sqlx::query_scalar("SELECT id FROM broker")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    world.only(broker, "BROKER_DOWN", true).await;
    assert_eq!(world.members().await, 1);

    world.live(30, &healthy()).await;
    world.only(broker, "BROKER_DOWN", false).await;
    assert_eq!(world.entry("a").await.state.status, Status::New);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_stays_silent_after_its_broker_is_back_is_reported(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    let mut scene = healthy();
    scene.beat = false;
    scene.broker = json!({"reachable": false});
    world.live(100, &scene).await;
    scene.broker = healthy().broker;

    world.live(100, &scene).await;

    let incidents = world.incidents().await;
    let causes: Vec<(&str, bool)> = incidents
        .iter()
        .map(|one| (one.cause.as_str(), one.open))
        .collect();
    assert_eq!(causes, [("BROKER_DOWN", false), ("BEAT_DOWN", true)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_worker_whose_pool_is_frozen_is_a_ghost_and_its_entries_are_part_of_that(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    world.until_due(&scene).await;
    world.run_says("run_published", 1, json!({})).await;
    world.run_says("run_received", 1, json!({})).await;
    scene.workers = vec![("w1", json!({"active": 0, "reserved": 4}))];

    world.live(100, &scene).await;

    let worker = world.worker_id("w1").await;
    world.only(worker, "GHOST_WORKER", true).await;
    assert_eq!(world.members().await, 1);

    scene.workers = vec![("w1", json!({"accepted": 5}))];
    world.live(5, &scene).await;
    world.only(worker, "GHOST_WORKER", false).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_worker_that_is_deaf_to_its_queue_is_a_ghost_and_a_busy_one_is_not(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    scene.broker = json!({"queues": [{"name": "celery", "depth": 20, "oldest_seconds": 5}]});
    scene.workers = vec![("w1", json!({})), ("w2", json!({"active": 2, "reserved": 10}))];

    world.live(90, &scene).await;

    world
        .only(world.worker_id("w1").await, "GHOST_WORKER", true)
        .await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_floods_is_reported_once_and_until_it_is_quiet_for_a_minute(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    let published = |run: u128| {
        let run = json!({"beat": "shop", "entry": "a", "run_id": Uuid::from_u128(run), "queue": "reports"});
        world.an_event("run_published", run)
    };
    world.events((0..60).map(published).collect()).await;
    assert_eq!(world.incidents().await, []);
    world.events((60..120).map(published).collect()).await;
    world.events((120..300).map(published).collect()).await;

    let beat: Uuid = sqlx::query_scalar("SELECT id FROM beat")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    world.only(beat, "BEAT_STORM", true).await;
    let alerted: String = sqlx::query_scalar("SELECT summary || evidence || repair FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    for part in [
        "floods queue reports: it sends entry a over and over",
        "entry a 120 times",
        "purge -f -Q reports",
    ] {
        assert!(alerted.contains(part), "{part}: {alerted}");
    }
    world.finished("a", "success").await;
    world.live(50, &healthy()).await;
    world.only(beat, "BEAT_STORM", true).await;
    world.finished("a", "success").await;
    world.live(15, &healthy()).await;
    world.only(beat, "BEAT_STORM", false).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn events_that_are_sent_again_are_no_storm(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    let published = |run: u128| {
        let run = json!({"beat": "shop", "entry": "a", "run_id": Uuid::from_u128(run), "queue": "reports"});
        world.an_event("run_published", run)
    };
    let sent: Vec<Value> = (0..60).map(published).collect();

    // The SDK sends a batch again after a 503 or a lost answer. Repeated batches do not count.
    for _ in 0..5 {
        world.events(sent.clone()).await;
    }
    assert_eq!(world.incidents().await, []);

    // A new batch counts, even if only its second try gets an answer.
    world.events((60..120).map(published).collect()).await;
    let beat: Uuid = sqlx::query_scalar("SELECT id FROM beat")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    world.only(beat, "BEAT_STORM", true).await;
    let evidence: String = sqlx::query_scalar("SELECT evidence::text FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(evidence.contains("entry a 120 times"), "{evidence}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_hangs_is_not_called_dead(pool: PgPool) {
    let world = World::new(pool).await;
    world.list_long_running().await;
    world.live(55, &healthy()).await;
    let mut scene = healthy();
    scene.beat = false;
    for _ in 0..4 {
        let hung = json!({"beat": "shop", "period_seconds": 10.0, "grace_seconds": 20.0, "ticking": false});
        world.event(world.an_event("beat_alive", hung)).await;
        world.live(10, &scene).await;
    }

    let beat: Uuid = sqlx::query_scalar("SELECT id FROM beat")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    world.only(beat, "BEAT_STALLED", true).await;
    assert_eq!(world.members().await, 1);
    world.live(5, &healthy()).await;
    world.only(beat, "BEAT_STALLED", false).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_clock_that_is_off_for_a_while_is_reported_for_its_worker(pool: PgPool) {
    let world = World::new(pool).await;
    let wrong = async |seconds: i64| {
        let their_now = world.now() + TimeDelta::seconds(seconds);
        let mut said = world.an_event(
            "worker_snapshot",
            json!({"app": "shop", "worker": "w1", "state": "running", "period_seconds": 5, "grace_seconds": 25, "queues": ["celery"]}),
        );
        said["at"] = json!(their_now);
        world
            .batch(json!({"sent_at": their_now, "events": [said]}))
            .await
            .unwrap();
        world.advance(5);
    };
    for _ in 0..20 {
        wrong(9).await;
    }
    wrong(300).await;
    wrong(0).await;
    assert_eq!(
        world.incidents().await,
        [],
        "one wrong clock may be a delayed report"
    );

    for _ in 0..5 {
        wrong(-300).await;
    }

    let worker = world.worker_id("w1").await;
    world.only(worker, "CLOCK_SKEW", true).await;
    wrong(0).await;
    world.only(worker, "CLOCK_SKEW", false).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_waits_for_its_queue_as_long_as_a_consumer_that_left_is_waited_for(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    let reports = json!({"queues": ["reports"]});
    scene.workers.push(("w2", reports.clone()));
    world.until_due(&scene).await;
    scene.workers.pop();
    world
        .worker_says("w2", json!({"state": "stopping", "queues": ["reports"]}))
        .await;
    world
        .run_says("run_published", 1, json!({"queue": "reports"}))
        .await;
    scene.broker["queues"] = json!([{"name": "reports", "depth": 1, "oldest_seconds": 9}]);

    world.live(100, &scene).await;
    assert_eq!(world.incidents().await, [], "a deployment");
    world.live(60, &scene).await;

    let queue: Uuid = sqlx::query_scalar("SELECT id FROM queue WHERE name = 'reports'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    world.only(queue, "QUEUE_UNCONSUMED", true).await;
    assert_eq!(world.members().await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_whose_worker_is_deaf_is_part_of_that_workers_incident(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    world.until_due(&scene).await;
    world.run_says("run_published", 1, json!({})).await;
    scene.broker["queues"] = json!([{"name": "celery", "depth": 1, "oldest_seconds": null}]);

    world.live(100, &scene).await;

    world
        .only(world.worker_id("w1").await, "GHOST_WORKER", true)
        .await;
    assert_eq!(world.members().await, 1);
}
