//! Celery workers, queues and brokers, as the SDK reports them.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::{BrokerId, QueueId, WorkerId};
use deadbeat_domain::json::{instant, seconds};
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::worker::Worker;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::extract::paging::{Query, bounded};
use crate::state::AppState;

/// Mounts the routes.
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

async fn workers(
    request: HttpRequest,
    key: MayRead,
    state: Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let reader = state.reader();
    let (workers, next) = bounded(
        &page,
        |page| deadbeat_store::celery::worker::list(&reader, key.0, page.map(WorkerId)),
        |worker| (worker.id.0, show_worker(worker)),
    )
    .await?;
    Ok(HttpResponse::Ok().json(json!({"workers": workers, "next_cursor": next})))
}

fn show_worker(worker: &Worker) -> Value {
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
}

async fn queues(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let reader = state.reader();
    let (queues, next) = bounded(
        &page,
        |page| deadbeat_store::celery::queue::page(&reader, key.0, page.map(QueueId)),
        |queue| (queue.id.0, show_queue(queue)),
    )
    .await?;
    Ok(HttpResponse::Ok().json(json!({"queues": queues, "next_cursor": next})))
}

fn show_queue(queue: &Queue) -> Value {
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
}

async fn brokers(
    request: HttpRequest,
    key: MayRead,
    state: Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let reader = state.reader();
    let (brokers, next) = bounded(
        &page,
        |page| deadbeat_store::celery::broker::page(&reader, key.0, page.map(BrokerId)),
        |broker| (broker.id.0, show_broker(broker)),
    )
    .await?;
    Ok(HttpResponse::Ok().json(json!({"brokers": brokers, "next_cursor": next})))
}

fn show_broker(broker: &Broker) -> Value {
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
}
