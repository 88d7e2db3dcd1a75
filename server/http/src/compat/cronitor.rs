//! Cronitor's telemetry: `/p/<ping key>/<monitor>?state=run`. A monitor that does not exist is made, as there.

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use chrono::TimeDelta;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::ping::PingKind;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::key;
use deadbeat_domain::people::permission::Action;
use deadbeat_services::ServiceError;
use deadbeat_services::monitor::signal::incoming::Address;
use deadbeat_services::monitor::{Change, create_by_ping};
use deadbeat_store::connection::asker::Asker;
use serde_json::json;
use uuid::Uuid;

use super::door::{self, Outcome, Received, parameter};
use crate::state::AppState;

/// A new monitor expects a report a day, as one that a ping URL creates: Cronitor's has no schedule, and nothing would watch it.
const PERIOD_SECONDS: f64 = 86_400.0;
/// Its tolerated lateness.
const GRACE_SECONDS: f64 = 3_600.0;

/// Mounts the route. Cronitor takes GET, HEAD and POST.
pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/p/{key}/{monitor}{end:/?}")
            .route(web::get().to(telemetry))
            .route(web::head().to(telemetry))
            .route(web::post().to(telemetry)),
    );
}

fn text(status: StatusCode, line: &'static str) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .body(line)
}

async fn telemetry(
    request: HttpRequest,
    state: Data<AppState>,
    path: Path<(String, String, String)>,
) -> HttpResponse {
    let received_at = state.now();
    let (key, monitor, _) = path.into_inner();
    if !key::is_plausible(&key) {
        return text(StatusCode::NOT_FOUND, "not found");
    }
    let kind = match parameter(&request, "state").as_deref() {
        None | Some("" | "complete" | "ok") => PingKind::Success,
        Some("run") => PingKind::Start,
        Some("fail") => PingKind::Fail,
        Some(_) => {
            return text(
                StatusCode::BAD_REQUEST,
                "state is not one of run, complete, fail, ok",
            );
        }
    };
    let slug = door::slug_of(&monitor);
    let mut received = Received::new(received_at, Address::slug(&key, &slug), kind);
    received.report.run_id = parameter(&request, "series")
        .filter(|series| !series.is_empty())
        .map(|series| run_id(&series));
    received.report.exit_code = parameter(&request, "status_code").and_then(|code| code.parse().ok());
    received.duration = duration(&request);
    received.body = parameter(&request, "message").unwrap_or_default().into_bytes();
    let again = received.clone();
    let outcome = match door::take(&request, &state, received).await {
        Outcome::Unknown(Some(access)) => {
            // Boxed, because this is rare.
            match Box::pin(create(&state, access, &slug, &monitor)).await {
                Ok(()) => door::take(&request, &state, again).await,
                Err(refused) => return refused,
            }
        }
        outcome => outcome,
    };
    match outcome {
        Outcome::Recorded => text(StatusCode::OK, "OK"),
        Outcome::Unknown(_) => text(StatusCode::NOT_FOUND, "not found"),
        Outcome::TooMany(_) => text(StatusCode::TOO_MANY_REQUESTS, "too many, try again later"),
        Outcome::TryAgain => text(StatusCode::SERVICE_UNAVAILABLE, "try again"),
    }
}

/// Makes the id of a run from its series, which is any text. The same text is the same run.
fn run_id(series: &str) -> Uuid {
    Uuid::try_parse(series).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, series.as_bytes()))
}

/// Returns the run's length in seconds: `metric=duration:1.5`, or `duration=1.5` as the command line sends it.
fn duration(request: &HttpRequest) -> Option<TimeDelta> {
    let metrics = url::form_urlencoded::parse(request.query_string().as_bytes());
    metrics
        .filter_map(|(name, value)| match name.as_ref() {
            "duration" => value.parse::<f64>().ok(),
            "metric" => value.strip_prefix("duration:")?.parse().ok(),
            _ => None,
        })
        .find(|seconds| (0.0..=limits::SPAN_SECONDS).contains(seconds))
        .map(|seconds| TimeDelta::microseconds((seconds * 1e6) as i64))
}

async fn create(state: &Data<AppState>, access: Access, slug: &str, name: &str) -> Result<(), HttpResponse> {
    let change = Change {
        name: Some(name.to_owned()),
        slug: Some(slug.to_owned()),
        schedule: Some(json!({"kind": "interval", "seconds": PERIOD_SECONDS})),
        grace_seconds: Some(GRACE_SECONDS),
        ..Change::default()
    };
    let Ok(project) = access.may(Action::Signal) else {
        return Err(text(StatusCode::NOT_FOUND, "not found"));
    };
    let creating = create_by_ping(&state.services, &access, &change);
    match Asker::Project(project).asks(creating).await {
        // Another request has created it in the meantime.
        Ok(_) | Err(ServiceError::SlugTaken(_)) => Ok(()),
        Err(ServiceError::Invalid(_)) => Err(text(
            StatusCode::BAD_REQUEST,
            "this cannot be the name of a monitor",
        )),
        Err(ServiceError::Limit { .. } | ServiceError::Refused(_) | ServiceError::KeyFault(_)) => {
            Err(text(StatusCode::NOT_FOUND, "not found"))
        }
        Err(ServiceError::TooMany { .. }) => {
            Err(text(StatusCode::TOO_MANY_REQUESTS, "too many, try again later"))
        }
        Err(error) => {
            tracing::warn!(error = %deadbeat_store::with_sources(&error), "a monitor could not be created by Cronitor's telemetry");
            Err(text(StatusCode::SERVICE_UNAVAILABLE, "try again"))
        }
    }
}
