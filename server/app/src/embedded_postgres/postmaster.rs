//! Starts PostgreSQL itself.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::POLL;
use super::binaries::Binaries;
use super::child::{end, exit_words, pid_of};
use super::cluster::Cluster;
use super::error::{EmbeddedPostgresError as Error, io_error};
use super::launcher::FOLDER;
use super::pid_file::PidFile;

/// Settings on the command line, which override `postgresql.conf`.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "port=5432",
    "unix_socket_permissions=0700",
    "max_connections=100",
    "shared_buffers=256MB",
    "max_wal_size=2GB",
    // A schedule of 5,000 entries arrives at once. Autovacuum must analyze its rows and clear the rows that they replaced within seconds, not a
    // minute.
    "autovacuum_naptime=5s",
    "fsync=on",
    "cluster_name=deadbeat",
];

/// Generous, because the start includes replaying up to 2 GB of WAL after a crash.
const READY_LIMIT: Duration = Duration::from_mins(5);

impl Cluster {
    /// Starts PostgreSQL and waits until it accepts connections.
    pub(super) fn bring_up(
        &self,
        binaries: &Binaries,
        socket_dir: &Path,
        stop_asked: &Receiver<Infallible>,
    ) -> Result<Child, Error> {
        const DOING: &str = "starting PostgreSQL";
        self.end_leftovers(socket_dir)?;
        // Relative to the database folder, which is PostgreSQL's working folder. This is short, and works below folders that PostgreSQL may not
        // enter.
        let socket_dir = if socket_dir == self.dir {
            Path::new(".")
        } else {
            socket_dir
        };
        let mut args = vec![
            OsStr::new("-D"),
            OsStr::new(FOLDER),
            OsStr::new("-k"),
            socket_dir.as_os_str(),
        ];
        for setting in SETTINGS {
            args.extend([OsStr::new("-c"), OsStr::new(*setting)]);
        }
        let (mut child, log_from) =
            self.spawn(DOING, binaries, "postgres", &self.dir, args, Stdio::null())?;
        let began = Instant::now();
        let mut next_word = Duration::from_secs(10);
        loop {
            // The file of an earlier PostgreSQL also says "ready", so compare the process id, too.
            if PidFile::read(&self.dir).is_some_and(|file| file.is_ready && file.pid == pid_of(&child)) {
                return Ok(child);
            }
            if let Some(status) = child.try_wait().map_err(io_error("wait for PostgreSQL"))? {
                return Err(self.log.program_error(DOING, exit_words(status), log_from));
            }
            if stop_asked.try_recv() == Err(TryRecvError::Disconnected) {
                end(&mut child);
                return Err(Error::Stopped);
            }
            if began.elapsed() > READY_LIMIT {
                end(&mut child);
                return Err(self.log.program_error(
                    DOING,
                    format!("not ready after {} s", READY_LIMIT.as_secs()),
                    log_from,
                ));
            }
            if began.elapsed() > next_word {
                next_word += Duration::from_secs(10);
                let tail = self.log.tail(log_from);
                tracing::info!(
                    last_line = tail.lines().last().unwrap_or_default(),
                    "still waiting for PostgreSQL, perhaps recovering from a crash"
                );
            }
            thread::sleep(POLL);
        }
    }
}
