//! A Beat whose clock is behind sends messages that are too old when they arrive. Its clock is at fault, and not its entries.

use chrono::TimeDelta;
use deadbeat_domain::monitor::status::Status;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted, entry};

/// How far the clock of Beat's host is behind after the step.
const BEHIND: TimeDelta = TimeDelta::seconds(600);

impl World {
    /// Beat sends this event, with a clock that is behind by `behind`.
    async fn beat_says(&self, behind: TimeDelta, kind: &str, rest: Value) {
        let mut event = self.an_event(kind, rest);
        event["at"] = json!(self.now() - behind);
        self.batch(json!({"sent_at": self.now() - behind, "events": [event]}))
            .await
            .unwrap();
    }

    /// Every five seconds for some time, Beat and a worker report, and the worker samples the broker.
    async fn report_for(&self, seconds: i64, behind: TimeDelta) {
        for _ in 0..seconds / 5 {
            self.advance(5);
            let alive = json!({"beat": "shop", "period_seconds": 10.0, "grace_seconds": 20.0, "host": "h1"});
            self.beat_says(behind, "beat_alive", alive).await;
            let said = json!({"pool": "prefork", "processes": 2, "running": [], "queues": ["celery"]});
            self.worker_says("w1", said).await;
            let queues = json!([{"name": "celery", "depth": 0}]);
            let sample = json!({"app": "shop", "transport": "redis", "reachable": true, "queues": queues});
            self.event(self.an_event("broker_sample", sample)).await;
            self.sweep().await;
        }
    }

    async fn publish_by(&self, behind: TimeDelta, entry: &str, run: Uuid) {
        let sent = json!({"beat": "shop", "entry": entry, "run_id": run, "queue": "celery"});
        self.beat_says(behind, "run_published", sent).await;
    }

    /// The worker has the right clock. It drops a message as expired that, by its own timestamp, was sent `sent_before` ago.
    async fn expire(&self, entry: &str, run: Uuid, sent_before: TimeDelta) {
        let ended = json!({
            "beat": "shop", "entry": entry, "run_id": run, "queue": "celery", "worker": "w1", "outcome": "expired",
            "published_at": self.now() - sent_before,
        });
        self.event(self.an_event("run_finished", ended)).await;
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_expires_by_a_beat_whose_clock_is_behind_is_part_of_that_clocks_incident(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    world.report_for(60, TimeDelta::zero()).await;

    // The clock steps back. Reports arrive in any order.
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    world.publish_by(BEHIND, "a", a).await;
    world.expire("a", a, BEHIND).await;
    world.expire("b", b, BEHIND).await;
    world.publish_by(BEHIND, "b", b).await;
    world.report_for(60, BEHIND).await;

    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "CLOCK_SKEW", true)]);
    assert_eq!(world.members().await, 2);

    world.report_for(5, TimeDelta::zero()).await;
    assert_eq!(world.incidents().await, [alerted(beat, "CLOCK_SKEW", false)]);
    for name in ["a", "b"] {
        assert_eq!(world.entry(name).await.state.status, Status::New, "expected anew");
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_that_waited_for_too_long_is_reported_at_once_whatever_the_clocks(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a"]).await;
    world.report_for(60, BEHIND).await;
    let beat = world.beat_id().await;
    let skew = alerted(beat, "CLOCK_SKEW", true);
    assert_eq!(world.incidents().await, std::slice::from_ref(&skew));
    // The clock of Beat is now only 5 s behind, and Beat sends runs.
    let a = Uuid::new_v4();
    world.publish_by(TimeDelta::seconds(5), "a", a).await;
    world.advance(4);
    world.expire("a", a, TimeDelta::seconds(9)).await;

    let monitor = world.entry("a").await.id.0;
    assert_eq!(world.incidents().await, [skew, alerted(monitor, "EXPIRED", true)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_whose_sender_never_reports_is_reported_as_expired_by_its_deadline(pool: PgPool) {
    let world = World::new(pool).await;
    let mut patient = entry("a");
    patient["grace_seconds"] = json!(30.0);
    world
        .event(world.an_event("beat_schedule", json!({"beat": "shop", "entries": [patient]})))
        .await;
    world.report_for(75, TimeDelta::zero()).await;
    // By its timestamp, the message was sent a second after the slot.
    world.expire("a", Uuid::new_v4(), TimeDelta::seconds(14)).await;
    assert_eq!(world.incidents().await, [], "its sender's clock may be behind");

    world.report_for(20, TimeDelta::zero()).await;

    let monitor = world.entry("a").await.id.0;
    assert_eq!(world.incidents().await, [alerted(monitor, "EXPIRED", true)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_that_is_not_sent_in_time_by_a_clock_that_is_off_is_part_of_that(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    world.report_for(50, TimeDelta::zero()).await;
    // Beat sends b, and by its clock a is not due yet.
    for _ in 0..4 {
        world.publish_by(BEHIND, "b", Uuid::new_v4()).await;
        world.finished("b", "success").await;
        world.report_for(15, BEHIND).await;
    }

    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "CLOCK_SKEW", true)]);
    assert_eq!(world.members().await, 1);
}
