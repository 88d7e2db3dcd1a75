//! What happened to a check: pings, their bodies, changes of status. And the project's channels.

use std::collections::HashMap;

use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::monitor::ping::PingKind;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::monitor::healthchecks as stored;
use deadbeat_store::monitor::ping::{self, Ping};
use deadbeat_store::page::Page;
use serde::Serialize;
use uuid::Uuid;

use super::answer::{Answer, empty, error, iso, iso_micros, json, of_store};
use super::check::{self, Version};
use super::key::caller;
use super::single::{named, named_either_way};
use crate::state::AppState;

/// Healthchecks shows at most so many pings.
const MOST_PINGS: i64 = 1_000;
/// At most so many changes of status are shown. Healthchecks has no limit; three months of a change every quarter of an hour are fewer.
const MOST_FLIPS: i64 = 10_000;
/// A run that took longer has no duration.
const LONGEST: TimeDelta = TimeDelta::hours(72);
/// Healthchecks shows no durations if it misses the start of more runs than this.
const MOST_MISSES: usize = 10;
const YEAR_SECONDS: i64 = 31_536_000;

#[derive(Serialize)]
struct Shown<'a> {
    r#type: &'static str,
    date: String,
    n: i64,
    scheme: &'a str,
    remote_addr: Option<&'a str>,
    method: &'a str,
    ua: &'a str,
    rid: Option<Uuid>,
    body_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
}

#[derive(Serialize)]
struct Pings<'a> {
    pings: Vec<Shown<'a>>,
}

/// The durations of runs that end in these pings, which are sorted newest first.
fn durations(pings: &[Ping]) -> HashMap<i64, f64> {
    let mut found = HashMap::new();
    let mut starts: HashMap<Option<Uuid>, Option<DateTime<Utc>>> = HashMap::new();
    let mut misses = 0;
    for ping in pings.iter().rev() {
        match ping.kind {
            PingKind::Start => {
                starts.insert(ping.run_id, Some(ping.received_at));
            }
            PingKind::Success | PingKind::Fail => match starts.insert(ping.run_id, None) {
                None => misses += 1,
                Some(Some(start)) if ping.received_at - start < LONGEST => {
                    let millis = (ping.received_at - start).num_milliseconds();
                    found.insert(ping.n, (millis as f64 / 10.0).round() / 100.0);
                }
                Some(_) => {}
            },
            PingKind::Log => {}
        }
    }
    if misses > MOST_MISSES {
        found.clear();
    }
    found
}

/// `GET checks/<uuid>/pings/`.
pub(super) async fn pings(request: &HttpRequest, state: &AppState, version: Version) -> Answer {
    let caller = caller(request, Action::ChangeMonitors).await?;
    let monitor = named(request, state, &caller).await?;
    let page = Page {
        after: None,
        limit: MOST_PINGS,
    };
    let pings = ping::list(&state.reader(), caller.project, monitor.id, page)
        .await
        .map_err(|failed| of_store(&failed))?;
    let durations = durations(&pings);
    let site = state.services.site();
    let of_http = if state.is_https { "https" } else { "http" };
    let url = format!(
        "{}{}/checks/{}/pings",
        site.url,
        version.root(),
        monitor.ping_id.0
    );
    let shown = pings.iter().map(|ping| Shown {
        r#type: match ping.kind {
            PingKind::Start => "start",
            PingKind::Success => "success",
            PingKind::Fail => "fail",
            PingKind::Log => "log",
        },
        date: iso_micros(ping.received_at),
        n: ping.n,
        // Pings that came as events of the SDK have no scheme of their own.
        scheme: if ping.source == "http" {
            of_http
        } else {
            &ping.source
        },
        remote_addr: ping.remote_addr.as_deref(),
        method: ping.method.as_deref().unwrap_or_default(),
        ua: ping.user_agent.as_deref().unwrap_or_default(),
        rid: ping.run_id,
        body_url: (ping.body_bytes > 0).then(|| format!("{url}/{}/body", ping.n)),
        duration: durations.get(&ping.n).copied(),
    });
    Ok(json(
        200,
        &Pings {
            pings: shown.collect(),
        },
    ))
}

/// `GET checks/<uuid>/pings/<n>/body`: the bytes as they came.
pub(super) async fn body(request: HttpRequest, state: Data<AppState>) -> Answer {
    let caller = caller(&request, Action::ChangeMonitors).await?;
    let monitor = named(&request, &state, &caller).await?;
    let number = request.match_info().get("n").unwrap_or_default();
    let number: i64 = number.parse().map_err(|_| error(404, "not found"))?;
    let body = ping::body(&state.reader(), caller.project, monitor.id, number)
        .await
        .map_err(|failed| of_store(&failed))?
        .filter(|body| !body.is_empty())
        .ok_or_else(|| error(404, "not found"))?;
    Ok(HttpResponse::Ok().content_type("text/plain").body(body))
}

#[derive(Serialize)]
struct Flip {
    timestamp: String,
    up: u8,
}

#[derive(Serialize)]
struct Flips {
    flips: Vec<Flip>,
}

/// `GET checks/<uuid or unique key>/flips/`.
pub(super) async fn flips(request: HttpRequest, state: Data<AppState>) -> Answer {
    let caller = caller(&request, Action::Read).await?;
    let monitor = named_either_way(&request, &state, &caller).await?;
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|_| empty(400))?;
    let number = |name: &str, most: i64| -> Result<Option<i64>, HttpResponse> {
        let found = query
            .iter()
            .rev()
            .find(|(key, value)| key == name && !value.is_empty());
        let Some((_, text)) = found else {
            return Ok(None);
        };
        let number = text
            .trim()
            .parse()
            .ok()
            .filter(|number| (0..=most).contains(number));
        number.map(Some).ok_or_else(|| empty(400))
    };
    let instant = |seconds: i64| DateTime::from_timestamp(seconds, 0).ok_or_else(|| empty(400));
    let start = number("start", 10_000_000_000)?.map(instant).transpose()?;
    let end = number("end", 10_000_000_000)?.map(instant).transpose()?;
    let seconds = number("seconds", YEAR_SECONDS)?.filter(|seconds| *seconds > 0);
    let since = seconds.map(|seconds| state.now() - TimeDelta::seconds(seconds));
    let from = start.max(since);
    let found = stored::flips(&state.reader(), caller.project, monitor.id, from, end, MOST_FLIPS)
        .await
        .map_err(|failed| of_store(&failed))?;
    let flips = found
        .into_iter()
        .map(|flip| Flip {
            timestamp: iso(flip.at),
            up: u8::from(flip.is_up),
        })
        .collect();
    Ok(json(200, &Flips { flips }))
}

#[derive(Serialize)]
struct ShownChannel<'a> {
    id: Uuid,
    name: &'a str,
    kind: &'a str,
}

#[derive(Serialize)]
struct Channels<'a> {
    channels: Vec<ShownChannel<'a>>,
}

/// `GET channels/`.
pub(super) async fn channels(request: HttpRequest, state: Data<AppState>) -> Answer {
    let caller = caller(&request, Action::ChangeMonitors).await?;
    let found = check::channels(&state, caller.project).await?;
    let shown = found.iter().map(|channel| ShownChannel {
        id: channel.id.0,
        name: &channel.name,
        kind: channel.settings.kind(),
    });
    let channels = shown.collect();
    Ok(json(200, &Channels { channels }))
}
