//! Migrations. They are embedded in the binary, and applied in order at start.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, Executor, PgConnection, PgPool};

use crate::error::passes;
use crate::{StoreError, StoreResult};

/// The migrations of `migrations/`.
pub static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// An arbitrary number, equal in every process: "migrates".
const LOCK: i64 = 0x6d69_6772_6174_6573;

/// How long the connection may take to close.
const LEAVE_MESSAGE: Duration = Duration::from_secs(2);

/// Applies the missing migrations. Processes that start at the same time wait for one another (advisory lock).
pub(crate) async fn run(pool: &PgPool) -> StoreResult<()> {
    // Use a separate connection: its settings end with it, and so does the advisory lock after a failure.
    let mut connection = pool.acquire().await?.detach();
    let done = run_on(&mut connection).await;
    let _ = tokio::time::timeout(LEAVE_MESSAGE, connection.close()).await;
    done
}

async fn run_on(connection: &mut PgConnection) -> StoreResult<()> {
    // No timeout: a migration may copy a table, and other processes must wait for its end.
    connection
        .execute(sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0"))
        .await?;
    // If this server is stopped during a migration, PostgreSQL ends its statement, which would otherwise keep the lock.
    // Some systems do not support this setting.
    let _ = connection
        .execute(sqlx::raw_sql("SET client_connection_check_interval = '2s'"))
        .await;
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut *connection)
        .await?;
    // While a migration waits for a table, the statements of other processes wait behind it. So limit its wait.
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

/// Returns the error of a failed migration, with PostgreSQL's own code.
fn stopped(what: String, source: sqlx::Error) -> StoreError {
    let code = source
        .as_database_error()
        .and_then(|error| error.code().map(String::from));
    StoreError::Migration {
        what: what.into(),
        // No code: the connection broke.
        passes: code.as_deref().is_none_or(passes),
        code: code.map_or("no SQLSTATE".into(), |code| format!("SQLSTATE {code}").into()),
        source: Box::new(source),
    }
}
