//! To a project, another project's ids do not exist: every operation answers 404 and changes nothing.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::caller::{Caller, dump};
use super::document::contract;
use super::things::Things;
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_one_project_can_be_seen_or_changed_by_another() {
    let harness = harness::start().await;
    let owner = Caller::new(&harness);
    let (their_key, their_ping_key) = harness.other_project().await;
    let other = Caller::with_key(&harness, &their_key);
    let things = Things::make(&harness).await;
    let Things {
        monitor,
        channel,
        schedule,
        incidents,
        keys,
        run,
        ..
    } = &things;
    let before = dump(&harness).await;

    // This covers every operation with an id in its path.
    let mut tried = 0;
    for operation in contract().operations() {
        if !operation.path.starts_with("/api/")
            || !operation.path.contains("{id}")
            || operation.method == "put"
        {
            continue;
        }
        let path = things.path(&operation.path);
        let body = json!({"name": "Mine now"});
        let answer = other.json(operation.http_method(), &path, &body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::NOT_FOUND, "not_found"),
            "{operation}: {}",
            answer.json
        );
        // The answer is the same as for an id that does not exist at all.
        let nobody = operation
            .path
            .replace("{id}", &Uuid::new_v4().to_string())
            .replace("{n}", "1");
        assert_eq!(
            other.json(operation.http_method(), &nobody, &body).await.json["detail"],
            answer.json["detail"],
            "{operation}"
        );
        // The owner of the id gets an answer.
        if operation.method == "get" {
            assert_eq!(
                owner.call(Method::GET, &path).await.status,
                StatusCode::OK,
                "{operation}"
            );
        }
        tried += 1;
    }
    assert!(tried >= 15, "{tried}");
    assert_eq!(dump(&harness).await, before);

    // Lists show nothing of the other project, whatever their filters are.
    let (monitor_id, channel_id) = (monitor["id"].as_str().unwrap(), channel["id"].as_str().unwrap());
    let incident_id = incidents["incidents"][0]["id"].as_str().unwrap();
    for path in [
        "/api/v1/monitors".to_owned(),
        "/api/v1/monitors?slug=job".to_owned(),
        format!("/api/v1/monitors?cursor={}", Uuid::max()),
        "/api/v1/channels".to_owned(),
        "/api/v1/incidents".to_owned(),
        format!("/api/v1/incidents?subject_id={monitor_id}"),
        "/api/v1/rotations".to_owned(),
        "/api/v1/escalation-policies".to_owned(),
        "/api/v1/deliveries".to_owned(),
        format!("/api/v1/deliveries?channel_id={channel_id}"),
        format!("/api/v1/deliveries?incident_id={incident_id}"),
        "/api/v1/beats".to_owned(),
        "/api/v1/workers".to_owned(),
        "/api/v1/queues".to_owned(),
        "/api/v1/brokers".to_owned(),
        "/api/v1/runs".to_owned(),
        "/api/v1/runs?task=shop.pay".to_owned(),
        "/api/v1/runs?task_id=pay-1".to_owned(),
        format!("/api/v1/runs?task_id={}", run["run_id"].as_str().unwrap()),
        "/api/v1/runs?state=open&worker=celery@w1".to_owned(),
        format!("/api/v1/runs?monitor_id={monitor_id}"),
        "/api/v1/tasks".to_owned(),
        // The answer contains only the position.
        "/api/v1/changes".to_owned(),
        "/api/v1/snoozes".to_owned(),
        "/api/v1/maintenance-windows".to_owned(),
    ] {
        let list = other.get(&path).await;
        let rows = list
            .as_object()
            .unwrap()
            .values()
            .find_map(Value::as_array)
            .unwrap();
        assert!(rows.is_empty(), "{path}: {list}");
    }
    // Each project has changes of its own, and no id of one project is in the feed of the other.
    let owners = owner.get("/api/v1/changes?after=0").await;
    let theirs = other.get("/api/v1/changes?after=0").await;
    let changed = |feed: &Value| -> Vec<String> {
        let changes = feed["changes"].as_array().unwrap();
        assert!(!changes.is_empty() && feed["must_reload"] == false, "{feed}");
        let id = |change: &Value| change["subject"]["id"].as_str().unwrap().to_owned();
        changes.iter().map(id).collect()
    };
    let (owners, theirs) = (changed(&owners), changed(&theirs));
    for noun in ["monitors", "channels", "incidents"] {
        assert!(owners.iter().any(|of| of == things.id(noun)), "{noun}");
    }
    assert!(theirs.iter().all(|id| !owners.contains(id)), "{theirs:?}");
    let their_keys = other.get("/api/v1/api-keys").await;
    assert!(their_keys["api_keys"].as_array().unwrap().iter().all(|key| {
        keys["api_keys"]
            .as_array()
            .unwrap()
            .iter()
            .all(|ours| ours["id"] != key["id"])
    }));
    assert_ne!(
        other.get("/api/v1/project").await["id"],
        owner.get("/api/v1/project").await["id"]
    );

    // The same run id means another run in the other project, whatever a client reports about it.
    let mut theirs = run.clone();
    theirs["id"] = json!(Uuid::new_v4());
    theirs["type"] = json!("run_finished");
    theirs["outcome"] = json!("failure");
    Caller::with_key(&harness, &their_ping_key)
        .post(
            "/api/v1/events",
            &json!({"sent_at": "2026-03-02T01:00:00Z", "events": [theirs]}),
        )
        .await;
    let path = format!("/api/v1/runs/{}", run["run_id"].as_str().unwrap());
    assert_eq!(owner.get(&path).await["state"], "started");
    assert_eq!(other.get(&path).await["state"], "failure");
    let before = dump(&harness).await;

    // Signals by key reach only the project of the key.
    let ping = harness
        .client
        .get(format!("{}/ping/{their_ping_key}/job", harness.url))
        .send()
        .await
        .unwrap();
    assert_eq!(ping.status(), StatusCode::NOT_FOUND);
    // A monitor cannot alert another project's channel.
    let body = json!({"name": "Spy", "schedule": schedule, "channels": [channel["id"]]});
    let answer = other.json(Method::POST, "/api/v1/monitors", &body).await;
    assert_eq!(
        (answer.status, answer.json["errors"][0]["pointer"].as_str()),
        (StatusCode::BAD_REQUEST, Some("/channels"))
    );
    assert_eq!(dump(&harness).await, before);

    // A rotation and an escalation policy cannot name it either.
    for (path, of_theirs, pointer) in [
        ("/api/v1/rotations", &things.rotation, "/people/0/channels/0"),
        (
            "/api/v1/escalation-policies",
            &things.policy,
            "/steps/0/targets/0/id",
        ),
    ] {
        let mut body = of_theirs.clone();
        for member in ["id", "created_at", "updated_at"] {
            body.as_object_mut().unwrap().remove(member);
        }
        let answer = other.json(Method::POST, path, &body).await;
        assert_eq!(
            (answer.status, answer.json["errors"][0]["pointer"].as_str()),
            (StatusCode::BAD_REQUEST, Some(pointer)),
            "{}",
            answer.json
        );
    }
    assert_eq!(dump(&harness).await, before);

    // The same slug means another monitor in the other project.
    let theirs = other
        .json(
            Method::PUT,
            "/api/v1/monitors/job",
            &json!({"name": "Theirs", "schedule": schedule}),
        )
        .await;
    assert_eq!(theirs.status, StatusCode::CREATED);
    let ours = owner.get(&format!("/api/v1/monitors/{monitor_id}")).await;
    assert_eq!(
        (ours["name"].as_str(), &ours["updated_at"]),
        (Some("Job"), &monitor["updated_at"])
    );
    let id = theirs.json["id"].as_str().unwrap();
    let answer = other
        .json(
            Method::PATCH,
            &format!("/api/v1/monitors/{id}"),
            &json!({"channels": [channel["id"]]}),
        )
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    harness.stop().await;
}
