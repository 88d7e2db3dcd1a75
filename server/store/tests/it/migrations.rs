//! The schema comes from nothing, once.

use deadbeat_store::{MIGRATOR, Store, StoreError};
use sqlx::PgPool;

#[sqlx::test(migrations = false)]
async fn migrations_apply_to_an_empty_database_by_several_processes_at_once(pool: PgPool) {
    let store = Store::from_pool(pool.clone());

    let (one, two, three) = tokio::join!(store.migrate(), store.migrate(), store.migrate());

    one.and(two).and(three).unwrap();
    store.migrate().await.unwrap();
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(applied, MIGRATOR.iter().count() as i64);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_database_of_a_newer_server_is_refused(pool: PgPool) {
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'of tomorrow', true, '', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();

    let refused = Store::from_pool(pool).migrate().await;

    assert!(
        matches!(&refused, Err(StoreError::Schema(why)) if why.contains("9999")),
        "{refused:?}"
    );
}
