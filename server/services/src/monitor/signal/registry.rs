//! Which ping URLs exist, in memory: nobody asks the database about an id that it has just denied, and while it is away we can still
//! tell a monitor's ping from noise.
//!
//! What is known is learnt at the start, from notifications of other processes' changes, and from every look-up; the whole list is
//! read again when the line to the database was cut, and every ten minutes in any case. It is never the last word while the database
//! is there: a known id is looked up by the writer anyway, and an unknown one is looked up before it is refused, at a bounded rate.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use deadbeat_domain::ids::{MonitorId, PingId};
use deadbeat_store::{Store, StoreResult, monitor, with_sources};
use foldhash::fast::RandomState;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// For how long an id that the database has denied is refused without asking again.
const DENIED_FOR: Duration = Duration::from_secs(5);
/// Denied ids that are remembered.
const MOST_DENIED: usize = 100_000;
/// Look-ups of ids that the complete list does not have, a second. A monitor that another process made this moment is found by one.
const LOOK_UPS_A_SECOND: u32 = 500;
/// The list is read anew after this, whatever was notified.
const EXPIRY: Duration = Duration::from_secs(600);
/// After a line to the database that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// Rows of one read.
const CHUNK: i64 = 20_000;
/// The notifications of migration 0010.
const CHANNEL: &str = "deadbeat_monitor";

/// Which ping URLs exist. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Ids as numbers: 32 bytes an entry.
    known: HashMap<u128, u128, RandomState>,
    /// Everything is in `known`: it was read, and notifications have come ever since.
    is_complete: bool,
    denied: HashMap<u128, Instant>,
    look_ups: u32,
    second: Option<Instant>,
}

/// What is known of an id without asking the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// There is such a monitor.
    Yes,
    /// There is none.
    No,
    /// Not everything is known.
    Perhaps,
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Whoever panicked while writing left a map behind, which is all that it is.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a ping for this id is refused without asking: the database has just denied it, or denies enough others.
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

    /// What is known of an id without asking the database.
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

    /// How many ping URLs are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().known.len()
    }

    /// None is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The database has such a monitor.
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

    /// The database has none of that id.
    pub(crate) fn deny(&self, id: PingId) {
        let mut inner = self.write();
        inner.known.remove(&id.0.as_u128());
        if inner.denied.len() >= MOST_DENIED {
            inner.denied.clear();
        }
        inner.denied.insert(id.0.as_u128(), Instant::now());
    }

    /// Keeps the list until told to stop.
    pub async fn run(&self, store: &Store, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.follow(store, &stop).await {
                tracing::debug!(error = %with_sources(&error), "the list of ping URLs cannot be kept; trying again");
            }
            self.write().is_complete = false;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Listens, reads everything, and follows changes, until the line is cut or the list is due to be read anew.
    async fn follow(&self, store: &Store, stop: &CancellationToken) -> StoreResult<()> {
        // Before the list is read: what changes meanwhile is heard.
        let mut changes = store.listen(CHANNEL).await?;
        loop {
            self.load(store).await?;
            let expiry = tokio::time::sleep(EXPIRY);
            tokio::pin!(expiry);
            loop {
                let change = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = &mut expiry => break,
                    change = changes.next() => change?,
                };
                // A line that was cut may have swallowed some.
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

/// `came <ping id> <id>` or `went <ping id> <id>`; anything else means "read it all".
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
