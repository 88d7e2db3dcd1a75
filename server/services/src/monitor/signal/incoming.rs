//! A signal on its way: whom it is for, what came with it, and what became of it.

use deadbeat_domain::ids::PingId;
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_domain::people::access::Access;
use serde::{Deserialize, Serialize};

use crate::secret;

/// Whom a signal is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// `/ping/<uuid>`
    Ping(PingId),
    /// `/ping/<ping key>/<slug>`; the key's digest, since the key itself goes no further.
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

/// A signal with what came around it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Whom it is for.
    pub address: Address,
    /// What the rules see.
    pub signal: Signal,
    /// HTTP method.
    pub method: Option<String>,
    /// Where it came from.
    pub remote_addr: Option<String>,
    /// The client's name for itself.
    pub user_agent: Option<String>,
    /// The body; cut to the limit here.
    pub body: Vec<u8>,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is written and committed.
    Recorded,
    /// There is no such monitor.
    Unknown {
        /// The access of the ping key, when a valid one came with a slug.
        access: Option<Access>,
    },
}
