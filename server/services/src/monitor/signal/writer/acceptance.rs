//! Finds the monitors to which signals belong: by the database, or without it.

use std::collections::HashMap;
use std::net::IpAddr;

use chrono::TimeDelta;
use deadbeat_domain::ids::MonitorId;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::key_limit::KeyFault;
use deadbeat_store::monitor::Resolved;
use deadbeat_store::{StoreResult, Tx};

use super::commit::Committer;
use crate::monitor::signal::incoming::{Address, Incoming};
use crate::monitor::signal::registry::Existence;

/// The most addresses by key and slug that are remembered as existing.
const MOST_SLUGS: usize = 200_000;

pub(super) struct Target {
    /// The access of the ping key that came with the slug.
    pub(super) access: Option<Access>,
    pub(super) monitor: Option<MonitorId>,
    /// Why the key may not send this signal.
    pub(super) fault: Option<KeyFault>,
}

/// Returns why a key may not send a signal. The signal counts at the instant at which it arrived, so a spooled signal outlives its key.
fn fault(resolved: &Resolved, one: &Incoming, slug: &str) -> Option<KeyFault> {
    let limits = resolved.limits.as_ref()?;
    let address = one
        .remote_addr
        .as_deref()
        .and_then(|text| text.parse::<IpAddr>().ok());
    if let Err(fault) = limits.allow(address, one.signal.received_at) {
        return Some(fault);
    }
    // A monitor that does not exist has no tags. Whoever creates it checks its tags.
    let is_covered = resolved.monitor_id.is_none() || limits.covers(slug, &resolved.tags);
    (!is_covered).then_some(KeyFault::Part)
}

impl Committer {
    /// Returns whether the monitor of an address exists, as far as the server knows without the database.
    pub(super) fn may_accept(&self, address: &Address) -> Existence {
        match address {
            Address::Ping(id) => self.registry.knows(*id),
            Address::Slug { digest, slug } => {
                if self.slugs.contains(&(digest.clone(), slug.clone())) {
                    Existence::Yes
                } else {
                    Existence::Perhaps
                }
            }
        }
    }

    /// Finds the monitors by key and slug, and notes the use of the keys.
    pub(super) async fn resolve(&mut self, tx: &mut Tx, incoming: &[&Incoming]) -> StoreResult<Vec<Target>> {
        let mut targets: Vec<Target> = incoming
            .iter()
            .map(|_| Target {
                access: None,
                monitor: None,
                fault: None,
            })
            .collect();
        let asked: Vec<(usize, &Vec<u8>, &String)> = incoming
            .iter()
            .enumerate()
            .filter_map(|(index, one)| match &one.address {
                Address::Slug { digest, slug } => Some((index, digest, slug)),
                Address::Ping(_) => None,
            })
            .collect();
        if asked.is_empty() {
            return Ok(targets);
        }
        let digests: Vec<Vec<u8>> = asked.iter().map(|(_, digest, _)| (*digest).clone()).collect();
        let slugs: Vec<String> = asked.iter().map(|(_, _, slug)| (*slug).clone()).collect();
        let now = self.clock.now();
        let mut used: HashMap<&Vec<u8>, Option<String>> = HashMap::new();
        for resolved in deadbeat_store::monitor::resolve_slugs(tx, &digests, &slugs).await? {
            let Some((index, digest, slug)) = asked.get(resolved.index) else {
                continue;
            };
            let fault = fault(&resolved, incoming[*index], slug);
            if let Some(fault) = fault {
                targets[*index] = Target {
                    access: None,
                    monitor: None,
                    fault: Some(fault),
                };
                continue;
            }
            // The cache serves while the database is away, and does not know limits.
            if resolved.monitor_id.is_some() && resolved.limits.is_none() {
                if self.slugs.len() >= MOST_SLUGS {
                    self.slugs.clear();
                }
                self.slugs.insert(((*digest).clone(), (*slug).clone()));
            }
            targets[*index] = Target {
                access: Some(resolved.access),
                monitor: resolved.monitor_id,
                fault: None,
            };
            if self
                .touched
                .get(*digest)
                .is_none_or(|at| now - *at >= TimeDelta::minutes(1))
            {
                used.insert(*digest, incoming[*index].remote_addr.clone());
            }
        }
        if !used.is_empty() {
            let mut used: Vec<_> = used.into_iter().collect();
            used.sort();
            let (used, addresses): (Vec<Vec<u8>>, Vec<Option<String>>) = used
                .into_iter()
                .map(|(digest, address)| (digest.clone(), address))
                .unzip();
            deadbeat_store::people::api_key::touch(tx, &used, &addresses, now).await?;
            // This also counts keys whose rows were locked, because the transaction with the lock notes the same use. Only valid keys get here, but a
            // project may have many.
            if self.touched.len() > 10_000 {
                self.touched.clear();
            }
            self.touched.extend(used.into_iter().map(|digest| (digest, now)));
        }
        Ok(targets)
    }
}
