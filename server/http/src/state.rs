//! The state that handlers share: the services, reads, and settings. No handler can begin a transaction.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use deadbeat_services::Services;
use deadbeat_services::alert::delivery::DeliveryFigures;
use deadbeat_store::Reader;

use crate::extract::client_ip::TrustedProxies;

/// The state that all handlers share.
#[derive(Clone)]
pub struct AppState {
    /// The use cases.
    pub services: Services,
    /// Counters of the delivery loop, for metrics.
    pub deliveries: Arc<DeliveryFigures>,
    /// True if clients reach the site by https. Cookies are then valid only over https and only for this host, and browsers must stay with https.
    pub is_https: bool,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
}

impl AppState {
    /// Returns a reader, which can only read from the database.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.services.reader()
    }

    /// Returns the current time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.services.now()
    }
}
