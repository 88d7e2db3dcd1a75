//! Channels: add, change, test, remove.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::message::{Event, Message};
use deadbeat_domain::alert::recipients::Topic;
use deadbeat_domain::ids::{ChannelId, DeliveryId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, clip, read_label};
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::Tx;
use deadbeat_store::alert::channel::Channel;
use deadbeat_store::people::quota::{self, Taken};
use serde_json::Value;

use crate::alert::delivery::senders::{self, KINDS, email};
use crate::alert::{confirmation, outbox};
use crate::{ServiceError, Services, secret};

/// Adds a channel.
///
/// # Errors
/// Refused, invalid fields, the quota, or the database is away.
pub async fn create(
    services: &Services,
    access: &Access,
    kind: &str,
    name: &str,
    settings: &Value,
) -> Result<Channel, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let mut faults = Vec::new();
    let name = read_label("/name", name, limits::NAME_CHARS, &mut faults);
    let settings = parse(services, kind, settings)
        .map_err(|found| faults.extend(found))
        .ok();
    let Some(settings) = settings.filter(|_| faults.is_empty()) else {
        return Err(ServiceError::Invalid(faults));
    };
    let now = services.now();
    let mut channel = Channel {
        id: ChannelId::generate(),
        project_id: project,
        name,
        signing_secret: senders::kind(kind).and_then(|kind| kind.signing_secret()),
        settings,
        disabled: None,
        confirmed_at: None,
        confirm_secret: None,
        created_at: now,
        updated_at: now,
    };
    let mut tx = services.store.begin().await?;
    let asks = settle_confirmation(services, &mut tx, &mut channel, now).await?;
    if deadbeat_store::alert::channel::count(&mut tx, project).await? >= limits::PROJECT_CHANNELS {
        return Err(ServiceError::Limit {
            what: "channels",
            limit: limits::PROJECT_CHANNELS,
        });
    }
    deadbeat_store::alert::channel::insert(&mut tx, &channel).await?;
    if asks {
        confirmation::ask(&mut tx, services.site(), &channel, now).await?;
    }
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(channel)
}

/// Decides whether a new address needs its owner's confirmation. True: a mail is to ask for it, and is counted against the quotas.
async fn settle_confirmation(
    services: &Services,
    tx: &mut Tx,
    channel: &mut Channel,
    now: DateTime<Utc>,
) -> Result<bool, ServiceError> {
    let Some(address) = email::address(&channel.settings) else {
        return Ok(false);
    };
    channel.confirm_secret = Some(secret::random_text(43));
    if confirmation::needs_none(services, tx, channel.project_id, &address).await? {
        channel.confirmed_at = Some(now);
        return Ok(false);
    }
    channel.confirmed_at = None;
    confirmation::count_mail(tx, channel.project_id, &address, now).await?;
    Ok(true)
}

/// Asks the owner of a mail address once more to confirm.
///
/// # Errors
/// Refused, not found, nothing to confirm, too many mails of this project or to this address in a day, or the database is away.
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
    if channel.confirm_secret.is_none() {
        // Old code added it during an upgrade.
        channel.confirm_secret = Some(secret::random_text(43));
        deadbeat_store::alert::channel::update(&mut tx, &channel).await?;
    }
    confirmation::ask(&mut tx, services.site(), &channel, now).await?;
    tx.commit().await?;
    services.outbox_bell.notify_one();
    tidy_quotas(services).await;
    Ok(())
}

/// Reads settings, and refuses those with which no attempt can ever succeed. serde alone would take a list for an object and go by the
/// order of the fields.
fn parse(services: &Services, name: &str, settings: &Value) -> Result<Settings, Vec<FieldError>> {
    let Value::Object(values) = settings else {
        return Err(vec![FieldError::new(
            "/settings",
            "is no object; an object with the kind's settings is allowed",
        )]);
    };
    let Some(kind) = senders::kind(name) else {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
        return Err(vec![FieldError::new(
            "/kind",
            format!("is {:?}; one of {} is allowed", clip(name), known.join(", ")),
        )]);
    };
    let settings = Settings::new(name, values.clone());
    kind.check_new(&settings)?;
    if let Some(senders) = &services.channel_rules.senders {
        senders.check(&settings).map_err(|fault| vec![fault])?;
    }
    Ok(settings)
}

/// Changes a channel's name or settings; a changed channel that was switched off is tried again.
///
/// # Errors
/// Refused, not found, invalid fields, or the database is away.
pub async fn update(
    services: &Services,
    access: &Access,
    id: ChannelId,
    name: Option<&str>,
    settings: Option<&Value>,
) -> Result<Channel, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let channel = deadbeat_store::alert::channel::lock(&mut tx, project, id).await?;
    let mut channel = channel.ok_or(ServiceError::NotFound("channel"))?;
    let before = channel.settings.clone();
    let mut faults = Vec::new();
    if let Some(name) = name {
        channel.name = read_label("/name", name, limits::NAME_CHARS, &mut faults);
    }
    if let Some(settings) = settings {
        match parse(services, channel.settings.kind(), settings) {
            Ok(settings) => channel.settings = settings,
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    // A new address is a new question, also where the old one was confirmed.
    let asks =
        channel.settings != before && settle_confirmation(services, &mut tx, &mut channel, now).await?;
    channel.disabled = None;
    channel.updated_at = now;
    deadbeat_store::alert::channel::update(&mut tx, &channel).await?;
    if asks {
        // What waits was meant for the old address: nobody has confirmed the new one.
        deadbeat_store::alert::delivery::cancel_unconfirmed(&mut tx, channel.project_id, channel.id, now)
            .await?;
        confirmation::ask(&mut tx, services.site(), &channel, now).await?;
    }
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(channel)
}

/// Removes a channel with its deliveries.
///
/// # Errors
/// Refused, not found, or the database is away.
pub async fn delete(services: &Services, access: &Access, id: ChannelId) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let mut tx = services.store.begin().await?;
    let found = deadbeat_store::alert::channel::delete(&mut tx, project, id).await?;
    tx.commit().await?;
    if found {
        Ok(())
    } else {
        Err(ServiceError::NotFound("channel"))
    }
}

/// Puts a test into the outbox: it goes the same way as an alert.
///
/// # Errors
/// Refused, not found, too many tests of this project, or the database is away.
pub async fn send_test(
    services: &Services,
    access: &Access,
    id: ChannelId,
) -> Result<DeliveryId, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let channel = deadbeat_store::alert::channel::lock(&mut tx, project, id).await?;
    if !channel.ok_or(ServiceError::NotFound("channel"))?.is_confirmed() {
        return Err(ServiceError::Conflict(
            "the owner of the mail address has not confirmed yet; POST …/confirmation sends the mail again"
                .to_owned(),
        ));
    }
    take_quota(
        &mut tx,
        &format!("test:{project}"),
        limits::PROJECT_TESTS_A_MINUTE,
        TimeDelta::minutes(1),
        now,
        "tests of a project in a minute",
    )
    .await?;
    let message = Message {
        at: now,
        event: Event::Test,
    };
    let told = outbox::announce(&mut tx, vec![(project, Topic::Channel(id), message)], now).await?;
    tx.commit().await?;
    services.outbox_bell.notify_one();
    tidy_quotas(services).await;
    told.made.first().copied().ok_or(ServiceError::Busy)
}

/// Takes one of what a quota allows in a window of time.
pub(crate) async fn take_quota(
    tx: &mut Tx,
    key: &str,
    limit: i32,
    window: TimeDelta,
    now: DateTime<Utc>,
    what: &str,
) -> Result<(), ServiceError> {
    match quota::take(tx, key, limit, window, now).await? {
        Taken::Yes => Ok(()),
        Taken::NotBefore(at) => Err(ServiceError::TooMany {
            what: format!("{limit} {what} are allowed"),
            // Rounded up to a second: a client that comes back then is not refused again.
            retry_after: at - now + TimeDelta::milliseconds(999),
        }),
    }
}

/// Removes windows of quotas that have ended. A transaction of its own; what it leaves, the next call removes.
async fn tidy_quotas(services: &Services) {
    let tidy = async {
        let mut tx = services.store.begin().await?;
        quota::remove_ended(&mut tx, services.now()).await?;
        tx.commit().await
    };
    if let Err(error) = tidy.await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "ended quotas stay for now"
        );
    }
}
