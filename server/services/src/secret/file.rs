//! The file `secret.key` of the data folder: keys in base64 or hexadecimal, one a line. The first one seals, all of them open.

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

/// Reads the file. None: there is none.
///
/// # Errors
/// Others may read the file, it cannot be read, or a line is no key.
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

/// The lines of a file that hold keys.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Makes the file with a new key, unless there is one: of two processes that do this at once, one wins. The file is whole from the first
/// moment that it has its name.
///
/// # Errors
/// The folder or file cannot be written.
pub fn make(path: &Path) -> Result<(), KeyError> {
    let text = Zeroizing::new(format!("{HEAD}{}\n", *Key::generate()));
    let made = (|| {
        fs::create_dir_all(folder(path))?;
        let draft = write_draft(path, &text)?;
        // Unlike a renaming, a link never replaces what is there.
        let linked = fs::hard_link(&draft, path);
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => sync_folder(path),
        }
    })();
    made.map_err(|error| fault(path, error))
}

/// Puts a new key before those of the file.
///
/// # Errors
/// As for [`read`], or the file cannot be written.
pub fn put_first(path: &Path) -> Result<(), KeyError> {
    let old = read(path)?.unwrap_or_default();
    let mut text = Zeroizing::new(format!("{HEAD}{}\n", *Key::generate()));
    for line in lines(&old) {
        text.push_str(line);
        text.push('\n');
    }
    let replaced = write_draft(path, &text).and_then(|draft| {
        // Root may rotate the keys of a server that runs as another user, which must read the file then.
        let owned = fs::metadata(path).and_then(|old| chown(&draft, Some(old.uid()), Some(old.gid())));
        owned
            .and_then(|()| fs::rename(&draft, path))
            .inspect_err(|_| drop(fs::remove_file(&draft)))?;
        sync_folder(path)
    });
    replaced.map_err(|error| fault(path, error))
}

/// Held by who changes the file: a second change at the same time would lose the key of the first. The lock is on the folder, so nothing
/// is left behind.
///
/// # Errors
/// Another process changes the file, or the folder cannot be made.
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
        // What could not be written may hold half a key, and nobody will look for it.
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    Ok(draft)
}

/// A new name is lasting when its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder(path))?.sync_all()
}
