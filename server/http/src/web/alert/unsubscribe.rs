//! `/unsubscribe/{channel}`: ends the mails of a channel, by the link in each mail. It needs no account: the link's signature is the proof.
//!
//! GET changes nothing, because mail servers open links to scan them. The page's button and the button of mail programs (RFC 8058) post to
//! the same address. A mail program sends `List-Unsubscribe=One-Click`, without cookies and from its maker's servers, so the body is not read and no
//! form token is asked for: only the reader of the mail knows the signature. The answer is a page at once, never a redirect.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Path, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use deadbeat_domain::ids::{ChannelId, ProjectId};
use deadbeat_services::alert::unsubscribe::{self, Found, Link};
use serde::Deserialize;
use uuid::Uuid;

use crate::extract::client_ip::network;
use crate::extract::peer::client_ip;
use crate::state::AppState;
use crate::web::{Frame, PageError, html};

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/unsubscribe/{channel}")
            .route(web::get().to(preview))
            .route(web::method(Method::HEAD).to(preview))
            .route(web::post().to(leave))
            .default_service(web::to(|| async {
                Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD, POST"))
            })),
    );
}

/// Each part may be missing or wrong: then nothing was signed.
#[derive(Debug, Default, Deserialize)]
struct Signed {
    #[serde(default)]
    project: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    token: String,
}

#[derive(Template)]
#[template(path = "unsubscribe.html")]
struct UnsubscribePage {
    frame: Frame,
    address: String,
    /// The address that the button posts to. None: the mails have ended.
    action: Option<String>,
}

/// Reads a link. An unreadable one is a link with a wrong signature, so that both get the same answer and both are counted.
fn read(channel: &str, signed: Option<Query<Signed>>) -> Link {
    let signed = signed.map(Query::into_inner).unwrap_or_default();
    let id = |text: &str| Uuid::try_parse(text).unwrap_or_default();
    Link {
        channel: ChannelId(id(channel)),
        project: ProjectId(id(&signed.project)),
        to: signed.to,
        key: signed.key,
        token: signed.token,
    }
}

async fn preview(
    request: HttpRequest,
    state: Data<AppState>,
    channel: Path<String>,
    signed: Option<Query<Signed>>,
) -> Result<HttpResponse, PageError> {
    let link = read(&channel, signed);
    let client = client_ip(&request, &state).map(network);
    let found = unsubscribe::preview(&state.services, &link, client).await?;
    // Only a correct signature comes this far: each part of the path is an id or a digest, so it needs no escapes.
    show(found, Some(link.path()))
}

async fn leave(
    request: HttpRequest,
    state: Data<AppState>,
    channel: Path<String>,
    signed: Option<Query<Signed>>,
) -> Result<HttpResponse, PageError> {
    let link = read(&channel, signed);
    let client = client_ip(&request, &state).map(network);
    let found = unsubscribe::unsubscribe(&state.services, &link, client).await?;
    show(found, None)
}

fn show(found: Found, action: Option<String>) -> Result<HttpResponse, PageError> {
    let (address, action) = match found {
        Found::Subscribed(address) => (address, action),
        Found::Unsubscribed(address) => (address, None),
        Found::Nothing => return Err(PageError::NotFound("link")),
    };
    let page = UnsubscribePage {
        frame: Frame::default(),
        address,
        action,
    };
    Ok(html(StatusCode::OK, &page))
}
