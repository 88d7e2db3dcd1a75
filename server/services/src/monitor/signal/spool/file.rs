//! The file of a spool: opening, reading and damage.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use redb::{Database, ReadableTable};
use uuid::Uuid;

use super::{ASIDE, Kept, NAMES, SIGNALS, SpoolError, UNREADABLE, file_error, size};
use crate::monitor::signal::incoming::Address;

/// The content of a file.
pub(super) struct Content {
    pub(super) database: Database,
    pub(super) writer: Uuid,
    pub(super) listener: Uuid,
    pub(super) signals: u64,
    pub(super) bytes: u64,
    pub(super) oldest_at: Option<DateTime<Utc>>,
    /// The signals that are set aside, oldest first.
    pub(super) aside: Vec<(u64, Address)>,
}

/// Why a file cannot be opened.
pub(super) enum Fault {
    /// The file may be intact, but there is no permission or no space, or another process has it open.
    Passing(SpoolError),
    /// The file is damaged. A retry would not help.
    Damaged(String),
}

/// Opens or creates a file, and reads all its signals.
///
/// `writer` is the name under which this process already writes. A reopened file keeps that name, because a commit under it may still be running.
pub(super) fn read(path: &Path, writer: Option<Uuid>) -> Result<Content, Fault> {
    // redb validates most of the bytes that it reads, but panics on some damaged ones.
    catch_unwind(AssertUnwindSafe(|| read_trusting(path, writer)))
        .unwrap_or_else(|_| Err(Fault::Damaged("reading it fails".to_owned())))
}

fn read_trusting(path: &Path, writer: Option<Uuid>) -> Result<Content, Fault> {
    let private = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(fault)?;
    let mut database = Database::builder().create_file(private).map_err(fault)?;
    if !database.check_integrity().map_err(fault)? {
        tracing::warn!(file = %path.display(), "the spool file was damaged and is repaired: signals of its last batch may be missing");
    }
    let begun = database.begin_write().map_err(fault)?;
    let (mut signals, mut bytes, mut oldest_at) = (0, 0, None);
    let mut unreadable = Vec::new();
    let (writer, listener) = {
        let mut kept = begun.open_table(SIGNALS).map_err(fault)?;
        let mut names = begun.open_table(NAMES).map_err(fault)?;
        for entry in kept.iter().map_err(fault)? {
            let (key, value) = entry.map_err(fault)?;
            let (json, body) = value.value();
            let Some(at) = came_at(json) else {
                unreadable.push((key.value(), json.to_vec(), body.to_vec()));
                continue;
            };
            oldest_at = oldest_at.or(Some(at));
            signals += 1;
            bytes += size(json, body);
        }
        if !unreadable.is_empty() {
            let mut aside = begun.open_table(UNREADABLE).map_err(fault)?;
            for (place, json, body) in &unreadable {
                kept.remove(place).map_err(fault)?;
                aside
                    .insert(place, (json.as_slice(), body.as_slice()))
                    .map_err(fault)?;
            }
            tracing::error!(
                signals = unreadable.len(),
                "some spooled signals cannot be read; the file keeps them in a table of their own"
            );
        }
        let known = names.get("listener").map_err(fault)?.map(|id| id.value());
        let listener = match known {
            Some(id) => id,
            None => {
                let id = Uuid::new_v4().as_u128();
                names.insert("listener", id).map_err(fault)?;
                id
            }
        };
        let named = names.get("writer").map_err(fault)?.map(|id| id.value());
        // A process that finds an empty file takes a new name, because the file does not contain the numbers that an earlier process has committed.
        let known = named.filter(|_| signals > 0).or(writer.map(|id| id.as_u128()));
        let id = known.unwrap_or_else(|| Uuid::new_v4().as_u128());
        if named != Some(id) {
            names.insert("writer", id).map_err(fault)?;
            names.remove("given").map_err(fault)?;
        }
        (id, listener)
    };
    let mut aside = Vec::new();
    for entry in begun.open_table(ASIDE).map_err(fault)?.iter().map_err(fault)? {
        let (key, value) = entry.map_err(fault)?;
        let (_, json, body) = value.value();
        bytes += size(json, body);
        // Leave a signal that a newer version wrote in its place.
        if let Ok(kept) = serde_json::from_slice::<Kept>(json) {
            aside.push((key.value(), kept.address));
        }
    }
    begun.commit().map_err(fault)?;
    Ok(Content {
        database,
        writer: Uuid::from_u128(writer),
        listener: Uuid::from_u128(listener),
        signals,
        bytes,
        oldest_at,
        aside,
    })
}

/// Renames a file to the first free name of its kind. Nothing is deleted.
pub(super) fn rename(path: &Path) -> std::io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".unreadable-{number}"));
        let aside = PathBuf::from(name);
        if !aside.try_exists()? {
            std::fs::rename(path, &aside)?;
            return Ok(aside);
        }
        number += 1;
    }
}

/// Returns when a kept signal was received, or `None` if the signal cannot be read.
pub(super) fn came_at(json: &[u8]) -> Option<DateTime<Utc>> {
    let kept: Kept = serde_json::from_slice(json).ok()?;
    Some(kept.signal.received_at)
}

fn fault(error: impl Into<redb::Error>) -> Fault {
    use redb::Error;
    use std::io::ErrorKind;
    match error.into() {
        Error::Io(error) if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            Fault::Passing(file_error(error))
        }
        error @ (Error::DatabaseAlreadyOpen | Error::PreviousIo | Error::DatabaseClosed) => {
            Fault::Passing(file_error(error))
        }
        error => Fault::Damaged(error.to_string()),
    }
}
