//! The sender of a ping.

use actix_web::HttpRequest;
use actix_web::http::header;
use deadbeat_services::monitor::signal::request::Sender;

use crate::extract::peer::client_ip;
use crate::state::AppState;

/// Returns the sender of a request, for [`deadbeat_services::monitor::signal::incoming::Incoming::from_request`]. A user agent that is not UTF-8
/// does not lose the ping: U+FFFD replaces each faulty character.
#[must_use]
pub fn sender(request: &HttpRequest, state: &AppState) -> Sender {
    Sender {
        method: request.method().as_str().to_owned(),
        address: client_ip(request, state),
        user_agent: request
            .headers()
            .get(header::USER_AGENT)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
    }
}
