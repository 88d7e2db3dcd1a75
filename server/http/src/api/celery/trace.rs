//! The history of runs: search, the stages of one run, and statistics of each task's runs.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::trace::{Stage, TraceState, run_id_of};
use deadbeat_domain::ids::MonitorId;
use deadbeat_domain::json::{instant, seconds};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::clip;
use deadbeat_domain::time::read_instant;
use deadbeat_store::celery::trace::history::{Filter, Place, Summary};
use deadbeat_store::celery::trace::task::TaskStats;
use deadbeat_store::page::Page;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::extract::paging::{Query, cut};
use crate::problem::Problem;
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/runs")
                .route(web::get().to(list))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/runs/{id}")
                .route(web::get().to(read))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/tasks")
                .route(web::get().to(tasks))
                .default_service(only("GET")),
        );
}

/// The parameters that filter and page the list of runs.
const PARAMETERS: [&str; 10] = [
    "limit",
    "cursor",
    "task",
    "task_id",
    "state",
    "worker",
    "queue",
    "monitor_id",
    "from",
    "to",
];

fn show(run: &Summary) -> Value {
    json!({
        "run_id": run.run_id,
        "app": run.app,
        "entry": run.entry,
        "monitor_id": run.monitor_id,
        "task": run.task,
        "task_id": run.task_id,
        "state": run.state.as_str(),
        "queue": run.queue,
        "worker": run.worker,
        "slot": run.slot.map(instant),
        "eta": run.eta.map(instant),
        "published_at": run.published_at.map(instant),
        "received_at": run.received_at.map(instant),
        "started_at": run.started_at.map(instant),
        "finished_at": run.finished_at.map(instant),
        "wait_seconds": run.wait_seconds.map(seconds),
        "run_seconds": run.run_seconds.map(seconds),
        "attempts": run.attempts,
        "retries": run.retries,
        "redelivered": run.redelivered,
        "error": run.error,
        "heard_first_at": instant(run.heard_first_at),
        "heard_at": instant(run.heard_at),
    })
}

fn show_stage(stage: &Stage) -> Value {
    json!({
        "event_id": stage.id,
        "kind": stage.kind.as_str(),
        "at": instant(stage.at),
        "retries": stage.retries,
        "attempt": stage.attempt,
        "worker": stage.worker,
        "queue": stage.queue,
        "redelivered": stage.redelivered,
        "pid": stage.pid,
        "outcome": stage.outcome.map(deadbeat_domain::celery::trace::Outcome::as_str),
        "soft": stage.soft,
        "duration_seconds": stage.duration_seconds.map(seconds),
        "error": stage.error,
    })
}

/// Reads an instant from a query.
fn moment(query: &Query, name: &str) -> Result<Option<DateTime<Utc>>, ApiError> {
    let read = |text: &str| {
        read_instant(text).ok_or_else(|| {
            let allowed = "a time like 2026-03-29T00:00:00Z is allowed";
            ApiError::new(
                Problem::InvalidQuery,
                format!("{name} is {:?}; {allowed}", clip(text)),
            )
        })
    };
    query.get(name).map(read).transpose()
}

fn filter(query: &Query) -> Result<Filter, ApiError> {
    let states = match query.get("state") {
        None => None,
        Some(name) => {
            let states = TraceState::named(name);
            if states.is_empty() {
                return Err(ApiError::new(
                    Problem::InvalidQuery,
                    "state is not open, failed, or a state of a run",
                ));
            }
            Some(states)
        }
    };
    let text = |name: &str| query.get(name).map(str::to_owned);
    Ok(Filter {
        task: text("task"),
        run_id: query.get("task_id").map(run_id_of),
        states,
        worker: text("worker"),
        queue: text("queue"),
        monitor_id: query.parse("monitor_id", "the id of a monitor")?.map(MonitorId),
        from: moment(query, "from")?,
        to: moment(query, "to")?,
    })
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let query = Query::of(&request, &PARAMETERS)?;
    let page = query.page::<Place>()?;
    let filter = filter(&query)?;
    let one_more = Page {
        after: page.after,
        limit: page.limit + 1,
    };
    let examined = limits::TRACES_EXAMINED;
    let (rows, go_on) =
        deadbeat_store::celery::trace::history::list(&state.reader(), key.0, &filter, one_more, examined)
            .await?;
    let (rows, next) = cut(rows, page.limit, |run| run.place().to_string());
    // The page is not full, but the search has not yet read all runs. The client continues from there.
    let next = next.or(go_on.map(|place| place.to_string()));
    let runs: Vec<Value> = rows.iter().map(show).collect();
    Ok(HttpResponse::Ok().json(json!({"runs": runs, "next_cursor": next})))
}

async fn read(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let run: Uuid = id(&path, "run")?;
    let stored = deadbeat_store::celery::trace::get(&state.reader(), key.0, run).await?;
    let stored = stored.ok_or_else(|| ApiError::not_found("run"))?;
    let mut shown = show(&Summary::from(&stored));
    let stages: Vec<Value> = stored.trace.timeline().into_iter().map(show_stage).collect();
    shown["stages"] = Value::Array(stages);
    shown["more_stages"] = json!(stored.trace.more_stages);
    Ok(HttpResponse::Ok().json(shown))
}

async fn tasks(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let query = Query::of(&request, &["from", "to"])?;
    let to = moment(&query, "to")?.unwrap_or_else(|| state.now());
    let from = moment(&query, "from")?.unwrap_or(to - TimeDelta::hours(1));
    let stats = deadbeat_store::celery::trace::task::tasks(&state.reader(), key.0, from, to).await?;
    let minutes = stats.minutes(state.now());
    let tasks: Vec<Value> = stats.tasks.iter().map(|task| show_task(task, minutes)).collect();
    Ok(HttpResponse::Ok().json(
        json!({"tasks": tasks, "from": instant(stats.from), "to": instant(stats.to), "runs": stats.examined}),
    ))
}

fn show_task(task: &TaskStats, minutes: f64) -> Value {
    json!({
        "task": task.task,
        "runs": task.runs,
        "runs_per_minute": seconds(task.runs as f64 / minutes),
        "ended": task.ended,
        "failed": task.failed,
        "failure_ratio": task.failure_ratio().map(seconds),
        "wait_p50_seconds": task.wait_p50.map(seconds),
        "wait_p95_seconds": task.wait_p95.map(seconds),
        "run_p50_seconds": task.run_p50.map(seconds),
        "run_p95_seconds": task.run_p95.map(seconds),
        "last_heard_first_at": instant(task.last_heard_first_at),
    })
}
