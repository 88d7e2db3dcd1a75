//! API keys: list, issue, replace, revoke.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{ApiKeyId, ProjectId};
use deadbeat_domain::json::instant;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::people::key::Scope;
use deadbeat_domain::people::key_limit::{AskedLimits, Networks};
use deadbeat_services::people::api_key as service;
use deadbeat_services::people::project::number;
use deadbeat_store::page::Page;
use deadbeat_store::people::api_key::ApiKey;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::MayManageKeys;
use crate::extract::json::{Json, given, given_instant};
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
        )
        .service(
            web::resource("/api-keys/{id}/rotate")
                .route(web::post().to(rotate))
                .default_service(only("POST")),
        );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    scope: String,
    #[serde(default, deserialize_with = "given_instant")]
    expires_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "given")]
    networks: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    slugs: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    #[serde(default, deserialize_with = "given")]
    overlap_seconds: Option<i64>,
}

fn show(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "scope": key.scope.as_str(),
        "prefix": key.prefix,
        "created_at": instant(key.created_at),
        "last_used_at": key.last_used_at.map(instant),
        "last_used_addr": key.last_used_addr,
        "revoked_at": key.revoked_at.map(instant),
        "expires_at": key.limits.expires_at.map(instant),
        "networks": key.limits.networks.as_ref().map(Networks::texts),
        "slugs": Some(&key.limits.slugs).filter(|slugs| !slugs.is_empty()),
        "tags": Some(&key.limits.tags).filter(|tags| !tags.is_empty()),
        "replaced_by": key.replaced_by,
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
            "is not one of ping, read, write, audit, metrics",
        )]));
    };
    let new = service::NewKey {
        name: body.name,
        scope,
        limits: AskedLimits {
            expires_at: body.expires_at,
            networks: body.networks,
            slugs: body.slugs,
            tags: body.tags,
        },
    };
    let (stored, secret) = service::issue_limited(&state.services, &key.1, new).await?;
    issued(&state, key.0, &stored, &secret).await
}

/// Replaces a key by a new one.
async fn rotate(
    key: MayManageKeys,
    state: Data<AppState>,
    path: Path<String>,
    body: Json<Rotation>,
) -> Result<HttpResponse, ApiError> {
    let old = ApiKeyId(id(&path, "API key")?);
    // Check this before reading the body: a caller who may not see the key must not get any other error.
    service::check(&state.services, &key.1, old).await?;
    let body = body.read().await?;
    let (stored, secret) = service::rotate(&state.services, &key.1, old, body.overlap_seconds).await?;
    issued(&state, key.0, &stored, &secret).await
}

/// Answers with a new key: the only answer that contains the key itself.
async fn issued(
    state: &AppState,
    project: ProjectId,
    stored: &ApiKey,
    secret: &str,
) -> Result<HttpResponse, ApiError> {
    let mut shown = show(stored);
    shown["sentry_dsn"] = match stored.scope {
        Scope::Ping => {
            let number = number(&state.services, project).await?;
            json!(state.services.site().sentry_dsn(secret, number))
        }
        Scope::Read | Scope::Write | Scope::Audit | Scope::Metrics => Value::Null,
    };
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
