//! JSON bodies: capped, and every fault says where and what is allowed.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::FieldError;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::problem::Problem;

/// A JSON body. Unknown fields are refused by the types that are read.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let mut payload = payload.take();
        Box::pin(async move {
            let body = read(&mut payload, limits::JSON_BODY_BYTES).await?;
            parse(&body).map(Self)
        })
    }
}

/// Reads a body up to a limit.
///
/// # Errors
/// It is longer, or the connection broke.
pub async fn read(payload: &mut Payload, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| ApiError::new(Problem::InvalidJson, format!("the body broke off: {error}")))?;
        if body.len() + chunk.len() > limit {
            return Err(ApiError::new(Problem::BodyTooLarge, format!("at most {limit} bytes are read")));
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
    reader.end().map_err(|error| ApiError::new(Problem::InvalidJson, error.to_string()))?;
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
