//! The asker of a statement, so that askers share the connections of requests fairly.
//!
//! At first, a request's asker is the client's address. When a key or a session identifies the account or project, that
//! becomes the asker. The asker belongs to the task that works on the request. Each connection that the task takes is
//! one of its asker's turns. The task holds no connection while it reads a body.

use std::cell::Cell;
use std::net::IpAddr;

use deadbeat_domain::ids::{AccountId, ProjectId};

/// The asker for whom the current task works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asker {
    /// A client that is not identified yet, at this address or in this /64.
    Address(IpAddr),
    /// A signed-in account.
    Account(AccountId),
    /// The holder of a key of this project.
    Project(ProjectId),
}

tokio::task_local! {
    /// None: the task has no asker.
    static ASKER: Cell<Option<Asker>>;
}

impl Asker {
    /// Runs `work` for this asker.
    pub async fn asks<F: Future>(self, work: F) -> F::Output {
        ASKER.scope(Cell::new(Some(self)), work).await
    }

    /// Makes this the asker of the current task. A task without an asker stays without one.
    pub fn takes_over(self) {
        let _ = ASKER.try_with(|asker| asker.set(Some(self)));
    }

    /// Returns the asker of the current task. None: the server itself does the work.
    #[must_use]
    pub fn of_current_work() -> Option<Self> {
        ASKER.try_with(Cell::get).ok().flatten()
    }
}

/// Runs `work` without an asker, because its result serves all askers.
pub async fn for_all<F: Future>(work: F) -> F::Output {
    ASKER.scope(Cell::new(None), work).await
}
