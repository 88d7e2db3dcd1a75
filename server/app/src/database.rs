//! The database on which a command works: the one in its settings, or the embedded one.

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

/// A database, and the PostgreSQL that this process runs for it, if it does.
pub struct Database {
    /// The database's URL.
    pub url: String,
    embedded: Option<EmbeddedPostgres>,
}

impl Database {
    /// Returns the database of a server. Starts the embedded PostgreSQL; a second server on the same data folder is refused.
    ///
    /// # Errors
    /// If the embedded PostgreSQL cannot be started. The message says what to do.
    pub async fn of_server(config: &DatabaseConfig) -> anyhow::Result<Self> {
        if let Some(url) = config.database_url() {
            // The message must not repeat the URL, because it may contain a password.
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

    /// Returns the database of a command: the one of a running server on the same data folder, or otherwise the one that a server would use.
    ///
    /// # Errors
    /// Those of [`Database::of_server`].
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

    /// Returns true if this process runs the PostgreSQL itself.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Opens a small pool of connections.
    ///
    /// # Errors
    /// If the URL is invalid.
    pub fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::connect(&PoolSettings {
            url: self.url.clone(),
            size: 2,
            wait: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            usual: None,
        })?)
    }

    /// Returns the use cases without loops, for commands. They handle no signals.
    ///
    /// # Errors
    /// If the URL is invalid, the database cannot be reached, or its schema does not fit.
    pub async fn services(&self, site_url: &str) -> anyhow::Result<Services> {
        let store = self.store()?;
        store.migrate().await.context("the database")?;
        Ok(self.services_on(store, site_url))
    }

    /// Returns the use cases without loops, on a store whose schema is up to date.
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
            // The thread that runs PostgreSQL logs its own panics.
            let _ = tokio::task::spawn_blocking(move || embedded.stop()).await;
        }
    }
}
