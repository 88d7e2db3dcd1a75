//! Headers that keep a browser from doing what we never meant.

use actix_web::middleware::DefaultHeaders;

/// For every answer: no guessing of types, no framing, no referrer to other sites, nothing loaded from anywhere else.
#[must_use]
pub fn security_headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add(("X-Content-Type-Options", "nosniff"))
        .add(("X-Frame-Options", "DENY"))
        .add(("Referrer-Policy", "same-origin"))
        .add((
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'",
        ))
}
