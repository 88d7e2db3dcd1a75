//! A gate in front of the database: no statement passes until the schema is up to date.
//!
//! A server receives requests from its first moment on. Until the schema fits its statements, the database counts as
//! away: pings go to the spool, and pages say "try again".

use std::sync::Arc;

use tokio::sync::watch;

/// Whether statements may pass. Clones share one gate. The default is open.
#[derive(Debug, Clone)]
pub struct Gate {
    stage: Arc<watch::Sender<Stage>>,
}

/// How far a server has come with its database since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The database was not reached yet.
    NotReached,
    /// The database was reached, and the schema is being brought up to date.
    Migrating,
    /// The schema is up to date.
    Open,
}

impl Default for Gate {
    fn default() -> Self {
        Self::at(Stage::Open)
    }
}

impl Gate {
    fn at(stage: Stage) -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(stage)),
        }
    }

    /// A gate that stays shut until [`Gate::set`] opens it.
    #[must_use]
    pub fn shut() -> Self {
        Self::at(Stage::NotReached)
    }

    /// Sets how far the server has come. [`Stage::Open`] lets statements pass.
    pub fn set(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// How far the server has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Returns when the gate is open.
    pub async fn opened(&self) {
        // This gate itself holds the sender, so waiting cannot fail.
        let _ = self
            .stage
            .subscribe()
            .wait_for(|stage| *stage == Stage::Open)
            .await;
    }

    /// While the gate is shut, fails as an unreachable database does.
    pub(crate) fn pass(&self) -> sqlx::Result<()> {
        match self.stage().reason() {
            None => Ok(()),
            Some(reason) => Err(std::io::Error::new(std::io::ErrorKind::NotConnected, reason).into()),
        }
    }
}

impl Stage {
    /// Why the database cannot be used yet. None: it can.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::NotReached => Some("this server has not reached its database since it started"),
            Self::Migrating => Some("the database's schema is being brought up to date"),
            Self::Open => None,
        }
    }
}
