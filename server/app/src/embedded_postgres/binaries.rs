//! Finds PostgreSQL's programs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::{EmbeddedPostgresError as Error, io_error};

/// The oldest PostgreSQL for which our migrations are written.
const OLDEST_MAJOR: u32 = 15;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
    /// As PostgreSQL prints it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub(super) version: String,
}

impl Binaries {
    /// Finds the programs that can run a database of this major version. Without a database, any recent version will do.
    pub(super) fn find(bin_dir: Option<&Path>, made_by: Option<u32>, cluster: &Path) -> Result<Self, Error> {
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

    pub(super) fn in_dir(dir: PathBuf) -> Result<Self, Error> {
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

/// Parses `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` into 15 and the text behind the name. Beta versions print `19beta2`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.trim().split_once("(PostgreSQL) ")?.1;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((digits.parse().ok()?, version.to_owned()))
}

/// Returns the library path. Programs that were unpacked without being installed (`scripts/unpack`) find their libraries by it.
pub(super) fn library_path() -> Option<(&'static str, OsString)> {
    std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path))
}

/// Returns the folders of all installed PostgreSQLs: the one on the PATH first, then the usual places, the newest version first.
fn bin_dirs() -> Vec<PathBuf> {
    // A shell looks it up, because only config.rs reads environment variables.
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

    // A folder, the start of the names in it, and the rest of the path.
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

/// Returns the real folder of the programs. The PATH may contain a link, beside which the other programs are missing.
fn complete_bin_dir(dir: &Path) -> Option<PathBuf> {
    let real = dir.join("postgres").canonicalize().ok()?.parent()?.to_owned();
    real.join("initdb").is_file().then_some(real)
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
}
