//! Pings with one constant run id cost the server no more than pings with fresh ids.

use deadbeat_domain::monitor::ping::PingKind::{Start, Success};
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address};
use futures::future::join_all;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::setup::{World, incoming};

const RID: Uuid = Uuid::from_u128(7);

/// Returns how many rows of `run` statements have read so far. With one connection in the pool, PostgreSQL's counters are complete.
async fn rows_read(world: &World) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()")
        .execute(&world.pool)
        .await
        .unwrap();
    world
        .count("SELECT (seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables WHERE relname = 'run'")
        .await
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_run_id_with_31_000_runs_is_read_in_part_and_shrinks_to_the_limit(
    options: PgPoolOptions,
    database: PgConnectOptions,
) {
    let world = World::new(options.max_connections(1).connect_with(database).await.unwrap()).await;
    let monitor = world.monitor("backup").await;
    // The rows that the ends of 31,000 pings left behind.
    sqlx::query(
        "INSERT INTO run (id, monitor_id, run_id, status, finished_at, retries, attempts)
        SELECT (lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid, $1, $2, 'success', now(), 0, 0
        FROM generate_series(1, 31000) AS n",
    )
    .bind(monitor.id.0)
    .bind(RID)
    .execute(&world.pool)
    .await
    .unwrap();
    sqlx::query("ANALYZE run").execute(&world.pool).await.unwrap();

    let mut most = 0;
    for kind in [Start, Success].into_iter().cycle().take(66) {
        let before = rows_read(&world).await;
        world.ping_of(&monitor, RID.as_u128(), kind).await;
        most = most.max(rows_read(&world).await - before);
    }

    // The server reads 1,024 surplus runs to find them, and again to delete them; it also reads the newest hundred.
    assert!(most < 2_500, "one ping read {most} runs");
    assert_eq!(world.count("SELECT count(*) FROM run").await, 100);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_newest_runs_of_a_run_id_are_kept_and_other_runs_are_left_alone(pool: PgPool) {
    let world = World::new(pool).await;
    let (same, other) = (world.monitor("same").await, world.monitor("other").await);
    for rid in 1..=3 {
        world.ping_of(&same, rid, Success).await;
        world.ping_of(&other, RID.as_u128(), Success).await;
    }
    world.ping_of(&same, RID.as_u128(), Start).await;
    for _ in 0..5 {
        let batch = (0..60).map(|_| {
            let signal = Signal {
                run_id: Some(RID),
                ..world.signal(Success)
            };
            let address = Address::Ping(same.ping_id);
            world.services.ingest().accept(incoming(address, signal))
        });
        let answers = join_all(batch).await;
        assert!(answers.iter().all(|answer| *answer == Ok(Accepted::Recorded)));
    }

    let kept: Vec<(Uuid, i64, bool)> = sqlx::query_as(
        "SELECT monitor_id, count(*), bool_or(started_at IS NOT NULL) FROM run WHERE run_id = $1 GROUP BY monitor_id ORDER BY 2",
    )
    .bind(RID)
    .fetch_all(&world.pool)
    .await
    .unwrap();
    // The first of the 301 runs, which had a start, is removed.
    assert_eq!(kept, [(other.id.0, 3, false), (same.id.0, 100, false)]);
    assert_eq!(
        world.count("SELECT count(*) FROM run").await,
        106,
        "runs of other ids stay"
    );
    assert_eq!(world.read(same.id).await.state.ping_count, 304);
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 307);
}
