//! The ping URLs: plain text, one line. They are wire-compatible with Healthchecks, but fix two of its faults. No header, method or body can lose
//! a ping, and an OPTIONS request of a browser is not a ping.
//!
//! ```text
//! /ping/<uuid>             /ping/<ping key>/<slug>          also at the root, with and without a slash at the end
//!     …/start  …/fail  …/log  …/<exit code 0–255>           ?rid=<uuid>
//!                                                           ?create=1&cron=&tz=&period=&grace=&tags=   (slug URLs)
//! ```
//!
//! Beside these URLs are those by which deploy scripts snooze alerts: [`snooze`].

mod limited;
mod snooze;

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use chrono::TimeDelta;
use deadbeat_domain::ids::PingId;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::is_slug;
use deadbeat_domain::monitor::ping::PingKind;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::key;
use deadbeat_domain::people::permission::Action;
use deadbeat_services::ServiceError;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address, Incoming};
use deadbeat_services::monitor::signal::ingest::IngestError;
use deadbeat_services::monitor::signal::request::Report;
use deadbeat_services::monitor::{self, Change};
use deadbeat_services::people::quota::TooManyPings;
use deadbeat_store::StoreError;
use deadbeat_store::connection::asker::Asker;
use futures::StreamExt;
use serde_json::json;
use tracing::Instrument;
use uuid::Uuid;

use self::limited::limited;
use crate::error::{RETRY_AFTER_SECONDS, retry_after};
use crate::extract::peer::client_ip;
use crate::extract::sender::sender;
use crate::middleware::security_headers::add_security_headers;
use crate::request;
use crate::state::AppState;

/// Mounts `/ping/…`. A plain prefix, because matching a pattern with a regular expression took a tenth of a ping's time.
pub fn configure(config: &mut ServiceConfig) {
    config.service(web::scope("/ping").default_service(web::route().to(receive)));
}

/// Mounts the ping URLs at the root, for paths that no other route matches.
pub fn configure_root(config: &mut ServiceConfig) {
    config.default_service(web::route().to(receive_at_root));
}

/// The server reads this many bytes of a body. It discards bytes beyond the kept part, so that the client can finish sending and gets its answer.
const BODY_READ_BYTES: usize = 16_000_000;
/// The server waits this long for a body. It then records the ping without the rest.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// The header by which each acknowledgement says how many bytes of a body the server keeps.
const PING_BODY_LIMIT: HeaderName = HeaderName::from_static("ping-body-limit");

// Values of an acknowledgement's headers. They are constants, so that the server need not validate them for each ping.
const WHOLE_BODY: HeaderValue = HeaderValue::from_static("100000");
const NO_BODY: HeaderValue = HeaderValue::from_static("0");
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NEVER_KEPT: HeaderValue =
    HeaderValue::from_static("max-age=0, no-cache, no-store, must-revalidate, private");
const ANYBODY: HeaderValue = HeaderValue::from_static("*");

/// The contents of a ping URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    address: TargetAddress,
    kind: PingKind,
    exit_code: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TargetAddress {
    Uuid(Uuid),
    Slug { key: String, slug: String },
}

/// Why the server refuses a ping URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NotFound,
    InvalidUrl,
}

/// Parses the path behind `/ping/`.
fn parse(tail: &str) -> Result<Target, Refusal> {
    let tail = tail.strip_suffix('/').unwrap_or(tail);
    let segments: Vec<&str> = tail.split('/').collect();
    let uuid = |text: &str| {
        if text.len() == 36 {
            Uuid::try_parse(text).ok()
        } else {
            None
        }
    };
    let (address, action) = match segments[..] {
        [id] => (TargetAddress::Uuid(uuid(id).ok_or(Refusal::NotFound)?), None),
        [id, action] if uuid(id).is_some() => {
            let Some(id) = uuid(id) else {
                return Err(Refusal::NotFound);
            };
            (TargetAddress::Uuid(id), Some(action))
        }
        [key, slug] => (slug_address(key, slug)?, None),
        [key, slug, action] => (slug_address(key, slug)?, Some(action)),
        _ => return Err(Refusal::NotFound),
    };
    let (kind, exit_code) = match action {
        None => (PingKind::Success, None),
        Some("start") => (PingKind::Start, None),
        Some("fail") => (PingKind::Fail, None),
        Some("log") => (PingKind::Log, None),
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let code: u8 = digits.parse().map_err(|_| Refusal::InvalidUrl)?;
            (PingKind::from_exit_code(code), Some(code))
        }
        Some(_) => return Err(Refusal::NotFound),
    };
    Ok(Target {
        address,
        kind,
        exit_code,
    })
}

fn slug_address(key: &str, slug: &str) -> Result<TargetAddress, Refusal> {
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !plain(key) || !plain(slug) {
        return Err(Refusal::NotFound);
    }
    if !is_slug(slug) {
        return Err(Refusal::InvalidUrl);
    }
    Ok(TargetAddress::Slug {
        key: key.to_owned(),
        slug: slug.to_owned(),
    })
}

async fn receive(request: HttpRequest, state: Data<AppState>, payload: web::Payload) -> HttpResponse {
    let tail = request.match_info().unprocessed();
    let tail = tail.strip_prefix('/').unwrap_or(tail);
    let is_https = state.is_https;
    let mut answer = answer(&request, state, payload.into_inner(), tail).await;
    add_security_headers(&mut answer, is_https);
    answer
}

/// Handles ping URLs at the root. Any other path there is not found.
async fn receive_at_root(request: HttpRequest, state: Data<AppState>, payload: web::Payload) -> HttpResponse {
    let tail = request.path().trim_start_matches('/');
    let looks_like_ping = match parse(tail) {
        Ok(Target {
            address: TargetAddress::Uuid(_),
            ..
        }) => true,
        Ok(Target {
            address: TargetAddress::Slug { key, .. },
            ..
        }) => key::is_plausible(&key),
        Err(Refusal::InvalidUrl) => tail.split('/').next().is_some_and(|first| {
            key::is_plausible(first) || (first.len() == 36 && Uuid::try_parse(first).is_ok())
        }),
        Err(Refusal::NotFound) => snooze::parse(tail).is_some(),
    };
    if looks_like_ping {
        request::is_ping();
        return answer(&request, state, payload.into_inner(), tail).await;
    }
    text(StatusCode::NOT_FOUND, "not found")
}

fn text(status: StatusCode, line: &'static str) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .body(line)
}

fn cors(answer: &mut HttpResponseBuilder) -> &mut HttpResponseBuilder {
    answer.insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY))
}

/// Makes the acknowledgement of a ping. It says how many bytes of the body the server keeps.
fn acknowledged(status: StatusCode, line: &'static str, keeps_body: bool) -> HttpResponse {
    let kept = if keeps_body { WHOLE_BODY } else { NO_BODY };
    cors(&mut HttpResponse::build(status))
        .insert_header((header::CONTENT_TYPE, PLAIN_TEXT))
        .insert_header((PING_BODY_LIMIT, kept))
        .insert_header((header::CACHE_CONTROL, NEVER_KEPT))
        .body(line)
}

fn try_again(line: &'static str) -> HttpResponse {
    HttpResponse::ServiceUnavailable()
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::RETRY_AFTER, RETRY_AFTER_SECONDS))
        .body(line)
}

/// Makes the answer to a sender that has used up its quota. The server does not record these pings.
fn too_many(wait: TimeDelta) -> HttpResponse {
    HttpResponse::TooManyRequests()
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::RETRY_AFTER, retry_after(wait)))
        .body("too many, try again later")
}

async fn answer(request: &HttpRequest, state: Data<AppState>, payload: Payload, tail: &str) -> HttpResponse {
    // Take the time before any slow step, so that a busy database never makes a ping late.
    let received_at = state.now();
    match *request.method() {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::OPTIONS => {}
        _ => {
            return HttpResponse::MethodNotAllowed()
                .insert_header((header::ALLOW, "GET, HEAD, POST, PUT, OPTIONS"))
                .content_type("text/plain; charset=utf-8")
                .body("method not allowed: GET, HEAD, POST and PUT are");
        }
    }
    let is_preflight = *request.method() == Method::OPTIONS;
    let target = match parse(tail) {
        Ok(target) => target,
        Err(Refusal::InvalidUrl) if is_preflight => return text(StatusCode::NOT_FOUND, "not found"),
        Err(Refusal::NotFound) => {
            return match snooze::parse(tail) {
                // Boxed, because this is rare: otherwise the future of every ping would be larger, and moving it would cost more.
                Some(order) => Box::pin(snooze::answer(request, &state, order)).await,
                None => text(StatusCode::NOT_FOUND, "not found"),
            };
        }
        Err(Refusal::InvalidUrl) => return text(StatusCode::BAD_REQUEST, "invalid url format"),
    };
    // A browser's preflight gets an answer and is not a ping.
    if is_preflight {
        return cors(&mut HttpResponse::NoContent())
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT"))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, "600"))
            .finish();
    }
    // Ignore a query that cannot be decoded: the path alone identifies the ping.
    let query = match request.query_string() {
        "" => Vec::new(),
        text => web::Query::<Vec<(String, String)>>::from_query(text)
            .map(web::Query::into_inner)
            .unwrap_or_default(),
    };
    let parameter = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let run_id = match parameter("rid") {
        None => None,
        Some(rid) if rid.len() == 36 => match Uuid::try_parse(rid) {
            Ok(rid) => Some(rid),
            Err(_) => return text(StatusCode::BAD_REQUEST, "invalid uuid format"),
        },
        Some(_) => return text(StatusCode::BAD_REQUEST, "invalid uuid format"),
    };
    let creates = parameter("create") == Some("1");

    let address = match &target.address {
        TargetAddress::Uuid(id) => Address::Ping(PingId(*id)),
        TargetAddress::Slug { key, slug } => Address::slug(key, slug),
    };
    let quotas = state.services.quotas();
    if let Err(TooManyPings { wait }) = quotas.admit_ping(&address, received_at) {
        request::span().in_scope(|| state.services.note_flood(&address, client_ip(request, &state)));
        return too_many(wait);
    }
    let mut body = read_body(payload).await;
    let keeps_body = quotas.admit_body(&address, body.len(), received_at);
    if !keeps_body {
        // The server still records the ping.
        body = Vec::new();
    }
    let report = Report {
        address,
        kind: target.kind,
        exit_code: target.exit_code,
        run_id,
    };
    let incoming = Incoming::from_request(received_at, report, sender(request, &state), body);

    // A copy, to ping with once the monitor exists. Only requests with `create=1` need one.
    let again = creates.then(|| incoming.clone());
    match state.services.ingest().accept(incoming).await {
        Ok(Accepted::Recorded) => acknowledged(StatusCode::OK, "OK", keeps_body),
        Ok(Accepted::Unknown { access: Some(access) }) => {
            let (TargetAddress::Slug { slug, .. }, Some(again)) = (&target.address, again) else {
                return text(StatusCode::NOT_FOUND, "not found");
            };
            let access = access.from(client_ip(request, &state));
            // Boxed, because this is rare: otherwise the future of every ping would be larger, and moving it would cost more.
            let creating = create_and_ping(&state, access, slug, &query, again, keeps_body);
            let creating = Box::pin(creating.instrument(request::span()));
            match access.may(Action::Signal) {
                Ok(project) => Asker::Project(project).asks(creating).await,
                Err(_) => text(StatusCode::NOT_FOUND, "not found"),
            }
        }
        Ok(Accepted::Unknown { .. }) => text(StatusCode::NOT_FOUND, "not found"),
        Ok(Accepted::Refused(fault)) => limited(fault),
        Err(IngestError::Full) => try_again("busy, try again"),
        Err(IngestError::Unavailable) => try_again("database away, try again"),
    }
}

/// Reads the part of a body that the server keeps, and discards the rest. An error in the body does not matter: the ping has arrived.
async fn read_body(mut payload: Payload) -> Vec<u8> {
    let mut body = Vec::new();
    // Most pings have no body and need no timer.
    if matches!(payload, Payload::None) {
        return body;
    }
    let read = async {
        let mut total = 0;
        while let Some(Ok(chunk)) = payload.next().await {
            total += chunk.len();
            let wanted = limits::PING_BODY_BYTES
                .saturating_sub(body.len())
                .min(chunk.len());
            body.extend_from_slice(&chunk[..wanted]);
            if total > BODY_READ_BYTES {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(BODY_WAIT, read).await;
    body
}

/// Handles `create=1`: creates the monitor that the URL describes, then pings it.
async fn create_and_ping(
    state: &Data<AppState>,
    access: Access,
    slug: &str,
    query: &[(String, String)],
    incoming: Box<Incoming>,
    keeps_body: bool,
) -> HttpResponse {
    let change = match change_from_query(slug, query) {
        Ok(change) => change,
        Err(line) => {
            return HttpResponse::BadRequest()
                .content_type("text/plain; charset=utf-8")
                .body(line);
        }
    };
    let created = match monitor::create_by_ping(&state.services, &access, &change).await {
        Ok(_) => true,
        // Another request has created it in the meantime.
        Err(ServiceError::SlugTaken(_)) => false,
        Err(ServiceError::Invalid(faults)) => {
            let faults: Vec<String> = faults
                .iter()
                .map(|fault| format!("{} {}", fault.pointer.trim_start_matches('/'), fault.message))
                .collect();
            return HttpResponse::BadRequest()
                .content_type("text/plain; charset=utf-8")
                .body(faults.join("; "));
        }
        Err(ServiceError::KeyFault(fault)) => return limited(fault),
        Err(ServiceError::Limit { .. } | ServiceError::Refused(_)) => {
            return text(StatusCode::NOT_FOUND, "not found");
        }
        Err(ServiceError::TooMany { retry_after, .. }) => return too_many(retry_after),
        Err(ServiceError::Busy | ServiceError::Store(StoreError::Crowded)) => {
            return try_again("busy, try again");
        }
        Err(error) => {
            tracing::warn!(error = %deadbeat_store::with_sources(&error), "a monitor could not be created by its ping URL");
            return try_again("database away, try again");
        }
    };
    match state.services.ingest().accept(incoming).await {
        Ok(Accepted::Recorded) if created => acknowledged(StatusCode::CREATED, "Created", keeps_body),
        Ok(Accepted::Recorded) => acknowledged(StatusCode::OK, "OK", keeps_body),
        Ok(Accepted::Unknown { .. }) => text(StatusCode::NOT_FOUND, "not found"),
        Ok(Accepted::Refused(fault)) => limited(fault),
        Err(_) => try_again("database away, try again"),
    }
}

/// Reads the settings of a new monitor from the query. The defaults are those of Healthchecks: a period of one day, and an hour of grace.
fn change_from_query(slug: &str, query: &[(String, String)]) -> Result<Change, String> {
    let parameter = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let seconds = |name: &str| {
        parameter(name)
            .map(|text| {
                text.parse::<f64>()
                    .map_err(|_| format!("{name} is {text:?}; a number of seconds is allowed"))
            })
            .transpose()
    };
    let timezone = parameter("tz").unwrap_or("UTC");
    let schedule = match (parameter("cron").or(parameter("schedule")), seconds("period")?) {
        (Some(_), Some(_)) => return Err("cron and period exclude one another".to_owned()),
        (Some(expression), None) => json!({"kind": "cron", "expression": expression, "timezone": timezone}),
        (None, period) => json!({"kind": "interval", "seconds": period.unwrap_or(86_400.0)}),
    };
    Ok(Change {
        name: Some(slug.to_owned()),
        slug: Some(slug.to_owned()),
        schedule: Some(schedule),
        grace_seconds: Some(seconds("grace")?.unwrap_or(3_600.0)),
        tags: parameter("tags").map(|tags| {
            tags.split([' ', ','])
                .filter(|tag| !tag.is_empty())
                .map(str::to_owned)
                .collect()
        }),
        ..Change::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0fe1ed0a-6d3c-4fa8-9f0b-7f1b0ae8d2f5";

    #[test]
    fn an_acknowledgement_names_the_limit_that_holds() {
        let answer = acknowledged(StatusCode::OK, "OK", true);
        let kept = answer.headers().get(PING_BODY_LIMIT).unwrap();
        assert_eq!(kept.to_str().unwrap(), limits::PING_BODY_BYTES.to_string());
    }

    #[test]
    fn ping_urls_say_what_they_say() {
        for (tail, kind, code) in [
            (ID.to_owned(), PingKind::Success, None),
            (format!("{ID}/"), PingKind::Success, None),
            (format!("{ID}/start"), PingKind::Start, None),
            (format!("{ID}/start/"), PingKind::Start, None),
            (format!("{ID}/fail"), PingKind::Fail, None),
            (format!("{ID}/log"), PingKind::Log, None),
            (format!("{ID}/0"), PingKind::Success, Some(0)),
            (format!("{ID}/255"), PingKind::Fail, Some(255)),
            ("some-key/a-slug".to_owned(), PingKind::Success, None),
            ("some-key/a-slug/7".to_owned(), PingKind::Fail, Some(7)),
            ("some-key/start".to_owned(), PingKind::Success, None),
        ] {
            let target = parse(&tail).unwrap();
            assert_eq!((target.kind, target.exit_code), (kind, code), "{tail}");
        }
    }

    #[test]
    fn other_paths_are_refused_as_healthchecks_refuses_them() {
        for (tail, refusal) in [
            (String::new(), Refusal::NotFound),
            ("x".to_owned(), Refusal::NotFound),
            (ID.replace('-', ""), Refusal::NotFound),
            (format!("{ID}/foo"), Refusal::NotFound),
            (format!("{ID}/256"), Refusal::InvalidUrl),
            (format!("{ID}/99999999999999999999"), Refusal::InvalidUrl),
            (format!("{ID}/-1"), Refusal::NotFound),
            ("key/Slug".to_owned(), Refusal::InvalidUrl),
            ("key/sl%20ug".to_owned(), Refusal::NotFound),
            ("key/slug/start/more".to_owned(), Refusal::NotFound),
            ("//".to_owned(), Refusal::NotFound),
        ] {
            assert_eq!(parse(&tail), Err(refusal), "{tail}");
        }
    }
}
