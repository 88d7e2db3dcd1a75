//! Checks: the object, the list, and new ones.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{ChannelId, MonitorId, PingId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::status::ShownStatus;
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::schedule::Schedule;
use deadbeat_services::monitor::healthchecks::{Extra, create_or_update};
use deadbeat_store::alert::channel::{self, Channel};
use deadbeat_store::connection::turns::{Turn, Turns};
use deadbeat_store::monitor::{Filter, Monitor, healthchecks as stored, settings};
use deadbeat_store::page::Page;
use serde::Serialize;
use sha1::{Digest, Sha1};

use super::answer::{Answer, away, iso, json, of_json, of_service, of_store, written};
use super::badge;
use super::key::{Caller, caller, caller_and_body};
use super::spec::Spec;
use crate::state::AppState;

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Its checks have the status `started`.
    V1,
    /// Its slugs follow the names.
    V2,
    /// The present one.
    V3,
}

impl Version {
    /// The path of its root.
    pub(super) fn root(self) -> &'static str {
        match self {
            Self::V1 => "/api/v1",
            Self::V2 => "/api/v2",
            Self::V3 => "/api/v3",
        }
    }
}

/// A check, with the fields in Healthchecks' order.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    name: String,
    slug: String,
    tags: String,
    desc: String,
    grace: i64,
    n_pings: i64,
    status: &'static str,
    started: bool,
    last_ping: Option<String>,
    next_ping: Option<String>,
    manual_resume: bool,
    methods: &'static str,
    subject: String,
    subject_fail: String,
    start_kw: String,
    success_kw: String,
    failure_kw: String,
    filter_subject: bool,
    filter_body: bool,
    filter_http_body: bool,
    filter_default_fail: bool,
    badge_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_duration: Option<i64>,
    #[serde(flatten)]
    address: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tz: Option<String>,
}

/// How the caller finds the check again.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Address {
    Known {
        uuid: String,
        ping_url: String,
        update_url: String,
        pause_url: String,
        resume_url: String,
        channels: String,
    },
    Hidden {
        unique_key: String,
    },
}

/// The name of a check for those who may not ping it: the SHA-1 of the first half of its uuid.
pub(super) fn unique_key(id: PingId) -> String {
    let digits = id.0.simple().to_string();
    let digest = Sha1::digest(&digits.as_bytes()[..16]);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an object shows beside its monitor.
pub(super) struct Beside {
    extra: HashMap<MonitorId, Extra>,
    chosen: HashMap<MonitorId, Vec<ChannelId>>,
    all: Vec<ChannelId>,
}

impl Beside {
    /// Reads it for these monitors.
    pub(super) async fn of(
        state: &AppState,
        caller: &Caller,
        monitors: &[Monitor],
    ) -> Result<Self, HttpResponse> {
        let reader = state.reader();
        let ids: Vec<MonitorId> = monitors.iter().map(|monitor| monitor.id).collect();
        let extra = stored::settings(&reader, caller.project, &ids)
            .await
            .map_err(|failed| of_store(&failed))?;
        let mut beside = Self {
            extra: extra
                .into_iter()
                .map(|(id, json)| (id, serde_json::from_value(json).unwrap_or_default()))
                .collect(),
            chosen: HashMap::new(),
            all: Vec::new(),
        };
        if caller.is_readonly() {
            return Ok(beside);
        }
        if monitors.iter().any(|monitor| monitor.all_channels) {
            let channels = channels(state, caller.project).await?;
            beside.all = channels.iter().map(|channel| channel.id).collect();
        }
        let some: Vec<MonitorId> = monitors
            .iter()
            .filter(|monitor| !monitor.all_channels)
            .map(|monitor| monitor.id)
            .collect();
        if !some.is_empty() {
            let pairs = settings::channels(&reader, caller.project, &some)
                .await
                .map_err(|failed| of_store(&failed))?;
            for (monitor, channel) in pairs {
                beside.chosen.entry(monitor).or_default().push(channel);
            }
        }
        Ok(beside)
    }

    fn channels(&self, monitor: &Monitor) -> String {
        let ids = if monitor.all_channels {
            Some(&self.all)
        } else {
            self.chosen.get(&monitor.id)
        };
        let mut texts: Vec<String> = ids.into_iter().flatten().map(|id| id.0.to_string()).collect();
        texts.sort();
        texts.join(",")
    }
}

/// The channels of a project, oldest first.
pub(super) async fn channels(state: &AppState, project: ProjectId) -> Result<Vec<Channel>, HttpResponse> {
    let page = Page {
        after: None,
        limit: limits::PROJECT_CHANNELS,
    };
    let mut found = channel::list(&state.reader(), project, page)
        .await
        .map_err(|failed| of_store(&failed))?;
    found.reverse();
    Ok(found)
}

impl Check {
    /// Shows a monitor.
    pub(super) fn of(
        state: &AppState,
        caller: &Caller,
        monitor: &Monitor,
        beside: &Beside,
        version: Version,
        now: DateTime<Utc>,
    ) -> Self {
        let rules = &monitor.state;
        let extra = beside.extra.get(&monitor.id).cloned().unwrap_or_default();
        let shown = ShownStatus::at(rules.status, rules.next_due_at, rules.deadline_at.is_some(), now);
        let started = monitor.open_runs > 0;
        let status = match shown {
            ShownStatus::Down => "down",
            _ if started && version == Version::V1 => "started",
            ShownStatus::New => "new",
            ShownStatus::Up => "up",
            ShownStatus::Late => "grace",
            ShownStatus::Paused => "paused",
        };
        let expects = !matches!(shown, ShownStatus::Down | ShownStatus::Paused);
        let (timeout, schedule, tz) = shown_schedule(&rules.expectation.schedule);
        let subject = |text: &str| {
            if extra.filter_subject {
                text.to_owned()
            } else {
                String::new()
            }
        };
        Self {
            name: monitor.name.clone(),
            slug: monitor.slug.clone(),
            tags: monitor.tags.join(" "),
            grace: rules.expectation.grace_seconds.ceil() as i64,
            n_pings: rules.ping_count,
            status,
            started,
            last_ping: rules.last_ping_at.map(iso),
            next_ping: rules.next_due_at.filter(|_| expects).map(iso),
            manual_resume: false,
            methods: "",
            subject: subject(&extra.success_kw),
            subject_fail: subject(&extra.failure_kw),
            filter_http_body: false,
            badge_url: badge::of_monitor(state, caller.project, monitor.id),
            last_duration: rules
                .last_duration
                .filter(|length| !length.is_zero())
                .map(|length| length.num_seconds()),
            address: if caller.is_readonly() {
                Address::Hidden {
                    unique_key: unique_key(monitor.ping_id),
                }
            } else {
                known_address(state, monitor, beside, version)
            },
            timeout,
            schedule,
            tz,
            desc: extra.desc,
            start_kw: extra.start_kw,
            success_kw: extra.success_kw,
            failure_kw: extra.failure_kw,
            filter_subject: extra.filter_subject,
            filter_body: extra.filter_body,
            filter_default_fail: extra.filter_default_fail,
        }
    }
}

fn known_address(state: &AppState, monitor: &Monitor, beside: &Beside, version: Version) -> Address {
    let site = state.services.site();
    let uuid = monitor.ping_id.0.to_string();
    let url = format!("{}{}/checks/{uuid}", site.url, version.root());
    Address::Known {
        ping_url: site.ping_url(monitor.ping_id),
        pause_url: format!("{url}/pause"),
        resume_url: format!("{url}/resume"),
        update_url: url,
        channels: beside.channels(monitor),
        uuid,
    }
}

/// The `timeout` of an interval, or the `schedule` and `tz` of all else. Healthchecks has no solar events and no schedules of Beat alone: these
/// show what we show to people.
fn shown_schedule(schedule: &Schedule) -> (Option<i64>, Option<String>, Option<String>) {
    if let Schedule::Interval(interval) = schedule {
        return (Some(interval.seconds().ceil() as i64), None, None);
    }
    let json = schedule.to_json();
    let text = match schedule {
        Schedule::Celery(_) => CRONTAB.map(|field| json[field].as_str().unwrap_or("*")).join(" "),
        _ => json["expression"]
            .as_str()
            .map_or_else(|| schedule.summary(), str::to_owned),
    };
    (None, Some(text), Some(schedule.timezone().name().to_owned()))
}

/// The members of Celery's schedule, in the order of a crontab's fields.
const CRONTAB: [&str; 5] = ["minute", "hour", "day_of_month", "month_of_year", "day_of_week"];

/// Answers with one check.
pub(super) async fn show(
    state: &AppState,
    caller: &Caller,
    monitor: Monitor,
    version: Version,
    status: u16,
) -> Answer {
    let monitors = [monitor];
    let beside = Beside::of(state, caller, &monitors).await?;
    let [monitor] = &monitors;
    let check = Check::of(state, caller, monitor, &beside, version, state.now());
    Ok(json(status, &check))
}

/// A list has at most so many checks, the newest. Healthchecks allows an account as many.
const MOST_CHECKS: i64 = 10_000;

/// Limits how many long answers the process makes at once, in all and for one project.
static TURNS: LazyLock<Turns<ProjectId>> =
    LazyLock::new(|| Turns::new(2, 1, Duration::from_secs(10)).with_queue(50));

/// Waits until the project may ask for a long answer.
pub(super) async fn turn(project: ProjectId) -> Result<Turn, HttpResponse> {
    TURNS.take(project).await.ok_or_else(away)
}

#[derive(Serialize)]
struct Checks {
    checks: Vec<Check>,
}

/// `GET checks/`: all checks of the project, oldest first, or those that have all of these tags, and this slug.
pub(super) async fn list(request: &HttpRequest, state: &AppState, version: Version) -> Answer {
    let caller = caller(request, Action::Read).await?;
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .unwrap_or_default();
    let all = |name: &str| {
        let pairs = query.iter().filter(|(key, _)| key == name);
        pairs.map(|(_, value)| value.clone()).collect::<Vec<String>>()
    };
    let filter = Filter {
        tags: all("tag"),
        slug: all("slug").pop().filter(|slug| !slug.is_empty()),
        ..Filter::default()
    };
    // No tag and no slug has a NUL, and PostgreSQL takes none.
    if filter
        .tags
        .iter()
        .chain(&filter.slug)
        .any(|text| text.contains('\0'))
    {
        return Ok(json(200, &Checks { checks: Vec::new() }));
    }
    let turn = turn(caller.project).await?;
    let page = Page {
        after: None,
        limit: MOST_CHECKS,
    };
    let now = state.now();
    let mut monitors = deadbeat_store::monitor::list(&state.reader(), caller.project, &filter, page, now)
        .await
        .map_err(|failed| of_store(&failed))?;
    monitors.reverse();
    let beside = Beside::of(state, &caller, &monitors).await?;
    let state = state.clone();
    // Ten thousand checks take some hundredths of a second: not on a thread that answers pings.
    let text = web::block(move || {
        let _turn = turn;
        let shown = |monitor| Check::of(&state, &caller, monitor, &beside, version, now);
        written(&Checks {
            checks: monitors.iter().map(shown).collect(),
        })
    });
    Ok(of_json(200, text.await.map_err(|_| away())?))
}

/// `POST checks/`: a new check, or a change of the one that has the values of the fields in `unique`.
pub(super) async fn create(
    request: &HttpRequest,
    state: &AppState,
    payload: Payload,
    version: Version,
) -> Answer {
    let (caller, body) = caller_and_body(request, payload, Action::ChangeMonitors).await?;
    let spec = Spec::read(&body)?;
    let channels = channels(state, caller.project).await?;
    let (new, changed) = (
        spec.wanted(&channels, true, version)?,
        spec.wanted(&channels, false, version)?,
    );
    let matching = spec.matching();
    let (monitor, _, created) =
        create_or_update(&state.services, &caller.access, &new, &changed, matching.as_ref())
            .await
            .map_err(|refused| of_service(&refused))?;
    show(state, &caller, monitor, version, if created { 201 } else { 200 }).await
}
