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

/// A Beat's whole schedule. Beat does not send entries that are missing in it.
#[derive(Debug, Deserialize)]
pub struct ScheduleListing {
    /// The Beat's name.
    pub beat: String,
    /// The boot id of the process with this schedule: random, one for each start.
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
    /// Whether it continues or ends. `None`: an older SDK, which does not report its end.
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
    /// The task that Beat sends for it.
    #[serde(default)]
    pub task: Option<Text>,
    /// The schedule, in the JSON form of `domain/schedule/json.rs`.
    pub schedule: Value,
    /// True for the SDK's canary, which is in no application's schedule.
    #[serde(default)]
    pub canary: bool,
    /// False if the Beat has the entry, but does not send it.
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
    /// True if nobody has set how long a run may take. The learned durations then limit it, too.
    #[serde(default)]
    pub longest_run_is_a_guess: bool,
    /// True if every run is expected: a run whose message is lost is then an incident even if later runs came.
    #[serde(default)]
    pub every_run: bool,
    /// The hint: when the entry is next due according to Beat.
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

/// Reads one entry more than a Beat may have, so that the caller detects too many, and skips the rest.
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
                // serde would accept a list for an object, and assign its members by the order of the fields.
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
    /// The entries that Beat has just sent.
    #[serde(deserialize_with = "objects")]
    pub entries: Vec<DueHint>,
}

/// When one entry is next due.
#[derive(Debug, Deserialize)]
pub struct DueHint {
    /// The entry's name.
    pub name: Text,
    /// `None`: never again. The field must be present: if a mistake could omit it, the monitor would be disarmed.
    #[serde(deserialize_with = "Option::deserialize")]
    pub next_due_at: Option<DateTime<Utc>>,
}
