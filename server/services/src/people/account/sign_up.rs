//! Sign-up: a mail address asks for a link, and the link makes the account. So every account has a proved address, and a form never says
//! whether an address has an account.

use deadbeat_domain::people::account::{AccountAct, LinkKind, SignUp, address};
use deadbeat_store::people::account::link;

use super::letter::{Letter, Mailing};
use super::{Client, fresh, insert, session, trail};
use crate::people::project;
use crate::people::security_log::TARGET;
use crate::{ServiceError, Services, secret};

/// The name of the first project of a new account.
const PROJECT: &str = "My project";

impl Services {
    /// Who may make an account without the operator.
    #[must_use]
    pub fn sign_up(&self) -> &SignUp {
        &self.accounts.sign_up
    }
}

/// Sends a link that makes an account, if the deployment admits the address. An address with an account gets a mail that says so. The answer
/// is the same in all cases, and comes before the server looks for the account.
///
/// # Errors
/// If this client asks too often, or too many mails wait.
pub async fn ask(services: &Services, email: &str, client: &Client) -> Result<(), ServiceError> {
    services.desk.count(client, services.now())?;
    match address(email) {
        Some(email) if services.sign_up().admits(&email) => send(services, email, client),
        _ => Ok(()),
    }
}

/// Sends a link that makes an account to somebody who was invited, in the modes `invite` and `open`. The caller has checked the invitation.
///
/// # Errors
/// As for [`ask`].
pub async fn ask_invited(services: &Services, email: &str, client: &Client) -> Result<(), ServiceError> {
    services.desk.count(client, services.now())?;
    match address(email) {
        Some(email) if *services.sign_up() != SignUp::Closed => send(services, email, client),
        _ => Ok(()),
    }
}

fn send(services: &Services, email: String, client: &Client) -> Result<(), ServiceError> {
    let (work, client) = (services.clone(), client.clone());
    services.desk.accept(services, async move {
        let now = work.now();
        let known = deadbeat_store::people::account::by_email(&work.reader(), &email).await?;
        let mailing = Mailing::to(&work, &email, &client).await?;
        let mut tx = work.store.begin().await?;
        if !mailing.allows(&mut tx, now).await? {
            return Ok(Vec::new());
        }
        let token = secret::random_text(43);
        if known.is_none() {
            link::end_sign_ups(&mut tx, &email).await?;
            let to = link::Link {
                account: None,
                email: email.clone(),
                created_at: now,
            };
            link::insert(&mut tx, LinkKind::SignUp, &secret::digest(&token), &to).await?;
        }
        tx.commit().await?;
        Ok(vec![if known.is_none() {
            Letter::sign_up(&work, &email, &token)
        } else {
            Letter::address_taken(&work, &email)
        }])
    })
}

/// Returns the address of a link that makes an account. None: it is wrong, was used, or has expired.
///
/// # Errors
/// If this client opened too many wrong links, or the database cannot be reached.
pub async fn inspect(
    services: &Services,
    token: &str,
    client: &Client,
) -> Result<Option<String>, ServiceError> {
    let (digest, now) = (secret::digest(token), services.now());
    let found = link::find(&services.reader(), LinkKind::SignUp, &digest, now).await?;
    if found.is_none() {
        services.strangers.wrong(client.address(), now)?;
    }
    Ok(found.map(|link| link.email))
}

/// Makes an account by a link, with a project of its own and a session. Returns the session's secret. None as for [`inspect`], or the address has
/// an account by now.
///
/// # Errors
/// If the password does not fit (the link then stays), this client opened too many wrong links, or the database cannot be reached.
pub async fn follow(
    services: &Services,
    token: &str,
    password: &str,
    client: &Client,
) -> Result<Option<String>, ServiceError> {
    let Some(email) = inspect(services, token, client).await? else {
        return Ok(None);
    };
    let (account, hash) = fresh(services, &email, password).await?;
    let (digest, now) = (secret::digest(token), services.now());
    let mut tx = services.store.begin().await?;
    // Of two uses at once, one finds the link.
    let taken = link::take(&mut tx, LinkKind::SignUp, &digest, now).await?;
    if taken.is_none_or(|link| link.email != account.email) {
        return Ok(None);
    }
    match insert(&mut tx, &account, &hash, now).await {
        Err(ServiceError::Conflict(_)) => return Ok(None),
        other => other?,
    }
    let created = project::create_in(&mut tx, PROJECT, Some(account.id), now).await?;
    trail::note(services, &mut tx, AccountAct::Created, account.id, client).await?;
    let session = session::begin(services, &mut tx, account.id, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::Created, account.id, client);
    tracing::info!(target: TARGET, action = "project_created", project.id = %created.project.id, account.id = %account.id, "a new account got a project of its own");
    Ok(Some(session))
}
