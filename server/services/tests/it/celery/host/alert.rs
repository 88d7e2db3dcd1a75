//! The monitors that the alert about a lost host lists.

use deadbeat_services::monitor;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{healthy, without_a};
use crate::setup::{World, entry};

/// Returns the monitors that an alert lists, and the number that it states.
async fn listed(world: &World) -> (Vec<String>, i64) {
    let payload: Value = sqlx::query_scalar("SELECT payload FROM delivery WHERE alert = 'opened'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    let incident = &payload["incident"];
    let names = incident["members"].as_array().unwrap().iter();
    let names = names.map(|member| member["name"].as_str().unwrap().to_owned());
    (names.collect(), incident["member_count"].as_i64().unwrap())
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_alert_of_a_lost_host_lists_what_its_beat_schedules(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    world.beat_ticks_on("A").await;
    let entries: Vec<String> = (0..60).map(|number| format!("e{number:02}")).collect();
    world
        .schedule(&entries.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    // The lost host affects neither another application's entry nor a paused entry.
    let mut theirs = entry("theirs");
    theirs["grace_seconds"] = json!(600.0);
    let other = json!({"beat": "other", "entries": [theirs]});
    world.event(world.an_event("beat_schedule", other)).await;
    let paused = world.entry("e00").await.id;
    monitor::pause(&world.services, &world.access, paused)
        .await
        .unwrap();
    world.goes_on(60, &healthy()).await;

    world.goes_on(35, &without_a()).await;

    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    let (names, count) = listed(&world).await;
    assert_eq!((names.len(), count), (50, 59));
    assert!(
        names.iter().all(|name| name.starts_with('e') && name != "e00"),
        "{names:?}"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_alert_of_a_lost_host_lists_what_ran_in_its_workers(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    world.beat_ticks_on("C").await;
    world.schedule(&["a", "b"]).await;
    let mut scene = healthy();
    scene.beat = Some("C");
    world.goes_on(20, &scene).await;
    let incarnation = Uuid::new_v4();
    let said = json!({"host": "web", "boot_id": "A", "incarnation": incarnation});
    world.worker_says("one", said).await;
    let run = json!({
        "beat": "shop", "entry": "a", "run_id": Uuid::new_v4(), "worker": "one", "queue": "celery", "attempt": Uuid::new_v4(),
        "incarnation": incarnation,
    });
    world.event(world.an_event("run_started", run)).await;

    let mut scene = without_a();
    scene.beat = Some("C");
    world.goes_on(35, &scene).await;

    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    assert_eq!(listed(&world).await, (vec!["a".to_owned()], 1));
}
