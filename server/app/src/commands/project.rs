//! `deadbeat project …`

use clap::Subcommand;
use deadbeat_services::ServiceError;
use deadbeat_services::people::project;
use serde_json::json;

use crate::config::DatabaseConfig;
use crate::database::Database;

/// The subcommands of `deadbeat project`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a project with its first keys. They are shown only this once.
    Create {
        /// Which database.
        #[command(flatten)]
        database: DatabaseConfig,
        /// The name of the project.
        #[arg(long)]
        name: String,
        /// Answer in JSON: project_id, api_key, read_key, ping_key.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// The message is written for the person at the terminal.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Create {
        database: config,
        name,
        json,
    } = command;
    let database = Database::of_command(&config).await?;
    let created = match database.services("http://localhost").await {
        Ok(services) => project::create(&services, &name, None).await.map_err(words),
        Err(error) => Err(error),
    };
    database.stop().await;
    let created = created?;
    if json {
        println!(
            "{}",
            json!({
                "project_id": created.project.id,
                "name": created.project.name,
                "api_key": created.api_key,
                "read_key": created.read_key,
                "ping_key": created.ping_key,
            })
        );
    } else {
        println!("project   {} ({})", created.project.name, created.project.id);
        println!("API key   {}", created.api_key);
        println!("read key  {}", created.read_key);
        println!("ping key  {}", created.ping_key);
    }
    Ok(())
}

/// Converts an error of a use case to a message for a person at a terminal.
pub(super) fn words(error: ServiceError) -> anyhow::Error {
    match error {
        ServiceError::Invalid(faults) => {
            let faults: Vec<String> = faults
                .into_iter()
                .map(|fault| format!("{} {}", fault.pointer.trim_start_matches('/'), fault.message))
                .collect();
            anyhow::anyhow!(faults.join("; "))
        }
        other => other.into(),
    }
}
