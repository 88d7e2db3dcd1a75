//! Connections: limits on their number and on their time.
//!
//! actix's HTTP server has only two deadlines: for the first head of a connection, and for idle connections. This module adds the rest, at the one
//! place that all requests pass:
//!
//! * a deadline for every request to arrive completely, and for the client to receive every answer ([`stream`]);
//! * a limit on the connections of each address ([`Admission`]);
//! * no bare line feed in a head ([`head`]);
//! * an id, a span and a line in the access log for each request ([`answer`]).

mod answer;
mod head;
mod serve;
mod stream;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;

pub use serve::{Routes, serve};
pub use stream::{Guarded, Patience};

use crate::extract::client_ip::{TrustedProxies, network};

/// How many clients may connect, and for how long.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// The most open connections of one address (of one /64 of IPv6). Trusted proxies have no such limit, because each stands for many clients.
    pub per_address: usize,
    /// The most open connections of this process. Further ones wait in the kernel until the process accepts them.
    pub total: usize,
    /// How long a request or an answer may take.
    pub patience: Patience,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            per_address: 1_000,
            total: 20_000,
            patience: Patience {
                base: std::time::Duration::from_secs(30),
                bytes_per_second: 16_000,
            },
        }
    }
}

/// Counts the open connections of each address. Clones are cheap and share the counts.
#[derive(Debug, Clone)]
pub struct Admission {
    settings: ConnectionSettings,
    proxies: TrustedProxies,
    open: Open,
}

type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection's place among those of its address. Dropping the slot frees the place.
#[derive(Debug, Default)]
pub(crate) struct Slot(Option<(Open, IpAddr)>);

impl Admission {
    /// Starts without connections.
    #[must_use]
    pub fn new(settings: ConnectionSettings, proxies: TrustedProxies) -> Self {
        Self {
            settings,
            proxies,
            open: Open::default(),
        }
    }

    /// Returns the most open connections of this process.
    #[must_use]
    pub fn total(&self) -> usize {
        self.settings.total
    }

    /// Admits a connection. Returns `None` if its address has too many already; the stream is then dropped, which closes the connection.
    #[must_use]
    pub fn admit(&self, io: TcpStream) -> Option<(Guarded<TcpStream>, Option<SocketAddr>)> {
        let peer = io.peer_addr().ok();
        let slot = self.slot(peer.map(|peer| peer.ip()))?;
        Some((Guarded::new(io, self.settings.patience, slot), peer))
    }

    fn slot(&self, peer: Option<IpAddr>) -> Option<Slot> {
        let Some(peer) = peer.filter(|peer| !self.proxies.trusts(*peer)) else {
            return Some(Slot::default());
        };
        let address = network(peer);
        let mut open = lock(&self.open);
        let count = open.entry(address).or_default();
        if *count >= self.settings.per_address {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Slot(Some((Arc::clone(&self.open), address))))
    }
}

/// Locks the counts. They stay correct even if a thread panicked while it held the lock.
fn lock(open: &Open) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((open, address)) = self.0.take() else {
            return;
        };
        let mut open = lock(&open);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_a_proxy_as_many_as_it_wants() {
        let settings = ConnectionSettings {
            per_address: 2,
            ..ConnectionSettings::default()
        };
        let admission = Admission::new(settings, TrustedProxies::default());
        let slot = |address: &str| admission.slot(Some(address.parse().unwrap()));

        let one = slot("203.0.113.7").unwrap();
        let _two = slot("203.0.113.7").unwrap();
        assert!(slot("203.0.113.7").is_none());
        // The same machine, by its IPv4-mapped IPv6 address.
        assert!(slot("::ffff:203.0.113.7").is_none());
        let _other = slot("203.0.113.8").unwrap();
        drop(one);
        assert!(slot("203.0.113.7").is_some());

        let _six = [slot("2001:db8::1").unwrap(), slot("2001:db8::2").unwrap()];
        assert!(slot("2001:db8::3").is_none(), "a /64 counts as one");

        let proxied: Vec<Slot> = (0..10).map(|_| slot("127.0.0.1").unwrap()).collect();
        assert_eq!(proxied.len(), 10);
        drop((proxied, _two, _other, _six));
        assert!(
            lock(&admission.open).is_empty(),
            "a closed connection must leave no count"
        );
    }
}
