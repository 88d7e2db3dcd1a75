//! Celery Beats that have reported: list, delete.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::BeatId;
use deadbeat_domain::json::{instant, seconds};
use deadbeat_store::celery::beat::Beat;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayChangeMonitors, MayRead};
use crate::extract::paging::{Query, bounded};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/beats")
            .route(web::get().to(list))
            .default_service(only("GET")),
    );
    config.service(
        web::resource("/beats/{id}")
            .route(web::delete().to(delete))
            .default_service(only("DELETE")),
    );
}

async fn delete(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    deadbeat_services::celery::beat::delete(&state.services, &key.1, BeatId(id(&path, "Beat")?)).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let reader = state.reader();
    let (beats, next) = bounded(
        &page,
        |page| deadbeat_store::celery::beat::page(&reader, key.0, page.map(BeatId)),
        |beat| (beat.id.0, show(beat)),
    )
    .await?;
    Ok(HttpResponse::Ok().json(json!({"beats": beats, "next_cursor": next})))
}

fn show(beat: &Beat) -> Value {
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
}
