//! The subcommands.

pub mod account;
pub mod doctor;
pub mod migrate;
pub mod project;
pub mod prune;
pub mod schedule;
pub mod secrets;
pub mod serve;

use clap::{Parser, Subcommand};

use crate::config::{DatabaseConfig, ServeConfig, ZoneConfig};
use crate::zone_files;

/// The dead man's switch for Celery.
///
/// Deadbeat expects every run of your scheduled tasks at its exact time, notices the one that does not come, and tells you once, with
/// the cause and the command that repairs it.
#[derive(Debug, Parser)]
#[command(name = "deadbeat", version, about, long_about, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    zones: ZoneConfig,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve pings, the API and the pages, and watch the deadlines.
    Serve(Box<ServeConfig>),
    /// Bring the database's schema up to date.
    Migrate(DatabaseConfig),
    /// Look whether everything that a server needs is there, and say what is not.
    Doctor(Box<ServeConfig>),
    /// Remove what is too old now, as the server does once an hour, and say how much of what.
    Prune(Box<prune::Command>),
    /// What a schedule means, in words, and when it comes next.
    Schedule(schedule::Command),
    /// Accounts: who may sign in.
    #[command(subcommand)]
    Account(account::Command),
    /// Projects: what owns monitors, channels and keys.
    #[command(subcommand)]
    Project(project::Command),
    /// The keys that seal the secrets of channels.
    #[command(subcommand)]
    Secrets(secrets::Command),
}

/// Runs what was asked for.
///
/// # Errors
/// Whatever the command could not do, in words for a person.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    // Before anything asks for a zone: the data never change while a process runs.
    let zone_data = zone_files::adopt(cli.zones.zoneinfo());
    match cli.command {
        Command::Serve(config) => serve::run(*config, &zone_data).await,
        Command::Migrate(config) => migrate::run(&config).await,
        Command::Doctor(config) => doctor::run(&config, &zone_data).await,
        Command::Prune(command) => prune::run(&command).await,
        Command::Schedule(command) => schedule::run(&command),
        Command::Account(command) => account::run(command).await,
        Command::Project(command) => project::run(command).await,
        Command::Secrets(command) => secrets::run(command).await,
    }
}
