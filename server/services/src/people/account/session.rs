//! Sessions: begin, list, end, and prove again.
//!
//! A session ends a fixed time after its start, and when nobody uses it for some time ([`SessionEnds`]). Its secret changes with each proof,
//! so a secret from before a proof is worth nothing after it.
//!
//! [`SessionEnds`]: deadbeat_domain::people::account::SessionEnds

use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{AccountId, SessionId};
use deadbeat_domain::people::account::{AccountAct, RECENT, SESSIONS};
use deadbeat_domain::people::guessing;
use deadbeat_store::Tx;
use deadbeat_store::people::account::event::{self, Event};
use deadbeat_store::people::account::session::{self as store, Ends};
use deadbeat_store::with_sources;

use super::{Client, Guess, factor, guess, trail};
use crate::people::security_log::OnceAMinute;
use crate::{ServiceError, Services, secret};

pub use deadbeat_store::people::account::session::Session;

/// Entries of the trail that the account's page shows.
const SHOWN: i64 = 20;

/// Limits how often the last use of a session is written.
static TOUCHED: LazyLock<OnceAMinute> = LazyLock::new(OnceAMinute::default);

impl Services {
    fn session_ends(&self) -> Ends {
        let now = self.now();
        Ends {
            now,
            idle_since: now - self.accounts.sessions.idle,
        }
    }

    /// How long a session lasts at most.
    #[must_use]
    pub fn session_length(&self) -> TimeDelta {
        self.accounts.sessions.absolute
    }
}

/// Begins a session in the caller's transaction, which holds the account's lock. Returns the session's secret.
pub(crate) async fn begin(
    services: &Services,
    tx: &mut Tx,
    account: AccountId,
    client: &Client,
) -> Result<String, ServiceError> {
    let (session, now) = (secret::random_text(43), services.now());
    let ends = now + services.accounts.sessions.absolute;
    let digest = secret::digest(&session);
    store::insert(tx, account, &digest, client.used_from(), now, ends, SESSIONS).await?;
    if let Some(address) = client.used_from().address {
        let most = guessing::KNOWN_ADDRESSES;
        deadbeat_store::people::account::note_known(tx, account, address, now, most).await?;
    }
    trail::note(services, tx, AccountAct::SignedIn, account, client).await?;
    Ok(session)
}

/// Returns the session with this secret, unless it has ended. Notes its use, once a minute.
///
/// # Errors
/// If the database cannot be reached.
pub async fn find(
    services: &Services,
    session: &str,
    client: &Client,
) -> Result<Option<Session>, ServiceError> {
    let ends = services.session_ends();
    let found = store::by_digest(&services.reader(), &secret::digest(session), ends).await?;
    let Some(found) = found else { return Ok(None) };
    let is_old = ends.now - found.seen_at >= TimeDelta::minutes(1) || found.seen_at > ends.now;
    if is_old && TOUCHED.is_first(found.id.0.as_u128(), ends.now) {
        let touched = async {
            let mut tx = services.store.begin().await?;
            store::touch(&mut tx, found.id, client.used_from(), ends.now).await?;
            tx.commit().await
        };
        // The note is not worth a failed page.
        if let Err(error) = touched.await {
            tracing::warn!(error = %with_sources(&error), "the use of a session could not be noted");
        }
    }
    Ok(Some(found))
}

/// True if the owner has proved lately to be the owner, so that dangerous things are allowed.
#[must_use]
pub fn is_recent(services: &Services, session: &Session) -> bool {
    is_recent_at(session.proved_at, services.now())
}

fn is_recent_at(proved_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    // A proof in the future comes from before the clock was set back.
    proved_at <= now && now - proved_at < RECENT
}

/// Returns the sessions of an account, last used first.
///
/// # Errors
/// If the database cannot be reached.
pub async fn list(services: &Services, own: &Session) -> Result<Vec<Session>, ServiceError> {
    Ok(store::list(
        &services.reader(),
        &own.account,
        services.session_ends(),
        SESSIONS,
    )
    .await?)
}

/// Returns the newest entries of the account's trail.
///
/// # Errors
/// If the database cannot be reached.
pub async fn events(services: &Services, own: &Session) -> Result<Vec<Event>, ServiceError> {
    Ok(event::list(&services.reader(), own.account.id, SHOWN).await?)
}

/// Ends a session of the same account. Returns false if there is no such session.
///
/// # Errors
/// If the database cannot be reached.
pub async fn end_one(
    services: &Services,
    own: &Session,
    id: SessionId,
    client: &Client,
) -> Result<bool, ServiceError> {
    let account = own.account.id;
    let mut tx = services.store.begin().await?;
    if !store::end(&mut tx, account, id).await? {
        return Ok(false);
    }
    trail::note(services, &mut tx, AccountAct::SessionRevoked, account, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::SessionRevoked, account, client);
    Ok(true)
}

/// Ends all other sessions of the same account.
///
/// # Errors
/// If the database cannot be reached.
pub async fn end_others(services: &Services, own: &Session, client: &Client) -> Result<(), ServiceError> {
    let account = own.account.id;
    let mut tx = services.store.begin().await?;
    store::end_all(&mut tx, account, Some(own.id)).await?;
    trail::note(services, &mut tx, AccountAct::OthersRevoked, account, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::OthersRevoked, account, client);
    Ok(())
}

/// Ends the session with this secret.
///
/// # Errors
/// If the database cannot be reached.
pub async fn sign_out(services: &Services, session: &str, client: &Client) -> Result<(), ServiceError> {
    let mut tx = services.store.begin().await?;
    let Some(account) = store::end_by_digest(&mut tx, &secret::digest(session)).await? else {
        return Ok(());
    };
    trail::note(services, &mut tx, AccountAct::SignedOut, account, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::SignedOut, account, client);
    Ok(())
}

/// The result of another proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The session's new secret, for the cookie.
    Accepted(String),
    /// The password or the code is wrong.
    Refused,
    /// There were too many wrong ones; with the time to wait.
    TooSoon(TimeDelta),
}

/// Proves again that the owner uses this session: with the password, and with a code if the second factor is on. Wrong ones count like those
/// of a sign-in.
///
/// # Errors
/// If the session has ended meanwhile, too many people sign in at once, or the database cannot be reached.
pub async fn prove(
    services: &Services,
    own: &Session,
    session: &str,
    password: &str,
    code: &str,
    client: &Client,
) -> Result<Proof, ServiceError> {
    let (account, hash) = match guess(services, &own.account.email, password, client).await? {
        Guess::Right(account, hash) if account.id == own.account.id => (account, hash),
        Guess::Right(..) | Guess::Wrong => return Ok(Proof::Refused),
        Guess::TooSoon(wait) => return Ok(Proof::TooSoon(wait)),
    };
    if !factor::is_passed(services, account.id, code, client).await? {
        return Ok(Proof::Refused);
    }
    let mut tx = services.store.begin().await?;
    let current = deadbeat_store::people::account::lock(&mut tx, account.id).await?;
    if current.is_none_or(|(_, current)| current != hash) {
        return Ok(Proof::Refused);
    }
    let Some(fresh) = renew(services, &mut tx, account.id, session).await? else {
        return Ok(Proof::Refused);
    };
    trail::note(services, &mut tx, AccountAct::Proved, account.id, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::Proved, account.id, client);
    Ok(Proof::Accepted(fresh))
}

/// Gives a session another secret. Returns it, or None if the session has ended.
pub(crate) async fn renew(
    services: &Services,
    tx: &mut Tx,
    account: AccountId,
    session: &str,
) -> Result<Option<String>, ServiceError> {
    let fresh = secret::random_text(43);
    let (old, new) = (secret::digest(session), secret::digest(&fresh));
    let is_done = store::renew(tx, account, &old, &new, services.now()).await?;
    Ok(is_done.then_some(fresh))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_recent_for_a_quarter_of_an_hour() {
        let now: DateTime<Utc> = "2026-07-01T02:00:00Z".parse().unwrap();
        for (seconds_ago, is_recent) in [(0, true), (899, true), (900, false), (-1, false)] {
            let at = now - TimeDelta::seconds(seconds_ago);
            assert_eq!(is_recent_at(at, now), is_recent, "{seconds_ago}");
        }
    }
}
