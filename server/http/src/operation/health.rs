//! `/healthz`: this process is alive. `/readyz`: it can do its work.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, Resource, web};
use chrono::{DateTime, Utc};
use deadbeat_domain::json::instant;
use deadbeat_domain::judge::reception::Hold;
use deadbeat_services::operation::duty::Report;
use serde_json::{Value, json};

use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            operation("/healthz")
                .route(web::get().to(live))
                .route(web::head().to(live)),
        )
        .service(
            operation("/readyz")
                .route(web::get().to(ready))
                .route(web::head().to(ready)),
        );
}

/// Mounts a path for machines that monitor this one. It allows GET, and HEAD because load balancers use it; it refuses other methods.
pub(crate) fn operation(path: &str) -> Resource {
    web::resource(path).default_service(web::to(|| async {
        HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "GET, HEAD"))
            .finish()
    }))
}

/// Depends on nothing outside this process: an unreachable database is no reason to restart the process.
async fn live() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body("OK")
}

/// Returns the seconds since then, or 0 if nothing waits.
fn age(since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> f64 {
    since.map_or(0.0, |since| {
        (now - since).num_milliseconds().max(0) as f64 / 1_000.0
    })
}

/// Returns a loop's report about itself as JSON.
fn shown(report: Report) -> Value {
    let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64());
    json!({
        "name": report.name,
        "works": report.works,
        "last_success_age_seconds": seconds(report.last_success_age),
        "lag_seconds": seconds(report.lag),
        "backlog": report.backlog,
        "failures": report.failures,
    })
}

/// The HTTP status depends on whether this process can do the work of its roles. The body also describes the whole deployment.
async fn ready(state: Data<AppState>) -> HttpResponse {
    let now = state.now();
    let readiness = state.services.selfwatch().readiness(&state.reader(), now).await;
    let mut answer = if readiness.is_ready() {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    answer.json(json!({
        "ready": readiness.is_ready(),
        "reason": readiness.reason(),
        "database": readiness.database,
        "evaluator": readiness.evaluator,
        "delivery": readiness.delivery,
        "failed_loops": readiness.failed_loops,
        "loops": state.services.selfwatch().duties().reports().into_iter().map(shown).collect::<Vec<_>>(),
        "last_sweep_at": readiness.last_sweep_at.map(instant),
        "last_delivery_at": readiness.last_delivery_at.map(instant),
        "spooled_pings": state.services.ingest().spooled(),
        // A missing key does not make the process unready: pings and judgement need no key, and other processes may have it.
        "missing_keys": state.services.keyring().missing().iter().map(|key| json!({
            "key_id": key.id,
            "channels": key.channels,
        })).collect::<Vec<_>>(),
        "deployment": readiness.pulse.map(|pulse| json!({
            "judging": readiness.is_judging(now),
            "waits_for": readiness.hold(now).map(Hold::as_str),
            "waits_until": pulse.reception.waits_until.map(instant),
            "lost_listeners": pulse.reception.lost,
            "last_sweep_at": pulse.last_sweep_at.map(instant),
            "last_listened_at": pulse.reception.last_stamp.map(instant),
            "spooled_pings": pulse.reception.spooled,
            "evaluator_lag_seconds": age(pulse.oldest_check, now),
            "outbox_lag_seconds": age(pulse.overdue_delivery, now),
        })),
    }))
}
