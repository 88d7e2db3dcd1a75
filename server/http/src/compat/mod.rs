//! Doors for clients of other products. Each file translates one product's requests to signals and use cases of Deadbeat, and its answers back. It
//! holds no rule. Deleting this folder breaks one line of `lib.rs`.

mod cronitor;
mod door;
pub mod healthchecks;
mod opsgenie;
mod plain;
mod sentry;
mod uptime_kuma;
mod webhook;

use actix_web::web::ServiceConfig;

/// Mounts the routes, one line per product. Some lie below `/api/v1`, so they must come before that scope.
pub fn configure(config: &mut ServiceConfig) {
    config
        .configure(healthchecks::configure)
        .configure(sentry::configure)
        .configure(opsgenie::configure)
        .configure(uptime_kuma::configure)
        .configure(plain::better_stack)
        .configure(plain::dead_mans_snitch)
        .configure(plain::cronhub)
        .configure(plain::grafana_oncall)
        .configure(cronitor::configure)
        .configure(webhook::configure);
}
