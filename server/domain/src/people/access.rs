//! The actor of a request, in one project.

use std::net::IpAddr;

use crate::ids::{AccountId, ApiKeyId, ProjectId};
use crate::people::key::Scope;
use crate::people::permission::{Action, Refusal, allows};
use crate::people::role::Role;

/// An actor, with the role or scope that limits it in the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A person who is signed in.
    Account {
        /// Which account.
        id: AccountId,
        /// Its role in the project.
        role: Role,
    },
    /// A program with an API key of the project.
    Key {
        /// Which key.
        id: ApiKeyId,
        /// The key's scope.
        scope: Scope,
    },
    /// The operator, by a command on the server's machine. No role limits the operator.
    Operator,
    /// Deadbeat itself. Nothing limits it.
    System,
}

/// An actor in one project. Every use case that a person or a key can call takes it in place of a bare [`ProjectId`].
///
/// Only [`Access::may`] returns the project's id. So a use case that forgets to check the permission has no id to work
/// with, whether the API or a page called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    project: ProjectId,
    actor: Actor,
    address: Option<IpAddr>,
}

impl Access {
    /// An actor in a project. The caller must just have read the actor's role or scope in that project.
    #[must_use]
    pub fn new(project: ProjectId, actor: Actor) -> Self {
        Self {
            project,
            actor,
            address: None,
        }
    }

    /// The same access, for a request from this address. The audit trail names it.
    #[must_use]
    pub fn from(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    /// The address from which the actor's request came. None: not over the network.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Who acts.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// Returns the project's id if the actor may do this.
    ///
    /// # Errors
    /// The actor's role or scope does not allow it (docs/permissions.md).
    pub fn may(&self, action: Action) -> Result<ProjectId, Refusal> {
        allows(self, action).map(|()| self.project)
    }
}
