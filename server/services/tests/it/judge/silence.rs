//! Silence becomes one incident and one delivery for each channel; then a person acts on it.

use chrono::TimeDelta;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Start, Success};
use deadbeat_domain::monitor::status::Status;
use deadbeat_services::ServiceError;
use deadbeat_services::monitor::{self, Change};
use serde_json::json;
use sqlx::PgPool;

use crate::setup::{World, alerted};

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_ping_and_then_silence_is_one_incident_and_one_delivery_a_channel(pool: PgPool) {
    let world = World::new(pool).await;
    let channels = [world.channel("one").await, world.channel("two").await];
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Success).await;

    assert_eq!(world.sweep_after(89).await.down, 0);
    assert_eq!(world.sweep_after(1).await.down, 1);
    for _ in 0..5 {
        assert_eq!(world.sweep_after(60).await.down, 0);
    }

    assert_eq!(world.status(&monitor).await, Status::Down);
    assert_eq!(world.incidents().await, [alerted(monitor.id.0, "MISSED", true)]);
    assert_eq!(
        world.deliveries().await,
        channels.map(|channel| ("opened".to_owned(), channel))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_ping_that_came_in_time_has_a_moment_to_be_written(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Success).await;
    let evaluator = world.another_evaluator().settling(TimeDelta::milliseconds(250));

    // The deadline is 90 s after the ping.
    world.clock.advance(TimeDelta::milliseconds(90_249));
    assert_eq!(evaluator.sweep_once().await.unwrap().down, 0);
    world.clock.advance(TimeDelta::milliseconds(1));
    assert_eq!(evaluator.sweep_once().await.unwrap().down, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitor_that_never_reported_does_not_trip(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;

    assert_eq!(world.sweep_after(1_000_000).await.claimed, 0);

    assert_eq!(world.status(&monitor).await, Status::New);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_late_ping_within_the_grace_keeps_the_monitor_up(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    for _ in 0..20 {
        world.ping(&monitor, Success).await;
        assert_eq!(world.sweep_after(89).await.down, 0);
    }

    assert_eq!(world.status(&monitor).await, Status::Up);
    assert!(world.incidents().await.is_empty());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_next_success_resolves_and_alerts(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Success).await;
    world.sweep_after(90).await;

    world.advance(30);
    world.ping(&monitor, Success).await;
    world.ping(&monitor, Success).await;

    assert_eq!(world.incidents().await, [alerted(monitor.id.0, "MISSED", false)]);
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
    assert_eq!(
        world.sweep_after(90).await.down,
        1,
        "and a new silence is a new incident"
    );
    assert_eq!(world.alerts().await, ["opened", "resolved", "opened"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_failure_is_reported_once_however_often_it_comes(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("backup").await;

    for _ in 0..3 {
        world.ping(&monitor, Fail).await;
        world.sweep_after(500).await;
    }

    assert_eq!(world.incidents().await, [alerted(monitor.id.0, "FAILED", true)]);
    assert_eq!(world.alerts().await, ["opened"]);
    assert_eq!(world.count("SELECT count(*) FROM transition").await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_over_its_time_is_an_overrun_and_its_late_end_resolves_it(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let change = Change {
        longest_run_seconds: Some(Some(40.0)),
        grace_seconds: Some(600.0),
        ..Change::default()
    };
    let monitor = world.monitor_with("backup", change).await;
    world.ping_of(&monitor, 1, Start).await;
    world.advance(20);
    world.ping_of(&monitor, 2, Start).await;

    assert_eq!(world.sweep_after(19).await.down, 0);
    assert_eq!(world.sweep_after(1).await.down, 1);
    let runs = world
        .count("SELECT count(*) FROM run WHERE status = 'overrun' AND deadline_at IS NULL")
        .await;
    assert_eq!(runs, 1, "the other run still has time");
    assert_eq!(world.read(monitor.id).await.open_runs, 1);
    world.advance(5);
    world.ping_of(&monitor, 1, Success).await;

    assert_eq!(world.incidents().await, [alerted(monitor.id.0, "OVERRUN", false)]);
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
    let length = world
        .count("SELECT duration_ms FROM run WHERE status = 'overrun' AND finished_at IS NOT NULL")
        .await;
    assert_eq!(length, 45_000);
    assert_eq!(
        world.sweep_after(15).await.down,
        1,
        "the other run is judged on its own"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn runs_that_died_while_the_monitor_was_down_do_not_trip_it_again(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    for run in 1..=3 {
        world.ping_of(&monitor, run, Start).await;
        world.sweep_after(60).await;
    }

    world.ping_of(&monitor, 4, Success).await;

    assert_eq!(world.sweep_after(60).await.down, 0);
    assert_eq!(world.status(&monitor).await, Status::Up);
    assert_eq!(world.read(monitor.id).await.open_runs, 0);
    assert_eq!(
        world
            .count("SELECT count(*) FROM run WHERE status = 'open'")
            .await,
        0
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn pausing_a_monitor_that_is_down_resolves_and_alerts_and_resuming_waits_for_a_ping(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Success).await;
    world.sweep_after(90).await;

    monitor::pause(&world.services, &world.access, monitor.id)
        .await
        .unwrap();
    monitor::pause(&world.services, &world.access, monitor.id)
        .await
        .unwrap();
    assert_eq!(world.sweep_after(86_400).await.down, 0);
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
    let resumed = monitor::resume(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    assert_eq!(
        (resumed.state.status, resumed.state.deadline_at),
        (Status::New, None)
    );
    let again = monitor::resume(&world.services, &world.access, monitor.id).await;
    assert!(matches!(again, Err(ServiceError::Conflict(_))), "{again:?}");
    world.ping(&monitor, Success).await;
    assert_eq!(world.sweep_after(90).await.down, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_of_before_the_pause_does_not_trip_the_resumed_monitor(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Success).await;
    world.ping_of(&monitor, 1, Start).await;
    monitor::pause(&world.services, &world.access, monitor.id)
        .await
        .unwrap();
    world.advance(86_400);

    monitor::resume(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    assert_eq!(world.sweep_after(1).await.down, 0);
    assert_eq!(world.read(monitor.id).await.open_runs, 0);
    assert_eq!(
        world
            .count("SELECT count(*) FROM run WHERE status = 'open'")
            .await,
        0
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn deleting_a_monitor_that_is_down_resolves_and_alerts(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("backup").await;
    world.ping_of(&monitor, 1, Fail).await;

    monitor::delete(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    assert_eq!(world.incidents().await, [alerted(monitor.id.0, "FAILED", false)]);
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
    assert_eq!(
        world.count("SELECT count(*) FROM monitor").await,
        0,
        "the retention removes its runs later"
    );
    let again = monitor::delete(&world.services, &world.access, monitor.id).await;
    assert!(matches!(again, Err(ServiceError::NotFound(_))));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn shortening_the_grace_of_an_overdue_monitor_leaves_it_the_new_grace_in_full(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world
        .monitor_with(
            "backup",
            Change {
                grace_seconds: Some(3_600.0),
                ..Change::default()
            },
        )
        .await;
    world.ping(&monitor, Success).await;
    world.advance(600);

    let change = Change {
        grace_seconds: Some(20.0),
        ..Change::default()
    };
    monitor::update(&world.services, &world.access, monitor.id, &change)
        .await
        .unwrap();

    assert_eq!(world.sweep_after(19).await.down, 0);
    assert_eq!(world.sweep_after(1).await.down, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_row_that_cannot_be_read_is_put_aside_and_stalls_no_other(pool: PgPool) {
    let world = World::new(pool).await;
    let bad = world.monitor("bad").await;
    let good = world.monitor("good").await;
    world.ping(&bad, Success).await;
    world.ping(&good, Success).await;
    world
        .set_schedule(&bad, json!({"kind": "of a newer server"}))
        .await;

    let swept = world.sweep_after(90).await;

    assert_eq!((swept.claimed, swept.down), (2, 1));
    assert_eq!(world.incidents().await, [alerted(good.id.0, "MISSED", true)]);
    assert_eq!(world.services.selfwatch().rows_put_aside(), 1);
    assert_eq!(
        world.sweep_after(60).await.claimed,
        0,
        "the row is put aside for an hour"
    );
    world
        .set_schedule(&bad, json!({"kind": "interval", "seconds": 60}))
        .await;
    assert_eq!(
        world.sweep_after(3_600).await.down,
        1,
        "the repaired row is judged"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_row_that_was_put_aside_while_it_was_down_does_not_stall_the_sweep_later(pool: PgPool) {
    let world = World::new(pool).await;
    let bad = world.monitor("bad").await;
    let good = world.monitor("good").await;
    world.ping(&bad, Success).await;
    world.ping(&bad, Fail).await;
    world
        .set_schedule(&bad, json!({"kind": "of a newer server"}))
        .await;
    world.sweep_after(90).await;
    world
        .set_schedule(&bad, json!({"kind": "interval", "seconds": 60}))
        .await;
    assert_eq!(
        world.read(bad.id).await.state.deadline_at,
        None,
        "a monitor that is down is not armed"
    );
    world.ping(&good, Success).await;

    let swept = world.sweep_after(3_700).await;

    assert_eq!(swept.down, 1);
    assert_eq!(world.status(&good).await, Status::Down);
    assert_eq!(world.status(&bad).await, Status::Down);
}

impl World {
    /// Sets a schedule that only a direct change of the database, or a newer server, can store.
    async fn set_schedule(&self, monitor: &deadbeat_store::monitor::Monitor, schedule: serde_json::Value) {
        sqlx::query("UPDATE monitor SET schedule = $2 WHERE id = $1")
            .bind(monitor.id.0)
            .bind(schedule)
            .execute(&self.pool)
            .await
            .unwrap();
    }
}
