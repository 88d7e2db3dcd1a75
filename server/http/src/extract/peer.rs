//! The address of who sent a request.

use std::net::IpAddr;

use actix_web::HttpRequest;

use crate::extract::client_ip::client_behind;
use crate::state::AppState;

/// The client's address. None: the connection has none.
///
/// `X-Forwarded-For` is read from the right, where the nearest proxy wrote, and only as far as trusted proxies reach: the first address
/// that is none of them is the client. What stands further left anybody may have written. What cannot be read as an address ends the
/// search: it never costs a ping.
#[must_use]
pub fn client_ip(request: &HttpRequest, state: &AppState) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    Some(client_behind(peer, request.headers(), &state.trusted_proxies))
}
