//! The keys of this process: those of `DEADBEAT_SECRET_KEY`, then those of the data folder's file. The first key
//! seals; all keys open.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::file;
use super::key::{Key, NoKey};

/// The name of the file in the data folder.
pub const FILE: &str = "secret.key";
/// Least time between two reads of the file. An unknown key makes a process read it again, because `deadbeat secrets
/// rotate` may have added that key.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Why the keys cannot be read or changed. No message holds a key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// An entry of the setting is no key.
    #[error(
        "DEADBEAT_SECRET_KEY: key {0} {1}; 32 bytes in base64 or hexadecimal are needed, several with commas between: openssl rand -base64 32"
    )]
    Setting(usize, NoKey),
    /// A line of the file is no key.
    #[error("{path}: key {1} {2}; 32 bytes in base64 or hexadecimal are needed on each line: openssl rand -base64 32", path = .0.display())]
    Line(PathBuf, usize, NoKey),
    /// The file has no key.
    #[error("{}: this file has no key; put the key back, or remove the file, and the server makes a new one", .0.display())]
    Empty(PathBuf),
    /// Other users may read the file.
    #[error("{path}: others may read this file of keys (mode {mode:04o}); run: chmod 600 {path}", path = .0.display(), mode = .1)]
    Mode(PathBuf, u32),
    /// Another process changes the file.
    #[error("{}: another process changes this file now; try again when it has ended", .0.display())]
    Busy(PathBuf),
    /// The operating system refused a file operation.
    #[error("{path}: {1}", path = .0.display())]
    File(PathBuf, std::io::Error),
}

/// A key that seals channels and that this process lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingKey {
    /// The key's id.
    pub id: String,
    /// Number of channels that the key seals.
    pub channels: i64,
}

/// The keys of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The keys of the setting. They never change.
    given: Vec<Arc<Key>>,
    file: Option<PathBuf>,
    keys: RwLock<Vec<Arc<Key>>>,
    read_at: Mutex<Option<Instant>>,
    missing: RwLock<Vec<MissingKey>>,
}

impl Keyring {
    /// Reads the keys of the setting, which has commas or spaces between them, and those of the file, if it exists.
    ///
    /// # Errors
    /// If a text is no key, or the file cannot be used.
    pub fn load(setting: &str, file: Option<PathBuf>) -> Result<Self, KeyError> {
        let texts = setting
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|text| !text.is_empty());
        let given = texts
            .enumerate()
            .map(|(index, text)| {
                Key::parse(text)
                    .map(Arc::new)
                    .map_err(|fault| KeyError::Setting(index + 1, fault))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let ring = Self {
            inner: Arc::new(Inner {
                given,
                file,
                ..Inner::default()
            }),
        };
        ring.reload()?;
        Ok(ring)
    }

    /// Returns the key that seals. None: this process has no key.
    #[must_use]
    pub fn first(&self) -> Option<Arc<Key>> {
        self.keys().first().cloned()
    }

    /// Returns the key of an id. If the key is unknown, reads the file again, once a second at most. None: the key is
    /// missing.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Key>> {
        let find = || self.keys().iter().find(|key| key.id() == id).cloned();
        find().or_else(|| {
            self.read_again();
            find()
        })
    }

    /// Returns the ids of all keys. The first one seals.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.keys().iter().map(|key| key.id().to_owned()).collect()
    }

    /// True if the setting has keys: then the operator makes new keys, not this program.
    #[must_use]
    pub fn is_given(&self) -> bool {
        !self.inner.given.is_empty()
    }

    /// Returns the path of the file, which may not exist. None: there is no data folder.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.inner.file.as_deref()
    }

    /// Makes the file with a first key, unless the file exists.
    ///
    /// # Errors
    /// If the file cannot be made or read.
    pub fn make_file(&self) -> Result<(), KeyError> {
        if let Some(path) = self.file() {
            file::make(path)?;
        }
        self.reload()
    }

    /// Puts a new key first in the file. `_lock` proves that no other process changes the file.
    ///
    /// # Errors
    /// If the file cannot be written or read.
    pub fn add_to_file(&self, _lock: &File) -> Result<(), KeyError> {
        if let Some(path) = self.file() {
            file::put_first(path)?;
        }
        self.reload()
    }

    /// Keeps other processes from changing the file while the returned lock lives. None: there is no file.
    ///
    /// # Errors
    /// If another process changes the file.
    pub fn lock_file(&self) -> Result<Option<File>, KeyError> {
        let lock = self.file().map(file::lock).transpose()?;
        // Another process may have changed the file before.
        self.reload()?;
        Ok(lock)
    }

    /// Returns the missing keys that the last check found.
    #[must_use]
    pub fn missing(&self) -> Vec<MissingKey> {
        self.inner
            .missing
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes the missing keys. Returns those that were noted before.
    pub(crate) fn note_missing(&self, missing: Vec<MissingKey>) -> Vec<MissingKey> {
        let mut noted = self.inner.missing.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut noted, missing)
    }

    fn keys(&self) -> Vec<Arc<Key>> {
        self.inner
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// If the file cannot be used. The keys then stay as they were.
    fn reload(&self) -> Result<(), KeyError> {
        let mut keys = self.inner.given.clone();
        if let Some(path) = self.file()
            && let Some(text) = file::read(path)?
        {
            let mut count = 0;
            for line in file::lines(&text) {
                count += 1;
                let key = Key::parse(line).map_err(|fault| KeyError::Line(path.to_owned(), count, fault))?;
                if keys.iter().all(|known| known.id() != key.id()) {
                    keys.push(Arc::new(key));
                }
            }
            if count == 0 {
                return Err(KeyError::Empty(path.to_owned()));
            }
        }
        *self.inner.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Reads the file again, unless that happened less than [`READ_AGAIN`] ago.
    fn read_again(&self) {
        let mut read_at = self.inner.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        if self.inner.file.is_none() || read_at.is_some_and(|at| at.elapsed() < READ_AGAIN) {
            return;
        }
        *read_at = Some(Instant::now());
        if let Err(error) = self.reload() {
            tracing::error!(%error, "the file of keys cannot be read; this process keeps its present keys");
        }
    }
}

#[cfg(test)]
mod tests;
