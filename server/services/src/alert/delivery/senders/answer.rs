//! Turns answers of HTTP receivers into outcomes. Each kind names the statuses that are permanent.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use serde_json::Value;

use super::Outgoing;
use crate::alert::delivery::outbound::{Answer, OutboundError};

/// Number of characters of the receiver's answer that people see.
const EXCERPT_CHARS: usize = 200;

/// Judges an answer. Returns a success to the caller, whose kind may also judge its body.
///
/// # Errors
/// The outcome of an attempt that did not succeed. A status in `permanent` switches the channel off: no later attempt can succeed.
pub(super) fn judge(
    answer: Result<Answer, OutboundError>,
    outgoing: &Outgoing,
    permanent: &[u16],
) -> Result<Answer, Outcome> {
    let answer = answer.map_err(|error| unreached(&error))?;
    if (200..=299).contains(&answer.status) {
        return Ok(answer);
    }
    let (reason, code) = (Reason::of_status(answer.status), Some(i32::from(answer.status)));
    let detail = |what: String| match outgoing.excerpt(&String::from_utf8_lossy(&answer.body), EXCERPT_CHARS)
    {
        excerpt if excerpt.is_empty() => what,
        excerpt => format!("{what}: {excerpt}"),
    };
    if permanent.contains(&answer.status) {
        let detail = detail(match answer.status {
            410 => "answered 410 Gone: the receiver does not exist any more".to_owned(),
            status => format!("answered {status}"),
        });
        return Err(Outcome::Failed { reason, code, detail });
    }
    Err(match answer.status {
        300..=399 => Outcome::Retry {
            reason,
            code,
            detail: format!(
                "answered {}: redirects are not followed, so enter the final URL",
                answer.status
            ),
            retry_after: None,
        },
        status => Outcome::Retry {
            reason,
            code,
            detail: detail(format!("answered {status}")),
            retry_after: answer
                .retry_after
                .as_deref()
                .and_then(|value| retry_after(value, outgoing.attempted_at)),
        },
    })
}

/// The outcome of an attempt without an answer.
fn unreached(error: &OutboundError) -> Outcome {
    let (reason, code, detail) = (error.reason(), None, error.to_string());
    if error.is_permanent() {
        return Outcome::Failed { reason, code, detail };
    }
    Outcome::Retry {
        reason,
        code,
        detail,
        retry_after: None,
    }
}

/// The outcome of a success.
pub(super) fn sent(answer: &Answer, handle: Option<Value>) -> Outcome {
    Outcome::Sent {
        code: Some(answer.status.into()),
        handle,
    }
}

/// The outcome if the channel has settings of another kind.
pub(super) fn misfit(kind: &str) -> Outcome {
    unusable(&format!(
        "the channel's settings are not those of the kind {kind}"
    ))
}

/// The outcome if nothing can be sent with the channel's present settings.
pub(super) fn unusable(detail: &str) -> Outcome {
    Outcome::Failed {
        reason: Reason::Setup,
        code: None,
        detail: detail.to_owned(),
    }
}

/// Reads `Retry-After`: seconds, or an HTTP date (RFC 9110, 10.2.3).
pub(super) fn retry_after(value: &str, now: DateTime<Utc>) -> Option<TimeDelta> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A number with too many digits means a long wait, which the domain limits.
        return TimeDelta::try_seconds(value.parse().unwrap_or(i64::from(u32::MAX)));
    }
    let at = DateTime::parse_from_rfc2822(value).ok()?;
    Some((at.to_utc() - now).max(TimeDelta::zero()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use deadbeat_domain::ids::DeliveryId;

    use super::super::webhook::WebhookSettings;
    use crate::alert::outbox::samples;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const URL: &str = "https://hooks.example.org/services/T024/B024/abcdefghijkl";

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn outgoing() -> Outgoing {
        Outgoing {
            id: DeliveryId::generate(),
            attempted_at: at("2026-01-01T00:00:00Z"),
            message: samples::test(),
            settings: WebhookSettings { url: URL.to_owned() }.into(),
            signing_secret: Some(SECRET.to_owned()),
            handle: None,
            signed: super::super::Signed::default(),
        }
    }

    fn answer(status: u16, body: &str) -> Result<Answer, OutboundError> {
        Ok(Answer {
            status,
            retry_after: None,
            body: body.as_bytes().to_vec(),
        })
    }

    #[test]
    fn answers_mean_sent_retry_or_failed() {
        for status in [200, 201, 202, 204, 299] {
            let answer = judge(answer(status, "ok"), &outgoing(), &[410]).unwrap();
            assert_eq!(
                sent(&answer, None),
                Outcome::Sent {
                    code: Some(status.into()),
                    handle: None
                }
            );
        }
        for (status, label) in [
            (301, "redirect"),
            (400, "client_error"),
            (401, "auth"),
            (403, "auth"),
            (404, "client_error"),
            (408, "client_error"),
            (425, "client_error"),
            (429, "rate_limit"),
            (500, "server_error"),
            (502, "server_error"),
            (503, "server_error"),
            (599, "server_error"),
        ] {
            let outcome = judge(answer(status, ""), &outgoing(), &[410]).unwrap_err();
            assert!(
                matches!(outcome, Outcome::Retry { code: Some(_), .. }),
                "{status}"
            );
            assert_eq!(outcome.reason().map(Reason::as_str), Some(label), "{status}");
        }
        assert!(matches!(
            judge(answer(410, ""), &outgoing(), &[410]),
            Err(Outcome::Failed { code: Some(410), .. })
        ));
        assert!(matches!(
            judge(answer(404, ""), &outgoing(), &[404, 410]),
            Err(Outcome::Failed { code: Some(404), .. })
        ));
    }

    #[test]
    fn details_are_short_printable_and_without_the_secrets() {
        let bare = SECRET.strip_prefix("whsec_").unwrap();

        for (status, body, begin) in [
            (
                500,
                format!("no\r\n\0 {SECRET} and {bare} {}", "x".repeat(1_000)),
                "answered 500: no … and … xxx",
            ),
            // The cut must not leave the first half of a secret.
            (404, format!("{} {URL}", "x".repeat(170)), "answered 404: xxx"),
            (
                404,
                "Cannot POST /services/T024/B024/abcdefghijkl".to_owned(),
                "answered 404: Cannot POST …",
            ),
        ] {
            let Err(Outcome::Retry { detail, .. }) = judge(answer(status, &body), &outgoing(), &[]) else {
                panic!("{status}")
            };
            assert!(detail.starts_with(begin), "{detail}");
            assert!(
                !detail.contains("T024") && !detail.contains("services"),
                "{detail}"
            );
            assert!(
                detail.chars().count() <= 220 && !detail.contains(|c: char| c.is_control()),
                "{detail}"
            );
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = at("2026-01-01T00:00:00Z");

        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999", Some(i64::from(u32::MAX))),
            ("Thu, 01 Jan 2026 00:01:30 GMT", Some(90)),
            ("Wed, 31 Dec 2025 23:00:00 GMT", Some(0)),
            ("-5", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(
                retry_after(value, now),
                seconds.map(TimeDelta::seconds),
                "{value}"
            );
        }
    }
}
