//! Wraps every request with an id, a span, and one line in the access log. Answers even when the handler panics.
//!
//! The access log never contains a path, a query, a header or a body of a request: ping URLs are secrets. It contains the route's template.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_http::{HttpMessage, Request, Response};
use actix_service::Service;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::{Method, StatusCode};
use actix_web::{Error, HttpResponse, ResponseError};
use tracing::Span;

use crate::error::ApiError;
use crate::problem::Problem;
use crate::request::{Current, REQUEST_ID, SentBy, within};
use crate::web::PageError;

/// The target of the access log.
pub const ACCESS: &str = "deadbeat_http::access";
/// The target of the access log's lines about pings, which are most of all requests. Their level is debug, so they are off by default.
pub const PING_ACCESS: &str = "deadbeat_http::access::ping";

/// Stands for a route without a template.
const NO_ROUTE: &str = "-";
/// The route of all ping URLs. No part of a ping URL may be logged.
const PING_ROUTE: &str = "/ping/{…}";

/// The kind of a request, by the start of its path. It decides the format of an error answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Ping,
    Api,
    Page,
}

impl Door {
    fn of(path: &str) -> Self {
        if path.starts_with("/ping/") {
            Self::Ping
        } else if path.starts_with("/api/") || path.starts_with("/callbacks/") {
            Self::Api
        } else {
            Self::Page
        }
    }

    /// Returns the answer to a request whose handler panicked.
    fn broken(self) -> HttpResponse {
        match self {
            Self::Ping => HttpResponse::InternalServerError()
                .content_type("text/plain; charset=utf-8")
                .body("internal error, try again"),
            Self::Api => ApiError::new(
                Problem::Internal,
                "the server's log has the cause under this request id",
            )
            .error_response(),
            Self::Page => PageError::Internal.error_response(),
        }
    }
}

/// The future that answers one request.
pub(super) struct Answering<F> {
    /// The app's future, or an error if the app panicked before it returned one.
    work: Result<F, ()>,
    access: Access,
}

/// The facts that the access log shows about a request.
struct Access {
    current: Option<Current>,
    span: Span,
    door: Door,
    method: &'static str,
    began: Instant,
    is_over: bool,
}

/// Starts to answer a request.
pub(super) fn answer<S>(request: Request, app: &S) -> Answering<S::Future>
where
    S: Service<Request, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    let current = Current::new(request.headers().get(&REQUEST_ID));
    let door = Door::of(request.path());
    let span = if door == Door::Ping {
        // A disabled span costs a ping nothing.
        tracing::debug_span!(target: PING_ACCESS, "request", request_id = %current.id())
    } else {
        // The span has the highest level. Every log line about the request then has its id, even if only errors are logged.
        tracing::error_span!("request", request_id = %current.id())
    };
    let mut access = Access {
        current: Some(current),
        span,
        door,
        method: name(request.method()),
        began: Instant::now(),
        is_over: false,
    };
    let work = access.turn(|| app.call(request)).map_err(|_| ());
    Answering { work, access }
}

/// Returns the method's name. Names outside this list are not logged, because a client may invent them at any length.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "other",
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<ServiceResponse<BoxBody>, Error>> + Unpin,
{
    type Output = Result<Response<BoxBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { work, access } = self.get_mut();
        let turn = match work {
            Ok(work) => access.turn(|| Pin::new(work).poll(cx)),
            Err(()) => Err(()),
        };
        let (mut response, route) = match turn {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(answered))) => {
                let route = access.route(&answered);
                (Response::from(answered), route)
            }
            Ok(Poll::Ready(Err(error))) => (access.made(|_| error.error_response()), None),
            Err(_) => (access.made(Door::broken), None),
        };
        if let Some(current) = &access.current {
            response.headers_mut().insert(REQUEST_ID, current.id.clone());
        }
        access.end(Some(response.status()), route.as_deref());
        Poll::Ready(Ok(response))
    }
}

impl Access {
    /// Polls the app for one turn. Returns an error if the app panicked; the panic hook has then logged the place.
    fn turn<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, ()> {
        let Self { current, span, .. } = self;
        let _entered = span.enter();
        // Safe to catch: the locks and cells that the app shares between requests stay valid after a panic, as when a thread dies.
        catch_unwind(AssertUnwindSafe(|| within(current, work))).map_err(|_: Box<dyn Any + Send>| ())
    }

    /// Makes an answer in place of the app's.
    fn made(&mut self, make: impl FnOnce(Door) -> HttpResponse) -> Response<BoxBody> {
        let door = self.door;
        let made = self.turn(|| make(door));
        made.map_or_else(
            |()| Response::new(StatusCode::INTERNAL_SERVER_ERROR).map_into_boxed_body(),
            Response::from,
        )
    }

    fn is_ping(&self) -> bool {
        self.door == Door::Ping || self.current.as_ref().is_some_and(|current| current.is_ping)
    }

    /// Returns the template of the route that answered. Finding it costs time, so this happens only if it is logged.
    fn route(&self, answered: &ServiceResponse<BoxBody>) -> Option<String> {
        if self.is_ping() || !tracing::enabled!(target: ACCESS, tracing::Level::INFO) {
            return None;
        }
        answered.request().match_pattern()
    }

    /// Writes the line in the access log. `status` is `None` if the client disconnected before it got an answer.
    fn end(&mut self, status: Option<StatusCode>, route: Option<&str>) {
        self.is_over = true;
        // The macros of tracing compute the fields only if the line is logged.
        macro_rules! line {
            ($level:ident, $target:expr, $route:expr) => {
                tracing::$level!(
                    target: $target,
                    method = self.method,
                    route = $route,
                    status = status.map(|status| status.as_u16()),
                    duration_ms = self.began.elapsed().as_micros() as f64 / 1_000.0,
                    api_key.id = self.key().map(tracing::field::display),
                    account.id = self.account().map(tracing::field::display),
                    "{}",
                    if status.is_some() { "answered" } else { "the client left" },
                )
            };
        }
        let _entered = self.span.enter();
        if self.is_ping() {
            line!(debug, PING_ACCESS, PING_ROUTE);
        } else {
            line!(info, ACCESS, route.unwrap_or(NO_ROUTE));
        }
    }

    fn sent_by(&self) -> Option<SentBy> {
        self.current.as_ref().and_then(|current| current.sent_by)
    }

    fn key(&self) -> Option<deadbeat_domain::ids::ApiKeyId> {
        match self.sent_by()? {
            SentBy::Key(id) => Some(id),
            SentBy::Account(_) => None,
        }
    }

    fn account(&self) -> Option<deadbeat_domain::ids::AccountId> {
        match self.sent_by()? {
            SentBy::Account(id) => Some(id),
            SentBy::Key(_) => None,
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(None, None);
        }
    }
}
