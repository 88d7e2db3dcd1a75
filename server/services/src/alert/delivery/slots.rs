//! The attempts under way, and their targets.

use std::collections::HashMap;

use tokio::task::{self, JoinSet};

use super::figures::End;
use super::share::{Busy, Target};

/// The slots of the loop, each taken by an attempt.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) tasks: JoinSet<End>,
    targets: HashMap<task::Id, Target>,
    pub(super) busy: Busy,
}

impl Slots {
    /// Counts an attempt that has begun.
    pub(super) fn add(&mut self, id: task::Id, target: Target) {
        self.busy.add(&target);
        self.targets.insert(id, target);
    }

    /// Waits until an attempt has ended, and removes all that have ended meanwhile. Waits forever if none is under
    /// way. Each attempt records its own result; only a bug of ours, such as a panic, comes here.
    pub(super) async fn ended(&mut self) {
        let Some(first) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let mut next = Some(first);
        while let Some(ended) = next {
            let id = match ended {
                Ok((id, _)) => id,
                Err(error) => {
                    tracing::error!(%error, "a delivery was dropped; it is tried again after its lease ends");
                    error.id()
                }
            };
            if let Some(target) = self.targets.remove(&id) {
                self.busy.remove(&target);
            }
            next = self.tasks.try_join_next_with_id();
        }
    }
}
