//! Maintenance windows hold alerts.

use chrono::TimeDelta;
use deadbeat_domain::ids::WindowId;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_services::ServiceError;
use deadbeat_services::alert::hold::window;
use deadbeat_services::monitor::Change;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::at;
use crate::setup::World;

impl World {
    /// Makes a window that begins and ends so many minutes from now.
    async fn window(&self, from: i64, until: i64) -> WindowId {
        let instant = |minutes| (self.now() + TimeDelta::minutes(minutes)).to_rfc3339();
        self.window_of(json!({"name": "Move", "starts_at": instant(from), "ends_at": instant(until)}))
            .await
    }

    async fn window_of(&self, given: Value) -> WindowId {
        let given = given.as_object().unwrap();
        window::create(&self.services, &self.access, given)
            .await
            .unwrap()
            .id
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_begins_in_a_window_and_outlasts_it_is_reported_at_its_end(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let (stays, recovers) = (world.job("stays").await, world.job("recovers").await);
    world.window(-10, 60).await;

    for monitor in [&stays, &recovers] {
        world.ping(monitor, Fail).await;
    }
    assert_eq!(
        world.incidents().await.len(),
        2,
        "incidents are recorded nevertheless"
    );
    assert_eq!(world.alerts_sent_after(59).await, [""; 0]);
    world.ping(&recovers, Success).await;

    assert_eq!(world.alerts_sent_after(1).await, ["opened"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_window_that_begins_after_the_fault_holds_its_reminders(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.job("backup").await;
    world.window(10, 200).await;

    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent().await, ["opened"]);
    for _ in 0..3 {
        assert_eq!(world.alerts_sent_after(60).await, [""; 0]);
    }

    assert_eq!(world.alerts_sent_after(20).await, ["reminder"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn overlapping_windows_hold_until_the_last_of_them_ends(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.job("backup").await;
    world.window(-10, 60).await;
    world.window(50, 120).await;
    world.window(120, 180).await;

    world.ping(&monitor, Fail).await;

    assert_eq!(world.alerts_sent_after(60).await, [""; 0]);
    assert_eq!(world.alerts_sent_after(119).await, [""; 0]);
    assert_eq!(world.alerts_sent_after(1).await, ["opened"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_window_that_is_removed_or_moved_decides_anew_about_what_waits(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel_with("ops", json!({"delay_seconds": 600})).await;
    let monitor = world.job("backup").await;
    let long = world.window(0, 600).await;
    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent_after(30).await, [""; 0]);

    let shorter = json!({"ends_at": (world.now() + TimeDelta::minutes(60)).to_rfc3339()});
    window::update(&world.services, &world.access, long, shorter.as_object().unwrap())
        .await
        .unwrap();
    assert_eq!(world.alerts_sent_after(59).await, [""; 0]);
    // A window that is added while the alert waits makes the alert wait longer.
    let added = world.window(-1, 60).await;
    assert_eq!(world.alerts_sent_after(1).await, [""; 0]);
    window::delete(&world.services, &world.access, added)
        .await
        .unwrap();

    assert_eq!(world.alerts_sent().await, ["opened"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_recurring_window_holds_each_time_by_the_clock_of_its_zone(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    world.set_clock("2026-03-28T12:00:00Z");
    let schedule = json!({"kind": "cron", "expression": "0 4 * * *", "timezone": "Europe/Berlin"});
    world
        .window_of(json!({"name": "Nightly", "schedule": schedule, "duration_seconds": 3_600}))
        .await;
    let monitor = world.job("backup").await;

    // 04:00 in Berlin is 02:00 UTC from 2026-03-29 on.
    for (begins, held_until) in [
        ("2026-03-29T01:59:59Z", None),
        ("2026-03-29T02:00:00Z", Some("2026-03-29T03:00:00Z")),
        ("2026-03-29T03:00:00Z", None),
        ("2026-03-30T02:30:00Z", Some("2026-03-30T03:00:00Z")),
    ] {
        world.set_clock(begins);
        world.ping(&monitor, Fail).await;
        if let Some(until) = held_until {
            assert_eq!(world.alerts_sent().await, [""; 0], "{begins}");
            world.clock.set(at(until) - TimeDelta::seconds(1));
            assert_eq!(world.alerts_sent().await, [""; 0], "{begins}");
            world.set_clock(until);
        }
        assert_eq!(world.alerts_sent().await, ["opened"], "{begins}");
        world.ping(&monitor, Success).await;
        assert_eq!(world.alerts_sent().await, ["resolved"], "{begins}");
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_window_covers_its_monitors_and_tags_only(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let other = World::new(pool).await;
    world.channel("ops").await;
    other.channel("theirs").await;
    let db = Change {
        tags: Some(vec!["db".to_owned()]),
        ..Change::default()
    };
    let (tagged, named, plain) = (
        world.job_with("tagged", db).await,
        world.job("named").await,
        world.job("plain").await,
    );
    let theirs = other.job("theirs").await;
    let (from, until) = (
        world.now().to_rfc3339(),
        (world.now() + TimeDelta::hours(1)).to_rfc3339(),
    );
    world
        .window_of(json!({"name": "Move", "starts_at": from, "ends_at": until, "match": {"tags": ["db"], "monitors": [named.id]}}))
        .await;

    for monitor in [&tagged, &named, &plain] {
        world.ping(monitor, Fail).await;
    }
    other.ping(&theirs, Fail).await;

    assert_eq!(
        world.alerts_sent().await,
        ["opened"; 2],
        "the plain monitor, and the monitor of the other project"
    );
    world.advance(3_600);
    assert_eq!(world.alerts_sent().await, ["opened"; 2]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_storm_in_a_window_reports_at_its_end_who_is_still_down(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    world.channel_with("pager", json!({"delay_seconds": 300})).await;
    sqlx::query(
        "INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds, all_channels, status, created_at,
            updated_at, next_due_at, deadline_at, check_after)
        SELECT gen_random_uuid(), $1, gen_random_uuid(), 'm' || n, 'm' || n, '{}', '{\"kind\": \"interval\", \"seconds\": 60}', 30, true,
            'up', $2, $2, $2, $2, $2
        FROM generate_series(1, 1000) AS n",
    )
    .bind(world.project.0)
    .bind(world.now())
    .execute(&world.pool)
    .await
    .unwrap();
    let window = world.window(-10, 60).await;

    assert_eq!(world.sweep_after(1).await.down, 1_000);
    assert_eq!(world.alerts_sent().await, [""; 0]);
    assert_eq!(world.outbox().await.len(), 2_000);
    // After a change of the window, Deadbeat decides again about all held alerts.
    let longer = json!({"ends_at": (world.now() + TimeDelta::minutes(120)).to_rfc3339()});
    window::update(
        &world.services,
        &world.access,
        window,
        longer.as_object().unwrap(),
    )
    .await
    .unwrap();
    world.advance(3_600);
    assert_eq!(world.alerts_sent().await, [""; 0]);
    for n in 1..=10 {
        let id = sqlx::query_scalar("SELECT id FROM monitor WHERE project_id = $1 AND slug = 'm' || $2")
            .bind(world.project.0)
            .bind(n)
            .fetch_one(&world.pool)
            .await
            .unwrap();
        let monitor = world.read(deadbeat_domain::ids::MonitorId(id)).await;
        world.ping(&monitor, Success).await;
    }

    world.advance(3_600);
    assert_eq!(world.alerts_sent().await, vec!["opened"; 1_980]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_waits_is_no_backlog_and_a_clock_that_is_set_back_does_not_release_it(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.job("backup").await;
    world.window(0, 180).await;
    world.advance(7_200);
    world.ping(&monitor, Fail).await;
    let backlog = async || {
        let reader = world.services.reader();
        deadbeat_store::operation::stats::backlog(&reader, world.now())
            .await
            .unwrap()
    };
    let held = backlog().await;
    assert_eq!(
        (
            held.pending_deliveries,
            held.held_deliveries,
            held.oldest_delivery
        ),
        (0, 1, None)
    );

    world.advance(-3_600);
    let mut tx = world.store().begin().await.unwrap();
    deadbeat_store::operation::listener::rewind(&mut tx, world.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.alerts_sent().await, [""; 0]);

    world.advance(7_200);
    let due = backlog().await;
    assert_eq!(
        (due.pending_deliveries, due.held_deliveries, due.oldest_delivery),
        (1, 0, Some(world.now()))
    );
    assert_eq!(world.alerts_sent().await, ["opened"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_alert_that_waited_for_days_has_a_day_of_attempts_from_then_on(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.job("backup").await;
    let begins = world.now();
    world.window(0, 3 * 24 * 60).await;
    world.ping(&monitor, Fail).await;
    world.advance(3 * 86_400);

    let claimed = world.claim().await;

    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].created_at, begins);
    assert_eq!(claimed[0].due_since, begins + TimeDelta::days(3));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_project_has_two_hundred_windows_and_another_one_none_of_them(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let other = World::new(pool).await;
    sqlx::query(
        "INSERT INTO maintenance_window (id, project_id, name, starts_at, ends_at, monitors, tags, created_at, updated_at, created_by_kind)
        SELECT gen_random_uuid(), $1, 'w', $2, $2 + interval '1 hour', '{}', '{}', $2, $2, 'operator' FROM generate_series(1, 199)",
    )
    .bind(world.project.0)
    .bind(world.now() - TimeDelta::days(1))
    .execute(&world.pool)
    .await
    .unwrap();
    let last = world.window(10, 20).await;
    let again =
        json!({"name": "Move", "starts_at": "2026-02-01T00:00:00Z", "ends_at": "2026-02-02T00:00:00Z"});
    let again = again.as_object().unwrap();

    let refused = window::create(&world.services, &world.access, again).await;
    assert!(
        matches!(refused, Err(ServiceError::Limit { limit: 200, .. })),
        "{refused:?}"
    );
    let stranger = Access::new(other.project, Actor::Operator);
    let refused = window::delete(&world.services, &stranger, last).await;
    assert!(matches!(refused, Err(ServiceError::NotFound(_))), "{refused:?}");
    let refused = window::update(&world.services, &stranger, last, again).await;
    assert!(matches!(refused, Err(ServiceError::NotFound(_))), "{refused:?}");
    // Windows that ended a month ago no longer count for the limit.
    world.set_clock("2026-02-20T00:00:00Z");
    let next =
        json!({"name": "Move", "starts_at": "2026-03-01T00:00:00Z", "ends_at": "2026-03-02T00:00:00Z"});
    window::create(&world.services, &world.access, next.as_object().unwrap())
        .await
        .unwrap();
    assert_eq!(world.count("SELECT count(*) FROM maintenance_window").await, 1);
}
