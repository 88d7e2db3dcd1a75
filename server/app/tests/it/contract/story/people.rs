//! The story of keys with limits, and of members.

use reqwest::Method;
use serde_json::json;

use super::{expect, id};
use crate::contract::Caller;

/// Issues a key with limits, and replaces it.
pub async fn limited_keys(caller: &Caller<'_>) {
    let limits = json!({"name": "CI", "scope": "ping", "slugs": ["a"], "tags": ["b"], "networks": ["10.0.0.0/8"], "expires_at": "2099-01-01T00:00:00Z"});
    let key = caller.post("/api/v1/api-keys", &limits).await;
    let rotate = format!("/api/v1/api-keys/{}/rotate", id(&key));
    let far_too_long = json!({"overlap_seconds": "x".repeat(1_000_001)});
    for (body, status) in [
        (json!({"overlap_seconds": -1}), 400),
        (far_too_long, 413),
        (json!({"overlap_seconds": 0}), 201),
        (json!({}), 409),
    ] {
        expect(caller, Method::POST, &rotate, &body, status).await;
    }
    caller.call(Method::GET, "/api/v1/metrics").await;
}
