//! Statements use indexes, even while PostgreSQL's statistics say that a table is small.

use std::time::Duration;

use deadbeat_store::monitor::{self, Held};
use deadbeat_store::{PoolSettings, Store};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::setup::World;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_plan_of_a_small_table_does_not_read_the_whole_grown_one(
    options: PgPoolOptions,
    database: PgConnectOptions,
) {
    let world = World::new(options.connect_with(database.clone()).await.unwrap()).await;
    let own = world.monitor("own").await;
    sqlx::query("ANALYZE monitor").execute(&world.pool).await.unwrap();
    let store = Store::connect(&PoolSettings {
        url: database.to_url_lossy().to_string(),
        size: 1,
        wait: Duration::from_secs(60),
        answer: Duration::from_secs(60),
        usual: None,
    })
    .unwrap();
    let lock = async || {
        let mut tx = store.begin().await.unwrap();
        let found = monitor::lock_for_signals(&mut tx, &[own.ping_id.0], &[own.id.0], Held::Skip).await;
        assert_eq!(found.unwrap().len(), 1);
        tx.commit().await.unwrap();
    };
    // From the sixth execution on, PostgreSQL keeps one plan for all parameters.
    for _ in 0..10 {
        lock().await;
    }
    // A Beat registers its schedule. PostgreSQL has not analyzed the table yet.
    sqlx::query(
        "INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds, all_channels, status, created_at,
            updated_at, delay_seconds)
        SELECT gen_random_uuid(), project_id, gen_random_uuid(), 'entry-' || n, 'entry ' || n, tags, schedule, grace_seconds, all_channels,
            'new', created_at, created_at, 0
        FROM monitor, generate_series(1, 5000) AS n",
    )
    .execute(&world.pool)
    .await
    .unwrap();

    for _ in 0..10 {
        lock().await;
    }

    // PostgreSQL counts the rows that a connection read when the connection ends, or earlier.
    store.close().await;
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'deadbeat'";
    let ended = async {
        while world.count(others).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .expect("its connection ends");
    let read = world
        .count("SELECT seq_tup_read::bigint FROM pg_stat_user_tables WHERE relname = 'monitor'")
        .await;
    assert!(read < 10_000, "ten pings of one monitor read {read} rows");
}
