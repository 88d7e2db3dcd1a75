//! The second factor: codes of an authenticator (TOTP, RFC 6238), and recovery codes for the day on which it is lost (ADR 047).

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::AccountId;
use deadbeat_domain::people::account::{AccountAct, RECOVERY_CODES};
use deadbeat_store::people::account::factor::{self as store, Authenticator};
use deadbeat_store::people::account::session::Session;
use deadbeat_store::people::account::step::{self, Kind};
use deadbeat_store::{Store, StoreResult, Tx};
use totp_rs::{Algorithm, Builder, Secret, Totp};
use zeroize::Zeroizing;

use super::letter::Letter;
use super::{Client, SignIn, session, trail};
use crate::alert::sealing;
use crate::secret::key::Key;
use crate::secret::keyring::Keyring;
use crate::{ServiceError, Services, secret};

/// The alphabet of secrets and recovery codes: base32, without digits that look like letters.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Characters of a recovery code: 80 bits.
const CODE_CHARS: usize = 16;
/// Seconds of a time step (RFC 6238, 4.1).
const STEP_SECONDS: u64 = 30;
/// Time steps before and after the present one whose codes are right, because clocks differ (RFC 6238, 5.2).
const SKEW: u16 = 1;

/// Returns the name of the place to which the sealed secret of an account is bound.
fn bound_to(account: AccountId) -> String {
    format!("authenticator of {account}")
}

/// Returns random text over [`ALPHABET`].
fn base32(length: usize) -> String {
    // Each byte of a digest of 256 random bits is uniform, and so are its lower five bits.
    secret::digest(&secret::random_text(43))
        .iter()
        .cycle()
        .take(length)
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect()
}

fn totp(secret: &str) -> Option<Totp> {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_skew(SKEW)
        .with_step_duration(STEP_SECONDS)
        .with_secret(Secret::try_from_base32(secret).ok()?)
        .build()
        .ok()
}

/// Returns the time step of a code that is right now and later than `last`. A code of an accepted step was used, perhaps by somebody who
/// read it over a shoulder.
fn step_of(secret: &str, code: &str, last: i64, now: DateTime<Utc>) -> Option<i64> {
    let time = u64::try_from(now.timestamp()).ok()?;
    let step = totp(secret)?.check(code, time)?;
    i64::try_from(step).ok().filter(|step| *step > last)
}

/// Removes spaces and hyphens, which people type.
fn plain(code: &str) -> String {
    code.chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .take(100)
        .collect()
}

/// The digest of a recovery code.
fn code_digest(account: AccountId, code: &str) -> Vec<u8> {
    secret::digest(&format!(
        "recovery code {} of {account}",
        plain(code).to_uppercase()
    ))
}

/// What an account has as its second factor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// When it was switched on.
    pub since: DateTime<Utc>,
    /// How many recovery codes are left.
    pub codes_left: i64,
}

/// Returns the second factor of a session's account. None: it is off.
///
/// # Errors
/// If the database cannot be reached.
pub async fn state(services: &Services, own: &Session) -> Result<Option<State>, ServiceError> {
    let found = store::state(&services.reader(), own.account.id).await?;
    Ok(found.map(|(since, codes_left)| State { since, codes_left }))
}

/// A secret for an authenticator. It is shown once, and is not in use until a code confirms it.
pub struct Proposal {
    /// In base32, as people type it.
    pub secret: Zeroizing<String>,
    /// The address that authenticators read (`otpauth://…`).
    pub url: Zeroizing<String>,
}

/// Makes a new secret for an account. The caller has checked that the owner proved to be the owner lately.
///
/// # Errors
/// If the second factor is on already, the server has no key to seal the secret, or the database cannot be reached.
pub async fn propose(services: &Services, own: &Session) -> Result<Proposal, ServiceError> {
    let (account, now) = (&own.account, services.now());
    let fresh = Zeroizing::new(base32(32));
    let mut tx = services.store.begin().await?;
    let key = sealing::key(&services.keyring, &mut tx, now).await?;
    let sealed = key.seal(&fresh, &bound_to(account.id));
    if !store::propose(&mut tx, account.id, &sealed, key.id()).await? {
        return Err(ServiceError::Conflict(
            "the second factor is on already".to_owned(),
        ));
    }
    tx.commit().await?;
    let label = url::form_urlencoded::byte_serialize(account.email.as_bytes()).collect::<String>();
    let url = format!(
        "otpauth://totp/Deadbeat:{label}?secret={}&issuer=Deadbeat&algorithm=SHA1&digits=6&period={STEP_SECONDS}",
        *fresh
    );
    Ok(Proposal {
        secret: fresh,
        url: Zeroizing::new(url),
    })
}

/// Opens the secret of an account.
fn open(ring: &Keyring, stored: &Authenticator) -> Result<Zeroizing<String>, ServiceError> {
    let missing = |words: String| ServiceError::KeyMissing(format!("the second factor {words}"));
    let key = ring.get(&stored.key_id).ok_or_else(|| {
        missing(format!(
            "needs key {}, which this server does not have",
            stored.key_id
        ))
    })?;
    key.open(&stored.sealed, &bound_to(stored.account))
        .map_err(|damaged| missing(format!("cannot be checked: {damaged}")))
}

/// Switches the second factor on with a code of the new secret. Returns the recovery codes, which are shown once; None: the code is wrong. All
/// other sessions of the account end.
///
/// # Errors
/// If the second factor is on already, a key is missing, or the database cannot be reached.
pub async fn confirm(
    services: &Services,
    own: &Session,
    code: &str,
    client: &Client,
) -> Result<Option<Vec<String>>, ServiceError> {
    let (account, now) = (&own.account, services.now());
    let mut tx = services.store.begin().await?;
    deadbeat_store::people::account::lock(&mut tx, account.id).await?;
    let Some(stored) = store::lock(&mut tx, account.id).await? else {
        return Ok(None);
    };
    if stored.confirmed_at.is_some() {
        return Err(ServiceError::Conflict(
            "the second factor is on already".to_owned(),
        ));
    }
    let secret = open(&services.keyring, &stored)?;
    let Some(step) = step_of(&secret, &plain(code), stored.last_step, now) else {
        return Ok(None);
    };
    store::accept(&mut tx, account.id, step, now).await?;
    let codes = replace_codes(&mut tx, account.id).await?;
    step::end_of_account(&mut tx, account.id).await?;
    deadbeat_store::people::account::session::end_all(&mut tx, account.id, Some(own.id)).await?;
    trail::note(services, &mut tx, AccountAct::FactorOn, account.id, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::FactorOn, account.id, client);
    let letter = Letter::factor(services, account, "A second factor was switched on");
    services.desk.inform(services, letter);
    Ok(Some(codes))
}

async fn replace_codes(tx: &mut Tx, account: AccountId) -> Result<Vec<String>, ServiceError> {
    let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| base32(CODE_CHARS)).collect();
    let digests: Vec<Vec<u8>> = codes.iter().map(|code| code_digest(account, code)).collect();
    store::replace_codes(tx, account, &digests).await?;
    let grouped = codes.iter().map(|code| {
        let groups: Vec<&str> = (0..CODE_CHARS).step_by(4).map(|at| &code[at..at + 4]).collect();
        groups.join("-")
    });
    Ok(grouped.collect())
}

/// Makes new recovery codes in place of the old ones. None: the second factor is off. The caller has checked that the owner proved to be the
/// owner lately.
///
/// # Errors
/// If the database cannot be reached.
pub async fn renew_codes(
    services: &Services,
    own: &Session,
    client: &Client,
) -> Result<Option<Vec<String>>, ServiceError> {
    let account = own.account.id;
    let mut tx = services.store.begin().await?;
    let stored = store::lock(&mut tx, account).await?;
    if stored.is_none_or(|stored| stored.confirmed_at.is_none()) {
        return Ok(None);
    }
    let codes = replace_codes(&mut tx, account).await?;
    trail::note(services, &mut tx, AccountAct::RecoveryRenewed, account, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::RecoveryRenewed, account, client);
    Ok(Some(codes))
}

/// Switches the second factor off. The caller has checked that the owner proved to be the owner lately, with a code.
///
/// # Errors
/// If the database cannot be reached.
pub async fn switch_off(services: &Services, own: &Session, client: &Client) -> Result<(), ServiceError> {
    let account = own.account.id;
    let mut tx = services.store.begin().await?;
    deadbeat_store::people::account::lock(&mut tx, account).await?;
    if store::remove(&mut tx, account).await? {
        trail::note(services, &mut tx, AccountAct::FactorOff, account, client).await?;
        tx.commit().await?;
        trail::log(AccountAct::FactorOff, account, client);
        let letter = Letter::factor(services, &own.account, "The second factor was switched off");
        services.desk.inform(services, letter);
    }
    Ok(())
}

/// Switches the second factor of an account off, for the operator. False: there is no such account, or its second factor is off.
///
/// # Errors
/// If the database cannot be reached.
pub async fn remove_by_operator(services: &Services, email: &str) -> Result<bool, ServiceError> {
    let email = email.trim().to_lowercase();
    let found = deadbeat_store::people::account::by_email(&services.reader(), &email).await?;
    let Some((account, _)) = found else {
        return Ok(false);
    };
    let client = Client::operator();
    let mut tx = services.store.begin().await?;
    deadbeat_store::people::account::lock(&mut tx, account.id).await?;
    if !store::remove(&mut tx, account.id).await? {
        return Ok(false);
    }
    step::end_of_account(&mut tx, account.id).await?;
    trail::note(services, &mut tx, AccountAct::FactorOff, account.id, &client).await?;
    tx.commit().await?;
    trail::log(AccountAct::FactorOff, account.id, &client);
    Ok(true)
}

/// Checks a code of the second factor and uses it up, in the caller's transaction. True if the second factor is off.
async fn check(
    services: &Services,
    tx: &mut Tx,
    account: AccountId,
    code: &str,
    client: &Client,
) -> Result<bool, ServiceError> {
    let Some(stored) = store::lock(tx, account)
        .await?
        .filter(|stored| stored.confirmed_at.is_some())
    else {
        return Ok(true);
    };
    let (code, now) = (plain(code), services.now());
    if code.len() == CODE_CHARS {
        if !store::take_code(tx, account, &code_digest(account, &code)).await? {
            return Ok(false);
        }
        trail::note(services, tx, AccountAct::RecoveryUsed, account, client).await?;
        return Ok(true);
    }
    let secret = open(&services.keyring, &stored)?;
    let Some(step) = step_of(&secret, &code, stored.last_step, now) else {
        return Ok(false);
    };
    store::accept(tx, account, step, now).await?;
    Ok(true)
}

/// True if the second factor of an account is off, or this code is right. The code is used up.
pub(crate) async fn is_passed(
    services: &Services,
    account: AccountId,
    code: &str,
    client: &Client,
) -> Result<bool, ServiceError> {
    let mut tx = services.store.begin().await?;
    deadbeat_store::people::account::lock(&mut tx, account).await?;
    let is_passed = check(services, &mut tx, account, code, client).await?;
    if !is_passed {
        trail::note(services, &mut tx, AccountAct::FactorFailed, account, client).await?;
    }
    tx.commit().await?;
    if !is_passed {
        trail::log(AccountAct::FactorFailed, account, client);
    }
    Ok(is_passed)
}

/// Ends a sign-in with a code of the second factor, after the password or a mailed code.
///
/// # Errors
/// If a key is missing, or the database cannot be reached.
pub async fn enter(
    services: &Services,
    secret: &str,
    code: &str,
    client: &Client,
) -> Result<SignIn, ServiceError> {
    let (digest, now) = (secret::digest(secret), services.now());
    let mut tx = services.store.begin().await?;
    let taken = step::take_try(&mut tx, Kind::SecondFactor, &digest, now).await?;
    let Some(id) = taken.and_then(|step| step.account) else {
        return Ok(SignIn::Over);
    };
    // The try counts whatever comes next.
    tx.commit().await?;
    if services.guesses.take_factor(id, now).is_err() {
        // Whoever knows the password could otherwise begin again and again, and try five codes each time.
        trail::log(AccountAct::FactorFailed, id, client);
        return Ok(SignIn::Refused);
    }
    let mut tx = services.store.begin().await?;
    let Some((account, _)) = deadbeat_store::people::account::lock(&mut tx, id).await? else {
        return Ok(SignIn::Over);
    };
    if !check(services, &mut tx, id, code, client).await? {
        trail::note(services, &mut tx, AccountAct::FactorFailed, id, client).await?;
        tx.commit().await?;
        trail::log(AccountAct::FactorFailed, id, client);
        return Ok(SignIn::Refused);
    }
    if !step::end(&mut tx, &digest).await? {
        return Ok(SignIn::Over);
    }
    let session = session::begin(services, &mut tx, account.id, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::SignedIn, account.id, client);
    Ok(SignIn::Accepted(session))
}

/// Seals the secrets of authenticators anew with the first key (`deadbeat secrets rotate`). Returns how many were sealed, and how many do not
/// open.
///
/// # Errors
/// If the database is away. What was sealed stays sealed.
pub async fn reseal(store: &Store, ring: &Keyring, key: &Key) -> StoreResult<(usize, usize)> {
    let (mut sealed, mut unopened, mut after) = (0, 0, None);
    loop {
        let mut tx = store.begin().await?;
        let batch = store::lock_others(&mut tx, key.id(), after, 200).await?;
        let Some(last) = batch.last().map(|one| one.account) else {
            return Ok((sealed, unopened));
        };
        let fresh: Vec<(AccountId, String)> = batch
            .iter()
            .filter_map(|one| {
                let secret = open(ring, one).ok()?;
                Some((one.account, key.seal(&secret, &bound_to(one.account))))
            })
            .collect();
        store::reseal(&mut tx, &fresh, key.id()).await?;
        tx.commit().await?;
        sealed += fresh.len();
        unopened += batch.len() - fresh.len();
        after = Some(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of RFC 6238, appendix B, in base32.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn codes_are_those_of_the_rfc_and_work_once() {
        // The last six of the eight digits of the RFC's table.
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (2_000_000_000, "279037"),
        ] {
            let step = seconds / 30;
            assert_eq!(step_of(SECRET, code, 0, at(seconds)), Some(step), "{seconds}");
            assert_eq!(step_of(SECRET, code, step, at(seconds)), None, "used");
            assert_eq!(
                step_of(SECRET, code, 0, at(seconds + 30)),
                Some(step),
                "one step late"
            );
            assert_eq!(
                step_of(SECRET, code, 0, at(seconds - 30)),
                Some(step),
                "one step early"
            );
            for away in [-90, 90] {
                assert_eq!(step_of(SECRET, code, 0, at(seconds + away)), None, "{away}");
            }
        }
        for wrong in ["", "0", "28708", "2870820", "٢٨٧٠٨٢", "000000", "287082\0"] {
            assert_eq!(step_of(SECRET, wrong, 0, at(59)), None, "{wrong}");
        }
    }

    #[test]
    fn random_text_is_base32_and_every_letter_comes() {
        let text: String = (0..100).map(|_| base32(32)).collect();
        for letter in ALPHABET {
            assert!(text.contains(char::from(*letter)), "{letter}");
        }
        assert_ne!(base32(32), base32(32));
    }

    #[test]
    fn spaces_hyphens_and_case_do_not_matter_in_a_recovery_code() {
        let id = AccountId::generate();
        let digest = code_digest(id, "ABCD-EFGH-IJKL-MNOP");
        assert_eq!(code_digest(id, " abcd efgh ijkl mnop "), digest);
        assert_ne!(code_digest(AccountId::generate(), "ABCDEFGHIJKLMNOP"), digest);
    }
}
