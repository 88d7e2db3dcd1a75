//! The thread that keeps the embedded PostgreSQL running.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::binaries::Binaries;
use super::child::{end, exit_words};
use super::cluster::Cluster;
use super::error::EmbeddedPostgresError as Error;
use super::{Connection, PORT};

const WATCH_PERIOD: Duration = Duration::from_millis(250);
const BINARY_CHECK_PERIOD: Duration = Duration::from_secs(5);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

pub(super) fn keep(
    cluster: Cluster,
    bin_dir: Option<&Path>,
    report: &Sender<Result<Connection, Error>>,
    stop_asked: &Receiver<Infallible>,
) {
    let began = Instant::now();
    let started = (|| {
        cluster.remove_unfinished();
        cluster.log.rotate();
        let made_by = cluster.made_by()?;
        let binaries = Binaries::find(bin_dir, made_by, &cluster.dir)?;
        if made_by.is_none() {
            cluster.make(&binaries)?;
        }
        let socket_dir = cluster.socket_dir()?;
        let child = cluster.bring_up(&binaries, &socket_dir, stop_asked)?;
        Ok((binaries, socket_dir, child))
    })();
    match started {
        Err(error) => {
            drop(cluster); // this releases the lock before the caller can retry
            let _ = report.send(Err(error)); // the caller waits for this; if the caller is gone, nobody needs it
        }
        Ok((binaries, socket_dir, child)) => {
            let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(postgres = %binaries.version, folder = %cluster.dir.display(), socket_dir = %socket_dir.display(), duration_ms, "the embedded PostgreSQL is ready");
            let _ = report.send(Ok(Connection::at(socket_dir.clone(), PORT))); // if the caller is gone, the loop below stops at once
            watch(&cluster, binaries, &socket_dir, child, stop_asked);
            if socket_dir != cluster.dir {
                let _ = fs::remove_dir(&socket_dir); // if this fails, the next start reuses the folder
            }
        }
    }
}

/// Keeps PostgreSQL running until the server stops it. Restarts it after it ended by itself, or after an upgrade replaced its programs.
fn watch(
    cluster: &Cluster,
    mut binaries: Binaries,
    socket_dir: &Path,
    child: Child,
    stop_asked: &Receiver<Infallible>,
) {
    let mut child = Some(child);
    let mut program = ProgramFile::of(&binaries);
    let mut backoff = Duration::ZERO;
    let mut pause = WATCH_PERIOD;
    while stop_asked.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        pause = WATCH_PERIOD;
        if let Some(running) = child.as_mut() {
            match running.try_wait() {
                Ok(None) => {
                    let Some(upgraded) = program.upgrade(&binaries) else {
                        continue;
                    };
                    // A running server cannot load the libraries of another version, so restart it with the new version.
                    tracing::warn!(running = %binaries.version, installed = %upgraded.version, "PostgreSQL was upgraded on this machine; restarting it");
                    end(running);
                    binaries = upgraded;
                }
                Ok(Some(status)) => {
                    let log_tail = cluster.log.tail(0);
                    tracing::error!(
                        how = exit_words(status),
                        log_tail,
                        "the embedded PostgreSQL ended by itself; starting it again"
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "cannot find out whether the embedded PostgreSQL runs");
                    continue;
                }
            }
            child = None;
        }
        match cluster.bring_up(&binaries, socket_dir, stop_asked) {
            Ok(restarted) => {
                tracing::info!(postgres = %binaries.version, "the embedded PostgreSQL is ready again");
                child = Some(restarted);
                program = ProgramFile::of(&binaries);
                backoff = Duration::ZERO;
            }
            Err(Error::Stopped) => return,
            Err(error) => {
                backoff = (backoff * 2).clamp(WATCH_PERIOD, LONGEST_BACKOFF);
                pause = backoff;
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    retry_in_ms = backoff.as_millis(),
                    "the embedded PostgreSQL does not start"
                );
            }
        }
    }
    if let Some(mut running) = child {
        end(&mut running);
    }
}

/// Detects that the file of the `postgres` program was replaced. It waits until the file no longer changes, because a package upgrade takes a while.
struct ProgramFile {
    path: PathBuf,
    in_use: Option<FileState>,
    last_seen: Option<FileState>,
    checked_at: Instant,
}

type FileState = (u64, u64, i64, i64);

impl ProgramFile {
    fn of(binaries: &Binaries) -> Self {
        let path = binaries.dir.join("postgres");
        let state = Self::state(&path);
        Self {
            path,
            in_use: state,
            last_seen: state,
            checked_at: Instant::now(),
        }
    }

    fn state(path: &Path) -> Option<FileState> {
        let metadata = fs::metadata(path).ok()?;
        Some((
            metadata.dev(),
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        ))
    }

    fn upgrade(&mut self, binaries: &Binaries) -> Option<Binaries> {
        if self.checked_at.elapsed() < BINARY_CHECK_PERIOD {
            return None;
        }
        self.checked_at = Instant::now();
        let before = std::mem::replace(&mut self.last_seen, Self::state(&self.path));
        if self.last_seen.is_none() || self.last_seen != before || self.last_seen == self.in_use {
            return None;
        }
        // Try each file only once, whatever the result.
        self.in_use = self.last_seen;
        let found = Binaries::in_dir(binaries.dir.clone())
            .ok()
            .filter(|found| found.major == binaries.major);
        if found.is_none() {
            tracing::warn!(program = %self.path.display(), "PostgreSQL's program was replaced by one that cannot run this database");
        }
        found.filter(|found| found.version != binaries.version)
    }
}
