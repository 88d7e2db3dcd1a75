//! Headers that keep browsers from unwanted actions.

use actix_web::HttpResponse;
use actix_web::http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::middleware::DefaultHeaders;

/// For every answer: no guessing of types, no framing, no referrer for other sites, and no content from other sites.
const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'",
        ),
    ),
];

/// For sites with https: a browser that has visited the site does not use plain HTTP for a year (RFC 6797). Subdomains are not included, because they
/// may belong to other people.
const ONLY_HTTPS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Returns the middleware for all paths except `/ping/…`.
#[must_use]
pub fn security_headers(is_https: bool) -> DefaultHeaders {
    let mut headers = DefaultHeaders::new();
    for header in ALWAYS {
        headers = headers.add(header);
    }
    if is_https {
        headers = headers.add((STRICT_TRANSPORT_SECURITY, ONLY_HTTPS));
    }
    headers
}

/// Adds the same headers to one answer. Ping URLs use this, because a middleware would cost more than the headers.
pub fn add_security_headers(answer: &mut HttpResponse, is_https: bool) {
    let headers = answer.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    if is_https {
        headers.insert(STRICT_TRANSPORT_SECURITY, ONLY_HTTPS);
    }
}
