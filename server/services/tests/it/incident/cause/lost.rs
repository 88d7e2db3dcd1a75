//! The message of one run is lost, and later runs of its entry begin.

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::healthy;
use crate::setup::World;

impl World {
    /// The entry has ten minutes of grace for each run. One run is lost; runs before and after it end well.
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
async fn a_lost_run_ends_although_later_ones_ran_and_nobody_is_alerted(pool: PgPool) {
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
        "its worker may still report the run"
    );

    // Two processes sweep at the same moment.
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
    assert_eq!(world.trace_state(2).await, "published", "its message still waits");
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
