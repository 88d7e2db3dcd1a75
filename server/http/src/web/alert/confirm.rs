//! `/confirm/{channel}`: where the link in a confirmation mail leads. No account is needed: the link's signature is the proof.
//!
//! GET changes nothing, because mail servers open links to look at them. The button posts the same address again. That needs no form
//! token: only the reader of the mail knows the signature.

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

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/confirm/{channel}")
            .route(web::get().to(look))
            .route(web::method(Method::HEAD).to(look))
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
    /// Where the button posts to. None: the address is confirmed.
    action: Option<String>,
}

/// A link that cannot be read leads nowhere, like one that is wrong.
fn parts(channel: &str, link: Option<Query<Link>>) -> Result<(ChannelId, Link), PageError> {
    let id = channel.parse::<Uuid>().ok().map(ChannelId);
    id.zip(link.map(Query::into_inner))
        .ok_or(PageError::NotFound("confirmation"))
}

async fn look(
    state: Data<AppState>,
    channel: Path<String>,
    link: Option<Query<Link>>,
) -> Result<HttpResponse, PageError> {
    let (id, link) = parts(&channel, link)?;
    let found = confirmation::look(&state.services, id, link.expires, &link.token).await?;
    // Only a right token comes this far, and a right token is 64 hexadecimal digits: it needs no escaping.
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
