//! The attempts under way: how many, to whom, and who has got room.

use std::collections::{HashMap, HashSet};

use deadbeat_domain::ids::ChannelId;
use tokio::task::{self, JoinSet};

use super::figures::End;

/// The attempts under way, and to whom.
pub(super) struct Slots {
    concurrency: usize,
    pub(super) per_channel: usize,
    pub(super) tasks: JoinSet<End>,
    pub(super) channels: HashMap<task::Id, ChannelId>,
    /// How many are under way to each.
    pub(super) busy: HashMap<ChannelId, usize>,
    /// Channels of which one has ended since the last claim.
    pub(super) freed: HashSet<ChannelId>,
}

impl Slots {
    pub(super) fn new(concurrency: usize, per_channel: usize) -> Self {
        Self {
            concurrency: concurrency.max(1),
            per_channel: per_channel.max(1),
            tasks: JoinSet::new(),
            channels: HashMap::new(),
            busy: HashMap::new(),
            freed: HashSet::new(),
        }
    }

    pub(super) fn free(&self) -> usize {
        self.concurrency.saturating_sub(self.tasks.len())
    }

    pub(super) fn busy(&self) -> Vec<(ChannelId, usize)> {
        self.busy
            .iter()
            .map(|(channel, count)| (*channel, *count))
            .collect()
    }

    /// Channels that have got room, and how much of `limit` each may take.
    pub(super) fn freed(&self, limit: usize) -> Vec<(ChannelId, usize)> {
        let mut left = limit;
        let mut rooms = Vec::new();
        for channel in &self.freed {
            let under_way = self.busy.get(channel).copied().unwrap_or_default();
            let room = self.per_channel.saturating_sub(under_way).min(left);
            if room > 0 {
                left -= room;
                rooms.push((*channel, room));
            }
        }
        rooms
    }

    /// Waits until one has ended (for ever, when none is under way), and takes along what else has ended meanwhile. What became of a
    /// delivery is recorded where it ends; only a fault of ours comes here.
    pub(super) async fn ended(&mut self) {
        let Some(first) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let mut next = Some(first);
        while let Some(ended) = next {
            let id = match ended {
                Ok((id, _)) => id,
                Err(error) => {
                    tracing::error!(%error, "a delivery was dropped; it is done again when its lease ends");
                    error.id()
                }
            };
            if let Some(channel) = self.channels.remove(&id) {
                if let Some(count) = self.busy.get_mut(&channel) {
                    *count -= 1;
                    if *count == 0 {
                        self.busy.remove(&channel);
                    }
                }
                self.freed.insert(channel);
            }
            next = self.tasks.try_join_next_with_id();
        }
    }
}
