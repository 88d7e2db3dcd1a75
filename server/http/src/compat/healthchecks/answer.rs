//! Answers in the form of Healthchecks: JSON as Python writes it, errors as `{"error": …}`, and headers for scripts of other sites.

use std::io;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use chrono::{DateTime, SecondsFormat, Utc};
use deadbeat_services::ServiceError;
use deadbeat_store::StoreError;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::error::{RETRY_AFTER_SECONDS, retry_after};

/// An answer, or the refusal that takes its place.
pub(super) type Answer = Result<HttpResponse, HttpResponse>;

/// Writes JSON as Python's `json.dumps` does: blanks behind separators, and only ASCII.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let is_plain = |c: char| c.is_ascii() && c != '\u{7f}';
        let mut rest = fragment;
        while let Some(at) = rest.find(|c| !is_plain(c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let Some(c) = rest[at..].chars().next() else {
                break;
            };
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Writes JSON in Healthchecks' form.
pub(super) fn written(body: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::new();
    // Only a broken pipe or a map with keys that are no texts could fail, and there are neither.
    let _ = body.serialize(&mut Serializer::with_formatter(&mut text, Python));
    text
}

/// Makes an answer of written JSON.
pub(super) fn of_json(status: u16, text: Vec<u8>) -> HttpResponse {
    HttpResponse::build(code(status))
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(text)
}

/// Makes an answer with a JSON body.
pub(super) fn json(status: u16, body: &impl Serialize) -> HttpResponse {
    of_json(status, written(body))
}

#[derive(Serialize)]
struct Fault<'a> {
    error: &'a str,
}

/// Makes an answer with an error.
pub(super) fn error(status: u16, text: &str) -> HttpResponse {
    json(status, &Fault { error: text })
}

/// Makes the answer to a field that is not as it must be.
pub(super) fn invalid(text: &str) -> HttpResponse {
    error(400, &format!("json validation error: {text}"))
}

/// Makes an answer without a body.
pub(super) fn empty(status: u16) -> HttpResponse {
    HttpResponse::build(code(status)).finish()
}

/// Makes an answer with a line of text.
pub(super) fn text(status: u16, line: &'static str) -> HttpResponse {
    HttpResponse::build(code(status))
        .content_type("text/plain; charset=utf-8")
        .body(line)
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Makes the answer of a server that cannot answer now.
pub(super) fn away() -> HttpResponse {
    let mut answer = error(503, "the server is busy or its database is away; try again");
    let wait = HeaderValue::from_static(RETRY_AFTER_SECONDS);
    answer.headers_mut().insert(header::RETRY_AFTER, wait);
    answer
}

/// Makes the answer to an error of the database. It is logged here, because it goes no further.
pub(super) fn of_store(failed: &StoreError) -> HttpResponse {
    tracing::warn!(error = %failed, "a request in the Healthchecks dialect failed");
    away()
}

/// Makes the answer to a refusal of a service.
pub(super) fn of_service(refused: &ServiceError) -> HttpResponse {
    match refused {
        ServiceError::NotFound(_) => error(404, "not found"),
        ServiceError::Refused(_) | ServiceError::KeyFault(_) => error(401, "wrong api key"),
        ServiceError::Invalid(faults) => match faults.first() {
            Some(fault) => invalid(&format!(
                "{} {}",
                fault.pointer.trim_start_matches('/'),
                fault.message
            )),
            None => invalid("the request has invalid fields"),
        },
        ServiceError::SlugTaken(_) => error(409, "slug is used by another check"),
        ServiceError::Conflict(_) => text(409, "check is not paused"),
        ServiceError::Limit { .. } => empty(403),
        ServiceError::TooMany {
            retry_after: wait, ..
        } => {
            let mut answer = error(429, "too many requests, try again later");
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(retry_after(*wait)));
            answer
        }
        ServiceError::Busy | ServiceError::KeyMissing(_) => away(),
        ServiceError::Store(failed) => of_store(failed),
    }
}

/// Adds the headers that let scripts of other sites read the answer.
pub(super) fn cors(answer: Answer, methods: &'static str) -> HttpResponse {
    let mut answer = answer.unwrap_or_else(|refusal| refusal);
    let headers = answer.headers_mut();
    let mut set =
        |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    // Healthchecks allows no Content-Type, so that no script of another site can send JSON. We allow it.
    set(header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Api-Key, Content-Type");
    set(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        match methods {
            "GET" => "GET, OPTIONS",
            "POST" => "POST, OPTIONS",
            "GET, POST" => "GET, POST, OPTIONS",
            _ => "GET, POST, DELETE, OPTIONS",
        },
    );
    set(header::ACCESS_CONTROL_MAX_AGE, "600");
    answer
}

/// Writes an instant as Healthchecks does, in whole seconds.
pub(super) fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, false)
}

/// Writes an instant as Healthchecks does, with microseconds if it has any.
pub(super) fn iso_micros(at: DateTime<Utc>) -> String {
    if at.timestamp_subsec_micros() == 0 {
        iso(at)
    } else {
        at.to_rfc3339_opts(SecondsFormat::Micros, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = serde_json::json!(["é\u{1f600}\u{7f}\n\"", {"a": 1, "b": null}, [], 0.02]);
        let text = written(&value);

        let expected = r#"["\u00e9\ud83d\ude00\u007f\n\"", {"a": 1, "b": null}, [], 0.02]"#;
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
