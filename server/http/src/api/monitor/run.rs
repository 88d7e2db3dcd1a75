//! A monitor's runs and their durations.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::MonitorId;
use deadbeat_domain::json::instant;
use deadbeat_domain::monitor::run::Run;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::extract::paging::{Query, cut, one_more};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/monitors/{id}/runs")
            .route(web::get().to(list))
            .default_service(only("GET")),
    );
}

fn show(run: &Run) -> Value {
    json!({
        "id": run.key,
        "run_id": run.run_id,
        "status": run.status.as_str(),
        "started_at": run.started_at.map(instant),
        "finished_at": run.finished_at.map(instant),
        "deadline_at": run.deadline_at.map(instant),
        "duration_seconds": run.duration.map(|length| length.num_milliseconds() as f64 / 1000.0),
        "exit_code": run.exit_code,
        "task": run.detail.task,
        "task_id": run.detail.task_id,
        "worker": run.detail.worker,
        "retries": run.detail.retries,
        "error": run.detail.error,
    })
}

async fn list(
    request: HttpRequest,
    key: MayRead,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let monitor = MonitorId(id(&path, "monitor")?);
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let rows = deadbeat_store::monitor::run::list(&state.reader(), key.0, monitor, one_more(&page)).await?;
    if rows.is_empty()
        && deadbeat_store::monitor::get(&state.reader(), key.0, monitor)
            .await?
            .is_none()
    {
        return Err(ApiError::not_found("monitor"));
    }
    let (rows, next) = cut(rows, page.limit, |run| run.key.to_string());
    let runs: Vec<Value> = rows.iter().map(show).collect();
    Ok(HttpResponse::Ok().json(json!({"runs": runs, "next_cursor": next})))
}
