//! A worker that lives and gets too little of its CPU to say so regularly.

use chrono::{DateTime, Utc};

use super::{Blame, NEXT_LOOK, WorkerView, wait_for};

impl WorkerView {
    /// Until when its next word is waited for, for a run that it may have since then. None: no longer.
    ///
    /// A worker that starves speaks now and then, and each word moves its deadline on. So what it may have is waited for as long as it may
    /// be silent at all, and then judged although the worker lives.
    pub(super) fn awaited(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> Option<Blame> {
        let deadline = self.deadline_at?;
        let patience = self.last_seen_at.map(|seen| deadline - seen);
        let is_over = patience.is_some_and(|patience| now >= since + patience + NEXT_LOOK);
        if self.is_heard_since(since) && is_over {
            return None;
        }
        wait_for(deadline, now)
    }
}
