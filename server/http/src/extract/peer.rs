//! The address of a request's sender.

use std::net::IpAddr;

use actix_web::HttpRequest;

use crate::extract::client_ip::client_behind;
use crate::state::AppState;

/// The client's address. None: the connection has none.
///
/// `X-Forwarded-For` is read from the right, where the nearest proxy wrote, and only as far as trusted proxies reach.
/// The first address that is no trusted proxy is the client. Anybody may have written the addresses further left. A
/// part that is not an address ends the search; it never costs a ping.
#[must_use]
pub fn client_ip(request: &HttpRequest, state: &AppState) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    Some(client_behind(peer, request.headers(), &state.trusted_proxies))
}
