//! The SDK's endpoint: a batch of events, optionally gzipped. Each event gets its own verdict.

use std::io::Read;
use std::sync::LazyLock;
use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::limits;
use deadbeat_services::ServiceError;
use deadbeat_services::celery::event::{self as service, EventBatch, Verdict};
use deadbeat_store::connection::asker::Asker;
use deadbeat_store::connection::turns::Turns;
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use tracing::Instrument;

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MaySignal;
use crate::extract::json;
use crate::extract::peer::client_ip;
use crate::problem::Problem;
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/events")
            .route(web::post().to(accept))
            .default_service(only("POST")),
    );
}

async fn accept(
    request: HttpRequest,
    key: MaySignal,
    state: Data<AppState>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    // Take the time when the batch arrives, before reading its body.
    let received_at = state.now();
    let body = json::read(&mut payload.into_inner(), limits::JSON_BODY_BYTES).await?;
    let is_packed = match request
        .headers()
        .get(header::CONTENT_ENCODING)
        .map(header::HeaderValue::as_bytes)
    {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => {
            return Err(ApiError::new(
                Problem::InvalidJson,
                "Content-Encoding is not gzip or identity",
            ));
        }
    };
    let MaySignal(project, access) = key;
    let batch = read_batch(project, body, is_packed).await?;
    // Finish even if the client disconnects: otherwise a Beat with thousands of entries could never register them all.
    let services = state.services.clone();
    let client = client_ip(&request, &state).map(|ip| ip.to_string());
    let work = async move {
        let accepting = service::accept(&services, &access, batch, received_at, client);
        Asker::Project(project).asks(accepting).await
    };
    let verdicts = tokio::spawn(work.in_current_span())
        .await
        .map_err(|error| ApiError::new(Problem::Internal, error.to_string()))??;
    let results: Vec<Value> = verdicts
        .into_iter()
        .map(|(id, verdict)| match verdict {
            Verdict::Accepted => json!({"id": id, "status": "accepted"}),
            Verdict::Received { samples, queues } => {
                json!({"id": id, "status": "accepted", "sample_queues": samples, "queues": queues})
            }
            Verdict::Ticked {
                samples,
                queues,
                attended,
            } => {
                json!({"id": id, "status": "accepted", "sample_queues": samples, "queues": queues, "attended_queues": attended})
            }
            Verdict::Rejected { code, detail } => {
                json!({"id": id, "status": "rejected", "code": code, "detail": detail})
            }
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({"results": results})))
}

/// Batches up to this size (unpacked, in bytes) are parsed on the threads that answer pings: that takes less than a millisecond.
const SMALL_BYTES: usize = 65_536;
/// Limits how many larger batches the process parses and handles at once: one may take a tenth of a second of CPU time, and much memory. Of the two
/// turns, a project gets one: a batch with thousands of entries takes seconds, and keeps its turn for that long. A batch of runs gives its turn back
/// once it has places in the queue of the history. A batch waits up to ten seconds for a turn.
static TURNS: LazyLock<Turns<ProjectId>> = LazyLock::new(|| Turns::new(2, 1, Duration::from_secs(10)));

/// Reads a batch. A batch that is not small needs a turn, which it keeps, and another thread parses it.
async fn read_batch(project: ProjectId, body: Vec<u8>, is_packed: bool) -> Result<EventBatch, ApiError> {
    let small = if !is_packed {
        (body.len() <= SMALL_BYTES).then(|| json::parse(&body))
    } else {
        // The unpacked size of a body is known only after unpacking.
        let unpacked = gunzip(&body, SMALL_BYTES)?;
        unpacked.map(|text| json::parse(&text))
    };
    if let Some(batch) = small {
        return batch;
    }
    let turn = TURNS.take(project).await.ok_or(ServiceError::Busy)?;
    let mut batch: EventBatch = web::block(move || {
        if !is_packed {
            return json::parse(&body);
        }
        let limit = limits::EVENT_BATCH_BYTES;
        match gunzip(&body, limit)? {
            Some(text) => json::parse(&text),
            None => Err(ApiError::new(
                Problem::BodyTooLarge,
                format!("at most {limit} bytes are unpacked"),
            )),
        }
    })
    .await
    .map_err(|error| ApiError::new(Problem::Internal, error.to_string()))??;
    batch.turn = Some(turn);
    Ok(batch)
}

/// Unpacks a body. Returns `None` if the unpacked body is larger than the limit; unpacking stops there.
fn gunzip(body: &[u8], limit: usize) -> Result<Option<Vec<u8>>, ApiError> {
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(body)
        .take(limit as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| ApiError::new(Problem::InvalidJson, format!("the body is not gzip: {error}")))?;
    Ok((unpacked.len() <= limit).then_some(unpacked))
}
