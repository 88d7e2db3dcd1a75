//! Badges: small pictures, or JSON, that say to everybody whether a check, or the checks of a tag, are up.
//!
//! The address of a badge is signed with the server's key, so nobody can guess the address of another badge, and no table lists them.

use actix_web::web::{Data, Path};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::people::permission::Action;
use deadbeat_store::monitor::healthchecks::{self as stored, Counts};
use serde::{Deserialize, Serialize};
use url::form_urlencoded::byte_serialize;
use uuid::Uuid;

use super::answer::{Answer, error, json, of_store};
use super::key::caller;
use crate::state::AppState;

/// A list of badges shows at most so many tags.
const MOST_TAGS: i64 = 1_000;
/// Digits of a signature in an address: 128 bits.
const DIGITS: usize = 32;
/// The tag of the badge of the whole project.
const ALL: &str = "*";
/// The label of that badge.
const ALL_LABEL: &str = "Deadbeat";

/// What a badge is about.
enum Subject {
    All,
    Tag(String),
    Monitor(MonitorId),
}

impl Subject {
    fn signed(&self, project: ProjectId) -> String {
        match self {
            Self::All => format!("badge {project} all"),
            Self::Tag(tag) => format!("badge {project} tag {tag}"),
            Self::Monitor(id) => format!("badge {project} monitor {id}"),
        }
    }
}

/// The address of a badge. None: the server has no key to sign it.
fn url(state: &AppState, project: ProjectId, subject: &Subject, states: u8, format: &str) -> Option<String> {
    let key = state.services.keyring().first()?;
    let mut signature = key.sign(&subject.signed(project));
    signature.truncate(DIGITS);
    let suffix = if states == 2 { "-2" } else { "" };
    let tail = match subject {
        Subject::All => String::new(),
        // No tag has a blank, which this would write as a plus sign.
        Subject::Tag(tag) => format!("/{}", byte_serialize(tag.as_bytes()).collect::<String>()),
        Subject::Monitor(id) => format!("/{id}"),
    };
    let site = &state.services.site().url;
    Some(format!(
        "{site}/badge/{project}/{signature}{suffix}{tail}.{format}"
    ))
}

/// The address of a monitor's badge with two states.
pub(super) fn of_monitor(state: &AppState, project: ProjectId, id: MonitorId) -> Option<String> {
    url(state, project, &Subject::Monitor(id), 2, "svg")
}

#[derive(Serialize)]
struct Urls {
    svg: Option<String>,
    svg3: Option<String>,
    json: Option<String>,
    json3: Option<String>,
    shields: Option<String>,
    shields3: Option<String>,
}

#[derive(Serialize)]
struct Badges {
    badges: serde_json::Map<String, serde_json::Value>,
}

/// `GET badges/`: the addresses of the badges of each tag, and of the whole project.
pub(super) async fn list(request: HttpRequest, state: Data<AppState>) -> Answer {
    let caller = caller(&request, Action::Read).await?;
    let tags = stored::tags(&state.reader(), caller.project, MOST_TAGS)
        .await
        .map_err(|failed| of_store(&failed))?;
    let subjects = tags.into_iter().filter(|tag| tag != ALL).map(Subject::Tag);
    let badges = std::iter::once(Subject::All)
        .chain(subjects)
        .map(|subject| {
            let at = |states, format| url(&state, caller.project, &subject, states, format);
            let urls = Urls {
                svg: at(2, "svg"),
                svg3: at(3, "svg"),
                json: at(2, "json"),
                json3: at(3, "json"),
                shields: at(2, "shields"),
                shields3: at(3, "shields"),
            };
            let name = match subject {
                Subject::Tag(tag) => tag,
                Subject::All | Subject::Monitor(_) => ALL.to_owned(),
            };
            (name, serde_json::to_value(urls).unwrap_or_default())
        })
        .collect();
    Ok(json(200, &Badges { badges }))
}

#[derive(Serialize)]
struct AsJson {
    status: &'static str,
    total: i64,
    grace: i64,
    down: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AsShields<'a> {
    schema_version: u8,
    label: &'a str,
    message: &'static str,
    color: &'static str,
}

/// The parts of a badge's address.
#[derive(Deserialize)]
struct Parts {
    project: String,
    signature: String,
    /// Empty: the badge of the whole project.
    #[serde(default)]
    tag: String,
    format: String,
}

/// A badge. Whoever has its address sees it, without a key.
pub(super) async fn show(request: HttpRequest, state: Data<AppState>) -> Answer {
    let not_found = || error(404, "not found");
    let parts = Path::<Parts>::extract(&request).await;
    let parts = parts.map_err(|_| not_found())?.into_inner();
    let project = Uuid::try_parse(&parts.project).map_err(|_| not_found())?;
    let project = ProjectId(project);
    let (signature, has_late) = match parts.signature.strip_suffix("-2") {
        Some(signature) => (signature, false),
        None => (parts.signature.as_str(), true),
    };
    let tag = parts.tag.as_str();
    let subjects = match (tag, Uuid::try_parse(tag)) {
        ("", _) => vec![Subject::All],
        (_, Ok(id)) => vec![Subject::Monitor(MonitorId(id)), Subject::Tag(tag.to_owned())],
        _ => vec![Subject::Tag(tag.to_owned())],
    };
    let is_signed = |subject: &Subject| {
        let ring = state.services.keyring();
        let text = subject.signed(project);
        let mut keys = ring.ids().into_iter().filter_map(|id| ring.get(&id));
        keys.any(|key| key.begins_signature(&text, signature))
    };
    let subject = subjects.into_iter().find(is_signed).ok_or_else(not_found)?;
    let (tag, monitor) = match &subject {
        Subject::All => (None, None),
        Subject::Tag(tag) => (Some(tag.as_str()), None),
        Subject::Monitor(id) => (None, Some(*id)),
    };
    let reader = state.reader();
    let counts = stored::counts(&reader, project, tag, monitor, state.now())
        .await
        .map_err(|failed| of_store(&failed))?;
    let label = match (&subject, monitor) {
        (Subject::Tag(tag), _) => tag.clone(),
        (_, Some(id)) => {
            let found = deadbeat_store::monitor::get(&reader, project, id)
                .await
                .map_err(|failed| of_store(&failed))?;
            found.ok_or_else(not_found)?.name
        }
        _ => ALL_LABEL.to_owned(),
    };
    let Counts { total, late, down } = counts;
    let status = match counts {
        Counts { down: 1.., .. } => "down",
        Counts { late: 1.., .. } if has_late => "late",
        _ => "up",
    };
    let mut answer = match parts.format.as_str() {
        "json" => json(
            200,
            &AsJson {
                status,
                total,
                grace: late,
                down,
            },
        ),
        "shields" => json(
            200,
            &AsShields {
                schema_version: 1,
                label: &label,
                message: status,
                color: match status {
                    "down" => "critical",
                    "late" => "important",
                    _ => "success",
                },
            },
        ),
        "svg" => HttpResponse::Ok()
            .content_type("image/svg+xml")
            .body(picture(&label, status)),
        _ => return Err(not_found()),
    };
    let never_kept = actix_web::http::header::HeaderValue::from_static(
        "max-age=0, no-cache, no-store, must-revalidate, private",
    );
    let name = actix_web::http::header::CACHE_CONTROL;
    answer.headers_mut().insert(name, never_kept);
    Ok(answer)
}

/// Draws a badge: the label on grey, the status on its colour.
fn picture(label: &str, status: &str) -> String {
    let mut clipped: String = label.chars().take(40).collect();
    if clipped.len() < label.len() {
        clipped.push('…');
    }
    let escaped = clipped
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;");
    let colour = match status {
        "down" => "#b3261e",
        "late" => "#8a5a00",
        _ => "#1b7340",
    };
    // Each letter of 11 px takes about 7 px.
    let wide = |text: &str| text.chars().count() * 7 + 12;
    let (left, right) = (wide(&clipped), wide(status));
    let (all, middle, end) = (left + right, left / 2, left + right / 2);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{all}" height="20" role="img" aria-label="{escaped}: {status}"><title>{escaped}: {status}</title><rect width="{left}" height="20" fill="#555"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/><g fill="#fff" text-anchor="middle" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="11"><text x="{middle}" y="14">{escaped}</text><text x="{end}" y="14">{status}</text></g></svg>"##
    )
}
