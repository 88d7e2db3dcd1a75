//! What a handler may hold: the services, plain reads, and settings. No way to begin a transaction.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use deadbeat_services::Services;
use deadbeat_services::delivery::DeliveryFigures;
use deadbeat_store::Reader;

/// Shared by all handlers.
#[derive(Clone)]
pub struct AppState {
    /// The use cases.
    pub services: Services,
    /// Figures of the delivery loop, for metrics.
    pub deliveries: Arc<DeliveryFigures>,
    /// Whether cookies are marked as for https only.
    pub secure_cookies: bool,
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
