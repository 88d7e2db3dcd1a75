//! The retention removes old rows, and nothing else.

use std::sync::Arc;

use chrono::TimeDelta;
use deadbeat_domain::monitor::ping::PingKind::{Start, Success};
use deadbeat_services::operation::retention::{Kind, Passed, RemovalCounters, Retention, RetentionSettings};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::setup::World;

pub fn retention(world: &World, settings: RetentionSettings) -> Retention {
    let figures = Arc::new(RemovalCounters::default());
    Retention::new(world.store(), Arc::new(world.clock.clone()), settings, figures)
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn days_have_their_tables_ahead_and_old_days_go_whole(pool: PgPool) {
    let world = World::new(pool).await;
    let keep = RetentionSettings {
        ping_days: 3,
        ..RetentionSettings::default()
    };
    let retention = retention(&world, keep);
    retention.pass_once().await.unwrap();
    let monitor = world.monitor("m").await;
    for _ in 0..10 {
        world.ping(&monitor, Success).await;
        world.clock.advance(TimeDelta::days(1));
        retention.pass_once().await.unwrap();
    }

    let kept: Vec<i64> = sqlx::query_scalar("SELECT n FROM ping ORDER BY n")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(kept, [8, 9, 10], "today's (none yet) and three days before");
    assert_eq!(world.count("SELECT count(*) FROM ping_default").await, 0);
    let today = world.now().date_naive();
    let ahead = format!("ping_{}", (today + TimeDelta::days(3)).format("%Y%m%d"));
    let found: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(ahead)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(found);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn pings_of_a_day_without_a_table_are_kept_and_moved_when_it_comes(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    // The server was down for a month, or its clock was wrong: this day has no table.
    world.clock.advance(TimeDelta::days(40));
    world.ping(&monitor, Success).await;
    assert_eq!(world.count("SELECT count(*) FROM ping_default").await, 1);

    retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(world.count("SELECT count(*) FROM ping_default").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitor_keeps_its_newest_pings(pool: PgPool) {
    let world = World::new(pool).await;
    let (busy, quiet) = (world.monitor("busy").await, world.monitor("quiet").await);
    for _ in 0..12 {
        world.ping(&busy, Success).await;
    }
    world.ping(&quiet, Success).await;
    let keep = RetentionSettings {
        pings_per_monitor: 5,
        ..RetentionSettings::default()
    };

    let removed = retention(&world, keep).pass_once().await.unwrap();

    assert_eq!(removed.of(Kind::ExcessPings), 7);
    let kept: Vec<i64> = sqlx::query_scalar("SELECT n FROM ping WHERE monitor_id = $1 ORDER BY n")
        .bind(busy.id.0)
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(kept, [8, 9, 10, 11, 12]);
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 6);
    let again = retention(&world, keep).pass_once().await.unwrap();
    assert_eq!(again, Passed::default(), "nothing is left to remove");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_deleted_monitor_leaves_no_pings_behind(pool: PgPool) {
    let world = World::new(pool).await;
    let (gone, stays) = (world.monitor("gone").await, world.monitor("stays").await);
    for monitor in [&gone, &gone, &stays] {
        world.ping(monitor, Success).await;
    }
    deadbeat_services::monitor::delete(&world.services, &world.access, gone.id)
        .await
        .unwrap();

    retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(world.count("SELECT count(*) FROM ping").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM purge").await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn old_runs_go_and_open_ones_stay(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    world.ping_of(&monitor, 1, Start).await;
    world.ping_of(&monitor, 1, Success).await;
    world.ping_of(&monitor, 2, Start).await;
    // The machine's clock makes the ids of runs, and the test's clock is stopped elsewhere.
    sqlx::query("UPDATE run SET id = overlay(id::text placing '00000000-0000' from 1 for 13)::uuid")
        .execute(&world.pool)
        .await
        .unwrap();

    let removed = retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(removed.of(Kind::Runs), 1);
    assert_eq!(
        world
            .count("SELECT count(*) FROM run WHERE status = 'open'")
            .await,
        1
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn of_several_processes_one_removes(pool: PgPool) {
    let world = World::new(pool).await;
    let mut other = world.store().begin().await.unwrap();
    assert!(
        deadbeat_store::operation::retention::try_lock(&mut other)
            .await
            .unwrap()
    );
    world.clock.advance(TimeDelta::days(40));

    let removed = retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(removed, Passed::default());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn workers_and_queues_are_forgotten_a_week_after_they_last_reported(pool: PgPool) {
    let world = World::new(pool).await;
    let retention = retention(&world, RetentionSettings::default());
    world
        .worker_says("celery@gone", json!({"state": "stopped"}))
        .await;
    world.worker_says("celery@lost", json!({})).await;
    let sample = json!({"app": "shop", "reachable": true, "queues": [{"name": "celery", "depth": 0}]});
    world.event(world.an_event("broker_sample", sample)).await;

    world.clock.advance(TimeDelta::days(7));
    let removed = retention.pass_once().await.unwrap();
    let received = |passed: &Passed| (passed.of(Kind::Workers), passed.of(Kind::Queues));
    assert_eq!(received(&removed), (0, 0), "less than a week has passed");
    world.clock.advance(TimeDelta::seconds(1));
    let removed = retention.pass_once().await.unwrap();

    assert_eq!(received(&removed), (1, 1));
    assert_eq!(
        world
            .count("SELECT count(*) FROM worker WHERE name = 'celery@lost'")
            .await,
        1,
        "the worker is not judged yet"
    );
}

/// A number of rows that two steps of the retention do not remove.
const MANY: i64 = 11_000;

/// Makes a resolved incident with [`MANY`] members, handles, deliveries and attempts, and as many transitions, runs and pings of one monitor.
const LOTS: [&str; 8] = [
    "INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at, resolved_at)
    SELECT ('00000000' || right(gen_random_uuid()::text, 28))::uuid, project.id, 'monitor', monitor.id,
        'm', 'MISSED', '', '[]', '[]', '2020-01-01', '2020-01-02'
    FROM project, monitor, generate_series(1, 11000) AS n",
    "INSERT INTO incident_member (incident_id, monitor_id, joined_at)
    SELECT incident.id, monitor.id, '2020-01-01' FROM incident, monitor",
    "INSERT INTO message_handle (incident_id, channel_id, project_id, handle, updated_at)
    SELECT incident.id, channel.id, channel.project_id, '{}', '2020-01-01' FROM incident, channel",
    "INSERT INTO delivery (id, project_id, channel_id, incident_id, alert, payload, status, created_at, settled_at)
    SELECT ('00000000' || right(gen_random_uuid()::text, 28))::uuid, project_id, gen_random_uuid(), id, 'opened', '{}', 'sent',
        '2020-01-01', '2020-01-01'
    FROM incident",
    "INSERT INTO attempt (delivery_id, number, started_at, duration_ms, outcome)
    SELECT id, number, '2020-01-01', 1, 'sent' FROM delivery, generate_series(1, 2) AS number",
    "INSERT INTO transition (id, project_id, subject_kind, subject_id, from_status, to_status, cause, at)
    SELECT gen_random_uuid(), project_id, 'monitor', gen_random_uuid(), 'up', 'down', 'SILENCE', '2020-01-01' FROM incident",
    // Half of the runs never ended. The retention keeps them and walks past them.
    "INSERT INTO run (id, monitor_id, run_id, status, started_at, finished_at, deadline_at, retries)
    SELECT ('00000000' || right(gen_random_uuid()::text, 28))::uuid, monitor.id, gen_random_uuid(),
        CASE WHEN n % 2 = 0 THEN 'open' ELSE 'success' END, '2020-01-01', CASE WHEN n % 2 = 1 THEN timestamptz '2020-01-01' END,
        '2020-01-01', 0
    FROM monitor, generate_series(1, 22000) AS n",
    "INSERT INTO ping (monitor_id, n, received_at, kind, source, body_bytes)
    SELECT id, n, '2026-01-15', 'success', 'http', 0 FROM monitor, generate_series(1, 11000) AS n",
];

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn no_statement_removes_more_than_its_share(pool: PgPool) {
    let world = World::new(pool).await;
    world.monitor("m").await;
    world.channel("chat").await;
    let run = async |statement: String| {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&world.pool)
            .await
            .unwrap();
    };
    for statement in LOTS {
        run(statement.to_owned()).await;
    }
    run("UPDATE monitor SET ping_count = 11000".to_owned()).await;
    // Triggers in the database count the rows that each statement removes, including cascades.
    run("CREATE TABLE seen (of text, rows bigint)".to_owned()).await;
    run("CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO seen SELECT TG_TABLE_NAME, count(*) FROM gone; RETURN NULL; END $$"
        .to_owned())
    .await;
    let tables = [
        "run",
        "ping",
        "attempt",
        "delivery",
        "incident_member",
        "message_handle",
        "incident",
        "transition",
    ];
    for table in tables {
        run(format!(
            "CREATE TRIGGER see AFTER DELETE ON {table} REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION see()"
        ))
        .await;
    }
    let keep = RetentionSettings {
        pings_per_monitor: 1,
        ..RetentionSettings::default()
    };
    let retention = retention(&world, keep);

    let passed = retention.pass_once().await.unwrap();

    assert_eq!(passed.failed, []);
    let kinds = [
        (Kind::Runs, MANY),
        (Kind::ExcessPings, MANY - 1),
        (Kind::Attempts, 2 * MANY),
        (Kind::Deliveries, MANY),
        (Kind::Members, MANY),
        (Kind::Handles, MANY),
        (Kind::Incidents, MANY),
        (Kind::Transitions, MANY),
    ];
    for (kind, rows) in kinds {
        assert_eq!(passed.of(kind), rows.unsigned_abs(), "{kind:?}");
    }
    let left = "SELECT (SELECT count(*) FROM run) + (SELECT count(*) FROM ping)";
    assert_eq!(world.count(left).await, MANY + 1, "open runs and the newest ping");
    let most: Vec<(String, i64)> = sqlx::query_as("SELECT of, max(rows) FROM seen GROUP BY of ORDER BY of")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(most.len(), tables.len());
    for (table, rows) in most {
        assert!(
            (1..=5_000).contains(&rows),
            "{table}: {rows} rows in one statement"
        );
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_open_or_not_settled_keeps_all_that_belongs_to_it(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let names = ["open", "over", "untold"];
    for name in names {
        let monitor = world.monitor(name).await;
        world.ping(&monitor, Success).await;
    }
    assert_eq!(world.sweep_after(90).await.down, 3);
    let run = async |statement: &'static str| {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    };
    // Each incident has its own monitor as a member, a settled delivery and an attempt.
    run("INSERT INTO incident_member SELECT id, subject_id, opened_at FROM incident").await;
    run("INSERT INTO attempt SELECT id, 1, created_at, 1, 'sent', 200, NULL FROM delivery").await;
    run("UPDATE delivery SET status = 'sent', next_attempt_at = NULL, settled_at = created_at").await;
    for name in ["over", "untold"] {
        let monitor = monitor_named(&world, name).await;
        world.ping(&monitor, Success).await;
    }
    // The all-clear of one incident is sent, and that of the other still waits.
    run(
        "UPDATE delivery SET status = 'sent', next_attempt_at = NULL, settled_at = created_at
        WHERE alert = 'resolved' AND incident_id = (SELECT id FROM incident WHERE subject_name = 'over')",
    )
    .await;
    world.clock.advance(TimeDelta::days(1_000));

    let passed = retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(passed.failed, []);
    let names: Vec<String> = sqlx::query_scalar("SELECT subject_name FROM incident ORDER BY subject_name")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(names, ["open", "untold"]);
    let of_open = "SELECT count(*) FROM incident JOIN incident_member ON incident_id = id JOIN delivery ON delivery.incident_id = incident.id
        JOIN attempt ON delivery_id = delivery.id JOIN transition USING (subject_kind, subject_id) WHERE subject_name = 'open'
        AND to_status = 'down'";
    assert_eq!(world.count(of_open).await, 1, "an open incident keeps everything");
    let pending = "SELECT count(*) FROM delivery WHERE status = 'pending'";
    assert_eq!(world.count(pending).await, 1);
    let removed =
        [Kind::Incidents, Kind::Members, Kind::Deliveries, Kind::Attempts].map(|kind| passed.of(kind));
    assert_eq!(
        removed,
        [1, 2, 3, 2],
        "one settled incident, and the settled parts of the other"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn each_table_has_days_of_its_own(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("m").await;
    world.ping(&monitor, Success).await;
    world.sweep_after(90).await;
    world.ping(&monitor, Success).await;
    let run = async |statement: &'static str| {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    };
    run("INSERT INTO attempt SELECT id, 1, created_at, 1, 'sent', 200, NULL FROM delivery").await;
    run("UPDATE delivery SET status = 'sent', next_attempt_at = NULL, settled_at = created_at").await;
    // The machine's clock makes ids, and the test's clock is stopped elsewhere.
    run("UPDATE incident SET id = ('00000000' || right(id::text, 28))::uuid").await;
    run("UPDATE delivery SET incident_id = (SELECT id FROM incident)").await;
    let keep = RetentionSettings {
        attempt_days: 2,
        delivery_days: 4,
        incident_days: 6,
        transition_days: 8,
        ..RetentionSettings::default()
    };
    let retention = retention(&world, keep);
    run("ALTER TABLE attempt DROP CONSTRAINT attempt_delivery_id_fkey").await;
    run("UPDATE attempt SET delivery_id = ('00000000' || right(delivery_id::text, 28))::uuid").await;
    run("UPDATE delivery SET id = ('00000000' || right(id::text, 28))::uuid").await;

    let mut left = Vec::new();
    for _ in 0..5 {
        retention.pass_once().await.unwrap();
        let mut counts = Vec::new();
        for count in [
            "SELECT count(*) FROM attempt",
            "SELECT count(*) FROM delivery",
            "SELECT count(*) FROM incident",
            "SELECT count(*) FROM transition",
        ] {
            counts.push(world.count(count).await);
        }
        left.push(counts);
        world.clock.advance(TimeDelta::days(2) + TimeDelta::seconds(1));
    }

    assert_eq!(
        left,
        [
            [2, 2, 1, 3],
            [0, 2, 1, 3],
            [0, 0, 1, 3],
            [0, 0, 0, 3],
            [0, 0, 0, 0]
        ]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn bodies_may_go_before_their_pings(pool: PgPool) {
    let world = World::new(pool).await;
    let keep = RetentionSettings {
        ping_days: 5,
        ping_body_days: 2,
        ..RetentionSettings::default()
    };
    let retention = retention(&world, keep);
    let monitor = world.monitor("m").await;
    for _ in 0..8 {
        retention.pass_once().await.unwrap();
        world.ping(&monitor, Success).await;
        sqlx::query(
            "INSERT INTO ping_body SELECT monitor_id, n, received_at, 'x' FROM ping ORDER BY n DESC LIMIT 1",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        world.clock.advance(TimeDelta::days(1));
    }
    retention.pass_once().await.unwrap();

    assert_eq!(world.count("SELECT count(*) FROM ping").await, 5);
    assert_eq!(world.count("SELECT count(*) FROM ping_body").await, 2);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn old_entries_of_audit_trails_go_and_newer_ones_stay(pool: PgPool) {
    let world = World::new(pool).await;
    let project = world.project.0;
    for age in [366, 364, 0] {
        // A UUID v7 from that day.
        sqlx::query(
            "INSERT INTO audit_entry (id, project_id, at, actor_kind, action, subject_id, changed)
            SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7000800000000000' || lpad($2::int::text, 4, '0'))::uuid,
                $1, at, 'operator', 'project.changed', $1, '{}'
            FROM (SELECT $3::timestamptz - make_interval(days => $2) AS at) AS of_day",
        )
        .bind(project)
        .bind(age)
        .bind(world.now())
        .execute(&world.pool)
        .await
        .unwrap();
    }

    let passed = retention(&world, RetentionSettings::default())
        .pass_once()
        .await
        .unwrap();

    assert_eq!(passed.of(Kind::AuditEntries), 1);
    assert_eq!(world.count("SELECT count(*) FROM audit_entry").await, 2);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_step_that_fails_stops_no_other_table(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    world.ping_of(&monitor, 1, Start).await;
    world.ping_of(&monitor, 1, Success).await;
    let run = async |statement: &'static str| {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    };
    run("UPDATE run SET id = overlay(id::text placing '00000000-0000' from 1 for 13)::uuid").await;
    run("INSERT INTO blind_spell VALUES (gen_random_uuid(), '2020-01-01', '2020-01-02')").await;
    // The error of PostgreSQL when a statement takes too long.
    run("CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '57014'; END $$")
        .await;
    run("CREATE TRIGGER late BEFORE DELETE ON run FOR EACH ROW EXECUTE FUNCTION late()").await;
    let retention = retention(&world, RetentionSettings::default());

    let passed = retention.pass_once().await.unwrap();

    assert_eq!(passed.failed, [Kind::Runs]);
    assert_eq!((passed.of(Kind::Runs), passed.of(Kind::BlindSpells)), (0, 1));
    run("DROP TRIGGER late ON run").await;
    let passed = retention.pass_once().await.unwrap();
    assert_eq!((passed.failed.len(), passed.of(Kind::Runs)), (0, 1));
}

async fn monitor_named(world: &World, name: &str) -> deadbeat_store::monitor::Monitor {
    let id: uuid::Uuid = sqlx::query_scalar("SELECT id FROM monitor WHERE name = $1")
        .bind(name)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    world.read(deadbeat_domain::ids::MonitorId(id)).await
}
