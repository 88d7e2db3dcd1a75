//! The part of the story about rotations and escalation policies.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{expect, id};
use crate::contract::Caller;

/// Returns an example of the contract, with the given ids in the place of its own.
fn example(path: &str, ids: &[&Value]) -> Value {
    let example = super::contract()
        .part(&format!(
            "/paths/{path}/post/requestBody/content/application~1json/example"
        ))
        .to_string();
    let named = |text: String, (number, id): (usize, &&Value)| {
        let placeholder = format!("0192f0c1-7f00-7000-8000-{:012}", number + 1);
        text.replace(&placeholder, id.as_str().unwrap())
    };
    serde_json::from_str(&ids.iter().enumerate().fold(example, named)).unwrap()
}

pub(super) async fn on_call(caller: &Caller<'_>) {
    let hook =
        |name: &str| json!({"kind": "webhook", "name": name, "settings": {"url": "https://example.org/"}});
    let mut channels = Vec::new();
    for name in ["one", "two", "three"] {
        channels.push(caller.post("/api/v1/channels", &hook(name)).await["id"].clone());
    }
    let [one, two, three] = &channels[..] else {
        panic!()
    };

    let rotation = example("~1api~1v1~1rotations", &[one, two, three]);
    let rotation = caller.post("/api/v1/rotations", &rotation).await;
    let path = format!("/api/v1/rotations/{}", id(&rotation));
    assert_eq!(caller.get(&path).await, rotation);
    let nights = json!({"people": ["Ben"], "handover": "daily", "at": "00:00", "starts_on": "2026-10-05",
        "only": {"weekdays": ["sat", "sun"], "from": "22:00", "to": "06:00"}});
    let layers = json!([rotation["layers"][0], nights]);
    expect(caller, Method::PATCH, &path, &json!({"layers": layers}), 200).await;
    let at = caller
        .get(&format!("{path}/on-call?at=2026-12-25T12:00:00Z"))
        .await;
    assert_eq!(
        (
            &at["shift"]["person"]["name"],
            &at["shift"]["is_override"],
            &at["shift"]["ends_at"]
        ),
        (&json!("Ben"), &json!(true), &json!("2026-12-27T08:00:00Z"))
    );
    assert_eq!(at["next"]["starts_at"], at["shift"]["ends_at"]);
    caller.get(&format!("{path}/on-call")).await;
    let calendar = caller.call(Method::GET, &format!("{path}/calendar.ics")).await;
    assert!(calendar.bytes.starts_with(b"BEGIN:VCALENDAR\r\n"));

    let policies = "/api/v1/escalation-policies";
    let policy = example(
        "~1api~1v1~1escalation-policies",
        &[one, two, three, &rotation["id"]],
    );
    let policy = caller.post(policies, &policy).await;
    let policy_path = format!("{policies}/{}", id(&policy));
    assert_eq!(caller.get(&policy_path).await, policy);
    let default = json!({"name": "Default", "steps": policy["steps"]});
    let default = caller.post(policies, &default).await;
    expect(
        caller,
        Method::PATCH,
        &policy_path,
        &json!({"repeat_count": 5}),
        200,
    )
    .await;
    assert_eq!(caller.pages("/api/v1/rotations", 1).await.len(), 1);
    assert_eq!(caller.pages(policies, 1).await.len(), 2);

    // The server refuses to delete a rotation and a channel in use, and refuses a second default policy.
    expect(caller, Method::DELETE, &path, &json!(null), 409).await;
    let channel = format!("/api/v1/channels/{}", one.as_str().unwrap());
    expect(caller, Method::DELETE, &channel, &json!(null), 409).await;
    expect(caller, Method::PATCH, &policy_path, &json!({"match": null}), 409).await;
    let second = json!({"name": "Second", "match": null, "steps": policy["steps"]});
    expect(caller, Method::POST, policies, &second, 409).await;
    bad_input(caller, &path, &policy_path, &policy).await;

    expect(caller, Method::DELETE, &policy_path, &json!(null), 204).await;
    let default_path = format!("{policies}/{}", id(&default));
    expect(caller, Method::DELETE, &default_path, &json!(null), 204).await;
    expect(caller, Method::DELETE, &path, &json!(null), 204).await;
    for channel in &channels {
        let path = format!("/api/v1/channels/{}", channel.as_str().unwrap());
        expect(caller, Method::DELETE, &path, &json!(null), 204).await;
    }
}

/// The answer names the place of each fault, and the request changes nothing.
async fn bad_input(caller: &Caller<'_>, rotation: &str, policy: &str, whole: &Value) {
    let before = (caller.get(rotation).await, caller.get(policy).await);
    let nobody = Uuid::new_v4();
    let step = |kind: &str| json!([{"delay_seconds": 0, "targets": [{"kind": kind, "id": nobody}]}]);
    for (path, body, pointer) in [
        (rotation, json!({"people": []}), "/people"),
        (rotation, json!({"people": null}), "/people"),
        (rotation, json!({"timezone": "Mars/Olympus"}), "/timezone"),
        (
            rotation,
            json!({"people": [{"name": "Ann", "channels": [nobody]}, {"name": "Ben", "channels": [nobody]}]}),
            "/people/0/channels/0",
        ),
        (
            rotation,
            json!({"layers": [{"people": ["Ann"], "handover": "hourly", "at": "09:00", "starts_on": "2026-10-05"}]}),
            "/layers/0/handover",
        ),
        (policy, json!({"steps": []}), "/steps"),
        (policy, json!({"steps": step("channel")}), "/steps/0/targets/0/id"),
        (
            policy,
            json!({"steps": step("rotation")}),
            "/steps/0/targets/0/id",
        ),
        // If a policy could name a policy, policies could form a circle.
        (
            policy,
            json!({"steps": step("escalation_policy")}),
            "/steps/0/targets/0/kind",
        ),
    ] {
        let answer = caller.json(Method::PATCH, path, &body).await;
        assert_eq!(
            (
                answer.status.as_u16(),
                answer.json["errors"][0]["pointer"].as_str()
            ),
            (400, Some(pointer)),
            "{body}: {}",
            answer.json
        );
    }
    expect(
        caller,
        Method::POST,
        "/api/v1/rotations",
        &json!({"name": "x"}),
        400,
    )
    .await;
    let mut named = whole.clone();
    named["next"] = json!(nobody);
    expect(caller, Method::POST, "/api/v1/escalation-policies", &named, 400).await;
    for query in [
        format!("{rotation}/on-call?at=now"),
        format!("{rotation}/on-call?at=1969-12-31T00:00:00Z"),
        format!("{rotation}/on-call?when=2026-12-25T12:00:00Z"),
        "/api/v1/rotations?cursor=x".to_owned(),
        "/api/v1/escalation-policies?limit=0".to_owned(),
    ] {
        expect(caller, Method::GET, &query, &json!(null), 400).await;
    }
    assert_eq!((caller.get(rotation).await, caller.get(policy).await), before);
}
