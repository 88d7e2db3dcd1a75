//! `deadbeat account …`

use std::io::Read;

use clap::Subcommand;
use deadbeat_services::people::account::{self, factor};
use deadbeat_services::secret;
use serde_json::json;

use super::project::words;
use crate::config::DatabaseConfig;
use crate::database::Database;

/// The subcommands of `deadbeat account`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an account. Prints its password once, unless one is given on standard input.
    Create {
        /// Which database.
        #[command(flatten)]
        database: DatabaseConfig,
        /// Mail address to sign in with.
        #[arg(long)]
        email: String,
        /// Read the password from standard input.
        #[arg(long)]
        password_stdin: bool,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
    /// Switch off the second factor of somebody who lost both the authenticator and the recovery codes. Make sure first that it is them.
    RemoveSecondFactor {
        /// Which database.
        #[command(flatten)]
        database: DatabaseConfig,
        /// Mail address of the account.
        #[arg(long)]
        email: String,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// The message is written for the person at the terminal.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let (config, email, password_stdin, json) = match command {
        Command::Create {
            database,
            email,
            password_stdin,
            json,
        } => (database, email, password_stdin, json),
        Command::RemoveSecondFactor { database, email } => return remove_factor(&database, &email).await,
    };
    let given = if password_stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        Some(text.trim_end_matches(['\r', '\n']).to_owned())
    } else {
        None
    };
    let password = given.clone().unwrap_or_else(|| secret::random_text(16));
    let database = Database::of_command(&config).await?;
    let created = match database.services("http://localhost").await {
        Ok(services) => account::create(&services, &email, &password).await.map_err(words),
        Err(error) => Err(error),
    };
    database.stop().await;
    let created = created?;
    let shown = given.is_none().then_some(password);
    if json {
        println!(
            "{}",
            json!({"account_id": created.id, "email": created.email, "password": shown})
        );
    } else {
        println!("account   {}", created.email);
        if let Some(password) = shown {
            println!("password  {password}");
        }
    }
    Ok(())
}

async fn remove_factor(config: &DatabaseConfig, email: &str) -> anyhow::Result<()> {
    let database = Database::of_command(config).await?;
    let removed = match database.services("http://localhost").await {
        Ok(services) => factor::remove_by_operator(&services, email).await.map_err(words),
        Err(error) => Err(error),
    };
    database.stop().await;
    if removed? {
        println!("the second factor of {email} is off");
        Ok(())
    } else {
        anyhow::bail!("there is no account of {email} with a second factor")
    }
}
