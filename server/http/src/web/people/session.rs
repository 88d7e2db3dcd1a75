//! Signing in and out, and the account that is signed in.

use std::future::Future;
use std::pin::Pin;

use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::Payload;
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use askama::Template;
use deadbeat_services::people::account::{self, SignIn};
use deadbeat_store::connection::asker::Asker;
use deadbeat_store::people::account::Account;

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
    /// The session's secret.
    session: String,
}

impl SignedIn {
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
            let account = account::of_session(&state.services, &session)
                .await?
                .ok_or(PageError::NotSignedIn)?;
            Asker::Account(account.id).takes_over();
            request::sent_by(SentBy::Account(account.id));
            Ok(Self { account, session })
        })
    }
}

#[derive(Template)]
#[template(path = "session/sign_in.html")]
struct SignInPage {
    frame: Frame,
    form_token: String,
    email: String,
    refused: bool,
}

async fn sign_in_page(request: HttpRequest, state: Data<AppState>, known: Option<SignedIn>) -> HttpResponse {
    if known.is_some() {
        return see_other("/");
    }
    sign_in_form(StatusCode::OK, csrf::visitor(&request), "", state.is_https)
}

fn sign_in_form(status: StatusCode, visitor: String, email: &str, is_https: bool) -> HttpResponse {
    let page = SignInPage {
        frame: Frame::default(),
        form_token: csrf::token(&visitor),
        email: email.to_owned(),
        refused: status != StatusCode::OK,
    };
    let mut answer = html(status, &page);
    add_cookie(&mut answer, &csrf::visitor_cookie(visitor, is_https));
    answer
}

async fn sign_in(
    request: HttpRequest,
    state: Data<AppState>,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let (email, password) = (form.fields.get("email"), form.fields.get("password"));
    let client = client_ip(&request, &state).map(network);
    match account::sign_in(&state.services, email, password, client).await? {
        SignIn::Accepted(session) => {
            let mut answer = see_other("/");
            add_cookie(&mut answer, &session_cookie(session, state.is_https));
            Ok(answer)
        }
        // 422, because the answer shows the form again. 401 would require one of HTTP's own authentication schemes.
        SignIn::Refused => Ok(sign_in_form(
            StatusCode::UNPROCESSABLE_ENTITY,
            form.visitor,
            email,
            state.is_https,
        )),
        SignIn::TooSoon(wait) => Err(PageError::TooManyTries(wait)),
    }
}

async fn sign_out(state: Data<AppState>, form: SessionForm) -> Result<HttpResponse, PageError> {
    account::sign_out(&state.services, &form.session).await?;
    let mut answer = see_other("/sign-in");
    let mut gone = session_cookie(String::new(), state.is_https);
    gone.make_removal();
    add_cookie(&mut answer, &gone);
    Ok(answer)
}

fn session_cookie(session: String, is_https: bool) -> Cookie<'static> {
    Cookie::build(COOKIE.on(is_https), session)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(is_https)
        .max_age(Duration::seconds(account::SESSION.num_seconds()))
        .finish()
}

fn add_cookie(answer: &mut HttpResponse, cookie: &Cookie<'_>) {
    // Fails only for a value that a header cannot contain: ours consist of letters and digits.
    if let Err(error) = answer.add_cookie(cookie) {
        tracing::error!(%error, "a cookie could not be set");
    }
}
