use super::*;
use deadbeat_domain::alert::message::Phase;
use deadbeat_store::incident::member::Affected;
use serde_json::json;

use crate::alert::outbox::samples::{self, Sample};

#[test]
fn a_mail_reports_what_stopped_since_when_why_and_what_to_type() {
    let mail = render(&Sample::monitor().opened());

    assert_eq!(mail.subject, "[Deadbeat] DOWN: nightly-report (MISSED)");
    assert_eq!(
        mail.text,
        "\
DOWN: nightly-report (MISSED)

nightly-report did not report: it was due at 02:00.

Down since:  2026-01-02 02:15:00 UTC
Last report: 2026-01-01 02:00:07 UTC
Expected:    at 02:00 every day, Europe/Berlin, 15 min of grace
Tags:        prod, reports
Project:     Shop

What to do:
1. See which queues have workers.

       celery -A shop inspect active_queues
2. Read the worker's log.

What is known:
- 2026-01-01 02:00:07 UTC: The last success was reported.
- It is expected every day at 02:00.

What MISSED means, and how to prevent it:
https://deadbeat.example.org/causes/MISSED

https://deadbeat.example.org/

-- 
Deadbeat, the dead man's switch for Celery
"
    );
    for part in [
        "<h1 class=\"bad\">DOWN: nightly-report (MISSED)</h1>",
        "<td>2026-01-02 02:15:00 UTC</td>",
        "<pre>celery -A shop inspect active_queues</pre>",
        "<a href=\"https://deadbeat.example.org/causes/MISSED\">What MISSED means, and how to prevent it</a>",
        "<a href=\"https://deadbeat.example.org/\">",
        "prefers-color-scheme:dark",
    ] {
        assert!(mail.html.contains(part), "{part} is missing in {}", mail.html);
    }
}

#[test]
fn subjects_say_how_it_stands() {
    let sample = Sample::monitor();
    let reminder = sample.message(Phase::Reminder, "2026-01-02T04:20:00Z");
    let resolved = sample.message(Phase::Resolved, "2026-01-02T02:20:00Z");
    let beat = Sample::storm().opened();
    let disabled = samples::disabled();

    let reminder_mail = render(&reminder);
    assert_eq!(
        reminder_mail.subject,
        "[Deadbeat] STILL DOWN: nightly-report (MISSED)"
    );
    assert!(
        reminder_mail
            .text
            .contains("Down since: 2026-01-02 02:15:00 UTC (2 h 5 min)"),
        "{}",
        reminder_mail.text
    );
    assert_eq!(
        render(&resolved).subject,
        "[Deadbeat] RESOLVED: nightly-report after 5 min"
    );
    let long = render(&sample.message(Phase::LongDown, "2026-01-16T02:15:00Z"));
    assert_eq!(
        long.subject,
        "[Deadbeat] DOWN FOR 14 DAYS: nightly-report (MISSED)"
    );
    for step in [
        "If it stays broken for now, mute it",
        "/mute",
        "If nobody needs it any more, delete it.",
    ] {
        assert!(long.text.contains(step), "{step} in {}", long.text);
    }
    assert_eq!(
        render(&beat).subject,
        "[Deadbeat] DOWN: Celery Beat shop (BEAT_DOWN)"
    );
    assert_eq!(
        render(&samples::test()).subject,
        "[Deadbeat] Test: this channel works"
    );
    assert_eq!(
        render(&disabled).subject,
        "[Deadbeat] Channel switched off: pager"
    );
    assert!(render(&disabled).text.contains("answered 410"));
    let blind = render(&samples::blind());
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
        let mail = render(&Message::read(gap.clone(), samples::at("2026-01-02T02:15:00Z")));
        assert!(mail.subject.ends_with(": a monitor"), "{gap}: {}", mail.subject);
        assert!(!mail.text.is_empty() && mail.html.ends_with("</html>\n"));
    }
}

#[test]
fn names_cannot_break_out_of_their_place() {
    let mut evil = Sample::monitor();
    let name = "<script>alert('1')</script>\r\nSubject: x\u{202e}\"&\0";
    evil.incident.subject.name = name.to_owned();
    evil.incident.summary = name.to_owned();
    evil.incident.evidence[0].fact = name.to_owned();
    evil.incident.repair[0].text = name.to_owned();
    evil.project = name.to_owned();
    evil.affected = Some(Affected {
        first: vec![(evil.monitor.as_ref().unwrap().id, name.to_owned())],
        count: 1,
    });
    evil.monitor.as_mut().unwrap().tags = vec![name.to_owned()];
    // A message that an older version stored may hold these.
    let mut stored = evil.opened().to_json();
    stored["incident"]["repair"][0]["command"] = json!("<b>\u{1b}[2J\r\nsecond line");
    stored["incident"]["url"] = json!("javascript:alert(1)");

    let mail = render(&Message::read(stored, samples::at("2026-01-02T02:15:00Z")));

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
    // A command that a shell or a terminal would misread is left out.
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
    let html = render(&Sample::storm().opened()).html;

    for loading in ["src=", "<link", "<img", "url(", "@import", "<script", "<iframe"] {
        assert!(!html.contains(loading), "{loading}");
    }
}

#[test]
fn long_names_are_cut_in_the_subject() {
    let mut long = Sample::monitor();
    long.incident.subject.name = "x".repeat(10_000);

    let mail = render(&long.opened());

    assert_eq!(mail.subject.chars().count(), SUBJECT_CHARS);
    assert!(mail.text.len() < 20_000);
}

#[test]
fn a_storm_names_fifty_and_counts_the_rest() {
    let mail = render(&Sample::storm().opened());

    assert!(
        mail.text.contains("73 monitors are affected:\n- task-00\n"),
        "{}",
        mail.text
    );
    assert!(mail.text.contains("- task-49\n\nand 23 more\n"), "{}", mail.text);
    assert_eq!(mail.html.matches("<li>task-").count(), 50);
}
