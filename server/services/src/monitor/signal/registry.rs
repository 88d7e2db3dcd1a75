//! Which ping URLs exist, in memory. So the server does not ask the database again about an id that it has just denied.
//! While the database is away, the server can still tell a monitor's ping from noise.
//!
//! The list is read at the start, and follows notifications of other processes' changes and every look-up. It is read
//! again after the connection to the database was cut, and every ten minutes in any case. While the database is there,
//! the list never decides alone: the writer looks a known id up anyway, and an unknown id is looked up before it is
//! refused, at a limited rate.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use deadbeat_domain::ids::{MonitorId, PingId};
use deadbeat_store::{Store, StoreResult, monitor, with_sources};
use foldhash::fast::RandomState;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::operation::duty::Duty;

/// How long an id that the database has denied is refused without asking again.
const DENIED_FOR: Duration = Duration::from_secs(5);
/// The most denied ids that are remembered.
const MOST_DENIED: usize = 100_000;
/// The most look-ups a second of ids that the complete list does not have. A look-up finds a monitor that another
/// process has just made.
const LOOK_UPS_A_SECOND: u32 = 500;
/// Read the list again after this, whatever notifications came.
const EXPIRY: Duration = Duration::from_secs(600);
/// The pause after a failed connection to the database.
const AGAIN: Duration = Duration::from_secs(1);
/// Rows that one query reads.
const CHUNK: i64 = 20_000;
/// The notifications of migration 0010.
const CHANNEL: &str = "deadbeat_monitor";

/// Which ping URLs exist. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<RwLock<Inner>>,
    duty: Duty,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            inner: Arc::default(),
            duty: Duty::new("registry"),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Ping ids as numbers: 32 bytes an entry.
    known: HashMap<u128, u128, RandomState>,
    /// `known` is complete: it was read, and notifications have come ever since.
    is_complete: bool,
    denied: HashMap<u128, Instant>,
    look_ups: u32,
    second: Option<Instant>,
}

/// Whether an id exists, without asking the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A monitor has it.
    Yes,
    /// No monitor has it.
    No,
    /// Unknown: the list is not complete.
    Perhaps,
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // A panic while writing leaves a valid map behind, so go on with it.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a ping for this id is refused without asking: the database has just denied the id, or this second's
    /// look-ups are used up.
    #[must_use]
    pub fn refuses(&self, id: PingId) -> bool {
        let id = id.0.as_u128();
        let now = Instant::now();
        {
            let inner = self.read();
            if inner.known.contains_key(&id) {
                return false;
            }
            if inner.denied.get(&id).is_some_and(|at| now - *at < DENIED_FOR) {
                return true;
            }
            if !inner.is_complete {
                return false;
            }
        }
        let mut inner = self.write();
        if inner
            .second
            .is_none_or(|second| now - second >= Duration::from_secs(1))
        {
            inner.second = Some(now);
            inner.look_ups = 0;
        }
        inner.look_ups += 1;
        inner.look_ups > LOOK_UPS_A_SECOND
    }

    /// Whether an id exists, without asking the database.
    #[must_use]
    pub fn knows(&self, id: PingId) -> Known {
        let inner = self.read();
        if inner.known.contains_key(&id.0.as_u128()) {
            Known::Yes
        } else if inner.is_complete {
            Known::No
        } else {
            Known::Perhaps
        }
    }

    /// The monitor behind a ping URL, if it is known.
    #[must_use]
    pub(crate) fn monitor_of(&self, id: PingId) -> Option<MonitorId> {
        let found = self.read().known.get(&id.0.as_u128()).copied();
        found.map(|monitor| MonitorId(Uuid::from_u128(monitor)))
    }

    /// Number of known ping URLs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().known.len()
    }

    /// Whether no ping URL is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes ids that the database has.
    pub(crate) fn learn(&self, ids: impl Iterator<Item = (PingId, MonitorId)>) {
        let mut fresh = ids.filter(|(ping, _)| self.knows(*ping) != Known::Yes).peekable();
        if fresh.peek().is_none() {
            return;
        }
        let fresh: Vec<(PingId, MonitorId)> = fresh.collect();
        let mut inner = self.write();
        for (ping, monitor) in fresh {
            inner.denied.remove(&ping.0.as_u128());
            inner.known.insert(ping.0.as_u128(), monitor.0.as_u128());
        }
    }

    /// Notes that the database does not have an id.
    pub(crate) fn deny(&self, id: PingId) {
        let mut inner = self.write();
        inner.known.remove(&id.0.as_u128());
        if inner.denied.len() >= MOST_DENIED {
            inner.denied.clear();
        }
        inner.denied.insert(id.0.as_u128(), Instant::now());
    }

    /// What the loop reports of itself.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Keeps the list up to date until `stop`.
    pub async fn run(&self, store: &Store, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.follow(store, &stop).await {
                self.duty.failed();
                tracing::debug!(error = %with_sources(&error), "the list of ping URLs cannot be kept; trying again");
            }
            self.write().is_complete = false;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Listens, reads the whole list, and follows changes, until the connection is cut or the list is due to be read
    /// again.
    async fn follow(&self, store: &Store, stop: &CancellationToken) -> StoreResult<()> {
        // Listen before reading the list, so that no change in between is missed.
        let mut changes = store.listen(CHANNEL).await?;
        loop {
            self.load(store).await?;
            self.duty.succeeded();
            let expiry = tokio::time::sleep(EXPIRY);
            tokio::pin!(expiry);
            loop {
                let change = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = &mut expiry => break,
                    change = changes.next() => change?,
                };
                // A connection that was cut may have lost some notifications.
                let Some(change) = change else { return Ok(()) };
                match parse(&change) {
                    Some((true, ping, monitor)) => self.learn(std::iter::once((ping, monitor))),
                    Some((false, ping, _)) => self.deny(ping),
                    None => break,
                }
            }
        }
    }

    async fn load(&self, store: &Store) -> StoreResult<()> {
        let reader = store.reader();
        let mut after = None;
        let mut found: HashMap<u128, u128, RandomState> =
            HashMap::with_capacity_and_hasher(self.len(), RandomState::default());
        loop {
            let chunk = monitor::ping_ids(&reader, after, CHUNK).await?;
            let Some((last, _)) = chunk.last() else { break };
            after = Some(*last);
            found.extend(
                chunk
                    .iter()
                    .map(|(monitor, ping)| (ping.0.as_u128(), monitor.0.as_u128())),
            );
        }
        let mut inner = self.write();
        inner.denied.clear();
        inner.known = found;
        inner.is_complete = true;
        Ok(())
    }
}

/// Reads `came <ping id> <id>` or `went <ping id> <id>`. Anything else means: read the whole list.
fn parse(change: &str) -> Option<(bool, PingId, MonitorId)> {
    let mut words = change.split(' ');
    let came = match words.next()? {
        "came" => true,
        "went" => false,
        _ => return None,
    };
    let ping = Uuid::try_parse(words.next()?).ok()?;
    let monitor = Uuid::try_parse(words.next()?).ok()?;
    Some((came, PingId(ping), MonitorId(monitor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (PingId, MonitorId) {
        (PingId::generate(), MonitorId::generate())
    }

    #[test]
    fn what_was_denied_is_refused_until_it_comes() {
        let registry = Registry::default();
        let (ping, monitor) = ids();
        assert!(!registry.refuses(ping), "nothing is known yet: ask");

        registry.deny(ping);
        assert!(registry.refuses(ping));
        registry.learn(std::iter::once((ping, monitor)));
        assert!(!registry.refuses(ping));
        assert_eq!(registry.knows(ping), Known::Yes);
    }

    #[test]
    fn a_flood_of_unknown_ids_reaches_the_database_at_a_bounded_rate() {
        let registry = Registry::default();
        registry.write().is_complete = true;

        let asked = (0..10_000)
            .filter(|_| !registry.refuses(PingId::generate()))
            .count();

        assert!((500..=1_500).contains(&asked), "{asked} in a moment");
    }

    #[test]
    fn only_a_complete_list_can_say_no() {
        let registry = Registry::default();
        let (ping, _) = ids();
        assert_eq!(registry.knows(ping), Known::Perhaps);
        registry.write().is_complete = true;
        assert_eq!(registry.knows(ping), Known::No);
    }

    #[test]
    fn notifications_are_read_or_mean_everything() {
        let (ping, monitor) = ids();
        assert_eq!(
            parse(&format!("came {ping} {monitor}", ping = ping.0)),
            Some((true, ping, monitor))
        );
        assert_eq!(
            parse(&format!("went {} {monitor}", ping.0)),
            Some((false, ping, monitor))
        );
        for other in ["many", "", "came", "came x y", "gone 1 2"] {
            assert_eq!(parse(other), None);
        }
    }
}
