//! One check: read, change, delete, pause, resume.

use actix_web::web::{self, Payload};
use actix_web::{HttpRequest, HttpResponse};
use deadbeat_domain::ids::PingId;
use deadbeat_domain::limits;
use deadbeat_domain::people::permission::Action;
use deadbeat_services::monitor as service;
use deadbeat_services::monitor::healthchecks;
use deadbeat_store::monitor::{self, Monitor, healthchecks as stored};
use uuid::Uuid;

use super::answer::{Answer, away, error, json, of_service, of_store};
use super::check::{Beside, Check, Version, channels, show, turn, unique_key};
use super::key::{Caller, caller, caller_and_body};
use super::spec::Spec;
use crate::state::AppState;

/// The id in a path: the uuid of a check in its usual form, in lower case. Healthchecks takes no other.
pub(super) fn ping_id(request: &HttpRequest) -> Result<PingId, HttpResponse> {
    let text = request.match_info().get("id").unwrap_or_default();
    Uuid::try_parse(text)
        .ok()
        .filter(|id| id.to_string() == text)
        .map(PingId)
        .ok_or_else(|| error(404, "not found"))
}

/// The monitor that a path names by its uuid.
pub(super) async fn named(
    request: &HttpRequest,
    state: &AppState,
    caller: &Caller,
) -> Result<Monitor, HttpResponse> {
    let id = ping_id(request)?;
    stored::by_ping_id(&state.reader(), caller.project, id)
        .await
        .map_err(|failed| of_store(&failed))?
        .ok_or_else(|| error(404, "not found"))
}

/// The monitor that a path names by its uuid, or by its unique key.
pub(super) async fn named_either_way(
    request: &HttpRequest,
    state: &AppState,
    caller: &Caller,
) -> Result<Monitor, HttpResponse> {
    let text = request.match_info().get("id").unwrap_or_default();
    if text.len() != 40
        || !text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return named(request, state, caller).await;
    }
    let reader = state.reader();
    let turn = turn(caller.project).await?;
    let all = stored::ping_ids_of(&reader, caller.project, limits::PROJECT_MONITORS)
        .await
        .map_err(|failed| of_store(&failed))?;
    let wanted = text.to_owned();
    let found = web::block(move || {
        let _turn = turn;
        all.into_iter().find(|(_, ping)| unique_key(*ping) == wanted)
    });
    let found = found.await.map_err(|_| away())?;
    let Some((id, _)) = found else {
        return Err(error(404, "not found"));
    };
    monitor::get(&reader, caller.project, id)
        .await
        .map_err(|failed| of_store(&failed))?
        .ok_or_else(|| error(404, "not found"))
}

/// `GET checks/<uuid or unique key>`.
pub(super) async fn read(request: &HttpRequest, state: &AppState, version: Version) -> Answer {
    let caller = caller(request, Action::Read).await?;
    let monitor = named_either_way(request, state, &caller).await?;
    show(state, &caller, monitor, version, 200).await
}

/// `POST checks/<uuid>`.
pub(super) async fn update(
    request: &HttpRequest,
    state: &AppState,
    payload: Payload,
    version: Version,
) -> Answer {
    let (caller, body) = caller_and_body(request, payload, Action::ChangeMonitors).await?;
    let id = ping_id(request)?;
    let spec = Spec::read(&body)?;
    let wanted = spec.wanted(&channels(state, caller.project).await?, false, version)?;
    let (monitor, _) = healthchecks::update(&state.services, &caller.access, id, &wanted)
        .await
        .map_err(|refused| of_service(&refused))?;
    show(state, &caller, monitor, version, 200).await
}

/// `DELETE checks/<uuid>`: answers with the check as it was.
pub(super) async fn delete(request: &HttpRequest, state: &AppState, version: Version) -> Answer {
    let caller = caller(request, Action::ChangeMonitors).await?;
    let monitors = [named(request, state, &caller).await?];
    let beside = Beside::of(state, &caller, &monitors).await?;
    let [monitor] = &monitors;
    let check = Check::of(state, &caller, monitor, &beside, version, state.now());
    service::delete(&state.services, &caller.access, monitor.id)
        .await
        .map_err(|refused| of_service(&refused))?;
    Ok(json(200, &check))
}

/// `POST checks/<uuid>/pause`.
pub(super) async fn pause(
    request: &HttpRequest,
    state: &AppState,
    payload: Payload,
    version: Version,
) -> Answer {
    let (caller, _) = caller_and_body(request, payload, Action::ChangeMonitors).await?;
    let monitor = named(request, state, &caller).await?;
    let monitor = service::pause(&state.services, &caller.access, monitor.id)
        .await
        .map_err(|refused| of_service(&refused))?;
    show(state, &caller, monitor, version, 200).await
}

/// `POST checks/<uuid>/resume`.
pub(super) async fn resume(
    request: &HttpRequest,
    state: &AppState,
    payload: Payload,
    version: Version,
) -> Answer {
    let (caller, _) = caller_and_body(request, payload, Action::ChangeMonitors).await?;
    let monitor = named(request, state, &caller).await?;
    let monitor = service::resume(&state.services, &caller.access, monitor.id)
        .await
        .map_err(|refused| of_service(&refused))?;
    show(state, &caller, monitor, version, 200).await
}
