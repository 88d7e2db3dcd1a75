//! The page at `/tasks`: statistics of each task's runs.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;
use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::ProjectId;
use deadbeat_store::celery::trace::task;
use deadbeat_store::celery::trace::task::TaskStats;
use serde::Deserialize;
use uuid::Uuid;

use super::{Search, Top, top};
use crate::state::AppState;
use crate::web::format::{self, Moment};
use crate::web::people::session::SignedIn;
use crate::web::{Frame, PageError, html, see_other};

/// The stretches that the page offers: their hours and their names.
const STRETCHES: [(u32, &str); 4] = [(1, "hour"), (6, "6 hours"), (24, "day"), (168, "7 days")];

#[derive(Debug, Deserialize)]
struct Stretch {
    project: Option<Uuid>,
    hours: Option<u32>,
}

#[derive(Template)]
#[template(path = "history/tasks.html")]
struct TasksPage {
    frame: Frame,
    now: Moment,
    top: Top,
    stretches: Vec<StretchLink>,
    tasks: Vec<TaskRow>,
    run_count: String,
    from: Moment,
    /// True if the stretch has more runs than the page reads.
    is_cut: bool,
}

struct StretchLink {
    hours: u32,
    words: &'static str,
    chosen: bool,
}

struct TaskRow {
    name: Option<String>,
    /// The address of the list of the task's runs.
    link: String,
    failed_link: String,
    runs: String,
    rate: String,
    failed: i64,
    failure: Option<String>,
    wait: Option<(String, String)>,
    ran: Option<(String, String)>,
    last: Moment,
}

impl TaskRow {
    pub(super) fn of(task: TaskStats, project: ProjectId, minutes: f64, now: DateTime<Utc>) -> Self {
        let search = |state: &str| {
            Search {
                task: task.task.clone().unwrap_or_default(),
                state: state.to_owned(),
                ..Search::default()
            }
            .address(project, None)
        };
        let pair = |p50: Option<f64>, p95: Option<f64>| Some((format::seconds(p50?), format::seconds(p95?)));
        Self {
            link: search(""),
            failed_link: search("failed"),
            runs: format::grouped(task.runs),
            rate: format::decimal(task.runs as f64 / minutes),
            failed: task.failed,
            failure: task
                .failure_ratio()
                .map(|ratio| format!("{} %", format::decimal(ratio * 100.0))),
            wait: pair(task.wait_p50, task.wait_p95),
            ran: pair(task.run_p50, task.run_p95),
            last: Moment::at(task.last_heard_first_at, now),
            name: task.task,
        }
    }
}

pub(super) async fn tasks(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
) -> Result<HttpResponse, PageError> {
    let asked = Query::<Stretch>::from_query(request.query_string())
        .map_err(|_| PageError::NotFound("page"))?
        .into_inner();
    let hours = asked.hours.unwrap_or(1);
    if !STRETCHES.iter().any(|(stretch, _)| *stretch == hours) {
        return Err(PageError::NotFound("page"));
    }
    let (reader, now) = (state.reader(), state.now());
    let Some(top) = top(&reader, &signed_in, asked.project).await? else {
        return Ok(see_other("/"));
    };
    let asked_from = now - TimeDelta::hours(i64::from(hours));
    let seen = task::tasks(&reader, top.project_id, asked_from, now).await?;
    let minutes = seen.minutes(now);
    let page = TasksPage {
        frame: signed_in.frame(),
        now: Moment::at(now, now),
        stretches: STRETCHES
            .map(|(stretch, words)| StretchLink {
                hours: stretch,
                words,
                chosen: stretch == hours,
            })
            .into(),
        run_count: format::count(seen.examined, "run"),
        from: Moment::at(seen.from, now),
        is_cut: seen.from > asked_from,
        tasks: seen
            .tasks
            .into_iter()
            .map(|task| TaskRow::of(task, top.project_id, minutes, now))
            .collect(),
        top,
    };
    Ok(html(StatusCode::OK, &page))
}
