//! The HTTP server: that of actix, with our guarded connections instead of plain ones.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_http::HttpService;
use actix_http::error::DispatchError;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service, map_config};
use actix_web::dev::{AppConfig, Server};
use actix_web::web::Data;
use actix_web::{App, Error, rt};
use futures::future::ready;

use super::answer::answer;
use super::{Admission, Guarded};
use crate::AppState;

/// How long a client may take to send the first head of its connection. The server then closes the connection.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be idle between two requests: longer than reverse proxies keep idle connections.
const IDLE: Duration = Duration::from_secs(75);
/// How long a client may take to close a connection after the last answer.
const CLOSING: Duration = Duration::from_secs(1);
/// How long unfinished requests may still take when the server stops.
const STOPPING_SECONDS: u64 = 10;

/// The routes that a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// All routes.
    All,
    /// Only health and metrics.
    Operation,
}

/// Serves on a listening socket. It does what `actix_web::HttpServer` does, which does not let us wrap its connections.
///
/// # Errors
/// If the socket cannot be used.
pub fn serve(
    listener: TcpListener,
    state: AppState,
    routes: Routes,
    admission: Admission,
) -> io::Result<Server> {
    let address = listener.local_addr()?;
    let state = Data::new(state);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let builder = Server::build()
        .workers(workers)
        // Each worker thread stops accepting at its share of the connections.
        .max_concurrent_connections((admission.total() / workers).max(1))
        .shutdown_timeout(STOPPING_SECONDS)
        .disable_signals();
    let stop = builder.graceful_shutdown_signal();
    let builder = builder.listen("http", listener, move || {
        let stop = stop.clone();
        let app_state = state.clone();
        let app = App::new()
            .app_data(state.clone())
            .configure(|config| match routes {
                Routes::All => crate::configure(config, &app_state),
                Routes::Operation => crate::configure_operation(config, &app_state),
            })
            .into_factory();
        // Wrap the whole app, so that the access log covers its routing and its panics.
        let app = apply_fn_factory(app, answer).map_err(|error: Error| error.error_response());
        let http = HttpService::<Guarded<rt::net::TcpStream>, _, _>::build()
            .graceful_shutdown_signal(move || {
                let stop = stop.clone();
                async move { stop.notified().await }
            })
            .keep_alive(IDLE)
            .client_request_timeout(FIRST_HEAD)
            .client_disconnect_timeout(CLOSING)
            .local_addr(address)
            .h1(map_config(app, |()| AppConfig::default()));
        let admission = admission.clone();
        fn_service(move |io: rt::net::TcpStream| {
            let refused = || DispatchError::Io(io::Error::from(io::ErrorKind::ConnectionRefused));
            ready(admission.admit(io).ok_or_else(refused))
        })
        .and_then(http)
    })?;
    Ok(builder.run())
}
