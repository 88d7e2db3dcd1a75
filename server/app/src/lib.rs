//! Wiring: settings and parts become a running server. The binary and the tests use the same [`App`].

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
use deadbeat_domain::judge::hearing::SETTLING;
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

/// How long a caller waits for a connection before the database counts as away.
const DATABASE_WAIT: Duration = Duration::from_secs(3);

/// Connections at a time for requests, and how many of them one client, account or project has.
const ASKED_FOR: usize = 8;
const OF_ONE_ASKER: usize = 4;
/// How long a statement of a request, or of the retention, may take.
const REQUEST_ANSWER: Duration = Duration::from_secs(30);
/// How long one of the loops may take: after that it tries again. For the writers' own limit see [`deadbeat_services::monitor::signal::writer`].
const LOOP_ANSWER: Duration = Duration::from_secs(5);

/// What an [`App`] is made of.
pub struct Parts {
    /// Already bound, so that a test knows its port.
    pub listener: TcpListener,
    /// The database.
    pub database_url: String,
    /// How the server is reached from outside.
    pub site_url: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What sends alerts.
    pub senders: Senders,
    /// Which parts this process runs.
    pub roles: Vec<Role>,
    /// How long what was heard is kept.
    pub retention: RetentionSettings,
    /// Where pings are kept while the database is away, and how many bytes of them; none: they are refused.
    pub spool: Option<(PathBuf, u64)>,
    /// How long others wait for this process, which may hold signals, when it goes silent without signing off.
    pub patience: TimeDelta,
    /// A ping URL of another watcher, and what sends to it.
    pub watchdog: Option<(String, Outbound)>,
    /// What keeps statements from a database whose schema is not up to date yet.
    pub gate: Gate,
    /// Who may connect, and for how long.
    pub connections: ConnectionSettings,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Mail goes only to addresses whose owners confirmed.
    pub confirm_mail: bool,
    /// What keys and projects may use up.
    pub quotas: QuotaSettings,
    /// What seals the secrets of channels. Without keys, no channel can be added.
    pub keyring: Keyring,
}

impl Parts {
    /// Every part, with the defaults.
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
    /// Stops the loops; the writers have their own, because they must outlive the last request.
    stop_loops: CancellationToken,
    stop_writers: CancellationToken,
    loops: Vec<JoinHandle<()>>,
    writers: Vec<JoinHandle<()>>,
    /// Where this process takes signals in.
    listens: Option<Arc<Listening>>,
    stores: Vec<Store>,
}

impl App {
    /// Starts everything. The database may be away: then the server says that it is not ready, and recovers by itself.
    ///
    /// # Errors
    /// The database's address cannot be read, or the port cannot be served.
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
            keyring,
        } = parts;
        let spools = match spool.filter(|_| takes_requests) {
            Some((path, most_bytes)) => open_spools(&path, most_bytes),
            None => vec![None; LANES],
        };
        let registry = Registry::default();
        // Three pools, so that slow pages cannot starve pings, nor pings the evaluator.
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
            // Two of the ten are for what nobody asked for, like the retention.
            pool(10, REQUEST_ANSWER, None)?.shared_fairly(ASKED_FOR, OF_ONE_ASKER, DATABASE_WAIT),
            // Two lanes, the retries of what they set aside, the writer of traces, and probes.
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
        .with_quotas(quotas);

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
        // In every process: each reports for itself which keys it lacks.
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
            // Its first word comes as soon as the database can take it: who was never heard is waited for by nobody.
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
                        // Before anybody is judged by a due time of older data.
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

        // The standard library asks for 128; when more clients come at once, the rest try again after a second (measured).
        nix::sys::socket::listen(&listener, Backlog::new(CONNECTING).context("the listen queue")?)
            .context("listening")?;
        // A process without the http role answers health and metrics only.
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The use cases, for commands and tests.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Stops in order: no new requests; those under way end; what waits is written; the loops end what they hold.
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
            tracing::warn!(%error, "this process could not sign off: others wait for what it may hold");
        }
        for store in &self.stores {
            store.close().await;
        }
    }
}

/// A file for each writer, `spool-8000.redb`, `spool-8000-2.redb` and so on, with equal shares of the bytes.
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
            // Pings can still be taken while the database is there: better than not to start at all.
            Spool::open(&path, most_bytes / LANES as u64)
                .inspect_err(|error| tracing::error!(%error, file = %path.display(), "there is no spool: pings are refused while the database is away"))
                .ok()
        })
        .collect()
}

/// Connections that may wait to be accepted; the kernel's own cap (`net.core.somaxconn`) stands above it.
const CONNECTING: i32 = 4_096;
