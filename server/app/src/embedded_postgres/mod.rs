//! The embedded default database: a private PostgreSQL that runs the programs installed on this machine. A first start therefore needs no set-up.
//!
//! The database is in `<data folder>/postgres`, listens only on a Unix socket, and belongs to one server process at a time. Promises:
//!
//! - Committed data survive `kill -9` of the server, of PostgreSQL, or of both: fsync is on, and the next start works at once.
//! - PostgreSQL never outlives the server. On Linux the kernel makes it stop cleanly when the server dies in whatever way. On other systems the
//!   next start stops it.
//! - No start ever finds an incomplete database: the server makes it in a sibling folder, and renames that when it is complete.
//! - It also works as root, although PostgreSQL refuses to run as root. PostgreSQL then runs as the owner of the database folder, at first the
//!   `postgres` user (or `nobody`). This works even below a folder that this user may not enter, such as `/root`.
//!
//! The owner may edit `postgresql.conf`, but settings on the command line (`SETTINGS` in `postmaster.rs`) override it. The migrations make the
//! tables. Everything here blocks, so async callers must use other threads. `launcher.rs` explains how PostgreSQL gives up root, and how it learns
//! that the server died.

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
/// Only part of the socket file's name: nothing listens on TCP.
const PORT: u16 = 5432;
const POLL: Duration = Duration::from_millis(5);

/// Where clients connect to the private PostgreSQL. There is no password: any user who may enter the socket's folder may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The folder of the socket, an absolute path.
    pub socket_dir: PathBuf,
    /// The number in the name of the socket's file.
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

    /// Returns the URL for sqlx and psql: `postgres://deadbeat@localhost:5432/deadbeat?host=/the/folder`, percent-encoded.
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

/// The arguments of [`EmbeddedPostgres::start_with`].
#[derive(Debug, Clone, Copy)]
pub struct StartOptions<'a> {
    /// The server's data folder; created if it is missing.
    pub data_dir: &'a Path,
    /// The folder of PostgreSQL's programs; `None` searches the usual places.
    pub bin_dir: Option<&'a Path>,
    /// A program whose `main` first calls [`launch_if_asked`]; `None` means this very program. For tests.
    pub launcher: Option<&'a Path>,
}

/// A running private PostgreSQL. It is restarted if it ends by itself. [`stop`](Self::stop) or dropping it stops it (fast shutdown).
///
/// Both block for some ten milliseconds, in bad cases for up to 35 s. In async code use `spawn_blocking`, and close the pools first.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    connection: Connection,
    stop: Option<Sender<Infallible>>,
    keeper: Option<JoinHandle<()>>,
}

impl EmbeddedPostgres {
    /// Starts the private PostgreSQL of `data_dir`. Makes the database on first use. Returns when PostgreSQL accepts connections.
    ///
    /// # Errors
    /// See [`EmbeddedPostgresError`]; each message says what to do. After an error, no process and no incomplete database is left.
    pub fn start(data_dir: &Path, bin_dir: Option<&Path>) -> Result<Self, Error> {
        Self::start_with(StartOptions {
            data_dir,
            bin_dir,
            launcher: None,
        })
    }

    /// Like [`start`](Self::start), but with all options.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub fn start_with(options: StartOptions<'_>) -> Result<Self, Error> {
        let cluster = Cluster::prepare_folder(options)?;
        let (stop, stop_asked) = mpsc::channel();
        let (report, started) = mpsc::channel();
        let bin_dir = options.bin_dir.map(Path::to_owned);

        // The kernel sends the parent-death signal when the spawning *thread* ends. One thread therefore spawns PostgreSQL and lives as long as
        // PostgreSQL. A thread of a pool (tokio's blocking pool) could end at any time.
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

    /// Returns where clients connect. This stays the same after a restart of PostgreSQL.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Stops PostgreSQL. Returns when it has ended and the data folder is unlocked.
    pub fn stop(mut self) {
        self.stop_and_wait();
    }

    fn stop_and_wait(&mut self) {
        // Nothing is ever sent: closing the channel is the signal, so a server that dies in any way gives it, too.
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

/// Returns the connection to the private PostgreSQL that another process runs on this data folder. Commands that run beside a server use it.
///
/// Returns `None` if no server holds the folder, or its PostgreSQL is not ready at this moment.
#[must_use]
pub fn running(data_dir: &Path) -> Option<Connection> {
    let data_dir = data_dir.canonicalize().ok()?;
    if !lock::is_held(&data_dir) {
        return None;
    }
    let cluster = data_dir.join("postgres");
    let pid_file = PidFile::read(&cluster)?;
    // Collecting the components drops the "." of a relative folder.
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
