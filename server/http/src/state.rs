//! What a handler may hold: the services, plain reads, and settings. No way to begin a transaction.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use deadbeat_services::Services;
use deadbeat_services::alert::delivery::DeliveryFigures;
use deadbeat_store::Reader;

use crate::extract::client_ip::TrustedProxies;

/// Shared by all handlers.
#[derive(Clone)]
pub struct AppState {
    /// The use cases.
    pub services: Services,
    /// Figures of the delivery loop, for metrics.
    pub deliveries: Arc<DeliveryFigures>,
    /// Whether the site is reached by https: then cookies are for https and this host only, and browsers are told to stay with https.
    pub is_https: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
}

impl AppState {
    /// Plain reads.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.services.reader()
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.services.now()
    }
}
