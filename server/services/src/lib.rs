//! Use cases and loops: the only crate that begins a transaction.
//!
//! ```text
//! request ─ http ─▶ ingest ──────── one Tx: lock monitors, append pings and runs, domain::on_ping ───┐
//!                                                                                Transition? ▼
//! events ─ http ─▶ trace ───────── one Tx: lock traces, apply the new stages, write the traces
//!  clock ── evaluator ── one Tx per batch: claim overdue, domain::on_silence ─▶ incident::record
//!                                  transition + incident + outbox rows, in the same Tx
//!  wake-up or poll ─ delivery: claim with lease (Tx) ▶ render ▶ sender (no Tx) ▶ settle: sent | retry at | dead (Tx)
//! ```
//!
//! While a signal is being written, its transaction locks the row of its monitor, and the evaluator skips locked rows. A signal in flight therefore
//! always comes before a judgement of silence. A crash between any two arrows loses nothing: at worst a delivery is sent twice, with the same
//! delivery id.

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
use std::sync::atomic::Ordering;

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
use crate::people::account::hashing::Passwords;
use crate::people::account::{AccountSettings, Desk};
use crate::people::guessing::Guesses;
use crate::people::pace::Paces;
use crate::people::quota::{QuotaSettings, Quotas};
use crate::people::security_log::{OnceAMinute, TARGET, shown};
use crate::people::share::Shares;
use crate::people::strangers::Strangers;
use crate::secret::keyring::Keyring;

pub use error::ServiceError;

/// The parts that every use case needs. Clones are cheap.
#[derive(Clone)]
pub struct Services {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) site: Site,
    pub(crate) ingest: Ingest,
    pub(crate) traces: Traces,
    pub(crate) passwords: Passwords,
    /// Counts recent wrong passwords.
    pub(crate) guesses: Guesses,
    /// The rules for accounts.
    pub(crate) accounts: AccountSettings,
    /// Writes mails about accounts.
    pub(crate) desk: Desk,
    /// Counts the clients that recently opened links of mails and alerts.
    pub(crate) strangers: Strangers,
    /// Notified when a use case has put something into the outbox.
    pub(crate) outbox_bell: Arc<Notify>,
    pub(crate) selfwatch: Selfwatch,
    /// Counts what each Beat has sent recently.
    pub(crate) floods: Floods,
    /// The recent waits of messages in queues.
    pub(crate) waits: Waits,
    pub(crate) channel_rules: ChannelRules,
    /// Seals and opens the secrets of channels.
    pub(crate) keyring: Keyring,
    /// Limits the log lines about refusals to one per minute and key.
    pub(crate) refusals: Arc<OnceAMinute>,
    /// What keys and projects may use up.
    pub(crate) quotas: Quotas,
    /// Limits how fast a project may request slow work.
    pub(crate) paces: Paces,
    /// Limits the stages of one project that are being written.
    pub(crate) stages: Shares,
    /// Limits the signals of one project's runs that are being written.
    pub(crate) signals: Shares,
}

/// The rules of this deployment for new channels.
#[derive(Clone, Default)]
pub struct ChannelRules {
    /// Check whether a channel's settings can ever work. `None` skips the check, for commands and tests.
    pub senders: Option<Senders>,
    /// True if mail goes only to addresses whose owners have confirmed.
    pub confirm_mail: bool,
}

/// The address of this deployment for clients.
#[derive(Debug, Clone)]
pub struct Site {
    /// A URL such as `https://deadbeat.example.org`, without a slash at the end.
    pub url: String,
}

impl Site {
    /// Returns a monitor's ping URL.
    #[must_use]
    pub fn ping_url(&self, id: deadbeat_domain::ids::PingId) -> String {
        format!("{}/ping/{}", self.url, id.0)
    }

    /// Returns the DSN with which clients of Sentry report to a project: the ping key stands where they have a user. Any other text instead of a key
    /// stands there as it is.
    #[must_use]
    pub fn sentry_dsn(&self, ping_key: &str, project_number: i64) -> String {
        let (scheme, host) = self.url.split_once("://").unwrap_or(("http", &self.url));
        format!("{scheme}://{ping_key}@{host}/{project_number}")
    }

    /// Returns the URL of a cause's page.
    #[must_use]
    pub fn cause_url(&self, cause: deadbeat_domain::incident::cause::Cause) -> String {
        format!("{}{}", self.url, cause.page())
    }
}

impl Services {
    /// Makes the use cases. Requests use `store`; the loops have pools of their own.
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
            accounts: AccountSettings::default(),
            desk: Desk::default(),
            strangers: Strangers::default(),
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

    /// Replaces the quotas.
    #[must_use]
    pub fn with_quotas(self, settings: QuotaSettings) -> Self {
        Self {
            quotas: Quotas::new(settings),
            ..self
        }
    }

    /// Replaces the rules for accounts.
    #[must_use]
    pub fn with_accounts(self, accounts: AccountSettings) -> Self {
        Self { accounts, ..self }
    }

    /// True if this process can send mails to people about their accounts.
    #[must_use]
    pub fn can_mail(&self) -> bool {
        self.channel_rules
            .senders
            .as_ref()
            .is_some_and(alert::delivery::senders::Senders::can_post)
    }

    /// Counts a ping that a quota refused, and logs that its ping key or ping URL sends too many.
    pub fn note_flood(&self, address: &Address, client: Option<IpAddr>) {
        let limited = &self.ingest.figures().limited;
        limited.fetch_add(1, Ordering::Relaxed);
        let sender = people::quota::sender(address);
        if self.refusals.is_first(sender, self.now()) {
            let kind = match address {
                Address::Ping(_) => "ping URL",
                Address::Slug { .. } => "ping key",
            };
            tracing::warn!(target: TARGET, action = "too_many_pings", sender = kind, address = shown(client), "pings are refused, because their sender has sent too many");
        }
    }

    /// Returns the quotas of keys and projects.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Sets the rules for new channels.
    #[must_use]
    pub fn with_channel_rules(mut self, rules: ChannelRules) -> Self {
        self.channel_rules = rules;
        self
    }

    /// Sets the encryption keys. Without keys, nobody can add a channel.
    #[must_use]
    pub fn with_keyring(self, keyring: Keyring) -> Self {
        Self { keyring, ..self }
    }

    /// Returns the encryption keys for the secrets of channels.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Returns the current time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Returns a reader, which can only read from the database.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// Closes the database connections of requests.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Returns the address of this deployment for clients.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Returns the entrance for signals.
    #[must_use]
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Returns the entrance for stages of runs.
    #[must_use]
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Returns the state of the loops.
    #[must_use]
    pub fn selfwatch(&self) -> &Selfwatch {
        &self.selfwatch
    }
}
