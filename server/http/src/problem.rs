//! The table of problem codes: every fault that the API can answer. `docs/problems.md` has a heading for each.

use actix_web::http::StatusCode;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};

/// The page that a problem's `type` leads to.
pub fn configure(config: &mut ServiceConfig) {
    config.route("/docs/problems", web::get().to(explain));
}

async fn explain() -> impl Responder {
    HttpResponse::Ok()
        .content_type("text/markdown; charset=utf-8")
        .body(include_str!("../../../docs/problems.md"))
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No key came with the request.
    MissingKey,
    /// The key is unknown or revoked.
    UnknownKey,
    /// The key may not do this.
    KeyScope,
    /// The role of the account may not do this.
    MemberRole,
    /// The body is no JSON.
    InvalidJson,
    /// The body is JSON, but not what is asked for.
    InvalidFields,
    /// A query parameter cannot be taken.
    InvalidQuery,
    /// The body is too large.
    BodyTooLarge,
    /// Nothing of that id or path.
    NotFound,
    /// The path takes other methods.
    MethodNotAllowed,
    /// The slug is taken.
    SlugTaken,
    /// Not in this state.
    Conflict,
    /// A quota is reached.
    LimitReached,
    /// A quota of a window of time is used up.
    TooManyRequests,
    /// Too much at once.
    Busy,
    /// The server lacks a key for the secrets of channels.
    KeyMissing,
    /// The database is away.
    DatabaseAway,
    /// A bug of ours.
    Internal,
}

impl Problem {
    /// Every kind: documents and tests go through them.
    pub const ALL: [Self; 18] = [
        Self::MissingKey,
        Self::UnknownKey,
        Self::KeyScope,
        Self::MemberRole,
        Self::InvalidJson,
        Self::InvalidFields,
        Self::InvalidQuery,
        Self::BodyTooLarge,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::SlugTaken,
        Self::Conflict,
        Self::LimitReached,
        Self::TooManyRequests,
        Self::Busy,
        Self::KeyMissing,
        Self::DatabaseAway,
        Self::Internal,
    ];

    /// Its code, status and title.
    #[must_use]
    pub fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::MissingKey => ("missing_key", StatusCode::UNAUTHORIZED, "An API key is needed"),
            Self::UnknownKey => (
                "unknown_key",
                StatusCode::UNAUTHORIZED,
                "The API key is unknown or revoked",
            ),
            Self::KeyScope => ("key_scope", StatusCode::FORBIDDEN, "The API key may not do this"),
            Self::MemberRole => (
                "member_role",
                StatusCode::FORBIDDEN,
                "Your role in the project may not do this",
            ),
            Self::InvalidJson => ("invalid_json", StatusCode::BAD_REQUEST, "The body is not JSON"),
            Self::InvalidFields => (
                "invalid_fields",
                StatusCode::BAD_REQUEST,
                "The request has invalid fields",
            ),
            Self::InvalidQuery => (
                "invalid_query",
                StatusCode::BAD_REQUEST,
                "The query has invalid parameters",
            ),
            Self::BodyTooLarge => (
                "body_too_large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too large",
            ),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "There is no such thing"),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "This path takes other methods",
            ),
            Self::SlugTaken => ("slug_taken", StatusCode::CONFLICT, "The slug is taken"),
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "It is not in a state for this"),
            Self::LimitReached => (
                "limit_reached",
                StatusCode::FORBIDDEN,
                "A limit of the project is reached",
            ),
            Self::TooManyRequests => (
                "too_many_requests",
                StatusCode::TOO_MANY_REQUESTS,
                "Too many of these in a short time",
            ),
            Self::Busy => ("busy", StatusCode::SERVICE_UNAVAILABLE, "Too much at once"),
            Self::KeyMissing => (
                "key_missing",
                StatusCode::SERVICE_UNAVAILABLE,
                "The server lacks a key for secrets",
            ),
            Self::DatabaseAway => (
                "database_away",
                StatusCode::SERVICE_UNAVAILABLE,
                "The database is away",
            ),
            Self::Internal => (
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong here",
            ),
        }
    }

    /// Stable, for programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().0
    }
}
