//! The subcommands.

pub mod account;
pub mod alert;
pub mod doctor;
pub mod member;
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
/// Deadbeat expects every run of your scheduled tasks at its exact time. If a run does not come, Deadbeat sends one alert with the cause and
/// the command that repairs it.
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
    /// Check whether a server would have all that it needs, and say what is missing
    Doctor(Box<ServeConfig>),
    /// Remove data that are too old, as the server does once an hour, and print how many rows of each kind
    Prune(Box<prune::Command>),
    /// Explain a schedule in words, and list its next slots
    Schedule(schedule::Command),
    /// Accounts: the people who may sign in
    #[command(subcommand)]
    Account(account::Command),
    /// Projects: the owners of monitors, channels and keys
    #[command(subcommand)]
    Project(project::Command),
    /// Members of a project: list, change a role, remove, invite
    #[command(subcommand)]
    Member(member::Command),
    /// The keys that encrypt the secrets of channels
    #[command(subcommand)]
    Secrets(secrets::Command),
    /// Alerts: show what a channel would send
    #[command(subcommand)]
    Alert(Box<alert::Command>),
}

/// Runs the command that the person typed.
///
/// # Errors
/// If the command fails. The message is written for the person at the terminal.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    // Before anything uses a zone, because the data must not change while a process runs.
    let zone_data = zone_files::adopt(cli.zones.zoneinfo());
    match cli.command {
        Command::Serve(config) => serve::run(*config, &zone_data).await,
        Command::Migrate(config) => migrate::run(&config).await,
        Command::Doctor(config) => doctor::run(&config, &zone_data).await,
        Command::Prune(command) => prune::run(&command).await,
        Command::Schedule(command) => schedule::run(&command),
        Command::Account(command) => account::run(command).await,
        Command::Project(command) => project::run(command).await,
        Command::Member(command) => member::run(command).await,
        Command::Secrets(command) => secrets::run(command).await,
        Command::Alert(command) => alert::run(*command).await,
    }
}
