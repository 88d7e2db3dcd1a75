//! Connections: how many there may be, and how long each may take.
//!
//! The HTTP server below has a deadline for the first head of a connection and for idle ones, and no more. Everything else is here, at
//! the one place that all requests pass: a deadline for every request to come whole and for every answer to be taken ([`stream`]), a
//! limit of connections for each address ([`Admission`]), no bare line feed in a head ([`head`]), and an id, a span and a line in the access
//! log for each request ([`answer`]).

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

/// Who may connect, and for how long.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Connections of one address (of one /64 of IPv6) at a time. Trusted proxies have no such limit: they are many clients.
    pub per_address: usize,
    /// Connections of this process at a time; more wait to be accepted.
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

/// Counts the connections of each address. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    settings: ConnectionSettings,
    proxies: TrustedProxies,
    open: Open,
}

type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// The place of one connection among those of its address; dropped, it is free again.
#[derive(Debug, Default)]
pub(crate) struct Slot(Option<(Open, IpAddr)>);

impl Admission {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(settings: ConnectionSettings, proxies: TrustedProxies) -> Self {
        Self {
            settings,
            proxies,
            open: Open::default(),
        }
    }

    /// Connections of this process at a time.
    #[must_use]
    pub fn total(&self) -> usize {
        self.settings.total
    }

    /// Takes a connection in. None: its address has enough of them; dropped, the connection is closed.
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

/// Counts stay true whoever panicked while holding them.
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
        // The same machine, by an address of IPv6 that stands for it.
        assert!(slot("::ffff:203.0.113.7").is_none());
        let _other = slot("203.0.113.8").unwrap();
        drop(one);
        assert!(slot("203.0.113.7").is_some());

        let _six = [slot("2001:db8::1").unwrap(), slot("2001:db8::2").unwrap()];
        assert!(slot("2001:db8::3").is_none(), "a /64 counts as one");

        let proxied: Vec<Slot> = (0..10).map(|_| slot("127.0.0.1").unwrap()).collect();
        assert_eq!(proxied.len(), 10);
        drop((proxied, _two, _other, _six));
        assert!(lock(&admission.open).is_empty(), "nothing is kept of who is gone");
    }
}
