//! Rotations: list, create, read, change, delete; and who is on call.

mod calendar;

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::rotation::{LayerSettings, OverrideSettings, Person, RotationSettings, Shift};
use deadbeat_domain::ids::RotationId;
use deadbeat_domain::json::instant;
use deadbeat_domain::monitor::clip;
use deadbeat_domain::time::read_instant;
use deadbeat_services::alert::rotation as service;
use deadbeat_store::alert::rotation::{self as store, StoredRotation};
use deadbeat_store::page::Page;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayManageChannels, MayRead};
use crate::extract::json::{Json, given};
use crate::extract::paging::{Query, bounded};
use crate::problem::Problem;
use crate::state::AppState;

/// A calendar contains the shifts of this long before now.
const CALENDAR_BEFORE: TimeDelta = TimeDelta::days(7);
/// A calendar contains the shifts of this long after now.
const CALENDAR_AFTER: TimeDelta = TimeDelta::days(90);

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/rotations")
                .route(web::get().to(list))
                .route(web::post().to(create))
                .default_service(only("GET, POST")),
        )
        .service(
            web::resource("/rotations/{id}")
                .route(web::get().to(read))
                .route(web::patch().to(update))
                .route(web::delete().to(delete))
                .default_service(only("GET, PATCH, DELETE")),
        )
        .service(
            web::resource("/rotations/{id}/on-call")
                .route(web::get().to(on_call))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/rotations/{id}/calendar.ics")
                .route(web::get().to(calendar))
                .default_service(only("GET")),
        );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedRotation {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    timezone: Option<String>,
    #[serde(default, deserialize_with = "given")]
    people: Option<Vec<Person>>,
    #[serde(default, deserialize_with = "given")]
    layers: Option<Vec<LayerSettings>>,
    #[serde(default, deserialize_with = "given")]
    overrides: Option<Vec<OverrideSettings>>,
}

impl ChangedRotation {
    fn write_into(self, settings: &mut RotationSettings) {
        if let Some(name) = self.name {
            settings.name = name;
        }
        if let Some(timezone) = self.timezone {
            settings.timezone = timezone;
        }
        if let Some(people) = self.people {
            settings.people = people;
        }
        if let Some(layers) = self.layers {
            settings.layers = layers;
        }
        if let Some(overrides) = self.overrides {
            settings.overrides = overrides;
        }
    }
}

fn show(stored: &StoredRotation) -> Value {
    let settings = stored.rotation.settings();
    json!({
        "id": stored.id,
        "name": settings.name,
        "timezone": settings.timezone,
        "people": settings.people,
        "layers": settings.layers,
        "overrides": settings.overrides,
        "created_at": instant(stored.created_at),
        "updated_at": instant(stored.updated_at),
    })
}

fn show_shift(shift: &Shift<'_>) -> Value {
    json!({
        "person": shift.person,
        "starts_at": instant(shift.starts_at),
        "ends_at": instant(shift.ends_at),
        "is_override": shift.is_override,
    })
}

async fn find(state: &AppState, key: &MayRead, text: &str) -> Result<StoredRotation, ApiError> {
    let rotation = store::get(&state.reader(), key.0, RotationId(id(text, "rotation")?)).await?;
    rotation.ok_or_else(|| ApiError::not_found("rotation"))
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page()?;
    let reader = state.reader();
    let read = |page: Page<uuid::Uuid>| {
        let page = Page {
            after: page.after.map(RotationId),
            limit: page.limit,
        };
        store::list(&reader, key.0, page)
    };
    let (rotations, next) = bounded(&page, read, |stored| (stored.id.0, show(stored))).await?;
    Ok(HttpResponse::Ok().json(json!({"rotations": rotations, "next_cursor": next})))
}

async fn create(
    key: MayManageChannels,
    state: Data<AppState>,
    body: Json<RotationSettings>,
) -> Result<HttpResponse, ApiError> {
    let settings = body.read().await?;
    let stored = service::create(&state.services, &key.1, settings).await?;
    Ok(HttpResponse::Created()
        .insert_header(("Location", format!("/api/v1/rotations/{}", stored.id)))
        .json(show(&stored)))
}

async fn read(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let stored = find(&state, &key, &path).await?;
    Ok(HttpResponse::Ok().json(show(&stored)))
}

async fn update(
    key: MayManageChannels,
    state: Data<AppState>,
    path: Path<String>,
    body: Json<ChangedRotation>,
) -> Result<HttpResponse, ApiError> {
    let rotation = RotationId(id(&path, "rotation")?);
    let change = body.read().await?;
    let write = |settings: &mut RotationSettings| change.write_into(settings);
    let stored = service::update(&state.services, &key.1, rotation, write).await?;
    Ok(HttpResponse::Ok().json(show(&stored)))
}

async fn delete(
    key: MayManageChannels,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let rotation = RotationId(id(&path, "rotation")?);
    service::delete(&state.services, &key.1, rotation).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Returns who is on call at an instant (by default now).
async fn on_call(
    request: HttpRequest,
    key: MayRead,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let query = Query::of(&request, &["at"])?;
    let bad_at = |text: &str| {
        let detail = format!(
            "at is {:?}; a time of the years 1970 to 2199 like 2026-03-29T00:00:00Z is allowed",
            clip(text)
        );
        ApiError::new(Problem::InvalidQuery, detail)
    };
    let at: DateTime<Utc> = match query.get("at") {
        Some(text) => read_instant(text).ok_or_else(|| bad_at(text))?,
        None => state.services.now(),
    };
    let stored = find(&state, &key, &path).await?;
    let shift = stored.rotation.on_call(at).ok_or_else(|| bad_at(&instant(at)))?;
    let next = stored.rotation.on_call(shift.ends_at);
    Ok(HttpResponse::Ok().json(json!({
        "at": instant(at),
        "shift": show_shift(&shift),
        "next": next.as_ref().map(show_shift),
    })))
}

/// Returns the shifts as an iCalendar feed.
async fn calendar(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let stored = find(&state, &key, &path).await?;
    let now = state.services.now();
    let shifts = stored
        .rotation
        .shifts(now - CALENDAR_BEFORE, now + CALENDAR_AFTER);
    Ok(HttpResponse::Ok()
        .content_type("text/calendar; charset=utf-8")
        .body(calendar::write(&stored, shifts)))
}
