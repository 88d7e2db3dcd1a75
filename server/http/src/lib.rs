//! HTTP: ping URLs, `/api/v1`, pages, health and metrics.
//!
//! A handler takes its request apart, makes one call to a service, and answers. There is no SQL here, no transaction, and no rule.
//! `ping`, `api` and `web` do not import one another.

pub mod api;
pub mod assets;
pub mod connection;
pub mod error;
pub mod extract;
pub mod middleware;
pub mod operation;
pub mod ping;
pub mod problem;
pub mod request;
pub mod state;
pub mod web;

use actix_web::Scope;
use actix_web::dev::HttpServiceFactory;
use actix_web::middleware::from_fn;
use actix_web::web::{ServiceConfig, scope};

use crate::middleware::asker::of_client;
use crate::middleware::security_headers::security_headers;

pub use state::AppState;

/// Mounts health and metrics only: for a process that takes no requests otherwise. The state must be in the app's data, too.
pub fn configure_operation(config: &mut ServiceConfig, state: &AppState) {
    config.service(guarded(
        state,
        scope("")
            .configure(operation::health::configure)
            .configure(operation::metrics::configure),
    ));
}

/// Mounts everything. The state must be in the app's data, too.
pub fn configure(config: &mut ServiceConfig, state: &AppState) {
    config
        // Routes are tried in this order, and most requests are pings.
        .configure(ping::configure)
        .service(guarded(
            state,
            scope("")
                .configure(operation::health::configure)
                .configure(problem::configure)
                .configure(operation::metrics::configure)
                .configure(api::configure)
                .configure(web::configure)
                // Ping URLs also live at the root: they take what nobody else wanted.
                .configure(ping::configure_root),
        ));
}

fn guarded(state: &AppState, scope: Scope) -> impl HttpServiceFactory + 'static {
    scope
        .wrap(from_fn(of_client))
        .wrap(security_headers(state.is_https))
}
