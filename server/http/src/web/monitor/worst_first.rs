//! A project's monitors in the order in which they need a person: down, late, new, up, paused. Within each status, the newest is first.
//!
//! The store lists by id. This list therefore joins one list for each status, and a cursor says in which of them a page ended. A monitor whose
//! status changes between two of these reads may be missing or appear twice, until the reader loads the page again.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::monitor::status::{ShownStatus, Status};
use deadbeat_store::monitor::{self, Filter, Monitor};
use deadbeat_store::page::Page;
use deadbeat_store::{Reader, StoreResult};
use uuid::Uuid;

/// The most monitors on one page.
pub const ROWS: usize = 200;

/// The statuses, the worst first.
pub const ORDER: [ShownStatus; 5] = [
    ShownStatus::Down,
    ShownStatus::Late,
    ShownStatus::New,
    ShownStatus::Up,
    ShownStatus::Paused,
];

/// The place where a page ended: `up.0197c2f0-…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    status: ShownStatus,
    after: MonitorId,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.status.as_str(), self.after)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (status, after) = text.split_once('.').ok_or(())?;
        let status = ShownStatus::parse(status).ok_or(())?;
        let after = MonitorId(Uuid::try_parse(after).map_err(|_| ())?);
        Ok(Self { status, after })
    }
}

/// Returns a page of monitors, and the start of the next page, if there is one.
///
/// # Errors
/// If the database cannot be reached, or a row cannot be read.
pub async fn page(
    reader: &Reader,
    project: ProjectId,
    only: Option<ShownStatus>,
    from: Option<Cursor>,
    now: DateTime<Utc>,
) -> StoreResult<(Vec<Monitor>, Option<Cursor>)> {
    let mut rows: Vec<(ShownStatus, Monitor)> = Vec::new();
    let wanted = ORDER
        .into_iter()
        .filter(|status| only.is_none_or(|only| only == *status));
    for status in wanted.skip_while(|status| from.is_some_and(|from| from.status != *status)) {
        // Read one row more than shown, to know whether another page follows.
        let limit = i64::try_from(ROWS + 1 - rows.len()).unwrap_or(1);
        let after = from.filter(|from| from.status == status).map(|from| from.after);
        let more = monitor::list(reader, project, &filter(status), Page { after, limit }, now).await?;
        rows.extend(more.into_iter().map(|monitor| (status, monitor)));
        if rows.len() > ROWS {
            rows.truncate(ROWS);
            let next = rows.last().map(|(status, monitor)| Cursor {
                status: *status,
                after: monitor.id,
            });
            return Ok((monitors(rows), next));
        }
    }
    Ok((monitors(rows), None))
}

fn monitors(rows: Vec<(ShownStatus, Monitor)>) -> Vec<Monitor> {
    rows.into_iter().map(|(_, monitor)| monitor).collect()
}

/// Returns the store's filter for monitors with this shown status.
fn filter(shown: ShownStatus) -> Filter {
    let (status, late) = match shown {
        ShownStatus::Down => (Some(Status::Down), None),
        ShownStatus::Late => (None, Some(true)),
        ShownStatus::New => (Some(Status::New), Some(false)),
        ShownStatus::Up => (Some(Status::Up), Some(false)),
        ShownStatus::Paused => (Some(Status::Paused), None),
    };
    Filter {
        status,
        late,
        ..Filter::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_back_and_nothing_else_is() {
        let cursor = Cursor {
            status: ShownStatus::Late,
            after: MonitorId(Uuid::from_u128(7)),
        };
        assert_eq!(cursor.to_string(), "late.00000000-0000-0000-0000-000000000007");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in [
            "",
            "late",
            "late.",
            "late.7",
            "gone.00000000-0000-0000-0000-000000000007",
            ".",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(()), "{text:?}");
        }
    }

    #[test]
    fn every_shown_status_has_its_place() {
        for status in ["down", "late", "new", "up", "paused"] {
            assert!(ORDER.contains(&ShownStatus::parse(status).unwrap()), "{status}");
        }
    }
}
