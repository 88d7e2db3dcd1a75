//! The spool: a file that keeps signals while the database cannot take them. Acknowledged signals are durable. The replay is in order, and only once.
//!
//! The file is a `redb` database (ADR 018): a committed transaction is on the disk, and an interrupted one leaves no trace. Its calls block, so each
//! runs on a thread for blocking calls.
//!
//! A failed write (such as to a full disk) closes the file, and the next call opens it again. The spool thus works again as soon as there is space. A
//! file that cannot be read gets another name, and the spool begins a new file.

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

/// The signal's number, and 0. Older versions numbered batches, with the position within the batch as the second part.
type Place = (u64, u32);
/// The signal as JSON, and its body.
type Row<'a> = (&'a [u8], &'a [u8]);
/// The same before it is written.
type OwnedRow = (Vec<u8>, Vec<u8>);
const SIGNALS: TableDefinition<'_, Place, Row<'_>> = TableDefinition::new("signal");
/// Rows that this version of the server cannot read, kept for a person.
const UNREADABLE: TableDefinition<'_, Place, Row<'_>> = TableDefinition::new("unreadable");
/// Signals that cannot be written for now, in the order in which they were set aside. Each has the name under which the server will write it.
const ASIDE: TableDefinition<'_, u64, (u128, &[u8], &[u8])> = TableDefinition::new("aside");
/// `writer`: the name of this file's row in the table `writer`. `listener`: its row in the table `listener`, for as long as the file exists.
/// `given`: the last number that may be committed under the writer's name. The signal with that number may have left the file.
const NAMES: TableDefinition<'_, &str, u128> = TableDefinition::new("name");

/// The file's own overhead for a signal in bytes, which counts towards the size limit.
const OVERHEAD: u64 = 64;

/// Why a signal could not be kept.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The size limit is reached.
    #[error("the spool is full")]
    Full,
    /// The disk has no space left except the reserve for deleting signals.
    #[error("the disk is full: {0}")]
    Disk(std::io::Error),
    /// The file cannot be read or written: the disk is full, the file is damaged, or another process has it open.
    #[error("the spool file fails: {0}")]
    File(String),
}

/// Keeps signals. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    /// Locked during disk access, which may take seconds. Only threads for blocking calls may wait for this lock.
    file: Mutex<File>,
    /// Outside the lock of the file, so that a task can read them without waiting for the disk.
    names: Mutex<Names>,
    path: PathBuf,
    most_bytes: u64,
    signals: AtomicU64,
    bytes: AtomicU64,
    /// Microseconds since the epoch. Valid only while there are signals.
    oldest_at: AtomicI64,
    aside: Mutex<Index>,
    reserve: Reserve,
}

struct File {
    /// `None` after a failure: redb requires that the file is opened again before any other operation.
    database: Option<Database>,
}

/// The names under which the process that has the file writes and listens. Nil if the file was never opened.
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

/// A kept signal without its body, which is stored next to it.
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
    /// The signal's number. Older versions numbered batches, not signals.
    pub position: u64,
    /// Its position among the signals with the same number.
    pub part: u32,
    /// The signal.
    pub incoming: Incoming,
}

impl Spool {
    /// Opens or creates the file. `most_bytes` limits the size of its signals. A damaged file is kept under another name.
    ///
    /// # Errors
    /// If the file cannot be opened: no permission, no space, or another process has it open.
    pub fn open(path: &Path, most_bytes: u64) -> Result<Self, SpoolError> {
        // Only the server's user may read the bodies of pings, as in the database's own folder.
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

    /// Returns the name of this file's row in the table `writer`.
    #[must_use]
    pub fn writer(&self) -> Uuid {
        self.inner.names().writer
    }

    /// Returns the id of this process's row in the table `listener`.
    #[must_use]
    pub fn listener(&self) -> Uuid {
        self.inner.names().listener
    }

    /// Returns when the oldest signal was received.
    #[must_use]
    pub fn oldest_at(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.inner.oldest_at.load(Ordering::Relaxed))
            .filter(|_| self.signals() > 0)
    }

    /// Returns the number of kept signals.
    #[must_use]
    pub fn signals(&self) -> u64 {
        self.inner.signals.load(Ordering::Relaxed)
    }

    /// Returns the size of the kept signals in bytes, as it counts towards the limit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    /// Returns the last number that was given to a signal. The database may already have a signal with that number, so new signals get higher ones.
    ///
    /// # Errors
    /// If the file cannot be read.
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
    /// The other numbers belong to signals that need not be kept. A commit whose answer was lost may have written them to the database, so no other
    /// signal may ever get these numbers.
    ///
    /// # Errors
    /// If the size limit is reached, or the file cannot be written. Then no signal is kept.
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

    /// Returns the oldest signals, at most `most`. Signals with the same number (from older versions) stay together, however many there are.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn oldest(&self, most: usize) -> Result<Vec<Spooled>, SpoolError> {
        self.with_reserve(move |_, file| {
            let begun = file.begin_read().map_err(file_error)?;
            let kept = begun.open_table(SIGNALS).map_err(file_error)?;
            let mut oldest: Vec<Spooled> = Vec::new();
            // The start of the batch that is being read.
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

    /// Deletes the signals up to a number, because they are in the database. If the disk is full, this uses the reserve.
    ///
    /// # Errors
    /// If the file cannot be written.
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

    /// Gives every kept signal after `done` its own number, in order. Older versions numbered batches.
    ///
    /// # Errors
    /// If the file cannot be written.
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

    /// Closes the file, as a failure would. The next call opens it.
    #[cfg(test)]
    pub(crate) fn close(&self) {
        self.inner.lock().database = None;
    }

    /// Works on the file. If the disk is full, it frees the reserve and retries once.
    async fn with_reserve<T: Send + 'static>(
        &self,
        work: impl Fn(&Inner, &Database) -> Result<T, SpoolError> + Clone + Send + 'static,
    ) -> Result<T, SpoolError> {
        match self.on_thread(work.clone()).await {
            Err(SpoolError::File(why)) if self.inner.reserve.release() => {
                tracing::warn!(%why, file = %self.inner.path.display(), "the disk is full; the spool uses its reserved disk space");
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
            // A thread panicked while it used the file, so the contents may be wrong. Read the file anew.
            self.file.clear_poison();
            let mut file = poisoned.into_inner();
            file.database = None;
            file
        })
    }

    /// Returns an error if there is no room for this many more bytes. New signals must not use the space that deleting needs.
    fn has_room(&self, added: u64) -> Result<(), SpoolError> {
        if self.bytes.load(Ordering::Relaxed) + added > self.most_bytes {
            return Err(SpoolError::Full);
        }
        self.reserve.keep().map_err(SpoolError::Disk)
    }

    /// Returns the file, and opens it if necessary.
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
                    "the spool file cannot be read; the server keeps it under another name and does not replay its signals"
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

/// Converts signals to rows of the file.
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

/// Reads a kept signal.
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
