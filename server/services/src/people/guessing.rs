//! Counts wrong passwords in this process's memory. Several processes together therefore allow that many times more, and a restart resets the counts.
//!
//! This suffices against guessing, because each attempt also costs an Argon2 hash, and only two of them run at once. The database keeps the addresses
//! from which an account has signed in ([`deadbeat_store::people::account::is_known_at`]), so that an owner's address stays known after a restart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::AccountId;
use deadbeat_domain::people::guessing::{ACCOUNT, ADDRESS, FACTOR, KNOWN_PAIR, PAIR};
use deadbeat_domain::people::rate::{Bucket, Rate};

/// The most buckets that are kept at once.
const BUCKETS: usize = 30_000;
/// No account has a longer mail address. Longer ones are cut, so that they do not fill the memory.
const EMAIL_CHARS: usize = 200;

/// What an attempt counts against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pair(String, Option<IpAddr>),
    Address(Option<IpAddr>),
    /// A mail address, with or without an account: the answer must not reveal which.
    Account(String),
    /// The second factor of an account. Only somebody with the first factor gets here.
    Factor(AccountId),
}

/// A counted attempt. It is given back if the password is correct.
#[derive(Debug)]
pub(crate) struct Try(Vec<(Key, Rate)>);

/// Counts wrong attempts. Clones are cheap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guesses {
    buckets: Arc<Mutex<HashMap<Key, (Bucket, Rate)>>>,
}

impl Guesses {
    /// Counts an attempt before it is made, so that many simultaneous attempts cannot all pass. `is_known` is true if the account has recently signed
    /// in from this address.
    ///
    /// # Errors
    /// If there were too many attempts. Then nothing is counted, and the error is the time to wait.
    pub(crate) fn take(
        &self,
        email: &str,
        address: Option<IpAddr>,
        is_known: bool,
        now: DateTime<Utc>,
    ) -> Result<Try, TimeDelta> {
        let email: String = email.chars().take(EMAIL_CHARS).collect();
        let pair = Key::Pair(email.clone(), address);
        let keys = if is_known {
            vec![(pair, KNOWN_PAIR)]
        } else {
            vec![
                (pair, PAIR),
                (Key::Address(address), ADDRESS),
                (Key::Account(email), ACCOUNT),
            ]
        };
        let mut buckets = self.buckets();
        make_room(&mut buckets, now);
        let mut wait = None;
        let mut taken = 0;
        for (key, rate) in &keys {
            let (bucket, known_rate) = buckets
                .entry(key.clone())
                .or_insert_with(|| (Bucket::full(rate, now), *rate));
            // Whether the address is known may have changed since the last attempt.
            *known_rate = *rate;
            match bucket.take(rate, 1.0, now) {
                Ok(()) => taken += 1,
                Err(longer) => wait = wait.max(Some(longer)),
            }
            if wait.is_some() {
                break;
            }
        }
        let Some(wait) = wait else {
            return Ok(Try(keys));
        };
        give_back(&mut buckets, &keys[..taken]);
        Err(wait)
    }

    /// Counts a code of the second factor. Whoever has the password can begin a sign-in as often as they like, so the account counts.
    ///
    /// # Errors
    /// If there were too many; with the time to wait.
    pub(crate) fn take_factor(&self, account: AccountId, now: DateTime<Utc>) -> Result<(), TimeDelta> {
        let mut buckets = self.buckets();
        make_room(&mut buckets, now);
        buckets
            .entry(Key::Factor(account))
            .or_insert_with(|| (Bucket::full(&FACTOR, now), FACTOR))
            .0
            .take(&FACTOR, 1.0, now)
    }

    /// Gives back an attempt with a correct password.
    pub(crate) fn give_back(&self, tried: &Try) {
        give_back(&mut self.buckets(), &tried.0);
    }

    /// Locks the counts. They stay valid even if a thread panicked while it held the lock.
    fn buckets(&self) -> MutexGuard<'_, HashMap<Key, (Bucket, Rate)>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give_back(buckets: &mut HashMap<Key, (Bucket, Rate)>, keys: &[(Key, Rate)]) {
    for (key, rate) in keys {
        if let Some((bucket, _)) = buckets.get_mut(key) {
            bucket.give_back(rate, 1.0);
        }
    }
}

/// Drops buckets that are full again. In a flood of made-up names, also drops the buckets of names, because the buckets of addresses still limit the
/// flood.
fn make_room(buckets: &mut HashMap<Key, (Bucket, Rate)>, now: DateTime<Utc>) {
    if buckets.len() < BUCKETS - 3 {
        return;
    }
    buckets.retain(|_, (bucket, rate)| !bucket.is_full(rate, now));
    if buckets.len() >= BUCKETS - 3 {
        buckets.retain(|key, _| matches!(key, Key::Address(_) | Key::Factor(_)));
    }
    if buckets.len() >= BUCKETS - 3 {
        buckets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> DateTime<Utc> {
        "2026-07-01T02:00:00Z".parse().unwrap()
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_eleventh_wrong_try_has_to_wait_some_seconds_and_no_more() {
        let guesses = Guesses::default();
        for _ in 0..10 {
            guesses
                .take("ada@example.org", ip("203.0.113.7"), false, start())
                .unwrap();
        }

        for _ in 0..100 {
            let wait = guesses
                .take("ada@example.org", ip("203.0.113.7"), false, start())
                .unwrap_err();
            assert_eq!(wait, TimeDelta::seconds(6), "refused tries cost nothing");
        }
        guesses
            .take(
                "ada@example.org",
                ip("203.0.113.7"),
                false,
                start() + TimeDelta::seconds(6),
            )
            .unwrap();
    }

    #[test]
    fn ten_wrong_tries_from_elsewhere_stop_nobody_here() {
        let guesses = Guesses::default();
        while guesses
            .take("ada@example.org", ip("198.51.100.1"), false, start())
            .is_ok()
        {}

        guesses
            .take("ada@example.org", ip("203.0.113.7"), false, start())
            .unwrap();
    }

    #[test]
    fn one_account_tried_from_many_addresses_is_slowed_and_so_is_one_address_that_tries_many() {
        let guesses = Guesses::default();
        let by_account = (0..100)
            .filter(|n| {
                let address = ip(&format!("198.51.100.{n}"));
                guesses.take("ada@example.org", address, false, start()).is_ok()
            })
            .count();
        let by_address = (0..100)
            .filter(|n| {
                guesses
                    .take(&format!("{n}@example.org"), ip("192.0.2.1"), false, start())
                    .is_ok()
            })
            .count();
        assert_eq!((by_account, by_address), (30, 30));

        // At a known address, neither limit delays the account.
        guesses
            .take("ada@example.org", ip("192.0.2.1"), true, start())
            .unwrap();
        let wait = guesses
            .take("grace@example.org", ip("192.0.2.1"), false, start())
            .unwrap_err();
        assert_eq!(wait, TimeDelta::seconds(2));
    }

    #[test]
    fn right_passwords_are_not_counted() {
        let guesses = Guesses::default();
        for _ in 0..100 {
            let tried = guesses
                .take("ada@example.org", ip("203.0.113.7"), false, start())
                .unwrap();
            guesses.give_back(&tried);
        }
    }

    #[test]
    fn a_flood_of_names_does_not_fill_the_memory() {
        let guesses = Guesses::default();
        while guesses
            .take("ada@example.org", ip("203.0.113.7"), false, start())
            .is_ok()
        {}
        while guesses
            .take(&"x".repeat(10_000), ip("203.0.113.7"), false, start())
            .is_ok()
        {}

        for n in 0..BUCKETS as u32 / 2 {
            let address = Some(IpAddr::V4(n.into()));
            let _ = guesses.take(&"x".repeat(n as usize % 300), address, false, start());
        }

        let buckets = guesses.buckets();
        assert!(buckets.len() <= BUCKETS);
        assert!(buckets.keys().all(|key| match key {
            Key::Pair(email, _) | Key::Account(email) => email.len() <= EMAIL_CHARS,
            Key::Address(_) | Key::Factor(_) => true,
        }));
    }
}
