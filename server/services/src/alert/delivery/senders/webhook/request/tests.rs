use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::incident::cause::Cause;
use serde_json::json;

use super::*;

const URL: &str = "https://hooks.example.org/in/S3CRET?token=abc";

fn id() -> DeliveryId {
    DeliveryId("0198c0de-0000-7000-8000-000000000001".parse().unwrap())
}

fn form(more: &Value) -> Form {
    let mut settings = json!({"url": URL});
    settings
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let settings = Settings::new("webhook", settings.as_object().unwrap().clone());
    let form: Form = settings.read().unwrap();
    assert_eq!(form.check(), [], "{more}");
    form
}

async fn prepared(more: &Value, alert: Alert) -> Prepared {
    prepare(form(more), id(), example::of(alert, Cause::Missed)).await
}

fn texts(more: &Value) -> Texts {
    form(more).texts()
}

fn body(prepared: &Prepared) -> &str {
    std::str::from_utf8(&prepared.body).unwrap()
}

fn content_type(prepared: &Prepared) -> Option<&str> {
    prepared
        .headers
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn without_templates_the_message_goes_out_byte_for_byte() {
    for message in example::every_kind() {
        let prepared = prepare(form(&json!({})), id(), message.clone()).await;

        assert_eq!(body(&prepared), message.to_json().to_string());
        assert_eq!(content_type(&prepared), Some("application/json"));
        assert_eq!((prepared.method.as_str(), prepared.url.as_str()), ("POST", URL));
        assert_eq!((prepared.headers.len(), prepared.fault), (1, None));
    }
}

#[tokio::test]
async fn method_and_headers_are_those_of_the_settings() {
    for method in ["POST", "PUT", "PATCH", "GET"] {
        let settings =
            json!({"method": method, "headers": {"Authorization": "Bearer abc", "X-Team": "shop"}});
        let prepared = prepared(&settings, Alert::Opened).await;

        assert_eq!(prepared.method.as_str(), method);
        assert_eq!(prepared.headers["authorization"], "Bearer abc");
        assert_eq!(prepared.headers["x-team"], "shop");
        assert!(prepared.headers["authorization"].is_sensitive());
        assert_eq!(prepared.body.is_empty(), method == "GET");
        assert_eq!(content_type(&prepared).is_none(), method == "GET");
    }
}

#[tokio::test]
async fn each_kind_of_message_has_its_body() {
    let settings = json!({
        "content_type": "text/plain; charset=utf-8",
        "body": "other {{ type }}",
        "opened": "down {{ incident.subject.name }}",
        "resolved": "up {{ incident.subject.name }}",
    });
    for (alert, expected) in [
        (Alert::Opened, "down nightly-report"),
        (Alert::Reminder, "down nightly-report"),
        (Alert::Escalated, "down nightly-report"),
        (Alert::Resolved, "up nightly-report"),
        (Alert::Acknowledged, "other incident.acknowledged"),
        (Alert::Test, "other channel.test"),
        (Alert::ChannelDisabled, "other channel.disabled"),
        (Alert::BlindSpell, "other blind_spell.notice"),
    ] {
        let prepared = prepared(&settings, alert).await;
        assert_eq!(body(&prepared), expected);
        assert_eq!(content_type(&prepared), Some("text/plain; charset=utf-8"));
    }
    // Messages without a template have the standard form.
    let only_opened = json!({"opened": r#"{"x": {{ severity }}}"#});
    assert_eq!(
        body(&prepared(&only_opened, Alert::Opened).await),
        r#"{"x": "warning"}"#
    );
    for alert in [Alert::Resolved, Alert::Test] {
        let message = example::of(alert, Cause::Missed);
        assert_eq!(
            body(&prepared(&only_opened, alert).await),
            message.to_json().to_string()
        );
    }
}

#[tokio::test]
async fn a_path_stands_behind_the_address_and_on_its_host() {
    let path = "alerts/{{ incident.id }}/{{ 'close' if type == 'incident.resolved' else 'open' }}?name={{ words.headline }}";
    for (alert, url) in [
        (
            Alert::Opened,
            "https://hooks.example.org/in/S3CRET/alerts/0198c0de-0000-7000-8000-000000000003/open?token=abc&name=DOWN%3A%20nightly-report%20%28MISSED%29",
        ),
        (
            Alert::Resolved,
            "https://hooks.example.org/in/S3CRET/alerts/0198c0de-0000-7000-8000-000000000003/close?token=abc&name=RESOLVED%3A%20nightly-report%20after%2042%20min",
        ),
    ] {
        let prepared = prepared(&json!({"path": path}), alert).await;
        assert_eq!((prepared.url.as_str(), prepared.fault), (url, None));
    }
    for (path, url) in [
        ("", Ok("https://h.example.org:8443/a/?x=1")),
        ("b", Ok("https://h.example.org:8443/a/b?x=1")),
        ("/b/", Ok("https://h.example.org:8443/a/b/?x=1")),
        ("?y=2", Ok("https://h.example.org:8443/a/?x=1&y=2")),
        (
            "//evil.example.org/b",
            Ok("https://h.example.org:8443/a/evil.example.org/b?x=1"),
        ),
        (
            "@evil.example.org/b",
            Ok("https://h.example.org:8443/a/@evil.example.org/b?x=1"),
        ),
        (":80/b", Ok("https://h.example.org:8443/a/:80/b?x=1")),
        (
            "https://evil.example.org",
            Ok("https://h.example.org:8443/a/https://evil.example.org?x=1"),
        ),
        ("b/../../c", Err(())),
        ("b/%2e%2E/c", Err(())),
        ("./b", Err(())),
        ("b#c", Err(())),
        ("b c", Err(())),
        ("b\\..\\c", Err(())),
        ("b\nc", Err(())),
    ] {
        let joined = join("https://h.example.org:8443/a/?x=1", path);
        assert_eq!(joined.as_deref().map_err(drop), url, "{path:?}");
    }
    assert!(join("https://h.example.org/", &"x".repeat(8_000)).is_err());
}

/// A later version, or a changed row, may make a message that no rehearsal had.
#[tokio::test]
async fn a_template_that_fails_costs_the_alert_its_form_and_not_its_arrival() {
    for (settings, said) in [
        (
            json!({"body": "{\n \"x\": {{ incident.nothing }}}", "method": "PUT", "headers": {"X-Team": "shop"}}),
            "body, line 2, column 10: `incident.nothing` is undefined",
        ),
        (
            json!({"opened": "{{ words.text }}{{ words.text", "method": "PUT", "headers": {"X-Team": "shop"}}),
            "opened, line 1, column 26: unexpected end of input, expected end of variable block",
        ),
        (
            json!({"path": "a/{{ '..' }}/b", "method": "PUT", "headers": {"X-Team": "shop"}}),
            "path: the path that it makes has a part . or ..",
        ),
    ] {
        let prepared = prepared(&settings, Alert::Opened).await;

        let fault = prepared.fault.clone().unwrap();
        assert_eq!(fault, said);
        let mut sent: Value = serde_json::from_slice(&prepared.body).unwrap();
        let note = sent.as_object_mut().unwrap().remove("note").unwrap();
        assert_eq!(
            note,
            json!(format!(
                "A template of this channel failed ({said}), so this is the standard message."
            ))
        );
        assert_eq!(sent, example::of(Alert::Opened, Cause::Missed).to_json());
        assert_eq!(content_type(&prepared), Some("application/json"));
        assert_eq!((prepared.method.as_str(), prepared.url.as_str()), ("PUT", URL));
        assert_eq!(prepared.headers["x-team"], "shop");
    }
    // A GET would have no body, so the alert is posted.
    let get = prepared(&json!({"method": "GET", "path": "{{ nothing }}"}), Alert::Opened).await;
    assert_eq!(get.method.as_str(), "POST");
    assert!(body(&get).contains("\"note\":"));
    // A later version may write any fields.
    let stored = json!({"version": 2, "type": "incident.opened", "incident": {"id": 7}, "later": true});
    let message = Message::read(stored, "2026-01-02T02:15:00Z".parse().unwrap());
    let prepared = prepare(
        form(&json!({"opened": "{{ incident.cause.code }}"})),
        id(),
        message,
    )
    .await;
    assert!(prepared.fault.is_some());
    assert!(body(&prepared).contains("\"later\":true"));
}

#[test]
fn a_template_is_tried_out_with_every_kind_of_message() {
    assert_eq!(
        rehearse(&texts(&json!({"body": r#"{"text": "{{ words.headline }}"}"#}))),
        Ok(())
    );
    for (settings, pointer, at, message) in [
        // Only some messages, such as a test of the channel, have no incident.
        (
            json!({"body": r#"{"text": {{ incident.cause.code }}}"#}),
            "/settings/body",
            Some((1, 21)),
            "line 1, column 21: `incident.cause` is undefined (in channel.test)",
        ),
        // Acknowledged and resolved incidents have no link to acknowledge them.
        (
            json!({"body": "{{ incident.acknowledge_url|length }}", "content_type": "text/plain"}),
            "/settings/body",
            Some((1, 29)),
            "line 1, column 29: cannot calculate length of value of type none (in incident.acknowledged, MISSED)",
        ),
        // Only one cause reaches the faulty part.
        (
            json!({"opened": "[{% if incident.cause.code == 'HOST_LOST' %}oops{% endif %}]"}),
            "/settings/opened",
            Some((1, 45)),
            "line 1, column 45: the text that it makes is not JSON: expected value, near \"[oops]\" (in incident.opened, HOST_LOST)",
        ),
        // Only a name with a quote shows this.
        (
            json!({"opened": "{\"a\": {{ incident.subject.name|replace('\"', '') }}, {% if '\"' in incident.subject.name %}x{% endif %}\"b\": 1}"}),
            "/settings/opened",
            Some((1, 90)),
            "line 1, column 90: the text that it makes is not JSON: key must be a string, near \"🚀 */ --> ]]>\\\", x\\\"b\\\": 1}\" (in incident.opened, MISSED)",
        ),
        (
            json!({"path": "a/{{ project.name }}"}),
            "/settings/path",
            Some((1, 6)),
            "line 1, column 6: `project.name` is undefined (in channel.test)",
        ),
        (
            json!({"path": "a/{% if type == 'channel.test' %}..{% endif %}"}),
            "/settings/path",
            None,
            "the path that it makes has a part . or .. (in channel.test)",
        ),
        (
            json!({"resolved": "\n\n{{ oops", "content_type": "text/plain"}),
            "/settings/resolved",
            Some((3, 4)),
            "line 3, column 4: unexpected end of input, expected end of variable block",
        ),
        (
            json!({"resolved": "{{ words.text }}{{ 'x'|indent(64000) }}{{ '%64000s'|format(1) }}", "content_type": "text/plain"}),
            "/settings/resolved",
            None,
            "it makes more than 64000 bytes, which are the most that are allowed (in incident.resolved, MISSED)",
        ),
    ] {
        let faults = rehearse(&texts(&settings)).expect_err(&settings.to_string());
        let [fault] = faults.as_slice() else {
            panic!("{faults:?}")
        };
        assert_eq!(fault.message, message, "{settings}");
        assert_eq!(
            (fault.pointer.as_str(), fault.line_and_column),
            (pointer, at),
            "{settings}"
        );
        assert_eq!(fault.position.is_some(), at.is_some());
    }
    // Each template's first fault.
    let faults = rehearse(&texts(
        &json!({"opened": "{{ a }}", "resolved": "{{ b }}", "path": "{{ c }}"}),
    ))
    .unwrap_err();
    let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        ["/settings/opened", "/settings/resolved", "/settings/path"]
    );
}

/// The fault goes into the log and into the attempt, which a read key can see. The link acknowledges without a key.
#[tokio::test]
async fn the_fault_at_an_alert_shows_no_value_of_the_message() {
    let link = "https://d.example.org/acknowledge/1?token=S3CRETmarkS3CRET";
    let mut message = example::of(Alert::Opened, Cause::Missed);
    let Event::Incident(event) = &mut message.event else {
        panic!("an alert of an incident")
    };
    event.incident.acknowledge_url = Some(link.to_owned());
    let mut faults = 0;
    for source in [
        "{\"a\": \"{{ incident.acknowledge_url }}\" b}",
        "{\"a\": {{ incident.acknowledge_url }} {{ incident.acknowledge_url }}}",
        "{% set x %}{{ incident.acknowledge_url }}{% endset %}{{ x }}{{ x }}",
        "{{ incident[incident.acknowledge_url] }}",
        "{{ incident[incident.acknowledge_url].x }}",
        "{{ incident|attr(incident.acknowledge_url) }}",
        "{{ incident.acknowledge_url|int }}",
        "{{ incident.acknowledge_url|float }}",
        "{{ incident.acknowledge_url|round }}",
        "{{ incident.acknowledge_url|format(1) }}",
        "{{ '%d'|format(incident.acknowledge_url) }}",
        "{{ '%(x)s'|format(x=incident.acknowledge_url, y=nothing) }}",
        "{{ 1 - incident.acknowledge_url }}",
        "{{ -incident.acknowledge_url }}",
        "{{ incident.evidence|map(incident.acknowledge_url)|first }}",
        "{{ incident.evidence|select(incident.acknowledge_url)|first }}",
        "{{ incident.evidence|map(attribute=incident.acknowledge_url)|first }}",
        "{{ incident.evidence|sort(attribute=incident.acknowledge_url, reverse=incident.acknowledge_url) }}",
        "{{ incident.acknowledge_url|indent(incident.acknowledge_url) }}",
        "{{ incident.acknowledge_url|dictsort }}",
        "{% for x in incident.acknowledge_url.y %}{% endfor %}",
        "{{ incident.acknowledge_url[incident.acknowledge_url:] }}",
    ] {
        let form = form(&json!({"opened": source}));
        let prepared = prepare(form, id(), message.clone()).await;

        let Some(fault) = prepared.fault else {
            continue;
        };
        faults += 1;
        for part in ["S3CRET", "token", "acknowledge/", "https"] {
            assert!(!fault.contains(part), "{source}: {fault}");
        }
    }
    assert!(faults > 15, "{faults} of the templates fail");
}
