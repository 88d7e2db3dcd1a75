//! The link in an alert with which its reader acknowledges the incident, without an account.
//!
//! Each attempt signs the link for its channel, with the key that also seals the channel's secrets. So any server of
//! the deployment can check the signature. The link expires a week after the message. The page behind the link has a
//! button, so a mail server that opens links to scan them acknowledges nothing.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::message::{Event, Message};
use deadbeat_domain::ids::{ChannelId, IncidentId, ProjectId};
use deadbeat_store::incident::Incident;

use super::acknowledgement::{self, By};
use crate::secret::keyring::Keyring;
use crate::{ServiceError, Services, Site};

/// Time for which a link can acknowledge.
const LIFETIME: TimeDelta = TimeDelta::days(7);

/// The fields of a link's address. They prove nothing until the signature is checked.
#[derive(Debug, Clone)]
pub struct Link {
    /// The incident that the link acknowledges.
    pub incident: IncidentId,
    /// The project of the incident and the channel.
    pub project: ProjectId,
    /// The channel that the link was sent to.
    pub channel: ChannelId,
    /// When the link expires, in seconds since 1970.
    pub expires: i64,
    /// The id of the key that signed the link.
    pub key: String,
    /// The signature.
    pub token: String,
}

impl Link {
    /// Returns the text that the signature covers.
    fn text(&self) -> String {
        format!(
            "acknowledge {} {} {} {}",
            self.project, self.incident, self.channel, self.expires
        )
    }

    /// Returns the path and query of the link's address.
    #[must_use]
    pub fn path(&self) -> String {
        format!(
            "/acknowledge/{}?project={}&channel={}&expires={}&key={}&token={}",
            self.incident, self.project, self.channel, self.expires, self.key, self.token
        )
    }

    fn is_good(&self, ring: &Keyring, now: DateTime<Utc>) -> bool {
        self.expires >= now.timestamp()
            && ring
                .get(&self.key)
                .is_some_and(|key| key.is_signature(&self.text(), &self.token))
    }
}

/// Puts the link into a message about an incident on which a person should act. Without a key the message gets no
/// link.
pub(crate) fn sign(message: &mut Message, channel: ChannelId, ring: &Keyring, site: &Site) {
    let expires = (message.at + LIFETIME).timestamp();
    let Event::Incident(event) = &mut message.event else {
        return;
    };
    if !event.phase.asks_to_act() || event.incident.acknowledged_at.is_some() {
        return;
    }
    let incident = &mut event.incident;
    incident.acknowledge_url = ring.first().map(|key| {
        let mut link = Link {
            incident: incident.id,
            project: incident.project.id,
            channel,
            expires,
            key: key.id().to_owned(),
            token: String::new(),
        };
        link.token = key.sign(&link.text());
        format!("{}{}", site.url, link.path())
    });
}

/// Returns the incident of a link. None: the link is wrong or has expired, or the incident or its channel was
/// deleted.
///
/// # Errors
/// If the database is away.
pub async fn preview(services: &Services, link: &Link) -> Result<Option<Incident>, ServiceError> {
    if channel_of(services, link).await?.is_none() {
        return Ok(None);
    }
    Ok(deadbeat_store::incident::get(&services.reader(), link.project, link.incident).await?)
}

/// Acknowledges the incident of a link, for a client at `from`. None: see [`preview`].
///
/// # Errors
/// If the database is away.
pub async fn acknowledge(
    services: &Services,
    link: &Link,
    from: Option<IpAddr>,
) -> Result<Option<Incident>, ServiceError> {
    let Some(name) = channel_of(services, link).await? else {
        return Ok(None);
    };
    let by = By::Link {
        id: link.channel,
        channel: name,
    };
    match acknowledgement::acknowledge_as(services, link.project, link.incident, &by, from).await {
        Ok(incident) => Ok(Some(incident)),
        Err(ServiceError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the name of the channel to which a link was sent, if the signature is right and the link has not expired.
async fn channel_of(services: &Services, link: &Link) -> Result<Option<String>, ServiceError> {
    if !link.is_good(&services.keyring, services.now()) {
        return Ok(None);
    }
    let channel = deadbeat_store::alert::channel::get(&services.reader(), link.project, link.channel).await?;
    Ok(channel.map(|channel| channel.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::key::Key;

    fn ring() -> Keyring {
        Keyring::load(&Key::generate(), None).unwrap()
    }

    fn link(ring: &Keyring) -> Link {
        let mut link = Link {
            incident: IncidentId::generate(),
            project: ProjectId::generate(),
            channel: ChannelId::generate(),
            expires: 100,
            key: ring.first().unwrap().id().to_owned(),
            token: String::new(),
        };
        link.token = ring.first().unwrap().sign(&link.text());
        link
    }

    #[test]
    fn a_link_is_good_for_one_incident_and_channel_until_it_ends() {
        let ring = ring();
        let good = link(&ring);
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();

        assert!(good.is_good(&ring, at(100)));
        assert!(!good.is_good(&ring, at(101)), "it has ended");
        assert!(
            !good.is_good(&super::tests::ring(), at(100)),
            "of another deployment"
        );
        for change in [
            |link: &mut Link| link.incident = IncidentId::generate(),
            |link: &mut Link| link.project = ProjectId::generate(),
            |link: &mut Link| link.channel = ChannelId::generate(),
            |link: &mut Link| link.expires = 200,
            |link: &mut Link| link.key = "000000000000".to_owned(),
            |link: &mut Link| link.token = "0".repeat(64),
            |link: &mut Link| link.token = String::new(),
            |link: &mut Link| link.token.push('0'),
            |link: &mut Link| link.token = "é".repeat(32),
        ] {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(!bad.is_good(&ring, at(100)), "{bad:?}");
        }
    }
}
