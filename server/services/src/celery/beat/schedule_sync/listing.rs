//! A Beat's schedule, as the SDK reports it.

use std::fmt;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use deadbeat_domain::limits;
use deadbeat_domain::text::Text;
use serde::de::{DeserializeOwned, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::celery::beat;

/// A Beat's whole schedule: what is not in it is not scheduled.
#[derive(Debug, Deserialize)]
pub struct Snapshot {
    /// The Beat's name.
    pub beat: String,
    /// Which start of it lists them: random, one a start.
    #[serde(default)]
    pub boot: Option<Uuid>,
    /// Where that runs.
    #[serde(default)]
    pub host: Option<Text>,
    /// Its process.
    #[serde(default)]
    pub pid: Option<i64>,
    /// When it started, by its clock.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// Whether it goes on. None: an older SDK, which does not report that it ends.
    #[serde(default)]
    pub state: Option<beat::State>,
    /// Every entry.
    #[serde(deserialize_with = "objects")]
    pub entries: Vec<Entry>,
}

/// One entry of a Beat's schedule.
#[derive(Debug, Deserialize)]
pub struct Entry {
    /// Its name, unique within the Beat.
    pub name: String,
    /// The task that it sends.
    #[serde(default)]
    pub task: Option<Text>,
    /// In native form.
    pub schedule: Value,
    /// It is the SDK's own, and in nobody's schedule.
    #[serde(default)]
    pub canary: bool,
    /// False: known, and not sent.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How long after a slot a run may begin at the earliest: the countdown with which Beat sends it.
    #[serde(default)]
    pub delay_seconds: f64,
    /// Tolerated lateness.
    pub grace_seconds: f64,
    /// How long a run may take.
    #[serde(default)]
    pub longest_run_seconds: Option<f64>,
    /// Nobody has said how long one may take: what is learned bounds it, too.
    #[serde(default)]
    pub longest_run_is_a_guess: bool,
    /// Each run counts: one whose message is lost is an incident although later ones ran.
    #[serde(default)]
    pub every_run: bool,
    /// When Beat says that it is next due.
    #[serde(default)]
    pub next_due_at: Option<DateTime<Utc>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_none(delay_seconds: &f64) -> bool {
    *delay_seconds == 0.0
}

fn yes() -> bool {
    true
}

/// Reads one entry more than a Beat may have, which tells that there are too many, and passes over the rest.
fn objects<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Objects<T>(PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for Objects<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of entries")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut entries = Vec::new();
            while entries.len() <= limits::BEAT_ENTRIES {
                let Some(entry) = list.next_element::<Box<RawValue>>()? else {
                    return Ok(entries);
                };
                // serde would take a list for an object, and go by the order of the members.
                if !entry.get().starts_with('{') {
                    return Err(A::Error::custom("an entry is an object"));
                }
                entries.push(serde_json::from_str(entry.get()).map_err(A::Error::custom)?);
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(entries)
        }
    }

    deserializer.deserialize_seq(Objects(PhantomData))
}

/// When entries of a Beat are next due, by its own reckoning.
#[derive(Debug, Deserialize)]
pub struct DueHints {
    /// The Beat's name.
    pub beat: String,
    /// The entries that it sent.
    #[serde(deserialize_with = "objects")]
    pub entries: Vec<DueHint>,
}

/// When one entry is next due.
#[derive(Debug, Deserialize)]
pub struct DueHint {
    /// The entry's name.
    pub name: Text,
    /// None: never again. It must be said: left out by mistake, it would disarm the monitor.
    #[serde(deserialize_with = "Option::deserialize")]
    pub next_due_at: Option<DateTime<Utc>>,
}
