//! Sentry Crons: check-ins of unmodified Sentry SDKs, `sentry-cli` and curl lines, by DSN (ADR 051, docs/compat.md).
//!
//! ```text
//! POST     [/prefix]/api/<number>/envelope/                 the SDKs
//! GET|POST [/prefix]/api/<number>/cron/<slug>[/<key>][/]    curl
//! POST     [/prefix]/api/<number>/store/                    old SDKs' errors: dropped
//! ```
//!
//! The key in the DSN is a ping key, which names its project; the number is there because clients refuse a DSN without one. Every item that is not a
//! check-in is dropped, with the answer that the client hopes for. No answer is 429, and none has a rate limit: after one, an SDK drops check-ins by
//! itself, and Deadbeat would raise false alarms.

mod auth;
mod check_in;
mod encoding;
mod envelope;

use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Data, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use chrono::{DateTime, Utc};
use deadbeat_domain::limits;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::key;
use deadbeat_domain::people::permission::Action;
use deadbeat_services::ServiceError;
use deadbeat_services::monitor::in_step::keep_in_step;
use deadbeat_services::monitor::signal::incoming::Address;
use deadbeat_services::monitor::signal::request::Report;
use deadbeat_services::people::api_key::{Denied, authorise};
use deadbeat_store::connection::asker::Asker;
use serde_json::{Map, Value, json};

use self::auth::Presented;
use self::check_in::{CheckIn, MARK, Settings};
use super::door::{self, Outcome, Received};
use crate::extract::peer::client_ip;
use crate::request;
use crate::state::AppState;

/// The pauses after which check-ins of unknown monitors are tried again: about two seconds for a request, however many check-ins it has.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1_250),
];

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource([
                "/api/{number:[0-9]+}/envelope{end:/?}",
                "/{prefix:.+}/api/{number:[0-9]+}/envelope{end:/?}",
            ])
            .route(web::post().to(envelope))
            .route(web::method(actix_web::http::Method::OPTIONS).to(preflight)),
        )
        .service(
            web::resource([
                "/api/{number:[0-9]+}/store{end:/?}",
                "/{prefix:.+}/api/{number:[0-9]+}/store{end:/?}",
            ])
            .route(web::post().to(store)),
        )
        .service(
            web::resource([
                "/api/{number:[0-9]+}/cron/{slug}{end:/?}",
                "/api/{number:[0-9]+}/cron/{slug}/{key}{end:/?}",
                "/{prefix:.+}/api/{number:[0-9]+}/cron/{slug}{end:/?}",
                "/{prefix:.+}/api/{number:[0-9]+}/cron/{slug}/{key}{end:/?}",
            ])
            .route(web::get().to(cron))
            .route(web::post().to(cron)),
        );
}

/// Why the server did not take a check-in.
enum Refusal {
    /// No project has this key.
    UnknownKey,
    /// The check-in cannot be read, or its monitor does not exist and cannot be made. With one line that says why.
    Dropped(String),
    /// Too many reports wait, or the database cannot be reached.
    TryAgain,
}

fn answer(status: StatusCode, body: &Value) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .json(body)
}

fn refused(status: StatusCode, detail: &str) -> HttpResponse {
    answer(status, &json!({"detail": detail}))
}

/// Browsers ask before they send some headers.
async fn preflight() -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "POST"))
        .insert_header((
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "content-type, content-encoding, x-sentry-auth, authorization",
        ))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "600"))
        .finish()
}

/// Takes the events of old SDKs, and keeps nothing of them.
async fn store(payload: Payload) -> HttpResponse {
    door::read_body(payload.into_inner(), 0).await;
    answer(StatusCode::OK, &json!({}))
}

/// Returns the key of a request, or the answer that refuses it.
fn ping_key(presented: Presented) -> Result<String, Box<HttpResponse>> {
    match presented {
        Presented::Key(key) if key::is_plausible(&key) => Ok(key),
        Presented::Key(_) => Err(Box::new(unknown_key())),
        Presented::Unreadable => Err(Box::new(refused(
            StatusCode::BAD_REQUEST,
            "bad sentry authorization header",
        ))),
        Presented::Missing => Err(Box::new(refused(
            StatusCode::UNAUTHORIZED,
            "missing authorization information",
        ))),
    }
}

fn unknown_key() -> HttpResponse {
    refused(
        StatusCode::FORBIDDEN,
        "event submission rejected with_reason: ProjectId",
    )
}

fn busy() -> HttpResponse {
    refused(StatusCode::SERVICE_UNAVAILABLE, "try again")
}

async fn envelope(request: HttpRequest, state: Data<AppState>, payload: Payload) -> HttpResponse {
    // Before any slow step, so that a busy database never makes a check-in late.
    let received_at = state.now();
    request::is_ping();
    let body = door::read_body(payload.into_inner(), limits::ENVELOPE_BYTES).await;
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    let encoding = encoding.map_or(Some(""), |value| value.to_str().ok());
    let Some(body) = encoding.and_then(|encoding| encoding::decode(encoding, body)) else {
        return refused(
            StatusCode::BAD_REQUEST,
            "the body does not have its content-encoding; gzip, deflate, br and zstd are known",
        );
    };
    let Ok(envelope) = envelope::parse(&body) else {
        return refused(
            StatusCode::BAD_REQUEST,
            "bad envelope: its first line is not a JSON object",
        );
    };
    let of_dsn = envelope.dsn.as_deref().and_then(auth::of_dsn);
    let key = match ping_key(auth::presented(&request, of_dsn.as_deref())) {
        Ok(key) => key,
        Err(answer) => return *answer,
    };
    let mut faults = Vec::new();
    let mut pauses = PAUSES.into_iter();
    for item in &envelope.check_ins {
        match take(&request, &state, &key, item, received_at, &mut pauses).await {
            Ok(()) => {}
            Err(Refusal::Dropped(why)) => faults.push(why),
            Err(Refusal::UnknownKey) => return unknown_key(),
            Err(Refusal::TryAgain) => return busy(),
        }
    }
    if envelope.lost > 0 {
        // Boxed, because this is rare.
        Box::pin(note_loss(&request, &state, &key, envelope.lost)).await;
    }
    let mut body = Map::new();
    body.extend(envelope.event_id.map(|id| ("id".to_owned(), json!(id))));
    // SDKs read only the status. A person who looks for a missing monitor reads this.
    if !faults.is_empty() {
        body.insert("errors".to_owned(), json!(faults));
    }
    answer(StatusCode::OK, &Value::Object(body))
}

/// A check-in by curl: the status is in the query or in a JSON body.
async fn cron(
    request: HttpRequest,
    state: Data<AppState>,
    path: Path<CronPath>,
    payload: Payload,
) -> HttpResponse {
    let received_at = state.now();
    request::is_ping();
    let body = door::read_body(payload.into_inner(), limits::ENVELOPE_BYTES).await;
    let key = match ping_key(auth::presented(&request, path.key.as_deref())) {
        Ok(key) => key,
        Err(answer) => return *answer,
    };
    // A body in any other form is no fault: the query may say everything.
    let mut item: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
    for (name, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
        let value = match name.as_ref() {
            "duration" => value.parse::<f64>().map_or(Value::Null, |seconds| json!(seconds)),
            "status" | "check_in_id" | "environment" => json!(value),
            _ => continue,
        };
        item.insert(name.into_owned(), value);
    }
    item.insert("monitor_slug".to_owned(), json!(path.slug));
    match take(
        &request,
        &state,
        &key,
        &item,
        received_at,
        &mut PAUSES.into_iter(),
    )
    .await
    {
        Ok(()) => HttpResponse::Accepted().finish(),
        Err(Refusal::Dropped(why)) if check_in::read(&item).is_err() => {
            refused(StatusCode::BAD_REQUEST, &why)
        }
        // Sentry answers 202 here, and nobody would notice that nothing watches the job.
        Err(Refusal::Dropped(why)) => refused(StatusCode::NOT_FOUND, &why),
        Err(Refusal::UnknownKey) => unknown_key(),
        Err(Refusal::TryAgain) => busy(),
    }
}

/// The parts of the path of a check-in by curl.
#[derive(Debug, serde::Deserialize)]
struct CronPath {
    slug: String,
    key: Option<String>,
}

/// Records a check-in, and makes its monitor or brings it in step if the check-in has settings.
async fn take(
    request: &HttpRequest,
    state: &Data<AppState>,
    key: &str,
    item: &Map<String, Value>,
    received_at: DateTime<Utc>,
    pauses: &mut impl Iterator<Item = Duration>,
) -> Result<(), Refusal> {
    let check_in = check_in::read(item).map_err(Refusal::Dropped)?;
    let received = received(key, &check_in, received_at);
    let again = received.clone();
    let access = match door::take(request, state, received).await {
        Outcome::Recorded => None,
        // An SDK that gets any other answer drops its check-ins for a while.
        Outcome::TooMany(_) => return Ok(()),
        Outcome::TryAgain => return Err(Refusal::TryAgain),
        Outcome::Unknown(None) => return Err(Refusal::UnknownKey),
        Outcome::Unknown(Some(access)) => Some(access),
    };
    let is_known = access.is_none();
    let settings = match &check_in.settings {
        // The check-in counts, whatever is wrong with its settings.
        None if is_known => return Ok(()),
        Some(Err(why)) => return Err(Refusal::Dropped(format!("{}: {why}", check_in.slug))),
        None => return Box::pin(take_later(request, state, again, &check_in.slug, pauses)).await,
        Some(Ok(settings)) => settings,
    };
    // Boxed, because most check-ins bring no settings.
    let following = Box::pin(follow(request, state, key, access, &check_in.slug, settings)).await;
    match following {
        // The check-in is recorded, and the next one brings the settings again.
        Err(Refusal::TryAgain) if is_known => return Ok(()),
        following => following?,
    }
    if is_known {
        return Ok(());
    }
    match door::take(request, state, again).await {
        Outcome::Recorded | Outcome::TooMany(_) => Ok(()),
        Outcome::Unknown(_) | Outcome::TryAgain => Err(Refusal::TryAgain),
    }
}

/// Records a check-in without settings once its monitor exists. Some SDKs send both check-ins of a short run at the same time. Only the first one has
/// settings, and the second one may arrive while the server still makes the monitor. Without its end, the run would be reported as too long. Uses up the
/// pauses of the request.
async fn take_later(
    request: &HttpRequest,
    state: &Data<AppState>,
    received: Received,
    slug: &str,
    pauses: &mut impl Iterator<Item = Duration>,
) -> Result<(), Refusal> {
    for pause in pauses {
        tokio::time::sleep(pause).await;
        match door::take(request, state, received.clone()).await {
            Outcome::Recorded | Outcome::TooMany(_) => return Ok(()),
            Outcome::TryAgain => return Err(Refusal::TryAgain),
            Outcome::Unknown(_) => {}
        }
    }
    Err(Refusal::Dropped(format!(
        "{slug}: there is no such monitor, and the check-in has no monitor_config to make it with"
    )))
}

fn received(key: &str, check_in: &CheckIn, received_at: DateTime<Utc>) -> Received {
    Received {
        received_at,
        report: Report {
            address: Address::slug(key, &check_in.slug),
            kind: check_in.kind,
            exit_code: None,
            run_id: check_in.run_id,
        },
        duration: check_in.duration,
        body: check_in.body.clone(),
    }
}

/// Makes the monitor of a check-in, or brings its settings in step.
async fn follow(
    request: &HttpRequest,
    state: &Data<AppState>,
    key: &str,
    access: Option<Access>,
    slug: &str,
    settings: &Settings,
) -> Result<(), Refusal> {
    let access = match access {
        Some(access) => access,
        None => signaller(request, state, key).await?,
    };
    let project = access.may(Action::Signal).map_err(|_| Refusal::UnknownKey)?;
    let following = keep_in_step(
        &state.services,
        &access,
        slug,
        &settings.created,
        &settings.kept,
        MARK,
    );
    match Asker::Project(project).asks(following).await {
        Ok(_) => Ok(()),
        Err(ServiceError::Invalid(faults)) => {
            let faults: Vec<String> = faults
                .iter()
                .map(|fault| format!("{} {}", fault.pointer.trim_start_matches('/'), fault.message))
                .collect();
            Err(Refusal::Dropped(format!("{slug}: {}", faults.join("; "))))
        }
        Err(error @ (ServiceError::Limit { .. } | ServiceError::TooMany { .. })) => {
            Err(Refusal::Dropped(format!("{slug}: {error}")))
        }
        Err(ServiceError::Refused(_) | ServiceError::KeyFault(_)) => Err(Refusal::UnknownKey),
        Err(error) => {
            tracing::warn!(error = %deadbeat_store::with_sources(&error), "a monitor could not be brought in step with its check-in");
            Err(Refusal::TryAgain)
        }
    }
}

/// Returns the access of a ping key.
async fn signaller(request: &HttpRequest, state: &Data<AppState>, key: &str) -> Result<Access, Refusal> {
    let client = client_ip(request, state);
    match authorise(&state.services, Some(key), Action::Signal, client).await {
        Ok(access) => Ok(access),
        Err(Denied::Store(_)) => Err(Refusal::TryAgain),
        Err(_) => Err(Refusal::UnknownKey),
    }
}

/// Notes that a client lost check-ins before they reached the server.
async fn note_loss(request: &HttpRequest, state: &Data<AppState>, key: &str, lost: u64) {
    if let Ok(access) = signaller(request, state, key).await
        && let Ok(project) = access.may(Action::Signal)
    {
        tracing::warn!(project.id = %project, dropped = lost, "a client of Sentry lost check-ins");
    }
}
