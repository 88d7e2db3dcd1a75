//! The door for signals: they wait in bounded queues for the writers, and are answered when they are durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{MonitorId, PingId};
use deadbeat_domain::limits;
use deadbeat_domain::time::Clock;
use deadbeat_store::Store;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use crate::Site;
use crate::monitor::signal::incoming::{Accepted, Address, Incoming};
use crate::monitor::signal::registry::Registry;
use crate::monitor::signal::spool::Spool;
use crate::monitor::signal::writer::{Writer, Writers};
use crate::operation::duty::Duty;
use crate::operation::lane;
use crate::operation::supervisor::Health;

/// Signals that may wait, over all lanes. More is refused with "try again": never silence, never unbounded memory.
const QUEUE: usize = 8_192;

/// Writers of one process. While one waits for its commit, another works: with a single one the machine's cores stood idle for a third
/// of the time (docs/benchmarks.md). A monitor's signals always take the same lane, so their order holds.
pub const LANES: usize = 2;

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
    /// Signals that were set aside: they could not be written while others could.
    pub set_aside: AtomicU64,
    /// How often a signal that was tried alone made its writer panic.
    pub panicked: AtomicU64,
}

impl Figures {
    /// Counts a signal that was written, or was for nobody.
    pub(crate) fn count(&self, accepted: Accepted) {
        let figure = match accepted {
            Accepted::Recorded => &self.recorded,
            Accepted::Unknown { .. } => &self.unknown,
        };
        figure.fetch_add(1, Ordering::Relaxed);
    }
}

/// A signal and who waits for its answer.
pub(crate) struct Waiting {
    /// Boxed: it is moved from the queue to its batch, and often on from there.
    pub(crate) incoming: Box<Incoming>,
    pub(crate) answer: oneshot::Sender<Accepted>,
    /// Since when it has waited for a locked row.
    pub(crate) held_since: Option<Instant>,
}

/// The door for signals. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    lanes: Arc<[Lane]>,
    figures: Arc<Figures>,
    registry: Registry,
    health: Health,
}

/// A writer's queue, and its spool.
#[derive(Debug)]
struct Lane {
    queue: mpsc::Sender<Waiting>,
    spool: Option<Spool>,
    duty: Duty,
}

impl Ingest {
    /// The door, and the writers behind it, which must be [`Writers::run`]: one for each of the spools (usually [`LANES`]).
    /// Without a spool, a database that is away means "try again".
    #[must_use]
    pub fn new(
        store: &Store,
        clock: &Arc<dyn Clock>,
        site: &Site,
        outbox_bell: &Arc<Notify>,
        registry: Registry,
        spools: Vec<Option<Spool>>,
    ) -> (Self, Writers) {
        let figures = Arc::new(Figures::default());
        let spools = if spools.is_empty() { vec![None] } else { spools };
        let count = spools.len();
        let (lanes, writers): (Vec<_>, Vec<_>) = (1..)
            .zip(spools)
            .map(|(number, spool): (usize, Option<Spool>)| {
                let (queue, waiting) = mpsc::channel(QUEUE / count);
                let duty = Duty::new(format!("writer {number}"));
                let writer = Writer::new(
                    store.clone(),
                    Arc::clone(clock),
                    site.clone(),
                    Arc::clone(outbox_bell),
                    Arc::clone(&figures),
                    registry.clone(),
                    spool.clone(),
                    duty.clone(),
                );
                let writer = lane::Lane::new(duty.clone(), writer, waiting);
                (Lane { queue, spool, duty }, writer)
            })
            .unzip();
        let ingest = Self {
            lanes: lanes.into(),
            figures,
            registry,
            health: Health::default(),
        };
        let health = ingest.health.clone();
        (
            ingest,
            Writers {
                lanes: writers,
                health,
            },
        )
    }

    /// The lane of a monitor's signals: by what every process knows of it at any time. What is in a lane's spool is replayed before what comes
    /// to that lane later, also in the next process.
    fn lane(&self, address: &Address) -> &Lane {
        let key = match address {
            Address::Ping(id) => id.0.as_u128(),
            Address::Slug { slug, .. } => slug.bytes().fold(0u128, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u128::from(byte))
            }),
        };
        // A UUID's own bits are random at its end, whatever its version.
        &self.lanes[(key % self.lanes.len() as u128) as usize]
    }

    /// These monitors have just been read from the database.
    pub(crate) fn learn(&self, ids: impl Iterator<Item = (PingId, MonitorId)>) {
        self.registry.learn(ids);
    }

    /// Takes one signal in; returns when it is committed.
    ///
    /// # Errors
    /// Nothing was written, and the client should try again.
    pub async fn accept(&self, incoming: impl Into<Box<Incoming>>) -> Result<Accepted, IngestError> {
        let mut incoming = incoming.into();
        if let Address::Ping(id) = incoming.address
            && self.registry.refuses(id)
        {
            self.figures.unknown.fetch_add(1, Ordering::Relaxed);
            return Ok(Accepted::Unknown { access: None });
        }
        incoming.body.truncate(limits::PING_BODY_BYTES);
        let (answer, answered) = oneshot::channel();
        let refuse = |error: IngestError| {
            self.figures.refused.fetch_add(1, Ordering::Relaxed);
            error
        };
        self.lane(&incoming.address)
            .queue
            .try_send(Waiting {
                incoming,
                answer,
                held_since: None,
            })
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
        let waiting = |lane: &Lane| lane.queue.max_capacity() - lane.queue.capacity();
        self.lanes.iter().map(waiting).sum()
    }

    /// Signals in the spools that are not in the database yet: nobody is judged before they are written.
    #[must_use]
    pub fn spooled(&self) -> u64 {
        self.spools().map(Spool::signals).sum()
    }

    /// Addresses with signals that were set aside a moment ago: their monitors, and no others, are not judged before these are written.
    #[must_use]
    pub fn fresh_aside(&self) -> Vec<Address> {
        self.spools().flat_map(Spool::fresh_aside).collect()
    }

    /// The name of this process among those that listen: it lies in the first spool file, and is the same at the next start. None: there
    /// is no spool, so nothing can be held.
    #[must_use]
    pub fn listener(&self) -> Option<Uuid> {
        self.spools().next().map(Spool::listener)
    }

    /// What each lane's writer reports of itself.
    pub fn duties(&self) -> impl Iterator<Item = Duty> {
        self.lanes.iter().map(|lane| lane.duty.clone())
    }

    /// Which loops that signals need do not work.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    fn spools(&self) -> impl Iterator<Item = &Spool> {
        self.lanes.iter().filter_map(|lane| lane.spool.as_ref())
    }

    /// Signals that are set aside: acknowledged, and tried again at a bounded pace.
    #[must_use]
    pub fn aside(&self) -> usize {
        self.spools().map(Spool::aside).sum()
    }

    /// Ping URLs that are known in memory.
    #[must_use]
    pub fn known(&self) -> usize {
        self.registry.len()
    }

    /// Bytes that they take.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        self.spools().map(Spool::bytes).sum()
    }

    /// When the oldest signal in the spool came.
    #[must_use]
    pub fn oldest_spooled(&self) -> Option<DateTime<Utc>> {
        self.spools().filter_map(Spool::oldest_at).min()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{DateTime, Utc};
    use deadbeat_store::PoolSettings;

    use super::*;

    struct NoClock;

    impl Clock for NoClock {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH
        }
    }

    #[tokio::test]
    async fn a_monitor_keeps_its_lane_when_more_is_known_of_it() {
        let settings = PoolSettings {
            url: "postgres://nobody@localhost/none".to_owned(),
            size: 1,
            wait: Duration::from_millis(1),
            answer: Duration::from_secs(30),
            usual: None,
        };
        let store = Store::connect(&settings).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(NoClock);
        let site = Site {
            url: "https://deadbeat.test".to_owned(),
        };
        let registry = Registry::default();
        let spools = vec![None; 7];
        let (ingest, _) = Ingest::new(&store, &clock, &site, &Arc::default(), registry.clone(), spools);
        let lanes: Vec<*const Lane> = (0..50)
            .map(|_| {
                let (ping, monitor) = (PingId::generate(), MonitorId::generate());
                let unknown: *const Lane = ingest.lane(&Address::Ping(ping));
                registry.learn([(ping, monitor)].into_iter());
                assert_eq!(unknown, ingest.lane(&Address::Ping(ping)));
                unknown
            })
            .collect();

        assert!(
            lanes.iter().any(|lane| *lane != lanes[0]),
            "every monitor has the same lane"
        );
    }
}
