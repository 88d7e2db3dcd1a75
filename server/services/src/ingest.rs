//! The door for signals: they wait in a bounded queue for the one writer, and are answered when they are durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deadbeat_domain::ids::{MonitorId, PingId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::ping::Signal;
use deadbeat_domain::time::Clock;
use deadbeat_store::Store;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::registry::Registry;
use crate::spool::Spool;
use crate::writer::Writer;
use crate::{Site, secret};

/// Signals that may wait. More is refused with "try again": never silence, never unbounded memory.
const QUEUE: usize = 8_192;

/// Whom a signal is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// `/ping/<uuid>`
    Ping(PingId),
    /// `/ping/<ping key>/<slug>`; the key's digest, since the key itself goes no further.
    Slug {
        /// SHA-256 of the ping key.
        digest: Vec<u8>,
        /// The monitor's slug.
        slug: String,
    },
    /// A monitor that the caller has looked up within its own project.
    Monitor(MonitorId),
}

impl Address {
    /// A ping key and a slug.
    #[must_use]
    pub fn slug(key: &str, slug: &str) -> Self {
        Self::Slug {
            digest: secret::digest(key),
            slug: slug.to_owned(),
        }
    }
}

/// A signal with what came around it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Whom it is for.
    pub address: Address,
    /// What the rules see.
    pub signal: Signal,
    /// HTTP method.
    pub method: Option<String>,
    /// Where it came from.
    pub remote_addr: Option<String>,
    /// The client's name for itself.
    pub user_agent: Option<String>,
    /// The body; cut to the limit here.
    pub body: Vec<u8>,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is written and committed.
    Recorded,
    /// Nobody is called that. The project is known when a valid ping key came with the slug.
    Unknown {
        /// Whose ping key it was.
        project: Option<ProjectId>,
    },
}

/// Why a signal was not taken: it can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IngestError {
    /// The queue is full.
    #[error("too many signals are waiting")]
    Full,
    /// The database is away, or the server is stopping.
    #[error("the database is away")]
    Unavailable,
}

/// Figures for metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// Signals written.
    pub recorded: AtomicU64,
    /// Signals for nobody.
    pub unknown: AtomicU64,
    /// Signals refused: queue full or database away.
    pub refused: AtomicU64,
    /// Transactions.
    pub batches: AtomicU64,
    /// Signals that the spool took, because the database could not.
    pub spooled: AtomicU64,
}

/// A signal and who waits for its answer.
pub(crate) struct Waiting {
    pub(crate) incoming: Incoming,
    pub(crate) answer: oneshot::Sender<Accepted>,
}

/// The door for signals. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    queue: mpsc::Sender<Waiting>,
    figures: Arc<Figures>,
    registry: Registry,
    spool: Option<Spool>,
}

impl Ingest {
    /// The door, and the writer behind it, which must be [`Writer::run`]. Without a spool, a database that is away means "try again".
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        site: Site,
        outbox_bell: Arc<Notify>,
        registry: Registry,
        spool: Option<Spool>,
    ) -> (Self, Writer) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let figures = Arc::new(Figures::default());
        let ingest = Self {
            queue,
            figures: Arc::clone(&figures),
            registry: registry.clone(),
            spool: spool.clone(),
        };
        let writer = Writer::new(store, clock, site, outbox_bell, waiting, figures, registry, spool);
        (ingest, writer)
    }

    /// Takes one signal in; returns when it is committed.
    ///
    /// # Errors
    /// Nothing was written, and the client should try again.
    pub async fn accept(&self, mut incoming: Incoming) -> Result<Accepted, IngestError> {
        if let Address::Ping(id) = incoming.address
            && self.registry.refuses(id)
        {
            self.figures.unknown.fetch_add(1, Ordering::Relaxed);
            return Ok(Accepted::Unknown { project: None });
        }
        incoming.body.truncate(limits::PING_BODY_BYTES);
        let (answer, answered) = oneshot::channel();
        let refuse = |error: IngestError| {
            self.figures.refused.fetch_add(1, Ordering::Relaxed);
            error
        };
        self.queue
            .try_send(Waiting { incoming, answer })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => refuse(IngestError::Full),
                mpsc::error::TrySendError::Closed(_) => refuse(IngestError::Unavailable),
            })?;
        // A dropped answer means that its batch failed.
        answered.await.map_err(|_| refuse(IngestError::Unavailable))
    }

    /// Signals that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Signals in the spool that are not in the database yet.
    #[must_use]
    pub fn spooled(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::signals)
    }

    /// Ping URLs that are known in memory.
    #[must_use]
    pub fn known(&self) -> usize {
        self.registry.len()
    }

    /// Bytes that they take.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }
}
