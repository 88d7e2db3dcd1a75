//! A signal on its way: its address, the facts of its request, and the outcome.

use deadbeat_domain::ids::PingId;
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_domain::people::access::Access;
use serde::{Deserialize, Serialize};

use crate::secret;

/// The monitor that a signal is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// `/ping/<uuid>`
    Ping(PingId),
    /// `/ping/<ping key>/<slug>`. Holds only the key's digest: the key itself goes no further.
    Slug {
        /// SHA-256 of the ping key.
        digest: Vec<u8>,
        /// The monitor's slug.
        slug: String,
    },
}

impl Address {
    /// A ping key and a slug.
    #[must_use]
    pub fn slug(key: &str, slug: &str) -> Self {
        Self::Slug {
            digest: secret::digest(key),
            slug: slug.to_owned(),
        }
    }
}

/// A signal, with the facts of its request.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The monitor that it is for.
    pub address: Address,
    /// The signal, as the rules see it.
    pub signal: Signal,
    /// HTTP method.
    pub method: Option<String>,
    /// The client's address.
    pub remote_addr: Option<String>,
    /// The client's user agent.
    pub user_agent: Option<String>,
    /// The body, cut to the limit here.
    pub body: Vec<u8>,
}

/// The outcome of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is written and committed.
    Recorded,
    /// There is no such monitor.
    Unknown {
        /// The access of the ping key, if a valid key came with a slug.
        access: Option<Access>,
    },
}
