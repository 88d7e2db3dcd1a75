//! `deadbeat project …`

use clap::Subcommand;
use deadbeat_services::people::project;
use deadbeat_services::{ServiceError, Services};
use serde_json::json;

use crate::config::{DatabaseConfig, SiteUrl, site_url};
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
        /// URL under which clients reach the server, for the Sentry DSN. Default: http://localhost:8000
        #[arg(long, env = "DEADBEAT_SITE_URL", value_name = "URL", value_parser = site_url)]
        site_url: Option<SiteUrl>,
        /// Answer in JSON: project_id, api_key, read_key, ping_key, sentry_dsn.
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
        site_url,
        json,
    } = command;
    let site = site_url.map(|SiteUrl(url)| url).filter(|url| !url.is_empty());
    let site = site.as_deref().unwrap_or("http://localhost:8000");
    let database = Database::of_command(&config).await?;
    let created = match database.services(site).await {
        Ok(services) => create(&services, &name).await.map_err(words),
        Err(error) => Err(error),
    };
    database.stop().await;
    let (created, dsn) = created?;
    if json {
        println!(
            "{}",
            json!({
                "project_id": created.project.id,
                "name": created.project.name,
                "api_key": created.api_key,
                "read_key": created.read_key,
                "ping_key": created.ping_key,
                "sentry_dsn": dsn,
            })
        );
    } else {
        println!("project   {} ({})", created.project.name, created.project.id);
        println!("API key   {}", created.api_key);
        println!("read key  {}", created.read_key);
        println!("ping key  {}", created.ping_key);
        println!("DSN       {dsn} (for Sentry's SDKs)");
    }
    Ok(())
}

/// Creates a project. Returns its keys, and the DSN of its ping key.
async fn create(services: &Services, name: &str) -> Result<(project::Created, String), ServiceError> {
    let created = project::create(services, name, None).await?;
    let number = project::number(services, created.project.id).await?;
    let dsn = services.site().sentry_dsn(&created.ping_key, number);
    Ok((created, dsn))
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
