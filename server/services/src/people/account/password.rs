//! Passwords: change with the old one, and reset by a link in a mail.

use chrono::TimeDelta;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::people::account::{AccountAct, LinkKind, address};
use deadbeat_domain::people::password as rules;
use deadbeat_store::Tx;
use deadbeat_store::people::account::session::Session;
use deadbeat_store::people::account::{Account, link, session, step};

use super::letter::{Letter, Mailing};
use super::session::renew;
use super::{Client, Guess, guess, trail};
use crate::{ServiceError, Services, secret};

/// The result of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The session's new secret, for the cookie. All other sessions have ended.
    Done(String),
    /// The old password is wrong.
    Refused,
    /// There were too many wrong passwords; with the time to wait.
    TooSoon(TimeDelta),
}

/// Checks a new password.
fn check(field: &str, password: &str, email: &str) -> Result<(), ServiceError> {
    rules::check(password, email)
        .map_err(|unfit| ServiceError::Invalid(vec![FieldError::new(field, unfit.to_string())]))
}

/// Changes the password of the account of a session, and ends the account's other sessions and links.
///
/// # Errors
/// If the new password does not fit, the session has ended, or the database cannot be reached.
pub async fn change(
    services: &Services,
    own: &Session,
    secret: &str,
    old: &str,
    new: &str,
    client: &Client,
) -> Result<Changed, ServiceError> {
    check("/new_password", new, &own.account.email)?;
    let (account, hash) = match guess(services, &own.account.email, old, client).await? {
        Guess::Right(account, hash) if account.id == own.account.id => (account, hash),
        Guess::Right(..) | Guess::Wrong => return Ok(Changed::Refused),
        Guess::TooSoon(wait) => return Ok(Changed::TooSoon(wait)),
    };
    let fresh = services.passwords.hash(new.to_owned()).await?;
    let mut tx = services.store.begin().await?;
    let current = deadbeat_store::people::account::lock(&mut tx, account.id).await?;
    if current.is_none_or(|(_, current)| current != hash) {
        return Ok(Changed::Refused);
    }
    let Some(session) = renew(services, &mut tx, account.id, secret).await? else {
        return Ok(Changed::Refused);
    };
    replace(&mut tx, &account, &fresh, Some(own)).await?;
    trail::note(services, &mut tx, AccountAct::PasswordChanged, account.id, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::PasswordChanged, account.id, client);
    services
        .desk
        .inform(services, Letter::password_changed(services, &account));
    Ok(Changed::Done(session))
}

/// Replaces the hash, and ends whatever could be used with the old password: sessions, half sign-ins, links to reset it. A link that undoes a
/// change of the mail address stays: it belongs to the former owner.
async fn replace(
    tx: &mut Tx,
    account: &Account,
    hash: &str,
    keep: Option<&Session>,
) -> Result<(), ServiceError> {
    deadbeat_store::people::account::set_password(tx, account.id, hash).await?;
    session::end_all(tx, account.id, keep.map(|own| own.id)).await?;
    step::end_of_account(tx, account.id).await?;
    link::end_of_account(tx, account.id, &[LinkKind::Reset, LinkKind::NewMail]).await?;
    Ok(())
}

/// Sends a link that sets a new password, if there is an account of this address. The answer is the same in both cases, and comes before the
/// server looks for the account.
///
/// # Errors
/// If this client asks too often, or too many mails wait.
pub async fn ask_reset(services: &Services, email: &str, client: &Client) -> Result<(), ServiceError> {
    services.desk.count(client, services.now())?;
    let Some(email) = address(email) else {
        return Ok(());
    };
    let (work, client) = (services.clone(), client.clone());
    services.desk.accept(services, async move {
        let Some((account, _)) = deadbeat_store::people::account::by_email(&work.reader(), &email).await?
        else {
            return Ok(Vec::new());
        };
        let now = work.now();
        let mailing = Mailing::to(&work, &account.email, &client).await?;
        let mut tx = work.store.begin().await?;
        if !mailing.allows(&mut tx, now).await? {
            return Ok(Vec::new());
        }
        if deadbeat_store::people::account::lock(&mut tx, account.id)
            .await?
            .is_none()
        {
            return Ok(Vec::new());
        }
        // One link at a time works: an older mail may be in somebody else's hands.
        link::end_of_account(&mut tx, account.id, &[LinkKind::Reset]).await?;
        let token = secret::random_text(43);
        let to = link::Link {
            account: Some(account.id),
            email: account.email.clone(),
            created_at: now,
        };
        link::insert(&mut tx, LinkKind::Reset, &secret::digest(&token), &to).await?;
        trail::note(&work, &mut tx, AccountAct::ResetAsked, account.id, &client).await?;
        tx.commit().await?;
        trail::log(AccountAct::ResetAsked, account.id, &client);
        Ok(vec![Letter::reset(&work, &account, &token)])
    })
}

/// True if a link sets a new password now. Nothing changes.
///
/// # Errors
/// If this client opened too many wrong links, or the database cannot be reached.
pub async fn is_reset(services: &Services, token: &str, client: &Client) -> Result<bool, ServiceError> {
    let found = link::find(
        &services.reader(),
        LinkKind::Reset,
        &secret::digest(token),
        services.now(),
    )
    .await?;
    if found.is_none() {
        services.strangers.wrong(client.address(), services.now())?;
    }
    Ok(found.is_some())
}

/// Sets a new password by a link, and ends all sessions. False: the link is wrong, was used, or has expired. Nobody is signed in by this:
/// an account with a second factor still needs it.
///
/// # Errors
/// If the password does not fit (the link then stays), this client opened too many wrong links, or the database cannot be reached.
pub async fn reset(
    services: &Services,
    token: &str,
    new: &str,
    client: &Client,
) -> Result<bool, ServiceError> {
    let (digest, now) = (secret::digest(token), services.now());
    // Hash before the transaction, and only for a link that is right: a stranger must not keep the hashing busy.
    let Some(found) = link::find(&services.reader(), LinkKind::Reset, &digest, now).await? else {
        services.strangers.wrong(client.address(), now)?;
        return Ok(false);
    };
    check("/new_password", new, &found.email)?;
    let hash = services.passwords.hash(new.to_owned()).await?;
    let mut tx = services.store.begin().await?;
    let account = match found.account {
        Some(id) => deadbeat_store::people::account::lock(&mut tx, id).await?,
        None => None,
    };
    let Some((account, _)) = account else {
        return Ok(false);
    };
    // Under the lock: of two uses at once, one finds the link. A link to a former address is of no use.
    let taken = link::take(&mut tx, LinkKind::Reset, &digest, now).await?;
    if taken.is_none_or(|link| link.email != account.email) {
        return Ok(false);
    }
    replace(&mut tx, &account, &hash, None).await?;
    trail::note(services, &mut tx, AccountAct::PasswordReset, account.id, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::PasswordReset, account.id, client);
    services
        .desk
        .inform(services, Letter::password_changed(services, &account));
    Ok(true)
}
