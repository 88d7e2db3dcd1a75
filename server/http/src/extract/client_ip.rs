//! The address from which a request comes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use actix_web::http::header::HeaderMap;
use ipnet::IpNet;

/// The networks of the proxies whose `X-Forwarded-For` is trusted. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl Default for TrustedProxies {
    /// Trusts only this machine: in a private network, any machine may be a client.
    fn default() -> Self {
        Self(Arc::new([
            IpNet::new_assert([127, 0, 0, 0].into(), 8),
            IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
        ]))
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Parses networks and addresses, separated by commas. An empty text trusts no proxy.
    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                let address = part.parse::<IpAddr>().map(IpNet::from);
                address.or_else(|_| part.parse()).map_err(|_| {
                    format!("{part:?} is no network; 10.1.0.0/16, fd00::/8 or 192.0.2.7 are allowed, with commas between them")
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(|networks| Self(networks.into()))
    }
}

impl TrustedProxies {
    /// Returns true if an address belongs to one of these proxies.
    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// Returns the network that counts as one client: an IPv4 address, or a /64 of IPv6, in which one client can choose any address.
#[must_use]
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

pub(crate) fn client_behind(peer: IpAddr, headers: &HeaderMap, proxies: &TrustedProxies) -> IpAddr {
    let mut client = peer;
    if !proxies.trusts(peer) {
        return client;
    }
    // A proxy may add its own line of this header instead of extending the existing line.
    let lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .map(|line| line.to_str().unwrap_or_default())
        .collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Some(ip) = parse(hop.trim()) else { break };
        client = ip.to_canonical();
        if !proxies.trusts(client) {
            break;
        }
    }
    client
}

/// Parses an address with or without a port: `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn parse(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

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
    fn networks_are_read_with_commas_between_them() {
        let proxies: TrustedProxies = "10.1.0.0/16, fd00::/8 ,192.0.2.7".parse().unwrap();
        for (ip, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("fd12::1", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(proxies.trusts(ip.parse().unwrap()), trusted, "{ip}");
        }
        assert_eq!("".parse(), Ok(TrustedProxies(Arc::new([]))));
        for wrong in ["10.0.0.0/33", "proxy.example.org", "10.0.0.0-10.0.0.9", "*"] {
            assert!(wrong.parse::<TrustedProxies>().is_err(), "{wrong}");
        }
    }

    fn seen(peer: &str, proxies: &TrustedProxies, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_str(line).unwrap(),
            );
        }
        client_behind(peer.parse().unwrap(), &headers, proxies).to_string()
    }

    #[test]
    fn by_default_only_this_machine_is_believed() {
        let proxies = TrustedProxies::default();
        for (peer, lines, client) in [
            ("127.0.0.1", vec!["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            ("::1", vec!["203.0.113.7"], "203.0.113.7"),
            ("127.0.0.1", vec!["203.0.113.7, 127.0.0.2"], "203.0.113.7"),
            ("127.0.0.1", vec!["203.0.113.7, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", vec!["203.0.113.7, garbage"], "127.0.0.1"),
            ("127.0.0.1", vec![], "127.0.0.1"),
            ("10.0.0.2", vec!["203.0.113.7"], "10.0.0.2"),
            ("203.0.113.9", vec!["198.51.100.1"], "203.0.113.9"),
        ] {
            assert_eq!(seen(peer, &proxies, &lines), client, "{peer} {lines:?}");
        }
    }

    #[test]
    fn the_header_is_walked_from_the_right_over_trusted_proxies_only() {
        let proxies = "10.0.0.0/8,192.168.1.1".parse().unwrap();
        for (peer, lines, client) in [
            (
                "10.0.0.2",
                vec!["198.51.100.1, 203.0.113.7, 192.168.1.1"],
                "203.0.113.7",
            ),
            // Several lines count as one list, in their order.
            (
                "10.0.0.2",
                vec!["198.51.100.1", "203.0.113.7", "10.3.3.3"],
                "203.0.113.7",
            ),
            // Every hop is in a trusted network, so the client is, too: it is the leftmost hop.
            ("10.0.0.2", vec!["10.9.9.9, 192.168.1.1"], "10.9.9.9"),
            ("192.168.1.2", vec!["203.0.113.7"], "192.168.1.2"),
            ("::ffff:10.0.0.2", vec!["[2001:db8::1]:80"], "2001:db8::1"),
        ] {
            assert_eq!(seen(peer, &proxies, &lines), client, "{peer} {lines:?}");
        }
    }
}
