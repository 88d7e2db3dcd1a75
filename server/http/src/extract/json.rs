//! JSON bodies: capped, and every fault says where and what is allowed.

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

/// A JSON body that is still to be read. Unknown fields are refused by the types that are read.
///
/// Extractors run side by side: read by one, a body's fault would be told before the key was looked at.
pub struct Json<T> {
    payload: Payload,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned> Json<T> {
    /// Reads it.
    ///
    /// # Errors
    /// It is too long, no JSON, or not what the type asks for.
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

/// For a field that may be left out but is never `null`: a client that sends `null` meant something, and must not be passed over.
///
/// # Errors
/// Whatever the field's own type refuses.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// For an instant that may be left out but is never `null`.
///
/// # Errors
/// It is not as RFC 3339 writes it: what the contract allows is taken, and no more.
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
/// It is longer, or the connection broke.
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

/// Reads JSON into a type.
///
/// # Errors
/// It is no JSON, or not what the type asks for.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would take a list for an object and go by the order of the fields.
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

/// A path as a JSON pointer (RFC 6901).
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
