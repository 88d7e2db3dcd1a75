//! Escalation policies: list, create, read, change, delete.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::alert::escalation::{Matching, PolicySettings, Step};
use deadbeat_domain::ids::EscalationPolicyId;
use deadbeat_domain::json::instant;
use deadbeat_services::alert::policy as service;
use deadbeat_store::alert::policy::{self as store, StoredPolicy};
use deadbeat_store::page::Page;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayManageChannels, MayRead};
use crate::extract::json::{Json, given};
use crate::extract::paging::{Query, bounded};
use crate::state::AppState;

/// The name of the resource in answers about a policy that does not exist.
const NOUN: &str = "escalation policy";

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/escalation-policies")
                .route(web::get().to(list))
                .route(web::post().to(create))
                .default_service(only("GET, POST")),
        )
        .service(
            web::resource("/escalation-policies/{id}")
                .route(web::get().to(read))
                .route(web::patch().to(update))
                .route(web::delete().to(delete))
                .default_service(only("GET, PATCH, DELETE")),
        );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedPolicy {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    /// `null` makes the policy the project's default.
    #[serde(default, rename = "match", deserialize_with = "given")]
    matching: Option<Option<Matching>>,
    #[serde(default, deserialize_with = "given")]
    steps: Option<Vec<Step>>,
    #[serde(default, deserialize_with = "given")]
    repeat_count: Option<u32>,
    #[serde(default, deserialize_with = "given")]
    repeat_delay_seconds: Option<u32>,
}

impl ChangedPolicy {
    fn write_into(self, settings: &mut PolicySettings) {
        if let Some(name) = self.name {
            settings.name = name;
        }
        if let Some(matching) = self.matching {
            settings.matching = matching;
        }
        if let Some(steps) = self.steps {
            settings.steps = steps;
        }
        if let Some(count) = self.repeat_count {
            settings.repeat_count = count;
        }
        if let Some(delay) = self.repeat_delay_seconds {
            settings.repeat_delay_seconds = delay;
        }
    }
}

fn show(stored: &StoredPolicy) -> Value {
    let settings = stored.policy.settings();
    json!({
        "id": stored.id,
        "name": settings.name,
        "match": settings.matching,
        "steps": settings.steps,
        "repeat_count": settings.repeat_count,
        "repeat_delay_seconds": settings.repeat_delay_seconds,
        "created_at": instant(stored.created_at),
        "updated_at": instant(stored.updated_at),
    })
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page()?;
    let reader = state.reader();
    let read = |page: Page<uuid::Uuid>| {
        let page = Page {
            after: page.after.map(EscalationPolicyId),
            limit: page.limit,
        };
        store::list(&reader, key.0, page)
    };
    let (policies, next) = bounded(&page, read, |stored| (stored.id.0, show(stored))).await?;
    Ok(HttpResponse::Ok().json(json!({"escalation_policies": policies, "next_cursor": next})))
}

async fn create(
    key: MayManageChannels,
    state: Data<AppState>,
    body: Json<PolicySettings>,
) -> Result<HttpResponse, ApiError> {
    let settings = body.read().await?;
    let stored = service::create(&state.services, &key.1, settings).await?;
    let location = format!("/api/v1/escalation-policies/{}", stored.id);
    Ok(HttpResponse::Created()
        .insert_header(("Location", location))
        .json(show(&stored)))
}

async fn read(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let policy = EscalationPolicyId(id(&path, NOUN)?);
    let stored = store::get(&state.reader(), key.0, policy).await?;
    let stored = stored.ok_or_else(|| ApiError::not_found(NOUN))?;
    Ok(HttpResponse::Ok().json(show(&stored)))
}

async fn update(
    key: MayManageChannels,
    state: Data<AppState>,
    path: Path<String>,
    body: Json<ChangedPolicy>,
) -> Result<HttpResponse, ApiError> {
    let policy = EscalationPolicyId(id(&path, NOUN)?);
    let change = body.read().await?;
    let write = |settings: &mut PolicySettings| change.write_into(settings);
    let stored = service::update(&state.services, &key.1, policy, write).await?;
    Ok(HttpResponse::Ok().json(show(&stored)))
}

async fn delete(
    key: MayManageChannels,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let policy = EscalationPolicyId(id(&path, NOUN)?);
    service::delete(&state.services, &key.1, policy).await?;
    Ok(HttpResponse::NoContent().finish())
}
