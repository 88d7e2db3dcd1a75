//! Channels: add, change, test, remove.

mod test_message;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::routing::Routing;
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::ChannelId;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, clip, read_label};
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_store::Tx;
use deadbeat_store::alert::channel::Channel;
use deadbeat_store::alert::waiting::Only;
use serde_json::{Map, Value};

pub use self::test_message::send_test;
use crate::alert::delivery::redact::Redactor;
use crate::alert::delivery::senders::{self, KINDS, Kind, email};
use crate::alert::sealing::{self, Opened};
use crate::alert::{confirmation, usage, waiting};
use crate::people::audit;
use crate::{ServiceError, Services, feed, secret};
use kept::{whole, with_kept_secrets};
pub(crate) use rehearsal::rehearse;

mod kept;
mod rehearsal;

/// A channel that was added or changed.
#[derive(Debug, Clone)]
pub struct Written {
    /// The channel as stored.
    pub channel: Channel,
    /// The new signing secret, if one was made. Only this answer ever shows it.
    pub signing_secret: Option<SigningSecret>,
}

/// A secret that stays out of logs.
#[derive(Clone)]
pub struct SigningSecret(pub String);

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// Adds a channel without rules, as [`create_with`] does.
///
/// # Errors
/// As for [`create_with`].
pub async fn create(
    services: &Services,
    access: &Access,
    kind: &str,
    name: &str,
    settings: &Value,
) -> Result<Written, ServiceError> {
    create_with(services, access, kind, name, settings, &Map::new()).await
}

/// Adds a channel, and seals its secrets. `rules` has the fields of [`Routing`] that a person gave.
///
/// # Errors
/// If access is refused, fields are invalid, the quota is used up, there is no key, or the database is away.
pub async fn create_with(
    services: &Services,
    access: &Access,
    kind: &str,
    name: &str,
    settings: &Value,
    rules: &Map<String, Value>,
) -> Result<Written, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let mut faults = Vec::new();
    let name = read_label("/name", name, limits::NAME_CHARS, &mut faults);
    let mut routing = Routing::default();
    routing.apply(rules, &mut faults);
    let settings = read_new(services, kind, settings)
        .map_err(|found| faults.extend(found))
        .ok();
    let Some((kind, settings)) = settings.filter(|_| faults.is_empty()) else {
        return Err(ServiceError::Invalid(faults));
    };
    rehearse(services, project, kind, &settings).await?;
    let mut opened = Opened {
        settings,
        signing_secret: kind.signing_secret(),
        confirm_secret: None,
    };
    let now = services.now();
    let mut channel = Channel {
        id: ChannelId::generate(),
        project_id: project,
        name,
        settings: opened.settings.clone(),
        sealed: None,
        routing,
        signing_secret: None,
        disabled: None,
        confirmed_at: None,
        confirm_secret: None,
        created_at: now,
        updated_at: now,
    };
    let mut tx = services.store.begin().await?;
    let key = sealing::key(&services.keyring, &mut tx, now).await?;
    let asks = settle_confirmation(services, &mut tx, &mut channel, &mut opened, now).await?;
    sealing::seal_into(&mut channel, &key, kind, &opened);
    if deadbeat_store::alert::channel::count(&mut tx, project).await? >= limits::PROJECT_CHANNELS {
        return Err(ServiceError::Limit {
            what: "channels",
            limit: limits::PROJECT_CHANNELS,
        });
    }
    deadbeat_store::alert::channel::insert(&mut tx, &channel).await?;
    let subject = ChangeSubject::Channel(channel.id);
    feed::note(&mut tx, project, subject, ChangeKind::Created, now);
    let entry = Entry::new(access, project, Act::ChannelCreated, channel.id.0, now).named(&channel.name);
    audit::note(&mut tx, entry);
    if asks {
        confirmation::ask(&mut tx, services.site(), &channel, now).await?;
    }
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(Written {
        channel,
        signing_secret: opened.signing_secret.map(SigningSecret),
    })
}

/// Decides whether the owner of a new address must confirm it. True: the caller must send the mail that asks. The
/// mail is already counted against the quotas.
async fn settle_confirmation(
    services: &Services,
    tx: &mut Tx,
    channel: &mut Channel,
    opened: &mut Opened,
    now: DateTime<Utc>,
) -> Result<bool, ServiceError> {
    let Some(address) = email::address(&opened.settings) else {
        return Ok(false);
    };
    opened.confirm_secret = Some(secret::random_text(43));
    if confirmation::needs_none(services, tx, channel.project_id, &address).await? {
        channel.confirmed_at = Some(now);
        return Ok(false);
    }
    channel.confirmed_at = None;
    confirmation::count_mail(tx, channel.project_id, &address, now).await?;
    Ok(true)
}

/// Sends the owner of a mail address the confirmation mail again.
///
/// # Errors
/// If access is refused, the channel is not found, the address needs no confirmation, this project or this address
/// had too many mails in a day, or the database is away.
pub async fn ask_again(services: &Services, access: &Access, id: ChannelId) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let channel = deadbeat_store::alert::channel::lock(&mut tx, project, id).await?;
    let mut channel = channel.ok_or(ServiceError::NotFound("channel"))?;
    let address = email::address(&channel.settings).filter(|_| !channel.is_confirmed());
    let Some(address) = address else {
        return Err(ServiceError::Conflict("there is nothing to confirm".to_owned()));
    };
    confirmation::count_mail(&mut tx, project, &address, now).await?;
    // There is no secret if an older version added the channel during an upgrade, or if the key is lost. A new secret
    // makes the links of older mails invalid.
    let opened = sealing::open(&services.keyring, &channel).ok();
    if opened.is_none_or(|opened| opened.confirm_secret.is_none()) {
        let kind = kind_of(channel.settings.kind()).map_err(ServiceError::Invalid)?;
        let opened = Opened {
            settings: channel.settings.clone(),
            signing_secret: None,
            confirm_secret: Some(secret::random_text(43)),
        };
        let key = sealing::key(&services.keyring, &mut tx, now).await?;
        sealing::seal_into(&mut channel, &key, kind, &opened);
        deadbeat_store::alert::channel::update(&mut tx, &channel).await?;
    }
    confirmation::ask(&mut tx, services.site(), &channel, now).await?;
    let entry =
        Entry::new(access, project, Act::ChannelConfirmationRequested, id.0, now).named(&channel.name);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(())
}

fn kind_of(name: &str) -> Result<&'static dyn Kind, Vec<FieldError>> {
    senders::kind(name).ok_or_else(|| {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
        vec![FieldError::new(
            "/kind",
            format!("is {:?}; one of {} is allowed", clip(name), known.join(", ")),
        )]
    })
}

/// Refuses a list: serde alone would accept a list as an object, by the order of the fields.
fn object(settings: &Value) -> Result<Map<String, Value>, Vec<FieldError>> {
    settings.as_object().cloned().ok_or_else(|| {
        vec![FieldError::new(
            "/settings",
            "is no object; an object with the kind's settings is allowed",
        )]
    })
}

/// Reads the kind and the settings of a new channel.
///
/// # Errors
/// As for [`parse`], or a mask stands where a secret is needed.
pub(crate) fn read_new(
    services: &Services,
    kind: &str,
    settings: &Value,
) -> Result<(&'static dyn Kind, Settings), Vec<FieldError>> {
    let kind = kind_of(kind)?;
    let settings = parse(services, kind, whole(kind, object(settings)?)?)?;
    Ok((kind, settings))
}

/// Reads settings, and refuses settings with which no attempt can ever succeed. No fault repeats a secret.
fn parse(
    services: &Services,
    kind: &dyn Kind,
    values: Map<String, Value>,
) -> Result<Settings, Vec<FieldError>> {
    let settings = Settings::new(kind.name(), values);
    let checked = kind
        .check_new(&settings)
        .and_then(|()| match &services.channel_rules.senders {
            Some(senders) => senders.check(&settings).map_err(|fault| vec![fault]),
            None => Ok(()),
        });
    match checked {
        Ok(()) => Ok(settings),
        Err(mut faults) => {
            let redactor = Redactor::of(&settings, None);
            for fault in &mut faults {
                fault.message = redactor.hide(&fault.message);
            }
            Err(faults)
        }
    }
}

/// Changes a channel's name or settings, as [`update_with`] does.
///
/// # Errors
/// As for [`update_with`].
pub async fn update(
    services: &Services,
    access: &Access,
    id: ChannelId,
    name: Option<&str>,
    settings: Option<&Value>,
) -> Result<Written, ServiceError> {
    update_with(services, access, id, name, settings, &Map::new()).await
}

/// Changes a channel's name, settings or rules. If the channel was switched off, delivery uses it again. Secrets that
/// the settings leave out, or repeat as their masks, stay.
///
/// To repair a channel that cannot be opened, give new settings with all of its secrets. The channel then gets a new
/// signing secret.
///
/// New rules also hold for alerts that wait for this channel.
///
/// # Errors
/// If access is refused, the channel is not found, fields are invalid, a secret cannot be opened, there is no key, or
/// the database is away.
pub async fn update_with(
    services: &Services,
    access: &Access,
    id: ChannelId,
    name: Option<&str>,
    settings: Option<&Value>,
    rules: &Map<String, Value>,
) -> Result<Written, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    if let Some(settings) = settings {
        rehearsal::of_change(services, project, id, settings).await?;
    }
    let now = services.now();
    let mut tx = services.store.begin().await?;
    if !rules.is_empty() {
        deadbeat_store::people::project::lock_rules(&mut tx, project).await?;
    }
    let channel = deadbeat_store::alert::channel::lock(&mut tx, project, id).await?;
    let mut channel = channel.ok_or(ServiceError::NotFound("channel"))?;
    let mut faults = Vec::new();
    if let Some(name) = name {
        channel.name = read_label("/name", name, limits::NAME_CHARS, &mut faults);
    }
    channel.routing.apply(rules, &mut faults);
    let changed = match settings {
        Some(settings) => changed(services, &channel, settings, &mut faults)?,
        None => None,
    };
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    let (mut asks, mut signing_secret) = (false, None);
    if let Some(Changed {
        kind,
        mut opened,
        is_new,
        made,
    }) = changed
    {
        let key = sealing::key(&services.keyring, &mut tx, now).await?;
        // A new address needs its own confirmation, even if the old address was confirmed.
        asks = is_new && settle_confirmation(services, &mut tx, &mut channel, &mut opened, now).await?;
        sealing::seal_into(&mut channel, &key, kind, &opened);
        signing_secret = made;
    }
    channel.disabled = None;
    channel.updated_at = now;
    deadbeat_store::alert::channel::update(&mut tx, &channel).await?;
    feed::note(
        &mut tx,
        project,
        ChangeSubject::Channel(id),
        ChangeKind::Changed,
        now,
    );
    let fields = name
        .map(|_| "name")
        .into_iter()
        .chain(settings.map(|_| "settings"));
    let fields = fields.chain(rules.keys().map(String::as_str));
    let entry = Entry::new(access, project, Act::ChannelChanged, id.0, now).named(&channel.name);
    audit::note(&mut tx, entry.changing(fields));
    if asks {
        // Waiting alerts were meant for the old address, and nobody has confirmed the new one.
        deadbeat_store::alert::delivery::cancel_unconfirmed(&mut tx, channel.project_id, channel.id, now)
            .await?;
        confirmation::ask(&mut tx, services.site(), &channel, now).await?;
    }
    if !rules.is_empty() {
        waiting::decide_anew(&mut tx, project, Only::Channel(channel.id), now).await?;
    }
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(Written {
        channel,
        signing_secret,
    })
}

/// New settings of a channel.
struct Changed {
    kind: &'static dyn Kind,
    opened: Opened,
    /// True if the settings differ from the stored ones.
    is_new: bool,
    /// The new signing secret, if the old one is lost.
    made: Option<SigningSecret>,
}

/// Reads the new settings of a channel. None: `faults` says what is wrong with them.
fn changed(
    services: &Services,
    channel: &Channel,
    settings: &Value,
    faults: &mut Vec<FieldError>,
) -> Result<Option<Changed>, ServiceError> {
    let before = sealing::open(&services.keyring, channel);
    let read = kind_of(channel.settings.kind()).and_then(|kind| Ok((kind, object(settings)?)));
    let (kind, values) = match read {
        Ok(read) => read,
        Err(found) => {
            faults.extend(found);
            return Ok(None);
        }
    };
    let values = with_kept_secrets(kind, &channel.settings, &before, values)?;
    let settings = match whole(kind, values).and_then(|values| parse(services, kind, values)) {
        Ok(settings) => settings,
        Err(found) => {
            faults.extend(found);
            return Ok(None);
        }
    };
    Ok(Some(match before {
        Ok(before) => Changed {
            kind,
            is_new: settings != before.settings,
            opened: Opened { settings, ..before },
            made: None,
        },
        Err(_) => {
            let signing_secret = kind.signing_secret();
            Changed {
                kind,
                is_new: settings != channel.settings,
                made: signing_secret.clone().map(SigningSecret),
                opened: Opened {
                    confirm_secret: email::address(&settings).map(|_| secret::random_text(43)),
                    settings,
                    signing_secret,
                },
            }
        }
    }))
}

/// Removes a channel with its deliveries.
///
/// # Errors
/// If access is refused, the channel is not found, a rotation or an escalation policy names it, or the database is
/// away.
pub async fn delete(services: &Services, access: &Access, id: ChannelId) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let mut tx = services.store.begin().await?;
    deadbeat_store::alert::usage::lock_channel_to_delete(&mut tx, project, id).await?;
    usage::refuse_channel_in_use(&mut tx, project, id).await?;
    if !deadbeat_store::alert::channel::delete(&mut tx, project, id).await? {
        return Err(ServiceError::NotFound("channel"));
    }
    let (subject, now) = (ChangeSubject::Channel(id), services.now());
    feed::note(&mut tx, project, subject, ChangeKind::Deleted, now);
    audit::note(
        &mut tx,
        Entry::new(access, project, Act::ChannelDeleted, id.0, now),
    );
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests;
