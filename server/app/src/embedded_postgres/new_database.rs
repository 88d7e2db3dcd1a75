//! Makes the database at the first start.

use std::fs::{self, DirBuilder, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::binaries::Binaries;
use super::cluster::Cluster;
use super::error::{EmbeddedPostgresError as Error, io_error};
use super::launcher::FOLDER;
use super::{DATABASE, POLL, USER};

/// Trusts every user who can enter the socket's folder (mode 0700). Nobody else can reach PostgreSQL at all.
const HBA: &str = "# Written by Deadbeat. The only way in is the Unix socket, in a folder with mode 0700.\n\
                   local all all trust\n";

const CLEAR_LIMIT: Duration = Duration::from_secs(2);

impl Cluster {
    /// Makes the database in a sibling folder, and renames it when it is complete. A first start that is killed thus leaves no incomplete database.
    pub(super) fn make(&self, binaries: &Binaries) -> Result<(), Error> {
        tracing::info!(folder = %self.dir.display(), postgres = %binaries.version, "making a new database; this happens once");
        let new_dir = self.data_dir.join(format!("postgres.new-{}", std::process::id()));
        let made = self
            .make_in(&new_dir, binaries, "C.UTF-8")
            .or_else(|error| match &error {
                // Some systems lack this locale (macOS before 15, musl). With `C`, upper() and lower() know only ASCII, and we do not rely on more.
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
            // The first error matters more than one of this removal. The next start removes the remains.
            let _ = fs::remove_dir_all(&new_dir);
        }
        renamed
    }

    fn make_in(&self, new_dir: &Path, binaries: &Binaries, character_type: &str) -> Result<(), Error> {
        let _ = fs::remove_dir_all(new_dir); // the remains of a first attempt, if any
        DirBuilder::new()
            .mode(0o700)
            .create(new_dir)
            .map_err(io_error(format!("make {}", new_dir.display())))?;
        if let Some((uid, gid)) = self.run_as {
            chown(new_dir, Some(uid.as_raw()), Some(gid.as_raw()))
                .map_err(io_error(format!("hand over {}", new_dir.display())))?;
        }
        let character_type = format!("--lc-ctype={character_type}");
        let initdb = &[
            "-D",
            FOLDER,
            "-U",
            USER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            &character_type,
            "--data-checksums",
            "--no-instructions",
        ];
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
        let single = &["--single", "-D", FOLDER, "-c", "exit_on_error=on", "postgres"];
        let sql = format!("CREATE DATABASE {DATABASE};\n");
        self.run_to_end(
            "making the database (CREATE DATABASE)",
            binaries,
            "postgres",
            new_dir,
            single,
            &sql,
        )?;
        if new_dir.join("PG_VERSION").is_file() {
            return Ok(());
        }
        // A launcher that does not call launch_if_asked (a test binary) ends without an error.
        let how = format!(
            "{} does not launch PostgreSQL; its main must call launch_if_asked first",
            self.launcher.display()
        );
        Err(Error::Program {
            doing: "making the database",
            how,
            log: self.log.path.clone(),
            tail: String::new(),
        })
    }

    pub(super) fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.data_dir).into_iter().flatten().flatten() {
            if !entry.file_name().as_bytes().starts_with(b"postgres.new-") {
                continue;
            }
            let began = Instant::now();
            // The initdb of a server that was just killed may still be writing or deleting files there.
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
}
