//! The pages: server-rendered, forms and links, no script.
//!
//! A page is a struct with an askama template, so a missing value fails the build. The template engine escapes everything that a person or a client
//! wrote. Only the pages of the causes are marked as safe text, because they are our own documents (`cause.rs`).

pub mod alert;
pub mod celery;
pub mod format;
pub mod incident;
pub mod monitor;
pub mod people;
pub mod visible;

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::web::ServiceConfig;
use actix_web::{HttpResponse, ResponseError};
use askama::Template;
use chrono::TimeDelta;
use deadbeat_domain::people::permission::Refusal;
use deadbeat_services::ServiceError;
use deadbeat_store::{StoreError, with_sources};

use crate::assets;
use crate::error::RETRY_AFTER_SECONDS;
use crate::request;

/// Mounts the routes of all pages, and of the files that they use.
pub fn configure(config: &mut ServiceConfig) {
    config
        .configure(assets::configure)
        .configure(people::session::configure)
        .configure(people::account::configure)
        .configure(people::invitation::configure)
        .configure(people::member::configure)
        .configure(people::project::configure)
        .configure(alert::confirm::configure)
        .configure(alert::unsubscribe::configure)
        .configure(monitor::dashboard::configure)
        .configure(celery::configure)
        .configure(celery::history::configure)
        .configure(incident::acknowledge::configure)
        .configure(incident::cause::configure);
}

/// The frame around every page.
#[derive(Debug, Default)]
pub struct Frame {
    /// The account that is signed in.
    pub account: Option<FrameAccount>,
}

/// The signed-in account, as the frame shows it.
#[derive(Debug)]
pub struct FrameAccount {
    /// The account's mail address.
    pub email: String,
    /// The token of the sign-out form.
    pub form_token: String,
}

/// Renders a page. The page depends on the time and the reader, so no cache may keep it.
#[must_use]
pub fn html(status: StatusCode, page: &impl Template) -> HttpResponse {
    match page.render() {
        Ok(body) => HttpResponse::build(status)
            .content_type("text/html; charset=utf-8")
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(body),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            HttpResponse::InternalServerError()
                .content_type("text/plain; charset=utf-8")
                .body("The page could not be rendered; the server's log has the cause.")
        }
    }
}

/// Redirects to another page with 303, so that the next request is a GET whatever the method of this one was.
#[must_use]
pub fn see_other(path: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, path))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}

/// Answers a method that a path does not allow.
///
/// # Errors
/// Always, with the methods that it allows.
pub async fn wrong_method(allowed: &'static str) -> Result<HttpResponse, PageError> {
    Err(PageError::WrongMethod(allowed))
}

/// Why the server does not show a page.
#[derive(Debug)]
pub enum PageError {
    /// Nobody is signed in. The page leads to the sign-in page.
    NotSignedIn,
    /// The owner must give the password again first, and then continue at this path.
    ProveFirst(String),
    /// The role of the account in the project does not allow this.
    Refused(Refusal),
    /// The id does not exist, or belongs to a project of other accounts.
    NotFound(&'static str),
    /// The server did not show this form to this browser, or did so too long ago.
    FormExpired,
    /// The body is not a form.
    FormUnreadable,
    /// There were too many wrong passwords; with the time to wait.
    TooManyTries(TimeDelta),
    /// A quota of this stretch of time is used up; with the time to wait.
    TooManyRequests(TimeDelta),
    /// The path does not allow this method; with the methods that it allows.
    WrongMethod(&'static str),
    /// The server is overloaded.
    Busy,
    /// The server lacks the encryption key for the secrets of channels.
    KeyMissing,
    /// The database cannot be reached.
    DatabaseAway,
    /// A bug of the server. The log has the cause under the id of the request.
    Internal,
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    status: u16,
    title: &'static str,
    text: String,
    way: (&'static str, &'static str),
    reference: Option<String>,
}

impl PageError {
    fn title(&self) -> &'static str {
        match self {
            Self::NotSignedIn => "Sign in first",
            Self::ProveFirst(_) => "Give your password first",
            Self::Refused(_) => "Your role does not allow this",
            Self::NotFound(_) => "Not found",
            Self::FormExpired => "This form has expired",
            Self::FormUnreadable => "This form cannot be read",
            Self::TooManyTries(_) => "Too many attempts",
            Self::TooManyRequests(_) => "Too many in a short time",
            Self::WrongMethod(_) => "This address takes other methods",
            Self::Busy => "Deadbeat is overloaded",
            Self::KeyMissing => "The server lacks a key",
            Self::DatabaseAway => "The database cannot be reached",
            Self::Internal => "Something went wrong here",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::NotSignedIn => "This page is for people with an account.".to_owned(),
            Self::ProveFirst(_) => "Nothing was changed. This needs your password, because you gave it some time ago.".to_owned(),
            Self::Refused(refusal) => format!("Nothing was changed, because {refusal}."),
            Self::NotFound(what) => format!("There is no such {what}, or you may not see it."),
            Self::FormExpired => "Nothing was changed. Open the page again and repeat what you did.".to_owned(),
            Self::FormUnreadable => "Nothing was changed: the request does not contain a filled-in form.".to_owned(),
            Self::TooManyTries(wait) => {
                format!("There were too many wrong passwords. Wait {}, then try again.", format::span(*wait))
            }
            Self::TooManyRequests(wait) => format!("Nothing was changed. Wait {}, then try again.", format::span(*wait)),
            Self::WrongMethod(allowed) => format!("This address takes {allowed}."),
            Self::Busy => "Deadbeat gets more requests than it can handle. Try again in a few seconds.".to_owned(),
            Self::KeyMissing => {
                "Deadbeat cannot check this now, because a key is missing on its server. Nothing was changed. Tell the operator; \
                 /readyz names the key."
                    .to_owned()
            }
            Self::DatabaseAway => {
                "Deadbeat cannot reach its database, so there is nothing to show. Try again in a few seconds; /readyz \
                 tells when it is back."
                    .to_owned()
            }
            Self::Internal => "The fault is ours. The server's log has the cause.".to_owned(),
        }
    }

    /// Returns a link onward: its path and its text.
    fn way(&self) -> (&'static str, &'static str) {
        match self {
            Self::TooManyTries(_) | Self::NotSignedIn => ("/sign-in", "To the sign-in page"),
            Self::Busy | Self::DatabaseAway => ("/", "Try again"),
            _ => ("/", "To the dashboard"),
        }
    }
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

impl ResponseError for PageError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::NotSignedIn | Self::ProveFirst(_) => StatusCode::SEE_OTHER,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::FormExpired | Self::Refused(_) => StatusCode::FORBIDDEN,
            Self::FormUnreadable => StatusCode::BAD_REQUEST,
            Self::TooManyTries(_) | Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Busy | Self::KeyMissing | Self::DatabaseAway => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let extra = match self {
            Self::NotSignedIn => return see_other("/sign-in"),
            Self::ProveFirst(next) => return see_other(&format!("/account/prove?next={next}")),
            Self::TooManyTries(wait) | Self::TooManyRequests(wait) => {
                Some((header::RETRY_AFTER, (wait.num_seconds() + 1).to_string()))
            }
            Self::Busy | Self::KeyMissing | Self::DatabaseAway => {
                Some((header::RETRY_AFTER, RETRY_AFTER_SECONDS.to_owned()))
            }
            Self::WrongMethod(allowed) => Some((header::ALLOW, (*allowed).to_owned())),
            _ => None,
        };
        let mut answer = html(
            self.status_code(),
            &ErrorPage {
                frame: Frame::default(),
                status: self.status_code().as_u16(),
                title: self.title(),
                text: self.text(),
                way: self.way(),
                reference: matches!(self, Self::Internal).then(request::id),
            },
        );
        if let Some((name, value)) = extra
            && let Ok(value) = header::HeaderValue::from_str(&value)
        {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

/// Logs the inner cause once. The page never contains it.
impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Crowded) {
            return Self::Busy;
        }
        if error.is_unavailable() {
            tracing::warn!(error = %with_sources(&error), "a page could not be shown: the database cannot be reached");
            return Self::DatabaseAway;
        }
        tracing::error!(error = %with_sources(&error), "a page failed");
        Self::Internal
    }
}

impl From<Refusal> for PageError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ServiceError> for PageError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::NotFound(what) => Self::NotFound(what),
            ServiceError::Refused(refusal) => refusal.into(),
            ServiceError::Busy => Self::Busy,
            ServiceError::KeyMissing(reason) => {
                tracing::error!(reason, "a page could not be shown: a key is missing");
                Self::KeyMissing
            }
            ServiceError::TooMany { retry_after, .. } => Self::TooManyRequests(retry_after),
            ServiceError::Store(error) => error.into(),
            // A form's handler shows these errors beside the fields of the form. Reaching this line means that a handler forgot to.
            error @ (ServiceError::Invalid(_)
            | ServiceError::KeyFault(_)
            | ServiceError::SlugTaken(_)
            | ServiceError::Conflict(_)
            | ServiceError::Limit { .. }) => {
                tracing::error!(error = ?error, "the handler of a page did not handle a refusal");
                Self::Internal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use deadbeat_domain::people::permission::{Action, Standing};
    use deadbeat_domain::people::role::Role;

    use super::*;

    async fn shown(error: PageError) -> (StatusCode, header::HeaderMap, String) {
        let answer = error.error_response();
        let (status, headers) = (answer.status(), answer.headers().iter());
        let headers = headers
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let body = to_bytes(answer.into_body()).await.ok().unwrap();
        (status, headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[actix_web::test]
    async fn an_error_page_has_a_way_onward_and_is_not_kept() {
        for (error, status, link) in [
            (PageError::NotFound("project"), 404, "href=\"/\""),
            (PageError::FormExpired, 403, "href=\"/\""),
            (
                PageError::Refused(Refusal {
                    action: Action::Acknowledge,
                    standing: Standing::Role(Role::Viewer),
                }),
                403,
                "your role in this project is viewer; from member on",
            ),
            (
                PageError::TooManyTries(TimeDelta::seconds(42)),
                429,
                "href=\"/sign-in\"",
            ),
            (PageError::DatabaseAway, 503, ">Try again</a>"),
            (PageError::Internal, 500, "Reference: <code"),
        ] {
            let (seen, headers, body) = shown(error).await;
            assert_eq!(seen.as_u16(), status);
            assert_eq!(
                headers.get(header::CONTENT_TYPE).unwrap(),
                "text/html; charset=utf-8"
            );
            assert_eq!(headers.get(header::CACHE_CONTROL).unwrap(), "no-store");
            assert!(body.contains(link), "{link} in {body}");
        }
    }

    #[actix_web::test]
    async fn what_may_be_tried_again_says_when() {
        let (_, headers, body) = shown(PageError::TooManyTries(TimeDelta::milliseconds(41_500))).await;
        assert_eq!(headers.get(header::RETRY_AFTER).unwrap(), "42");
        assert!(body.contains("Wait 41 s"));
        let (_, headers, _) = shown(PageError::DatabaseAway).await;
        assert_eq!(headers.get(header::RETRY_AFTER).unwrap(), RETRY_AFTER_SECONDS);
    }

    #[actix_web::test]
    async fn an_inner_cause_is_not_shown() {
        let (status, _, body) =
            shown(StoreError::Corrupt("monitor 7: status purple".to_owned()).into()).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body.contains("purple") && body.contains("Reference"));
    }
}
