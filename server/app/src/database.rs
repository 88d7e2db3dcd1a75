//! Which database a command works on: the one it is told, or the embedded one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use deadbeat_domain::time::Clock;
use deadbeat_services::celery::trace::Traces;
use deadbeat_services::monitor::signal::ingest::Ingest;
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_services::operation::selfwatch::Selfwatch;
use deadbeat_services::{Services, Site};
use deadbeat_store::{PoolSettings, Store};
use tokio::sync::Notify;

use crate::clock::SystemClock;
use crate::config::DatabaseConfig;
use crate::embedded_postgres::{self, EmbeddedPostgres};

/// A database to work on, and the PostgreSQL that we run for it, if we do.
pub struct Database {
    /// Its address.
    pub url: String,
    embedded: Option<EmbeddedPostgres>,
}

impl Database {
    /// The database of a server: its own embedded one is started, and refused to a second server.
    ///
    /// # Errors
    /// The embedded PostgreSQL cannot be started; the message says what to do.
    pub async fn of_server(config: &DatabaseConfig) -> anyhow::Result<Self> {
        if let Some(url) = config.database_url() {
            // The address itself is not repeated: it may hold a password.
            if !["postgres://", "postgresql://"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
            {
                anyhow::bail!(
                    "DEADBEAT_DATABASE_URL must look like postgres://user:password@host:5432/database"
                );
            }
            return Ok(Self {
                url: url.to_owned(),
                embedded: None,
            });
        }
        let (data_dir, bin) = (config.data_dir.clone(), config.postgres_bin().map(Path::to_owned));
        let embedded =
            tokio::task::spawn_blocking(move || EmbeddedPostgres::start(&data_dir, bin.as_deref())).await??;
        Ok(Self {
            url: embedded.connection().url(),
            embedded: Some(embedded),
        })
    }

    /// The database of a command: that of the server which runs on the same data folder, else as for a server.
    ///
    /// # Errors
    /// As for [`Database::of_server`].
    pub async fn of_command(config: &DatabaseConfig) -> anyhow::Result<Self> {
        if config.database_url().is_none()
            && let Some(running) = embedded_postgres::running(&config.data_dir)
        {
            return Ok(Self {
                url: running.url(),
                embedded: None,
            });
        }
        Self::of_server(config).await
    }

    /// Whether this process runs the PostgreSQL itself.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// A small pool on it.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::connect(&PoolSettings {
            url: self.url.clone(),
            size: 2,
            wait: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            usual: None,
        })?)
    }

    /// The use cases on it, without loops: for commands, which signal nothing.
    ///
    /// # Errors
    /// The address cannot be read, the database is away, or its schema does not fit.
    pub async fn services(&self, site_url: &str) -> anyhow::Result<Services> {
        let store = self.store()?;
        store.migrate().await.context("the database")?;
        Ok(self.services_on(store, site_url))
    }

    /// The use cases on a store whose schema is up to date, without loops.
    #[must_use]
    pub fn services_on(&self, store: Store, site_url: &str) -> Services {
        let clock = Arc::new(SystemClock);
        let site = Site {
            url: site_url.to_owned(),
        };
        let bell = Arc::new(Notify::new());
        let shared: Arc<dyn Clock> = clock.clone();
        let (ingest, _) = Ingest::new(&store, &shared, &site, &bell, Registry::default(), vec![None]);
        let (traces, _) = Traces::new(&store);
        Services::new(store, clock, site, ingest, traces, bell, Selfwatch::default())
    }

    /// Stops the embedded PostgreSQL, if there is one.
    pub async fn stop(self) {
        if let Some(embedded) = self.embedded {
            // A panic in there is logged by the thread that keeps it.
            let _ = tokio::task::spawn_blocking(move || embedded.stop()).await;
        }
    }
}
