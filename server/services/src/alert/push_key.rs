//! The key with which this deployment identifies itself to push services (RFC 8292), for channels of the kind
//! `web_push`.
//!
//! A browser subscribes with the public key, and its push service then refuses what another key signs. So all servers
//! of a database use one key, and it stays for as long as somebody can open it.

use std::sync::Arc;

use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::alert::push_key::{self as store, PushKey};
use deadbeat_store::{Store, StoreError, StoreResult};
use thiserror::Error;

use crate::alert::delivery::senders::push::web_push::Identity;
use crate::alert::delivery::senders::push::web_push::vapid::VapidKey;
use crate::alert::sealing;
use crate::secret::key::Key;
use crate::secret::keyring::Keyring;
use crate::{ServiceError, Services, Site};

/// The text to which the private key's ciphertext is bound.
const BOUND_TO: &str = "deadbeat push key";

/// Why no attempt can show the identity of this server, as a text for people.
#[derive(Debug, Error)]
pub(crate) enum NoIdentity {
    /// Nobody has asked for the public key, so no subscription can be made with it.
    #[error(
        "this deployment has no key for push services yet: read /api/v1/push-key, and subscribe with that key"
    )]
    None,
    /// This process lacks the key that seals the private key.
    #[error("the key for push services cannot be opened: key {0} is missing")]
    Missing(String),
    /// The ciphertext does not open.
    #[error("the key for push services cannot be opened: it is damaged")]
    Damaged,
    /// The database is away.
    #[error("the key for push services cannot be read now")]
    Store(#[from] StoreError),
}

/// Returns the public key for browsers. The first call of a deployment makes the key pair.
///
/// # Errors
/// If access is refused, there is no key to seal the private key with, or the database is away.
pub async fn public(services: &Services, access: &Access) -> Result<String, ServiceError> {
    access.may(Action::Read)?;
    if let Some(stored) = store::get(&services.store.reader()).await? {
        return Ok(stored.public_key);
    }
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let key = sealing::key(&services.keyring, &mut tx, now).await?;
    let stored = store::agree(&mut tx, &new(&key), now).await?;
    tx.commit().await?;
    Ok(stored.public_key)
}

/// Makes a key pair, and seals its private key.
fn new(key: &Key) -> PushKey {
    let text = VapidKey::generate();
    PushKey {
        public_key: VapidKey::parse(&text)
            .map(|made| made.public())
            .unwrap_or_default(),
        key_id: key.id().to_owned(),
        sealed: key.seal(&text, BOUND_TO),
    }
}

/// Returns the identity that an attempt shows to a push service.
///
/// # Errors
/// If there is no key, this process cannot open it, or the database is away.
pub(crate) async fn identity(
    store: &Store,
    ring: &Keyring,
    site: Option<&Site>,
) -> Result<Identity, NoIdentity> {
    let stored = store::get(&store.reader()).await?.ok_or(NoIdentity::None)?;
    let key = ring
        .get(&stored.key_id)
        .ok_or_else(|| NoIdentity::Missing(stored.key_id.clone()))?;
    let text = key
        .open(&stored.sealed, BOUND_TO)
        .map_err(|_| NoIdentity::Damaged)?;
    let key = VapidKey::parse(&text).ok_or(NoIdentity::Damaged)?;
    Ok(Identity {
        key: Arc::new(key),
        // Push services take no other scheme (RFC 8292, 2.1).
        contact: site
            .map(|site| site.url.clone())
            .filter(|url| url.starts_with("https://")),
    })
}

/// Seals the private key again with this key. Deletes the key pair if its key is lost: all subscriptions are sealed
/// with the same keys and are lost, too.
///
/// # Errors
/// If the database is away.
pub(crate) async fn seal_again(store: &Store, ring: &Keyring, key: &Key) -> StoreResult<()> {
    let mut tx = store.begin().await?;
    if let Some(stored) = store::lock(&mut tx).await?
        && stored.key_id != key.id()
    {
        let opened = ring
            .get(&stored.key_id)
            .and_then(|key| key.open(&stored.sealed, BOUND_TO).ok());
        match opened {
            Some(text) => store::seal_again(&mut tx, key.id(), &key.seal(&text, BOUND_TO)).await?,
            None => store::delete(&mut tx).await?,
        }
    }
    tx.commit().await
}
