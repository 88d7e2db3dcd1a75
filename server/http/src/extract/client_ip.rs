//! Where a request came from.

use std::net::IpAddr;

use actix_web::HttpRequest;

/// The client's address.
///
/// A proxy on this machine or in a private network is believed: the last address in `X-Forwarded-For` that is not itself such a
/// neighbour is the one that our own proxies saw; what stands before it anybody may have written. What cannot be read as an address
/// is passed over: it never costs a ping.
#[must_use]
pub fn client_ip(request: &HttpRequest) -> Option<String> {
    let peer = request.peer_addr().map(|addr| addr.ip());
    let forwarded = request
        .headers()
        .get("x-forwarded-for")
        .and_then(|value| value.to_str().ok());
    seen_by_our_proxies(peer, forwarded).map(|ip| ip.to_canonical().to_string())
}

fn seen_by_our_proxies(peer: Option<IpAddr>, forwarded: Option<&str>) -> Option<IpAddr> {
    let forwarded = forwarded
        .filter(|_| peer.is_some_and(is_near))
        .unwrap_or_default();
    let mut named = forwarded.rsplit(',').filter_map(|part| parse(part.trim()));
    named.find(|ip| !is_near(*ip)).or(peer)
}

/// An address with or without a port: `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn parse(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(socket.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        for (text, ip) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.7:4711", Some("203.0.113.7")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]:80", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("unknown", None),
            ("", None),
            ("[", None),
        ] {
            assert_eq!(parse(text).map(|ip| ip.to_string()).as_deref(), ip, "{text:?}");
        }
    }

    #[test]
    fn only_what_our_own_proxies_saw_is_believed() {
        for (peer, forwarded, seen) in [
            ("127.0.0.1", Some("198.51.100.1, 203.0.113.7"), "203.0.113.7"),
            (
                "127.0.0.1",
                Some("203.0.113.7, 10.0.0.2, 192.168.1.1"),
                "203.0.113.7",
            ),
            ("127.0.0.1", Some("garbage"), "127.0.0.1"),
            ("127.0.0.1", None, "127.0.0.1"),
            ("203.0.113.9", Some("198.51.100.1"), "203.0.113.9"),
        ] {
            let ip = seen_by_our_proxies(Some(peer.parse().unwrap()), forwarded);
            assert_eq!(
                ip.map(|ip| ip.to_string()).as_deref(),
                Some(seen),
                "{peer} {forwarded:?}"
            );
        }
    }
}
