//! Channels: add, change, test, remove.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::channel::Settings;
use deadbeat_domain::ids::{ChannelId, DeliveryId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, read_label};
use deadbeat_domain::text::Text;
use deadbeat_store::Tx;
use deadbeat_store::channel::Channel;
use deadbeat_store::delivery::NewAlert;
use deadbeat_store::quota::{self, Taken};
use serde_json::{Value, json};

use crate::delivery::senders;
use crate::{ServiceError, Services, outbox};

/// Adds a channel.
///
/// # Errors
/// Invalid fields, the quota, or the database is away.
pub async fn create(
    services: &Services,
    project: ProjectId,
    kind: &str,
    name: &str,
    settings: &Value,
) -> Result<Channel, ServiceError> {
    let mut faults = Vec::new();
    let name = read_label("/name", name, limits::NAME_CHARS, &mut faults);
    let settings = parse(kind, settings).map_err(|found| faults.extend(found)).ok();
    let Some(settings) = settings.filter(|_| faults.is_empty()) else {
        return Err(ServiceError::Invalid(faults));
    };
    let now = services.now();
    let channel = Channel {
        id: ChannelId::generate(),
        project_id: project,
        name,
        signing_secret: matches!(settings, Settings::Webhook(_)).then(senders::webhook::signing_secret),
        settings,
        disabled: None,
        created_at: now,
        updated_at: now,
    };
    let mut tx = services.store.begin().await?;
    if deadbeat_store::channel::count(&mut tx, project).await? >= limits::PROJECT_CHANNELS {
        return Err(ServiceError::Limit {
            what: "channels",
            limit: limits::PROJECT_CHANNELS,
        });
    }
    deadbeat_store::channel::insert(&mut tx, &channel).await?;
    tx.commit().await?;
    Ok(channel)
}

/// Reads settings. serde alone would take a list for an object and go by the order of the fields.
fn parse(kind: &str, settings: &Value) -> Result<Settings, Vec<FieldError>> {
    if !settings.is_object() {
        return Err(vec![FieldError::new(
            "/settings",
            "is no object; an object with the kind's settings is allowed",
        )]);
    }
    let settings = Settings::parse(kind, settings)?;
    // Not in `Settings::parse`, which reads rows, too: one that older versions took stays readable.
    let (pointer, address) = match &settings {
        Settings::Webhook(webhook) => ("/settings/url", &webhook.url),
        Settings::Email(email) => ("/settings/to", &email.to),
    };
    match Text::name(address, limits::ADDRESS_CHARS) {
        Ok(_) => Ok(settings),
        Err(error) => Err(vec![FieldError::of_text(pointer, &error)]),
    }
}

/// Changes a channel's name or settings; a changed channel that was switched off is tried again.
///
/// # Errors
/// Not found, invalid fields, or the database is away.
pub async fn update(
    services: &Services,
    project: ProjectId,
    id: ChannelId,
    name: Option<&str>,
    settings: Option<&Value>,
) -> Result<Channel, ServiceError> {
    let mut tx = services.store.begin().await?;
    let channel = deadbeat_store::channel::lock(&mut tx, project, id).await?;
    let mut channel = channel.ok_or(ServiceError::NotFound("channel"))?;
    let mut faults = Vec::new();
    if let Some(name) = name {
        channel.name = read_label("/name", name, limits::NAME_CHARS, &mut faults);
    }
    if let Some(settings) = settings {
        match parse(channel.settings.kind(), settings) {
            Ok(settings) => channel.settings = settings,
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    channel.disabled = None;
    channel.updated_at = services.now();
    deadbeat_store::channel::update(&mut tx, &channel).await?;
    tx.commit().await?;
    Ok(channel)
}

/// Removes a channel with its deliveries.
///
/// # Errors
/// Not found, or the database is away.
pub async fn delete(services: &Services, project: ProjectId, id: ChannelId) -> Result<(), ServiceError> {
    let mut tx = services.store.begin().await?;
    let found = deadbeat_store::channel::delete(&mut tx, project, id).await?;
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
/// Not found, too many tests of this project, or the database is away.
pub async fn send_test(
    services: &Services,
    project: ProjectId,
    id: ChannelId,
) -> Result<DeliveryId, ServiceError> {
    let now = services.now();
    let mut tx = services.store.begin().await?;
    take_quota(
        &mut tx,
        &format!("test:{project}"),
        limits::PROJECT_TESTS_A_MINUTE,
        TimeDelta::minutes(1),
        now,
        "tests of a project in a minute",
    )
    .await?;
    let channel = deadbeat_store::channel::lock(&mut tx, project, id).await?;
    channel.ok_or(ServiceError::NotFound("channel"))?;
    let payload = json!({
        "type": Alert::Test.event_type(),
        "timestamp": outbox::instant(now),
        "incident": null,
        "monitor": null,
    });
    let alert = NewAlert {
        project_id: project,
        incident_id: None,
        alert: Alert::Test,
        payload,
        channels: vec![id],
    };
    let made = deadbeat_store::delivery::enqueue(&mut tx, &[alert], now).await?;
    tx.commit().await?;
    services.outbox_bell.notify_one();
    tidy_quotas(services).await;
    made.first().copied().ok_or(ServiceError::Busy)
}

/// Takes one of what a quota allows in a window of time.
async fn take_quota(
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
