//! How often somebody may be wrong about a password: ten times a minute from one address, and ten times a minute for one account.
//!
//! Held in this process's memory: several processes allow as many times more, and a restart forgets. Against guessing that is enough,
//! since each try also costs an Argon2 hash, of which two run at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

/// Wrong tries within one [`WINDOW`].
const TRIES: u32 = 10;
/// Counted from the first wrong try.
const WINDOW: TimeDelta = TimeDelta::minutes(1);
/// Keys held at most.
const KEYS: usize = 20_000;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A client's address.
    Address(String),
    /// An account's mail address, whether there is such an account or not: the answer tells nothing.
    Email(String),
}

impl Key {
    /// The keys of one try.
    #[must_use]
    pub fn of(address: Option<&str>, email: &str) -> [Self; 2] {
        // Longer ones are nobody's: cut, so that they do not fill the memory.
        let email = email.trim().to_lowercase().chars().take(200).collect();
        [
            Self::Address(address.map(network).unwrap_or_default()),
            Self::Email(email),
        ]
    }
}

/// One client has a whole /64 of IPv6 addresses to choose from.
fn network(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(ip)) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        _ => address.to_owned(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began_at: DateTime<Utc>,
    tries: u32,
}

impl Window {
    fn is_over(&self, now: DateTime<Utc>) -> bool {
        now - self.began_at >= WINDOW
    }
}

/// Counts tries.
#[derive(Debug, Default)]
pub struct Attempts {
    windows: Mutex<HashMap<Key, Window>>,
}

impl Attempts {
    /// Counts a try before it is made, so that many at once cannot all slip through.
    ///
    /// # Errors
    /// One of the keys has had its tries: how long to wait for more.
    pub fn take(&self, keys: &[Key], now: DateTime<Utc>) -> Result<(), TimeDelta> {
        let mut windows = self.windows();
        let wait = keys
            .iter()
            .filter_map(|key| windows.get(key))
            .filter(|window| window.tries >= TRIES && !window.is_over(now))
            .map(|window| window.began_at + WINDOW - now)
            .max();
        if let Some(wait) = wait {
            return Err(wait);
        }
        for key in keys {
            make_room(&mut windows, now);
            let window = windows.entry(key.clone()).or_insert(Window {
                began_at: now,
                tries: 0,
            });
            if window.is_over(now) {
                *window = Window {
                    began_at: now,
                    tries: 0,
                };
            }
            window.tries += 1;
        }
        Ok(())
    }

    /// Takes a try back that was not wrong.
    pub fn give_back(&self, keys: &[Key]) {
        let mut windows = self.windows();
        for key in keys {
            if let Some(window) = windows.get_mut(key) {
                window.tries = window.tries.saturating_sub(1);
            }
        }
    }

    /// Counts stay true whoever panicked while holding them.
    fn windows(&self) -> MutexGuard<'_, HashMap<Key, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is over. In a flood also those that are merely counted: whoever is stopped already stays so.
fn make_room(windows: &mut HashMap<Key, Window>, now: DateTime<Utc>) {
    if windows.len() < KEYS {
        return;
    }
    windows.retain(|_, window| !window.is_over(now));
    if windows.len() >= KEYS {
        windows.retain(|_, window| window.tries >= TRIES);
    }
    if windows.len() >= KEYS {
        windows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> DateTime<Utc> {
        "2026-07-01T02:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_eleventh_wrong_try_of_a_minute_is_refused_and_says_how_long() {
        let attempts = Attempts::default();
        let keys = Key::of(Some("203.0.113.7"), "ada@example.org");

        for second in 0..10 {
            attempts
                .take(&keys, start() + TimeDelta::seconds(second))
                .unwrap();
        }

        let refused = attempts.take(&keys, start() + TimeDelta::seconds(20));
        assert_eq!(refused, Err(TimeDelta::seconds(40)));
        attempts.take(&keys, start() + TimeDelta::seconds(60)).unwrap();
    }

    #[test]
    fn one_account_tried_from_many_addresses_is_refused_too_and_the_other_way_round() {
        let attempts = Attempts::default();
        for n in 0..10 {
            attempts
                .take(
                    &Key::of(Some(&format!("203.0.113.{n}")), "ada@example.org"),
                    start(),
                )
                .unwrap();
            attempts
                .take(
                    &Key::of(Some("198.51.100.1"), &format!("{n}@example.org")),
                    start(),
                )
                .unwrap();
        }

        assert!(
            attempts
                .take(&Key::of(Some("192.0.2.1"), " ADA@example.org"), start())
                .is_err()
        );
        assert!(
            attempts
                .take(&Key::of(Some("198.51.100.1"), "new@example.org"), start())
                .is_err()
        );
        attempts
            .take(&Key::of(Some("192.0.2.1"), "grace@example.org"), start())
            .unwrap();
    }

    #[test]
    fn right_passwords_are_not_counted() {
        let attempts = Attempts::default();
        let keys = Key::of(Some("203.0.113.7"), "ada@example.org");
        for _ in 0..100 {
            attempts.take(&keys, start()).unwrap();
            attempts.give_back(&keys);
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let (one, other) = (
            Key::of(Some("2001:db8::1"), ""),
            Key::of(Some("2001:db8::ffff:2"), ""),
        );
        assert_eq!(one, other);
        assert_ne!(one, Key::of(Some("2001:db8:0:1::1"), ""));
        assert_ne!(Key::of(Some("203.0.113.7"), ""), Key::of(Some("203.0.113.8"), ""));
    }

    #[test]
    fn a_flood_of_names_does_not_fill_the_memory() {
        let attempts = Attempts::default();
        let stopped = Key::of(Some("203.0.113.7"), "ada@example.org");
        for _ in 0..10 {
            attempts.take(&stopped, start()).unwrap();
        }

        for n in 0..2 * KEYS {
            let _ = attempts.take(&Key::of(Some(&n.to_string()), &"x".repeat(n % 300)), start());
        }

        assert!(attempts.windows().len() <= KEYS);
        assert!(attempts.take(&stopped, start()).is_err());
    }
}
