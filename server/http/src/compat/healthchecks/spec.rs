//! The fields of a check that a client sends, checked in the order and with the messages of Healthchecks.

use actix_web::HttpResponse;
use deadbeat_domain::ids::ChannelId;
use deadbeat_domain::schedule::Schedule;
use deadbeat_services::monitor::healthchecks::{ExtraChange, Slug, Wanted};
use deadbeat_services::monitor::{Change, ChannelChoice};
use deadbeat_store::alert::channel::Channel;
use deadbeat_store::monitor::healthchecks::Matching;
use serde_json::{Map, Value, json};

use super::answer::{error, invalid};
use super::check::Version;

/// The least and the most of `timeout` and `grace`, in seconds.
const SECONDS: std::ops::RangeInclusive<i64> = 60..=31_536_000;
const NAME_CHARS: usize = 100;
const KEYWORD_CHARS: usize = 200;
/// Healthchecks has no limit here.
const DESC_CHARS: usize = 10_000;
/// What a check has of which a client says nothing.
const DEFAULT_TIMEOUT: i64 = 86_400;
const DEFAULT_GRACE: i64 = 3_600;

/// The fields, each as sent. None: not sent.
#[derive(Debug, Default)]
pub(super) struct Spec {
    channels: Option<String>,
    desc: Option<String>,
    failure_kw: Option<String>,
    filter_body: Option<bool>,
    filter_default_fail: Option<bool>,
    filter_subject: Option<bool>,
    grace: Option<i64>,
    name: Option<String>,
    schedule: Option<String>,
    slug: Option<String>,
    start_kw: Option<String>,
    subject: Option<String>,
    subject_fail: Option<String>,
    success_kw: Option<String>,
    tags: Option<String>,
    timeout: Option<i64>,
    tz: Option<String>,
    unique: Vec<String>,
}

/// Reads the members of a body.
struct Members<'a>(&'a Map<String, Value>);

impl Members<'_> {
    fn text(&self, name: &str, most: usize) -> Result<Option<String>, String> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() > most => Err(format!("{name} is too long")),
            // PostgreSQL takes no NUL in a text.
            Some(Value::String(text)) if text.contains('\0') => Err(format!("{name} has unexpected value")),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("{name} is not a string")),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(format!("{name} is not a boolean")),
        }
    }

    /// A setting that we have in one state only.
    fn never(&self, name: &str) -> Result<(), String> {
        match self.flag(name)? {
            Some(true) => Err(format!("{name} has unexpected value")),
            _ => Ok(()),
        }
    }

    fn seconds(&self, name: &str) -> Result<Option<i64>, String> {
        let number = match self.0.get(name) {
            None => return Ok(None),
            // A boolean is an integer in Python.
            Some(Value::Bool(flag)) => i64::from(*flag),
            Some(Value::Number(number)) if number.is_u64() || number.is_i64() => {
                number.as_i64().unwrap_or(i64::MAX)
            }
            Some(_) => return Err(format!("{name} is not a number")),
        };
        match number {
            _ if SECONDS.contains(&number) => Ok(Some(number)),
            _ if number < *SECONDS.start() => Err(format!("{name} is too small")),
            _ => Err(format!("{name} is too large")),
        }
    }
}

impl Spec {
    /// Reads a body.
    pub(super) fn read(body: &Map<String, Value>) -> Result<Self, HttpResponse> {
        Self::of(body).map_err(|fault| invalid(&fault))
    }

    fn of(body: &Map<String, Value>) -> Result<Self, String> {
        let members = Members(body);
        let mut spec = Self {
            channels: members.text("channels", usize::MAX)?,
            desc: members.text("desc", DESC_CHARS)?,
            failure_kw: members.text("failure_kw", KEYWORD_CHARS)?,
            filter_body: members.flag("filter_body")?,
            filter_default_fail: members.flag("filter_default_fail")?,
            ..Self::default()
        };
        // These would change which requests count as pings of which kind. A client that asks for one must learn that there is none.
        members.never("filter_http_body")?;
        spec.filter_subject = members.flag("filter_subject")?;
        spec.grace = members.seconds("grace")?;
        members.never("manual_resume")?;
        if body.get("methods").is_some_and(|value| value != "") {
            return Err("methods has unexpected value".to_owned());
        }
        spec.name = members.text("name", NAME_CHARS)?;
        spec.schedule = members.text("schedule", NAME_CHARS)?;
        if let Some(text) = &spec.schedule
            && Schedule::from_json(&calendar(text, "UTC")).is_err()
        {
            return Err("schedule is not a valid cron or OnCalendar expression".to_owned());
        }
        spec.slug = members.text("slug", NAME_CHARS)?;
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if spec.slug.as_ref().is_some_and(|slug| !slug.bytes().all(is_plain)) {
            return Err("slug does not match pattern".to_owned());
        }
        spec.start_kw = members.text("start_kw", KEYWORD_CHARS)?;
        spec.subject = members.text("subject", KEYWORD_CHARS)?;
        spec.subject_fail = members.text("subject_fail", KEYWORD_CHARS)?;
        spec.success_kw = members.text("success_kw", KEYWORD_CHARS)?;
        spec.tags = members.text("tags", usize::MAX)?;
        spec.timeout = members.seconds("timeout")?;
        spec.tz = members.text("tz", usize::MAX)?;
        if let Some(zone) = &spec.tz
            && Schedule::cron("* * * * *", zone).is_err()
        {
            return Err("tz is not a valid timezone".to_owned());
        }
        spec.unique = match body.get("unique") {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let known = |item: &Value| {
                    let name = item.as_str()?;
                    ["name", "slug", "tags", "timeout", "grace"]
                        .contains(&name)
                        .then(|| name.to_owned())
                };
                let names: Option<Vec<String>> = items.iter().map(known).collect();
                names.ok_or("an item in 'unique' has unexpected value")?
            }
            Some(_) => return Err("unique is not an array".to_owned()),
        };
        Ok(spec)
    }

    /// By what the client recognizes a check that exists already. None: the check is new.
    pub(super) fn matching(&self) -> Option<Matching> {
        let names = |field: &str| self.unique.iter().any(|name| name == field);
        let is_absent = (names("name") && self.name.is_none())
            || (names("slug") && self.slug.is_none())
            || (names("tags") && self.tags.is_none())
            || (names("timeout") && self.timeout.is_none())
            || (names("grace") && self.grace.is_none());
        (!self.unique.is_empty() && !is_absent).then(|| Matching {
            name: self.name.clone().filter(|_| names("name")),
            slug: self.slug.clone().filter(|_| names("slug")),
            tags: self.tags.as_deref().filter(|_| names("tags")).map(tags),
            interval_seconds: self.timeout.filter(|_| names("timeout")),
            grace_seconds: self
                .grace
                .filter(|_| names("grace"))
                .map(|seconds| seconds as f64),
        })
    }

    /// Translates the fields. `channels`: those of the project. `is_new`: fields that were not sent get Healthchecks' defaults.
    pub(super) fn wanted(
        &self,
        channels: &[Channel],
        is_new: bool,
        version: Version,
    ) -> Result<Wanted, HttpResponse> {
        let name = self.name.clone().filter(|name| !name.trim().is_empty());
        let slug = match (version, &self.slug, &name) {
            (_, Some(slug), _) if !slug.is_empty() => Slug::Given(slug.clone()),
            // Up to version 2 the slug follows the name.
            (Version::V1 | Version::V2, _, Some(name)) => Slug::From(slugify(name)),
            _ if is_new => Slug::From(name.as_deref().map_or_else(|| "check".to_owned(), slugify)),
            _ => Slug::Kept,
        };
        let zone = self.tz.as_deref().unwrap_or("UTC");
        let schedule = match (&self.schedule, self.timeout) {
            (Some(text), _) if !text.is_empty() => Some(calendar(text, zone)),
            (_, Some(seconds)) => Some(json!({"kind": "interval", "seconds": seconds})),
            _ if is_new => Some(json!({"kind": "interval", "seconds": DEFAULT_TIMEOUT})),
            _ => None,
        };
        let grace = self.grace.or(is_new.then_some(DEFAULT_GRACE));
        Ok(Wanted {
            change: Change {
                name,
                slug: None,
                schedule,
                grace_seconds: grace.map(|seconds| seconds as f64),
                longest_run_seconds: None,
                tags: self.tags.as_deref().map(tags),
                channels: match self.choice(channels)? {
                    None if is_new => Some(ChannelChoice::These(Vec::new())),
                    choice => choice,
                },
                severity: None,
                failure_threshold: None,
                recovery_threshold: None,
            },
            slug,
            extra: ExtraChange {
                desc: self.desc.clone(),
                subject: self.subject.clone(),
                subject_fail: self.subject_fail.clone(),
                start_kw: self.start_kw.clone(),
                success_kw: self.success_kw.clone(),
                failure_kw: self.failure_kw.clone(),
                filter_subject: self.filter_subject,
                filter_body: self.filter_body,
                filter_default_fail: self.filter_default_fail,
            },
            timezone: self.tz.clone(),
        })
    }

    fn choice(&self, channels: &[Channel]) -> Result<Option<ChannelChoice>, HttpResponse> {
        let Some(text) = self.channels.as_deref() else {
            return Ok(None);
        };
        if text == "*" {
            return Ok(Some(ChannelChoice::All));
        }
        if text.is_empty() {
            return Ok(Some(ChannelChoice::These(Vec::new())));
        }
        let mut chosen: Vec<ChannelId> = Vec::new();
        for part in text.split(',') {
            if part.is_empty() {
                return Err(error(400, "empty channel identifier"));
            }
            let is_meant = |one: &&Channel| one.id.0.to_string() == part || one.name == part;
            let mut found = channels.iter().filter(is_meant);
            match (found.next(), found.next()) {
                (Some(one), None) => chosen.push(one.id),
                (None, _) => return Err(error(400, &format!("invalid channel identifier: {part}"))),
                _ => return Err(error(400, &format!("non-unique channel identifier: {part}"))),
            }
        }
        Ok(Some(ChannelChoice::These(chosen)))
    }
}

/// One line of five words is a crontab's; all else is a calendar of systemd.
fn calendar(text: &str, zone: &str) -> Value {
    let is_cron = !text.trim().contains('\n') && text.split_whitespace().count() == 5;
    let kind = if is_cron { "cron" } else { "oncalendar" };
    json!({"kind": kind, "expression": text, "timezone": zone})
}

fn tags(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Makes a slug as Django does. A name without letters and digits of ASCII yields `check`, because a monitor must have a slug.
fn slugify(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().filter(char::is_ascii) {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() || c == '_' => slug.push(c),
            c if (c.is_whitespace() || c == '-') && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    let slug = slug.trim_matches(['-', '_']);
    if slug.is_empty() {
        "check".to_owned()
    } else {
        slug.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_made_as_django_makes_them() {
        for (name, slug) in [
            ("Database Backup", "database-backup"),
            (" a.b -- c_d ", "ab-c_d"),
            ("__x__", "x"),
            ("✓", "check"),
            ("", "check"),
        ] {
            assert_eq!(slugify(name), slug, "{name:?}");
        }
    }
}
