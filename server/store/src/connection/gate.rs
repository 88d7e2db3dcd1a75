//! A gate in front of the database: no statement passes until the schema is up to date.
//!
//! A server receives requests from the moment it starts. Until the schema fits its statements, the database counts as
//! away: pings go to the spool, and pages ask the reader to try again.

use std::sync::Arc;

use tokio::sync::watch;

/// A gate for statements: open or shut. Clones share one gate. The default is open.
#[derive(Debug, Clone)]
pub struct Gate {
    stage: Arc<watch::Sender<StartPhase>>,
}

/// How far a server has come with its database since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPhase {
    /// The server has not reached the database yet.
    NotReached,
    /// The server has reached the database and is applying migrations.
    Migrating,
    /// The schema is up to date.
    Open,
}

impl Default for Gate {
    fn default() -> Self {
        Self::at(StartPhase::Open)
    }
}

impl Gate {
    fn at(stage: StartPhase) -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(stage)),
        }
    }

    /// Returns a gate that stays shut until [`Gate::set`] opens it.
    #[must_use]
    pub fn shut() -> Self {
        Self::at(StartPhase::NotReached)
    }

    /// Sets how far the server has come. [`StartPhase::Open`] lets statements pass.
    pub fn set(&self, stage: StartPhase) {
        self.stage.send_replace(stage);
    }

    /// Returns how far the server has come with its database.
    #[must_use]
    pub fn stage(&self) -> StartPhase {
        *self.stage.borrow()
    }

    /// Waits until the gate is open.
    pub async fn opened(&self) {
        // This gate itself holds the sender, so waiting cannot fail.
        let _ = self
            .stage
            .subscribe()
            .wait_for(|stage| *stage == StartPhase::Open)
            .await;
    }

    /// Fails while the gate is shut, with the error of an unreachable database.
    pub(crate) fn pass(&self) -> sqlx::Result<()> {
        match self.stage().reason() {
            None => Ok(()),
            Some(reason) => Err(std::io::Error::new(std::io::ErrorKind::NotConnected, reason).into()),
        }
    }
}

impl StartPhase {
    /// Returns why the database cannot be used yet. None: the gate is open.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::NotReached => Some("this server has not reached its database since it started"),
            Self::Migrating => Some("the database's schema is being brought up to date"),
            Self::Open => None,
        }
    }
}
