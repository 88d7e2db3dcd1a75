//! `deadbeat migrate`

use anyhow::Context;

use crate::config::DatabaseConfig;
use crate::database::Database;

/// Applies what is missing.
///
/// # Errors
/// The database is away, or was written by a newer server.
pub async fn run(config: &DatabaseConfig) -> anyhow::Result<()> {
    let database = Database::of_command(config).await?;
    let store = database.store()?;
    let migrated = store.migrate().await.context("the database");
    store.close().await;
    database.stop().await;
    migrated?;
    println!("the schema is up to date");
    Ok(())
}
