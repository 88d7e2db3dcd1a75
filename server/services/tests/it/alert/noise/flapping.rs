//! A monitor that flaps is one incident that says so.

use deadbeat_domain::monitor::ping::PingKind;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_domain::monitor::status::Status;
use deadbeat_services::alert::delivery::story::Story;
use deadbeat_services::monitor::{self, Change};
use deadbeat_store::monitor::Monitor;
use serde_json::json;
use sqlx::PgPool;

use crate::setup::World;

impl World {
    /// A monitor of ten minutes with five minutes of grace.
    async fn unsteady(&self) -> Monitor {
        let change = Change {
            schedule: Some(json!({"kind": "interval", "seconds": 600})),
            grace_seconds: Some(300.0),
            ..Change::default()
        };
        let monitor = self.monitor_with("unsteady", change).await;
        self.ping(&monitor, Success).await;
        monitor
    }

    /// Pings ten minutes after the last one, sweeps, and sends.
    async fn received_of(&self, monitor: &Monitor, kind: PingKind) -> Vec<&'static str> {
        self.advance(600);
        self.ping(monitor, kind).await;
        self.sweep().await;
        self.alerts_sent().await
    }

    /// A monitor that fails for the third time within an hour. The channel got two pairs of messages before.
    async fn flapping(&self) -> Monitor {
        let monitor = self.unsteady().await;
        for _ in 0..2 {
            assert_eq!(self.received_of(&monitor, Fail).await, ["opened"]);
            assert_eq!(self.received_of(&monitor, Success).await, ["resolved"]);
        }
        monitor
    }

    /// What the newest delivery says, as people read it.
    async fn newest_words(&self) -> Story {
        let payload = sqlx::query_scalar("SELECT payload FROM delivery ORDER BY sequence DESC LIMIT 1")
            .fetch_one(&self.pool)
            .await
            .unwrap();
        Story::of(&deadbeat_domain::alert::message::Message::read(
            payload,
            self.now(),
        ))
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_third_incident_within_an_hour_says_that_the_monitor_flaps(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.flapping().await;

    assert_eq!(world.received_of(&monitor, Fail).await, ["opened"]);

    let story = world.newest_words().await;
    assert_eq!(story.headline, "FLAPPING: unsteady (FAILED)");
    let summary = story.summary.unwrap();
    assert!(
        summary.ends_with("It flaps: this is its third incident within an hour."),
        "{summary}"
    );
    assert!(world.newest_incident().await.is_flapping);
    let since = world
        .read(monitor.id)
        .await
        .state
        .flaps
        .flapping
        .map(|flapping| flapping.since);
    assert_eq!(since, Some(world.now()));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn while_it_flaps_nothing_more_is_reported_and_its_end_is_reported_once(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.flapping().await;
    assert_eq!(world.received_of(&monitor, Fail).await, ["opened"]);

    // Less than an hour, so that no reminder is due.
    for kind in [Success, Fail, Success] {
        assert!(world.received_of(&monitor, kind).await.is_empty());
    }
    assert_eq!(world.status(&monitor).await, Status::Up, "the status is true");
    for _ in 0..2 {
        assert!(world.received_of(&monitor, Success).await.is_empty());
    }
    assert_eq!(world.received_of(&monitor, Success).await, ["resolved"]);

    assert_eq!(world.incidents().await.len(), 3);
    let story = world.newest_words().await;
    assert_eq!(
        story.summary.as_deref(),
        Some("unsteady has recovered, and no longer flaps.")
    );
    assert_eq!(
        world.received_of(&monitor, Fail).await,
        ["opened"],
        "as any other failure"
    );
    assert!(!world.newest_incident().await.is_flapping);
    assert_eq!(world.received_of(&monitor, Success).await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitor_that_flapped_and_stays_down_is_reported_once_more(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.flapping().await;
    assert_eq!(world.received_of(&monitor, Fail).await, ["opened"]);

    assert!(world.alerts_sent_after(29).await.is_empty());
    assert_eq!(world.alerts_sent_after(1).await, ["reminder"]);

    let story = world.newest_words().await;
    assert_eq!(story.headline, "STILL DOWN: unsteady (FAILED)");
    let said = "It no longer flaps: it has been down for 30 minutes.";
    assert!(
        story.evidence.iter().any(|fact| fact.ends_with(said)),
        "{:?}",
        story.evidence
    );
    assert!(world.alerts_sent_after(10).await.is_empty(), "once");
    assert_eq!(world.received_of(&monitor, Success).await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_acknowledged_it_gets_no_alert_that_it_stays_down(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.flapping().await;
    assert_eq!(world.received_of(&monitor, Fail).await, ["opened"]);
    let incident = world.newest_incident().await.id;
    world.acknowledge(incident).await;
    assert_eq!(world.alerts_sent().await, ["acknowledged"]);

    assert!(world.alerts_sent_after(30).await.is_empty());

    assert!(!world.newest_incident().await.is_flapping);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_pause_ends_the_incident_of_a_monitor_that_flaps(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.flapping().await;
    world.received_of(&monitor, Fail).await;
    assert!(world.received_of(&monitor, Success).await.is_empty());

    monitor::pause(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    assert_eq!(world.alerts_sent().await, ["resolved"]);
    assert!(world.alerts_sent_after(60).await.is_empty());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_evaluators_end_the_flapping_once(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.flapping().await;
    world.received_of(&monitor, Fail).await;
    world.received_of(&monitor, Success).await;
    for _ in 0..2 {
        world.received_of(&monitor, Success).await;
    }
    world.advance(600);
    let other = world.another_evaluator();

    let (here, there) = tokio::join!(world.evaluator.sweep_once(), other.sweep_once());

    assert_eq!(here.unwrap().calm + there.unwrap().calm, 1);
    let alerted = world.alerts().await;
    assert_eq!(alerted.iter().filter(|alert| *alert == "resolved").count(), 3);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_that_a_window_held_back_gets_at_its_end_that_the_monitor_flaps(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel_with("slow", json!({"delay_seconds": 900})).await;
    let monitor = world.unsteady().await;
    for _ in 0..2 {
        assert!(world.received_of(&monitor, Fail).await.is_empty());
        assert!(
            world.received_of(&monitor, Success).await.is_empty(),
            "it was over before its time"
        );
    }
    assert!(world.received_of(&monitor, Fail).await.is_empty());
    assert!(world.received_of(&monitor, Success).await.is_empty());

    assert_eq!(
        world.received_of(&monitor, Success).await,
        ["opened"],
        "it goes on: it flaps"
    );
}
