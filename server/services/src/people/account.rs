//! Accounts: create, sign in. The files below this one hold what else happens to an account (ADR 046, ADR 047).

pub mod address;
pub mod code;
pub mod factor;
pub(crate) mod hashing;
pub mod leave;
pub(crate) mod letter;
pub mod password;
pub mod session;
pub mod sign_up;
pub(crate) mod trail;

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::channel::is_email;
use deadbeat_domain::ids::AccountId;
use deadbeat_domain::monitor::{FieldError, clip};
use deadbeat_domain::people::account::{AccountAct, SessionEnds, SignUp};
use deadbeat_domain::people::{device, guessing, password as rules};
use deadbeat_store::Tx;
use deadbeat_store::people::account::session::UsedFrom;
use deadbeat_store::people::account::{Account, factor as factors, step};

use crate::people::security_log::{TARGET, shown};
use crate::{ServiceError, Services, secret};

pub use letter::Desk;

/// The operator's rules for accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountSettings {
    /// Who may make an account.
    pub sign_up: SignUp,
    /// When sessions end.
    pub sessions: SessionEnds,
}

/// From where somebody acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    address: Option<IpAddr>,
    text: Option<String>,
    device: String,
}

impl Client {
    /// A client at this address (or in this network) with this User-Agent.
    #[must_use]
    pub fn new(address: Option<IpAddr>, user_agent: &str) -> Self {
        Self {
            address,
            text: address.map(|address| address.to_string()),
            device: device::family(user_agent),
        }
    }

    /// The operator's command line.
    pub(crate) fn operator() -> Self {
        Self {
            address: None,
            text: None,
            device: "the operator's command line".to_owned(),
        }
    }

    /// The client's address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    pub(crate) fn used_from(&self) -> UsedFrom<'_> {
        UsedFrom {
            address: self.text.as_deref(),
            device: &self.device,
        }
    }
}

/// Creates an account.
///
/// # Errors
/// If the address is invalid or taken, the password does not fit, or the database cannot be reached.
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
    if let Err(unfit) = rules::check(password, &email) {
        faults.push(FieldError::new("/password", unfit.to_string()));
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
    /// The password or the mailed code is right, and the account has a second factor: the secret of the next step, for a cookie.
    SecondFactor(String),
    /// The address is unknown, or the password or code is wrong. The answer does not reveal which.
    Refused,
    /// The step has expired, was used, or had too many wrong codes: begin again.
    Over,
    /// There were too many wrong passwords; with the time to wait.
    TooSoon(TimeDelta),
}

/// Signs in. The server counts wrong passwords by the client's address ([`deadbeat_domain::people::guessing`]).
///
/// # Errors
/// If too many people sign in at once, or the database cannot be reached.
pub async fn sign_in(
    services: &Services,
    email: &str,
    password: &str,
    client: &Client,
) -> Result<SignIn, ServiceError> {
    let email = email.trim().to_lowercase();
    match guess(services, &email, password, client).await? {
        Guess::TooSoon(wait) => Ok(SignIn::TooSoon(wait)),
        Guess::Wrong => Ok(SignIn::Refused),
        Guess::Right(account, hash) => {
            let mut tx = services.store.begin().await?;
            // The password may have been replaced since it was verified. The owner then does not want this session.
            let is_current = deadbeat_store::people::account::lock(&mut tx, account.id)
                .await?
                .is_some_and(|(_, current)| current == hash);
            if !is_current {
                return Ok(SignIn::Refused);
            }
            proved(services, tx, &account, client).await
        }
    }
}

/// Goes on after the first proof: begins a session, or asks for the second factor. The caller holds the account's lock.
pub(crate) async fn proved(
    services: &Services,
    mut tx: Tx,
    account: &Account,
    client: &Client,
) -> Result<SignIn, ServiceError> {
    if !factors::is_on(&mut tx, account.id).await? {
        let session = session::begin(services, &mut tx, account.id, client).await?;
        tx.commit().await?;
        trail::log(AccountAct::SignedIn, account.id, client);
        return Ok(SignIn::Accepted(session));
    }
    let secret = secret::random_text(43);
    code::insert_step(
        services,
        &mut tx,
        step::Kind::SecondFactor,
        &secret,
        Some(account.id),
    )
    .await?;
    tx.commit().await?;
    Ok(SignIn::SecondFactor(secret))
}

/// The result of a password.
pub(crate) enum Guess {
    /// The account, and the hash that the password fits.
    Right(Account, String),
    /// The address is unknown, or the password is wrong.
    Wrong,
    /// There were too many wrong ones.
    TooSoon(TimeDelta),
}

/// Verifies a password, and counts a wrong one. `email` is in lower case.
pub(crate) async fn guess(
    services: &Services,
    email: &str,
    password: &str,
    client: &Client,
) -> Result<Guess, ServiceError> {
    let now = services.now();
    // PostgreSQL refuses a NUL in a text, and no account can have such an address.
    let is_possible = is_email(email) && password.len() <= rules::MOST_BYTES;
    let is_known = match client.used_from().address {
        Some(address) if is_possible => {
            let since = now - guessing::KNOWN_FOR;
            deadbeat_store::people::account::is_known_at(&services.reader(), email, address, since).await?
        }
        _ => false,
    };
    let tried = match services.guesses.take(email, client.address, is_known, now) {
        Ok(tried) => tried,
        Err(wait) => {
            let key = client.address.map_or(0, address_key);
            if services.refusals.is_first(key, now) {
                tracing::warn!(target: TARGET, action = "sign_in_too_soon", address = shown(client.address), "too many wrong passwords: a sign-in has to wait");
            }
            return Ok(Guess::TooSoon(wait));
        }
    };
    match check(services, is_possible.then_some(email), password).await {
        Ok((Some((account, hash)), true)) => {
            services.guesses.give_back(&tried);
            Ok(Guess::Right(account, hash))
        }
        Ok((account, _)) => {
            let account = account.map_or_else(|| "none".to_owned(), |(account, _)| account.id.to_string());
            tracing::warn!(target: TARGET, action = "sign_in_failed", account.id = account, address = shown(client.address), "a wrong password, or no such account");
            Ok(Guess::Wrong)
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

/// Returns the account of a mail address with its hash, and whether the password is correct. Takes equally long without an account.
async fn check(
    services: &Services,
    email: Option<&str>,
    password: &str,
) -> Result<(Option<(Account, String)>, bool), ServiceError> {
    let found = match email {
        Some(email) => deadbeat_store::people::account::by_email(&services.reader(), email).await?,
        None => None,
    };
    // Do not hash a longer password.
    let password = if password.len() <= rules::MOST_BYTES {
        password
    } else {
        ""
    };
    let stored = found.as_ref().map(|(_, hash)| hash.clone());
    let is_right = services.passwords.verify(password.to_owned(), stored).await?;
    Ok((found, is_right))
}
