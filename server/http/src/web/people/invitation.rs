//! `/invitations/{token}`: the page that the link of an invitation opens. Whoever is signed in there may join the project.
//!
//! GET changes nothing, because mail servers and chat services open links to scan them. The button posts to the same address, with the form token of the session.

use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use deadbeat_services::ServiceError;
use deadbeat_services::people::account::session;
use deadbeat_services::people::invitation::{self, Offer};

use super::csrf::{self, SessionForm};
use super::session::{SignedIn, client};
use crate::extract::peer::client_ip;
use crate::state::AppState;
use crate::web::format::Moment;
use crate::web::{Frame, FrameAccount, PageError, html, see_other};

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/invitations/{token}")
            .route(web::get().to(page))
            .route(web::method(Method::HEAD).to(page))
            .route(web::post().to(accept))
            .default_service(web::to(|| async {
                Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD, POST"))
            })),
    );
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct InvitationPage {
    frame: Frame,
    project: String,
    role: &'static str,
    /// The mail address of the only account that may accept.
    email: Option<String>,
    expires: Moment,
    /// The address to which the button posts.
    action: String,
    /// The token of the form. None: nobody is signed in.
    form_token: Option<String>,
    /// Why the invitation could not be accepted.
    refusal: Option<String>,
}

/// Shows an offer. The answer names no referrer, because the address contains the token.
fn show(
    state: &AppState,
    status: StatusCode,
    (offer, token): (Offer, &str),
    frame: Frame,
    refusal: Option<String>,
) -> HttpResponse {
    let form_token = frame.account.as_ref().map(|account| account.form_token.clone());
    let page = InvitationPage {
        frame,
        project: offer.project_name,
        role: offer.role.as_str(),
        email: offer.email,
        expires: Moment::at(offer.expires_at, state.now()),
        // Only a token of letters and digits gets here.
        action: format!("/invitations/{token}"),
        form_token,
        refusal,
    };
    let mut answer = html(status, &page);
    answer.headers_mut().insert(
        header::REFERRER_POLICY,
        header::HeaderValue::from_static("no-referrer"),
    );
    answer
}

async fn page(
    state: Data<AppState>,
    token: Path<String>,
    known: Option<SignedIn>,
) -> Result<HttpResponse, PageError> {
    let offer = invitation::inspect(&state.services, &token).await?;
    let offer = offer.ok_or(PageError::NotFound("invitation"))?;
    let frame = known.map(|known| known.frame()).unwrap_or_default();
    Ok(show(&state, StatusCode::OK, (offer, &token), frame, None))
}

async fn accept(
    request: HttpRequest,
    state: Data<AppState>,
    token: Path<String>,
    form: SessionForm,
) -> Result<HttpResponse, PageError> {
    // The form's token belongs to a session, and that session must still be valid.
    let session = session::find(&state.services, &form.session, &client(&request, &state)).await?;
    let account = session.ok_or(PageError::NotSignedIn)?.account;
    match invitation::accept(&state.services, &account, &token, client_ip(&request, &state)).await {
        Ok(project) => Ok(see_other(&format!("/?project={project}"))),
        Err(error @ (ServiceError::Conflict(_) | ServiceError::Limit { .. })) => {
            let offer = invitation::inspect(&state.services, &token).await?;
            let offer = offer.ok_or(PageError::NotFound("invitation"))?;
            let refusal = Some(error.to_string());
            let frame = Frame {
                account: Some(FrameAccount {
                    email: account.email,
                    form_token: csrf::token(&form.session),
                }),
            };
            Ok(show(
                &state,
                StatusCode::CONFLICT,
                (offer, &token),
                frame,
                refusal,
            ))
        }
        Err(error) => Err(error.into()),
    }
}
