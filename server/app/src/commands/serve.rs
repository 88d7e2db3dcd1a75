//! `deadbeat serve`

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;
use chrono::TimeDelta;
use deadbeat_domain::people::account::SignUp;
use deadbeat_domain::time::Clock;
use deadbeat_http::connection::ConnectionSettings;
use deadbeat_services::ServiceError;
use deadbeat_services::alert::delivery::outbound::{Outbound, OutboundSettings};
use deadbeat_services::alert::delivery::senders::email::SmtpSettings;
use deadbeat_services::alert::delivery::senders::{Senders, SetupError};
use deadbeat_services::alert::sealing::keeper::{self, FirstKey};
use deadbeat_services::people::quota::QuotaSettings;
use deadbeat_services::people::setup::{FirstStart, first_start};
use deadbeat_services::secret::keyring::Keyring;
use deadbeat_store::connection::gate::{Gate, StartPhase};
use deadbeat_store::{Store, with_sources};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::clock::SystemClock;
use crate::config::ServeConfig;
use crate::database::Database;
use crate::zone_files::Adopted;
use crate::{App, Parts, file_limit, telemetry};

/// The wait between two attempts to get the database ready.
const AGAIN: Duration = Duration::from_secs(1);
/// The wait between two log lines that say why the database is not ready.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or Ctrl-C.
///
/// The server answers requests from the start. While the database cannot be reached, pings go to the spool, and the server waits as long as needed.
///
/// # Errors
/// If the server cannot start. The message is written for the person at the terminal.
pub async fn run(config: ServeConfig, zone_data: &Adopted) -> anyhow::Result<()> {
    telemetry::start(&config.log, &config.log_format)?;
    tracing::info!(%zone_data, "time zones");
    // Before making a database, report settings that cannot work.
    let senders = senders(&config)?;
    let accounts = config.accounts.settings()?;
    if accounts.sign_up != SignUp::Closed && config.smtp_url().is_none() {
        anyhow::bail!("DEADBEAT_SIGN_UP needs a mail server: set DEADBEAT_SMTP_URL");
    }
    let keyring = config.secrets.keyring(&config.database)?;
    let listener =
        TcpListener::bind(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };

    let finding = Database::of_server(&config.database);
    tokio::pin!(finding);
    let database = tokio::select! {
        database = &mut finding => database?,
        () = signals.any() => {
            // The embedded PostgreSQL can be stopped only once its start has finished.
            tracing::info!("stopping");
            finding.await?.stop().await;
            return Ok(());
        }
    };
    let served = serve(&config, listener, senders, keyring, &database, &mut signals).await;
    database.stop().await;
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// The signals by which the operating system or a person stops the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn serve(
    config: &ServeConfig,
    listener: TcpListener,
    senders: Senders,
    keyring: Keyring,
    database: &Database,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let site_url = config.site_url(address);
    let gate = Gate::shut();
    let app = start(
        config,
        listener,
        &site_url,
        senders,
        keyring.clone(),
        database,
        gate.clone(),
    )?;
    tracing::info!(%address, embedded = database.is_embedded(), "serving");

    let prepared = tokio::select! {
        prepared = prepare(config, &keyring, database, &site_url, &gate) => prepared,
        () = signals.any() => {
            tracing::info!("stopping");
            app.stop().await;
            return Ok(());
        }
    };
    if prepared.is_ok() {
        signals.any().await;
    }
    tracing::info!("stopping");
    app.stop().await;
    prepared
}

/// Brings the schema up to date, creates the first account, and opens the gate. Waits while the database cannot be reached.
async fn prepare(
    config: &ServeConfig,
    keyring: &Keyring,
    database: &Database,
    site_url: &str,
    gate: &Gate,
) -> anyhow::Result<()> {
    let store = database.store()?;
    let mut logged_at: Option<Instant> = None;
    let first = loop {
        match prepare_once(config, keyring, database, &store, site_url, gate).await {
            Ok(first) => break first,
            Err(ServiceError::Store(error)) if error.is_unavailable() => {
                if logged_at.is_none_or(|at| at.elapsed() >= LOG_AGAIN_AFTER) {
                    tracing::warn!(error = %with_sources(&error), "the database is not ready; the server retries until it is");
                    logged_at = Some(Instant::now());
                }
                gate.set(StartPhase::NotReached);
                tokio::time::sleep(AGAIN).await;
            }
            Err(ServiceError::Store(error)) => return Err(error).context("the database"),
            Err(error) => return Err(super::project::words(error)),
        }
    };
    // Print this before the server reports that it is ready. Once it is ready, there is an account to sign in with.
    match first {
        Some(first) => println!("{}", welcome(site_url, &first)),
        None => println!("Deadbeat serves at {site_url}"),
    }
    gate.set(StartPhase::Open);
    tracing::info!("the database is ready");
    store.close().await;
    Ok(())
}

async fn prepare_once(
    config: &ServeConfig,
    keyring: &Keyring,
    database: &Database,
    store: &Store,
    site_url: &str,
    gate: &Gate,
) -> Result<Option<FirstStart>, ServiceError> {
    store.reader().check().await?;
    gate.set(StartPhase::Migrating);
    store.migrate().await?;
    match keeper::make_first_key(store, keyring, SystemClock.now()).await {
        Ok(()) => {}
        Err(FirstKey::Store(error)) => return Err(error.into()),
        // Continue, because pings and judgement need no key.
        Err(FirstKey::Key(error)) => {
            tracing::error!(%error, "cannot make a key for the secrets of channels; nobody can add a channel until there is a key");
        }
    }
    let services = database.services_on(store.clone(), site_url);
    first_start(&services, &config.first_account).await
}

fn start(
    config: &ServeConfig,
    listener: TcpListener,
    site_url: &str,
    senders: Senders,
    keyring: Keyring,
    database: &Database,
    gate: Gate,
) -> anyhow::Result<App> {
    // Two servers of one machine may share a data folder, but not a port.
    let spool = config
        .database
        .data_dir
        .join(format!("spool-{}.redb", listener.local_addr()?.port()));
    let watchdog = match config.watchdog_url() {
        None => None,
        Some(url) => {
            // The operator chose this URL, so it may be in a private network.
            let settings = OutboundSettings {
                allow_private_networks: true,
                loopback_only: false,
                ..outbound_settings(config)
            };
            Some((url.to_owned(), Outbound::new(&settings).context("the watchdog")?))
        }
    };
    let defaults = ConnectionSettings::default();
    let connections = ConnectionSettings {
        per_address: config.connections_per_address as usize,
        total: (config.connections as usize).min(file_limit::raise()),
        ..defaults
    };
    App::start(Parts {
        watchdog,
        connections,
        quotas: QuotaSettings {
            pings_per_second: config.pings_per_second,
            body_bytes_per_day: u64::from(config.body_mb_per_day) * 1_000_000,
            created_monitors_per_day: config.created_monitors_per_day,
            api_keys_per_day: config.api_keys_per_day,
        },
        accounts: config.accounts.settings()?,
        trusted_proxies: config.trusted_proxies.clone(),
        spool: (config.spool_mb > 0).then(|| (spool, u64::from(config.spool_mb) * 1_000_000)),
        confirm_mail: config.confirm_mail,
        roles: config.roles.clone(),
        patience: TimeDelta::seconds(config.listener_patience.into()),
        retention: config.retention.settings(),
        gate,
        keyring,
        ..Parts::new(listener, database.url.clone(), site_url.to_owned(), senders)
    })
}

fn outbound_settings(config: &ServeConfig) -> OutboundSettings {
    OutboundSettings {
        allow_private_networks: config.allow_private_networks,
        loopback_only: false,
        ports: config.webhook_ports.0.clone(),
        user_agent: format!("Deadbeat/{}", env!("CARGO_PKG_VERSION")),
    }
}

/// Returns the senders of alerts according to the settings.
pub(super) fn senders(config: &ServeConfig) -> Result<Senders, SetupError> {
    let outbound = outbound_settings(config);
    let smtp = config.smtp_url().map(|url| SmtpSettings {
        url: url.to_owned(),
        from: config.smtp_from.clone(),
    });
    Senders::standard(&outbound, smtp.as_ref())
}

fn welcome(site: &str, first: &FirstStart) -> String {
    let FirstStart {
        email,
        password,
        created,
    } = first;
    let ping_key = &created.ping_key;
    format!(
        "
Deadbeat serves at {site}

  Sign in          {site}/
    account        {email}
    password       {password}

  Project          {name}
    API key        {api_key}
    read key       {read_key}
    ping key       {ping_key}

  Keep these: keys and password are stored hashed and are not shown again.

  A job in a crontab: call this when it is done, and you hear of it when it is not
    curl -fsS -m 10 --retry 5 \"{site}/ping/{ping_key}/my-first-job?create=1&period=3600&grace=300\"

  Celery, two lines beside your app
    import deadbeat
    deadbeat.init(app, url=\"{site}\", key=\"{ping_key}\")
",
        name = created.project.name,
        api_key = created.api_key,
        read_key = created.read_key,
    )
}
