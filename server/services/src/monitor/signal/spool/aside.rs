//! Acknowledged signals that cannot be written for now. Another transaction has locked their monitor's row, the row cannot be read, or the database
//! refuses the signals.
//!
//! These signals leave the order of numbers, so that later signals can be written. Each has its own name in the table `writer`, as if it were a spool
//! with one signal. The server therefore writes each only once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::ReadableDatabase;
use uuid::Uuid;

use super::{
    ASIDE, Inner, SIGNALS, Spool, SpoolError, Spooled, file_error, incoming, note_given, rows, size,
};
use crate::monitor::signal::incoming::{Address, Incoming};

/// The most signals of one address that are accepted while others of this address are set aside.
pub const MOST_OF_ONE: usize = 500;
/// The most signals that may be set aside.
pub const MOST_ASIDE: usize = 10_000;
/// For this long the oldest signal of an address counts as about to be written. Most locks are released within this time.
const FRESH: Duration = Duration::from_secs(30);

/// The index in memory of the signals that are set aside. For each address it has the places of its signals, oldest first, and since when this
/// process knows them.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: HashMap<Address, VecDeque<(u64, Instant)>>,
    count: usize,
    next: u64,
}

/// A signal that was set aside.
#[derive(Debug)]
pub(crate) struct Aside {
    /// Its place in the order in which signals were set aside.
    pub(crate) place: u64,
    /// Its row in the table `writer`. Its number there is 1.
    pub(crate) name: Uuid,
    /// The signal.
    pub(crate) incoming: Incoming,
}

impl Index {
    /// Makes the index of an opened file. If this process had the file open before, signals from that time are not new.
    pub(super) fn of(aside: Vec<(u64, Address)>, before: &Self) -> Self {
        let known: HashMap<u64, Instant> = before.places.values().flatten().copied().collect();
        let mut index = Self::default();
        for (place, address) in aside {
            let since = known.get(&place).copied().unwrap_or_else(Instant::now);
            index.add(place, address, since);
        }
        index
    }

    fn add(&mut self, place: u64, address: Address, since: Instant) {
        self.places.entry(address).or_default().push_back((place, since));
        self.count += 1;
        self.next = self.next.max(place + 1);
    }

    /// Returns which of these signals may be added. An address at its limit must wait, but other addresses need not.
    fn fits(&self, addresses: &[Address]) -> Vec<bool> {
        let mut taken: HashMap<&Address, usize> = HashMap::new();
        let mut all = self.count;
        let fits = |address| {
            let of_one = taken
                .entry(address)
                .or_insert_with(|| self.places.get(address).map_or(0, VecDeque::len));
            let fits = *of_one < MOST_OF_ONE && all < MOST_ASIDE;
            if fits {
                *of_one += 1;
                all += 1;
            }
            fits
        };
        addresses.iter().map(fits).collect()
    }

    fn remove(&mut self, place: u64, address: &Address) {
        let Some(places) = self.places.get_mut(address) else {
            return;
        };
        let before = places.len();
        places.retain(|(one, _)| *one != place);
        self.count -= before - places.len();
        if places.is_empty() {
            self.places.remove(address);
        }
    }
}

impl Inner {
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool {
    /// Returns the number of signals that are set aside.
    #[must_use]
    pub fn aside(&self) -> usize {
        self.inner.index().count
    }

    /// Returns true if signals of this address are set aside. Later ones must then be set aside, too, to keep their order.
    #[must_use]
    pub fn is_aside(&self, address: &Address) -> bool {
        self.inner.index().places.contains_key(address)
    }

    /// Returns each address with signals that are set aside, and the place of its oldest signal.
    pub(crate) fn oldest_aside(&self) -> Vec<(Address, u64)> {
        let index = self.inner.index();
        let oldest =
            |(address, places): (&Address, &VecDeque<(u64, _)>)| Some((address.clone(), places.front()?.0));
        index.places.iter().filter_map(oldest).collect()
    }

    /// Returns the addresses whose oldest signal was set aside a moment ago. That signal will soon be written, so its monitor should not be judged
    /// before. A signal that stays aside does not count, even if later ones follow: otherwise its monitor would never be judged again.
    #[must_use]
    pub(crate) fn fresh_aside(&self) -> Vec<Address> {
        let index = self.inner.index();
        let is_fresh = |places: &VecDeque<(u64, Instant)>| {
            places.front().is_some_and(|(_, since)| since.elapsed() < FRESH)
        };
        let fresh = index.places.iter().filter(|(_, places)| is_fresh(places));
        fresh.map(|(address, _)| address.clone()).collect()
    }

    /// Sets new signals aside. Returns for each signal whether it was kept; kept signals are on the disk by then. The others exceed the limit of
    /// their address, or the limit for all.
    ///
    /// # Errors
    /// If the spool's size limit is reached, or the file cannot be written. Then no signal is kept.
    pub async fn append_aside(&self, batch: &[Incoming]) -> Result<Vec<bool>, SpoolError> {
        let rows = rows(batch)?;
        let addresses: Vec<Address> = batch.iter().map(|one| one.address.clone()).collect();
        self.on_thread(move |inner, file| {
            let (fits, first) = {
                let index = inner.index();
                (index.fits(&addresses), index.next)
            };
            let fitting = || {
                fits.iter()
                    .zip(&rows)
                    .filter(|(fits, _)| **fits)
                    .map(|(_, row)| row)
            };
            if fitting().next().is_none() {
                return Ok(fits);
            }
            let added: u64 = fitting().map(|(json, body)| size(json, body)).sum();
            inner.has_room(added)?;
            let begun = file.begin_write().map_err(file_error)?;
            {
                let mut aside = begun.open_table(ASIDE).map_err(file_error)?;
                for (place, (json, body)) in (first..).zip(fitting()) {
                    let row = (Uuid::new_v4().as_u128(), json.as_slice(), body.as_slice());
                    aside.insert(place, row).map_err(file_error)?;
                }
            }
            begun.commit().map_err(file_error)?;
            let mut index = inner.index();
            let now = Instant::now();
            let mut places = first..;
            for (address, fits) in addresses.into_iter().zip(&fits) {
                if *fits && let Some(place) = places.next() {
                    index.add(place, address, now);
                }
            }
            inner.bytes.fetch_add(added, Ordering::Relaxed);
            Ok(fits)
        })
        .await
    }

    /// Moves signals out of the order of numbers. No limit applies, because they are acknowledged and already count towards the size limit.
    ///
    /// # Errors
    /// If the file cannot be written. Then no signal is moved.
    pub async fn set_aside(&self, spooled: &[&Spooled]) -> Result<(), SpoolError> {
        let moved: Vec<((u64, u32), Address)> = spooled
            .iter()
            .map(|one| ((one.position, one.part), one.incoming.address.clone()))
            .collect();
        // Note the highest number, because the writer's number will soon be higher, even if no signal with a higher number stays in the file.
        let Some(last) = spooled.iter().map(|one| one.position).max() else {
            return Ok(());
        };
        self.with_reserve(move |inner, file| {
            let first = inner.index().next;
            let begun = file.begin_write().map_err(file_error)?;
            let mut added = Vec::with_capacity(moved.len());
            {
                let mut kept = begun.open_table(SIGNALS).map_err(file_error)?;
                let mut aside = begun.open_table(ASIDE).map_err(file_error)?;
                for (key, address) in &moved {
                    let Some(row) = kept.remove(key).map_err(file_error)? else {
                        continue;
                    };
                    let (json, body) = row.value();
                    let place = first + added.len() as u64;
                    aside
                        .insert(place, (Uuid::new_v4().as_u128(), json, body))
                        .map_err(file_error)?;
                    added.push((place, address.clone()));
                }
            }
            note_given(&begun, last)?;
            begun.commit().map_err(file_error)?;
            inner.signals.fetch_sub(added.len() as u64, Ordering::Relaxed);
            let mut index = inner.index();
            let now = Instant::now();
            for (place, address) in added {
                index.add(place, address, now);
            }
            Ok(())
        })
        .await
    }

    /// Reads the signal that was set aside at this place.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) async fn read_aside(&self, place: u64) -> Result<Option<Aside>, SpoolError> {
        self.with_reserve(move |_, file| {
            let begun = file.begin_read().map_err(file_error)?;
            let aside = begun.open_table(ASIDE).map_err(file_error)?;
            let Some(row) = aside.get(place).map_err(file_error)? else {
                return Ok(None);
            };
            let (name, json, body) = row.value();
            Ok(Some(Aside {
                place,
                name: Uuid::from_u128(name),
                incoming: incoming(json, body)?,
            }))
        })
        .await
    }

    /// Deletes signals from the file that are now in the database.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) async fn forget_aside(&self, written: &[&Aside]) -> Result<(), SpoolError> {
        let written: Vec<(u64, Address)> = written
            .iter()
            .map(|aside| (aside.place, aside.incoming.address.clone()))
            .collect();
        self.with_reserve(move |inner, file| {
            let places: HashSet<u64> = written.iter().map(|(place, _)| *place).collect();
            let begun = file.begin_write().map_err(file_error)?;
            let mut bytes = 0;
            {
                let mut aside = begun.open_table(ASIDE).map_err(file_error)?;
                for place in &places {
                    if let Some(row) = aside.remove(place).map_err(file_error)? {
                        let (_, json, body) = row.value();
                        bytes += size(json, body);
                    }
                }
            }
            begun.commit().map_err(file_error)?;
            inner.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let mut index = inner.index();
            for (place, address) in &written {
                index.remove(*place, address);
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::ids::PingId;

    use super::*;

    #[test]
    fn a_file_that_is_opened_again_makes_nothing_new_of_what_is_stuck() {
        let address = Address::Ping(PingId::generate());
        let long_ago = Instant::now().checked_sub(FRESH * 2).unwrap();
        let mut before = Index::default();
        before.add(7, address.clone(), long_ago);

        let index = Index::of(vec![(7, address.clone()), (8, address.clone())], &before);

        let since: Vec<bool> = index.places[&address]
            .iter()
            .map(|(_, since)| since.elapsed() < FRESH)
            .collect();
        assert_eq!(since, [false, true]);
    }
}
