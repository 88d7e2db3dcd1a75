use super::*;
use chrono::TimeDelta;
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::message::{Message, Phase};
use deadbeat_testkit::receiver::Request;
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, outbound, outgoing};
use crate::alert::outbox::samples::{self, Sample};

const ISSUES: &str = "/repos/octocat/Hello-World/issues";

fn settings() -> Value {
    json!({"token": "github_pat_0123456789", "repository": "octocat/Hello-World"})
}

fn sender(receiver: &Receiver) -> GithubSender {
    GithubSender {
        outbound: outbound(),
        api: receiver.url(""),
    }
}

async fn receiver() -> Receiver {
    let issue = json!({"id": 1, "number": 1347, "state": "open", "title": "Found a bug"});
    Receiver::answering(Reply::status(201).body(issue.to_string())).await
}

fn handle() -> Option<Value> {
    Some(json!({"issue": 1347}))
}

fn sent_with(handle: Option<Value>) -> Outcome {
    Outcome::Sent {
        code: Some(201),
        handle,
    }
}

/// Returns method, path and body of the requests from number `from` on.
fn calls(receiver: &Receiver, from: usize) -> Vec<(String, String, Value)> {
    let read = |request: &Request| {
        (
            request.method.clone(),
            request.path.clone(),
            serde_json::from_slice(&request.body).unwrap(),
        )
    };
    receiver.requests()[from..].iter().map(read).collect()
}

/// Checks the form by the pages named at the top of the module.
pub(super) async fn conforms() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    for message in samples::all() {
        let before = receiver.requests().len();

        let outcome = sender.send(outgoing(NAME, &settings(), message.clone())).await;

        let made = calls(&receiver, before);
        if message.alert() == Alert::Resolved {
            assert_eq!((outcome, made.len()), (nothing_to_do(), 0));
            continue;
        }
        assert_eq!(outcome, sent_with(handle()));
        let (method, path, body) = &made[0];
        assert_eq!((method.as_str(), path.as_str()), ("POST", ISSUES));
        check_form(body, &message);
        if message.alert() == Alert::Test {
            let closed = json!({"state": "closed", "state_reason": "completed"});
            assert_eq!(
                made[1..],
                [("PATCH".to_owned(), format!("{ISSUES}/1347"), closed)]
            );
        } else {
            assert_eq!(made.len(), 1);
        }
        let request = &receiver.requests()[before];
        for (name, value) in [
            ("authorization", "Bearer github_pat_0123456789"),
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", "2022-11-28"),
        ] {
            assert_eq!(request.header(name), Some(value));
        }
        assert!(request.header("user-agent").is_some());
    }
    let attempt = || outgoing(NAME, &settings(), samples::test());
    failures(&receiver, &sender, attempt, &PERMANENT).await;
    for (reply, reason, wait) in [
        (
            Reply::status(403)
                .header("Retry-After", "60")
                .body(r#"{"message":"You have exceeded a secondary rate limit."}"#),
            Reason::RateLimit,
            Some(60),
        ),
        (
            Reply::status(403).body(r#"{"message":"API rate limit exceeded for user ID 1."}"#),
            Reason::RateLimit,
            None,
        ),
        (
            Reply::status(403).body(r#"{"message":"Resource not accessible by personal access token"}"#),
            Reason::Auth,
            None,
        ),
        (
            Reply::status(422).body(r#"{"message":"Validation Failed"}"#),
            Reason::ClientError,
            None,
        ),
    ] {
        receiver.then(reply);
        let outcome = sender.send(attempt()).await;
        assert_eq!(outcome.reason(), Some(reason), "{outcome:?}");
        let Outcome::Retry { retry_after, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(retry_after, wait.map(TimeDelta::seconds));
    }
}

/// The issue is opened, gets comments, and is closed.
#[tokio::test]
async fn an_incident_is_one_issue() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    let comment = ("POST".to_owned(), format!("{ISSUES}/1347/comments"));
    let close = ("PATCH".to_owned(), format!("{ISSUES}/1347"));
    for (phase, handle, expected) in [
        (Phase::Opened, None, vec![("POST".to_owned(), ISSUES.to_owned())]),
        (Phase::Acknowledged, self::handle(), vec![comment.clone()]),
        (Phase::Reminder, self::handle(), vec![comment.clone()]),
        (Phase::Escalated, self::handle(), vec![comment.clone()]),
        (
            Phase::Resolved,
            self::handle(),
            vec![close.clone(), comment.clone()],
        ),
    ] {
        let before = receiver.requests().len();
        let message = Sample::monitor().message(phase, "2026-01-02T03:04:05Z");
        let headline = Story::of(&message).headline;
        let outgoing = Outgoing {
            handle,
            ..outgoing(NAME, &settings(), message)
        };

        assert_eq!(sender.send(outgoing).await, sent_with(self::handle()));

        let made = calls(&receiver, before);
        let called: Vec<(String, String)> = made
            .iter()
            .map(|(method, path, _)| (method.clone(), path.clone()))
            .collect();
        assert_eq!(called, expected, "{phase:?}");
        if phase != Phase::Opened {
            let body = made.last().unwrap().2["body"].as_str().unwrap();
            assert!(
                body.starts_with(&format!("**{}**\n", Markdown.escape(&headline))),
                "{body}"
            );
        }
    }
}

/// While the incident is open, a new issue replaces a deleted or moved one. The end of the incident opens no issue.
#[tokio::test]
async fn an_issue_that_is_gone_is_replaced() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    let attempt = |phase| Outgoing {
        handle: Some(json!({"issue": 7})),
        ..outgoing(
            NAME,
            &settings(),
            Sample::monitor().message(phase, "2026-01-02T03:04:05Z"),
        )
    };
    for status in [301, 404, 410] {
        receiver.then(Reply::status(status));
        let before = receiver.requests().len();
        assert_eq!(sender.send(attempt(Phase::Reminder)).await, sent_with(handle()));
        assert_eq!(calls(&receiver, before).len(), 2, "{status}");

        receiver.then(Reply::status(status));
        let before = receiver.requests().len();
        assert_eq!(sender.send(attempt(Phase::Resolved)).await, nothing_to_do());
        assert_eq!(calls(&receiver, before).len(), 1, "{status}");
    }
    // The token is invalid: no second issue, and the channel is switched off.
    receiver.then(Reply::status(401).body(r#"{"message":"Bad credentials"}"#));
    let outcome = sender.send(attempt(Phase::Reminder)).await;
    assert!(
        matches!(
            outcome,
            Outcome::Failed {
                reason: Reason::Auth,
                ..
            }
        ),
        "{outcome:?}"
    );
    // A comment that fails for now is retried. No new issue replaces the old one.
    receiver.then(Reply::status(502));
    let outcome = sender.send(attempt(Phase::Reminder)).await;
    assert!(
        matches!(outcome, Outcome::Retry { code: Some(502), .. }),
        "{outcome:?}"
    );
}

/// Deadbeat reads only the beginning of an answer. With the longest body, that is the whole answer.
#[test]
fn the_longest_body_leaves_room_for_the_answer() {
    let mut sample = Sample::storm();
    sample.incident.summary = "*".repeat(2_000);
    sample.incident.evidence = vec![sample.incident.evidence[1].clone(); 40];
    let story = Story::of(&sample.opened());

    let body = render(&story, &Markdown, Content::WithoutHeadline, BODY_BYTES);

    assert!(body.len() <= 5_000 && body.len() > 2_000, "{}", body.len());
    // In JSON, each character may take twice its bytes.
    assert!(Value::from(body).to_string().len() <= 10_000);
}

#[test]
fn texts_from_outside_cannot_mention_link_or_end_code() {
    let mut sample = Sample::monitor();
    let evil =
        "@octocat @org/team #12 org/repo#3 [click](https://evil.example) <img src=x> www.evil.example ```";
    sample.incident.summary = evil.to_owned();
    sample.incident.subject.name = evil.to_owned();
    let message = sample.opened();
    let story = Story::of(&message);

    let body = render(&story, &Markdown, Content::All, BODY_BYTES);
    let title = Plain.escape(&cut(&story.headline, TITLE_CHARS));

    for forbidden in [
        "@oct",
        "@org",
        "#12",
        "#3",
        " [click",
        "](https://evil",
        "https://evil",
        " <img",
        "www.evil",
        " ```",
    ] {
        assert!(!body.contains(forbidden), "{forbidden}: {body}");
    }
    assert!(!title.contains('@'), "{title}");
}

#[test]
fn settings_hold_a_token_and_a_repository() {
    for (settings, is_good) in [
        (settings(), true),
        (json!({"token": "t", "repository": "my-org/.github"}), true),
        (json!({"token": "t", "repository": "hello-world"}), false),
        (json!({"token": "t", "repository": "a/b/c"}), false),
        (json!({"token": "t", "repository": "../b"}), false),
        (json!({"token": "t", "repository": "a/.."}), false),
        (json!({"token": "t", "repository": "a/b?c"}), false),
        (
            json!({"token": "t", "repository": "https://github.com/a/b"}),
            false,
        ),
        (json!({"token": "t\r\nX-Evil: 1", "repository": "a/b"}), false),
        (json!({"token": "", "repository": "a/b"}), false),
        (json!({"token": "t"}), false),
        (json!({"repository": "a/b"}), false),
        (json!({"token": 7, "repository": "a/b"}), false),
        (json!({}), false),
    ] {
        let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
        let checked = Github.check_new(&settings);
        assert_eq!(checked.is_ok(), is_good, "{}: {checked:?}", settings.to_json());
        assert!(!format!("{checked:?}").contains("X-Evil"));
    }
}

/// Every field has the type and the limits of GitHub's reference.
fn check_form(body: &Value, message: &Message) {
    let story = Story::of(message);
    let (title, text) = (body["title"].as_str().unwrap(), body["body"].as_str().unwrap());
    assert_eq!(body.as_object().unwrap().len(), 2);
    assert!((1..=256).contains(&title.chars().count()));
    assert!((1..=65_536).contains(&text.chars().count()));
    if let Some(link) = &story.link {
        assert!(text.contains(&format!("[Open in Deadbeat](<{link}>)")), "{text}");
    }
    for command in story.steps.iter().filter_map(|step| step.command.as_ref()) {
        assert!(text.contains(&format!("```\n{command}\n```")), "{text}");
    }
}
