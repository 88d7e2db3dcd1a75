//! `deadbeat`: subcommands only.

use std::process::ExitCode;

use clap::Parser;
use deadbeat_app::commands::{self, Cli};

/// What a request allocates is freed by the writer's thread, which glibc's allocator is slow at (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any thread exists: this process may have been started to become the embedded PostgreSQL.
    if let Some(failure) = deadbeat_app::embedded_postgres::launch_if_asked() {
        return failure;
    }
    let cli = Cli::parse();
    // Once for the process, before the first connection: the TLS library asks for it.
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
