use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::alert::delivery::senders::{KINDS, Parts, Sender, SetupError};
use deadbeat_domain::monitor::FieldError;

/// A kind with secrets of several forms, as later kinds will have.
struct Example;

impl Kind for Example {
    fn name(&self) -> &'static str {
        "example"
    }

    fn check(&self, _: &Settings) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["token", "headers", "absent", "none"]
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

fn ring() -> Keyring {
    Keyring::load(&"07".repeat(32), None).unwrap()
}

fn opened() -> Opened {
    let settings = json!({
        "server": "chat.example.org",
        "token": "xoxb-1234567890-abcd",
        "headers": {"Authorization": "Bearer hunter2hunter2"},
        "none": null,
    });
    Opened {
        settings: Settings::of_row("example".to_owned(), settings).unwrap(),
        signing_secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
        confirm_secret: Some("confirmconfirm".to_owned()),
    }
}

struct Row {
    project: ProjectId,
    id: ChannelId,
    settings: Settings,
    sealed: Sealed,
}

impl<'a> From<&'a Row> for Stored<'a> {
    fn from(row: &'a Row) -> Self {
        Self {
            project: row.project,
            id: row.id,
            settings: &row.settings,
            sealed: Some(&row.sealed),
            signing_secret: None,
            confirm_secret: None,
        }
    }
}

fn sealed_row(ring: &Keyring) -> Row {
    let (project, id) = (ProjectId::generate(), ChannelId::generate());
    let (settings, sealed) = seal(&ring.first().unwrap(), &Example, project, id, &opened());
    Row {
        project,
        id,
        settings,
        sealed,
    }
}

#[test]
fn every_secret_of_a_channel_is_sealed_and_opens_again() {
    let ring = ring();
    let row = sealed_row(&ring);

    assert_eq!(
        row.settings.to_json(),
        json!({
            "server": "chat.example.org",
            "token": {"shown": "…abcd"},
            "headers": {"shown": {"Authorization": "…ter2"}},
            "none": null,
        })
    );
    let names: Vec<&String> = row.sealed.values.keys().collect();
    assert_eq!(
        names,
        [
            "confirm_secret",
            "settings.headers",
            "settings.token",
            "signing_secret"
        ]
    );
    let shown = serde_json::to_string(&row.sealed).unwrap();
    for secret in ["xoxb", "hunter2", "whsec_", "confirmconfirm"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let again = open(&ring, &row).ok().unwrap();
    assert!(again.settings == opened().settings);
    assert_eq!(
        (again.signing_secret, again.confirm_secret),
        (opened().signing_secret, opened().confirm_secret)
    );
}

#[test]
fn what_was_moved_cut_or_mixed_up_does_not_open() {
    let ring = ring();
    let damaged = |change: fn(&mut Row)| {
        let mut row = sealed_row(&ring);
        change(&mut row);
        open(&ring, &row).err().expect("it does not open").to_string()
    };

    for (fault, what) in [
        (
            damaged(|row| row.project = ProjectId::generate()),
            "another project",
        ),
        (damaged(|row| row.id = ChannelId::generate()), "another channel"),
        (
            damaged(|row| {
                let token = row.sealed.values["settings.token"].clone();
                row.sealed.values.insert("signing_secret".to_owned(), token);
            }),
            "another field",
        ),
        (
            damaged(|row| {
                let token = row.sealed.values.get_mut("settings.token").unwrap();
                token.truncate(token.len() - 4);
            }),
            "cut",
        ),
        (
            damaged(|row| {
                row.sealed.values.remove("settings.token");
            }),
            "gone",
        ),
    ] {
        assert!(
            fault.starts_with("cannot be opened: ") && fault.contains("damaged"),
            "{what}: {fault}"
        );
    }
    let row = sealed_row(&ring);
    let id = ring.first().unwrap().id().to_owned();
    let lost = open(&Keyring::default(), &row).err().unwrap();
    assert_eq!(lost.to_string(), format!("cannot be opened: key {id} is missing"));
}

#[test]
fn no_kind_needs_a_key_where_it_has_no_secret() {
    let ring = ring();
    for kind in KINDS {
        let (project, id) = (ProjectId::generate(), ChannelId::generate());
        let nothing = Opened {
            settings: Settings::new(kind.name(), serde_json::Map::new()),
            signing_secret: None,
            confirm_secret: None,
        };

        let (settings, sealed) = seal(&ring.first().unwrap(), *kind, project, id, &nothing);

        assert_eq!(sealed.key, None, "{}", kind.name());
        let row = Row {
            project,
            id,
            settings,
            sealed,
        };
        assert!(open(&Keyring::default(), &row).is_ok());
    }
}
