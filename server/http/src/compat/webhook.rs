//! Webhooks as pings: `POST /push/<token>`, where the token is a monitor's ping id. The body and the headers decide what a request says.
//!
//! * **Prometheus Alertmanager**, with the Watchdog alert that always fires: firing is a success, and resolved is a failure.
//! * **AWS SNS**: a notification is a success. A request to confirm a subscription is kept as a log ping. The server never opens its `SubscribeURL`:
//!   whoever has the push URL could otherwise make the server request any address.
//! * **CloudEvents**, in binary and structured mode: the end of the event's type decides, else an event is a success.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{self, Data, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::ping::PingKind;
use serde_json::Value;

use super::door::{self, Outcome, Received};
use crate::state::AppState;

/// CloudEvents' senders ask by this header whether they may send (CloudEvents webhooks 1.0.2, 4.1).
const ASKING_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Mounts the route.
pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/push/{token}{end:/?}")
            .route(web::post().to(push))
            .route(web::method(Method::OPTIONS).to(may_send)),
    );
}

fn text(status: StatusCode, line: &'static str) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .body(line)
}

async fn may_send(request: HttpRequest) -> HttpResponse {
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::ALLOW, "POST"));
    if let Some(origin) = request.headers().get(ASKING_ORIGIN) {
        answer.insert_header((ALLOWED_ORIGIN, origin.clone()));
        answer.insert_header((ALLOWED_RATE, HeaderValue::from_static("*")));
    }
    answer.finish()
}

async fn push(
    request: HttpRequest,
    state: Data<AppState>,
    path: Path<(String, String)>,
    payload: Payload,
) -> HttpResponse {
    let received_at = state.now();
    let Some(address) = door::token(&path.0) else {
        return text(StatusCode::NOT_FOUND, "not found");
    };
    // One byte more than is kept, so that a longer body is not read as whole JSON.
    let mut body = door::read_body(payload.into_inner(), limits::PING_BODY_BYTES + 1).await;
    let kind = kind(request.headers(), &body);
    body.truncate(limits::PING_BODY_BYTES);
    let received = Received {
        body,
        ..Received::new(received_at, address, kind)
    };
    match door::take(&request, &state, received).await {
        Outcome::Recorded => text(StatusCode::OK, "OK"),
        Outcome::Unknown(_) => text(StatusCode::NOT_FOUND, "not found"),
        Outcome::TooMany(_) => text(StatusCode::TOO_MANY_REQUESTS, "too many, try again later"),
        Outcome::TryAgain => text(StatusCode::SERVICE_UNAVAILABLE, "try again"),
    }
}

/// Returns what a webhook says.
fn kind(headers: &HeaderMap, body: &[u8]) -> PingKind {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let member = |name: &str| json.get(name).and_then(Value::as_str);
    if let Some(kind) = header("x-amz-sns-message-type") {
        // Whatever is not a notification reports nothing.
        return if kind == "Notification" {
            PingKind::Success
        } else {
            PingKind::Log
        };
    }
    let is_structured =
        header("content-type").is_some_and(|kind| kind.trim_start().starts_with("application/cloudevents"));
    let event = header("ce-type").or_else(|| member("type").filter(|_| is_structured));
    if let Some(event) = event {
        let end = event
            .rsplit(['.', '/', ':'])
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        return match end.as_str() {
            "start" | "started" | "begin" | "began" => PingKind::Start,
            "fail" | "failed" | "failure" | "error" => PingKind::Fail,
            "log" => PingKind::Log,
            _ => PingKind::Success,
        };
    }
    let is_of_alertmanager = json.get("alerts").is_some_and(Value::is_array);
    match member("status") {
        // The alert that always fires has ended: Prometheus no longer evaluates it.
        Some("resolved") if is_of_alertmanager => PingKind::Fail,
        _ => PingKind::Success,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn of(headers: &[(&'static str, &'static str)], body: &str) -> PingKind {
        let request = headers.iter().fold(TestRequest::default(), |request, header| {
            request.insert_header(*header)
        });
        kind(request.to_http_request().headers(), body.as_bytes())
    }

    #[test]
    fn each_webhook_says_what_its_product_means() {
        let sns = "x-amz-sns-message-type";
        let structured = ("content-type", "application/cloudevents+json; charset=utf-8");
        for (headers, body, wanted) in [
            (vec![], r#"{"status":"firing","alerts":[{}]}"#, PingKind::Success),
            (vec![], r#"{"status":"resolved","alerts":[{}]}"#, PingKind::Fail),
            // Not of Alertmanager.
            (vec![], r#"{"status":"resolved"}"#, PingKind::Success),
            (
                vec![(sns, "Notification")],
                r#"{"Type":"Notification"}"#,
                PingKind::Success,
            ),
            (vec![(sns, "SubscriptionConfirmation")], "{}", PingKind::Log),
            (vec![(sns, "UnsubscribeConfirmation")], "{}", PingKind::Log),
            (
                vec![(sns, "Nonsense")],
                r#"{"status":"resolved","alerts":[]}"#,
                PingKind::Log,
            ),
            (vec![("ce-type", "org.example.backup.failed")], "", PingKind::Fail),
            (
                vec![("ce-type", "org.example.backup.Started")],
                "",
                PingKind::Start,
            ),
            (vec![("ce-type", "org.example.backup")], "", PingKind::Success),
            (
                vec![structured],
                r#"{"specversion":"1.0","type":"backup/error"}"#,
                PingKind::Fail,
            ),
            (
                vec![structured],
                r#"{"specversion":"1.0","type":7}"#,
                PingKind::Success,
            ),
            // Without the type of CloudEvents, `type` means nothing.
            (vec![], r#"{"type":"backup.failed"}"#, PingKind::Success),
            (vec![], "no JSON", PingKind::Success),
            (vec![], "", PingKind::Success),
        ] {
            assert_eq!(of(&headers, body), wanted, "{headers:?} {body}");
        }
    }
}
