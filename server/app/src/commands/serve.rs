//! `deadbeat serve`

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;
use deadbeat_services::delivery::outbound::{Outbound, OutboundSettings};
use deadbeat_services::delivery::senders::email::SmtpSettings;
use deadbeat_services::delivery::senders::{Senders, SetupError};
use deadbeat_services::retention::RetentionSettings;
use deadbeat_services::setup::{FirstStart, first_start};
use deadbeat_store::Store;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::ServeConfig;
use crate::database::Database;
use crate::{App, Parts, telemetry};

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// What keeps the server from starting, in words for a person.
pub async fn run(config: ServeConfig) -> anyhow::Result<()> {
    telemetry::start(&config.log, &config.log_format)?;
    // First: what cannot work is said before a database is made.
    let senders = senders(&config)?;
    let listener =
        TcpListener::bind(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let database = Database::of_server(&config.database).await?;
    let started = start(&config, listener, senders, &database).await;
    let app = match started {
        Ok(app) => app,
        Err(error) => {
            database.stop().await;
            return Err(error);
        }
    };
    tracing::info!(%address, embedded = database.is_embedded(), "serving");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    app.stop().await;
    database.stop().await;
    tracing::info!("stopped");
    Ok(())
}

async fn start(
    config: &ServeConfig,
    listener: TcpListener,
    senders: Senders,
    database: &Database,
) -> anyhow::Result<App> {
    let site_url = config.site_url(listener.local_addr()?);
    let store = database.store()?;
    migrate(&store).await?;
    store.close().await;

    // Before anybody is served: what is ready must have an account to sign in with.
    let services = database.services(&site_url).await?;
    match first_start(&services, &config.first_account)
        .await
        .map_err(super::project::words)?
    {
        Some(first) => println!("{}", welcome(&site_url, &first)),
        None => println!("Deadbeat serves at {site_url}"),
    }
    services.close().await;

    // Two servers of one machine may share a data folder; a port is one's own.
    let spool = config
        .database
        .data_dir
        .join(format!("spool-{}.redb", listener.local_addr()?.port()));
    let watchdog = match config.watchdog_url() {
        None => None,
        Some(url) => {
            // The operator names the address, so it may be a neighbour.
            let settings = OutboundSettings {
                allow_private_networks: true,
                ..outbound_settings(config)
            };
            Some((url.to_owned(), Outbound::new(&settings).context("the watchdog")?))
        }
    };
    App::start(Parts {
        watchdog,
        spool: (config.spool_mb > 0).then(|| (spool, u64::from(config.spool_mb) * 1_000_000)),
        roles: config.roles.clone(),
        retention: RetentionSettings {
            ping_days: config.ping_days,
            pings_per_monitor: config.pings_per_monitor,
            run_days: config.run_days,
            trace_days: config.trace_days,
        },
        ..Parts::new(listener, database.url.clone(), site_url, senders)
    })
}

fn outbound_settings(config: &ServeConfig) -> OutboundSettings {
    OutboundSettings {
        allow_private_networks: config.allow_private_networks,
        user_agent: format!("Deadbeat/{}", env!("CARGO_PKG_VERSION")),
    }
}

/// What sends alerts, as the settings say.
pub(super) fn senders(config: &ServeConfig) -> Result<Senders, SetupError> {
    let outbound = outbound_settings(config);
    let smtp = config.smtp_url().map(|url| SmtpSettings {
        url: url.to_owned(),
        from: config.smtp_from.clone(),
    });
    Senders::standard(&outbound, smtp.as_ref())
}

/// Brings the schema up to date; waits for a database that is still starting, as containers' do.
async fn migrate(store: &Store) -> anyhow::Result<()> {
    let mut attempts = 0;
    loop {
        match store.migrate().await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_unavailable() && attempts < 60 => {
                if attempts % 10 == 0 {
                    tracing::warn!(error = ?error, "the database is away; trying again for a minute");
                }
                attempts += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error).context("the database"),
        }
    }
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
