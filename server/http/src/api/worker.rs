//! Celery workers, queues and brokers, as the SDK sees them.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use deadbeat_services::outbox::{instant, seconds};
use serde_json::{Value, json};

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::state::AppState;

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/workers")
                .route(web::get().to(workers))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/queues")
                .route(web::get().to(queues))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/brokers")
                .route(web::get().to(brokers))
                .default_service(only("GET")),
        );
}

async fn workers(key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let workers = deadbeat_store::worker::list(&state.reader(), key.0).await?;
    let workers: Vec<Value> = workers
        .iter()
        .map(|worker| {
            let said = |field: &str| worker.snapshot.get(field).unwrap_or(&Value::Null);
            json!({
                "id": worker.id,
                "app": worker.app,
                "name": worker.name,
                "status": worker.state.status,
                "project": said("project"),
                "trouble": worker.state.trouble,
                "trouble_since": worker.state.since.map(instant),
                "host": said("host"),
                "pid": said("pid"),
                "pool": said("pool"),
                "processes": said("processes"),
                "celery": said("celery"),
                "started_at": said("started_at"),
                "active": said("active"),
                "reserved": said("reserved"),
                "scheduled": said("scheduled"),
                "limited": said("limited"),
                "running": said("running"),
                "accepted": said("accepted"),
                "finished": said("finished"),
                "longest": said("longest"),
                "queues": worker.queues,
                "prefetch": said("prefetch"),
                "connected": said("connected"),
                "loop_lag_seconds": said("loop_lag_seconds"),
                "reconnects": said("reconnects"),
                "rss_bytes": said("rss_bytes"),
                "period_seconds": seconds(worker.state.period_seconds),
                "grace_seconds": seconds(worker.state.grace_seconds),
                "last_seen_at": worker.state.last_seen_at.map(instant),
                "progress_at": instant(worker.progress_at),
                "deadline_at": worker.state.deadline_at.map(instant),
                "created_at": instant(worker.created_at),
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({"workers": workers, "next_cursor": null})))
}

async fn queues(key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let queues = deadbeat_store::queue::list(&state.reader(), key.0).await?;
    let queues: Vec<Value> = queues
        .iter()
        .map(|queue| {
            json!({
                "id": queue.id,
                "app": queue.app,
                "name": queue.name,
                "status": queue.state.status,
                "trouble": queue.state.trouble,
                "trouble_since": queue.state.since.map(instant),
                "depth": queue.depth,
                "oldest_seconds": queue.oldest_seconds.map(seconds),
                "oldest_task": queue.oldest_task,
                "unacked": queue.unacked,
                "consumers": queue.consumers,
                "seen_at": instant(queue.seen_at),
                "created_at": instant(queue.created_at),
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({"queues": queues, "next_cursor": null})))
}

async fn brokers(key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let brokers = deadbeat_store::broker::list(&state.reader(), key.0).await?;
    let brokers: Vec<Value> = brokers
        .iter()
        .map(|broker| {
            let said = |field: &str| {
                let sample = broker.sample.as_ref();
                sample
                    .and_then(|sample| sample.get(field))
                    .unwrap_or(&Value::Null)
            };
            json!({
                "id": broker.id,
                "app": broker.app,
                "status": broker.state.status,
                "trouble": broker.state.trouble,
                "trouble_since": broker.state.since.map(instant),
                "transport": said("transport"),
                "reachable": said("reachable"),
                "error": said("error"),
                "maxmemory_policy": said("maxmemory_policy"),
                "visibility_timeout_seconds": said("visibility_timeout_seconds"),
                "unacked": said("unacked"),
                "oldest_unacked_seconds": said("oldest_unacked_seconds"),
                "sampler": broker.sampler,
                "sampled_at": broker.sampled_at.map(instant),
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({"brokers": brokers, "next_cursor": null})))
}
