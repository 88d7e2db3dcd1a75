//! The machine's time zone database. A command reads it once, at its start, if it is newer than the built-in one (ADR 026).

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use deadbeat_domain::schedule::zone::data::{self, NotAdopted, Origin, Release};

/// The size in bytes of the largest TZif file that is read. The largest that exists has 4 kB.
const MOST_BYTES: u64 = 64 * 1024;
/// The most files and folders that are read. A whole database has some 1,800.
const MOST_FILES: usize = 10_000;
/// Folders that contain every zone a second time: under another name, or with leap seconds, which our clocks do not count.
const COPIES: [&str; 2] = ["posix", "right"];

/// The result of reading the machine's time zone database. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// The machine's database is in use.
    Machine {
        /// Its folder.
        folder: PathBuf,
        /// The number of its zones.
        zones: usize,
    },
    /// The built-in data are in use, for this reason.
    BuiltIn(String),
}

impl Display for Adopted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = data::release();
        match self {
            Self::Machine { folder, zones } => write!(
                formatter,
                "IANA {release}, {zones} zones of this machine ({}); {} is built in",
                folder.display(),
                data::built_in_release()
            ),
            Self::BuiltIn(why) => write!(formatter, "IANA {release}, built in; {why}"),
        }
    }
}

/// Uses the machine's zones if their release is newer than the built-in one. No fault in them stops a command: the built-in data are always
/// available.
#[must_use]
pub fn adopt(folder: Option<&Path>) -> Adopted {
    let Some(folder) = folder else {
        return Adopted::BuiltIn("DEADBEAT_ZONEINFO is empty".to_owned());
    };
    let shown = folder.display();
    let release = match release_of(folder) {
        Ok(Some(release)) => release,
        Ok(None) => return Adopted::BuiltIn(format!("{shown}/tzdata.zi does not name its release")),
        Err(error) => return Adopted::BuiltIn(format!("{shown}/tzdata.zi cannot be read: {error}")),
    };
    if release <= data::built_in_release() {
        return Adopted::BuiltIn(format!("{shown} has {release}"));
    }
    match data::adopt(release, files_of(folder)) {
        Ok(zones) => Adopted::Machine {
            folder: folder.to_owned(),
            zones,
        },
        // A second command in one process, as in tests.
        Err(NotAdopted::InUse) if data::origin() == Origin::Machine => {
            Adopted::BuiltIn("the machine's were read before".to_owned())
        }
        Err(error) => Adopted::BuiltIn(format!("{shown} is not used: {error}")),
    }
}

/// Returns the release in the first line of `tzdata.zi`, or `None` if the line names none.
fn release_of(folder: &Path) -> std::io::Result<Option<Release>> {
    let mut line = String::new();
    BufReader::new(File::open(folder.join("tzdata.zi"))?.take(256)).read_line(&mut line)?;
    Ok(Release::of_file(&line))
}

/// Returns the names and contents of the TZif files below a folder. Leaves out unreadable files: their zones keep the built-in data.
fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST_FILES {
                tracing::warn!(folder = %folder.display(), "the time zone database has more than {MOST_FILES} files; the rest is left out");
                return files;
            }
            let path = entry.path();
            // Does not follow links to folders, because such a link may lead back up.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let is_copy = next == folder && COPIES.iter().any(|copy| entry.file_name() == *copy);
                if !is_copy {
                    folders.push(path);
                }
            } else if let (Some(name), Some(data)) = (name_of(folder, &path), contents(&path)) {
                files.push((name, data));
            }
        }
    }
    files
}

fn name_of(folder: &Path, path: &Path) -> Option<String> {
    path.strip_prefix(folder).ok()?.to_str().map(str::to_owned)
}

/// Returns the contents of a file that begins like a TZif file (RFC 9636, section 3.1).
fn contents(path: &Path) -> Option<Vec<u8>> {
    // This follows links, because many names are links to one file. It skips named pipes, because opening one would block.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut data = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MOST_BYTES + 1).read_to_end(&mut data).ok()?;
    (data.starts_with(b"TZif") && data.len() as u64 <= MOST_BYTES).then_some(data)
}
