//! Fair shares of the free slots between projects, channels and hosts.
//!
//! A free slot goes to the project with the fewest attempts under way. Among equal projects, it goes to the one that
//! has waited longest. Within a project, the channels take turns. Limits bound the slots of one channel, one project
//! and one host. Some slots are reserved for projects with hardly any attempt under way. So a project whose endpoints
//! all hang delays only itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::ids::{ChannelId, ProjectId};
use deadbeat_store::alert::claim::{DueChannel, Share};

use super::{DeliverySettings, senders};

/// A project with fewer attempts under way than this may use the reserved slots, and ignores the limits of hosts.
const NEWCOMER: usize = 2;

/// The project, channel and host whose limits an attempt counts against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) project: ProjectId,
    pub(super) channel: ChannelId,
    /// See [`senders::Kind::host`].
    pub(super) host: String,
}

impl Target {
    /// Makes a target. The kind of channel finds the host in the settings; the host is empty if they cannot be read.
    /// Masked settings suffice, so no secret is opened.
    pub(super) fn new(project: ProjectId, channel: ChannelId, settings: Option<&Settings>) -> Self {
        let host = settings
            .and_then(|settings| senders::kind(settings.kind())?.host(&settings.masked()))
            .unwrap_or_default();
        Self {
            project,
            channel,
            host,
        }
    }
}

/// Number of attempts under way: in total, and per channel, project and host.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy {
    total: usize,
    channels: HashMap<ChannelId, usize>,
    projects: HashMap<ProjectId, usize>,
    hosts: HashMap<String, usize>,
}

impl Busy {
    pub(super) fn add(&mut self, target: &Target) {
        self.total += 1;
        *self.channels.entry(target.channel).or_default() += 1;
        *self.projects.entry(target.project).or_default() += 1;
        *self.hosts.entry(target.host.clone()).or_default() += 1;
    }

    pub(super) fn remove(&mut self, target: &Target) {
        self.total = self.total.saturating_sub(1);
        less(&mut self.channels, &target.channel);
        less(&mut self.projects, &target.project);
        less(&mut self.hosts, &target.host);
    }

    /// Returns the projects that use all slots that one project may use.
    pub(super) fn full(&self, limits: &DeliverySettings) -> Vec<ProjectId> {
        self.projects
            .iter()
            .filter(|(_, count)| **count >= limits.per_project)
            .map(|(project, _)| *project)
            .collect()
    }

    fn of<K: Eq + Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
        counts.get(key).copied().unwrap_or_default()
    }

    /// True if the project may start an attempt, as far as its own limit and the reserved slots allow.
    fn has_room_for_project(&self, project: ProjectId, limits: &DeliverySettings) -> bool {
        let under_way = Self::of(&self.projects, &project);
        let free = limits.concurrency.saturating_sub(self.total);
        under_way < limits.per_project && (under_way < NEWCOMER || free > limits.reserved)
    }

    /// True if the limits of the channel and the host of `target` allow another attempt.
    fn has_room_for(&self, target: &Target, limits: &DeliverySettings) -> bool {
        let is_newcomer = Self::of(&self.projects, &target.project) < NEWCOMER;
        Self::of(&self.channels, &target.channel) < limits.per_channel
            && (is_newcomer || Self::of(&self.hosts, &target.host) < limits.per_host)
    }
}

fn less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// A channel that waits for a slot.
#[derive(Debug, Clone)]
pub(super) struct WaitingChannel {
    pub(super) target: Target,
    pub(super) since: DateTime<Utc>,
}

impl WaitingChannel {
    pub(super) fn of(due: &DueChannel) -> Self {
        Self {
            target: Target::new(due.project_id, due.channel_id, due.settings.as_ref()),
            since: due.due_since,
        }
    }
}

/// Shares at most `places` slots between the waiting channels, beside the attempts `under_way`.
pub(super) fn share(
    waiting: &[WaitingChannel],
    under_way: &Busy,
    limits: &DeliverySettings,
    places: usize,
) -> Vec<Share> {
    let mut busy = under_way.clone();
    let mut of_project: HashMap<ProjectId, VecDeque<&WaitingChannel>> = HashMap::new();
    let mut oldest_first: Vec<&WaitingChannel> = waiting.iter().collect();
    oldest_first.sort_by_key(|one| (one.since, one.target.channel));
    for one in oldest_first {
        of_project.entry(one.target.project).or_default().push_back(one);
    }
    // On top: the project with the fewest attempts under way; among equals, the one whose oldest delivery has waited
    // longest.
    let mut turns: BinaryHeap<Reverse<(usize, DateTime<Utc>, ProjectId)>> = of_project
        .iter()
        .filter_map(|(project, channels)| {
            let since = channels.front()?.since;
            Some(Reverse((Busy::of(&busy.projects, project), since, *project)))
        })
        .collect();
    let mut given: BTreeMap<ChannelId, Share> = BTreeMap::new();
    let mut left = places.min(limits.concurrency.saturating_sub(busy.total));
    while left > 0 {
        let Some(Reverse((_, since, project))) = turns.pop() else {
            break;
        };
        if !busy.has_room_for_project(project, limits) {
            continue;
        }
        let Some(channels) = of_project.get_mut(&project) else {
            continue;
        };
        let found = channels
            .iter()
            .position(|one| busy.has_room_for(&one.target, limits));
        let Some(one) = found.and_then(|place| channels.remove(place)) else {
            continue;
        };
        channels.push_back(one);
        busy.add(&one.target);
        left -= 1;
        given
            .entry(one.target.channel)
            .or_insert(Share {
                project_id: project,
                channel_id: one.target.channel,
                count: 0,
            })
            .count += 1;
        turns.push(Reverse((Busy::of(&busy.projects, &project), since, project)));
    }
    given.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    use crate::alert::delivery::senders::webhook::WebhookSettings;

    fn limits() -> DeliverySettings {
        DeliverySettings {
            concurrency: 64,
            per_channel: 4,
            per_project: 16,
            per_host: 24,
            reserved: 16,
            ..DeliverySettings::default()
        }
    }

    fn waiting(project: u128, channel: u128, host: &str, since: i64) -> WaitingChannel {
        let settings = Settings::from(WebhookSettings {
            url: format!("https://{host}/hook"),
        });
        WaitingChannel {
            target: Target::new(
                ProjectId(Uuid::from_u128(project)),
                ChannelId(Uuid::from_u128(channel)),
                Some(&settings),
            ),
            since: DateTime::from_timestamp(since, 0).unwrap(),
        }
    }

    /// So many places each project gets.
    fn by_project(shares: &[Share]) -> BTreeMap<u128, i64> {
        let mut counts = BTreeMap::new();
        for share in shares {
            *counts.entry(share.project_id.0.as_u128()).or_default() += share.count;
        }
        counts
    }

    /// Gives places until nobody gets any more, and lets every attempt hang.
    fn hang(waiting: &[WaitingChannel], busy: &mut Busy, limits: &DeliverySettings) {
        loop {
            let shares = share(waiting, busy, limits, 8);
            if shares.is_empty() {
                return;
            }
            for one in &shares {
                let target = &waiting
                    .iter()
                    .find(|waiting| waiting.target.channel == one.channel_id)
                    .unwrap()
                    .target;
                (0..one.count).for_each(|_| busy.add(target));
            }
        }
    }

    #[test]
    fn a_project_with_many_channels_holds_its_share_and_its_channels_take_turns() {
        let all: Vec<_> = (0..200).map(|n| waiting(1, n, &format!("h{n}"), 0)).collect();

        let shares = share(&all, &Busy::default(), &limits(), 64);

        assert_eq!(by_project(&shares), BTreeMap::from([(1, 16)]));
        assert!(shares.iter().all(|share| share.count == 1), "{shares:?}");
        let one = [waiting(1, 1, "h", 0)];
        assert_eq!(
            share(&one, &Busy::default(), &limits(), 64)[0].count,
            4,
            "a channel's share"
        );
    }

    #[test]
    fn whoever_has_less_under_way_comes_first_however_long_others_wait() {
        let mut busy = Busy::default();
        (0..10).for_each(|n| busy.add(&waiting(1, n, &format!("h{n}"), 0).target));
        let all = [waiting(1, 50, "h50", 0), waiting(2, 60, "h60", 1_000)];

        let shares = share(&all, &busy, &limits(), 1);

        assert_eq!(by_project(&shares), BTreeMap::from([(2, 1)]));
    }

    #[test]
    fn the_last_places_are_kept_for_projects_with_hardly_anything_under_way() {
        let mut busy = Busy::default();
        let hogs: Vec<_> = (0..2_000)
            .map(|n| waiting(1 + n / 200, 100_000 + n, &format!("h{n}"), 0))
            .collect();
        hang(&hogs, &mut busy, &limits());
        let newcomer = [waiting(999, 999, "new", 1_000)];

        assert_eq!(busy.total, 64 - 16);
        assert_eq!(by_project(&share(&newcomer, &busy, &limits(), 64)).len(), 1);
    }

    #[test]
    fn a_host_that_hangs_holds_its_share_but_lets_a_newcomer_in() {
        let mut busy = Busy::default();
        let hogs: Vec<_> = (0..200).map(|n| waiting(1 + n % 2, n, "slow", 0)).collect();
        hang(&hogs, &mut busy, &limits());

        assert_eq!(busy.total, 24);
        assert_eq!(
            by_project(&share(&[waiting(3, 900, "slow", 0)], &busy, &limits(), 64)),
            BTreeMap::from([(3, 2)])
        );
    }

    #[test]
    fn what_ends_gives_its_place_back() {
        let mut busy = Busy::default();
        let target = waiting(1, 1, "h", 0).target;
        (0..4).for_each(|_| busy.add(&target));
        assert!(share(&[waiting(1, 1, "h", 0)], &busy, &limits(), 64).is_empty());

        busy.remove(&target);

        assert_eq!(share(&[waiting(1, 1, "h", 0)], &busy, &limits(), 64)[0].count, 1);
        (0..3).for_each(|_| busy.remove(&target));
        assert_eq!((busy.total, busy.hosts.len(), busy.projects.len()), (0, 0, 0));
    }
}
