//! The history of runs: a search at `/runs`, a run with its stages at `/runs/{id}`, and statistics of each task's runs
//! at `/tasks`.

mod run_page;
mod tasks_page;

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource};
use askama::Template;
use chrono::{DateTime, NaiveDateTime, Utc};
use deadbeat_domain::celery::trace::{Outcome, TraceState, run_id_of};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::limits::TRACES_EXAMINED;
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::text::is_plain;
use deadbeat_domain::time::read_instant;
use deadbeat_store::celery::trace::history;
use deadbeat_store::celery::trace::history::{Filter, Place, Summary};
use deadbeat_store::page::Page;
use deadbeat_store::people::project;
use deadbeat_store::{Reader, StoreResult, monitor};
use serde::Deserialize;
use uuid::Uuid;

use self::run_page::run;
use self::tasks_page::tasks;
use crate::state::AppState;
use crate::web::format::{self, Moment};
use crate::web::monitor::dashboard::{ProjectLink, choose};
use crate::web::people::session::SignedIn;
use crate::web::{Frame, PageError, html, see_other};

/// Number of runs on one page.
const RUNS: usize = 50;
/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    let only_get = |resource: Resource| {
        resource.default_service(web::to(|| async {
            Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD"))
        }))
    };
    config
        .service(only_get(
            web::resource("/runs")
                .route(web::get().to(runs))
                .route(web::method(Method::HEAD).to(runs)),
        ))
        .service(only_get(
            web::resource("/runs/{id}")
                .route(web::get().to(run))
                .route(web::method(Method::HEAD).to(run)),
        ))
        .service(only_get(
            web::resource("/tasks")
                .route(web::get().to(tasks))
                .route(web::method(Method::HEAD).to(tasks)),
        ));
}

/// The top of each of these pages.
pub(in crate::web) struct Top {
    pub(in crate::web) projects: Vec<ProjectLink>,
    pub(in crate::web) project: String,
    pub(in crate::web) project_id: ProjectId,
}

/// Returns the project in the address if the account is a member of it, or `None` if the account has no project.
pub(in crate::web) async fn top(
    reader: &Reader,
    signed_in: &SignedIn,
    asked: Option<Uuid>,
) -> Result<Option<Top>, PageError> {
    let memberships = project::of_account(reader, signed_in.account.id).await?;
    let Some(chosen) = choose(&memberships, asked.map(ProjectId), signed_in.remembered)? else {
        return Ok(None);
    };
    Ok(Some(Top {
        projects: ProjectLink::all(&memberships, chosen),
        project: chosen.project.name.clone(),
        project_id: chosen.access.may(Action::Read)?,
    }))
}

/// The search, as the form sends it. Empty fields are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Search {
    project: Option<Uuid>,
    task: String,
    task_id: String,
    state: String,
    worker: String,
    queue: String,
    monitor: Option<Uuid>,
    from: String,
    to: String,
    cursor: Option<String>,
}

impl Search {
    /// Returns the filter of this search. The error names the unreadable field.
    fn filter(&self) -> Result<Filter, String> {
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        for value in [&self.task, &self.task_id, &self.worker, &self.queue] {
            if !is_plain(value) {
                return Err("A text contains a character that no name can contain.".to_owned());
            }
        }
        let states = match text(&self.state) {
            None => None,
            Some(name) => {
                let states = TraceState::named(&name);
                if states.is_empty() {
                    return Err(format!("There is no state {name:?}."));
                }
                Some(states)
            }
        };
        let moment = |what: &str, given: &str| match text(given) {
            None => Ok(None),
            Some(given) => read_moment(&given).map(Some).ok_or_else(|| {
                format!("{what:?} is {given:?}; a time in UTC like 2026-03-01T14:00 is allowed.")
            }),
        };
        Ok(Filter {
            task: text(&self.task),
            run_id: text(&self.task_id).map(|id| run_id_of(&id)),
            states,
            worker: text(&self.worker),
            queue: text(&self.queue),
            monitor_id: self.monitor.map(MonitorId),
            from: moment("From", &self.from)?,
            to: moment("To", &self.to)?,
        })
    }

    fn is_empty(&self) -> bool {
        let texts = [
            &self.task,
            &self.task_id,
            &self.state,
            &self.worker,
            &self.queue,
            &self.from,
            &self.to,
        ];
        self.monitor.is_none() && texts.iter().all(|text| text.trim().is_empty())
    }

    /// Returns the address of the same search, starting at a place in the list.
    fn address(&self, project: ProjectId, from: Option<Place>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("project", &project.to_string());
        for (name, value) in [
            ("task", &self.task),
            ("task_id", &self.task_id),
            ("state", &self.state),
            ("worker", &self.worker),
            ("queue", &self.queue),
            ("from", &self.from),
            ("to", &self.to),
        ] {
            if !value.trim().is_empty() {
                query.append_pair(name, value.trim());
            }
        }
        if let Some(monitor) = self.monitor {
            query.append_pair("monitor", &monitor.to_string());
        }
        if let Some(from) = from {
            query.append_pair("cursor", &from.to_string());
        }
        format!("/runs?{}", query.finish())
    }
}

/// Reads RFC 3339, or the form of a browser's field for a time, which counts as UTC.
fn read_moment(text: &str) -> Option<DateTime<Utc>> {
    let local = || {
        let text = text.replace(' ', "T");
        ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(&text, form).ok())
            .and_then(|at| read_instant(&format!("{}Z", at.format("%Y-%m-%dT%H:%M:%S"))))
    };
    read_instant(text).or_else(local)
}

#[derive(Template)]
#[template(path = "history/runs.html")]
struct RunsPage {
    frame: Frame,
    now: Moment,
    top: Top,
    search: Search,
    states: Vec<StateChoice>,
    /// The error about the unreadable field, if there is one.
    fault: Option<String>,
    monitor: Option<String>,
    runs: Vec<RunRow>,
    is_first_page: bool,
    first: String,
    next: Option<String>,
    examined: String,
}

struct StateChoice {
    value: &'static str,
    words: &'static str,
    chosen: bool,
}

struct RunRow {
    id: Uuid,
    name: String,
    task_id: Option<String>,
    entry: Option<String>,
    state: &'static str,
    icon: &'static str,
    first_report: Moment,
    wait: Option<String>,
    ran: Option<String>,
    worker: Option<String>,
    queue: Option<String>,
    attempts: i32,
    redelivered: bool,
    error: Option<String>,
}

impl RunRow {
    fn of(run: Summary, now: DateTime<Utc>) -> Self {
        Self {
            id: run.run_id,
            name: run.task.unwrap_or_else(|| "a task without a name".to_owned()),
            task_id: run.task_id,
            entry: run.entry,
            state: words(run.state),
            icon: icon(run.state),
            first_report: Moment::at(run.heard_first_at, now),
            wait: run.wait_seconds.map(format::seconds),
            ran: run.run_seconds.map(format::seconds),
            worker: run.worker,
            queue: run.queue,
            attempts: run.attempts,
            redelivered: run.redelivered,
            error: run.error,
        }
    }
}

/// Returns a state in words.
fn words(state: TraceState) -> &'static str {
    match state {
        TraceState::Published => "in its queue",
        TraceState::Received => "with a worker",
        TraceState::Started => "running",
        TraceState::Retried => "to be retried",
        TraceState::Ended(outcome) => outcome_words(outcome),
    }
}

fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::RetriesExhausted => "retries exhausted",
        Outcome::TimeLimit => "time limit",
        Outcome::Success
        | Outcome::Ignored
        | Outcome::Failure
        | Outcome::Rejected
        | Outcome::Aborted
        | Outcome::Revoked
        | Outcome::Expired
        | Outcome::Lost => outcome.as_str(),
    }
}

/// Returns a state's icon. `parts/status.html` draws it.
fn icon(state: TraceState) -> &'static str {
    match state {
        TraceState::Published | TraceState::Received => "paused",
        TraceState::Started => "new",
        TraceState::Retried => "late",
        TraceState::Ended(outcome) if outcome.is_failure() => "down",
        TraceState::Ended(_) => "up",
    }
}

fn state_choices(chosen: &str) -> Vec<StateChoice> {
    let groups = [("", "any"), ("open", "not ended"), ("failed", "ended badly")];
    let each = TraceState::OPEN
        .into_iter()
        .chain(Outcome::ALL.map(TraceState::Ended))
        .map(|state| (state.as_str(), words(state)));
    groups
        .into_iter()
        .chain(each)
        .map(|(value, words)| StateChoice {
            value,
            words,
            chosen: value == chosen.trim(),
        })
        .collect()
}

async fn runs(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
) -> Result<HttpResponse, PageError> {
    let search = Query::<Search>::from_query(request.query_string())
        .map_err(|_| PageError::NotFound("page"))?
        .into_inner();
    let after: Option<Place> = search
        .cursor
        .as_deref()
        .map(|cursor| cursor.parse().map_err(|()| PageError::NotFound("page")))
        .transpose()?;
    let (reader, now) = (state.reader(), state.now());
    let Some(top) = top(&reader, &signed_in, search.project).await? else {
        return Ok(see_other("/"));
    };
    let (fault, found) = match search.filter() {
        Err(fault) => (Some(fault), Found::default()),
        Ok(filter) => (None, Found::read(&reader, top.project_id, &filter, after).await?),
    };
    let monitor = match search.monitor {
        None => None,
        Some(id) => {
            let found = monitor::get(&reader, top.project_id, MonitorId(id)).await?;
            Some(found.map_or_else(|| "a deleted monitor".to_owned(), |monitor| monitor.name))
        }
    };
    let page = RunsPage {
        frame: signed_in.frame(),
        now: Moment::at(now, now),
        states: state_choices(&search.state),
        fault,
        monitor,
        runs: found.runs.into_iter().map(|run| RunRow::of(run, now)).collect(),
        is_first_page: after.is_none(),
        first: search.address(top.project_id, None),
        next: found.next.map(|next| search.address(top.project_id, Some(next))),
        examined: format::grouped(TRACES_EXAMINED),
        top,
        search,
    };
    Ok(html(StatusCode::OK, &page))
}

#[derive(Default)]
struct Found {
    runs: Vec<Summary>,
    next: Option<Place>,
}

impl Found {
    async fn read(
        reader: &Reader,
        project: ProjectId,
        filter: &Filter,
        after: Option<Place>,
    ) -> StoreResult<Self> {
        let page = Page {
            after,
            limit: RUNS as i64 + 1,
        };
        let (mut runs, go_on) = history::list(reader, project, filter, page, TRACES_EXAMINED).await?;
        if runs.len() > RUNS {
            runs.truncate(RUNS);
            let next = runs.last().map(Summary::place);
            return Ok(Self { runs, next });
        }
        Ok(Self { runs, next: go_on })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_a_browser_or_a_person_writes_it() {
        for (text, at) in [
            ("2026-03-01T14:00", Some("2026-03-01T14:00:00Z")),
            ("2026-03-01T14:00:05", Some("2026-03-01T14:00:05Z")),
            ("2026-03-01 14:00", Some("2026-03-01T14:00:00Z")),
            ("2026-03-01T14:00:00+02:00", Some("2026-03-01T12:00:00Z")),
            ("yesterday", None),
            ("+262142-01-01T00:00", None),
        ] {
            assert_eq!(read_moment(text), at.map(|at| at.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_search_that_cannot_be_read_says_what_is_wrong_with_it() {
        for (search, word) in [
            (
                Search {
                    state: "great".to_owned(),
                    ..Search::default()
                },
                "great",
            ),
            (
                Search {
                    from: "noon".to_owned(),
                    ..Search::default()
                },
                "noon",
            ),
            (
                Search {
                    worker: "a\0".to_owned(),
                    ..Search::default()
                },
                "character",
            ),
        ] {
            assert!(search.filter().unwrap_err().contains(word));
        }
        let search = Search {
            task: " a&b ".to_owned(),
            state: "failed".to_owned(),
            ..Search::default()
        };
        let project = ProjectId(Uuid::nil());
        assert_eq!(
            search.address(project, None),
            format!("/runs?project={}&task=a%26b&state=failed", Uuid::nil())
        );
        assert!(!search.is_empty() && Search::default().is_empty());
        assert_eq!(
            search.filter().unwrap().states.map(|states| states.len()),
            Some(8)
        );
    }
}
