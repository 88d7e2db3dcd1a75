//! Why the embedded PostgreSQL could not be started.

use std::io;
use std::path::PathBuf;

/// Why the private PostgreSQL could not be started. The messages are written for the person at the terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedPostgresError {
    /// PostgreSQL's programs are in none of the places where the server looks.
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

    /// The folder in the setting does not contain the programs.
    #[error("DEADBEAT_POSTGRES_BIN is {}, but that folder does not contain both `postgres` and `initdb`", dir.display())]
    BinDirUnusable {
        /// The folder in the setting.
        dir: PathBuf,
    },

    /// None of the installed PostgreSQLs can run this database.
    #[error(
        "{need}, but found here: {found}.\nInstall PostgreSQL {major} beside it (Debian, Ubuntu: apt-get install postgresql-{major}), \
         or set DEADBEAT_POSTGRES_BIN to its folder{moving}"
    )]
    VersionMismatch {
        /// Why this version is needed.
        need: String,
        /// The needed major version.
        major: u32,
        /// The versions that were found, with their folders.
        found: String,
        /// How to move the data to another version, if there are data.
        moving: &'static str,
    },

    /// Another server holds the lock of this data folder.
    #[error(
        "another Deadbeat server{holder} is already using the data folder {}. Stop it first, or give this one a data folder of its own",
        data_dir.display()
    )]
    AlreadyRunning {
        /// The data folder that both servers use.
        data_dir: PathBuf,
        /// ` (process 123)`, or empty if the process is unknown.
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
        /// Its owner, by name if the name is known.
        owner: String,
        /// The user as which this server runs.
        us: String,
    },

    /// The server was started as root, and there is no user as which PostgreSQL could run.
    #[error(
        "PostgreSQL refuses to run as root, and this machine has neither a `postgres` nor a `nobody` user. Start Deadbeat as an ordinary user, \
         or create one: useradd --system postgres"
    )]
    NoUserToRunAs,

    /// The place of the database contains something else.
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

    /// One of PostgreSQL's programs failed. The message contains the last lines of its log.
    #[error("{doing} failed: {how}. The last lines of {}:\n{tail}", log.display())]
    Program {
        /// The step that failed.
        doing: &'static str,
        /// The exit status or the timeout.
        how: String,
        /// PostgreSQL's log.
        log: PathBuf,
        /// The last lines of the log, sometimes with advice.
        tail: String,
    },

    /// The file system or the operating system returned an error.
    #[error("could not {doing}")]
    Io {
        /// The step that failed, with the path.
        doing: String,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The server was stopped while PostgreSQL was starting.
    #[error("stopped while PostgreSQL was starting")]
    Stopped,
}

pub(super) fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> EmbeddedPostgresError {
    let doing = doing.into();
    |source| EmbeddedPostgresError::Io { doing, source }
}
