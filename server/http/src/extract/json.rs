//! JSON bodies of limited length. Each error names the place of the fault, and what is allowed.

use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use chrono::{DateTime, Utc};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, clip};
use deadbeat_domain::time::read_instant;
use futures::StreamExt;
use serde::de::{DeserializeOwned, Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

use crate::error::ApiError;
use crate::problem::Problem;

/// A JSON body that has not been read yet. The types that it is read into refuse unknown fields.
///
/// The extractor itself must not read the body: extractors run concurrently, so a fault of the body could be reported before the key is checked.
pub struct Json<T> {
    payload: Payload,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned> Json<T> {
    /// Reads and parses the body.
    ///
    /// # Errors
    /// If it is too long, is not JSON, or does not fit the type.
    pub async fn read(mut self) -> Result<T, ApiError> {
        let body = read(&mut self.payload, limits::JSON_BODY_BYTES).await?;
        parse(&body)
    }
}

impl<T> FromRequest for Json<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(Ok(Self {
            payload: payload.take(),
            of: PhantomData,
        }))
    }
}

/// Deserializes a field that may be missing but not `null`. A client that sends `null` has an intention, so do not ignore it.
///
/// # Errors
/// Those of the field's own type.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Deserializes an instant that may be missing but not `null`.
///
/// # Errors
/// If the instant is not in RFC 3339 form: the API allows no other.
pub fn given_instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match read_instant(&text) {
        Some(instant) => Ok(Some(instant)),
        None => Err(D::Error::custom(format!(
            "is {:?}; a time like 2026-03-29T00:00:00Z is allowed",
            clip(&text)
        ))),
    }
}

/// Reads a body up to a limit.
///
/// # Errors
/// If the body is longer, or the connection breaks.
pub async fn read(payload: &mut Payload, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk
            .map_err(|error| ApiError::new(Problem::InvalidJson, format!("the body broke off: {error}")))?;
        if body.len() + chunk.len() > limit {
            return Err(ApiError::new(
                Problem::BodyTooLarge,
                format!("at most {limit} bytes are read"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Parses JSON into a type.
///
/// # Errors
/// If the bytes are not JSON, or do not fit the type.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would accept a list for an object, and assign its members by the order of the fields.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => ApiError::fields(vec![FieldError::new("", "is a list; an object is allowed")]),
            Err(error) => ApiError::new(Problem::InvalidJson, error.to_string()),
        });
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().clone();
        let error = error.into_inner();
        if error.is_data() {
            ApiError::fields(vec![FieldError::new(pointer(&path), error.to_string())])
        } else {
            ApiError::new(Problem::InvalidJson, error.to_string())
        }
    })?;
    reader
        .end()
        .map_err(|error| ApiError::new(Problem::InvalidJson, error.to_string()))?;
    Ok(value)
}

/// Formats a path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}
