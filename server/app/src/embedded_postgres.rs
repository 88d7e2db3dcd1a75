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
//! `postgresql.conf` is left to the owner, except for what stands on the command line here (`SETTINGS`).
//! Making tables is the migrations' work, and calling from async code the caller's: everything here blocks.
//!
//! # The launcher
//!
//! Dropping root, opening the folder before, and asking the kernel for a signal at the parent's death must
//! happen in the child between fork and exec; from Rust that is `unsafe`. So the server starts *itself* with
//! a hidden first argument, does those steps in that small process ([`launch_if_asked`]) and becomes
//! PostgreSQL by exec. The process id stays, so PostgreSQL is our direct child.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User};

const USER: &str = "deadbeat";
const DATABASE: &str = "deadbeat";
/// Only names the socket file: nothing listens on TCP.
const PORT: u16 = 5432;
/// The oldest PostgreSQL our migrations are written for.
const OLDEST_MAJOR: u32 = 15;

/// Settings given on the command line, where they win over `postgresql.conf`.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "port=5432",
    "unix_socket_permissions=0700",
    "max_connections=100",
    "shared_buffers=256MB",
    "max_wal_size=2GB",
    "fsync=on",
    "cluster_name=deadbeat",
];

/// Everybody who can enter the socket's folder (mode 0700) is trusted; nobody else can reach the server at
/// all.
const HBA: &str = "# Written by Deadbeat. The only way in is the Unix socket, in a folder with mode 0700.\n\
                   local all all trust\n";

/// `sockaddr_un` takes 104 bytes on macOS and 108 on Linux, socket file name included.
const LONGEST_SOCKET_PATH: usize = 100;

const LOCK_LIMIT: Duration = Duration::from_secs(1);
const CLEAR_LIMIT: Duration = Duration::from_secs(2);
const MAKE_LIMIT: Duration = Duration::from_mins(3);
/// Generous, because replaying up to 2 GB of WAL after a crash counts as starting.
const READY_LIMIT: Duration = Duration::from_mins(5);
const FAST_STOP_LIMIT: Duration = Duration::from_secs(30);
const IMMEDIATE_STOP_LIMIT: Duration = Duration::from_secs(5);
const LEFTOVER_LIMIT: Duration = Duration::from_secs(45);
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);
const WATCH_PERIOD: Duration = Duration::from_millis(250);
const BINARY_CHECK_PERIOD: Duration = Duration::from_secs(5);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
const LARGEST_LOG_BYTES: u64 = 16 * 1024 * 1024;

/// Why the private PostgreSQL could not be started. The texts are written for the person at the terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedPostgresError {
    /// No PostgreSQL server programs anywhere we look.
    #[error(
        "PostgreSQL is not installed here, and Deadbeat keeps its data in a private PostgreSQL that it runs itself.\n\
         Install the programs (nothing needs setting up or starting):\n  \
         Debian, Ubuntu   apt-get install postgresql\n  \
         Fedora, RHEL     dnf install postgresql-server\n  \
         Alpine           apk add postgresql\n  \
         macOS            brew install postgresql@17\n\
         If they are installed in an unusual place, set DEADBEAT_POSTGRES_BIN to the folder with `postgres` and `initdb`.\n\
         To use a PostgreSQL you already run instead, set DEADBEAT_DATABASE_URL=postgres://user:password@host/database"
    )]
    BinariesNotFound,

    /// The folder given explicitly lacks the programs.
    #[error("DEADBEAT_POSTGRES_BIN is {}, but that folder does not hold both `postgres` and `initdb`", dir.display())]
    BinDirUnusable {
        /// The folder as given.
        dir: PathBuf,
    },

    /// PostgreSQL is there, but none that can run this database.
    #[error(
        "{need}, but found here: {found}.\nInstall PostgreSQL {major} beside it (Debian, Ubuntu: apt-get install postgresql-{major}), \
         or set DEADBEAT_POSTGRES_BIN to its folder{moving}"
    )]
    VersionMismatch {
        /// What asks for the version.
        need: String,
        /// The major version asked for.
        major: u32,
        /// Versions and folders found.
        found: String,
        /// How to move data to another version, where there is data.
        moving: &'static str,
    },

    /// Another server holds the lock of this data folder.
    #[error(
        "another Deadbeat server{holder} is already using the data folder {}. Stop it first, or give this one a data folder of its own",
        data_dir.display()
    )]
    AlreadyRunning {
        /// The data folder both want.
        data_dir: PathBuf,
        /// ` (process 123)`, or empty where unknown.
        holder: String,
    },

    /// The database belongs to another user of the machine.
    #[error(
        "the database in {} belongs to user {owner}, and this server runs as user {us}. Start it as before, or hand the folder over (as root): \
         chown -R {us} {}", cluster.display(), data_dir.display()
    )]
    ForeignOwner {
        /// The database folder.
        cluster: PathBuf,
        /// The data folder around it.
        data_dir: PathBuf,
        /// Who owns it, by name where known.
        owner: String,
        /// Who we are.
        us: String,
    },

    /// Started as root without any user to run PostgreSQL as.
    #[error(
        "PostgreSQL refuses to run as root, and this machine has neither a `postgres` nor a `nobody` user. Start Deadbeat as an ordinary user, \
         or create one: useradd --system postgres"
    )]
    NoUserToRunAs,

    /// There is something else where the database should be.
    #[error("{} is in the way: it is not empty and not a PostgreSQL database. Move it elsewhere and start again", cluster.display())]
    NotADatabase {
        /// The database folder.
        cluster: PathBuf,
    },

    /// Processes of an earlier PostgreSQL still use the folder.
    #[error("an earlier PostgreSQL (process {pids}) is still using {} and does not stop. End it and start again", cluster.display())]
    StillRunning {
        /// The database folder.
        cluster: PathBuf,
        /// Their process ids.
        pids: String,
    },

    /// One of PostgreSQL's programs failed; its own last words follow.
    #[error("{doing} failed: {how}. The last lines of {}:\n{tail}", log.display())]
    Program {
        /// What was being done.
        doing: &'static str,
        /// Exit status or time-out.
        how: String,
        /// PostgreSQL's log.
        log: PathBuf,
        /// Its end, and sometimes advice.
        tail: String,
    },

    /// The file system or the operating system said no.
    #[error("could not {doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the system said.
        source: io::Error,
    },

    /// The server was asked to stop while PostgreSQL was starting.
    #[error("stopped while PostgreSQL was starting")]
    Stopped,
}

use EmbeddedPostgresError as Error;

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
            .spawn(move || keep(cluster, bin_dir.as_deref(), &report, &stop_asked))
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
    let lock = File::open(data_dir.join("postgres.lock")).ok()?;
    // A shared lock, so that two asking at once do not see each other. A server starting in this instant
    // tries again (LOCK_LIMIT).
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let cluster = data_dir.join("postgres");
    let pid_file = PidFile::read(&cluster)?;
    // Collected by components, which drops the "." of a relative folder.
    let socket_dir = cluster.join(pid_file.socket_dir).components().collect();
    (pid_file.is_ready && process_exists(pid_file.pid)).then(|| Connection::at(socket_dir, pid_file.port))
}

// ---- The launcher: this program's own first argument ----

const LAUNCH_WORD: &str = "__run-postgres";
const SAME_USER: &str = "-";
/// Stands for the database folder in the launched program's arguments, by whichever name its user can reach
/// it.
const FOLDER: &str = "{folder}";

/// Becomes PostgreSQL if this process was started for that. Must be the first thing in `main`, before any
/// thread exists:
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     if let Some(failure) = deadbeat_app::embedded_postgres::launch_if_asked() {
///         return failure;
///     }
///     // … the ordinary main
/// #   ExitCode::SUCCESS
/// }
/// ```
///
/// `None` means: an ordinary start. On success it never returns.
#[must_use]
pub fn launch_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != LAUNCH_WORD {
        return None;
    }
    let Err(reason) = launch(args);
    // Standard error is PostgreSQL's log here; the server shows its end. If it cannot be written, nothing is
    // left to tell.
    let _ = writeln!(io::stderr(), "deadbeat: {reason}");
    Some(ExitCode::from(71))
}

fn launch(mut args: impl Iterator<Item = OsString>) -> Result<Infallible, String> {
    let mut next = |what: &str| {
        args.next()
            .ok_or_else(|| format!("{LAUNCH_WORD} is started by the server itself (no {what} given)"))
    };
    let parent = next("parent")?;
    let user = next("user")?;
    let folder = PathBuf::from(next("folder")?);
    let program = next("program")?;

    // Opened while we may still be root: the user we become may not be able to pass the folders above.
    let opened = File::open(&folder).map_err(|error| format!("cannot open {}: {error}", folder.display()))?;
    // PostgreSQL looks for its own files by changing folder and back, which must not fail.
    std::env::set_current_dir("/").map_err(|error| format!("cannot enter /: {error}"))?;
    let mut command = Command::new(&program);
    if user != SAME_USER {
        let (uid, gid) = parse_user(&user).ok_or("the user is not uid:gid")?;
        become_user(&mut command, uid, gid)
            .map_err(|error| format!("cannot become user {uid} (is this process allowed to?): {error}"))?;
    }
    // After changing user, which would clear it.
    end_with_parent(&parent)?;
    let name = reachable_name(&folder, &opened)?;
    command.args(args.map(|arg| {
        if arg == FOLDER {
            name.as_os_str().to_owned()
        } else {
            arg
        }
    }));
    let error = command.exec();
    Err(format!(
        "cannot run {} as user {}: {error}",
        Path::new(&program).display(),
        user_name(Uid::effective())
    ))
}

fn parse_user(text: &OsStr) -> Option<(u32, u32)> {
    let (uid, gid) = text.to_str()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

#[cfg(target_os = "linux")]
fn become_user(_: &mut Command, uid: u32, gid: u32) -> nix::Result<()> {
    nix::unistd::setgroups(&[])?;
    nix::unistd::setgid(Gid::from_raw(gid))?;
    nix::unistd::setuid(Uid::from_raw(uid))
}

/// Elsewhere no parent-death signal has to come after it, so it can wait for the exec.
#[cfg(not(target_os = "linux"))]
fn become_user(command: &mut Command, uid: u32, gid: u32) -> nix::Result<()> {
    command.uid(uid).gid(gid);
    Ok(())
}

#[cfg(target_os = "linux")]
fn end_with_parent(parent: &OsStr) -> Result<(), String> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGINT)
        .map_err(|error| format!("cannot ask for a signal at the server's end: {error}"))?;
    // Had the server died before that line, the signal would never come.
    let is_alive = parent.to_str() == Some(&std::os::unix::process::parent_id().to_string());
    is_alive
        .then_some(())
        .ok_or_else(|| "the server ended while PostgreSQL was starting".to_owned())
}

/// There is no such signal here: the next start stops what a killed server left (see
/// `Cluster::end_leftovers`).
#[cfg(not(target_os = "linux"))]
fn end_with_parent(_: &OsStr) -> Result<(), String> {
    Ok(())
}

/// The name by which the present user reaches the folder.
///
/// Its plain path, unless a folder above is closed to that user (root's `/root/deadbeat`). Then
/// `/proc/self/fd/3` or the like: PostgreSQL and all its processes inherit the opened folder, so that name
/// always means it, and nobody asks about the folders above.
fn reachable_name(folder: &Path, opened: &File) -> Result<PathBuf, String> {
    let cannot = |error: &dyn std::error::Error| format!("cannot use {}: {error}", folder.display());
    let metadata = opened.metadata().map_err(|error| cannot(&error))?;
    let is_folder = |name: &Path| identity(name) == Some((metadata.dev(), metadata.ino()));
    if is_folder(folder) {
        return Ok(folder.to_owned());
    }
    // A duplicate, unlike what std opens, survives exec; as a plain number nothing here closes it.
    let inherited = nix::unistd::dup(opened)
        .map_err(|error| cannot(&error))?
        .into_raw_fd();
    let through_proc = PathBuf::from(format!("/proc/self/fd/{inherited}"));
    if is_folder(&through_proc) {
        return Ok(through_proc);
    }
    let closed = folder
        .ancestors()
        .filter(|above| identity(above).is_none())
        .last()
        .and_then(Path::parent)
        .unwrap_or(folder);
    let user = user_name(Uid::effective());
    Err(format!(
        "user {user} may not enter {0}: choose a data folder elsewhere, or allow it: chmod o+x {0}",
        closed.display()
    ))
}

// ---- Finding PostgreSQL's programs ----

#[derive(Debug, Clone, PartialEq, Eq)]
struct Binaries {
    dir: PathBuf,
    major: u32,
    /// As PostgreSQL says it: `15.18 (Debian 15.18-0+deb12u1)`.
    version: String,
}

impl Binaries {
    /// The programs that can run a database of this major version; any recent one if there is no database
    /// yet.
    fn find(bin_dir: Option<&Path>, made_by: Option<u32>, cluster: &Path) -> Result<Self, Error> {
        let dirs = match bin_dir {
            Some(dir) => {
                vec![complete_bin_dir(dir).ok_or_else(|| Error::BinDirUnusable { dir: dir.to_owned() })?]
            }
            None => bin_dirs(),
        };
        let mut found = Vec::new();
        for dir in dirs {
            match Self::in_dir(dir) {
                Ok(binaries)
                    if made_by.map_or(binaries.major >= OLDEST_MAJOR, |major| major == binaries.major) =>
                {
                    return Ok(binaries);
                }
                Ok(other) => found.push(format!("PostgreSQL {} in {}", other.version, other.dir.display())),
                Err(Error::Io { doing, source }) => {
                    found.push(format!("a PostgreSQL that does not run ({doing}: {source})"));
                }
                Err(other) => return Err(other),
            }
        }
        if found.is_empty() {
            return Err(Error::BinariesNotFound);
        }
        Err(Error::VersionMismatch {
            need: made_by.map_or_else(
                || format!("Deadbeat needs PostgreSQL {OLDEST_MAJOR} or newer"),
                |major| {
                    format!(
                        "the database in {} was made by PostgreSQL {major} and needs that version",
                        cluster.display()
                    )
                },
            ),
            major: made_by.unwrap_or(OLDEST_MAJOR),
            found: found.join(", "),
            moving: if made_by.is_some() {
                ". To move to another version: pg_dump with the old one, then load it into a new data folder"
            } else {
                ""
            },
        })
    }

    fn in_dir(dir: PathBuf) -> Result<Self, Error> {
        let program = dir.join("postgres");
        let doing = || format!("ask {} for its version", program.display());
        let output = Command::new(&program)
            .arg("--version")
            .env_clear()
            .envs(library_path())
            .output()
            .map_err(io_error(doing()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse_version(&text)
            .map(|(major, version)| Self { dir, major, version })
            .ok_or_else(|| io_error(doing())(io::Error::other(format!("it answered \"{}\"", text.trim()))))
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → 15 and what follows the name; betas read
/// `19beta2`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.trim().split_once("(PostgreSQL) ")?.1;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((digits.parse().ok()?, version.to_owned()))
}

/// Programs that were unpacked without being installed (`scripts/unpack`) find their libraries by it.
fn library_path() -> Option<(&'static str, OsString)> {
    std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path))
}

/// Every installed PostgreSQL: the one on the PATH first, then the usual places, newest first.
fn bin_dirs() -> Vec<PathBuf> {
    // The shell looks it up, because environment variables are read in config.rs alone.
    let on_path = Command::new("sh")
        .args(["-c", "command -v postgres"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let on_path = on_path.ok().and_then(|output| {
        Some(
            Path::new(OsStr::from_bytes(output.stdout.trim_ascii()))
                .parent()?
                .to_owned(),
        )
    });

    // Folder, beginning of the names in it, the rest of the path.
    let usual_places = [
        ("/usr/lib/postgresql", "", "bin"),         // Debian, Ubuntu, Gentoo
        ("/usr", "pgsql-", "bin"),                  // postgresql.org's RPMs
        ("/usr/lib", "postgresql", "bin"),          // SUSE
        ("/usr/libexec", "postgresql", ""),         // Alpine
        ("/opt/homebrew/opt", "postgresql", "bin"), // macOS on ARM
        ("/usr/local/opt", "postgresql", "bin"),    // macOS on Intel
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        ("/usr/local", "pgsql", "bin"), // built from source
    ];
    let mut installed = Vec::new();
    for (folder, beginning, rest) in usual_places {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(version) = name.strip_prefix(beginning) {
                let digits: String = version.chars().filter(char::is_ascii_digit).collect();
                installed.push((digits.parse::<u32>().unwrap_or(0), entry.path().join(rest)));
            }
        }
    }
    installed.sort_by_key(|(version, _)| std::cmp::Reverse(*version));

    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in on_path
        .into_iter()
        .chain(installed.into_iter().map(|(_, dir)| dir))
        .filter_map(|dir| complete_bin_dir(&dir))
    {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

/// The real folder of the programs: what is on the PATH may be a link, beside which the other programs are
/// missing.
fn complete_bin_dir(dir: &Path) -> Option<PathBuf> {
    let real = dir.join("postgres").canonicalize().ok()?.parent()?.to_owned();
    real.join("initdb").is_file().then_some(real)
}

// ---- The database folder and the processes in it ----

/// The database folder, held by our lock.
#[derive(Debug)]
struct Cluster {
    data_dir: PathBuf,
    /// `data_dir/postgres`: PostgreSQL's own data folder.
    dir: PathBuf,
    log: PathBuf,
    launcher: PathBuf,
    /// Whom PostgreSQL runs as, when that is not ourselves.
    run_as: Option<(Uid, Gid)>,
    /// Released by the operating system when we end, however that happens; children do not inherit it.
    _lock: File,
}

impl Cluster {
    /// Takes the folder for us alone and settles whose it is.
    fn prepare_folder(options: StartOptions<'_>) -> Result<Self, Error> {
        let data_dir = options.data_dir;
        let make = DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
        make.map_err(io_error(format!("make the data folder {}", data_dir.display())))?;
        let data_dir = data_dir
            .canonicalize()
            .map_err(io_error(format!("open the data folder {}", data_dir.display())))?;
        let dir = data_dir.join("postgres");
        let (run_as, is_roots) = database_user(&data_dir, &dir)?;
        let launcher = match options.launcher {
            Some(launcher) => launcher.to_owned(),
            // Means this very program even after its file was replaced by an upgrade or a build.
            None if cfg!(target_os = "linux") => PathBuf::from("/proc/self/exe"),
            None => std::env::current_exe().map_err(io_error("find this program's own file"))?,
        };
        let lock = lock(&data_dir)?;
        if let (Some((uid, gid)), true) = (run_as, is_roots) {
            tracing::info!(folder = %dir.display(), user = user_name(uid), "the database belongs to root (a copy?); handing it to the user PostgreSQL runs as");
            hand_over(&dir, uid, gid).map_err(io_error(format!("hand over {}", dir.display())))?;
        }
        Ok(Self {
            log: data_dir.join("postgres.log"),
            data_dir,
            dir,
            launcher,
            run_as,
            _lock: lock,
        })
    }

    /// Who must own the files: whom PostgreSQL runs as.
    fn owner(&self) -> Uid {
        self.run_as.map_or_else(Uid::effective, |(uid, _)| uid)
    }

    /// The major version of PostgreSQL that made the database, or `None` if there is none yet.
    fn made_by(&self) -> Result<Option<u32>, Error> {
        match fs::read_to_string(self.dir.join("PG_VERSION")) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| Error::NotADatabase {
                cluster: self.dir.clone(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_taken = fs::read_dir(&self.dir).is_ok_and(|entries| entries.count() > 0);
                if is_taken {
                    Err(Error::NotADatabase {
                        cluster: self.dir.clone(),
                    })
                } else {
                    Ok(None)
                }
            }
            Err(error) => Err(io_error(format!(
                "read {}",
                self.dir.join("PG_VERSION").display()
            ))(error)),
        }
    }

    /// Makes the database beside its place and renames it when complete, so a killed first start leaves
    /// nothing half made.
    fn make(&self, binaries: &Binaries) -> Result<(), Error> {
        tracing::info!(folder = %self.dir.display(), postgres = %binaries.version, "making a new database; this happens once");
        let new_dir = self.data_dir.join(format!("postgres.new-{}", std::process::id()));
        let made = self
            .make_in(&new_dir, binaries, "C.UTF-8")
            .or_else(|error| match &error {
                // Not every system has it (macOS before 15, musl): upper() and lower() then know ASCII only,
                // which we do not rely on.
                Error::Program { tail, .. } if tail.contains("invalid locale name") => {
                    self.make_in(&new_dir, binaries, "C")
                }
                _ => Err(error),
            });
        let renamed = made.and_then(|()| {
            fs::rename(&new_dir, &self.dir).map_err(io_error(format!(
                "rename {} to {}",
                new_dir.display(),
                self.dir.display()
            )))?;
            File::open(&self.data_dir)
                .and_then(|dir| dir.sync_all())
                .map_err(io_error(format!("sync {}", self.data_dir.display())))
        });
        if renamed.is_err() {
            // The error being reported matters more; what stays is removed by the next start.
            let _ = fs::remove_dir_all(&new_dir);
        }
        renamed
    }

    fn make_in(&self, new_dir: &Path, binaries: &Binaries, character_type: &str) -> Result<(), Error> {
        let _ = fs::remove_dir_all(new_dir); // a first try's remains, if any
        DirBuilder::new()
            .mode(0o700)
            .create(new_dir)
            .map_err(io_error(format!("make {}", new_dir.display())))?;
        if let Some((uid, gid)) = self.run_as {
            chown(new_dir, Some(uid.as_raw()), Some(gid.as_raw()))
                .map_err(io_error(format!("hand over {}", new_dir.display())))?;
        }
        let character_type = format!("--lc-ctype={character_type}");
        let initdb = [
            "-D",
            FOLDER,
            "-U",
            USER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            &character_type,
        ];
        let initdb = initdb
            .into_iter()
            .chain(["--data-checksums", "--no-instructions"]);
        self.run_to_end(
            "making the database (initdb)",
            binaries,
            "initdb",
            new_dir,
            initdb,
            "",
        )?;
        // Rewriting it in place keeps its owner.
        fs::write(new_dir.join("pg_hba.conf"), HBA).map_err(io_error(format!(
            "write {}",
            new_dir.join("pg_hba.conf").display()
        )))?;
        let single = ["--single", "-D", FOLDER, "-c", "exit_on_error=on", "postgres"];
        let sql = format!("CREATE DATABASE {DATABASE};\n");
        self.run_to_end(
            "making the database (CREATE DATABASE)",
            binaries,
            "postgres",
            new_dir,
            single.into_iter(),
            &sql,
        )?;
        if new_dir.join("PG_VERSION").is_file() {
            return Ok(());
        }
        // A launcher that does not call launch_if_asked (a test binary) just ends, without complaint.
        let how = format!(
            "{} does not launch PostgreSQL; its main must call launch_if_asked first",
            self.launcher.display()
        );
        Err(Error::Program {
            doing: "making the database",
            how,
            log: self.log.clone(),
            tail: String::new(),
        })
    }

    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.data_dir).into_iter().flatten().flatten() {
            if !entry.file_name().as_bytes().starts_with(b"postgres.new-") {
                continue;
            }
            let began = Instant::now();
            // The initdb of a server killed just now may still be writing or tidying up in there.
            while let Err(error) = fs::remove_dir_all(entry.path()) {
                if began.elapsed() > CLEAR_LIMIT {
                    let folder = entry.path();
                    tracing::warn!(folder = %folder.display(), %error, "could not remove an unfinished database");
                    break;
                }
                thread::sleep(POLL);
            }
        }
    }

    /// Makes sure no process of an earlier PostgreSQL is left, and that what it left behind does not stop the
    /// next one.
    ///
    /// Needs our lock: a PostgreSQL in the folder is then one whose server died. Usually it is just ending.
    fn end_leftovers(&self, socket_dir: &Path) -> Result<(), Error> {
        let earlier = PidFile::read(&self.dir).map(|file| file.pid);
        let began = Instant::now();
        let mut asked = None;
        loop {
            // All of them, not the postmaster alone: two generations of backends on the same files would
            // destroy the data.
            let pids = postgres_processes_in(&self.dir, earlier);
            if pids.is_empty() {
                break;
            }
            // The postmaster stops the others in order. Without it they only finish what they are at, however
            // long that takes; a recovery comes next anyway.
            let has_postmaster = earlier.is_some_and(|pid| pids.contains(&pid));
            let is_patient = has_postmaster && began.elapsed() < LEFTOVER_PATIENCE;
            let signal = if is_patient {
                Signal::SIGINT
            } else {
                Signal::SIGQUIT
            };
            if asked != Some(signal) {
                asked = Some(signal);
                tracing::warn!(?pids, folder = %self.dir.display(), "an earlier PostgreSQL is still running; stopping it");
                // SIGINT tells the postmaster to stop (to a backend it would only cancel a query); SIGQUIT
                // ends each at once.
                for &pid in pids
                    .iter()
                    .filter(|pid| signal == Signal::SIGQUIT || Some(**pid) == earlier)
                {
                    let _ = kill(pid, signal); // it may just have ended
                }
            }
            if began.elapsed() > LEFTOVER_LIMIT {
                let pids = pids
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                return Err(Error::StillRunning {
                    cluster: self.dir.clone(),
                    pids,
                });
            }
            thread::sleep(POLL);
        }
        // PostgreSQL removes the files of a dead process itself. But a number still taken, by a zombie that
        // nobody reaps or by a stranger, makes it refuse its own files; we know better, having looked at
        // every process.
        let stale = PidFile::read(&self.dir).map(|file| file.pid);
        if stale.is_some_and(process_exists) {
            tracing::info!(pid = ?stale, "removing a stale postmaster.pid");
            remove_if_there(&self.dir.join("postmaster.pid"))?;
        }
        remove_if_there(&socket_dir.join(format!(".s.PGSQL.{PORT}.lock")))?;
        remove_if_there(&socket_dir.join(format!(".s.PGSQL.{PORT}")))
    }

    /// The folder of the socket: the database folder itself, which is 0700 already; below /tmp where that
    /// path would be too long.
    fn socket_dir(&self) -> Result<PathBuf, Error> {
        let file_name_len = format!("/.s.PGSQL.{PORT}").len();
        if self.dir.as_os_str().len() + file_name_len <= LONGEST_SOCKET_PATH {
            return Ok(self.dir.clone());
        }
        let mut hasher = DefaultHasher::new();
        self.dir.hash(&mut hasher);
        let name = format!("deadbeat-{:016x}", hasher.finish());
        // Anybody may have made that name in /tmp, so take only one that is ours and closed; postmaster.pid
        // records which.
        for attempt in 0..10 {
            let dir = Path::new("/tmp").join(format!("{name}-{attempt}"));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {
                    if let Some((uid, gid)) = self.run_as {
                        chown(&dir, Some(uid.as_raw()), Some(gid.as_raw()))
                            .map_err(io_error(format!("hand over {}", dir.display())))?;
                    }
                    return Ok(dir);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let is_ours = |found: &fs::Metadata| {
                        found.is_dir()
                            && found.uid() == self.owner().as_raw()
                            && found.mode() & 0o777 == 0o700
                    };
                    if fs::symlink_metadata(&dir).is_ok_and(|found| is_ours(&found)) {
                        return Ok(dir);
                    }
                }
                Err(error) => return Err(io_error(format!("make {} for the socket", dir.display()))(error)),
            }
        }
        Err(io_error(format!("make /tmp/{name}-* for the socket"))(
            io::Error::other("all those names are taken by others"),
        ))
    }

    /// Starts PostgreSQL and waits until it accepts connections.
    fn bring_up(
        &self,
        binaries: &Binaries,
        socket_dir: &Path,
        stop_asked: &Receiver<Infallible>,
    ) -> Result<Child, Error> {
        const DOING: &str = "starting PostgreSQL";
        self.end_leftovers(socket_dir)?;
        // Relative to the database folder, where PostgreSQL stays: works below folders it cannot pass, and is
        // short.
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
        let (mut child, log_from) = self.spawn(
            DOING,
            binaries,
            "postgres",
            &self.dir,
            args.into_iter(),
            Stdio::null(),
        )?;
        let began = Instant::now();
        let mut next_word = Duration::from_secs(10);
        loop {
            // The file of an earlier one says "ready" as well, so the process must be ours.
            if PidFile::read(&self.dir).is_some_and(|file| file.is_ready && file.pid == pid_of(&child)) {
                return Ok(child);
            }
            if let Some(status) = child.try_wait().map_err(io_error("wait for PostgreSQL"))? {
                return Err(self.program_error(DOING, exit_words(status), log_from));
            }
            if stop_asked.try_recv() == Err(TryRecvError::Disconnected) {
                end(&mut child);
                return Err(Error::Stopped);
            }
            if began.elapsed() > READY_LIMIT {
                end(&mut child);
                return Err(self.program_error(
                    DOING,
                    format!("not ready after {} s", READY_LIMIT.as_secs()),
                    log_from,
                ));
            }
            if began.elapsed() > next_word {
                next_word += Duration::from_secs(10);
                let tail = self.log_tail(log_from);
                tracing::info!(
                    last_line = tail.lines().last().unwrap_or_default(),
                    "still waiting for PostgreSQL, perhaps recovering from a crash"
                );
            }
            thread::sleep(POLL);
        }
    }

    fn run_to_end<'a>(
        &self,
        doing: &'static str,
        binaries: &Binaries,
        program: &str,
        folder: &Path,
        args: impl Iterator<Item = &'a str>,
        input: &str,
    ) -> Result<(), Error> {
        let (mut child, log_from) = self.spawn(
            doing,
            binaries,
            program,
            folder,
            args.map(OsStr::new),
            Stdio::piped(),
        )?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ended before reading says why by its status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let began = Instant::now();
        loop {
            match child.try_wait().map_err(io_error(doing))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.program_error(doing, exit_words(status), log_from)),
                None if began.elapsed() > MAKE_LIMIT => {
                    end(&mut child);
                    return Err(self.program_error(
                        doing,
                        format!("not done after {} s", MAKE_LIMIT.as_secs()),
                        log_from,
                    ));
                }
                None => thread::sleep(POLL),
            }
        }
    }

    /// Starts one of PostgreSQL's programs in `folder`, through the launcher; also gives where its words
    /// begin in the log.
    fn spawn<'a>(
        &self,
        doing: &str,
        binaries: &Binaries,
        program: &str,
        folder: &Path,
        args: impl Iterator<Item = &'a OsStr>,
        input: Stdio,
    ) -> Result<(Child, u64), Error> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.log);
        let log = log.map_err(io_error(format!("open {}", self.log.display())))?;
        let log_from = log.metadata().map_or(0, |metadata| metadata.len());
        let user = self
            .run_as
            .map_or_else(|| SAME_USER.to_owned(), |(uid, gid)| format!("{uid}:{gid}"));
        let child = Command::new(&self.launcher)
            .arg(LAUNCH_WORD)
            .args([std::process::id().to_string(), user])
            .args([folder, &binaries.dir.join(program)])
            .args(args)
            // Our secrets are none of its business, and PGDATA, PGPORT or LC_ALL of the person who started us
            // must not change anything.
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(library_path())
            // So that Ctrl-C reaches the server first, which then stops PostgreSQL in order.
            .process_group(0)
            .stdin(input)
            .stdout(if program == "initdb" {
                Stdio::from(log.try_clone().map_err(io_error(doing))?)
            } else {
                Stdio::null()
            })
            .stderr(log)
            .spawn()
            .map_err(io_error(format!("run {} for {doing}", self.launcher.display())))?;
        Ok((child, log_from))
    }

    fn rotate_log(&self) {
        if fs::metadata(&self.log).is_ok_and(|metadata| metadata.len() > LARGEST_LOG_BYTES)
            && let Err(error) = fs::rename(&self.log, self.data_dir.join("postgres.log.1"))
        {
            tracing::warn!(%error, "could not set the old postgres.log aside");
        }
    }

    fn log_tail(&self, from: u64) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
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

    fn program_error(&self, doing: &'static str, how: String, log_from: u64) -> Error {
        let mut tail = self.log_tail(log_from);
        if tail.contains("could not look up effective user ID") {
            let advice = "PostgreSQL needs a name for the user it runs as: give this user id one in /etc/passwd, or use one that has";
            tail = format!("{tail}\n{advice}");
        }
        Error::Program {
            doing,
            how,
            log: self.log.clone(),
            tail,
        }
    }
}

/// Whom PostgreSQL is to run as when that is not ourselves: as root, the owner of the database, at first
/// `postgres` or `nobody`. Also tells whether there is a database and it is root's, thus has to be handed
/// over.
fn database_user(data_dir: &Path, cluster: &Path) -> Result<(Option<(Uid, Gid)>, bool), Error> {
    let us = Uid::effective();
    let owner = match fs::metadata(cluster) {
        Ok(found) => Some((Uid::from_raw(found.uid()), Gid::from_raw(found.gid()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error(format!("look at {}", cluster.display()))(error)),
    };
    match owner {
        Some((uid, _)) if !us.is_root() && uid != us => {
            let (owner, us) = (user_name(uid), user_name(us));
            Err(Error::ForeignOwner {
                cluster: cluster.to_owned(),
                data_dir: data_dir.to_owned(),
                owner,
                us,
            })
        }
        _ if !us.is_root() => Ok((None, false)),
        Some((uid, gid)) if !uid.is_root() => Ok((Some((uid, gid)), false)),
        _ => {
            let named = |name| User::from_name(name).ok().flatten();
            let user = named("postgres")
                .or_else(|| named("nobody"))
                .ok_or(Error::NoUserToRunAs)?;
            Ok((Some((user.uid, user.gid)), owner.is_some()))
        }
    }
}

/// Gives a whole folder to a user; the folder itself last, so that an interrupted run is repeated.
fn hand_over(folder: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            hand_over(&entry.path(), uid, gid)?;
        } else {
            lchown(entry.path(), Some(uid.as_raw()), Some(gid.as_raw()))?;
        }
    }
    chown(folder, Some(uid.as_raw()), Some(gid.as_raw()))
}

fn lock(data_dir: &Path) -> Result<File, Error> {
    let path = data_dir.join("postgres.lock");
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
            // It may only be somebody asking whether it is held (`running`).
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

/// What `postmaster.pid` says: how PostgreSQL itself tells the world where it is and whether it is ready
/// (`pg_ctl` waits for it too).
#[derive(Debug, PartialEq, Eq)]
struct PidFile {
    pid: Pid,
    port: u16,
    /// Relative to the database folder, or absolute.
    socket_dir: PathBuf,
    is_ready: bool,
}

impl PidFile {
    fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(cluster.join("postmaster.pid")).ok()?)
    }

    /// Lines: pid, folder, start time, port, socket folder, address, shared memory key, state. The later ones
    /// appear as it starts.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        // Single-user mode writes its number negated; kill() would take such a number for a whole group.
        let pid = lines
            .next()?
            .trim()
            .parse::<i32>()
            .ok()?
            .checked_abs()
            .filter(|pid| *pid > 0)?;
        let port = lines
            .nth(2)
            .and_then(|line| line.trim().parse().ok())
            .unwrap_or(PORT);
        let socket_dir = lines.next().map(PathBuf::from).unwrap_or_default();
        let is_ready = lines.nth(2).is_some_and(|line| line.trim() == "ready");
        Some(Self {
            pid: Pid::from_raw(pid),
            port,
            socket_dir,
            is_ready,
        })
    }
}

/// Every living PostgreSQL process whose working folder is this one: the postmaster and all its children,
/// never a zombie.
#[cfg(target_os = "linux")]
fn postgres_processes_in(cluster: &Path, _: Option<Pid>) -> Vec<Pid> {
    let Some(folder) = identity(cluster) else {
        return Vec::new();
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
    pids.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
            && identity(Path::new(&format!("/proc/{pid}/cwd"))) == Some(folder)
    })
    .collect()
}

/// Without /proc: the process that postmaster.pid names, if it is a PostgreSQL at all.
#[cfg(not(target_os = "linux"))]
fn postgres_processes_in(_: &Path, earlier: Option<Pid>) -> Vec<Pid> {
    let is_postgres = |pid: &Pid| {
        let output = Command::new("ps")
            .args(["-o", "comm=", "-p", &pid.to_string()])
            .output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout)
                .trim()
                .ends_with("postgres")
        })
    };
    earlier
        .into_iter()
        .filter(|pid| process_exists(*pid) && is_postgres(pid))
        .collect()
}

// ---- The thread that keeps it running ----

fn keep(
    cluster: Cluster,
    bin_dir: Option<&Path>,
    report: &Sender<Result<Connection, Error>>,
    stop_asked: &Receiver<Infallible>,
) {
    let began = Instant::now();
    let started = (|| {
        cluster.remove_unfinished();
        cluster.rotate_log();
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
            drop(cluster); // and with it the lock, before the caller can try again
            let _ = report.send(Err(error)); // the caller waits for it; if it is gone, nobody is left to tell
        }
        Ok((binaries, socket_dir, child)) => {
            let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(postgres = %binaries.version, folder = %cluster.dir.display(), socket_dir = %socket_dir.display(), duration_ms, "the embedded PostgreSQL is ready");
            let _ = report.send(Ok(Connection::at(socket_dir.clone(), PORT))); // as above; we then stop at once
            watch(&cluster, binaries, &socket_dir, child, stop_asked);
            if socket_dir != cluster.dir {
                let _ = fs::remove_dir(&socket_dir); // the next start takes it as it is
            }
        }
    }
}

/// Keeps PostgreSQL running until asked to stop: starts it again when it ended, or when an upgrade exchanged
/// its programs.
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
                    // A running server cannot load the libraries of another version, so it must follow.
                    tracing::warn!(running = %binaries.version, installed = %upgraded.version, "PostgreSQL was upgraded on this machine; restarting it");
                    end(running);
                    binaries = upgraded;
                }
                Ok(Some(status)) => {
                    let log_tail = cluster.log_tail(0);
                    tracing::error!(
                        how = exit_words(status),
                        log_tail,
                        "the embedded PostgreSQL ended by itself; starting it again"
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "cannot tell whether the embedded PostgreSQL runs");
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

/// Notices that the file of the `postgres` program was exchanged, and settled since: a package upgrade takes
/// a while.
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
        // Looked at once, whatever the answer.
        self.in_use = self.last_seen;
        let found = Binaries::in_dir(binaries.dir.clone())
            .ok()
            .filter(|found| found.major == binaries.major);
        if found.is_none() {
            tracing::warn!(program = %self.path.display(), "PostgreSQL's program was exchanged for one that cannot run this database");
        }
        found.filter(|found| found.version != binaries.version)
    }
}

/// Ends PostgreSQL: clients are cut off and everything is written (fast shutdown); harder if that takes too
/// long.
fn end(child: &mut Child) {
    for (signal, limit) in [
        (Signal::SIGINT, FAST_STOP_LIMIT),
        (Signal::SIGQUIT, IMMEDIATE_STOP_LIMIT),
    ] {
        let _ = kill(pid_of(child), signal); // it may just have ended; not reaped yet, so the number is still its own
        let began = Instant::now();
        while began.elapsed() < limit {
            match child.try_wait() {
                Ok(None) => thread::sleep(POLL),
                Ok(Some(_)) => return,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for PostgreSQL to end");
                    return;
                }
            }
        }
        tracing::warn!(
            signal = signal.as_str(),
            waited_s = limit.as_secs(),
            "PostgreSQL does not stop; insisting"
        );
    }
    // Nothing committed is lost: the next start recovers from the WAL.
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        tracing::error!(%error, "cannot end PostgreSQL");
    }
}

// ---- Small things ----

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Whether the number is taken: also true for zombies and for processes of others.
fn process_exists(pid: Pid) -> bool {
    kill(pid, None) != Err(Errno::ESRCH)
}

/// What makes a folder the same folder, whatever its name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

fn user_name(uid: Uid) -> String {
    User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}

fn exit_words(status: ExitStatus) -> String {
    status.to_string() // "exit status: 1", "signal: 9 (SIGKILL)"
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let doing = doing.into();
    |source| Error::Io { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_every_vendors_answer() {
        for (text, major, version) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                15,
                "15.18 (Debian 15.18-0+deb12u1)",
            ),
            ("postgres (PostgreSQL) 17.6 (Homebrew)\n", 17, "17.6 (Homebrew)"),
            ("postgres (PostgreSQL) 19beta2\n", 19, "19beta2"),
            ("postgres (PostgreSQL) 16.4\n", 16, "16.4"),
        ] {
            assert_eq!(parse_version(text), Some((major, version.to_owned())));
        }
        assert_eq!(parse_version("postgres: command not found"), None);
    }

    #[test]
    fn pid_file_is_ready_only_with_its_eighth_line() {
        let whole = "4711\n/data/postgres\n1790000000\n5432\n.\n\n  123 456\nready   \n";
        let ready = PidFile {
            pid: Pid::from_raw(4711),
            port: 5432,
            socket_dir: ".".into(),
            is_ready: true,
        };

        assert_eq!(PidFile::parse(whole), Some(ready));
        for state in ["starting", "stopping", "standby"] {
            assert!(PidFile::parse(&whole.replace("ready", state)).is_some_and(|file| !file.is_ready));
        }
        assert!(PidFile::parse("4711\n/data/postgres\n").is_some_and(|file| !file.is_ready));
        assert_eq!(
            PidFile::parse("-4711\n").map(|file| file.pid),
            Some(Pid::from_raw(4711))
        );
        for broken in ["", "0\n", "not a number\n", "99999999999\n"] {
            assert_eq!(PidFile::parse(broken), None);
        }
    }

    #[test]
    fn url_encodes_the_socket_folder() {
        let connection = Connection::at("/home/zoë/a b&c".into(), 5432);

        assert_eq!(
            connection.url(),
            "postgres://deadbeat@localhost:5432/deadbeat?host=/home/zo%C3%AB/a%20b%26c"
        );
    }
}
