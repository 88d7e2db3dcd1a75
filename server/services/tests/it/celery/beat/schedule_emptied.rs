//! A Beat whose list has no enabled entry any more: one alert, and the list's return restores all entries.

use deadbeat_domain::ids::IncidentId;
use deadbeat_domain::monitor::status::Status;
use deadbeat_services::incident::acknowledgement;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted, entry};

impl World {
    /// Beat sends a heartbeat every ten seconds for some seconds.
    async fn lives_for(&self, seconds: i64) {
        for _ in 0..seconds / 10 {
            self.alive().await;
            self.sweep_after(10).await;
        }
    }

    async fn list(&self, entries: Value) {
        let list = json!({"beat": "shop", "entries": entries});
        self.event(self.an_event("beat_schedule", list)).await;
    }

    async fn statuses(&self, names: &[&str]) -> Vec<Status> {
        let mut statuses = Vec::new();
        for name in names {
            statuses.push(self.entry(name).await.state.status);
        }
        statuses
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_empty_list_is_one_alert_and_a_list_with_entries_ends_it(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    world.schedule(&["a", "b", "c"]).await;
    world.alive().await;

    world.schedule(&[]).await;
    world.lives_for(30).await;
    assert_eq!(world.incidents().await, [], "30 s are not over");
    world.lives_for(60).await;

    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "SCHEDULE_EMPTIED", true)]);
    assert_eq!(world.statuses(&["a", "b", "c"]).await, [Status::Paused; 3]);
    let (summary, evidence): (String, Value) = sqlx::query_as("SELECT summary, evidence FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(summary.contains("and Deadbeat retired 3 monitors"), "{summary}");
    assert!(
        evidence.to_string().contains("Before that it listed a, b, c."),
        "{evidence}"
    );

    world.schedule(&["a", "b", "c"]).await;

    assert_eq!(
        world.incidents().await,
        [alerted(beat, "SCHEDULE_EMPTIED", false)]
    );
    assert_eq!(
        world.deliveries().await,
        [("opened".to_owned(), channel), ("resolved".to_owned(), channel)]
    );
    assert_eq!(world.entry("a").await.retired_at, None);
    assert!(
        world.entry("a").await.state.deadline_at.is_some(),
        "the entry is armed again"
    );
    world.lives_for(30).await;
    assert_eq!(world.incidents().await.len(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_list_that_is_sent_again_does_not_move_since_when_the_schedule_is_empty(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b", "c"]).await;
    world.alive().await;
    world.schedule(&[]).await;
    // The first delivery of the list stopped between two of its transactions, after it had retired one monitor.
    sqlx::query("UPDATE monitor SET retired_at = NULL, status = 'up' WHERE entry <> 'a'")
        .execute(&world.pool)
        .await
        .unwrap();

    world.lives_for(20).await;
    world.schedule(&[]).await;
    world.lives_for(60).await;

    assert_eq!(world.statuses(&["a", "b", "c"]).await, [Status::Paused; 3]);
    let evidence: Value =
        sqlx::query_scalar("SELECT evidence FROM incident WHERE cause = 'SCHEDULE_EMPTIED'")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert!(
        evidence.to_string().contains("Before that it listed a, b, c."),
        "{evidence}"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_list_in_which_all_entries_are_disabled_is_empty(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    world.alive().await;
    let disabled = ["a", "b"].map(|name| {
        let mut entry = entry(name);
        entry["enabled"] = json!(false);
        entry
    });

    world.list(json!(disabled)).await;
    world.lives_for(50).await;

    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "SCHEDULE_EMPTIED", true)]);
}

/// Returns entries that are in any Beat's schedule: the SDK's canary, and Celery's cleanup for a result backend without expiry.
fn of_every_beat() -> [Value; 2] {
    let mut canary = entry("deadbeat.canary");
    canary["canary"] = json!(true);
    [canary, entry("celery.backend_cleanup")]
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_list_of_the_canary_and_of_celerys_own_entries_is_empty(pool: PgPool) {
    let world = World::new(pool).await;
    let list = |names: &[&str]| {
        let own = names.iter().map(|name| entry(name));
        json!(own.chain(of_every_beat()).collect::<Vec<_>>())
    };
    world.list(list(&["a", "b"])).await;
    world.lives_for(20).await;

    world.list(list(&[])).await;
    world.lives_for(60).await;

    let beat = world.beat_id().await;
    let emptied = || world.count("SELECT count(*) FROM incident WHERE cause = 'SCHEDULE_EMPTIED'");
    assert_eq!(emptied().await, 1);
    assert_eq!(world.statuses(&["a", "b"]).await, [Status::Paused; 2]);
    let evidence: Value = sqlx::query_scalar("SELECT evidence FROM incident WHERE subject_id = $1")
        .bind(beat)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(
        evidence.to_string().contains("Before that it listed a, b."),
        "{evidence}"
    );
    // A list with only these entries does not end the incident. A list with another entry does.
    let open = || {
        world.count("SELECT count(*) FROM incident WHERE cause = 'SCHEDULE_EMPTIED' AND resolved_at IS NULL")
    };
    world.list(list(&[])).await;
    assert_eq!(open().await, 1);
    world.list(list(&["a"])).await;
    assert_eq!(open().await, 0);

    // A single entry may leave the schedule like any other, whatever entries stay.
    world.lives_for(20).await;
    world.list(list(&[])).await;
    world.lives_for(60).await;
    assert_eq!(emptied().await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_empty_for_a_moment_and_a_single_entry_that_leaves_are_not_reported(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    world.lives_for(10).await;
    world.schedule(&[]).await;
    world.lives_for(20).await;
    world.schedule(&["a", "b"]).await;
    world.lives_for(20).await;
    world.schedule(&["a"]).await;
    world.lives_for(20).await;
    world.schedule(&[]).await;
    world.lives_for(60).await;

    let emptied = "SELECT count(*) FROM incident WHERE cause = 'SCHEDULE_EMPTIED'";
    assert_eq!(world.count(emptied).await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_person_who_acknowledges_it_ends_it_and_the_monitors_stay_retired(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    world.alive().await;
    world.schedule(&[]).await;
    world.lives_for(50).await;
    let id: Uuid = sqlx::query_scalar("SELECT id FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();

    let seen = acknowledgement::acknowledge(&world.services, &world.access, IncidentId(id))
        .await
        .unwrap();

    assert!(seen.resolved_at.is_some() && seen.acknowledged_at.is_some());
    world.lives_for(60).await;
    world.schedule(&[]).await;
    world.lives_for(60).await;
    let beat = world.beat_id().await;
    assert_eq!(
        world.incidents().await,
        [alerted(beat, "SCHEDULE_EMPTIED", false)]
    );
    assert_eq!(world.statuses(&["a", "b"]).await, [Status::Paused; 2]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_comes_back_from_silence_with_an_empty_list_is_reported_as_emptied(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.silent_beat(&["a", "b"]).await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DOWN", true)]);

    world.schedule(&[]).await;
    world.lives_for(60).await;

    assert_eq!(
        world.incidents().await,
        [
            alerted(beat, "BEAT_DOWN", false),
            alerted(beat, "SCHEDULE_EMPTIED", true)
        ]
    );
    // Beat stops reporting and comes back with a list that is still empty: no channel gets an all-clear.
    for _ in 0..6 {
        world.sweep_after(10).await;
    }
    world.lives_for(60).await;
    let open = "SELECT count(*) FROM incident WHERE cause = 'SCHEDULE_EMPTIED' AND resolved_at IS NULL";
    assert_eq!(world.count(open).await, 1);
}
