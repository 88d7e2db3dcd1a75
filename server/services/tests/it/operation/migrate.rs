//! Migrations take the time that they need and run in one process at a time. An error says what stopped them.

use std::time::Duration;

use deadbeat_services::people::setup::first_start;
use deadbeat_store::{PoolSettings, Store};
use sqlx::{ConnectOptions, PgPool};

use crate::setup::World;

/// The limit for a statement, and for waiting for a lock.
const LIMIT: Duration = Duration::from_millis(300);

/// A store on the pool's database, with short limits.
fn narrow(pool: &PgPool) -> Store {
    Store::connect(&PoolSettings {
        url: pool.connect_options().to_url_lossy().to_string(),
        size: 2,
        wait: Duration::from_secs(5),
        answer: LIMIT,
        usual: None,
    })
    .unwrap()
}

/// Makes the fifth statement that changes the schema take so many seconds.
async fn slow_down(pool: &PgPool, seconds: u32) {
    let trigger = format!(
        "CREATE SEQUENCE statements_seen;
        CREATE FUNCTION nap() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('statements_seen') = 5 THEN PERFORM pg_sleep({seconds}); END IF;
        END $$;
        CREATE EVENT TRIGGER nap ON ddl_command_start EXECUTE FUNCTION nap();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger))
        .execute(pool)
        .await
        .unwrap();
}

async fn applied(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_migration_may_take_longer_than_a_statement_may(pool: PgPool) {
    slow_down(&pool, 1).await;
    let store = narrow(&pool);

    store.migrate().await.unwrap();

    assert!(applied(&pool).await > 0);
    // Other statements keep the limit during a migration and after it.
    let mut tx = store.begin().await.unwrap();
    let slept = deadbeat_store::operation::writer::lock_position(&mut tx, uuid::Uuid::nil()).await;
    assert!(slept.is_ok());
}

#[sqlx::test(migrations = false)]
async fn a_process_waits_for_the_one_that_migrates_however_long_that_takes(pool: PgPool) {
    slow_down(&pool, 1).await;
    let (one, other) = (narrow(&pool), narrow(&pool));

    let (one, other) = tokio::join!(one.migrate(), other.migrate());

    one.unwrap();
    other.unwrap();
}

#[sqlx::test(migrations = false)]
async fn a_migration_that_is_stopped_says_which_it_is_and_why(pool: PgPool) {
    slow_down(&pool, 600).await;
    let store = narrow(&pool);
    let migrating = tokio::spawn(async move { store.migrate().await });
    let stop = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    while sqlx::query(stop).fetch_optional(&pool).await.unwrap().is_none() && !migrating.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let error = migrating.await.unwrap().unwrap_err();

    assert!(error.is_unavailable(), "the migration is retried");
    let words = deadbeat_store::with_sources(&error).to_string();
    assert!(words.contains("migration 1 "), "{words}");
    assert!(words.contains("57014"), "{words}");
    assert!(words.contains("user request"), "{words}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_first_start_that_is_cut_off_shows_its_keys_at_the_next_one(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    sqlx::query("DELETE FROM account").execute(&pool).await.unwrap();
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'cut off'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON api_key EXECUTE FUNCTION refuse();",
    )
    .execute(&pool)
    .await
    .unwrap();
    assert!(first_start(&world.services, "admin@localhost").await.is_err());
    sqlx::raw_sql("DROP TRIGGER refuse ON api_key")
        .execute(&pool)
        .await
        .unwrap();

    let first = first_start(&world.services, "admin@localhost").await.unwrap();

    assert!(first.is_some(), "there is an account whose password nobody knows");
}
