//! Deliveries: each alert to each channel, with its attempts.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::{ChannelId, DeliveryId, IncidentId, ProjectId};
use deadbeat_domain::json::instant;
use deadbeat_services::alert::resend as service;
use deadbeat_store::alert::attempt::Attempt;
use deadbeat_store::alert::delivery::{Delivery, Filter};
use deadbeat_store::page::Page;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayManageChannels, MayRead};
use crate::extract::paging::{Query, cut, one_more};
use crate::problem::Problem;
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/deliveries")
                .route(web::get().to(list))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/deliveries/{id}")
                .route(web::get().to(read))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/deliveries/{id}/attempts")
                .route(web::get().to(attempts))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/deliveries/{id}/resend")
                .route(web::post().to(resend))
                .default_service(only("POST")),
        );
}

const STATUSES: [&str; 4] = ["pending", "sent", "dead", "cancelled"];

fn show(delivery: &Delivery) -> Value {
    json!({
        "id": delivery.id,
        "channel_id": delivery.channel_id,
        "incident_id": delivery.incident_id,
        "alert": delivery.alert,
        "status": delivery.status,
        "attempt_count": delivery.attempt_count,
        "created_at": instant(delivery.created_at),
        "next_attempt_at": delivery.next_attempt_at.map(instant),
        "not_before": delivery.not_before.map(instant),
        "settled_at": delivery.settled_at.map(instant),
        "cancel_reason": delivery.cancel_reason,
    })
}

fn show_attempt(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number,
        "started_at": instant(attempt.started_at),
        "duration_ms": attempt.duration_ms,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "response_code": attempt.response_code,
        "detail": attempt.detail,
    })
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let query = Query::of(
        &request,
        &["limit", "cursor", "channel_id", "incident_id", "status"],
    )?;
    let page = query.page::<Uuid>()?;
    let status = query.get("status").map(str::to_owned);
    if status
        .as_ref()
        .is_some_and(|status| !STATUSES.contains(&status.as_str()))
    {
        return Err(ApiError::new(
            Problem::InvalidQuery,
            format!("status is not one of {}", STATUSES.join(", ")),
        ));
    }
    let filter = Filter {
        channel_id: query.parse("channel_id", "the id of a channel")?.map(ChannelId),
        incident_id: query
            .parse("incident_id", "the id of an incident")?
            .map(IncidentId),
        id: None,
        status,
    };
    let after = Page {
        after: page.after.map(DeliveryId),
        limit: one_more(&page).limit,
    };
    let rows = deadbeat_store::alert::delivery::list(&state.reader(), key.0, &filter, after).await?;
    let (rows, next) = cut(rows, page.limit, |delivery| delivery.id.to_string());
    let deliveries: Vec<Value> = rows.iter().map(show).collect();
    Ok(HttpResponse::Ok().json(json!({"deliveries": deliveries, "next_cursor": next})))
}

async fn find(state: &AppState, project: ProjectId, id: DeliveryId) -> Result<Delivery, ApiError> {
    let filter = Filter {
        id: Some(id),
        ..Filter::default()
    };
    let page = Page {
        after: None,
        limit: 1,
    };
    let found = deadbeat_store::alert::delivery::list(&state.reader(), project, &filter, page).await?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| ApiError::not_found("delivery"))
}

async fn tries(state: &AppState, project: ProjectId, id: DeliveryId) -> Result<Vec<Value>, ApiError> {
    let attempts = deadbeat_store::alert::attempt::list(&state.reader(), project, id).await?;
    Ok(attempts.iter().map(show_attempt).collect())
}

async fn read(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let id = DeliveryId(id(&path, "delivery")?);
    let mut shown = show(&find(&state, key.0, id).await?);
    shown["attempts"] = json!(tries(&state, key.0, id).await?);
    Ok(HttpResponse::Ok().json(shown))
}

async fn attempts(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let id = DeliveryId(id(&path, "delivery")?);
    find(&state, key.0, id).await?;
    Ok(HttpResponse::Ok().json(json!({"attempts": tries(&state, key.0, id).await?, "next_cursor": null})))
}

/// Puts the delivery into the outbox again. The caller reads the result from the delivery.
async fn resend(
    key: MayManageChannels,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::resend(&state.services, &key.1, DeliveryId(id(&path, "delivery")?)).await?;
    Ok(HttpResponse::Accepted().finish())
}
