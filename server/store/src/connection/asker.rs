//! For whom statements are made, so that the connections of requests are shared fairly.
//!
//! A request is asked for by its address until its key or its session says whose it is. The asker is of the task that works on the
//! request: whatever it does, each connection that it takes is one of its asker's turns, and it holds none while it reads a body.

use std::cell::Cell;
use std::net::IpAddr;

use deadbeat_domain::ids::{AccountId, ProjectId};

/// Who has asked for what is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Somebody who is not known yet, at this address or in this /64.
    Address(IpAddr),
    /// Who is signed in.
    Account(AccountId),
    /// Who has a key of this project.
    Project(ProjectId),
}

tokio::task_local! {
    /// None: nobody.
    static ASKER: Cell<Option<Asker>>;
}

impl Asker {
    /// Does work on behalf of this asker.
    pub async fn asks<F: Future>(self, work: F) -> F::Output {
        ASKER.scope(Cell::new(Some(self)), work).await
    }

    /// From now on the current work is done on behalf of this asker. Work that nobody asked for stays so.
    pub fn takes_over(self) {
        let _ = ASKER.try_with(|asker| asker.set(Some(self)));
    }

    /// Who asked for the current work. None: the server itself did.
    #[must_use]
    pub fn of_current_work() -> Option<Self> {
        ASKER.try_with(Cell::get).ok().flatten()
    }
}

/// Does work that is for all, whoever asked for it first.
pub async fn for_all<F: Future>(work: F) -> F::Output {
    ASKER.scope(Cell::new(None), work).await
}
