//! Confirmation of mail addresses, so that nobody can make Deadbeat send mail to strangers.
//!
//! A mail channel is not used until the owner of its address agrees. Deadbeat sends one mail with a link to a page,
//! and the page has a button. A secret of the channel, which nobody can read, signs the link. The link names the
//! address and expires after a week. So neither the channel's owner nor an old mail can confirm. The mail holds no
//! text that the channel's owner chose.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::channel::{Settings, mailbox};
use deadbeat_domain::alert::message::{self, Event, Message};
use deadbeat_domain::alert::recipients::Topic;
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{ChannelId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_store::Tx;
use deadbeat_store::alert::channel::Channel;
use deadbeat_store::people::quota::Counted;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::alert::delivery::senders::email;
use crate::alert::unsubscribe::UNSUBSCRIBED;
use crate::alert::{outbox, sealing};
use crate::people::quota::spend;
use crate::{ServiceError, Services, Site, feed};

/// Time for which a link can confirm.
const LINK: TimeDelta = TimeDelta::days(7);

/// State of the address behind a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The address waits for its owner's answer.
    Waiting(String),
    /// The address is confirmed.
    Confirmed(String),
    /// The link is wrong or has expired, or the channel was deleted or has another address.
    Nothing,
}

/// True if mail may go to this address without asking its owner. The owner is always asked after having unsubscribed in this project.
pub(crate) async fn needs_none(
    services: &Services,
    tx: &mut Tx,
    project: ProjectId,
    address: &str,
) -> Result<bool, ServiceError> {
    if deadbeat_store::alert::channel::is_refused(tx, project, address).await? {
        return Ok(false);
    }
    if !services.channel_rules.confirm_mail {
        return Ok(true);
    }
    Ok(deadbeat_store::alert::channel::is_known_address(tx, project, address).await?)
}

/// Counts a confirmation mail against the quotas of its project and of its address. A caller that needs the channel's
/// lock must take it first.
pub(crate) async fn count_mail(
    tx: &mut Tx,
    project: ProjectId,
    address: &str,
    now: DateTime<Utc>,
) -> Result<(), ServiceError> {
    let of_project = Counted::Confirmations(project);
    spend(tx, &of_project, limits::PROJECT_CONFIRMATIONS_A_DAY, now).await?;
    let to_address = Counted::ConfirmationsTo(mailbox(address));
    spend(tx, &to_address, limits::ADDRESS_CONFIRMATIONS_A_DAY, now).await
}

/// Puts the mail that asks for a confirmation into the outbox.
pub(crate) async fn ask(
    tx: &mut Tx,
    site: &Site,
    channel: &Channel,
    now: DateTime<Utc>,
) -> Result<(), ServiceError> {
    let message = Message {
        at: now,
        event: Event::Confirmation(message::Confirmation {
            site: site.url.clone(),
            url: format!("{}/confirm/{}", site.url, channel.id),
            expires: (now + LINK).timestamp(),
        }),
    };
    let topic = Topic::Channel(channel.id);
    outbox::announce(tx, vec![(channel.project_id, topic, message)], now).await?;
    Ok(())
}

/// Adds the signature to the link of a confirmation mail. This happens when the mail is sent, so that the outbox
/// holds no signature. Other messages stay as they are.
pub(crate) fn sign(message: &mut Message, id: ChannelId, settings: &Settings, secret: Option<&str>) {
    let (Event::Confirmation(question), Some(address)) = (&mut message.event, email::address(settings))
    else {
        return;
    };
    let expires = question.expires;
    if let Some(token) = secret.and_then(|secret| signature(secret, id, &address, expires)) {
        question.url = format!("{}?expires={expires}&token={token}", question.url);
    }
}

/// Returns the state of the address behind a link.
///
/// # Errors
/// If the database is away.
pub async fn preview(
    services: &Services,
    id: ChannelId,
    expires: i64,
    token: &str,
) -> Result<Found, ServiceError> {
    Ok(match find(services, id, expires, token).await? {
        None => Found::Nothing,
        Some((channel, address)) if channel.is_confirmed() => Found::Confirmed(address),
        Some((_, address)) => Found::Waiting(address),
    })
}

/// Confirms the address that a link was sent to.
///
/// # Errors
/// If the database is away.
pub async fn confirm(
    services: &Services,
    id: ChannelId,
    expires: i64,
    token: &str,
) -> Result<Found, ServiceError> {
    if find(services, id, expires, token).await?.is_none() {
        return Ok(Found::Nothing);
    }
    // Check again under the lock, which keeps the address and the secret from changing.
    let mut tx = services.store.begin().await?;
    let channel = deadbeat_store::alert::channel::lock_for_confirmation(&mut tx, id).await?;
    let Some((channel, address)) = signed(services, channel, expires, token)? else {
        return Ok(Found::Nothing);
    };
    let now = services.now();
    let is_done = deadbeat_store::alert::channel::confirm(&mut tx, &channel, now).await?;
    if is_done {
        let (project, subject) = (channel.project_id, ChangeSubject::Channel(id));
        // Whoever unsubscribed and agrees again gets alerts again.
        deadbeat_store::alert::channel::agree_again(&mut tx, project, id, &address, UNSUBSCRIBED).await?;
        feed::note(&mut tx, project, subject, ChangeKind::Changed, now);
    }
    tx.commit().await?;
    Ok(if is_done {
        Found::Confirmed(address)
    } else {
        Found::Nothing
    })
}

/// Returns the channel and address of a link, if its signature is right and it has not expired.
async fn find(
    services: &Services,
    id: ChannelId,
    expires: i64,
    token: &str,
) -> Result<Option<(Channel, String)>, ServiceError> {
    if expires < services.now().timestamp() {
        return Ok(None);
    }
    let channel = deadbeat_store::alert::channel::for_confirmation(&services.reader(), id).await?;
    signed(services, channel, expires, token)
}

/// Returns the channel and its address, if `token` is the channel's signature.
fn signed(
    services: &Services,
    channel: Option<Channel>,
    expires: i64,
    token: &str,
) -> Result<Option<(Channel, String)>, ServiceError> {
    let Some((channel, address)) =
        channel.and_then(|channel| email::address(&channel.settings).map(|address| (channel, address)))
    else {
        return Ok(None);
    };
    let opened = sealing::open(&services.keyring, &channel)
        .map_err(|fault| ServiceError::KeyMissing(format!("the channel {fault}")))?;
    let is_signed = opened
        .confirm_secret
        .as_deref()
        .is_some_and(|secret| is_signature(secret, channel.id, &address, expires, token));
    Ok(is_signed.then_some((channel, address)))
}

fn mac(secret: &str, id: ChannelId, address: &str, expires: i64) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(format!("confirm {id} {expires} {address}").as_bytes());
    Some(mac)
}

fn signature(secret: &str, id: ChannelId, address: &str, expires: i64) -> Option<String> {
    let bytes = mac(secret, id, address, expires)?.finalize().into_bytes();
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Compares in constant time.
fn is_signature(secret: &str, id: ChannelId, address: &str, expires: i64, token: &str) -> bool {
    let digits = token.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes
        .zip(mac(secret, id, address, expires))
        .is_some_and(|(bytes, mac)| mac.verify_slice(&bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_confirms_one_address_of_one_channel_until_it_ends() {
        let (id, other) = (ChannelId::generate(), ChannelId::generate());
        let token = signature("secret", id, "ops@example.org", 100).unwrap();

        assert!(is_signature("secret", id, "ops@example.org", 100, &token));
        assert!(!is_signature("other", id, "ops@example.org", 100, &token));
        assert!(!is_signature("secret", other, "ops@example.org", 100, &token));
        assert!(!is_signature("secret", id, "others@example.org", 100, &token));
        assert!(!is_signature("secret", id, "ops@example.org", 101, &token));
        for wrong in ["", "x", &token[..62], &"0".repeat(64), &"é".repeat(32)] {
            assert!(
                !is_signature("secret", id, "ops@example.org", 100, wrong),
                "{wrong}"
            );
        }
    }
}
