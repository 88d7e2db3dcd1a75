//! Signals that the database could not take, kept in a file until it can: durable when acknowledged, replayed in order, once.
//!
//! The file is a `redb` database (ADR 018): a transaction is on the disk when it is committed, and one that was torn is as if it had
//! never begun. Its calls block, so each runs on a thread for that.
//!
//! A write that fails (the disk is full) closes the file; the next call opens it again, so that the spool is back as soon as there is
//! space. A file that cannot be read is kept under another name, and a fresh one begun.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::ingest::{Address, Incoming};
use deadbeat_domain::ping::Signal;

/// Place in the order of batches, and place within the batch.
type Place = (u64, u32);
/// The signal as JSON, and its body.
type Row<'a> = (&'a [u8], &'a [u8]);
const SIGNALS: TableDefinition<'_, Place, Row<'_>> = TableDefinition::new("signal");
/// What is no signal for this version of the server, kept for a person.
const UNREADABLE: TableDefinition<'_, Place, Row<'_>> = TableDefinition::new("unreadable");
/// `writer`: which row of the table `writer` is this file's.
const NAMES: TableDefinition<'_, &str, u128> = TableDefinition::new("name");

/// The file's own overhead for a signal, in bytes, as counted against the cap.
const OVERHEAD: u64 = 64;

/// Why a signal could not be kept.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The cap is reached.
    #[error("the spool is full")]
    Full,
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
    file: Mutex<File>,
    path: PathBuf,
    most_bytes: u64,
    signals: AtomicU64,
    bytes: AtomicU64,
    /// Microseconds since the epoch; only read while there are signals.
    oldest_at: AtomicI64,
}

struct File {
    /// None after a failure: redb wants a file opened anew before it does anything else with it.
    database: Option<Database>,
    writer: Uuid,
}

/// What a file holds.
struct Content {
    database: Database,
    writer: Uuid,
    signals: u64,
    bytes: u64,
    oldest_at: Option<DateTime<Utc>>,
}

/// Why a file cannot be opened.
enum Fault {
    /// It may be fine: no rights, no space, another process has it.
    Passing(SpoolError),
    /// It is not what it should be, and never will be again.
    Damaged(String),
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
    /// The batch that it came with.
    pub position: u64,
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
            file: Mutex::new(File {
                database: None,
                writer: Uuid::nil(),
            }),
            path: path.to_owned(),
            most_bytes,
            signals: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            oldest_at: AtomicI64::new(0),
        };
        drop(inner.opened()?);
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Which row of the table `writer` is this file's.
    #[must_use]
    pub fn writer(&self) -> Uuid {
        self.inner.lock().writer
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

    /// The place of the last batch that is kept.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn last_position(&self) -> Result<Option<u64>, SpoolError> {
        self.on_thread(|_, file| {
            let begun = file.begin_read().map_err(file_error)?;
            let kept = begun.open_table(SIGNALS).map_err(file_error)?;
            let last = kept.last().map_err(file_error)?;
            Ok(last.map(|(key, _)| key.value().0))
        })
        .await
    }

    /// Keeps a batch under its place. It is on the disk when this returns.
    ///
    /// # Errors
    /// The cap is reached or the file cannot be written; nothing of the batch is kept.
    pub async fn append(&self, position: u64, batch: &[Incoming]) -> Result<(), SpoolError> {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = batch
            .iter()
            .map(|incoming| {
                let kept = Kept {
                    address: incoming.address.clone(),
                    signal: incoming.signal.clone(),
                    method: incoming.method.clone(),
                    remote_addr: incoming.remote_addr.clone(),
                    user_agent: incoming.user_agent.clone(),
                };
                let json = serde_json::to_vec(&kept).map_err(file_error)?;
                Ok((json, incoming.body.clone()))
            })
            .collect::<Result<_, SpoolError>>()?;
        let came_at = batch.first().map(|incoming| incoming.signal.received_at);
        self.on_thread(move |inner, file| {
            let added: u64 = rows.iter().map(|(json, body)| size(json, body)).sum();
            if inner.bytes.load(Ordering::Relaxed) + added > inner.most_bytes {
                return Err(SpoolError::Full);
            }
            let begun = file.begin_write().map_err(file_error)?;
            {
                let mut kept = begun.open_table(SIGNALS).map_err(file_error)?;
                for (index, (json, body)) in (0u32..).zip(&rows) {
                    kept.insert((position, index), (json.as_slice(), body.as_slice()))
                        .map_err(file_error)?;
                }
            }
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

    /// The oldest signals, whole batches, at least one and as many as fit into `most` signals.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn oldest(&self, most: usize) -> Result<Vec<Spooled>, SpoolError> {
        self.on_thread(move |_, file| {
            let begun = file.begin_read().map_err(file_error)?;
            let kept = begun.open_table(SIGNALS).map_err(file_error)?;
            let mut oldest: Vec<Spooled> = Vec::new();
            // Where the batch that is being read began.
            let mut batch_from = 0;
            for entry in kept.iter().map_err(file_error)? {
                let (key, value) = entry.map_err(file_error)?;
                let (position, _) = key.value();
                if oldest.last().is_some_and(|last| last.position != position) {
                    batch_from = oldest.len();
                }
                if oldest.len() >= most && batch_from > 0 {
                    oldest.truncate(batch_from);
                    break;
                }
                let (json, body) = value.value();
                let kept: Kept = serde_json::from_slice(json).map_err(file_error)?;
                oldest.push(Spooled {
                    position,
                    incoming: Incoming {
                        address: kept.address,
                        signal: Signal {
                            is_replayed: true,
                            ..kept.signal
                        },
                        method: kept.method,
                        remote_addr: kept.remote_addr,
                        user_agent: kept.user_agent,
                        body: body.to_vec(),
                    },
                });
            }
            Ok(oldest)
        })
        .await
    }

    /// Forgets the batches up to a place: they are in the database.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn forget(&self, upto: u64) -> Result<(), SpoolError> {
        self.on_thread(move |inner, file| {
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
    fn lock(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(|poisoned| {
            // Whoever panicked in there found something that should not be: read it anew.
            self.file.clear_poison();
            let mut file = poisoned.into_inner();
            file.database = None;
            file
        })
    }

    /// The file, opened if it is not.
    fn opened(&self) -> Result<MutexGuard<'_, File>, SpoolError> {
        let mut file = self.lock();
        if file.database.is_some() {
            return Ok(file);
        }
        let content = match read(&self.path) {
            Ok(content) => content,
            Err(Fault::Passing(error)) => return Err(error),
            Err(Fault::Damaged(why)) => {
                let aside = set_aside(&self.path).map_err(file_error)?;
                tracing::error!(
                    %why, file = %self.path.display(), kept = %aside.display(),
                    "the spool file cannot be read: it is kept under another name, and what it held is not replayed"
                );
                match read(&self.path) {
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
        *file = File {
            database: Some(content.database),
            writer: content.writer,
        };
        Ok(file)
    }
}

/// Opens a file, or makes it, and looks at all that it holds.
fn read(path: &Path) -> Result<Content, Fault> {
    // redb checks most of what it reads, but takes some of it on trust.
    catch_unwind(AssertUnwindSafe(|| read_trusting(path)))
        .unwrap_or_else(|_| Err(Fault::Damaged("reading it fails".to_owned())))
}

fn read_trusting(path: &Path) -> Result<Content, Fault> {
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
    let writer = {
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
                "spooled signals cannot be read; they stay in the file, aside"
            );
        }
        let known = names.get("writer").map_err(fault)?.map(|id| id.value());
        // An empty file begins anew: its numbers say nothing about what an earlier process has committed.
        match known.filter(|_| signals > 0) {
            Some(id) => id,
            None => {
                let id = Uuid::new_v4().as_u128();
                names.insert("writer", id).map_err(fault)?;
                id
            }
        }
    };
    begun.commit().map_err(fault)?;
    Ok(Content {
        database,
        writer: Uuid::from_u128(writer),
        signals,
        bytes,
        oldest_at,
    })
}

/// Gives a file the first free name of its kind; nothing is deleted.
fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
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

/// When a kept signal came; none: it cannot be read.
fn came_at(json: &[u8]) -> Option<DateTime<Utc>> {
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

fn size(json: &[u8], body: &[u8]) -> u64 {
    (json.len() + body.len()) as u64 + OVERHEAD
}

fn file_error(error: impl std::fmt::Display) -> SpoolError {
    SpoolError::File(error.to_string())
}
