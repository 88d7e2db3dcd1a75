//! The page at `/runs/{id}`: a run with its stages.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;
use chrono::{DateTime, Utc};
use deadbeat_domain::celery::trace::Stage;
use deadbeat_store::celery::trace;
use deadbeat_store::celery::trace::history::Summary;
use serde::Deserialize;
use uuid::Uuid;

use super::{RunRow, Top, outcome_words, top};
use crate::state::AppState;
use crate::web::format::{self, Moment};
use crate::web::people::session::SignedIn;
use crate::web::{Frame, PageError, html, see_other};

#[derive(Debug, Deserialize)]
struct OfProject {
    project: Option<Uuid>,
}

#[derive(Template)]
#[template(path = "history/run.html")]
struct RunPage {
    frame: Frame,
    top: Top,
    run: RunRow,
    app: String,
    slot: Option<Moment>,
    eta: Option<Moment>,
    last_report: Moment,
    retries: i32,
    stages: Vec<StageRow>,
    more_stages: i32,
}

struct StageRow {
    moment: Moment,
    /// The time of day, to the millisecond.
    clock: String,
    /// The time since the first stage.
    after: String,
    what: String,
    worker: Option<String>,
    queue: Option<String>,
    retries: i32,
    /// The first characters of the attempt's id.
    attempt: Option<String>,
    more: Vec<String>,
}

impl StageRow {
    pub(super) fn of(stage: &Stage, first: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        use deadbeat_domain::celery::trace::StageKind;
        let what = match (stage.kind, stage.outcome) {
            (StageKind::Published, _) => "published".to_owned(),
            (StageKind::Received, _) => "received by a worker".to_owned(),
            (StageKind::Started, _) => "started".to_owned(),
            (StageKind::GivenUp, _) => "given up by Deadbeat".to_owned(),
            (StageKind::Retried, _) => "ended, to be retried".to_owned(),
            (StageKind::Finished, Some(outcome)) => format!("ended: {}", outcome_words(outcome)),
            (StageKind::Finished, None) => "ended".to_owned(),
        };
        let reported = [
            stage
                .duration_seconds
                .map(|took| format!("took {}", format::seconds(took))),
            stage.error.clone(),
            stage.redelivered.then(|| "delivered again".to_owned()),
            stage.soft.then(|| "soft limit".to_owned()),
            stage.pid.map(|pid| format!("process {pid}")),
        ];
        Self {
            moment: Moment::at(stage.at, now),
            clock: stage.at.format("%H:%M:%S%.3f").to_string(),
            after: format::seconds((stage.at - first).num_milliseconds() as f64 / 1_000.0),
            what,
            worker: stage.worker.clone(),
            queue: stage.queue.clone(),
            retries: stage.retries,
            attempt: stage
                .attempt
                .map(|attempt| attempt.simple().to_string().chars().take(8).collect()),
            more: reported.into_iter().flatten().collect(),
        }
    }
}

pub(super) async fn run(
    request: HttpRequest,
    path: Path<String>,
    state: Data<AppState>,
    signed_in: SignedIn,
) -> Result<HttpResponse, PageError> {
    let asked = Query::<OfProject>::from_query(request.query_string())
        .map_err(|_| PageError::NotFound("page"))?
        .into_inner();
    let id = Uuid::try_parse(&path).map_err(|_| PageError::NotFound("run"))?;
    let (reader, now) = (state.reader(), state.now());
    let Some(top) = top(&reader, &signed_in, asked.project).await? else {
        return Ok(see_other("/"));
    };
    let stored = trace::get(&reader, top.project_id, id).await?;
    let stored = stored.ok_or(PageError::NotFound("run"))?;
    let timeline = stored.trace.timeline();
    let first = timeline.first().map_or(now, |stage| stage.at);
    let summary = Summary::from(&stored);
    let page = RunPage {
        frame: signed_in.frame(),
        top,
        app: stored.app.clone(),
        slot: summary.slot.map(|at| Moment::at(at, now)),
        eta: summary.eta.map(|at| Moment::at(at, now)),
        last_report: Moment::at(summary.heard_at, now),
        retries: summary.retries,
        stages: timeline
            .into_iter()
            .map(|stage| StageRow::of(stage, first, now))
            .collect(),
        more_stages: stored.trace.more_stages,
        run: RunRow::of(summary, now),
    };
    Ok(html(StatusCode::OK, &page))
}
