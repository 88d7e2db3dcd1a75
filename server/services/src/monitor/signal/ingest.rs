//! The entrance for signals. They wait in bounded queues for the writers. The client gets its answer when its signal is durable.

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

/// The most signals that wait in all lanes together. Further ones are refused with "try again": never silently, and never with unbounded memory.
const QUEUE: usize = 8_192;

/// The number of writers in a process. While one waits for its commit, another works: with a single writer the cores were idle for a third of the
/// time (docs/benchmarks.md). All signals of a monitor take the same lane, which keeps their order.
pub const LANES: usize = 2;

/// Why a signal was not accepted. The client may send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IngestError {
    /// The queue is full.
    #[error("too many signals are waiting")]
    Full,
    /// The database cannot be reached, or the server is stopping.
    #[error("the database cannot be reached")]
    Unavailable,
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct IngestCounters {
    /// Signals that were written.
    pub recorded: AtomicU64,
    /// Signals for monitors that do not exist, or by keys that may not send them.
    pub unknown: AtomicU64,
    /// Signals that were refused, because the queue was full or the database could not be reached.
    pub refused: AtomicU64,
    /// Signals that were not recorded, because their sender has used up its quota.
    pub limited: AtomicU64,
    /// Transactions of the writers.
    pub batches: AtomicU64,
    /// Signals that went to the spool, because the database could not take them.
    pub spooled: AtomicU64,
    /// Signals that were set aside, because they could not be written while others could.
    pub set_aside: AtomicU64,
    /// Panics of a writer while it wrote a single signal.
    pub panicked: AtomicU64,
}

impl IngestCounters {
    /// Counts a signal that was written, or whose monitor does not exist.
    pub(crate) fn count(&self, accepted: Accepted) {
        let figure = match accepted {
            Accepted::Recorded => &self.recorded,
            Accepted::Unknown { .. } | Accepted::Refused(_) => &self.unknown,
        };
        figure.fetch_add(1, Ordering::Relaxed);
    }
}

/// A signal, and the client that waits for its answer.
pub(crate) struct WaitingSignal {
    /// Boxed, because the signal moves from the queue to a batch, and often from there to another place.
    pub(crate) incoming: Box<Incoming>,
    pub(crate) answer: oneshot::Sender<Accepted>,
    /// Since when the signal has waited for a locked row.
    pub(crate) held_since: Option<Instant>,
}

/// The entrance for signals. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Ingest {
    lanes: Arc<[Lane]>,
    figures: Arc<IngestCounters>,
    registry: Registry,
    health: Health,
}

/// A writer's queue and spool.
#[derive(Debug)]
struct Lane {
    queue: mpsc::Sender<WaitingSignal>,
    spool: Option<Spool>,
    duty: Duty,
}

impl Ingest {
    /// Makes the entrance and its writers, one for each spool (usually [`LANES`]). The caller must run the writers ([`Writers::run`]). Without a
    /// spool, clients get "try again" while the database cannot be reached.
    #[must_use]
    pub fn new(
        store: &Store,
        clock: &Arc<dyn Clock>,
        site: &Site,
        outbox_bell: &Arc<Notify>,
        registry: Registry,
        spools: Vec<Option<Spool>>,
    ) -> (Self, Writers) {
        let figures = Arc::new(IngestCounters::default());
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

    /// Returns the lane of a monitor's signals. It depends only on facts that every process knows at any time, so it is the same in the next process.
    /// That process then replays a spooled signal before it writes later signals of the same monitor.
    fn lane(&self, address: &Address) -> &Lane {
        let key = match address {
            Address::Ping(id) => id.0.as_u128(),
            Address::Slug { slug, .. } => slug.bytes().fold(0u128, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u128::from(byte))
            }),
        };
        // The last bits of a UUID are random in every version.
        &self.lanes[(key % self.lanes.len() as u128) as usize]
    }

    /// Notes monitors that were just read from the database.
    pub(crate) fn learn(&self, ids: impl Iterator<Item = (PingId, MonitorId)>) {
        self.registry.learn(ids);
    }

    /// Accepts one signal. Returns when it is committed.
    ///
    /// # Errors
    /// If nothing was written. The client should then send the signal again.
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
            .try_send(WaitingSignal {
                incoming,
                answer,
                held_since: None,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => refuse(IngestError::Full),
                mpsc::error::TrySendError::Closed(_) => refuse(IngestError::Unavailable),
            })?;
        // The writer drops the answer if the batch failed.
        answered.await.map_err(|_| refuse(IngestError::Unavailable))
    }

    /// Returns the number of signals that wait for a writer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let waiting = |lane: &Lane| lane.queue.max_capacity() - lane.queue.capacity();
        self.lanes.iter().map(waiting).sum()
    }

    /// Returns the number of signals in the spools that are not in the database yet. No monitor is judged before they are written.
    #[must_use]
    pub fn spooled(&self) -> u64 {
        self.spools().map(Spool::signals).sum()
    }

    /// Returns addresses with signals that were set aside a moment ago. Only their monitors are not judged until these signals are written.
    #[must_use]
    pub fn fresh_aside(&self) -> Vec<Address> {
        self.spools().flat_map(Spool::fresh_aside).collect()
    }

    /// Returns this process's id among the listeners. The first spool file keeps the id for the next start. Returns `None` without a spool: the
    /// process then cannot hold signals.
    #[must_use]
    pub fn listener(&self) -> Option<Uuid> {
        self.spools().next().map(Spool::listener)
    }

    /// Returns the duty of each lane's writer.
    pub fn duties(&self) -> impl Iterator<Item = Duty> {
        self.lanes.iter().map(|lane| lane.duty.clone())
    }

    /// Returns the health of the loops that signals depend on.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    fn spools(&self) -> impl Iterator<Item = &Spool> {
        self.lanes.iter().filter_map(|lane| lane.spool.as_ref())
    }

    /// Returns the number of signals that are set aside: acknowledged, and retried at a bounded pace.
    #[must_use]
    pub fn aside(&self) -> usize {
        self.spools().map(Spool::aside).sum()
    }

    /// Returns the number of ping URLs in the registry.
    #[must_use]
    pub fn known(&self) -> usize {
        self.registry.len()
    }

    /// Returns the size of the spooled signals, in bytes.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        self.spools().map(Spool::bytes).sum()
    }

    /// Returns when the oldest spooled signal was received.
    #[must_use]
    pub fn oldest_spooled(&self) -> Option<DateTime<Utc>> {
        self.spools().filter_map(Spool::oldest_at).min()
    }

    /// Returns the counters for metrics.
    #[must_use]
    pub fn figures(&self) -> &IngestCounters {
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
