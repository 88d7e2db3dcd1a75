//! Change of an account's mail address.
//!
//! The new address must answer first: the link in its mail makes the change. The old address gets a mail with a link that undoes it, which
//! works for 30 days. So whoever takes over a session cannot take over the account for good, as long as the owner reads mail.

use deadbeat_domain::monitor::{FieldError, clip};
use deadbeat_domain::people::account::{AccountAct, LinkKind, address};
use deadbeat_store::people::account::session::Session;
use deadbeat_store::people::account::{factor, link, session, step};

use super::letter::{Letter, Mailing};
use super::{Client, trail};
use crate::{ServiceError, Services, secret};

/// Sends a link to a new address. The caller has checked that the owner proved to be the owner lately.
///
/// The answer is the same whether another account has the address: its owner gets a mail that says so.
///
/// # Errors
/// If the address cannot belong to an account, this client asks too often, too many mails wait, or the database cannot be reached.
pub async fn ask(
    services: &Services,
    own: &Session,
    email: &str,
    client: &Client,
) -> Result<(), ServiceError> {
    let fault = |words: String| ServiceError::Invalid(vec![FieldError::new("/email", words)]);
    let Some(email) = address(email) else {
        return Err(fault(format!(
            "is {:?}; one mail address of ASCII letters is allowed",
            clip(email)
        )));
    };
    if email == own.account.email {
        return Err(fault("is the present address".to_owned()));
    }
    services.desk.count(client, services.now())?;
    let (work, client, account) = (services.clone(), client.clone(), own.account.clone());
    services.desk.accept(services, async move {
        let now = work.now();
        let taken = deadbeat_store::people::account::by_email(&work.reader(), &email).await?;
        let mailing = Mailing::to(&work, &email, &client).await?;
        let mut tx = work.store.begin().await?;
        if !mailing.allows(&mut tx, now).await?
            || deadbeat_store::people::account::lock(&mut tx, account.id)
                .await?
                .is_none()
        {
            return Ok(Vec::new());
        }
        link::end_of_account(&mut tx, account.id, &[LinkKind::NewMail]).await?;
        let token = secret::random_text(43);
        if taken.is_none() {
            let to = link::Link {
                account: Some(account.id),
                email: email.clone(),
                created_at: now,
            };
            link::insert(&mut tx, LinkKind::NewMail, &secret::digest(&token), &to).await?;
        }
        trail::note(&work, &mut tx, AccountAct::MailAsked, account.id, &client).await?;
        tx.commit().await?;
        trail::log(AccountAct::MailAsked, account.id, &client);
        Ok(vec![if taken.is_none() {
            Letter::new_address(&work, &email, &token)
        } else {
            Letter::address_taken(&work, &email)
        }])
    })
}

/// Returns the address that a link gives to its account. None: it is wrong, was used, or has expired. Nothing changes.
///
/// # Errors
/// If this client opened too many wrong links, or the database cannot be reached.
pub async fn inspect(
    services: &Services,
    kind: LinkKind,
    token: &str,
    client: &Client,
) -> Result<Option<String>, ServiceError> {
    let (digest, now) = (secret::digest(token), services.now());
    let found = link::find(&services.reader(), kind, &digest, now).await?;
    if found.is_none() {
        services.strangers.wrong(client.address(), now)?;
    }
    Ok(found.map(|link| link.email))
}

/// Changes the address by a link. Returns the new address; None as for [`inspect`], or another account has got the address meanwhile.
///
/// The link that undoes a change also ends every session and every other way in: somebody else may have asked for the change. The owner then
/// sets a new password.
///
/// # Errors
/// If this client opened too many wrong links, or the database cannot be reached.
pub async fn follow(
    services: &Services,
    kind: LinkKind,
    token: &str,
    client: &Client,
) -> Result<Option<String>, ServiceError> {
    let (digest, now) = (secret::digest(token), services.now());
    let found = link::find(&services.reader(), kind, &digest, now).await?;
    let Some(id) = found.and_then(|link| link.account) else {
        services.strangers.wrong(client.address(), now)?;
        return Ok(None);
    };
    let mut tx = services.store.begin().await?;
    let Some((account, _)) = deadbeat_store::people::account::lock(&mut tx, id).await? else {
        return Ok(None);
    };
    let Some(taken) = link::take(&mut tx, kind, &digest, now).await? else {
        return Ok(None);
    };
    let set = deadbeat_store::people::account::set_email(&mut tx, id, &taken.email).await;
    match set {
        Err(error) if error.is_constraint("account_email_unique") => return Ok(None),
        other => other?,
    }
    // A reset link went to the address that the account no longer has.
    link::end_of_account(&mut tx, id, &[LinkKind::Reset, LinkKind::NewMail]).await?;
    step::end_of_account(&mut tx, id).await?;
    let (act, letters) = if kind == LinkKind::UndoMail {
        session::end_all(&mut tx, id, None).await?;
        link::end_undoing(&mut tx, id, taken.created_at).await?;
        factor::remove_since(&mut tx, id, taken.created_at).await?;
        (AccountAct::MailUndone, Vec::new())
    } else {
        let undo = secret::random_text(43);
        let back = link::Link {
            account: Some(id),
            email: account.email.clone(),
            created_at: now,
        };
        link::insert(&mut tx, LinkKind::UndoMail, &secret::digest(&undo), &back).await?;
        let letter = Letter::address_changed(services, &account.email, &undo);
        (AccountAct::MailChanged, vec![letter])
    };
    trail::note(services, &mut tx, act, id, client).await?;
    tx.commit().await?;
    trail::log(act, id, client);
    for letter in letters {
        services.desk.inform(services, letter);
    }
    Ok(Some(taken.email))
}
