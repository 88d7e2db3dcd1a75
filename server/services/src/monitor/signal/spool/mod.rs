//! Signals that the database could not take, kept in a file until it can: durable when acknowledged, replayed in order, once.
//!
//! The file is a `redb` database (ADR 018): a transaction is on the disk when it is committed, and one that was torn is as if it had
//! never begun. Its calls block, so each runs on a thread for that.
//!
//! A write that fails (the disk is full) closes the file; the next call opens it again, so that the spool is back as soon as there is
//! space. A file that cannot be read is kept under another name, and a fresh one begun.

mod aside;
mod file;
mod reserve;
#[cfg(test)]
mod tests;

use std::fs::DirBuilder;
use std::ops::RangeInclusive;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use self::aside::Index;
use self::file::{Fault, came_at, read, rename};
use self::reserve::Reserve;
use crate::monitor::signal::incoming::{Address, Incoming};
use deadbeat_domain::monitor::ping::Signal;

pub(crate) use self::aside::Aside;

/// The signal's number, and 0. Older versions numbered batches: then the second part is the place within the batch.
type Place = (u64, u32);
/// The signal as JSON, and its body.
type Row<'a> = (&'a [u8], &'a [u8]);
/// The same, before it is written.
type OwnedRow = (Vec<u8>, Vec<u8>);
const SIGNALS: TableDefinition<'_, Place, Row<'_>> = TableDefinition::new("signal");
/// What is no signal for this version of the server, kept for a person.
const UNREADABLE: TableDefinition<'_, Place, Row<'_>> = TableDefinition::new("unreadable");
/// Signals that cannot be written for now, by the order in which they were set aside: each with the name under which it is written.
const ASIDE: TableDefinition<'_, u64, (u128, &[u8], &[u8])> = TableDefinition::new("aside");
/// `writer`: which row of the table `writer` is this file's. `listener`: which row of the table `listener`, for as long as the file lives.
/// `given`: the last number that may be committed under the writer's name. The signal that had it may have left the file.
const NAMES: TableDefinition<'_, &str, u128> = TableDefinition::new("name");

/// The file's own overhead for a signal, in bytes, as counted against the cap.
const OVERHEAD: u64 = 64;

/// Why a signal could not be kept.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The cap is reached.
    #[error("the spool is full")]
    Full,
    /// The disk has no space left beside what forgetting needs.
    #[error("the disk is full: {0}")]
    Disk(std::io::Error),
    /// The file cannot be read or written: the disk is full, it is damaged, another process has it.
    #[error("the spool file fails: {0}")]
    File(String),
}

/// Keeps signals. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    /// Held while the disk works, which may take seconds: only threads for blocking calls may wait for it.
    file: Mutex<File>,
    /// Beside the file, so that a task never waits for the disk to read them.
    names: Mutex<Names>,
    path: PathBuf,
    most_bytes: u64,
    signals: AtomicU64,
    bytes: AtomicU64,
    /// Microseconds since the epoch; only read while there are signals.
    oldest_at: AtomicI64,
    aside: Mutex<Index>,
    reserve: Reserve,
}

struct File {
    /// None after a failure: redb wants a file opened anew before it does anything else with it.
    database: Option<Database>,
}

/// Under which names the process that has the file writes and listens. Nil: the file was never opened.
#[derive(Clone, Copy, Default)]
struct Names {
    writer: Uuid,
    listener: Uuid,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A signal as it is kept; the body lies beside it.
#[derive(Serialize, Deserialize)]
struct Kept {
    address: Address,
    signal: Signal,
    method: Option<String>,
    remote_addr: Option<String>,
    user_agent: Option<String>,
}

/// A kept signal and its place.
#[derive(Debug, Clone)]
pub struct Spooled {
    /// Its number. Older versions numbered batches, not signals.
    pub position: u64,
    /// Its place among the signals of the same number.
    pub part: u32,
    /// The signal.
    pub incoming: Incoming,
}

impl Spool {
    /// Opens the file, or makes it; `most_bytes` is the cap on what it keeps. One that is damaged is kept aside under another name.
    ///
    /// # Errors
    /// It cannot be opened: no rights, no space, or another process has it.
    pub fn open(path: &Path, most_bytes: u64) -> Result<Self, SpoolError> {
        // Bodies of pings are nobody else's business, as in the database's own folder.
        if let Some(folder) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(file_error)?;
        }
        let inner = Inner {
            file: Mutex::new(File { database: None }),
            names: Mutex::default(),
            path: path.to_owned(),
            most_bytes,
            signals: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            oldest_at: AtomicI64::new(0),
            aside: Mutex::default(),
            reserve: Reserve::beside(path),
        };
        drop(inner.opened()?);
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Which row of the table `writer` is this file's.
    #[must_use]
    pub fn writer(&self) -> Uuid {
        self.inner.names().writer
    }

    /// Which row of the table `listener` belongs to the process that has this file.
    #[must_use]
    pub fn listener(&self) -> Uuid {
        self.inner.names().listener
    }

    /// When the oldest signal came.
    #[must_use]
    pub fn oldest_at(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.inner.oldest_at.load(Ordering::Relaxed))
            .filter(|_| self.signals() > 0)
    }

    /// Signals that are kept.
    #[must_use]
    pub fn signals(&self) -> u64 {
        self.inner.signals.load(Ordering::Relaxed)
    }

    /// Bytes that they take, as counted against the cap.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    /// The last number that was given to a signal: the database may have it already, so what comes gets higher ones.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn last_position(&self) -> Result<Option<u64>, SpoolError> {
        self.with_reserve(|_, file| {
            let begun = file.begin_read().map_err(file_error)?;
            let kept = begun.open_table(SIGNALS).map_err(file_error)?;
            let last = kept.last().map_err(file_error)?.map(|(key, _)| key.value().0);
            let names = begun.open_table(NAMES).map_err(file_error)?;
            let given = names.get("given").map_err(file_error)?;
            Ok(last.max(given.and_then(|number| u64::try_from(number.value()).ok())))
        })
        .await
    }

    /// Keeps signals under the first of these numbers. They are on the disk when this returns.
    ///
    /// The other numbers belong to signals that need not be kept. A commit whose answer was lost may have brought them to the database,
    /// so nothing else may ever have them.
    ///
    /// # Errors
    /// The cap is reached or the file cannot be written; none of them is kept.
    pub async fn append(&self, numbers: RangeInclusive<u64>, batch: &[Incoming]) -> Result<(), SpoolError> {
        let rows = rows(batch)?;
        let came_at = batch.first().map(|incoming| incoming.signal.received_at);
        self.on_thread(move |inner, file| {
            let added: u64 = rows.iter().map(|(json, body)| size(json, body)).sum();
            inner.has_room(added)?;
            let begun = file.begin_write().map_err(file_error)?;
            {
                let mut kept = begun.open_table(SIGNALS).map_err(file_error)?;
                for (number, (json, body)) in (*numbers.start()..).zip(&rows) {
                    kept.insert((number, 0), (json.as_slice(), body.as_slice()))
                        .map_err(file_error)?;
                }
            }
            note_given(&begun, *numbers.end())?;
            begun.commit().map_err(file_error)?;
            if let (0, Some(at)) = (inner.signals.load(Ordering::Relaxed), came_at) {
                inner.oldest_at.store(at.timestamp_micros(), Ordering::Relaxed);
            }
            inner.signals.fetch_add(rows.len() as u64, Ordering::Relaxed);
            inner.bytes.fetch_add(added, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    /// The oldest signals, `most` at most. Those of one number (older versions wrote such) stay together, however many they are.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn oldest(&self, most: usize) -> Result<Vec<Spooled>, SpoolError> {
        self.with_reserve(move |_, file| {
            let begun = file.begin_read().map_err(file_error)?;
            let kept = begun.open_table(SIGNALS).map_err(file_error)?;
            let mut oldest: Vec<Spooled> = Vec::new();
            // Where the batch that is being read began.
            let mut batch_from = 0;
            for entry in kept.iter().map_err(file_error)? {
                let (key, value) = entry.map_err(file_error)?;
                let (position, part) = key.value();
                if oldest.last().is_some_and(|last| last.position != position) {
                    batch_from = oldest.len();
                }
                if oldest.len() >= most && batch_from > 0 {
                    oldest.truncate(batch_from);
                    break;
                }
                let (json, body) = value.value();
                oldest.push(Spooled {
                    position,
                    part,
                    incoming: incoming(json, body)?,
                });
            }
            Ok(oldest)
        })
        .await
    }

    /// Forgets the signals up to a number: they are in the database. The reserve gives the space when the disk is full.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn forget(&self, upto: u64) -> Result<(), SpoolError> {
        self.with_reserve(move |inner, file| {
            let begun = file.begin_write().map_err(file_error)?;
            let (mut signals, mut bytes) = (0, 0);
            let oldest_at = {
                let mut kept = begun.open_table(SIGNALS).map_err(file_error)?;
                kept.retain_in((0, 0)..=(upto, u32::MAX), |_, (json, body)| {
                    signals += 1;
                    bytes += size(json, body);
                    false
                })
                .map_err(file_error)?;
                let first = kept.first().map_err(file_error)?;
                first.and_then(|(_, value)| came_at(value.value().0))
            };
            begun.commit().map_err(file_error)?;
            if let Some(at) = oldest_at {
                inner.oldest_at.store(at.timestamp_micros(), Ordering::Relaxed);
            }
            inner.signals.fetch_sub(signals, Ordering::Relaxed);
            inner.bytes.fetch_sub(bytes, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    /// Gives every kept signal after `done` a number of its own, in their order. Older versions numbered batches.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn renumber(&self, done: u64) -> Result<(), SpoolError> {
        self.with_reserve(move |_, file| {
            let begun = file.begin_write().map_err(file_error)?;
            {
                let mut kept = begun.open_table(SIGNALS).map_err(file_error)?;
                let mut moved: Vec<OwnedRow> = Vec::new();
                kept.retain_in((done + 1, 0).., |_, (json, body)| {
                    moved.push((json.to_vec(), body.to_vec()));
                    false
                })
                .map_err(file_error)?;
                for (number, (json, body)) in (done + 1..).zip(&moved) {
                    kept.insert((number, 0), (json.as_slice(), body.as_slice()))
                        .map_err(file_error)?;
                }
            }
            begun.commit().map_err(file_error)
        })
        .await
    }

    /// Closes the file, as a failure does: the next call opens it.
    #[cfg(test)]
    pub(crate) fn close(&self) {
        self.inner.lock().database = None;
    }

    /// Works on the file, and once more with the reserve's space when the disk is full.
    async fn with_reserve<T: Send + 'static>(
        &self,
        work: impl Fn(&Inner, &Database) -> Result<T, SpoolError> + Clone + Send + 'static,
    ) -> Result<T, SpoolError> {
        match self.on_thread(work.clone()).await {
            Err(SpoolError::File(why)) if self.inner.reserve.release() => {
                tracing::warn!(%why, file = %self.inner.path.display(), "the spool uses its reserved disk space");
                self.on_thread(work).await
            }
            done => done,
        }
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Database) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            let mut file = inner.opened()?;
            let Some(database) = &file.database else {
                return Err(SpoolError::File("it is closed".to_owned()));
            };
            let done = work(&inner, database);
            if let Err(SpoolError::File(_)) = done {
                file.database = None;
            }
            done
        })
        .await
        .map_err(file_error)?
    }
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(|poisoned| {
            // Whoever panicked in there found something that should not be: read it anew.
            self.file.clear_poison();
            let mut file = poisoned.into_inner();
            file.database = None;
            file
        })
    }

    /// Whether so many bytes more may be kept. What comes in may not use the space that forgetting needs.
    fn has_room(&self, added: u64) -> Result<(), SpoolError> {
        if self.bytes.load(Ordering::Relaxed) + added > self.most_bytes {
            return Err(SpoolError::Full);
        }
        self.reserve.keep().map_err(SpoolError::Disk)
    }

    /// The file, opened if it is not.
    fn opened(&self) -> Result<MutexGuard<'_, File>, SpoolError> {
        let mut file = self.lock();
        if file.database.is_some() {
            return Ok(file);
        }
        let writer = Some(self.names().writer).filter(|id| !id.is_nil());
        let content = match read(&self.path, writer) {
            Ok(content) => content,
            Err(Fault::Passing(error)) => return Err(error),
            Err(Fault::Damaged(why)) => {
                let aside = rename(&self.path).map_err(file_error)?;
                tracing::error!(
                    %why, file = %self.path.display(), kept = %aside.display(),
                    "the spool file cannot be read: it is kept under another name, and what it held is not replayed"
                );
                match read(&self.path, writer) {
                    Ok(content) => content,
                    Err(Fault::Passing(error)) => return Err(error),
                    Err(Fault::Damaged(why)) => return Err(SpoolError::File(why)),
                }
            }
        };
        self.signals.store(content.signals, Ordering::Relaxed);
        self.bytes.store(content.bytes, Ordering::Relaxed);
        let oldest_at = content.oldest_at.map_or(0, |at| at.timestamp_micros());
        self.oldest_at.store(oldest_at, Ordering::Relaxed);
        let mut index = self.index();
        *index = Index::of(content.aside, &index);
        drop(index);
        *self.names() = Names {
            writer: content.writer,
            listener: content.listener,
        };
        file.database = Some(content.database);
        Ok(file)
    }
}

/// Notes the last number that was given to a signal.
fn note_given(begun: &WriteTransaction, number: u64) -> Result<(), SpoolError> {
    let mut names = begun.open_table(NAMES).map_err(file_error)?;
    let before = names.get("given").map_err(file_error)?.map(|given| given.value());
    if before.is_none_or(|given| given < u128::from(number)) {
        names.insert("given", u128::from(number)).map_err(file_error)?;
    }
    Ok(())
}

/// The signals as they are kept.
fn rows(batch: &[Incoming]) -> Result<Vec<OwnedRow>, SpoolError> {
    let row = |incoming: &Incoming| {
        let kept = Kept {
            address: incoming.address.clone(),
            signal: incoming.signal.clone(),
            method: incoming.method.clone(),
            remote_addr: incoming.remote_addr.clone(),
            user_agent: incoming.user_agent.clone(),
        };
        let json = serde_json::to_vec(&kept).map_err(file_error)?;
        Ok((json, incoming.body.clone()))
    };
    batch.iter().map(row).collect()
}

/// A signal that was kept.
fn incoming(json: &[u8], body: &[u8]) -> Result<Incoming, SpoolError> {
    let kept: Kept = serde_json::from_slice(json).map_err(file_error)?;
    Ok(Incoming {
        address: kept.address,
        signal: Signal {
            is_replayed: true,
            ..kept.signal
        },
        method: kept.method,
        remote_addr: kept.remote_addr,
        user_agent: kept.user_agent,
        body: body.to_vec(),
    })
}

fn size(json: &[u8], body: &[u8]) -> u64 {
    (json.len() + body.len()) as u64 + OVERHEAD
}

fn file_error(error: impl std::fmt::Display) -> SpoolError {
    SpoolError::File(error.to_string())
}
