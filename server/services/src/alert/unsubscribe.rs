//! Unsubscribing from a mail channel: by the link at the end of each mail, or by the button that mail programs show (RFC 8058).
//!
//! Each attempt signs the link for its channel and address, with the key that also seals the channel's secrets. The link does not end: a mail
//! may be old when somebody has enough of them. It holds no address, only a signature of it, so a link of an address that the channel had
//! before does nothing. Opening the link shows a page with a button: a mail server that opens links to scan them unsubscribes nobody.

use std::net::IpAddr;

use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{ChannelId, ProjectId};
use deadbeat_store::alert::channel::{self, Channel};

use crate::alert::delivery::senders::email;
use crate::alert::switched_off::{self, Why};
use crate::secret::key::Key;
use crate::secret::keyring::Keyring;
use crate::{ServiceError, Services, Site, feed};

/// Why the channel is switched off, as people read it in the API. Rows hold this text, and it says that the channel is off for this reason:
/// another wording needs a migration.
pub(crate) const UNSUBSCRIBED: &str = "the owner of the address unsubscribed by a link in a mail; POST …/confirmation asks whether alerts may go there again";
/// Digits of the address's signature: enough that nobody finds another address with the same.
const ADDRESS_DIGITS: usize = 32;

/// A link, as its address says it. Nothing of it is proved before it was found.
#[derive(Debug, Clone)]
pub struct Link {
    /// The channel that it switches off.
    pub channel: ChannelId,
    /// The project that owns the channel.
    pub project: ProjectId,
    /// A signature of the mail address.
    pub to: String,
    /// The id of the key that signed it.
    pub key: String,
    /// The signature.
    pub token: String,
}

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Mails go to the address.
    Subscribed(String),
    /// The channel is switched off because the owner of the address unsubscribed.
    Unsubscribed(String),
    /// The link is wrong, or the channel is gone or has another address.
    Nothing,
}

impl Link {
    fn new(project: ProjectId, channel: ChannelId, address: &str, key: &Key) -> Self {
        let mut link = Self {
            channel,
            project,
            to: signature_of(address, key),
            key: key.id().to_owned(),
            token: String::new(),
        };
        link.token = key.sign(&link.text());
        link
    }

    /// What is signed.
    fn text(&self) -> String {
        format!("unsubscribe {} {} {}", self.project, self.channel, self.to)
    }

    /// The address behind the site's.
    #[must_use]
    pub fn path(&self) -> String {
        format!(
            "/unsubscribe/{}?project={}&to={}&key={}&token={}",
            self.channel, self.project, self.to, self.key, self.token
        )
    }

    /// The key that signed it. None: nobody did.
    fn signer(&self, ring: &Keyring) -> Option<std::sync::Arc<Key>> {
        ring.get(&self.key)
            .filter(|key| key.is_signature(&self.text(), &self.token))
    }
}

fn signature_of(address: &str, key: &Key) -> String {
    let mut signed = key.sign(&format!("address {}", address.to_lowercase()));
    signed.truncate(ADDRESS_DIGITS);
    signed
}

/// The link that a mail to a channel gets. None: the channel sends no mail, there is no key, or the mail asks for a confirmation, so that
/// there is nothing to unsubscribe from.
pub(crate) fn url(
    alert: Alert,
    project: ProjectId,
    channel: ChannelId,
    settings: &Settings,
    ring: &Keyring,
    site: &Site,
) -> Option<String> {
    let address = email::address(settings).filter(|_| alert != Alert::Confirmation)?;
    let link = Link::new(project, channel, &address, ring.first()?.as_ref());
    Some(format!("{}{}", site.url, link.path()))
}

/// What a link leads to. `client`: where the request comes from.
///
/// # Errors
/// Too many links were opened, or the database is away.
pub async fn preview(
    services: &Services,
    link: &Link,
    client: Option<IpAddr>,
) -> Result<Found, ServiceError> {
    let Some(key) = admit(services, link, client)? else {
        return Ok(Found::Nothing);
    };
    let channel = channel::get(&services.reader(), link.project, link.channel).await?;
    Ok(channel.map_or(Found::Nothing, |channel| state(&channel, link, &key)))
}

/// Switches the channel off to which a link belongs, and tells the project's other channels. `client`: where the request comes from.
///
/// # Errors
/// Too many links were opened, or the database is away.
pub async fn unsubscribe(
    services: &Services,
    link: &Link,
    client: Option<IpAddr>,
) -> Result<Found, ServiceError> {
    let Some(key) = admit(services, link, client)? else {
        return Ok(Found::Nothing);
    };
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let Some(channel) = channel::lock_to_disable(&mut tx, link.project, link.channel).await? else {
        return Ok(Found::Nothing);
    };
    let address = match state(&channel, link, &key) {
        Found::Subscribed(address) => address,
        done => return Ok(done),
    };
    let (project, id) = (channel.project_id, channel.id);
    channel::unsubscribe(&mut tx, project, id, &address, UNSUBSCRIBED, now).await?;
    feed::note(
        &mut tx,
        project,
        ChangeSubject::Channel(id),
        ChangeKind::Changed,
        now,
    );
    let alerted = switched_off::alert_others(&mut tx, &channel, UNSUBSCRIBED, Why::Unsubscribed, now).await?;
    tx.commit().await?;
    if alerted > 0 {
        services.outbox_bell.notify_one();
    }
    Ok(Found::Unsubscribed(address))
}

/// The key of a right link; counts the request. None: the link is wrong. This needs no database.
fn admit(
    services: &Services,
    link: &Link,
    client: Option<IpAddr>,
) -> Result<Option<std::sync::Arc<Key>>, ServiceError> {
    let now = services.now();
    let signer = link.signer(&services.keyring);
    match signer {
        Some(_) => services.strangers.right(link.channel, now)?,
        None => services.strangers.wrong(client, now)?,
    }
    Ok(signer)
}

/// The state of a channel for the owner of its address.
fn state(channel: &Channel, link: &Link, key: &Key) -> Found {
    let address = email::address(&channel.settings).filter(|address| signature_of(address, key) == link.to);
    let is_off = channel
        .disabled
        .as_ref()
        .is_some_and(|(_, reason)| reason == UNSUBSCRIBED);
    match address {
        Some(address) if is_off && !channel.is_confirmed() => Found::Unsubscribed(address),
        Some(address) => Found::Subscribed(address),
        None => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Keyring {
        Keyring::load(&Key::generate(), None).unwrap()
    }

    #[test]
    fn a_link_is_right_for_one_channel_and_address_of_one_project() {
        let ring = ring();
        let key = ring.first().unwrap();
        let good = Link::new(
            ProjectId::generate(),
            ChannelId::generate(),
            "Ops@example.org",
            &key,
        );

        assert!(good.signer(&ring).is_some());
        assert_eq!(good.to, signature_of("ops@example.org", &key));
        assert_ne!(good.to, signature_of("others@example.org", &key));
        assert!(
            good.signer(&super::tests::ring()).is_none(),
            "of another deployment"
        );
        assert!(!good.path().contains("ops"), "{}", good.path());
        for change in [
            |link: &mut Link| link.channel = ChannelId::generate(),
            |link: &mut Link| link.project = ProjectId::generate(),
            |link: &mut Link| link.to = "0".repeat(ADDRESS_DIGITS),
            |link: &mut Link| link.to = String::new(),
            |link: &mut Link| link.key = "000000000000".to_owned(),
            |link: &mut Link| link.token = "0".repeat(64),
            |link: &mut Link| link.token = "é".repeat(32),
        ] {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(bad.signer(&ring).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn only_mails_to_confirmed_addresses_have_a_link() {
        let (ring, site) = (
            ring(),
            Site {
                url: "https://deadbeat.test".to_owned(),
            },
        );
        let mail = Settings::new(
            "email",
            serde_json::Map::from_iter([("to".to_owned(), "ops@example.org".into())]),
        );
        let hook = Settings::new(
            "webhook",
            serde_json::Map::from_iter([("url".to_owned(), "https://x.test".into())]),
        );
        let url = |alert, settings: &Settings, ring: &Keyring| {
            super::url(
                alert,
                ProjectId::generate(),
                ChannelId::generate(),
                settings,
                ring,
                &site,
            )
        };

        let link = url(Alert::Opened, &mail, &ring).unwrap();
        assert!(link.starts_with("https://deadbeat.test/unsubscribe/"), "{link}");
        assert_eq!(url(Alert::Confirmation, &mail, &ring), None);
        assert_eq!(url(Alert::Opened, &hook, &ring), None);
        assert_eq!(url(Alert::Opened, &mail, &Keyring::default()), None);
    }
}
