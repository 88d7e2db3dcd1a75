//! The baseline: actix-web answers a constant, with as many worker threads as the server has.

use std::net::SocketAddr;

use actix_web::{App, HttpServer, web};
use clap::Parser;

/// Answers "OK" to everything, after it has read the body of a batch of events.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on.
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
