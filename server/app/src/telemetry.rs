//! Logs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error: standard output is for what a person or a script asked for.
///
/// # Errors
/// The filter cannot be read.
pub fn start(filter: &str, format: &str) -> anyhow::Result<()> {
    // sqlx repeats notices of PostgreSQL ("already exists, skipping") at info.
    let filter = EnvFilter::try_new(format!("sqlx=warn,actix_server=warn,{filter}"))
        .map_err(|error| anyhow::anyhow!("DEADBEAT_LOG is {filter:?}: {error}"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if format == "json" {
        logs.json().init()
    } else {
        logs.with_target(false).init()
    }
    Ok(())
}
