//! API keys: list, issue, revoke.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::ApiKeyId;
use deadbeat_domain::json::instant;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::people::key::Scope;
use deadbeat_services::people::api_key as service;
use deadbeat_store::page::Page;
use deadbeat_store::people::api_key::ApiKey;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::MayManageKeys;
use crate::extract::json::Json;
use crate::extract::paging::{Query, cut, one_more};
use crate::state::AppState;

/// Mounts the routes. Even listing keys needs a key that may manage keys.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/api-keys")
                .route(web::get().to(list))
                .route(web::post().to(issue))
                .default_service(only("GET, POST")),
        )
        .service(
            web::resource("/api-keys/{id}")
                .route(web::delete().to(revoke))
                .default_service(only("DELETE")),
        );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    scope: String,
}

fn show(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "scope": key.scope.as_str(),
        "prefix": key.prefix,
        "created_at": instant(key.created_at),
        "last_used_at": key.last_used_at.map(instant),
        "revoked_at": key.revoked_at.map(instant),
    })
}

async fn list(
    request: HttpRequest,
    key: MayManageKeys,
    state: Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let after = Page {
        after: page.after.map(ApiKeyId),
        limit: one_more(&page).limit,
    };
    let rows = deadbeat_store::people::api_key::list(&state.reader(), key.0, after).await?;
    let (rows, next) = cut(rows, page.limit, |key| key.id.to_string());
    let keys: Vec<Value> = rows.iter().map(show).collect();
    Ok(HttpResponse::Ok().json(json!({"api_keys": keys, "next_cursor": next})))
}

/// Issues a key. Only this answer contains the key itself.
async fn issue(
    key: MayManageKeys,
    state: Data<AppState>,
    body: Json<NewKey>,
) -> Result<HttpResponse, ApiError> {
    let body = body.read().await?;
    let Some(scope) = Scope::parse(&body.scope) else {
        return Err(ApiError::fields(vec![FieldError::new(
            "/scope",
            "is not one of ping, read, write",
        )]));
    };
    let (stored, secret) = service::issue(&state.services, &key.1, &body.name, scope).await?;
    let mut shown = show(&stored);
    shown["key"] = json!(secret);
    Ok(HttpResponse::Created().json(shown))
}

async fn revoke(
    key: MayManageKeys,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::revoke(&state.services, &key.1, ApiKeyId(id(&path, "API key")?)).await?;
    Ok(HttpResponse::NoContent().finish())
}
