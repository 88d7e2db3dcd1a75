//! The lock that gives the data folder to one server at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::POLL;
use super::error::{EmbeddedPostgresError as Error, io_error};

const LOCK_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn take(data_dir: &Path) -> Result<File, Error> {
    let path = path_in(data_dir);
    let doing = || io_error(format!("lock {}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(doing())?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(doing()(error)),
            // The holder may only be checking whether the lock is held (`is_held`).
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_LIMIT => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known {
                    format!(" (process {})", holder.trim())
                } else {
                    String::new()
                };
                return Err(Error::AlreadyRunning {
                    data_dir: data_dir.to_owned(),
                    holder,
                });
            }
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(doing())?;
    Ok(file)
}

/// Returns true if a server holds the lock.
pub(super) fn is_held(data_dir: &Path) -> bool {
    let Ok(file) = File::open(path_in(data_dir)) else {
        return false;
    };
    // A shared lock, so that two simultaneous checks do not see each other. A server that starts at this moment retries (LOCK_LIMIT).
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres.lock")
}
