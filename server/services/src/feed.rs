//! The change feed: the changes in a project since a reader's last poll (ADR 034).
//!
//! Every use case that changes something notes the change in its own transaction ([`note`]). Pings and events that change no status note nothing.

use chrono::{DateTime, Utc};
use deadbeat_domain::change::feed::{Change, ChangeKind, ChangeSubject, has_missed, needed};
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::Tx;
use deadbeat_store::feed::Stored;

use crate::{ServiceError, Services};

/// Notes a change. The commit of the transaction writes it.
pub(crate) fn note(
    tx: &mut Tx,
    project_id: ProjectId,
    subject: ChangeSubject,
    what: ChangeKind,
    at: DateTime<Utc>,
) {
    note_all(tx, project_id, [subject], what, at);
}

/// Notes the same change for several subjects.
pub(crate) fn note_all(
    tx: &mut Tx,
    project_id: ProjectId,
    subjects: impl IntoIterator<Item = ChangeSubject>,
    what: ChangeKind,
    at: DateTime<Utc>,
) {
    let changes = subjects.into_iter().map(|subject| Change {
        project_id,
        subject,
        what,
        at,
    });
    deadbeat_store::feed::note(tx, changes);
}

/// The answer to a reader's poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The next changes, oldest first.
    pub changes: Vec<Stored>,
    /// The sequence for the reader's next poll.
    pub next_after: i64,
    /// True if changes that the reader has not seen were removed. The reader must reload everything, then poll after `next_after`.
    pub must_reload: bool,
}

/// Returns the changes of a project after a sequence, at most `limit`, without those that the reader may not see. With `None` for `after` it returns
/// no changes, only the sequence for the next poll. A reader that then loads the project's state misses nothing.
///
/// # Errors
/// If the access does not allow this, or the database cannot be reached.
pub async fn read(
    services: &Services,
    access: &Access,
    after: Option<i64>,
    limit: i64,
) -> Result<Changes, ServiceError> {
    let project = access.may(Action::Read)?;
    let reader = services.reader();
    let Some(after) = after else {
        return Ok(Changes {
            changes: Vec::new(),
            next_after: deadbeat_store::feed::newest(&reader, project).await?,
            must_reload: false,
        });
    };
    let mut feed = deadbeat_store::feed::read(&reader, project, after, limit).await?;
    if has_missed(after, feed.newest, feed.changes.first().map(|one| one.sequence)) {
        return Ok(Changes {
            changes: Vec::new(),
            next_after: feed.newest,
            must_reload: true,
        });
    }
    let next_after = feed.changes.last().map_or(after, |one| one.sequence);
    feed.changes
        .retain(|one| access.may(needed(&one.subject_kind)).is_ok());
    Ok(Changes {
        changes: feed.changes,
        next_after,
        must_reload: false,
    })
}
