//! The table of problem codes: every error that the API can return. `docs/problems.md` has a heading for each.

use actix_web::http::StatusCode;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use deadbeat_domain::people::key_limit::KeyFault;

/// Mounts the page to which the `type` of a problem links.
pub fn configure(config: &mut ServiceConfig) {
    config.route("/docs/problems", web::get().to(explain));
}

async fn explain() -> impl Responder {
    HttpResponse::Ok()
        .content_type("text/markdown; charset=utf-8")
        .body(include_str!("../../../docs/problems.md"))
}

/// A kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The request has no key.
    MissingKey,
    /// The key is unknown or revoked.
    UnknownKey,
    /// The key's end has passed.
    KeyExpired,
    /// The key may not be used from this address.
    KeyNetwork,
    /// The key is limited to other slugs or tags.
    KeyPart,
    /// The key may not do this.
    KeyScope,
    /// The role of the account may not do this.
    MemberRole,
    /// Nothing proves that a callback comes from the service of a channel.
    BadSignature,
    /// The body is not JSON.
    InvalidJson,
    /// The body is JSON, but some of its fields are invalid.
    InvalidFields,
    /// A query parameter is unknown or invalid.
    InvalidQuery,
    /// The body is too large.
    BodyTooLarge,
    /// The id or the path does not exist.
    NotFound,
    /// The path allows only other methods.
    MethodNotAllowed,
    /// The slug is taken.
    SlugTaken,
    /// The object is in a state that does not allow this.
    Conflict,
    /// The project has reached a limit on a number of things, such as monitors.
    LimitReached,
    /// The project has used up a quota of this stretch of time.
    TooManyRequests,
    /// The server is overloaded; a retry in a few seconds may succeed.
    Busy,
    /// The server lacks the encryption key for the secrets of channels.
    KeyMissing,
    /// The database cannot be reached.
    DatabaseAway,
    /// A bug of the server.
    Internal,
}

impl Problem {
    /// Every kind, for documents and tests that list all of them.
    pub const ALL: [Self; 22] = [
        Self::MissingKey,
        Self::UnknownKey,
        Self::KeyExpired,
        Self::KeyNetwork,
        Self::KeyPart,
        Self::KeyScope,
        Self::MemberRole,
        Self::BadSignature,
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

    /// Returns the code, the HTTP status and the title.
    #[must_use]
    pub fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::MissingKey => ("missing_key", StatusCode::UNAUTHORIZED, "An API key is needed"),
            Self::UnknownKey => (
                "unknown_key",
                StatusCode::UNAUTHORIZED,
                "The API key is unknown or revoked",
            ),
            Self::KeyExpired => ("key_expired", StatusCode::UNAUTHORIZED, "The API key has expired"),
            Self::KeyNetwork => (
                "key_network",
                StatusCode::FORBIDDEN,
                "The API key may not be used from this address",
            ),
            Self::KeyPart => (
                "key_part",
                StatusCode::FORBIDDEN,
                "The API key is limited to other slugs or tags",
            ),
            Self::KeyScope => ("key_scope", StatusCode::FORBIDDEN, "The API key may not do this"),
            Self::MemberRole => (
                "member_role",
                StatusCode::FORBIDDEN,
                "Your role in the project may not do this",
            ),
            Self::BadSignature => (
                "bad_signature",
                StatusCode::FORBIDDEN,
                "The callback proves nothing",
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
            Self::Conflict => (
                "conflict",
                StatusCode::CONFLICT,
                "The current state does not allow this",
            ),
            Self::LimitReached => (
                "limit_reached",
                StatusCode::FORBIDDEN,
                "A limit of the project is reached",
            ),
            Self::TooManyRequests => (
                "too_many_requests",
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests in a short time",
            ),
            Self::Busy => (
                "busy",
                StatusCode::SERVICE_UNAVAILABLE,
                "The server is overloaded",
            ),
            Self::KeyMissing => (
                "key_missing",
                StatusCode::SERVICE_UNAVAILABLE,
                "The server lacks a key for secrets",
            ),
            Self::DatabaseAway => (
                "database_away",
                StatusCode::SERVICE_UNAVAILABLE,
                "The database cannot be reached",
            ),
            Self::Internal => (
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong here",
            ),
        }
    }

    /// Returns the code. Programs compare it, so it never changes.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().0
    }
}

impl From<KeyFault> for Problem {
    fn from(fault: KeyFault) -> Self {
        match fault {
            KeyFault::Expired => Self::KeyExpired,
            KeyFault::Network => Self::KeyNetwork,
            KeyFault::Part => Self::KeyPart,
        }
    }
}
