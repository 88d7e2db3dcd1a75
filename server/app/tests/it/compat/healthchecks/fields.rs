//! Fields that are not as they must be, and the channels of a check.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Client, members, path_of};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_field_has_healthchecks_message_and_changes_nothing() {
    let harness = harness::start().await;
    let client = Client::new(&harness);
    let check = client.check(&json!({"name": "a", "slug": "a"})).await;
    let long = |length: usize| "x".repeat(length);
    let cases = [
        (json!({"name": long(101)}), "name is too long"),
        (json!({"name": null}), "name is not a string"),
        (json!({"name": 5}), "name is not a string"),
        (json!({"slug": long(101)}), "slug is too long"),
        (json!({"slug": "Upper"}), "slug does not match pattern"),
        (json!({"slug": null}), "slug is not a string"),
        (json!({"tags": ["a"]}), "tags is not a string"),
        (json!({"tags": "a\u{0}b"}), "tags has unexpected value"),
        (json!({"desc": 1.5}), "desc is not a string"),
        (json!({"timeout": 59}), "timeout is too small"),
        (json!({"timeout": true}), "timeout is too small"),
        (json!({"timeout": 31_536_001}), "timeout is too large"),
        (json!({"timeout": u64::MAX}), "timeout is too large"),
        (json!({"timeout": "60"}), "timeout is not a number"),
        (json!({"timeout": 60.5}), "timeout is not a number"),
        (json!({"timeout": null}), "timeout is not a number"),
        (json!({"grace": 59}), "grace is too small"),
        (json!({"grace": 31_536_001}), "grace is too large"),
        (json!({"grace": []}), "grace is not a number"),
        (
            json!({"schedule": "* * * *"}),
            "schedule is not a valid cron or OnCalendar expression",
        ),
        (
            json!({"schedule": "0 0 31 2 *"}),
            "schedule is not a valid cron or OnCalendar expression",
        ),
        (json!({"schedule": long(101)}), "schedule is too long"),
        (json!({"schedule": 5}), "schedule is not a string"),
        (json!({"tz": "Mars/Olympus"}), "tz is not a valid timezone"),
        (json!({"tz": ""}), "tz is not a valid timezone"),
        (json!({"manual_resume": 0}), "manual_resume is not a boolean"),
        (json!({"methods": "PUT"}), "methods has unexpected value"),
        (json!({"methods": null}), "methods has unexpected value"),
        (json!({"start_kw": long(201)}), "start_kw is too long"),
        (json!({"success_kw": 1}), "success_kw is not a string"),
        (json!({"failure_kw": long(201)}), "failure_kw is too long"),
        (json!({"subject": long(201)}), "subject is too long"),
        (json!({"subject_fail": false}), "subject_fail is not a string"),
        (
            json!({"filter_subject": "yes"}),
            "filter_subject is not a boolean",
        ),
        (json!({"filter_body": null}), "filter_body is not a boolean"),
        (
            json!({"filter_http_body": 1}),
            "filter_http_body is not a boolean",
        ),
        (
            json!({"filter_default_fail": 1}),
            "filter_default_fail is not a boolean",
        ),
        (json!({"channels": []}), "channels is not a string"),
        (json!({"unique": "name"}), "unique is not an array"),
        (
            json!({"unique": ["status"]}),
            "an item in 'unique' has unexpected value",
        ),
        (json!({"unique": [1]}), "an item in 'unique' has unexpected value"),
        // What we do not have.
        (
            json!({"manual_resume": true}),
            "manual_resume has unexpected value",
        ),
        (json!({"methods": "POST"}), "methods has unexpected value"),
        (
            json!({"filter_http_body": true}),
            "filter_http_body has unexpected value",
        ),
        // The first one in Healthchecks' order.
        (
            json!({"unique": 1, "grace": 1, "channels": 1}),
            "channels is not a string",
        ),
    ];
    let before = client.get("checks/").await.text;
    for path in ["checks/".to_owned(), path_of(&check)] {
        for (body, message) in &cases {
            let reply = client.post(&path, body).await;
            let expected = format!(r#"{{"error": "json validation error: {message}"}}"#);
            assert_eq!((reply.status, reply.text), (400, expected), "{path} {body}");
        }
        let parse = r#"{"error": "could not parse request body"}"#;
        let object = r#"{"error": "json validation error: value is not an object"}"#;
        for (body, message) in [
            ("{", parse),
            ("\u{feff}{}", parse),
            ("name=x", parse),
            ("[]", object),
            ("5", object),
            ("null", object),
        ] {
            let reply = client.raw(Method::POST, &path, Some(body.into())).await;
            assert_eq!((reply.status, reply.text.as_str()), (400, message), "{body}");
        }
        let reply = client
            .raw(Method::POST, &path, Some(b"{\"name\": \"\xff\"}".to_vec()))
            .await;
        assert_eq!((reply.status, reply.text.as_str()), (400, parse));
        let reply = client.raw(Method::POST, &path, Some(vec![b' '; 1_000_001])).await;
        assert_eq!(reply.status, 413);
    }
    let tags: Vec<String> = (0..51).map(|number| format!("tag-{number}")).collect();
    let reply = client
        .post(&path_of(&check), &json!({"tags": tags.join(" ")}))
        .await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    let other = client.check(&json!({"name": "b", "slug": "b"})).await;
    let reply = client.post(&path_of(&other), &json!({"slug": "a"})).await;
    let taken = (409, r#"{"error": "slug is used by another check"}"#);
    assert_eq!((reply.status, reply.text.as_str()), taken);
    client.raw(Method::DELETE, &path_of(&other), None).await;
    assert_eq!(client.get("checks/").await.text, before);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_named_by_id_or_name() {
    let harness = harness::start().await;
    let client = Client::new(&harness);
    let channel = async |name: &str| {
        let body = json!({"name": name, "kind": "webhook", "settings": {"url": "https://example.org/x"}});
        let (status, made) = harness.send(Method::POST, "/api/v1/channels", &body).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made["id"].as_str().unwrap().to_owned()
    };
    let (one, two, same, also) = (
        channel("One").await,
        channel("Two").await,
        channel("Same").await,
        channel("Same").await,
    );
    let mut all = [one.clone(), two.clone(), same.clone(), also.clone()];
    all.sort();

    let listed = client.get("channels/").await;
    let begin = format!(r#"{{"channels": [{{"id": "{one}", "name": "One", "kind": "webhook"}}, "#);
    assert!(listed.text.starts_with(&begin), "{}", listed.text);
    for version in ["v1", "v2", "v3"] {
        assert_eq!(client.of(version).get("channels/").await.text, listed.text);
    }
    // The address without the slash is our own API's, which pages.
    let ours = client.of("v1").get("channels").await.json();
    assert_eq!(members(&ours), ["channels", "next_cursor"]);

    let check = client.check(&json!({"name": "a"})).await;
    assert_eq!(check["channels"], "");
    let path = path_of(&check);
    let mut both = [one.clone(), two.clone()];
    both.sort();
    for (sent, shown) in [
        ("*".to_owned(), all.join(",")),
        (String::new(), String::new()),
        (one.clone(), one.clone()),
        ("Two".to_owned(), two.clone()),
        (format!("Two,{one}"), both.join(",")),
        (format!("One,{one}"), one.clone()),
    ] {
        let reply = client.post(&path, &json!({"channels": sent})).await;
        assert_eq!(
            (reply.status, &reply.json()["channels"]),
            (200, &json!(shown)),
            "{sent}"
        );
    }
    for (sent, message) in [
        ("Nobody", "invalid channel identifier: Nobody"),
        ("Same", "non-unique channel identifier: Same"),
        (",", "empty channel identifier"),
        ("One,", "empty channel identifier"),
        (" One", "invalid channel identifier:  One"),
    ] {
        let reply = client.post(&path, &json!({"channels": sent, "name": "b"})).await;
        let expected = format!(r#"{{"error": "{message}"}}"#);
        assert_eq!((reply.status, reply.text), (400, expected), "{sent}");
    }
    assert_eq!(client.get(&path).await.json()["name"], "a");
    harness.stop().await;
}
