//! Migrations: embedded in the binary, applied in order at start.

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};

use crate::{StoreError, StoreResult};

/// The migrations of `migrations/`.
pub static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// Applies what is missing. Several processes that start at once wait for one another (advisory lock).
pub(crate) async fn run(pool: &PgPool) -> StoreResult<()> {
    MIGRATOR.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::Schema(format!(
            "it has migration {version}, which this server does not know: a newer server wrote it, so run that one or a newer one"
        )),
        MigrateError::VersionMismatch(version) => {
            StoreError::Schema(format!("migration {version} was changed after it had been applied"))
        }
        MigrateError::Dirty(version) => StoreError::Schema(format!("migration {version} stopped half way")),
        MigrateError::Execute(error) => error.into(),
        MigrateError::ExecuteMigration(error, version) => {
            tracing::error!(version, %error, "a migration failed");
            error.into()
        }
        other => StoreError::Schema(other.to_string()),
    })
}
