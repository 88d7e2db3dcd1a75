//! Signals that the database could not take, kept in a file until it can: durable when acknowledged, replayed in order, once.
//!
//! The file is a `redb` database (ADR 018): a transaction is on the disk when it is committed, and one that was torn is as if it had
//! never begun. Its calls block, so each runs on a thread for that.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    file: Database,
    path: PathBuf,
    writer: Uuid,
    most_bytes: u64,
    signals: AtomicU64,
    bytes: AtomicU64,
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
    /// Opens the file, or makes it; `most_bytes` is the cap on what it keeps.
    ///
    /// # Errors
    /// It cannot be opened: no rights, damaged, or another process has it.
    pub fn open(path: &Path, most_bytes: u64) -> Result<Self, SpoolError> {
        // Bodies of pings are nobody else's business, as in the database's own folder.
        if let Some(folder) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(file_error)?;
        }
        let private = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(file_error)?;
        let file = Database::builder().create_file(private).map_err(file_error)?;
        let begun = file.begin_write().map_err(file_error)?;
        let (writer, signals, bytes) = {
            let kept = begun.open_table(SIGNALS).map_err(file_error)?;
            let mut names = begun.open_table(NAMES).map_err(file_error)?;
            let (mut signals, mut bytes) = (0, 0);
            for entry in kept.iter().map_err(file_error)? {
                let (_, value) = entry.map_err(file_error)?;
                let (json, body) = value.value();
                signals += 1;
                bytes += size(json, body);
            }
            let known = names.get("writer").map_err(file_error)?.map(|id| id.value());
            // An empty file begins anew: its numbers say nothing about what an earlier process has committed.
            let writer = match known.filter(|_| signals > 0) {
                Some(id) => id,
                None => {
                    let id = Uuid::new_v4().as_u128();
                    names.insert("writer", id).map_err(file_error)?;
                    id
                }
            };
            (Uuid::from_u128(writer), signals, bytes)
        };
        begun.commit().map_err(file_error)?;
        let inner = Inner {
            file,
            path: path.to_owned(),
            writer,
            most_bytes,
            signals: AtomicU64::new(signals),
            bytes: AtomicU64::new(bytes),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Which row of the table `writer` is this file's.
    #[must_use]
    pub fn writer(&self) -> Uuid {
        self.inner.writer
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
        self.on_thread(|inner| {
            let begun = inner.file.begin_read().map_err(file_error)?;
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
        self.on_thread(move |inner| {
            let added: u64 = rows.iter().map(|(json, body)| size(json, body)).sum();
            if inner.bytes.load(Ordering::Relaxed) + added > inner.most_bytes {
                return Err(SpoolError::Full);
            }
            let begun = inner.file.begin_write().map_err(file_error)?;
            {
                let mut kept = begun.open_table(SIGNALS).map_err(file_error)?;
                for (index, (json, body)) in (0u32..).zip(&rows) {
                    kept.insert((position, index), (json.as_slice(), body.as_slice()))
                        .map_err(file_error)?;
                }
            }
            begun.commit().map_err(file_error)?;
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
        self.on_thread(move |inner| {
            let begun = inner.file.begin_read().map_err(file_error)?;
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
                        signal: kept.signal,
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
        self.on_thread(move |inner| {
            let begun = inner.file.begin_write().map_err(file_error)?;
            let (mut signals, mut bytes) = (0, 0);
            {
                let mut kept = begun.open_table(SIGNALS).map_err(file_error)?;
                kept.retain_in((0, 0)..=(upto, u32::MAX), |_, (json, body)| {
                    signals += 1;
                    bytes += size(json, body);
                    false
                })
                .map_err(file_error)?;
            }
            begun.commit().map_err(file_error)?;
            inner.signals.fetch_sub(signals, Ordering::Relaxed);
            inner.bytes.fetch_sub(bytes, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(file_error)?
    }
}

fn size(json: &[u8], body: &[u8]) -> u64 {
    (json.len() + body.len()) as u64 + OVERHEAD
}

fn file_error(error: impl std::fmt::Display) -> SpoolError {
    SpoolError::File(error.to_string())
}
