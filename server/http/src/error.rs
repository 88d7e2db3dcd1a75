//! Errors of the API as responses: problem+json (RFC 9457).

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use chrono::TimeDelta;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::people::permission::{Refusal, Standing};
use deadbeat_services::ServiceError;
use deadbeat_store::{StoreError, with_sources};
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::request;

/// `Retry-After` of responses to requests that the server cannot serve at the moment, in seconds.
pub const RETRY_AFTER_SECONDS: &str = "2";

/// Converts a wait to the value of `Retry-After`: whole seconds, rounded up, at least 1.
#[must_use]
pub fn retry_after(wait: TimeDelta) -> i64 {
    (wait.num_milliseconds().max(0) as u64).div_ceil(1_000).max(1) as i64
}

/// An error as the API returns it.
#[derive(Debug)]
pub struct ApiError {
    problem: Problem,
    detail: String,
    errors: Vec<FieldError>,
    /// The methods that the path allows, if the request's method is not one of them (RFC 9110, 15.5.6).
    allowed: Option<&'static str>,
    /// Whole seconds after which the client may try again, if the service knows them.
    retry_after: Option<i64>,
}

impl ApiError {
    /// Makes an error. The detail says what a person needs to act on it.
    #[must_use]
    pub fn new(problem: Problem, detail: impl Into<String>) -> Self {
        Self {
            problem,
            detail: detail.into(),
            errors: Vec::new(),
            allowed: None,
            retry_after: None,
        }
    }

    /// Makes the error for invalid fields.
    #[must_use]
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail: Vec<String> = errors
            .iter()
            .map(|error| format!("{} {}", error.pointer, error.message))
            .collect();
        Self {
            errors,
            ..Self::new(Problem::InvalidFields, detail.join("; "))
        }
    }

    /// Makes the error for an id that does not exist in the project. An id of another project gets the same error.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(
            Problem::NotFound,
            format!("there is no such {what} in this project"),
        )
    }

    /// Makes the error for a method that the path does not allow.
    #[must_use]
    pub fn wrong_method(request: &HttpRequest, allowed: &'static str) -> Self {
        let detail = format!("{} takes {allowed}, not {}", request.path(), request.method());
        Self {
            allowed: Some(allowed),
            ..Self::new(Problem::MethodNotAllowed, detail)
        }
    }

    /// Makes the error for an overloaded server.
    fn busy() -> Self {
        Self::new(
            Problem::Busy,
            "the server is overloaded; try again in a few seconds",
        )
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn problem(&self) -> Problem {
        self.problem
    }

    fn body(&self) -> Value {
        let (code, status, title) = self.problem.row();
        let mut body = json!({
            "type": format!("/docs/problems#{code}"),
            "title": title,
            "status": status.as_u16(),
            "code": code,
            "detail": self.detail,
            "request_id": request::id(),
        });
        if !self.errors.is_empty() {
            body["errors"] = self
                .errors
                .iter()
                .map(|error| {
                    let mut fault = json!({"pointer": error.pointer, "message": error.message});
                    if let Some(position) = error.position {
                        fault["position"] = position.into();
                    }
                    if let Some((line, column)) = error.line_and_column {
                        fault["line"] = line.into();
                        fault["column"] = column.into();
                    }
                    fault
                })
                .collect();
        }
        body
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem.code(), self.detail)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.problem.row().1
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        answer.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        if let Some(allowed) = self.allowed {
            answer.insert_header((header::ALLOW, allowed));
        }
        match self.problem {
            Problem::MissingKey | Problem::UnknownKey | Problem::KeyExpired => {
                answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            Problem::Busy | Problem::DatabaseAway | Problem::KeyMissing => {
                answer.insert_header((header::RETRY_AFTER, RETRY_AFTER_SECONDS));
            }
            Problem::TooManyRequests => {
                let seconds = self.retry_after.unwrap_or(1);
                answer.insert_header((header::RETRY_AFTER, seconds.to_string()));
            }
            _ => {}
        }
        answer.body(self.body().to_string())
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let text = error.to_string();
        match error {
            ServiceError::NotFound(what) => Self::not_found(what),
            ServiceError::Refused(refusal) => refusal.into(),
            ServiceError::KeyFault(fault) => Self::new(fault.into(), text),
            ServiceError::Invalid(errors) => Self::fields(errors),
            ServiceError::SlugTaken(_) => Self::new(Problem::SlugTaken, text),
            ServiceError::Conflict(_) => Self::new(Problem::Conflict, text),
            ServiceError::Limit { .. } => Self::new(Problem::LimitReached, text),
            ServiceError::TooMany { retry_after, .. } => Self {
                retry_after: Some(self::retry_after(retry_after)),
                ..Self::new(Problem::TooManyRequests, text)
            },
            ServiceError::Busy => Self::busy(),
            ServiceError::KeyMissing(_) => Self::new(Problem::KeyMissing, text),
            ServiceError::Store(error) => error.into(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let problem = match refusal.standing {
            Standing::Scope(_) => Problem::KeyScope,
            Standing::Role(_) => Problem::MemberRole,
        };
        Self::new(problem, refusal.to_string())
    }
}

/// Logs the inner cause once. The response never contains it.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Crowded) {
            return Self::busy();
        }
        if error.is_unavailable() {
            tracing::warn!(error = %with_sources(&error), "the database cannot be reached");
            return Self::new(
                Problem::DatabaseAway,
                "the database cannot be reached; try again in a few seconds",
            );
        }
        tracing::error!(error = %with_sources(&error), "a request failed");
        Self::new(
            Problem::Internal,
            "the server's log has the cause under this request id",
        )
    }
}
