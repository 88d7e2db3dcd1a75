//! PostgreSQL's log.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::{EmbeddedPostgresError as Error, io_error};

const LARGEST_LOG_BYTES: u64 = 16 * 1024 * 1024;

/// `postgres.log`, beside the database folder.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) path: PathBuf,
}

impl Log {
    pub(super) fn in_folder(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join("postgres.log"),
        }
    }

    /// Opens the log for the next program. Also returns the place where the program's output will begin.
    pub(super) fn open(&self) -> Result<(File, u64), Error> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(io_error(format!("open {}", self.path.display())))?;
        let end = log.metadata().map_or(0, |metadata| metadata.len());
        Ok((log, end))
    }

    pub(super) fn rotate(&self) {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() > LARGEST_LOG_BYTES)
            && let Err(error) = fs::rename(&self.path, self.path.with_file_name("postgres.log.1"))
        {
            tracing::warn!(%error, "could not set the old postgres.log aside");
        }
    }

    pub(super) fn tail(&self, from: u64) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.path).and_then(|mut log| {
            let end = log.metadata()?.len();
            log.seek(SeekFrom::Start(from.max(end.saturating_sub(8 * 1024))))?;
            log.read_to_end(&mut text)
        });
        if let Err(error) = read {
            return format!("(not readable: {error})");
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    pub(super) fn program_error(&self, doing: &'static str, how: String, log_from: u64) -> Error {
        let mut tail = self.tail(log_from);
        if tail.contains("could not look up effective user ID") {
            let advice = "PostgreSQL needs a name for the user it runs as: give this user id one in /etc/passwd, or use one that has";
            tail = format!("{tail}\n{advice}");
        }
        Error::Program {
            doing,
            how,
            log: self.path.clone(),
            tail,
        }
    }
}
