//! Claims of deliveries: takes fair shares of the due deliveries, and puts aside rows that cannot be read.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::TimeDelta;
use deadbeat_domain::ids::ChannelId;
use deadbeat_store::alert::claim::{self, Claimed, Place, Share};
use deadbeat_store::{StoreError, StoreResult, Tx};

use super::share::{Busy, Target, WaitingChannel, share};
use super::{Delivery, DeliverySettings, Held, senders};
use crate::alert::sealing::{self, Opened};

/// Number of channels that one query reads at most. The next query goes on from there.
const STEPS: i32 = 1_000;
/// Pause before a retry: the rollback of an unreadable claim releases its rows a moment after the drop.
const ROLLBACK_WAIT: Duration = Duration::from_millis(20);
const ROLLBACK_WAITS: u32 = 50;

impl Delivery {
    /// Claims up to `places` due deliveries, beside the attempts `under_way`. Reads the channels after `position`,
    /// goes round once, and sets `position` to where the next call starts. Empty: nothing can be claimed now.
    pub(super) async fn claim(
        &self,
        under_way: &Busy,
        limits: &DeliverySettings,
        places: usize,
        position: &mut Place,
    ) -> StoreResult<Vec<Held>> {
        let reader = self.store.reader();
        let mut busy = under_way.clone();
        let mut claimed: Vec<Held> = Vec::new();
        // Number of queries that reached the last channel. After the second one, the channels before the start have
        // been read too.
        let mut ends = 0;
        while claimed.len() < places && ends < 2 {
            let left = places - claimed.len();
            let began = *position;
            // Read twice as many as there are slots: another process may have some, and others wait for an earlier
            // alert.
            let enough = i32::try_from(left.saturating_mul(2)).unwrap_or(i32::MAX);
            let full = busy.full(limits);
            let due = claim::due_channels(&reader, self.clock.now(), began, &full, STEPS, enough).await;
            let steps = match due {
                Ok(steps) => steps,
                // Keep the deliveries that are already claimed.
                Err(_) if !claimed.is_empty() => break,
                Err(error) => return Err(error),
            };
            *position = steps.next.unwrap_or(claim::START);
            if steps.next.is_none() {
                ends += if began == claim::START { 2 } else { 1 };
            }
            let mut waiting: Vec<WaitingChannel> = steps.channels.iter().map(WaitingChannel::of).collect();
            loop {
                let shares = share(&waiting, &busy, limits, places - claimed.len());
                if shares.is_empty() {
                    break;
                }
                let found = match self.claim_shares(&shares).await {
                    Ok(found) => found,
                    Err(_) if !claimed.is_empty() => return Ok(claimed),
                    Err(error) => return Err(error),
                };
                let mut taken: HashMap<ChannelId, i64> = HashMap::new();
                for held in &found {
                    let row = &held.row;
                    busy.add(&Target::new(row.project_id, row.channel_id, Some(&row.settings)));
                    *taken.entry(row.channel_id).or_default() += 1;
                }
                claimed.extend(found);
                // A channel that gave fewer deliveries than its share has no more that can be claimed. So each round
                // fills slots or drops channels, and the rounds end.
                waiting.retain(|one| {
                    let channel = one.target.channel;
                    let asked = shares.iter().find(|share| share.channel_id == channel);
                    asked.is_none_or(|share| taken.get(&channel) == Some(&share.count))
                });
            }
        }
        Ok(claimed)
    }

    async fn claim_shares(&self, shares: &[Share]) -> StoreResult<Vec<Held>> {
        let mut tx = self.store.begin().await?;
        match self.claim_in(&mut tx, shares).await {
            Ok(held) => {
                tx.commit().await?;
                Ok(held)
            }
            Err(StoreError::Corrupt(_)) => {
                drop(tx);
                self.claim_one_by_one(shares).await
            }
            Err(error) => Err(error),
        }
    }

    async fn claim_in(&self, tx: &mut Tx, shares: &[Share]) -> StoreResult<Vec<Held>> {
        let claimed_at = self.clock.now();
        let lease_until = claimed_at + TimeDelta::from_std(self.settings.lease).unwrap_or(TimeDelta::MAX);
        let rows = claim::claim(tx, claimed_at, lease_until, shares).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let opened = sealing::open(&self.ring, &row);
                self.can_read(&row, opened.as_ref().ok()).then_some(Held {
                    row,
                    opened,
                    claimed_at,
                    lease_until,
                })
            })
            .collect())
    }

    /// True if this server knows the kind of the channel and can read its settings. If not, the delivery is put aside
    /// until its lease ends. Then a server of a later version may take it.
    fn can_read(&self, row: &Claimed, opened: Option<&Opened>) -> bool {
        let kind = row.settings.kind();
        let is_known = senders::kind(kind)
            .is_some_and(|kind| opened.is_none_or(|opened| kind.check(&opened.settings).is_ok()));
        if !is_known {
            self.figures.put_aside.fetch_add(1, Ordering::Relaxed);
            tracing::error!(delivery.id = %row.id, channel.id = %row.channel_id, kind, "the settings of a channel cannot be read; its delivery is put aside until the lease ends");
        }
        is_known
    }

    /// Claims deliveries one at a time, because one unreadable row makes a whole claim unreadable. The readable
    /// deliveries are returned. The unreadable one is put aside until its lease ends.
    async fn claim_one_by_one(&self, shares: &[Share]) -> StoreResult<Vec<Held>> {
        let mut claimed = Vec::new();
        let mut waits = 0;
        let mut has_seen_any = false;
        for share in shares {
            let one = Share { count: 1, ..*share };
            let mut left = share.count;
            while left > 0 {
                match self.claim_one(one).await {
                    Ok(Some(held)) => claimed.push(held),
                    // The failed claim rolls back on its own connection. Until that is done its rows are locked, and
                    // this query skips them.
                    Ok(None) if !has_seen_any && waits < ROLLBACK_WAITS => {
                        waits += 1;
                        tokio::time::sleep(ROLLBACK_WAIT).await;
                        continue;
                    }
                    Ok(None) => break,
                    Err(StoreError::Corrupt(what)) => {
                        self.figures.put_aside.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(what, "a delivery cannot be read; put aside");
                    }
                    // Keep the deliveries that are already claimed.
                    Err(_) if !claimed.is_empty() => return Ok(claimed),
                    Err(error) => return Err(error),
                }
                has_seen_any = true;
                left -= 1;
            }
        }
        Ok(claimed)
    }

    async fn claim_one(&self, share: Share) -> StoreResult<Option<Held>> {
        let mut tx = self.store.begin().await?;
        let found = self.claim_in(&mut tx, &[share]).await;
        if let Ok(_) | Err(StoreError::Corrupt(_)) = &found {
            // Commit for the unreadable row too: its lease puts it aside.
            tx.commit().await?;
        }
        Ok(found?.pop())
    }
}
