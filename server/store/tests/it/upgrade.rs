//! The migration adds project keys to a database in use. It keeps old rows, and the code of the last release works beside the new code.

use deadbeat_store::MIGRATOR;
use sqlx::PgPool;

/// Rows of one project, as the last release wrote them. One monitor is deleted and not yet purged.
const ROWS: &str = "
    INSERT INTO project (id, name, created_at) VALUES ('00000000-0000-0000-0000-00000000000a', 'p', now());
    INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds, all_channels, status, created_at, updated_at)
    SELECT id, '00000000-0000-0000-0000-00000000000a', gen_random_uuid(), id::text, 'm', '{}', '{}', 1, false, 'new', now(), now()
    FROM UNNEST('{00000000-0000-0000-0000-000000000001,00000000-0000-0000-0000-000000000002}'::uuid[]) AS new (id);
    INSERT INTO channel (id, project_id, kind, name, settings, created_at, updated_at)
    VALUES ('00000000-0000-0000-0000-00000000000c', '00000000-0000-0000-0000-00000000000a', 'email', 'c', '{}', now(), now());
    INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at)
    VALUES ('00000000-0000-0000-0000-00000000000d', '00000000-0000-0000-0000-00000000000a', 'host', gen_random_uuid(), 'h', 'HOST_LOST',
        's', '[]', '[]', now());
    INSERT INTO delivery (id, project_id, channel_id, alert, payload, status, created_at, settled_at)
    VALUES ('00000000-0000-0000-0000-00000000000e', '00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-00000000000c',
        'test', '{}', 'sent', now(), now());
";

/// Statements of the last release for the tables whose rows named no project, with its `ON CONFLICT` and its columns.
const WRITES: &str = "
    INSERT INTO ping (monitor_id, n, received_at, kind, source, body_bytes)
    SELECT id, n, now() - interval '1 day' * n, 'success', 'http', 1 FROM monitor, generate_series(1, 9) AS n;
    INSERT INTO ping_body (monitor_id, n, received_at, body) SELECT monitor_id, n, received_at, 'x' FROM ping;
    INSERT INTO run (id, monitor_id, status, started_at, finished_at, retries)
    SELECT id, id, 'success', now(), now(), 0 FROM monitor
    ON CONFLICT (id) DO UPDATE SET retries = run.retries + 1;
    INSERT INTO baseline (monitor_id, bounds, runs, usual, shortest, longest) SELECT id, true, 0, 0, 0, 0 FROM monitor
    ON CONFLICT (monitor_id) DO UPDATE SET runs = baseline.runs + 1;
    INSERT INTO monitor_channel (monitor_id, channel_id) SELECT monitor.id, channel.id FROM monitor, channel;
    INSERT INTO incident_member (incident_id, monitor_id, joined_at) SELECT incident.id, monitor.id, now() FROM incident, monitor
    ON CONFLICT (incident_id, monitor_id) DO UPDATE SET joined_at = incident_member.joined_at;
    INSERT INTO host_part (incident_id, part_id, part_kind, heard_at) SELECT incident.id, monitor.id, 'beat', now() FROM incident, monitor
    ON CONFLICT (incident_id, part_id) DO UPDATE SET back_at = now();
    INSERT INTO attempt (delivery_id, number, started_at, duration_ms, outcome) SELECT id, 1, now(), 1, 'sent' FROM delivery
    ON CONFLICT (delivery_id, number) DO NOTHING;
    INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at)
    SELECT gen_random_uuid(), project_id, subject_kind, subject_id, 'again', cause, 's', '[]', '[]', now() FROM incident
    ON CONFLICT (subject_kind, subject_id) WHERE resolved_at IS NULL DO NOTHING;
";

/// Returns the number of rows of each table, and the number of those that name the project.
async fn rows(pool: &PgPool) -> Vec<(&'static str, i64, i64)> {
    let tables = [
        (
            "ping",
            "SELECT count(*), count(*) FILTER (WHERE project_id::text LIKE '%a') FROM ping",
        ),
        (
            "ping_body",
            "SELECT count(*), count(*) FILTER (WHERE project_id::text LIKE '%a') FROM ping_body",
        ),
        (
            "run",
            "SELECT count(*), count(*) FILTER (WHERE project_id::text LIKE '%a') FROM run",
        ),
        (
            "baseline",
            "SELECT count(*), count(*) FILTER (WHERE project_id::text LIKE '%a') FROM baseline",
        ),
        (
            "monitor_channel",
            "SELECT count(*), count(*) FILTER (WHERE project_id::text LIKE '%a') FROM monitor_channel",
        ),
        (
            "incident_member",
            "SELECT count(*), count(*) FILTER (WHERE project_id::text LIKE '%a') FROM incident_member",
        ),
        (
            "host_part",
            "SELECT count(*), count(*) FILTER (WHERE project_id::text LIKE '%a') FROM host_part",
        ),
        (
            "attempt",
            "SELECT count(*), count(*) FILTER (WHERE project_id::text LIKE '%a') FROM attempt",
        ),
        (
            "incident",
            "SELECT count(*), count(*) FILTER (WHERE project_id::text LIKE '%a') FROM incident",
        ),
    ];
    let mut found = Vec::new();
    for (table, question) in tables {
        let (all, named): (i64, i64) = sqlx::query_as(question).fetch_one(pool).await.unwrap();
        found.push((table, all, named));
    }
    found
}

#[sqlx::test(migrations = false)]
async fn old_rows_get_their_project_and_what_a_deleted_monitor_left_goes(pool: PgPool) {
    MIGRATOR.run_to(49, &pool).await.unwrap();
    for statement in [ROWS, WRITES, "DELETE FROM monitor WHERE id::text LIKE '%2'"] {
        sqlx::raw_sql(statement).execute(&pool).await.unwrap();
    }

    MIGRATOR.run(&pool).await.unwrap();

    // The rows of the deleted monitor are removed: its pings, its run and its membership.
    let wanted = [
        ("ping", 9, 9),
        ("ping_body", 9, 9),
        ("run", 1, 1),
        ("baseline", 1, 1),
        ("monitor_channel", 1, 1),
        ("incident_member", 1, 1),
        ("host_part", 2, 2),
        ("attempt", 1, 1),
        ("incident", 1, 1),
    ];
    assert_eq!(rows(&pool).await, wanted);
    let purged: i64 = sqlx::query_scalar("SELECT count(*) FROM purge")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(purged, 0);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_code_of_the_last_release_writes_what_it_wrote_into_the_new_keys(pool: PgPool) {
    sqlx::raw_sql(ROWS).execute(&pool).await.unwrap();

    sqlx::raw_sql(WRITES).execute(&pool).await.unwrap();
    // The same statements run again, except those without an `ON CONFLICT`.
    let again: String = WRITES
        .split_inclusive(';')
        .filter(|statement| statement.contains("ON CONFLICT"))
        .collect();
    sqlx::raw_sql(sqlx::AssertSqlSafe(again))
        .execute(&pool)
        .await
        .unwrap();

    let wanted = [
        ("ping", 18, 18),
        ("ping_body", 18, 18),
        ("run", 2, 2),
        ("baseline", 2, 2),
        ("monitor_channel", 2, 2),
        ("incident_member", 2, 2),
        ("host_part", 2, 2),
        ("attempt", 1, 1),
        ("incident", 1, 1),
    ];
    assert_eq!(rows(&pool).await, wanted);
    // The last release deletes a monitor, and a row for the purge stays.
    sqlx::raw_sql("DELETE FROM monitor WHERE id::text LIKE '%2'")
        .execute(&pool)
        .await
        .unwrap();
    let purged: i64 = sqlx::query_scalar("SELECT count(*) FROM purge WHERE project_id::text LIKE '%a'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(purged, 1);
}
