//! Judges a run that was sent and that no worker has received, although workers received later runs of its entry.

use chrono::{DateTime, Utc};

use super::{Blame, Evidence};
use crate::celery::blame::view::StageView;
use crate::incident::cause::Cause;

/// This many gaps among an entry's runs, with begun runs in between, mean that a worker that does not report executes
/// some of them, for example a worker without the SDK.
const FOREIGN_GAPS: usize = 3;

/// One of the newest runs of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentRun {
    /// When it was sent.
    pub published_at: DateTime<Utc>,
    /// True if a worker has reported anything about it.
    pub has_begun: bool,
}

impl Evidence {
    /// True if the message of this run is lost: later runs of its entry began, and the message is neither in its queue
    /// nor with a worker. `recent`: the newest runs of the entry, in the order of their sending.
    ///
    /// Messages of one queue may overtake each other (priorities, several workers), so a later run alone proves
    /// nothing.
    #[must_use]
    pub fn is_lost_before_it_began(&self, run: &StageView, recent: &[SentRun], now: DateTime<Utc>) -> bool {
        let Some(sent_at) = run.published_at else {
            return false;
        };
        let is_overtaken = recent
            .iter()
            .any(|other| other.has_begun && other.published_at > sent_at);
        let gaps = recent
            .windows(2)
            .filter(|pair| !pair[0].has_begun && pair[1].has_begun);
        is_overtaken
            && gaps.count() < FOREIGN_GAPS
            && self.of_broker(now).is_none()
            && self.of_sent(run, sent_at, now) == Blame::Own(Cause::LostInBroker)
            && self.starved(Cause::LostInBroker, run, now) == Cause::LostInBroker
    }
}
