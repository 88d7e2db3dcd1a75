//! The project to which the request's key belongs.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use deadbeat_domain::json::instant;
use deadbeat_services::people::project as service;
use deadbeat_store::people::project::Project;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::{MayChangeProject, MayRead};
use crate::extract::json::{Json, given};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/project")
            .route(web::get().to(read))
            .route(web::patch().to(update))
            .default_service(only("GET, PATCH")),
    );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    /// `null` turns reminders off.
    #[serde(default, deserialize_with = "given")]
    reminder_seconds: Option<Option<i32>>,
}

/// The DSN has this text in the place of a ping key, because the server cannot show a key again.
const SOME_KEY: &str = "<ping key>";

async fn show(state: &AppState, project: &Project) -> Result<Value, ApiError> {
    let number = service::number(&state.services, project.id).await?;
    Ok(json!({
        "id": project.id,
        "number": number,
        "name": project.name,
        "sentry_dsn": state.services.site().sentry_dsn(SOME_KEY, number),
        "reminder_seconds": project.reminder_seconds,
        "created_at": instant(project.created_at),
    }))
}

async fn read(key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let project = deadbeat_store::people::project::get(&state.reader(), key.0).await?;
    let project = project.ok_or_else(|| ApiError::not_found("project"))?;
    Ok(HttpResponse::Ok().json(show(&state, &project).await?))
}

async fn update(
    key: MayChangeProject,
    state: Data<AppState>,
    body: Json<Body>,
) -> Result<HttpResponse, ApiError> {
    let Body {
        name,
        reminder_seconds,
    } = body.read().await?;
    let project = service::update(&state.services, &key.1, name.as_deref(), reminder_seconds).await?;
    Ok(HttpResponse::Ok().json(show(&state, &project).await?))
}
