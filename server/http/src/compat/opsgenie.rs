//! Opsgenie's heartbeats, `/v2/heartbeats…`, with `Authorization: GenieKey <key>`. A ping key pings, a read key lists, a write key manages.
//!
//! A heartbeat is a monitor with an interval and no grace. Those made here have the tag `opsgenie`, and the list shows these.

use std::time::Instant;

use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Data, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deadbeat_domain::json::instant;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::ping::PingKind;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::key;
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::schedule::Schedule;
use deadbeat_services::ServiceError;
use deadbeat_services::monitor::signal::incoming::Address;
use deadbeat_services::monitor::{self as service, Change};
use deadbeat_services::people::api_key::{Denied, authorise};
use deadbeat_store::connection::asker::Asker;
use deadbeat_store::monitor::{Filter, Monitor};
use deadbeat_store::page::Page;
use serde_json::{Map, Value, json};

use super::door::{self, Outcome, Received, parameter};
use crate::extract::peer::client_ip;
use crate::request;
use crate::state::AppState;

/// The tag of monitors that were made here.
const MARK: &str = "opsgenie";

/// Mounts the routes.
pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/v2/heartbeats{end:/?}")
                .route(web::get().to(list))
                .route(web::post().to(create)),
        )
        .service(
            web::resource("/v2/heartbeats/{name}")
                .route(web::get().to(read))
                .route(web::patch().to(update))
                .route(web::delete().to(delete)),
        )
        .service(web::resource("/v2/heartbeats/{name}/enable").route(web::post().to(enable)))
        .service(web::resource("/v2/heartbeats/{name}/disable").route(web::post().to(disable)))
        .service(
            web::resource("/v2/heartbeats/{name}/ping{end:/?}")
                .route(web::get().to(ping))
                .route(web::head().to(ping))
                .route(web::post().to(ping))
                .route(web::put().to(ping))
                .route(web::patch().to(ping)),
        );
}

/// The answer of an error, with Opsgenie's status.
struct Failed(StatusCode, String);

type Answered = Result<(StatusCode, Map<String, Value>), Failed>;

impl Failed {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(status, message.into())
    }

    fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Heartbeat not found")
    }
}

impl From<ServiceError> for Failed {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::NotFound(_) => Self::not_found(),
            ServiceError::SlugTaken(_) => Self::new(
                StatusCode::CONFLICT,
                "There exists a heartbeat with the same name",
            ),
            ServiceError::Invalid(faults) => {
                let faults: Vec<String> = faults
                    .iter()
                    .map(|fault| format!("{} {}", fault.pointer.trim_start_matches('/'), fault.message))
                    .collect();
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, faults.join("; "))
            }
            ServiceError::Refused(refusal) => Self::new(StatusCode::FORBIDDEN, refusal.to_string()),
            error @ (ServiceError::Limit { .. } | ServiceError::Conflict(_)) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
            }
            error @ ServiceError::TooMany { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
            }
            error => {
                tracing::warn!(error = %deadbeat_store::with_sources(&error), "a request of an Opsgenie client failed");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "Try again")
            }
        }
    }
}

impl From<deadbeat_store::StoreError> for Failed {
    fn from(error: deadbeat_store::StoreError) -> Self {
        ServiceError::from(error).into()
    }
}

/// Adds what each answer of Opsgenie has.
fn answer(started: Instant, answered: Answered) -> HttpResponse {
    let (status, mut body) = answered.unwrap_or_else(|Failed(status, message)| {
        (status, Map::from_iter([("message".to_owned(), json!(message))]))
    });
    body.insert("took".to_owned(), json!(started.elapsed().as_secs_f64()));
    body.insert("requestId".to_owned(), json!(request::id()));
    HttpResponse::build(status).json(body)
}

fn data(status: StatusCode, data: Value) -> Answered {
    Ok((status, Map::from_iter([("data".to_owned(), data)])))
}

fn result(status: StatusCode, line: &str) -> Answered {
    Ok((status, Map::from_iter([("result".to_owned(), json!(line))])))
}

/// Returns the key of a request: `GenieKey <key>`, HTTP Basic with the key as the user, or the parameter `apiKey`.
fn presented(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION);
    let Some(value) = value else {
        return parameter(request, "apiKey");
    };
    let (scheme, key) = value.to_str().ok()?.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("geniekey") {
        return Some(key.trim().to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(STANDARD.decode(key.trim()).ok()?).ok()?;
        return Some(decoded.split(':').next().unwrap_or_default().to_owned());
    }
    None
}

fn unauthenticated() -> Failed {
    Failed::new(StatusCode::UNAUTHORIZED, "Could not authenticate")
}

/// Returns the access of a request whose key may do this.
async fn access(request: &HttpRequest, state: &AppState, action: Action) -> Result<Access, Failed> {
    let presented = presented(request);
    let client = client_ip(request, state);
    let access = match authorise(&state.services, presented.as_deref(), action, client).await {
        Ok(access) => access,
        Err(denied @ (Denied::Refused { .. } | Denied::Limited { .. })) => {
            return Err(Failed::new(StatusCode::FORBIDDEN, denied.to_string()));
        }
        Err(Denied::Store(error)) => return Err(error.into()),
        Err(Denied::Missing | Denied::Unknown) => return Err(unauthenticated()),
    };
    if let Ok(project) = access.may(action) {
        Asker::Project(project).takes_over();
    }
    Ok(access)
}

/// Returns the monitor with the name of a heartbeat.
async fn monitor(state: &AppState, access: &Access, action: Action, name: &str) -> Result<Monitor, Failed> {
    let project = access.may(action).map_err(ServiceError::from)?;
    let found = deadbeat_store::monitor::by_slug(&state.reader(), project, &door::slug_of(name)).await?;
    found.ok_or_else(Failed::not_found)
}

async fn ping(request: HttpRequest, state: Data<AppState>, path: Path<PingPath>) -> HttpResponse {
    let started = Instant::now();
    let received_at = state.now();
    answer(started, pinged(&request, &state, &path.name, received_at).await)
}

/// The part of the path of a ping.
#[derive(serde::Deserialize)]
struct PingPath {
    name: String,
}

async fn pinged(
    request: &HttpRequest,
    state: &Data<AppState>,
    name: &str,
    received_at: chrono::DateTime<chrono::Utc>,
) -> Answered {
    let key = presented(request)
        .filter(|key| key::is_plausible(key))
        .ok_or_else(unauthenticated)?;
    let address = Address::slug(&key, &door::slug_of(name));
    match door::take(
        request,
        state,
        Received::new(received_at, address, PingKind::Success),
    )
    .await
    {
        Outcome::Recorded => result(StatusCode::ACCEPTED, "PONG - Heartbeat received"),
        // Opsgenie answers 202 here, too, and nobody would notice that nothing watches the job.
        Outcome::Unknown(Some(_)) => Err(Failed::not_found()),
        // Another kind of key is valid, but may not report.
        Outcome::Unknown(None) => access(request, state, Action::Signal)
            .await
            .and(Err(Failed::not_found())),
        Outcome::TooMany(_) => Err(Failed::new(
            StatusCode::TOO_MANY_REQUESTS,
            "You are making too many requests",
        )),
        Outcome::TryAgain => Err(Failed::new(StatusCode::SERVICE_UNAVAILABLE, "Try again")),
    }
}

/// Shows a monitor as a heartbeat.
fn shown(state: &AppState, monitor: &Monitor) -> Value {
    let rules = &monitor.state;
    let (interval, unit) = match &rules.expectation.schedule {
        Schedule::Interval(interval) => in_units(interval.seconds()),
        // Any other schedule has no interval; a day is the largest unit.
        _ => (1, "days"),
    };
    let mut shown = json!({
        "name": monitor.name,
        "description": "",
        "interval": interval,
        "intervalUnit": unit,
        "enabled": rules.status != Status::Paused,
        "expired": rules.status == Status::Down,
        "alertTags": monitor.tags,
        "url": format!("{}/v2/heartbeats/{}", state.services.site().url, monitor.slug),
    });
    if let Some(at) = rules.last_ping_at {
        shown["lastPingTime"] = json!(instant(at));
    }
    shown
}

/// Returns an interval in the largest unit that divides it. Opsgenie has none below a minute.
fn in_units(seconds: f64) -> (u64, &'static str) {
    let minutes = (seconds / 60.0).ceil().max(1.0) as u64;
    match minutes {
        minutes if minutes % 1_440 == 0 => (minutes / 1_440, "days"),
        minutes if minutes % 60 == 0 => (minutes / 60, "hours"),
        minutes => (minutes, "minutes"),
    }
}

async fn list(request: HttpRequest, state: Data<AppState>) -> HttpResponse {
    let started = Instant::now();
    answer(started, listed(&request, &state).await)
}

async fn listed(request: &HttpRequest, state: &AppState) -> Answered {
    let access = access(request, state, Action::Read).await?;
    let project = access.may(Action::Read).map_err(ServiceError::from)?;
    let filter = Filter {
        tags: vec![MARK.to_owned()],
        ..Filter::default()
    };
    let page = Page {
        after: None,
        limit: limits::PAGE_MAX,
    };
    let rows = deadbeat_store::monitor::list(&state.reader(), project, &filter, page, state.now()).await?;
    let heartbeats: Vec<Value> = rows.iter().map(|monitor| shown(state, monitor)).collect();
    data(StatusCode::OK, json!({"heartbeats": heartbeats}))
}

async fn read(request: HttpRequest, state: Data<AppState>, path: Path<String>) -> HttpResponse {
    let started = Instant::now();
    let answered = async {
        let access = access(&request, &state, Action::Read).await?;
        let monitor = monitor(&state, &access, Action::Read, &path).await?;
        data(StatusCode::OK, shown(&state, &monitor))
    };
    answer(started, answered.await)
}

async fn create(request: HttpRequest, state: Data<AppState>, payload: Payload) -> HttpResponse {
    let started = Instant::now();
    let answered = async {
        let access = access(&request, &state, Action::ChangeMonitors).await?;
        let body = body(payload).await?;
        let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
        let interval = interval(&body)?
            .ok_or_else(|| Failed::new(StatusCode::UNPROCESSABLE_ENTITY, "interval is missing"))?;
        let tags = body.get("alertTags").and_then(Value::as_array);
        let tags = tags
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|tag| !tag.contains(char::is_whitespace));
        let change = Change {
            name: Some(name.to_owned()),
            slug: Some(door::slug_of(name)),
            schedule: Some(interval),
            grace_seconds: Some(0.0),
            tags: Some([MARK].into_iter().chain(tags).map(str::to_owned).collect()),
            ..Change::default()
        };
        let mut monitor = service::create(&state.services, &access, &change).await?;
        if body.get("enabled") == Some(&Value::Bool(false)) {
            monitor = service::pause(&state.services, &access, monitor.id).await?;
        }
        data(StatusCode::CREATED, shown(&state, &monitor))
    };
    answer(started, answered.await)
}

async fn update(
    request: HttpRequest,
    state: Data<AppState>,
    path: Path<String>,
    payload: Payload,
) -> HttpResponse {
    let started = Instant::now();
    let answered = async {
        let access = access(&request, &state, Action::ChangeMonitors).await?;
        let body = body(payload).await?;
        let mut monitor = monitor(&state, &access, Action::ChangeMonitors, &path).await?;
        if let Some(schedule) = interval(&body)? {
            let change = Change {
                schedule: Some(schedule),
                ..Change::default()
            };
            monitor = service::update(&state.services, &access, monitor.id, &change).await?;
        }
        if let Some(enabled) = body.get("enabled").and_then(Value::as_bool) {
            monitor = switch(&state, &access, monitor, enabled).await?;
        }
        data(StatusCode::OK, shown(&state, &monitor))
    };
    answer(started, answered.await)
}

async fn delete(request: HttpRequest, state: Data<AppState>, path: Path<String>) -> HttpResponse {
    let started = Instant::now();
    let answered = async {
        let access = access(&request, &state, Action::ChangeMonitors).await?;
        let monitor = monitor(&state, &access, Action::ChangeMonitors, &path).await?;
        service::delete(&state.services, &access, monitor.id).await?;
        result(StatusCode::OK, "Deleted")
    };
    answer(started, answered.await)
}

async fn enable(request: HttpRequest, state: Data<AppState>, path: Path<String>) -> HttpResponse {
    switched(&request, &state, &path, true).await
}

async fn disable(request: HttpRequest, state: Data<AppState>, path: Path<String>) -> HttpResponse {
    switched(&request, &state, &path, false).await
}

async fn switched(request: &HttpRequest, state: &AppState, name: &str, enabled: bool) -> HttpResponse {
    let started = Instant::now();
    let answered = async {
        let access = access(request, state, Action::ChangeMonitors).await?;
        let monitor = monitor(state, &access, Action::ChangeMonitors, name).await?;
        let monitor = switch(state, &access, monitor, enabled).await?;
        let status = monitor.state.status;
        data(
            StatusCode::OK,
            json!({"name": monitor.name, "enabled": status != Status::Paused, "expired": status == Status::Down}),
        )
    };
    answer(started, answered.await)
}

/// Resumes or pauses a monitor, unless it is so already.
async fn switch(
    state: &AppState,
    access: &Access,
    monitor: Monitor,
    enabled: bool,
) -> Result<Monitor, Failed> {
    let is_enabled = monitor.state.status != Status::Paused;
    Ok(match (is_enabled, enabled) {
        (true, false) => service::pause(&state.services, access, monitor.id).await?,
        (false, true) => service::resume(&state.services, access, monitor.id).await?,
        _ => monitor,
    })
}

/// Reads a JSON object.
async fn body(payload: Payload) -> Result<Map<String, Value>, Failed> {
    let body = door::read_body(payload.into_inner(), limits::JSON_BODY_BYTES).await;
    serde_json::from_slice(&body)
        .map_err(|_| Failed::new(StatusCode::BAD_REQUEST, "Could not parse JSON body"))
}

/// Reads the interval of a heartbeat. Returns `None` if the body has none.
fn interval(body: &Map<String, Value>) -> Result<Option<Value>, Failed> {
    let fault = |message: &str| Err(Failed::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    let (interval, unit) = match (body.get("interval"), body.get("intervalUnit")) {
        (None, None) => return Ok(None),
        (interval, unit) => (interval, unit.and_then(Value::as_str)),
    };
    let Some(interval) = interval.and_then(Value::as_u64).filter(|interval| *interval >= 1) else {
        return fault("interval is not a whole number from 1");
    };
    let seconds = match unit {
        Some("minutes") => 60.0,
        Some("hours") => 3_600.0,
        Some("days") => 86_400.0,
        _ => return fault("intervalUnit is not one of minutes, hours, days"),
    };
    Ok(Some(
        json!({"kind": "interval", "seconds": interval as f64 * seconds}),
    ))
}
