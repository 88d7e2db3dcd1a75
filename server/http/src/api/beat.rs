//! Celery Beats that were heard of.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use deadbeat_services::outbox::{instant, seconds};
use serde_json::{Value, json};

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::state::AppState;

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/beats")
            .route(web::get().to(list))
            .default_service(only("GET")),
    );
}

async fn list(key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let beats = deadbeat_store::beat::list(&state.reader(), key.0).await?;
    let beats: Vec<Value> = beats
        .iter()
        .map(|beat| {
            json!({
                "id": beat.id,
                "name": beat.name,
                "status": beat.state.status,
                "trouble": beat.state.trouble,
                "trouble_since": beat.state.since.map(instant),
                "host": beat.host,
                "period_seconds": seconds(beat.state.period_seconds),
                "grace_seconds": seconds(beat.state.grace_seconds),
                "last_seen_at": beat.state.last_seen_at.map(instant),
                "deadline_at": beat.state.deadline_at.map(instant),
                "created_at": instant(beat.created_at),
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({"beats": beats, "next_cursor": null})))
}
