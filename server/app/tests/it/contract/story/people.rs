//! The story of keys with limits, and of members.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{expect, id};
use crate::contract::Caller;

/// Issues a key with limits, and replaces it.
pub async fn limited_keys(caller: &Caller<'_>) {
    let limits = json!({"name": "CI", "scope": "ping", "slugs": ["a"], "tags": ["b"], "networks": ["10.0.0.0/8"], "expires_at": "2099-01-01T00:00:00Z"});
    let key = caller.post("/api/v1/api-keys", &limits).await;
    let secret = key["key"].as_str().unwrap();
    for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT] {
        for prefix in ["/ping", ""] {
            for path in ["a", "a/fail", "snooze/1m", "a/snooze/1m"] {
                if method == Method::HEAD && path.contains("snooze") {
                    continue;
                }
                // The test's address is in none of the key's networks.
                let path = format!("{prefix}/{secret}/{path}");
                let answer = caller.call(method.clone(), &path).await;
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
            }
        }
    }
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

/// Changes and removes a member, and invites people. The project needs a viewer.
pub async fn members_and_invitations(caller: &Caller<'_>) {
    let far_too_long = json!({"role": "x".repeat(1_000_001)});
    let members = caller.pages("/api/v1/members", 1).await;
    expect(caller, Method::GET, "/api/v1/members?limit=0", &json!(null), 400).await;
    let viewer = members.iter().find(|one| one["role"] == "viewer").unwrap();
    let at = format!("/api/v1/members/{}", id(viewer));
    for (method, body, status) in [
        (Method::PATCH, json!({"role": "boss"}), 400),
        (Method::PATCH, far_too_long, 413),
        (Method::PATCH, json!({"role": "admin"}), 200),
        (Method::DELETE, json!(null), 204),
    ] {
        expect(caller, method, &at, &body, status).await;
    }
    let path = "/api/v1/invitations";
    expect(caller, Method::POST, path, &json!({"role": "boss"}), 400).await;
    let bound = json!({"role": "member", "email": "eve@example.org", "expires_in_seconds": 86400});
    let made = caller.post(path, &bound).await;
    caller.post(path, &json!({"role": "viewer"})).await;
    assert_eq!(caller.pages(path, 1).await.len(), 2);
    let bad = "/api/v1/invitations?cursor=x";
    expect(caller, Method::GET, bad, &json!(null), 400).await;
    let made = format!("{path}/{}", id(&made));
    expect(caller, Method::DELETE, &made, &json!(null), 204).await;
}
