//! A signal on its way to the database: its address, the facts of its request, and its outcome.

use deadbeat_domain::ids::PingId;
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::key_limit::KeyFault;
use serde::{Deserialize, Serialize};

use crate::secret;

/// The monitor to which a signal belongs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// `/ping/<uuid>`
    Ping(PingId),
    /// `/ping/<ping key>/<slug>`. Contains only the key's digest: the key itself goes no further.
    Slug {
        /// SHA-256 of the ping key.
        digest: Vec<u8>,
        /// The monitor's slug.
        slug: String,
    },
}

impl Address {
    /// Makes the address for a ping key and a slug.
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
    /// The monitor to which the signal belongs.
    pub address: Address,
    /// The signal in the form that the rules use.
    pub signal: Signal,
    /// The HTTP method.
    pub method: Option<String>,
    /// The client's address.
    pub remote_addr: Option<String>,
    /// The client's user agent.
    pub user_agent: Option<String>,
    /// The body, already cut to the limit.
    pub body: Vec<u8>,
}

/// The outcome of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The signal is written and committed.
    Recorded,
    /// The monitor does not exist.
    Unknown {
        /// The access of the ping key, if the signal came with a slug and a valid key.
        access: Option<Access>,
    },
    /// The ping key is valid, but not now, from there, or for this monitor. Nothing was recorded.
    Refused(KeyFault),
}
