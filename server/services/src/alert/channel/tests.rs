use std::sync::Arc;

use deadbeat_domain::alert::sealed;
use futures::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::alert::delivery::senders::{Parts, Sender, SetupError};
use crate::alert::sealing::Unopened;

/// A kind with a secret token and a public server address.
struct Chat;

impl Kind for Chat {
    fn name(&self) -> &'static str {
        "chat"
    }

    fn check(&self, _: &Settings) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["token"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        settings.get("server")?.as_str().map(str::to_owned)
    }

    fn sender(&self, _: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        unreachable!("nothing is sent here")
    }

    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        unreachable!("it is no real kind")
    }
}

fn settings(values: &Value) -> Settings {
    Settings::new("chat", values.as_object().unwrap().clone())
}

fn kept(opened: bool, given: &Value) -> Result<Value, ServiceError> {
    let clear = settings(&json!({"server": "chat.example.org", "token": "xoxb-1234567890-abcd"}));
    let stored = clear
        .clone()
        .with("token", sealed::placeholder(&json!("xoxb-1234567890-abcd")));
    let opened = if opened {
        Ok(Opened {
            settings: clear,
            signing_secret: None,
            confirm_secret: None,
        })
    } else {
        Err(Unopened::Missing("0123456789ab".to_owned()))
    };
    let given = given.as_object().unwrap().clone();
    with_kept_secrets(&Chat, &stored, &opened, given).map(Value::Object)
}

#[test]
fn a_secret_that_is_absent_or_masked_is_kept() {
    let whole = json!({"server": "chat.example.org", "token": "xoxb-1234567890-abcd"});
    for given in [
        json!({"server": "chat.example.org"}),
        json!({"server": "chat.example.org", "token": "…abcd"}),
    ] {
        assert_eq!(kept(true, &given).unwrap(), whole, "{given}");
    }
    let new = json!({"server": "other.example.org", "token": "xoxb-new"});
    for is_opened in [true, false] {
        assert_eq!(kept(is_opened, &new).unwrap(), new);
    }
}

/// Otherwise a member who may change a channel could read its secrets on a server of their own.
#[test]
fn a_kept_secret_goes_to_no_other_host() {
    for given in [
        json!({"server": "thief.example.org"}),
        json!({"server": "thief.example.org", "token": "…abcd"}),
    ] {
        let Err(ServiceError::Invalid(faults)) = kept(true, &given) else {
            panic!("{given} was taken");
        };
        assert_eq!(faults[0].pointer, "/settings/token");
    }
}

#[test]
fn a_secret_that_cannot_be_opened_must_be_given_anew() {
    let refused = kept(false, &json!({"server": "chat.example.org"})).unwrap_err();

    assert_eq!(
        refused.to_string(),
        "the channel cannot be opened: key 0123456789ab is missing; enter settings.token again"
    );
}
