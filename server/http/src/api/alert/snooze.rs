//! Snoozes and mutes: of a monitor, of a tag, of the project.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::{MonitorId, SnoozeId};
use deadbeat_domain::json::instant;
use deadbeat_services::alert::hold as service;
use deadbeat_store::alert::snooze::{Snooze, Target};
use deadbeat_store::page::Page;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayChangeMonitors, MayRead};
use crate::extract::json::Json;
use crate::extract::paging::{Query, cut, one_more};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/snoozes")
                .route(web::get().to(list))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/snoozes/{id}")
                .route(web::delete().to(end))
                .default_service(only("DELETE")),
        )
        .service(
            web::resource("/monitors/{id}/snooze")
                .route(web::post().to(snooze))
                .route(web::delete().to(end_snooze))
                .default_service(only("POST, DELETE")),
        )
        .service(
            web::resource("/monitors/{id}/mute")
                .route(web::post().to(mute))
                .route(web::delete().to(end_mute))
                .default_service(only("POST, DELETE")),
        );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Length {
    seconds: i64,
}

/// Returns who created a snooze or a window.
pub(super) fn creator(kind: &str, id: Option<Uuid>) -> Value {
    json!({"kind": kind, "id": id})
}

fn show(snooze: &Snooze) -> Value {
    let (monitor, tag) = match &snooze.target {
        Target::Project => (None, None),
        Target::Monitor(id) => (Some(id), None),
        Target::Tag(tag) => (None, Some(tag)),
    };
    json!({
        "id": snooze.id,
        "monitor_id": monitor,
        "tag": tag,
        "ends_at": snooze.ends_at.map(instant),
        "created_at": instant(snooze.created_at),
        "created_by": creator(&snooze.created_by_kind, snooze.created_by_id),
    })
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let after = Page {
        after: page.after.map(SnoozeId),
        limit: one_more(&page).limit,
    };
    let rows = deadbeat_store::alert::snooze::list(&state.reader(), key.0, after, state.now()).await?;
    let (rows, next) = cut(rows, page.limit, |snooze| snooze.id.to_string());
    let snoozes: Vec<Value> = rows.iter().map(show).collect();
    Ok(HttpResponse::Ok().json(json!({"snoozes": snoozes, "next_cursor": next})))
}

async fn end(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::end(&state.services, &key.1, SnoozeId(id(&path, "snooze")?)).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn snooze(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
    body: Json<Length>,
) -> Result<HttpResponse, ApiError> {
    let monitor = MonitorId(id(&path, "monitor")?);
    // Check this before reading the body: a caller who may not see the monitor must not get any other error.
    let found = deadbeat_store::monitor::get(&state.reader(), key.0, monitor).await?;
    found.ok_or_else(|| ApiError::not_found("monitor"))?;
    let Length { seconds } = body.read().await?;
    let ends_at = service::snooze(&state.services, &key.1, monitor, seconds).await?;
    Ok(HttpResponse::Ok().json(json!({"ends_at": instant(ends_at)})))
}

async fn end_snooze(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::end_snooze(&state.services, &key.1, MonitorId(id(&path, "monitor")?)).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn mute(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::mute(&state.services, &key.1, MonitorId(id(&path, "monitor")?)).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn end_mute(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::end_mute(&state.services, &key.1, MonitorId(id(&path, "monitor")?)).await?;
    Ok(HttpResponse::NoContent().finish())
}
