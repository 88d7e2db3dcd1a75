//! One fault is one incident, with the right cause: what went wrong is told of whom it is about, and the entries are part of that.

use chrono::TimeDelta;
use deadbeat_domain::monitor::status::Status;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, told};

/// What is said every five seconds.
struct Scene {
    beat: bool,
    broker: Value,
    workers: Vec<(&'static str, Value)>,
}

/// Beat, a broker with an empty queue, and a worker that has nothing to do.
fn healthy() -> Scene {
    Scene {
        beat: true,
        broker: json!({"queues": [{"name": "celery", "depth": 0}]}),
        workers: vec![("w1", json!({}))],
    }
}

impl World {
    /// Time goes by.
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
        assert_eq!(self.incidents().await, [told(subject, cause, open)]);
    }

    async fn a(&self) -> Uuid {
        self.entry("a").await.id.0
    }

    /// Beat has an entry of a minute, with 5 s of grace, whose runs may take an hour.
    async fn list_long_running(&self) {
        let mut entry = crate::setup::entry("a");
        entry["longest_run_seconds"] = json!(3_600);
        self.event(self.an_event("beat_schedule", json!({"beat": "shop", "entries": [entry]})))
            .await;
    }

    /// The entry is due, as it is after a minute.
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
    assert!(evidence.to_string().contains("drop 7 reports"), "{evidence}");
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
async fn a_beat_that_stays_silent_after_its_broker_is_back_is_told(pool: PgPool) {
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
async fn a_message_executed_twice_is_told_and_the_end_of_one_copy_is_no_all_clear(pool: PgPool) {
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
async fn a_message_executed_again_after_its_success_is_told(pool: PgPool) {
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
async fn a_message_executed_twice_is_told_also_when_the_second_copy_ends_first(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    world.until_due(&scene).await;
    let ended = async |run: u128, attempt: u128| {
        let end = json!({"outcome": "success", "attempt": Uuid::from_u128(attempt)});
        world.run_says("run_finished", run, end).await;
    };
    // What ran it first is dead: delivered again and done, it is well.
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

    // What ran it first goes on.
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

    // Both have ended before anybody could ask.
    world.attempt(3, 5).await;
    world.attempt(3, 6).await;
    ended(3, 6).await;
    ended(3, 5).await;
    assert_eq!(
        world.incidents().await,
        [told(a, "DUPLICATE_RUN", false), told(a, "DUPLICATE_RUN", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_that_kills_what_runs_it_is_told_after_its_third_try(pool: PgPool) {
    let world = World::new(pool).await;
    world.until_due(&healthy()).await;
    world.attempt(1, 1).await;
    world.attempt(1, 2).await;
    world.live(15, &healthy()).await;
    assert_eq!(
        world.incidents().await,
        [],
        "a message that was delivered again is no trouble"
    );

    world.attempt(1, 3).await;
    world.live(15, &healthy()).await;

    world.only(world.a().await, "REDELIVERY_LOOP", true).await;

    // Other messages are well; that says nothing of this one.
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
async fn why_a_process_was_told_to_go_is_said_by_the_main_process(pool: PgPool) {
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

    // Nobody says why: a task that ended its own process.
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
async fn a_beat_that_floods_is_told_once_and_until_it_is_quiet_for_a_minute(pool: PgPool) {
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
    let told: String = sqlx::query_scalar("SELECT summary || evidence || repair FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    for part in [
        "floods queue reports: it sends entry a over and over",
        "entry a 120 times",
        "purge -f -Q reports",
    ] {
        assert!(told.contains(part), "{part}: {told}");
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

    // The SDK sends a batch again after a 503 or a lost answer.
    for _ in 0..5 {
        world.events(sent.clone()).await;
    }
    assert_eq!(world.incidents().await, []);

    // A new batch counts, and still counts if only its second try is answered.
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
async fn a_clock_that_is_off_for_a_while_is_told_of_its_worker(pool: PgPool) {
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
    assert_eq!(world.incidents().await, [], "once is a report that was held up");

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

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_is_proved_to_have_run_twice_is_told_although_its_monitor_is_down(pool: PgPool) {
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
            told(beat, "BEAT_DOWN", true),
            told(world.a().await, "DUPLICATE_RUN", true)
        ]
    );
}

impl World {
    /// The entry waits for each run for ten minutes; one is lost while those before and after it run.
    async fn lose_one(&self, more: Value) {
        let mut entry = crate::setup::entry("a");
        entry["grace_seconds"] = json!(600);
        for (field, value) in more.as_object().unwrap() {
            entry[field] = value.clone();
        }
        self.event(self.an_event("beat_schedule", json!({"beat": "shop", "entries": [entry]})))
            .await;
        let scene = healthy();
        for run in 1..=3 {
            self.live(10, &scene).await;
            self.run_says("run_published", run, json!({"worker": null})).await;
            if run != 2 {
                self.run_says("run_received", run, json!({})).await;
                self.attempt(run, run).await;
                self.run_says(
                    "run_finished",
                    run,
                    json!({"outcome": "success", "attempt": Uuid::from_u128(run)}),
                )
                .await;
            }
        }
    }

    async fn trace_state(&self, run: u128) -> String {
        sqlx::query_scalar("SELECT state FROM trace WHERE run_id = $1")
            .bind(Uuid::from_u128(run))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_lost_run_ends_although_later_ones_ran_and_nobody_is_told(pool: PgPool) {
    let world = World::new(pool).await;
    world.lose_one(json!({})).await;

    world.live(30, &healthy()).await;

    assert_eq!(world.trace_state(2).await, "lost");
    assert_eq!(world.incidents().await, []);
    assert_eq!(world.count("SELECT count(*) FROM unbegun_run").await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_that_asks_for_every_run_is_down_for_a_lost_one_until_the_next_success(pool: PgPool) {
    let world = World::new(pool).await;
    world.lose_one(json!({"every_run": true})).await;
    world.live(5, &healthy()).await;
    assert_eq!(
        world.trace_state(2).await,
        "published",
        "its worker may say so yet"
    );

    // Two processes look at the same moment.
    let other = world.another_evaluator();
    world.advance(10);
    world.live(5, &healthy()).await;
    let (one, two) = tokio::join!(world.evaluator.sweep_once(), other.sweep_once());
    one.unwrap();
    two.unwrap();

    world.only(world.a().await, "LOST_IN_BROKER", true).await;
    let summary: String = sqlx::query_scalar("SELECT summary FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(summary.contains("Later runs began"), "{summary}");
    world.finished("a", "success").await;
    world.only(world.a().await, "LOST_IN_BROKER", false).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_waits_is_forgotten_after_an_hour_and_one_that_begins_late_at_once(pool: PgPool) {
    let world = World::new(pool).await;
    world.lose_one(json!({"every_run": true})).await;
    let mut scene = healthy();
    scene.broker["queues"] = json!([{"name": "celery", "depth": 1, "oldest_seconds": 60}]);
    world.live(60, &scene).await;
    assert_eq!(world.trace_state(2).await, "published", "its message waits");
    let waiting = "SELECT count(*) FROM unbegun_run";
    assert_eq!(world.count(waiting).await, 1);

    world.run_says("run_received", 2, json!({})).await;
    assert_eq!(world.count(waiting).await, 0);
    world.run_says("run_published", 4, json!({"worker": null})).await;
    assert_eq!(world.count(waiting).await, 1);
    for _ in 0..3 {
        world.advance(1_800);
        world.sweep().await;
    }
    assert_eq!(world.count(waiting).await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_in_a_worker_that_starves_is_told_once_with_the_load_of_its_host(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    world.until_due(&scene).await;
    world.run_says("run_published", 1, json!({"worker": null})).await;
    world.run_says("run_received", 1, json!({})).await;
    // It speaks every 15 s instead of every 5 s, and gets on with others meanwhile.
    scene.workers.clear();
    for accepted in 2..14 {
        world.live(15, &scene).await;
        let said = json!({"processes": 2, "reserved": 1, "accepted": accepted, "host": "h1", "load_per_cpu": 4.5, "incarnation": Uuid::from_u128(9)});
        world.worker_says("w1", said).await;
    }

    world
        .only(world.worker_id("w1").await, "HOST_OVERLOADED", true)
        .await;
    assert_eq!(world.members().await, 1);
    world.says_overload(4.5).await;
}

impl World {
    /// The incident has the load of the worker's host as its evidence, and says what to look at.
    async fn says_overload(&self, load: f64) {
        let (summary, evidence, repair): (String, Value, Value) =
            sqlx::query_as("SELECT summary, evidence, repair FROM incident")
                .fetch_one(&self.pool)
                .await
                .unwrap();
        let gets_little =
            "Worker w1 gets too little CPU time: its host h1 is overloaded, and runs come late.";
        assert_eq!(summary, gets_little);
        let load = format!("The host h1 of w1 is overloaded: {load:.1} processes want each of its CPUs.");
        let facts: Vec<&str> = evidence
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|fact| fact["fact"].as_str())
            .collect();
        assert_eq!(facts.iter().filter(|fact| **fact == load).count(), 1, "{facts:?}");
        assert!(
            repair[0]["command"].as_str().unwrap().starts_with("ps "),
            "{repair}"
        );
    }

    /// Three entries are due, and their messages wait in `w1`, and in their queue.
    async fn three_wait(&self, scene: &Scene) {
        self.schedule(&["a", "b", "c"]).await;
        self.live(60, scene).await;
        for (run, entry) in [(1, "a"), (2, "b"), (3, "c")] {
            self.run_says("run_published", run, json!({"entry": entry, "worker": null}))
                .await;
        }
        self.run_says("run_received", 1, json!({})).await;
        self.run_says("run_received", 2, json!({"entry": "b"})).await;
    }
}

/// `w1` is busy, and the third message waits in its queue.
fn busy(waits: f64, takes: f64) -> Scene {
    let mut scene = healthy();
    scene.broker["queues"] = json!([{"name": "celery", "depth": 1, "oldest_seconds": 60}]);
    scene.workers[0].1 = json!({
        "active": 2, "reserved": 4, "host": "h1", "boot_id": "m1", "load_per_cpu": 4.0,
        "cpu_wait_ratio": waits, "cpu_used_ratio": takes,
    });
    scene
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn all_that_waits_for_a_starving_worker_is_one_incident_of_that_worker(pool: PgPool) {
    let world = World::new(pool).await;
    world.three_wait(&healthy()).await;
    let mut accepted = 0;
    for _ in 0..20 {
        let mut scene = busy(0.93, 0.04);
        accepted += 1;
        scene.workers[0].1["accepted"] = json!(accepted);
        world.live(5, &scene).await;
    }

    let worker = world.worker_id("w1").await;
    world.only(worker, "HOST_OVERLOADED", true).await;
    assert_eq!(world.members().await, 3);
    world.says_overload(4.0).await;
    let evidence: Value = sqlx::query_scalar("SELECT evidence FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    let share = "The processes of w1 had 4 % of that host's CPUs, and one of them waited for a CPU for 93 % of the time.";
    assert!(evidence.to_string().contains(share), "{evidence}");

    for entry in ["a", "b", "c"] {
        world.finished(entry, "success").await;
    }
    world.only(worker, "HOST_OVERLOADED", false).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_busy_worker_that_gets_its_turn_on_a_loaded_host_is_told_as_busy(pool: PgPool) {
    let world = World::new(pool).await;
    world.three_wait(&healthy()).await;
    world.live(30, &busy(0.2, 0.04)).await;
    let causes: Vec<String> = world.incidents().await.into_iter().map(|one| one.cause).collect();
    assert_eq!(causes, ["QUEUE_SLA_BREACH"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_loaded_host_whose_runs_come_in_time_is_not_told(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b", "c"]).await;
    for _ in 0..10 {
        for entry in ["a", "b", "c"] {
            world.finished(entry, "success").await;
        }
        world.live(30, &busy(0.93, 0.04)).await;
    }
    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_worker_that_starves_is_no_ghost_and_one_that_is_lost_has_its_load_as_evidence(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = busy(0.93, 0.04);
    // A process is free, and for long it has got nothing done.
    scene.workers[0].1["active"] = json!(0);
    world.live(120, &scene).await;
    assert_eq!(world.incidents().await, []);

    scene.workers.clear();
    world.live(60, &scene).await;

    world.only(world.worker_id("w1").await, "WORKER_LOST", true).await;
    let evidence: Value = sqlx::query_scalar("SELECT evidence FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(evidence.to_string().contains("is overloaded: 4.0"), "{evidence}");
}
