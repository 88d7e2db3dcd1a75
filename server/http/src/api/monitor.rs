//! Monitors: list, create, read, change, upsert, pause, resume, delete.

pub mod ping;
pub mod run;

use std::collections::HashMap;

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{ChannelId, MonitorId};
use deadbeat_domain::incident::severity::Severity;
use deadbeat_domain::json::{instant, seconds};
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::monitor::status::{ShownStatus, Status};
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::permission::Action;
use deadbeat_services::monitor::{self as service, Change, ChannelChoice};
use deadbeat_store::monitor::settings;
use deadbeat_store::monitor::{Filter, Monitor};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayChangeMonitors, MayRead};
use crate::extract::json::{Json, given};
use crate::extract::paging::{Query, cut, one_more};
use crate::problem::Problem;
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/monitors")
                .route(web::get().to(list))
                .route(web::post().to(create))
                .default_service(only("GET, POST")),
        )
        .service(
            web::resource("/monitors/{id}")
                .route(web::get().to(read))
                .route(web::patch().to(update))
                .route(web::put().to(upsert))
                .route(web::delete().to(delete))
                .default_service(only("GET, PATCH, PUT, DELETE")),
        )
        .service(
            web::resource("/monitors/{id}/pause")
                .route(web::post().to(pause))
                .default_service(only("POST")),
        )
        .service(
            web::resource("/monitors/{id}/resume")
                .route(web::post().to(resume))
                .default_service(only("POST")),
        );
}

/// The fields that a client may set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    slug: Option<String>,
    #[serde(default, deserialize_with = "given")]
    schedule: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    grace_seconds: Option<f64>,
    /// `null` removes the limit: only the grace then bounds a run.
    #[serde(default, deserialize_with = "given")]
    longest_run_seconds: Option<Option<f64>>,
    #[serde(default, deserialize_with = "given")]
    tags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    channels: Option<Value>,
    /// `null` removes the setting: each incident then has the severity of its cause.
    #[serde(default, deserialize_with = "given")]
    severity: Option<Option<Severity>>,
    #[serde(default, deserialize_with = "given")]
    failure_threshold: Option<i64>,
    #[serde(default, deserialize_with = "given")]
    recovery_threshold: Option<i64>,
}

impl Body {
    fn change(self) -> Result<Change, ApiError> {
        Ok(Change {
            name: self.name,
            slug: self.slug,
            schedule: self.schedule,
            grace_seconds: self.grace_seconds,
            longest_run_seconds: self.longest_run_seconds,
            tags: self.tags,
            channels: self.channels.map(|value| choice(&value)).transpose()?,
            severity: self.severity,
            failure_threshold: self.failure_threshold,
            recovery_threshold: self.recovery_threshold,
        })
    }
}

fn choice(value: &Value) -> Result<ChannelChoice, ApiError> {
    let refused = |pointer: String| {
        ApiError::fields(vec![FieldError::new(
            pointer,
            "\"all\" or a list of the project's channel ids is allowed",
        )])
    };
    match value {
        Value::String(text) if text == "all" => Ok(ChannelChoice::All),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let id = item.as_str().and_then(|text| Uuid::try_parse(text).ok());
                id.map(ChannelId)
                    .ok_or_else(|| refused(format!("/channels/{index}")))
            })
            .collect::<Result<_, _>>()
            .map(ChannelChoice::These),
        _ => Err(refused("/channels".to_owned())),
    }
}

/// Returns monitors as the API shows them to this caller.
async fn shown(
    state: &AppState,
    monitors: &[Monitor],
    access: &Access,
    now: DateTime<Utc>,
) -> Result<Vec<Value>, ApiError> {
    let Some(project) = monitors.first().map(|monitor| monitor.project_id) else {
        return Ok(Vec::new());
    };
    let some: Vec<MonitorId> = monitors
        .iter()
        .filter(|monitor| !monitor.all_channels)
        .map(|monitor| monitor.id)
        .collect();
    let mut channels: HashMap<MonitorId, Vec<ChannelId>> = HashMap::new();
    if !some.is_empty() {
        for (monitor, channel) in settings::channels(&state.reader(), project, &some).await? {
            channels.entry(monitor).or_default().push(channel);
        }
    }
    let sees_ping_urls = access.may(Action::SeePingUrls).is_ok();
    Ok(monitors
        .iter()
        .map(|monitor| {
            let channels = if monitor.all_channels {
                json!("all")
            } else {
                json!(channels.get(&monitor.id).map_or(&[][..], Vec::as_slice))
            };
            show(state, monitor, channels, sees_ping_urls, now)
        })
        .collect())
}

fn show(
    state: &AppState,
    monitor: &Monitor,
    channels: Value,
    sees_ping_urls: bool,
    now: DateTime<Utc>,
) -> Value {
    let MonitorId(id) = monitor.id;
    let rules = &monitor.state;
    json!({
        "id": id,
        "name": monitor.name,
        "slug": monitor.slug,
        "tags": monitor.tags,
        "schedule": rules.expectation.schedule.to_json(),
        "schedule_summary": rules.expectation.schedule.summary(),
        "delay_seconds": seconds(rules.expectation.delay_seconds),
        "grace_seconds": seconds(rules.expectation.grace_seconds),
        "longest_run_seconds": rules.expectation.longest_run_seconds.map(seconds),
        "channels": channels,
        "severity": monitor.severity,
        "failure_threshold": rules.thresholds.failures,
        "recovery_threshold": rules.thresholds.recoveries,
        "bad_runs": rules.alarm.bad_runs(),
        "good_runs": rules.alarm.good_runs(),
        "flapping_since": rules.flaps.flapping.map(|flapping| instant(flapping.since)),
        "ping_url": sees_ping_urls.then(|| state.services.site().ping_url(monitor.ping_id)),
        "status": ShownStatus::at(rules.status, rules.next_due_at, rules.deadline_at.is_some(), now),
        "running": monitor.open_runs > 0,
        "ping_count": rules.ping_count,
        "last_ping_at": rules.last_ping_at.map(instant),
        "last_success_at": rules.last_success_at.map(instant),
        "last_duration_seconds": rules.last_duration.map(|length| length.num_milliseconds() as f64 / 1000.0),
        "next_due_at": rules.next_due_at.map(instant),
        "deadline_at": rules.judged_at().map(instant),
        "beat_id": monitor.beat_id,
        "entry": monitor.entry,
        "retired_at": monitor.retired_at.map(instant),
        "created_at": instant(monitor.created_at),
        "updated_at": instant(monitor.updated_at),
    })
}

async fn show_one(state: &AppState, monitor: Monitor, access: &Access) -> Result<Value, ApiError> {
    let shown = shown(state, std::slice::from_ref(&monitor), access, state.now()).await?;
    Ok(shown.into_iter().next().unwrap_or_default())
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let query = Query::of(&request, &["limit", "cursor", "tag", "slug", "status", "search"])?;
    let page = query.page::<Uuid>()?;
    let mut filter = Filter {
        tags: query.all("tag"),
        slug: query.get("slug").map(str::to_owned),
        search: query.get("search").map(str::to_owned),
        ..Filter::default()
    };
    if let Some(text) = query.get("status") {
        (filter.status, filter.late) = match ShownStatus::parse(text) {
            Some(ShownStatus::New) => (Some(Status::New), Some(false)),
            Some(ShownStatus::Up) => (Some(Status::Up), Some(false)),
            Some(ShownStatus::Late) => (None, Some(true)),
            Some(ShownStatus::Down) => (Some(Status::Down), None),
            Some(ShownStatus::Paused) => (Some(Status::Paused), None),
            None => {
                return Err(ApiError::new(
                    Problem::InvalidQuery,
                    "status is not one of new, up, late, down, paused".to_owned(),
                ));
            }
        };
    }
    let now = state.now();
    let after = one_more(&page);
    let after = deadbeat_store::page::Page {
        after: after.after.map(MonitorId),
        limit: after.limit,
    };
    let rows = deadbeat_store::monitor::list(&state.reader(), key.0, &filter, after, now).await?;
    let (rows, next) = cut(rows, page.limit, |monitor| monitor.id.to_string());
    Ok(HttpResponse::Ok()
        .json(json!({"monitors": shown(&state, &rows, &key.1, now).await?, "next_cursor": next})))
}

async fn create(
    key: MayChangeMonitors,
    state: Data<AppState>,
    body: Json<Body>,
) -> Result<HttpResponse, ApiError> {
    let monitor = service::create(&state.services, &key.1, &body.read().await?.change()?).await?;
    let location = format!("/api/v1/monitors/{}", monitor.id);
    Ok(HttpResponse::Created()
        .insert_header(("Location", location))
        .json(show_one(&state, monitor, &key.1).await?))
}

async fn read(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let monitor =
        deadbeat_store::monitor::get(&state.reader(), key.0, MonitorId(id(&path, "monitor")?)).await?;
    let monitor = monitor.ok_or_else(|| ApiError::not_found("monitor"))?;
    Ok(HttpResponse::Ok().json(show_one(&state, monitor, &key.1).await?))
}

async fn update(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
    body: Json<Body>,
) -> Result<HttpResponse, ApiError> {
    let monitor = MonitorId(id(&path, "monitor")?);
    let monitor = service::update(&state.services, &key.1, monitor, &body.read().await?.change()?).await?;
    Ok(HttpResponse::Ok().json(show_one(&state, monitor, &key.1).await?))
}

/// Creates or changes the monitor with that slug.
async fn upsert(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
    body: Json<Body>,
) -> Result<HttpResponse, ApiError> {
    let slug = path.into_inner();
    let change = body.read().await?.change()?;
    if change.slug.as_ref().is_some_and(|own| *own != slug) {
        return Err(ApiError::fields(vec![FieldError::new(
            "/slug",
            "differs from the slug in the path; leave it out",
        )]));
    }
    if Uuid::try_parse(&slug).is_ok() {
        return Err(ApiError::fields(vec![FieldError::new(
            "/slug",
            "in the path is a UUID; PUT takes a slug, and PATCH changes a monitor by its id",
        )]));
    }
    let (monitor, created) = service::upsert(&state.services, &key.1, &change, &slug).await?;
    let mut answer = if created {
        HttpResponse::Created()
    } else {
        HttpResponse::Ok()
    };
    Ok(answer.json(show_one(&state, monitor, &key.1).await?))
}

async fn pause(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let monitor = service::pause(&state.services, &key.1, MonitorId(id(&path, "monitor")?)).await?;
    Ok(HttpResponse::Ok().json(show_one(&state, monitor, &key.1).await?))
}

async fn resume(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let monitor = service::resume(&state.services, &key.1, MonitorId(id(&path, "monitor")?)).await?;
    Ok(HttpResponse::Ok().json(show_one(&state, monitor, &key.1).await?))
}

async fn delete(
    key: MayChangeMonitors,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::delete(&state.services, &key.1, MonitorId(id(&path, "monitor")?)).await?;
    Ok(HttpResponse::NoContent().finish())
}
