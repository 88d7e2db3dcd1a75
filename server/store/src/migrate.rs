//! Migrations: embedded in the binary, applied in order at start.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, Executor, PgConnection, PgPool};

use crate::error::passes;
use crate::{StoreError, StoreResult};

/// The migrations of `migrations/`.
pub static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// Any number, the same in every process: "migrates".
const LOCK: i64 = 0x6d69_6772_6174_6573;

/// How long the connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Applies what is missing. Several processes that start at once wait for one another (advisory lock).
pub(crate) async fn run(pool: &PgPool) -> StoreResult<()> {
    // A connection of its own: its settings, and the lock after a failure, end with it.
    let mut connection = pool.acquire().await?.detach();
    let done = run_on(&mut connection).await;
    let _ = tokio::time::timeout(GOODBYE, connection.close()).await;
    done
}

async fn run_on(connection: &mut PgConnection) -> StoreResult<()> {
    // No limit: a migration may copy a table, and whoever waits for it waits as long.
    connection
        .execute(sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0"))
        .await?;
    // PostgreSQL ends the statement of a server that was stopped meanwhile, which would hold the lock. Some systems cannot.
    let _ = connection
        .execute(sqlx::raw_sql("SET client_connection_check_interval = '2s'"))
        .await;
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut *connection)
        .await?;
    // Each statement of other processes would wait behind one that waits for a table.
    connection
        .execute(sqlx::raw_sql("SET lock_timeout = '10s'"))
        .await?;
    MIGRATOR.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::Schema(format!(
            "it has migration {version}, which this server does not know: a newer server wrote it, so run that one or a newer one"
        )),
        MigrateError::VersionMismatch(version) => {
            StoreError::Schema(format!("migration {version} was changed after it had been applied"))
        }
        MigrateError::Dirty(version) => StoreError::Schema(format!("migration {version} stopped half way")),
        MigrateError::Execute(error) => stopped("a look at the migrations".to_owned(), error),
        MigrateError::ExecuteMigration(error, version) => stopped(format!("migration {version}"), error),
        other => StoreError::Schema(other.to_string()),
    })
}

/// What stopped a migration, by PostgreSQL's own code.
fn stopped(what: String, source: sqlx::Error) -> StoreError {
    let code = source
        .as_database_error()
        .and_then(|error| error.code().map(String::from));
    StoreError::Migration {
        what: what.into(),
        // Without a code the line broke.
        passes: code.as_deref().is_none_or(passes),
        code: code.map_or("no SQLSTATE".into(), |code| format!("SQLSTATE {code}").into()),
        source: Box::new(source),
    }
}
