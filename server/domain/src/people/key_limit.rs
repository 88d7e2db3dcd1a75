//! Limits of one API key beyond its scope: an end, the networks that may use it, and the monitors about which it reports.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use thiserror::Error;

use crate::limits;
use crate::monitor::{FieldError, check_tags, clip, is_slug};
use crate::people::key::Scope;

/// The longest time, in seconds, for which a replaced key stays valid after a rotation: 30 days.
pub const MOST_OVERLAP_SECONDS: i64 = 30 * 86_400;
/// The time for which a replaced key stays valid if the request does not say: a day.
pub const USUAL_OVERLAP_SECONDS: i64 = 86_400;

/// Why a valid key may not be used now, from here, or for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum KeyFault {
    /// The key's end has passed.
    #[error("the key has expired")]
    Expired,
    /// The request comes from a network that the key does not allow.
    #[error("the key may not be used from this address")]
    Network,
    /// The key is limited to some slugs or tags, and the request is about something else.
    #[error("the key is limited to some slugs or tags, and this request is about something else")]
    Part,
}

impl KeyFault {
    /// Returns the code of the fault, as answers show it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Expired => "key_expired",
            Self::Network => "key_network",
            Self::Part => "key_part",
        }
    }
}

/// The limits of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// The instant from which on the key is invalid. None: the key has no end.
    pub expires_at: Option<DateTime<Utc>>,
    /// The networks that may use the key. None: every network may.
    pub networks: Option<Networks>,
    /// The slugs about which a ping key may report. Empty, with no tags: every slug.
    pub slugs: Vec<String>,
    /// The tags about whose monitors a ping key may report. Empty, with no slugs: every monitor.
    pub tags: Vec<String>,
}

impl KeyLimits {
    /// Returns an error if the key may not be used at this time, or from this address. A request without a known address cannot prove that its network
    /// is allowed.
    ///
    /// # Errors
    /// The key has expired, or does not allow the network.
    pub fn allow(&self, address: Option<IpAddr>, at: DateTime<Utc>) -> Result<(), KeyFault> {
        if self.expires_at.is_some_and(|end| at >= end) {
            return Err(KeyFault::Expired);
        }
        match &self.networks {
            Some(networks) if !address.is_some_and(|address| networks.contain(address)) => {
                Err(KeyFault::Network)
            }
            _ => Ok(()),
        }
    }

    /// True if the key reports only about some slugs or tags.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !(self.slugs.is_empty() && self.tags.is_empty())
    }

    /// True if the key may report about the monitor of this slug, with these tags. Of slugs and tags, one match is enough.
    #[must_use]
    pub fn covers(&self, slug: &str, tags: &[String]) -> bool {
        !self.is_partial()
            || self.slugs.iter().any(|one| one == slug)
            || self.tags.iter().any(|one| tags.contains(one))
    }

    /// True if the key has no limit at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.expires_at.is_none() && self.networks.is_none() && !self.is_partial()
    }
}

/// Networks that may use a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads stored networks. Skips a text that is no network: then fewer addresses may use the key, never more.
    #[must_use]
    pub fn of_stored(texts: &[String]) -> Self {
        Self(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// Returns the networks as stored and shown, such as `10.1.0.0/16`.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// True if the address is in one of the networks. An IPv4 address inside an IPv6 address counts as the IPv4 address.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Reads one network: an address, or an address and the length of a prefix.
fn read_network(text: &str) -> Option<IpNet> {
    let network = text
        .parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse())
        .ok()?;
    // `::ffff:10.0.0.0/104` would match no request: addresses are compared in their IPv4 form.
    let is_mapped = |address: IpAddr| address.to_canonical() != address;
    (!is_mapped(network.addr())).then(|| network.trunc())
}

/// The limits that a request asks for. None: the request does not name the field.
#[derive(Debug, Clone, Default)]
pub struct AskedLimits {
    /// When the key ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// Networks that may use the key.
    pub networks: Option<Vec<String>>,
    /// Slugs about which a ping key may report.
    pub slugs: Option<Vec<String>>,
    /// Tags about whose monitors a ping key may report.
    pub tags: Option<Vec<String>>,
}

impl AskedLimits {
    /// Checks the limits, and appends a fault for each one that is invalid.
    #[must_use]
    pub fn read(self, scope: Scope, now: DateTime<Utc>, faults: &mut Vec<FieldError>) -> KeyLimits {
        if self.expires_at.is_some_and(|end| end <= now) {
            faults.push(FieldError::new("/expires_at", "is not in the future"));
        }
        let networks = self.networks.map(|texts| read_networks(&texts, faults));
        let slugs = self.slugs.map(|slugs| read_slugs(slugs, faults));
        let tags = self.tags.map(|mut tags| {
            check_size("/tags", tags.len(), limits::KEY_TAGS, faults);
            check_tags("/tags", &mut tags, faults);
            tags
        });
        for (pointer, is_given) in [("/slugs", slugs.is_some()), ("/tags", tags.is_some())] {
            if is_given && scope != Scope::Ping {
                faults.push(FieldError::new(pointer, "is only for keys of the scope ping"));
            }
        }
        KeyLimits {
            expires_at: self.expires_at,
            networks,
            slugs: slugs.unwrap_or_default(),
            tags: tags.unwrap_or_default(),
        }
    }
}

/// An empty list could mean "all" or "none", so a request must not send one.
fn check_size(pointer: &str, size: usize, most: usize, faults: &mut Vec<FieldError>) {
    if !(1..=most).contains(&size) {
        let text = format!("has {size} parts; 1 to {most} are allowed, or leave the field out");
        faults.push(FieldError::new(pointer, text));
    }
}

fn read_networks(texts: &[String], faults: &mut Vec<FieldError>) -> Networks {
    check_size("/networks", texts.len(), limits::KEY_NETWORKS, faults);
    let mut networks = Vec::new();
    for (index, text) in texts.iter().enumerate().take(limits::KEY_NETWORKS) {
        match read_network(text.trim()) {
            Some(network) if !networks.contains(&network) => networks.push(network),
            Some(_) => {}
            None => faults.push(FieldError::new(
                format!("/networks/{index}"),
                format!(
                    "is {:?}; a network such as 10.1.0.0/16, fd00::/8 or 192.0.2.7 is allowed",
                    clip(text)
                ),
            )),
        }
    }
    Networks(networks)
}

fn read_slugs(slugs: Vec<String>, faults: &mut Vec<FieldError>) -> Vec<String> {
    check_size("/slugs", slugs.len(), limits::KEY_SLUGS, faults);
    for (index, slug) in slugs.iter().enumerate().take(limits::KEY_SLUGS) {
        if !is_slug(slug) {
            faults.push(FieldError::new(
                format!("/slugs/{index}"),
                format!("is {:?}; a slug of a-z, 0-9, - and _ is allowed", clip(slug)),
            ));
        }
    }
    slugs
}

/// Returns when a replaced key ends: after the overlap, and never later than before.
///
/// # Errors
/// If the overlap is negative or longer than [`MOST_OVERLAP_SECONDS`].
pub fn end_of_replaced(
    old_end: Option<DateTime<Utc>>,
    overlap_seconds: Option<i64>,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, FieldError> {
    let seconds = overlap_seconds.unwrap_or(USUAL_OVERLAP_SECONDS);
    if !(0..=MOST_OVERLAP_SECONDS).contains(&seconds) {
        return Err(FieldError::new(
            "/overlap_seconds",
            format!("is {seconds}; 0 to {MOST_OVERLAP_SECONDS} (30 days) is allowed"),
        ));
    }
    let end = now + TimeDelta::seconds(seconds);
    Ok(old_end.map_or(end, |old| old.min(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn read(asked: AskedLimits, scope: Scope) -> (KeyLimits, Vec<String>) {
        let mut faults = Vec::new();
        let limits = asked.read(scope, at("2026-07-01T00:00:00Z"), &mut faults);
        (limits, faults.into_iter().map(|fault| fault.pointer).collect())
    }

    fn texts(texts: &[&str]) -> Option<Vec<String>> {
        Some(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn a_key_ends_at_its_end_and_not_before() {
        let limits = KeyLimits {
            expires_at: Some(at("2026-07-02T00:00:00Z")),
            ..KeyLimits::default()
        };
        assert_eq!(limits.allow(None, at("2026-07-01T23:59:59.999999Z")), Ok(()));
        assert_eq!(
            limits.allow(None, at("2026-07-02T00:00:00Z")),
            Err(KeyFault::Expired)
        );
        assert!(!limits.is_none() && KeyLimits::default().is_none());
    }

    #[test]
    fn only_the_allowed_networks_use_a_key() {
        let asked = AskedLimits {
            networks: texts(&["10.1.2.3/16", "192.0.2.7", "fd00::/8", "10.1.0.0/16"]),
            ..AskedLimits::default()
        };
        let (limits, faults) = read(asked, Scope::Write);
        assert!(faults.is_empty(), "{faults:?}");
        let networks = limits.networks.clone().unwrap();
        assert_eq!(networks.texts(), ["10.1.0.0/16", "192.0.2.7/32", "fd00::/8"]);
        assert_eq!(Networks::of_stored(&networks.texts()), networks);
        let now = at("2026-07-01T00:00:00Z");
        for (address, allowed) in [
            (Some("10.1.255.255"), true),
            (Some("::ffff:10.1.2.3"), true),
            (Some("10.2.0.0"), false),
            (Some("192.0.2.7"), true),
            (Some("192.0.2.8"), false),
            (Some("fd12::1"), true),
            (Some("2001:db8::1"), false),
            (None, false),
        ] {
            let address = address.map(|text| text.parse().unwrap());
            let wanted = if allowed { Ok(()) } else { Err(KeyFault::Network) };
            assert_eq!(limits.allow(address, now), wanted, "{address:?}");
        }
    }

    #[test]
    fn a_stored_network_that_cannot_be_read_opens_nothing() {
        let limits = KeyLimits {
            networks: Some(Networks::of_stored(&["all".to_owned()])),
            ..KeyLimits::default()
        };
        let address = Some("10.0.0.1".parse().unwrap());
        assert_eq!(
            limits.allow(address, at("2026-07-01T00:00:00Z")),
            Err(KeyFault::Network)
        );
    }

    #[test]
    fn a_slug_or_a_tag_is_enough() {
        let limits = KeyLimits {
            slugs: vec!["backup".to_owned()],
            tags: vec!["shop".to_owned()],
            ..KeyLimits::default()
        };
        let tags = |tag: &str| vec![tag.to_owned()];
        assert!(limits.covers("backup", &[]) && limits.covers("other", &tags("shop")));
        assert!(!limits.covers("other", &tags("pay")) && !limits.covers("backup-2", &[]));
        assert!(KeyLimits::default().covers("other", &[]));
    }

    #[test]
    fn bad_limits_are_refused_at_their_place() {
        for (asked, scope, pointer) in [
            (
                AskedLimits {
                    expires_at: Some(at("2026-07-01T00:00:00Z")),
                    ..AskedLimits::default()
                },
                Scope::Read,
                "/expires_at",
            ),
            (
                AskedLimits {
                    networks: texts(&[]),
                    ..AskedLimits::default()
                },
                Scope::Read,
                "/networks",
            ),
            (
                AskedLimits {
                    networks: texts(&["10.0.0.0/8", "10.0.0.0/33"]),
                    ..AskedLimits::default()
                },
                Scope::Read,
                "/networks/1",
            ),
            (
                AskedLimits {
                    networks: texts(&["::ffff:10.0.0.0/104"]),
                    ..AskedLimits::default()
                },
                Scope::Read,
                "/networks/0",
            ),
            (
                AskedLimits {
                    networks: Some(vec!["10.0.0.1".to_owned(); limits::KEY_NETWORKS + 1]),
                    ..AskedLimits::default()
                },
                Scope::Read,
                "/networks",
            ),
            (
                AskedLimits {
                    slugs: texts(&["Not A Slug"]),
                    ..AskedLimits::default()
                },
                Scope::Ping,
                "/slugs/0",
            ),
            (
                AskedLimits {
                    slugs: texts(&["backup"]),
                    ..AskedLimits::default()
                },
                Scope::Write,
                "/slugs",
            ),
            (
                AskedLimits {
                    tags: texts(&["shop"]),
                    ..AskedLimits::default()
                },
                Scope::Read,
                "/tags",
            ),
            (
                AskedLimits {
                    tags: texts(&[]),
                    ..AskedLimits::default()
                },
                Scope::Ping,
                "/tags",
            ),
        ] {
            let shown = format!("{asked:?}");
            assert_eq!(read(asked, scope).1, [pointer], "{shown}");
        }
    }

    #[test]
    fn a_rotation_never_makes_a_key_live_longer() {
        let now = at("2026-07-01T00:00:00Z");
        assert_eq!(end_of_replaced(None, None, now), Ok(at("2026-07-02T00:00:00Z")));
        assert_eq!(end_of_replaced(None, Some(0), now), Ok(now));
        let soon = at("2026-07-01T01:00:00Z");
        assert_eq!(end_of_replaced(Some(soon), None, now), Ok(soon));
        for bad in [-1, MOST_OVERLAP_SECONDS + 1, i64::MIN, i64::MAX] {
            assert_eq!(
                end_of_replaced(None, Some(bad), now).unwrap_err().pointer,
                "/overlap_seconds"
            );
        }
        assert!(end_of_replaced(None, Some(MOST_OVERLAP_SECONDS), now).is_ok());
    }
}
