//! The SDK's door: a batch of events, gzip allowed, each with a verdict of its own.

use std::io::Read;

use actix_web::http::header;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::FieldError;
use deadbeat_services::event::{self as service, EventBatch, Verdict};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayPing;
use crate::extract::client_ip::client_ip;
use crate::extract::json;
use crate::problem::Problem;
use crate::state::AppState;

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/events")
            .route(web::post().to(accept))
            .default_service(only("POST")),
    );
}

async fn accept(
    request: HttpRequest,
    key: MayPing,
    state: Data<AppState>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    // Stamped when the batch entered, before its body is read.
    let received_at = state.now();
    let body = json::read(&mut payload.into_inner(), limits::JSON_BODY_BYTES).await?;
    let body = match request
        .headers()
        .get(header::CONTENT_ENCODING)
        .map(header::HeaderValue::as_bytes)
    {
        None | Some(b"identity") => body,
        Some(b"gzip") => gunzip(&body)?,
        Some(_) => {
            return Err(ApiError::new(
                Problem::InvalidJson,
                "Content-Encoding is not gzip or identity",
            ));
        }
    };
    let mut batch: EventBatch = json::parse(&body)?;
    batch.key = Some(key.1);
    if batch.events.len() > limits::EVENT_BATCH_COUNT {
        return Err(ApiError::fields(vec![FieldError::new(
            "/events",
            format!(
                "holds {} events; at most {} are allowed",
                batch.events.len(),
                limits::EVENT_BATCH_COUNT
            ),
        )]));
    }
    // A client that hangs up does not undo it: a Beat with thousands of entries would otherwise never get them all registered.
    let (services, project, client) = (
        state.services.clone(),
        key.0,
        client_ip(&request, &state).map(|ip| ip.to_string()),
    );
    let work =
        tokio::spawn(async move { service::accept(&services, project, batch, received_at, client).await });
    let verdicts = work
        .await
        .map_err(|error| ApiError::new(Problem::Internal, error.to_string()))??;
    let results: Vec<Value> = verdicts
        .into_iter()
        .map(|(id, verdict)| match verdict {
            Verdict::Accepted => json!({"id": id, "status": "accepted"}),
            Verdict::Heard { samples, queues } => {
                json!({"id": id, "status": "accepted", "sample_queues": samples, "queues": queues})
            }
            Verdict::Rejected { code, detail } => {
                json!({"id": id, "status": "rejected", "code": code, "detail": detail})
            }
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({"results": results})))
}

/// Unpacks a body, up to a limit: a small body must not become a large memory.
fn gunzip(body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let limit = limits::EVENT_BATCH_BYTES;
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(body)
        .take(limit as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| ApiError::new(Problem::InvalidJson, format!("the body is no gzip: {error}")))?;
    if unpacked.len() > limit {
        return Err(ApiError::new(
            Problem::BodyTooLarge,
            format!("at most {limit} bytes are unpacked"),
        ));
    }
    Ok(unpacked)
}
