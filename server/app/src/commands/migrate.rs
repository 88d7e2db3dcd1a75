//! `deadbeat migrate`

use anyhow::Context;

use crate::config::DatabaseConfig;
use crate::database::Database;

/// Applies the missing migrations.
///
/// # Errors
/// If the database cannot be reached, or a newer server has changed its schema.
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
