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

/// A Beat's whole schedule: an entry that is not in it is not scheduled.
#[derive(Debug, Deserialize)]
pub struct Snapshot {
    /// The Beat's name.
    pub beat: String,
    /// The boot id of the process that lists it: random, one for each start.
    #[serde(default)]
    pub boot: Option<Uuid>,
    /// The host on which it runs.
    #[serde(default)]
    pub host: Option<Text>,
    /// Its process id.
    #[serde(default)]
    pub pid: Option<i64>,
    /// When it started, by its clock.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// Whether it runs or ends. None: an older SDK, which does not report its end.
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
    /// The schedule, in the JSON form of `domain/schedule/json.rs`.
    pub schedule: Value,
    /// It is the SDK's canary, which is in no application's schedule.
    #[serde(default)]
    pub canary: bool,
    /// False: the Beat has it, and does not send it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How long after a slot a run may begin at the earliest: the countdown with which Beat sends the entry.
    #[serde(default)]
    pub delay_seconds: f64,
    /// Tolerated lateness.
    pub grace_seconds: f64,
    /// How long a run may take.
    #[serde(default)]
    pub longest_run_seconds: Option<f64>,
    /// Nobody has set how long a run may take, so the learned lengths limit it, too.
    #[serde(default)]
    pub longest_run_is_a_guess: bool,
    /// Every run is expected: a run whose message is lost is an incident even if later runs came.
    #[serde(default)]
    pub every_run: bool,
    /// The hint: when Beat says that it is next due.
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

/// Reads one entry more than a Beat may have, which shows that there are too many, and skips the rest.
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
                // serde would read a list as an object, and assign its members by the order of the fields.
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

/// Hints: when entries of a Beat are next due, as Beat computes it.
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
    /// None: never again. The field must be present: if it could be left out by mistake, that would disarm the monitor.
    #[serde(deserialize_with = "Option::deserialize")]
    pub next_due_at: Option<DateTime<Utc>>,
}
