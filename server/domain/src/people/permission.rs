//! The permissions of each role and each key scope: one table, which docs/permissions.md shows.

use thiserror::Error;

use crate::people::access::{Access, Actor};
use crate::people::key::Scope;
use crate::people::role::Role;

/// Something that needs a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// See what the project has.
    Read,
    /// See the ping URLs of monitors.
    SeePingUrls,
    /// Report, and register what reports.
    Signal,
    /// Change monitors and Beats.
    ChangeMonitors,
    /// Acknowledge incidents.
    Acknowledge,
    /// Change channels.
    ManageChannels,
    /// See, issue and revoke API keys.
    ManageKeys,
    /// Change the project's settings.
    ChangeProject,
    /// See the audit trail.
    ReadAudit,
    /// See the project's figures.
    ReadMetrics,
    /// See who is a member.
    SeeMembers,
    /// Invite people, change the roles of members, and remove them.
    ManageMembers,
    /// Make owners and change their roles, and hand the project over.
    OwnProject,
}

/// A row of the table.
struct Row {
    name: &'static str,
    /// Continues "may …".
    words: &'static str,
    /// Every role from this one upwards may do this. None: no role may.
    least_role: Option<Role>,
    /// The scopes that may do this, least powerful first.
    scopes: &'static [Scope],
}

impl Action {
    /// Every action, in the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Read,
        Self::SeePingUrls,
        Self::Signal,
        Self::ChangeMonitors,
        Self::Acknowledge,
        Self::ManageChannels,
        Self::ManageKeys,
        Self::ChangeProject,
        Self::ReadAudit,
        Self::ReadMetrics,
        Self::SeeMembers,
        Self::ManageMembers,
        Self::OwnProject,
    ];

    fn row(self) -> Row {
        let row = |name, words, least_role, scopes| Row {
            name,
            words,
            least_role,
            scopes,
        };
        match self {
            Self::Read => row(
                "read",
                "see monitors, runs, Celery's parts, incidents, channels, rotations, deliveries and the project's settings",
                Some(Role::Viewer),
                &[Scope::Read, Scope::Write],
            ),
            // A ping URL is enough to report, so the permission to read does not suffice.
            Self::SeePingUrls => row(
                "see_ping_urls",
                "see the ping URLs of monitors",
                Some(Role::Member),
                &[Scope::Write],
            ),
            // Ping keys stand in every crontab. A ping key must not be able to read or delete, so no other scope may
            // report.
            Self::Signal => row(
                "signal",
                "send pings and events, and so create what they report about, and snooze alerts for a day at most",
                None,
                &[Scope::Ping],
            ),
            Self::ChangeMonitors => row(
                "change_monitors",
                "create, change, pause, resume, snooze, mute and delete monitors, plan maintenance windows, and delete Beats",
                Some(Role::Member),
                &[Scope::Write],
            ),
            Self::Acknowledge => row(
                "acknowledge",
                "acknowledge incidents",
                Some(Role::Member),
                &[Scope::Write],
            ),
            // A channel sends the project's data to other services, and can keep an alert from people.
            Self::ManageChannels => row(
                "manage_channels",
                "add, change, test and delete channels, rotations and escalation policies",
                Some(Role::Admin),
                &[Scope::Write],
            ),
            Self::ManageKeys => row(
                "manage_keys",
                "see, issue, replace and revoke API keys",
                Some(Role::Admin),
                &[Scope::Write],
            ),
            Self::ChangeProject => row(
                "change_project",
                "change the project's name and settings",
                Some(Role::Admin),
                &[Scope::Write],
            ),
            // It names people, and the addresses that they came from.
            Self::ReadAudit => row(
                "read_audit",
                "see the audit trail",
                Some(Role::Admin),
                &[Scope::Audit, Scope::Write],
            ),
            // They are sums: they name nothing of the project.
            Self::ReadMetrics => row(
                "read_metrics",
                "see the project's figures",
                Some(Role::Viewer),
                &[Scope::Metrics, Scope::Read, Scope::Write],
            ),
            // It names people, so a read key, which may stand in a dashboard, does not suffice.
            Self::SeeMembers => row(
                "see_members",
                "see who is a member",
                Some(Role::Viewer),
                &[Scope::Write],
            ),
            Self::ManageMembers => row(
                "manage_members",
                "invite people, change the roles of members below owner, and remove such members",
                Some(Role::Admin),
                &[Scope::Write],
            ),
            // Whoever makes owners could make themselves one. A key has no owner's rank: it may have leaked.
            Self::OwnProject => row(
                "own_project",
                "make owners, change their roles, and hand the project over",
                Some(Role::Owner),
                &[],
            ),
        }
    }

    /// Its name in docs/permissions.md and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// True if an account of that role may do this.
    #[must_use]
    pub fn is_of_role(self, role: Role) -> bool {
        self.row().least_role.is_some_and(|least| role >= least)
    }

    /// True if a key of that scope may do this.
    #[must_use]
    pub fn is_of_scope(self, scope: Scope) -> bool {
        self.row().scopes.contains(&scope)
    }

    /// The least powerful scope that may do this. A refusal names it.
    #[must_use]
    pub fn least_scope(self) -> Option<Scope> {
        self.row().scopes.first().copied()
    }
}

/// An actor's standing in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// An account's role.
    Role(Role),
    /// A key's scope.
    Scope(Scope),
}

/// The refusal of an action to an actor. Each dialect (API, pages) answers it in its own shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{}", self.words())]
pub struct Refusal {
    /// The action that was asked for.
    pub action: Action,
    /// The standing of the actor.
    pub standing: Standing,
}

impl Refusal {
    /// Returns a sentence for the actor, without a capital and a full stop.
    fn words(&self) -> String {
        let row = self.action.row();
        match (self.standing, row.least_role, row.scopes.first()) {
            (Standing::Scope(scope), _, Some(needed)) => format!(
                "this is a {} key; a {} key may {}",
                scope.as_str(),
                needed.as_str(),
                row.words
            ),
            (Standing::Scope(scope), _, None) => {
                format!("this is a {} key; no key may {}", scope.as_str(), row.words)
            }
            (Standing::Role(role), Some(needed), _) => format!(
                "your role in this project is {}; from {} on, a role may {}",
                role.as_str(),
                needed.as_str(),
                row.words
            ),
            (Standing::Role(role), None, _) => format!(
                "your role in this project is {}; only an API key may {}",
                role.as_str(),
                row.words
            ),
        }
    }
}

/// Returns an error if the actor may not do this.
///
/// # Errors
/// The role or the scope does not allow it.
pub fn allows(access: &Access, action: Action) -> Result<(), Refusal> {
    let (is_allowed, standing) = match access.actor() {
        Actor::Account { role, .. } => (action.is_of_role(role), Standing::Role(role)),
        Actor::Key { scope, .. } => (action.is_of_scope(scope), Standing::Scope(scope)),
        Actor::Operator | Actor::System => return Ok(()),
    };
    if is_allowed {
        Ok(())
    } else {
        Err(Refusal { action, standing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AccountId, ApiKeyId, ProjectId};

    const PAGE: &str = include_str!("../../../../docs/permissions.md");

    fn account(project: ProjectId, role: Role) -> Access {
        let id = AccountId::generate();
        Access::new(project, Actor::Account { id, role })
    }

    fn key(project: ProjectId, scope: Scope) -> Access {
        let id = ApiKeyId::generate();
        Access::new(project, Actor::Key { id, scope })
    }

    /// The same permissions, written a second time by hand, so that a change of the table must be made twice.
    fn expected(action: Action) -> (&'static [Role], &'static [Scope]) {
        use {Role::*, Scope::*};
        match action {
            Action::Read => (&[Owner, Admin, Member, Viewer], &[Read, Write]),
            Action::SeePingUrls | Action::ChangeMonitors | Action::Acknowledge => {
                (&[Owner, Admin, Member], &[Write])
            }
            Action::Signal => (&[], &[Ping]),
            Action::ManageChannels | Action::ManageKeys | Action::ChangeProject => {
                (&[Owner, Admin], &[Write])
            }
            Action::ReadAudit => (&[Owner, Admin], &[Audit, Write]),
            Action::ReadMetrics => (&[Owner, Admin, Member, Viewer], &[Metrics, Read, Write]),
            Action::SeeMembers => (&[Owner, Admin, Member, Viewer], &[Write]),
            Action::ManageMembers => (&[Owner, Admin], &[Write]),
            Action::OwnProject => (&[Owner], &[]),
        }
    }

    #[test]
    fn each_role_and_each_scope_may_do_what_the_table_says_and_nothing_else() {
        let project = ProjectId::generate();
        for action in Action::ALL {
            let (roles, scopes) = expected(action);
            for role in Role::ALL {
                let refusal = Refusal {
                    action,
                    standing: Standing::Role(role),
                };
                let wanted = if roles.contains(&role) {
                    Ok(project)
                } else {
                    Err(refusal)
                };
                assert_eq!(account(project, role).may(action), wanted, "{action:?} {role:?}");
            }
            for scope in Scope::ALL {
                let refusal = Refusal {
                    action,
                    standing: Standing::Scope(scope),
                };
                let wanted = if scopes.contains(&scope) {
                    Ok(project)
                } else {
                    Err(refusal)
                };
                assert_eq!(key(project, scope).may(action), wanted, "{action:?} {scope:?}");
            }
            for actor in [Actor::Operator, Actor::System] {
                assert_eq!(Access::new(project, actor).may(action), Ok(project), "{action:?}");
            }
        }
    }

    #[test]
    fn a_viewer_and_a_read_key_change_nothing_and_only_a_ping_key_reports() {
        let project = ProjectId::generate();
        for action in Action::ALL {
            let is_read = matches!(action, Action::Read | Action::ReadMetrics);
            assert_eq!(
                account(project, Role::Viewer).may(action).is_ok(),
                is_read || action == Action::SeeMembers,
                "{action:?}"
            );
            assert_eq!(
                key(project, Scope::Read).may(action).is_ok(),
                is_read,
                "{action:?}"
            );
            for (scope, only) in [
                (Scope::Audit, Action::ReadAudit),
                (Scope::Metrics, Action::ReadMetrics),
            ] {
                assert_eq!(
                    key(project, scope).may(action).is_ok(),
                    action == only,
                    "{action:?}"
                );
            }
            let is_signal = action == Action::Signal;
            assert_eq!(
                key(project, Scope::Ping).may(action).is_ok(),
                is_signal,
                "{action:?}"
            );
        }
    }

    #[test]
    fn the_page_shows_the_table() {
        let mut table = String::from("| permission | to | ");
        for role in Role::ALL {
            table += &format!("{} | ", role.as_str());
        }
        for scope in Scope::ALL {
            table += &format!("{} key | ", scope.as_str());
        }
        table = format!(
            "{}\n|{}",
            table.trim_end(),
            " --- |".repeat(2 + Role::ALL.len() + Scope::ALL.len())
        );
        for action in Action::ALL {
            table += &format!("\n| `{}` | {} |", action.name(), action.row().words);
            let roles = Role::ALL.map(|role| action.is_of_role(role));
            let scopes = Scope::ALL.map(|scope| action.is_of_scope(scope));
            for allowed in roles.into_iter().chain(scopes) {
                table += if allowed { " yes |" } else { " – |" };
            }
        }

        assert!(
            PAGE.contains(&format!("\n{table}\n\n")),
            "docs/permissions.md needs this table:\n{table}"
        );
    }

    #[test]
    fn a_refusal_says_what_is_missing() {
        let project = ProjectId::generate();
        for (refused, words) in [
            (
                key(project, Scope::Read).may(Action::Acknowledge),
                "this is a read key; a write key may acknowledge incidents",
            ),
            (
                account(project, Role::Viewer).may(Action::ManageKeys),
                "your role in this project is viewer; from admin on, a role may see, issue, replace and revoke API keys",
            ),
            (
                account(project, Role::Owner).may(Action::Signal),
                "your role in this project is owner; only an API key may send pings and events, and so create what they report about, and snooze alerts for a day at most",
            ),
        ] {
            assert_eq!(
                refused.map_err(|refusal| refusal.to_string()),
                Err(words.to_owned())
            );
        }
    }

    #[test]
    fn names_are_read_back() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
        }
        assert_eq!(Role::parse("manager"), None);
    }
}
