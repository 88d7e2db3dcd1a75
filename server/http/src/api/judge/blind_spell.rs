//! Blind spells: stretches in which no process of Deadbeat listened. They concern the whole server, and reveal nothing about a project.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::json::instant;
use deadbeat_store::operation::listener;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::extract::paging::{Query, cut, one_more};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/blind-spells")
            .route(web::get().to(list))
            .default_service(only("GET")),
    );
}

async fn list(request: HttpRequest, _: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let rows = listener::list_spells(&state.reader(), one_more(&page)).await?;
    let (rows, next) = cut(rows, page.limit, |row| row.id.to_string());
    let spells: Vec<Value> = rows
        .iter()
        .map(|row| {
            let (started, ended) = (row.spell.started_at, row.spell.ended_at);
            json!({
                "id": row.id,
                "started_at": instant(started),
                "ended_at": instant(ended),
                "duration_seconds": (ended - started).as_seconds_f64(),
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({"blind_spells": spells, "next_cursor": next})))
}
