//! Common code of the kinds that use HTTP: addresses in settings, and requests with JSON.

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::text::Text;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use url::Url;

use crate::alert::delivery::outbound::{Answer, Call, Outbound, OutboundError};

/// Checks an address of the settings. It may be a secret, so the fault does not repeat it.
///
/// # Errors
/// If no request can go to the address.
pub(super) fn check_url(field: &str, url: &str) -> Result<(), FieldError> {
    let has_scheme = url.starts_with("http://") || url.starts_with("https://");
    let is_plain = !url.chars().any(|c| c.is_whitespace() || c.is_control());
    if has_scheme && url.len() <= limits::ADDRESS_CHARS && is_plain {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        "is no http:// or https:// address of at most 2000 characters, without spaces",
    ))
}

/// Checks an address that a person enters now. It must also hold no invisible characters.
///
/// # Errors
/// See [`check_url`].
pub(super) fn check_new_url(field: &str, url: &str) -> Result<(), FieldError> {
    check_url(field, url)?;
    Text::name(url, limits::ADDRESS_CHARS)
        .map(drop)
        .map_err(|error| FieldError::of_text(&format!("/settings/{field}"), &error))
}

/// Checks a token, key or name of the settings. It may be a secret, so the fault does not repeat it.
///
/// # Errors
/// If it is empty, longer than `most` bytes, or holds other characters than visible ASCII.
pub(super) fn check_token(field: &str, token: &str, most: usize) -> Result<(), FieldError> {
    if (1..=most).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        format!("is not 1 to {most} visible ASCII characters without spaces"),
    ))
}

/// The fewest characters of a secret that proves callbacks: nobody guesses it.
pub(super) const PROOF_CHARS: usize = 16;

/// Checks an optional secret by which a service proves its callbacks. The fault does not repeat it.
///
/// # Errors
/// It is shorter than [`PROOF_CHARS`], longer than `most` bytes, or holds other characters than visible ASCII.
pub(super) fn check_proof(field: &str, secret: Option<&str>, most: usize) -> Result<(), FieldError> {
    let is_good = secret.is_none_or(|secret| {
        (PROOF_CHARS..=most).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic())
    });
    if is_good {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        format!("is not {PROOF_CHARS} to {most} visible ASCII characters without spaces"),
    ))
}

/// Returns the host of an address in the settings, as the address spells it.
pub(super) fn host_of(settings: &Settings, field: &str) -> Option<String> {
    let url = settings.get(field)?.as_str()?;
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

/// Refuses an address that this server never connects to.
///
/// # Errors
/// The field, and what is allowed there.
pub(super) fn check_reach(outbound: &Outbound, settings: &Settings, field: &str) -> Result<(), FieldError> {
    let Some(url) = settings.get(field).and_then(Value::as_str) else {
        return Ok(());
    };
    outbound
        .check(url)
        .map(drop)
        .map_err(|error| FieldError::new(format!("/settings/{field}"), error.to_string()))
}

/// Sends a request with a JSON body; null is no body. Reads the answer's body even for a success: see [`Call::reads_success`].
///
/// # Errors
/// See [`Outbound::send`].
pub(super) async fn call_json(
    outbound: &Outbound,
    method: Method,
    url: &str,
    headers: &[(&'static str, &str)],
    body: &Value,
) -> Result<Answer, OutboundError> {
    let mut map = HeaderMap::new();
    map.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    for (name, value) in headers {
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            OutboundError::Url(format!("the header {name} cannot hold the channel's setting"))
        })?;
        value.set_sensitive(true);
        map.insert(HeaderName::from_static(name), value);
    }
    let call = Call {
        method,
        url: url.to_owned(),
        headers: map,
        body: if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        },
        reads_success: true,
    };
    outbound.send(call).await
}
