//! `/acknowledge/{incident}`: the page that the link in an alert opens. It needs no account: the link's signature is the proof.
//!
//! GET changes nothing, because mail servers and chat services open links to scan them. The button posts to the same address. It needs no
//! form token, because only readers of the alert know the signature.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Path, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use deadbeat_domain::ids::{ChannelId, IncidentId, ProjectId};
use deadbeat_services::incident::link::{self, Link};
use deadbeat_store::incident::Incident;
use serde::Deserialize;
use uuid::Uuid;

use crate::extract::peer::client_ip;
use crate::state::AppState;
use crate::web::format::Moment;
use crate::web::{Frame, PageError, html};

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/acknowledge/{incident}")
            .route(web::get().to(preview))
            .route(web::method(Method::HEAD).to(preview))
            .route(web::post().to(acknowledge))
            .default_service(web::to(|| async {
                Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD, POST"))
            })),
    );
}

#[derive(Debug, Deserialize)]
struct Signed {
    project: Uuid,
    channel: Uuid,
    expires: i64,
    key: String,
    token: String,
}

#[derive(Template)]
#[template(path = "acknowledge.html")]
struct AcknowledgePage {
    frame: Frame,
    /// The name of the incident's subject.
    subject: String,
    summary: String,
    since: Moment,
    /// When the incident ended.
    resolved: Option<Moment>,
    /// When somebody acknowledged the incident.
    acknowledged: Option<Moment>,
    /// Who acknowledged the incident.
    by: Option<String>,
    /// The address to which the button posts, or `None` if there is nothing left to acknowledge.
    action: Option<String>,
}

/// Reads a link. An unreadable link gets 404, like a link with a wrong signature.
fn read(incident: &str, signed: Option<Query<Signed>>) -> Result<Link, PageError> {
    let nothing = || PageError::NotFound("incident");
    let id = incident.parse::<Uuid>().map_err(|_| nothing())?;
    let signed = signed.ok_or_else(nothing)?.into_inner();
    Ok(Link {
        incident: IncidentId(id),
        project: ProjectId(signed.project),
        channel: ChannelId(signed.channel),
        expires: signed.expires,
        key: signed.key,
        token: signed.token,
    })
}

async fn preview(
    state: Data<AppState>,
    incident: Path<String>,
    signed: Option<Query<Signed>>,
) -> Result<HttpResponse, PageError> {
    let link = read(&incident, signed)?;
    let found = link::preview(&state.services, &link).await?;
    // Only a correct signature gets here. Each part of the path is a number, an id or a digest, so the path needs no escaping.
    show(&state, found, Some(link.path()))
}

async fn acknowledge(
    request: HttpRequest,
    state: Data<AppState>,
    incident: Path<String>,
    signed: Option<Query<Signed>>,
) -> Result<HttpResponse, PageError> {
    let link = read(&incident, signed)?;
    let found = link::acknowledge(&state.services, &link, client_ip(&request, &state)).await?;
    show(&state, found, None)
}

fn show(
    state: &AppState,
    found: Option<Incident>,
    action: Option<String>,
) -> Result<HttpResponse, PageError> {
    let incident = found.ok_or(PageError::NotFound("incident"))?;
    let now = state.now();
    let is_left = incident.acknowledged_at.is_none() && incident.resolved_at.is_none();
    let page = AcknowledgePage {
        frame: Frame::default(),
        subject: incident.subject.name,
        summary: incident.summary,
        since: Moment::at(incident.opened_at, now),
        resolved: incident.resolved_at.map(|at| Moment::at(at, now)),
        acknowledged: incident.acknowledged_at.map(|at| Moment::at(at, now)),
        by: incident.acknowledged_by,
        action: action.filter(|_| is_left),
    };
    Ok(html(StatusCode::OK, &page))
}
