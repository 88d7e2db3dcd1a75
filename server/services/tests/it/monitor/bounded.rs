//! A deletion and a Beat's schedule change lock few rows at a time, so that other signals never wait for all of it.

use std::sync::Arc;

use deadbeat_domain::ids::BeatId;
use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_domain::monitor::status::Status;
use deadbeat_services::celery::beat;
use deadbeat_services::operation::retention::{Kind, Retention, RetentionSettings};
use deadbeat_services::{ServiceError, Services, monitor};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::setup::{World, entry};

/// More entries than two transactions change.
const ENTRIES: usize = 450;
/// Monitors that one transaction may delete.
const BATCH: i64 = 200;
/// Monitors that one transaction may change to follow a schedule.
const FOLLOWED: i64 = 100;

impl World {
    async fn run_sql(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.pool).await.unwrap();
    }

    /// From now on, the database records how many monitors each transaction inserts, updates and deletes.
    async fn count_monitors_of_transactions(&self) {
        for statement in [
            "CREATE TABLE touched (id xid8, rows bigint)",
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO touched SELECT pg_current_xact_id(), count(DISTINCT id) FROM seen; RETURN NULL; END $$",
            "CREATE TRIGGER note_new AFTER INSERT ON monitor REFERENCING NEW TABLE AS seen FOR EACH STATEMENT EXECUTE FUNCTION note()",
            "CREATE TRIGGER note_change AFTER UPDATE ON monitor REFERENCING NEW TABLE AS seen FOR EACH STATEMENT EXECUTE FUNCTION note()",
            "CREATE TRIGGER note_end AFTER DELETE ON monitor REFERENCING OLD TABLE AS seen FOR EACH STATEMENT EXECUTE FUNCTION note()",
        ] {
            self.run_sql(statement).await;
        }
    }

    /// Returns the largest number of monitors that one statement changed, and the number of transactions. Both counts start at the previous call.
    async fn touched(&self) -> (i64, i64) {
        let answer =
            sqlx::query_as("SELECT coalesce(max(rows), 0), count(DISTINCT id) FROM touched WHERE rows > 0")
                .fetch_one(&self.pool)
                .await
                .unwrap();
        self.run_sql("TRUNCATE touched").await;
        answer
    }

    async fn send(&self, entries: &[Value]) -> Result<(), ServiceError> {
        self.send_to(&self.services, entries).await
    }

    async fn send_to(&self, services: &Services, entries: &[Value]) -> Result<(), ServiceError> {
        let event = self.an_event("beat_schedule", json!({"beat": "shop", "entries": entries}));
        self.batch_to(services, json!({"sent_at": self.now(), "events": [event]}))
            .await
            .map(drop)
    }
}

fn entries(prefix: &str) -> Vec<Value> {
    (0..ENTRIES)
        .map(|number| entry(&format!("{prefix}{number}")))
        .collect()
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_deleted_monitor_is_hidden_at_once_and_its_rows_go_later(pool: PgPool) {
    let world = World::new(pool).await;
    let (gone, stays) = (world.monitor("gone").await, world.monitor("stays").await);
    for monitor in [&gone, &stays] {
        world.ping(monitor, Success).await;
    }
    world
        .run_sql(
            "INSERT INTO run (id, monitor_id, run_id, status, started_at, finished_at, retries)
            SELECT ('01a22900' || right(gen_random_uuid()::text, 28))::uuid, id, gen_random_uuid(), 'success', now(), now(), 0
            FROM monitor, generate_series(1, 6000) WHERE name IN ('gone', 'stays')",
        )
        .await;

    monitor::delete(&world.services, &world.access, gone.id)
        .await
        .unwrap();

    let again = monitor::delete(&world.services, &world.access, gone.id).await;
    assert!(matches!(again, Err(ServiceError::NotFound(_))));
    assert_eq!(
        world.count("SELECT count(*) FROM run").await,
        12_000,
        "the request removes no runs"
    );
    let clock = Arc::new(world.clock.clone());
    let retention = Retention::new(world.store(), clock, RetentionSettings::default(), Arc::default());
    let passed = retention.pass_once().await.unwrap();
    assert_eq!(passed.of(Kind::Deleted), 6_001, "its runs and its ping");
    assert_eq!(world.count("SELECT count(*) FROM run").await, 6_000);
    assert_eq!(world.count("SELECT count(*) FROM purge").await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_with_many_monitors_is_deleted_in_bounded_steps(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    world.send(&entries("e")).await.unwrap();
    for name in ["e0", "e449"] {
        world.finished(name, "failure").await;
    }
    let open = "SELECT count(*) FROM incident WHERE resolved_at IS NULL";
    assert_eq!(world.count(open).await, 2);
    let id = BeatId(world.beat_id().await);
    world.count_monitors_of_transactions().await;
    // The deletion fails once, in the middle.
    world
        .run_sql(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF (SELECT count(*) FROM monitor) < 300 THEN RAISE SQLSTATE '57014'; END IF; RETURN NULL; END $$",
        )
        .await;
    world
        .run_sql("CREATE TRIGGER fail BEFORE DELETE ON monitor FOR EACH STATEMENT EXECUTE FUNCTION fail()")
        .await;
    let failed = beat::delete(&world.services, &world.access, id).await;
    assert!(matches!(failed, Err(ServiceError::Store(_))), "{failed:?}");
    assert_eq!(
        world.count("SELECT count(*) FROM monitor").await,
        ENTRIES as i64 - BATCH,
        "the first step is committed"
    );
    world.run_sql("DROP TRIGGER fail ON monitor").await;

    beat::delete(&world.services, &world.access, id).await.unwrap();

    assert_eq!(world.touched().await, (BATCH, 3));
    assert_eq!(world.count("SELECT count(*) FROM monitor").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM beat").await, 0);
    assert_eq!(world.count(open).await, 0, "their incidents have ended");
    let again = beat::delete(&world.services, &world.access, id).await;
    assert!(matches!(again, Err(ServiceError::NotFound(_))));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_large_schedule_is_followed_in_bounded_steps(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    world.count_monitors_of_transactions().await;

    world.send(&entries("old")).await.unwrap();
    assert_eq!(world.touched().await, (FOLLOWED, 5), "registered");
    let mut changed = entries("old");
    for entry in &mut changed {
        entry["grace_seconds"] = json!(7.0);
    }
    world.send(&changed).await.unwrap();
    assert_eq!(world.touched().await, (FOLLOWED, 5), "changed");
    world.send(&changed).await.unwrap();
    assert_eq!(world.touched().await, (0, 0), "the same list changes nothing");
    world.send(&entries("new")).await.unwrap();

    assert_eq!(
        world.touched().await,
        (FOLLOWED, 10),
        "new entries registered, old ones retired"
    );
    let retired = "SELECT count(*) FROM monitor WHERE retired_at IS NOT NULL AND status = 'paused' AND entry LIKE 'old%'";
    assert_eq!(world.count(retired).await, ENTRIES as i64);
    let armed = "SELECT count(*) FROM monitor WHERE retired_at IS NULL AND deadline_at IS NOT NULL AND entry LIKE 'new%'";
    assert_eq!(world.count(armed).await, ENTRIES as i64);
    world.send(&changed).await.unwrap();
    assert_eq!(world.count(retired).await, 0, "the old entries came back");
    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_schedule_that_failed_in_the_middle_is_repaired_by_the_next_snapshot(pool: PgPool) {
    let world = World::new(pool).await;
    world.send(&entries("old")).await.unwrap();
    // The second of the steps that register fails as on a timeout. In the next round, the second of the steps that retire fails.
    for (kind, condition) in [
        ("INSERT", "SELECT count(*) >= 650 FROM monitor"),
        (
            "UPDATE",
            "SELECT count(*) > 200 FROM monitor WHERE retired_at IS NOT NULL",
        ),
    ] {
        let function = format!(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF ({condition}) THEN RAISE SQLSTATE '57014'; END IF; RETURN NULL; END $$"
        );
        sqlx::query(sqlx::AssertSqlSafe(function))
            .execute(&world.pool)
            .await
            .unwrap();
        let trigger = format!(
            "CREATE TRIGGER fail BEFORE {kind} ON monitor FOR EACH STATEMENT EXECUTE FUNCTION fail()"
        );
        sqlx::query(sqlx::AssertSqlSafe(trigger))
            .execute(&world.pool)
            .await
            .unwrap();

        let failed = world.send(&entries("new")).await;

        assert!(failed.is_err(), "{kind}: the SDK sends it again");
        world.run_sql("DROP TRIGGER fail ON monitor").await;
        // A run of a registered entry counts already, whatever happens to the rest.
        world.finished("new0", "success").await;
        assert_eq!(world.entry("new0").await.state.status, Status::Up);
    }

    world.send(&entries("new")).await.unwrap();

    let active = "SELECT count(*) FROM monitor WHERE retired_at IS NULL AND entry LIKE 'new%'";
    assert_eq!(world.count(active).await, ENTRIES as i64);
    let retired = "SELECT count(*) FROM monitor WHERE retired_at IS NOT NULL AND entry LIKE 'old%'";
    assert_eq!(world.count(retired).await, ENTRIES as i64);
    assert_eq!(
        world.count("SELECT count(*) FROM monitor").await,
        2 * ENTRIES as i64
    );
    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn of_two_snapshots_at_once_one_is_followed_whole(pool: PgPool) {
    let world = World::new(pool).await;
    let (first, second) = (entries("first"), entries("second"));
    // Each process applies the schedules of a project one after the other.
    let (another, _stop) = world.another_process();

    for round in 0..3 {
        let (one, other) = tokio::join!(world.send(&first), world.send_to(&another, &second));

        one.unwrap();
        other.unwrap();
        let active: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE entry LIKE 'first%'), count(*) FILTER (WHERE entry LIKE 'second%')
            FROM monitor WHERE retired_at IS NULL",
        )
        .fetch_all(&world.pool)
        .await
        .unwrap();
        let all = ENTRIES as i64;
        assert!(
            active == [(all, 0)] || active == [(0, all)],
            "round {round}: {active:?}"
        );
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_is_deleted_while_its_schedule_comes_leaves_no_monitor_without_it(pool: PgPool) {
    let world = World::new(pool).await;
    world.send(&entries("e")).await.unwrap();
    let id = BeatId(world.beat_id().await);
    let again = entries("e");

    let (sent, deleted) = tokio::join!(
        world.send(&again),
        beat::delete(&world.services, &world.access, id)
    );

    sent.unwrap();
    deleted.unwrap();
    let orphans = "SELECT count(*) FROM monitor WHERE beat_id IS NULL";
    assert_eq!(world.count(orphans).await, 0);
    let left = world.count("SELECT count(*) FROM monitor").await;
    assert!(left == 0 || left == ENTRIES as i64, "{left} monitors are left");
}
