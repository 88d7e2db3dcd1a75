//! `/healthz`: this process lives. `/readyz`: it can do its work.

use actix_web::http::header;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, Resource, web};
use deadbeat_services::outbox::instant;
use serde_json::json;

use crate::state::AppState;

/// The routes.
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

/// A path for machines that watch this one: GET, and HEAD as load balancers ask; anything else is refused.
pub(crate) fn operation(path: &str) -> Resource {
    web::resource(path).default_service(web::to(|| async {
        HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "GET, HEAD"))
            .finish()
    }))
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
    let mut answer = if readiness.is_ready() {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    answer.json(json!({
        "ready": readiness.is_ready(),
        "database": readiness.database,
        "evaluator": readiness.evaluator,
        "delivery": readiness.delivery,
        "last_sweep_at": readiness.last_sweep_at.map(instant),
    }))
}
