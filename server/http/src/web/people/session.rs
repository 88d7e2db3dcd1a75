//! Signing in and out, and the account that is signed in.

use std::future::Future;
use std::pin::Pin;

use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::Payload;
use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{self, Data, Query, ServiceConfig};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use askama::Template;
use chrono::TimeDelta;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::people::account::{STEP, SignUp};
use deadbeat_services::people::account::session::Session;
use deadbeat_services::people::account::{self, Client, SignIn};
use deadbeat_services::people::chosen;
use deadbeat_store::connection::asker::Asker;
use deadbeat_store::people::account::Account;
use serde::Deserialize;
use uuid::Uuid;

use super::csrf::{self, CookieName, SessionForm, VisitorForm};
use crate::extract::client_ip::network;
use crate::extract::peer::client_ip;
use crate::request::{self, SentBy};
use crate::state::AppState;
use crate::web::{Frame, FrameAccount, PageError, html, see_other};

/// The cookie with a session's secret.
pub const COOKIE: CookieName = CookieName {
    plain: "deadbeat_session",
    of_host: "__Host-deadbeat_session",
};

/// The cookie with the secret of a sign-in between its steps.
pub const STEP_COOKIE: CookieName = CookieName {
    plain: "deadbeat_step",
    of_host: "__Host-deadbeat_step",
};

/// Returns the client of a request: its address, and the family of its program.
#[must_use]
pub fn client(request: &HttpRequest, state: &AppState) -> Client {
    let agent = request.headers().get(header::USER_AGENT);
    Client::new(
        client_ip(request, state).map(network),
        agent.and_then(|agent| agent.to_str().ok()).unwrap_or_default(),
    )
}

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/sign-in")
                .route(web::get().to(sign_in_page))
                .route(web::method(Method::HEAD).to(sign_in_page))
                .route(web::post().to(sign_in))
                .default_service(web::to(|| async {
                    Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD, POST"))
                })),
        )
        .service(
            web::resource("/sign-out")
                .route(web::post().to(sign_out))
                .default_service(web::to(|| async {
                    Err::<HttpResponse, _>(PageError::WrongMethod("POST"))
                })),
        );
}

/// A request from somebody who is signed in. The extractor redirects other people to the sign-in page.
#[derive(Debug)]
pub struct SignedIn {
    /// The account.
    pub account: Account,
    /// The session.
    pub own: Session,
    /// The project that the session remembers.
    pub remembered: Option<ProjectId>,
    /// The session's secret.
    pub(super) session: String,
}

impl SignedIn {
    /// Refuses dangerous things unless the owner has given the password lately. The error leads to the form for it, and from there to `next`,
    /// the path of a page.
    ///
    /// # Errors
    /// The password was given too long ago.
    pub fn must_be_recent(&self, state: &AppState, next: &str) -> Result<(), PageError> {
        if account::session::is_recent(&state.services, &self.own) {
            return Ok(());
        }
        Err(PageError::ProveFirst(next.to_owned()))
    }

    /// Returns the frame of a page for this account.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let account = FrameAccount {
            email: self.account.email.clone(),
            form_token: csrf::token(&self.session),
        };
        Frame {
            account: Some(account),
        }
    }
}

impl FromRequest for SignedIn {
    type Error = PageError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, PageError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let Some(state) = request.app_data::<Data<AppState>>() else {
                tracing::error!("the server is wired wrongly: its state is missing");
                return Err(PageError::Internal);
            };
            let session = COOKIE.value(&request).ok_or(PageError::NotSignedIn)?;
            let client = client(&request, state);
            let own = account::session::find(&state.services, &session, &client)
                .await?
                .ok_or(PageError::NotSignedIn)?;
            let account = own.account.clone();
            Asker::Account(account.id).takes_over();
            request::sent_by(SentBy::Account(account.id));
            let remembered = chosen::remembered(&state.services, &session, asked_project(&request)).await?;
            Ok(Self {
                account,
                own,
                remembered,
                session,
            })
        })
    }
}

/// Returns the project that an address names.
fn asked_project(request: &HttpRequest) -> Option<ProjectId> {
    #[derive(Deserialize)]
    struct Asked {
        project: Option<Uuid>,
    }
    let asked = Query::<Asked>::from_query(request.query_string()).ok()?;
    asked.project.map(ProjectId)
}

#[derive(Template)]
#[template(path = "session/sign_in.html")]
struct SignInPage {
    frame: Frame,
    form_token: String,
    email: String,
    refused: bool,
    /// True if the server can mail codes and links.
    can_mail: bool,
    /// True if people may sign up.
    is_open: bool,
}

async fn sign_in_page(request: HttpRequest, state: Data<AppState>, known: Option<SignedIn>) -> HttpResponse {
    if known.is_some() {
        return see_other("/");
    }
    sign_in_form(StatusCode::OK, csrf::visitor(&request), "", &state)
}

fn sign_in_form(status: StatusCode, visitor: String, email: &str, state: &AppState) -> HttpResponse {
    let page = SignInPage {
        frame: Frame::default(),
        form_token: csrf::token(&visitor),
        email: email.to_owned(),
        refused: status != StatusCode::OK,
        can_mail: state.services.can_mail(),
        is_open: matches!(state.services.sign_up(), SignUp::Open(_)),
    };
    let mut answer = html(status, &page);
    add_cookie(&mut answer, &csrf::visitor_cookie(visitor, state.is_https));
    answer
}

async fn sign_in(
    request: HttpRequest,
    state: Data<AppState>,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let (email, password) = (form.fields.get("email"), form.fields.get("password"));
    let client = client(&request, &state);
    let done = account::sign_in(&state.services, email, password, &client).await?;
    signed_in(&state, done).unwrap_or_else(|refused| match refused {
        // 422, because the answer shows the form again. 401 would require one of HTTP's own authentication schemes.
        Refused::Wrong | Refused::Over => Ok(sign_in_form(
            StatusCode::UNPROCESSABLE_ENTITY,
            form.visitor,
            email,
            &state,
        )),
        Refused::TooSoon(wait) => Err(PageError::TooManyTries(wait)),
    })
}

/// Why a sign-in does not go on.
pub(super) enum Refused {
    /// The password or the code is wrong.
    Wrong,
    /// The step has ended: begin again.
    Over,
    /// There were too many attempts; with the time to wait.
    TooSoon(TimeDelta),
}

/// Answers a sign-in that goes on: with the cookie of the session, or with that of the next step.
pub(super) fn signed_in(state: &AppState, done: SignIn) -> Result<Result<HttpResponse, PageError>, Refused> {
    Ok(Ok(match done {
        SignIn::Accepted(session) => {
            let mut answer = see_other("/");
            add_session(&mut answer, session, state);
            add_cookie(&mut answer, &gone(STEP_COOKIE, state.is_https));
            answer
        }
        SignIn::SecondFactor(secret) => {
            let mut answer = see_other("/sign-in/factor");
            add_cookie(&mut answer, &step_cookie(secret, state.is_https));
            answer
        }
        SignIn::Refused => return Err(Refused::Wrong),
        SignIn::Over => return Err(Refused::Over),
        SignIn::TooSoon(wait) => return Err(Refused::TooSoon(wait)),
    }))
}

async fn sign_out(
    request: HttpRequest,
    state: Data<AppState>,
    form: SessionForm,
) -> Result<HttpResponse, PageError> {
    account::session::sign_out(&state.services, &form.session, &client(&request, &state)).await?;
    let mut answer = see_other("/sign-in");
    remove_session(&mut answer, &state);
    Ok(answer)
}

/// Adds the cookie of a session to an answer.
pub(super) fn add_session(answer: &mut HttpResponse, session: String, state: &AppState) {
    let mut cookie = cookie(COOKIE, session, state.is_https);
    cookie.set_max_age(Duration::seconds(state.services.session_length().num_seconds()));
    add_cookie(answer, &cookie);
}

/// Removes the cookie of the session.
pub(super) fn remove_session(answer: &mut HttpResponse, state: &AppState) {
    add_cookie(answer, &gone(COOKIE, state.is_https));
}

/// Makes the cookie of a sign-in between its steps.
pub(super) fn step_cookie(secret: String, is_https: bool) -> Cookie<'static> {
    let mut cookie = cookie(STEP_COOKIE, secret, is_https);
    cookie.set_max_age(Duration::seconds(STEP.num_seconds()));
    cookie
}

fn gone(name: CookieName, is_https: bool) -> Cookie<'static> {
    let mut gone = cookie(name, String::new(), is_https);
    gone.make_removal();
    gone
}

fn cookie(name: CookieName, value: String, is_https: bool) -> Cookie<'static> {
    Cookie::build(name.on(is_https), value)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(is_https)
        .finish()
}

/// Adds a cookie to an answer.
pub(super) fn add_cookie(answer: &mut HttpResponse, cookie: &Cookie<'_>) {
    // Fails only for a value that a header cannot contain: ours consist of letters and digits.
    if let Err(error) = answer.add_cookie(cookie) {
        tracing::error!(%error, "a cookie could not be set");
    }
}
