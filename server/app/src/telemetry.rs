//! Logs.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error. Standard output is for the results of commands.
///
/// # Errors
/// If the filter is invalid.
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
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic as an ordinary line, so that the line has the id of the request in which the panic happened.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("(no message)");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    // RUST_BACKTRACE decides whether there is a backtrace.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(thread, place, backtrace, "a thread panicked: {message}");
}
