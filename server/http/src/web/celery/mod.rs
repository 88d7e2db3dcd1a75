//! The page at `/celery`: the Beats, brokers, queues and workers of a project, by Celery application, the worst first.
//!
//! A project may have thousands of workers. Therefore the store counts the workers, and the page reads only some of them; it shows the number of
//! the others.

pub mod history;
mod part;
mod seen;

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;
use chrono::{DateTime, Utc};
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::worker::Worker;
use serde::Deserialize;
use uuid::Uuid;

use self::part::{BeatCard, BrokerCard, LeftWorker, QueueRow, WorkerRow};
use self::seen::{CeleryPageData, Need, Subjects};
use super::format::{self, Moment};
use super::{Frame, PageError, html, see_other};
use crate::state::AppState;
use crate::web::celery::history::{Top, top};
use crate::web::monitor::dashboard::Evaluator;
use crate::web::people::session::SignedIn;

/// The most applications on the page.
const APPS: usize = 20;

/// How many subjects of each kind the page shows for an application.
#[derive(Clone, Copy)]
struct Limits {
    queues: usize,
    workers: usize,
    left: usize,
}

/// The limits if the page shows all applications.
const OF_MANY: Limits = Limits {
    queues: 25,
    workers: 50,
    left: 20,
};
/// The limits if the page shows one application.
const OF_ONE: Limits = Limits {
    queues: 200,
    workers: 250,
    left: 100,
};

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/celery")
            .route(web::get().to(index))
            .route(web::method(Method::HEAD).to(index))
            .default_service(web::to(|| async {
                Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD"))
            })),
    );
}

#[derive(Debug, Deserialize)]
struct Asked {
    project: Option<Uuid>,
    app: Option<String>,
}

#[derive(Template)]
#[template(path = "celery/index.html")]
struct CeleryPage {
    frame: Frame,
    now: Moment,
    top: Top,
    site_url: String,
    evaluator: Evaluator,
    headline: String,
    /// The application in the address.
    only: Option<String>,
    apps: Vec<App>,
    /// Names of applications that the page does not show.
    more_apps: Vec<String>,
    /// The number of further applications, which the page does not name.
    unnamed_apps: usize,
}

async fn index(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
) -> Result<HttpResponse, PageError> {
    let asked = Query::<Asked>::from_query(request.query_string())
        .map_err(|_| PageError::NotFound("page"))?
        .into_inner();
    let (reader, now) = (state.reader(), state.now());
    let Some(top) = top(&reader, &signed_in, asked.project).await? else {
        return Ok(see_other("/"));
    };
    let known = Subjects::read(&reader, top.project_id).await?;
    let mut names = known.apps();
    if let Some(app) = &asked.app {
        names.retain(|name| name == app);
        if names.is_empty() {
            return Err(PageError::NotFound("application"));
        }
    }
    let more_apps = names.split_off(APPS.min(names.len()));
    let limits = if names.len() == 1 { OF_ONE } else { OF_MANY };
    let seen = CeleryPageData::read(&reader, top.project_id, known, &names, limits).await?;
    let readiness = state.services.selfwatch().readiness(&reader, now).await;
    let page = CeleryPage {
        frame: signed_in.frame(),
        now: Moment::at(now, now),
        site_url: state.services.site().url.clone(),
        evaluator: Evaluator::of(&readiness, now),
        headline: seen.known.headline(asked.app.as_deref()),
        apps: names
            .into_iter()
            .map(|name| App::of(name, &seen, limits, now))
            .collect(),
        unnamed_apps: more_apps.len().saturating_sub(APPS),
        more_apps: more_apps.into_iter().take(APPS).collect(),
        only: asked.app,
        top,
    };
    Ok(html(StatusCode::OK, &page))
}

/// One application, ready for the template.
struct App {
    name: String,
    beat: Option<BeatCard>,
    broker: Option<BrokerCard>,
    queues: Vec<QueueRow>,
    more_queues: i64,
    workers: Vec<WorkerRow>,
    more_workers: i64,
    left: Vec<LeftWorker>,
    left_count: i64,
    more_left: i64,
}

impl App {
    fn of(name: String, seen: &CeleryPageData, limits: Limits, now: DateTime<Utc>) -> Self {
        let known = &seen.known;
        let mut queues: Vec<&Queue> = known.queues.iter().filter(|queue| queue.app == name).collect();
        queues.sort_by_key(|queue| {
            let need = Need::of(queue.state.status, queue.state.trouble.is_some());
            (need, -queue.depth)
        });
        let more_queues = queues.len().saturating_sub(limits.queues) as i64;
        queues.truncate(limits.queues);
        let (left, workers): (Vec<&Worker>, Vec<&Worker>) = seen
            .workers
            .iter()
            .filter(|worker| worker.app == name)
            .partition(|worker| worker.state.status == Status::Paused);
        let count_of = |wants_left: bool| -> i64 {
            let counts = known.workers.iter().filter(|count| count.app == name);
            counts
                .filter(|count| (count.status == Status::Paused) == wants_left)
                .map(|count| count.workers)
                .sum()
        };
        let left_count = count_of(true);
        Self {
            beat: known.beats.iter().find(|beat| beat.name == name).map(|beat| {
                BeatCard::of(
                    beat,
                    &seen.said(beat.id.0, beat.state.trouble, beat.state.since),
                    now,
                )
            }),
            broker: known
                .brokers
                .iter()
                .find(|broker| broker.app == name)
                .map(|broker| {
                    let state = &broker.state;
                    BrokerCard::of(broker, &seen.said(broker.id.0, state.trouble, state.since), now)
                }),
            queues: queues
                .into_iter()
                .map(|queue| {
                    let said = seen.said(queue.id.0, queue.state.trouble, queue.state.since);
                    let consumers = seen
                        .consumers
                        .iter()
                        .filter(|consumers| consumers.app == name && consumers.queue == queue.name);
                    QueueRow::of(queue, consumers, &said, now)
                })
                .collect(),
            more_queues,
            more_workers: count_of(false) - workers.len() as i64,
            workers: workers
                .into_iter()
                .map(|worker| {
                    let state = &worker.state;
                    WorkerRow::of(worker, &seen.said(worker.id.0, state.trouble, state.since), now)
                })
                .collect(),
            more_left: left_count - left.len() as i64,
            left: left
                .into_iter()
                .map(|worker| LeftWorker::of(worker, now))
                .collect(),
            left_count,
            name,
        }
    }
}
