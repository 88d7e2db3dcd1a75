//! Removes a channel's secrets from the stored details of attempts: an endpoint knows the secrets and may repeat them
//! in its answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::alert::sealed::HIDDEN;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::senders;

/// Fewest characters of a secret that is searched for. A shorter one would match ordinary words.
const SECRET: usize = 6;
/// Fewest characters of a whole path, and of one part of an address.
const PATH: usize = 5;
const PART: usize = 8;

/// Returns the outcome without the channel's secrets in its detail.
pub(super) fn clean(mut outcome: Outcome, settings: &Settings, signing_secret: Option<&str>) -> Outcome {
    if let Outcome::Retry { detail, .. } | Outcome::Failed { detail, .. } = &mut outcome {
        *detail = Redactor::of(settings, signing_secret).hide(detail);
    }
    outcome
}

/// Finds secrets in texts.
#[derive(Default)]
pub(crate) struct Redactor {
    /// The longest first, because one may be a part of another.
    needles: Vec<String>,
}

impl Redactor {
    /// Makes a redactor for a channel whose settings are open.
    pub(crate) fn of(settings: &Settings, signing_secret: Option<&str>) -> Self {
        let mut this = Self::default();
        let secrets = senders::kind(settings.kind()).map_or(&[][..], senders::Kind::secrets);
        for value in secrets.iter().filter_map(|field| settings.get(field)) {
            this.add_value(value);
        }
        // HTTP Basic authentication encodes the name and the password as one text (RFC 7617).
        let text = |field| settings.get(field).and_then(Value::as_str);
        for (name, password) in [
            ("username", "password"),
            ("account_sid", "auth_token"),
            ("api_key_sid", "auth_token"),
        ] {
            if let (Some(name), Some(password)) = (text(name), text(password)) {
                this.add(&STANDARD.encode(format!("{name}:{password}")), SECRET);
            }
        }
        if let Some(secret) = signing_secret {
            this.add(secret, SECRET);
            // Libraries may show the secret without its prefix, such as `whsec_`.
            this.add(secret.split_once('_').map_or("", |(_, bare)| bare), SECRET);
        }
        this.needles
            .sort_unstable_by_key(|needle| std::cmp::Reverse(needle.len()));
        this.needles.dedup();
        this
    }

    /// Returns the text with `…` in place of each secret.
    pub(crate) fn hide(&self, text: &str) -> String {
        self.needles.iter().fold(text.to_owned(), |text, needle| {
            if text.contains(needle.as_str()) {
                text.replace(needle.as_str(), HIDDEN.encode_utf8(&mut [0; 4]))
            } else {
                text
            }
        })
    }

    fn add_value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add_secret(text),
            Value::Array(values) => values.iter().for_each(|value| self.add_value(value)),
            Value::Object(values) => values.values().for_each(|value| self.add_value(value)),
            _ => {}
        }
    }

    /// Adds a secret. If it is an address, also adds each part that may be a secret.
    fn add_secret(&mut self, text: &str) {
        self.add(text, SECRET);
        // `Bearer abc…` of a header: the receiver may repeat only the second word.
        if text.contains(' ') {
            text.split(' ').for_each(|word| self.add(word, PART));
        }
        let Ok(url) = Url::parse(text) else {
            return;
        };
        if !url.has_host() {
            return;
        }
        self.add(url.as_str(), SECRET);
        self.add(url.password().unwrap_or_default(), SECRET);
        self.add(url.username(), PART);
        let path = url.path();
        let query = url.query().unwrap_or_default();
        if !query.is_empty() {
            self.add(&format!("{path}?{query}"), PATH);
        }
        self.add(path, PATH);
        self.add(path.trim_matches('/'), PATH);
        self.add(query, PART);
        self.add(url.fragment().unwrap_or_default(), PART);
        for part in path.split('/') {
            self.add(part, PART);
        }
        for (_, value) in form_urlencoded::parse(query.as_bytes()) {
            self.add(&value, PART);
        }
        for pair in query.split('&') {
            self.add(pair.split_once('=').map_or(pair, |(_, value)| value), PART);
        }
    }

    fn add(&mut self, needle: &str, shortest: usize) {
        if needle.len() < shortest {
            return;
        }
        // Also search for the escaped forms in HTML and in JSON.
        for form in [needle.replace('&', "&amp;"), needle.replace('/', "\\/")] {
            if form != needle {
                self.needles.push(form);
            }
        }
        self.needles.push(needle.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::delivery::senders::webhook::WebhookSettings;
    use serde_json::json;

    #[test]
    fn each_form_of_a_secret_is_hidden() {
        let url =
            "https://me:hunter2@hooks.example.org/services/T024BE7LD/xyz-token?key=a%2Bsecret%2Bkey&x=1";
        let redactor = Redactor::of(
            &WebhookSettings { url: url.to_owned() }.into(),
            Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        );

        for (text, hidden) in [
            (url, "…"),
            (
                "POST /services/T024BE7LD/xyz-token?key=a%2Bsecret%2Bkey&x=1 failed",
                "POST … failed",
            ),
            (
                "POST /services/T024BE7LD/xyz-token?key=a%2Bsecret%2Bkey&amp;x=1 failed",
                "POST … failed",
            ),
            (
                r#"{"path":"\/services\/T024BE7LD\/xyz-token"}"#,
                r#"{"path":"…"}"#,
            ),
            ("Cannot POST services/T024BE7LD/xyz-token.", "Cannot POST …."),
            ("no team T024BE7LD", "no team …"),
            ("wrong key a+secret+key", "wrong key …"),
            ("wrong password hunter2", "wrong password …"),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "…"),
            (
                "no answer from hooks.example.org",
                "no answer from hooks.example.org",
            ),
        ] {
            assert_eq!(redactor.hide(text), hidden, "{text}");
        }
    }

    #[test]
    fn the_token_of_a_header_is_hidden_without_its_scheme() {
        let settings = json!({"url": "https://example.org/in", "headers": {"Authorization": "Bearer abcdefghijkl", "X-Key": "mnopqrst"}});
        let settings = Settings::new("webhook", settings.as_object().unwrap().clone());
        let redactor = Redactor::of(&settings, None);

        assert_eq!(
            redactor.hide("Bearer abcdefghijkl; no token abcdefghijkl; key mnopqrst; Bearer of news"),
            "…; no token …; key …; Bearer of news"
        );
    }

    #[test]
    fn words_are_left_alone_where_there_is_no_secret() {
        for url in [
            "https://example.org",
            "https://example.org/",
            "https://example.org/a",
        ] {
            let redactor = Redactor::of(&WebhookSettings { url: url.to_owned() }.into(), None);

            assert_eq!(
                redactor.hide("answered 404: a/b at /"),
                "answered 404: a/b at /",
                "{url}"
            );
        }
    }
}
