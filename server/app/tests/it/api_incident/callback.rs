//! A service reports over HTTP that somebody acknowledged an incident.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::document::contract;
use crate::harness::{self, Harness};

const TOKEN: &str = "jsm-webhook-token-0123";

/// Returns the status, and the problem without the id of its request.
async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.bytes().await.unwrap();
    let Ok(mut problem) = serde_json::from_slice::<Value>(&body) else {
        assert!(body.is_empty(), "{}", String::from_utf8_lossy(&body));
        return (status, Value::Null);
    };
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(
        contract().faults("/components/schemas/Problem", &problem),
        [""; 0],
        "{problem}"
    );
    problem.as_object_mut().unwrap().remove("request_id");
    (status, problem)
}

/// Makes a project with a pager and an incident. Returns the address of the pager's callbacks and the path of the incident.
async fn paged(harness: &Harness) -> (String, String) {
    let settings = json!({"api_key": "eb243592-faa2-4ba2-a551-1afdf565c889", "webhook_token": TOKEN});
    let new = json!({"kind": "jira_service_management", "name": "On call", "settings": settings});
    let (status, channel) = harness.send(Method::POST, "/api/v1/channels", &new).await;
    assert_eq!(status, StatusCode::CREATED, "{channel}");
    assert_eq!(channel["settings"]["webhook_token"], "…0123");
    let monitor = harness
        .monitor(json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 60}, "channels": []}))
        .await;
    let fail = format!("{}/fail", monitor["ping_url"].as_str().unwrap());
    harness.client.get(&fail).send().await.unwrap();
    let incidents = harness.get("/api/v1/incidents").await;
    let project = harness.get("/api/v1/project").await;
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    (
        format!(
            "/callbacks/jira_service_management/{}/{}",
            id(&project),
            id(&channel)
        ),
        format!("/api/v1/incidents/{}", id(&incidents["incidents"][0])),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_acknowledges_and_one_that_proves_nothing_learns_nothing() {
    let harness = harness::start().await;
    let (path, incident) = paged(&harness).await;
    let key = incident.rsplit('/').next().unwrap();
    let body =
        json!({"action": "Acknowledge", "alert": {"alias": key, "username": "ann@example.org"}}).to_string();
    let bearer = format!("Bearer {TOKEN}");
    let post = |path: &str, authorization: &str, body: &str| {
        let request = harness.client.post(format!("{}{path}", harness.url));
        let request = request.header("Authorization", authorization);
        request.body(body.to_owned())
    };

    let (project, channel) = (path.split('/').nth(3).unwrap(), path.split('/').nth(4).unwrap());
    let unknown = Uuid::new_v4().to_string();
    let mut refusals = Vec::new();
    for (path, authorization) in [
        (path.clone(), "Bearer jsm-webhook-token-0124"),
        (path.clone(), TOKEN),
        (path.clone(), ""),
        (path.replace(channel, &unknown), &bearer),
        (path.replace(project, &unknown), &bearer),
        (path.replace(channel, "x"), &bearer),
        (path.replace("jira_service_management", "telegram"), &bearer),
        (path.replace("jira_service_management", "pagerduty"), &bearer),
        ("/callbacks/slack".to_owned(), &bearer),
    ] {
        let (status, problem) = answer(post(&path, authorization, &body)).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (StatusCode::FORBIDDEN, Some("bad_signature")),
            "{path}"
        );
        refusals.push(problem);
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "{refusals:#?}");
    for (request, status, code) in [
        (post(&path, &bearer, "{"), StatusCode::BAD_REQUEST, "invalid_json"),
        (
            post(&path, &bearer, &"x".repeat(262_145)),
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
        ),
        (
            harness.client.get(format!("{}{path}", harness.url)),
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
        ),
    ] {
        let (seen, problem) = answer(request).await;
        assert_eq!((seen, problem["code"].as_str()), (status, Some(code)));
    }
    assert_eq!(harness.get(&incident).await["acknowledged_at"], Value::Null);

    let (status, problem) = answer(post(&path, &bearer, &body)).await;

    assert_eq!((status, problem), (StatusCode::OK, Value::Null));
    let seen = harness.get(&incident).await;
    assert_eq!(
        seen["acknowledged_by"],
        "ann@example.org in Jira Service Management"
    );
    // An unknown incident gets the same answer.
    let body = body.replace(key, &unknown);
    assert_eq!(
        answer(post(&path, &bearer, &body)).await,
        (StatusCode::OK, Value::Null)
    );
    harness.stop().await;
}
