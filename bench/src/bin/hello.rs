//! The baseline: actix-web answering a constant, on as many workers as the server has.

use std::net::SocketAddr;

use actix_web::{App, HttpServer, web};
use clap::Parser;

/// Answers "OK" to everything.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let Arguments { listen } = Arguments::parse();
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    HttpServer::new(|| App::new().default_service(web::to(|| async { "OK" })))
        .workers(workers)
        .bind(listen)?
        .run()
        .await
}
