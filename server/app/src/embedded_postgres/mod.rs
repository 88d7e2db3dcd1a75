//! The embedded default database: a private PostgreSQL, run from the binaries of this machine, so that a
//! first start needs no set-up.
//!
//! It lives in `<data folder>/postgres`, listens on a Unix socket only and belongs to one server process at a
//! time. Promises:
//!
//! - What was committed survives `kill -9` of the server, of PostgreSQL, or of both: fsync is on, and the
//!   next start works at once.
//! - PostgreSQL never outlives the server. On Linux the kernel stops it cleanly when the server dies, however
//!   that happens; elsewhere the next start stops what was left.
//! - A half-made database is never found: it is made in a sibling folder and renamed when complete.
//! - It also works as root, which PostgreSQL itself refuses: it then runs as the owner of the database
//!   folder, at first the `postgres` user (or `nobody`), even below a folder that user may not enter, such as
//!   `/root`.
//!
//! `postgresql.conf` is left to the owner, except for what stands on the command line (`SETTINGS` in
//! `postmaster.rs`). Making tables is the migrations' work, and calling from async code the caller's:
//! everything here blocks. How PostgreSQL loses root, and learns of the server's death, is in `launcher.rs`.

mod binaries;
mod child;
mod cluster;
mod error;
mod keeper;
mod launcher;
mod leftovers;
mod lock;
mod log;
mod new_database;
mod owner;
mod pid_file;
mod postmaster;
mod processes;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cluster::Cluster;
pub use error::EmbeddedPostgresError;
use error::{EmbeddedPostgresError as Error, io_error};
pub use launcher::launch_if_asked;
use pid_file::PidFile;

const USER: &str = "deadbeat";
const DATABASE: &str = "deadbeat";
/// Only names the socket file: nothing listens on TCP.
const PORT: u16 = 5432;
const POLL: Duration = Duration::from_millis(5);

/// Where the private PostgreSQL is reached. There is no password: who may enter the socket's folder is let
/// in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The folder that holds the socket, an absolute path.
    pub socket_dir: PathBuf,
    /// The number in the socket's file name.
    pub port: u16,
    /// The database user, a superuser.
    pub user: String,
    /// The database.
    pub database: String,
}

impl Connection {
    fn at(socket_dir: PathBuf, port: u16) -> Self {
        Self {
            socket_dir,
            port,
            user: USER.to_owned(),
            database: DATABASE.to_owned(),
        }
    }

    /// The URL for sqlx and psql: `postgres://deadbeat@localhost:5432/deadbeat?host=/the/folder`,
    /// percent-encoded.
    #[must_use]
    pub fn url(&self) -> String {
        let mut host = String::new();
        for &byte in self.socket_dir.as_os_str().as_bytes() {
            if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
                host.push(char::from(byte));
            } else {
                let _ = write!(host, "%{byte:02X}"); // writing to a String cannot fail
            }
        }
        format!(
            "postgres://{}@localhost:{}/{}?host={host}",
            self.user, self.port, self.database
        )
    }
}

/// What [`EmbeddedPostgres::start_with`] needs to know.
#[derive(Debug, Clone, Copy)]
pub struct StartOptions<'a> {
    /// The server's data folder; made if missing.
    pub data_dir: &'a Path,
    /// The folder of PostgreSQL's programs; found by itself if `None`.
    pub bin_dir: Option<&'a Path>,
    /// A program whose `main` calls [`launch_if_asked`] first; this very program if `None`. For tests.
    pub launcher: Option<&'a Path>,
}

/// A running private PostgreSQL, started again should it end by itself; stopped (fast shutdown) by
/// [`stop`](Self::stop) or on drop.
///
/// Both block for some ten milliseconds, up to 35 s in bad cases: from async code use `spawn_blocking`, and
/// close the pools first.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    connection: Connection,
    stop: Option<Sender<Infallible>>,
    keeper: Option<JoinHandle<()>>,
}

impl EmbeddedPostgres {
    /// Starts the private server of `data_dir`, making the database on first use; returns when it accepts
    /// connections.
    ///
    /// # Errors
    /// See [`EmbeddedPostgresError`]; each says what to do. Nothing is left running or half made then.
    pub fn start(data_dir: &Path, bin_dir: Option<&Path>) -> Result<Self, Error> {
        Self::start_with(StartOptions {
            data_dir,
            bin_dir,
            launcher: None,
        })
    }

    /// Like [`start`](Self::start), with everything that can be chosen.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(options: StartOptions<'_>) -> Result<Self, Error> {
        let cluster = Cluster::prepare_folder(options)?;
        let (stop, stop_asked) = mpsc::channel();
        let (report, started) = mpsc::channel();
        let bin_dir = options.bin_dir.map(Path::to_owned);

        // The kernel's parent-death signal fires when the spawning *thread* ends. So one thread spawns
        // PostgreSQL and stays as long as it runs; a pool's thread (tokio's blocking pool) could end at any
        // time.
        let keeper = thread::Builder::new()
            .name("embedded-postgres".to_owned())
            .spawn(move || keeper::keep(cluster, bin_dir.as_deref(), &report, &stop_asked))
            .map_err(io_error("start a thread"))?;
        let connection = started.recv().unwrap_or(Err(Error::Stopped))?;
        Ok(Self {
            connection,
            stop: Some(stop),
            keeper: Some(keeper),
        })
    }

    /// Where it is reached; stays the same when PostgreSQL is started again.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Stops PostgreSQL, returns when it has ended and the data folder is free.
    pub fn stop(mut self) {
        self.stop_and_wait();
    }

    fn stop_and_wait(&mut self) {
        // Nothing is ever sent: the closed channel is the message, so a server that dies in any way leaves it
        // too.
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            tracing::error!("the thread that keeps the embedded PostgreSQL panicked");
        }
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        self.stop_and_wait();
    }
}

/// The connection to the private server that another process runs on this data folder, for commands working
/// beside it.
///
/// `None` when no server holds the folder, or its PostgreSQL is not ready at this moment.
#[must_use]
pub fn running(data_dir: &Path) -> Option<Connection> {
    let data_dir = data_dir.canonicalize().ok()?;
    if !lock::is_held(&data_dir) {
        return None;
    }
    let cluster = data_dir.join("postgres");
    let pid_file = PidFile::read(&cluster)?;
    // Collected by components, which drops the "." of a relative folder.
    let socket_dir = cluster.join(pid_file.socket_dir).components().collect();
    (pid_file.is_ready && processes::process_exists(pid_file.pid))
        .then(|| Connection::at(socket_dir, pid_file.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_encodes_the_socket_folder() {
        let connection = Connection::at("/home/zoë/a b&c".into(), 5432);

        assert_eq!(
            connection.url(),
            "postgres://deadbeat@localhost:5432/deadbeat?host=/home/zo%C3%AB/a%20b%26c"
        );
    }
}
