//! The change feed: the changes in the project since the caller's last poll.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::json::instant;
use deadbeat_services::feed;
use serde_json::{Value, json};

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::extract::paging::Query;
use crate::problem::Problem;
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/changes")
            .route(web::get().to(list))
            .default_service(only("GET")),
    );
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let query = Query::of(&request, &["after", "limit"])?;
    let limit = query.page::<i64>()?.limit;
    let allowed = "a next_after of an earlier answer, or 0";
    let after: Option<i64> = query.parse("after", allowed)?;
    if let Some(after) = after.filter(|after| *after < 0) {
        let detail = format!("after is {after}; {allowed} is allowed");
        return Err(ApiError::new(Problem::InvalidQuery, detail));
    }
    let found = feed::read(&state.services, &key.1, after, limit).await?;
    let changes: Vec<Value> = found
        .changes
        .iter()
        .map(|change| {
            json!({
                "sequence": change.sequence,
                "at": instant(change.at),
                "subject": {"kind": change.subject_kind, "id": change.subject_id},
                "what": change.what,
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "changes": changes,
        "next_after": found.next_after,
        "must_reload": found.must_reload,
    })))
}
