//! `/healthz`: this process lives. `/readyz`: it can do its work.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use deadbeat_services::outbox::instant;
use serde_json::json;

use crate::state::AppState;

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .route("/healthz", web::get().to(live))
        .route("/readyz", web::get().to(ready));
}

/// Asks nothing of anybody else: a database that is away is no reason to restart this process.
async fn live() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body("OK")
}

async fn ready(state: Data<AppState>) -> HttpResponse {
    let readiness = state
        .services
        .selfwatch()
        .readiness(&state.reader(), state.now())
        .await;
    let mut answer = if readiness.database && readiness.evaluator {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    answer.json(json!({
        "ready": readiness.database && readiness.evaluator,
        "database": readiness.database,
        "evaluator": readiness.evaluator,
        "last_sweep_at": readiness.last_sweep_at.map(instant),
    }))
}
