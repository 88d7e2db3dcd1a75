//! Uptime Kuma's push URLs: `/api/push/<token>?status=up&msg=OK&ping=12`. The token is a monitor's ping id.

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use chrono::TimeDelta;
use deadbeat_domain::monitor::ping::PingKind;
use serde_json::json;

use super::door::{self, Outcome, Received, parameter};
use crate::state::AppState;

/// The longest `ping` that Uptime Kuma takes, in milliseconds.
const LONGEST_PING: f64 = 1e11;

/// Mounts the route. Uptime Kuma takes every method.
pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(web::resource("/api/push/{token}{end:/?}").route(web::route().to(push)));
}

async fn push(request: HttpRequest, state: Data<AppState>, path: Path<(String, String)>) -> HttpResponse {
    let received_at = state.now();
    let Some(address) = door::token(&path.0) else {
        return refused(StatusCode::NOT_FOUND, "Monitor not found or not active.");
    };
    // As in Uptime Kuma: anything but `up` is down.
    let kind = match parameter(&request, "status").as_deref() {
        None | Some("up") => PingKind::Success,
        Some(_) => PingKind::Fail,
    };
    let length = parameter(&request, "ping").and_then(|text| text.parse::<f64>().ok());
    let received = Received {
        duration: length
            .filter(|length| (0.0..=LONGEST_PING).contains(length))
            .map(|length| TimeDelta::microseconds((length * 1e3) as i64)),
        body: parameter(&request, "msg").unwrap_or_default().into_bytes(),
        ..Received::new(received_at, address, kind)
    };
    match door::take(&request, &state, received).await {
        Outcome::Recorded => HttpResponse::Ok().json(json!({"ok": true})),
        Outcome::Unknown(_) => refused(StatusCode::NOT_FOUND, "Monitor not found or not active."),
        Outcome::TooMany(_) => refused(StatusCode::TOO_MANY_REQUESTS, "Too many requests."),
        Outcome::TryAgain => refused(StatusCode::SERVICE_UNAVAILABLE, "Try again."),
    }
}

fn refused(status: StatusCode, message: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({"ok": false, "msg": message}))
}
