//! Push URLs that answer in plain text or not at all. Their token is a monitor's ping id.
//!
//! ```text
//! Better Stack        GET|HEAD|POST /api/v1/heartbeat/<token>[/fail|/<exit code>]
//! Dead Man's Snitch   any           /<token>?s=<status>&m=<message>
//! Cronhub             any           /start/<token>  /finish/<token>           (/ping/<token> is a ping URL of Deadbeat)
//! Grafana OnCall      GET|POST      /integrations/v1/<type>/<token>/heartbeat/
//! ```

use actix_web::guard::{self, GuardContext};
use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::ping::PingKind;

use super::door::{self, Outcome, Received, parameter};
use crate::state::AppState;

/// Mounts the routes of Better Stack. They stand before the API's own scope, which has no such path.
pub(super) fn better_stack(config: &mut ServiceConfig) {
    let paths = [
        "/api/v1/heartbeat/{token}{end:/?}",
        "/api/v1/heartbeat/{token}/{action}{end:/?}",
    ];
    config.service(
        web::resource(paths)
            .route(web::get().to(heartbeat))
            .route(web::head().to(heartbeat))
            .route(web::post().to(heartbeat)),
    );
}

/// Mounts the route of Dead Man's Snitch. Without its parameters, the path is a ping URL of Deadbeat.
pub(super) fn dead_mans_snitch(config: &mut ServiceConfig) {
    config.service(
        web::resource("/{token:[0-9a-fA-F-]{32,36}}{end:/?}")
            .guard(guard::fn_guard(is_of_snitch))
            .route(web::route().to(snitch)),
    );
}

/// Mounts the routes of Cronhub.
pub(super) fn cronhub(config: &mut ServiceConfig) {
    config
        .service(web::resource("/start/{token}{end:/?}").route(web::route().to(start)))
        .service(web::resource("/finish/{token}{end:/?}").route(web::route().to(finish)));
}

/// Mounts the route of Grafana OnCall's inbound heartbeat.
pub(super) fn grafana_oncall(config: &mut ServiceConfig) {
    config.service(
        web::resource("/integrations/v1/{kind}/{token}/heartbeat{end:/?}")
            .route(web::get().to(oncall))
            .route(web::post().to(oncall)),
    );
}

fn is_of_snitch(context: &GuardContext<'_>) -> bool {
    let query = context.head().uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "m" || name == "s")
}

/// The answers of a product: to a ping, and to a token that it does not know.
#[derive(Clone, Copy)]
struct Answers {
    recorded: (StatusCode, &'static str),
    unknown: (StatusCode, &'static str),
}

/// Records a report, and answers in plain text.
async fn answer(
    request: &HttpRequest,
    state: &Data<AppState>,
    received: Option<Received>,
    answers: Answers,
) -> HttpResponse {
    let outcome = match received {
        Some(received) => door::take(request, state, received).await,
        None => Outcome::Unknown(None),
    };
    let (status, line) = match outcome {
        Outcome::Recorded => answers.recorded,
        Outcome::Unknown(_) => answers.unknown,
        Outcome::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too many, try again later"),
        Outcome::TryAgain => (StatusCode::SERVICE_UNAVAILABLE, "try again"),
    };
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .body(line)
}

const NOT_FOUND: (StatusCode, &str) = (StatusCode::NOT_FOUND, "not found");

#[derive(serde::Deserialize)]
struct Heartbeat {
    token: String,
    action: Option<String>,
}

async fn heartbeat(
    request: HttpRequest,
    state: Data<AppState>,
    path: Path<Heartbeat>,
    payload: Payload,
) -> HttpResponse {
    let received_at = state.now();
    let body = door::read_body(payload.into_inner(), limits::PING_BODY_BYTES).await;
    let action = match path.action.as_deref() {
        None => Some((PingKind::Success, None)),
        Some("fail") => Some((PingKind::Fail, None)),
        Some(code) => code
            .parse::<u8>()
            .ok()
            .map(|code| (PingKind::from_exit_code(code), Some(code))),
    };
    let received = door::token(&path.token)
        .zip(action)
        .map(|(address, (kind, exit_code))| {
            let mut received = Received::new(received_at, address, kind);
            received.report.exit_code = exit_code;
            received.body = body;
            received
        });
    let answers = Answers {
        recorded: (StatusCode::OK, ""),
        unknown: NOT_FOUND,
    };
    answer(&request, &state, received, answers).await
}

async fn snitch(request: HttpRequest, state: Data<AppState>, path: Path<(String, String)>) -> HttpResponse {
    let received_at = state.now();
    // The status of the job's command: none, nothing and 0 are good.
    let status = parameter(&request, "s").unwrap_or_default();
    let kind = match status.trim() {
        "" | "0" => PingKind::Success,
        _ => PingKind::Fail,
    };
    let received = door::token(&path.0).map(|address| {
        let mut received = Received::new(received_at, address, kind);
        received.report.exit_code = status.trim().parse().ok();
        received.body = parameter(&request, "m").unwrap_or_default().into_bytes();
        received
    });
    let answers = Answers {
        recorded: (StatusCode::ACCEPTED, "Got it, thanks!\n"),
        unknown: NOT_FOUND,
    };
    answer(&request, &state, received, answers).await
}

async fn start(request: HttpRequest, state: Data<AppState>, path: Path<(String, String)>) -> HttpResponse {
    of_cronhub(&request, &state, &path.0, PingKind::Start).await
}

async fn finish(request: HttpRequest, state: Data<AppState>, path: Path<(String, String)>) -> HttpResponse {
    of_cronhub(&request, &state, &path.0, PingKind::Success).await
}

async fn of_cronhub(
    request: &HttpRequest,
    state: &Data<AppState>,
    token: &str,
    kind: PingKind,
) -> HttpResponse {
    let received_at = state.now();
    let received = door::token(token).map(|address| Received::new(received_at, address, kind));
    let answers = Answers {
        recorded: (StatusCode::OK, "OK"),
        unknown: NOT_FOUND,
    };
    answer(request, state, received, answers).await
}

async fn oncall(
    request: HttpRequest,
    state: Data<AppState>,
    path: Path<(String, String, String)>,
) -> HttpResponse {
    let received_at = state.now();
    let received = door::token(&path.1).map(|address| Received::new(received_at, address, PingKind::Success));
    let answers = Answers {
        recorded: (StatusCode::OK, "Ok."),
        unknown: (
            StatusCode::FORBIDDEN,
            "Integration key was not found. Permission denied.",
        ),
    };
    answer(&request, &state, received, answers).await
}
