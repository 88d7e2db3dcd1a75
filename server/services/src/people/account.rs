//! Accounts: create, sign in, sign out. Visitors cannot create accounts.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::channel::is_email;
use deadbeat_domain::ids::AccountId;
use deadbeat_domain::monitor::{FieldError, clip};
use deadbeat_domain::people::guessing;
use deadbeat_store::Tx;
use deadbeat_store::people::account::Account;
use tokio::sync::Semaphore;

use crate::people::security_log::{TARGET, shown};
use crate::{ServiceError, Services, secret};

/// How long a session lasts.
pub const SESSION: TimeDelta = TimeDelta::days(14);
/// The fewest characters of a password.
const PASSWORD_CHARS: usize = 10;
/// The most bytes of a password. No account has a longer one.
const PASSWORD_BYTES: usize = 1_000;
/// How long a sign-in waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hashes and verifies passwords outside the async threads, two at a time: each needs 19 MiB and about 25 ms of CPU time.
#[derive(Debug, Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(2)),
        }
    }
}

impl Passwords {
    async fn hash(&self, password: String) -> Result<String, ServiceError> {
        self.work(move || {
            Argon2::default()
                .hash_password(password.as_bytes())
                .map(|hash| hash.to_string())
                .ok()
        })
        .await?
        .ok_or(ServiceError::Busy)
    }

    /// Verifies a password. Takes equally long for an unknown account, so that the time reveals nothing.
    async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, ServiceError> {
        self.work(move || {
            static NOBODY: OnceLock<String> = OnceLock::new();
            let known = stored.is_some();
            let stored = stored.unwrap_or_else(|| {
                NOBODY
                    .get_or_init(|| {
                        Argon2::default()
                            .hash_password(b"nobody")
                            .map(|hash| hash.to_string())
                            .unwrap_or_default()
                    })
                    .clone()
            });
            let right = PasswordHash::new(&stored).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            });
            known && right
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ServiceError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(ServiceError::Busy);
        };
        let done = tokio::task::spawn_blocking(move || {
            let done = job();
            drop(turn);
            done
        });
        done.await.map_err(|_| ServiceError::Busy)
    }
}

/// Creates an account.
///
/// # Errors
/// If the address is invalid or taken, the password is too short, or the database cannot be reached.
pub async fn create(services: &Services, email: &str, password: &str) -> Result<Account, ServiceError> {
    let (account, hash) = fresh(services, email, password).await?;
    let mut tx = services.store.begin().await?;
    insert(&mut tx, &account, &hash, services.now()).await?;
    tx.commit().await?;
    Ok(account)
}

/// Validates a new account and hashes its password. Stores nothing.
pub(crate) async fn fresh(
    services: &Services,
    email: &str,
    password: &str,
) -> Result<(Account, String), ServiceError> {
    let email = email.trim().to_lowercase();
    let mut faults = Vec::new();
    if !is_email(&email) {
        faults.push(FieldError::new(
            "/email",
            format!("is {:?}; one mail address is allowed", clip(&email)),
        ));
    }
    let length = password.chars().count();
    if !(PASSWORD_CHARS..=200).contains(&length) {
        faults.push(FieldError::new(
            "/password",
            format!("has {length} characters; {PASSWORD_CHARS} to 200 are allowed"),
        ));
    }
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    let hash = services.passwords.hash(password.to_owned()).await?;
    let account = Account {
        id: AccountId::generate(),
        email,
    };
    Ok((account, hash))
}

/// Inserts an account in the caller's transaction.
pub(crate) async fn insert(
    tx: &mut Tx,
    account: &Account,
    hash: &str,
    now: DateTime<Utc>,
) -> Result<(), ServiceError> {
    deadbeat_store::people::account::insert(tx, account, hash, now)
        .await
        .map_err(|error| {
            if error.is_constraint("account_email_unique") {
                ServiceError::Conflict(format!("there is an account of {} already", account.email))
            } else {
                error.into()
            }
        })
}

/// The result of an attempt to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// The session's secret, for a cookie.
    Accepted(String),
    /// The address is unknown, or the password is wrong. The answer does not reveal which.
    Refused,
    /// There were too many wrong passwords; with the time to wait.
    TooSoon(TimeDelta),
}

/// Signs in. `client` is the address from which the attempt comes. Wrong passwords are counted by this address
/// ([`deadbeat_domain::people::guessing`]).
///
/// # Errors
/// If too many people sign in at once, or the database cannot be reached.
pub async fn sign_in(
    services: &Services,
    email: &str,
    password: &str,
    client: Option<IpAddr>,
) -> Result<SignIn, ServiceError> {
    let now = services.now();
    let email = email.trim().to_lowercase();
    let address = client.map(|client| client.to_string());
    // PostgreSQL refuses a NUL in a text, and no account can have such an address.
    let is_possible = is_email(&email) && password.len() <= PASSWORD_BYTES;
    let is_known = match &address {
        Some(address) if is_possible => {
            let since = now - guessing::KNOWN_FOR;
            deadbeat_store::people::account::is_known_at(&services.reader(), &email, address, since).await?
        }
        _ => false,
    };
    let tried = match services.guesses.take(&email, client, is_known, now) {
        Ok(tried) => tried,
        Err(wait) => {
            let key = client.map_or(0, address_key);
            if services.refusals.is_first(key, now) {
                tracing::warn!(target: TARGET, action = "sign_in_too_soon", address = shown(client), "too many wrong passwords: a sign-in has to wait");
            }
            return Ok(SignIn::TooSoon(wait));
        }
    };
    match check(services, is_possible.then_some(email.as_str()), password).await {
        Ok((Some(account), true)) => {
            services.guesses.give_back(&tried);
            let session = begin_session(services, account.id, address.as_deref()).await?;
            tracing::info!(target: TARGET, action = "sign_in", account.id = %account.id, address = shown(client), "somebody signed in");
            Ok(SignIn::Accepted(session))
        }
        Ok((account, _)) => {
            let account = account.map_or_else(|| "none".to_owned(), |account| account.id.to_string());
            tracing::warn!(target: TARGET, action = "sign_in_failed", account.id = account, address = shown(client), "a wrong password, or no such account");
            Ok(SignIn::Refused)
        }
        Err(error) => {
            services.guesses.give_back(&tried);
            Err(error)
        }
    }
}

/// Converts an address to a number, as a key for counters.
fn address_key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Returns the account of a mail address, and whether the password is correct. Takes equally long without an account.
async fn check(
    services: &Services,
    email: Option<&str>,
    password: &str,
) -> Result<(Option<Account>, bool), ServiceError> {
    let found = match email {
        Some(email) => deadbeat_store::people::account::by_email(&services.reader(), email).await?,
        None => None,
    };
    let (account, stored) = found.map_or((None, None), |(account, stored)| (Some(account), Some(stored)));
    // Do not hash a longer password.
    let password = if password.len() <= PASSWORD_BYTES {
        password
    } else {
        ""
    };
    let is_right = services.passwords.verify(password.to_owned(), stored).await?;
    Ok((account, is_right))
}

async fn begin_session(
    services: &Services,
    account: AccountId,
    address: Option<&str>,
) -> Result<String, ServiceError> {
    let session = secret::random_text(43);
    let now = services.now();
    let mut tx = services.store.begin().await?;
    deadbeat_store::people::account::insert_session(
        &mut tx,
        account,
        &secret::digest(&session),
        now,
        now + SESSION,
    )
    .await?;
    if let Some(address) = address {
        let most = guessing::KNOWN_ADDRESSES;
        deadbeat_store::people::account::note_known(&mut tx, account, address, now, most).await?;
    }
    tx.commit().await?;
    Ok(session)
}

/// Returns the account of a session.
///
/// # Errors
/// If the database cannot be reached.
pub async fn of_session(services: &Services, session: &str) -> Result<Option<Account>, ServiceError> {
    let found = deadbeat_store::people::account::by_session(
        &services.reader(),
        &secret::digest(session),
        services.now(),
    )
    .await?;
    Ok(found)
}

/// Ends a session.
///
/// # Errors
/// If the database cannot be reached.
pub async fn sign_out(services: &Services, session: &str) -> Result<(), ServiceError> {
    let mut tx = services.store.begin().await?;
    deadbeat_store::people::account::delete_session(&mut tx, &secret::digest(session)).await?;
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "sign_out", "somebody signed out");
    Ok(())
}
