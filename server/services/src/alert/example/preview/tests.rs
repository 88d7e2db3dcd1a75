use super::*;
use crate::alert::delivery::senders::KINDS;

fn settings_of(kind: &dyn Kind) -> Settings {
    let settings = example_settings(kind.name()).unwrap_or_else(|| panic!("{}: its page", kind.name()));
    Settings::new(kind.name(), settings.as_object().unwrap().clone())
}

/// Everything that a preview shows.
fn text(preview: &Preview) -> String {
    let requests = preview.requests.iter().map(|request| {
        let body = String::from_utf8_lossy(&request.body);
        format!(
            "{} {} {:?} {body}\n",
            request.method, request.url, request.headers
        )
    });
    let mail = preview
        .mail
        .iter()
        .map(|mail| format!("{}\n{}\n{}", mail.subject, mail.text, mail.html));
    requests.chain(mail).collect()
}

/// A text without the ways in which formats write `_`.
fn spoken(text: &str) -> String {
    // A form writes a space as `+`.
    text.replace("\\\\_", " ")
        .replace("\\_", " ")
        .replace(['_', '+'], " ")
}

/// A body that is encrypted for its receiver shows nothing, and is another one each time.
fn is_unreadable(preview: &Preview) -> bool {
    preview
        .requests
        .iter()
        .any(|request| std::str::from_utf8(&request.body).is_err())
}

#[tokio::test]
async fn every_kind_shows_every_cause_and_every_event() {
    for kind in KINDS {
        for cause in Cause::ALL {
            let preview = of_settings(*kind, settings_of(*kind), example::of(Alert::Opened, cause))
                .await
                .unwrap();

            assert_eq!(preview.unsent, None, "{} {cause:?}", kind.name());
            assert!(
                is_unreadable(&preview) || spoken(&text(&preview)).contains(&spoken(cause.as_str())),
                "{} {cause:?}: {}",
                kind.name(),
                text(&preview)
            );
            assert_eq!(preview.mail.is_some(), kind.name() == "email");
            assert_eq!(preview.requests.is_empty(), kind.name() == "email");
        }
        for alert in Alert::ALL {
            let preview = of_settings(*kind, settings_of(*kind), example::of(alert, Cause::Missed))
                .await
                .unwrap();

            let says = !preview.requests.is_empty() || preview.mail.is_some();
            assert_eq!(
                preview.unsent.is_none(),
                says,
                "{} {alert:?}: {preview:?}",
                kind.name()
            );
            assert_ne!(preview.unsent.as_deref(), Some(""), "{} {alert:?}", kind.name());
        }
    }
}

#[tokio::test]
async fn a_preview_is_the_same_each_time() {
    for kind in KINDS {
        let one = of_settings(
            *kind,
            settings_of(*kind),
            example::of(Alert::Opened, Cause::BeatDown),
        )
        .await
        .unwrap();
        let other = of_settings(
            *kind,
            settings_of(*kind),
            example::of(Alert::Opened, Cause::BeatDown),
        )
        .await
        .unwrap();
        if !is_unreadable(&one) {
            assert_eq!(one.to_json(), other.to_json(), "{}", kind.name());
        }
    }
}

#[test]
fn a_body_that_is_no_text_is_shown_in_base64() {
    let preview = Preview {
        requests: vec![Request {
            method: "POST".to_owned(),
            url: "https://push.example.org/1".to_owned(),
            headers: vec![("ttl".to_owned(), "60".to_owned())],
            body: vec![0xff, 0x00],
        }],
        mail: None,
        unsent: None,
    };

    assert_eq!(
        preview.to_json()["requests"][0],
        json!({
            "method": "POST", "url": "https://push.example.org/1", "headers": [{"name": "ttl", "value": "60"}],
            "body": null, "body_base64": "/wA=",
        })
    );
}

#[tokio::test]
async fn every_kind_keeps_its_limits_with_names_as_long_as_they_may_be() {
    for kind in KINDS {
        for alert in Alert::ALL {
            let message = example::with_long_names(example::of(alert, Cause::BeatDown));
            let preview = of_settings(*kind, settings_of(*kind), message).await.unwrap();
            let size: usize = preview.requests.iter().map(|request| request.body.len()).sum();
            assert!(
                kind.name() == "webhook" || size < 40_000,
                "{} {alert:?}: {size}",
                kind.name()
            );
        }
    }
}
