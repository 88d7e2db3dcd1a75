//! Sign-in by a code of one mail. The code works once, for ten minutes, in the browser that asked, and with few attempts.

use deadbeat_domain::ids::AccountId;
use deadbeat_domain::people::account::{AccountAct, CODE_DIGITS, CODE_TRIES, STEP, address};
use deadbeat_store::Tx;
use deadbeat_store::people::account::step::{self, Kind};
use rand::Rng;
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::letter::{Letter, Mailing};
use super::{Client, SignIn, proved, trail};
use crate::people::security_log::{TARGET, shown};
use crate::{ServiceError, Services, secret};

/// Writes a step of a sign-in that ends in ten minutes.
pub(crate) async fn insert_step(
    services: &Services,
    tx: &mut Tx,
    kind: Kind,
    secret: &str,
    account: Option<AccountId>,
) -> Result<(), ServiceError> {
    let now = services.now();
    let digest = secret::digest(secret);
    step::insert(tx, kind, &digest, account, CODE_TRIES, now, now + STEP).await?;
    Ok(())
}

/// Returns the digest of a code. The step's secret is in it: whoever copies the table cannot find the code by trying all of them.
fn code_digest(step: &str, code: &str) -> Vec<u8> {
    secret::digest(&format!("code {code} of {step}"))
}

fn new_code() -> String {
    let number = OsRng.unwrap_err().random_range(0..10_u64.pow(CODE_DIGITS as u32));
    format!("{number:0width$}", width = CODE_DIGITS)
}

/// Begins a sign-in by a mailed code, and sends the code if there is an account of this address. Returns the step's secret, for a cookie. The
/// answer is the same with and without an account, and comes before the server looks for the account.
///
/// # Errors
/// If this client asks too often, too many mails wait, or the database cannot be reached.
pub async fn ask(services: &Services, email: &str, client: &Client) -> Result<String, ServiceError> {
    services.desk.count(client, services.now())?;
    let secret = secret::random_text(43);
    let mut tx = services.store.begin().await?;
    insert_step(services, &mut tx, Kind::MailedCode, &secret, None).await?;
    tx.commit().await?;
    if let Some(email) = address(email) {
        let (work, client, step) = (services.clone(), client.clone(), secret.clone());
        services
            .desk
            .accept(services, async move { send(&work, &email, &step, &client).await })?;
    }
    Ok(secret)
}

async fn send(
    services: &Services,
    email: &str,
    step: &str,
    client: &Client,
) -> Result<Vec<Letter>, ServiceError> {
    let known = deadbeat_store::people::account::by_email(&services.reader(), email).await?;
    let Some((account, _)) = known else {
        return Ok(Vec::new());
    };
    let mailing = Mailing::to(services, &account.email, client).await?;
    let mut tx = services.store.begin().await?;
    if !mailing.allows(&mut tx, services.now()).await?
        || deadbeat_store::people::account::lock(&mut tx, account.id)
            .await?
            .is_none()
    {
        return Ok(Vec::new());
    }
    let code = new_code();
    let digest = code_digest(step, &code);
    if !step::set_code(&mut tx, &secret::digest(step), account.id, &digest).await? {
        return Ok(Vec::new());
    }
    trail::note(services, &mut tx, AccountAct::CodeAsked, account.id, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::CodeAsked, account.id, client);
    Ok(vec![Letter::code(services, &account, &code)])
}

/// Signs in with a mailed code.
///
/// # Errors
/// If the database cannot be reached.
pub async fn enter(
    services: &Services,
    secret: &str,
    code: &str,
    client: &Client,
) -> Result<SignIn, ServiceError> {
    let (digest, now) = (secret::digest(secret), services.now());
    let mut tx = services.store.begin().await?;
    let Some(step) = step::take_try(&mut tx, Kind::MailedCode, &digest, now).await? else {
        return Ok(SignIn::Over);
    };
    // The try counts whatever comes next.
    tx.commit().await?;
    let code: String = code
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .take(20)
        .collect();
    // Comparing digests of a secret reveals nothing by its time.
    let is_right = step
        .code_digest
        .is_some_and(|wanted| wanted == code_digest(secret, &code));
    let Some(id) = step.account.filter(|_| is_right) else {
        tracing::warn!(target: TARGET, action = "code_failed", address = shown(client.address()), "a wrong code of a mail");
        return Ok(SignIn::Refused);
    };
    let mut tx = services.store.begin().await?;
    let Some((account, _)) = deadbeat_store::people::account::lock(&mut tx, id).await? else {
        return Ok(SignIn::Over);
    };
    // Of two uses at once, one ends the step.
    if !step::end(&mut tx, &digest).await? {
        return Ok(SignIn::Over);
    }
    proved(services, tx, &account, client).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_eight_digits_and_its_digest_depends_on_the_browser() {
        for _ in 0..1_000 {
            let code = new_code();
            assert!(
                code.len() == CODE_DIGITS && code.bytes().all(|byte| byte.is_ascii_digit()),
                "{code}"
            );
        }
        assert_ne!(
            code_digest("one browser", "12345678"),
            code_digest("another", "12345678")
        );
    }
}
