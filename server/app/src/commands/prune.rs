//! `deadbeat prune`

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use deadbeat_services::operation::retention::{Kind, RemovalCounters, Retention};

use crate::clock::SystemClock;
use crate::config::{DatabaseConfig, RetentionConfig};
use crate::database::Database;

/// Removes data that are too old, as the server does once an hour.
#[derive(Debug, Clone, Args)]
pub struct Command {
    #[command(flatten)]
    database: DatabaseConfig,
    #[command(flatten)]
    retention: RetentionConfig,
}

/// Runs one pass of the retention, and prints how much it removed.
///
/// # Errors
/// If the database cannot be reached, its schema does not fit, or some kind of data could not be removed. The rows already removed stay removed.
pub async fn run(command: &Command) -> anyhow::Result<()> {
    let database = Database::of_command(&command.database).await?;
    let store = database.store()?;
    let figures = Arc::new(RemovalCounters::default());
    let pass = async {
        store.migrate().await.context("the database")?;
        let settings = command.retention.settings();
        let retention = Retention::new(
            store.clone(),
            Arc::new(SystemClock),
            settings,
            Arc::clone(&figures),
        );
        retention.pass_once().await.context("the database")
    };
    let passed = pass.await;
    store.close().await;
    database.stop().await;
    for kind in Kind::ALL {
        let count = figures.of(kind);
        println!(
            "{:<13} {:>9} removed in {:>6} steps, {:>5} at most in one",
            kind.as_str(),
            count.removed(),
            count.steps(),
            count.most()
        );
    }
    let failed = passed?.failed;
    if !failed.is_empty() {
        let names: Vec<&str> = failed.iter().map(|kind| kind.as_str()).collect();
        anyhow::bail!(
            "not everything could be removed ({}); run it again",
            names.join(", ")
        );
    }
    Ok(())
}
