//! The page at `/`: what is wrong in a project and which commands to type. Below, the project's Beats and monitors, the worst first.

mod spell;

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;
use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{IncidentId, MonitorId, ProjectId};
use deadbeat_domain::incident::{Fact, Repair, SubjectKind};
use deadbeat_domain::judge::reception::Hold;
use deadbeat_domain::monitor::status::{ShownStatus, Status};
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::time::span;
use deadbeat_services::Site;
use deadbeat_services::operation::selfwatch::Readiness;
use deadbeat_store::celery::beat::{self, Beat};
use deadbeat_store::incident::member;
use deadbeat_store::incident::{self, Incident};
use deadbeat_store::monitor::{self, Monitor};
use deadbeat_store::page::Page;
use deadbeat_store::people::project::{self, Membership};
use deadbeat_store::{Reader, StoreResult};
use serde::Deserialize;
use uuid::Uuid;

use self::spell::Spell;
use super::worst_first::{self, Cursor, ORDER};
use crate::state::AppState;
use crate::web::format::{self, Moment};
use crate::web::people::session::SignedIn;
use crate::web::{Frame, PageError, html};

/// The most open incidents on the page. It does not count further ones.
const INCIDENTS: usize = 20;

/// The most members of an incident that are visible without a click.
const MEMBERS: usize = 12;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/")
            .route(web::get().to(index))
            .route(web::method(Method::HEAD).to(index))
            .default_service(web::to(|| async {
                Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD"))
            })),
    );
}

async fn index(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
) -> Result<HttpResponse, PageError> {
    let asked = Asked::of(&request)?;
    let (reader, now) = (state.reader(), state.now());
    let memberships = project::of_account(&reader, signed_in.account.id).await?;
    let Some(chosen) = choose(&memberships, asked.project, signed_in.remembered)? else {
        return Ok(html(
            StatusCode::OK,
            &NoProjectPage {
                frame: signed_in.frame(),
            },
        ));
    };
    let project_id = chosen.access.may(Action::Read)?;
    let seen = DashboardData::read(&reader, project_id, &asked, now).await?;
    let readiness = state.services.selfwatch().readiness(&reader, now).await;
    let page = IndexPage {
        frame: signed_in.frame(),
        now: Moment::at(now, now),
        site_url: state.services.site().url.clone(),
        evaluator: Evaluator::of(&readiness, now),
        spell: Spell::latest(&reader, now).await?,
        projects: ProjectLink::all(&memberships, chosen),
        project: chosen.project.name.clone(),
        project_id,
        view: View::of(seen, &asked, &chosen.access, state.services.site(), now),
    };
    Ok(html(StatusCode::OK, &page))
}

/// The parameters of the address.
#[derive(Debug, Default)]
struct Asked {
    project: Option<ProjectId>,
    only: Option<ShownStatus>,
    from: Option<Cursor>,
}

impl Asked {
    fn of(request: &HttpRequest) -> Result<Self, PageError> {
        #[derive(Deserialize)]
        struct Text {
            project: Option<Uuid>,
            status: Option<String>,
            cursor: Option<String>,
        }
        let text =
            Query::<Text>::from_query(request.query_string()).map_err(|_| PageError::NotFound("page"))?;
        let only = text
            .status
            .as_deref()
            .map(|status| ShownStatus::parse(status).ok_or(PageError::NotFound("status")));
        let from = text
            .cursor
            .as_deref()
            .map(|cursor| cursor.parse().map_err(|()| PageError::NotFound("page")));
        Ok(Self {
            project: text.project.map(ProjectId),
            only: only.transpose()?,
            from: from.transpose()?,
        })
    }
}

/// Returns the project in the address if the account is a member of it. Without one in the address, returns the project that the session remembers, or else
/// the account's first project. `None`: the account has no project.
pub(in crate::web) fn choose(
    memberships: &[Membership],
    asked: Option<ProjectId>,
    remembered: Option<ProjectId>,
) -> Result<Option<&Membership>, PageError> {
    let find = |id| memberships.iter().find(|one| one.project.id == id);
    match asked {
        Some(id) => find(id).map(Some).ok_or(PageError::NotFound("project")),
        // The account may have left the project since.
        None => Ok(remembered.and_then(find).or(memberships.first())),
    }
}

/// Returns the newest open incidents: those that the page shows, and one more.
async fn open_incidents(reader: &Reader, project: ProjectId) -> StoreResult<Vec<Incident>> {
    let open = incident::Filter {
        open: Some(true),
        ..incident::Filter::default()
    };
    let one_more = Page {
        after: None,
        limit: INCIDENTS as i64 + 1,
    };
    incident::list(reader, project, &open, one_more).await
}

/// Returns the open incidents on the dashboard. The page has an anchor `#incident-<id>` for each.
pub(in crate::web) async fn shown_incidents(
    reader: &Reader,
    project: ProjectId,
) -> StoreResult<Vec<IncidentId>> {
    let open = open_incidents(reader, project).await?;
    Ok(open
        .into_iter()
        .take(INCIDENTS)
        .map(|incident| incident.id)
        .collect())
}

/// The data that the page reads.
struct DashboardData {
    counts: [i64; 5],
    incidents: Vec<Incident>,
    members: Vec<(IncidentId, MonitorId, String)>,
    beats: Vec<Beat>,
    monitors: Vec<Monitor>,
    next: Option<Cursor>,
}

impl DashboardData {
    async fn read(
        reader: &Reader,
        project: ProjectId,
        asked: &Asked,
        now: DateTime<Utc>,
    ) -> StoreResult<Self> {
        let incidents = open_incidents(reader, project).await?;
        let ids: Vec<IncidentId> = incidents.iter().map(|incident| incident.id).collect();
        let (monitors, next) = worst_first::page(reader, project, asked.only, asked.from, now).await?;
        Ok(Self {
            counts: monitor::counts(reader, project, now).await?,
            members: member::members(reader, project, &ids).await?,
            incidents,
            beats: beat::list(reader, project).await?,
            monitors,
            next,
        })
    }
}

#[derive(Template)]
#[template(path = "dashboard/no_project.html")]
struct NoProjectPage {
    frame: Frame,
}

#[derive(Template)]
#[template(path = "dashboard/index.html")]
struct IndexPage {
    frame: Frame,
    now: Moment,
    site_url: String,
    evaluator: Evaluator,
    spell: Option<Spell>,
    projects: Vec<ProjectLink>,
    project: String,
    project_id: ProjectId,
    view: View,
}

/// Whether any process judges the monitors on the page, and if not, why.
pub(in crate::web) enum Evaluator {
    AtWork,
    NotYet,
    /// Judgement waits, because no process listens for pings.
    NobodyListens,
    /// Judgement waits until the spooled pings are in the database.
    Replays,
    /// Judgement waits for a lost listener, which may hold pings, but at the latest until this time.
    LostListener(Option<Moment>),
    SilentSince(Moment),
}

impl Evaluator {
    pub(in crate::web) fn of(readiness: &Readiness, now: DateTime<Utc>) -> Self {
        match readiness.hold(now) {
            Some(Hold::NobodyListens) => return Self::NobodyListens,
            Some(Hold::Spooled) => return Self::Replays,
            Some(Hold::LostListener) => {
                let until = readiness.pulse.and_then(|pulse| pulse.reception.waits_until);
                return Self::LostListener(until.map(|at| Moment::at(at, now)));
            }
            None => {}
        }
        match readiness.any_sweep_at() {
            // Any process may judge: this one may only serve pages.
            _ if readiness.is_judging(now) => Self::AtWork,
            Some(at) => Self::SilentSince(Moment::at(at, now)),
            None => Self::NotYet,
        }
    }
}

/// A link to one of the account's projects.
pub(in crate::web) struct ProjectLink {
    pub(in crate::web) id: ProjectId,
    pub(in crate::web) name: String,
    pub(in crate::web) current: bool,
}

impl ProjectLink {
    pub(in crate::web) fn all(memberships: &[Membership], chosen: &Membership) -> Vec<Self> {
        memberships
            .iter()
            .map(|one| Self {
                id: one.project.id,
                name: one.project.name.clone(),
                current: one.project.id == chosen.project.id,
            })
            .collect()
    }
}

/// All facts about one project, ready for the template.
struct View {
    headline: String,
    total: i64,
    counts: Vec<Count>,
    incidents: Vec<IncidentCard>,
    more_incidents: bool,
    beats: Vec<BeatRow>,
    monitors: Vec<MonitorRow>,
    sees_ping_urls: bool,
    only: Option<&'static str>,
    is_first_page: bool,
    next: Option<String>,
}

/// How many monitors have a status.
struct Count {
    status: &'static str,
    number: String,
    none: bool,
}

struct IncidentCard {
    id: IncidentId,
    cause: &'static str,
    cause_page: String,
    subject_kind: &'static str,
    subject: String,
    summary: String,
    since: Moment,
    acknowledged: Option<Moment>,
    acknowledged_by: Option<String>,
    evidence: Vec<FactRow>,
    repair: Vec<Repair>,
    member_count: String,
    members: Vec<String>,
    more_members: Vec<String>,
}

struct FactRow {
    at: Option<Moment>,
    fact: String,
}

struct BeatRow {
    name: String,
    host: Option<String>,
    status: &'static str,
    last_report: Option<Moment>,
    every: String,
}

struct MonitorRow {
    /// The link to the run history, for a monitor of a Beat's entry.
    history: Option<MonitorId>,
    status: &'static str,
    running: bool,
    name: String,
    tags: Vec<String>,
    beat: Option<String>,
    retired: bool,
    schedule: String,
    last_ping: Option<Moment>,
    due: Option<Moment>,
    overdue: bool,
    /// `None` if the account may not see the URL.
    ping_url: Option<String>,
}

impl View {
    fn of(seen: DashboardData, asked: &Asked, access: &Access, site: &Site, now: DateTime<Utc>) -> Self {
        let sees_ping_urls = access.may(Action::SeePingUrls).is_ok();
        let DashboardData {
            counts,
            mut incidents,
            members,
            mut beats,
            monitors,
            next,
        } = seen;
        let more_incidents = incidents.len() > INCIDENTS;
        incidents.truncate(INCIDENTS);
        // The newest first, but acknowledged incidents after the others.
        incidents.sort_by_key(|incident| incident.acknowledged_at.is_some());
        let total = counts.iter().sum();
        let monitors = monitors
            .into_iter()
            .map(|monitor| MonitorRow::of(monitor, &beats, sees_ping_urls.then_some(site), now))
            .collect();
        // Down before up; within each, by name as before.
        beats.sort_by_key(|beat| beat.state.status.as_str() != ShownStatus::Down.as_str());
        Self {
            headline: headline(total, incidents.len(), more_incidents),
            total,
            counts: Count::all(counts),
            incidents: incidents
                .into_iter()
                .map(|incident| IncidentCard::of(incident, &members, now))
                .collect(),
            more_incidents,
            beats: beats.into_iter().map(|beat| BeatRow::of(beat, now)).collect(),
            monitors,
            sees_ping_urls,
            only: asked.only.map(ShownStatus::as_str),
            is_first_page: asked.from.is_none(),
            next: next.map(|cursor| cursor.to_string()),
        }
    }

    /// Returns the number of monitors in words.
    fn monitor_count(&self) -> String {
        format::count(self.total, "monitor")
    }

    fn total_number(&self) -> String {
        format::grouped(self.total)
    }
}

fn headline(total: i64, incidents: usize, more: bool) -> String {
    match incidents {
        _ if more => format!("More than {INCIDENTS} incidents are open"),
        0 if total == 0 => "Nothing is watched yet".to_owned(),
        0 => "No open incidents".to_owned(),
        1 => "1 incident is open".to_owned(),
        incidents => format!("{incidents} incidents are open"),
    }
}

impl Count {
    /// Converts the store's order (new, up, late, down, paused) to the order on the page.
    fn all([new, up, late, down, paused]: [i64; 5]) -> Vec<Self> {
        let of = |status: ShownStatus| match status {
            ShownStatus::New => new,
            ShownStatus::Up => up,
            ShownStatus::Late => late,
            ShownStatus::Down => down,
            ShownStatus::Paused => paused,
        };
        ORDER
            .into_iter()
            .map(|status| Self {
                status: status.as_str(),
                number: format::grouped(of(status)),
                none: of(status) == 0,
            })
            .collect()
    }
}

impl IncidentCard {
    fn of(incident: Incident, members: &[(IncidentId, MonitorId, String)], now: DateTime<Utc>) -> Self {
        let mut names: Vec<String> = members
            .iter()
            .filter(|(id, ..)| *id == incident.id)
            .map(|(_, _, name)| name.clone())
            .collect();
        let member_count = format::count(i64::try_from(names.len()).unwrap_or(i64::MAX), "monitor");
        let more_members = names.split_off(MEMBERS.min(names.len()));
        let fact = |Fact { at, fact }| FactRow {
            at: at.map(|at| Moment::at(at, now)),
            fact,
        };
        Self {
            id: incident.id,
            cause: incident.cause.as_str(),
            cause_page: incident.cause.page(),
            subject_kind: match incident.subject.kind {
                SubjectKind::Monitor => "Monitor",
                SubjectKind::Beat => "Celery Beat",
                SubjectKind::Worker => "Worker",
                SubjectKind::Queue => "Queue",
                SubjectKind::Broker => "Broker",
                SubjectKind::ResultBackend => "Result backend",
                SubjectKind::Host => "Host",
            },
            subject: incident.subject.name,
            summary: incident.summary,
            since: Moment::at(incident.opened_at, now),
            acknowledged: incident.acknowledged_at.map(|at| Moment::at(at, now)),
            acknowledged_by: incident.acknowledged_by,
            evidence: incident.evidence.into_iter().map(fact).collect(),
            repair: incident.repair,
            member_count,
            members: names,
            more_members,
        }
    }
}

impl BeatRow {
    fn of(beat: Beat, now: DateTime<Utc>) -> Self {
        Self {
            name: beat.name,
            host: beat.host,
            status: beat.state.status.as_str(),
            last_report: beat.state.last_seen_at.map(|at| Moment::at(at, now)),
            every: format::span(span(beat.state.period_seconds)),
        }
    }
}

impl MonitorRow {
    fn of(monitor: Monitor, beats: &[Beat], site: Option<&Site>, now: DateTime<Utc>) -> Self {
        let state = monitor.state;
        let beat = beats.iter().find(|beat| Some(beat.id) == monitor.beat_id);
        // Nobody judges a paused monitor, so its due time does not matter.
        let due = state.next_due_at.filter(|_| state.status != Status::Paused);
        Self {
            status: ShownStatus::at(state.status, state.next_due_at, state.deadline_at.is_some(), now)
                .as_str(),
            history: monitor.entry.is_some().then_some(monitor.id),
            running: monitor.open_runs > 0,
            name: monitor.name,
            tags: monitor.tags,
            beat: beat.map(|beat| beat.name.clone()),
            retired: monitor.retired_at.is_some(),
            schedule: state.expectation.schedule.summary(),
            last_ping: state.last_ping_at.map(|at| Moment::at(at, now)),
            due: due.map(|at| Moment::at(at, now)),
            overdue: due.is_some_and(|at| at <= now),
            ping_url: site.map(|site| site.ping_url(monitor.ping_id)),
        }
    }
}
