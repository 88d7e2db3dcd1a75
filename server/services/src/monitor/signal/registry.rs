//! The list of existing ping URLs, in memory. It saves queries for ids that the database has just denied. While the database cannot be reached, it
//! also lets the server distinguish a monitor's ping from noise.
//!
//! The server reads the list at its start. It then updates the list by the notifications of other processes' changes and by every look-up. It reads
//! the list again after the connection to the database was cut, and every ten minutes in any case. While the database can be reached, the list never
//! decides alone: the writer looks up even known ids. Before the server refuses an unknown id, it looks that id up, at a limited rate.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use deadbeat_domain::ids::{MonitorId, PingId};
use deadbeat_store::{Store, StoreResult, monitor, with_sources};
use foldhash::fast::RandomState;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::operation::duty::Duty;

/// For how long the server refuses an id without a look-up after the database has denied that id.
const DENIED_FOR: Duration = Duration::from_secs(5);
/// The most denied ids that the list remembers.
const MOST_DENIED: usize = 100_000;
/// The most look-ups per second of ids that are missing in the complete list. A look-up finds a monitor that another process has just created.
const LOOK_UPS_A_SECOND: u32 = 500;
/// The age at which the list is read again, even if all notifications have arrived.
const EXPIRY: Duration = Duration::from_secs(600);
/// The pause after a failed connection to the database.
const AGAIN: Duration = Duration::from_secs(1);
/// The number of rows that one query reads.
const CHUNK: i64 = 20_000;
/// The channel of the notifications of migration 0010.
const CHANNEL: &str = "deadbeat_monitor";

/// The list of existing ping URLs. Clones are cheap.
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
    /// Ping ids and monitor ids as numbers: 32 bytes per entry.
    known: HashMap<u128, u128, RandomState>,
    /// True if `known` is complete: it was read, and notifications have arrived ever since.
    is_complete: bool,
    denied: HashMap<u128, Instant>,
    look_ups: u32,
    second: Option<Instant>,
}

/// Whether an id exists, as far as the list says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// A monitor has it.
    Yes,
    /// No monitor has it.
    No,
    /// Unknown, because the list is not complete.
    Perhaps,
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // A panic while writing leaves the map valid, so continue with it.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if the server refuses a ping for this id without a look-up. Either the database has just denied the id, or this second's look-ups
    /// are used up.
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

    /// Returns whether an id exists, without a query.
    #[must_use]
    pub fn knows(&self, id: PingId) -> Existence {
        let inner = self.read();
        if inner.known.contains_key(&id.0.as_u128()) {
            Existence::Yes
        } else if inner.is_complete {
            Existence::No
        } else {
            Existence::Perhaps
        }
    }

    /// Returns the monitor of a ping URL, if the list has it.
    #[must_use]
    pub(crate) fn monitor_of(&self, id: PingId) -> Option<MonitorId> {
        let found = self.read().known.get(&id.0.as_u128()).copied();
        found.map(|monitor| MonitorId(Uuid::from_u128(monitor)))
    }

    /// Returns the number of known ping URLs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().known.len()
    }

    /// Returns true if the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes ids that exist in the database.
    pub(crate) fn learn(&self, ids: impl Iterator<Item = (PingId, MonitorId)>) {
        let mut fresh = ids
            .filter(|(ping, _)| self.knows(*ping) != Existence::Yes)
            .peekable();
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

    /// Notes that an id does not exist in the database.
    pub(crate) fn deny(&self, id: PingId) {
        let mut inner = self.write();
        inner.known.remove(&id.0.as_u128());
        if inner.denied.len() >= MOST_DENIED {
            inner.denied.clear();
        }
        inner.denied.insert(id.0.as_u128(), Instant::now());
    }

    /// Returns the duty of the loop.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Keeps the list up to date until `stop`.
    pub async fn run(&self, store: &Store, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.follow(store, &stop).await {
                self.duty.failed();
                tracing::debug!(error = %with_sources(&error), "the list of ping URLs cannot be kept up to date; retrying");
            }
            self.write().is_complete = false;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Listens, reads the whole list, and follows changes. Returns when the connection is cut, or when the list must be read again.
    async fn follow(&self, store: &Store, stop: &CancellationToken) -> StoreResult<()> {
        // Listen before reading the list, so that no change in between is lost.
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
                // Notifications may be lost when the connection is cut.
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

/// Parses `came <ping id> <id>` or `went <ping id> <id>`. For any other text, the caller must read the whole list.
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
        assert_eq!(registry.knows(ping), Existence::Yes);
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
        assert_eq!(registry.knows(ping), Existence::Perhaps);
        registry.write().is_complete = true;
        assert_eq!(registry.knows(ping), Existence::No);
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
