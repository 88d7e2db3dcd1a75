//! The file `secret.key` of the data folder. It has one key a line, in base64 or hexadecimal. The first key seals;
//! all keys open.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use zeroize::Zeroizing;

use super::key::Key;
use super::keyring::KeyError;

const HEAD: &str = "# Deadbeat seals the secrets of channels with the first key and opens them with all keys.\n\
    # Keep a copy apart from the database: a backup without this file cannot open them.\n";

fn fault(path: &Path, error: std::io::Error) -> KeyError {
    KeyError::File(path.to_owned(), error)
}

/// Reads the file. None: it does not exist.
///
/// # Errors
/// If other users may read the file, or this process cannot read it.
pub fn read(path: &Path) -> Result<Option<Zeroizing<String>>, KeyError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(path, error)),
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode(path.to_owned(), mode));
    }
    fs::read_to_string(path)
        .map(|text| Some(Zeroizing::new(text)))
        .map_err(|error| fault(path, error))
}

/// Returns the lines that hold keys.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Makes the file with a new key, unless the file exists. If two processes do this at once, one file wins. No reader
/// ever sees a half-written file.
///
/// # Errors
/// If the folder or the file cannot be written.
pub fn make(path: &Path) -> Result<(), KeyError> {
    let text = Zeroizing::new(format!("{HEAD}{}\n", *Key::generate()));
    let made = (|| {
        fs::create_dir_all(folder(path))?;
        let draft = write_draft(path, &text)?;
        // Unlike a rename, a link never replaces an existing file.
        let linked = fs::hard_link(&draft, path);
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => sync_folder(path),
        }
    })();
    made.map_err(|error| fault(path, error))
}

/// Puts a new key before the keys of the file.
///
/// # Errors
/// As for [`read`], or if the file cannot be written.
pub fn put_first(path: &Path) -> Result<(), KeyError> {
    let old = read(path)?.unwrap_or_default();
    let mut text = Zeroizing::new(format!("{HEAD}{}\n", *Key::generate()));
    for line in lines(&old) {
        text.push_str(line);
        text.push('\n');
    }
    let replaced = write_draft(path, &text).and_then(|draft| {
        // Keep the owner: root may rotate the keys of a server that runs as another user and must still read the
        // file.
        let owned = fs::metadata(path).and_then(|old| chown(&draft, Some(old.uid()), Some(old.gid())));
        owned
            .and_then(|()| fs::rename(&draft, path))
            .inspect_err(|_| drop(fs::remove_file(&draft)))?;
        sync_folder(path)
    });
    replaced.map_err(|error| fault(path, error))
}

/// Locks the file against changes by other processes: a second change at the same time would lose the key of the
/// first. The lock is on the folder, so no lock file remains.
///
/// # Errors
/// If another process changes the file, or the folder cannot be made.
pub fn lock(path: &Path) -> Result<File, KeyError> {
    let folder = fs::create_dir_all(folder(path))
        .and_then(|()| File::open(folder(path)))
        .map_err(|error| fault(path, error))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(fs::TryLockError::WouldBlock) => Err(KeyError::Busy(path.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(fault(path, error)),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn write_draft(path: &Path, text: &str) -> std::io::Result<std::path::PathBuf> {
    let draft = path.with_extension(format!("{}.draft", uuid::Uuid::new_v4().simple()));
    let written = (|| {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })();
    if let Err(error) = written {
        // The draft may hold half a key, and nobody would ever find and delete it.
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    Ok(draft)
}

/// Writes the folder to the disk: only then does a new name in it survive a crash of the machine.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder(path))?.sync_all()
}
