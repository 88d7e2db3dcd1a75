//! The baseline: actix-web answering a constant, on as many workers as the server has.

use std::net::SocketAddr;

use actix_web::{App, HttpServer, web};
use clap::Parser;

/// Answers "OK" to everything; of a batch of events it reads the body first.
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
    let app = || {
        App::new()
            .route("/api/v1/events", web::post().to(|_: web::Bytes| async { "OK" }))
            .default_service(web::to(|| async { "OK" }))
    };
    HttpServer::new(app).workers(workers).bind(listen)?.run().await
}
