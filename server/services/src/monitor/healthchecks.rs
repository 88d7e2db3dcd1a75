//! Monitors as clients of the Healthchecks API create and change them: recognized by the fields that the client names, with slugs that need not be
//! free, and with settings that Deadbeat only keeps.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{PingId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::Act;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::Tx;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::monitor::healthchecks::{self as stored, Matching};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::change::{Change, entry};
use super::{create_in, update_in};
use crate::people::audit;
use crate::{ServiceError, Services};

/// The settings of a check that Deadbeat keeps and does not use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// A text for people.
    pub desc: String,
    /// Keywords of a start, in mails.
    pub start_kw: String,
    /// Keywords of a success, in mails.
    pub success_kw: String,
    /// Keywords of a failure, in mails.
    pub failure_kw: String,
    /// Whether the subject of a mail is searched.
    pub filter_subject: bool,
    /// Whether the body of a mail is searched.
    pub filter_body: bool,
    /// Whether a mail without any keyword is a failure.
    pub filter_default_fail: bool,
}

/// A change of [`Extra`]. None: as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtraChange {
    /// See [`Extra::desc`].
    pub desc: Option<String>,
    /// The older name of `success_kw`, which also sets `filter_subject`.
    pub subject: Option<String>,
    /// The older name of `failure_kw`, which also sets `filter_subject`.
    pub subject_fail: Option<String>,
    /// See [`Extra::start_kw`].
    pub start_kw: Option<String>,
    /// See [`Extra::success_kw`].
    pub success_kw: Option<String>,
    /// See [`Extra::failure_kw`].
    pub failure_kw: Option<String>,
    /// See [`Extra::filter_subject`].
    pub filter_subject: Option<bool>,
    /// See [`Extra::filter_body`].
    pub filter_body: Option<bool>,
    /// See [`Extra::filter_default_fail`].
    pub filter_default_fail: Option<bool>,
}

impl ExtraChange {
    /// Applies the change, in Healthchecks' order.
    #[must_use]
    pub fn apply(&self, mut extra: Extra) -> Extra {
        if let Some(text) = &self.subject {
            extra.success_kw.clone_from(text);
            extra.filter_subject = !(extra.success_kw.is_empty() && extra.failure_kw.is_empty());
        }
        if let Some(text) = &self.subject_fail {
            extra.failure_kw.clone_from(text);
            extra.filter_subject = !(extra.success_kw.is_empty() && extra.failure_kw.is_empty());
        }
        let set = |field: &mut String, text: &Option<String>| {
            if let Some(text) = text {
                field.clone_from(text);
            }
        };
        set(&mut extra.desc, &self.desc);
        set(&mut extra.start_kw, &self.start_kw);
        set(&mut extra.success_kw, &self.success_kw);
        set(&mut extra.failure_kw, &self.failure_kw);
        extra.filter_subject = self.filter_subject.unwrap_or(extra.filter_subject);
        extra.filter_body = self.filter_body.unwrap_or(extra.filter_body);
        extra.filter_default_fail = self.filter_default_fail.unwrap_or(extra.filter_default_fail);
        extra
    }
}

/// The slug that a monitor shall have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Slug {
    /// The one that it has. A new monitor gets a slug as after [`Slug::From`] of its name.
    #[default]
    Kept,
    /// This one. The request fails if another monitor has it.
    Given(String),
    /// This one, with digits behind it if another monitor has it.
    From(String),
}

/// A change of a monitor, or a new one.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The settings. Its slug is ignored.
    pub change: Change,
    /// The slug.
    pub slug: Slug,
    /// The settings that Deadbeat only keeps.
    pub extra: ExtraChange,
    /// The zone of a calendar schedule. None: the one that the monitor has, or else that of the schedule.
    pub timezone: Option<String>,
}

/// Creates a monitor as `new` says, or changes the oldest one that has the values of `unique` as `changed` says. True: created. Requests of one project that name `unique` go one
/// after the other, so that two of them never create the same monitor.
///
/// # Errors
/// As for [`super::create`] and [`super::update`].
pub async fn create_or_update(
    services: &Services,
    access: &Access,
    new: &Wanted,
    changed: &Wanted,
    unique: Option<&Matching>,
) -> Result<(Monitor, Extra, bool), ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    // Twice: a request of another API may take the slug between the search and the insert.
    for is_last in [false, true] {
        let mut tx = services.store.begin().await?;
        let found = match unique {
            Some(matching) => {
                deadbeat_store::people::project::lock_rules(&mut tx, project).await?;
                stored::lock_matching(&mut tx, project, matching).await?
            }
            None => None,
        };
        let created = found.is_none();
        let wanted = if created { new } else { changed };
        match write(&mut tx, project, access, found, wanted, services.now()).await {
            Err(ServiceError::SlugTaken(_)) if !is_last && !matches!(wanted.slug, Slug::Given(_)) => {}
            Err(error) => return Err(error),
            Ok((monitor, extra)) => {
                tx.commit().await?;
                return Ok((monitor, extra, created));
            }
        }
    }
    Err(ServiceError::Busy)
}

/// Changes the monitor with this ping id.
///
/// # Errors
/// As for [`super::update`].
pub async fn update(
    services: &Services,
    access: &Access,
    id: PingId,
    wanted: &Wanted,
) -> Result<(Monitor, Extra), ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let found = stored::by_ping_id(&services.reader(), project, id).await?;
    let found = found.ok_or(ServiceError::NotFound("check"))?.id;
    let mut tx = services.store.begin().await?;
    let monitor = deadbeat_store::monitor::lock(&mut tx, project, found).await?;
    let monitor = monitor.ok_or(ServiceError::NotFound("check"))?;
    let written = write(&mut tx, project, access, Some(monitor), wanted, services.now()).await?;
    tx.commit().await?;
    Ok(written)
}

async fn write(
    tx: &mut Tx,
    project: ProjectId,
    access: &Access,
    before: Option<Monitor>,
    wanted: &Wanted,
    now: DateTime<Utc>,
) -> Result<(Monitor, Extra), ServiceError> {
    let mut change = Change {
        slug: settled(tx, project, before.as_ref(), &wanted.slug).await?,
        ..wanted.change.clone()
    };
    if let Some(before) = &before {
        change.schedule = zoned(before, change.schedule.take(), wanted.timezone.as_deref());
    }
    let (act, old) = match &before {
        Some(monitor) => (
            Act::MonitorChanged,
            stored::settings_in(tx, project, monitor.id).await?,
        ),
        None => (Act::MonitorCreated, None),
    };
    let monitor = match before {
        Some(monitor) => update_in(tx, monitor, &change, now).await?,
        None => create_in(tx, project, &change, now).await?,
    };
    // An unreadable value is one of a later version: the defaults take its place.
    let old: Extra = old.map_or_else(Extra::default, |json| {
        serde_json::from_value(json).unwrap_or_default()
    });
    let extra = wanted.extra.apply(old.clone());
    if extra != old {
        let json = serde_json::to_value(&extra).unwrap_or_default();
        stored::write_settings(tx, project, monitor.id, &json).await?;
    }
    audit::note(tx, entry(access, &monitor, act, &change, now));
    Ok((monitor, extra))
}

/// Returns the schedule to write if only its expression is sent, or only its zone.
fn zoned(before: &Monitor, sent: Option<Value>, timezone: Option<&str>) -> Option<Value> {
    let mut old = before.state.expectation.schedule.to_json();
    match (sent, timezone) {
        (Some(mut new), None) => {
            if let (Some(new), Some(old)) = (new.get_mut("timezone"), old.get("timezone")) {
                new.clone_from(old);
            }
            Some(new)
        }
        (None, Some(timezone)) => {
            *old.get_mut("timezone")? = timezone.into();
            Some(old)
        }
        (sent, _) => sent,
    }
}

/// The slug to write. None: the one that the monitor has.
async fn settled(
    tx: &mut Tx,
    project: ProjectId,
    before: Option<&Monitor>,
    wanted: &Slug,
) -> Result<Option<String>, ServiceError> {
    let base = match wanted {
        Slug::Kept => return Ok(None),
        Slug::Given(slug) => return Ok(Some(slug.clone())),
        Slug::From(base) => base,
    };
    if before.is_some_and(|monitor| monitor.slug == *base) {
        return Ok(None);
    }
    let is_taken = deadbeat_store::monitor::lock_by_slug(tx, project, base)
        .await?
        .is_some();
    if !is_taken {
        return Ok(Some(base.clone()));
    }
    let digits = Uuid::new_v4().simple().to_string();
    let base: String = base.chars().take(limits::SLUG_CHARS - 7).collect();
    Ok(Some(format!("{base}-{}", &digits[..6])))
}
