//! HTTP: ping URLs, `/api/v1`, dialects of other products, pages, callbacks of services, health and metrics.
//!
//! A handler reads its request, makes one call to a service, and answers. Handlers contain no SQL, no transaction and no rule. `ping`, `api`,
//! `callback`, `compat` and `web` do not import one another.

pub mod api;
pub mod assets;
pub mod callback;
pub mod compat;
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

/// Mounts only health and metrics, for a process that serves no other requests. The app's data must contain the state, too.
pub fn configure_operation(config: &mut ServiceConfig, state: &AppState) {
    config.service(guarded(
        state,
        scope("")
            .configure(operation::health::configure)
            .configure(operation::metrics::configure),
    ));
}

/// Mounts every route. The app's data must contain the state, too.
pub fn configure(config: &mut ServiceConfig, state: &AppState) {
    config
        // actix tries the routes in this order, and most requests are pings.
        .configure(ping::configure)
        .service(guarded(
            state,
            scope("")
                .configure(operation::health::configure)
                .configure(problem::configure)
                .configure(operation::metrics::configure)
                // Some of its paths lie below /api/v1.
                .configure(compat::configure)
                .configure(api::configure)
                .configure(callback::configure)
                .configure(web::configure)
                // Ping URLs also exist at the root: they get the paths that no other route matches.
                .configure(ping::configure_root),
        ));
}

fn guarded(state: &AppState, scope: Scope) -> impl HttpServiceFactory + 'static {
    scope
        .wrap(from_fn(of_client))
        .wrap(security_headers(state.is_https))
}
