//! Wiring: makes a running server from settings and parts. The binary and the tests use the same [`App`].

pub mod clock;
pub mod commands;
pub mod config;
pub mod database;
pub mod embedded_postgres;
pub mod file_limit;
pub mod telemetry;
pub mod zone_files;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use anyhow::Context;
use chrono::TimeDelta;
use deadbeat_domain::judge::reception::SETTLING;
use deadbeat_domain::time::Clock;
use deadbeat_http::AppState;
use deadbeat_http::connection::{Admission, ConnectionSettings, Routes, serve};
use deadbeat_http::extract::client_ip::TrustedProxies;
use deadbeat_services::alert::delivery::outbound::Outbound;
use deadbeat_services::alert::delivery::senders::Senders;
use deadbeat_services::alert::delivery::{Delivery, DeliverySettings};
use deadbeat_services::alert::sealing::keeper::Keeper;
use deadbeat_services::celery::trace::Traces;
use deadbeat_services::celery::trace::lost::Lost;
use deadbeat_services::judge::evaluator::Evaluator;
use deadbeat_services::monitor::signal::ingest::{Ingest, LANES};
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_services::monitor::signal::spool::Spool;
use deadbeat_services::monitor::signal::writer::ACKNOWLEDGED_WITHIN;
use deadbeat_services::operation::listening::{self, Listening};
use deadbeat_services::operation::retention::{Retention, RetentionSettings};
use deadbeat_services::operation::selfwatch::Selfwatch;
use deadbeat_services::operation::supervisor::{keep_running, keep_running_behind};
use deadbeat_services::operation::watchdog::Watchdog;
use deadbeat_services::people::account::AccountSettings;
use deadbeat_services::people::quota::QuotaSettings;
use deadbeat_services::schedule::zone_data::ZoneData;
use deadbeat_services::secret::keyring::Keyring;
use deadbeat_services::{ChannelRules, Services, Site};
use deadbeat_store::connection::gate::Gate;
use deadbeat_store::{PoolSettings, Store};
use nix::sys::socket::Backlog;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::Role;

/// How long a caller waits for a connection before it considers the database unreachable.
const DATABASE_WAIT: Duration = Duration::from_secs(3);

/// The most connections that requests use at once, and the most that one client, account or project uses of them.
const ASKED_FOR: usize = 8;
const OF_ONE_ASKER: usize = 4;
/// How long a statement of a request, or of the retention, may take.
const REQUEST_ANSWER: Duration = Duration::from_secs(30);
/// How long a statement of a loop may take; the loop then retries. For the limit of the writers see [`deadbeat_services::monitor::signal::writer`].
const LOOP_ANSWER: Duration = Duration::from_secs(5);

/// The parts of an [`App`].
pub struct Parts {
    /// A bound listener, so that a test knows its port.
    pub listener: TcpListener,
    /// The URL of the database.
    pub database_url: String,
    /// The URL under which clients reach the server.
    pub site_url: String,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The senders of alerts.
    pub senders: Senders,
    /// The parts of the server that this process runs.
    pub roles: Vec<Role>,
    /// How long the server keeps each kind of data.
    pub retention: RetentionSettings,
    /// The spool's file and its size in bytes. `None`: the server refuses pings while it cannot reach the database.
    pub spool: Option<(PathBuf, u64)>,
    /// How long other processes wait for this one if it falls silent without signing off, because it may hold signals.
    pub patience: TimeDelta,
    /// The ping URL at another monitoring service, and the client that sends to it.
    pub watchdog: Option<(String, Outbound)>,
    /// The gate that stops statements until the schema of the database is up to date.
    pub gate: Gate,
    /// The limits for connections.
    pub connections: ConnectionSettings,
    /// The proxies whose `X-Forwarded-For` the server trusts.
    pub trusted_proxies: TrustedProxies,
    /// True if mail goes only to addresses whose owners have confirmed.
    pub confirm_mail: bool,
    /// The quotas of keys and projects.
    pub quotas: QuotaSettings,
    /// The rules for accounts and sessions.
    pub accounts: AccountSettings,
    /// The keys that encrypt the secrets of channels. Without keys, nobody can add a channel.
    pub keyring: Keyring,
}

impl Parts {
    /// Returns all parts with their defaults.
    #[must_use]
    pub fn new(listener: TcpListener, database_url: String, site_url: String, senders: Senders) -> Self {
        Self {
            listener,
            database_url,
            site_url,
            clock: Arc::new(SystemClock),
            senders,
            roles: vec![Role::All],
            retention: RetentionSettings::default(),
            spool: None,
            patience: listening::PATIENCE,
            watchdog: None,
            gate: Gate::default(),
            connections: ConnectionSettings::default(),
            trusted_proxies: TrustedProxies::default(),
            confirm_mail: true,
            quotas: QuotaSettings::default(),
            accounts: AccountSettings::default(),
            keyring: Keyring::default(),
        }
    }

    fn runs(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::All)
    }
}

/// A running server: HTTP and the loops of its roles.
pub struct App {
    address: SocketAddr,
    services: Services,
    http: ServerHandle,
    serving: JoinHandle<std::io::Result<()>>,
    /// Stops the loops. The writers have their own token, because they must outlive the last request.
    stop_loops: CancellationToken,
    stop_writers: CancellationToken,
    loops: Vec<JoinHandle<()>>,
    writers: Vec<JoinHandle<()>>,
    /// The record that this process listens for signals, if it does.
    listens: Option<Arc<Listening>>,
    stores: Vec<Store>,
}

impl App {
    /// Starts everything. If the database cannot be reached, the server reports that it is not ready, and recovers by itself.
    ///
    /// # Errors
    /// If the URL of the database is invalid, or the port cannot be served.
    pub fn start(parts: Parts) -> anyhow::Result<Self> {
        let takes_requests = parts.runs(Role::Http);
        let (evaluates, delivers) = (parts.runs(Role::Evaluator), parts.runs(Role::Delivery));
        let Parts {
            listener,
            database_url,
            site_url,
            clock,
            senders,
            roles: _,
            retention,
            spool,
            patience,
            watchdog,
            gate,
            connections,
            trusted_proxies,
            confirm_mail,
            quotas,
            accounts,
            keyring,
        } = parts;
        let spools = match spool.filter(|_| takes_requests) {
            Some((path, most_bytes)) => open_spools(&path, most_bytes),
            None => vec![None; LANES],
        };
        let registry = Registry::default();
        // Three pools: slow pages must not starve pings, and pings must not starve the evaluator.
        let pool = |size, answer, usual| {
            let settings = PoolSettings {
                url: database_url.clone(),
                size,
                wait: DATABASE_WAIT,
                answer,
                usual,
            };
            Store::connect(&settings).map(|store| store.behind(&gate))
        };
        let (requests, writes, watches) = (
            // Two of the ten connections are for work without a request, such as the retention.
            pool(10, REQUEST_ANSWER, None)?.shared_fairly(ASKED_FOR, OF_ONE_ASKER, DATABASE_WAIT),
            // Two lanes, the retries of the signals that they set aside, the writer of traces, and probes.
            pool(8, LOOP_ANSWER, Some(ACKNOWLEDGED_WITHIN))?,
            pool(8, LOOP_ANSWER, None)?,
        );

        let address = listener.local_addr().context("the listening address")?;
        let site = Site { url: site_url };
        let outbox_bell = Arc::new(Notify::new());
        let channel_rules = ChannelRules {
            senders: Some(senders.clone()),
            confirm_mail,
        };
        let delivery = Delivery::new(
            watches.clone(),
            Arc::clone(&clock),
            senders,
            Arc::clone(&outbox_bell),
            DeliverySettings::default(),
        );
        let delivery = delivery.with_keyring(keyring.clone()).with_links_to(site.clone());
        let delivery = Arc::new(delivery);
        let keeper = Arc::new(Keeper::new(watches.clone(), Arc::clone(&clock), keyring.clone()));
        let selfwatch = Selfwatch::new(evaluates, delivers.then(|| delivery.figures()));
        let (watched, watch_clock) = (selfwatch.clone(), Arc::clone(&clock));
        let (ingest, writers) = Ingest::new(&writes, &clock, &site, &outbox_bell, registry.clone(), spools);
        let (traces, trace_writer) = Traces::new(&writes);
        let services = Services::new(
            requests.clone(),
            Arc::clone(&clock),
            site.clone(),
            ingest.clone(),
            traces,
            Arc::clone(&outbox_bell),
            selfwatch.clone(),
        )
        .with_channel_rules(channel_rules)
        .with_keyring(keyring)
        .with_quotas(quotas)
        .with_accounts(accounts);

        selfwatch.attend(ingest.health().clone());
        let duties = selfwatch.duties().clone();
        duties.add(ingest.duties());
        duties.add([services.traces().duty().clone()]);
        let stop_loops = CancellationToken::new();
        let stop_writers = CancellationToken::new();
        let writers = vec![
            tokio::spawn(writers.run(stop_writers.clone())),
            tokio::spawn(trace_writer.run(ingest.health().clone(), stop_writers.clone())),
        ];
        let state = AppState {
            services: services.clone(),
            deliveries: delivery.figures(),
            is_https: services.site().url.starts_with("https://"),
            trusted_proxies: trusted_proxies.clone(),
        };

        let mut loops = Vec::new();
        // Runs in every process, because each reports which keys it lacks.
        duties.add([keeper.duty().clone()]);
        loops.push(keep_running_behind(
            &gate,
            keeper.duty().clone(),
            stop_loops.clone(),
            move |stop| {
                let keeper = Arc::clone(&keeper);
                async move { keeper.run(stop).await }
            },
        ));
        let health = ingest.health().clone();
        let mut listens = None;
        if takes_requests {
            let listening = Listening::new(watches.clone(), Arc::clone(&clock), ingest).patience(patience);
            let listening = Arc::new(listening);
            listens = Some(Arc::clone(&listening));
            let known = watches.clone();
            duties.add([registry.duty().clone(), listening.duty().clone()]);
            loops.push(keep_running(
                registry.duty().clone(),
                stop_loops.clone(),
                move |stop| {
                    let (registry, store) = (registry.clone(), known.clone());
                    async move { registry.run(&store, stop).await }
                },
            ));
            // Starts reporting as soon as the database is ready: other processes wait only for listeners that have reported before.
            loops.push(keep_running_behind(
                &gate,
                listening.duty().clone(),
                stop_loops.clone(),
                move |stop| {
                    let listening = Arc::clone(&listening);
                    async move { listening.run(stop).await }
                },
            ));
        }
        if evaluates {
            let removed = Arc::clone(selfwatch.retention());
            let turning = selfwatch.clone();
            let mut evaluator = Evaluator::new(
                watches.clone(),
                Arc::clone(&clock),
                site,
                Arc::clone(&outbox_bell),
                selfwatch,
            )
            .settling(SETTLING);
            if let Some(listening) = &listens {
                evaluator = evaluator.beside(listening.id(), health);
            }
            let evaluator = Arc::new(evaluator);
            let zones = Arc::new(ZoneData::new(watches.clone(), Arc::clone(&clock)));
            duties.add(evaluator.duties());
            duties.add([zones.duty().clone()]);
            let [evaluator_duty, ..] = evaluator.duties();
            let turning_clock = Arc::clone(&clock);
            loops.push(keep_running_behind(
                &gate,
                evaluator_duty,
                stop_loops.clone(),
                move |stop| {
                    let (evaluator, zones) = (Arc::clone(&evaluator), Arc::clone(&zones));
                    let (alive, clock) = (turning.clone(), Arc::clone(&turning_clock));
                    async move {
                        // Zones come first, so that nobody is judged by due times of older zone data.
                        zones.run(&stop, || alive.turned(clock.now())).await;
                        evaluator.run(stop).await;
                    }
                },
            ));
            let lost = Arc::new(Lost::new(watches.clone(), Arc::clone(&clock)));
            duties.add([lost.duty().clone()]);
            loops.push(keep_running_behind(
                &gate,
                lost.duty().clone(),
                stop_loops.clone(),
                move |stop| {
                    let lost = Arc::clone(&lost);
                    async move { lost.run(stop).await }
                },
            ));
            let retention = Arc::new(Retention::new(requests.clone(), clock, retention, removed));
            duties.add([retention.duty().clone()]);
            loops.push(keep_running_behind(
                &gate,
                retention.duty().clone(),
                stop_loops.clone(),
                move |stop| {
                    let retention = Arc::clone(&retention);
                    async move { retention.run(stop).await }
                },
            ));
        }
        if let Some((url, outbound)) = watchdog {
            let reader = watches.reader();
            let watchdog = Arc::new(Watchdog::new(url, outbound, watched, reader, watch_clock));
            duties.add([watchdog.duty().clone()]);
            let duty = watchdog.duty().clone();
            loops.push(keep_running(duty, stop_loops.clone(), move |stop| {
                let watchdog = Arc::clone(&watchdog);
                async move { watchdog.run(stop).await }
            }));
        }
        if delivers {
            duties.add([delivery.duty().clone()]);
            loops.push(keep_running_behind(
                &gate,
                delivery.duty().clone(),
                stop_loops.clone(),
                move |stop| {
                    let delivery = Arc::clone(&delivery);
                    async move { delivery.run(stop).await }
                },
            ));
        }

        // The standard library uses 128. If more clients connect at once, the rest retry after one second (measured).
        nix::sys::socket::listen(&listener, Backlog::new(CONNECTING).context("the listen queue")?)
            .context("listening")?;
        // A process without the http role serves only health and metrics.
        let routes = if takes_requests {
            Routes::All
        } else {
            Routes::Operation
        };
        let admission = Admission::new(connections, trusted_proxies);
        let server = serve(listener, state, routes, admission).context("serving HTTP")?;
        let http = server.handle();
        let serving = tokio::spawn(server);
        Ok(Self {
            address,
            services,
            http,
            serving,
            stop_loops,
            stop_writers,
            loops,
            writers,
            listens,
            stores: vec![requests, writes, watches],
        })
    }

    /// Returns the address on which the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the use cases, for commands and tests.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Stops in order: refuses new requests, finishes those under way, writes the waiting signals, and lets the loops finish their current work.
    pub async fn stop(self) {
        self.http.stop(true).await;
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the HTTP server failed");
        }
        self.stop_writers.cancel();
        self.stop_loops.cancel();
        for ended in [self.writers, self.loops].into_iter().flatten() {
            if let Err(error) = ended.await {
                tracing::error!(%error, "a loop failed");
            }
        }
        if let Some(listening) = self.listens
            && let Err(error) = listening.sign_off().await
        {
            tracing::warn!(%error, "this process could not sign off; other processes wait for the signals that it may hold");
        }
        for store in &self.stores {
            store.close().await;
        }
    }
}

/// Opens a file for each writer, `spool-8000.redb`, `spool-8000-2.redb` and so on. Each gets an equal share of the bytes.
fn open_spools(path: &Path, most_bytes: u64) -> Vec<Option<Spool>> {
    (1..=LANES)
        .map(|lane| {
            let path = match lane {
                1 => path.to_owned(),
                _ => path.with_file_name(format!(
                    "{}-{lane}.redb",
                    path.file_stem().unwrap_or_default().to_string_lossy()
                )),
            };
            // Without a spool the server can still take pings while it reaches the database, which is better than not starting.
            Spool::open(&path, most_bytes / LANES as u64)
                .inspect_err(|error| tracing::error!(%error, file = %path.display(), "cannot open the spool; the server refuses pings while it cannot reach the database"))
                .ok()
        })
        .collect()
}

/// The most connections that may wait to be accepted. The kernel's own limit (`net.core.somaxconn`) may be lower.
const CONNECTING: i32 = 4_096;
