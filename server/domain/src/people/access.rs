//! Who asks for something, and in which project.

use crate::ids::{AccountId, ApiKeyId, ProjectId};
use crate::people::key::Scope;
use crate::people::permission::{Action, Refusal, allows};
use crate::people::role::Role;

/// Who acts, with what limits the actor in the project.
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

/// An actor in one project: what services take in place of a bare [`ProjectId`] wherever a person or a key can reach them.
///
/// The project's id comes out of [`Access::may`] only. So a use case that forgets to ask whether its caller may has no id to work with,
/// whichever dialect (API, pages) called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    project: ProjectId,
    actor: Actor,
}

impl Access {
    /// An actor in a project. Call it only where the actor's role or scope in that project has just been read.
    #[must_use]
    pub fn new(project: ProjectId, actor: Actor) -> Self {
        Self { project, actor }
    }

    /// Who acts.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// The project in which the actor may do this.
    ///
    /// # Errors
    /// The actor's role or scope does not allow it (docs/permissions.md).
    pub fn may(&self, action: Action) -> Result<ProjectId, Refusal> {
        allows(self, action).map(|()| self.project)
    }
}
