//! The audit trail: list, filter, export as JSON lines.

use std::fmt::Write;

use actix_web::http::header;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use deadbeat_domain::ids::AuditEntryId;
use deadbeat_domain::json::instant;
use deadbeat_domain::people::audit::Act;
use deadbeat_domain::time::read_instant;
use deadbeat_services::people::audit as service;
use deadbeat_store::people::audit::{Filter, Stored};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayReadAudit;
use crate::extract::paging::{Query, cut, one_more};
use crate::problem::Problem;
use crate::state::AppState;

/// JSON, one entry a line.
const JSON_LINES: &str = "application/x-ndjson";

/// Mounts the route.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/audit-entries")
            .route(web::get().to(list))
            .default_service(only("GET")),
    );
}

fn show(entry: &Stored) -> Value {
    let kind = entry.action.split('.').next().unwrap_or_default();
    json!({
        "id": entry.id,
        "at": instant(entry.at),
        "actor": {"kind": entry.actor_kind, "id": entry.actor_id, "name": entry.actor_name},
        "remote_addr": entry.remote_addr,
        "action": entry.action,
        "subject": {"kind": kind, "id": entry.subject_id, "name": entry.subject_name},
        "changed": entry.changed,
    })
}

fn time(query: &Query, name: &str) -> Result<Option<DateTime<Utc>>, ApiError> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    read_instant(text).map(Some).ok_or_else(|| {
        let detail = format!("{name} is {text:?}; a time such as 2026-11-21T12:00:00Z is allowed");
        ApiError::new(Problem::InvalidQuery, detail)
    })
}

fn filter(query: &Query) -> Result<Filter, ApiError> {
    let action = query.get("action").map(str::to_owned);
    if let Some(action) = action
        .as_deref()
        .filter(|action| !Act::ALL.iter().any(|act| act.as_str() == *action))
    {
        let known: Vec<&str> = Act::ALL.iter().map(|act| act.as_str()).collect();
        let detail = format!("action is {action:?}; one of {} is allowed", known.join(", "));
        return Err(ApiError::new(Problem::InvalidQuery, detail));
    }
    Ok(Filter {
        subject_id: query.parse("subject_id", "the id of a thing")?,
        actor_id: query.parse("actor_id", "the id of an account, a key or a channel")?,
        action,
        since: time(query, "since")?,
        until: time(query, "until")?,
    })
}

async fn list(
    request: HttpRequest,
    key: MayReadAudit,
    state: Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let known = [
        "limit",
        "cursor",
        "subject_id",
        "actor_id",
        "action",
        "since",
        "until",
    ];
    let query = Query::of(&request, &known)?;
    let page = query.page::<Uuid>()?;
    let filter = filter(&query)?;
    let before = page.after.map(AuditEntryId);
    let rows = service::list(&state.services, &key.1, &filter, before, one_more(&page).limit).await?;
    let (rows, next) = cut(rows, page.limit, |entry| entry.id.to_string());
    let accepted = request.headers().get(header::ACCEPT);
    let wants_lines = accepted
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|kind| kind.trim().starts_with(JSON_LINES)));
    if !wants_lines {
        let entries: Vec<Value> = rows.iter().map(show).collect();
        return Ok(HttpResponse::Ok().json(json!({"audit_entries": entries, "next_cursor": next})));
    }
    let lines = rows.iter().fold(String::new(), |mut lines, entry| {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{}", show(entry));
        lines
    });
    let mut answer = HttpResponse::Ok();
    if let Some(next) = next {
        answer.insert_header(("x-next-cursor", next));
    }
    Ok(answer.content_type(JSON_LINES).body(lines))
}
