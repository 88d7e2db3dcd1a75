//! The asker of a statement, so that askers share the connections of requests fairly.
//!
//! A request's asker is its address until its key or its session tells the account or project. The asker belongs to the
//! task that works on the request. Each connection that the task takes is one of its asker's turns. It holds none while
//! it reads a body.

use std::cell::Cell;
use std::net::IpAddr;

use deadbeat_domain::ids::{AccountId, ProjectId};

/// For whom the current work is done.
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
    /// None: the work has no asker.
    static ASKER: Cell<Option<Asker>>;
}

impl Asker {
    /// Runs `work` for this asker.
    pub async fn asks<F: Future>(self, work: F) -> F::Output {
        ASKER.scope(Cell::new(Some(self)), work).await
    }

    /// From now on the current work counts for this asker. Work without an asker stays so.
    pub fn takes_over(self) {
        let _ = ASKER.try_with(|asker| asker.set(Some(self)));
    }

    /// The asker of the current work. None: the server itself does it.
    #[must_use]
    pub fn of_current_work() -> Option<Self> {
        ASKER.try_with(Cell::get).ok().flatten()
    }
}

/// Runs `work` that serves all askers, whoever asked for it first.
pub async fn for_all<F: Future>(work: F) -> F::Output {
    ASKER.scope(Cell::new(None), work).await
}
