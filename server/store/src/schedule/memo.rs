//! A memo of parsed schedules, by their stored text.
//!
//! A batch of pings locks its monitors' rows, and each row holds its schedule. Parsing the text anew for every ping
//! would cost more than the rules that follow. Many monitors share a schedule, so a few thousand entries serve a
//! million monitors. The text is the key, so an entry can never be stale.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use deadbeat_domain::schedule::{Schedule, ScheduleError};

/// The most entries: some megabytes. A full memo is emptied.
const MOST: usize = 20_000;

static READ: LazyLock<RwLock<HashMap<String, Schedule>>> = LazyLock::new(RwLock::default);

/// Parses a schedule's JSON text, or takes the parsed schedule from the memo.
pub(crate) fn read(text: &str) -> Result<Schedule, ScheduleError> {
    if let Some(schedule) = READ.read().unwrap_or_else(PoisonError::into_inner).get(text) {
        return Ok(schedule.clone());
    }
    let json = serde_json::from_str(text).unwrap_or_default();
    let schedule = Schedule::from_json(&json)?;
    let mut memo = READ.write().unwrap_or_else(PoisonError::into_inner);
    if memo.len() >= MOST {
        memo.clear();
    }
    memo.insert(text.to_owned(), schedule.clone());
    Ok(schedule)
}
