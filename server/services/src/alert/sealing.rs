//! The secrets of channels. Deadbeat seals them before it stores them, and opens them when it sends.
//!
//! A kind declares its secret settings in [`Kind::secrets`]; sealing, masks and `PATCH` follow from that. Each
//! ciphertext is bound to its project, channel and field. A ciphertext that somebody copies to another row does not
//! open there.

pub mod keeper;
pub mod rotation;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::sealed::{self, Field, Sealed};
use deadbeat_domain::ids::{ChannelId, ProjectId};
use deadbeat_store::alert::channel::Channel;
use deadbeat_store::alert::claim::Claimed;
use deadbeat_store::alert::sealed::Secrets;
use deadbeat_store::{StoreResult, Tx};
use serde_json::Value;
use thiserror::Error;

use crate::ServiceError;
use crate::alert::delivery::senders::{self, Kind};
use crate::secret::key::Key;
use crate::secret::keyring::Keyring;

/// A channel's settings and secrets as plain text. Only for sending, and for sealing them again.
#[derive(Clone)]
pub struct Opened {
    /// The settings, as the kind's own type reads them.
    pub settings: Settings,
    /// Signs the messages of the channel.
    pub signing_secret: Option<String>,
    /// Signs the link of a confirmation mail.
    pub confirm_secret: Option<String>,
}

/// Why a channel cannot be opened, as a text for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unopened {
    /// This process does not have the key.
    #[error("cannot be opened: key {0} is missing")]
    Missing(String),
    /// A ciphertext does not open with its key.
    #[error("cannot be opened: {0} is damaged, or was moved from another channel")]
    Damaged(String),
}

/// A channel's secrets as they are stored.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    project: ProjectId,
    id: ChannelId,
    settings: &'a Settings,
    sealed: Option<&'a Sealed>,
    signing_secret: Option<&'a String>,
    confirm_secret: Option<&'a String>,
}

impl<'a> From<&'a Channel> for Stored<'a> {
    fn from(channel: &'a Channel) -> Self {
        Self {
            project: channel.project_id,
            id: channel.id,
            settings: &channel.settings,
            sealed: channel.sealed.as_ref(),
            signing_secret: channel.signing_secret.as_ref(),
            confirm_secret: channel.confirm_secret.as_ref(),
        }
    }
}

impl<'a> From<&'a Claimed> for Stored<'a> {
    fn from(row: &'a Claimed) -> Self {
        Self {
            project: row.project_id,
            id: row.channel_id,
            settings: &row.settings,
            sealed: row.sealed.as_ref(),
            signing_secret: row.signing_secret.as_ref(),
            confirm_secret: row.confirm_secret.as_ref(),
        }
    }
}

impl<'a> From<&'a Secrets> for Stored<'a> {
    fn from(row: &'a Secrets) -> Self {
        Self {
            project: row.project_id,
            id: row.id,
            settings: &row.settings,
            sealed: row.sealed.as_ref(),
            signing_secret: row.signing_secret.as_ref(),
            confirm_secret: row.confirm_secret.as_ref(),
        }
    }
}

/// Opens the secrets of a channel. Secrets stored as plain text are returned unchanged: they were never sealed, or an
/// older version wrote them after the sealing.
///
/// # Errors
/// If the key is missing, or a ciphertext does not open.
pub fn open<'a>(ring: &Keyring, stored: impl Into<Stored<'a>>) -> Result<Opened, Unopened> {
    let stored = stored.into();
    let mut opened = Opened {
        settings: stored.settings.clone(),
        signing_secret: stored.signing_secret.cloned(),
        confirm_secret: stored.confirm_secret.cloned(),
    };
    if let Some((id, sealed)) = stored
        .sealed
        .and_then(|sealed| Some((sealed.key.as_ref()?, sealed)))
    {
        let key = ring.get(id).ok_or_else(|| Unopened::Missing(id.clone()))?;
        for (name, text) in &sealed.values {
            // A later version may seal fields that this version does not know.
            let Some(field) = Field::parse(name) else {
                continue;
            };
            let damaged = || Unopened::Damaged(name.clone());
            let open = || {
                key.open(text, &field.bound_to(stored.project, stored.id))
                    .map_err(|_| damaged())
            };
            match field {
                Field::SigningSecret if opened.signing_secret.is_none() => {
                    opened.signing_secret = Some(open()?.to_string());
                }
                Field::ConfirmSecret if opened.confirm_secret.is_none() => {
                    opened.confirm_secret = Some(open()?.to_string());
                }
                Field::Setting(field) if opened.settings.get(field).and_then(sealed::mask_of).is_some() => {
                    let value = serde_json::from_str(&open()?).map_err(|_| damaged())?;
                    opened.settings = opened.settings.with(field, value);
                }
                _ => {}
            }
        }
    }
    if opened.settings.has_masks() {
        return Err(Unopened::Damaged("settings".to_owned()));
    }
    Ok(opened)
}

/// Seals the secrets of a channel. Returns the settings to store, with masks, and the ciphertexts.
#[must_use]
pub fn seal(
    key: &Key,
    kind: &dyn Kind,
    project: ProjectId,
    id: ChannelId,
    opened: &Opened,
) -> (Settings, Sealed) {
    let mut settings = opened.settings.clone();
    let mut values = BTreeMap::new();
    let mut put = |field: Field<'_>, text: &str| {
        values.insert(field.name(), key.seal(text, &field.bound_to(project, id)));
    };
    for name in kind.secrets() {
        if let Some(value) = opened.settings.get(name).filter(|value| !value.is_null()) {
            put(Field::Setting(name), &value.to_string());
            settings = settings.with(name, sealed::placeholder(value));
        }
    }
    for (field, secret) in [
        (Field::SigningSecret, &opened.signing_secret),
        (Field::ConfirmSecret, &opened.confirm_secret),
    ] {
        if let Some(secret) = secret {
            put(field, secret);
        }
    }
    let key = (!values.is_empty()).then(|| key.id().to_owned());
    (settings, Sealed { key, values })
}

/// Puts the sealed secrets into a channel that is about to be written.
pub(crate) fn seal_into(channel: &mut Channel, key: &Key, kind: &dyn Kind, opened: &Opened) {
    let (settings, sealed) = seal(key, kind, channel.project_id, channel.id, opened);
    channel.settings = settings;
    channel.sealed = Some(sealed);
    channel.signing_secret = None;
    channel.confirm_secret = None;
}

/// Returns the key with which this process seals.
///
/// The servers of a database agree on a key. A process without that key seals nothing: other servers could not open
/// its ciphertexts, nor it theirs.
///
/// # Errors
/// If there is no key, this process lacks the key that the servers agreed on, or the database is away.
pub(crate) async fn key(ring: &Keyring, tx: &mut Tx, now: DateTime<Utc>) -> Result<Arc<Key>, ServiceError> {
    agreed(ring, tx, now).await?.map_err(ServiceError::KeyMissing)
}

/// Like [`key`]; the inner error says for people why there is no key.
async fn agreed(ring: &Keyring, tx: &mut Tx, now: DateTime<Utc>) -> StoreResult<Result<Arc<Key>, String>> {
    let Some(first) = ring.first() else {
        return Ok(Err(
            "this server has no key to seal secrets with: the operator must set DEADBEAT_SECRET_KEY, and `deadbeat doctor` says more"
                .to_owned(),
        ));
    };
    let agreed = deadbeat_store::alert::sealed::agree(tx, first.id(), now).await?;
    Ok(if ring.get(&agreed).is_some() {
        // `get` may have read the file again and found a new first key.
        Ok(ring.first().unwrap_or(first))
    } else {
        Err(format!(
            "the secrets of this database are sealed with key {agreed}, which this server does not have: the operator must add it to \
             DEADBEAT_SECRET_KEY or to the file {} of the data folder",
            crate::secret::keyring::FILE
        ))
    })
}

/// Returns a channel's settings as people may see them, without secrets.
#[must_use]
pub fn shown(settings: &Settings) -> Value {
    settings.shown(senders::kind(settings.kind()).map(Kind::secrets))
}

#[cfg(test)]
mod tests;
