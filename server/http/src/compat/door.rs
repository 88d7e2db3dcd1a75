//! What the dialects share: the body of a request, and the way of a report to the writers.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::web::Data;
use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::PingId;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::ping::PingKind;
use deadbeat_domain::monitor::{is_slug, slug_from_name};
use deadbeat_domain::people::access::Access;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address, Incoming};
use deadbeat_services::monitor::signal::ingest::IngestError;
use deadbeat_services::monitor::signal::request::Report;
use deadbeat_services::people::quota::TooManyPings;
use deadbeat_services::secret::digest;
use futures::StreamExt;
use uuid::Uuid;

use crate::extract::peer::client_ip;
use crate::extract::sender::sender;
use crate::request;
use crate::state::AppState;

/// The server discards bytes beyond the kept part up to this many, so that the client can finish sending and gets its answer.
const BODY_READ_BYTES: usize = 16_000_000;
/// The server waits this long for a body. It then works with what has arrived.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// Reads the first `most` bytes of a body and discards the rest. An error in the body does not matter: what has arrived counts.
pub(super) async fn read_body(mut payload: Payload, most: usize) -> Vec<u8> {
    let mut body = Vec::new();
    if matches!(payload, Payload::None) {
        return body;
    }
    let read = async {
        let mut total = 0;
        while let Some(Ok(chunk)) = payload.next().await {
            total += chunk.len();
            let wanted = most.saturating_sub(body.len()).min(chunk.len());
            body.extend_from_slice(&chunk[..wanted]);
            if total > BODY_READ_BYTES {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(BODY_WAIT, read).await;
    body
}

/// A report in a dialect, and when its request arrived.
#[derive(Debug, Clone)]
pub(super) struct Received {
    /// When the request arrived: taken before any slow step.
    pub(super) received_at: DateTime<Utc>,
    /// The monitor, and its report.
    pub(super) report: Report,
    /// The length of the run by the client's own clock.
    pub(super) duration: Option<TimeDelta>,
    /// The text to keep with the ping.
    pub(super) body: Vec<u8>,
}

impl Received {
    /// A report without a run id, a duration and a text.
    pub(super) fn new(received_at: DateTime<Utc>, address: Address, kind: PingKind) -> Self {
        Self {
            received_at,
            report: Report {
                address,
                kind,
                exit_code: None,
                run_id: None,
            },
            duration: None,
            body: Vec::new(),
        }
    }
}

/// Reads the token of a push URL: a monitor's ping id, with or without hyphens.
pub(super) fn token(text: &str) -> Option<Address> {
    let is_uuid = matches!(text.len(), 32 | 36);
    let id = Uuid::try_parse(text).ok().filter(|_| is_uuid)?;
    Some(Address::Ping(PingId(id)))
}

/// Makes the slug of a monitor from the name that another product gave it. A name that is a slug stays as it is. Any other name gets a suffix, because
/// names that differ must be watched separately: `a.b` and `a b` would both become `a-b`.
pub(super) fn slug_of(name: &str) -> String {
    if is_slug(name) {
        return name.to_owned();
    }
    let suffix: String = digest(name)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut slug = slug_from_name(name);
    slug.truncate(limits::SLUG_CHARS - suffix.len() - 1);
    format!("{}-{suffix}", slug.trim_end_matches('-'))
}

/// Returns the first value of a parameter in the query.
pub(super) fn parameter(request: &HttpRequest, name: &str) -> Option<String> {
    url::form_urlencoded::parse(request.query_string().as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// What became of a report. Each dialect answers it in its own shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is written and committed.
    Recorded,
    /// No monitor has the address, or the limits of the ping key refuse the report. With the access of the ping key, if the key is valid here.
    Unknown(Option<Access>),
    /// The sender has used up its quota. The server counted the report and recorded nothing.
    TooMany(TimeDelta),
    /// Too many reports wait, or the database cannot be reached.
    TryAgain,
}

/// Passes a report through the door of all pings: the quotas, the queue, the writers and the spool.
pub(super) async fn take(request: &HttpRequest, state: &Data<AppState>, received: Received) -> Outcome {
    let Received {
        received_at,
        report,
        duration,
        mut body,
    } = received;
    request::is_ping();
    let quotas = state.services.quotas();
    if let Err(TooManyPings { wait }) = quotas.admit_ping(&report.address, received_at) {
        let client = client_ip(request, state);
        request::span().in_scope(|| state.services.note_flood(&report.address, client));
        return Outcome::TooMany(wait);
    }
    if !quotas.admit_body(&report.address, body.len(), received_at) {
        body = Vec::new();
    }
    let mut incoming = Incoming::from_request(received_at, report, sender(request, state), body);
    incoming.signal.duration = duration;
    match state.services.ingest().accept(incoming).await {
        Ok(Accepted::Recorded) => Outcome::Recorded,
        Ok(Accepted::Unknown { access }) => {
            Outcome::Unknown(access.map(|access| access.from(client_ip(request, state))))
        }
        Ok(Accepted::Refused(_)) => Outcome::Unknown(None),
        Err(IngestError::Full | IngestError::Unavailable) => Outcome::TryAgain,
    }
}
