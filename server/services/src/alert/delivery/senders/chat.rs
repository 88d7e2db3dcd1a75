//! Chat services: an alert is a message in a room.

pub mod discord;
pub mod google_chat;
pub mod matrix;
pub mod mattermost;
#[cfg(test)]
pub(super) mod proofs;
pub mod rocket_chat;
mod room;
pub mod slack;
pub mod teams;
pub mod telegram;
pub(super) mod text;
pub mod zulip;

use chrono::TimeDelta;
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use deadbeat_domain::monitor::FieldError;
use serde_json::Value;
use url::Url;

use super::Outgoing;
use crate::alert::delivery::outbound::{Answer, OutboundError};
use crate::alert::delivery::story::Tone;

/// The most characters of a headline.
const HEADLINE_CHARS: usize = 200;
/// The most characters of a short message that follows the message of an incident.
const NOTICE_CHARS: usize = 600;

/// The colour of a message, as 0xRRGGBB.
fn color(tone: Tone) -> u32 {
    match tone {
        Tone::Bad => 0x00c2_261c,
        Tone::Good => 0x001a_7f37,
        Tone::Plain => 0x006b_7280,
    }
}

/// The colour of a message, as `#rrggbb`.
fn hex_color(tone: Tone) -> String {
    format!("#{:06x}", color(tone))
}

/// Returns the JSON of an answer of any status. Null: there is no answer, or its body is no JSON.
pub(super) fn said(answer: &Result<Answer, OutboundError>) -> Value {
    answer
        .as_ref()
        .ok()
        .and_then(|answer| serde_json::from_slice(&answer.body).ok())
        .unwrap_or_default()
}

/// Returns the status of an answer, if an answer came.
pub(super) fn status_of(answer: &Result<Answer, OutboundError>) -> Option<u16> {
    answer.as_ref().ok().map(|answer| answer.status)
}

/// The outcome if the service's own error means that no later attempt can succeed. It switches the channel off.
pub(super) fn dead(answer: &Result<Answer, OutboundError>, outgoing: &Outgoing, error: &str) -> Outcome {
    let status = status_of(answer);
    Outcome::Failed {
        reason: status.map_or(Reason::ClientError, Reason::of_status),
        code: status.map(i32::from),
        detail: format!(
            "answered {}: {}",
            status.unwrap_or_default(),
            outgoing.excerpt(error, 200)
        ),
    }
}

/// The outcome if the status is a success but the body is not: the service refused the message, or a proxy answered.
pub(super) fn odd(answer: &Answer, outgoing: &Outgoing) -> Outcome {
    Outcome::Retry {
        reason: Reason::ClientError,
        code: Some(answer.status.into()),
        detail: format!(
            "answered {}, but not as a success: {}",
            answer.status,
            outgoing.excerpt(&String::from_utf8_lossy(&answer.body), 200)
        ),
        retry_after: None,
    }
}

/// Puts the wait that the answer's body asks for, in milliseconds, into the outcome. None: the body asks for no wait.
fn waiting(mut outcome: Outcome, asked: Option<i64>) -> Outcome {
    if let Outcome::Retry { retry_after, .. } = &mut outcome {
        let asked = asked.filter(|asked| *asked >= 0);
        *retry_after = asked.and_then(TimeDelta::try_milliseconds).or(*retry_after);
    }
    outcome
}

/// Returns an address below a base address of the settings. Each part is encoded, so none can change the rest of the
/// path.
pub(super) fn below(base: &str, parts: &[&str]) -> Option<Url> {
    let mut url = Url::parse(base).ok()?;
    url.path_segments_mut().ok()?.pop_if_empty().extend(parts);
    Some(url)
}

/// Checks that an address of the settings can be the base of other addresses: it has no credentials, query or
/// fragment.
pub(super) fn check_base(field: &str, url: &str) -> Result<(), FieldError> {
    let is_base = Url::parse(url).is_ok_and(|url| {
        url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if is_base {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        "is not the address of a server, such as https://chat.example.org, without a user, ? and #",
    ))
}

/// Returns all faults that the checks found.
pub(super) fn all(checks: impl IntoIterator<Item = Result<(), FieldError>>) -> Result<(), Vec<FieldError>> {
    let faults: Vec<FieldError> = checks.into_iter().filter_map(Result::err).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Checks an id in decimal digits.
fn check_digits(field: &str, id: &str) -> Result<(), FieldError> {
    if (1..=20).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        "is not an id of 1 to 20 digits",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_address_stay_in_their_place() {
        for (base, parts, url) in [
            ("https://a.example", &["x", "y"][..], "https://a.example/x/y"),
            ("https://a.example/", &["x"], "https://a.example/x"),
            ("https://a.example/chat/", &["x"], "https://a.example/chat/x"),
            (
                "https://a.example/chat",
                &["!r:a/../b?c#d%"],
                "https://a.example/chat/!r:a%2F..%2Fb%3Fc%23d%25",
            ),
        ] {
            assert_eq!(below(base, parts).unwrap().as_str(), url);
        }
    }

    #[test]
    fn bases_end_with_their_path() {
        for (url, is_good) in [
            ("https://chat.example.org", true),
            ("http://chat.example.org:8008/base/", true),
            ("https://chat.example.org?x=1", false),
            ("https://chat.example.org/#x", false),
            ("https://user:password@chat.example.org", false),
            ("chat.example.org", false),
        ] {
            assert_eq!(check_base("url", url).is_ok(), is_good, "{url}");
        }
    }
}
