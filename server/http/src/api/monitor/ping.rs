//! A monitor's pings and their bodies.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::MonitorId;
use deadbeat_domain::json::instant;
use deadbeat_store::monitor::ping::Ping;
use serde_json::{Value, json};

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::extract::paging::{Query, cut, one_more};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/monitors/{id}/pings")
                .route(web::get().to(list))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/monitors/{id}/pings/{n}/body")
                .route(web::get().to(body))
                .default_service(only("GET")),
        );
}

fn show(monitor: MonitorId, ping: &Ping) -> Value {
    json!({
        "n": ping.n,
        "kind": ping.kind,
        "received_at": instant(ping.received_at),
        "run_id": ping.run_id,
        "exit_code": ping.exit_code,
        "source": ping.source,
        "method": ping.method,
        "remote_addr": ping.remote_addr,
        "user_agent": ping.user_agent,
        "body_bytes": ping.body_bytes,
        "body_url": (ping.body_bytes > 0).then(|| format!("/api/v1/monitors/{monitor}/pings/{}/body", ping.n)),
    })
}

async fn list(
    request: HttpRequest,
    key: MayRead,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let monitor = MonitorId(id(&path, "monitor")?);
    let page = Query::of(&request, &["limit", "cursor"])?.page::<i64>()?;
    let rows = deadbeat_store::monitor::ping::list(&state.reader(), key.0, monitor, one_more(&page)).await?;
    // The list may be empty because the monitor does not exist.
    if rows.is_empty()
        && deadbeat_store::monitor::get(&state.reader(), key.0, monitor)
            .await?
            .is_none()
    {
        return Err(ApiError::not_found("monitor"));
    }
    let (rows, next) = cut(rows, page.limit, |ping| ping.n.to_string());
    let pings: Vec<Value> = rows.iter().map(|ping| show(monitor, ping)).collect();
    Ok(HttpResponse::Ok().json(json!({"pings": pings, "next_cursor": next})))
}

/// Returns the body's bytes unchanged, with headers that keep a browser from executing them.
async fn body(
    key: MayRead,
    state: Data<AppState>,
    path: Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (monitor, n) = path.into_inner();
    let monitor = MonitorId(id(&monitor, "monitor")?);
    let n: i64 = n.parse().map_err(|_| ApiError::not_found("ping"))?;
    let body = deadbeat_store::monitor::ping::body(&state.reader(), key.0, monitor, n).await?;
    let body = body.ok_or_else(|| ApiError::not_found("ping with a body"))?;
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .body(body))
}
