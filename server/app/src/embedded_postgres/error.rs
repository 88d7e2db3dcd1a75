//! Why it could not be started.

use std::io;
use std::path::PathBuf;

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

pub(super) fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> EmbeddedPostgresError {
    let doing = doing.into();
    |source| EmbeddedPostgresError::Io { doing, source }
}
