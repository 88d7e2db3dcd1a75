//! `deadbeat member …`

use clap::Subcommand;
use deadbeat_domain::ids::{AccountId, ProjectId};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::role::Role;
use deadbeat_services::people::invitation::{self, NewInvitation};
use deadbeat_services::people::member;
use deadbeat_services::{ServiceError, Services};
use deadbeat_store::page::Page;
use serde_json::json;
use uuid::Uuid;

use super::project::words;
use crate::config::DatabaseConfig;
use crate::database::Database;

/// The subcommands of `deadbeat member`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the members of a project.
    List {
        /// Which project.
        #[command(flatten)]
        of: Of,
    },
    /// Change a member's role.
    Role {
        /// Which project.
        #[command(flatten)]
        of: Of,
        /// The member's account, as `deadbeat member list` shows it.
        #[arg(long)]
        account: Uuid,
        /// owner, admin, member or viewer.
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// Remove a member.
    Remove {
        /// Which project.
        #[command(flatten)]
        of: Of,
        /// The member's account, as `deadbeat member list` shows it.
        #[arg(long)]
        account: Uuid,
    },
    /// Invite somebody: prints a link that works once. It is shown only this once.
    Invite {
        /// Which project.
        #[command(flatten)]
        of: Of,
        /// owner, admin, member or viewer.
        #[arg(long, value_parser = role)]
        role: Role,
        /// Only the account of this mail address may accept.
        #[arg(long)]
        email: Option<String>,
        /// The address at which people reach the server.
        #[arg(long, env = "DEADBEAT_SITE_URL")]
        site_url: String,
    },
}

/// A project of a database.
#[derive(Debug, clap::Args)]
pub struct Of {
    #[command(flatten)]
    database: DatabaseConfig,
    /// The id of the project.
    #[arg(long)]
    project: Uuid,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "owner, admin, member and viewer are allowed".to_owned())
}

/// Runs the subcommand.
///
/// # Errors
/// The message is written for the person at the terminal.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let (of, site) = match &command {
        Command::List { of } | Command::Role { of, .. } | Command::Remove { of, .. } => {
            (of, "http://localhost")
        }
        Command::Invite { of, site_url, .. } => (of, site_url.trim_end_matches('/')),
    };
    let database = Database::of_command(&of.database).await?;
    let done = match database.services(site).await {
        Ok(services) => act(&services, &command).await.map_err(words),
        Err(error) => Err(error),
    };
    database.stop().await;
    for line in done? {
        println!("{line}");
    }
    Ok(())
}

/// Does what the person asked for. Returns the lines to print.
async fn act(services: &Services, command: &Command) -> Result<Vec<String>, ServiceError> {
    let access = |of: &Of| Access::new(ProjectId(of.project), Actor::Operator);
    match command {
        Command::List { of } => list(services, of, &access(of)).await,
        Command::Role { of, account, role } => {
            member::set_role(services, &access(of), AccountId(*account), *role).await?;
            Ok(Vec::new())
        }
        Command::Remove { of, account } => {
            member::remove(services, &access(of), AccountId(*account)).await?;
            Ok(Vec::new())
        }
        Command::Invite { of, role, email, .. } => {
            let new = NewInvitation {
                email: email.clone(),
                role: *role,
                seconds: None,
            };
            let (made, link) = invitation::create(services, &access(of), new).await?;
            Ok(vec![if of.json {
                json!({"id": made.id, "url": link, "expires_at": made.expires_at}).to_string()
            } else {
                format!("link      {link}")
            }])
        }
    }
}

async fn list(services: &Services, of: &Of, access: &Access) -> Result<Vec<String>, ServiceError> {
    let mut lines = Vec::new();
    let mut page = Page {
        after: None,
        limit: 500,
    };
    loop {
        let members = member::list(services, access, page).await?;
        lines.extend(members.iter().map(|one| {
            if of.json {
                json!({"account_id": one.account, "email": one.email, "role": one.role.as_str()}).to_string()
            } else {
                format!("{}  {:<6}  {}", one.account, one.role.as_str(), one.email)
            }
        }));
        match members.last() {
            Some(last) if members.len() == 500 => page.after = Some(last.account),
            _ => return Ok(lines),
        }
    }
}
