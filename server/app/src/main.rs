//! `deadbeat`: only subcommands.

use std::process::ExitCode;

use clap::Parser;
use deadbeat_app::commands::{self, Cli};

/// The writer's thread frees memory that a request's thread allocated. The allocator of glibc is slow at that (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First, before any thread exists: this process may have been started to become the embedded PostgreSQL.
    if let Some(failure) = deadbeat_app::embedded_postgres::launch_if_asked() {
        return failure;
    }
    let cli = Cli::parse();
    // Once per process, before the first connection, because the TLS library requires it.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("deadbeat: TLS was set up twice");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("deadbeat: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("deadbeat: {error:#}");
            ExitCode::FAILURE
        }
    }
}
