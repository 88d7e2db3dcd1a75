//! A worker that gets too little CPU time on its host.

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Scene, healthy};
use crate::setup::World;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_in_a_worker_that_starves_is_reported_once_with_the_load_of_its_host(pool: PgPool) {
    let world = World::new(pool).await;
    let mut scene = healthy();
    world.until_due(&scene).await;
    world.run_says("run_published", 1, json!({"worker": null})).await;
    world.run_says("run_received", 1, json!({})).await;
    // The worker reports every 15 s instead of every 5 s, and executes other messages meanwhile.
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
    /// Asserts that the incident's evidence states the load of the worker's host, and that its repair says what to examine.
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

    /// Three entries are due. Two of their messages wait in `w1`, and one waits in its queue.
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

/// A scene in which `w1` is busy and the third message waits in its queue.
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
async fn a_busy_worker_that_gets_its_turn_on_a_loaded_host_is_reported_as_busy(pool: PgPool) {
    let world = World::new(pool).await;
    world.three_wait(&healthy()).await;
    world.live(30, &busy(0.2, 0.04)).await;
    let causes: Vec<String> = world.incidents().await.into_iter().map(|one| one.cause).collect();
    assert_eq!(causes, ["QUEUE_SLA_BREACH"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_loaded_host_whose_runs_come_in_time_is_not_reported(pool: PgPool) {
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
    // One process of the worker is free, and yet the worker has got nothing done for a long time.
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
