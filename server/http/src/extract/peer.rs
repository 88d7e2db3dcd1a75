//! The address of a request's sender.

use std::net::IpAddr;

use actix_web::HttpRequest;

use crate::extract::client_ip::client_behind;
use crate::state::AppState;

/// Returns the client's address, or `None` if the connection has no address.
///
/// This reads `X-Forwarded-For` from the right, because the nearest proxy adds its entry there. It skips the addresses of trusted proxies. The first
/// other address is the client's. Anybody may have written the addresses further left. An entry that is not an address ends the search, but never
/// loses the ping.
#[must_use]
pub fn client_ip(request: &HttpRequest, state: &AppState) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    Some(client_behind(peer, request.headers(), &state.trusted_proxies))
}
