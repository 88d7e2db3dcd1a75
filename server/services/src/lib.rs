//! Use cases and loops: the only crate that begins a transaction.
//!
//! ```text
//! request ─ http ─▶ ingest ──────── one Tx: lock monitors, append pings and runs, domain::on_ping ───┐
//!                                                                                Transition? ▼
//! events ─ http ─▶ trace ───────── one Tx: lock traces, fold the told stages, write them anew
//!  clock ── evaluator ── one Tx per batch: claim overdue, domain::on_silence ─▶ incident::record
//!                                  transition + incident + outbox rows, in the same Tx
//!  wake-up or poll ─ delivery: claim with lease (Tx) ▶ render ▶ sender (no Tx) ▶ settle: sent | retry at | dead (Tx)
//! ```
//!
//! A signal being written holds its monitor's row and the evaluator skips locked rows, so a signal in flight always beats the
//! silence. A crash between any two arrows loses nothing: at worst a delivery is sent twice, under the same delivery id.

pub mod alert;
pub mod celery;
pub mod error;
pub mod feed;
pub mod incident;
pub mod judge;
pub mod monitor;
pub mod operation;
pub mod people;
pub mod schedule;
pub mod secret;
#[cfg(test)]
mod shared_rules;

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use deadbeat_domain::time::Clock;
use deadbeat_store::{Reader, Store};
use tokio::sync::Notify;

use crate::alert::delivery::senders::Senders;
use crate::celery::beat::flood::Floods;
use crate::celery::broker::queue_wait::Waits;
use crate::celery::trace::Traces;
use crate::monitor::signal::incoming::Address;
use crate::monitor::signal::ingest::Ingest;
use crate::operation::selfwatch::Selfwatch;
use crate::people::account::Passwords;
use crate::people::guessing::Guesses;
use crate::people::pace::Paces;
use crate::people::quota::{QuotaSettings, Quotas};
use crate::people::security_log::{OnceAMinute, TARGET, shown};
use crate::people::share::Shares;
use crate::secret::keyring::Keyring;

pub use error::ServiceError;

/// What every use case needs. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) site: Site,
    pub(crate) ingest: Ingest,
    pub(crate) traces: Traces,
    pub(crate) passwords: Passwords,
    /// Who guessed passwords, lately.
    pub(crate) guesses: Guesses,
    /// Rung when something was put into the outbox.
    pub(crate) outbox_bell: Arc<Notify>,
    pub(crate) selfwatch: Selfwatch,
    /// How often Beats sent what, lately.
    pub(crate) floods: Floods,
    /// How long messages waited, lately.
    pub(crate) waits: Waits,
    pub(crate) channel_rules: ChannelRules,
    /// Seals and opens the secrets of channels.
    pub(crate) keyring: Keyring,
    /// What was refused lately, each told once a minute.
    pub(crate) refusals: Arc<OnceAMinute>,
    /// What keys and projects may use up.
    pub(crate) quotas: Quotas,
    /// How fast projects may ask for work that takes long.
    pub(crate) paces: Paces,
    /// Stages of runs of one project that are under way.
    pub(crate) stages: Shares,
    /// Signals of one project's runs that are under way.
    pub(crate) signals: Shares,
}

/// What this deployment asks of new channels.
#[derive(Clone, Default)]
pub struct ChannelRules {
    /// Judge whether a channel's settings can ever work. None: they are taken as they are, which is for commands and tests.
    pub senders: Option<Senders>,
    /// Mail goes only to addresses whose owners confirmed.
    pub confirm_mail: bool,
}

/// How this deployment is reached from outside.
#[derive(Debug, Clone)]
pub struct Site {
    /// Such as `https://deadbeat.example.org`, without a slash at the end.
    pub url: String,
}

impl Site {
    /// A monitor's ping URL.
    #[must_use]
    pub fn ping_url(&self, id: deadbeat_domain::ids::PingId) -> String {
        format!("{}/ping/{}", self.url, id.0)
    }

    /// The address of a cause's page.
    #[must_use]
    pub fn cause_url(&self, cause: deadbeat_domain::incident::cause::Cause) -> String {
        format!("{}{}", self.url, cause.page())
    }
}

impl Services {
    /// Puts the parts together. `store` is used by requests; the loops have pools of their own.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        site: Site,
        ingest: Ingest,
        traces: Traces,
        outbox_bell: Arc<Notify>,
        selfwatch: Selfwatch,
    ) -> Self {
        Self {
            store,
            clock,
            site,
            ingest,
            traces,
            passwords: Passwords::default(),
            guesses: Guesses::default(),
            refusals: Arc::default(),
            outbox_bell,
            selfwatch,
            floods: Floods::default(),
            waits: Waits::default(),
            channel_rules: ChannelRules::default(),
            keyring: Keyring::default(),
            quotas: Quotas::default(),
            paces: Paces::default(),
            stages: celery::event::share::stages(),
            signals: celery::event::share::signals(),
        }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_quotas(self, settings: QuotaSettings) -> Self {
        Self {
            quotas: Quotas::new(settings),
            ..self
        }
    }

    /// Notes that a ping key or a ping URL sends too many pings.
    pub fn note_flood(&self, address: &Address, client: Option<IpAddr>) {
        let sender = people::quota::sender(address);
        if self.refusals.is_first(sender, self.now()) {
            let kind = match address {
                Address::Ping(_) => "ping URL",
                Address::Slug { .. } => "ping key",
            };
            tracing::warn!(target: TARGET, action = "too_many_pings", sender = kind, address = shown(client), "pings are refused: there are too many");
        }
    }

    /// What keys and projects may use up.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Also with these rules for new channels.
    #[must_use]
    pub fn with_channel_rules(mut self, rules: ChannelRules) -> Self {
        self.channel_rules = rules;
        self
    }

    /// Also with these keys. Without keys, no channel can be added.
    #[must_use]
    pub fn with_keyring(self, keyring: Keyring) -> Self {
        Self { keyring, ..self }
    }

    /// The keys that seal the secrets of channels.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Plain reads.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// Closes the connections of requests.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// How this deployment is reached.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The group commit's door.
    #[must_use]
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// The door for stages of runs.
    #[must_use]
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// How the loops are doing.
    #[must_use]
    pub fn selfwatch(&self) -> &Selfwatch {
        &self.selfwatch
    }
}
