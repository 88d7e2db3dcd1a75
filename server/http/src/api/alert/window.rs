//! Maintenance windows: list, create, read, change, delete.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::alert::window;
use deadbeat_domain::ids::WindowId;
use deadbeat_domain::json::instant;
use deadbeat_services::alert::hold::window as service;
use deadbeat_store::alert::window::Stored;
use deadbeat_store::page::Page;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::snooze::creator;
use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayChangeMonitors, MayRead};
use crate::extract::json::{Json, given};
use crate::extract::paging::{Query, cut, one_more};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/maintenance-windows")
                .route(web::get().to(list))
                .route(web::post().to(create))
                .default_service(only("GET, POST")),
        )
        .service(
            web::resource("/maintenance-windows/{id}")
                .route(web::get().to(read))
                .route(web::patch().to(update))
                .route(web::delete().to(delete))
                .default_service(only("GET, PATCH, DELETE")),
        );
}

/// The fields that a client may set. The domain checks the values.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, deserialize_with = "given")]
    name: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    starts_at: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    ends_at: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    schedule: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    duration_seconds: Option<Value>,
    #[serde(default, rename = "match", deserialize_with = "given")]
    matching: Option<Value>,
}

impl Body {
    /// Returns the given members, by the names of [`window::MEMBERS`] and in their order.
    fn given(self) -> Map<String, Value> {
        let values = [
            self.name,
            self.starts_at,
            self.ends_at,
            self.schedule,
            self.duration_seconds,
            self.matching,
        ];
        let members = window::MEMBERS.into_iter().zip(values);
        members
            .filter_map(|(member, value)| Some((member.to_owned(), value?)))
            .collect()
    }
}

fn show(stored: &Stored) -> Value {
    let mut shown = stored.window.to_json();
    shown.insert("id".to_owned(), json!(stored.id));
    shown.insert("created_at".to_owned(), json!(instant(stored.created_at)));
    shown.insert("updated_at".to_owned(), json!(instant(stored.updated_at)));
    shown.insert(
        "created_by".to_owned(),
        creator(&stored.created_by_kind, stored.created_by_id),
    );
    Value::Object(shown)
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let after = Page {
        after: page.after.map(WindowId),
        limit: one_more(&page).limit,
    };
    let rows = deadbeat_store::alert::window::list(&state.reader(), key.0, after).await?;
    let (rows, next) = cut(rows, page.limit, |stored| stored.id.to_string());
    let windows: Vec<Value> = rows.iter().map(show).collect();
    Ok(HttpResponse::Ok().json(json!({"maintenance_windows": windows, "next_cursor": next})))
}

async fn create(
    key: MayChangeMonitors,
    state: Data<AppState>,
    body: Json<Body>,
) -> Result<HttpResponse, ApiError> {
    let stored = service::create(&state.services, &key.1, &body.read().await?.given()).await?;
    let location = format!("/api/v1/maintenance-windows/{}", stored.id);
    Ok(HttpResponse::Created()
        .insert_header(("Location", location))
        .json(show(&stored)))
}

async fn read(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let id = WindowId(id(&path, "maintenance window")?);
    let stored = deadbeat_store::alert::window::get(&state.reader(), key.0, id).await?;
    let stored = stored.ok_or_else(|| ApiError::not_found("maintenance window"))?;
    Ok(HttpResponse::Ok().json(show(&stored)))
}

async fn update(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
    body: Json<Body>,
) -> Result<HttpResponse, ApiError> {
    let id = WindowId(id(&path, "maintenance window")?);
    let stored = service::update(&state.services, &key.1, id, &body.read().await?.given()).await?;
    Ok(HttpResponse::Ok().json(show(&stored)))
}

async fn delete(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::delete(
        &state.services,
        &key.1,
        WindowId(id(&path, "maintenance window")?),
    )
    .await?;
    Ok(HttpResponse::NoContent().finish())
}
