//! Migrations build the schema from an empty database, once.

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

#[sqlx::test(migrations = false)]
async fn a_manager_becomes_an_admin_and_others_keep_their_role(pool: PgPool) {
    let migrations: Vec<_> = MIGRATOR.iter().collect();
    let roles = migrations
        .iter()
        .position(|one| one.description == "member role")
        .unwrap();
    for migration in &migrations[..roles] {
        sqlx::raw_sql(migration.sql.clone()).execute(&pool).await.unwrap();
    }
    sqlx::raw_sql(
        "INSERT INTO project (id, name, created_at) VALUES (gen_random_uuid(), 'A project', now());
        WITH made AS (
            INSERT INTO account (id, email, password_hash, created_at)
            SELECT gen_random_uuid(), role || '@example.org', '', now() FROM unnest(ARRAY['owner', 'manager', 'viewer']) AS role
            RETURNING id, email
        )
        INSERT INTO member (project_id, account_id, role, created_at)
        SELECT project.id, made.id, split_part(made.email, '@', 1), now() FROM project, made",
    )
    .execute(&pool)
    .await
    .unwrap();

    sqlx::raw_sql(migrations[roles].sql.clone())
        .execute(&pool)
        .await
        .unwrap();

    let seen: Vec<(String, String)> = sqlx::query_as(
        "SELECT email, role FROM member JOIN account ON account.id = account_id ORDER BY email",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let seen: Vec<(&str, &str)> = seen
        .iter()
        .map(|(email, role)| (email.as_str(), role.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("manager@example.org", "admin"),
            ("owner@example.org", "owner"),
            ("viewer@example.org", "viewer")
        ]
    );
    let refused = sqlx::query("UPDATE member SET role = 'manager'")
        .execute(&pool)
        .await;
    assert!(refused.is_err(), "the constraint names the four roles");
}
