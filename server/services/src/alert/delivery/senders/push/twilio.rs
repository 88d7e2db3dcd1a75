//! Common code of the kinds that use Twilio: the account, requests and errors.
//!
//! Sources: <https://www.twilio.com/docs/usage/requests-to-twilio>, <https://www.twilio.com/docs/usage/twilios-response>
//! and <https://www.twilio.com/docs/api/errors>.

use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use serde_json::Value;

use super::super::Outgoing;
use super::super::answer::judge;
use super::super::chat::{dead, odd, said, status_of};
use super::super::http::check_token;
use super::{basic, call_form};
use crate::alert::delivery::outbound::{Answer, Outbound};

/// The host of the API.
pub(super) const HOST: &str = "api.twilio.com";

/// The errors with which no message and no call can succeed before a person changes something: 10001 and 20005 the
/// account is not active, 20003 the login is wrong, 20404 there is no such account, 21210, 21606 and 21660 `from` is not
/// a number of the account, 21211 and 21217 `to` is no number, 21212 `from` is no number, 21216 Twilio does not call
/// `to`, 21219 and 21608 a trial account has not verified `to`, 21610 the person answered STOP, 21614 and 21635 `to` gets
/// no text messages, 21659 `from` is no number of Twilio, 21701 and 21703 the messaging service does not exist or has no
/// number. 21214 (`to` cannot be reached) and 21612 (no route to `to`) may pass, so they are not here.
pub(super) const PERMANENT: [i64; 19] = [
    10_001, 20_003, 20_005, 20_404, 21_210, 21_211, 21_212, 21_216, 21_217, 21_219, 21_606, 21_608, 21_610,
    21_614, 21_635, 21_659, 21_660, 21_701, 21_703,
];

/// The login of an account, as the settings name it.
pub(super) struct Account<'a> {
    /// The id of the account.
    pub(super) sid: &'a str,
    /// The id of an API key. None: the token is the account's own.
    pub(super) key: Option<&'a str>,
    /// The account's token, or the secret of the key.
    pub(super) token: &'a str,
}

impl Account<'_> {
    /// Checks the login.
    ///
    /// # Errors
    /// The first fault.
    pub(super) fn check(&self) -> Result<(), FieldError> {
        check_sid("account_sid", self.sid, "AC")?;
        self.key
            .map_or(Ok(()), |key| check_sid("api_key_sid", key, "SK"))?;
        check_token("auth_token", self.token, 200)
    }

    /// Makes a request below the account, and returns the answer with its JSON.
    ///
    /// # Errors
    /// The outcome of an attempt that did not succeed, with Twilio's code if its answer has one.
    pub(super) async fn post(
        &self,
        outbound: &Outbound,
        api: &str,
        path: &str,
        form: &[(&'static str, String)],
        outgoing: &Outgoing,
    ) -> Result<(Answer, Value), (Option<i64>, Outcome)> {
        let url = format!("{api}/2010-04-01/Accounts/{}/{path}.json", self.sid);
        let login = basic(self.key.unwrap_or(self.sid), self.token);
        let answer = call_form(outbound, &url, Some(&login), form).await;
        let said = said(&answer);
        let code = said["code"].as_i64();
        if let (Some(400..=499), Some(code)) = (status_of(&answer), code)
            && PERMANENT.contains(&code)
        {
            let message = said["message"].as_str().unwrap_or_default();
            let outcome = dead(&answer, outgoing, &format!("{code} {message}"));
            return Err((Some(code), outcome));
        }
        let answer = judge(answer, outgoing, &[]).map_err(|outcome| (code, outcome))?;
        if said["sid"].is_string() {
            Ok((answer, said))
        } else {
            Err((None, odd(&answer, outgoing)))
        }
    }
}

/// Checks an id of Twilio: two letters and 32 hexadecimal digits.
///
/// # Errors
/// If it is no such id. The fault does not repeat it: it may be a secret in the wrong field.
pub(super) fn check_sid(field: &str, sid: &str, prefix: &str) -> Result<(), FieldError> {
    let is_sid = sid
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_sid {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        format!("is not {prefix} and 32 hexadecimal digits"),
    ))
}
