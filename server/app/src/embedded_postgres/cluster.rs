//! The database folder: locking it, its owner, and the place of its socket.

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};

use super::error::{EmbeddedPostgresError as Error, io_error};
use super::log::Log;
use super::owner::{database_user, hand_over, user_name};
use super::{PORT, StartOptions, lock};

/// `sockaddr_un` takes 104 bytes on macOS and 108 on Linux, socket file name included.
const LONGEST_SOCKET_PATH: usize = 100;

/// The database folder, which our lock protects.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) data_dir: PathBuf,
    /// `data_dir/postgres`: PostgreSQL's own data folder.
    pub(super) dir: PathBuf,
    pub(super) log: Log,
    pub(super) launcher: PathBuf,
    /// The user and group of PostgreSQL, if they are not our own.
    pub(super) run_as: Option<(Uid, Gid)>,
    /// The operating system releases the lock when this process ends, in whatever way. Children do not inherit the lock.
    _lock: File,
}

impl Cluster {
    /// Locks the folder, and determines its owner.
    pub(super) fn prepare_folder(options: StartOptions<'_>) -> Result<Self, Error> {
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
            // Refers to this very program even after an upgrade or a build has replaced its file.
            None if cfg!(target_os = "linux") => PathBuf::from("/proc/self/exe"),
            None => std::env::current_exe().map_err(io_error("find this program's own file"))?,
        };
        let lock = lock::take(&data_dir)?;
        if let (Some((uid, gid)), true) = (run_as, is_roots) {
            tracing::info!(folder = %dir.display(), user = user_name(uid), "the database belongs to root (a copy?); handing it to the user PostgreSQL runs as");
            hand_over(&dir, uid, gid).map_err(io_error(format!("hand over {}", dir.display())))?;
        }
        Ok(Self {
            log: Log::in_folder(&data_dir),
            data_dir,
            dir,
            launcher,
            run_as,
            _lock: lock,
        })
    }

    /// Returns the user that must own the files: the one as which PostgreSQL runs.
    fn owner(&self) -> Uid {
        self.run_as.map_or_else(Uid::effective, |(uid, _)| uid)
    }

    /// Returns the major version of PostgreSQL that made the database, or `None` if there is no database yet.
    pub(super) fn made_by(&self) -> Result<Option<u32>, Error> {
        let version_file = self.dir.join("PG_VERSION");
        let not_a_database = || Error::NotADatabase {
            cluster: self.dir.clone(),
        };
        match fs::read_to_string(&version_file) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| not_a_database()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_taken = fs::read_dir(&self.dir).is_ok_and(|entries| entries.count() > 0);
                if is_taken { Err(not_a_database()) } else { Ok(None) }
            }
            Err(error) => Err(io_error(format!("read {}", version_file.display()))(error)),
        }
    }

    /// Returns the folder of the socket. It is the database folder itself, which has mode 0700, or a folder below /tmp if that path would be too
    /// long.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, Error> {
        let file_name_len = format!("/.s.PGSQL.{PORT}").len();
        if self.dir.as_os_str().len() + file_name_len <= LONGEST_SOCKET_PATH {
            return Ok(self.dir.clone());
        }
        let mut hasher = DefaultHasher::new();
        self.dir.hash(&mut hasher);
        let name = format!("deadbeat-{:016x}", hasher.finish());
        // Anybody may have made a folder with this name in /tmp. Use only one that we own and that is closed to others; postmaster.pid records which.
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
}
