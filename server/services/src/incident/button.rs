//! The value of a button in an alert that acknowledges the incident. A service sends it back when somebody presses the button.
//!
//! Telegram's buttons hold 64 bytes, so the value is 48 bytes in base64: the incident, the channel, and half of a signature of both and of
//! their project. It needs no end: the service proves each press anew, with a secret of the channel ([`super::callback`]). The signature proves
//! that this server made the button: in some chats, a changed client can send any value.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deadbeat_domain::alert::message::{Event, Message};
use deadbeat_domain::ids::{ChannelId, IncidentId, ProjectId};
use uuid::Uuid;

use crate::secret::keyring::Keyring;

/// The name of the button, where the service gives buttons names.
pub(crate) const ACTION: &str = "deadbeat_acknowledge";
/// Bytes of an id.
const ID: usize = 16;
/// Digits of the signature that are kept: 128 bits.
const DIGITS: usize = 32;

/// What a button is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Button {
    /// The project of both.
    pub project: ProjectId,
    /// The channel that shows the button.
    pub channel: ChannelId,
    /// The incident that it acknowledges.
    pub incident: IncidentId,
}

impl Button {
    /// What is signed.
    fn text(&self) -> String {
        format!("button {} {} {}", self.project, self.channel, self.incident)
    }

    fn value(&self, digits: &str) -> Option<String> {
        let signature = Uuid::try_parse(digits.get(..DIGITS)?).ok()?;
        let parts = [self.incident.0, self.channel.0, signature];
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.into_bytes()).collect();
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The value: 64 letters, digits, `-` and `_`. None: there is no key to sign it with.
    #[must_use]
    pub fn sign(&self, ring: &Keyring) -> Option<String> {
        self.value(&ring.first()?.sign(&self.text()))
    }

    /// Reads a value back. None: none of the keys signed it for this project.
    #[must_use]
    pub fn read(project: ProjectId, value: &str, ring: &Keyring) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let bytes: [u8; 3 * ID] = bytes.try_into().ok()?;
        let id = |place: usize| Uuid::from_slice(&bytes[place * ID..(place + 1) * ID]).ok();
        let button = Self {
            project,
            channel: ChannelId(id(1)?),
            incident: IncidentId(id(0)?),
        };
        let given = id(2)?.simple().to_string();
        let is_signed = |key: &str| {
            ring.get(key)
                .is_some_and(|key| key.begins_signature(&button.text(), &given))
        };
        ring.ids().iter().any(|key| is_signed(key)).then_some(button)
    }

    /// Reads what [`with_project`] made. None: as for [`Button::read`].
    #[must_use]
    pub fn read_with_project(text: &str, ring: &Keyring) -> Option<Self> {
        let (project, value) = text.split_once('.')?;
        Self::read(ProjectId(Uuid::try_parse(project).ok()?), value, ring)
    }
}

/// The value together with its project, for a service that has one address for the buttons of all projects.
pub(crate) fn with_project(project: ProjectId, value: &str) -> String {
    format!("{project}.{value}")
}

/// The value for a message that somebody should act on. None: nobody should, or there is no key.
pub(crate) fn of_message(message: &Message, channel: ChannelId, ring: &Keyring) -> Option<String> {
    let Event::Incident(event) = &message.event else {
        return None;
    };
    if !event.phase.asks_to_act() || event.incident.acknowledged_at.is_some() {
        return None;
    }
    let button = Button {
        project: event.incident.project.id,
        channel,
        incident: event.incident.id,
    };
    button.sign(ring)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::key::Key;

    #[test]
    fn a_button_is_read_back_in_its_project_and_fits_a_button_of_telegram() {
        let (old, new) = (Key::generate(), Key::generate());
        let ring = |keys: &[&str]| Keyring::load(&keys.join(","), None).unwrap();
        let button = Button {
            project: ProjectId::generate(),
            channel: ChannelId::generate(),
            incident: IncidentId::generate(),
        };

        let value = button.sign(&ring(&[&old])).unwrap();

        assert_eq!(value.len(), 64);
        let after_rotation = ring(&[&new, &old]);
        assert_eq!(
            Button::read(button.project, &value, &after_rotation),
            Some(button)
        );
        assert_eq!(Button::read(ProjectId::generate(), &value, &after_rotation), None);
        assert_eq!(Button::read(button.project, &value, &ring(&[&new])), None);
        for at in 0..value.len() {
            let mut changed = value.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(
                Button::read(button.project, &changed, &after_rotation),
                None,
                "{at}"
            );
        }
        for wrong in ["", "x", &value[..60], &"é".repeat(32), &"A".repeat(64)] {
            assert_eq!(
                Button::read(button.project, wrong, &after_rotation),
                None,
                "{wrong}"
            );
        }
        assert_eq!(button.sign(&Keyring::default()), None);
        let whole = with_project(button.project, &value);
        assert_eq!(Button::read_with_project(&whole, &after_rotation), Some(button));
        assert_eq!(Button::read_with_project(&value, &after_rotation), None);
    }
}
