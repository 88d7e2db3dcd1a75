//! `/confirm/{channel}`: the page that the link in a confirmation mail opens. It needs no account: the link's signature
//! is the proof.
//!
//! GET changes nothing, because mail servers open links to scan them. The button posts to the same address. It needs no
//! form token, because only the reader of the mail knows the signature.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Path, Query, ServiceConfig};
use actix_web::{HttpResponse, web};
use askama::Template;
use deadbeat_domain::ids::ChannelId;
use deadbeat_services::alert::confirmation::{self, Found};
use serde::Deserialize;
use uuid::Uuid;

use crate::state::AppState;
use crate::web::{Frame, PageError, html};

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/confirm/{channel}")
            .route(web::get().to(preview))
            .route(web::method(Method::HEAD).to(preview))
            .route(web::post().to(confirm))
            .default_service(web::to(|| async {
                Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD, POST"))
            })),
    );
}

#[derive(Debug, Deserialize)]
struct Link {
    #[serde(default)]
    expires: i64,
    #[serde(default)]
    token: String,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage {
    frame: Frame,
    address: String,
    /// The address to which the button posts, or `None` if the mail address is confirmed already.
    action: Option<String>,
}

/// Reads a link. An unreadable link gets 404, like a link with a wrong signature.
fn parts(channel: &str, link: Option<Query<Link>>) -> Result<(ChannelId, Link), PageError> {
    let id = channel.parse::<Uuid>().ok().map(ChannelId);
    id.zip(link.map(Query::into_inner))
        .ok_or(PageError::NotFound("confirmation"))
}

async fn preview(
    state: Data<AppState>,
    channel: Path<String>,
    link: Option<Query<Link>>,
) -> Result<HttpResponse, PageError> {
    let (id, link) = parts(&channel, link)?;
    let found = confirmation::preview(&state.services, id, link.expires, &link.token).await?;
    // Only a correct token gets here. It consists of 64 hexadecimal digits, so it needs no escaping.
    let action = format!("/confirm/{id}?expires={}&token={}", link.expires, link.token);
    show(found, Some(action))
}

async fn confirm(
    state: Data<AppState>,
    channel: Path<String>,
    link: Option<Query<Link>>,
) -> Result<HttpResponse, PageError> {
    let (id, link) = parts(&channel, link)?;
    let found = confirmation::confirm(&state.services, id, link.expires, &link.token).await?;
    show(found, None)
}

fn show(found: Found, action: Option<String>) -> Result<HttpResponse, PageError> {
    let (address, action) = match found {
        Found::Waiting(address) => (address, action),
        Found::Confirmed(address) => (address, None),
        Found::Nothing => return Err(PageError::NotFound("confirmation")),
    };
    let page = ConfirmPage {
        frame: Frame::default(),
        address,
        action,
    };
    Ok(html(StatusCode::OK, &page))
}
