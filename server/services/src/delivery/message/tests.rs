use super::*;
use serde_json::json;

fn payload() -> Value {
    json!({
        "type": "incident.opened",
        "timestamp": "2026-01-02T02:15:00Z",
        "incident": {
            "id": "0198c0de-0000-7000-8000-000000000001",
            "project": {"id": "p", "name": "Shop"},
            "subject": {"kind": "monitor", "id": "m", "name": "nightly-report"},
            "cause": {"code": "MISSED", "summary": "nightly-report did not report: it was due at 02:00.",
                "url": "https://deadbeat.example.org/causes/MISSED"},
            "evidence": [
                {"at": "2026-01-01T02:00:07Z", "fact": "The last success was reported."},
                {"at": null, "fact": "It is expected every day at 02:00."},
            ],
            "repair": [
                {"text": "See which queues have workers.", "command": "celery -A shop inspect active_queues"},
                {"text": "Read the worker's log.", "command": null},
            ],
            "members": [],
            "opened_at": "2026-01-02T02:15:00Z",
            "resolved_at": null,
            "acknowledged_at": null,
            "url": "https://deadbeat.example.org/incidents/1",
        },
        "monitor": {
            "id": "m", "name": "nightly-report", "slug": "nightly-report", "tags": ["prod", "reports"], "status": "down",
            "schedule": {}, "schedule_summary": "every day at 02:00 (Europe/Berlin)", "grace_seconds": 900,
            "next_due_at": "2026-01-02T02:00:00Z", "last_ping_at": "2026-01-01T02:00:07Z",
        },
    })
}

#[test]
fn a_mail_tells_what_stopped_since_when_why_and_what_to_type() {
    let mail = render(&payload());

    assert_eq!(mail.subject, "[Deadbeat] DOWN: nightly-report (MISSED)");
    assert_eq!(
        mail.text,
        "\
DOWN: nightly-report (MISSED)

nightly-report did not report: it was due at 02:00.

Down since:      2026-01-02 02:15:00 UTC
Last heard from: 2026-01-01 02:00:07 UTC
Expected:        every day at 02:00 (Europe/Berlin), 15 min of grace
Tags:            prod, reports
Project:         Shop

What to do:
1. See which queues have workers.

       celery -A shop inspect active_queues
2. Read the worker's log.

What is known:
- 2026-01-01 02:00:07 UTC: The last success was reported.
- It is expected every day at 02:00.

What MISSED means, and how to prevent it:
https://deadbeat.example.org/causes/MISSED

https://deadbeat.example.org/incidents/1

-- 
Deadbeat, the dead man's switch for Celery
"
    );
    for part in [
        "<h1 class=\"bad\">DOWN: nightly-report (MISSED)</h1>",
        "<td>2026-01-02 02:15:00 UTC</td>",
        "<pre>celery -A shop inspect active_queues</pre>",
        "<a href=\"https://deadbeat.example.org/causes/MISSED\">What MISSED means, and how to prevent it</a>",
        "<a href=\"https://deadbeat.example.org/incidents/1\">",
        "prefers-color-scheme:dark",
    ] {
        assert!(mail.html.contains(part), "{part} is missing in {}", mail.html);
    }
}

#[test]
fn subjects_say_how_it_stands() {
    let mut reminder = payload();
    reminder["type"] = json!("incident.reminder");
    reminder["timestamp"] = json!("2026-01-02T04:20:00Z");
    let mut resolved = payload();
    resolved["type"] = json!("incident.resolved");
    resolved["incident"]["resolved_at"] = json!("2026-01-02T02:20:00Z");
    let mut beat = payload();
    beat["incident"]["subject"] = json!({"kind": "beat", "id": "b", "name": "shop"});
    beat["incident"]["cause"]["code"] = json!("BEAT_DOWN");
    let disabled =
        json!({"type": "channel.disabled", "channel": {"name": "pager"}, "reason": "answered 410"});

    let reminder_mail = render(&reminder);
    assert_eq!(
        reminder_mail.subject,
        "[Deadbeat] STILL DOWN: nightly-report (MISSED)"
    );
    assert!(
        reminder_mail
            .text
            .contains("Down since:      2026-01-02 02:15:00 UTC (2 h 5 min)"),
        "{}",
        reminder_mail.text
    );
    assert_eq!(
        render(&resolved).subject,
        "[Deadbeat] RESOLVED: nightly-report after 5 min"
    );
    assert_eq!(
        render(&beat).subject,
        "[Deadbeat] DOWN: Celery Beat shop (BEAT_DOWN)"
    );
    assert_eq!(
        render(&json!({"type": "channel.test"})).subject,
        "[Deadbeat] Test: this channel works"
    );
    assert_eq!(
        render(&disabled).subject,
        "[Deadbeat] Channel switched off: pager"
    );
    assert!(render(&disabled).text.contains("answered 410"));
    let blind = render(&json!({"type": "blind_spell.notice", "summary": "Deadbeat was blind for a day."}));
    assert_eq!(blind.subject, "[Deadbeat] Deadbeat could not listen for a while");
    assert!(blind.text.contains("blind for a day"), "{}", blind.text);
}

#[test]
fn a_payload_with_gaps_still_becomes_a_mail() {
    for gap in [
        json!({}),
        json!(null),
        json!("x"),
        json!({"type": "incident.resolved"}),
        json!({"incident": null, "monitor": {}}),
    ] {
        let mail = render(&gap);
        assert!(mail.subject.ends_with(": a monitor"), "{gap}: {}", mail.subject);
        assert!(!mail.text.is_empty() && mail.html.ends_with("</html>\n"));
    }
}

#[test]
fn names_cannot_break_out_of_their_place() {
    let mut evil = payload();
    let name = "<script>alert('1')</script>\r\nSubject: x\u{202e}\"&\0";
    evil["incident"]["subject"]["name"] = json!(name);
    evil["incident"]["cause"]["summary"] = json!(name);
    evil["incident"]["evidence"][0]["fact"] = json!(name);
    evil["incident"]["repair"][0] = json!({"text": name, "command": "<b>\u{1b}[2J\r\nsecond line"});
    evil["incident"]["members"] = json!([{"id": "1", "name": name}]);
    evil["incident"]["project"]["name"] = json!(name);
    evil["incident"]["url"] = json!("javascript:alert(1)");
    evil["monitor"]["tags"] = json!([name]);

    let mail = render(&evil);

    assert!(
        !mail.subject.contains(|c: char| c.is_control() || c == '\u{202e}'),
        "{:?}",
        mail.subject
    );
    assert!(
        !mail.html.contains("<script") && !mail.html.contains("<b>") && !mail.html.contains("javascript:"),
        "{}",
        mail.html
    );
    assert!(
        mail.html
            .contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; Subject: x &quot;&amp;"),
        "{}",
        mail.html
    );
    // A command that a shell or a terminal would take for something else is left out.
    assert!(
        !mail.html.contains("<pre>") && !mail.text.contains("second line"),
        "{}",
        mail.html
    );
    for body in [&mail.text, &mail.html] {
        assert!(!body.contains(|c: char| c.is_control() && c != '\n'), "{body:?}");
        assert!(!body.lines().any(|line| line.starts_with("Subject:")), "{body}");
    }
}

#[test]
fn a_mail_loads_nothing_from_elsewhere() {
    let html = render(&payload()).html;

    for loading in ["src=", "<link", "<img", "url(", "@import", "<script", "<iframe"] {
        assert!(!html.contains(loading), "{loading}");
    }
}

#[test]
fn long_names_are_cut_in_the_subject() {
    let mut long = payload();
    long["incident"]["subject"]["name"] = json!("x".repeat(10_000));

    let mail = render(&long);

    assert_eq!(mail.subject.chars().count(), SUBJECT_CHARS);
    assert!(mail.text.len() < 20_000);
}

#[test]
fn durations_are_told_in_their_two_largest_units() {
    for (seconds, words) in [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (65, "1 min 5 s"),
        (300, "5 min"),
        (7_500, "2 h 5 min"),
        (86_400, "1 d"),
        (273_600, "3 d 4 h"),
        (-5, "0 s"),
    ] {
        assert_eq!(span(TimeDelta::seconds(seconds)), words);
    }
}

#[test]
fn durations_are_told_as_the_sdks_audit_tells_them() {
    let rules: Value = serde_json::from_str(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/shared-rules.json"
    )))
    .unwrap();
    for case in rules["spans"].as_array().unwrap() {
        let seconds = case["seconds"].as_i64().unwrap();
        assert_eq!(span(TimeDelta::seconds(seconds)), case["words"].as_str().unwrap());
    }
}
