use super::*;
use serde_json::json;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn written_at() -> DateTime<Utc> {
    at("2026-03-01T02:03:04Z")
}

/// A message as version 0.1 stored it: without members, delay and the page of the cause.
fn of_the_first_version(kind: &str) -> Value {
    json!({
        "type": kind,
        "timestamp": "2026-01-02T02:15:00Z",
        "incident": {
            "id": "0198c0de-0000-7000-8000-000000000001",
            "project": {"id": "0198c0de-0000-7000-8000-000000000002", "name": "Shop"},
            "subject": {"kind": "monitor", "id": "0198c0de-0000-7000-8000-000000000003", "name": "nightly-report"},
            "cause": {"code": "MISSED", "summary": "nightly-report did not report."},
            "evidence": [{"at": "2026-01-01T02:00:07Z", "fact": "The last success."}, {"at": null, "fact": "Daily."}],
            "repair": [{"text": "See.", "command": "celery inspect active_queues"}, {"text": "Read.", "command": null}],
            "opened_at": "2026-01-02T02:15:00Z",
            "resolved_at": null,
            "acknowledged_at": null,
            "url": "https://deadbeat.example.org/",
        },
        "monitor": {
            "id": "0198c0de-0000-7000-8000-000000000003", "name": "nightly-report", "slug": "nightly-report",
            "tags": ["prod"], "status": "down", "schedule": {"kind": "interval", "seconds": 60},
            "schedule_summary": "every minute", "grace_seconds": 900, "next_due_at": "2026-01-02T02:00:00Z",
            "last_ping_at": null,
        },
    })
}

/// True if `new` has every field of `old`.
fn contains(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => old
            .iter()
            .all(|(key, old)| new.get(key).is_some_and(|new| contains(new, old))),
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(new, old)| contains(new, old))
        }
        _ => new == old,
    }
}

#[test]
fn what_older_versions_stored_is_read_and_written_without_a_loss() {
    let project = json!({"id": "0198c0de-0000-7000-8000-000000000002", "name": "Shop"});
    let stored = [
        of_the_first_version("incident.opened"),
        of_the_first_version("incident.reminder"),
        of_the_first_version("incident.resolved"),
        json!({"type": "channel.test", "timestamp": "2026-01-02T02:15:00Z", "incident": null, "monitor": null}),
        json!({
            "type": "channel.disabled", "timestamp": "2026-01-02T02:15:00Z", "reason": "answered 410",
            "channel": {"id": "0198c0de-0000-7000-8000-000000000004", "name": "pager", "kind": "webhook"},
            "project": project, "incident": null, "monitor": null,
        }),
        json!({
            "type": "blind_spell.notice", "timestamp": "2026-01-02T02:15:00Z", "monitors": 3, "summary": "Blind.",
            "blind_spell": {"started_at": "2026-01-01T02:15:00Z", "ended_at": "2026-01-02T02:15:00Z"},
            "project": project, "incident": null, "monitor": null,
        }),
        json!({
            "type": "channel.confirm", "timestamp": "2026-01-02T02:15:00Z", "site": "https://deadbeat.example.org",
            "url": "https://deadbeat.example.org/confirm/1", "expires": 1_767_320_100,
        }),
    ];
    for stored in stored {
        let message = Message::read(stored.clone(), written_at());

        assert!(!matches!(message.event, Event::Unread(_)), "{stored:#}");
        assert_eq!(message.at, at("2026-01-02T02:15:00Z"));
        assert_eq!(message.alert().event_type(), stored["type"]);
        let written = message.to_json();
        assert!(
            contains(&written, &stored),
            "{written:#}\nlacks some of\n{stored:#}"
        );
        assert_eq!(written["version"], 1);
        assert_eq!(Message::read(written, written_at()), message);
    }
}

#[test]
fn an_incident_that_names_no_known_severity_has_that_of_its_cause() {
    for (cause, severity, expected) in [
        ("MISSED", json!(null), Severity::Warning),
        ("BEAT_DOWN", json!(null), Severity::Critical),
        ("A_CAUSE_OF_LATER", json!(null), Severity::Warning),
        ("BEAT_DOWN", json!("info"), Severity::Info),
        ("BEAT_DOWN", json!("catastrophic"), Severity::Critical),
        ("BEAT_DOWN", json!({"level": 7}), Severity::Critical),
    ] {
        let mut stored = of_the_first_version("incident.opened");
        stored["incident"]["cause"]["code"] = json!(cause);
        if !severity.is_null() {
            stored["incident"]["severity"] = severity.clone();
        }

        let message = Message::read(stored, written_at());

        assert_eq!(
            message.incident().unwrap().severity(),
            expected,
            "{cause} {severity}"
        );
        assert_eq!(message.to_json()["incident"]["severity"], expected.as_str());
    }
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    let mut later = of_the_first_version("incident.opened");
    let expected = Message::read(later.clone(), written_at());
    later["version"] = json!(7);
    later["mood"] = json!("bad");
    later["incident"]["severity"] = json!({"level": "critical"});
    later["incident"]["cause"]["code"] = json!("A_CAUSE_OF_LATER");
    later["monitor"]["owner"] = json!(["ops"]);

    let message = Message::read(later, written_at());

    let incident = message.incident().unwrap();
    assert_eq!(incident.cause.code, "A_CAUSE_OF_LATER");
    assert_eq!(incident.evidence, expected.incident().unwrap().evidence);
}

#[test]
fn what_cannot_be_read_is_kept_as_it_stands() {
    for (stored, alert) in [
        (json!({}), Alert::Opened),
        (json!(null), Alert::Opened),
        (json!("x"), Alert::Opened),
        (json!([1]), Alert::Opened),
        (json!({"type": "incident.silenced"}), Alert::Opened),
        (json!({"type": "incident.resolved"}), Alert::Resolved),
        (
            json!({"type": "channel.disabled", "channel": 7}),
            Alert::ChannelDisabled,
        ),
        (json!({"incident": null, "monitor": {}}), Alert::Opened),
    ] {
        let message = Message::read(stored.clone(), written_at());

        assert_eq!(message.event, Event::Unread(stored.clone()));
        assert_eq!((message.at, message.alert()), (written_at(), alert), "{stored}");
        assert_eq!(message.to_json(), stored);
    }
}

#[test]
fn a_stored_command_that_is_not_safe_to_paste_is_dropped() {
    let mut stored = of_the_first_version("incident.opened");
    stored["incident"]["repair"][0]["command"] = json!("kill\n-9 1");

    let message = Message::read(stored, written_at());

    assert_eq!(message.incident().unwrap().repair[0].command, None);
}
